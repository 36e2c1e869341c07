//! The numbers that `lazaret status` and the chat command `/status` show.

use super::held_and_given_up::{self, Held, Unreachable};
use super::outbox::DUE;
use super::{Result, Store, id};
use crate::domain::GroupName;

/// Numbers of the outbox.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeliveryCount {
    /// Rows that are ready or being sent.
    pub waiting: u64,
    /// Rows that will be tried again.
    pub deferred: u64,
    /// Copies that may exist on a platform besides the intended one.
    pub uncertain: u64,
    /// Empty placeholders that may exist there.
    pub strays: u64,
    /// Rows that failed for good.
    pub failed: u64,
    /// Replies that became too old to send.
    pub expired: u64,
    /// Parts that a person must resend or drop.
    pub held: Vec<Held>,
    /// Chats that cannot be reached.
    pub unreachable: Vec<Unreachable>,
}

/// Numbers of the whole store.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Summary {
    pub messages: u64,
    pub turns: Vec<(String, u64)>,
    /// Runs that have not ended.
    pub runs: Vec<(String, String, String)>,
    pub numbers: Vec<(String, i64)>,
    pub delivery: DeliveryCount,
}

impl Store {
    /// Counts the messages that wait for the group's next turn.
    pub async fn count_waiting(&self, group: &GroupName) -> Result<u64> {
        let group = group.to_string();
        self.read(move |c| {
            let sql = "SELECT count(*) FROM message m JOIN chat h ON h.id = m.chat
                       WHERE h.grp = ?1 AND m.role = 'wake' AND m.state = 'waiting'";
            Ok(id(c.query_row(sql, [group], |r| r.get(0))?))
        })
        .await
    }

    /// Numbers for `status`.
    pub async fn summary(&self) -> Result<Summary> {
        self.read(|c| {
            let count = |sql: &str| c.query_row(sql, [], |r| r.get::<_, i64>(0)).map(id);
            let mut turns = c.prepare("SELECT state, count(*) FROM turn GROUP BY state ORDER BY state")?;
            let turns = turns.query_map([], |r| Ok((r.get(0)?, id(r.get(1)?))))?;
            let mut runs = c.prepare("SELECT id, lane, state FROM run WHERE state <> 'ended' ORDER BY id")?;
            let runs = runs.query_map([], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?)))?;
            let mut numbers =
                c.prepare("SELECT name, value FROM number WHERE name <> 'uid' ORDER BY name")?;
            let numbers = numbers.query_map([], |r| Ok((r.get(0)?, r.get(1)?)))?;
            Ok(Summary {
                messages: count("SELECT count(*) FROM message")?,
                turns: turns.collect::<std::result::Result<_, _>>()?,
                runs: runs.collect::<std::result::Result<_, _>>()?,
                numbers: numbers.collect::<std::result::Result<_, _>>()?,
                delivery: DeliveryCount {
                    waiting: count(&format!(
                        "SELECT count(*) FROM outbox WHERE {DUE} AND state IN ('ready', 'sending')"
                    ))?,
                    deferred: count(&format!(
                        "SELECT count(*) FROM outbox WHERE {DUE} AND state IN ('deferred', 'uncertain') AND code IS NULL"
                    ))?,
                    uncertain: count("SELECT coalesce(sum(uncertain), 0) FROM outbox")?,
                    strays: count("SELECT coalesce(sum(strays), 0) FROM outbox")?,
                    failed: count("SELECT count(*) FROM outbox WHERE state = 'failed'")?,
                    expired: count("SELECT count(*) FROM outbox WHERE state = 'expired'")?,
                    held: held_and_given_up::held(c)?,
                    unreachable: held_and_given_up::all_unreachable(c)?,
                },
            })
        })
        .await
    }
}
