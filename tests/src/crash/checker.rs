//! Checks the promises after a crash run. It reads the platform's log and the final database, and nothing of the
//! driver. Each message that the platform handed over must have an answer or a notice that says why not: once, in its
//! chat, in order. The database must show no unfinished work.

mod evidence;
mod fires;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use serde::Serialize;

pub use evidence::{CALLS, DATABASE, Evidence, FACTS, Facts, NoEvidence, unfinished};
use evidence::{Outbox, Stored};
pub use fires::{FireVerdict, check_fires};

use super::platform_log::{Line, What};
use super::token::{ANSWER, INTERIM, REST, Token, tokens};

/// The result of a check: the last line that a run prints.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// Kills of the host, a box, the engine or the connection to the platform.
    pub kills: u64,
    /// Messages that the host acknowledged to the platform.
    pub messages: u64,
    /// Messages without an answer and without a notice that says why.
    pub lost: u64,
    /// Texts that appear too often, and messages with two answers.
    pub duplicated: u64,
    /// Sends that the host counts as uncertain.
    pub uncertain: u64,
    /// Copies of a text that the uncertain sends explain.
    pub extra_copies: u64,
    /// Placeholders that never got a text: the reply arrived under another id.
    pub placeholders: u64,
    /// Texts that appear before an earlier one.
    pub out_of_order: u64,
    /// Texts in a wrong chat.
    pub wrong_chat: u64,
    /// Unfinished turns, runs, messages and parts.
    pub unfinished: u64,
    /// Damage that SQLite's checks found.
    pub damage: u64,
    /// Boxes that still exist at the end.
    pub boxes_left: u64,
    /// Hosts that did not come up.
    pub start_failures: u64,
    /// How often the simulation stood still at the end and got a new host.
    pub nudges: u64,
    /// Model calls that got a refusal, a cut or odd elements.
    pub odd: u64,
    /// Each broken promise in words. Not part of the line.
    #[serde(skip)]
    pub broken: Vec<String>,
}

impl Verdict {
    /// Returns whether every promise was kept.
    pub fn holds(&self) -> bool {
        self.broken.is_empty()
    }

    fn break_(&mut self, count: impl FnOnce(&mut Self) -> &mut u64, what: String) {
        *count(self) += 1;
        self.broken.push(what);
    }
}

/// Checks the evidence against the promises.
pub fn check(evidence: &Evidence) -> Verdict {
    let mut verdict = Verdict {
        kills: evidence.facts.kills,
        boxes_left: evidence.facts.boxes_left,
        start_failures: evidence.facts.start_failures,
        nudges: evidence.facts.nudges,
        odd: evidence.facts.odd,
        unfinished: evidence.unfinished.len() as u64,
        damage: evidence.damage.len() as u64,
        uncertain: evidence.outbox.iter().map(|row| row.uncertain).sum(),
        ..Verdict::default()
    };
    verdict.broken.extend(evidence.unfinished.iter().map(|what| format!("unfinished: {what}")));
    verdict.broken.extend(evidence.damage.iter().map(|what| format!("damage: {what}")));
    for (count, what) in
        [(verdict.boxes_left, "boxes are left"), (verdict.start_failures, "hosts did not start")]
    {
        if count > 0 {
            verdict.broken.push(format!("{count} {what}"));
        }
    }
    let chats = Chats::read(&evidence.log, &mut verdict);
    every_message_has_an_end(evidence, &chats, &mut verdict);
    no_text_twice(evidence, &chats, &mut verdict);
    every_chat_in_order(evidence, &chats, &mut verdict);
    verdict.broken.extend(fires::check(evidence, &chats).broken);
    verdict
}

/// A text in a chat at the end of the run.
struct Shown<'a> {
    id: &'a str,
    text: &'a str,
}

/// The platform's log, sorted by chat.
struct Chats<'a> {
    /// By chat, in order of appearance.
    shown: BTreeMap<&'a str, Vec<Shown<'a>>>,
    /// Accepted messages once each: chat and id.
    accepted: BTreeSet<(&'a str, &'a str, &'a str)>,
    /// The chat of each label.
    of_label: HashMap<String, &'a str>,
}

