//! The CNI plugin `overlay`: a bridge on every node, and a VXLAN tunnel between them.

#![no_main]

plugins::plugin!(netcore::driver::Overlay);
