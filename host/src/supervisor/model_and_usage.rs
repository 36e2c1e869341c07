//! Performs `/model` and `/usage`.

use std::collections::BTreeMap;

use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;

use crate::channels::RenewalOrder;
use crate::domain::GroupName;
use crate::domain::message::Command;
use crate::intake::News;
use crate::policy::model_choice::{ModelOrder, model_order, names};
use crate::services::Services;
use crate::store::{Result, UsageOfDay};
use crate::text::{self, Reader, UsageFacts, Used};

/// Performs `/model` of a person. Returns the answer and the outcome. A repeat after a crash chooses the same again.
pub(super) async fn choose_model(
    services: &Services,
    own: &UnboundedSender<News>,
    group: &GroupName,
    (line, owner, by): (&str, bool, &str),
) -> Result<(String, &'static str)> {
    let settings = match services.install.group(group) {
        Ok(settings) => settings,
        Err(e) => return Ok((text::settings_unusable(Reader::of(group), &e.to_string()), "refused")),
    };
    let models = services.install.models_for(&settings);
    let shown: Vec<String> = models.iter().map(|model| names(model, &models)).collect();
    let words = Command::words_after(line);
    let order = model_order(words, &models);
    let (chosen, told) = match order {
        ModelOrder::Show => {
            let chosen = services.store.model_choice(group.clone()).await?;
            let known =
                chosen.and_then(|(provider, model)| services.install.chosen(&settings, (&provider, &model)));
            let now = names(known.as_ref().unwrap_or(&settings.model), &models);
            return Ok((text::models(&now, known.is_some(), &shown), "told"));
        }
        _ if !owner => return Ok((text::may_not_choose_model(), "refused")),
        ModelOrder::Unknown => return Ok((text::no_such_model(words, &shown), "refused")),
        ModelOrder::OfFile => (None, text::model_of_file(&names(&settings.model, &models))),
        ModelOrder::Choose(model) => {
            let told = text::model_chosen(&names(model, &models));
            (Some((model.provider.clone(), model.model.clone())), told)
        }
    };
    services.store.choose_model(group.clone(), chosen, by.to_owned(), services.clock.wall()).await?;
    failpoint!("supervisor.model.chosen");
    // The box that is up keeps its model. Nobody waits for the answer to this.
    let (answer, _) = oneshot::channel();
    let _ = own.send(News::Renew(RenewalOrder { group: group.clone(), answer }));
    Ok((told, "chosen"))
}

/// What the group's model calls have used.
pub(super) async fn usage(services: &Services, group: &GroupName) -> Result<(String, &'static str)> {
    let zone = services.install.group(group).map_or_else(|_| services.install.file.zone.clone(), |g| g.zone);
    let now = services.clock.wall();
    let since = [0, 6, 29].map(|days| now.day_before(days, &zone));
    let rows = services.store.usage_since(group.clone(), since[2].clone()).await?;
    Ok((text::usage(&facts(group, &since, &rows)), "told"))
}

fn facts(group: &GroupName, since: &[String; 3], rows: &[UsageOfDay]) -> UsageFacts {
    let mut facts = UsageFacts { group: group.to_string(), ..UsageFacts::default() };
    let mut senders: BTreeMap<&str, (String, Used)> = BTreeMap::new();
    for row in rows {
        for (from, used) in since.iter().zip(&mut facts.times) {
            if row.day >= *from {
                add(used, row);
            }
        }
        let (name, used) = senders.entry(&row.sender).or_default();
        name.clone_from(&row.sender_name);
        add(used, row);
        if row.unpriced > 0 && !facts.unpriced.contains(&row.model) {
            facts.unpriced.push(row.model.clone());
        }
    }
    facts.senders = senders.into_values().collect();
    facts.senders.sort_by_key(|(_, used)| std::cmp::Reverse((used.micros, used.input)));
    facts
}

fn add(used: &mut Used, row: &UsageOfDay) {
    used.calls += row.calls;
    used.input += row.input;
    used.output += row.output;
    used.micros += row.micros;
    used.unpriced += row.unpriced;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_counts_in_each_time_that_holds_it() {
        let row = |day: &str, sender: &str, micros, unpriced| UsageOfDay {
            day: day.into(),
            model: if unpriced > 0 { "local".into() } else { "m".into() },
            sender: sender.into(),
            sender_name: format!("name of {sender}"),
            calls: 1,
            input: 10,
            output: 1,
            micros,
            unpriced,
        };
        let since = ["2026-11-30", "2026-11-24", "2026-11-01"].map(str::to_owned);
        let rows = [
            row("2026-11-30", "a", 5, 0),
            row("2026-11-24", "b", 9, 0),
            row("2026-11-02", "a", 0, 1),
            row("2026-11-01", "a", 7, 0),
        ];
        let told = facts(&GroupName::main(), &since, &rows);
        assert_eq!(told.times.clone().map(|used| used.calls), [1, 2, 4]);
        assert_eq!(told.times.clone().map(|used| used.micros), [5, 14, 21]);
        let senders: Vec<_> = told.senders.iter().map(|(name, used)| (name.as_str(), used.micros)).collect();
        assert_eq!(senders, [("name of a", 12), ("name of b", 9)]);
        assert_eq!(told.unpriced, ["local"]);
    }
}
