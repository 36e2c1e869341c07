//! Takes the letters of the box. Each letter goes through transaction 2, and then to the part of the host that waits
//! for it.

use std::ffi::OsStr;
use std::sync::Arc;
use std::time::Duration;

use ipc_schema::letters::FromAgent;
use ipc_schema::letters::from_agent::{self, Lost, Status};
use ipc_schema::{Refusal, RefusalCode, TurnId, text_sanitize};

use super::Run;
use super::states::{Life, Turn, TurnStage};
use crate::channels::Activity;
use crate::dispatch::Event;
use crate::domain::Ending;
use crate::domain::outbound::{OutgoingText, PartText, SpooledFile, Voice};
use crate::host_files;
use crate::mailbox::{Pass, ReceivedLetter, RefusedFile};
use crate::services::Draft;
use crate::spool::{Spool, SpooledCopy};
use crate::store::{StoreError, Take, Taken, TakenEffect};
use crate::text;
use crate::turns::{TurnDone, turn_done};

/// The longest silence that a status letter may announce: the longest command, and the time to end it.
pub(super) const DEADLINE_MAX: Duration = Duration::from_secs(660);
/// A reply of more parts is sent as a file: nobody reads that much in a chat.
pub(super) const MOST_PARTS: usize = 10;
const REPLY_FILE: &str = "reply.md";

impl Run {
    /// Takes one pass of letters, and returns whether there are more. Between two passes the run handles its orders,
    /// its deadlines and the box's exit, so that the host can stop a box that never stops writing.
    pub(super) async fn take_letters(&mut self) -> bool {
        // The host takes nothing more from a box that exceeded its limit; the box is about to die.
        if matches!(self.life, Life::Ending { ending: Ending::OverLimit { .. }, .. }) {
            return false;
        }
        let pass = match self.mailbox.pass() {
            Ok(pass) => pass,
            Err(e) => {
                tracing::error!(run = %self.handle.run, code = "ipc.io", "letters cannot be listed: {e}");
                return false;
            }
        };
        if let Some(what) = pass.flood {
            self.end_over_limit(Ending::OverLimit { code: RefusalCode::Flood.as_str(), what }).await;
            return false;
        }
        let more = pass.more;
        let went_on = self.take_pass(pass).await;
        if let Some(ending) = self.tally.over(&self.group.limits) {
            self.end_over_limit(ending).await;
            return false;
        }
        went_on && more
    }

    /// Ends the box because of what it wrote. Later calls change nothing.
    pub(super) async fn end_over_limit(&mut self, ending: Ending) {
        if self.life.is_ending() {
            return;
        }
        if let Ending::OverLimit { code, what } = &ending {
            tracing::warn!(run = %self.handle.run, code, "the box is ended: it {what}");
            let code = *code;
            if let Err(e) = self.services.store.count(code, 1).await {
                tracing::warn!(run = %self.handle.run, code = e.code(), "the end was not counted: {e}");
            }
            self.tell_between_turns(text::over_limit(code, what)).await;
        }
        self.kill(ending).await;
    }

    /// Tells the chat of the last turn why the box ends. If a turn is open, its own end tells the reason. Between two
    /// turns nothing else would, and the last turn left running what exceeded the limit.
    async fn tell_between_turns(&mut self, text: String) {
        let Some(Turn { chat, stage: TurnStage::Over, .. }) = &self.turn else { return };
        self.services.notice(chat, &format!("over:{}", self.handle.run), text).await;
    }

    async fn take_pass(&mut self, pass: Pass) -> bool {
        let (mut numbered, mut nameless) = (Vec::new(), Vec::new());
        for r in pass.refused {
            self.tally.wrote(r.bytes);
            match r.n {
                Some(n) => numbered.push((n, r)),
                None => nameless.push(r),
            }
        }
        self.sweep_out(&nameless).await;
        let mut refused = numbered.into_iter().peekable();
        for stamped in pass.letters {
            // Refusals are handled in number order too: a refused number makes way for the next one.
            while let Some((n, r)) = refused.next_if(|(n, _)| *n < stamped.letter.n) {
                self.pass_over(n, &r).await;
            }
            self.tally.wrote(stamped.bytes.len() as u64);
            if matches!(stamped.letter.body, FromAgent::Request(_)) {
                self.tally.asked();
            }
            if let Err(e) = self.take_one(stamped.clone()).await {
                tracing::error!(run = %self.handle.run, code = e.code(), "a letter waits, because it cannot be stored: {e}");
                self.mailbox.rewind(stamped.letter.n);
                tokio::time::sleep(Duration::from_secs(1)).await;
                return false;
            }
        }
        for (n, r) in refused {
            self.pass_over(n, &r).await;
        }
        true
    }

