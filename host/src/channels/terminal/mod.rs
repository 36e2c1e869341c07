//! The terminal channel: `lazaret chat` talks to the running host over a socket that only the host's user can open.
//!
//! Each group has one chat here, and each client is in one chat. The client draws the id of each line, so that a line
//! sent again after a crash is one message. The client drops a part whose row it has shown, so that a repeated part is
//! shown once.

pub mod wire;

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::sync::{Notify, mpsc, oneshot};

use super::{
    Activity, Batch, BuildError, Channel, ChannelError, ChannelSettings, FetchError, LettersFolder,
    RenewalOrder, SendError, Surroundings,
};
use crate::clock::Clock;
use crate::domain::message::{Addressee, ChatEvent, Inbound, Sender};
use crate::domain::outbound::{Part, PartText, SpooledFile, Voice};
use crate::domain::{ChannelName, ChatId, ChatKind, GroupName, MessageSeq, SenderId};
use crate::policy::delivery::Abilities;
use crate::text;
use crate::unix_socket;
use wire::{FromClient, SOCKET, ToClient};

const NAME: ChannelName = ChannelName::new("terminal");
/// The sender of every line: only the host's own user can open the socket.
const OWNER: &str = "terminal:local";
/// The name of `main`'s chat. It stays `local` for compatibility with installs that had no other chat here.
const OF_MAIN: &str = "local";

/// Returns the chat of a group. A group called `local` has none, because this name is `main`'s chat.
pub fn chat_of(group: &GroupName) -> Option<ChatId> {
    let name = if group.is_main() { OF_MAIN } else { group.as_str() };
    if name == OF_MAIN && !group.is_main() { None } else { format!("terminal:{name}").parse().ok() }
}

/// The host closes the connection on a longer line. The client refuses such a line long before.
const LINE_MAX: u64 = 4 << 20;
/// The host assumes that a client is gone if it does not acknowledge a part within this time.
const SHOWN_WITHIN: Duration = Duration::from_secs(10);
/// The host queues this many lines for a client that does not read.
const CLIENT_QUEUE: usize = 256;

/// What the host hears from its clients.
enum Heard {
    Line(Line),
    Admitted(GroupName),
    TasksChanged,
    Renewal(RenewalOrder),
}

struct Line {
    chat: ChatId,
    id: String,
    text: String,
    client: mpsc::Sender<ToClient>,
}

#[derive(Default)]
struct Clients {
    next: u64,
    senders: HashMap<u64, (ChatId, mpsc::Sender<ToClient>)>,
}

/// Parts that wait for their receipt, by row, each with the only chat that may acknowledge it.
type Awaited = HashMap<i64, (ChatId, oneshot::Sender<()>)>;

struct Shared {
    clients: Mutex<Clients>,
    arrival: Notify,
    awaited: Mutex<Awaited>,
    lines: mpsc::Sender<Heard>,
    letters: LettersFolder,
}

/// Lines of clients that the host has not stored.
struct Unstored {
    lines: mpsc::Receiver<Heard>,
    /// Returns the line that was handed over last, if the host did not store it.
    last: Option<oneshot::Receiver<Line>>,
}

