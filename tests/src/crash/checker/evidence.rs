//! The input of the checker: a directory with the platform's log, the final database and the driver's counts.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use rusqlite::{Connection, OpenFlags};
use serde::{Deserialize, Serialize};

use crate::crash::platform_log::{self, Line};

/// The database's name in a directory of evidence.
pub const DATABASE: &str = "lazaret.db";
/// How often the model was called for each fire.
pub const CALLS: &str = "calls.json";
/// The driver's counts.
pub const FACTS: &str = "facts.json";

/// Counts that only the driver knows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// How often the driver killed the host, a box or the engine.
    pub kills: u64,
    /// Boxes that the engine still had at the end.
    pub boxes_left: u64,
    /// Hosts that did not come up, although nothing killed them.
    pub start_failures: u64,
    /// How often the simulation stood still at the end and got a new host. If the engine died while it started boxes, a
    /// host waits up to ten minutes before it retries.
    #[serde(default)]
    pub nudges: u64,
    /// Model calls that got a refusal, a cut or odd elements.
    #[serde(default)]
    pub odd: u64,
    /// Up to this time, each planned time of a task must have its fire. In milliseconds since 1970.
    #[serde(default)]
    pub fires_until: i64,
}

#[derive(Debug, Clone, Default)]
pub struct Evidence {
    pub log: Vec<Line>,
    pub facts: Facts,
    /// Messages by chat and platform id.
    pub messages: HashMap<(String, String), Stored>,
    /// The outbox in its order.
    pub outbox: Vec<Outbox>,
    pub tasks: Vec<Task>,
    pub fires: Vec<Fire>,
    /// How often the model was called for each fire, by its id as the model saw it.
    pub calls: BTreeMap<String, u64>,
    /// Tasks, fires, turns, runs, messages and parts that are not done, in words.
    pub unfinished: Vec<String>,
    /// Damage that SQLite's checks found.
    pub damage: Vec<String>,
}

#[derive(Debug, Clone, Default)]
pub struct Stored {
    pub seq: i64,
    /// The turn that took it.
    pub turn: Option<i64>,
    /// The outcome of a command.
    pub outcome: Option<String>,
}

#[derive(Debug, Clone, Default)]
pub struct Task {
    pub id: i64,
    pub chat: String,
    pub remind: bool,
    pub prompt: String,
    pub schedule: String,
    pub silent: bool,
    pub created_at: i64,
}

#[derive(Debug, Clone, Default)]
pub struct Fire {
    pub id: i64,
    pub task: i64,
    pub planned: i64,
    pub outcome: Option<String>,
    /// The answer of a silent task.
    pub said: Option<String>,
    /// How many turns it has caused.
    pub turns: i64,
}

#[derive(Debug, Clone, Default)]
pub struct Outbox {
    pub id: i64,
    pub chat: String,
    /// Whether it is a notice.
    pub notice: bool,
    pub turn: Option<i64>,
    /// What the row is within its turn, such as `notice:end`.
    pub key: String,
    pub text: String,
    /// The platform's id of the message.
    pub receipt: Option<String>,
    /// How often it may have arrived without a receipt.
    pub uncertain: u64,
    /// Whether a person had it resent, which moves it behind later parts.
    pub resent: bool,
}

impl Outbox {
    /// Returns the fire whose reminder the row is.
    pub fn reminder(&self) -> Option<i64> {
        self.key.strip_prefix("reminder:f-")?.parse().ok()
    }

    /// Returns whether the row announces the end of its turn. A notice about a late box or a wait for a slot does not.
    pub fn ends(&self) -> bool {
        matches!(self.key.as_str(), "notice:end" | "notice:silent")
    }
}

/// The evidence cannot be read.
#[derive(Debug)]
pub struct NoEvidence(String);

impl std::fmt::Display for NoEvidence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for NoEvidence {}

impl From<rusqlite::Error> for NoEvidence {
    fn from(e: rusqlite::Error) -> Self {
        Self(format!("the database cannot be read: {e}"))
    }
}

impl Evidence {
    /// Reads a directory. The error names the part that is missing or cannot be read.
    pub fn read(dir: &Path) -> Result<Self, NoEvidence> {
        let missing =
            |name: &str, e: &dyn std::fmt::Display| NoEvidence(format!("{}: {e}", dir.join(name).display()));
        let log = platform_log::read(dir).map_err(|e| missing(platform_log::FILE, &e))?;
        let facts = std::fs::read(dir.join(FACTS)).map_err(|e| missing(FACTS, &e))?;
        let facts = serde_json::from_slice(&facts).map_err(|e| missing(FACTS, &e))?;
        let calls = match std::fs::read(dir.join(CALLS)) {
            Ok(calls) => serde_json::from_slice(&calls).map_err(|e| missing(CALLS, &e))?,
            // Evidence from before there were tasks.
            Err(_) => BTreeMap::new(),
        };
        let path = dir.join(DATABASE);
        // The database is opened for writing, so that SQLite replays the WAL of a killed host, as it would for the next
        // host.
        let database = Connection::open_with_flags(&path, OpenFlags::SQLITE_OPEN_READ_WRITE)
            .map_err(|e| missing(DATABASE, &e))?;
        Ok(Self {
            log,
            facts,
            messages: messages(&database)?,
            outbox: outbox(&database)?,
            tasks: tasks(&database)?,
            fires: fires(&database)?,
            calls,
            unfinished: unfinished(&database)?,
            damage: damage(&database)?,
        })
    }
}

