//! The report of an attack: named facts.

use std::io;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value};

/// The facts of a report, by name.
pub type Facts = Map<String, Value>;

/// Makes a report with one fact.
pub fn fact(name: &str, value: impl Into<Value>) -> Facts {
    let mut facts = Facts::new();
    facts.insert(name.to_owned(), value.into());
    facts
}

/// Adds a fact to a report.
pub fn and(mut facts: Facts, name: &str, value: impl Into<Value>) -> Facts {
    facts.insert(name.to_owned(), value.into());
    facts
}

/// Returns the result of a call: 0, or the kernel's error number, or -1 for an error without a number.
pub fn errno<T>(result: &io::Result<T>) -> i32 {
    match result {
        Ok(_) => 0,
        Err(e) => e.raw_os_error().unwrap_or(-1),
    }
}

/// Like [`errno`], for rustix's calls.
pub fn code<T>(result: &rustix::io::Result<T>) -> i32 {
    match result {
        Ok(_) => 0,
        Err(e) => e.raw_os_error(),
    }
}

/// Returns milliseconds since 1970. The box and the host share a clock.
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(0)
}
