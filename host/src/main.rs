//! The CNI plugin `host`: the container has the host's network, its interfaces, addresses and
//! ports.

fn main() -> std::process::ExitCode {
    plugins::run::<netcore::driver::Host>()
}
