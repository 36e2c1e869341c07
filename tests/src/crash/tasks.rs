//! The tasks show: 56 tasks in three groups on a clock that the test drives, people who ask for more, and a host that
//! is killed again and again. Each planned minute must have one fire with one true outcome.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use failpoint::{Point, RULES_FILE, Side, TABLE, TRACE_FILE};
use futures_util::{StreamExt, stream};
use serde::Serialize;

use super::checker::{self, FireVerdict};
use super::simulation::fired;
use super::soak::kill_box;
use super::sweep::TASKS;
use super::{Channel, Evidence, Plan, Simulation};
use crate::world::Engine;

/// The parameters of the show.
#[derive(Debug, Clone, Copy)]
pub struct Tasks {
    pub kills: u64,
    pub seed: u64,
}

/// The last line of the show.
#[derive(Debug, Serialize)]
pub struct Line {
    kills: u64,
    #[serde(flatten)]
    fires: FireVerdict,
    /// How much time the host's clock has told.
    minutes: i64,
    /// How many places of the tasks' code have killed the host or a box, at least once each.
    failpoints: usize,
    /// Messages of people, each with its answer or notice.
    messages: u64,
    seconds: u64,
    /// Where the evidence lies, if a promise was broken.
    #[serde(skip_serializing_if = "Option::is_none")]
    evidence: Option<PathBuf>,
    /// Each broken promise in words.
    #[serde(skip)]
    pub broken: Vec<String>,
}

const GROUPS: [(&str, &str); 3] = [("main", "terminal:local"), ("g1", "terminal:g1"), ("g2", "terminal:g2")];
const EACH_MINUTE: usize = 50;
/// Tasks that can be late: they fire each five minutes.
const RARER: usize = 6;
/// The script of a gate that says yes or no by chance.
const GATE: &str =
    "[ $((RANDOM % 2)) = 0 ] && echo '{\"wake\": true, \"data\": 7}' || echo '{\"wake\": false}'\n";
/// The kinds of tasks, with the beginning of their prompt and their options.
const KINDS: [(&str, &[&str]); 10] = [
    ("say", &[]),
    ("stretch", &["--remind"]),
    ("say", &["--context", "group"]),
    ("say", &["--gate", "GATE"]),
    ("say", &["--silent"]),
    ("drink", &["--remind"]),
    ("say", &["--context", "group", "--gate", "GATE"]),
    ("tell", &[]),
    ("run", &["--overlap", "queue"]),
    ("run", &["--context", "group", "--silent"]),
];
const RARER_KINDS: [(&str, &[&str]); 3] =
    [("late", &["--remind"]), ("say", &[]), ("say", &["--catch-up", "skip", "--silent"])];

/// The clock goes on at once while fewer fires than this are not over.
const BUSY: i64 = 12;
/// The show waits this long for the places that have not killed yet.
const LONGEST: Duration = Duration::from_secs(330);
/// Messages without an answer.
const WAITING: usize = 4;
/// A step of the tasks that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs the show. The evidence stays in `dir` if a promise was broken.
pub async fn tasks(show: Tasks, dir: &Path) -> Line {
    let begun = Instant::now();
    let plan = Plan {
        channel: Channel::Terminal,
        policy: None,
        groups: GROUPS.len(),
        chats: GROUPS.len(),
        lost: 0.01,
        busy: 0.0,
        down: 0.0,
        odd: 0.0,
        seed: show.seed,
    };
    let mut show = Show {
        simulation: Simulation::build(Engine::stand_in().await, plan).await.with_tasks(),
        chance: fastrand::Rng::with_seed(show.seed),
        left: places(Side::Host).collect(),
        armed: None,
        kills: show.kills,
        begun,
    };
    show.simulation.up().await;
    show.arm_boxes();
    show.add_all().await;
    let from = show.simulation.now();
    show.disturb().await;
    show.end().await;
    let Show { mut simulation, left, .. } = show;
    let in_boxes =
        GROUPS.map(|(group, _)| workspace(group).join(TRACE_FILE)).map(|at| simulation.world.root().join(at));
    let killed = |name: &str| in_boxes.iter().map(|trace| fired(trace, name)).sum::<usize>();
    let failpoints = places(Side::Host).count() - left.len()
        + places(Side::Runner).filter(|point| killed(point.name) > 0).count();
    simulation.facts.kills += killed("") as u64;
    let minutes = (simulation.now() - from) / 60_000;
    let verdict = simulation.check(dir).await;
    let mut fires = match Evidence::read(dir) {
        Ok(evidence) => checker::check_fires(&evidence),
        Err(e) => panic!("{e}"),
    };
    fires.unaccounted += verdict.lost;
    fires.doubled += verdict.duplicated;
    let broken = verdict.broken;
    let evidence = (!broken.is_empty()).then(|| dir.canonicalize().unwrap_or_else(|_| dir.to_owned()));
    if evidence.is_none() {
        // Nobody needs the evidence of a show that held.
        let _ = std::fs::remove_dir_all(dir);
    }
    let (kills, messages, seconds) = (verdict.kills, verdict.messages, begun.elapsed().as_secs());
    Line { kills, fires, minutes, failpoints, messages, seconds, evidence, broken }
}

