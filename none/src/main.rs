//! The CNI plugin `none`, which also goes by `loopback`: nothing but the container's own
//! loopback interface.

fn main() -> std::process::ExitCode {
    plugins::run::<netcore::driver::None>()
}
