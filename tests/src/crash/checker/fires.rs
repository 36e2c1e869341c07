//! Checks what became of the tasks: each planned time has one fire, each fire has one outcome, and the outcome is true.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::Serialize;

use super::evidence::{Fire, Task};
use super::{Chats, Evidence, Verdict};
use crate::crash::model_answers::{DID, PLAN, TELLS};
use crate::crash::token::{ANSWER, Token, tokens};

/// What the tasks of a run came to: the counts of its last line.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct FireVerdict {
    pub fires: u64,
    pub ran: u64,
    pub caught_up: u64,
    pub missed: u64,
    pub skipped: u64,
    pub failed: u64,
    pub gated: u64,
    /// Planned times without a fire, fires without an outcome, outcomes that are not true, and tasks that were asked
    /// for and not made.
    pub unaccounted: u64,
    /// Planned times with two fires, work that was done twice, texts that were posted twice, and tasks made twice.
    pub doubled: u64,
    /// Each broken promise in words. Not part of the line.
    #[serde(skip)]
    pub broken: Vec<String>,
}

impl FireVerdict {
    fn lack(&mut self, what: String) {
        self.unaccounted += 1;
        self.broken.push(what);
    }

    fn twice(&mut self, what: String) {
        self.doubled += 1;
        self.broken.push(what);
    }
}

/// Checks the fires of the evidence.
pub fn check_fires(evidence: &Evidence) -> FireVerdict {
    check(evidence, &Chats::read(&evidence.log, &mut Verdict::default()))
}

pub(super) fn check(evidence: &Evidence, chats: &Chats<'_>) -> FireVerdict {
    let mut verdict = FireVerdict { fires: evidence.fires.len() as u64, ..FireVerdict::default() };
    every_planned_time_has_one_fire(evidence, &mut verdict);
    every_outcome_is_true(evidence, chats, &mut verdict);
    every_asked_task_is_made_once(evidence, chats, &mut verdict);
    verdict
}

/// The tests only use schedules whose times are whole minutes of UTC: each so many minutes, or once.
fn planned(task: &Task, until: i64) -> Vec<i64> {
    const MINUTE: i64 = 60_000;
    let step = match task.schedule.as_str() {
        "cron * * * * *" => MINUTE,
        "cron */5 * * * *" => 5 * MINUTE,
        _ => return Vec::new(),
    };
    let first = (task.created_at.div_euclid(step) + 1) * step;
    (0..).map(|n| first + n * step).take_while(|at| *at <= until).collect()
}

fn every_planned_time_has_one_fire(evidence: &Evidence, verdict: &mut FireVerdict) {
    let mut of_task: HashMap<i64, BTreeMap<i64, u64>> = HashMap::new();
    for fire in &evidence.fires {
        *of_task.entry(fire.task).or_default().entry(fire.planned).or_default() += 1;
    }
    let none = BTreeMap::new();
    for task in &evidence.tasks {
        let fires = of_task.get(&task.id).unwrap_or(&none);
        for (at, _) in fires.iter().filter(|(_, rows)| **rows > 1) {
            verdict.twice(format!("task-{} has two fires for {at}", task.id));
        }
        for at in planned(task, evidence.facts.fires_until) {
            if !fires.contains_key(&at) {
                verdict.lack(format!("task-{} has no fire for {at}", task.id));
            }
        }
        if task.schedule.starts_with("once ") && fires.len() != 1 {
            verdict.lack(format!("task-{} fires once and has {} fires", task.id, fires.len()));
        }
    }
}

/// What the chats show of the fires.
struct Shown<'a> {
    /// By fire, the places in the chats of the texts with these words before the id.
    did: BTreeMap<String, Vec<(&'a str, &'a str)>>,
    tells: BTreeMap<String, Vec<(&'a str, &'a str)>>,
    /// By fire, whether each part of its reminder arrived in its chat.
    reminders: BTreeMap<i64, Vec<bool>>,
    /// How often each place may hold a copy that the host knows of.
    uncertain: BTreeMap<&'a str, u64>,
}

