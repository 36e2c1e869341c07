//! One thread owns the connection. Callers queue closures; all that wait are committed together, each inside a
//! savepoint of its own, and each is answered after the commit: one fsync for many callers, and nobody is told
//! "stored" before it is.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use rusqlite::Connection;
use tokio::sync::oneshot;

use super::{Result, StoreError};

/// How many callers one commit may carry.
const BATCH: usize = 256;

/// Gives the caller its answer, once the commit's fate is known.
type Answer = Box<dyn FnOnce(std::result::Result<(), String>) + Send>;
/// Does the work inside a savepoint. `Err` means: roll this one back; the answer is given all the same.
type Job = Box<dyn FnOnce(&Connection) -> (Answer, bool) + Send>;

/// The queue's sending end.
#[derive(Debug, Clone)]
pub(super) struct Writer {
    queue: Sender<Job>,
}

impl Writer {
    pub(super) fn start(connection: Connection) -> Result<Self> {
        let (queue, jobs) = channel::<Job>();
        thread::Builder::new()
            .name("store".into())
            .spawn(move || serve(&connection, &jobs))
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
            let result = work(connection);
            let keep = result.is_ok();
            let answer: Answer = Box::new(move |committed| {
                let result = match committed {
                    Ok(()) => result,
                    Err(why) => result.and(Err(StoreError::Commit(why))),
                };
                // A caller that stopped waiting has lost nothing: its work is in the store.
                let _ = tell.send(result);
            });
            (answer, keep)
        });
        self.queue.send(job).map_err(|_| StoreError::Closed)?;
        answer.await.map_err(|_| StoreError::Closed)?
    }
}

fn serve(connection: &Connection, jobs: &Receiver<Job>) {
    while let Ok(first) = jobs.recv() {
        let mut batch = vec![first];
        while batch.len() < BATCH {
            match jobs.try_recv() {
                Ok(job) => batch.push(job),
                Err(_) => break,
            }
        }
        commit_together(connection, batch);
    }
}

fn commit(connection: &Connection) -> std::result::Result<(), String> {
    failpoint!("store.commit.before", |e| super::injected(e).to_string());
    connection.execute_batch("COMMIT").map_err(|e| e.to_string())
}

fn commit_together(connection: &Connection, batch: Vec<Job>) {
    let began = connection.execute_batch("BEGIN IMMEDIATE");
    let mut answers = Vec::with_capacity(batch.len());
    let mut fate = began.map_err(|e| e.to_string());
    for job in batch {
        if fate.is_ok() {
            fate = connection.execute_batch("SAVEPOINT one").map_err(|e| e.to_string());
        }
        // The job runs even when the transaction cannot: the caller must be answered by someone who has its type.
        let (answer, keep) = job(connection);
        answers.push(answer);
        if fate.is_ok() {
            let end = if keep { "RELEASE one" } else { "ROLLBACK TO one; RELEASE one" };
            fate = connection.execute_batch(end).map_err(|e| e.to_string());
        }
    }
    if fate.is_ok() {
        fate = commit(connection);
    }
    failpoint!("store.commit.after");
    if let Err(why) = &fate {
        tracing::error!(code = "store.commit", "a commit of {} callers failed: {why}", answers.len());
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
        Writer::start(connection).unwrap()
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
}
