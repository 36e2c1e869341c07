//! Decides the next step of a turn: a pure function of the transcript.
//!
//! A run that goes on and a run that resumes after a crash call it with the same entries and do the same. No other
//! state decides, so a crash loses none.

use std::collections::HashSet;

use ipc_schema::letters::from_agent::{ErrorDetail, Outcome};
use ipc_schema::letters::to_agent::{Message, Order};
use ipc_schema::{LetterId, MessageSeq, TurnId};

use crate::transcript::{Assistant, Body, End, Entry, Transcript};

/// How often the runner asks the model to continue an answer that reached its size limit.
const CONTINUES: usize = 2;

/// Ends an answer that reached its size limit even so.
const STILL_CUT: &str = "[This answer reached its size limit three times and is not complete. Say \"go on\" and I will continue.]";

#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    Call,
    Tool(ToolUse),
    /// A person's order to the runner.
    Order {
        message: MessageSeq,
        order: Order,
    },
    /// The answer reached its size limit: ask the model to continue.
    GoOn,
    Refused {
        text: String,
    },
    /// The turn is over: write `turn_done`.
    Done(Ending),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolUse {
    /// The transcript entry that holds the call.
    pub entry: u64,
    pub block: u32,
    pub id: String,
    pub name: String,
    pub input: String,
    /// Why the call cannot run. It becomes the result.
    pub problem: Option<String>,
}

/// The end of a turn, for `turn_done`.
#[derive(Debug, Clone, PartialEq)]
pub struct Ending {
    /// The id of `turn_done`, derived from the entry that ends the turn.
    pub id: LetterId,
    pub outcome: Outcome,
    pub text: String,
    pub error: Option<ErrorDetail>,
}

pub fn next(transcript: &Transcript, turn: TurnId) -> Step {
    let all: Vec<_> = transcript.of_turn(turn).collect();
    let acts = |entry: &&Entry| {
        !matches!(entry.body, Body::Request(_) | Body::LeftOut(_) | Body::Shortened(_) | Body::Order(_))
    };
    let entries: Vec<_> = all.iter().copied().filter(acts).collect();
    let Some((last, before)) = entries.split_last() else { return Step::Call };
    if let Some(ending) =
        entries.iter().find_map(|entry| said_end(turn, entry)).or_else(|| gate_end(turn, &entries))
    {
        return Step::Done(ending);
    }
    if let Some(call) = unanswered(&entries, 1).pop() {
        return Step::Tool(call);
    }
    if let Some((message, order)) = waiting_order(&all) {
        return Step::Order { message, order };
    }
    if let Some(ending) = orders_end(turn, &all) {
        return Step::Done(ending);
    }
    match &last.body {
        Body::Assistant(answer) => after_answer(turn, last, answer, before),
        _ => Step::Call,
    }
}

fn said_end(turn: TurnId, entry: &Entry) -> Option<Ending> {
    let Body::End(End { outcome, text, error }) = &entry.body else { return None };
    let id = LetterId::of_block(turn, entry.entry, 0);
    Some(Ending { id, outcome: *outcome, text: text.clone(), error: error.clone() })
}

/// A gate script that does not wake the model ends a turn in which nothing else waits for an answer.
fn gate_end(turn: TurnId, entries: &[&Entry]) -> Option<Ending> {
    let (entry, gate) = entries.iter().find_map(|entry| match &entry.body {
        Body::Gate(gate) if !gate.wake => Some((entry, gate)),
        _ => None,
    })?;
    let outcome = if gate.error.is_some() { Outcome::Failed } else { Outcome::Finished };
    entries.iter().all(|entry| entry.is_of_a_fire()).then(|| Ending {
        id: LetterId::of_block(turn, entry.entry, 0),
        outcome,
        text: String::new(),
        error: gate.error.clone(),
    })
}

fn messages<'a>(entries: &'a [&Entry]) -> impl Iterator<Item = &'a Message> {
    let inputs = entries.iter().filter_map(|entry| match &entry.body {
        Body::Input(input) => Some(&input.messages),
        _ => None,
    });
    inputs.flatten().filter(|message| message.wakes)
}

