//! The CNI plugin `macvlan`: a share of a link of the host's for each container.

fn main() -> std::process::ExitCode {
    plugins::run::<netcore::driver::Macvlan>()
}
