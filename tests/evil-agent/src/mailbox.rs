//! The box's end of the protocol. It reads and writes valid letters, and attacks can write other files with it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use ipc_schema::letter_writer::LetterDir;
use ipc_schema::letters::from_agent::{Outcome, Ready, TurnDone};
use ipc_schema::letters::{FromAgent, ToAgent};
use ipc_schema::names_and_paths::{self, box_path, letter_name};
use ipc_schema::{FromAgentLetter, LetterId, RunId, ToAgentLetter, TurnId};
use serde_json::Value;

use crate::evidence::{Facts, now_ms};

/// The pause between two checks for letters.
const LOOK: Duration = Duration::from_millis(5);
/// How long the agent waits until the host removes a file.
const PATIENCE: Duration = Duration::from_secs(8);

/// The time in every letter. The host bases no decision on it.
pub const AT: &str = "2026-11-21T10:00:00Z";

/// A letter from the host.
pub enum Heard {
    /// A new message of a turn.
    Input(String),
    /// `_close`.
    Close,
}

/// The letter directories and the state of the run.
pub struct Mailbox {
    to: PathBuf,
    /// The directory for its letters.
    pub from: PathBuf,
    pub run: RunId,
    /// The name of its session.
    pub session: String,
    pub turn: TurnId,
    /// The number of its last letter.
    pub n: u64,
    /// The number of the last letter it read.
    pub ack: u64,
    /// Letters of this turn so far.
    pub entry: u64,
    /// Whether [`Mailbox::done`] leaves the end of the turn to the attack.
    pub silent: bool,
}

impl Mailbox {
    /// Reads `begin`.
    pub fn open() -> Result<Self, String> {
        let ipc = Path::new(box_path::IPC);
        let (to, from) = (ipc.join(names_and_paths::TO_AGENT), ipc.join(names_and_paths::FROM_AGENT));
        let begin = to.join(letter_name(1, "begin"));
        let asked = Instant::now();
        while !begin.exists() {
            if asked.elapsed() > Duration::from_secs(60) {
                return Err("no begin letter came".to_owned());
            }
            sleep(LOOK);
        }
        let bytes = fs::read(&begin).map_err(|e| e.to_string())?;
        let letter = ToAgentLetter::parse(&bytes).map_err(|e| e.to_string())?;
        let ToAgent::Begin(begin) = letter.body else {
            return Err("the first letter is no begin".to_owned());
        };
        let session = begin.session;
        Ok(Self {
            to,
            from,
            run: letter.run,
            session,
            turn: TurnId(1),
            n: 0,
            ack: 1,
            entry: 0,
            silent: false,
        })
    }

    /// Makes a mailbox in a temporary directory, for attacks by hand.
    pub fn detached() -> Self {
        let run = "00000000-0000-7000-8000-000000000000".parse();
        let Ok(run) = run else { unreachable!("it is a run id") };
        let from = std::env::temp_dir().join(format!("evil-agent-{}", std::process::id()));
        // If this fails, the attack's report shows it.
        let _ = fs::create_dir_all(&from);
        Self {
            to: from.clone(),
            from,
            run,
            session: "s".to_owned(),
            turn: TurnId(1),
            n: 0,
            ack: 0,
            entry: 0,
            silent: false,
        }
    }

    /// Writes `ready`.
    pub fn ready(&mut self) {
        let ready = Ready {
            minor: 0,
            runner: "evil".to_owned(),
            arch: std::env::consts::ARCH.to_owned(),
            shell: None,
            entries: 0,
            resumes: None,
            lost: None,
        };
        self.put(LetterId::of_run(self.n + 1), None, FromAgent::Ready(ready));
    }

    /// Waits for the next input or `_close`.
    pub fn hear(&mut self) -> Heard {
        loop {
            if let Some(text) = self.next_input() {
                return Heard::Input(text);
            }
            if self.closing() {
                return Heard::Close;
            }
            sleep(LOOK);
        }
    }

    /// Returns whether the host has written `_close`.
    pub fn closing(&self) -> bool {
        self.to.join(names_and_paths::CLOSE).exists()
    }

    /// Returns the names of the host's letters, oldest first.
    pub fn letters_of_host(&self) -> Vec<String> {
        let names = fs::read_dir(&self.to).into_iter().flatten().flatten();
        let mut names: Vec<String> = names
            .map(|e| e.file_name().to_string_lossy().into_owned())
            .filter(|n| n.ends_with(".json"))
            .collect();
        names.sort();
        names
    }

    /// Reads the host's letter of this name.
    pub fn read(&self, name: &str) -> Option<ToAgentLetter> {
        ToAgentLetter::parse(&fs::read(self.to.join(name)).ok()?).ok()
    }

    fn next_input(&mut self) -> Option<String> {
        for name in self.letters_of_host() {
            let number: u64 = name.get(..10).and_then(|digits| digits.parse().ok()).unwrap_or(0);
            if number <= self.ack {
                continue;
            }
            let letter = self.read(&name)?;
            self.ack = number;
            if let (ToAgent::Input(input), Some(turn)) = (letter.body, letter.turn) {
                (self.turn, self.entry) = (turn, 0);
                return Some(input.messages.last().map(|m| m.text.clone()).unwrap_or_default());
            }
        }
        None
    }

