//! Simulates chats around one host: people who write tokens, a platform that keeps a log, and counters of what the
//! driver did.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::{Connection, OpenFlags};

use super::checker::{self, Evidence, Facts, Verdict};
use super::model_answers::{PLAN, QUESTION, fire_of, next_step};
use super::platform_log::What;
use super::token::{ANSWER, Token, tokens};
use super::{PlatformLog, platform_log};
use crate::telegram::{Chat, Document, Person, Troubles};
use crate::terminal::TerminalClient;
use crate::world::{Engine, World};
use whatsapp_server::Seen;

/// The simulation fails after this time without progress.
const STUCK_AFTER: Duration = Duration::from_secs(90);
/// After this time without progress the host is restarted, which resets its backoffs.
const RESTART_AFTER: Duration = Duration::from_secs(25);

/// The provider of every other group.
const OTHER: &str = "other";

/// A message whose number ends in this digit has a file attached.
const FILE_DIGIT: u64 = 3;

fn attached_file(n: u64) -> Document {
    let bytes = vec![7; usize::try_from(n % 1_000).unwrap_or_default() + 1];
    Document { claims: Some(bytes.len()), bytes, name: "list.txt".into(), mime: "text/plain".into() }
}

/// The simulated platform.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channel {
    /// It accepts no message id of the host.
    Telegram,
    /// It accepts the host's message ids.
    Terminal,
    /// It accepts the host's message ids. The host is linked to an account before the first kill.
    WhatsApp,
}

/// The parameters of a simulation.
#[derive(Debug, Clone)]
pub struct Plan {
    pub channel: Channel,
    /// Telegram's delivery policy, if not the default.
    pub policy: Option<String>,
    /// Groups, `main` among them.
    pub groups: usize,
    /// Chats; on the terminal each group has one.
    pub chats: usize,
    /// The share of deliveries whose response is lost.
    pub lost: f64,
    /// The share of calls that the platform refuses for now: Telegram with 429.
    pub busy: f64,
    /// The share of calls that do not arrive: Telegram answers 502, WhatsApp's connection ends.
    pub down: f64,
    /// The share of model calls that get a refusal, a cut or odd elements.
    pub odd: f64,
    pub seed: u64,
}

/// A person's side of a chat.
enum Client {
    Telegram(Person, Chat),
    Terminal(TerminalClient),
    WhatsApp(whatsapp_server::Person, whatsapp_server::Chat),
}

struct Participant {
    /// The chat's address. A person's own chat has the person's id as a sender.
    address: String,
    label: String,
    said: u64,
    client: Client,
}

pub struct Simulation {
    pub world: World,
    /// Counts that only the driver knows.
    pub facts: Facts,
    log: PlatformLog,
    participants: Vec<Participant>,
    /// Reads the notices to the owner, where the people are on another platform.
    _owner: Option<TerminalClient>,
    plan: Plan,
    read: usize,
    waiting: BTreeSet<Token>,
    said: u64,
    /// The number of messages that the host has acknowledged.
    taken: u64,
    /// By chat, the time at which the oldest message without a response was written.
    since: HashMap<String, u64>,
    longest: u64,
    moved: (usize, Instant),
    /// How often the model was called for each fire.
    calls: Arc<Mutex<BTreeMap<String, u64>>>,
    /// How far the host's clock is ahead, if the simulation drives it.
    ahead: Option<Duration>,
    /// The word before each token.
    word: String,
}