impl<'a> Chats<'a> {
    fn read(log: &'a [Line], verdict: &mut Verdict) -> Self {
        let mut shown: BTreeMap<&str, Vec<Shown<'_>>> = BTreeMap::new();
        let mut accepted = BTreeSet::new();
        let mut of_label = HashMap::new();
        for line in log {
            match line.what {
                What::Said => {
                    of_label.extend(tokens(&line.text).into_iter().map(|t| (t.label, line.chat.as_str())));
                }
                What::Accepted => {
                    accepted.insert((line.chat.as_str(), line.id.as_str(), line.text.as_str()));
                }
                What::Delivered { .. } => {
                    let here = shown.entry(&line.chat).or_default();
                    // A message keeps its first place and has its last text.
                    match here.iter_mut().find(|earlier| earlier.id == line.id) {
                        Some(earlier) => {
                            if words(earlier.text) && earlier.text != line.text {
                                let (chat, from, to) = (&line.chat, earlier.text, &line.text);
                                let what = format!("{chat}: {} said {from:?}, and then {to:?}", line.id);
                                verdict.break_(|v| &mut v.duplicated, what);
                            }
                            earlier.text = &line.text;
                        }
                        None => here.push(Shown { id: &line.id, text: &line.text }),
                    }
                }
            }
        }
        for here in shown.values_mut() {
            let all = here.len();
            here.retain(|shown| words(shown.text));
            verdict.placeholders += (all - here.len()) as u64;
        }
        verdict.messages = accepted.len() as u64;
        Self { shown, accepted, of_label }
    }
}

/// Returns whether a text has words; a placeholder has none.
fn words(text: &str) -> bool {
    text.chars().any(char::is_alphanumeric)
}

fn every_message_has_an_end(evidence: &Evidence, chats: &Chats<'_>, verdict: &mut Verdict) {
    let mut answers: HashMap<Token, HashSet<&str>> = HashMap::new();
    for (chat, shown) in &chats.shown {
        for text in shown.iter().map(|s| s.text) {
            let named = tokens(text);
            for token in &named {
                if chats.of_label.get(&token.label) != Some(chat) {
                    let what = format!("{chat}: {token} belongs elsewhere: {:.80}", text);
                    verdict.break_(|v| &mut v.wrong_chat, what);
                }
            }
            if text.starts_with(ANSWER) {
                // Only the first line names the answered messages; the rest of a long answer repeats it.
                for token in tokens(text.lines().next().unwrap_or_default()) {
                    answers.entry(token).or_default().insert(text);
                }
            }
        }
    }
    for (chat, id, text) in &chats.accepted {
        let stored = evidence.messages.get(&((*chat).to_owned(), (*id).to_owned()));
        let Some(stored) = stored else {
            verdict.break_(|v| &mut v.lost, format!("{chat}: message {id} ({text}) was never stored"));
            continue;
        };
        match tokens(text).first() {
            None if stored.outcome.is_some() => {}
            None => verdict.break_(|v| &mut v.lost, format!("{chat}: the order {text:?} came to nothing")),
            Some(token) => match answers.get(token).map_or(0, HashSet::len) {
                1 => {}
                0 if explained(evidence, chats, chat, stored) => {}
                0 => {
                    let turn = stored.turn.map_or("no turn".into(), |t| format!("t-{t}"));
                    let what =
                        format!("{chat}: {token} (m-{}, {turn}) has no answer and no notice", stored.seq);
                    verdict.break_(|v| &mut v.lost, what);
                }
                n => {
                    verdict.break_(|v| &mut v.duplicated, format!("{chat}: {token} is answered {n} times"));
                }
            },
        }
    }
}

/// Returns whether the chat shows a notice about the end of the message's turn.
fn explained(evidence: &Evidence, chats: &Chats<'_>, chat: &str, stored: &Stored) -> bool {
    let ends = |row: &&Outbox| {
        row.turn == stored.turn
            && row.turn.is_some()
            && row.notice
            && row.key.starts_with("notice:")
            && row.ends()
    };
    evidence.outbox.iter().filter(ends).any(|row| {
        let here = chats.shown.get(chat).map(Vec::as_slice).unwrap_or_default();
        here.iter().any(|shown| row.receipt.as_deref() == Some(shown.id))
    })
}

