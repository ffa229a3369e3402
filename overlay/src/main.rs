//! The CNI plugin `overlay`: a bridge on every node, and a VXLAN tunnel between them.

fn main() -> std::process::ExitCode {
    plugins::run::<netcore::driver::Overlay>()
}
