//! People, their phones, and the chats in which they write.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use wacore_binary::{Jid, JidExt};
use waproto::whatsapp as wa;

use crate::letters::{self, Quote};
use crate::media::Media;
use crate::phones::Written;
use crate::received::Received;
use crate::rooms::Room;
use crate::signal::Keys;
use crate::{Phone, Shared, WhatsAppServer};

pub(crate) use crate::directory::answers;
pub(crate) use crate::phones::meets_device;
pub(crate) use crate::reading::{Verdict, see, takes_message, takes_receipt};

/// A notice in a chat of `main` begins so when another chat asks to be admitted. [`Chat::hears`] ignores it, because
/// most journeys admit their chats in the terminal.
pub const ASKS: &str = "[lazaret] A chat asks to be admitted";

/// The account's phone has this device number, and every other first phone too.
pub(crate) const PRIMARY: u16 = 0;

/// What the people half of the server remembers.
#[derive(Default)]
pub(crate) struct World {
    pub(crate) people: Vec<Human>,
    pub(crate) rooms: BTreeMap<u64, Room>,
    pub(crate) media: Media,
    /// The account's phone has the identity of the account, so it is made when it is first needed.
    pub(crate) phone: Option<Keys>,
    /// What people wrote, by id.
    pub(crate) written: HashMap<String, Written>,
    pub(crate) received: Vec<(Place, Received)>,
    heard: HashMap<Place, usize>,
    pub(crate) typing: HashMap<Place, usize>,
    /// The device's reactions by chat and message.
    pub(crate) reactions: HashMap<(Place, String), String>,
    /// The messages of which the device has said that it read them.
    pub(crate) read: Vec<String>,
    /// How often a phone asked for a message again.
    pub(crate) asked: HashMap<(String, Author), u8>,
    next: u64,
}

/// A person as the server knows them.
pub(crate) struct Human {
    pub(crate) name: String,
    pub(crate) number: u64,
    pub(crate) lid: u64,
    /// Their devices. The first one is the phone.
    pub(crate) devices: BTreeMap<u16, Keys>,
    /// Whether the server names the person by LID only.
    pub(crate) by_lid_only: bool,
    /// Whether the server has ever told the device the person's number.
    pub(crate) number_is_known: bool,
}

/// A chat in the server's books. A person's number may change; the place stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Place {
    /// The chat with the person at this place of the list.
    Direct(usize),
    Room(u64),
    /// Everybody's status messages.
    Status,
}

/// One device of somebody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Author {
    /// The phone of the account.
    Phone,
    Person {
        index: usize,
        device: u16,
    },
}

impl Human {
    pub(crate) fn pn(&self) -> Jid {
        Jid::pn(self.number.to_string())
    }

    pub(crate) fn lid(&self) -> Jid {
        Jid::lid(self.lid.to_string())
    }
}

impl World {
    /// Returns an id as phones make them.
    pub(crate) fn next_id(&mut self) -> String {
        self.next += 1;
        format!("3A{:018X}", self.next)
    }

    /// Returns the person with this address.
    pub(crate) fn find(&self, jid: &Jid) -> Option<usize> {
        self.people
            .iter()
            .position(|human| human.pn().is_same_user_as(jid) || human.lid().is_same_user_as(jid))
    }

    /// Returns the address of a chat in the host.
    pub(crate) fn address(&self, place: Place) -> String {
        match place {
            Place::Direct(index) => {
                let human = &self.people[index];
                if human.by_lid_only && !human.number_is_known {
                    format!("whatsapp:{}", human.lid())
                } else {
                    format!("whatsapp:{}", human.number)
                }
            }
            Place::Room(id) => format!("whatsapp:{}", room_jid(id)),
            Place::Status => format!("whatsapp:{}", Jid::status_broadcast()),
        }
    }

    /// Returns the name of whoever has this address, for the text that people read.
    pub(crate) fn name_of(&self, jid: &Jid) -> Option<&str> {
        self.find(jid).map(|index| self.people[index].name.as_str())
    }

