//! A test host: writes letters to a run and reads its letters strictly.

use std::cell::Cell;
use std::time::Duration;

use ipc_schema::letter_writer::LetterDir;
use ipc_schema::letters::to_agent::*;
use ipc_schema::letters::{FromAgent, ToAgent};
use ipc_schema::{FromAgentLetter, LetterId, MessageSeq, RunId, ToAgentLetter, TurnId, names_and_paths};

use crate::box_paths::BoxPaths;
use crate::transcript::Transcript;

pub fn begin() -> Begin {
    Begin {
        minor: 0,
        group: "family".parse().unwrap(),
        lane: "conversation".into(),
        main: false,
        session: "s".into(),
        persona: "Ada".into(),
        model: Model {
            name: "scripted".into(),
            provider: Some("test".into()),
            max_tokens: 1000,
            window: 100_000,
            no_images: false,
        },
        limits: Limits {
            model_calls: 40,
            turn_s: 900,
            command_s: 20,
            command_max_s: 60,
            output_bytes: 30_000,
            requests: 200,
            compaction_percent: 80,
        },
        tools: ToolPolicy { default: ToolVerdict::Record, rules: vec![] },
        allowed: vec![],
        files: true,
        reactions: true,
        network: "off for this group".into(),
        zone: "Europe/Berlin".into(),
        claude_md_global: None,
        claude_md_group: None,
        open: None,
        closed: vec![],
    }
}

pub fn input(messages: &[(u64, &str)]) -> Input {
    let message = |(id, text): &(u64, &str)| Message {
        id: MessageSeq(*id),
        wakes: true,
        from: Person { id: "telegram:5".into(), name: "Ann".into(), owner: false },
        at: "2026-11-21T14:03:00+01:00".into(),
        text: (*text).into(),
        forwarded_from: None,
        edited: false,
        reply_to: None,
        attachments: vec![],
        order: None,
    };
    Input {
        chat: Chat { id: "telegram:5".into(), kind: ChatKind::Direct, title: "Ann".into() },
        messages: messages.iter().map(message).collect(),
        context_omitted: 0,
        fire: None,
    }
}

/// The input of a turn that a task's fire caused.
pub fn fire(change: impl FnOnce(&mut Fire), messages: &[(u64, &str)]) -> Input {
    let mut fire = Fire {
        id: "f-12".into(),
        task: "task-3".into(),
        name: "news".into(),
        prompt: "Tell what is new.".into(),
        planned: "2026-11-21T07:30:00+01:00".into(),
        late: false,
        silent: false,
        gate: None,
        model_calls: None,
    };
    change(&mut fire);
    Input { fire: Some(fire), ..input(messages) }
}

/// The same with this gate script.
pub fn gated(script: &str, messages: &[(u64, &str)]) -> ToAgent {
    ToAgent::Input(fire(|fire| fire.gate = Some(script.into()), messages))
}

pub fn interrupt() -> ToAgent {
    ToAgent::Interrupt(Interrupt { why: InterruptWhy::Stop })
}

pub fn close() -> ToAgent {
    ToAgent::Close(Close { why: CloseWhy::Idle, reason: "quiet".into() })
}

/// One run's directories in a temporary root.
pub struct Host {
    dir: tempfile::TempDir,
    pub run: RunId,
    letters: LetterDir,
    written: Cell<u64>,
}

