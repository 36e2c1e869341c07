//! Writes letters to the host, numbered from 1 in each run, each with the acknowledgement of that moment.
//!
//! It must never write two letters with the same id and different content: a repeat after a crash has to equal the
//! first.

use std::collections::{BTreeSet, HashSet};
use std::path::PathBuf;
use std::time::Duration;

use ipc_schema::letter_writer::{LetterDir, WriteError};
use ipc_schema::letters::FromAgent;
use ipc_schema::letters::from_agent::{Draft, Status};
use ipc_schema::{FromAgentLetter, LetterId, RunId, TurnId, escaped};

use crate::fatal::Fatal;
use crate::local_time;

/// Tries for one letter, one second apart. A full directory empties as the host reads; after this time it will not.
const WRITE_TRIES: u32 = 60;

/// Bytes of text in one letter, counted as JSON writes them. The rest of the 256 KiB is for the envelope.
const TEXT_MAX_BYTES: usize = 200 * 1024;

#[derive(Debug)]
pub struct Outbox {
    dir: LetterDir,
    run: RunId,
    written: u64,
    acknowledged: Acknowledged,
    /// Ids that the host has: consumed in an earlier run or written in this one.
    said: HashSet<LetterId>,
    asked: HashSet<LetterId>,
}

impl Outbox {
    /// Opens the directory for the run `run`.
    ///
    /// # Errors
    /// [`Fatal::OutboxDir`].
    pub fn open(path: PathBuf, run: RunId) -> Result<Self, Fatal> {
        let dir = LetterDir::open(&path).map_err(|source| Fatal::OutboxDir { path, source })?;
        Ok(Self {
            dir,
            run,
            written: 0,
            acknowledged: Acknowledged::default(),
            said: HashSet::new(),
            asked: HashSet::new(),
        })
    }

    /// Marks letter `n` of the host as handled: the transcript holds it, or it has nothing to keep. Later letters
    /// acknowledge it.
    pub fn acknowledge(&mut self, n: u64) {
        self.acknowledged.add(n);
    }

    /// The host consumed this letter in an earlier run, so it is not written again.
    pub fn consumed(&mut self, id: LetterId) {
        self.said.insert(id);
    }

    /// Writes a letter that is derived from a transcript entry, unless the host has it already.
    ///
    /// # Errors
    /// As [`Outbox::write`].
    pub async fn say(&mut self, turn: TurnId, id: LetterId, body: FromAgent) -> Result<(), Fatal> {
        if self.said.contains(&id) {
            return Ok(());
        }
        self.write(Some(turn), id, body).await
    }

    /// Writes a request, once in this run. An earlier run may have asked already: the host answers a repeat with the
    /// stored verdict.
    ///
    /// # Errors
    /// As [`Outbox::write`].
    pub async fn ask(&mut self, turn: TurnId, id: LetterId, body: FromAgent) -> Result<(), Fatal> {
        if self.asked.insert(id.clone()) { self.write(Some(turn), id, body).await } else { Ok(()) }
    }

    /// Writes `ready` or `failed`.
    ///
    /// # Errors
    /// As [`Outbox::write`].
    pub async fn announce(&mut self, body: FromAgent) -> Result<(), Fatal> {
        self.write(None, LetterId::of_run(self.written + 1), body).await
    }

    /// Writes a letter that the next of its kind replaces. A failure is only logged.
    pub fn write_transient(&mut self, turn: Option<TurnId>, body: Transient) {
        let body = match body {
            Transient::Draft(text) => FromAgent::Draft(Draft { text: fit_to_letter(&text) }),
            Transient::Status(status) => FromAgent::Status(status),
        };
        let kind = body.kind();
        if let Err(error) = self.put(turn, LetterId::of_run(self.written + 1), body) {
            tracing::warn!(%error, kind, "cannot write a status or draft letter; skipping it");
        }
    }

