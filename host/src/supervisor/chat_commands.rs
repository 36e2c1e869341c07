//! Handles commands that a person gives in a chat. A command is a row with an outcome, and the host performs it once.

use std::fmt::Display;
use std::sync::Arc;

use tokio::sync::mpsc::UnboundedSender;

use super::{Supervisor, model_and_usage, spawn_task, task_commands};
use crate::dispatch::{Event, LaneState, Settings};
use crate::domain::message::{Command, Role};
use crate::domain::outbound::OutgoingText;
use crate::domain::{GroupName, Lane};
use crate::intake::News;
use crate::policy::admission;
use crate::policy::backoff::STORE_AGAIN;
use crate::policy::delivery_notices::HeldCommand;
use crate::services::Services;
use crate::store::{AdmissionOrder, AnswerTaken, CommandRow, StoreError, Stranger};
use crate::text::{self, Reader, StatusFacts};

impl Supervisor {
    /// Starts a command: returns its event for dispatch, and lets a worker answer it.
    pub(super) fn command(&mut self, row: CommandRow) -> Option<Event> {
        let lane = Lane::conversation(row.group.clone());
        let state = self.dispatch.lanes().find(|(l, _)| **l == lane).map(|(_, state)| state.clone());
        let stops_tasks = row.command == Command::Stop && self.stop_tasks(&row);
        match row.command {
            Command::Stop => {
                let order = Some(row.seq);
                match state {
                    None | Some(LaneState::Listening { .. }) => {
                        match stops_tasks {
                            true => self.answer(row, text::stopping(), "stopping"),
                            false => self.answer(row, text::nothing_to_stop(), "nothing to stop"),
                        }
                        None
                    }
                    // Only the store knows whether a turn waits for the next box.
                    Some(LaneState::Closing { .. }) => {
                        self.stop_if_meant(row, lane);
                        None
                    }
                    Some(_) => {
                        self.answer(row, text::stopping(), "stopping");
                        Some(Event::Stop { lane, order })
                    }
                }
            }
            Command::New => {
                // The store began the new session and queued the answer. Only the box of the old session is left to
                // handle.
                self.services.outbox_signal.notify();
                Some(Event::Renew { lane })
            }
            Command::Status => {
                self.status(row, state.map_or("idle", |s| s.word()));
                None
            }
            // The runner carries these two out, so admission never makes a command of them.
            Command::Help | Command::Compact | Command::Context => {
                let persona = self
                    .services
                    .install
                    .group(&row.group)
                    .map_or_else(|_| "The agent".into(), |g| g.persona);
                let told = text::help(&persona, row.group.is_main());
                self.answer(row, told, "told");
                None
            }
            Command::Answer => {
                self.take_answer(row);
                None
            }
            Command::Tasks => {
                let services = Arc::clone(&self.services);
                spawn_task(&self.services, format!("the order {}", row.seq), move || {
                    change_tasks(Arc::clone(&services), row.clone())
                });
                None
            }
            Command::Model | Command::Usage => {
                let (services, own) = (Arc::clone(&self.services), self.own.clone());
                spawn_task(&self.services, format!("the order {}", row.seq), move || {
                    model_or_usage(Arc::clone(&services), own.clone(), row.clone())
                });
                None
            }
            Command::Admit | Command::Refuse => {
                self.decide_about_chat(row);
                None
            }
            Command::Resend => {
                self.resolve_held(row, HeldCommand::Resend);
                None
            }
            Command::Drop => {
                self.resolve_held(row, HeldCommand::Drop);
                None
            }
        }
    }

    /// Stops the isolated tasks of the group that work. Returns whether there is one.
    fn stop_tasks(&self, row: &CommandRow) -> bool {
        let works = |state: &LaneState| !matches!(state, LaneState::Listening { .. });
        let of_group = |lane: &Lane| lane.group == row.group && lane.task_id().is_some();
        let mut any = false;
        for (lane, _) in self.dispatch.lanes().filter(|(lane, state)| of_group(lane) && works(state)) {
            any = true;
            let _ = self.own.send(News::Stop(lane.clone(), row.seq));
        }
        any
    }

    fn answer(&self, row: CommandRow, text: String, outcome: &'static str) {
        let services = Arc::clone(&self.services);
        spawn_task(&self.services, format!("the answer to {}", row.seq), move || {
            finish(Arc::clone(&services), row.clone(), text.clone(), outcome.to_owned())
        });
    }

