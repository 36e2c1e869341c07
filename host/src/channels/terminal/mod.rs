//! The terminal: `lazaret chat` talks to the running host over a socket that only the host's user can open.

pub mod wire;

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::sync::{Notify, mpsc, oneshot, watch};

use super::{Activity, Batch, Channel, ChannelError, FetchError, SendError};
use crate::clock::Clock;
use crate::domain::message::{Inbound, Offered, Sender};
use crate::domain::outbound::{Part, Voice};
use crate::domain::{ChannelName, ChatId, ChatKind, MessageSeq};
use crate::policy::delivery::Abilities;
use crate::say;
use crate::unix_socket;
use wire::{FromClient, SOCKET, ToClient};

/// The terminal's only chat.
pub const CHAT: &str = "terminal:local";
/// A line longer than this ends the connection: the client refuses long before.
const LINE_MAX: u64 = 4 << 20;
/// A client that was sent a part and does not say that it showed it is taken for gone.
const SHOWN_WITHIN: Duration = Duration::from_secs(10);
/// Lines waiting for a client that does not read.
const CLIENT_QUEUE: usize = 256;

struct Line {
    id: String,
    text: String,
    client: mpsc::Sender<ToClient>,
}

#[derive(Default)]
struct Clients {
    next: u64,
    senders: HashMap<u64, mpsc::Sender<ToClient>>,
}

struct Shared {
    clients: Mutex<Clients>,
    arrival: Notify,
    shown: watch::Sender<i64>,
    lines: mpsc::Sender<Line>,
    letters: Box<dyn Fn(&crate::domain::RunId) -> String + Send + Sync>,
}

/// The terminal channel.
pub struct Terminal {
    shared: Arc<Shared>,
    lines: tokio::sync::Mutex<mpsc::Receiver<Line>>,
    chat: ChatId,
    clock: Clock,
    user: String,
}

impl Terminal {
    /// Binds the host's socket in `dir` and listens. `letters` names the folder of a run's letters for people.
    ///
    /// # Errors
    /// What bind(2) says.
    pub fn start(
        dir: &Path,
        clock: Clock,
        letters: impl Fn(&crate::domain::RunId) -> String + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let listener = unix_socket::bind(dir, SOCKET, 0o600, None)?;
        let (lines_in, lines) = mpsc::channel(64);
        let shared = Arc::new(Shared {
            clients: Mutex::default(),
            arrival: Notify::new(),
            shown: watch::Sender::new(0),
            lines: lines_in,
            letters: Box::new(letters),
        });
        let accepting = Arc::clone(&shared);
        tokio::spawn(async move {
            loop {
                match listener.accept().await {
                    Ok((stream, _)) => {
                        tokio::spawn(serve(Arc::clone(&accepting), stream));
                    }
                    Err(e) => {
                        tracing::warn!(code = "terminal.accept", "a chat could not connect: {e}");
                        tokio::time::sleep(Duration::from_secs(1)).await;
                    }
                }
            }
        });
        let chat = CHAT.parse().map_err(|e| io::Error::other(format!("{e}")))?;
        let user = std::env::var("USER").unwrap_or_else(|_| "owner".to_owned());
        Ok(Self { shared, lines: tokio::sync::Mutex::new(lines), chat, clock, user })
    }

    fn broadcast(&self, line: &ToClient) -> bool {
        let mut clients = self.shared.clients.lock().unwrap_or_else(PoisonError::into_inner);
        // A client whose queue is full has stopped reading; it is let go rather than waited for.
        clients.senders.retain(|_, client| client.try_send(line.clone()).is_ok());
        !clients.senders.is_empty()
    }
}

async fn serve(shared: Arc<Shared>, stream: UnixStream) {
    let (reader, mut writer) = stream.into_split();
    let (client, mut lines) = mpsc::channel::<ToClient>(CLIENT_QUEUE);
    let number = {
        let mut clients = shared.clients.lock().unwrap_or_else(PoisonError::into_inner);
        clients.next += 1;
        let number = clients.next;
        clients.senders.insert(number, client.clone());
        number
    };
    shared.arrival.notify_waiters();
    let writing = async {
        while let Some(line) = lines.recv().await {
            let Ok(mut text) = serde_json::to_vec(&line) else { continue };
            text.push(b'\n');
            if writer.write_all(&text).await.is_err() {
                break;
            }
        }
    };
    let reading = read_lines(&shared, BufReader::new(reader), client);
    tokio::select! {
        () = writing => {}
        () = reading => {}
    }
    shared.clients.lock().unwrap_or_else(PoisonError::into_inner).senders.remove(&number);
}

async fn read_lines(
    shared: &Shared,
    mut reader: BufReader<tokio::net::unix::OwnedReadHalf>,
    client: mpsc::Sender<ToClient>,
) {
    loop {
        let mut text = String::new();
        match (&mut reader).take(LINE_MAX).read_line(&mut text).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        match serde_json::from_str(&text) {
            Ok(FromClient::Say { id, text }) => {
                if shared.lines.send(Line { id, text, client: client.clone() }).await.is_err() {
                    return;
                }
            }
            Ok(FromClient::Shown { row }) => {
                shared.shown.send_modify(|newest| *newest = row.max(*newest));
            }
            Err(e) => {
                tracing::warn!(code = "terminal.line", "a chat sent a line that is none: {e}");
                return;
            }
        }
    }
}

#[async_trait]
impl Channel for Terminal {
    fn name(&self) -> ChannelName {
        ChannelName::Terminal
    }