    async fn write(&mut self, turn: Option<TurnId>, id: LetterId, body: FromAgent) -> Result<(), Fatal> {
        for _ in 1..WRITE_TRIES {
            match self.put(turn, id.clone(), body.clone()) {
                Err(Fatal::Outbox(WriteError::Io { name, source })) => {
                    tracing::warn!(name, %source, "cannot write the letter yet; retrying");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
                other => return other,
            }
        }
        self.put(turn, id, body)
    }

    fn put(&mut self, turn: Option<TurnId>, id: LetterId, body: FromAgent) -> Result<(), Fatal> {
        let letter = FromAgentLetter {
            id: id.clone(),
            run: self.run.clone(),
            turn,
            n: self.written + 1,
            ack: self.acknowledged.all_through,
            at: local_time::now_rfc3339(),
            body,
        };
        let bytes = letter.to_bytes().map_err(Fatal::OwnLetter)?;
        failpoint!("runner.letter.before", |source| Fatal::Outbox(WriteError::Io {
            name: letter.file_name(),
            source
        }));
        self.dir.put(&letter.file_name(), &bytes)?;
        failpoint!("runner.letter.after");
        self.written += 1;
        self.said.insert(id);
        Ok(())
    }
}

#[derive(Debug, Clone, PartialEq)]
pub enum Transient {
    Draft(String),
    Status(Status),
}

/// The numbers of handled letters: all up to one number, and some after it.
#[derive(Debug, Default)]
struct Acknowledged {
    all_through: u64,
    after: BTreeSet<u64>,
}

impl Acknowledged {
    fn add(&mut self, n: u64) {
        if n > self.all_through {
            self.after.insert(n);
        }
        while self.after.remove(&(self.all_through + 1)) {
            self.all_through += 1;
        }
    }
}

/// A text as a letter can carry it: without NUL, which the protocol refuses, and cut at the size limit. The result
/// depends on the text alone, so a repeated letter equals the first.
pub fn fit_to_letter(text: &str) -> String {
    let text = text.replace('\0', "");
    let kept = escaped::beginning(&text, TEXT_MAX_BYTES);
    if kept.len() == text.len() { text } else { format!("{kept}\n\n… (cut: too long for one letter)") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests_support::host::Host;
    use ipc_schema::letters::from_agent::{Activity, Message};
    use proptest::prelude::*;

    fn message(text: &str) -> FromAgent {
        FromAgent::Message(Message { text: fit_to_letter(text) })
    }

    #[tokio::test]
    async fn numbers_grow_by_one_and_carry_the_ack_of_their_moment() {
        let host = Host::new();
        let mut outbox = Outbox::open(host.paths().ipc_from_agent(), host.run.clone()).unwrap();
        let turn = TurnId(4);
        outbox.acknowledge(1);
        outbox.acknowledge(3);
        outbox.say(turn, LetterId::of_block(turn, 2, 0), message("a")).await.unwrap();
        outbox.acknowledge(2);
        let idle = Status { state: Activity::Idle, tool: None, detail: None, deadline_s: None };
        outbox.write_transient(None, Transient::Status(idle));
        let letters = host.letters();
        assert_eq!(letters.iter().map(|l| (l.n, l.ack)).collect::<Vec<_>>(), [(1, 1), (2, 3)]);
        assert_eq!(letters[1].id, LetterId::of_run(2));
    }

    #[tokio::test]
    async fn what_the_host_has_consumed_is_not_said_again() {
        let host = Host::new();
        let mut outbox = Outbox::open(host.paths().ipc_from_agent(), host.run.clone()).unwrap();
        let id = |block| LetterId::of_block(TurnId(4), 2, block);
        outbox.consumed(id(0));
        for block in [0, 1, 1] {
            outbox.say(TurnId(4), id(block), message("a")).await.unwrap();
        }
        assert_eq!(host.letters().iter().map(|l| l.id.clone()).collect::<Vec<_>>(), [id(1)]);
    }

    #[tokio::test]
    async fn a_text_that_is_too_long_is_cut_and_still_taken() {
        let host = Host::new();
        let mut outbox = Outbox::open(host.paths().ipc_from_agent(), host.run.clone()).unwrap();
        let id = LetterId::of_block(TurnId(4), 2, 0);
        outbox.say(TurnId(4), id, message(&"\u{1}".repeat(300_000))).await.unwrap();
        assert!(matches!(&host.letters()[0].body, FromAgent::Message(m) if m.text.contains("cut")));
    }

    proptest! {
        #[test]
        fn every_fitted_text_is_a_valid_letter(text in "(\\PC|[\u{0}-\u{1f}\"\\\\]){0,300}") {
            let letter = FromAgentLetter {
                id: LetterId::of_block(TurnId(4), 2, 0),
                run: Host::RUN.parse().unwrap(),
                turn: Some(TurnId(4)),
                n: 1,
                ack: 0,
                at: local_time::now_rfc3339(),
                body: message(&text),
            };
            let read = FromAgentLetter::parse(&letter.to_bytes().unwrap()).unwrap();
            prop_assert_eq!(read.body, message(&text));
        }

        #[test]
        fn the_ack_is_the_longest_settled_row(order in Just((1u64..=12).collect::<Vec<_>>()).prop_shuffle(), take in 0usize..=12) {
            let mut settled = Acknowledged::default();
            let chosen = &order[..take];
            for n in chosen { settled.add(*n); }
            let expected = (1..=12).take_while(|n| chosen.contains(n)).count() as u64;
            prop_assert_eq!(settled.all_through, expected);
        }
    }
}
