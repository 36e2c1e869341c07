//! Writes the warnings and errors of libraries that use the crate `log` into the host's own log. Their lines of lower
//! levels stay out: some hold secret codes, people's names or whole messages of a protocol.
//!
//! A stranger can cause some warnings, so of each line of a library's source the log gets one warning a minute. The
//! next one says how many were left out.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use log::{Level, LevelFilter, Log, Metadata, Record};

const PAUSE: Duration = Duration::from_secs(60);
/// A line has at most this many characters.
const LONGEST: usize = 300;

/// A place in the source of a library.
type Place = (&'static str, u32);

#[derive(Debug, Default)]
struct Lines(Mutex<HashMap<Place, (Instant, u64)>>);

/// Starts to pass lines on.
pub(super) fn start() {
    // A second start in one process (tests) keeps the first.
    if log::set_boxed_logger(Box::new(Lines::default())).is_ok() {
        log::set_max_level(LevelFilter::Warn);
    }
}

impl Lines {
    /// Returns how many lines of this place were left out since the last one; `None` if this one is left out too.
    fn admit(&self, place: Place, now: Instant) -> Option<u64> {
        // Every use leaves the map consistent, so a poisoned lock is safe to use.
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match seen.get_mut(&place) {
            Some((last, left_out)) if now.saturating_duration_since(*last) < PAUSE => {
                *left_out += 1;
                None
            }
            _ => Some(seen.insert(place, (now, 0)).map_or(0, |(_, left_out)| left_out)),
        }
    }
}

impl Log for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= Level::Warn
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let place = (record.file_static().unwrap_or_default(), record.line().unwrap_or_default());
        let Some(left_out) = self.admit(place, Instant::now()) else { return };
        let mut text = without_secrets(&record.args().to_string());
        if left_out > 0 {
            text += &format!(" ({left_out} more such lines were left out)");
        }
        let library = record.module_path().unwrap_or_default().split("::").next().unwrap_or_default();
        // What a library calls an error is one for its own work. The host says itself what it means for people.
        if record.level() == Level::Error {
            tracing::warn!(code = "library.error", library, "{text}");
        } else {
            tracing::info!(code = "library.warning", library, "{text}");
        }
    }

    fn flush(&self) {}
}

/// Returns the beginning of a line, without what may hold a key: addresses (a media server's has a token in it) and
/// stanzas.
fn without_secrets(text: &str) -> String {
    let text = text.split_once('<').map_or(text, |(words, _)| words);
    let word = |word: &'_ str| {
        word.split_once("://").map_or_else(|| word.to_owned(), |(scheme, _)| format!("{scheme}://…"))
    };
    let text = text.split_whitespace().map(word).collect::<Vec<_>>().join(" ");
    text.chars().take(LONGEST).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_can_flood_the_log_through_a_library() {
        let (lines, start) = (Lines::default(), Instant::now());
        assert_eq!(lines.admit(("message.rs", 7), start), Some(0));
        for ms in 1..=1_000 {
            assert_eq!(lines.admit(("message.rs", 7), start + Duration::from_millis(ms)), None);
        }
        assert_eq!(lines.admit(("message.rs", 8), start), Some(0), "another place has its own line");
        assert_eq!(lines.admit(("message.rs", 7), start + PAUSE), Some(1_000));
        assert_eq!(lines.admit(("message.rs", 7), start + 2 * PAUSE), Some(0));
    }

    #[test]
    fn a_line_tells_no_address_and_no_stanza() {
        let line = "Failed to download from URL https://mmg.example.net/v/x?auth=1&token=2: status 500";
        assert_eq!(without_secrets(line), "Failed to download from URL https://… status 500");
        assert_eq!(without_secrets("unexpected: <failure appeal_token=\"7\"/>"), "unexpected:");
        assert_eq!(without_secrets(&"word ".repeat(100)).len(), LONGEST);
    }

    #[test]
    fn lines_below_a_warning_stay_out() {
        let enabled = |level| Lines::default().enabled(&Metadata::builder().level(level).build());
        assert!(enabled(Level::Error) && enabled(Level::Warn));
        assert!(!enabled(Level::Info) && !enabled(Level::Debug));
    }
}
