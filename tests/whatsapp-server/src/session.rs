//! Sessions: connections of the device, and the stanzas that wait for it.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;
use wacore_binary::builder::NodeBuilder;
use wacore_binary::{Node, SERVER_JID};

use crate::stanza::attr;
use crate::wire::{Wire, WireError};
use crate::{Seen, Shared, login, media, pairing, queries};

/// The time that the account's phone takes to answer.
const PHONE_TAKES: Duration = Duration::from_millis(200);

/// What a connection's task does next.
pub(crate) enum Order {
    Send(Node),
    /// Ends the stream as the platform does: everything that was ordered before is sent.
    Close,
    /// Breaks the connection.
    Cut,
}

/// How the server ends a stream.
pub(crate) enum Refusal {
    Code(u16),
    /// The device logged in over another connection.
    Replaced,
    /// The account's phone removed the device.
    Removed,
}

impl Refusal {
    fn stanza(&self) -> Node {
        let error = NodeBuilder::new("stream:error");
        let conflict = |kind: &str| NodeBuilder::new("conflict").attr("type", kind).build();
        match self {
            Self::Code(code) => error.attr("code", code.to_string()).build(),
            Self::Replaced => error.children([conflict("replaced")]).build(),
            Self::Removed => error.attr("code", "401").children([conflict("device_removed")]).build(),
        }
    }
}

/// One connection. The number tells a closed one from its successor.
#[derive(Clone)]
pub(crate) struct Connection {
    pub(crate) number: u64,
    orders: UnboundedSender<Order>,
}

impl Connection {
    pub(crate) fn send(&self, stanza: Node) {
        self.order(Order::Send(stanza));
    }

    /// Sends what the account's phone says, after the time that a phone takes. The library forgets what it did not
    /// expect yet: it wants to have noted the server's answer first, and no phone is faster than that.
    pub(crate) fn send_from_phone(&self, stanza: Node) {
        let connection = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(PHONE_TAKES).await;
            connection.send(stanza);
        });
    }

    pub(crate) fn order(&self, order: Order) {
        // A connection that ended takes no more orders: what must not be lost is in the queue.
        let _ = self.orders.send(order);
    }

    pub(crate) fn ends(&self, refusal: &Refusal) {
        self.send(refusal.stanza());
        self.order(Order::Close);
    }
}

/// The line to the device: the connection that is logged in, and what waits for an acknowledgement.
#[derive(Default)]
pub(crate) struct Line {
    opened: u64,
    logins: u64,
    /// How many of the logins took up the handshake of an earlier one.
    resumed: u64,
    current: Option<LoggedIn>,
    /// In the order in which the server received them.
    waiting: VecDeque<Waiting>,
    /// By id, what the observer is to be told of messages that the device could not read and that come again.
    asked_again: HashMap<String, Told>,
}

/// The chat and the text of a message, for the observer.
type Told = (String, String);

struct LoggedIn {
    connection: Connection,
    phase: Phase,
}

enum Phase {
    /// The device has logged in and has not asked for messages yet.
    Passive,
    /// The device receives what came while it was away. The number of stanzas that the server announced.
    CatchesUp {
        announced: usize,
    },
    Live,
}

struct Waiting {
    stanza: Node,
    told: Option<Told>,
    /// The connection over which it was last sent.
    sent_over: u64,
}

impl Waiting {
    fn is(&self, class: &str, id: &str) -> bool {
        self.stanza.tag == class && attr(&self.stanza, "id") == id
    }
}

impl Line {
    pub(crate) fn opens(&mut self, orders: UnboundedSender<Order>) -> Connection {
        self.opened += 1;
        Connection { number: self.opened, orders }
    }

    /// Makes a connection the one that is logged in. Ends the one before.
    pub(crate) fn logs_in(&mut self, connection: &Connection, resumes: bool) {
        if let Some(before) = self.current.take() {
            before.connection.ends(&Refusal::Replaced);
        }
        self.logins += 1;
        self.resumed += u64::from(resumes);
        self.current = Some(LoggedIn { connection: connection.clone(), phase: Phase::Passive });
    }

