//! Compares a young install with one that holds a million messages: half of them are talk of a room that nobody
//! answers. Two hosts with the engine stand-in are measured alternately, so that changes on the machine affect both
//! alike. Everything is measured from outside: the platform, the command line, and the steps that `trace` shows.
//!
//! The first searches of each install index its history. Another group's turn beside them is measured too.

use std::collections::BTreeMap;
use std::time::Instant;

use serde_json::{Value, json};

use super::median;
use crate::telegram::{Chat, Person};
use crate::world::{Engine, World};

/// The messages of the two installs.
const SIZES: [u32; 2] = [1_000, 1_000_000];
/// The highest accepted ratio of the two medians.
const GOAL: f64 = 1.3;
/// The longest that `lazaret status` may take.
const STATUS_MS: f64 = 200.0;
/// The longest that a turn with a search may take. It ranks what it matches, and here a word is in every message.
const SEARCH_MS: f64 = 3_000.0;
/// Warm turns in each round.
const TURNS: usize = 5;
/// Calls of each command in each round.
const COMMANDS: usize = 5;

struct Install {
    world: World,
    ann: Person,
    direct: Chat,
    /// Milliseconds of each measurement.
    took: BTreeMap<&'static str, Vec<f64>>,
}

/// Measures `rounds` lives of each host and prints one line for each kind of work.
pub async fn history(rounds: usize) {
    let mut installs = Vec::new();
    for messages in SIZES {
        let (mut world, ann, direct) = World::ann_at_home(Engine::stand_in().await, &[]).await;
        world.model.on("ping").says("pong");
        let search = json!({ "query": "number 777" });
        world.model.on("look it up").runs("search_history", search).says("found");
        world.stop_host().await;
        fill(&world, messages, &direct.address());
        installs.push(Install { world, ann, direct, took: BTreeMap::new() });
    }
    for (install, messages) in installs.iter_mut().zip(SIZES) {
        install.indexes(messages).await;
    }
    for round in 0..rounds {
        // Every other round begins with the other install.
        for at in 0..installs.len() {
            installs[(at + round) % 2].a_life().await;
        }
    }
    let last = installs.pop().zip(installs.pop());
    let Some((many, few)) = last else { return };
    for what in ["start", "warm turn", "input to turn's end", "search", "status", "doctor"] {
        tell(what, &few.took, &many.took, rounds);
    }
    few.world.finish().await;
    many.world.finish().await;
}

fn fill(world: &World, messages: u32, chat: &str) {
    let now = jiff::Timestamp::now().as_millisecond();
    let filled = world.database().execute_batch(&format!(
        "PRAGMA synchronous = off; BEGIN;
         CREATE TEMP TABLE size AS SELECT {messages} AS n, 'main' AS grp, '{chat}' AS chat, {now} AS now;
         {};
         COMMIT; PRAGMA wal_checkpoint(TRUNCATE);",
        include_str!("../../../host/src/store/tests/history.sql")
    ));
    if let Err(e) = filled {
        panic!("the history of {messages} messages: {e}");
    }
}

impl Install {
    /// Searches until everything is indexed, while the club's agent answers.
    async fn indexes(&mut self, messages: u32) {
        let club = self.world.telegram.room(-900, "Club");
        self.world.write("groups/club/group.toml", "");
        self.world.up().await;
        let (began, mut searches, mut beside) = (Instant::now(), 0, Vec::new());
        loop {
            self.ann.says(&self.direct, "look it up");
            let asked = Instant::now();
            self.ann.says(&club, "@laz_bot ping");
            assert_eq!(self.world.hears(&club).await, "pong");
            // The first one starts a box.
            if searches > 0 || messages == SIZES[0] {
                beside.push(asked.elapsed().as_secs_f64() * 1000.0);
            }
            assert_eq!(self.world.hears(&self.direct).await, "found");
            searches += 1;
            if self.world.model.tool_results().last().is_some_and(|told| !told.contains("still indexing")) {
                break;
            }
        }
        let ms = began.elapsed().as_millis();
        let file = self.world.root().join("state/history-index.db");
        let bytes = std::fs::metadata(file).map_or(0, |file| file.len());
        let slowest = beside.into_iter().fold(0.0, f64::max).round();
        println!(
            "{}",
            json!({ "what": "history", "part": "first index", "messages": messages, "searches": searches,
                    "ms": ms, "index_bytes": bytes, "slowest_turn_of_another_group_ms": slowest })
        );
        self.world.stop_host().await;
    }

    async fn a_life(&mut self) {
        let polls = self.world.telegram.polls();
        let began = Instant::now();
        self.world.up().await;
        self.world.telegram.polled(polls + 1).await;
        self.add("start", began);
        // The first turn starts the box.
        self.turn().await;
        for _ in 0..TURNS {
            let began = Instant::now();
            let message = self.turn().await;
            self.add("warm turn", began);
            let end = self.end_of(&message).await;
            self.took.entry("input to turn's end").or_default().push(end);
        }
        for _ in 0..TURNS {
            let began = Instant::now();
            self.ann.says(&self.direct, "look it up");
            assert_eq!(self.world.hears(&self.direct).await, "found");
            self.add("search", began);
        }
        for command in ["status", "doctor"].repeat(COMMANDS) {
            let began = Instant::now();
            self.world.lazaret(&[command]).await;
            self.add(command, began);
        }
        self.world.stop_host().await;
    }

    fn add(&mut self, what: &'static str, began: Instant) {
        self.took.entry(what).or_default().push(began.elapsed().as_secs_f64() * 1000.0);
    }

    /// Ann asks and is answered. Returns the message.
    async fn turn(&self) -> String {
        self.ann.says(&self.direct, "ping");
        assert_eq!(self.world.hears(&self.direct).await, "pong");
        let newest = "SELECT 'm-' || max(seq) FROM message";
        match self.world.database().query_row(newest, [], |r| r.get(0)) {
            Ok(message) => message,
            Err(e) => panic!("the newest message: {e}"),
        }
    }

    /// Returns the time from the turn's input to the commit of its end, by the host's clock.
    async fn end_of(&self, message: &str) -> f64 {
        let trace = self.world.settled(message).await;
        let steps = trace["steps"].as_array().cloned().unwrap_or_default();
        let at = |name: &str| -> Option<i64> {
            steps.iter().find(|step| step["name"] == name).and_then(|step| step["mono_us"].as_i64())
        };
        match (at("input"), at("turn_done")) {
            (Some(input), Some(done)) => (done - input) as f64 / 1000.0,
            _ => panic!("{message} has no end: {trace}"),
        }
    }
}

fn tell(
    what: &str,
    few: &BTreeMap<&'static str, Vec<f64>>,
    many: &BTreeMap<&'static str, Vec<f64>>,
    n: usize,
) {
    let rounded = |ms: f64| (ms * 100.0).round() / 100.0;
    let of = |took: &BTreeMap<&'static str, Vec<f64>>| median(took.get(what).cloned().unwrap_or_default());
    let (before, after) = (of(few), of(many));
    let ratio = rounded(after / before);
    let held = match what {
        "search" => after <= SEARCH_MS,
        "status" => ratio <= GOAL && after <= STATUS_MS,
        _ => ratio <= GOAL,
    };
    let line: Value = json!({
        "what": "history", "part": what, "messages": SIZES, "ms": [rounded(before), rounded(after)],
        "ratio": ratio, "goal": GOAL, "held": held, "n": n,
    });
    println!("{line}");
}
