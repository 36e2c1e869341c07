//! Measures restarts under load, and the time to start.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Plan, Simulation, Verdict, checker};
use crate::world::{Engine, World};

/// Restarts the host `rounds` times with SIGTERM under load. Returns the verdict and the longest wait of a chat for a
/// text, in milliseconds.
pub async fn rolling(rounds: u64, plan: Plan, dir: &Path) -> (Verdict, u64) {
    let mut chance = fastrand::Rng::with_seed(plan.seed);
    let mut simulation = Simulation::build(Engine::stand_in().await, plan).await;
    simulation.up().await;
    for round in 1..=rounds {
        let until = Instant::now() + Duration::from_millis(chance.u64(200..1200));
        while Instant::now() < until {
            if simulation.waiting() < 2 * simulation.chats() {
                simulation.says(chance.usize(..simulation.chats()), None);
            }
            tokio::time::sleep(Duration::from_millis(chance.u64(5..40))).await;
        }
        simulation.world.stop_host().await;
        simulation.up().await;
        if round % 10 == 0 {
            eprintln!(
                "{round} restarts, {} messages, longest pause {} ms",
                simulation.said(),
                simulation.longest_pause()
            );
        }
    }
    // Messages that still wait count as pauses too.
    let settled = simulation.settle().await;
    simulation.waiting();
    let longest = simulation.longest_pause();
    let mut verdict = simulation.check(dir).await;
    verdict.broken.extend(settled.err());
    (verdict, longest)
}

/// Measures the time from the process's start to its first poll, with `groups` groups and `messages` stored messages.
pub async fn starts(groups: usize, messages: usize) -> Value {
    let mut world = World::on(Engine::stand_in().await).await;
    for n in 1..groups {
        world.write(&format!("groups/g{n}/group.toml"), format!("chats = [\"telegram:{}\"]\n", 1000 + n));
    }
    world.up().await.stop_host().await;
    if let Err(e) = fill(&world, messages) {
        panic!("the database cannot be filled: {e}");
    }
    let mut took = Vec::new();
    for _ in 0..10 {
        let polls = world.telegram.polls();
        let begun = Instant::now();
        world.up().await.telegram.polled(polls + 1).await;
        took.push(u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX));
        world.stop_host().await;
    }
    took.sort_unstable();
    json!({ "groups": groups, "messages": messages, "starts": took.len(), "median_ms": took.get(took.len() / 2),
            "longest_ms": took.last() })
}

/// Inserts old, answered messages.
fn fill(world: &World, messages: usize) -> rusqlite::Result<()> {
    let mut database = rusqlite::Connection::open(world.root().join("state").join(checker::DATABASE))?;
    let transaction = database.transaction()?;
    let chats: Vec<String> = {
        let mut rows = transaction.prepare("SELECT id FROM chat ORDER BY id")?;
        let rows = rows.query_map([], |r| r.get(0))?;
        rows.collect::<rusqlite::Result<_>>()?
    };
    for n in 0..messages {
        let turn = i64::try_from(n).unwrap_or(i64::MAX) + 1;
        let chat = chats.get(n % chats.len().max(1)).map(String::as_str).unwrap_or_default();
        transaction.execute(
            "INSERT INTO turn(id, grp, lane, chat, state, opened_at, closed_at, why)
             SELECT ?1, grp, grp || '/conversation', id, 'done', ?1, ?1, 'finished' FROM chat WHERE id = ?2",
            rusqlite::params![turn, chat],
        )?;
        transaction.execute(
            "INSERT INTO message(chat, message_id, version, role, state, turn, sender, sender_name, owner, text,
                                 attachments, sent_at, stored_at)
             VALUES (?2, 'old-' || ?1, 0, 'wake', 'done', ?1, 'telegram:1', 'Ann', 0, 'an old message', '[]', ?1, ?1)",
            rusqlite::params![turn, chat],
        )?;
        transaction.execute(
            "INSERT INTO outbox(ours, chat, voice, turn, key, part, text, state, not_before, created_at, lives_from, sent_at,
                                receipt)
             VALUES ('o-' || ?1, ?2, 'reply', ?1, 'e', 0, 'an old answer', 'sent', 0, ?1, ?1, ?1, 'r-' || ?1)",
            rusqlite::params![turn, chat],
        )?;
    }
    transaction.commit()
}