    fn shown(&self, place: Place) -> impl Iterator<Item = &Received> {
        self.received.iter().filter(move |(at, _)| *at == place).map(|(_, message)| message)
    }

    /// The messages of a chat that a test reads.
    fn heard(&self, place: Place) -> impl Iterator<Item = &Received> {
        self.shown(place).filter(|message| !message.raw.starts_with(ASKS))
    }
}

pub(crate) fn room_jid(id: u64) -> Jid {
    Jid::group(id.to_string())
}

/// A chat with one person, or a room.
#[derive(Clone)]
pub struct Chat {
    pub(crate) shared: Arc<Shared>,
    pub(crate) place: Place,
}

/// A person with a phone, or one device of the person.
#[derive(Clone)]
pub struct Person {
    shared: Arc<Shared>,
    pub(crate) index: usize,
    device: u16,
}

/// A file that a person sends, with the properties that the message states.
#[derive(Debug, Clone)]
pub struct Document {
    pub bytes: Vec<u8>,
    /// The stated size, if it is another one than that of `bytes`.
    pub claims: Option<u64>,
    pub name: String,
    pub mime: String,
}

impl Chat {
    /// Returns the chat's address in the host.
    pub fn address(&self) -> String {
        self.shared.state().people.address(self.place)
    }

    /// Waits for the device's next message in this chat. Returns the text that people read.
    pub async fn hears(&self) -> String {
        self.hears_message().await.text
    }

    /// Like [`Self::hears`]. Returns the whole message.
    pub async fn hears_message(&self) -> Received {
        let place = self.place;
        self.shared
            .wait_for(|state| {
                let world = &mut state.people;
                let from = world.heard.get(&place).copied().unwrap_or(0);
                let message = world.heard(place).nth(from)?.clone();
                world.heard.insert(place, from + 1);
                Some(message)
            })
            .await
    }

    /// Returns the device's messages in this chat that the test has not read yet.
    pub fn unheard(&self) -> Vec<String> {
        let world = &self.shared.state().people;
        let from = world.heard.get(&self.place).copied().unwrap_or(0);
        world.heard(self.place).skip(from).map(|message| message.text.clone()).collect()
    }

    /// Returns the texts of all messages of the device in this chat that it has not deleted.
    pub fn shows(&self) -> Vec<String> {
        self.messages().into_iter().map(|message| message.text).collect()
    }

    /// Like [`Self::shows`]. Returns the whole messages.
    pub fn messages(&self) -> Vec<Received> {
        self.shared.state().people.shown(self.place).filter(|message| !message.deleted).cloned().collect()
    }

    /// Waits until the chat shows a message of the device that contains `words`.
    pub async fn comes_to_show(&self, words: &str) -> Received {
        let here = |message: &&Received| !message.deleted && message.text.contains(words);
        self.shared.wait_for(|state| state.people.shown(self.place).find(here).cloned()).await
    }

    /// Waits until the chat shows that the device is typing.
    pub async fn sees_typing(&self) {
        self.shared.wait_for(|state| state.people.typing.get(&self.place).map(|_| ())).await;
    }

    /// Returns the device's reaction to a message, if there is one.
    pub fn reactions(&self, message_id: &str) -> Vec<String> {
        let reactions = &self.shared.state().people.reactions;
        reactions.get(&(self.place, message_id.to_owned())).cloned().into_iter().collect()
    }

    /// Waits until the device's reaction to a message is this one; an empty one waits until it is taken back.
    pub async fn comes_to_react(&self, message_id: &str, emoji: &str) {
        let key = (self.place, message_id.to_owned());
        let here =
            |world: &World| world.reactions.get(&key).map_or(emoji.is_empty(), |reaction| reaction == emoji);
        self.shared.wait_for(|state| here(&state.people).then_some(())).await;
    }

    /// Waits until the device has said that it read a message.
    pub async fn comes_to_be_read(&self, message_id: &str) {
        self.shared.wait_for(|state| state.people.read.iter().any(|id| id == message_id).then_some(())).await;
    }
}