impl Simulation {
    /// Builds a simulation without starting its host.
    pub async fn build(engine: Engine, plan: Plan) -> Self {
        let mut world = World::on(engine).await;
        if plan.channel == Channel::WhatsApp {
            world = world.with_whatsapp().await;
        }
        let calls = Arc::<Mutex<BTreeMap<String, u64>>>::default();
        let count = Arc::clone(&calls);
        world.model.answer_with(move |conversation| {
            if let Some(fire) = fire_of(conversation) {
                *count.lock().unwrap_or_else(PoisonError::into_inner).entry(fire).or_default() += 1;
            }
            next_step(conversation)
        });
        if plan.odd > 0.0 {
            world.model.answer_oddly(plan.odd, plan.seed);
            // A model that cannot be reached is told soon, so that the simulation goes on.
            world.set("LAZARET_HOST_MODEL_RETRY", "10s");
            write_second_provider(&world);
        }
        let log = match PlatformLog::create(world.root()) {
            Ok(log) => log,
            Err(e) => panic!("no place for the platform's log: {e}"),
        };
        let mut participants = Vec::new();
        for number in 0..plan.chats {
            let group = match number % plan.groups {
                0 => "main".to_owned(),
                n => format!("g{n}"),
            };
            participants.push(add_participant(&world, &log, &plan, number, &group));
        }
        let owner = (plan.channel != Channel::Terminal).then(|| at_terminal(&world, &log, &plan, "main", 0));
        for number in 0..plan.groups {
            write_group(&world, &participants, &plan, number, "");
        }
        for (name, value) in [
            ("LAZARET_HOST_WORKING_RUNS", "6"),
            ("LAZARET_HOST_LIVE_BOXES", "10"),
            ("LAZARET_LIMITS_IDLE_WINDOW", "3s"),
            ("LAZARET_MODEL_WINDOW", "16000"),
            // The platform's rate limits are made for people; a soak writes more.
            ("LAZARET_CHANNELS_TELEGRAM_CHAT_BURST", "10000"),
            ("LAZARET_CHANNELS_TELEGRAM_BOT_PER_SECOND", "1000"),
        ] {
            world.set(name, value);
        }
        match plan.channel {
            Channel::Terminal => drop(world.unset("TELEGRAM_BOT_TOKEN")),
            Channel::Telegram => world.telegram.log_to(log.clone()),
            Channel::WhatsApp => observe(world.whatsapp(), log.clone()),
        }
        if let Some(policy) = &plan.policy {
            world.set("LAZARET_CHANNELS_TELEGRAM_DELIVERY", policy);
        }
        let (waiting, since) = (BTreeSet::new(), HashMap::new());
        let (facts, moved) = (Facts::default(), (0, Instant::now()));
        Self {
            world,
            facts,
            log,
            participants,
            _owner: owner,
            plan,
            read: 0,
            waiting,
            said: 0,
            taken: 0,
            since,
            longest: 0,
            moved,
            calls,
            ahead: None,
            word: "hello".to_owned(),
        }
    }

    /// Lets people write so much that the conversation outgrows a small context window.
    pub fn with_long_messages(mut self) -> Self {
        self.word = "hello ".repeat(250);
        self
    }

    /// Lets people ask for tasks, and lets the simulation drive the host's clock.
    pub fn with_tasks(mut self) -> Self {
        self.word = PLAN.to_owned();
        self.ahead = Some(Duration::ZERO);
        let path = self.clock().to_string_lossy().into_owned();
        self.world.set(failpoint::CLOCK, &path);
        self
    }

    /// Makes the people owners. With `asks`, the rules ask them about every command.
    pub fn with_owners(self, asks: bool) -> Self {
        let owners: Vec<_> =
            self.participants.iter().map(|participant| participant.address.clone()).collect();
        self.world.write("lazaret.toml", format!("owners = {owners:?}\n"));
        for number in 0..self.plan.groups {
            let rules = if asks {
                "\n[tools]\nrules = [{ tool = \"run_command\", verdict = \"ask\" }]\n"
            } else {
                ""
            };
            write_group(&self.world, &self.participants, &self.plan, number, rules);
        }
        self
    }

    fn clock(&self) -> PathBuf {
        self.world.root().join("clock.ahead")
    }

    /// Sets the host's clock forward, whether a host runs or not. Without tasks the clock is the machine's.
    pub fn pass(&mut self, time: Duration) {
        let Some(ahead) = &mut self.ahead else { return };
        *ahead += time;
        let text = ahead.as_millis().to_string();
        let new = self.world.root().join("clock.new");
        // A rename, so that no host reads half a number.
        if let Err(e) = std::fs::write(&new, text).and_then(|()| std::fs::rename(&new, self.clock())) {
            panic!("the clock cannot be driven: {e}");
        }
    }

