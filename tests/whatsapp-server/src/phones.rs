//! What people's phones write: they encrypt for the device, and send a message again when the device asks for it.

use wacore::libsignal::protocol::{IdentityKey, PreKeyBundle, PublicKey, SignalProtocolError};
use wacore::messages::wrap_device_sent;
use wacore::send::{media_type_from_message, stanza_type_from_message};
use wacore_binary::builder::NodeBuilder;
use wacore_binary::{Jid, Node};
use waproto::whatsapp as wa;
use waproto::whatsapp::message::protocol_message::Type;

use crate::account::Device;
use crate::directory;
use crate::letters::Quote;
use crate::people::{Author, PRIMARY, Place, World, room_jid};
use crate::received::{self, Act};
use crate::signal::{Keys, Sealed};
use crate::stanza::now;
use crate::{Shared, State};

/// A phone asks for a message this often, and is asked for one this often.
pub(crate) const MOST_RETRIES: u8 = 5;

/// What a person wrote.
#[derive(Debug, Clone)]
pub(crate) struct Written {
    pub(crate) author: Author,
    pub(crate) place: Place,
    pub(crate) message: wa::Message,
    /// In seconds since 1970.
    pub(crate) at: u64,
    /// Whether the device cannot decrypt it when it first comes.
    pub(crate) garbled: bool,
    /// Whether the phone sends it no second time.
    pub(crate) never_again: bool,
}

impl Written {
    pub(crate) fn of(message: wa::Message) -> Self {
        let (author, place) = (Author::Phone, Place::Status);
        Self { author, place, message, at: now(), garbled: false, never_again: false }
    }

    /// The words of the message, for the observer.
    pub(crate) fn words(&self) -> &str {
        match received::act(&self.message) {
            Act::Writes(content) => content.raw,
            _ => "",
        }
    }
}

impl Shared {
    /// Sends a message of somebody to the device. Returns its id.
    pub(crate) fn writes(&self, author: Author, place: Place, written: Written) -> String {
        let mut state = self.state();
        let id = state.people.next_id();
        let written = Written { author, place, ..written };
        let text = written.words().to_owned();
        state.people.written.insert(id.clone(), written);
        // Without a device only the phone of the account gets it.
        match state.stanza(&id, None) {
            Ok(Some(stanza)) => {
                let chat = state.people.address(place);
                // Under the same lock: the key of a room must not be overtaken by what needs it.
                state.line.sends(stanza, Some((chat, text)));
            }
            Ok(None) => {}
            Err(e) => panic!("a phone cannot encrypt: {e}"),
        }
        drop(state);
        self.changed();
        id
    }

    /// Sends the device a message of the account's phone that belongs to no chat.
    pub(crate) fn writes_to_own_device(&self, message: wa::Message) -> String {
        let mut state = self.state();
        let id = state.people.next_id();
        let Some((keys, device)) = state.keys(Author::Phone) else { return id };
        let Ok(sealed) = seal(keys, device, &message) else { panic!("the account's phone cannot encrypt") };
        let stanza = NodeBuilder::new("message")
            .attr("from", state.account.jid.clone())
            .attr("id", id.clone())
            .attr("t", now().to_string())
            .attr("type", "protocol")
            .attr("category", "peer")
            .children([enc(&sealed, None, None)]);
        drop(state);
        self.to_device(stanza.build());
        id
    }

    /// Sends the device a message of a channel, which is not encrypted.
    pub(crate) fn posts_newsletter(&self, text: &str) {
        let message = crate::letters::text(text, None, &[]);
        let mut state = self.state();
        if state.device.is_none() {
            return;
        }
        let plain = NodeBuilder::new("plaintext").bytes(waproto::codec::message_to_vec(&message));
        let stanza = NodeBuilder::new("message")
            .attr("from", Jid::newsletter("120363000000009999"))
            .attr("id", state.people.next_id())
            .attr("server_id", "100")
            .attr("t", now().to_string())
            .attr("type", "text")
            .children([plain.build()]);
        drop(state);
        self.to_device(stanza.build());
    }

    /// Returns the account's address as the people of a chat know it.
    pub(crate) fn account_in(&self, place: Place) -> Jid {
        let state = self.state();
        if state.people.is_by_lid(place) { state.account.lid.clone() } else { state.account.jid.clone() }
    }

    /// Returns what an answer to a message of a person says about it.
    pub(crate) fn quote(&self, place: Place, id: &str) -> Option<Quote> {
        let state = self.state();
        let written = state.people.written.get(id)?;
        let author = state.names(written.author, state.people.is_by_lid(place)).0.to_non_ad();
        Some(Quote { id: id.to_owned(), author, text: written.words().to_owned() })
    }

