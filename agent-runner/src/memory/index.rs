//! The search index over the memory files. The memory tools and the prompt ask it.
//!
//! It holds the terms of each entry and where the entry is, not the text: that is read from the files. It is a SQLite
//! file that can be thrown away at any time. A file that is damaged or not ours is made anew. A file that cannot be
//! used, because another box holds it or the disk is full or read-only, is left alone, and the index is built in
//! memory. So searching never fails, and it never waits longer than [`PATIENCE`].

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipc_schema::search_terms::{TOKENIZER, index_text, match_expression};
use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior, params};

/// How long a search waits for another box of the group that writes the index.
const PATIENCE: Duration = Duration::from_millis(800);
/// Marks the file as ours, and the way in which terms are made: another number is another index. ("LzM" and a count.)
const FORMAT: i32 = 0x4c_7a_4d_01;

/// A file of the memory as it is now: its name, the time of its last change in nanoseconds, and its size.
pub type FileStamp = (String, i64, u64);

/// An entry that was found.
#[derive(Debug, Clone, PartialEq)]
pub struct Hit {
    /// Its file.
    pub file: String,
    /// The number of the entry's first line.
    pub line: usize,
    /// How well it fits: positive, and larger is better.
    pub score: f64,
}

/// The open index.
#[derive(Debug)]
pub struct Index {
    db: Connection,
}

impl Index {
    /// Opens the index in `file`, or makes it there, or in memory.
    ///
    /// # Errors
    /// Only if there is no memory for an empty database.
    pub fn open(file: &Path) -> rusqlite::Result<Self> {
        let db = match opened(file) {
            Ok(db) => db,
            Err(e) if is_occupied(&e) => in_memory()?,
            Err(_) => made_anew(file).or_else(|_| in_memory())?,
        };
        Ok(Self { db })
    }

    /// Brings the index up to date with `files`: all of the memory. `read` is asked for the entries of a file that is
    /// new or has changed, each with its first line.
    ///
    /// # Errors
    /// Only if an index in memory fails too.
    pub fn refresh(
        &mut self,
        files: &[FileStamp],
        mut read: impl FnMut(&str) -> Vec<(usize, String)>,
    ) -> rusqlite::Result<()> {
        let Err(e) = self.try_refresh(files, &mut read) else { return Ok(()) };
        let file = self.db.path().filter(|path| !path.is_empty()).map(Path::new).map(Path::to_path_buf);
        self.db = match file {
            Some(file) if !is_occupied(&e) => made_anew(&file).or_else(|_| in_memory())?,
            _ => in_memory()?,
        };
        if self.try_refresh(files, &mut read).is_err() {
            self.db = in_memory()?;
            self.try_refresh(files, &mut read)?;
        }
        Ok(())
    }

    fn try_refresh(
        &mut self,
        files: &[FileStamp],
        read: &mut dyn FnMut(&str) -> Vec<(usize, String)>,
    ) -> rusqlite::Result<()> {
        let known = known_files(&self.db)?;
        let gone = known.iter().filter(|(name, _)| !files.iter().any(|(file, ..)| file == *name));
        let gone: Vec<i64> = gone.map(|(_, (id, ..))| *id).collect();
        let changed = files
            .iter()
            .filter(|(name, mtime, size)| known.get(name).is_none_or(|(_, m, s)| (m, s) != (mtime, size)));
        let changed: Vec<&FileStamp> = changed.collect();
        if gone.is_empty() && changed.is_empty() {
            return Ok(());
        }
        let tx = self.db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        // Another box may have been faster.
        let known = known_files(&tx)?;
        for file in gone {
            remove(&tx, file)?;
        }
        for (name, mtime, size) in changed {
            if let Some((file, m, s)) = known.get(name) {
                if (m, s) == (mtime, size) {
                    continue;
                }
                remove(&tx, *file)?;
            }
            tx.execute(
                "INSERT INTO file(name, mtime_ns, size) VALUES (?1, ?2, ?3)",
                params![name, mtime, signed(*size)],
            )?;
            let file = tx.last_insert_rowid();
            let mut entry = tx.prepare_cached("INSERT INTO entry(file, line) VALUES (?1, ?2)")?;
            let mut terms = tx.prepare_cached("INSERT INTO terms(rowid, words) VALUES (?1, ?2)")?;
            for (line, text) in read(name) {
                let id = entry.insert(params![file, i64::try_from(line).unwrap_or(i64::MAX)])?;
                terms.execute(params![id, index_text(&text)])?;
            }
        }
        tx.commit()
    }

