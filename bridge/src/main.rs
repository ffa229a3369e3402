//! The CNI plugin `bridge`: a Linux bridge on the host, and a veth pair for each container.

#![no_main]

plugins::plugin!(netcore::driver::Bridge);