impl<'a> Shown<'a> {
    fn read(evidence: &'a Evidence, chats: &'a Chats<'_>) -> Self {
        let (mut did, mut tells) = (BTreeMap::new(), BTreeMap::new());
        let mut places = BTreeSet::new();
        for (chat, texts) in &chats.shown {
            for shown in texts {
                places.insert((*chat, shown.id));
                for (words, found) in [(DID, &mut did), (TELLS, &mut tells)] {
                    if let Some(fire) = fire_behind(shown.text, words) {
                        found.entry(fire).or_insert_with(Vec::new).push((*chat, shown.id));
                    }
                }
            }
        }
        let (mut reminders, mut uncertain) = (BTreeMap::new(), BTreeMap::new());
        for row in &evidence.outbox {
            let receipt = row.receipt.as_deref();
            if let Some(fire) = row.reminder() {
                let arrived = receipt.is_some_and(|id| places.contains(&(row.chat.as_str(), id)));
                reminders.entry(fire).or_insert_with(Vec::new).push(arrived);
            }
            if let Some(receipt) = receipt.filter(|_| row.uncertain > 0) {
                uncertain.insert(receipt, row.uncertain);
            }
        }
        Self { did, tells, reminders, uncertain }
    }

    /// Whether a text is in the chat, and once.
    fn once(&self, places: Option<&Vec<(&str, &str)>>, chat: &str) -> Result<(), &'static str> {
        let places = places.map(Vec::as_slice).unwrap_or_default();
        let known: u64 = places.iter().filter_map(|(_, id)| self.uncertain.get(id)).sum();
        match places {
            [] => Err("did not reach its chat"),
            places if places.iter().any(|(other, _)| *other != chat) => Err("reached another chat"),
            places if places.len() as u64 > 1 + known => Err("reached its chat twice"),
            _ => Ok(()),
        }
    }
}

/// The id of the fire that stands behind the words.
fn fire_behind(text: &str, words: &str) -> Option<String> {
    let (_, rest) = text.split_once(words)?;
    let id: String =
        rest.trim_start().chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '-').collect();
    id.starts_with("f-").then_some(id)
}

fn every_outcome_is_true(evidence: &Evidence, chats: &Chats<'_>, verdict: &mut FireVerdict) {
    let tasks: HashMap<i64, &Task> = evidence.tasks.iter().map(|task| (task.id, task)).collect();
    let shown = Shown::read(evidence, chats);
    for fire in &evidence.fires {
        let Some(task) = tasks.get(&fire.task) else { continue };
        let name = format!("f-{} of task-{}", fire.id, fire.task);
        let count = match fire.outcome.as_deref() {
            Some("ran") => &mut verdict.ran,
            Some("caught_up") => &mut verdict.caught_up,
            Some("missed") => &mut verdict.missed,
            Some("skipped") => &mut verdict.skipped,
            Some("failed") => &mut verdict.failed,
            Some("gated") => &mut verdict.gated,
            other => {
                verdict.lack(format!("{name} has the outcome {other:?}"));
                continue;
            }
        };
        *count += 1;
        if fire.turns > 1 {
            verdict.twice(format!("{name} opened {} turns", fire.turns));
        }
        let is_true = match fire.outcome.as_deref() {
            Some("ran" | "caught_up") if task.remind => reminded(fire, &shown),
            Some("ran" | "caught_up") => worked(fire, task, evidence, &shown),
            Some("failed") => Ok(()),
            _ => idle(fire, evidence, &shown),
        };
        match is_true {
            Ok(()) => {}
            Err(what) if what.ends_with("twice") => verdict.twice(format!("{name}: {what}")),
            Err(what) => {
                let outcome = fire.outcome.as_deref().unwrap_or_default();
                verdict.lack(format!("{name} counts as {outcome}: {what}"));
            }
        }
    }
}

