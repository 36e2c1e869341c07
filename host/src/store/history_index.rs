//! The index of what was said in chats: a SQLite file of its own beside the database, which can be deleted at any time.
//! The action `search_history` asks it, and the nightly work brings it up to date.
//!
//! It costs a message nothing: no message is written to it when it comes. [`HistoryIndex::catch_up`] reads what is new
//! from the store's readers, in batches, the newest first, so that a long history can be searched before it is indexed
//! to its beginning. The index holds terms, times and places, and no text: `history.rs` reads the text of what was
//! found, and decides again whose it is. A damaged file is made anew.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ipc_schema::search_terms::{TOKENIZER, index_text, match_expression};
use rusqlite::{
    Connection, ErrorCode, OpenFlags, OptionalExtension, ToSql, Transaction, TransactionBehavior, params,
};

use super::history::{From, OwnChat, SaidKey, Table, ToIndex};
use super::{Result, Store, StoreError};
use crate::domain::{ChatId, GroupName, WallMs};
use crate::host_files;

/// Marks the file, and the way in which terms are made: another number is another index. ("LzH" and a count.)
const FORMAT: i32 = 0x4c_7a_48_01;
/// How long a search waits for a batch that is being written.
const BUSY_TIMEOUT: Duration = Duration::from_secs(2);

/// The handle. Cheap to clone. The file is opened by the first use.
#[derive(Debug, Clone)]
pub struct HistoryIndex {
    path: Arc<Path>,
    /// The connection that writes.
    writer: Arc<Mutex<Option<Connection>>>,
}

/// What is looked for.
#[derive(Debug, Clone)]
pub struct Wanted {
    pub group: GroupName,
    /// The group's chats.
    pub own: Vec<OwnChat>,
    /// Only this one of them.
    pub chat: Option<ChatId>,
    /// Words; without any, everything of the time.
    pub query: Option<String>,
    /// The first instant.
    pub from: WallMs,
    /// The instant behind the last one.
    pub to: WallMs,
    /// Leaves out so many.
    pub skip: u32,
    /// At most so many.
    pub count: u32,
}

/// What was found: with a query the best first, else the oldest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    pub keys: Vec<SaidKey>,
    /// How many there are in all.
    pub total: u64,
}

/// What is indexed: everything, if both are `None`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reach {
    /// Nothing older can be found yet.
    pub back_to: Option<WallMs>,
    /// Nothing newer can be found yet.
    pub up_to: Option<WallMs>,
}

/// How far a table is indexed: from `lo` to `hi`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Progress {
    table: Table,
    lo: i64,
    /// `None` before the first row.
    hi: Option<i64>,
    /// When the row `lo` was said.
    back_to: i64,
    /// Whether nothing is older than `lo`.
    whole: bool,
}

/// The file's name, beside the database.
pub const HISTORY_INDEX: &str = "history-index.db";

/// One transaction adds rows for about this long.
const SLICE: Duration = Duration::from_millis(500);

impl HistoryIndex {
    /// `path` is [`HISTORY_INDEX`] beside the database.
    pub fn new(path: &Path) -> Self {
        Self { path: path.into(), writer: Arc::default() }
    }

    /// Indexes what is new, and then what is old, for about as long as `limit`. Returns what is indexed.
    ///
    /// # Errors
    /// The store's, and those of the index's file. A damaged index is no error.
    pub async fn catch_up(&self, store: &Store, limit: Duration) -> Result<Reach> {
        let began = Instant::now();
        self.follow_moved_chats(store).await?;
        loop {
            let all = |c: &mut Connection| Table::BOTH.iter().map(|table| progress_of(c, *table)).collect();
            let progress: Vec<Progress> = self.write(all).await?;
            let mut reach = Reach::default();
            for at in &progress {
                let Some(hi) = at.hi else { continue };
                let rows = store.said_from(at.table, From::After(hi)).await?;
                reach.up_to = rows.last().map(|row| WallMs(row.at)).into_iter().chain(reach.up_to).min();
                self.add(*at, rows, true).await?;
            }
            let oldest = progress.iter().filter(|at| !at.whole).max_by_key(|at| at.back_to);
            reach.back_to = oldest.map(|at| WallMs(at.back_to));
            // At first nobody knows how far back a table goes.
            let known = oldest.is_none_or(|at| at.back_to < i64::MAX);
            if reach == Reach::default() || known && began.elapsed() >= limit {
                return Ok(reach);
            }
            if let Some(at) = oldest.filter(|_| reach.up_to.is_none()) {
                let rows = store.said_from(at.table, From::Before(at.lo)).await?;
                self.add(*at, rows, false).await?;
            }
        }
    }

