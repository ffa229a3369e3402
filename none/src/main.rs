//! The CNI plugin `none`, which also goes by `loopback`: nothing but the container's own
//! loopback interface.

#![no_main]

plugins::plugin!(netcore::driver::None);