    /// Returns the time by the host's clock, in milliseconds since 1970.
    pub fn now(&self) -> i64 {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        i64::try_from((since + self.ahead.unwrap_or_default()).as_millis()).unwrap_or(i64::MAX)
    }

    /// Turns the failures of the platform on or off that the plan wants.
    pub fn troubles(&self, on: bool) {
        let Plan { lost, busy, down, seed, .. } = self.plan;
        let chance = fastrand::Rng::with_seed(seed);
        if self.plan.channel == Channel::WhatsApp {
            let troubles = whatsapp_server::Troubles { lost_acks: lost, refused: busy, cut: down, chance };
            self.world.whatsapp().troubles(on.then_some(troubles));
        } else {
            self.world.telegram.troubles(on.then_some(Troubles { lost, busy, down, chance }));
        }
    }

    /// Returns whether the platform and the host hold one connection all the time.
    pub fn holds_connection(&self) -> bool {
        self.plan.channel == Channel::WhatsApp
    }

    /// Ends the connection. The host connects again.
    pub fn cut_connection(&self) {
        self.world.whatsapp().cuts();
    }

    /// Lets the participant with this number write its next token, or a command.
    pub fn says(&mut self, number: usize, order: Option<&str>) {
        self.says_like(number, order, None);
    }

    /// Like [`Self::says`], with a token whose number ends in `digit`. The digit decides what the scripted agent does.
    pub fn says_like(&mut self, number: usize, order: Option<&str>, digit: Option<u64>) {
        let Some(participant) = self.participants.get_mut(number) else { return };
        let token = order.is_none().then(|| {
            participant.said += 1;
            while digit.is_some_and(|digit| participant.said % 10 != digit) {
                participant.said += 1;
            }
            Token { label: participant.label.clone(), n: participant.said }
        });
        self.said += 1;
        let text = match &token {
            Some(token) => format!("{} {token}", self.word),
            None => order.unwrap_or_default().to_owned(),
        };
        match &participant.client {
            Client::Telegram(person, chat) => {
                let id = match token.as_ref().filter(|token| token.n % 10 == FILE_DIGIT) {
                    Some(token) => person.sends(chat, attached_file(token.n), &text),
                    None => person.says(chat, &text),
                };
                let id = id.to_string();
                self.log.said(&participant.address, &id, &text);
            }
            Client::WhatsApp(person, chat) => {
                let id = match token.as_ref().filter(|token| token.n % 10 == FILE_DIGIT) {
                    Some(token) => {
                        let Document { bytes, name, mime, .. } = attached_file(token.n);
                        let file = whatsapp_server::Document { bytes, claims: None, name, mime };
                        person.sends(chat, &file, &text)
                    }
                    None => person.says(chat, &text),
                };
                self.log.said(&participant.address, &id, &text);
            }
            Client::Terminal(client) => {
                let id = format!("{}-{}", participant.label, self.said);
                self.log.said(&participant.address, &id, &text);
                client.says(&id, &text);
            }
        }
        self.waiting.extend(token);
    }

    pub fn chats(&self) -> usize {
        self.participants.len()
    }

    pub fn said(&self) -> u64 {
        self.said
    }

    /// Returns the longest time so far between a message and the next text in its chat, in milliseconds.
    pub fn longest_pause(&self) -> u64 {
        self.longest
    }

