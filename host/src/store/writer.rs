//! One thread owns the connection. Callers queue closures; all that wait are committed together, each inside a
//! savepoint of its own, and each is answered after the commit: one fsync for many callers, and nobody is told
//! "stored" before it is.
//!
//! A panic in a caller's work is rolled back like an error and goes on in the caller, which has its own answer to it. A
//! panic over the commit fails the batch. The thread goes on in both cases: without it the host could do nothing.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use rusqlite::Connection;
use tokio::sync::oneshot;

use super::disk_faults::{Fault, Reporter};
use super::{Result, StoreError};

/// How many callers one commit may carry.
const BATCH: usize = 256;

/// Gives the caller its answer, once the commit's fate is known.
type Answer = Box<dyn FnOnce(std::result::Result<(), Fault>) + Send>;
/// Does the work inside a savepoint. `Err` means: roll this one back; the answer is given all the same. Without a
/// connection there is no transaction to work in, and the caller is told the commit's fate alone.
type Job = Box<dyn FnOnce(Option<&Connection>) -> (Answer, bool) + Send>;

enum Order {
    Work(Job),
    Close(oneshot::Sender<()>),
}

/// The queue's sending end.
#[derive(Debug, Clone)]
pub(super) struct Writer {
    queue: Sender<Order>,
}

impl Writer {
    /// `owner`: the file is this process's to close, and its clean end is noted.
    pub(super) fn start(connection: Connection, trouble: Reporter, owner: bool) -> Result<Self> {
        let (queue, orders) = channel::<Order>();
        thread::Builder::new()
            .name("store".into())
            .spawn(move || {
                let told = serve(&connection, &trouble, &orders);
                // Closing takes in the WAL; only then was it a clean end.
                match connection.close() {
                    Ok(()) if owner => trouble.closed(),
                    Ok(()) => {}
                    Err((_, e)) => tracing::warn!(code = "store.close", "the database was not closed: {e}"),
                }
                drop(orders);
                if let Some(told) = told {
                    let _ = told.send(());
                }
            })
            .map_err(|e| StoreError::Rule(format!("no thread for the store: {e}")))?;
        Ok(Self { queue })
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
                // A caller that stopped waiting has lost nothing: its work is in the store.
                let _ = tell.send(Ok(result));
            });
            (answer, keep)
        });
        self.queue.send(Order::Work(job)).map_err(|_| StoreError::Closed)?;
        match answer.await.map_err(|_| StoreError::Closed)? {
            Ok(result) => result,
            Err(panic) => resume_unwind(panic),
        }
    }

    pub(super) async fn close(&self) {
        let (tell, closed) = oneshot::channel();
        if self.queue.send(Order::Close(tell)).is_ok() {
            let _ = closed.await;
        }
    }
}

/// Works until nobody is left to ask, or somebody closes; whoever closed is to be told.
fn serve(
    connection: &Connection,
    trouble: &Reporter,
    orders: &Receiver<Order>,
) -> Option<oneshot::Sender<()>> {
    loop {
        let mut next = orders.recv().ok();
        let mut batch = Vec::new();
        while let Some(Order::Work(job)) = next {
            batch.push(job);
            next = if batch.len() < BATCH { orders.try_recv().ok() } else { None };
        }
        let worked = !batch.is_empty();
        if worked {
            commit_together(connection, trouble, batch);
        }
        match next {
            Some(Order::Close(told)) => return Some(told),
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

fn commit_together(connection: &Connection, trouble: &Reporter, batch: Vec<Job>) {
    let run = |sql: &str| connection.execute_batch(sql).map_err(|e| trouble.fault(e.into()));
    let mut fate = run("BEGIN IMMEDIATE");
    let mut answers = Vec::with_capacity(batch.len());
    for job in batch {
        if fate.is_ok() {
            fate = run("SAVEPOINT one");
        }
        // Outside the transaction a job would commit by itself, and its caller be told that it had failed.
        let (answer, keep) = job(fate.is_ok().then_some(connection));
        answers.push(answer);
        if fate.is_ok() {
            // A full disk, an I/O error or damage makes SQLite roll back the whole transaction by itself, and the
            // savepoint with it (https://sqlite.org/lang_transaction.html, section 2.1).
            fate = match connection.is_autocommit() {
                true => Err(trouble.look_around("the transaction was rolled back")),
                false if keep => run("RELEASE one"),
                false => run("ROLLBACK TO one; RELEASE one"),
            };
        }
    }
    if fate.is_ok() {
        fate = match catch_unwind(AssertUnwindSafe(|| commit(connection))) {
            Ok(committed) => committed.map_err(|e| trouble.fault(e)),
            Err(_) => {
                let fault = trouble.panicked();
                // Without a transaction the commit was done before the panic.
                if connection.is_autocommit() { Ok(()) } else { Err(fault) }
            }
        };
    }
    if let Err(fault) = &fate {
        tracing::error!(code = fault.code(), "a commit of {} callers failed: {fault}", answers.len());
        if !connection.is_autocommit() {
            // Nothing of this batch may be found later: every caller is told that it failed.
            if let Err(e) = connection.execute_batch("ROLLBACK") {
                tracing::error!(code = "store.commit", "and could not be rolled back: {e}");
            }
        }
    }
    for answer in answers {
        answer(fate.clone());
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
    async fn callers_are_committed_together_and_fail_alone() {
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
    async fn half_of_a_failed_work_leaves_no_trace() {
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
    async fn what_found_the_file_held_by_another_program_is_not_done_behind_its_callers_back() {
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
    async fn a_full_file_fails_the_whole_batch_and_gives_the_ballast_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("full.db");
        let connection = Connection::open(&path).unwrap();
        connection.execute_batch("CREATE TABLE t(x)").unwrap();
        // SQLite answers as on a disk without room.
        connection.execute_batch("PRAGMA max_page_count = 3").unwrap();
        let ballast = dir.path().join("ballast");
        std::fs::write(&ballast, "room").unwrap();
        let reporter = Reporter::new(&path);
        let mut trouble = reporter.listen();
        let writer = Writer::start(connection, reporter.clone(), false).unwrap();
        let work = writer.run(|c| Ok(c.execute("INSERT INTO t VALUES (zeroblob(100000))", [])?));
        let refused = work.await.unwrap_err();
        reporter.met(&refused);
        assert_eq!(refused.code(), "store.full", "{refused}");
        assert!(trouble.wait_for(|t| t.full > 0).await.is_ok() && !ballast.exists());
        let rows: i64 =
            writer.run(|c| Ok(c.query_row("SELECT count(*) FROM t", [], |r| r.get(0))?)).await.unwrap();
        assert_eq!(rows, 0);
    }
}
