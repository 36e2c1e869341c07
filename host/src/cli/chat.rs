//! `lazaret chat` connects a terminal, or text on standard input, to the running host.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{BufRead, ErrorKind, IsTerminal};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;

use super::{CliError, Done, Here};
use crate::channels::terminal;
use crate::channels::terminal::wire::{FromClient, SOCKET, ToClient};
use crate::clock::Clock;
use crate::config::{install_rights, shown_path};
use crate::domain::outbound::Voice;
use crate::domain::{ChatId, ChatKind, GroupName, MessageSeq};
use crate::policy::admission::TEXT_MAX;
use crate::store::{Admission, MessageEnd, Store};
use crate::terminal_output::{print, safe};
use crate::text;
use crate::unix_socket;

/// A piped chat that has heard nothing for this time asks the database whether its turn is over.
const LOOK: Duration = Duration::from_secs(1);
/// How often the chat tries to connect again after the host ended.
const AGAIN: Duration = Duration::from_millis(500);

/// Talk to the running host.
#[derive(Debug, Args)]
pub struct Chat {
    /// The group to talk to: a folder in `groups/`, with an agent, a memory and files of its own.
    #[arg(long, default_value = "main")]
    group: GroupName,
}

pub(super) async fn run(here: &Here, chat: &Chat) -> Done {
    admit(here, &chat.group).await?;
    talk_to(here, chat.group.clone()).await
}

/// Admits the chat of a group that was added after the host started. Whoever can open the database may do this.
async fn admit(here: &Here, group: &GroupName) -> Result<(), CliError> {
    if group.is_main() {
        return Ok(());
    }
    if !here.install()?.group_names().contains(group) {
        return Err(CliError::Plain(format!(
            "there is no group {group}; `lazaret groups add {group}` makes it"
        )));
    }
    let Some(chat) = terminal::chat_of(group) else {
        return Err(CliError::Plain(format!("the group {group} has no terminal: that name is main's chat")));
    };
    let (store, now) = (here.store()?, Clock::new().wall());
    if store.group_of(&chat).await?.as_ref() == Some(group) {
        return Ok(());
    }
    store.group(group, now).await?;
    let (group, by) = (group.clone(), "terminal".to_owned());
    let (kind, title) = (ChatKind::Direct, "terminal".to_owned());
    Ok(store.admit_chat(Admission { chat, group, kind, title, by, now }).await?)
}

/// Runs the chat on the terminal, or on piped standard input.
pub(super) async fn talk_to(here: &Here, group: GroupName) -> Done {
    let dir = here.root.host_socket_dir();
    if let Some(risk) = install_rights::of_running_host(&here.root).into_iter().find(|risk| risk.refused) {
        return Err(CliError::Plain(format!("another program could pretend to be the host. {risk}")));
    }
    let mut host = Wire::connect(dir.clone(), group).await.map_err(|e| {
        CliError::Plain(match e.kind() {
            ErrorKind::PermissionDenied => format!("nothing was sent to {}: {e}", dir.display()),
            _ => format!("no host answers in {} ({e}); start one with `lazaret up`", dir.display()),
        })
    })?;
    let mut input = lines_of_stdin();
    if std::io::stdin().is_terminal() {
        talk(&mut host, &mut input).await
    } else {
        let chat = terminal::chat_of(&host.group);
        let record = Record { store: here.store_to_read()?, chat };
        one_turn_per_line(&mut host, &record, &mut input).await
    }
}

/// The connection to the host.
struct Wire {
    dir: PathBuf,
    group: GroupName,
    reader: tokio::io::Lines<BufReader<OwnedReadHalf>>,
    writer: OwnedWriteHalf,
    joined: bool,
    seen: BTreeSet<i64>,
    /// Lines, in order, that the host has not acknowledged as stored. The client sends them to the next host under the
    /// same ids.
    unaccepted: Vec<FromClient>,
}

impl Wire {
    async fn connect(dir: PathBuf, group: GroupName) -> std::io::Result<Self> {
        let (reader, writer) = unix_socket::connect(&dir, SOCKET).await?.into_split();
        let (joined, seen) = (group.is_main(), BTreeSet::new());
        let reader = BufReader::new(reader).lines();
        let mut host = Self { dir, group, reader, writer, joined, seen, unaccepted: Vec::new() };
        host.introduce().await?;
        Ok(host)
    }

    /// An older host does not know `join`, so the client sends it only where it is needed.
    async fn introduce(&mut self) -> std::io::Result<()> {
        let join = (!self.joined).then(|| FromClient::Join { group: self.group.clone() });
        for line in join.into_iter().chain(self.unaccepted.clone()) {
            self.write(&line).await?;
        }
        Ok(())
    }

    /// Waits until a host listens again.
    async fn reconnect(&mut self) {
        loop {
            tokio::time::sleep(AGAIN).await;
            let Ok(stream) = unix_socket::connect(&self.dir, SOCKET).await else { continue };
            let (reader, writer) = stream.into_split();
            (self.reader, self.writer) = (BufReader::new(reader).lines(), writer);
            self.joined = self.group.is_main();
            if self.introduce().await.is_ok() {
                return;
            }
        }
    }

