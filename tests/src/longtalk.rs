//! A talk of many turns with one agent: what people told it early must be found late, over compactions, restarts and
//! changes of model. `make longtalk` and a journey run it.
//!
//! The scripted model answers a question only from the request that it gets, and its summariser keeps what the runner's
//! instructions say to keep. It counts tokens in its own way, refuses what is longer than its window, and checks every
//! request against its wire's rules.

use hyper::Method;
use serde_json::{Value, json};

use crate::model::{Conversation, Does, KEY, Role};
use crate::telegram::{Chat, Person};
use crate::world::{Engine, World};

/// Facts that the turn `FIRST_FACTS_TURN` tells.
const FIRST_FACTS: usize = 3;
const FIRST_FACTS_TURN: usize = 3;

/// How long the talk is.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    pub turns: usize,
    /// The model's context window in tokens of the scripted model.
    pub window: u32,
    /// Facts that turns at random tell, beside those of turn 3.
    pub facts: usize,
    pub restarts: usize,
    pub seed: u64,
}

impl Plan {
    /// The talk of `make longtalk`.
    pub const LONG: Self = Self { turns: 300, window: 60_000, facts: 7, restarts: 10, seed: 1 };
    /// The talk of `make test`.
    pub const SHORT: Self = Self { turns: 40, window: 30_000, facts: 2, restarts: 4, seed: 2 };
}

/// What the talk showed.
#[derive(Debug)]
pub struct Outcome {
    pub turns: usize,
    pub compactions: usize,
    pub restarts: usize,
    pub facts: usize,
    pub facts_found: usize,
    pub protocol_faults: Vec<String>,
    /// The largest request, as a part of the window.
    pub max_window_share: f64,
}

impl Outcome {
    pub fn holds(&self) -> bool {
        self.facts_found == self.facts && self.protocol_faults.is_empty() && self.max_window_share < 1.0
    }

    /// One line of JSON.
    pub fn line(&self) -> String {
        format!(
            r#"{{"turns":{},"compactions":{},"restarts":{},"facts_found":"{}/{}","protocol_faults":{},"max_window_share":{:.3}}}"#,
            self.turns,
            self.compactions,
            self.restarts,
            self.facts_found,
            self.facts,
            self.protocol_faults.len(),
            self.max_window_share,
        )
    }
}

/// The code that people call by a name.
#[derive(Debug, Clone)]
struct Fact {
    name: String,
    code: String,
    told_in: usize,
    asked_in: usize,
}

/// How the host or the box ends in the middle of a turn, or between two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Break {
    KillHost,
    KillBox,
    StopHost,
    KillHostBetween,
}

/// Holds the talk. Panics if an answer does not come.
pub async fn talk(plan: Plan, progress: impl Fn(usize)) -> Outcome {
    let window = plan.window.to_string();
    let settings = [("LAZARET_MODEL_WINDOW", window.as_str()), ("LAZARET_MODEL_MAX_TOKENS", "4096")];
    let (mut world, ann, direct) = World::ann_at_home(Engine::stand_in().await, &settings).await;
    world.model.counts_tokens(tokens, plan.window.into());
    world.model.answer_with(next_step);
    let mut random = fastrand::Rng::with_seed(plan.seed);
    let facts = facts(plan, &mut random);
    let mut found = 0;
    for turn in 1..=plan.turns {
        if turn == plan.turns / 3 || turn == plan.turns * 2 / 3 {
            change_model(&mut world, turn == plan.turns / 3).await;
        }
        let told = facts.iter().filter(|fact| fact.told_in == turn);
        let told: String = told.map(|fact| format!("The code of {} is {}. ", fact.name, fact.code)).collect();
        let asked: Vec<_> = facts.iter().filter(|fact| fact.asked_in == turn).collect();
        let names: String = asked.iter().map(|fact| format!("Which code has {}? ", fact.name)).collect();
        let broken = (1..=plan.restarts).find(|n| turn == plan.turns * n / (plan.restarts + 1) + 1);
        let broken =
            broken.map(|n| [Break::KillHost, Break::KillBox, Break::StopHost, Break::KillHostBetween][n % 4]);
        let slowly =
            if matches!(broken, Some(Break::KillHost | Break::KillBox)) { "Do it slowly. " } else { "" };
        let chatter = chatter(&mut random);
        let text = format!("This is turn {turn}: {told}{names}{slowly}{chatter}");
        let answer = take_turn(&mut world, &ann, &direct, turn, &text, broken).await;
        found +=
            asked.iter().filter(|fact| answer.contains(&format!("{} has {}", fact.name, fact.code))).count();
        progress(turn);
    }
    let archive = world.session("main", 1).join("archive");
    let compactions = std::fs::read_dir(archive).map_or(0, Iterator::count);
    let outcome = Outcome {
        turns: plan.turns,
        compactions,
        restarts: plan.restarts,
        facts: facts.len(),
        facts_found: found,
        max_window_share: world.model.max_window_share(),
        protocol_faults: world.model.take_violations(),
    };
    world.finish().await;
    outcome
}

fn facts(plan: Plan, random: &mut fastrand::Rng) -> Vec<Fact> {
    let first_asked = plan.turns - 10.min(plan.turns / 8);
    let told = (0..FIRST_FACTS).map(|_| FIRST_FACTS_TURN).collect::<Vec<_>>();
    let others = (0..plan.facts).map(|_| random.usize(FIRST_FACTS_TURN + 1..plan.turns * 5 / 6)).collect();
    let mut facts = Vec::new();
    for (n, told_in) in [told, others].concat().into_iter().enumerate() {
        let code = (0..8).map(|_| random.lowercase()).collect();
        let later = n.saturating_sub(FIRST_FACTS - 1).min(plan.turns - first_asked);
        facts.push(Fact {
            name: format!("house-{n}-of-{told_in}"),
            code,
            told_in,
            asked_in: first_asked + later,
        });
    }
    facts
}

