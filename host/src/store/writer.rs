//! The one thread that writes. `Store::write` queues closures here. The thread commits all waiting closures together,
//! each inside a savepoint of its own, and answers each caller after the commit: one fsync serves many callers, and
//! no caller hears of success before its rows are durable.
//!
//! A panic in a caller's work is rolled back like an error and goes on in the caller, which has its own answer to it. A
//! panic over the commit fails the batch. The thread goes on in both cases: without it the host could do nothing.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use rusqlite::Connection;
use tokio::sync::oneshot;

use super::fault_reporter::{Fault, Reporter};
use super::{Result, StoreError};

/// Closures in one commit.
const BATCH: usize = 256;

/// Answers the caller with the outcome of the commit.
type Answer = Box<dyn FnOnce(std::result::Result<(), Fault>) + Send>;
/// Runs a caller's work inside a savepoint. `false` means that the work failed: its savepoint is rolled back. Without a
/// connection the transaction has already failed; the work does not run and the caller gets the outcome alone.
type Job = Box<dyn FnOnce(Option<&Connection>) -> (Answer, bool) + Send>;

enum Queued {
    Work(Job),
    Close(oneshot::Sender<()>),
}

/// The sending end of the queue.
#[derive(Debug, Clone)]
pub(super) struct Writer {
    queue: Sender<Queued>,
}

impl Writer {
    /// `host`: this process is the host, which records that it closed the file.
    pub(super) fn start(connection: Connection, reporter: Reporter, host: bool) -> Result<Self> {
        let (queue, queued) = channel::<Queued>();
        thread::Builder::new()
            .name("store".into())
            .spawn(move || {
                let closer = serve(&connection, &reporter, &queued);
                // Closing empties the WAL. The end is recorded as clean only after that.
                match connection.close() {
                    Ok(()) if host => reporter.closed(),
                    Ok(()) => {}
                    Err((_, e)) => tracing::warn!(code = "store.close", "the database was not closed: {e}"),
                }
                drop(queued);
                if let Some(closer) = closer {
                    let _ = closer.send(());
                }
            })
            .map_err(|e| StoreError::Rule(format!("no thread for the store: {e}")))?;
        Ok(Self { queue })
    }

    /// A writer whose every write fails: nobody takes what is queued.
    pub(super) fn absent() -> Self {
        Self { queue: channel().0 }
    }

    pub(super) async fn run<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T> + Send + 'static,
    {
        let (tell, answer) = oneshot::channel();
        let job: Job = Box::new(move |connection| {
            let result = match connection.map(|c| catch_unwind(AssertUnwindSafe(|| work(c)))) {
                Some(Ok(result)) => Some(result),
                None => None,
                Some(Err(panic)) => {
                    let answer: Answer = Box::new(move |_| drop(tell.send(Err(panic))));
                    return (answer, false);
                }
            };
            let keep = result.as_ref().is_some_and(std::result::Result::is_ok);
            let answer: Answer = Box::new(move |committed| {
                let result = match (committed, result) {
                    (Ok(()), Some(result)) => result,
                    (Ok(()), None) => Err(StoreError::Closed),
                    (Err(fault), result) => {
                        result.unwrap_or_else(|| Err(fault.clone().into())).and(Err(fault.into()))
                    }
                };
                // The caller may have stopped waiting; its work is committed all the same.
                let _ = tell.send(Ok(result));
            });
            (answer, keep)
        });
        self.queue.send(Queued::Work(job)).map_err(|_| StoreError::Closed)?;
        match answer.await.map_err(|_| StoreError::Closed)? {
            Ok(result) => result,
            Err(panic) => resume_unwind(panic),
        }
    }

    pub(super) async fn close(&self) {
        let (tell, closed) = oneshot::channel();
        if self.queue.send(Queued::Close(tell)).is_ok() {
            let _ = closed.await;
        }
    }
}

/// Commits batches until every sender is gone or a caller closes the store. Returns the channel of that caller.
fn serve(
    connection: &Connection,
    reporter: &Reporter,
    queued: &Receiver<Queued>,
) -> Option<oneshot::Sender<()>> {
    loop {
        let mut next = queued.recv().ok();
        let mut batch = Vec::new();
        while let Some(Queued::Work(job)) = next {
            batch.push(job);
            next = if batch.len() < BATCH { queued.try_recv().ok() } else { None };
        }
        let worked = !batch.is_empty();
        if worked {
            commit_together(connection, reporter, batch);
        }
        match next {
            Some(Queued::Close(closer)) => return Some(closer),
            None if !worked => return None,
            _ => {}
        }
    }
}

fn commit(connection: &Connection) -> Result<()> {
    failpoint!("store.commit.before", super::injected);
    connection.execute_batch("COMMIT")?;
    failpoint!("store.commit.after");
    Ok(())
}

