//! The harness of the attacks: a host with many groups whose runner is the evil agent. It runs one case at a time in
//! each slot.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use rusqlite::{Connection, OpenFlags};
use serde_json::Value;
use tokio::sync::Semaphore;

use super::cases::{Action, BoxUse, Case, cases};
use super::expectation_kinds::Seen;
use crate::model::KEY;
use crate::telegram::{Chat, Person};
use crate::world::{Engine, World, evil_agent};

/// Cases that run in parallel.
pub const SLOTS: usize = 3;
/// Shared boxes in reserve: after a failed case, no other case uses its shared box.
const SPARE_BOXES: usize = 12;
/// A case that takes longer fails.
const CASE_TIMEOUT: Duration = Duration::from_secs(90);
/// The host must handle the letter after an attack, and another group's turn, within this time. The limit allows for a
/// busy machine; the program prints the measured times.
const MAX_WAIT_MS: u64 = 5_000;
/// The name of the host's file that boxes try to read.
const CANARY: &str = "canary-of-the-host";

/// A group, and one person's chat with it.
#[derive(Clone)]
pub struct TestGroup {
    pub group: String,
    pub person: Person,
    pub chat: Chat,
}

/// The groups that only one case uses at a time.
struct Slot {
    neighbour: TestGroup,
    shared: Vec<TestGroup>,
}

pub struct Harness {
    pub world: World,
    pid: u32,
    socket: String,
    /// The runtime in the groups' settings; `None` for the engine's default.
    runtime: Option<String>,
    slots: Mutex<Vec<Slot>>,
    free: Semaphore,
    own: BTreeMap<&'static str, TestGroup>,
}

#[derive(Debug, Clone)]
pub struct Outcome {
    pub name: &'static str,
    /// The requirements, in a few words.
    pub required: String,
    /// The posture gap, with its name in `status`, that lowers the requirements.
    pub loss: Option<&'static str>,
    /// The time from the box's write of the letter after the attack until the chat gets it.
    pub next_ms: u64,
    /// The duration of the neighbour's turn during the attack.
    pub neighbour_ms: u64,
    /// Why the case failed.
    pub broken: Option<String>,
}

impl Outcome {
    pub fn line(&self) -> String {
        match &self.broken {
            None => format!(
                "held    {:<44} {}  {} ms (neighbour {} ms)",
                self.name, self.required, self.next_ms, self.neighbour_ms
            ),
            Some(why) => format!("BROKEN  {:<44} {}  {why}", self.name, self.required),
        }
    }
}

/// The forms in which a server may echo a key.
fn spelled(key: &str) -> Vec<String> {
    let each = |write: &dyn Fn(u8) -> String| key.bytes().map(write).collect::<String>();
    vec![
        key.chars().rev().collect(),
        each(&|byte| format!("{byte:02x}")),
        each(&|byte| format!("{byte:02X}")),
        each(&|byte| format!("%{byte:02X}")),
        BASE64_STANDARD.encode(key),
        BASE64_STANDARD.encode(format!("u{key}")),
        BASE64_STANDARD.encode(format!("u:{key}")),
        BASE64_URL_SAFE_NO_PAD.encode(format!("Bearer {key}")),
    ]
}

impl Harness {
    /// Starts a host with a group for every case. `settings` are lines of each group's `group.toml`. If they name
    /// gVisor's runtime, the harness starts an engine of its own that has it.
    pub async fn open(settings: &str) -> Self {
        Self::with_ceiling(settings, &[]).await
    }

