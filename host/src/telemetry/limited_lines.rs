//! Writes at most some lines of each kind within a minute. Boxes and strangers decide how often the host has something
//! to log about them. Every line passes through here, so no part of the host needs a limit of its own.
//!
//! The place in the source makes a kind, together with the code and with whom the line is about: a run, a group or a
//! channel. The host decides how many of these there are. So the lines about one run do not hide those about another.

use std::collections::BTreeMap;
use std::fmt::{self, Debug, Write};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use ipc_schema::text_sanitize::beginning;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use super::log_limiter::LogLimiter;

/// The fields that make a kind.
const WHO: [&str; 4] = ["code", "run", "group", "channel"];
/// The longest of them in a kind's name, and of its message, in characters.
const WHO_CHARS: usize = 60;
const LIKE_CHARS: usize = 100;
/// More kinds than this share one limit.
const KINDS: usize = 4_096;

/// The kinds of lines that were written lately, by name.
#[derive(Debug, Default)]
pub(super) struct Kinds(Mutex<BTreeMap<String, Kind>>);

#[derive(Debug, Default)]
struct Kind {
    limiter: LogLimiter,
    /// The beginning of the first line.
    like: String,
}

impl Kinds {
    pub(super) const fn new() -> Self {
        Self(Mutex::new(BTreeMap::new()))
    }

    fn admits(&self, event: &Event<'_>, now: Instant) -> bool {
        let (mut facts, place) = (Facts::default(), event.metadata());
        event.record(&mut facts);
        let (file, line) = (place.file().unwrap_or_default(), place.line().unwrap_or_default());
        let mut name = format!("{file}:{line}{}", facts.who);
        // A panic while the lock was held does no harm to counters.
        let mut kinds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kinds.len() >= KINDS && !kinds.contains_key(&name) {
            name.clear();
        }
        let kind = kinds.entry(name).or_insert_with(|| Kind {
            limiter: LogLimiter::default(),
            like: format!("{}{}", facts.message, facts.who),
        });
        kind.limiter.turn(now).is_some()
    }

    /// How many lines of each kind were left out, and how they began. Every kind begins anew.
    pub(super) fn left_out(&self) -> Vec<(u64, String)> {
        let kinds = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        let left_out = kinds.into_values().map(|mut kind| (kind.limiter.rest(), kind.like));
        left_out.filter(|(lines, _)| *lines > 0).collect()
    }
}

/// What an event tells about its kind.
#[derive(Debug, Default)]
struct Facts {
    who: String,
    message: String,
}

impl Visit for Facts {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        // Writing to a String cannot fail.
        if WHO.contains(&field.name()) {
            let _ = write!(self.who, " {}={}", field.name(), beginning(&format!("{value:?}"), WHO_CHARS));
        } else if field.name() == "message" {
            self.message = beginning(&format!("{value:?}"), LIKE_CHARS).into_owned();
        }
    }
}

/// Formats the events that their kind admits.
pub(super) struct LimitedLines<F> {
    inner: F,
    kinds: &'static Kinds,
}

impl<F> LimitedLines<F> {
    pub(super) fn new(inner: F, kinds: &'static Kinds) -> Self {
        Self { inner, kinds }
    }
}

impl<S, N, F> FormatEvent<S, N> for LimitedLines<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(&self, ctx: &FmtContext<'_, S, N>, out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        if self.kinds.admits(event, Instant::now()) {
            self.inner.format_event(ctx, out, event)
        } else {
            Ok(())
        }
    }
}