/// The oldest order that was not carried out.
fn waiting_order(entries: &[&Entry]) -> Option<(MessageSeq, Order)> {
    let is_done = |message: MessageSeq| {
        let done = |entry: &&Entry| matches!(&entry.body, Body::Order(done) if done.message == message);
        entries.iter().any(done)
    };
    let mut orders = messages(entries).filter_map(|message| Some((message.id, message.order?)));
    orders.find(|(message, _)| !is_done(*message))
}

/// Whether the turn has orders only: then their answers end it, and the model is not called.
pub fn has_orders_only(transcript: &Transcript, turn: TurnId) -> bool {
    let entries: Vec<_> = transcript.of_turn(turn).collect();
    are_orders_only(&entries)
}

fn are_orders_only(entries: &[&Entry]) -> bool {
    let has_order = messages(entries).any(|message| message.order.is_some());
    has_order
        && messages(entries).all(|message| message.order.is_some())
        && entries.iter().all(|entry| match &entry.body {
            Body::Input(input) => input.fire.is_none(),
            Body::Gate(_) | Body::Assistant(_) | Body::Note(_) => false,
            _ => true,
        })
}

/// The end of a turn that has orders only.
fn orders_end(turn: TurnId, entries: &[&Entry]) -> Option<Ending> {
    if !are_orders_only(entries) {
        return None;
    }
    let answers = entries.iter().filter_map(|entry| match &entry.body {
        Body::Order(done) => Some((entry.entry, done)),
        _ => None,
    });
    let (last, _) = answers.clone().next_back()?;
    let texts: Vec<_> = answers.filter(|(_, done)| !done.interim).map(|(_, done)| &*done.text).collect();
    Some(Ending {
        id: LetterId::of_block(turn, last, 1),
        outcome: Outcome::Finished,
        text: texts.join("\n\n"),
        error: None,
    })
}

/// The calls of the newest answer that have no result, in order. Only results after that answer count, because some
/// providers reuse ids.
pub fn unanswered_in(transcript: &Transcript, turn: TurnId) -> Vec<ToolUse> {
    let entries: Vec<_> = transcript.of_turn(turn).collect();
    unanswered(&entries, usize::MAX)
}

/// Model calls of a turn, over all its runs.
pub fn model_calls(transcript: &Transcript, turn: TurnId) -> u32 {
    let answers = transcript.of_turn(turn).filter(|entry| matches!(entry.body, Body::Assistant(_))).count();
    u32::try_from(answers).unwrap_or(u32::MAX)
}

/// The newest text that is not blank.
pub fn last_words(transcript: &Transcript, turn: TurnId) -> Option<String> {
    transcript.of_turn(turn).rev().find_map(|entry| match &entry.body {
        Body::Assistant(answer) => Some(text_of(answer)).filter(|text| !text.trim().is_empty()),
        _ => None,
    })
}

/// At most `most` of the calls that have no result. An answer may hold a thousand, so no more are read than needed.
fn unanswered(entries: &[&Entry], most: usize) -> Vec<ToolUse> {
    let Some((at, entry, answer)) = entries.iter().enumerate().rev().find_map(|(at, e)| match &e.body {
        Body::Assistant(answer) => Some((at, *e, answer)),
        _ => None,
    }) else {
        return Vec::new();
    };
    if answer.stop_reason.as_deref() == Some("refusal") {
        return Vec::new();
    }
    let later = entries.iter().skip(at).filter_map(|later| match &later.body {
        Body::Results(results) => Some(&results.blocks),
        _ => None,
    });
    let answered: HashSet<&str> = later.flatten().map(|result| &*result.tool_use_id).collect();
    calls(entry, answer).filter(|call| !answered.contains(&*call.id)).take(most).collect()
}

fn calls<'a>(entry: &'a Entry, answer: &'a Assistant) -> impl Iterator<Item = ToolUse> + 'a {
    let last = answer.blocks.iter().rposition(|block| !block.is_thought()).unwrap_or(0);
    let cut = answer.stop_reason.as_deref() == Some("max_tokens");
    answer.blocks.iter().enumerate().filter_map(move |(index, block)| {
        let view = block.view();
        if view.kind != "tool_use" {
            return None;
        }
        let number = u32::try_from(index).unwrap_or(u32::MAX);
        let bad = answer.bad_inputs.get(&number);
        let problem = if cut && index == last {
            Some("not run: your answer reached its size limit in the middle of this call. Make smaller calls, for example write a file in several parts.".to_owned())
        } else {
            bad.map(|why| format!("not run: the arguments are not a JSON object: {why}"))
        };
        Some(ToolUse {
            entry: entry.entry,
            block: number,
            id: view.id.unwrap_or_default(),
            name: view.name.unwrap_or_default(),
            input: view.input.map_or_else(|| "{}".to_owned(), |input| input.get().to_owned()),
            problem,
        })
    })
}