    fn closes(&mut self, number: u64) {
        self.current.take_if(|current| current.connection.number == number);
    }

    /// Whether this connection is the one that is logged in.
    pub(crate) fn is_logged_in(&self, number: u64) -> bool {
        self.current.as_ref().is_some_and(|current| current.connection.number == number)
    }

    pub(crate) fn is_open(&self) -> bool {
        self.current.is_some()
    }

    pub(crate) fn is_live(&self) -> bool {
        matches!(self.current, Some(LoggedIn { phase: Phase::Live, .. }))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(crate) fn logins(&self) -> u64 {
        self.logins
    }

    pub(crate) fn resumed(&self) -> u64 {
        self.resumed
    }

    fn connection(&self) -> Option<&Connection> {
        self.current.as_ref().map(|current| &current.connection)
    }

    /// Takes a stanza for the device.
    pub(crate) fn sends(&mut self, stanza: Node, told: Option<Told>) {
        let is_live = self.is_live();
        let told = told.or_else(|| self.asked_again.remove(&attr(&stanza, "id")));
        if matches!(&*stanza.tag, "message" | "receipt" | "notification" | "call") {
            self.waiting.push_back(Waiting { stanza, told, sent_over: 0 });
            if is_live {
                self.sends_new();
            }
        } else if let (true, Some(connection)) = (is_live, self.connection()) {
            connection.send(stanza);
        }
    }

    /// Sends what this connection did not get yet.
    fn sends_new(&mut self) {
        let Some(connection) = self.connection().cloned() else { return };
        for waiting in self.waiting.iter_mut().filter(|w| w.sent_over != connection.number) {
            waiting.sent_over = connection.number;
            connection.send(waiting.stanza.clone());
        }
    }

    /// The device asks for messages: the server announces what came while it was away.
    pub(crate) fn becomes_active(&mut self) {
        let announced = self.waiting.len();
        let Some(current) = self.current.as_mut() else { return };
        if !matches!(current.phase, Phase::Passive) {
            return;
        }
        current.phase = Phase::CatchesUp { announced };
        let count = |tag: &str| self.waiting.iter().filter(|w| w.stanza.tag == tag).count().to_string();
        let preview = NodeBuilder::new("offline_preview")
            .attr("count", announced.to_string())
            .attr("message", count("message"))
            .attr("receipt", count("receipt"))
            .attr("notification", count("notification"))
            .attr("call", count("call"))
            .attr("appdata", "0");
        current.connection.send(information(preview.build()));
        if announced == 0 {
            self.hands_over(0);
        }
    }

    /// The device asks for this many stanzas of those that came while it was away. After the last one it gets the rest
    /// as it comes.
    pub(crate) fn hands_over(&mut self, batch: usize) {
        let Some(LoggedIn { connection, phase }) = self.current.as_mut() else { return };
        let Phase::CatchesUp { announced } = *phase else { return };
        let new = |w: &&mut Waiting| w.sent_over != connection.number;
        for waiting in self.waiting.iter_mut().take(announced).filter(new).take(batch) {
            waiting.sent_over = connection.number;
            let mut stanza = waiting.stanza.clone();
            stanza.attrs.insert("offline", "1");
            connection.send(stanza);
        }
        if self.waiting.iter().take(announced).all(|w| w.sent_over == connection.number) {
            *phase = Phase::Live;
            let end = NodeBuilder::new("offline").attr("count", announced.to_string());
            connection.send(information(end.build()));
            self.sends_new();
        }
    }

    /// The device could not read a message and asks its sender for it again: the server is done with this copy of it.
    pub(crate) fn asks_again(&mut self, id: &str) {
        if let Some(told) = self.acknowledged("message", id) {
            self.asked_again.insert(id.to_owned(), told);
        }
    }

    /// The device acknowledges a stanza. Returns what the observer is to be told of a message.
    pub(crate) fn acknowledged(&mut self, class: &str, id: &str) -> Option<Told> {
        let place = self.waiting.iter().position(|waiting| waiting.is(class, id))?;
        // While the device catches up, the announced ones are counted from the front.
        if let Some(LoggedIn { phase: Phase::CatchesUp { announced }, .. }) = self.current.as_mut()
            && place < *announced
        {
            *announced -= 1;
        }
        self.waiting.remove(place)?.told
    }

    /// Forgets everything: the device is no more.
    pub(crate) fn forgets(&mut self) {
        self.waiting.clear();
    }
}

/// An `<ib>` of the server.
pub(crate) fn information(child: Node) -> Node {
    NodeBuilder::new("ib").attr("from", SERVER_JID).children([child]).build()
}

impl Shared {
    /// Ends the stream of the device, if it is there. Returns whether it is.
    pub(crate) fn ends_stream(&self, refusal: &Refusal) -> bool {
        let ended = self.state().line.connection().inspect(|connection| connection.ends(refusal)).is_some();
        self.changed();
        ended
    }