    fn stop_if_meant(&self, row: CommandRow, lane: Lane) {
        let (services, own) = (Arc::clone(&self.services), self.own.clone());
        spawn_task(&self.services, format!("the answer to {}", row.seq), move || {
            stop_if_meant(Arc::clone(&services), own.clone(), row.clone(), lane.clone())
        });
    }

    fn take_answer(&self, row: CommandRow) {
        let (services, own) = (Arc::clone(&self.services), self.own.clone());
        spawn_task(&self.services, format!("the answer {}", row.seq), move || {
            take_answer(Arc::clone(&services), own.clone(), row.clone())
        });
    }

    fn decide_about_chat(&self, row: CommandRow) {
        let (services, own) = (Arc::clone(&self.services), self.own.clone());
        spawn_task(&self.services, format!("the admission {}", row.seq), move || {
            decide_about_chat(Arc::clone(&services), own.clone(), row.clone())
        });
    }

    fn resolve_held(&self, row: CommandRow, command: HeldCommand) {
        let services = Arc::clone(&self.services);
        spawn_task(&self.services, format!("the order {}", row.seq), move || {
            resolve_held(Arc::clone(&services), row.clone(), command)
        });
    }

    fn status(&self, row: CommandRow, lane: &'static str) {
        let (services, load, settings) = (Arc::clone(&self.services), self.dispatch.load(), self.settings);
        spawn_task(&self.services, format!("the answer to {}", row.seq), move || {
            status(Arc::clone(&services), row.clone(), lane, load, settings)
        });
    }
}

async fn stop_if_meant(services: Arc<Services>, own: UnboundedSender<News>, row: CommandRow, lane: Lane) {
    let meant = insist(row.seq, || services.store.is_meant(lane.clone(), row.seq)).await;
    let (text, outcome) = match meant {
        Some(false) => (text::nothing_to_stop(), "nothing to stop"),
        Some(true) | None => {
            let _ = own.send(News::Stop(lane, row.seq));
            (text::stopping(), "stopping")
        }
    };
    finish(services, row, text, outcome.to_owned()).await;
}

async fn change_tasks(services: Arc<Services>, row: CommandRow) {
    let stored = insist(row.seq, || services.store.order_text(row.seq)).await.flatten();
    let Some((line, _, _, at)) = stored else { return };
    let work = || task_commands::perform(&services, &row.group, &line, at);
    if let Some((told, outcome)) = insist(row.seq, work).await {
        services.tasks_signal.notify();
        finish(services, row, told, outcome.to_owned()).await;
    }
}

async fn model_or_usage(services: Arc<Services>, own: UnboundedSender<News>, row: CommandRow) {
    let stored = insist(row.seq, || services.store.order_text(row.seq)).await.flatten();
    let Some((line, owner, by, _)) = stored else { return };
    let done = match row.command {
        Command::Usage => insist(row.seq, || model_and_usage::usage(&services, &row.group)).await,
        _ => {
            let order = (line.as_str(), owner, by.as_str());
            insist(row.seq, || model_and_usage::choose_model(&services, &own, &row.group, order)).await
        }
    };
    if let Some((told, outcome)) = done {
        finish(services, row, told, outcome.to_owned()).await;
    }
}

async fn take_answer(services: Arc<Services>, own: UnboundedSender<News>, row: CommandRow) {
    let answered = insist(row.seq, || services.store.answer(row.seq, services.clock.wall())).await;
    let news = match answered {
        Some(AnswerTaken::GoesOn(lane)) => Some(News::Answered(lane)),
        Some(AnswerTaken::Late(accepted)) => News::of(accepted),
        Some(AnswerTaken::Unknown) => {
            return finish(services, row, text::no_such_question(), "no such question".to_owned()).await;
        }
        Some(AnswerTaken::OwnersOnly) => {
            return finish(services, row, text::owners_decide(), "refused".to_owned()).await;
        }
        Some(AnswerTaken::Over) => {
            return finish(services, row, text::permission_is_over(), "too late".to_owned()).await;
        }
        Some(AnswerTaken::Before) => return tell_again(services, own, row).await,
        None => None,
    };
    if let Some(news) = news {
        let _ = own.send(news);
    }
}

