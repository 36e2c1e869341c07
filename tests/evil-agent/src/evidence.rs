//! The report of an attack: named facts.

use std::io;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value};

/// Names and values of a report.
pub type Facts = Map<String, Value>;

/// A report of one line.
pub fn fact(name: &str, value: impl Into<Value>) -> Facts {
    let mut facts = Facts::new();
    facts.insert(name.to_owned(), value.into());
    facts
}

/// The same with one line more.
pub fn and(mut facts: Facts, name: &str, value: impl Into<Value>) -> Facts {
    facts.insert(name.to_owned(), value.into());
    facts
}

/// How a call went: 0, or the kernel's error number; -1 for an error that has none.
pub fn errno<T>(result: &io::Result<T>) -> i32 {
    match result {
        Ok(_) => 0,
        Err(e) => e.raw_os_error().unwrap_or(-1),
    }
}

/// The same of rustix's calls.
pub fn code<T>(result: &rustix::io::Result<T>) -> i32 {
    match result {
        Ok(_) => 0,
        Err(e) => e.raw_os_error(),
    }
}

/// Milliseconds since 1970: box and host share a clock.
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(0)
}