    async fn take_one(&mut self, stamped: ReceivedLetter) -> Result<(), StoreError> {
        let letter = &stamped.letter;
        if let (Some(turn), Some(given)) = (letter.turn, self.open_turn())
            && turn != given.id
        {
            let refusal = Refusal::new(RefusalCode::Stale, format!("{turn} is not this box's turn"));
            self.mailbox.reject(&stamped);
            let refused = RefusedFile::unread(Some(letter.n), stamped.name.into(), refusal);
            self.pass_over(letter.n, &refused).await;
            return Ok(());
        }
        if matches!(letter.body, FromAgent::Message(_) | FromAgent::TurnDone(_)) {
            self.drop_draft();
        }
        let effect = self.effect(&letter.body, letter.id.as_str()).await;
        let taken = self
            .services
            .store
            .take(Take {
                run: self.handle.run.clone(),
                n: letter.n,
                id: letter.id.clone(),
                turn: letter.turn,
                ack: letter.ack,
                sha256: stamped.sha256.clone(),
                effect,
                now: self.services.clock.wall(),
            })
            .await?;
        match &taken {
            Taken::Refused(..) | Taken::EndRefused { .. } => self.mailbox.reject(&stamped),
            // The host copies a repeated letter too, because an earlier host may have died between the transaction and
            // the copy. Nobody has checked its acknowledgement.
            Taken::Repeat => self.mailbox.keep(&stamped),
            _ => {
                self.mailbox.keep(&stamped);
                self.mailbox.prune(stamped.letter.ack);
            }
        }
        self.mailbox.done(OsStr::new(&stamped.name));
        self.follow(stamped, taken).await;
        Ok(())
    }

    /// Returns what the letter changes in the store.
    async fn effect(&self, body: &FromAgent, key: &str) -> TakenEffect {
        match body {
            FromAgent::Draft(_) | FromAgent::Status(_) | FromAgent::Failed(_) => TakenEffect::Nothing,
            FromAgent::Ready(ready) => {
                let chat = self.open_turn().map(|turn| &turn.chat);
                let told = chat.zip(ready.lost).map(|(chat, lost)| {
                    let key = format!("transcript:{}", self.handle.run);
                    OutgoingText::notice(chat, &key, text::transcript_lost(lost == Lost::All))
                });
                TakenEffect::Ready { told }
            }
            FromAgent::Message(message) => match self.reply(key, &message.text).await {
                Some(outgoing) => TakenEffect::Message { outgoing, limit: self.group.limits.messages },
                None => TakenEffect::Nothing,
            },
            FromAgent::Request(request) => TakenEffect::Request {
                kind: request.kind().to_owned(),
                body: serde_json::to_string(request).unwrap_or_default(),
                limit: self.group.limits.requests,
            },
            FromAgent::TurnDone(done) => self.turn_end(done, key).await,
        }
    }

    async fn reply(&self, key: &str, text: &str) -> Option<OutgoingText> {
        let chat = self.open_turn()?.chat.clone();
        let text = &*text::without_internal(text);
        let parts = match self.services.channels.of(&chat) {
            Some(channel) => {
                let (splitter, whole) = (Arc::clone(&channel), text.to_owned());
                // A long text takes its time, which other runs need.
                let parts = host_files::blocking(move || splitter.split(&whole)).await;
                let file = if parts.len() > MOST_PARTS && channel.takes_files() {
                    self.as_file(text, &parts).await
                } else {
                    None
                };
                file.map_or(parts, |file| vec![file])
            }
            // A channel that is off now, for example without its token, may be on tomorrow. Its text is kept unsplit.
            None => Some(text.trim().to_owned())
                .filter(|text| !text.is_empty())
                .map(PartText::from)
                .into_iter()
                .collect(),
        };
        let (voice, key) = (Voice::Reply, key.to_owned());
        (!parts.is_empty()).then_some(OutgoingText { chat, voice, key, parts, answers: None, choices: None })
    }

    /// Keeps a reply as a file with a line that says how it begins. The file is in the spool before its row is written.
    /// A host that dies in between finds the letter again and keeps the same file.
    async fn as_file(&self, text: &str, parts: &[PartText]) -> Option<PartText> {
        let spool = Spool::at(self.services.install.root.spool());
        let whole = text.to_owned();
        match host_files::blocking(move || spool.keep_text(&whole)).await {
            Ok(SpooledCopy { sha256, bytes }) => {
                let begins = parts.first().and_then(|part| part.text.lines().next()).unwrap_or_default();
                let file = SpooledFile { sha256, name: REPLY_FILE.to_owned(), bytes };
                let text = text::reply_as_file(begins, bytes);
                Some(PartText { text, markup: None, file: Some(Box::new(file)) })
            }
            Err(e) => {
                tracing::error!(run = %self.handle.run, code = "file.io", "a long reply is sent in parts: {e}");
                None
            }
        }
    }

    async fn turn_end(&self, done: &from_agent::TurnDone, key: &str) -> TakenEffect {
        let TurnDone { end, notice } = turn_done(done, self.interrupted());
        let reply = self.reply(key, &done.text).await;
        let chat = self.open_turn().map(|turn| &turn.chat);
        let notice = chat.zip(notice).map(|(chat, text)| OutgoingText::notice(chat, "end", text));
        let if_silent = chat.map(|chat| OutgoingText::notice(chat, "silent", text::nothing_said()));
        TakenEffect::TurnDone { end, texts: reply.into_iter().chain(notice).collect(), if_silent }
    }