fn commit_together(connection: &Connection, reporter: &Reporter, batch: Vec<Job>) {
    let run = |sql: &str| connection.execute_batch(sql).map_err(|e| reporter.fault(e.into()));
    let mut outcome = run("BEGIN IMMEDIATE");
    let mut answers = Vec::with_capacity(batch.len());
    for job in batch {
        if outcome.is_ok() {
            outcome = run("SAVEPOINT one");
        }
        // Outside the transaction a job would commit by itself, although its caller is told that it failed.
        let (answer, keep) = job(outcome.is_ok().then_some(connection));
        answers.push(answer);
        if outcome.is_ok() {
            // A full disk, an I/O error or damage makes SQLite roll back the whole transaction by itself, and the
            // savepoint with it (https://sqlite.org/lang_transaction.html, section 2.1).
            outcome = match connection.is_autocommit() {
                true => Err(reporter.fault_by_disk("the transaction was rolled back")),
                false if keep => run("RELEASE one"),
                false => run("ROLLBACK TO one; RELEASE one"),
            };
        }
    }
    if outcome.is_ok() {
        outcome = match catch_unwind(AssertUnwindSafe(|| commit(connection))) {
            Ok(committed) => committed.map_err(|e| reporter.fault(e)),
            Err(_) => {
                let fault = reporter.panicked();
                // Without a transaction the commit was done before the panic.
                if connection.is_autocommit() { Ok(()) } else { Err(fault) }
            }
        };
    }
    if let Err(fault) = &outcome {
        tracing::error!(code = fault.code(), "a commit of {} callers failed: {fault}", answers.len());
        if !connection.is_autocommit() {
            // Every caller is told that its work failed, so nothing of this batch may remain.
            if let Err(e) = connection.execute_batch("ROLLBACK") {
                tracing::error!(
                    code = "store.commit",
                    "the failed transaction could not be rolled back: {e}"
                );
            }
        }
    }
    for answer in answers {
        answer(outcome.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn writer() -> Writer {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch("CREATE TABLE t(x INTEGER UNIQUE)").unwrap();
        Writer::start(connection, Reporter::new(std::path::Path::new("/nowhere/lazaret.db")), false).unwrap()
    }

    #[tokio::test]
    async fn callers_are_committed_together_and_each_fails_alone() {
        let writer = writer();
        let inserts = (0..40).map(|i| {
            let writer = writer.clone();
            // Every number twice: the second one breaks the constraint, and only itself.
            tokio::spawn(async move {
                writer.run(move |c| Ok(c.execute("INSERT INTO t VALUES (?1)", [i % 20])?)).await.is_ok()
            })
        });
        let mut stored = 0;
        for insert in inserts.collect::<Vec<_>>() {
            stored += usize::from(insert.await.unwrap());
        }
        assert_eq!(stored, 20);
        let rows: i64 =
            writer.run(|c| Ok(c.query_row("SELECT count(*) FROM t", [], |r| r.get(0))?)).await.unwrap();
        assert_eq!(rows, 20);
    }

    #[tokio::test]
    async fn a_panic_goes_on_in_its_caller_and_leaves_no_trace() {
        let writer = writer();
        let own = writer.clone();
        let panicked = tokio::spawn(async move {
            let work = |c: &Connection| -> Result<()> {
                c.execute("INSERT INTO t VALUES (1)", [])?;
                panic!("half-way")
            };
            own.run(work).await
        });
        assert!(panicked.await.unwrap_err().is_panic());
        let rows: i64 =
            writer.run(|c| Ok(c.query_row("SELECT count(*) FROM t", [], |r| r.get(0))?)).await.unwrap();
        assert_eq!(rows, 0, "and the thread goes on");
    }

    #[tokio::test]
    async fn failed_work_is_rolled_back_completely() {
        let writer = writer();
        let failed: Result<()> = writer
            .run(|c| {
                c.execute("INSERT INTO t VALUES (1)", [])?;
                Err(StoreError::Rule("no".into()))
            })
            .await;
        assert!(failed.is_err());
        let rows: i64 =
            writer.run(|c| Ok(c.query_row("SELECT count(*) FROM t", [], |r| r.get(0))?)).await.unwrap();
        assert_eq!(rows, 0);
    }

    #[tokio::test]
    async fn work_that_met_another_programs_lock_is_not_done_later() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("held.db");
        let connection = Connection::open(&path).unwrap();
        connection.execute_batch("CREATE TABLE t(x INTEGER UNIQUE)").unwrap();
        connection.busy_timeout(std::time::Duration::ZERO).unwrap();
        let writer = Writer::start(connection, Reporter::new(&path), false).unwrap();
        let theirs = Connection::open(&path).unwrap();
        theirs.execute_batch("BEGIN IMMEDIATE").unwrap();
        let ours = |x: i64| writer.run(move |c| Ok(c.execute("INSERT INTO t VALUES (?1)", [x])?));
        let refused = ours(1).await.unwrap_err();
        assert_eq!(refused.code(), "store.busy", "{refused}");
        theirs.execute_batch("ROLLBACK").unwrap();
        ours(2).await.unwrap();
        let rows: i64 = theirs.query_row("SELECT sum(x) FROM t", [], |r| r.get(0)).unwrap();
        assert_eq!(rows, 2);
    }

    #[tokio::test]
    async fn a_full_file_fails_the_whole_batch_and_removes_the_ballast() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("full.db");
        let connection = Connection::open(&path).unwrap();
        connection.execute_batch("CREATE TABLE t(x)").unwrap();
        // SQLite then reports a full disk.
        connection.execute_batch("PRAGMA max_page_count = 3").unwrap();
        let ballast = dir.path().join("ballast");
        std::fs::write(&ballast, "room").unwrap();
        let reporter = Reporter::new(&path);
        let mut faults = reporter.listen();
        let writer = Writer::start(connection, reporter.clone(), false).unwrap();
        let work = writer.run(|c| Ok(c.execute("INSERT INTO t VALUES (zeroblob(100000))", [])?));
        let refused = work.await.unwrap_err();
        reporter.report(&refused);
        assert_eq!(refused.code(), "store.full", "{refused}");
        assert!(faults.wait_for(|t| t.full > 0).await.is_ok() && !ballast.exists());
        let rows: i64 =
            writer.run(|c| Ok(c.query_row("SELECT count(*) FROM t", [], |r| r.get(0))?)).await.unwrap();
        assert_eq!(rows, 0);
    }
}
