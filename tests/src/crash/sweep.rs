//! The sweep: every failpoint, at its 1st, 2nd and 10th hit, with each action that is possible there. Each case has its
//! own simulation.

mod report;

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use failpoint::{Kind, Point, Side, TABLE};
use rusqlite::{Connection, OpenFlags};
use tokio::task::JoinSet;

pub use report::Report;

use super::simulation::fired;
use super::{Channel, Plan, Simulation};
use crate::world::Engine;

const HITS: [u64; 3] = [1, 2, 10];
/// A failpoint that is not reached in this number of rounds counts as not reached.
const ROUNDS: usize = 12;
/// The next round begins after this time even if a message still has no answer. At the end of the case every message
/// must have its answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// The parameters of a sweep.
#[derive(Debug, Clone)]
pub struct Sweep {
    /// Selects the failpoints whose name contains this text.
    pub only: String,
    /// Selects one action; `None` runs all.
    pub action: Option<String>,
    /// Uses this machine's Docker engine, and only kills at the first hit.
    pub docker: bool,
    /// The number of parallel cases.
    pub at_once: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Case {
    pub point: Point,
    /// The hit at which the action happens.
    pub hit: u64,
    pub action: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Every promise was kept.
    Held,
    /// The simulation did not hit the failpoint that often.
    NotReached,
    /// A promise was broken, or the simulation panicked.
    Broken(String),
}

/// Returns the actions to test at a failpoint. The runner is one process per box, so a panic in it is a crash, and
/// `kill` covers it.
fn actions(point: &Point) -> impl Iterator<Item = &'static str> {
    let failures: &[&str] = match point.kind {
        Kind::Step => &[],
        Kind::Call => &["error"],
        Kind::Disk => &["error", "enospc", "eio"],
    };
    let panics: &[&str] = if point.side == Side::Host { &["panic"] } else { &[] };
    ["kill", "delay(300)"].into_iter().chain(failures.iter().copied()).chain(panics.iter().copied())
}

fn cases(sweep: &Sweep) -> VecDeque<Case> {
    let points = TABLE.iter().filter(|point| point.name.contains(&sweep.only));
    let all = points.flat_map(|point| {
        let of_action = move |action| HITS.map(|hit| Case { point: *point, hit, action });
        actions(point).flat_map(of_action)
    });
    let named = |case: &Case| sweep.action.as_ref().is_none_or(|action| case.action == action);
    all.filter(|case| named(case) && (!sweep.docker || (case.hit == 1 && case.action == "kill"))).collect()
}

/// Runs a sweep. The evidence of broken cases stays below `dir`.
pub async fn sweep(sweep: Sweep, dir: &Path) -> Report {
    let (begun, left) = (Instant::now(), Arc::new(Mutex::new(cases(&sweep))));
    let mut workers = JoinSet::new();
    for _ in 0..sweep.at_once {
        let (left, dir, docker) = (Arc::clone(&left), dir.to_owned(), sweep.docker);
        workers.spawn(async move {
            let mut done = Vec::new();
            let next = || left.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            while let Some(case) = next() {
                let outcome = outcome(case, docker, &dir).await;
                let Case { point, hit, action } = case;
                eprintln!("{} {hit}*{action}: {outcome:?}", point.name);
                done.push((case, outcome));
            }
            done
        });
    }
    let mut done = Vec::new();
    while let Some(some) = workers.join_next().await {
        done.extend(some.unwrap_or_default());
    }
    Report::new(done, begun.elapsed())
}

/// Runs a case. If its simulation panics, the case is broken, and the sweep goes on.
async fn outcome(case: Case, docker: bool, dir: &Path) -> Outcome {
    let dir = dir.join(format!("{}-{}-{}", case.point.name, case.hit, case.action));
    let living = tokio::spawn(run_case(case, docker, dir.clone()));
    let outcome =
        living.await.unwrap_or_else(|panic| Outcome::Broken(format!("the simulation fell: {panic}")));
    if !matches!(outcome, Outcome::Broken(_)) {
        // Nobody needs the evidence of a case that held.
        let _ = std::fs::remove_dir_all(dir);
    }
    outcome
}

