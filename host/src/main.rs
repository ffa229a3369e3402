//! The CNI plugin `host`: the container has the host's network, its interfaces, addresses and
//! ports.

#![no_main]

plugins::plugin!(netcore::driver::Host);