    /// The entries that `query` finds, the best first, at most so many. None if the query holds no word.
    ///
    /// A damaged index finds nothing; the next [`Self::refresh`] makes it anew.
    pub fn search(&self, query: &str, most: usize) -> Vec<Hit> {
        let Some(expression) = match_expression(query) else { return Vec::new() };
        self.found(&expression, most).unwrap_or_default()
    }

    fn found(&self, expression: &str, most: usize) -> rusqlite::Result<Vec<Hit>> {
        let sql = "SELECT f.name, e.line, -terms.rank FROM terms JOIN entry e ON e.id = terms.rowid
                   JOIN file f ON f.id = e.file WHERE terms MATCH ?1 ORDER BY terms.rank LIMIT ?2";
        let mut rows = self.db.prepare_cached(sql)?;
        let rows = rows.query_map(params![expression, i64::try_from(most).unwrap_or(i64::MAX)], |r| {
            let line: i64 = r.get(1)?;
            Ok(Hit { file: r.get(0)?, line: usize::try_from(line).unwrap_or_default(), score: r.get(2)? })
        })?;
        rows.collect()
    }

    /// The bytes of the index.
    #[cfg(feature = "test-door")]
    pub fn bytes(&self) -> u64 {
        let sql = "SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()";
        self.db.query_row(sql, [], |r| r.get::<_, i64>(0)).map_or(0, i64::unsigned_abs)
    }
}

type Known = HashMap<String, (i64, i64, u64)>;

fn known_files(db: &Connection) -> rusqlite::Result<Known> {
    let mut rows = db.prepare_cached("SELECT name, id, mtime_ns, size FROM file")?;
    let rows =
        rows.query_map([], |r| Ok((r.get(0)?, (r.get(1)?, r.get(2)?, r.get::<_, i64>(3)?.unsigned_abs()))))?;
    rows.collect()
}

fn remove(db: &Connection, file: i64) -> rusqlite::Result<()> {
    db.execute("DELETE FROM terms WHERE rowid IN (SELECT id FROM entry WHERE file = ?1)", [file])?;
    db.execute("DELETE FROM entry WHERE file = ?1", [file])?;
    db.execute("DELETE FROM file WHERE id = ?1", [file]).map(drop)
}

fn signed(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// Whether the file may be fine, and only cannot be used now.
fn is_occupied(e: &rusqlite::Error) -> bool {
    let code = e.sqlite_error_code();
    matches!(
        code,
        Some(
            ErrorCode::DatabaseBusy
                | ErrorCode::DatabaseLocked
                | ErrorCode::ReadOnly
                | ErrorCode::DiskFull
                | ErrorCode::PermissionDenied
                | ErrorCode::OutOfMemory
        )
    )
}

fn opened(file: &Path) -> rusqlite::Result<Connection> {
    // SQLite would open a FIFO, and follow a link that the agent made. On a FIFO in its journal's place it waits for
    // ever.
    let odd = |path: PathBuf| std::fs::symlink_metadata(path).is_ok_and(|found| !found.is_file());
    if own_files(file).any(odd) {
        return Err(not_ours());
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    prepared(Connection::open_with_flags(file, flags)?)
}

fn made_anew(file: &Path) -> rusqlite::Result<Connection> {
    for path in own_files(file) {
        // What cannot be removed, such as a directory, cannot be opened either.
        let _ = std::fs::remove_file(path);
    }
    opened(file)
}

/// The database, and the files that SQLite keeps beside it.
fn own_files(file: &Path) -> impl Iterator<Item = PathBuf> {
    ["", "-journal", "-wal", "-shm"].into_iter().map(|ending| {
        let mut path = file.as_os_str().to_owned();
        path.push(ending);
        path.into()
    })
}

fn in_memory() -> rusqlite::Result<Connection> {
    prepared(Connection::open_in_memory()?)
}

fn not_ours() -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_NOTADB), None)
}