/// The traffic that makes the simulation reach a failpoint.
struct Talk {
    /// The last digits of the token numbers, which decide what the model does.
    digits: &'static [u64],
    /// Closes a listening box at once, so that each turn has its own box.
    one_turn_boxes: bool,
    /// Ends the host in the middle of turns, again and again.
    restarts: bool,
    /// Ends it with two signals, so that it ends its boxes first, instead of SIGKILL.
    by_two_signals: bool,
    /// Whether people write so much that the conversation outgrows the model's context window.
    outgrows: bool,
    /// People ask for tasks, which fire soon on a driven clock.
    tasks: bool,
    /// The rules ask the people about every command.
    permissions: bool,
    /// The model writes so slowly that people see drafts.
    slow_model: bool,
    /// What an owner writes in each round, beside the messages.
    order: &'static str,
    /// Another failpoint that must fail the same number of times; otherwise this failpoint is not reached.
    before: Option<&'static str>,
}

/// The beginnings of the failpoints that only tasks reach.
pub(super) const TASKS: &[&str] = &["scheduler", "store.fires", "store.task", "runner.gate"];

impl Talk {
    fn of(point: &Point) -> Self {
        let begins = |any: &[&str]| any.iter().any(|start| point.name.starts_with(start));
        Self {
            digits: if begins(&["run.request", "runner.request", "store.verdict"]) {
                &[8]
            } else if begins(&["run.react"]) {
                &[9]
            } else if begins(&["store.answer"]) {
                &[0]
            } else if begins(&["runner.permission"]) {
                &[1, 6]
            } else if begins(&["runner.tool", "runner.compact"]) {
                &[1, 6, 5]
            } else if begins(TASKS) {
                &[1, 4, 2, 3]
            } else {
                &[1, 2, 3, 4, 5, 6, 7, 8]
            },
            one_turn_boxes: begins(&[
                "run.launch",
                "run.close",
                "run.collect",
                "sandbox",
                "store.collect",
                "store.new_run",
                "store.letter",
                "runner.close",
                "runner.ready",
                "run.reap",
                "run.clear",
            ]),
            restarts: begins(&[
                "supervisor.recover",
                "daemon.recover",
                "run.adopt",
                "run.reap",
                "sandbox.state",
                "sandbox.signal",
            ]),
            by_two_signals: begins(&["sandbox.signal"]),
            tasks: begins(TASKS),
            outgrows: begins(&["runner.compact"]),
            permissions: begins(&["runner.permission"]),
            slow_model: begins(&["delivery.draft"]),
            order: if begins(&["supervisor.model"]) { "/model default" } else { "/status" },
            before: begins(&["run.reap"]).then_some("sandbox.remove.before"),
        }
    }
}