fn reminded(fire: &Fire, shown: &Shown<'_>) -> Result<(), String> {
    match shown.reminders.get(&fire.id).map(Vec::as_slice) {
        Some([true]) => Ok(()),
        None | Some([] | [false]) => Err("its text did not reach its chat".to_owned()),
        Some(_) => Err("its text was queued twice".to_owned()),
    }
}

/// The model was called, and its answer is where it belongs.
fn worked(fire: &Fire, task: &Task, evidence: &Evidence, shown: &Shown<'_>) -> Result<(), String> {
    let id = format!("f-{}", fire.id);
    if !evidence.calls.contains_key(&id) {
        return Err("the agent was never called".to_owned());
    }
    let answer = shown.did.get(&id);
    // The answer to people whose messages joined a silent turn reaches the chat.
    let kept =
        task.silent && fire.said.as_deref().is_some_and(|said| fire_behind(said, DID).as_ref() == Some(&id));
    match (kept, answer) {
        (true, None) => {}
        (true, Some(_)) => return Err("its answer was kept and said, so twice".to_owned()),
        (false, answer) => shown.once(answer, &task.chat).map_err(|what| format!("its answer {what}"))?,
    }
    match shown.tells.get(&id) {
        // A person's message may have joined before the task's own message.
        None => Ok(()),
        told => shown.once(told, &task.chat).map_err(|what| format!("its message {what}")),
    }
}

/// Nothing came of the fire.
fn idle(fire: &Fire, evidence: &Evidence, shown: &Shown<'_>) -> Result<(), String> {
    let id = format!("f-{}", fire.id);
    match () {
        () if evidence.calls.contains_key(&id) => Err("the agent was called".to_owned()),
        () if shown.did.contains_key(&id) || shown.tells.contains_key(&id) => {
            Err("it said something".to_owned())
        }
        () if shown.reminders.contains_key(&fire.id) => Err("its text was posted".to_owned()),
        () => Ok(()),
    }
}