    /// Counts the tokens without an answer. A token whose turn ended with a notice does not count.
    pub fn waiting(&mut self) -> usize {
        for line in self.log.since(self.read) {
            self.read += 1;
            match line.what {
                What::Said if tokens(&line.text).is_empty() => {}
                What::Said => drop(self.since.entry(line.chat).or_insert(line.at)),
                What::Accepted => self.taken += 1,
                What::Delivered { .. } => {
                    if let Some(since) = self.since.remove(&line.chat) {
                        self.longest = self.longest.max(line.at - since);
                    }
                    if line.text.starts_with(ANSWER) {
                        for token in tokens(&line.text) {
                            self.waiting.remove(&token);
                        }
                    } else if line.text.contains(QUESTION) || line.text.contains(PERMISSION) {
                        self.answer_questions(&line.chat);
                    } else if let Some(code) = asked_about(&line.text) {
                        self.resolve_held(&line.chat, &code);
                    } else if line.text.starts_with("[lazaret]") {
                        let here = self.participants.iter().find(|r| r.address == line.chat);
                        self.waiting.retain(|token| here.is_none_or(|r| r.label != token.label));
                    }
                }
            }
        }
        self.waiting.len()
    }

    /// Answers the open questions of a chat with their first choice.
    fn answer_questions(&mut self, chat: &str) {
        let open = || {
            let database = self.database()?;
            let mut codes = database
                .prepare("SELECT code FROM question WHERE chat = ?1 AND state IN ('open', 'pending')")?;
            codes.query_map([chat], |r| r.get(0))?.collect::<rusqlite::Result<Vec<String>>>()
        };
        let number = self.participants.iter().position(|participant| participant.address == chat);
        for (code, number) in open().unwrap_or_default().iter().zip(number.into_iter().cycle()) {
            self.says(number, Some(&format!("/answer {code} 1")));
        }
    }

    /// Answers the host's question whether a part arrived. The answer comes from the platform's log.
    fn resolve_held(&mut self, chat: &str, code: &str) {
        let held = || {
            let database = self.database()?;
            let sql = "SELECT text FROM outbox WHERE chat = ?1 AND code = ?2";
            database.query_row(sql, [chat, code], |r| r.get::<_, String>(0))
        };
        // The question was answered already.
        let Ok(text) = held() else { return };
        // The whole text is compared, because the question quotes its beginning.
        let arrived = self.log.since(0).iter().any(|line| {
            line.chat == chat
                && matches!(line.what, What::Delivered { .. })
                && line.text.trim() == text.trim()
        });
        let order = format!("/{} {code}", if arrived { "drop" } else { "resend" });
        if let Some(number) = self.participants.iter().position(|participant| participant.address == chat) {
            self.says(number, Some(&order));
        }
    }

    /// Sets the failpoint rules for the next starts of the host.
    pub fn arm(&mut self, rules: Option<&str>) {
        let trace = self.trace().to_string_lossy().into_owned();
        match rules {
            Some(rules) => {
                // With a new trace, hits are counted from zero.
                let _ = std::fs::remove_file(&trace);
                self.world.set(failpoint::RULES, rules).set(failpoint::TRACE, &trace);
            }
            None => drop(self.world.unset(failpoint::RULES).unset(failpoint::TRACE)),
        }
    }

    /// Returns how many failpoint rules have fired.
    pub fn fired(&self) -> usize {
        fired(&self.trace(), "")
    }

    fn trace(&self) -> PathBuf {
        self.world.root().join("failpoints.trace")
    }

    /// Starts the host if it is not up. If a failpoint ended it, it is started again. A start that fails without a
    /// failpoint is counted as a failure and repeated, up to five times.
    pub async fn up(&mut self) {
        for _ in 0..5 {
            let fired = self.fired();
            if self.world.is_up() {
                return;
            }
            match self.world.try_up().await {
                Ok(()) => return,
                Err(_) if self.fired() > fired => self.facts.kills += 1,
                Err(why) => {
                    eprintln!("the host did not start: {why}");
                    self.facts.start_failures += 1;
                }
            }
        }
        panic!("the host does not start");
    }

    /// Stops the host with SIGTERM. Returns whether it ended with success; a failpoint may have killed it before.
    async fn stop(&mut self) -> bool {
        if !self.world.is_up() {
            return true;
        }
        let ended_well = self.world.try_stop().await == Some(0);
        self.facts.kills += u64::from(!ended_well);
        ended_well
    }

    pub fn log(&self) -> PlatformLog {
        self.log.clone()
    }