    /// Like [`Harness::open`], with settings of the install as environment variables.
    pub async fn with_ceiling(settings: &str, ceiling: &[(&str, &str)]) -> Self {
        let engine =
            if settings.contains("\"runsc") { Engine::own_docker_with_gvisor() } else { Engine::docker() };
        let socket = engine.socket();
        let named = settings.lines().find_map(|line| line.trim().strip_prefix("runtime = "));
        let runtime = named.map(|name| name.trim_matches('"').to_owned());
        let mut world = World::on(engine).await;
        if let Some(runtime) = &runtime {
            world.set("LAZARET_ENGINE_RUNTIMES", &format!("[{runtime:?}]"));
        }
        world.set("LAZARET_RUNNER", &evil_agent().to_string_lossy());
        let many = [("LAZARET_HOST_WORKING_RUNS", "16"), ("LAZARET_HOST_LIVE_BOXES", "32")];
        for (name, value) in many.iter().chain(ceiling) {
            world.set(name, value);
        }
        world.write(CANARY, "this is the host's own canary\n");
        // The model's checks do not apply to a hostile runner's calls.
        world.model.allow_unstreamed();
        world.model.allow_unscripted();
        world.model.on("attack headers").says("Fine.");
        world.model.on("attack honestly").says("Here.");
        world.model.on("attack say the key").says(&format!("The key is {KEY}."));
        world.model.on("attack spell the key").says(&spelled(KEY).join(", "));
        let mut number = 1_000;
        let mut test_group = |group: &str, lines: &str| {
            number += 1;
            let person = world.telegram.person(number, "Mallory");
            let chat = person.direct();
            let toml = format!("chats = [{:?}]\n{settings}\n{lines}\n", chat.address());
            world.write(&format!("groups/{group}/group.toml"), &toml);
            TestGroup { group: group.to_owned(), person, chat }
        };
        let mut slots = Vec::new();
        for n in 0..SLOTS {
            let neighbour = test_group(&format!("neighbour{n}"), "");
            let shared =
                (0..SPARE_BOXES).rev().map(|spare| test_group(&format!("shared{n}-{spare}"), "")).collect();
            slots.push(Slot { neighbour, shared });
        }
        let mut own = BTreeMap::new();
        for (n, case) in cases().iter().enumerate() {
            let lines = match case.box_use {
                BoxUse::Shared => continue,
                BoxUse::Own => "limits.idle_window = 0",
                BoxUse::With(lines) => lines,
            };
            own.insert(case.name, test_group(&format!("c{n}"), lines));
        }
        world.up().await;
        let pid = world.host().pid().unwrap_or(0);
        let slots = Mutex::new(slots);
        Self { world, pid, socket, runtime, slots, free: Semaphore::new(SLOTS), own }
    }

    /// Returns a group that no case of the table uses, by its number.
    pub fn spare_group(&self, number: usize) -> TestGroup {
        let slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        match slots.iter().flat_map(|slot| &slot.shared).nth(number) {
            Some(test_group) => test_group.clone(),
            None => panic!("there is no group number {number}"),
        }
    }

    pub fn root(&self) -> &Path {
        self.world.root()
    }

    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Stops the host like an operator. Panics if the host ends with an error or leaves boxes behind.
    pub async fn close(self) {
        // Only the hostile box makes faulty model calls. Only the host calls Telegram, so faulty calls there fail the
        // test.
        self.world.model.take_violations();
        self.world.finish().await;
    }