    /// Returns the newest input of the open turn.
    pub fn input(&self) -> Option<ToAgentLetter> {
        let names = self.letters_of_host();
        let name = names.iter().rev().find(|name| name.ends_with("-input.json"))?;
        self.read(name)
    }

    /// Returns whether this box is the first to perform the attack of this turn.
    pub fn first_time(&self) -> bool {
        let mark = Path::new(box_path::SESSION).join(format!("attacked-{}", self.turn));
        fs::OpenOptions::new().write(true).create_new(true).open(mark).is_ok()
    }

    fn put(&mut self, id: LetterId, turn: Option<TurnId>, body: FromAgent) {
        let letter = FromAgentLetter {
            id,
            run: self.run.clone(),
            turn,
            n: self.n + 1,
            ack: self.ack,
            at: AT.to_owned(),
            body,
        };
        for _ in 0..100 {
            let written = letter.to_bytes().map_err(|e| e.to_string()).and_then(|bytes| {
                let dir = LetterDir::open(&self.from).map_err(|e| e.to_string())?;
                dir.put(&letter.file_name(), &bytes).map_err(|e| e.to_string())
            });
            match written {
                Ok(_) => break,
                Err(why) => eprintln!("evil-agent: a letter waits: {why}"),
            }
            sleep(Duration::from_millis(100));
        }
        self.n += 1;
    }

    /// Sends a valid letter of the open turn.
    pub fn send(&mut self, body: FromAgent) {
        let id = self.next_id();
        self.put(id, Some(self.turn), body);
    }

    /// Sends a letter of the open turn under any id.
    pub fn send_as(&mut self, id: LetterId, body: FromAgent) {
        self.put(id, Some(self.turn), body);
    }

    /// Returns an id that this turn has not used.
    pub fn next_id(&mut self) -> LetterId {
        self.entry += 1;
        LetterId::of_block(self.turn, self.entry, 0)
    }

    /// Ends the turn with a report.
    pub fn done(&mut self, case: &str, facts: Facts) {
        if std::mem::take(&mut self.silent) {
            return;
        }
        let text = self.report(case, facts);
        self.end(text);
    }

    /// Returns the report's text, in a code fence so that no markup is read into it.
    pub fn report(&self, case: &str, facts: Facts) -> String {
        let mut report = Facts::new();
        report.insert("case".to_owned(), case.into());
        report.insert("run".to_owned(), self.run.as_str().into());
        report.insert("written".to_owned(), now_ms().into());
        report.insert("facts".to_owned(), Value::Object(facts));
        format!("```\n{}\n```", Value::Object(report))
    }

    /// Ends the turn with this text.
    pub fn end(&mut self, text: String) {
        let done = TurnDone {
            outcome: Outcome::Finished,
            text,
            error: None,
            model_calls: 0,
            tool_calls: 0,
            gated: false,
        };
        self.send(FromAgent::TurnDone(done));
    }

    /// Returns a letter with this number, type and body, unchecked.
    pub fn envelope(&mut self, n: u64, kind: &str, body: &str) -> String {
        let id = self.next_id();
        let (run, turn, ack) = (&self.run, self.turn, self.ack);
        format!(
            r#"{{"v":1,"id":"{id}","run":"{run}","turn":"{turn}","n":{n},"ack":{ack},"at":"{AT}","type":"{kind}","body":{body}}}"#
        )
    }

    /// Returns the name of the next letter, and counts it.
    pub fn next_name(&mut self, kind: &str) -> String {
        self.n += 1;
        letter_name(self.n, kind)
    }

    /// Writes a file under a temporary name and renames it.
    pub fn drop_in(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let part = self.from.join(".evil.part");
        fs::write(&part, bytes)?;
        fs::rename(part, self.from.join(name))
    }

    /// Writes a letter with the next number and any body. Returns whether the host removed it.
    pub fn next_raw(&mut self, kind: &str, change: impl FnOnce(String) -> Vec<u8>, body: &str) -> bool {
        let name = self.next_name(kind);
        let bytes = change(self.envelope(self.n, kind, body));
        let dropped = self.drop_in(&name, &bytes);
        dropped.is_ok() && self.goes(&name)
    }

    /// Waits until the host removes a file. Returns whether it did.
    pub fn goes(&self, name: impl AsRef<Path>) -> bool {
        let path = self.from.join(name);
        let asked = Instant::now();
        while fs::symlink_metadata(&path).is_ok() {
            if asked.elapsed() > PATIENCE {
                return false;
            }
            sleep(Duration::from_millis(2));
        }
        true
    }

    /// Waits until the host removes every letter. Returns whether it did.
    pub fn taken(&self) -> bool {
        self.goes(letter_name(self.n, "message")) && {
            let asked = Instant::now();
            loop {
                let left = fs::read_dir(&self.from).into_iter().flatten().flatten();
                if !left.map(|e| e.file_name()).any(|n| n.to_string_lossy().ends_with(".json")) {
                    return true;
                }
                if asked.elapsed() > PATIENCE {
                    return false;
                }
                sleep(Duration::from_millis(5));
            }
        }
    }
}