    /// Breaks the connection of the device, if it has one.
    pub(crate) fn cuts(&self) {
        if let Some(connection) = self.state().line.connection() {
            connection.order(Order::Cut);
        }
    }

    /// Removes the device from the account.
    pub(crate) fn unlinks(&self) {
        let mut state = self.state();
        state.device = None;
        state.line.forgets();
        if let Some(connection) = state.line.connection() {
            connection.ends(&Refusal::Removed);
        }
        drop(state);
        self.changed();
    }

    /// The device acknowledges a stanza: the server does not hand it over again.
    pub(crate) fn acknowledged(&self, class: &str, id: &str) {
        let told = self.state().line.acknowledged(class, id);
        if let Some((chat, text)) = told {
            self.seen(Seen::Accepted { chat, id: id.to_owned(), text });
        }
        self.changed();
    }
}

/// Takes connections until it is aborted, and their sessions with it.
pub(crate) async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut sessions = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = sessions.join_next() => continue,
        };
        let Ok((stream, _)) = accepted else { continue };
        let _ = stream.set_nodelay(true);
        sessions.spawn(serve(stream, Arc::clone(&shared)));
    }
}

/// Serves a connection: the device's WebSocket, or HTTP for media.
async fn serve(stream: TcpStream, shared: Arc<Shared>) {
    let mut beginning = [0; 16];
    // A client writes the whole head of its request at once.
    let Ok(read) = stream.peek(&mut beginning).await else { return };
    if beginning[..read].starts_with(b"GET /ws/chat") {
        let error = session(stream, &shared).await;
        if let Err(WireError::Breach(breach)) = error {
            shared.violation(breach);
        }
    } else {
        media::serve(stream, shared).await;
    }
}

/// Takes the connection out of the state, however its task ends.
struct Closes<'a> {
    shared: &'a Shared,
    number: u64,
}

impl Drop for Closes<'_> {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        state.line.closes(self.number);
        state.pairing.closes(self.number);
        drop(state);
        self.shared.changed();
    }
}

async fn session(stream: TcpStream, shared: &Shared) -> Result<(), WireError> {
    let keys = shared.keys();
    let (mut wire, hello) = Wire::accept(stream, &keys).await?;
    let (sender, mut orders) = unbounded_channel();
    let connection = shared.state().line.opens(sender);
    let _closes = Closes { shared, number: connection.number };
    login::greets(shared, &connection, &hello)?;
    shared.changed();
    loop {
        tokio::select! {
            stanza = wire.next() => takes(shared, &connection, &stanza?)?,
            order = next(&mut orders) => match order {
                Order::Send(stanza) => wire.send(&stanza).await?,
                Order::Close => {
                    wire.close().await;
                    return Ok(());
                }
                Order::Cut => return Ok(()),
            },
        }
    }
}

/// The state keeps a sender for as long as the connection lives, and [`Connection`] one more.
async fn next(orders: &mut UnboundedReceiver<Order>) -> Order {
    orders.recv().await.unwrap_or(Order::Cut)
}