/// The failpoints of the tasks' code.
fn places(side: Side) -> impl Iterator<Item = &'static Point> {
    let of_tasks = |point: &&Point| TASKS.iter().any(|start| point.name.starts_with(start));
    TABLE.iter().filter(move |point| point.side == side).filter(of_tasks)
}

/// The workspace of a group, below the root.
fn workspace(group: &str) -> PathBuf {
    Path::new("state/workspaces").join(group)
}

struct Show {
    simulation: Simulation,
    chance: fastrand::Rng,
    /// The places in the host that have not killed it yet.
    left: VecDeque<&'static Point>,
    /// The place that is to kill the host that runs.
    armed: Option<&'static Point>,
    kills: u64,
    begun: Instant,
}

impl Show {
    /// Lets boxes of the conversations die around their gate scripts, now and then.
    fn arm_boxes(&self) {
        let rules = [("runner.gate.before", [2, 30, 80]), ("runner.gate.after", [4, 20, 60])];
        let rules =
            rules.map(|(name, hits)| hits.map(|hit| format!("{name}={hit}*kill")).join("\n")).join("\n");
        for (group, _) in GROUPS {
            let path = workspace(group).join(RULES_FILE);
            self.simulation.world.write(&path.to_string_lossy(), &rules);
        }
    }