/// Each reply must appear once, and each notice and reminder as often as it was sent. The host must have counted every
/// further copy as uncertain. (On the terminal and on WhatsApp a repeat has the same id and is no copy.)
fn no_text_twice(evidence: &Evidence, chats: &Chats<'_>, verdict: &mut Verdict) {
    for (chat, shown) in &chats.shown {
        let here: Vec<&Outbox> = evidence.outbox.iter().filter(|row| row.chat == **chat).collect();
        let mut copies: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for s in shown {
            copies.entry(s.text).or_default().push(s.id);
        }
        for (text, ids) in copies {
            // Rows are also matched by the receipt, because the text that people read of a notice can differ from its
            // Markdown.
            let received = |row: &&Outbox| row.receipt.as_deref().is_some_and(|id| ids.contains(&id));
            let of_text = |row: &&&Outbox| received(row) || text.ends_with(row.text.trim());
            let rows: Vec<&Outbox> = here.iter().filter(of_text).copied().collect();
            let meant = rows.iter().copied().filter(received).count();
            let repeats = |row: &&Outbox| row.notice || row.reminder().is_some();
            let once = tokens(text).is_empty() && rows.iter().all(repeats);
            let meant = if once { meant.max(1) } else { 1 };
            let uncertain = rows.iter().map(|row| row.uncertain).sum::<u64>();
            let extra = ids.len().saturating_sub(meant) as u64;
            verdict.extra_copies += extra.min(uncertain);
            for _ in uncertain..extra {
                let what = format!("{chat}: {} copies, {uncertain} uncertain: {text:.80}", ids.len());
                verdict.break_(|v| &mut v.duplicated, what);
            }
        }
    }
}

fn every_chat_in_order(evidence: &Evidence, chats: &Chats<'_>, verdict: &mut Verdict) {
    for (chat, shown) in &chats.shown {
        let rows = || evidence.outbox.iter().filter(|row| row.chat == **chat);
        // A part that a person asked to resend appears where they asked for it.
        let resent: HashSet<&str> =
            rows().filter(|row| row.resent).filter_map(|row| row.receipt.as_deref()).collect();
        let shown: Vec<&Shown<'_>> = shown.iter().filter(|s| !resent.contains(s.id)).collect();
        let mut known = HashSet::new();
        // A text's lowest token and its kind must not come before the highest token and the kind of the text above it.
        let mut last: Option<(u64, u64, &str)> = None;
        for text in shown.iter().map(|s| s.text).filter(|text| known.insert(*text)) {
            let kind = match text {
                t if t.starts_with(INTERIM) => 0,
                t if t.starts_with(ANSWER) => 1,
                t if t.starts_with(REST) => 2,
                _ => continue,
            };
            let numbers: Vec<u64> = tokens(text).iter().map(|token| token.n).collect();
            let (Some(low), Some(high)) = (numbers.iter().min(), numbers.iter().max()) else { continue };
            if let Some((before, kind_before, earlier)) = last {
                // The first part of a long answer names some tokens, and its second part repeats them all.
                let rest = kind == 2 && kind_before == 1 && *high == before;
                if !rest && (*low < before || (*low == before && kind <= kind_before)) {
                    let what = format!("{chat}: {text:.60} stands behind {earlier:.60}");
                    verdict.break_(|v| &mut v.out_of_order, what);
                }
            }
            // One answer may cover the message in progress, messages that came meanwhile, and messages that came
            // before.
            last = Some((if kind == 0 { *low } else { *high }, kind, text));
        }
        // Checks the host's own order: the receipts of a chat's parts must follow the queue.
        let places: HashMap<&str, usize> = shown.iter().enumerate().map(|(at, s)| (s.id, at)).collect();
        let mut reached = 0;
        for (row, at) in rows().filter_map(|row| Some((row, *places.get(row.receipt.as_deref()?)?))) {
            if at < reached {
                let what = format!("{chat}: part {} stands before an earlier one: {:.60}", row.id, row.text);
                verdict.break_(|v| &mut v.out_of_order, what);
            }
            reached = reached.max(at);
        }
    }
}
