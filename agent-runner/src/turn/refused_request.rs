//! Decides what follows when a provider refuses a request as invalid: a pure function of the transcript and the count
//! of refusals.
//!
//! The next request would hold the same entries and be refused too, and so would every later one of the session. So the
//! runner repeats the request with less and less of what was said before, down to what is asked right now.

use ipc_schema::TurnId;

use crate::sight;
use crate::transcript::{Body, Entry, LeftOut, Omissions};

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AfterRefusal {
    /// One refusal may be a fault of the provider.
    Repeat,
    Without(LeftOut),
    /// Nothing is left that could be left out: the fault is not in the transcript.
    Fail,
}

/// `refusals` counts the refusals of this request so far, the newest included.
pub fn after(entries: &[Entry], turn: TurnId, refusals: usize) -> AfterRefusal {
    let mut steps = steps(entries, turn);
    if steps.is_empty() {
        return AfterRefusal::Fail;
    }
    match refusals.checked_sub(2) {
        None => AfterRefusal::Repeat,
        Some(step) if step < steps.len() => AfterRefusal::Without(steps.swap_remove(step)),
        Some(_) => AfterRefusal::Fail,
    }
}

/// What to leave out, in the order of the attempts: pictures and documents, the thoughts, the last turn, everything but
/// a summary, everything.
/// Each leaves out more than the one before it.
fn steps(entries: &[Entry], turn: TurnId) -> Vec<LeftOut> {
    let Some(through) = entries.last().map(|entry| entry.entry) else { return Vec::new() };
    let known = Omissions::of(entries);
    let first = |wanted: &dyn Fn(&Entry) -> bool| entries.iter().find(|e| wanted(e)).map(|e| e.entry);
    let is_summary = |entry: &Entry| matches!(entry.body, Body::Summary(_));
    let answered_now = entries.iter().any(|e| e.turn == turn && is_answer(e) && !known.omits(e));
    let last_turn = if answered_now {
        Some(turn)
    } else {
        let earlier = |e: &&Entry| e.turn != turn && !is_summary(e) && is_shown(e) && !known.omits(e);
        entries.iter().rev().find(earlier).map(|e| e.turn)
    };
    let froms = [
        (true, None),
        (false, None),
        (false, last_turn.and_then(|last| first(&|e| e.turn == last && !is_summary(e)))),
        (false, first(&|e| !is_summary(e))),
        (false, first(&|_| true)),
    ];
    let mut sent = sent(entries, &known);
    let mut steps = Vec::new();
    for (only_files, from) in froms {
        let told = if only_files { told_of_files() } else { told(from, entries, turn) };
        let left = LeftOut { through, from, only_files, told };
        let less = self::sent(entries, &known.and(turn, &left));
        if less < sent {
            sent = less;
            steps.push(left);
        }
    }
    steps
}

fn is_answer(entry: &Entry) -> bool {
    matches!(entry.body, Body::Assistant(_))
}

/// Whether a request shows anything of the entry.
fn is_shown(entry: &Entry) -> bool {
    match &entry.body {
        Body::LeftOut(_) | Body::Shortened(_) | Body::Order(_) => false,
        Body::Gate(gate) => gate.shown.is_some(),
        _ => true,
    }
}

/// How many entries, files and thoughts a request holds.
fn sent(entries: &[Entry], omissions: &Omissions) -> usize {
    let kept = entries.iter().filter(|e| !omissions.omits(e) && is_shown(e));
    kept.map(|entry| match &entry.body {
        Body::Assistant(answer) if !omissions.omits_thoughts(entry) => {
            1 + answer.blocks.iter().filter(|block| block.is_thought()).count()
        }
        _ if omissions.omits_files(entry) => 1,
        _ => 1 + sight::count(entry),
    })
    .sum()
}

fn told_of_files() -> String {
    "The model's provider refused our conversation. I went on without its pictures and documents; the words are still there. To show me one again, send it again.".to_owned()
}