    /// Describes the unfinished work in the database. The host may be running.
    pub fn unfinished(&self) -> Vec<String> {
        let read = self.database().and_then(|database| checker::unfinished(&database));
        read.unwrap_or_else(|e| vec![format!("the database cannot be read: {e}")])
    }

    /// Opens the host's database to read it.
    pub fn database(&self) -> rusqlite::Result<Connection> {
        let path = self.world.root().join("state").join(checker::DATABASE);
        let database = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        database.busy_timeout(Duration::from_secs(5))?;
        Ok(database)
    }

    /// Returns a number from the host's database; `None` while it cannot be read.
    pub fn count(&self, sql: &str) -> Option<i64> {
        self.database().and_then(|database| database.query_row(sql, [], |r| r.get(0))).ok()
    }

    /// Waits until every message is acknowledged and done. Fails if nothing makes progress.
    pub async fn settle(&mut self) -> Result<(), String> {
        self.moved = (0, Instant::now());
        let mut nudged = false;
        let mut last = String::new();
        loop {
            self.up().await;
            self.waiting();
            self.pass(Duration::from_secs(1));
            // A run without a turn ends together with the host, so it is not left work.
            let left: Vec<String> =
                self.unfinished().into_iter().filter(|what| !what.starts_with("run ")).collect();
            if left.is_empty() && self.taken >= self.said {
                return Ok(());
            }
            let now = format!("{} {left:?}", self.read);
            if now != last {
                (self.moved.1, last, nudged) = (Instant::now(), now, false);
            }
            if self.moved.1.elapsed() > STUCK_AFTER {
                return Err(format!("{} of {} taken over; left: {left:#?}", self.taken, self.said));
            }
            if self.moved.1.elapsed() > RESTART_AFTER && !nudged {
                nudged = true;
                self.facts.nudges += 1;
                eprintln!("the simulation stands still and gets another host: {left:#?}");
                self.stop().await;
                continue;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Stops everything, keeps the evidence in `dir` and checks it.
    pub async fn check(self, dir: &Path) -> Verdict {
        self.check_and(dir, &|| ()).await.0
    }

    /// Like [`Simulation::check`]. Calls `inspect` before the simulation is dropped, and also returns its result.
    pub async fn check_and<T>(mut self, dir: &Path, inspect: &impl Fn() -> T) -> (Verdict, T) {
        self.troubles(false);
        let settled = self.settle().await;
        if !self.stop().await {
            // If a failpoint killed the host while it stopped, the next host runs without failpoints.
            self.arm(None);
            self.up().await;
            self.stop().await;
        }
        let boxes = self.world.boxes().await;
        if !boxes.is_empty() {
            eprintln!("boxes are left: {}", boxes.join(", "));
        }
        self.facts.boxes_left = boxes.len() as u64;
        self.facts.odd = self.world.model.odd_answers();
        let root = self.world.root().to_owned();
        let keep = || {
            std::fs::create_dir_all(dir)?;
            for (from, to) in [
                (platform_log::FILE, platform_log::FILE),
                ("host.log", "host.log"),
                ("state/lazaret.db", checker::DATABASE),
                ("state/lazaret.db-wal", "lazaret.db-wal"),
            ] {
                match std::fs::copy(root.join(from), dir.join(to)) {
                    Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                        drop(std::fs::remove_file(dir.join(to)))
                    }
                    other => drop(other?),
                }
            }
            let calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner).clone();
            std::fs::write(dir.join(checker::CALLS), serde_json::to_vec(&calls)?)?;
            std::fs::write(dir.join(checker::FACTS), serde_json::to_vec(&self.facts)?)
        };
        if let Err(e) = keep() {
            panic!("the evidence cannot be kept in {}: {e}", dir.display());
        }
        let mut verdict = match Evidence::read(dir) {
            Ok(evidence) => checker::check(&evidence),
            Err(e) => panic!("{e}"),
        };
        if let Err(stuck) = settled {
            verdict.broken.push(format!("it stood still: {stuck}"));
        }
        // Only violations in the agents' requests count. Other programs may call the model's port, because one of them
        // may have used this port a moment ago.
        let asked =
            self.world.model.take_violations().into_iter().filter(|broken| broken.starts_with("request "));
        verdict.broken.extend(asked.take(3));
        (verdict, inspect())
    }
}

/// A card that asks an owner says this.
const PERMISSION: &str = "asks for permission";

/// Returns the code of a question about a part that may not have arrived.
fn asked_about(text: &str) -> Option<String> {
    let code = text.strip_prefix("[lazaret]")?.split_once(". /resend ")?.1.split_whitespace().next()?;
    Some(code.to_owned())
}

/// Counts the rules in a trace that have fired and whose failpoint begins with a prefix.
pub(super) fn fired(trace: &Path, name: &str) -> usize {
    let told = std::fs::read_to_string(trace).unwrap_or_default();
    told.lines().filter(|line| line.starts_with(name) && line.contains(' ')).count()
}

fn add_participant(world: &World, log: &PlatformLog, plan: &Plan, number: usize, group: &str) -> Participant {
    let label = format!("c{number}");
    let id = 1000 + i64::try_from(number).unwrap_or(0);
    let (address, client) = match plan.channel {
        Channel::Telegram => {
            let person = world.telegram.person(id, &label);
            let chat = person.direct();
            (chat.address(), Client::Telegram(person, chat))
        }
        Channel::Terminal => {
            let client = at_terminal(world, log, plan, group, number as u64);
            (terminal_chat(group), Client::Terminal(client))
        }
        Channel::WhatsApp => {
            let person = world.whatsapp().person(491_600_000_000 + number as u64, &label);
            let chat = person.direct();
            (chat.address(), Client::WhatsApp(person, chat))
        }
    };
    Participant { address, label, said: 0, client }
}

fn terminal_chat(group: &str) -> String {
    format!("terminal:{}", if group == "main" { "local" } else { group })
}

fn at_terminal(world: &World, log: &PlatformLog, plan: &Plan, group: &str, number: u64) -> TerminalClient {
    let socket = world.root().join("state/host/host.sock");
    let seed = plan.seed + number;
    TerminalClient::join(socket, group, &terminal_chat(group), log.clone(), plan.lost, seed)
}

/// Writes what WhatsApp's server sees into the log. A message that comes again with its id is dropped there, as on
/// phones, so it is no copy.
fn observe(server: &whatsapp_server::WhatsAppServer, log: PlatformLog) {
    server.observe(move |seen| match seen {
        Seen::Accepted { chat, id, text } => log.accepted(&chat, &id, &text),
        Seen::Delivered { chat, id, text, edit } => log.delivered(&chat, &id, &text, edit),
    });
}

/// With odd answers, every other group talks to the model over the other wire.
fn write_second_provider(world: &World) {
    let url = world.model.openai_url();
    let provider = "kind = \"openai\"\nkey_env = \"ANTHROPIC_API_KEY\"";
    world.write("lazaret.toml", format!("[providers.{OTHER}]\n{provider}\nbase_url = \"{url}\"\n"));
}

/// Writes a group's files. `more` is the end of its settings.
fn write_group(world: &World, participants: &[Participant], plan: &Plan, number: usize, more: &str) {
    let group = if number == 0 { "main".to_owned() } else { format!("g{number}") };
    let of_group = participants.iter().skip(number).step_by(plan.groups);
    let addresses: Vec<&str> =
        of_group.map(|r| r.address.as_str()).filter(|a| !a.starts_with("terminal:")).collect();
    let provider = if plan.odd > 0.0 && number % 2 == 1 {
        format!("model.provider = \"{OTHER}\"\n")
    } else {
        String::new()
    };
    world.write(
        &format!("groups/{group}/group.toml"),
        format!("chats = {addresses:?}\nmay_stop = \"anyone\"\n{provider}{more}"),
    );
    world.write(&format!("groups/{group}/CLAUDE.md"), "You answer.\n");
}