/// This worker panicked after it had stored an answer. Every turn of the group that does not wait for a person goes on.
async fn tell_again(services: Arc<Services>, own: UnboundedSender<News>, row: CommandRow) {
    let open = insist(row.seq, || services.store.open_turns()).await.unwrap_or_default();
    let waiting = insist(row.seq, || services.store.suspended()).await.unwrap_or_default();
    let lanes = open.into_iter().map(|turn| turn.lane).filter(|lane| lane.group == row.group);
    for lane in lanes.filter(|lane| waiting.iter().all(|still| still.lane != *lane)) {
        let _ = own.send(News::Answered(lane));
    }
}

/// Carries out `/admit CODE [GROUP]` or `/refuse CODE`.
async fn decide_about_chat(services: Arc<Services>, own: UnboundedSender<News>, row: CommandRow) {
    let order = insist(row.seq, || services.store.order_text(row.seq)).await.flatten();
    let Some((line, owner, sender, _)) = order else { return };
    let waiting = insist(row.seq, || services.store.strangers()).await.unwrap_or_default();
    let codes: Vec<_> = waiting.iter().map(|s| (s.code.clone(), s.title.clone())).collect();
    let named = admission::waiting_chat(&line, owner && row.group.is_main(), &codes);
    let named = match named {
        Ok(named) => named.clone(),
        Err(told) => return finish(services, row, told, "refused".to_owned()).await,
    };
    if row.command == Command::Refuse {
        return refuse(services, row, named.0, sender).await;
    }
    let mut known = services.install.group_names();
    // A new group must not begin with the files of one that was removed.
    let were = insist(row.seq, || services.store.sessions()).await.unwrap_or_default();
    known.extend(were.into_iter().map(|(group, _)| group));
    match admission::group_for(&line, &named, &known) {
        Ok(group) => {
            if let Some(asked) = waiting.into_iter().find(|s| s.code == named.0) {
                admit(services, own, row, (group, sender), asked).await;
            }
        }
        Err(told) => finish(services, row, told, "refused".to_owned()).await,
    }
}

async fn refuse(services: Arc<Services>, row: CommandRow, code: String, by: String) {
    let refuse = || services.store.refuse_code(code.clone(), by.clone(), services.clock.wall());
    let (told, outcome) = match insist(row.seq, refuse).await.flatten() {
        Some(chat) => (
            text::chat_refused(chat.as_str(), admission::REFUSED_FOR.as_secs() / 86_400),
            format!("refused {chat}"),
        ),
        None => (text::nobody_asks(&code), "no such chat".to_owned()),
    };
    finish(services, row, told, outcome).await;
}

async fn admit(
    services: Arc<Services>,
    own: UnboundedSender<News>,
    row: CommandRow,
    (group, sender): (GroupName, String),
    asked: Stranger,
) {
    if let Err(e) = services.install.add_group(&group) {
        return finish(services, row, text::not_admitted(&e.to_string()), "failed".to_owned()).await;
    }
    let mut owners = services.install.owners.clone();
    owners.extend(insist(row.seq, || services.store.owners()).await.unwrap_or_default());
    let (code, chat) = (asked.code.clone(), asked.chat.clone());
    // A mistake in the group's file is told when the agent should answer the message.
    let settings =
        services.install.group(&group).unwrap_or_else(|_| services.install.default_group(group.clone()));
    let first = asked.first_message().and_then(|asked| admission::first_message(asked, &settings, &owners));
    let answers = first.as_ref().is_some_and(|first| first.role == Role::Wake);
    let told = answer_to(&row, text::admitted(&chat, group.as_str(), answers));
    let order = AdmissionOrder { order: row.seq, code: code.clone(), group, by: sender, first, told };
    let work = || services.store.admit_and_answer(order.clone(), services.clock.wall());
    match insist(row.seq, work).await {
        Some(Some(first)) => {
            services.outbox_signal.notify();
            if let Some(news) = first.and_then(News::of) {
                let _ = own.send(news);
            }
        }
        Some(None) => finish(services, row, text::nobody_asks(&code), "no such chat".to_owned()).await,
        None => {}
    }
}

async fn resolve_held(services: Arc<Services>, row: CommandRow, command: HeldCommand) {
    let resolve = || {
        let (group, chat) = (row.group.clone(), row.chat.clone());
        services.store.resolve_held(row.seq, group, chat, command, services.clock.wall())
    };
    if insist(row.seq, resolve).await.is_some() {
        services.outbox_signal.notify();
    }
}