impl Unstored {
    /// Returns the next line, which can be the last one again. It is cancel-safe: a cancelled call takes no line.
    async fn next(&mut self) -> Option<Heard> {
        if let Some(last) = &mut self.last {
            let back = last.await;
            self.last = None;
            if let Ok(line) = back {
                return Some(Heard::Line(line));
            }
        }
        self.lines.recv().await
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TerminalSettings;

impl ChannelSettings for TerminalSettings {
    fn name(&self) -> ChannelName {
        NAME
    }

    fn build(&self, host: &Surroundings<'_>) -> Result<Option<Arc<dyn Channel>>, BuildError> {
        match Terminal::start(host.socket_dir, host.clock, Arc::clone(&host.letters)) {
            Ok(terminal) => Ok(Some(Arc::new(terminal))),
            Err(e) => Err(BuildError {
                code: "terminal.socket",
                what: host.socket_dir.display().to_string(),
                why: e.to_string(),
            }),
        }
    }
}

pub struct Terminal {
    shared: Arc<Shared>,
    unstored: tokio::sync::Mutex<Unstored>,
    clock: Clock,
    user: String,
}

impl Terminal {
    /// Binds the host's socket in `dir` and listens. `letters` names the folder of a run's letters for people.
    ///
    /// # Errors
    /// The error of bind(2).
    pub fn start(dir: &Path, clock: Clock, letters: LettersFolder) -> io::Result<Self> {
        let listener = unix_socket::bind(dir, SOCKET, 0o600, None)?;
        let (lines_in, lines) = mpsc::channel(64);
        let shared = Arc::new(Shared {
            clients: Mutex::default(),
            arrival: Notify::new(),
            awaited: Mutex::default(),
            lines: lines_in,
            letters,
        });
        let home = chat_of(&GroupName::main()).ok_or_else(|| io::Error::other("main has no chat"))?;
        let accepting = Arc::clone(&shared);
        tokio::spawn(async move {
            loop {
                match listener.accept().await {
                    Ok((stream, _)) => {
                        tokio::spawn(serve(Arc::clone(&accepting), stream, home.clone()));
                    }
                    Err(e) => {
                        tracing::warn!(code = "terminal.accept", "a chat could not connect: {e}");
                        tokio::time::sleep(Duration::from_secs(1)).await;
                    }
                }
            }
        });
        let user = std::env::var("USER").unwrap_or_else(|_| "owner".to_owned());
        let unstored = tokio::sync::Mutex::new(Unstored { lines, last: None });
        Ok(Self { shared, unstored, clock, user })
    }

    /// Sends a line to every client of a chat; returns whether the chat has a client.
    fn broadcast(&self, chat: &ChatId, line: &ToClient) -> bool {
        let mut clients = lock(&self.shared.clients);
        // A client whose queue is full has stopped reading. The host drops it instead of waiting.
        clients.senders.retain(|_, (its, client)| its != chat || client.try_send(line.clone()).is_ok());
        clients.senders.values().any(|(its, _)| its == chat)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every use leaves the maps consistent, so a poisoned lock is safe to use.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn serve(shared: Arc<Shared>, stream: UnixStream, home: ChatId) {
    let (reader, mut writer) = stream.into_split();
    let (client, mut lines) = mpsc::channel::<ToClient>(CLIENT_QUEUE);
    let number = {
        let mut clients = lock(&shared.clients);
        clients.next += 1;
        let number = clients.next;
        clients.senders.insert(number, (home.clone(), client.clone()));
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
    let reading = read_lines(&shared, BufReader::new(reader), number, home, client);
    tokio::select! {
        () = writing => {}
        () = reading => {}
    }
    lock(&shared.clients).senders.remove(&number);
}

async fn read_lines(
    shared: &Shared,
    mut reader: BufReader<tokio::net::unix::OwnedReadHalf>,
    number: u64,
    mut chat: ChatId,
    client: mpsc::Sender<ToClient>,
) {
    loop {
        let mut text = String::new();
        match (&mut reader).take(LINE_MAX).read_line(&mut text).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        match serde_json::from_str(&text) {
            Ok(FromClient::Join { group }) => {
                let Some(joined) = chat_of(&group) else { return };
                chat = joined;
                {
                    // One lock covers both steps, so that no part of this chat reaches the client before `Joined`.
                    let mut clients = lock(&shared.clients);
                    if client.try_send(ToClient::Joined { group }).is_err() {
                        return;
                    }
                    clients.senders.insert(number, (chat.clone(), client.clone()));
                }
                shared.arrival.notify_waiters();
            }
            Ok(FromClient::Say { id, text }) => {
                let line = Line { chat: chat.clone(), id, text, client: client.clone() };
                if shared.lines.send(Heard::Line(line)).await.is_err() {
                    return;
                }
            }
            Ok(FromClient::Admitted { group }) => {
                if shared.lines.send(Heard::Admitted(group)).await.is_err() {
                    return;
                }
            }
            Ok(FromClient::TasksChanged) => {
                if shared.lines.send(Heard::TasksChanged).await.is_err() {
                    return;
                }
            }
            Ok(FromClient::Renew { group }) => {
                let (answer, answered) = oneshot::channel();
                let order = RenewalOrder { group, answer };
                if shared.lines.send(Heard::Renewal(order)).await.is_err() {
                    return;
                }
                // The client learns by the end of the connection that the host did not take the order.
                let Ok(renewal) = answered.await else { return };
                let _ = client.send(ToClient::Renewed { renewal }).await;
            }
            Ok(FromClient::Shown { row }) => {
                let mut awaited = lock(&shared.awaited);
                if awaited.get(&row).is_some_and(|(its, _)| *its == chat)
                    && let Some((_, shown)) = awaited.remove(&row)
                {
                    // The sender that waited for the receipt may have ended already.
                    let _ = shown.send(());
                }
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
        NAME
    }

    async fn next(&self, _position: Option<String>) -> Result<Batch, ChannelError> {
        let mut unstored = self.unstored.lock().await;
        let heard = unstored.next().await.ok_or(ChannelError::Broken {
            why: "the terminal's socket is closed".into(),
            code: "terminal.closed",
        })?;
        let line = match heard {
            Heard::Line(line) => line,
            Heard::Admitted(group) => {
                return Ok(Batch { events: vec![ChatEvent::Admitted { group }], ..Batch::default() });
            }
            Heard::TasksChanged => return Ok(Batch { tasks_changed: true, ..Batch::default() }),
            Heard::Renewal(order) => return Ok(Batch { renewals: vec![order], ..Batch::default() }),
        };
        let sender = OWNER
            .parse()
            .map_err(|e| ChannelError::Broken { why: format!("{e}"), code: "terminal.sender" })?;
        let (committed, stored) = oneshot::channel::<Vec<Option<MessageSeq>>>();
        let (give_back, last) = oneshot::channel();
        unstored.last = Some(last);
        let (chat, id, text) = (line.chat.clone(), line.id.clone(), line.text.clone());
        tokio::spawn(async move {
            let Ok(seqs) = stored.await else {
                // No platform would deliver this line again, so the task gives it back.
                let _ = give_back.send(line);
                return;
            };
            drop(give_back);
            let message = seqs.first().copied().flatten().map(|m| m.to_string());
            // A client that disconnected gets the acknowledgement when it sends the line again.
            let _ = line.client.send(ToClient::Accepted { id: line.id, message }).await;
        });
        let addressee = Addressee::named(&text, |_| false).unwrap_or(Addressee::Us);
        let inbound = Inbound {
            chat,
            kind: ChatKind::Direct,
            title: NAME.to_string(),
            message_id: id,
            version: 0,
            sender: Sender { id: sender, name: self.user.clone(), is_bot: false },
            text,
            origin: None,
            service: false,
            reply_to: None,
            attachments: Vec::new(),
            addressee,
            at: self.clock.wall(),
            press: None,
        };
        Ok(Batch { inbound: vec![inbound], committed: Some(committed), ..Batch::default() })
    }

    async fn fetch(&self, _handle: &str, _most: u64) -> Result<Vec<u8>, FetchError> {
        Err(FetchError::Failed("the terminal sends no files".into()))
    }

    fn split(&self, markdown: &str) -> Vec<PartText> {
        let text = markdown.trim();
        if text.is_empty() { Vec::new() } else { vec![text.to_owned().into()] }
    }

    fn patience(&self) -> Option<Duration> {
        None
    }

    fn local_owner(&self) -> Option<SenderId> {
        OWNER.parse().ok()
    }

    fn chat_of_group(&self, group: &GroupName) -> Option<ChatId> {
        chat_of(group)
    }

    /// The row is the part's own id, and a client shows each row once.
    fn abilities(&self) -> Abilities {
        Abilities { own_id: true, edits: false }
    }

    /// Waits until a client is in the chat; the part stays in the outbox until then.
    async fn send(&self, part: &Part) -> Result<String, SendError> {
        let line = ToClient::Part {
            row: part.id,
            notice: part.voice == Voice::Notice,
            turn: part.turn.map(|t| t.to_string()),
            answers: part.answers.map(|m| m.to_string()),
            text: text::render(part.voice, &part.text),
        };
        let (receipt, mut shown) = oneshot::channel();
        lock(&self.shared.awaited).insert(part.id, (part.chat.clone(), receipt));
        loop {
            let mut arrival = std::pin::pin!(self.shared.arrival.notified());
            // The task registers for arrivals before it broadcasts, so that it misses no client that comes in between.
            arrival.as_mut().enable();
            let somebody = self.broadcast(&part.chat, &line);
            tokio::select! {
                Ok(()) = &mut shown => return Ok(format!("row-{}", part.id)),
                () = arrival => {}
                () = tokio::time::sleep(SHOWN_WITHIN), if somebody => {}
            }
        }
    }

    fn takes_files(&self) -> bool {
        true
    }

    /// Shows the path of the file in the spool, because whoever chats here can open the host's socket and so the spool.
    /// The file stays there as long as the host keeps media.
    async fn send_file(&self, part: &Part, file: &SpooledFile, path: &Path) -> Result<String, SendError> {
        let text = text::file_at(&part.text, &file.name, file.bytes, &path.to_string_lossy());
        self.send(&Part { text, ..part.clone() }).await
    }

    async fn typing(&self, _chat: &ChatId) {}

    fn show(&self, chat: &ChatId, activity: &Activity) {
        let agents = |text: &str| text::render(Voice::Reply, text);
        let line = match activity {
            Activity::Doing(text) => ToClient::Doing { text: agents(text) },
            Activity::Draft(text) => ToClient::Draft { text: agents(text) },
            Activity::TurnOver { turn, messages, run, parts } => ToClient::TurnOver {
                turn: turn.to_string(),
                messages: messages.iter().map(ToString::to_string).collect(),
                letters: run.as_ref().map(|run| (self.shared.letters)(run)),
                parts: *parts,
            },
        };
        self.broadcast(chat, &line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dispatch::Renewal;
    use crate::domain::RunId;

    async fn line(reader: &mut BufReader<UnixStream>) -> ToClient {
        let mut text = String::new();
        reader.read_line(&mut text).await.unwrap();
        serde_json::from_str(&text).unwrap()
    }

    fn part(id: i64) -> Part {
        Part::for_tests("terminal:local", id)
    }

    #[tokio::test]
    async fn a_line_becomes_a_message_and_its_receipt_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let terminal = Terminal::start(dir.path(), Clock::new(), Arc::new(RunId::to_string)).unwrap();
        let mut chat = BufReader::new(unix_socket::connect(dir.path(), SOCKET).await.unwrap());
        chat.write_all(b"{\"type\":\"say\",\"id\":\"1\",\"text\":\"hi\"}\n").await.unwrap();
        let batch = terminal.next(None).await.unwrap();
        assert_eq!(batch.inbound[0].text, "hi");
        batch.committed.unwrap().send(vec![Some(MessageSeq(7))]).unwrap();
        let accepted = ToClient::Accepted { id: "1".into(), message: Some("m-7".into()) };
        assert_eq!(line(&mut chat).await, accepted);
    }

    #[tokio::test]
    async fn a_line_that_was_not_stored_comes_again_before_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let terminal = Terminal::start(dir.path(), Clock::new(), Arc::new(RunId::to_string)).unwrap();
        let mut chat = BufReader::new(unix_socket::connect(dir.path(), SOCKET).await.unwrap());
        for id in 1..=2 {
            chat.write_all(format!("{{\"type\":\"say\",\"id\":\"{id}\",\"text\":\"hi\"}}\n").as_bytes())
                .await
                .unwrap();
        }
        drop(terminal.next(None).await.unwrap());
        let again = terminal.next(None).await.unwrap();
        assert_eq!(again.inbound[0].message_id, "1", "the store had failed");
        again.committed.unwrap().send(vec![Some(MessageSeq(7))]).unwrap();
        assert_eq!(terminal.next(None).await.unwrap().inbound[0].message_id, "2");
        let accepted = ToClient::Accepted { id: "1".into(), message: Some("m-7".into()) };
        assert_eq!(line(&mut chat).await, accepted);
    }

    #[tokio::test]
    async fn an_order_to_end_a_groups_boxes_is_answered_or_the_connection_ends() {
        let dir = tempfile::tempdir().unwrap();
        let terminal = Terminal::start(dir.path(), Clock::new(), Arc::new(RunId::to_string)).unwrap();
        let mut client = BufReader::new(unix_socket::connect(dir.path(), SOCKET).await.unwrap());
        let order = b"{\"type\":\"renew\",\"group\":\"family\"}\n";
        client.write_all(order).await.unwrap();
        let mut renewals = terminal.next(None).await.unwrap().renewals;
        let RenewalOrder { group, answer } = renewals.pop().unwrap();
        assert_eq!(group.as_str(), "family");
        answer.send(Renewal::Closes).unwrap();
        assert_eq!(line(&mut client).await, ToClient::Renewed { renewal: Renewal::Closes });
        client.write_all(order).await.unwrap();
        drop(terminal.next(None).await.unwrap());
        assert_eq!(client.read_line(&mut String::new()).await.unwrap(), 0, "the host could not take it");
    }

    #[tokio::test]
    async fn a_command_that_changes_tasks_tells_the_host_without_a_message() {
        let dir = tempfile::tempdir().unwrap();
        let terminal = Terminal::start(dir.path(), Clock::new(), Arc::new(RunId::to_string)).unwrap();
        let mut command = unix_socket::connect(dir.path(), SOCKET).await.unwrap();
        let line = serde_json::to_string(&FromClient::TasksChanged).unwrap();
        command.write_all(format!("{line}\n").as_bytes()).await.unwrap();
        drop(command);
        let batch = terminal.next(None).await.unwrap();
        assert!(batch.tasks_changed && batch.inbound.is_empty());
    }

    #[tokio::test]
    async fn what_is_said_to_an_empty_room_waits_for_someone() {
        let dir = tempfile::tempdir().unwrap();
        let terminal =
            Arc::new(Terminal::start(dir.path(), Clock::new(), Arc::new(RunId::to_string)).unwrap());
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

    #[tokio::test]
    async fn each_group_is_a_chat_of_its_own_with_its_own_receipts() {
        let dir = tempfile::tempdir().unwrap();
        let terminal =
            Arc::new(Terminal::start(dir.path(), Clock::new(), Arc::new(RunId::to_string)).unwrap());
        let mut main = BufReader::new(unix_socket::connect(dir.path(), SOCKET).await.unwrap());
        let mut family = BufReader::new(unix_socket::connect(dir.path(), SOCKET).await.unwrap());
        let join =
            b"{\"type\":\"join\",\"group\":\"family\"}\n{\"type\":\"say\",\"id\":\"1\",\"text\":\"hi\"}\n";
        family.write_all(join).await.unwrap();
        assert!(matches!(line(&mut family).await, ToClient::Joined { .. }));
        assert_eq!(terminal.next(None).await.unwrap().inbound[0].chat.as_str(), "terminal:family");
        let [first, second] = [("terminal:family", 7), ("terminal:local", 8)].map(|(chat, row)| {
            let terminal = Arc::clone(&terminal);
            tokio::spawn(async move { terminal.send(&Part::for_tests(chat, row)).await.unwrap() })
        });
        assert!(matches!(line(&mut family).await, ToClient::Part { row: 7, .. }));
        assert!(matches!(line(&mut main).await, ToClient::Part { row: 8, .. }));
        // A receipt for a later row does not acknowledge an earlier row of another chat, and no chat can acknowledge
        // another chat's row.
        main.write_all(b"{\"type\":\"shown\",\"row\":7}\n{\"type\":\"shown\",\"row\":8}\n").await.unwrap();
        assert_eq!(second.await.unwrap(), "row-8");
        assert!(!first.is_finished());
        family.write_all(b"{\"type\":\"shown\",\"row\":7}\n").await.unwrap();
        assert_eq!(first.await.unwrap(), "row-7");
    }

    #[test]
    fn no_group_can_take_the_chat_of_main() {
        let chat = |group: &str| chat_of(&group.parse().unwrap()).map(|chat| chat.to_string());
        assert_eq!(chat("main").as_deref(), Some("terminal:local"));
        assert_eq!(chat("family").as_deref(), Some("terminal:family"));
        assert_eq!(chat("local"), None);
    }
}