fn after_answer(turn: TurnId, entry: &Entry, answer: &Assistant, before: &[&Entry]) -> Step {
    match answer.stop_reason.as_deref() {
        // The provider paused in a tool of its own; sending the answer back lets it continue.
        Some("pause_turn") => return Step::Call,
        Some("refusal") => return Step::Refused { text: text_of(answer) },
        Some("max_tokens") if parts(before).count() < CONTINUES => return Step::GoOn,
        _ => {}
    }
    let mut texts: Vec<_> = parts(before).map(text_of).collect();
    texts.reverse();
    texts.push(text_of(answer));
    if answer.stop_reason.as_deref() == Some("max_tokens") {
        texts.push(format!("\n\n{STILL_CUT}"));
    }
    let block = answer.blocks.iter().rposition(|block| block.text().is_some()).unwrap_or(0);
    Step::Done(Ending {
        id: LetterId::of_block(turn, entry.entry, u32::try_from(block).unwrap_or(u32::MAX)),
        outcome: Outcome::Finished,
        text: texts.concat(),
        error: None,
    })
}

/// Earlier parts of a continued answer, newest first.
fn parts<'a>(before: &'a [&Entry]) -> impl Iterator<Item = &'a Assistant> {
    before
        .iter()
        .rev()
        .filter(|entry| !matches!(entry.body, Body::Note(_) | Body::Input(_) | Body::Gate(_)))
        .map_while(|entry| match &entry.body {
            Body::Assistant(part) => Some(part),
            _ => None,
        })
        .take_while(|part| {
            part.stop_reason.as_deref() == Some("max_tokens") && !part.blocks.iter().any(|b| b.is_tool_use())
        })
}