    /// Returns the next line of the host, or an error when the host has ended.
    async fn next(&mut self) -> Result<ToClient, CliError> {
        let gone = || CliError::Plain("the host has ended".into());
        loop {
            let line = self.reader.next_line().await.map_err(|_| gone())?.ok_or_else(gone)?;
            let told = serde_json::from_str(&line)
                .map_err(|e| CliError::Plain(format!("the host is of another version: {e}")))?;
            match told {
                ToClient::Joined { .. } => self.joined = true,
                // The host sent this for `main` before the join took effect, so it is not shown.
                _ if !self.joined => {}
                ToClient::Accepted { id, message } => {
                    self.unaccepted
                        .retain(|line| !matches!(line, FromClient::Say { id: its, .. } if *its == id));
                    return Ok(ToClient::Accepted { id, message });
                }
                told => return Ok(told),
            }
        }
    }

    /// Like [`Self::next`], but waits for the next host when one ends. The chat of a person uses it and shows that it
    /// waits.
    async fn next_of_any_host(&mut self, screen: &mut Screen) -> ToClient {
        loop {
            match self.next().await {
                Ok(told) => return told,
                Err(why) => {
                    screen.doing(&format!("{why}; waiting for the next one"));
                    self.reconnect().await;
                    screen.doing("the host is back");
                }
            }
        }
    }

    async fn write(&mut self, line: &FromClient) -> std::io::Result<()> {
        let mut text = serde_json::to_vec(line)?;
        text.push(b'\n');
        self.writer.write_all(&text).await
    }

    /// A host that has just ended is noticed at the next read only; the line is then sent to the next host.
    async fn say(&mut self, text: String) -> String {
        let id = uuid::Uuid::new_v4().to_string();
        let line = FromClient::Say { id: id.clone(), text };
        self.unaccepted.push(line.clone());
        let _ = self.write(&line).await;
        id
    }

    /// Tells the host that a part was shown, and returns whether the part is new here. If the host ends before it
    /// reads this, the next host sends the part again.
    async fn shown(&mut self, row: i64) -> bool {
        let _ = self.write(&FromClient::Shown { row }).await;
        self.seen.insert(row)
    }
}

/// Reading standard input blocks, so a thread does it.
pub(super) fn lines_of_stdin() -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel(16);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().split(b'\n') {
            let Ok(line) = line else { break };
            // A line that is not UTF-8 is one damaged message, and no end of the chat.
            let line = String::from_utf8_lossy(&line).trim_end_matches('\r').to_owned();
            if sender.blocking_send(line).is_err() {
                break;
            }
        }
    });
    receiver
}

/// Runs the chat of a person at a terminal. One status line shows what the agent does; the reply replaces it.
async fn talk(host: &mut Wire, input: &mut mpsc::Receiver<String>) -> Done {
    let mut screen = Screen::default();
    screen.say("Write a message and press Enter. /help lists what the host understands; Ctrl-D ends.");
    loop {
        tokio::select! {
            line = input.recv() => match line {
                None => return Ok(ExitCode::SUCCESS),
                Some(line) if line.trim().is_empty() => screen.prompt(),
                Some(line) => match too_long(&line) {
                    Some(told) => screen.say(&told),
                    None => drop(host.say(line).await),
                },
            },
            told = host.next_of_any_host(&mut screen) => match told {
                ToClient::Part { row, text, .. } => {
                    if host.shown(row).await {
                        screen.say(&text);
                    }
                }
                ToClient::Doing { text } => screen.doing(&text),
                ToClient::Draft { text } => {
                    screen.doing(text.lines().rev().find(|l| !l.trim().is_empty()).unwrap_or_default());
                }
                ToClient::Joined { .. }
                | ToClient::Accepted { .. }
                | ToClient::TurnOver { .. }
                | ToClient::Renewed { .. } => {}
            },
        }
    }
}

/// Returns the terminal's width.
fn columns() -> usize {
    let size = rustix::termios::tcgetwinsize(std::io::stdout());
    size.map_or(80, |size| usize::from(size.ws_col.max(20)))
}

#[derive(Default)]
struct Screen {
    busy: bool,
}

impl Screen {
    fn write(&self, text: &str) {
        use std::io::Write;
        let mut out = std::io::stdout().lock();
        // If the terminal is gone, the next read ends the chat.
        let _ = write!(out, "{text}").and_then(|()| out.flush());
    }

    fn prompt(&self) {
        self.write("> ");
    }

    fn doing(&mut self, what: &str) {
        let room = columns().saturating_sub(3);
        let line: String = safe(what).replace(['\n', '\t'], " ").chars().take(room).collect();
        self.write(&format!("\r\x1b[K\x1b[2m· {line}\x1b[0m"));
        self.busy = true;
    }

