//! Turns what the library delivers into messages and events of the host. [`message::read`] decides and is pure; the
//! [`Reader`] looks up what it needs, and remembers it.

mod albums;
mod content;
mod files;
mod groups;
mod known;
mod message;
#[cfg(any(test, fuzzing))]
pub mod samples;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::oneshot;
use whatsapp_rust::types::durability_hook::InboundMessage;
use whatsapp_rust::types::events::{DecryptFailMode, Event, UndecryptableMessage};
use whatsapp_rust::types::message::MessageInfo;
use whatsapp_rust::wacore_binary::JidExt;
use whatsapp_rust::{Client, Jid};

use super::people::chat_of;
use crate::channels::Batch;
use crate::clock::Clock;
use crate::domain::ChatKind;
use crate::domain::message::{ChatEvent, Inbound};
use albums::Albums;
use known::Known;
use message::{News, Place};

/// How long the subjects of groups may take: a message waits for them once.
const TITLES_WITHIN: Duration = Duration::from_secs(5);
/// How long a message that could not be decrypted may take to come again. The library asks its sender for it.
const AGAIN_WITHIN: Duration = Duration::from_secs(60);
/// At most this many messages wait until their senders send them again. The host gives no line for further ones.
const AWAITED: usize = 1000;
const LATEST: usize = 256;
/// The host remembers of this many people that it has told their numbers.
const JOINED: usize = 4096;

/// Reads what comes in, for the life of a host.
pub(super) struct Reader {
    clock: Clock,
    state: Mutex<State>,
}

struct State {
    known: Known,
    albums: Albums,
    /// Messages that could not be decrypted and may come again.
    awaited: HashMap<Stanza, oneshot::Sender<()>>,
    /// The latest messages: one may come again before the host hears that it could not be decrypted.
    latest: VecDeque<Stanza>,
    /// LIDs whose chat is known under the phone number, and the message that told it.
    joined: HashMap<Jid, String>,
}

/// What identifies a message for the server.
type Stanza = (Jid, Jid, String);

fn stanza(info: &MessageInfo) -> Stanza {
    (info.source.chat.to_non_ad(), info.source.sender.to_non_ad(), info.id.clone())
}

