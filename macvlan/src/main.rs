//! The CNI plugin `macvlan`: a share of a link of the host's for each container.

#![no_main]

plugins::plugin!(netcore::driver::Macvlan);
