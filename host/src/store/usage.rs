//! Model calls with their tokens and cost. The gateway adds one row per call.

use std::time::Duration;

use rusqlite::params;

use super::{Result, Store, id, int};
use crate::domain::{GroupName, RunId, TurnId, WallMs, Zone};

/// The usage of one model call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Usage {
    pub run: RunId,
    /// The group that pays.
    pub group: GroupName,
    /// The turn that was open when the call began, if one was.
    pub turn: Option<TurnId>,
    /// The provider of the last attempt.
    pub provider: String,
    /// The model of the last attempt.
    pub model: String,
    /// Input tokens that the provider neither read from its cache nor wrote to it.
    pub input: u64,
    pub output: u64,
    pub cache_read: u64,
    pub cache_write: u64,
    /// The cost in micro-dollars; `None` when the model's price is not known.
    pub cost_micros: Option<u64>,
    /// Whether the counts are estimates, because the provider sent none or was cut off.
    pub estimated: bool,
    /// 200 for a whole answer; 499 when the runner hung up or the run ended; 502 when the answer was cut after its
    /// first byte; otherwise the status of the error that the runner received.
    pub status: u16,
    /// From the whole request to the last byte of the answer.
    pub took: Duration,
    /// The group's time zone, in which the day of the call is counted.
    pub zone: Zone,
}

/// What one sender's calls of one model used in a day of the group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageOfDay {
    /// As `2026-11-30`.
    pub day: String,
    pub model: String,
    /// The person; empty for tasks.
    pub sender: String,
    pub sender_name: String,
    pub calls: u64,
    /// With what the provider's cache read and wrote.
    pub input: u64,
    pub output: u64,
    /// Of the calls that have a price.
    pub micros: u64,
    /// Calls without a price.
    pub unpriced: u64,
}

impl Store {
    /// Adds a model call that ended at `at`.
    pub async fn add_usage(&self, u: Usage, at: WallMs) -> Result<()> {
        self.write(move |c| {
            let sql =
                "INSERT INTO usage VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)";
            c.execute(
                sql,
                params![
                    u.run.as_str(),
                    u.turn.map(|t| int(t.0)),
                    u.group.as_str(),
                    u.provider,
                    u.model,
                    int(u.input),
                    int(u.output),
                    int(u.cache_read),
                    int(u.cache_write),
                    u.cost_micros.map(int),
                    u.estimated,
                    u.status,
                    u64::try_from(u.took.as_millis()).map_or(i64::MAX, int),
                    at.0
                ],
            )?;
            let sql = "INSERT INTO usage_day
                       SELECT ?1, ?2, ?3, ?4, coalesce(max(m.sender), ''), coalesce(max(m.sender_name), ''), 1, ?6, ?7,
                              coalesce(?8, 0), ?8 IS NULL
                       FROM message m WHERE m.seq = (SELECT max(seq) FROM message WHERE turn = ?5 AND role = 'wake')
                       ON CONFLICT(grp, day, provider, model, sender) DO UPDATE SET
                         sender_name = excluded.sender_name, calls = calls + 1, input = input + excluded.input,
                         output = output + excluded.output, micros = micros + excluded.micros,
                         unpriced = unpriced + excluded.unpriced";
            let input = u.input.saturating_add(u.cache_read).saturating_add(u.cache_write);
            c.prepare_cached(sql)?.execute(params![
                u.group.as_str(),
                at.day(&u.zone),
                u.provider,
                u.model,
                u.turn.map(|t| int(t.0)),
                int(input),
                int(u.output),
                u.cost_micros.map(int)
            ])?;
            Ok(())
        })
        .await
    }

    /// What a group has used since a day, by day, model and sender.
    pub async fn usage_since(&self, group: GroupName, day: String) -> Result<Vec<UsageOfDay>> {
        self.read(move |c| {
            let sql = "SELECT day, model, sender, sender_name, calls, input, output, micros, unpriced FROM usage_day
                       WHERE grp = ?1 AND day >= ?2";
            let mut rows = c.prepare_cached(sql)?;
            let rows = rows.query_map(params![group.as_str(), day], |r| {
                Ok(UsageOfDay {
                    day: r.get(0)?,
                    model: r.get(1)?,
                    sender: r.get(2)?,
                    sender_name: r.get(3)?,
                    calls: id(r.get(4)?),
                    input: id(r.get(5)?),
                    output: id(r.get(6)?),
                    micros: id(r.get(7)?),
                    unpriced: id(r.get(8)?),
                })
            })?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })
        .await
    }
}