async fn status(
    services: Arc<Services>,
    row: CommandRow,
    lane: &'static str,
    load: (usize, usize),
    settings: Settings,
) {
    let waiting = services.store.count_waiting(&row.group).await.unwrap_or_default();
    let text = match services.group_now(&row.group).await {
        Ok(group) => text::status(&StatusFacts {
            group: group.name.to_string(),
            lane,
            waiting,
            working: (load.0, settings.working),
            boxes: (load.1, settings.boxes),
            model: format!("{} at {}", group.model.model, group.model.provider),
            image: group.image,
            up: services.clock.now().mono,
        }),
        Err(e) => text::settings_unusable(Reader::of(&row.group), &e.to_string()),
    };
    finish(services, row, text, "told".to_owned()).await;
}

/// Stores the answer before the outcome. A crash in between repeats the command, and its answer has the same key.
async fn finish(services: Arc<Services>, row: CommandRow, text: String, outcome: String) {
    let outgoing = answer_to(&row, text);
    let say = || services.store.say(None, outgoing.clone(), services.clock.wall());
    if insist(row.seq, say).await.is_none() {
        return;
    }
    services.outbox_signal.notify();
    failpoint!("supervisor.command.answered");
    // If the outcome is missing, the next host performs the command again.
    let _ = insist(row.seq, || services.store.command_done(row.seq, outcome.clone())).await;
}

fn answer_to(row: &CommandRow, text: String) -> OutgoingText {
    let word = format!("{}:{}", row.command.word(), row.seq);
    OutgoingText { answers: Some(row.seq), ..OutgoingText::notice(&row.chat, &word, text) }
}

/// Retries until the store takes it, because nobody else would retry before the next start. Returns `None` if a retry
/// cannot help: the host ends, or a row is invalid.
pub(super) async fn insist<T, F>(what: impl Display, mut work: impl FnMut() -> F) -> Option<T>
where
    F: Future<Output = crate::store::Result<T>>,
{
    loop {
        match work().await {
            Ok(done) => return Some(done),
            Err(e @ (StoreError::Closed | StoreError::Row { .. } | StoreError::Rule(_))) => {
                tracing::error!(code = e.code(), "{what} is not carried out: {e}");
                return None;
            }
            Err(e) => tracing::error!(code = e.code(), "{what} waits for the store: {e}"),
        }
        tokio::time::sleep(STORE_AGAIN).await;
    }
}

/// Returns the commands that had no outcome when the host died. If the open turn began after a `/stop`, the `/stop`
/// came too late for the turn that it meant, and the open turn goes on.
///
/// # Errors
/// The store cannot be read.
pub async fn unfinished(services: &Arc<Services>) -> crate::store::Result<Vec<News>> {
    let mut news = Vec::new();
    for row in services.store.open_commands().await? {
        if row.command == Command::New {
            services.store.new_session(row.clone(), services.clock.wall()).await?;
        }
        if row.command == Command::Stop && !is_meant(services, &row).await? {
            let (shared, outcome) = (Arc::clone(services), "nothing to stop");
            spawn_task(services, format!("the answer to {}", row.seq), move || {
                finish(Arc::clone(&shared), row.clone(), text::nothing_to_stop(), outcome.to_owned())
            });
        } else {
            news.push(News::Command(row));
        }
    }
    Ok(news)
}

/// Whether a `/stop` means an open turn of the group.
async fn is_meant(services: &Services, row: &CommandRow) -> crate::store::Result<bool> {
    let open = services.store.open_turns().await?;
    for lane in open.into_iter().map(|turn| turn.lane).filter(|lane| lane.group == row.group) {
        if services.store.is_meant(lane, row.seq).await? {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test]
    async fn an_order_waits_for_the_store_and_for_nothing_else() {
        let tries = AtomicU32::new(0);
        let busy_once = || async {
            match tries.fetch_add(1, Ordering::Relaxed) {
                0 => Err(StoreError::Busy("a backup program".into())),
                _ => Ok("carried out"),
            }
        };
        assert_eq!(insist("m-1", busy_once).await, Some("carried out"));
        let closed = || async { Err::<(), _>(StoreError::Closed) };
        assert_eq!(insist("m-1", closed).await, None, "the host ends");
    }
}
