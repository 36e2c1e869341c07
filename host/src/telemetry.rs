//! Logs: one line per event on standard error, each refusal with its code.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::FmtSpan;

/// Starts logging. `LAZARET_LOG` takes a filter such as `debug` or `lazaret=debug,bollard=warn`.
///
/// `quiet` (a chat shares the terminal) shows warnings only, unless the variable says otherwise.
pub fn start(quiet: bool) {
    let default = if quiet { "warn" } else { "info,bollard=warn,hyper=warn" };
    let filter = EnvFilter::try_from_env("LAZARET_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_span_events(FmtSpan::NONE)
        .with_target(false)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()));
    // A second start in one process (tests) keeps the first.
    let _ = logs.try_init();
}
