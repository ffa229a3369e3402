//! The CNI plugin `container`: the container shares the network of another one.

fn main() -> std::process::ExitCode {
    plugins::run::<netcore::driver::Container>()
}