fn text_of(answer: &Assistant) -> String {
    answer.blocks.iter().filter_map(|block| block.text()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests_support::{self, host, script};
    use crate::transcript::{Gate, Note, ToolResult};
    use serde_json::json;

    const TURN: TurnId = TurnId(41);

    struct Story {
        _dir: tempfile::TempDir,
        transcript: Transcript,
    }

    fn story() -> Story {
        let (dir, mut transcript) = tests_support::transcript();
        transcript.append_input(TURN, host::input(&[(1, "go")])).unwrap();
        Story { _dir: dir, transcript }
    }

    impl Story {
        fn answers(mut self, answer: Assistant) -> Self {
            self.transcript.append(TURN, Body::Assistant(answer)).unwrap();
            self
        }
        fn result(mut self, id: &str) -> Self {
            let result =
                ToolResult { tool_use_id: id.into(), content: "ok".into(), is_error: false, shown: None };
            self.transcript.append_results(TURN, vec![result]).unwrap();
            self
        }
        fn go_on(mut self) -> Self {
            self.transcript.append(TURN, Body::Note(Note { text: "Continue.".into() })).unwrap();
            self
        }
        fn next(&self) -> Step {
            next(&self.transcript, TURN)
        }
    }

    fn says(text: &str) -> Assistant {
        script::says(text)
    }

    fn cut(text: &str) -> Assistant {
        Assistant { stop_reason: Some("max_tokens".into()), ..says(text) }
    }

    fn done(step: Step) -> Ending {
        match step {
            Step::Done(ending) => ending,
            other => panic!("{other:?}"),
        }
    }

    fn tool(step: Step) -> ToolUse {
        match step {
            Step::Tool(call) => call,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_turn_goes_from_input_over_tools_to_its_end() {
        let both = script::calls(&[("a", "read_file", json!({})), ("b", "read_file", json!({}))]);
        let story = story();
        assert_eq!(story.next(), Step::Call);
        let story = story.answers(both);
        assert_eq!(tool(story.next()).id, "a");
        let story = story.result("a");
        assert_eq!(tool(story.next()).id, "b");
        let story = story.result("b");
        assert_eq!(story.next(), Step::Call);
        let ending = done(story.answers(says("done")).next());
        assert_eq!((ending.outcome, ending.text.as_str()), (Outcome::Finished, "done"));
        assert_eq!(ending.id.as_str(), "t-41:5.0");
    }

    #[test]
    fn an_id_that_a_provider_gives_twice_is_two_calls() {
        let call = || script::calls(&[("a", "read_file", json!({}))]);
        let story = story().answers(call()).result("a").answers(call());
        assert_eq!(tool(story.next()).id, "a");
    }

    #[test]
    fn a_long_answer_is_asked_twice_to_go_on_and_is_one_text() {
        let story = story().answers(cut("one "));
        assert_eq!(story.next(), Step::GoOn);
        let story = story.go_on();
        assert_eq!(story.next(), Step::Call);
        let story = story.answers(cut("two ")).go_on();
        let ending = done(story.answers(says("three")).next());
        assert_eq!(ending.text, "one two three");
        assert_eq!(ending.outcome, Outcome::Finished);
    }

    #[test]
    fn an_answer_that_is_cut_three_times_says_so() {
        let story = story().answers(cut("one ")).go_on().answers(cut("two ")).go_on();
        let ending = done(story.answers(cut("three")).next());
        assert_eq!(ending.text, format!("one two three\n\n{STILL_CUT}"));
        assert_eq!(ending.outcome, Outcome::Finished);
    }

    #[test]
    fn a_call_cut_by_size_is_not_run_but_those_before_it_are() {
        let mut both = script::calls(&[("a", "read_file", json!({})), ("b", "write_file", json!({}))]);
        both.stop_reason = Some("max_tokens".into());
        let story = story().answers(both);
        assert_eq!(tool(story.next()).problem, None);
        let story = story.result("a");
        assert!(tool(story.next()).problem.unwrap().contains("smaller calls"));
    }

    #[test]
    fn arguments_that_are_no_json_are_not_run() {
        let mut call = script::calls(&[("a", "read_file", json!({}))]);
        call.bad_inputs.insert(0, "EOF at column 3".into());
        assert!(tool(story().answers(call).next()).problem.unwrap().contains("column 3"));
    }

    #[test]
    fn a_pause_goes_on_and_a_refusal_does_not() {
        let paused = Assistant { stop_reason: Some("pause_turn".into()), ..says("hm") };
        assert_eq!(story().answers(paused).next(), Step::Call);
        let refused = Assistant { stop_reason: Some("refusal".into()), ..says("no") };
        assert_eq!(story().answers(refused).next(), Step::Refused { text: "no".into() });
    }

    #[test]
    fn an_end_entry_stands_with_its_own_id() {
        let mut story = story();
        let end = End { outcome: Outcome::Limit, text: "enough".into(), error: None };
        story.transcript.append(TURN, Body::End(end)).unwrap();
        let ending = done(story.next());
        assert_eq!((ending.id.as_str(), ending.text.as_str()), ("t-41:2.0", "enough"));
    }

    #[test]
    fn a_gate_ends_a_turn_of_its_own_and_no_other() {
        let gate = |wake, error: Option<&str>| {
            let error = error.map(|code| ErrorDetail { code: code.into(), reason: "why".into() });
            Body::Gate(Gate { fire: "f-12".into(), wake, error, shown: None })
        };
        let alone = |body| {
            let (_dir, mut transcript) = tests_support::transcript();
            transcript.append(TURN, body).unwrap();
            next(&transcript, TURN)
        };
        let ending = done(alone(gate(false, None)));
        assert_eq!((ending.outcome, ending.id.as_str()), (Outcome::Finished, "t-41:1.0"));
        let ending = done(alone(gate(false, Some("gate.exit"))));
        assert_eq!(ending.outcome, Outcome::Failed);
        assert_eq!(ending.error.unwrap().code, "gate.exit");
        assert_eq!(alone(gate(true, None)), Step::Call);
        for gate in [gate(false, None), gate(false, Some("gate.exit"))] {
            let mut story = story();
            story.transcript.append(TURN, gate).unwrap();
            assert_eq!(story.next(), Step::Call, "a person waits for an answer");
        }
    }

    #[test]
    fn an_answer_without_text_ends_in_block_zero() {
        let empty = Assistant { blocks: vec![], ..says("") };
        let ending = done(story().answers(empty).next());
        assert_eq!((ending.id.as_str(), ending.text.as_str()), ("t-41:2.0", ""));
    }
}
