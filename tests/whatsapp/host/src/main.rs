//! The host as it is released, but for one check: it takes any server for WhatsApp's.

fn main() -> std::process::ExitCode {
    lazaret_host::main()
}
