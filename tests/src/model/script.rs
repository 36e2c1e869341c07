//! Scripts: rules, and the steps of each.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::Shared;
use super::conversation::{Conversation, Role};
use super::gate::Gate;

/// The condition of a rule.
#[derive(Debug, Clone)]
pub(super) enum When {
    /// A person's message contains the text.
    Text(String),
    /// The system prompt contains the text.
    System(String),
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Block {
    Text(String),
    /// A text, followed by the last results of tools.
    Quote(String),
    Thought(String),
    Call {
        tool: String,
        input: Value,
    },
}

/// A failure instead of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fault {
    Http {
        status: u16,
        error: String,
        retry_after: Option<u64>,
    },
    CutAfter(usize),
    Garbage,
    /// The request has more tokens than the model reads.
    TooLong {
        tokens: u64,
        window: u64,
    },
}

/// The reaction to one request.
#[derive(Debug, Clone)]
pub(super) enum Act {
    Fault(Fault),
    Answer { blocks: Vec<Block>, tokens: Option<(u64, u64)> },
}

/// A reaction, with its gate and its pace.
#[derive(Debug, Clone)]
pub(super) struct Step {
    pub act: Act,
    pub gate: Option<Gate>,
    pub drip: Option<(usize, Duration)>,
}

#[derive(Debug)]
struct Entry {
    when: When,
    steps: Vec<Step>,
    /// A thought, gate or pace in a script applies to the step after it.
    thought: Option<String>,
    gate: Option<Gate>,
    drip: Option<(usize, Duration)>,
}

impl Entry {
    fn push(&mut self, act: Act) {
        let (gate, drip) = (self.gate.take(), self.drip.take());
        self.steps.push(Step { act, gate, drip });
    }

    fn answer(&mut self, block: Block) {
        let thought = self.thought.take().map(Block::Thought);
        let blocks = thought.into_iter().chain([block]).collect();
        self.push(Act::Answer { blocks, tokens: None });
    }
}

/// All rules, in the order of their definition.
#[derive(Debug, Default)]
pub(super) struct Script {
    rules: Vec<Entry>,
}

/// The place of a request: its rule, and the number of that rule's answers in its transcript.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub rule: usize,
    pub answers: usize,
}

impl Script {
    /// Finds a request's place. The documentation of `model` describes how.
    pub fn place(&self, conversation: &Conversation) -> Option<Place> {
        let entries = &conversation.entries;
        let answers_after =
            |anchor: usize| entries[anchor..].iter().filter(|entry| entry.role == Role::Assistant).count();
        let speaks = |at: &usize| entries[*at].role == Role::User && !entries[*at].text().is_empty();
        let mut spoken = (0..entries.len()).rev().filter(speaks);
        let of_system =
            |when: &When| matches!(when, When::System(text) if conversation.system.contains(text));
        if let Some(rule) = self.rules.iter().position(|rule| of_system(&rule.when)) {
            return spoken.next().map(|anchor| Place { rule, answers: answers_after(anchor) });
        }
        let anchors: Vec<usize> = spoken.collect();
        let matched =
            anchors.iter().find_map(|&anchor| Some((self.last_match(&entries[anchor].text())?, anchor)));
        let (rule, anchor) = matched.or_else(|| Some((self.stand_in()?, *anchors.first()?)))?;
        Some(Place { rule, answers: answers_after(anchor) })
    }

    /// Returns the step at a place. `faults` is the number of faults before its answer that have been served.
    pub fn step(&self, place: Place, faults: usize) -> Option<Step> {
        let mut answers = 0;
        let mut skipped = 0;
        for step in &self.rules.get(place.rule)?.steps {
            let is_here = answers == place.answers;
            match &step.act {
                Act::Answer { .. } if is_here => return Some(step.clone()),
                Act::Answer { .. } => answers += 1,
                Act::Fault(_) if is_here && skipped == faults => return Some(step.clone()),
                Act::Fault(_) => skipped += usize::from(is_here),
            }
        }
        None
    }

    /// Returns the rule whose text occurs last. If two texts begin at the same position, the longer one counts.
    fn last_match(&self, text: &str) -> Option<usize> {
        let ends = self.rules.iter().enumerate().filter_map(|(at, rule)| match &rule.when {
            When::Text(words) if !words.is_empty() => Some((text.rfind(words)?, words.len(), at)),
            _ => None,
        });
        ends.max_by_key(|(found, length, at)| (*found, *length, std::cmp::Reverse(*at))).map(|(_, _, at)| at)
    }

    fn stand_in(&self) -> Option<usize> {
        self.rules.iter().position(|rule| matches!(&rule.when, When::Text(words) if words.is_empty()))
    }
}

/// A rule under construction. Each call adds to the model's behaviour under this rule.
#[derive(Clone)]
pub struct Rule {
    shared: Arc<Shared>,
    at: usize,
}

