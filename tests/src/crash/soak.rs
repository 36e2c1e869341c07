//! The soak test: steady load on a simulation whose host, boxes, engine and connection are killed at random.

use std::path::Path;
use std::time::{Duration, Instant};

use failpoint::{Side, TABLE};
use hyper::Method;
use rustix::process::Signal;

use super::{Plan, Simulation, Verdict};
use crate::world::Engine;

/// The parameters of a soak test.
#[derive(Debug, Clone)]
pub struct Soak {
    pub simulation: Plan,
    pub kills: u64,
    /// The minimum number of messages.
    pub messages: u64,
}

/// The maximum number of unanswered messages per chat.
const WAITING_PER_CHAT: usize = 4;

/// Runs the test, keeps the evidence in `dir` and checks it.
pub async fn soak(soak: Soak, dir: &Path) -> Verdict {
    let mut chance = fastrand::Rng::with_seed(soak.simulation.seed);
    let mut simulation = Simulation::build(Engine::stand_in().await, soak.simulation).await;
    simulation.up().await;
    simulation.troubles(true);
    let (begun, mut told) = (Instant::now(), Instant::now());
    let mut next_kill = Instant::now();
    while simulation.facts.kills < soak.kills || simulation.said() < soak.messages {
        if !simulation.world.is_up() {
            // The host is gone because a failpoint fired.
            simulation.facts.kills += 1;
            restart(&mut simulation, &mut chance).await;
        }
        let room = WAITING_PER_CHAT * simulation.chats();
        if simulation.waiting() < room {
            let chat = chance.usize(..simulation.chats());
            let order = (chance.f64() < 0.01).then_some("/new");
            simulation.says(chat, order);
        }
        if Instant::now() >= next_kill && simulation.facts.kills < soak.kills {
            kill_something(&mut simulation, &mut chance).await;
            next_kill = Instant::now() + Duration::from_millis(chance.u64(20..600));
        }
        if told.elapsed() > Duration::from_secs(10) {
            told = Instant::now();
            let (kills, said, waiting) = (simulation.facts.kills, simulation.said(), simulation.waiting());
            eprintln!("{:>5} s: {kills} kills, {said} messages, {waiting} wait", begun.elapsed().as_secs());
        }
        tokio::time::sleep(Duration::from_millis(chance.u64(1..25))).await;
    }
    simulation.arm(None);
    simulation.check(dir).await
}

async fn kill_something(simulation: &mut Simulation, chance: &mut fastrand::Rng) {
    simulation.facts.kills += 1;
    match chance.f64() {
        roll if roll < 0.12 => {
            // The engine's boxes end with it, as in a Docker engine without live-restore.
            simulation.world.engine().stop();
            tokio::time::sleep(Duration::from_millis(chance.u64(0..1500))).await;
            simulation.world.engine().start().await;
        }
        roll if roll < 0.3 => kill_box(simulation, chance).await,
        roll if roll < 0.4 && simulation.holds_connection() => simulation.cut_connection(),
        _ => {
            simulation.world.kill_host().await;
            restart(simulation, chance).await;
        }
    }
}

/// Kills the first process of a box.
pub(super) async fn kill_box(simulation: &Simulation, chance: &mut fastrand::Rng) {
    let boxes = simulation.world.boxes().await;
    let Some(name) = boxes.get(chance.usize(..boxes.len().max(1))) else { return };
    let state =
        simulation.world.engine().ask(Method::GET, &format!("/containers/{name}/json"), None).await.json();
    let pid = state["State"]["Pid"].as_i64().and_then(|pid| i32::try_from(pid).ok());
    if let Some(pid) = pid.and_then(rustix::process::Pid::from_raw) {
        // The box may have ended meanwhile.
        let _ = rustix::process::kill_process(pid, Signal::KILL);
    }
}

/// Starts another host after a while. Every other one has a failpoint that will kill it.
async fn restart(simulation: &mut Simulation, chance: &mut fastrand::Rng) {
    tokio::time::sleep(Duration::from_millis(chance.u64(0..200))).await;
    let points: Vec<_> = TABLE.iter().filter(|point| point.side == Side::Host).collect();
    let (point, at, armed) = (chance.choice(&points), chance.u64(1..12), chance.bool());
    let rule = point.filter(|_| armed).map(|point| format!("{}={at}*kill", point.name));
    simulation.arm(rule.as_deref());
    simulation.up().await;
}