    /// Looks something up. What was said since the last [`Self::catch_up`] is not found.
    ///
    /// # Errors
    /// When the file cannot be read. A damaged one is removed: the next [`Self::catch_up`] makes it anew.
    pub async fn search(&self, wanted: Wanted) -> Result<Found> {
        let (this, path) = (self.clone(), Arc::clone(&self.path));
        host_files::blocking(move || {
            // A connection of its own: a search waits for no batch, and another group's search for none of this one.
            let found = opened(&path).and_then(|c| found(&c, &wanted));
            found.map_err(|e| {
                if is_damage(&e) {
                    this.remove();
                }
                StoreError::from(e)
            })
        })
        .await
    }

    async fn follow_moved_chats(&self, store: &Store) -> Result<()> {
        let known = self
            .write(|c| {
                let sql = "SELECT n, name, (SELECT key FROM entry WHERE chat = n LIMIT 1) FROM place
                           WHERE instr(name, ':') > 0";
                let mut rows = c.prepare_cached(sql)?;
                let rows = rows.query_map([], |r| {
                    Ok((r.get::<_, i64>(0)?, r.get::<_, String>(1)?, r.get::<_, Option<i64>>(2)?))
                })?;
                rows.collect::<rusqlite::Result<Vec<_>>>()
            })
            .await?;
        for (place, name, key) in known {
            let Some(key) = key else { continue };
            let now = store.chat_of_said(SaidKey(key)).await?;
            if let Some(now) = now.filter(|now| *now != name) {
                let rename = "UPDATE place SET name = ?2 WHERE n = ?1";
                self.write(move |c| c.execute(rename, params![place, now]).map(drop)).await?;
            }
        }
        Ok(())
    }

    /// Adds rows next to those that are indexed, unless another search has done it meanwhile.
    async fn add(&self, at: Progress, rows: Vec<ToIndex>, after: bool) -> Result<()> {
        if after && rows.is_empty() {
            return Ok(());
        }
        self.write(move |c| {
            let tx = c.transaction_with_behavior(TransactionBehavior::Immediate)?;
            if progress_of(&tx, at.table)? != at {
                return Ok(());
            }
            let began = Instant::now();
            let mut done = 0;
            for row in &rows {
                add_row(&tx, at.table, row)?;
                done += 1;
                // Long texts take long, and a person who writes `/stop` waits for this.
                if began.elapsed() > SLICE {
                    break;
                }
            }
            let rows = &rows[..done];
            let last = rows.last().map(|row| (row.row, row.at));
            let first = rows.first().map_or(0, |row| row.row);
            let (lo, hi, back_to, whole) = match last {
                Some((hi, _)) if after => (at.lo, hi, at.back_to, at.whole),
                Some((lo, back_to)) => (lo, at.hi.unwrap_or(first), back_to, false),
                None => (at.lo, at.hi.unwrap_or(0), at.back_to, true),
            };
            let sql =
                "INSERT OR REPLACE INTO progress(name, lo, hi, back_to, whole) VALUES (?1, ?2, ?3, ?4, ?5)";
            tx.execute(sql, params![at.table.name(), lo, hi, back_to, whole])?;
            tx.commit()
        })
        .await
    }