    async fn next(&self, _position: Option<String>) -> Result<Batch, ChannelError> {
        let line = self.lines.lock().await.recv().await.ok_or(ChannelError::Broken {
            why: "the terminal's socket is closed".into(),
            code: "terminal.closed",
        })?;
        let sender = "terminal:local"
            .parse()
            .map_err(|e| ChannelError::Broken { why: format!("{e}"), code: "terminal.sender" })?;
        let (committed, stored) = oneshot::channel::<Vec<Option<MessageSeq>>>();
        let id = line.id.clone();
        tokio::spawn(async move {
            if let Ok(seqs) = stored.await {
                let message = seqs.first().copied().flatten().map(|m| m.to_string());
                // A client that has gone finds its answer when it is back.
                let _ = line.client.send(ToClient::Accepted { id: line.id, message }).await;
            }
        });
        let inbound = Inbound {
            chat: self.chat.clone(),
            kind: ChatKind::Direct,
            title: "terminal".into(),
            message_id: id,
            version: 0,
            sender: Sender { id: sender, name: self.user.clone(), is_bot: false },
            text: line.text,
            reply_to: None,
            attachments: Vec::new(),
            addresses_us: true,
            at: self.clock.wall(),
        };
        Ok(Batch { inbound: vec![inbound], position: None, committed: Some(committed) })
    }

    async fn fetch(&self, _offered: &Offered, _most: u64) -> Result<Vec<u8>, FetchError> {
        Err(FetchError::Failed("the terminal sends no files".into()))
    }

    fn split(&self, markdown: &str) -> Vec<String> {
        let text = markdown.trim();
        if text.is_empty() { Vec::new() } else { vec![text.to_owned()] }
    }

    fn patience(&self) -> Option<Duration> {
        None
    }

    /// The row is the id: a client shows each row once.
    fn abilities(&self) -> Abilities {
        Abilities { own_id: true, edits: false }
    }

    /// Waits until somebody is there to read: what is said to an empty room is kept.
    async fn send(&self, part: &Part) -> Result<String, SendError> {
        let line = ToClient::Part {
            row: part.id,
            notice: part.voice == Voice::Notice,
            turn: part.turn.map(|t| t.to_string()),
            answers: part.answers.map(|m| m.to_string()),
            text: say::voiced(part.voice, &part.text),
        };
        let mut shown = self.shared.shown.subscribe();
        loop {
            let arrival = self.shared.arrival.notified();
            if !self.broadcast(&line) {
                arrival.await;
                continue;
            }
            // Rows of a chat are sent in order, so a later row's receipt covers this one.
            if let Ok(Ok(_)) = tokio::time::timeout(SHOWN_WITHIN, shown.wait_for(|row| *row >= part.id)).await
            {
                return Ok(format!("row-{}", part.id));
            }
        }
    }

    async fn typing(&self, _chat: &ChatId) {}

    fn show(&self, _chat: &ChatId, activity: &Activity) {
        let line = match activity {
            Activity::Doing(text) => ToClient::Doing { text: text.clone() },
            Activity::Draft(text) => ToClient::Draft { text: text.clone() },
            Activity::TurnOver { turn, messages, run, parts } => ToClient::TurnOver {
                turn: turn.to_string(),
                messages: messages.iter().map(ToString::to_string).collect(),
                letters: run.as_ref().map(|run| (self.shared.letters)(run)),
                parts: *parts,
            },
        };
        self.broadcast(&line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::WallMs;

    async fn line(reader: &mut BufReader<UnixStream>) -> ToClient {
        let mut text = String::new();
        reader.read_line(&mut text).await.unwrap();
        serde_json::from_str(&text).unwrap()
    }

    fn part(id: i64) -> Part {
        Part {
            id,
            ours: id.to_string(),
            chat: CHAT.parse().unwrap(),
            voice: Voice::Reply,
            turn: None,
            key: "k".into(),
            answers: None,
            text: "hello".into(),
            way: crate::domain::outbound::Way::Keyed,
            placeholder: None,
            attempts: 0,
            lives_from: WallMs(0),
        }
    }

    #[tokio::test]
    async fn a_line_becomes_a_message_and_its_receipt_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let terminal = Terminal::start(dir.path(), Clock::new(), |r| r.to_string()).unwrap();
        let mut chat = BufReader::new(unix_socket::connect(dir.path(), SOCKET).await.unwrap());
        chat.write_all(b"{\"type\":\"say\",\"id\":\"1\",\"text\":\"hi\"}\n").await.unwrap();
        let batch = terminal.next(None).await.unwrap();
        assert_eq!(batch.inbound[0].text, "hi");
        batch.committed.unwrap().send(vec![Some(MessageSeq(7))]).unwrap();
        let accepted = ToClient::Accepted { id: "1".into(), message: Some("m-7".into()) };
        assert_eq!(line(&mut chat).await, accepted);
    }

    #[tokio::test]
    async fn what_is_said_to_an_empty_room_waits_for_someone() {
        let dir = tempfile::tempdir().unwrap();
        let terminal = Arc::new(Terminal::start(dir.path(), Clock::new(), |r| r.to_string()).unwrap());
        let sending = tokio::spawn({
            let terminal = Arc::clone(&terminal);
            async move { terminal.send(&part(3)).await.unwrap() }
        });
        let mut chat = BufReader::new(unix_socket::connect(dir.path(), SOCKET).await.unwrap());
        let ToClient::Part { row: 3, text, .. } = line(&mut chat).await else { panic!() };
        assert_eq!(text, "hello");
        assert!(!sending.is_finished(), "it counts as sent when it was shown");
        chat.write_all(b"{\"type\":\"shown\",\"row\":3}\n").await.unwrap();
        assert_eq!(sending.await.unwrap(), "row-3");
    }
}
