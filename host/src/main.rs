//! `lazaret`: see the library.

fn main() -> std::process::ExitCode {
    lazaret_host::main()
}