impl Person {
    pub(crate) fn new(shared: Arc<Shared>, number: u64, name: &str) -> Self {
        let index = {
            let people = &mut shared.state().people.people;
            people.push(Human {
                name: name.to_owned(),
                number,
                lid: 900_000_000_000_000 + number,
                devices: BTreeMap::from([(PRIMARY, Keys::default())]),
                by_lid_only: false,
                number_is_known: false,
            });
            people.len() - 1
        };
        Self { shared, index, device: PRIMARY }
    }

    pub fn name(&self) -> String {
        self.shared.state().people.people[self.index].name.clone()
    }

    /// Returns the person's phone number.
    pub fn number(&self) -> u64 {
        self.shared.state().people.people[self.index].number
    }

    /// Returns the number by which WhatsApp names the person to those who do not know the phone number.
    pub fn lid(&self) -> u64 {
        self.shared.state().people.people[self.index].lid
    }

    /// Returns the person's own chat with the account.
    pub fn direct(&self) -> Chat {
        Chat { shared: Arc::clone(&self.shared), place: Place::Direct(self.index) }
    }

    /// Returns the same person at another device, which is added if the person does not have it yet.
    pub fn from_device(&self, device: u16) -> Person {
        self.shared.adds_device_of_person(self.index, device);
        Person { device, ..self.clone() }
    }

    /// Sets whether the server names the person by LID only, as it does if the person hides the number.
    pub fn by_lid_only(&self, only: bool) {
        self.shared.state().people.people[self.index].by_lid_only = only;
    }

    /// Writes a message. Returns the message's id.
    pub fn says(&self, chat: &Chat, text: &str) -> String {
        self.writes(chat, letters::text(text, None, &[]))
    }

    /// Writes a message that begins with a mention of the account.
    pub fn mentions_device(&self, chat: &Chat, text: &str) -> String {
        let account = self.shared.account_in(chat.place);
        self.writes(chat, letters::text(&format!("@{} {text}", account.user), None, &[account]))
    }

    /// Answers a message of the device.
    pub fn answers(&self, chat: &Chat, to: &Received, text: &str) -> String {
        let quote =
            Quote { id: to.id.clone(), author: self.shared.account_in(chat.place), text: to.raw.clone() };
        self.writes(chat, letters::text(text, Some(quote), &[]))
    }

    /// Answers a message that a person wrote.
    pub fn answers_person(&self, chat: &Chat, message_id: &str, text: &str) -> String {
        let Some(quote) = self.shared.quote(chat.place, message_id) else {
            panic!("nobody wrote {message_id}")
        };
        self.writes(chat, letters::text(text, Some(quote), &[]))
    }

    /// Replaces the text of an earlier message of the person.
    pub fn edits(&self, chat: &Chat, message_id: &str, text: &str) {
        let key = self.key_of_own(chat, message_id);
        self.writes(chat, letters::edit(key, letters::text(text, None, &[])));
    }

    /// Deletes an earlier message of the person for everybody.
    pub fn deletes(&self, chat: &Chat, message_id: &str) {
        let key = self.key_of_own(chat, message_id);
        self.writes(chat, letters::deletion(key));
    }

    /// Reacts to a message of anybody; an empty reaction takes an earlier one back.
    pub fn reacts(&self, chat: &Chat, message_id: &str, emoji: &str) {
        let key = self.shared.key_of_message(chat.place, message_id, self.author());
        self.writes(chat, letters::reaction(key, emoji));
    }

    /// Sends a picture.
    pub fn shows(&self, chat: &Chat, picture: &[u8], caption: &str) -> String {
        let message = letters::picture(&mut self.shared.state().people.media, picture, caption);
        self.writes(chat, message)
    }

    /// Sends several pictures at once: WhatsApp announces an album and sends each picture as a message of its own, the
    /// caption with the first. Returns the ids of the announcement and of the pictures.
    pub fn shows_album(&self, chat: &Chat, pictures: &[Vec<u8>], caption: &str) -> Vec<String> {
        let album = self.writes(chat, letters::album(pictures.len()));
        let mut ids = vec![album.clone()];
        for (at, picture) in pictures.iter().enumerate() {
            let caption = if at == 0 { caption } else { "" };
            let parent = self.shared.key_of_message(chat.place, &album, self.author());
            let mut message = letters::picture(&mut self.shared.state().people.media, picture, caption);
            letters::joins_album(&mut message, parent, at);
            ids.push(self.writes(chat, message));
        }
        ids
    }

