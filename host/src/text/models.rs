//! Answers to `/model` and `/usage`.

use super::{REASON, label, one_line};
use crate::domain::GroupName;

/// `now` is the group's model, and whether `/model` has chosen it.
pub fn models(now: &str, chosen: bool, names: &[String]) -> String {
    let whose = if chosen { "chosen with /model" } else { "as the settings say" };
    format!(
        "The model is {now}, {whose}. You can choose: {}. Only owners choose: write /model NAME, or /model default for the model of \
         the settings.",
        names.join(", ")
    )
}

pub fn model_chosen(name: &str) -> String {
    format!("The model is {name} from the next turn on.")
}

pub fn model_of_file(name: &str) -> String {
    format!("The model is that of the settings again, {name}, from the next turn on.")
}

pub fn may_not_choose_model() -> String {
    "Only an owner can choose the model. /model shows which there are.".to_owned()
}

pub fn no_such_model(asked: &str, names: &[String]) -> String {
    format!("There is no model {} to choose. There are: {}.", one_line(asked, 60), names.join(", "))
}

/// For `main`: the settings do not know the model of a group any more.
pub fn model_gone(group: &GroupName, chosen: &str, now: &str) -> String {
    format!(
        "The model {} was chosen for the group {group}, but the settings do not name it any more. The group uses {now}. \
         Add the model under `[[models]]` in lazaret.toml, or write /model default in a chat of that group.",
        one_line(chosen, REASON)
    )
}

/// What model calls used in a time.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Used {
    pub calls: u64,
    pub input: u64,
    pub output: u64,
    pub micros: u64,
    pub unpriced: u64,
}

impl Used {
    /// The cost, as far as prices are known.
    fn cost(&self) -> String {
        match (self.micros, self.unpriced) {
            (0, 1..) => "price unknown".to_owned(),
            (micros, 0) => super::dollars(micros),
            (micros, _) => format!("{} plus calls with an unknown price", super::dollars(micros)),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UsageFacts {
    pub group: String,
    /// Today, 7 days, 30 days, each with today.
    pub times: [Used; 3],
    /// By sender in the 30 days, the largest first. A task has no name.
    pub senders: Vec<(String, Used)>,
    /// Models without a price in the 30 days.
    pub unpriced: Vec<String>,
}

/// So many senders and models are named.
const NAMED: usize = 10;

pub fn usage(facts: &UsageFacts) -> String {
    if facts.times[2].calls == 0 {
        return format!("The group {} has made no model call in 30 days.", facts.group);
    }
    let mut lines = vec![format!("Model calls of the group {}:", facts.group)];
    for (time, used) in ["today", "7 days", "30 days"].iter().zip(&facts.times) {
        let Used { calls, input, output, .. } = used;
        let calls_word = if *calls == 1 { "call" } else { "calls" };
        lines.push(format!("{time}: {calls} {calls_word}, {input} tokens in, {output} out, {}", used.cost()));
    }
    let sender = |(name, used): &(String, Used)| {
        let name = if name.is_empty() { "tasks".to_owned() } else { label(name) };
        format!("{name} {} tokens, {}", used.input.saturating_add(used.output), used.cost())
    };
    let senders: Vec<String> = facts.senders.iter().take(NAMED).map(sender).collect();
    lines.push(format!("By sender, 30 days: {}{}", senders.join("; "), more(facts.senders.len())));
    if !facts.unpriced.is_empty() {
        let names: Vec<String> = facts.unpriced.iter().take(NAMED).map(|name| one_line(name, 60)).collect();
        lines.push(format!("Price unknown: {}{}", names.join(", "), more(facts.unpriced.len())));
    }
    lines.join("\n")
}

fn more(of: usize) -> String {
    if of > NAMED { format!("; and {} more", of - NAMED) } else { String::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_names_senders_and_models_without_a_price() {
        let used = |calls, micros, unpriced| Used { calls, input: 100, output: 20, micros, unpriced };
        let facts = UsageFacts {
            group: "family".into(),
            times: [used(1, 20_000, 0), used(2, 20_000, 1), used(3, 0, 3)],
            senders: vec![("Ann".into(), used(2, 20_000, 0)), (String::new(), used(1, 0, 1))],
            unpriced: vec!["local-7b".into()],
        };
        assert_eq!(
            usage(&facts),
            "Model calls of the group family:\n\
             today: 1 call, 100 tokens in, 20 out, $0.0200\n\
             7 days: 2 calls, 100 tokens in, 20 out, $0.0200 plus calls with an unknown price\n\
             30 days: 3 calls, 100 tokens in, 20 out, price unknown\n\
             By sender, 30 days: Ann 120 tokens, $0.0200; tasks 120 tokens, price unknown\n\
             Price unknown: local-7b"
        );
        assert!(usage(&UsageFacts::default()).contains("no model call"));
    }
}
