//! The numbers that `lazaret status` and the chat command `/status` show.

use std::collections::BTreeMap;

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
            let sql =
                "SELECT count(*) FROM chat h CROSS JOIN message m INDEXED BY message_wakes ON m.chat = h.id
                       WHERE h.grp = ?1 AND m.role = 'wake' AND m.state = 'waiting'";
            Ok(id(c.query_row(sql, [group], |r| r.get(0))?))
        })
        .await
    }

    /// Numbers for `status`. Counts of all rows come from the tally, so that they cost the same whatever its size.
    pub async fn summary(&self) -> Result<Summary> {
        self.read(|c| {
            let count = |sql: &str| c.query_row(sql, [], |r| r.get::<_, i64>(0)).map(id);
            let mut tally = c.prepare("SELECT what, n FROM tally ORDER BY what")?;
            let tally = tally.query_map([], |r| Ok((r.get(0)?, id(r.get(1)?))))?;
            let tally: BTreeMap<String, u64> = tally.collect::<rusqlite::Result<_>>()?;
            let of = |what: &str| tally.get(what).copied().unwrap_or(0);
            let turns = tally.iter().filter_map(|(what, n)| Some((what.strip_prefix("turns ")?.to_owned(), *n)));
            let mut runs = c.prepare("SELECT id, lane, state FROM run INDEXED BY run_live WHERE state <> 'ended' ORDER BY id")?;
            let runs = runs.query_map([], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?)))?;
            let mut numbers =
                c.prepare("SELECT name, value FROM number WHERE name <> 'uid' ORDER BY name")?;
            let numbers = numbers.query_map([], |r| Ok((r.get(0)?, r.get(1)?)))?;
            Ok(Summary {
                messages: of("messages"),
                turns: turns.filter(|(_, n)| *n > 0).collect(),
                runs: runs.collect::<std::result::Result<_, _>>()?,
                numbers: numbers.collect::<std::result::Result<_, _>>()?,
                delivery: DeliveryCount {
                    waiting: count(&format!(
                        "SELECT count(*) FROM outbox INDEXED BY outbox_due WHERE {DUE} AND state IN ('ready', 'sending')"
                    ))?,
                    deferred: count(&format!(
                        "SELECT count(*) FROM outbox INDEXED BY outbox_due
                         WHERE {DUE} AND state IN ('deferred', 'uncertain') AND code IS NULL"
                    ))?,
                    uncertain: of("copies"),
                    strays: of("strays"),
                    failed: of("parts failed"),
                    expired: of("parts expired"),
                    held: held_and_given_up::held(c)?,
                    unreachable: held_and_given_up::all_unreachable(c)?,
                },
            })
        })
        .await
    }
}