    /// Runs `work` on the connection that writes. A damaged file is made anew, and `work` runs again.
    async fn write<T: Send + 'static>(
        &self,
        work: impl Fn(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T> {
        let this = self.clone();
        host_files::blocking(move || {
            let mut writer = this.writer.lock().unwrap_or_else(PoisonError::into_inner);
            let mut attempt = || {
                let mut c = writer.take().map_or_else(|| opened(&this.path), Ok)?;
                let done = work(&mut c)?;
                *writer = Some(c);
                Ok(done)
            };
            let done = attempt().or_else(|e| {
                if !is_damage(&e) {
                    return Err(e);
                }
                tracing::warn!(code = "history.damaged", "the history index is made anew: {e}");
                this.discard(&mut None);
                attempt()
            });
            done.map_err(StoreError::from)
        })
        .await
    }

    /// Removes the file. The next [`Self::catch_up`] makes it anew.
    pub fn remove(&self) {
        self.discard(&mut self.writer.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn discard(&self, writer: &mut Option<Connection>) {
        *writer = None;
        for ending in ["", "-wal", "-shm", "-journal"] {
            let path = host_files::beside(&self.path, ending);
            if let Err(e) = host_files::remove(&path) {
                tracing::warn!(code = "history.file", "{} stays: {e}", path.display());
            }
        }
    }
}

/// Whether the file is not what it should be. Otherwise it only cannot be used now.
fn is_damage(e: &rusqlite::Error) -> bool {
    use ErrorCode::{DatabaseCorrupt, NotADatabase, TypeMismatch, Unknown};
    // Unknown: a table or a column is missing. Without a code, a value has another type than expected.
    matches!(e.sqlite_error_code(), None | Some(DatabaseCorrupt | NotADatabase | TypeMismatch | Unknown))
}

fn opened(path: &Path) -> rusqlite::Result<Connection> {
    let flags =
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut c = Connection::open_with_flags(path, flags)?;
    c.busy_timeout(BUSY_TIMEOUT)?;
    // It can be built again, so nothing waits for the disk.
    c.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF; PRAGMA temp_store = MEMORY;")?;
    let format = |c: &Connection| c.query_row("PRAGMA application_id", [], |r| r.get::<_, i32>(0));
    if format(&c)? == FORMAT {
        return Ok(c);
    }
    let tx = c.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let empty: bool = tx.query_row("SELECT count(*) = 0 FROM sqlite_schema", [], |r| r.get(0))?;
    if empty {
        tx.execute_batch(&format!(
            "CREATE TABLE progress(name TEXT PRIMARY KEY, lo INTEGER, hi INTEGER, back_to INTEGER, whole INTEGER)
                STRICT;
             CREATE TABLE place(n INTEGER PRIMARY KEY, name TEXT NOT NULL) STRICT;
             CREATE INDEX place_name ON place(name);
             CREATE TABLE entry(key INTEGER PRIMARY KEY, chat INTEGER NOT NULL, grp INTEGER, at INTEGER NOT NULL,
                                stored_at INTEGER NOT NULL) STRICT;
             CREATE INDEX entry_at ON entry(at, chat, grp, stored_at);
             CREATE INDEX entry_chat ON entry(chat);
             CREATE VIRTUAL TABLE terms USING fts5(words, places, content='', contentless_delete=1,
                                                   tokenize='{TOKENIZER}');
             PRAGMA application_id = {FORMAT};"
        ))?;
    } else if format(&tx)? != FORMAT {
        let not_ours = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_NOTADB);
        return Err(rusqlite::Error::SqliteFailure(not_ours, None));
    }
    tx.commit()?;
    Ok(c)
}

fn progress_of(c: &Connection, table: Table) -> rusqlite::Result<Progress> {
    let sql = "SELECT lo, hi, back_to, whole FROM progress WHERE name = ?1";
    let row = c.prepare_cached(sql)?.query_row([table.name()], |r| {
        Ok(Progress { table, lo: r.get(0)?, hi: r.get(1)?, back_to: r.get(2)?, whole: r.get(3)? })
    });
    let none = Progress { table, lo: i64::MAX, hi: None, back_to: i64::MAX, whole: false };
    Ok(row.optional()?.unwrap_or(none))
}

fn add_row(tx: &Transaction<'_>, table: Table, row: &ToIndex) -> rusqlite::Result<()> {
    for old in row.earlier.iter().chain([&row.row]) {
        let SaidKey(key) = table.key(*old);
        if tx.prepare_cached("DELETE FROM entry WHERE key = ?1")?.execute([key])? > 0 {
            tx.prepare_cached("DELETE FROM terms WHERE rowid = ?1")?.execute([key])?;
        }
    }
    let Some(text) = &row.text else { return Ok(()) };
    let SaidKey(key) = table.key(row.row);
    let chat = place(tx, &row.chat)?;
    let group = row.group.as_ref().map(|group| place(tx, group)).transpose()?;
    let places = group.map_or_else(|| term(chat), |group| format!("{} {}", term(chat), term(group)));
    let sql = "INSERT INTO entry(key, chat, grp, at, stored_at) VALUES (?1, ?2, ?3, ?4, ?5)";
    tx.prepare_cached(sql)?.execute(params![key, chat, group, row.at, row.stored_at])?;
    let sql = "INSERT INTO terms(rowid, words, places) VALUES (?1, ?2, ?3)";
    tx.prepare_cached(sql)?.execute(params![key, index_text(text), places]).map(drop)
}

/// The number of a chat or a group. A chat's id has a colon, a group's name has none.
fn place(tx: &Transaction<'_>, name: &str) -> rusqlite::Result<i64> {
    let sql = "SELECT n FROM place WHERE name = ?1 ORDER BY n LIMIT 1";
    let known = tx.prepare_cached(sql)?.query_row([name], |r| r.get(0)).optional()?;
    known.map_or_else(|| tx.prepare_cached("INSERT INTO place(name) VALUES (?1)")?.insert([name]), Ok)
}

/// The term of a place in the index.
fn term(place: i64) -> String {
    format!("p{place}")
}

fn found(c: &Connection, wanted: &Wanted) -> rusqlite::Result<Found> {
    let mut numbers = c.prepare("SELECT n FROM place WHERE name = ?1")?;
    let mut places =
        |name: &str| -> rusqlite::Result<Vec<i64>> { numbers.query_map([name], |r| r.get(0))?.collect() };
    let group = places(wanted.group.as_str())?.first().copied().unwrap_or_default();
    c.execute_batch(
        "CREATE TEMP TABLE own(place INTEGER PRIMARY KEY, since INTEGER); CREATE TEMP TABLE asked(place);",
    )?;
    let mut terms = vec![format!("\"{}\"", term(group))];
    for own in &wanted.own {
        for place in places(own.chat.as_str())? {
            c.execute("INSERT OR REPLACE INTO own VALUES (?1, ?2)", [place, own.admitted_at.0])?;
            terms.push(format!("\"{}\"", term(place)));
        }
    }
    for place in
        wanted.chat.iter().map(|chat| places(chat.as_str())).collect::<rusqlite::Result<Vec<_>>>()?.concat()
    {
        c.execute("INSERT INTO asked VALUES (?1)", [place])?;
    }
    // See `history.rs` for what is a group's own.
    const OWN: &str = "e.at >= ?1 AND e.at < ?2 AND (NOT ?3 OR e.chat IN (SELECT place FROM asked))
        AND CASE WHEN e.grp IS NULL THEN e.stored_at >= (SELECT since FROM own WHERE place = e.chat) ELSE e.grp = ?4 END";
    const PAGE: &str = "LIMIT ?5 OFFSET ?6";
    let one_chat = wanted.chat.is_some();
    let mut values: Vec<&dyn ToSql> =
        vec![&wanted.from.0, &wanted.to.0, &one_chat, &group, &wanted.count, &wanted.skip];
    let query = wanted.query.as_deref().filter(|query| !query.trim().is_empty());
    let mut found = Found { keys: Vec::new(), total: 0 };
    let expression;
    let sql = match query.map(match_expression) {
        None => format!(
            "SELECT e.key, count(*) OVER () FROM entry e INDEXED BY entry_at WHERE {OWN} ORDER BY e.at, e.key {PAGE}"
        ),
        // Places narrow the search and do not count for the order.
        Some(Some(words)) => {
            expression = format!("{{words}} : ({words}) AND {{places}} : ({})", terms.join(" OR "));
            values.push(&expression);
            format!(
                "WITH hit AS MATERIALIZED (
                     SELECT e.key, e.at, bm25(terms, 1.0, 0.0) AS fit
                     FROM terms CROSS JOIN entry e ON e.key = terms.rowid WHERE terms MATCH ?7 AND {OWN})
                 SELECT key, count(*) OVER () FROM hit ORDER BY fit, at DESC {PAGE}"
            )
        }
        Some(None) => return Ok(found),
    };
    let mut rows = c.prepare(&sql)?;
    for row in rows.query_map(&*values, |r| Ok((SaidKey(r.get(0)?), r.get::<_, i64>(1)?)))? {
        let (key, total) = row?;
        found.keys.push(key);
        found.total = total.unsigned_abs();
    }
    Ok(found)
}
