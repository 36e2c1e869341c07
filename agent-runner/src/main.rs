//! The program inside the box: see the library.

fn main() -> std::process::ExitCode {
    agent_runner::main()
}
