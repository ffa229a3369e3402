//! Ours and the reference side by side.
fn main() {}