    /// Acts on a letter after it is stored.
    async fn follow(&mut self, stamped: ReceivedLetter, taken: Taken) {
        let letter = stamped.letter;
        match taken {
            Taken::Repeat => return,
            Taken::Refused(refusal, response) => {
                self.tell_refusal(&stamped.name, &refusal);
                if let Some(response) = response {
                    self.put(&response.name, &response.bytes);
                }
                return;
            }
            Taken::EndRefused { refusal, next } => {
                self.tell_refusal(&stamped.name, &refusal);
                return self.turn_over(letter.turn, next).await;
            }
            Taken::Closed { next } => return self.turn_over(letter.turn, next).await,
            Taken::Perform => {
                if let (FromAgent::Request(request), Some(turn)) = (letter.body, letter.turn) {
                    self.perform_and_answer(turn, letter.id, request).await;
                }
                return;
            }
            Taken::Answered(response) => return self.put(&response.name, &response.bytes),
            Taken::Fresh => {}
        }
        if matches!(letter.body, FromAgent::Ready(_)) {
            self.life.make_ready();
        }
        // A letter came, so the silence timer starts again.
        self.expect_silence(Duration::ZERO);
        match letter.body {
            FromAgent::Ready(ready) => {
                tracing::info!(run = %self.handle.run, lane = %self.handle.lane, runner = ready.runner, "the box is ready");
                if ready.lost.is_some() {
                    tracing::warn!(run = %self.handle.run, code = "session.lost", "the transcript cannot be read to its end");
                    self.services.outbox_signal.notify();
                }
                self.stage("ready");
                self.handle.report(Event::Ready { run: self.handle.no });
            }
            FromAgent::Draft(draft) => {
                self.draft(text::draft_without_internal(&draft.text).into_owned()).await;
            }
            FromAgent::Status(status) => self.status(&status),
            FromAgent::Failed(failed) => {
                let why = text_sanitize::line(&format!("{}: {}", failed.code, failed.reason), 500);
                tracing::warn!(run = %self.handle.run, code = "run.failed", "the runner gave up: {why}");
                self.last_words = Some(why);
            }
            FromAgent::Message(_) => {
                self.stage("message");
                self.services.outbox_signal.notify();
            }
            FromAgent::Request(_) | FromAgent::TurnDone(_) => {}
        }
    }

    /// Tells the operator of a refused letter: in the log, and once per turn and code in `trace`.
    fn tell_refusal(&mut self, name: &str, refusal: &Refusal) {
        let code = refusal.code.as_str();
        tracing::warn!(run = %self.handle.run, code, "{name} refused: {refusal}");
        if self.turn.as_mut().is_some_and(|turn| turn.is_open() && turn.refused.insert(code)) {
            self.stage(code);
        }
    }

    async fn turn_over(&mut self, turn: Option<TurnId>, next: Option<TurnId>) {
        failpoint!("run.turn_over.before");
        self.stage("turn_done");
        if let Some(turn) = turn {
            match self.services.store.turn_messages(turn).await {
                Ok((messages, parts)) => {
                    self.show(&Activity::TurnOver {
                        turn,
                        messages,
                        run: Some(self.handle.run.clone()),
                        parts,
                    });
                }
                Err(e) => {
                    tracing::warn!(run = %self.handle.run, code = e.code(), "the end of {turn} was not shown: {e}")
                }
            }
        }
        self.end_turn();
        self.services.outbox_signal.notify();
        self.report_turn_closed(next.is_some());
    }

    fn status(&mut self, status: &Status) {
        if let Some(seconds) = status.deadline_s {
            self.expect_silence(Duration::from_secs(seconds.into()).min(DEADLINE_MAX));
        }
        if let Some(tool) = &status.tool {
            let detail = status.detail.as_deref().unwrap_or_default();
            let line = text::without_internal(detail);
            let line = text_sanitize::line(&format!("{tool} {line}"), 200);
            self.show(&Activity::Doing(line.trim_end().to_owned()));
        }
    }

    /// Shows a draft, but only in a turn with a person's message. Nobody waits for the reply of a scheduled task, and
    /// the host does not post the reply of a silent one.
    async fn draft(&mut self, text: String) {
        let Some((channel, chat)) = self.channel() else { return };
        let drafts = channel.takes_drafts(&chat).then(|| text.clone());
        channel.show(&chat, &Activity::Draft(text));
        let (Some(turn), Some(text)) = (&mut self.turn, drafts) else { return };
        if turn.drafts.is_none() {
            let messages = self.services.store.turn_messages(turn.id).await;
            turn.drafts = Some(messages.is_ok_and(|(messages, _)| !messages.is_empty()));
        }
        if turn.drafts == Some(true) {
            self.services.drafts.put(chat, Draft { turn: turn.id, text });
        }
    }

    /// Drops the draft that waits to be shown: something is about to be said in its place, or the turn ends.
    pub(super) fn drop_draft(&self) {
        if let Some(turn) = &self.turn {
            self.services.drafts.drop_of(&turn.chat, turn.id);
        }
    }

    fn show(&self, activity: &Activity) {
        if let Some((channel, chat)) = self.channel() {
            channel.show(&chat, activity);
        }
    }
}