    /// Sends a voice message.
    pub fn speaks(&self, chat: &Chat, recording: &[u8]) -> String {
        let message = letters::voice(&mut self.shared.state().people.media, recording);
        self.writes(chat, message)
    }

    /// Sends a file with a caption.
    pub fn sends(&self, chat: &Chat, document: &Document, caption: &str) -> String {
        let message = letters::document(&mut self.shared.state().people.media, document, caption);
        self.writes(chat, message)
    }

    /// Sends a video with a caption.
    pub fn films(&self, chat: &Chat, video: &Document, caption: &str) -> String {
        let message = letters::video(&mut self.shared.state().people.media, video, caption);
        self.writes(chat, message)
    }

    /// Passes on what somebody else wrote.
    pub fn forwards(&self, chat: &Chat, text: &str) -> String {
        self.writes(chat, letters::forwarded(text))
    }

    /// Sends a message of any kind.
    pub fn writes(&self, chat: &Chat, message: wa::Message) -> String {
        self.shared.writes(self.author(), chat.place, Written::of(message))
    }

    /// Sends a message of a kind that no program of today knows.
    pub fn sends_unknown_kind(&self, chat: &Chat) -> String {
        self.writes(chat, letters::unknown_kind())
    }

    /// Sends what the device cannot decrypt, however often it asks for it again.
    pub fn sends_undecryptable(&self, chat: &Chat) -> String {
        let written =
            Written { garbled: true, never_again: true, ..Written::of(letters::text("lost", None, &[])) };
        self.shared.writes(self.author(), chat.place, written)
    }

    /// Writes a message that the device cannot decrypt when it first comes. The phone sends it again when it is asked.
    pub fn says_garbled(&self, chat: &Chat, text: &str) -> String {
        let written = Written { garbled: true, ..Written::of(letters::text(text, None, &[])) };
        self.shared.writes(self.author(), chat.place, written)
    }

    /// Writes a message at another time, in seconds since 1970.
    pub fn says_with_clock(&self, chat: &Chat, text: &str, at: u64) -> String {
        let written = Written { at, ..Written::of(letters::text(text, None, &[])) };
        self.shared.writes(self.author(), chat.place, written)
    }

    /// Posts a status message, which all who know the person see.
    pub fn posts_status(&self, text: &str) -> String {
        self.shared.writes(self.author(), Place::Status, Written::of(letters::text(text, None, &[])))
    }

    /// The key of a message of the person, also of one that the device never got.
    fn key_of_own(&self, chat: &Chat, message_id: &str) -> wa::MessageKey {
        let key = self.shared.key_of_message(chat.place, message_id, self.author());
        wa::MessageKey { from_me: Some(true), participant: None, ..key }
    }

    fn author(&self) -> Author {
        Author::Person { index: self.index, device: self.device }
    }
}

impl Phone {
    /// Writes in a chat. The device gets a copy, as each device of an account does.
    pub fn writes(&self, chat: &Chat, text: &str) -> String {
        self.shared.writes(Author::Phone, chat.place, Written::of(letters::text(text, None, &[])))
    }

    /// Hands the device what the phone remembers of its chats.
    pub fn syncs_history(&self) -> String {
        self.shared.writes_to_own_device(letters::history())
    }

    /// Posts in a channel that the account follows.
    pub fn reads_newsletter(&self, text: &str) {
        self.shared.posts_newsletter(text);
    }
}

impl WhatsAppServer {
    /// Lets every file of people be gone, as after some weeks; or lets them be there again.
    pub fn files_expire(&self, expired: bool) {
        self.shared.state().people.media.expires(expired);
    }

    /// Returns the number of files that the device has downloaded.
    pub fn downloads(&self) -> usize {
        self.shared.state().people.media.fetched().len()
    }
}
