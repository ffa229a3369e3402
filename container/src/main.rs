//! The CNI plugin `container`: the container shares the network of another one.

#![no_main]

plugins::plugin!(netcore::driver::Container);
