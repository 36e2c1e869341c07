//! Logs on standard error, one line per event. `main` starts it before anything else.

mod library_lines;
mod limited_lines;
mod log_limiter;

use std::fmt::Debug;

use ipc_schema::text_sanitize::{beginning, safe_line};
use tracing::field::Field;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::{self, FmtSpan, Writer};

use limited_lines::{Kinds, LimitedLines};
pub use log_limiter::LogLimiter;

/// The kinds of lines of this process's log.
static KINDS: Kinds = Kinds::new();
/// The longest message, and the longest field, in characters.
const MESSAGE: usize = 1_000;
const FIELD: usize = 500;

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
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .map_event_format(|format| LimitedLines::new(format, &KINDS));
    // A second start in one process (tests) keeps the first.
    let _ = logs.try_init();
    library_lines::start();
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map_or_else(|| "an unknown place".to_owned(), ToString::to_string);
        let message = panic.payload_as_str().unwrap_or("no message");
        tracing::error!(code = "host.panic", "a fault of Lazaret's own, at {place}: {message}");
    }));
}

/// Logs how many lines of each kind were left out since the last call. The host calls it every minute and at its end.
pub fn log_left_out() {
    for (lines, like) in KINDS.left_out() {
        tracing::warn!(code = "log.left_out", lines, "more lines like this one were left out: {like}");
    }
}

/// Writes the message and the fields of an event or a span. Boxes, engines and platforms choose some of these texts, so
/// long ones are cut and control characters are escaped here: a text stays on its line and cannot control the terminal.
fn fields() -> impl for<'w> FormatFields<'w> + Send + Sync {
    format::debug_fn(field).delimited(" ")
}

fn field(writer: &mut Writer<'_>, field: &Field, value: &dyn Debug) -> std::fmt::Result {
    let text = safe_line(&format!("{value:?}"));
    let text = beginning(&text, if field.name() == "message" { MESSAGE } else { FIELD });
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

    use tracing::subscriber::with_default;

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

    /// What the host's log holds after `log`, and the kinds of its lines.
    fn logged(log: impl FnOnce()) -> (String, &'static Kinds) {
        let kept = Kept::default();
        let kinds: &'static Kinds = Box::leak(Box::default());
        let writer = kept.clone();
        let logs = tracing_subscriber::fmt()
            .fmt_fields(fields())
            .with_writer(move || writer.clone())
            .with_ansi(false)
            .map_event_format(|format| LimitedLines::new(format, kinds))
            .finish();
        with_default(logs, log);
        let text = String::from_utf8(kept.0.lock().unwrap().clone()).unwrap();
        (text, kinds)
    }

    #[test]
    fn whatever_is_logged_is_one_line() {
        let evil = "a\n2026-11-21T16:03:00Z  INFO forged\r\u{1b}[2J\u{9b}2J\u{202e}\u{2028}";
        let (text, _) = logged(|| {
            let span = tracing::info_span!("turn", chat = %evil);
            let _inside = span.enter();
            tracing::warn!(run = %evil, said = ?evil, kept = evil, code = "run.failed", "it gave up: {evil}");
        });
        assert_eq!(text.lines().count(), 1, "{text}");
        let line = text.trim_end_matches('\n');
        assert!(!line.contains(ipc_schema::text_sanitize::breaks_line), "{line:?}");
        assert!(line.contains(r"it gave up: a\n2026-11-21T16:03:00Z  INFO forged\r\u{1b}[2J"), "{line}");
        assert!(line.contains(r#"code="run.failed""#), "{line}");
    }

    /// Lines as boxes and strangers cause them, each with the longest texts that they can choose.
    #[test]
    fn g4_nobody_fills_the_operators_log() {
        let long = "x\u{1b}".repeat(100_000);
        type Logs = fn(u32, &str);
        let kinds: [(&str, Logs); 8] = [
            ("ready", |_, long| tracing::info!(run = "r-1", runner = long, "the box is ready")),
            ("refused letter", |n, long| {
                tracing::warn!(run = "r-1", code = "ipc.ack", "{n}-message.json refused: {long}");
            }),
            ("file", |_, long| tracing::warn!(run = "r-1", code = "ipc.name", "{long} refused: no name")),
            ("request", |n, long| tracing::info!(run = "r-1", turn = n, "request {long}: done")),
            ("flood", |n, _| tracing::warn!(run = "r-1", code = "ipc.gap", "letters {n} to {n} never came")),
            ("stranger", |n, _| tracing::info!(chat = n, code = "chat.unknown", "a chat wrote")),
            ("group gone", |n, _| tracing::warn!(chat = n, group = "old", code = "group.gone", "no folder")),
            ("press", |n, long| tracing::info!(chat = n, sender = long, code = "press.unknown", "a press")),
        ];
        for (name, kind) in kinds {
            let (text, kinds) = logged(|| (0..10_000).for_each(|n| kind(n, &long)));
            let (lines, bytes) = (text.lines().count(), text.len());
            println!("10,000 times {name}: {lines} lines, {bytes} bytes");
            assert_eq!(lines, 20, "{name}");
            assert!(bytes < 64 << 10, "{name}: {bytes} bytes");
            let (left_out, like) = kinds.left_out().pop().unwrap();
            assert_eq!(left_out, 9_980, "{name}");
            assert!(like.chars().count() < 400, "{like}");
            assert_eq!(kinds.left_out(), [], "said once");
        }
    }

    #[test]
    fn the_lines_of_one_run_do_not_hide_those_of_another_nor_other_codes() {
        let (text, _) = logged(|| {
            for n in 0..100 {
                let (run, code) = (["r-1", "r-2"][n % 2], ["ipc.json", "ipc.schema"][n / 2 % 2]);
                tracing::warn!(run, code, "refused");
            }
        });
        assert_eq!(text.lines().count(), 4 * 20);
    }
}
