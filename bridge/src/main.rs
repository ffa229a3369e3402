//! The CNI plugin `bridge`: a Linux bridge on the host, and a veth pair for each container.

fn main() -> std::process::ExitCode {
    plugins::run::<netcore::driver::Bridge>()
}