    fn say(&mut self, text: &str) {
        self.write("\r\x1b[K");
        print(textwrap::fill(&safe(text), columns()));
        self.busy = false;
        self.prompt();
    }
}

/// Runs one turn for each line of standard input, and prints its replies and the folder of its letters. The exit code
/// tells whether a turn failed.
async fn one_turn_per_line(host: &mut Wire, record: &Record, input: &mut mpsc::Receiver<String>) -> Done {
    let mut failed = false;
    while let Some(line) = input.recv().await {
        if line.trim().is_empty() {
            continue;
        }
        if let Some(told) = too_long(&line) {
            print(told);
            failed = true;
            continue;
        }
        print(format!("> {}", safe(&line)));
        let command = line.starts_with('/');
        let id = host.say(line).await;
        let answered = ShownTurn::default().watch(host, record, &id).await?;
        // The host answers a command with a notice, and a message only if there is no reply.
        failed |= !answered && !command;
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// The host would refuse this line with the same text, so the client does not send it.
fn too_long(line: &str) -> Option<String> {
    let told = || text::render(Voice::Notice, &text::too_long(line.len(), TEXT_MAX));
    (line.len() > TEXT_MAX).then(told)
}

/// What the database has of the chat. The host tells a client of the ends that a box reports; a turn can also end
/// without a box, and a line without a turn.
struct Record {
    store: Store,
    chat: Option<ChatId>,
}

impl Record {
    /// How a message has ended, if nothing more comes of it. Without a message, the host did not take the line.
    async fn end_of(&self, message: Option<&str>) -> Result<Option<MessageEnd>, CliError> {
        let seq = message.map(str::parse::<MessageSeq>).transpose();
        match (&self.chat, seq) {
            (Some(chat), Ok(seq)) => Ok(self.store.end_of(chat.clone(), seq).await?),
            _ => Ok(None),
        }
    }
}

/// The state of the turn that a line began.
#[derive(Default)]
struct ShownTurn {
    /// Whether the host has acknowledged the line.
    heard: bool,
    message: Option<String>,
    over: Option<Over>,
    /// The number of parts shown so far, by turn. A part can arrive before the end of its turn or after it.
    shown: BTreeMap<String, u64>,
    early: VecDeque<ToClient>,
    /// Whether the last part of a turn is a notice: then the turn failed, and the notice says why.
    by_notice: BTreeMap<String, bool>,
}

struct Over {
    turn: String,
    letters: Option<String>,
    parts: u64,
}

impl ShownTurn {
    /// Returns whether the turn ended by itself. Otherwise a notice has said why not.
    async fn watch(&mut self, host: &mut Wire, record: &Record, id: &str) -> Result<bool, CliError> {
        loop {
            let Ok(told) = tokio::time::timeout(LOOK, host.next()).await else {
                if let Some(end) = self.ended(record).await? {
                    return Ok(end);
                }
                continue;
            };
            match told? {
                ToClient::Accepted { id: told, message } if told == id => {
                    (self.heard, self.message) = (true, message);
                    for line in std::mem::take(&mut self.early) {
                        self.hear(line);
                    }
                }
                ToClient::Part { row, notice, turn, answers, text } => {
                    if host.shown(row).await {
                        print(safe(&text));
                        if let Some(turn) = &turn {
                            *self.shown.entry(turn.clone()).or_default() += 1;
                            self.by_notice.insert(turn.clone(), notice);
                        }
                    }
                    if notice && answers.is_some() && answers == self.message {
                        return Ok(false);
                    }
                }
                line @ ToClient::TurnOver { .. } if self.message.is_none() => self.early.push_back(line),
                line => self.hear(line),
            }
            if let Some(over) = &self.over
                && self.shown.get(&over.turn).copied().unwrap_or(0) >= over.parts
            {
                let message = self.message.as_deref().unwrap_or_default();
                let letters = over.letters.as_ref().map(|dir| shown_path(Path::new(dir)));
                let letters = letters.as_deref().unwrap_or("(no box)");
                print(format!("[{message}, {}] letters: {letters}", over.turn));
                return Ok(!self.by_notice.get(&over.turn).copied().unwrap_or(false));
            }
        }
    }

    fn hear(&mut self, line: ToClient) {
        if let ToClient::TurnOver { turn, messages, letters, parts } = line
            && self.message.as_ref().is_some_and(|m| messages.contains(m))
        {
            self.over = Some(Over { turn, letters, parts });
        }
    }

    /// Prints how the line has ended, if it has: without a letter of a box, or without a turn.
    async fn ended(&self, record: &Record) -> Result<Option<bool>, CliError> {
        if !self.heard {
            return Ok(None);
        }
        let end = record.end_of(self.message.as_deref()).await?;
        Ok(end.map(|MessageEnd { turn, how, well }| {
            let message = self.message.as_deref().unwrap_or("no message");
            let turn = turn.map_or_else(|| "no turn".to_owned(), |turn| turn.to_string());
            print(format!("[{message}, {turn}] {}", safe(&how)));
            well
        }))
    }
}
