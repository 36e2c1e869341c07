//! Letters to the host: numbered from 1 in each run, each with the acknowledgement of its moment.

use std::collections::{BTreeSet, HashSet};
use std::path::PathBuf;
use std::time::Duration;

use ipc_schema::letter_writer::{LetterDir, WriteError};
use ipc_schema::letters::FromAgent;
use ipc_schema::letters::from_agent::{Draft, Status};
use ipc_schema::{FromAgentLetter, LetterId, RunId, TurnId};

use crate::error::Fatal;
use crate::local_time;

/// A full directory empties as the host reads on. After this many tries, one second apart, it does not.
const WRITE_TRIES: u32 = 60;

/// Text in one letter, counted as JSON writes it; leaves room for the envelope in 256 KiB.
const TEXT_MAX_BYTES: usize = 200 * 1024;

/// The directory of our letters.
#[derive(Debug)]
pub struct Outbox {
    dir: LetterDir,
    run: RunId,
    written: u64,
    settled: Settled,
    /// Ids that the host holds: consumed in an earlier run, or written in this one.
    said: HashSet<LetterId>,
    /// Requests written in this run.
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
            settled: Settled::default(),
            said: HashSet::new(),
            asked: HashSet::new(),
        })
    }

    /// Letter `n` of the host is in the transcript, or has nothing to put there. Later letters acknowledge it.
    pub fn settle(&mut self, n: u64) {
        self.settled.add(n);
    }

    /// The host has consumed this letter in an earlier run.
    pub fn consumed(&mut self, id: LetterId) {
        self.said.insert(id);
    }

    /// Writes a letter that a transcript entry stands for, unless the host holds it already.
    ///
    /// # Errors
    /// As [`Outbox::write`].
    pub async fn say(&mut self, turn: TurnId, id: LetterId, body: FromAgent) -> Result<(), Fatal> {
        if self.said.contains(&id) {
            return Ok(());
        }
        self.write(Some(turn), id, body).await
    }

    /// Writes a request, once in this run. An earlier run may have asked already: the host answers a repeat with
    /// the verdict that stands.
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

    /// Writes a letter that the next of its kind replaces. One that cannot be written is not missed.
    pub fn mention(&mut self, turn: Option<TurnId>, body: Mention) {
        let body = match body {
            Mention::Draft(text) => FromAgent::Draft(Draft { text: fit(&text) }),
            Mention::Status(status) => FromAgent::Status(status),
        };
        let kind = body.kind();
        if let Err(error) = self.put(turn, LetterId::of_run(self.written + 1), body) {
            tracing::warn!(%error, kind, "left out");
        }
    }

    async fn write(&mut self, turn: Option<TurnId>, id: LetterId, body: FromAgent) -> Result<(), Fatal> {
        for _ in 1..WRITE_TRIES {
            match self.put(turn, id.clone(), body.clone()) {
                Err(Fatal::Outbox(WriteError::Io { name, source })) => {
                    tracing::warn!(name, %source, "the letter waits for room");
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
            ack: self.settled.all_through,
            at: local_time::stamp(),
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

/// A letter that a newer one replaces.
#[derive(Debug, Clone, PartialEq)]
pub enum Mention {
    /// The reply so far.
    Draft(String),
    /// What the runner does.
    Status(Status),
}

/// Which letters of the host are settled: all through one number, and some after it.
#[derive(Debug, Default)]
struct Settled {
    all_through: u64,
    after: BTreeSet<u64>,
}

impl Settled {
    fn add(&mut self, n: u64) {
        if n > self.all_through {
            self.after.insert(n);
        }
        while self.after.remove(&(self.all_through + 1)) {
            self.all_through += 1;
        }
    }
}

/// A text as a letter carries it: without NUL, which the wall refuses, and cut where the letter would be too big.
/// The same text always fits the same way, so a repeated letter equals the first.
pub fn fit(text: &str) -> String {
    let mut kept = String::with_capacity(text.len().min(TEXT_MAX_BYTES));
    let mut bytes = 0;
    for char in text.chars().filter(|c| *c != '\0') {
        bytes += match char {
            '"' | '\\' | '\n' | '\r' | '\t' => 2,
            c if c < ' ' => 6,
            c => c.len_utf8(),
        };
        if bytes > TEXT_MAX_BYTES {
            kept.push_str("\n\n… (cut: too long for one letter)");
            break;
        }
        kept.push(char);
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests_support::host::Host;
    use ipc_schema::letters::from_agent::{Activity, Message};
    use proptest::prelude::*;

    fn message(text: &str) -> FromAgent {
        FromAgent::Message(Message { text: fit(text) })
    }

    #[tokio::test]
    async fn numbers_grow_by_one_and_carry_the_ack_of_their_moment() {
        let host = Host::new();
        let mut outbox = Outbox::open(host.paths().ipc_from_agent(), host.run.clone()).unwrap();
        let turn = TurnId(4);
        outbox.settle(1);
        outbox.settle(3);
        outbox.say(turn, LetterId::of_block(turn, 2, 0), message("a")).await.unwrap();
        outbox.settle(2);
        let idle = Status { state: Activity::Idle, tool: None, detail: None, deadline_s: None };
        outbox.mention(None, Mention::Status(idle));
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
                at: local_time::stamp(),
                body: message(&text),
            };
            let read = FromAgentLetter::parse(&letter.to_bytes().unwrap()).unwrap();
            prop_assert_eq!(read.body, message(&text));
        }

        #[test]
        fn the_ack_is_the_longest_settled_row(order in Just((1u64..=12).collect::<Vec<_>>()).prop_shuffle(), take in 0usize..=12) {
            let mut settled = Settled::default();
            let chosen = &order[..take];
            for n in chosen { settled.add(*n); }
            let expected = (1..=12).take_while(|n| chosen.contains(n)).count() as u64;
            prop_assert_eq!(settled.all_through, expected);
        }
    }
}