/// Takes a stanza of the device.
fn takes(shared: &Shared, connection: &Connection, stanza: &Node) -> Result<(), WireError> {
    if shared.state().line.is_logged_in(connection.number) {
        return queries::takes(shared, connection, stanza);
    }
    pairing::takes(shared, connection, stanza)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stanza::first;

    /// A device at the other end of a line: what the server orders its connections to do.
    struct Far(UnboundedReceiver<Order>);

    impl Far {
        fn logs_in(line: &mut Line) -> Self {
            let (sender, orders) = unbounded_channel();
            let connection = line.opens(sender);
            line.logs_in(&connection, false);
            Self(orders)
        }

        /// What arrived since the last look: ids of messages (with a mark for those that came late), else tags.
        fn gets(&mut self) -> Vec<String> {
            let mut got = Vec::new();
            while let Ok(order) = self.0.try_recv() {
                got.push(match order {
                    Order::Send(stanza) if stanza.tag == "message" => {
                        let late = if stanza.attrs.get("offline").is_some() { " late" } else { "" };
                        format!("{}{late}", attr(&stanza, "id"))
                    }
                    Order::Send(stanza) if stanza.tag == "ib" => {
                        let child = first(&stanza);
                        let count = child.map(|child| attr(child, "count")).unwrap_or_default();
                        format!("{} {count}", child.map(|child| &*child.tag).unwrap_or_default())
                    }
                    Order::Send(stanza) => stanza.tag.to_string(),
                    Order::Close => "end".to_owned(),
                    Order::Cut => "cut".to_owned(),
                });
            }
            got
        }
    }

    fn message(id: &str) -> Node {
        NodeBuilder::new("message").attr("id", id).build()
    }

    #[test]
    fn what_came_while_the_device_was_away_comes_in_order_and_what_comes_then_comes_after_it() {
        let mut line = Line::default();
        line.sends(message("a"), None);
        line.sends(message("b"), None);
        line.sends(message("c"), None);
        let mut device = Far::logs_in(&mut line);
        assert!(device.gets().is_empty(), "the device did not ask yet");
        line.becomes_active();
        assert_eq!(device.gets(), ["offline_preview 3"]);
        line.sends(message("d"), None);
        line.hands_over(2);
        assert_eq!(device.gets(), ["a late", "b late"]);
        line.acknowledged("message", "a");
        line.hands_over(2);
        assert_eq!(device.gets(), ["c late", "offline 2", "d"]);
        assert!(line.is_live());
    }

    #[test]
    fn a_message_comes_again_until_it_is_acknowledged_and_never_afterwards() {
        let mut line = Line::default();
        let mut device = Far::logs_in(&mut line);
        line.becomes_active();
        line.sends(message("a"), Some(("chat".to_owned(), "hello".to_owned())));
        line.sends(message("b"), None);
        assert_eq!(device.gets(), ["offline_preview 0", "offline 0", "a", "b"]);
        let told = Some(("chat".to_owned(), "hello".to_owned()));
        assert_eq!(line.acknowledged("receipt", "a"), None, "a receipt of that name is another thing");
        assert_eq!(line.acknowledged("message", "a"), told);
        assert_eq!(line.acknowledged("message", "a"), None, "the observer is told once");

        let mut again = Far::logs_in(&mut line);
        assert_eq!(device.gets(), ["stream:error", "end"], "a device has one connection");
        line.becomes_active();
        line.hands_over(200);
        assert_eq!(again.gets(), ["offline_preview 1", "b late", "offline 1"]);
        line.acknowledged("message", "b");
        assert!(line.is_empty());
    }

    #[test]
    fn the_observer_is_told_of_a_message_when_the_device_can_read_it() {
        let mut line = Line::default();
        let told = Some(("chat".to_owned(), "hello".to_owned()));
        line.sends(message("a"), told.clone());
        line.asks_again("a");
        assert!(line.is_empty());
        line.sends(message("a"), None);
        assert_eq!(line.acknowledged("message", "a"), told);
    }

    #[test]
    fn what_needs_no_acknowledgement_reaches_only_a_device_that_is_there() {
        let mut line = Line::default();
        let typing = || NodeBuilder::new("chatstate").build();
        line.sends(typing(), None);
        let mut device = Far::logs_in(&mut line);
        line.sends(typing(), None);
        line.becomes_active();
        assert_eq!(device.gets(), ["offline_preview 0", "offline 0"]);
        line.sends(typing(), None);
        assert_eq!(device.gets(), ["chatstate"]);
    }
}