    pub fn lives(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap_or_default();
        stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().next()).is_some_and(|s| s != "Z")
    }

    /// Returns the resident memory of the host in KiB.
    pub fn memory(&self) -> i64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
        line.split_whitespace().next().and_then(|kib| kib.parse().ok()).unwrap_or(0)
    }

    pub fn counters(&self) -> BTreeMap<String, i64> {
        let read = || {
            let path = self.root().join("state/lazaret.db");
            let database = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
            database.busy_timeout(Duration::from_secs(5))?;
            let mut rows = database.prepare("SELECT name, value FROM number")?;
            let rows = rows.query_map([], |r| Ok((r.get(0)?, r.get(1)?)))?;
            rows.collect::<rusqlite::Result<BTreeMap<String, i64>>>()
        };
        read().unwrap_or_default()
    }

    /// Returns a `docker` command for this harness's engine.
    pub fn docker(&self) -> std::process::Command {
        let mut docker = std::process::Command::new("docker");
        docker.env("DOCKER_HOST", &self.socket).stdin(std::process::Stdio::null());
        docker
    }

    /// Returns the names of a group's boxes that the engine still has.
    pub fn boxes_of(&self, group: &str) -> Vec<String> {
        let install = std::fs::read_to_string(self.root().join("state/install")).unwrap_or_default();
        let output = self
            .docker()
            .args(["ps", "--all", "--filter", &format!("label=lazaret.install={}", install.trim())])
            .args(["--filter", &format!("label=lazaret.group={group}"), "--format", "{{.Names}}"])
            .output();
        let listed = output.map(|o| String::from_utf8_lossy(&o.stdout).into_owned()).unwrap_or_default();
        listed.lines().map(str::to_owned).collect()
    }

    /// Returns the host's log lines that name one of the group's runs, after the first `from` bytes.
    fn log_of(&self, group: &str, from: usize) -> String {
        let runs = std::fs::read_dir(self.root().join("state/letters").join(group));
        let runs: Vec<String> = runs
            .into_iter()
            .flatten()
            .flatten()
            .map(|e| e.file_name().to_string_lossy().into_owned())
            .collect();
        let log = self.world.log();
        let new = log.get(from.min(log.len())..).unwrap_or_default();
        new.lines()
            .filter(|line| runs.iter().any(|run| line.contains(run)))
            .fold(String::new(), |all, line| all + line + "\n")
    }

    /// Asks for a turn. Returns its report and the texts before the report. A notice ends the turn without a report.
    pub async fn ask(&self, test_group: &TestGroup, text: &str, case: &str) -> (Option<Value>, Vec<String>) {
        test_group.person.says(&test_group.chat, text);
        self.hear(test_group, case, |heard| heard.starts_with("[lazaret]")).await
    }

    async fn hear(
        &self,
        test_group: &TestGroup,
        case: &str,
        ends: impl Fn(&str) -> bool,
    ) -> (Option<Value>, Vec<String>) {
        let mut heard = Vec::new();
        loop {
            let text = test_group.chat.hears().await;
            let report: Option<Value> = serde_json::from_str(text.trim()).ok();
            match report.filter(|report| report["case"] == case) {
                Some(report) => return (Some(report), heard),
                None if ends(&text) => {
                    heard.push(text);
                    return (None, heard);
                }
                None => heard.push(text),
            }
        }
    }

    /// Runs a harmless turn and returns its duration in milliseconds. Fails if the turn is not answered.
    pub async fn ping(&self, test_group: &TestGroup) -> Result<u64, String> {
        let began = tokio::time::Instant::now();
        match tokio::time::timeout(CASE_TIMEOUT, self.ask(test_group, "attack ping", "ping")).await {
            Ok((Some(_), _)) => Ok(millis(began.elapsed())),
            Ok((None, heard)) => Err(format!("it was told {heard:?}")),
            Err(_) => Err(format!("it was not answered in {} s", CASE_TIMEOUT.as_secs())),
        }
    }

    /// Runs one case.
    pub async fn run(&self, case: &Case) -> Outcome {
        let Ok(_permit) = self.free.acquire().await else { unreachable!("the semaphore is never closed") };
        let taken = self.slots.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let Some(mut slot) = taken else { unreachable!("there are as many slots as permits") };
        let outcome = self.run_in(case, &mut slot).await;
        self.slots.lock().unwrap_or_else(PoisonError::into_inner).push(slot);
        outcome
    }

    async fn run_in(&self, case: &Case, slot: &mut Slot) -> Outcome {
        let test_group =
            self.own.get(case.name).or_else(|| slot.shared.last()).unwrap_or(&slot.neighbour).clone();
        let mut outcome = Outcome {
            name: case.name,
            required: String::new(),
            loss: None,
            next_ms: 0,
            neighbour_ms: 0,
            broken: None,
        };
        let mut lost = Vec::new();
        // The neighbour's box starts before the measurement.
        let mut trouble = self.ping(&slot.neighbour).await.err();
        let acted = tokio::time::timeout(CASE_TIMEOUT, async {
            match case.action {
                Action::Scenario(scenario) => scenario(self, &test_group).await,
                Action::Attack(words) => {
                    self.attack(case, &test_group, words, &mut outcome.next_ms, &mut lost).await
                }
            }
        });
        let neighbour = async {
            // The ping must run during the attack, not before it.
            tokio::time::sleep(Duration::from_millis(50)).await;
            self.ping(&slot.neighbour).await
        };
        let (acted, neighbour) = tokio::join!(acted, neighbour);
        match neighbour {
            Ok(took) => outcome.neighbour_ms = took,
            Err(why) => drop(trouble.get_or_insert(format!("another group waits: {why}"))),
        }
        let acted = acted.unwrap_or_else(|_| {
            let told = test_group.chat.unheard();
            Err(format!(
                "nothing came to an end in {} s; unheard: {told:?}; the log says:\n{}",
                CASE_TIMEOUT.as_secs(),
                tail(&self.log_of(&test_group.group, 0))
            ))
        });
        let terms = case.terms(self.runtime.as_deref(), &lost);
        (outcome.required, outcome.loss) = (terms.word(), terms.loss);
        outcome.broken = trouble.or(acted.err());
        if !self.lives() {
            outcome.broken = Some(format!("the host died:\n{}", tail(&self.world.log())));
        }
        if outcome.broken.is_none() {
            for (what, took) in
                [("the next letter", outcome.next_ms), ("another group", outcome.neighbour_ms)]
            {
                if took > MAX_WAIT_MS {
                    outcome.broken = Some(format!("{what} waited {took} ms"));
                }
            }
        }
        if case.box_use == BoxUse::Shared && outcome.broken.is_some() && slot.shared.len() > 1 {
            // The next case gets a fresh box.
            slot.shared.pop();
        }
        outcome
    }

    /// Returns the posture gaps of a group, as `lazaret status` names them. Fails if `status` prints no gaps, or a gap
    /// without a reason or a fix.
    pub async fn lost(&self, group: &str) -> Result<Vec<String>, String> {
        let told = self.world.lazaret(&["status", "--json"]).await;
        let status: Value = serde_json::from_str(&told).map_err(|e| format!("status tells no JSON: {e}"))?;
        let losses = status["losses"].as_array().ok_or("status tells no losses")?;
        let own = losses.iter().filter(|loss| loss["group"] == group);
        own.map(|loss| {
            let whole =
                ["line", "why", "fix"].iter().all(|part| loss[*part].as_str().is_some_and(|s| !s.is_empty()));
            let line = loss["line"].as_str().filter(|_| whole);
            line.map(str::to_owned).ok_or_else(|| format!("a loss is not named in full: {loss}"))
        })
        .collect()
    }

    async fn attack(
        &self,
        case: &Case,
        test_group: &TestGroup,
        words: &str,
        next_ms: &mut u64,
        lost: &mut Vec<String>,
    ) -> Result<(), String> {
        let canary = self.root().join(CANARY);
        let model = self.world.model.anthropic_url();
        let port = model.trim_start_matches("http://").trim_end_matches('/');
        let words = words.replace("{canary}", &canary.to_string_lossy()).replace("{port}", port);
        let (counters, memory, logged) = (self.counters(), self.memory(), self.world.log().len());
        let (report, mut heard) =
            self.ask(test_group, &format!("attack {} {words}", case.name), case.name).await;
        if let Some(written) = report.as_ref().and_then(|report| report["written"].as_u64()) {
            *next_ms = now_ms().saturating_sub(written);
        }
        let (facts, resumed) = match &report {
            Some(report) => (report["facts"].clone(), report["facts"]["resumed"] == true),
            None => (Value::Null, false),
        };
        // A box that ended sends nothing more, and the group must get another box. A listening box may send more after
        // its report.
        if report.is_none() || matches!(case.box_use, BoxUse::With(_)) {
            test_group.person.says(&test_group.chat, "attack ping");
            let began = tokio::time::Instant::now();
            let (_, more) = self.hear(test_group, "ping", |_| false).await;
            heard.extend(more);
            if report.is_none() {
                *next_ms = millis(began.elapsed());
            }
        }
        if case.differs(self.runtime.as_deref()) {
            *lost = self.lost(&test_group.group).await?;
        }
        let log = self.log_of(&test_group.group, logged);
        let mut counted = self.counters();
        counted.iter_mut().for_each(|(name, value)| *value -= counters.get(name).copied().unwrap_or(0));
        let seen = Seen {
            harness: self,
            test_group,
            facts,
            resumed,
            heard,
            logged: log.len(),
            log,
            counted,
            lost: lost.clone(),
            grown: self.memory() - memory,
        };
        if let Some(error) = seen.facts["error"].as_str() {
            return Err(format!("the attack could not be made: {error}"));
        }
        // A check may block on the `docker` program.
        let terms = case.terms(self.runtime.as_deref(), lost);
        tokio::task::block_in_place(|| terms.expectations.iter().try_for_each(|need| need.met(&seen)))
    }
}

fn tail(text: &str) -> String {
    let newest: Vec<&str> = text.lines().rev().take(8).collect();
    newest.into_iter().rev().collect::<Vec<_>>().join("\n")
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn now_ms() -> u64 {
    millis(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}