/// What the people of the chat are told.
fn told(from: Option<u64>, entries: &[Entry], turn: TurnId) -> String {
    let what = match from {
        None => "I went on without my earlier thoughts; all that was said is still there".to_owned(),
        Some(from) => {
            let earlier = entries.iter().any(|e| e.entry >= from && e.turn != turn);
            let what = if earlier { "an earlier part of our conversation" } else { "what I had done so far" };
            format!("I went on without {what}, and no longer see it")
        }
    };
    format!(
        "The model's provider refused our conversation. {what}. If something is missing, write it again; /new begins a new conversation."
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests_support::{host, script};
    use crate::transcript::{Block, Gate, Note, Results, Summary, ToolResult};
    use serde_json::json;

    const EARLIER: TurnId = TurnId(40);
    const NOW: TurnId = TurnId(41);

    fn entries(bodies: Vec<(TurnId, Body)>) -> Vec<Entry> {
        let numbered = bodies.into_iter().zip(1..);
        numbered.map(|((turn, body), entry)| Entry { entry, turn, at: String::new(), body }).collect()
    }

    fn says(message: u64) -> Body {
        Body::Input(host::input(&[(message, "hello")]))
    }

    fn thinks_and_calls() -> [Body; 2] {
        let mut answer = script::calls(&[("a", "run_command", json!({}))]);
        answer
            .blocks
            .insert(0, Block::new(r#"{"type":"thinking","thinking":"hm","signature":"s"}"#).unwrap());
        let result =
            ToolResult { tool_use_id: "a".into(), content: "ok".into(), is_error: false, shown: None };
        [Body::Assistant(answer), Body::Results(Results { blocks: vec![result] })]
    }

    fn without(through: u64, from: impl Into<Option<u64>>) -> AfterRefusal {
        AfterRefusal::Without(left(through, from))
    }

    fn left(through: u64, from: impl Into<Option<u64>>) -> LeftOut {
        LeftOut { through, from: from.into(), only_files: false, told: String::new() }
    }

    /// What follows each of the first eight refusals.
    fn all(entries: &[Entry]) -> Vec<AfterRefusal> {
        let quiet = |after| match after {
            AfterRefusal::Without(left) => AfterRefusal::Without(LeftOut { told: String::new(), ..left }),
            other => other,
        };
        (1..9).map(|refusals| quiet(after(entries, NOW, refusals))).collect()
    }

    #[test]
    fn a_conversation_without_a_past_is_not_the_fault() {
        let asked = entries(vec![(NOW, says(1))]);
        assert_eq!(after(&asked, NOW, 1), AfterRefusal::Fail);
    }

    #[test]
    fn thoughts_go_first_then_what_was_done_in_this_turn_then_all_that_came_before() {
        let [answer, results] = thinks_and_calls();
        let story = entries(vec![
            (EARLIER, says(1)),
            (EARLIER, Body::Assistant(script::says("hi"))),
            (NOW, says(2)),
            (NOW, answer),
            (NOW, results),
        ]);
        let fail = AfterRefusal::Fail;
        let expected =
            [AfterRefusal::Repeat, without(5, None), without(5, 3), without(5, 1), fail.clone(), fail];
        assert_eq!(all(&story)[..6], expected);
    }

    #[test]
    fn a_later_message_goes_on_without_the_turn_before_it_and_a_summary_goes_last() {
        let [answer, results] = thinks_and_calls();
        let summary = Summary {
            text: "they met".into(),
            archive: String::new(),
            made_at: 1,
            held: vec![],
            compactions: 1,
        };
        let story = entries(vec![
            (TurnId(38), Body::Summary(summary)),
            (TurnId(39), says(1)),
            (EARLIER, says(2)),
            (EARLIER, answer),
            (EARLIER, results),
            (NOW, says(3)),
            (NOW, Body::Note(Note { text: "still waiting".into() })),
        ]);
        let expected = [AfterRefusal::Repeat, without(7, None), without(7, 3), without(7, 2), without(7, 1)];
        assert_eq!(all(&story)[..5], expected);
        let kept = |e: &&Entry| !Omissions::default().and(NOW, &left(7, 1)).omits(e);
        let kept: Vec<_> = story.iter().filter(kept).map(|e| e.entry).collect();
        assert_eq!(kept, [6, 7], "what is asked now stays");
    }

    #[test]
    fn a_fire_stays_as_a_message_does_and_a_gate_that_said_no_is_no_turn_to_leave_out() {
        let gate = |wake, shown: Option<&str>| {
            Body::Gate(Gate { fire: "f-12".into(), wake, error: None, shown: shown.map(str::to_owned) })
        };
        let [answer, results] = thinks_and_calls();
        let story = entries(vec![
            (TurnId(38), says(1)),
            (TurnId(39), answer),
            (TurnId(39), results),
            (EARLIER, gate(false, None)),
            (NOW, gate(true, Some("data"))),
            (NOW, Body::Input(host::fire(|_| {}, &[]))),
        ]);
        let fail = AfterRefusal::Fail;
        let expected = [AfterRefusal::Repeat, without(6, None), without(6, 2), without(6, 1), fail];
        assert_eq!(all(&story)[..5], expected);
        let kept = |e: &&Entry| !Omissions::default().and(NOW, &left(6, 1)).omits(e);
        assert_eq!(story.iter().filter(kept).map(|e| e.entry).collect::<Vec<_>>(), [5, 6]);
        assert_eq!(after(&story[4..], NOW, 1), AfterRefusal::Fail, "a fire alone is not the fault");
    }

    #[test]
    fn what_is_left_out_already_is_no_step() {
        let [answer, results] = thinks_and_calls();
        let story = entries(vec![
            (EARLIER, says(1)),
            (EARLIER, answer),
            (EARLIER, results),
            (EARLIER, Body::LeftOut(left(3, 1))),
            (NOW, says(2)),
        ]);
        // The earlier turn's message is still sent: it was what the earlier request asked for.
        assert_eq!(all(&story)[..3], [AfterRefusal::Repeat, without(5, 1), AfterRefusal::Fail]);
    }

    #[test]
    fn the_chat_is_told_what_is_gone_and_how_to_begin_afresh() {
        let story = entries(vec![(EARLIER, says(1)), (NOW, says(2))]);
        let said = |from| told(from, &story, NOW);
        assert!(said(None).contains("without my earlier thoughts"));
        assert!(said(Some(1)).contains("an earlier part of our conversation"));
        assert!(said(Some(2)).contains("what I had done so far"));
        assert!(said(None).ends_with("/new begins a new conversation."));
    }
}
