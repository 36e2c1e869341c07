//! Checks the invariants of the database on copies as a crash could have left them.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rusqlite::Connection;

use super::platform_log::What;
use super::{Plan, Simulation, Verdict, checker};
use crate::database_crash_copies;
use crate::world::Engine;

/// Each query finds rows that break a rule, and describes them.
const RULES: [(&str, &str); 6] = [
    (
        "a message is done although its turn is open",
        "SELECT 'm-' || m.seq FROM message m JOIN turn t ON t.id = m.turn
         WHERE m.role = 'wake' AND m.state = 'done' AND t.state = 'open'",
    ),
    (
        "a message is in a turn that is over",
        "SELECT 'm-' || m.seq FROM message m LEFT JOIN turn t ON t.id = m.turn
         WHERE m.state = 'in_turn' AND t.state IS NOT 'open'",
    ),
    (
        "a turn is over, and nothing was said in it",
        "SELECT 't-' || t.id FROM turn t WHERE t.state <> 'open' AND NOT EXISTS (SELECT 1 FROM outbox o WHERE o.turn = t.id)",
    ),
    (
        "a part is sent and has no receipt, or has one and is not sent",
        "SELECT 'part ' || id FROM outbox WHERE (state = 'sent') <> (receipt IS NOT NULL)",
    ),
    (
        "a part is sent before one that stands before it",
        "SELECT 'part ' || b.id FROM outbox a JOIN outbox b ON a.chat = b.chat AND a.id < b.id
         WHERE b.state = 'sent' AND a.state IN ('ready', 'sending', 'deferred')",
    ),
    (
        "a letter was taken beyond the run's last number",
        "SELECT k.run || ' ' || k.n FROM consumed k JOIN run r ON r.id = k.run WHERE k.n > r.from_n",
    ),
];

fn broken(c: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut found = Vec::new();
    for (rule, sql) in RULES {
        let mut rows = c.prepare(sql)?;
        for what in rows.query_map([], |r| r.get::<_, String>(0))? {
            found.push(format!("{rule}: {}", what?));
        }
    }
    Ok(found)
}

/// Returns the messages that the platform handed over and the copy does not contain.
fn lost(c: &Connection, accepted: &BTreeSet<(String, String)>) -> rusqlite::Result<Vec<String>> {
    let mut rows = c.prepare("SELECT chat, message_id FROM message")?;
    let stored = rows.query_map([], |r| Ok((r.get(0)?, r.get(1)?)))?;
    let stored: BTreeSet<(String, String)> = stored.collect::<rusqlite::Result<_>>()?;
    Ok(accepted
        .difference(&stored)
        .map(|(chat, id)| format!("{id} of {chat} was handed over and is not there"))
        .collect())
}

/// Copies the database and its WAL `count` times while a simulation is busy, and checks that each copy opens undamaged
/// and keeps the rules. Returns the verdict on the simulation and the number of copies with a WAL to replay.
pub async fn invariants(count: usize, plan: Plan, dir: &Path) -> (Verdict, usize) {
    let mut chance = fastrand::Rng::with_seed(plan.seed);
    let mut simulation = Simulation::build(Engine::stand_in().await, plan).await;
    simulation.up().await;
    let Some(pid) = simulation.world.host().pid() else { panic!("the host is gone") };
    let database = simulation.world.root().join("state").join(checker::DATABASE);
    let (log, mut pauses) = (simulation.log(), chance.fork());
    let found = Arc::new(Mutex::new(Vec::new()));
    let done = Arc::new(AtomicBool::new(false));
    let (tell, over) = (Arc::clone(&found), Arc::clone(&done));
    let taking = tokio::task::spawn_blocking(move || {
        // The messages that the platform handed over before the copy was made.
        let accepted = RefCell::new(BTreeSet::new());
        let mut read = 0;
        let pause = || {
            for line in log.since(read) {
                read += 1;
                if line.what == What::Accepted {
                    accepted.borrow_mut().insert((line.chat, line.id));
                }
            }
            Duration::from_millis(pauses.u64(1..40))
        };
        let inspect = |c: &Connection| {
            let told = broken(c).and_then(|mut told| {
                told.extend(lost(c, &accepted.borrow())?);
                Ok(told)
            });
            let told = told.unwrap_or_else(|e| vec![format!("the copy cannot be read: {e}")]);
            tell.lock().unwrap_or_else(PoisonError::into_inner).extend(told);
        };
        let replayed = database_crash_copies::take(pid, &database, count, pause, inspect);
        over.store(true, Ordering::Release);
        replayed
    });
    while !done.load(Ordering::Acquire) && !taking.is_finished() {
        if simulation.waiting() < 2 * simulation.chats() {
            simulation.says(chance.usize(..simulation.chats()), None);
        }
        tokio::time::sleep(Duration::from_millis(chance.u64(2..30))).await;
    }
    let replayed = match taking.await {
        Ok(replayed) => replayed,
        Err(e) => panic!("the copies were not taken: {e}"),
    };
    let mut verdict = simulation.check(dir).await;
    verdict.broken.extend(found.lock().unwrap_or_else(PoisonError::into_inner).drain(..));
    (verdict, replayed)
}
