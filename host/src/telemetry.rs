//! Logs on standard error, one line per event. `main` starts it before anything else.

mod library_lines;

use std::fmt::Debug;

use ipc_schema::text_sanitize::safe_line;
use tracing::field::Field;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::{self, FmtSpan, Writer};

/// Starts logging. `LAZARET_LOG` takes a filter such as `debug` or `lazaret=debug,bollard=warn`. Without it, `quiet`
/// shows warnings only, because a chat shares the terminal.
pub fn start(quiet: bool) {
    let default = if quiet { "warn" } else { "info,bollard=warn,hyper=warn" };
    let filter = EnvFilter::try_from_env("LAZARET_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .fmt_fields(fields())
        .with_span_events(FmtSpan::NONE)
        .with_target(false)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()));
    // A second start in one process (tests) keeps the first.
    let _ = logs.try_init();
    library_lines::start();
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map_or_else(|| "an unknown place".to_owned(), ToString::to_string);
        let message = panic.payload_as_str().unwrap_or("no message");
        tracing::error!(code = "host.panic", "a fault of Lazaret's own, at {place}: {message}");
    }));
}

/// Writes the message and the fields of an event or a span. Boxes, engines and platforms choose some of these texts, so
/// control characters are escaped here: a text stays on its line and cannot control the terminal.
fn fields() -> impl for<'w> FormatFields<'w> + Send + Sync {
    format::debug_fn(field).delimited(" ")
}

fn field(writer: &mut Writer<'_>, field: &Field, value: &dyn Debug) -> std::fmt::Result {
    let text = safe_line(&format!("{value:?}"));
    match field.name() {
        "message" => writer.write_str(&text),
        name if writer.has_ansi_escapes() => {
            write!(writer, "\u{1b}[3m{name}\u{1b}[0m\u{1b}[2m=\u{1b}[0m{text}")
        }
        name => write!(writer, "{name}={text}"),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn whatever_is_logged_is_one_line() {
        let kept = Kept::default();
        let writer = kept.clone();
        let logs = tracing_subscriber::fmt()
            .fmt_fields(fields())
            .with_writer(move || writer.clone())
            .with_ansi(false)
            .finish();
        let evil = "a\n2026-11-21T16:03:00Z  INFO forged\r\u{1b}[2J\u{9b}2J\u{202e}\u{2028}";
        tracing::subscriber::with_default(logs, || {
            let span = tracing::info_span!("turn", chat = %evil);
            let _inside = span.enter();
            tracing::warn!(run = %evil, said = ?evil, kept = evil, code = "run.failed", "it gave up: {evil}");
        });
        let text = String::from_utf8(kept.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text.lines().count(), 1, "{text}");
        let line = text.trim_end_matches('\n');
        assert!(!line.contains(ipc_schema::text_sanitize::breaks_line), "{line:?}");
        assert!(line.contains(r"it gave up: a\n2026-11-21T16:03:00Z  INFO forged\r\u{1b}[2J"), "{line}");
        assert!(line.contains(r#"code="run.failed""#), "{line}");
    }
}
