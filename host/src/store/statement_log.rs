//! Records every statement that a store runs, with the work that it cost, for tests of the statements' plans. A store
//! is recorded if its file is named [`RECORDED`].

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use rusqlite::trace::{TraceEvent, TraceEventCodes};
use rusqlite::{Connection, StatementStatus};

pub(super) const RECORDED: &str = "recorded.db";

/// Each statement with the most instructions of SQLite's machine that one execution took.
pub(super) type Statements = BTreeMap<String, i32>;

static LOG: Mutex<Statements> = Mutex::new(Statements::new());

pub(super) fn listen(c: &Connection) {
    if c.path().is_some_and(|path| path.ends_with(RECORDED)) {
        // A statement from the cache would count its executions together.
        c.set_prepared_statement_cache_capacity(0);
        c.trace_v2(TraceEventCodes::SQLITE_TRACE_PROFILE, Some(ran));
    }
}

fn ran(event: TraceEvent<'_>) {
    if let TraceEvent::Profile(statement, _) = event {
        let mut log = LOG.lock().unwrap_or_else(PoisonError::into_inner);
        let most = log.entry(statement.sql().into_owned()).or_default();
        *most = statement.get_status(StatementStatus::VmStep).max(*most);
    }
}

/// What was recorded since the last call.
pub(super) fn take() -> Statements {
    std::mem::take(&mut *LOG.lock().unwrap_or_else(PoisonError::into_inner))
}