async fn run_case(case: Case, docker: bool, dir: PathBuf) -> Outcome {
    let engine = if docker { Engine::docker() } else { Engine::stand_in().await };
    let plan = Plan {
        channel: Channel::Telegram,
        policy: None,
        groups: 2,
        chats: 3,
        lost: 0.0,
        busy: 0.0,
        down: 0.0,
        odd: 0.0,
        seed: 1,
    };
    let talk = Talk::of(&case.point);
    let mut simulation = Simulation::build(engine, plan).await;
    if talk.tasks {
        simulation = simulation.with_tasks();
    }
    if talk.permissions || talk.order != "/status" {
        simulation = simulation.with_owners(talk.permissions);
    }
    if talk.slow_model {
        simulation.world.model.drips_all(8, Duration::from_millis(500));
    }
    if talk.one_turn_boxes {
        simulation.world.set("LAZARET_LIMITS_IDLE_WINDOW", "0s");
    }
    if talk.outgrows {
        simulation = simulation.with_long_messages();
        simulation.world.set("LAZARET_MODEL_WINDOW", "12000").set("LAZARET_MODEL_MAX_TOKENS", "512");
    }
    if case.point.name.starts_with("delivery.mark") {
        simulation.world.set("LAZARET_CHANNELS_TELEGRAM_TAKEN_REACTION", "all");
    }
    let rule = format!("{}={}*{}", case.point.name, case.hit, case.action);
    let trace = match case.point.side {
        Side::Host => {
            let before = |name| (1..=case.hit).map(move |at| format!("{name}={at}*error;"));
            let before: String = talk.before.into_iter().flat_map(before).collect();
            simulation.arm(Some(&format!("{before}{rule}")));
            simulation.world.root().join("failpoints.trace")
        }
        Side::Runner => {
            // An install that has files of boxes and no database would not start.
            simulation.up().await;
            let workspace = "state/workspaces/main";
            simulation.world.write(&format!("{workspace}/{}", failpoint::RULES_FILE), &rule);
            simulation.world.root().join(workspace).join(failpoint::TRACE_FILE)
        }
    };
    let has_fired = || fired(&trace, case.point.name) > 0;
    simulation.up().await;
    for _ in 0..ROUNDS {
        round(&mut simulation, &talk, &has_fired).await;
        if has_fired() {
            break;
        }
    }
    let database = simulation.world.root().join("state/lazaret.db");
    let inspect = || (has_fired(), panics_counted(&database));
    match simulation.check_and(&dir, &inspect).await {
        (verdict, _) if !verdict.holds() => Outcome::Broken(verdict.broken.join("; ")),
        (_, (false, _)) => Outcome::NotReached,
        // A panic of one worker must not leave work until the next host.
        (verdict, _) if case.action == "panic" && verdict.nudges > 0 => {
            Outcome::Broken("the simulation stood still until it got another host".to_owned())
        }
        // A panic during the host's start ends the host, because it has no workers yet.
        (verdict, (true, 0)) if case.action == "panic" && verdict.kills == 0 => {
            Outcome::Broken("the panic was not counted".to_owned())
        }
        (_, (true, _)) => Outcome::Held,
    }
}

/// Returns the number of panics that `lazaret status` reports.
pub(super) fn panics_counted(database: &Path) -> i64 {
    let count = || {
        let sql = "SELECT value FROM number WHERE name = 'worker_panics'";
        Connection::open_with_flags(database, OpenFlags::SQLITE_OPEN_READ_ONLY)?
            .query_row(sql, [], |row| row.get(0))
    };
    count().unwrap_or(0)
}

/// Lets every participant write. Each writes two messages at once, so that the second is a follow-up of the first, and
/// some commands in between.
async fn round(simulation: &mut Simulation, talk: &Talk, has_fired: &impl Fn() -> bool) {
    for pair in talk.digits.chunks(2) {
        if talk.restarts {
            restart(simulation, talk).await;
        }
        for chat in 0..simulation.chats() {
            pair.iter().for_each(|digit| simulation.says_like(chat, None, Some(*digit)));
        }
        if talk.restarts {
            for _ in 0..3 {
                tokio::time::sleep(Duration::from_millis(150)).await;
                restart(simulation, talk).await;
            }
        }
        let asked = Instant::now();
        while simulation.waiting() > 0 && asked.elapsed() < PATIENCE {
            simulation.up().await;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        if talk.tasks {
            fire_all(simulation).await;
        }
        simulation.says(0, Some(talk.order));
        if has_fired() {
            break;
        }
    }
    if !talk.outgrows && !talk.tasks {
        simulation.says(0, Some("/new"));
        simulation.says(1, Some("/new"));
    }
}

/// Lets the time of the tasks come, and waits until all have fired.
async fn fire_all(simulation: &mut Simulation) {
    simulation.pass(Duration::from_secs(61));
    let asked = Instant::now();
    let left = "SELECT (SELECT count(*) FROM task WHERE state = 'active') + (SELECT count(*) FROM fire WHERE state <> 'ended')";
    while simulation.count(left) != Some(0) && asked.elapsed() < PATIENCE {
        simulation.up().await;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn restart(simulation: &mut Simulation, talk: &Talk) {
    if simulation.world.is_up() {
        match talk.by_two_signals {
            true => simulation.world.end_now().await,
            false => simulation.world.kill_host().await,
        }
    }
    simulation.up().await;
}