    /// Returns the key by which `author` speaks of a message.
    pub(crate) fn key_of_message(&self, place: Place, id: &str, author: Author) -> wa::MessageKey {
        let state = self.state();
        let by_lid = state.people.is_by_lid(place);
        let wrote = state.people.written.get(id).map(|written| written.author);
        let names = |author| state.names(author, by_lid).0.to_non_ad();
        let is_own = wrote.is_some_and(|wrote| wrote.is_same_user_as(author));
        let (chat, participant) = match place {
            Place::Room(room) => (room_jid(room), Some(names(wrote.unwrap_or(Author::Phone)).to_string())),
            _ => (names(Author::Phone), None),
        };
        wa::MessageKey {
            remote_jid: Some(chat.to_string()),
            from_me: Some(is_own),
            id: Some(id.to_owned()),
            participant: participant.filter(|_| !is_own),
        }
    }
}

impl Author {
    fn is_same_user_as(self, other: Author) -> bool {
        match (self, other) {
            (Author::Phone, Author::Phone) => true,
            (Author::Person { index: a, .. }, Author::Person { index: b, .. }) => a == b,
            _ => false,
        }
    }
}

impl World {
    /// Whether a chat names people by LID.
    pub(crate) fn is_by_lid(&self, place: Place) -> bool {
        match place {
            Place::Direct(index) => self.people[index].by_lid_only,
            Place::Room(id) => self.rooms.get(&id).is_some_and(|room| room.by_lid),
            Place::Status => false,
        }
    }
}

impl World {
    /// How stanzas of a room say whether it names people by LID.
    pub(crate) fn mode(&self, place: Place) -> &'static str {
        if self.is_by_lid(place) { "lid" } else { "pn" }
    }
}

impl State {
    /// Returns the address of one device of somebody, and the other address of the same device if it may be told.
    pub(crate) fn names(&self, author: Author, by_lid: bool) -> (Jid, Option<Jid>) {
        match author {
            Author::Phone if by_lid => (self.account.lid.clone(), Some(self.account.jid.clone())),
            Author::Phone => (self.account.jid.clone(), Some(self.account.lid.clone())),
            Author::Person { index, device } => {
                let human = &self.people.people[index];
                let (pn, lid) = (human.pn().with_device(device), human.lid().with_device(device));
                if human.by_lid_only {
                    (lid, None)
                } else if by_lid {
                    (lid, Some(pn))
                } else {
                    (pn, Some(lid))
                }
            }
        }
    }

    /// Returns the keys of one device of somebody, and the device of the account that they write to.
    pub(crate) fn keys(&mut self, author: Author) -> Option<(&mut Keys, &mut Device)> {
        let device = self.device.as_mut()?;
        let keys = match author {
            Author::Phone => {
                self.people.phone.get_or_insert_with(|| Keys::new(self.account.identity.clone().into()))
            }
            Author::Person { index, device } => {
                self.people.people.get_mut(index)?.devices.get_mut(&device)?
            }
        };
        Some((keys, device))
    }

    /// Returns the stanza by which a message comes to the device, or `None` if no device is linked. `again` is the
    /// number of times that the device has asked for it.
    pub(crate) fn stanza(
        &mut self,
        id: &str,
        again: Option<u8>,
    ) -> Result<Option<Node>, SignalProtocolError> {
        let Some(written) = self.people.written.get(id).cloned() else { return Ok(None) };
        let by_lid = self.people.is_by_lid(written.place);
        let (name, other) = self.names(written.author, by_lid);
        let mut stanza = NodeBuilder::new("message").attr("id", id).attr("t", written.at.to_string());
        stanza = stanza.attr("type", stanza_type_from_message(&written.message));
        if let Author::Person { index, .. } = written.author {
            let human = &mut self.people.people[index];
            human.number_is_known |= !human.by_lid_only;
            stanza = stanza.attr("notify", human.name.clone());
        }
        if let Some(edit) = edit_of(&written.message) {
            stanza = stanza.attr("edit", edit);
        }
        let mut message = written.message.clone();
        match written.place {
            Place::Direct(index) => {
                if written.author == Author::Phone {
                    let recipient = self.names(Author::Person { index, device: PRIMARY }, by_lid).0;
                    message = wrap_device_sent(message, recipient.to_string());
                    stanza = stanza.attr("recipient", recipient);
                } else if let Some(other) = other {
                    stanza = stanza.attr(if name.is_lid() { "sender_pn" } else { "sender_lid" }, other);
                }
                stanza = stanza.attr("from", name);
            }
            Place::Room(_) | Place::Status => {
                let is_lid = name.is_lid();
                stanza = stanza.attr("from", written.place.jid()).attr("participant", name);
                if let Some(other) = other {
                    stanza = stanza.attr(if is_lid { "participant_pn" } else { "participant_lid" }, other);
                }
                if matches!(written.place, Place::Room(_)) {
                    stanza = stanza.attr("addressing_mode", self.people.mode(written.place));
                }
            }
        }
        let identity = directory::identity_of_companion(&self.people, written.author);
        let Some((keys, device)) = self.keys(written.author) else { return Ok(None) };
        let mut sealed = seal_written(keys, device, &written, &message, again)?;
        if written.garbled && (again.is_none() || written.never_again) {
            sealed.iter_mut().for_each(Sealed::garble);
        }
        let media = media_type_from_message(&written.message);
        let mut children: Vec<Node> = sealed.iter().map(|sealed| enc(sealed, media, again)).collect();
        if sealed.iter().any(|sealed| sealed.kind == "pkmsg") {
            children.extend(identity.map(|bytes| NodeBuilder::new("device-identity").bytes(bytes).build()));
        }
        Ok(Some(stanza.children(children).build()))
    }
}

