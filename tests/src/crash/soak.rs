//! The random loop: steady load on a town whose host, boxes and engine are killed until enough is enough.

use std::path::Path;
use std::time::{Duration, Instant};

use failpoint::{Side, TABLE};
use hyper::Method;
use rustix::process::Signal;

use super::{Plan, Town, Verdict};
use crate::world::Engine;

/// How long it goes on, and what happens.
#[derive(Debug, Clone)]
pub struct Storm {
    /// The town.
    pub town: Plan,
    /// So many kills.
    pub kills: u64,
    /// At least so many messages.
    pub messages: u64,
}

/// Messages that may wait at once, per chat.
const WAITING_PER_CHAT: usize = 4;

/// Runs the loop, judges, and keeps the evidence in `dir`.
pub async fn storm(storm: Storm, dir: &Path) -> Verdict {
    let mut chance = fastrand::Rng::with_seed(storm.town.seed);
    let mut town = Town::build(Engine::stand_in().await, storm.town).await;
    town.up().await;
    town.troubles(true);
    let (begun, mut told) = (Instant::now(), Instant::now());
    let mut next_kill = Instant::now();
    while town.facts.kills < storm.kills || town.said() < storm.messages {
        if !town.world.is_up() {
            // An armed point has fired.
            town.facts.kills += 1;
            restart(&mut town, &mut chance).await;
        }
        let room = WAITING_PER_CHAT * town.chats();
        if town.waiting() < room {
            let chat = chance.usize(..town.chats());
            let order = (chance.f64() < 0.01).then_some("/new");
            town.says(chat, order);
        }
        if Instant::now() >= next_kill && town.facts.kills < storm.kills {
            kill_something(&mut town, &mut chance).await;
            next_kill = Instant::now() + Duration::from_millis(chance.u64(20..600));
        }
        if told.elapsed() > Duration::from_secs(10) {
            told = Instant::now();
            let (kills, said, waiting) = (town.facts.kills, town.said(), town.waiting());
            eprintln!("{:>5} s: {kills} kills, {said} messages, {waiting} wait", begun.elapsed().as_secs());
        }
        tokio::time::sleep(Duration::from_millis(chance.u64(1..25))).await;
    }
    town.arm(None);
    town.judge(dir).await
}

async fn kill_something(town: &mut Town, chance: &mut fastrand::Rng) {
    town.facts.kills += 1;
    match chance.f64() {
        roll if roll < 0.12 => {
            // As without live-restore: its boxes go with it.
            town.world.engine().stop();
            tokio::time::sleep(Duration::from_millis(chance.u64(0..1500))).await;
            town.world.engine().start().await;
        }
        roll if roll < 0.3 => kill_box(town, chance).await,
        _ => {
            town.world.kill_host().await;
            restart(town, chance).await;
        }
    }
}

/// SIGKILL to the first process of a box.
async fn kill_box(town: &Town, chance: &mut fastrand::Rng) {
    let boxes = town.world.boxes().await;
    let Some(name) = boxes.get(chance.usize(..boxes.len().max(1))) else { return };
    let state = town.world.engine().ask(Method::GET, &format!("/containers/{name}/json"), None).await.json();
    let pid = state["State"]["Pid"].as_i64().and_then(|pid| i32::try_from(pid).ok());
    if let Some(pid) = pid.and_then(rustix::process::Pid::from_raw) {
        // One that has ended meanwhile needs no kill.
        let _ = rustix::process::kill_process(pid, Signal::KILL);
    }
}

/// Another host after a while; every other one carries the end of its life in it.
async fn restart(town: &mut Town, chance: &mut fastrand::Rng) {
    tokio::time::sleep(Duration::from_millis(chance.u64(0..200))).await;
    let points: Vec<_> = TABLE.iter().filter(|point| point.side == Side::Host).collect();
    let (point, at, armed) = (chance.choice(&points), chance.u64(1..12), chance.bool());
    let rule = point.filter(|_| armed).map(|point| format!("{}={at}*kill", point.name));
    town.arm(rule.as_deref());
    town.up().await;
}