/// Checks the format of a database, or gives it to an empty one.
fn prepared(mut db: Connection) -> rusqlite::Result<Connection> {
    db.busy_timeout(PATIENCE)?;
    // It can be built again, so nothing waits for the disk.
    db.execute_batch("PRAGMA synchronous = OFF; PRAGMA trusted_schema = OFF; PRAGMA temp_store = MEMORY;")?;
    let tx = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let format = |db: &Connection| db.query_row("PRAGMA application_id", [], |r| r.get::<_, i32>(0));
    let empty = tx.query_row("SELECT count(*) = 0 FROM sqlite_schema", [], |r| r.get(0))?;
    if empty {
        tx.execute_batch(&format!(
            "CREATE TABLE file(id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, mtime_ns INTEGER NOT NULL,
                               size INTEGER NOT NULL) STRICT;
             CREATE TABLE entry(id INTEGER PRIMARY KEY, file INTEGER NOT NULL, line INTEGER NOT NULL) STRICT;
             CREATE INDEX entry_file ON entry(file);
             CREATE VIRTUAL TABLE terms USING fts5(words, content='', contentless_delete=1, tokenize='{TOKENIZER}');
             PRAGMA application_id = {FORMAT};"
        ))?;
    } else if format(&tx)? != FORMAT {
        return Err(not_ours());
    }
    tx.commit()?;
    Ok(db)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    type Files<'a> = &'a [(&'a str, i64, &'a [&'a str])];

    /// Refreshes with files of (name, mtime, entries), and returns the names of those that were read.
    fn refresh(index: &mut Index, files: Files<'_>) -> Vec<String> {
        let mut read = Vec::new();
        let stamps: Vec<FileStamp> = files
            .iter()
            .map(|(name, mtime, entries)| ((*name).to_owned(), *mtime, entries.len() as u64))
            .collect();
        index
            .refresh(&stamps, |name| {
                read.push(name.to_owned());
                let entries = files.iter().find(|(file, ..)| *file == name).unwrap().2;
                entries.iter().enumerate().map(|(at, text)| (at + 1, (*text).to_owned())).collect()
            })
            .unwrap();
        read
    }

    fn found(index: &Index, query: &str) -> Vec<String> {
        index.search(query, 5).iter().map(|hit| format!("{}:{}", hit.file, hit.line)).collect()
    }

    fn house() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("memory.db");
        (dir, file)
    }

    const PEOPLE: Files<'_> = &[
        ("people/ann.md", 1, &["Ann likes tea", "Her sister is Mia"]),
        ("topics/car.md", 1, &["The car is blue"]),
    ];

    #[test]
    fn only_what_has_changed_is_read_again_and_what_is_gone_is_not_found() {
        let (_dir, file) = house();
        let mut index = Index::open(&file).unwrap();
        assert_eq!(refresh(&mut index, PEOPLE), ["people/ann.md", "topics/car.md"]);
        assert_eq!(found(&index, "sisters"), ["people/ann.md:2"]);
        drop(index);
        let mut index = Index::open(&file).unwrap();
        assert!(refresh(&mut index, PEOPLE).is_empty(), "the index was kept");
        let moved: Files<'_> = &[("people/ann.md", 2, &["Her sister is Zoe", "Ann likes coffee"])];
        assert_eq!(refresh(&mut index, moved), ["people/ann.md"]);
        assert_eq!(found(&index, "sister"), ["people/ann.md:1"]);
        assert!(found(&index, "tea").is_empty() && found(&index, "car").is_empty());
        let same_time_other_size: Files<'_> = &[("people/ann.md", 2, &["Ann moved"])];
        assert_eq!(refresh(&mut index, same_time_other_size), ["people/ann.md"]);
        refresh(&mut index, &[]);
        assert!(found(&index, "Ann").is_empty());
    }

    #[test]
    fn the_best_entry_comes_first_and_no_more_than_were_asked_for() {
        let mut index = Index::open(&house().1).unwrap();
        let texts = ["tea", "Ann drinks green tea", "Ann", "green"];
        refresh(&mut index, &[("MEMORY.md", 1, &texts)]);
        let hits = index.search("What tea does Ann drink? Green?", 2);
        assert_eq!((hits[0].line, hits.len()), (2, 2));
        assert!(hits[0].score > hits[1].score && hits[1].score > 0.0, "{hits:?}");
        assert!(index.search(" \" ", 5).is_empty() && index.search("tea", 0).is_empty());
    }

    #[test]
    fn a_file_that_is_damaged_or_not_ours_is_made_anew() {
        let (dir, file) = house();
        let elsewhere = dir.path().join("elsewhere");
        std::fs::write(&elsewhere, "theirs").unwrap();
        let fifo = |at: &Path| {
            let made = std::process::Command::new("mkfifo").arg(at).args(["-m", "400"]).status();
            assert!(made.unwrap().success());
        };
        let journal = own_files(&file).nth(1).unwrap();
        let spoilt: [&dyn Fn(); 6] = [
            &|| std::fs::write(&file, "no database at all, and long enough to be one").unwrap(),
            &|| std::fs::write(&file, vec![0; 100_000]).unwrap(),
            &|| Connection::open(&file).unwrap().execute_batch("CREATE TABLE theirs(x);").unwrap(),
            &|| std::os::unix::fs::symlink(&elsewhere, &file).unwrap(),
            &|| fifo(&file),
            &|| {
                refresh(&mut Index::open(&file).unwrap(), PEOPLE);
                fifo(&journal);
            },
        ];
        for (at, spoil) in spoilt.iter().enumerate() {
            let _ = std::fs::remove_file(&file);
            spoil();
            for reads in [2, 0] {
                let mut index = Index::open(&file).unwrap();
                assert_eq!(refresh(&mut index, PEOPLE).len(), reads, "case {at}");
                assert_eq!(found(&index, "sister"), ["people/ann.md:2"], "case {at}");
            }
        }
        assert_eq!(std::fs::read_to_string(&elsewhere).unwrap(), "theirs");
    }

    #[test]
    fn damage_that_comes_while_it_is_open_or_deep_inside_is_survived() {
        let (_dir, file) = house();
        let mut index = Index::open(&file).unwrap();
        let many: Vec<String> = (0..3_000).map(|n| format!("fact {n} about tea")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        refresh(&mut index, &[("a.md", 1, &many)]);
        drop(index);
        let whole = std::fs::read(&file).unwrap();
        for at in (4_096..whole.len()).step_by(4_096) {
            let mut torn = whole.clone();
            torn[at..at + 4_096].fill(0xa5);
            std::fs::write(&file, torn).unwrap();
            let mut index = Index::open(&file).unwrap();
            index.search("tea facts", 5);
            refresh(&mut index, &[("a.md", 2, &["Ann likes tea"])]);
            assert_eq!(found(&index, "tea").len(), 1, "page {at}");
            std::fs::write(&file, &whole[..at]).unwrap();
            let mut index = Index::open(&file).unwrap();
            refresh(&mut index, &[("a.md", 2, &["Ann likes tea"])]);
            assert_eq!(found(&index, "tea").len(), 1, "cut at {at}");
        }
    }

    #[test]
    fn where_no_file_can_be_made_the_index_is_in_memory() {
        let (dir, file) = house();
        std::fs::create_dir(&file).unwrap();
        for path in [file, dir.path().join("missing/memory.db"), PathBuf::from("/proc/memory.db")] {
            let mut index = Index::open(&path).unwrap();
            refresh(&mut index, PEOPLE);
            assert_eq!(found(&index, "sister"), ["people/ann.md:2"]);
        }
    }

    #[test]
    fn a_box_that_holds_the_file_is_waited_for_no_longer_than_a_second() {
        let (_dir, file) = house();
        let mut index = Index::open(&file).unwrap();
        refresh(&mut index, PEOPLE);
        let other = Connection::open(&file).unwrap();
        other.execute_batch("BEGIN EXCLUSIVE").unwrap();
        let began = Instant::now();
        let mut late = Index::open(&file).unwrap();
        refresh(&mut late, PEOPLE);
        assert_eq!(found(&late, "sister"), ["people/ann.md:2"]);
        assert!(began.elapsed() < Duration::from_millis(1_500), "{:?}", began.elapsed());
        other.execute_batch("COMMIT").unwrap();
        assert!(refresh(&mut Index::open(&file).unwrap(), PEOPLE).is_empty(), "the file was left alone");
    }

    #[test]
    fn two_boxes_share_a_file() {
        let (_dir, file) = house();
        let (mut one, mut other) = (Index::open(&file).unwrap(), Index::open(&file).unwrap());
        refresh(&mut one, PEOPLE);
        assert!(refresh(&mut other, PEOPLE).is_empty());
        assert_eq!(found(&other, "sister"), ["people/ann.md:2"]);
        refresh(&mut other, &PEOPLE[..1]);
        assert_eq!(refresh(&mut one, PEOPLE), ["topics/car.md"]);
    }
}