fn messages(c: &Connection) -> rusqlite::Result<HashMap<(String, String), Stored>> {
    let mut rows = c.prepare("SELECT chat, message_id, seq, turn, outcome FROM message")?;
    let rows = rows.query_map([], |r| {
        Ok(((r.get(0)?, r.get(1)?), Stored { seq: r.get(2)?, turn: r.get(3)?, outcome: r.get(4)? }))
    })?;
    rows.collect()
}

fn outbox(c: &Connection) -> rusqlite::Result<Vec<Outbox>> {
    let sql = "SELECT id, chat, voice = 'notice', turn, key, text, receipt, uncertain, way = 'hold' FROM outbox ORDER BY id";
    let mut rows = c.prepare(sql)?;
    let rows = rows.query_map([], |r| {
        Ok(Outbox {
            id: r.get(0)?,
            chat: r.get(1)?,
            notice: r.get(2)?,
            turn: r.get(3)?,
            key: r.get(4)?,
            text: r.get(5)?,
            receipt: r.get(6)?,
            uncertain: r.get::<_, i64>(7)?.unsigned_abs(),
            resent: r.get::<_, Option<bool>>(8)?.unwrap_or(false) && r.get::<_, i64>(7)? > 0,
        })
    })?;
    rows.collect()
}

fn tasks(c: &Connection) -> rusqlite::Result<Vec<Task>> {
    let sql = "SELECT id, chat, remind, prompt, schedule, silent, created_at FROM task ORDER BY id";
    let mut rows = c.prepare(sql)?;
    let rows = rows.query_map([], |r| {
        Ok(Task {
            id: r.get(0)?,
            chat: r.get(1)?,
            remind: r.get(2)?,
            prompt: r.get(3)?,
            schedule: r.get(4)?,
            silent: r.get(5)?,
            created_at: r.get(6)?,
        })
    })?;
    rows.collect()
}

fn fires(c: &Connection) -> rusqlite::Result<Vec<Fire>> {
    let sql = "SELECT f.id, f.task, f.planned, f.outcome, f.said, coalesce(t.turns, 0) FROM fire f
               LEFT JOIN (SELECT fire, count(*) AS turns FROM turn GROUP BY fire) t ON t.fire = f.id ORDER BY f.id";
    let mut rows = c.prepare(sql)?;
    let rows = rows.query_map([], |r| {
        Ok(Fire {
            id: r.get(0)?,
            task: r.get(1)?,
            planned: r.get(2)?,
            outcome: r.get(3)?,
            said: r.get(4)?,
            turns: r.get(5)?,
        })
    })?;
    rows.collect()
}

/// Describes the unfinished work in the database.
pub fn unfinished(c: &Connection) -> rusqlite::Result<Vec<String>> {
    let sql = "SELECT 'turn t-' || id || ' of ' || lane || ' is open' FROM turn WHERE state = 'open'
         UNION ALL SELECT 'task task-' || id || ' is active' FROM task WHERE state = 'active'
         UNION ALL SELECT 'fire f-' || id || ' of task-' || task || ' is ' || state FROM fire WHERE state <> 'ended'
         UNION ALL SELECT 'run ' || id || ' is ' || state FROM run WHERE state <> 'ended'
         UNION ALL SELECT 'message m-' || seq || ' is ' || state FROM message WHERE role <> 'context' AND state <> 'done'
         UNION ALL SELECT 'part ' || id || ' in ' || chat || ' is ' || state FROM outbox
                   WHERE state NOT IN ('sent', 'failed', 'expired')
         UNION ALL SELECT 'request ' || id || ' of t-' || turn || ' has no verdict' FROM request r
                   WHERE verdict IS NULL AND EXISTS (SELECT 1 FROM turn t WHERE t.id = r.turn AND t.state = 'open')";
    let mut rows = c.prepare(sql)?;
    let rows = rows.query_map([], |r| r.get(0))?;
    rows.collect()
}

fn damage(c: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut rows = c.prepare("PRAGMA integrity_check")?;
    let rows = rows.query_map([], |r| r.get::<_, String>(0))?;
    let mut found: Vec<String> = rows.collect::<rusqlite::Result<_>>()?;
    found.retain(|line| line != "ok");
    let mut rows = c.prepare("PRAGMA foreign_key_check")?;
    let rows =
        rows.query_map([], |r| Ok(format!("a row of {} refers to nothing", r.get::<_, String>(0)?)))?;
    found.extend(rows.collect::<rusqlite::Result<Vec<String>>>()?);
    Ok(found)
}