impl Host {
    pub const RUN: &'static str = "019ab000-0000-7000-8000-000000000001";

    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let paths = BoxPaths::below(dir.path());
        for made in [paths.ipc_to_agent(), paths.ipc_from_agent(), paths.session(), paths.workspace()] {
            std::fs::create_dir_all(made).unwrap();
        }
        let letters = LetterDir::open(&paths.ipc_to_agent()).unwrap();
        Self { dir, run: Self::RUN.parse().unwrap(), letters, written: Cell::new(0) }
    }

    /// Starts another run on the same session and workspace.
    pub fn again(self) -> Self {
        for dir in [self.paths().ipc_to_agent(), self.paths().ipc_from_agent()] {
            std::fs::remove_dir_all(&dir).unwrap();
            std::fs::create_dir(&dir).unwrap();
        }
        let letters = LetterDir::open(&self.paths().ipc_to_agent()).unwrap();
        Self { letters, written: Cell::new(0), ..self }
    }

    pub fn paths(&self) -> BoxPaths {
        BoxPaths::below(self.dir.path())
    }

    pub fn begin(&self) {
        self.begin_with(begin());
    }

    pub fn begin_with(&self, begin: Begin) {
        self.send(None, ToAgent::Begin(Box::new(begin)));
    }

    pub fn transcript(&self) -> Transcript {
        Transcript::load(self.paths().session(), "s").unwrap()
    }

    /// Writes an input of `turn`.
    pub fn says(&self, turn: TurnId, messages: &[(u64, &str)]) {
        self.send(Some(turn), ToAgent::Input(input(messages)));
    }

    pub fn send(&self, turn: Option<TurnId>, body: ToAgent) {
        self.put(self.written.get() + 1, turn, body);
    }

    /// Writes `_close`, which has no number of its own.
    pub fn close(&self) {
        self.put(self.written.get(), None, close());
    }

    pub fn put(&self, n: u64, turn: Option<TurnId>, body: ToAgent) {
        let letter = self.letter(n, turn, body);
        self.letters.put(&letter.file_name(), &letter.to_bytes().unwrap()).unwrap();
        self.written.set(self.written.get().max(n));
    }

    /// Writes any text under any file name.
    pub fn raw(&self, name: &str, text: &str) {
        self.letters.put(name, text.as_bytes()).unwrap();
    }

    pub fn letter_text(&self, n: u64, turn: Option<TurnId>, body: ToAgent) -> String {
        String::from_utf8(self.letter(n, turn, body).to_bytes().unwrap()).unwrap()
    }

    fn letter(&self, n: u64, turn: Option<TurnId>, body: ToAgent) -> ToAgentLetter {
        ToAgentLetter {
            id: LetterId::of_host(n),
            run: self.run.clone(),
            turn,
            n,
            ack: 0,
            at: "2026-11-21T14:03:00Z".into(),
            body,
        }
    }

    /// All letters of the agent so far, in order. Panics on one that the host would refuse.
    pub fn letters(&self) -> Vec<FromAgentLetter> {
        let mut letters: Vec<_> = std::fs::read_dir(self.paths().ipc_from_agent())
            .unwrap()
            .map(|entry| entry.unwrap())
            .filter(|entry| {
                let name = entry.file_name();
                matches!(
                    names_and_paths::parse_name(name.as_encoded_bytes()),
                    Ok(names_and_paths::FileName::Letter { .. })
                )
            })
            .map(|entry| {
                let letter = FromAgentLetter::parse(&std::fs::read(entry.path()).unwrap()).unwrap();
                assert_eq!(letter.file_name(), entry.file_name().to_str().unwrap());
                assert_eq!(letter.run, self.run);
                letter
            })
            .collect();
        letters.sort_by_key(|letter| letter.n);
        assert!(letters.is_sorted_by_key(|letter| letter.ack), "an ack never falls");
        letters
    }

    /// All letters but drafts and status.
    pub fn said(&self) -> Vec<FromAgentLetter> {
        let mut letters = self.letters();
        letters.retain(|letter| !matches!(letter.body, FromAgent::Draft(_) | FromAgent::Status(_)));
        letters
    }

    pub async fn until(&self, wanted: impl Fn(&FromAgentLetter) -> bool) -> FromAgentLetter {
        // Ever slower: on a paused clock half an hour of patience is one short loop.
        let mut pause = Duration::from_millis(1);
        loop {
            if let Some(letter) = self.letters().into_iter().find(|letter| wanted(letter)) {
                return letter;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(500));
        }
    }

    pub async fn done(&self, turn: TurnId) -> (FromAgentLetter, ipc_schema::letters::from_agent::TurnDone) {
        let letter = self.until(|l| l.turn == Some(turn) && matches!(l.body, FromAgent::TurnDone(_))).await;
        match &letter.body {
            FromAgent::TurnDone(done) => (letter.clone(), done.clone()),
            _ => unreachable!(),
        }
    }
}
