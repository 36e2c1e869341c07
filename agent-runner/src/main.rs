//! The `agent-runner` binary. The whole program is in the library.

fn main() -> std::process::ExitCode {
    agent_runner::main()
}