pub(super) fn add(shared: &Arc<Shared>, when: When) -> Rule {
    let mut state = shared.state();
    state.script.rules.push(Entry { when, steps: Vec::new(), thought: None, gate: None, drip: None });
    Rule { shared: Arc::clone(shared), at: state.script.rules.len() - 1 }
}

impl Rule {
    /// The model says `text`. It ends its turn with it, unless [`and_runs`](Self::and_runs) follows.
    pub fn says(self, text: &str) -> Self {
        self.with(|rule| rule.answer(Block::Text(text.to_owned())))
    }

    /// The model says `text`, followed by the last results of tools.
    pub fn quotes(self, text: &str) -> Self {
        self.with(|rule| rule.answer(Block::Quote(text.to_owned())))
    }

    /// The model thinks before its next text or call.
    pub fn thinks(self, thought: &str) -> Self {
        self.with(|rule| rule.thought = Some(thought.to_owned()))
    }

    pub fn runs(self, tool: &str, input: Value) -> Self {
        self.with(|rule| rule.answer(Block::Call { tool: tool.to_owned(), input }))
    }

    /// The model calls another tool in the same answer. Panics if there is no answer before it.
    pub fn and_runs(self, tool: &str, input: Value) -> Self {
        self.change_answer(|blocks, _| blocks.push(Block::Call { tool: tool.to_owned(), input }))
    }

    /// The last answer reports these numbers of input and output tokens. Panics if there is no answer before it.
    pub fn counts(self, input: u64, output: u64) -> Self {
        self.change_answer(|_, tokens| *tokens = Some((input, output)))
    }

    /// The server answers one request with an HTTP status and an error of this type.
    pub fn http(self, status: u16, error: &str, retry_after: Option<u64>) -> Self {
        self.fault(Fault::Http { status, error: error.to_owned(), retry_after })
    }

    /// The server cuts the connection after this number of bytes of an answer, once.
    pub fn cut_after(self, bytes: usize) -> Self {
        self.fault(Fault::CutAfter(bytes))
    }

    /// The server answers one request with bytes that are not a model's answer.
    pub fn garbage(self) -> Self {
        self.fault(Fault::Garbage)
    }

    /// The next step waits for a gate.
    pub fn waits_for(self, gate: &Gate) -> Self {
        self.with(|rule| rule.gate = Some(gate.clone()))
    }

    /// The next answer comes in this number of chunks, with a pause before each.
    pub fn drips(self, chunks: usize, pause: Duration) -> Self {
        self.with(|rule| rule.drip = Some((chunks, pause)))
    }

    fn fault(self, fault: Fault) -> Self {
        self.with(|rule| rule.push(Act::Fault(fault)))
    }

    fn change_answer(self, change: impl FnOnce(&mut Vec<Block>, &mut Option<(u64, u64)>)) -> Self {
        self.with(|rule| match rule.steps.last_mut().map(|step| &mut step.act) {
            Some(Act::Answer { blocks, tokens }) => change(blocks, tokens),
            _ => panic!("the script adds to an answer before its first answer"),
        })
    }

    fn with(self, change: impl FnOnce(&mut Entry)) -> Self {
        if let Some(rule) = self.shared.state().script.rules.get_mut(self.at) {
            change(rule);
        }
        self
    }
}

#[derive(Debug)]
pub struct BadScript(serde_json::Error);

impl std::fmt::Display for BadScript {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "not a script: {}; expected [{{\"on\": TEXT, \"steps\": [{{\"says\": TEXT}}, …]}}, …]",
            self.0
        )
    }
}

impl std::error::Error for BadScript {}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct JsonRule {
    on: String,
    steps: Vec<JsonStep>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum JsonStep {
    Says(String),
    Quotes(String),
    Thinks(String),
    Runs(JsonCall),
    AndRuns(JsonCall),
    Http { status: u16, error: String, retry_after: Option<u64> },
    CutAfter(usize),
    Garbage,
    Drips { chunks: usize, millis: u64 },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct JsonCall {
    tool: String,
    input: Value,
}

pub(super) fn load(shared: &Arc<Shared>, json: &str) -> Result<(), BadScript> {
    let rules: Vec<JsonRule> = serde_json::from_str(json).map_err(BadScript)?;
    for JsonRule { on, steps } in rules {
        steps.into_iter().fold(add(shared, When::Text(on)), |rule, step| match step {
            JsonStep::Says(text) => rule.says(&text),
            JsonStep::Quotes(text) => rule.quotes(&text),
            JsonStep::Thinks(text) => rule.thinks(&text),
            JsonStep::Runs(call) => rule.runs(&call.tool, call.input),
            JsonStep::AndRuns(call) => rule.and_runs(&call.tool, call.input),
            JsonStep::Http { status, error, retry_after } => rule.http(status, &error, retry_after),
            JsonStep::CutAfter(bytes) => rule.cut_after(bytes),
            JsonStep::Garbage => rule.garbage(),
            JsonStep::Drips { chunks, millis } => rule.drips(chunks, Duration::from_millis(millis)),
        });
    }
    Ok(())
}
