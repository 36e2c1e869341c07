//! Orders that a person gives in a chat. A command is a row with an outcome, carried out once.

use std::sync::Arc;

use super::Supervisor;
use crate::dispatch::{Event, LaneState};
use crate::domain::Lane;
use crate::domain::message::Command;
use crate::domain::outbound::Saying;
use crate::intake::News;
use crate::parts::Parts;
use crate::say::{self, StatusFacts};
use crate::store::{AnswerTaken, CommandRow, Word};

impl Supervisor {
    /// Carries out a command: its event for dispatch, and its answer from a worker.
    pub(super) fn command(&mut self, row: CommandRow) -> Option<Event> {
        let lane = Lane::conversation(row.group.clone());
        let state = self.dispatch.lanes().find(|(l, _)| **l == lane).map(|(_, state)| state.clone());
        match row.command {
            Command::Stop => {
                let order = Some(row.seq);
                let busy =
                    !matches!(state, None | Some(LaneState::Listening { .. } | LaneState::Closing { .. }));
                let (text, outcome) = if busy {
                    (say::stopping(), "stopping")
                } else {
                    (say::nothing_to_stop(), "nothing to stop")
                };
                self.answer(row, text, outcome);
                busy.then_some(Event::Stop { lane, order })
            }
            Command::New => {
                self.new_session(row);
                Some(Event::Renew { lane })
            }
            Command::Status => {
                self.status(row, state.map_or("idle", |s| s.word()));
                None
            }
            Command::Help => {
                let persona =
                    self.parts.install.group(&row.group).map_or_else(|_| "The agent".into(), |g| g.persona);
                self.answer(row, say::help(&persona), "told");
                None
            }
            Command::Answer => {
                self.take_answer(row);
                None
            }
            Command::Resend => {
                self.resolve_held(row, Word::Resend);
                None
            }
            Command::Drop => {
                self.resolve_held(row, Word::Drop);
                None
            }
        }
    }

    fn answer(&self, row: CommandRow, text: String, outcome: &'static str) {
        let parts = Arc::clone(&self.parts);
        tokio::spawn(async move { finish(&parts, row, text, outcome.to_owned()).await });
    }

    fn take_answer(&self, row: CommandRow) {
        let (parts, own) = (Arc::clone(&self.parts), self.own.clone());
        tokio::spawn(async move {
            let news = match parts.store.answer(row.seq, parts.clock.wall()).await {
                Ok(AnswerTaken::GoesOn(lane)) => News::Answered(lane),
                Ok(AnswerTaken::Late(accepted)) => match News::of(accepted) {
                    Some(news) => news,
                    None => return,
                },
                Ok(AnswerTaken::Unknown) => {
                    return finish(&parts, row, say::no_such_question(), "no such question".to_owned()).await;
                }
                Ok(AnswerTaken::Before) => return,
                Err(e) => return tracing::error!(code = e.code(), "{} was not taken: {e}", row.seq),
            };
            let _ = own.send(news);
        });
    }

    fn new_session(&self, row: CommandRow) {
        let parts = Arc::clone(&self.parts);
        tokio::spawn(async move {
            match parts.store.new_session(&row.group, row.seq).await {
                Ok(None) => {}
                Ok(Some(number)) => {
                    finish(&parts, row, say::new_session(number), format!("session {number}")).await
                }
                Err(e) => tracing::error!(code = e.code(), "no new session: {e}"),
            }
        });
    }

    fn resolve_held(&self, row: CommandRow, word: Word) {
        let parts = Arc::clone(&self.parts);
        tokio::spawn(async move {
            let now = parts.clock.wall();
            match parts.store.resolve_held(row.seq, row.group, row.chat, word, now).await {
                Ok(_) => parts.bell.ring(),
                Err(e) => tracing::error!(code = e.code(), "{} was not carried out: {e}", row.seq),
            }
        });
    }

    fn status(&self, row: CommandRow, lane: &'static str) {
        let (parts, load, settings) = (Arc::clone(&self.parts), self.dispatch.load(), self.settings);
        tokio::spawn(async move {
            let waiting = parts.store.waiting(&row.group).await.unwrap_or_default();
            let text = match parts.install.group(&row.group) {
                Ok(group) => say::status(&StatusFacts {
                    group: group.name.to_string(),
                    lane,
                    waiting,
                    working: (load.0, settings.working),
                    boxes: (load.1, settings.boxes),
                    model: format!("{} at {}", group.model.model, group.model.provider),
                    image: group.image,
                    up: parts.clock.now().mono,
                }),
                Err(e) => format!("The group's settings cannot be used: {e}"),
            };
            finish(&parts, row, text, "told".to_owned()).await;
        });
    }
}

/// The answer first, then the outcome: a crash in between repeats the command, and its answer has the same key.
async fn finish(parts: &Parts, row: CommandRow, text: String, outcome: String) {
    let word = format!("{}:{}", row.command.word(), row.seq);
    let saying = Saying { answers: Some(row.seq), ..Saying::notice(&row.chat, &word, text) };
    if let Err(e) = parts.store.say(None, saying, parts.clock.wall()).await {
        tracing::error!(code = e.code(), "{} was not answered: {e}", row.seq);
        return;
    }
    parts.bell.ring();
    failpoint!("supervisor.command.answered");
    if let Err(e) = parts.store.command_done(row.seq, outcome).await {
        tracing::error!(code = e.code(), "{} has no outcome: {e}", row.seq);
    }
}

/// Commands that were stored when the host died.
///
/// # Errors
/// When the store cannot be read.
pub async fn unfinished(parts: &Parts) -> crate::store::Result<Vec<News>> {
    Ok(parts.store.open_commands().await?.into_iter().map(News::Command).collect())
}