impl Reader {
    pub fn new(clock: Clock) -> Self {
        let (known, albums) = (Known::new(), Albums::default());
        let (awaited, latest, joined) = (HashMap::new(), VecDeque::new(), HashMap::new());
        let state = State { known, albums, awaited, latest, joined };
        Self { clock, state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every use leaves the state consistent, so a poisoned lock is safe to use.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads decrypted messages, in their order. Reading the same messages again gives the same batch.
    pub async fn read(&self, client: &Client, messages: &[InboundMessage]) -> Batch {
        self.introduce(client);
        let read = messages.iter().filter(|m| message::not_for_us(&m.info).is_none());
        let mut people = Vec::new();
        for m in read.clone() {
            self.state().known.learn(&m.info);
            people.extend(message::people_in(&m.message, &m.info));
        }
        self.find_numbers(client, people).await;
        let rooms = read.clone().map(|m| m.info.source.chat.to_non_ad()).filter(JidExt::is_group);
        self.find_titles(client, rooms.collect()).await;
        let mut batch = self.convert(messages);
        for m in read {
            batch.events.extend(self.joined(client, &m.info).await);
        }
        batch
    }

    /// The part of [`Reader::read`] that needs no connection.
    fn convert(&self, messages: &[InboundMessage]) -> Batch {
        let mut batch = Batch::default();
        let mut state = self.state();
        let State { known, albums, awaited, latest, .. } = &mut *state;
        for m in messages {
            if let Some(waiting) = awaited.remove(&stanza(&m.info)) {
                let _ = waiting.send(());
            }
            latest.push_back(stanza(&m.info));
            if latest.len() > LATEST {
                latest.pop_front();
            }
            match message::read(&m.message, &m.info, known) {
                News::Message { inbound, .. } if inbound.version > 0 => {
                    batch.inbound.push(albums.changed(*inbound));
                }
                News::Message { inbound, album } => batch.inbound.push(albums.add(album, *inbound)),
                News::Ignored(why) => batch.count(&format!("whatsapp.ignored.{why}"), 1),
            }
        }
        batch
    }

    /// Reads what WhatsApp tells beside messages, such as a changed group; `None` for what the host does not use. For a
    /// message that could not be decrypted, [`Reader::still_unread`] must run, too.
    pub async fn read_event(&self, client: &Client, event: &Event) -> Option<Batch> {
        self.introduce(client);
        let batch = match event {
            // The hook has not seen messages that the phone has sent again.
            Event::Messages(batch) if !batch.hook_committed => self.read(client, &batch.messages).await,
            Event::GroupUpdate(update) => {
                self.find_numbers(client, groups::people_in(update)).await;
                groups::read(update, &mut self.state().known)
            }
            Event::ContactNumberChanged(change) => groups::number_changed(change, &mut self.state().known),
            Event::UndecryptableMessage(lost) => undecryptable(lost),
            _ => return None,
        };
        let empty = batch.inbound.is_empty() && batch.events.is_empty() && batch.counts.is_empty();
        (!empty).then_some(batch)
    }

    /// Waits until a message that could not be decrypted comes again, and returns a line in its place if it does not.
    /// Returns `None` at once for other events. It waits long, so it runs beside the reading of events.
    pub async fn still_unread(&self, event: &Event) -> Option<Batch> {
        let Event::UndecryptableMessage(lost) = event else { return None };
        if message::not_for_us(&lost.info).is_some() || lost.decrypt_fail_mode == DecryptFailMode::Hide {
            return None;
        }
        let for_the_phone = lost.unavailable_type.is_unrecoverable_fanout();
        if !for_the_phone && self.comes_again(stanza(&lost.info)).await {
            return None;
        }
        let text = if for_the_phone {
            "[a message that only the phone can show, such as a view-once picture]"
        } else {
            "[a message that could not be decrypted; its sender can send it again]"
        };
        let state = self.state();
        let place = Place::of(&lost.info, &state.known)?;
        let line = place.line(format!("{}#unread", place.id(&lost.info.id)), 0, text.to_owned());
        // In a direct chat, a person waits for an answer.
        let line = Inbound { service: line.kind == ChatKind::Room, ..line };
        Some(Batch { inbound: vec![line], ..Batch::default() })
    }

    async fn comes_again(&self, stanza: Stanza) -> bool {
        let (sender, came) = oneshot::channel();
        {
            let State { awaited, latest, .. } = &mut *self.state();
            if latest.contains(&stanza) {
                return true;
            }
            if awaited.len() >= AWAITED {
                // Somebody floods the account. The count and the log tell of it; no line goes to an agent.
                return true;
            }
            awaited.insert(stanza.clone(), sender);
        }
        let came = tokio::time::timeout(AGAIN_WITHIN, came).await;
        self.state().awaited.remove(&stanza);
        matches!(came, Ok(Ok(())))
    }

    /// Learns who the account is, and the time.
    fn introduce(&self, client: &Client) {
        let known = &mut self.state().known;
        known.me = [client.pn(), client.lid()].into_iter().flatten().collect();
        known.my_name = client.push_name();
        known.now = self.clock.wall();
    }

    /// Asks the library for phone numbers. It knows them from earlier messages, and asks nobody.
    async fn find_numbers(&self, client: &Client, people: Vec<Jid>) {
        for jid in people {
            if !self.state().known.lacks_number(&jid) {
                continue;
            }
            match client.get_lid_pn_entry(&Jid::lid(jid.user.clone())).await {
                Ok(Some(entry)) => self.state().known.same(&jid, &Jid::pn(&*entry.phone_number)),
                Ok(None) => {}
                Err(e) => {
                    tracing::warn!(
                        code = "whatsapp.number",
                        "the host could not look up the phone number of a person: {e}"
                    )
                }
            }
        }
    }

    /// Asks for the subjects of groups, once for each group.
    async fn find_titles(&self, client: &Client, rooms: HashSet<Jid>) {
        let rooms: Vec<Jid> = rooms.into_iter().filter(|room| self.state().known.lacks_title(room)).collect();
        let ask = async |room: &Jid| match client.groups().get_metadata(room).await {
            Ok(group) => self.state().known.titled(room, &group.subject),
            Err(e) => {
                tracing::warn!(code = "whatsapp.title", %room, "the host could not look up the name of a room: {e}")
            }
        };
        let _ = tokio::time::timeout(TITLES_WITHIN, join_all(rooms.iter().map(ask))).await;
        let known = &mut self.state().known;
        for room in &rooms {
            if known.lacks_title(room) {
                known.titled(room, "");
            }
        }
    }

    /// A chat that may be known by its LID is known by its number from now on. One message of each person tells it,
    /// each time that it is read: the host may have learnt the number in an earlier life, from another chat.
    async fn joined(&self, client: &Client, info: &MessageInfo) -> Option<ChatEvent> {
        let lid = info.source.sender.to_non_ad();
        if info.source.chat.is_group() || !lid.server.is_lid_family() {
            return None;
        }
        let entry = client.get_lid_pn_entry(&lid).await.ok().flatten()?;
        let first = {
            let joined = &mut self.state().joined;
            if joined.len() >= JOINED {
                // Telling it again changes nothing.
                joined.clear();
            }
            joined.entry(lid.clone()).or_insert_with(|| info.id.clone()) == &info.id
        };
        let (from, to) = (chat_of(&lid)?, chat_of(&Jid::pn(&*entry.phone_number))?);
        first.then_some(ChatEvent::Moved { from, to })
    }
}

fn undecryptable(lost: &UndecryptableMessage) -> Batch {
    let mut batch = Batch::default();
    batch.count("whatsapp.undecryptable", 1);
    tracing::warn!(
        code = "whatsapp.undecryptable",
        chat = %lost.info.source.chat, message = %lost.info.id,
        "the host could not decrypt a message; WhatsApp's library asks its sender for it again"
    );
    batch
}
