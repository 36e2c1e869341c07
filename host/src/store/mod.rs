//! The host's state in one SQLite file. Every module above this floor calls it.
//!
//! Every public function of [`Store`] is one transaction. A function that writes runs on the one writer thread, which
//! commits waiting callers together; a function that only reads runs on a connection of its own and waits for no write.
//! Nothing outside this module knows SQL, and nothing in it decides what a person is told.
//!
//! `README.md` beside this file describes the tables.

mod adoption;
mod agent_questions;
mod attachments;
mod backup_list;
mod channel_states;
mod chat_events;
mod choices;
mod copy;
mod counters;
#[cfg(test)]
mod delivery_model;
#[cfg(test)]
mod delivery_tests;
mod due_fires;
mod error;
mod fault_reporter;
mod fires;
mod groups;
mod handle;
mod held_and_given_up;
mod history;
mod history_index;
mod inbox;
mod input;
mod letters_from_agent;
mod letters_to_agent;
mod marks;
#[cfg(test)]
mod migration_tests;
mod migrations;
mod model_choice;
mod names;
mod open;
mod outbox;
mod pins;
mod posture_gaps;
mod readers;
mod restore;
mod retention;
mod runs;
mod schema_upgrade;
mod sender_rules;
mod sending;
mod sent_files;
#[cfg(test)]
mod statement_log;
mod status;
mod strangers;
mod tasks;
#[cfg(test)]
mod tests;
mod tool_rules;
mod trace;
mod turns;
mod usage;
mod writer;

pub use adoption::{OpenRequest, RunRow};
pub use agent_questions::{AnswerTaken, Granting, NewQuestion, Suspended};
pub use attachments::Waiting;
pub use backup_list::{copies, made_at, remedy};
pub use channel_states::ChannelState;
pub use chat_events::ChatMoved;
pub use copy::{Copied, back_up, check, messages_in};
pub use error::{Result, StoreError};
pub use fault_reporter::{BALLAST, StoreFaults};
pub use fires::{FireInput, FireRow};
pub use groups::{Admission, AdmissionOrder};
pub use handle::Store;
#[cfg(test)]
pub use history::SaidBy;
pub use history::{OwnChat, Said};
pub use history_index::{Found, HISTORY_INDEX, HistoryIndex, Reach, Wanted};
pub use inbox::{Accepted, CommandRow, Intake};
pub use input::{BeginState, Composed, FileWait, InputLimits, InputState};
pub use letters_from_agent::{Take, Taken, TakenEffect};
pub use letters_to_agent::letter_to_agent;
pub use marks::{MarkState, TakenMark};
pub use open::{damage, known_damage};
pub use posture_gaps::PostureGap;
pub use restore::{Restored, Transcripts, begin_restore, box_users, restore, verify};
pub use retention::Cleared;
pub use runs::NewRun;
pub use sending::NextPart;
pub use sent_files::TURN_OVER;
pub use status::DeliveryCount;
pub use strangers::{KeptMessage, Stranger, StrangerSeen};
pub use tasks::Adding;
pub use trace::{MessageEnd, MessageTrace, OutboxTrace, StageRow};
pub use usage::{Usage, UsageOfDay};

fn audit(
    c: &rusqlite::Connection,
    now: crate::domain::WallMs,
    who: &str,
    what: &str,
    detail: &str,
) -> Result<()> {
    c.execute(
        "INSERT INTO audit(at, who, what, detail) VALUES (?1, ?2, ?3, ?4)",
        rusqlite::params![now.0, who, what, detail],
    )?;
    Ok(())
}

/// Parses a stored text.
fn parse<T: std::str::FromStr>(what: &str, text: &str) -> Result<T>
where
    T::Err: std::fmt::Display,
{
    text.parse().map_err(|e: T::Err| StoreError::Row { what: what.to_owned(), why: e.to_string() })
}

/// The error that SQLite would report in place of a failpoint's.
#[cfg(feature = "failpoints")]
fn injected(error: std::io::Error) -> StoreError {
    use rusqlite::ffi;
    let code = match error.kind() {
        std::io::ErrorKind::StorageFull => ffi::SQLITE_FULL,
        _ if error.raw_os_error().is_some() => ffi::SQLITE_IOERR,
        _ => ffi::SQLITE_BUSY,
    };
    rusqlite::Error::SqliteFailure(ffi::Error::new(code), Some(error.to_string())).into()
}

/// A row id: SQLite's are signed, and Lazaret's are never negative.
fn id(n: i64) -> u64 {
    n.unsigned_abs()
}

/// A number as SQLite stores it.
fn int(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}