/// A person's order for a task that the agent has answered made one task.
fn every_asked_task_is_made_once(evidence: &Evidence, chats: &Chats<'_>, verdict: &mut FireVerdict) {
    let mut made: HashMap<Token, u64> = HashMap::new();
    for token in evidence.tasks.iter().filter_map(|task| tokens(&task.prompt).into_iter().next()) {
        *made.entry(token).or_default() += 1;
    }
    let texts =
        chats.shown.values().flatten().map(|shown| shown.text).filter(|text| text.starts_with(ANSWER));
    let answered: BTreeSet<Token> = texts.flat_map(tokens).collect();
    for (chat, _, text) in &chats.accepted {
        let Some(token) = text.strip_prefix(PLAN).and_then(|rest| tokens(rest).into_iter().next()) else {
            continue;
        };
        let asks = matches!(token.n % 10, 1..=3);
        match made.get(&token).copied().unwrap_or(0) {
            0 if asks && answered.contains(&token) => {
                verdict.lack(format!("{chat}: {token} asked for a task, and there is none"));
            }
            0 | 1 => {}
            n => verdict.twice(format!("{chat}: {token} asked for a task, and there are {n}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Outbox;
    use super::*;
    use crate::crash::platform_log::{Line, What};

    const CHAT: &str = "telegram:1";

    fn shows(run: &mut Evidence, id: &str, text: &str, key: &str) {
        let what = What::Delivered { edit: false };
        let (chat, id, text) = (CHAT.to_owned(), id.to_owned(), text.to_owned());
        run.log.push(Line { at: 0, chat: chat.clone(), id: id.clone(), text: text.clone(), what });
        run.outbox.push(Outbox { chat, key: key.to_owned(), text, receipt: Some(id), ..Outbox::default() });
    }

    /// Task 1 works each minute, task 2 reminds each minute and task 3 is silent. A person has asked for a fourth.
    fn good_run() -> Evidence {
        let mut run = Evidence::default();
        run.facts.fires_until = 190_000;
        for id in 1..=4 {
            run.tasks.push(Task {
                id,
                chat: CHAT.to_owned(),
                remind: id == 2,
                prompt: if id == 4 { "say K-a-1." } else { "say" }.to_owned(),
                schedule: if id == 4 { "once 1970-01-01T00:02:00Z" } else { "cron * * * * *" }.to_owned(),
                silent: id == 3,
                created_at: 70_000,
            });
        }
        let fire = |id, task, minute: i64, outcome: &str| Fire {
            id,
            task,
            planned: minute * 60_000,
            outcome: Some(outcome.to_owned()),
            said: (task == 3).then(|| format!("did f-{id}")),
            turns: i64::from(task != 2),
        };
        run.fires = vec![
            fire(1, 1, 2, "ran"),
            fire(2, 2, 2, "ran"),
            fire(3, 3, 2, "caught_up"),
            fire(4, 4, 2, "ran"),
            fire(5, 1, 3, "missed"),
            fire(6, 2, 3, "skipped"),
            fire(7, 3, 3, "gated"),
        ];
        run.calls = [1, 3, 4].map(|fire| (format!("f-{fire}"), 1)).into();
        let (chat, id, text) = (CHAT.to_owned(), "11".to_owned(), "plan K-a-1".to_owned());
        run.log.push(Line { at: 0, chat, id, text, what: What::Accepted });
        shows(&mut run, "101", "answer: K-a-1", "e");
        shows(&mut run, "102", "did f-1", "e");
        shows(&mut run, "103", "stretch", "reminder:f-2");
        shows(&mut run, "104", "did f-4", "e");
        run
    }

    #[test]
    fn a_run_in_which_every_fire_is_accounted_for_passes() {
        let verdict = check_fires(&good_run());
        assert_eq!(verdict.broken, Vec::<String>::new());
        let FireVerdict { fires, ran, caught_up, missed, skipped, gated, .. } = verdict;
        assert_eq!((fires, ran, caught_up, missed, skipped, gated), (7, 3, 1, 1, 1, 1));
    }

    #[test]
    fn each_fault_is_found() {
        type Fault = (&'static str, fn(&mut Evidence));
        let faults: [Fault; 12] = [
            ("has no fire for 180000", |run| run.fires.retain(|fire| fire.id != 5)),
            ("two fires for 180000", |run| run.fires.push(Fire { id: 9, ..run.fires[4].clone() })),
            ("has the outcome None", |run| run.fires[5].outcome = None),
            ("the agent was never called", |run| run.calls.retain(|fire, _| fire != "f-1")),
            ("its answer did not reach its chat", |run| run.log.retain(|line| line.text != "did f-1")),
            ("its answer reached its chat twice", |run| shows(run, "105", "did f-1", "e")),
            ("was kept and said, so twice", |run| shows(run, "105", "did f-3", "e")),
            ("its text did not reach its chat", |run| run.log.retain(|line| line.text != "stretch")),
            ("its text was queued twice", |run| shows(run, "105", "stretch", "reminder:f-2")),
            ("opened 2 turns", |run| run.fires[0].turns = 2),
            ("counts as gated: the agent was called", |run| run.calls.extend([("f-7".to_owned(), 1)])),
            ("K-a-1 asked for a task, and there is none", |run| run.tasks[3].prompt.clear()),
        ];
        for (told, spoil) in faults {
            let mut run = good_run();
            spoil(&mut run);
            let verdict = check_fires(&run);
            assert_eq!(
                (verdict.broken.len(), verdict.unaccounted + verdict.doubled),
                (1, 1),
                "{told}: {verdict:?}"
            );
            assert!(verdict.broken[0].contains(told), "{told}: {:?}", verdict.broken);
            assert_eq!(verdict.doubled == 1, told.contains("tw") || told.contains("2 turns"), "{told}");
        }
    }
}