    async fn add_all(&mut self) {
        // A chat exists from its first message on.
        (0..GROUPS.len()).for_each(|chat| self.simulation.says(chat, None));
        let asked = Instant::now();
        while self.simulation.waiting() > 0 {
            assert!(asked.elapsed() < PATIENCE, "the chats get no answers:\n{}", self.simulation.world.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.simulation.world.write("gate.sh", GATE);
        let gate = self.simulation.world.root().join("gate.sh").to_string_lossy().into_owned();
        let each = KINDS.iter().cycle().take(EACH_MINUTE).map(|kind| ("* * * * *", kind));
        let rarer = RARER_KINDS.iter().cycle().take(RARER).map(|kind| ("*/5 * * * *", kind));
        for (n, (schedule, (word, options))) in each.chain(rarer).enumerate() {
            let (group, chat) = GROUPS[n % GROUPS.len()];
            let (name, prompt) = (format!("task {n}"), format!("{word} something, number {n}"));
            let mut args = vec!["tasks", "add", &name, schedule, &prompt, "--group", group, "--chat", chat];
            args.extend(options.iter().map(|option| if *option == "GATE" { gate.as_str() } else { option }));
            self.simulation.world.lazaret(&args).await;
        }
    }

    /// Kills host and boxes under load, until there were enough kills and each place has killed.
    async fn disturb(&mut self) {
        let (mut told, mut next_kill, mut looked) = (Instant::now(), Instant::now(), Instant::now());
        let enough = |show: &Self| {
            show.simulation.facts.kills >= show.kills
                && (show.left.is_empty() || show.begun.elapsed() > LONGEST)
        };
        while !enough(self) {
            if !self.simulation.world.is_up() {
                self.simulation.facts.kills += 1;
                self.restart().await;
            }
            if self.simulation.waiting() < WAITING && self.chance.f64() < 0.1 {
                let chat = self.chance.usize(..self.simulation.chats());
                self.simulation.says(chat, None);
            }
            if looked.elapsed() > Duration::from_millis(100) {
                looked = Instant::now();
                if self.unfinished().is_some_and(|fires| fires < BUSY) {
                    self.next_minute();
                }
            }
            if Instant::now() >= next_kill {
                self.kill_something().await;
                next_kill = Instant::now() + Duration::from_millis(self.chance.u64(20..1_800));
            }
            if told.elapsed() > Duration::from_secs(10) {
                told = Instant::now();
                let (seconds, kills) = (self.begun.elapsed().as_secs(), self.simulation.facts.kills);
                let fires = self.simulation.count("SELECT count(*) FROM fire").unwrap_or_default();
                eprintln!("{seconds:>5} s: {kills} kills, {fires} fires, {:?} not over", self.unfinished());
            }
            tokio::time::sleep(Duration::from_millis(self.chance.u64(1..25))).await;
        }
    }

    fn unfinished(&self) -> Option<i64> {
        self.simulation.count("SELECT count(*) FROM fire WHERE state <> 'ended'")
    }

    fn next_minute(&mut self) {
        let left = 60_000 - self.simulation.now().unsigned_abs() % 60_000;
        self.simulation.pass(Duration::from_millis(left + self.chance.u64(0..5_000)));
    }

    async fn kill_something(&mut self) {
        self.simulation.facts.kills += 1;
        if self.chance.f64() < 0.2 {
            return kill_box(&self.simulation, &mut self.chance).await;
        }
        self.simulation.world.kill_host().await;
        self.restart().await;
    }

    /// Starts another host, sometimes after minutes or hours by its clock.
    async fn restart(&mut self) {
        let away = match self.chance.f64() {
            roll if roll < 0.04 => self.chance.u64(3_600..5 * 3_600),
            roll if roll < 0.2 => self.chance.u64(60..900),
            _ => self.chance.u64(0..10),
        };
        self.simulation.pass(Duration::from_secs(away));
        tokio::time::sleep(Duration::from_millis(self.chance.u64(0..100))).await;
        if let Some(point) = self.armed.take()
            && self.simulation.fired() > 0
        {
            self.left.retain(|left| left.name != point.name);
        }
        // Each place has its turn, and later any place of the host.
        self.left.rotate_left(1.min(self.left.len()));
        let anywhere: Vec<&Point> = TABLE.iter().filter(|point| point.side == Side::Host).collect();
        self.armed = match self.left.front() {
            Some(point) => Some(point),
            None => self.chance.choice(anywhere).filter(|_| self.chance.bool()),
        };
        let hit = self.chance.u64(1..8);
        let rule = self.armed.map(|point| format!("{}={hit}*kill", point.name));
        self.simulation.arm(rule.as_deref());
        self.simulation.up().await;
    }

    /// Ends the tasks behind a whole minute, so that it is known which minutes must have fires.
    async fn end(&mut self) {
        self.simulation.arm(None);
        if self.simulation.world.is_up() {
            // This host may have a rule that kills it.
            self.simulation.world.kill_host().await;
        }
        self.simulation.facts.kills += 1;
        self.simulation.up().await;
        self.next_minute();
        let until = self.simulation.now();
        self.simulation.facts.fires_until = until;
        let left = format!(
            "SELECT (SELECT count(*) FROM task WHERE state = 'active' AND next_at <= {until})
                  + (SELECT count(*) FROM fire WHERE state IN ('due', 'open'))"
        );
        let asked = Instant::now();
        while self.simulation.count(&left) != Some(0) && asked.elapsed() < PATIENCE {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let simulation = &self.simulation;
        let cancel = |task: usize| async move {
            let id = format!("task-{task}");
            simulation.world.lazaret(&["tasks", "cancel", &id]).await;
        };
        stream::iter(self.repeating_tasks()).for_each_concurrent(4, cancel).await;
    }

    fn repeating_tasks(&self) -> Vec<usize> {
        let read = || {
            let database = self.simulation.database()?;
            let mut rows = database.prepare("SELECT id FROM task WHERE schedule LIKE 'cron %'")?;
            let rows = rows.query_map([], |r| r.get::<_, i64>(0))?;
            rows.map(|id| id.map(|id| usize::try_from(id).unwrap_or_default())).collect()
        };
        match read() {
            Ok(tasks) => tasks,
            Err::<_, rusqlite::Error>(e) => panic!("the tasks cannot be read: {e}"),
        }
    }
}