/// Words that fill the conversation.
fn chatter(random: &mut fastrand::Rng) -> String {
    const WORDS: [&str; 12] = [
        "garden",
        "yesterday",
        "between",
        "window",
        "because",
        "winter",
        "a",
        "of",
        "the",
        "letter",
        "quietly",
        "sea",
    ];
    let words: Vec<_> = (0..random.usize(60..160)).map(|_| WORDS[random.usize(..WORDS.len())]).collect();
    format!("{}.", words.join(" "))
}

async fn take_turn(
    world: &mut World,
    ann: &Person,
    direct: &Chat,
    turn: usize,
    text: &str,
    broken: Option<Break>,
) -> String {
    let before = world.model.requests_so_far();
    ann.says(direct, text);
    match broken {
        Some(Break::KillHost) => {
            world.model.wait_for_requests(before + 1).await;
            world.kill_host().await;
            world.up().await;
        }
        Some(Break::KillBox) => {
            world.model.wait_for_requests(before + 1).await;
            for name in world.boxes().await {
                let path = format!("/containers/{name}/kill?signal=KILL");
                let _ = world.engine().ask(Method::POST, &path, None).await;
            }
        }
        _ => {}
    }
    let mark = format!("turn {turn}:");
    let answer = loop {
        let said = world.hears(direct).await;
        if said.contains(&mark) {
            break said;
        }
    };
    if let Some(Break::StopHost | Break::KillHostBetween) = broken {
        world.delivered().await;
        match broken {
            Some(Break::StopHost) => world.stop_host().await,
            _ => world.kill_host().await,
        }
        world.up().await;
    }
    answer
}

/// Changes the model's name, or the model's wire. A box keeps its model, so all boxes end.
async fn change_model(world: &mut World, same_wire: bool) {
    world.delivered().await;
    world.end_now().await;
    if same_wire {
        world.set("LAZARET_MODEL_NAME", "claude-haiku-5-5");
    } else {
        let url = world.model.openai_url();
        world.unset("ANTHROPIC_API_KEY").unset("ANTHROPIC_BASE_URL");
        world.set("OPENAI_BASE_URL", &url).set("OPENAI_API_KEY", KEY).set("LAZARET_MODEL_NAME", "gpt-5.2");
    }
    world.up().await;
}

/// Counts tokens in another way than the runner: four letters or digits of a run, and every symbol.
fn tokens(body: &Value) -> u64 {
    let text = body.to_string();
    let runs = text.split(|c: char| !c.is_ascii_alphanumeric()).map(|run| run.len().div_ceil(4) as u64);
    let symbols =
        text.chars().filter(|c| !c.is_ascii_alphanumeric() && !c.is_whitespace() && *c != '"').count();
    runs.sum::<u64>() + symbols as u64
}

fn next_step(conversation: &Conversation) -> Does {
    let texts: Vec<_> = conversation.entries.iter().map(|entry| (entry.role, entry.text())).collect();
    let whole: String = texts.iter().map(|(_, text)| format!("{text}\n")).collect();
    if conversation.system.contains("You summarise the older part of a conversation") {
        return Does::Says(summary(&conversation.system, &whole));
    }
    let spoken = texts.iter().rposition(|(role, text)| *role == Role::User && text.contains("This is turn "));
    let Some(at) = spoken else { return Does::Says("I am here.".to_owned()) };
    let asked = texts[at].1.rsplit("This is turn ").next().unwrap_or_default();
    let turn: usize = asked.split(':').next().and_then(|n| n.parse().ok()).unwrap_or_default();
    let thinks = |does| Does::Thinks(format!("Turn {turn} needs a thought."), Box::new(does));
    let begun = texts.iter().skip(at).any(|(role, _)| *role == Role::Assistant);
    let lines = if turn.is_multiple_of(12) { 900 } else { 120 };
    if !begun && (turn.is_multiple_of(4) || asked.contains("slowly")) {
        let pause = if asked.contains("slowly") { "sleep 0.5; " } else { "" };
        let command = format!("{pause}seq {} {}", turn * 1_000, turn * 1_000 + lines);
        return thinks(Does::Runs("run_command", json!({ "command": command })));
    }
    let names = asked.split("Which code has ").skip(1).filter_map(|rest| rest.split('?').next());
    let known: Vec<_> = names.map(|name| format!("{name} has {}", code_of(&whole, name))).collect();
    thinks(Does::Says(format!("That was turn {turn}: {}.", known.join(", "))))
}

fn code_of<'a>(text: &'a str, name: &str) -> &'a str {
    let told = text.split(&format!("The code of {name} is ")).nth(1);
    told.and_then(|rest| rest.split('.').next()).unwrap_or("no code that I know")
}

/// Keeps what the instructions say to keep: the facts of the conversation, and those of the summary so far.
fn summary(instructions: &str, material: &str) -> String {
    let keeps = |part: &str| instructions.contains(part);
    let (earlier, new) = match material.split_once("The conversation goes on:") {
        Some((earlier, new)) => (earlier, new),
        None => ("", material),
    };
    let mut facts: Vec<&str> = Vec::new();
    for (text, kept) in [(earlier, keeps("copy every line of its Facts")), (new, keeps("## Facts"))] {
        let told = text.split("The code of ").skip(1).filter_map(|rest| rest.split('.').next());
        facts.extend(told.filter(|_| kept));
    }
    facts.sort_unstable();
    facts.dedup();
    let facts: String = facts.into_iter().map(|fact| format!("- The code of {fact}.\n")).collect();
    format!("## Facts\n{facts}\n## Now\nThey talked about winter and the sea.")
}