impl Place {
    pub(crate) fn jid(self) -> Jid {
        match self {
            Place::Room(id) => room_jid(id),
            Place::Direct(_) | Place::Status => Jid::status_broadcast(),
        }
    }
}

/// Encrypts a message: for the device alone, or for the room, with the key of the room if the device does not have it.
fn seal_written(
    keys: &mut Keys,
    device: &mut Device,
    written: &Written,
    message: &wa::Message,
    again: Option<u8>,
) -> Result<Vec<Sealed>, SignalProtocolError> {
    if matches!(written.place, Place::Direct(_)) {
        return Ok(vec![seal(keys, device, message)?]);
    }
    let room = written.place.jid().to_string();
    if again.is_some() {
        let mut message = message.clone();
        message.sender_key_distribution_message = keys.key_of_room(&room)?.sender_key_distribution_message;
        return Ok(vec![seal(keys, device, &message)?]);
    }
    let mut sealed = Vec::new();
    if keys.shares_first(&room, &identity_of(device)?) {
        let key = keys.key_of_room(&room)?;
        sealed.push(seal(keys, device, &key)?);
    }
    sealed.push(keys.seals_for_room(&room, message)?);
    Ok(sealed)
}

fn seal(keys: &mut Keys, device: &mut Device, message: &wa::Message) -> Result<Sealed, SignalProtocolError> {
    let identity = identity_of(device)?;
    if !keys.knows(&identity) {
        keys.meets(&bundle_of(device)?)?;
    }
    keys.seals(&identity, message)
}

pub(crate) fn identity_of(device: &Device) -> Result<IdentityKey, SignalProtocolError> {
    Ok(IdentityKey::new(PublicKey::from_djb_public_key_bytes(&device.identity)?))
}

/// Takes what a phone needs to write to the device first. Each one-time prekey is given away once.
fn bundle_of(device: &mut Device) -> Result<PreKeyBundle, SignalProtocolError> {
    let prekey = match device.prekeys.pop_front() {
        Some((id, key)) => Some((id.into(), PublicKey::from_djb_public_key_bytes(&key)?)),
        None => None,
    };
    let signed = &device.signed_prekey;
    PreKeyBundle::new(
        device.registration_id,
        0.into(),
        prekey,
        signed.id.into(),
        PublicKey::from_djb_public_key_bytes(&signed.key)?,
        signed.signature.to_vec(),
        identity_of(device)?,
    )
}

fn enc(sealed: &Sealed, media: Option<&'static str>, again: Option<u8>) -> Node {
    let mut enc = NodeBuilder::new("enc").attr("v", "2").attr("type", sealed.kind);
    if let Some(media) = media {
        enc = enc.attr("mediatype", media);
    }
    if let Some(count) = again {
        enc = enc.attr("count", count.to_string());
    }
    enc.bytes(sealed.bytes.clone()).build()
}

/// The attribute of the stanza of an edit, of a deletion, and of a reaction that is taken back.
fn edit_of(message: &wa::Message) -> Option<&'static str> {
    let kind = message.protocol_message.as_option().and_then(|protocol| protocol.r#type);
    match kind {
        Some(Type::MessageEdit) => Some("1"),
        Some(Type::Revoke) => Some("7"),
        _ => {
            let reaction = message.reaction_message.as_option()?;
            reaction.text.as_deref().unwrap_or_default().is_empty().then_some("7")
        }
    }
}

/// Encrypts a message again for a device that could not decrypt it.
pub(crate) fn sends_again(shared: &Shared, receipt: &Node, id: &str) -> Option<Node> {
    let retry = receipt.get_optional_child("retry")?;
    let count = u8::try_from(retry.attrs().optional_u64("count")?).ok()?;
    let mut state = shared.state();
    let written = state.people.written.get(id)?;
    if written.never_again || count > MOST_RETRIES {
        return None;
    }
    let author = written.author;
    if let Some(keys) = receipt.get_optional_child("keys") {
        let bundle = directory::read_bundle(receipt, keys)?;
        state.keys(author)?.0.meets(&bundle).ok()?;
    }
    state.stanza(id, Some(count)).ok().flatten()
}

/// The device logs in for the first time after it was linked: its phone shares keys with it.
pub(crate) fn meets_device(shared: &Shared) {
    let share = shared.state().account.key_share();
    shared.writes_to_own_device(share);
}
