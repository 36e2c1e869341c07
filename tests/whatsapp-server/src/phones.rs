//! What people's phones do with messages: they encrypt for the device, decrypt what it writes, acknowledge it, and send
//! a message again when the device asks for it.

use wacore::libsignal::protocol::{IdentityKey, PreKeyBundle, PublicKey, SignalProtocolError};
use wacore::messages::wrap_device_sent;
use wacore::send::{media_type_from_message, stanza_type_from_message};
use wacore_binary::builder::NodeBuilder;
use wacore_binary::{Jid, JidExt, Node, NodeContent};
use waproto::whatsapp as wa;
use waproto::whatsapp::message::protocol_message::Type;

use crate::account::Device;
use crate::directory;
use crate::letters::Quote;
use crate::people::{Author, PRIMARY, Place, World, room_jid};
use crate::received::{self, Act, Content, Received, SentFile};
use crate::signal::{Keys, Sealed};
use crate::stanza::now;
use crate::{Seen, Shared, State};

/// The longest text that WhatsApp takes, in characters.
const LONGEST: usize = 65_536;
/// A phone asks for a message this often, and is asked for one this often.
const ASKS: u8 = 5;

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
    fn words(&self) -> &str {
        match received::act(&self.message) {
            Act::Writes(content) => content.raw,
            _ => "",
        }
    }
}

/// What becomes of a message of the device.
pub(crate) enum Verdict {
    /// Taken, with attributes of the acknowledgement.
    Accepted(Vec<(&'static str, String)>),
    /// Refused with an error code.
    Refused(u16),
}

impl Shared {
    /// Sends a message of somebody to the device. Returns its id.
    pub(crate) fn writes(&self, author: Author, place: Place, written: Written) -> String {
        let mut state = self.state();
        let id = state.people.next_id();
        let written = Written { author, place, ..written };
        let text = written.words().to_owned();
        state.people.written.insert(id.clone(), written);
        let stanza = state.stanza(&id, None);
        let chat = state.people.address(place);
        drop(state);
        // Without a device only the phone of the account gets it.
        match stanza {
            Ok(Some(stanza)) => self.message_to_device(stanza, &chat, &text),
            Ok(None) => {}
            Err(e) => panic!("a phone cannot encrypt: {e}"),
        }
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

    /// Returns the stanza by which a message comes to the device, or `None` if no device is linked. `again` is the number
    /// of times that the device has asked for it.
    fn stanza(&mut self, id: &str, again: Option<u8>) -> Result<Option<Node>, SignalProtocolError> {
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
                    stanza = stanza.attr("addressing_mode", if by_lid { "lid" } else { "pn" });
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
    fn jid(self) -> Jid {
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

/// What is done when the state is no longer locked.
#[derive(Default)]
struct Results {
    seen: Vec<Seen>,
    stanzas: Vec<Node>,
    violations: Vec<String>,
}

impl Results {
    fn breach(&mut self, what: impl Into<String>) {
        self.violations.push(what.into());
    }

    fn perform(self, shared: &Shared) {
        self.seen.into_iter().for_each(|seen| shared.seen(seen));
        self.stanzas.into_iter().for_each(|stanza| shared.to_device(stanza));
        self.violations.into_iter().for_each(|what| shared.violation(what));
        shared.changed();
    }
}

/// Hands a `<message>` of the device to people's phones.
pub(crate) fn takes_message(shared: &Shared, message: &Node) -> Verdict {
    let mut results = Results::default();
    let verdict = take(&mut shared.state(), message, &mut results);
    results.perform(shared);
    match verdict {
        Ok(()) => Verdict::Accepted(Vec::new()),
        Err(code) => Verdict::Refused(code),
    }
}

fn take(state: &mut State, stanza: &Node, results: &mut Results) -> Result<(), u16> {
    let mut attrs = stanza.attrs();
    let (Some(to), Some(id)) = (attrs.optional_jid("to"), attrs.optional_string("id")) else {
        results.breach("a message without an address or an id");
        return Err(400);
    };
    let Some(place) = place_of(state, &to)? else {
        // The account's phone reads it.
        opened(state, None, &to, stanza, results);
        return Ok(());
    };
    let copies = sealed_copies(stanza, &to);
    let is_direct = matches!(place, Place::Direct(_));
    let is_mixed = |copy: &Copy| copy.to.server != to.server && !state.is_account(&copy.to);
    if is_direct && copies.iter().any(is_mixed) {
        results.breach(format!("a message to {to} that names devices in another way"));
        return Err(400);
    }
    // A stanza with a count goes to one device that asked for the message again.
    let is_again = copies.iter().any(|copy| copy.again);
    let repeated = state.people.received.iter_mut().find(|(at, known)| *at == place && known.id == *id);
    let is_repeat = repeated.is_some();
    if let Some((_, known)) = repeated.filter(|_| !is_again) {
        known.copies += 1;
    }
    let Some(message) = opened(state, Some(place), &to, stanza, results) else { return Ok(()) };
    if !is_repeat {
        show(state, place, &id, &message, results);
    }
    Ok(())
}

/// Finds the chat that a message of the device goes to; `None` is the account itself.
fn place_of(state: &State, to: &Jid) -> Result<Option<Place>, u16> {
    if to.is_group() {
        let id = to.user.parse().map_err(|_| 400_u16)?;
        let room = state.people.rooms.get(&id).ok_or(404_u16)?;
        return if room.has_account { Ok(Some(Place::Room(id))) } else { Err(403) };
    }
    if state.is_account(to) {
        return Ok(None);
    }
    state.people.find(to).map(|index| Some(Place::Direct(index))).ok_or(404)
}

/// One encrypted copy of a message.
struct Copy<'a> {
    to: Jid,
    kind: String,
    bytes: &'a [u8],
    again: bool,
}

/// Returns the copies that are for one device each.
fn sealed_copies<'a>(stanza: &'a Node, to: &Jid) -> Vec<Copy<'a>> {
    let each =
        stanza.get_optional_child("participants").into_iter().flat_map(|all| all.get_children_by_tag("to"));
    let each = each.filter_map(|one| Some((one.attrs().optional_jid("jid")?, one)));
    let alone = stanza.attrs().optional_jid("participant").unwrap_or_else(|| to.clone());
    each.chain([(alone, stanza)])
        .flat_map(|(to, node)| node.get_children_by_tag("enc").map(move |enc| (to.clone(), enc)))
        .filter_map(|(to, enc)| {
            let Some(NodeContent::Bytes(bytes)) = &enc.content else { return None };
            let kind = enc.attrs().optional_string("type")?.into_owned();
            Some(Copy { to, kind, bytes, again: enc.attrs.contains_key("count") })
        })
        .collect()
}

impl State {
    pub(crate) fn is_account(&self, jid: &Jid) -> bool {
        self.account.jid.is_same_user_as(jid) || self.account.lid.is_same_user_as(jid)
    }

    pub(crate) fn author_of(&self, jid: &Jid) -> Option<Author> {
        if self.is_account(jid) {
            return (jid.device == PRIMARY).then_some(Author::Phone);
        }
        let index = self.people.find(jid)?;
        let has = self.people.people[index].devices.contains_key(&jid.device);
        has.then_some(Author::Person { index, device: jid.device })
    }
}

/// Decrypts a message at each device that it is for. Returns it as the first device of a person reads it.
fn opened(
    state: &mut State,
    place: Option<Place>,
    to: &Jid,
    stanza: &Node,
    results: &mut Results,
) -> Option<wa::Message> {
    let id = stanza.attrs().optional_string("id").unwrap_or_default().into_owned();
    let copies = sealed_copies(stanza, to);
    let identity = state.device.as_ref().and_then(|device| identity_of(device).ok())?;
    if copies.iter().any(|copy| copy.kind == "pkmsg") {
        directory::check_identity(state, stanza).unwrap_or_else(|what| results.breach(what));
    }
    let mut read: Option<wa::Message> = None;
    let mut readers: Vec<(Author, Jid, bool)> = Vec::new();
    for copy in copies.iter().filter(|copy| copy.kind != "skmsg") {
        let Some(author) = state.author_of(&copy.to) else { continue };
        let Some((keys, _)) = state.keys(author) else { continue };
        let message = keys.opens(&identity, &copy.kind, copy.bytes);
        readers.push((author, copy.to.clone(), message.is_ok()));
        match message {
            Ok(message) if author == Author::Phone => check_copy_for_phone(&message, place, results),
            Ok(message) if !matches!(received::act(&message), Act::Nothing) => {
                read.get_or_insert(message);
            }
            Ok(_) | Err(_) => {}
        }
    }
    if let (Some(Place::Room(room)), Some(copy)) = (place, copies.iter().find(|copy| copy.kind == "skmsg")) {
        readers.clear();
        for (author, jid) in state.members(room) {
            let Some((keys, _)) = state.keys(author) else { continue };
            let message = keys.opens_for_room(&identity, &to.to_string(), copy.bytes);
            readers.push((author, jid, message.is_ok()));
            if let (Ok(message), Author::Person { .. }) = (message, author) {
                read.get_or_insert(message);
            }
        }
    }
    let room = place.filter(|place| matches!(place, Place::Room(_))).map(|_| to);
    for (author, jid, has_read) in readers {
        if has_read {
            results.stanzas.extend(receipt(author, &jid, room, &id));
        } else {
            results.stanzas.extend(asks_again(state, author, &jid, room, &id));
        }
    }
    read
}

fn check_copy_for_phone(message: &wa::Message, place: Option<Place>, results: &mut Results) {
    if matches!(place, Some(Place::Direct(_))) && !message.device_sent_message.is_set() {
        results.breach("the copy for the account's phone does not say where it goes");
    }
}

/// Says that a phone got a message. The account's own devices say nothing.
fn receipt(author: Author, jid: &Jid, room: Option<&Jid>, id: &str) -> Option<Node> {
    let Author::Person { device: PRIMARY, .. } = author else { return None };
    Some(receipt_from(jid, room, id).build())
}

fn receipt_from(jid: &Jid, room: Option<&Jid>, id: &str) -> NodeBuilder {
    let receipt = NodeBuilder::new("receipt").attr("id", id).attr("t", now().to_string());
    match room {
        Some(room) => receipt.attr("from", room).attr("participant", jid),
        None => receipt.attr("from", jid),
    }
}

/// Asks for a message that a phone could not decrypt. From the second time on the phone sends its keys with it.
fn asks_again(state: &mut State, author: Author, jid: &Jid, room: Option<&Jid>, id: &str) -> Option<Node> {
    let Author::Person { .. } = author else { return None };
    let count = state.people.asked.entry((id.to_owned(), author)).or_default();
    *count += 1;
    let count = *count;
    if count >= ASKS {
        return None;
    }
    let retry = NodeBuilder::new("retry")
        .attr("v", "1")
        .attr("id", id)
        .attr("count", count.to_string())
        .attr("t", now().to_string());
    let identity = directory::identity_of_companion(&state.people, author);
    let (keys, _) = state.keys(author)?;
    let user = directory::bundle_node(jid.clone(), keys, identity)?;
    let (registration, keys): (Vec<Node>, Vec<Node>) =
        user.into_iter().partition(|node| node.tag == "registration");
    let mut children = vec![retry.build()];
    children.extend(registration);
    if count > 1 {
        children.push(NodeBuilder::new("keys").children(keys).build());
    }
    Some(receipt_from(jid, room, id).attr("type", "retry").children(children).build())
}

/// Does what a message of the device does to its chat.
fn show(state: &mut State, place: Place, id: &str, message: &wa::Message, results: &mut Results) {
    let chat = state.people.address(place);
    let delivered = |id: &str, text: &str, edit| {
        let (chat, id, text) = (chat.clone(), id.to_owned(), text.to_owned());
        Seen::Delivered { chat, id, text, edit }
    };
    match received::act(message) {
        Act::Writes(content) => {
            let shown = received_of(state, place, id, &content, results);
            results.seen.push(delivered(id, &shown.text, false));
            state.people.received.push((place, shown));
        }
        Act::Edits { id, content } => {
            let edited = received_of(state, place, id, &content, results);
            let known = state.people.received.iter_mut().find(|(at, known)| *at == place && known.id == id);
            let Some((_, known)) = known else {
                return results.breach("an edit of a message that is not there");
            };
            (known.text, known.raw) = (edited.text, edited.raw);
            known.edits += 1;
            results.seen.push(delivered(id, &known.text, true));
        }
        Act::Deletes { id } => {
            let known = state.people.received.iter_mut().find(|(at, known)| *at == place && known.id == id);
            let Some((_, known)) = known else {
                return results.breach("a deletion of a message that is not there");
            };
            known.deleted = true;
        }
        Act::Reacts { id, emoji } => {
            if let Err(what) = check_reaction(state, place, message) {
                return results.breach(what);
            }
            let key = (place, id.to_owned());
            if emoji.is_empty() {
                state.people.reactions.remove(&key);
            } else {
                state.people.reactions.insert(key, emoji.to_owned());
            }
        }
        Act::Nothing => {}
        Act::Unknown => results.breach("a message of a kind that phones do not know"),
    }
}

/// Phones ignore a reaction whose key does not name the message as they do.
fn check_reaction(state: &State, place: Place, message: &wa::Message) -> Result<(), String> {
    let key = message.reaction_message.as_option().and_then(|reaction| reaction.key.as_option());
    let Some((key, id)) = key.and_then(|key| Some((key, key.id.as_deref()?))) else {
        return Err("a reaction to nothing".into());
    };
    let own = state.people.received.iter().any(|(at, known)| *at == place && known.id == id);
    let wrote =
        state.people.written.get(id).filter(|written| written.place == place).map(|written| written.author);
    if !own && wrote.is_none() {
        return Err("a reaction to a message that is not there".into());
    }
    if key.from_me.unwrap_or(false) != (own || wrote == Some(Author::Phone)) {
        return Err("a reaction that says wrongly who wrote the message".into());
    }
    let chat: Option<Jid> = key.remote_jid.as_deref().and_then(|jid| jid.parse().ok());
    let is_here = match place {
        Place::Direct(index) => chat.is_some_and(|jid| state.people.find(&jid) == Some(index)),
        place => chat.is_some_and(|jid| jid == place.jid()),
    };
    let participant: Option<Jid> = key.participant.as_deref().and_then(|jid| jid.parse().ok());
    let is_author = match (place, wrote) {
        (Place::Room(_), Some(Author::Person { index, .. })) => {
            participant.is_some_and(|jid| state.people.find(&jid) == Some(index))
        }
        _ => true,
    };
    if is_here && is_author {
        Ok(())
    } else {
        Err("a reaction that names another chat or another author".into())
    }
}

/// Reads a message as phones show it.
fn received_of(
    state: &State,
    place: Place,
    id: &str,
    content: &Content<'_>,
    results: &mut Results,
) -> Received {
    let raw = content.raw.to_owned();
    if raw.chars().count() > LONGEST {
        results.breach("a text that is too long");
    }
    if raw.is_empty() && content.file.is_none() {
        results.breach("an empty message");
    }
    let mentions = content.context.map(|context| context.mentioned_jid.clone()).unwrap_or_default();
    let mut text = received::as_read(&raw);
    for jid in mentions.iter().filter_map(|jid| jid.parse::<Jid>().ok()) {
        if let Some(name) = state.people.name_of(&jid) {
            text = text.replace(&format!("@{}", jid.user), &format!("@{name}"));
        }
    }
    let quotes = content.context.and_then(|context| context.stanza_id.clone());
    if let Some(quoted) = &quotes {
        check_quote(state, place, quoted, content.context).unwrap_or_else(|what| results.breach(what));
    }
    let file = content.file.as_ref().map(|file| {
        let bytes = state.people.media.opens(&file.stored, file.media).unwrap_or_else(|what| {
            results.breach(format!("a message with a file that nobody can open: {what}"));
            Vec::new()
        });
        SentFile { kind: file.kind, name: file.name.to_owned(), mime: file.mime.to_owned(), bytes }
    });
    if let Some(file) = &file {
        text = format!("{text} [file {}]", file.name).trim_start().to_owned();
    }
    let (edits, copies, deleted) = (0, 1, false);
    let chat = state.people.address(place);
    Received { id: id.to_owned(), chat, text, raw, file, quotes, mentions, edits, copies, deleted }
}

/// Phones show a quote with the name of its author.
fn check_quote(
    state: &State,
    place: Place,
    id: &str,
    context: Option<&wa::ContextInfo>,
) -> Result<(), String> {
    let named: Option<Jid> = context.and_then(|c| c.participant.as_deref()).and_then(|jid| jid.parse().ok());
    let Some(named) = named else { return Err("a quote without its author".into()) };
    let author = match state.people.written.get(id).filter(|written| written.place == place) {
        Some(Written { author: Author::Person { index, .. }, .. }) => Some(*index),
        Some(Written { author: Author::Phone, .. }) => None,
        None if state.people.received.iter().any(|(at, known)| *at == place && known.id == id) => None,
        None => return Err("a quote of a message that is not there".into()),
    };
    let is_right = match author {
        Some(index) => state.people.find(&named) == Some(index),
        None => state.is_account(&named),
    };
    if is_right && named.device == PRIMARY {
        Ok(())
    } else {
        Err(format!("a quote that {named} did not write"))
    }
}

/// Takes a `<receipt>` of the device: it asks for a message again, or says that it read one.
pub(crate) fn takes_receipt(shared: &Shared, receipt: &Node) {
    let mut attrs = receipt.attrs();
    let kind = attrs.optional_string("type").unwrap_or_default();
    let Some(id) = attrs.optional_string("id") else { return shared.violation("a receipt without an id") };
    match &*kind {
        "retry" => {
            if let Some(stanza) = sends_again(shared, receipt, &id) {
                shared.to_device(stanza);
            }
        }
        "read" => {
            let list = receipt
                .get_optional_child("list")
                .into_iter()
                .flat_map(|list| list.get_children_by_tag("item"));
            let ids = list.filter_map(|item| item.attrs().optional_string("id").map(|id| id.into_owned()));
            let ids: Vec<String> = ids.chain([id.into_owned()]).collect();
            shared.state().people.read.extend(ids);
        }
        _ => {}
    }
    shared.changed();
}

fn sends_again(shared: &Shared, receipt: &Node, id: &str) -> Option<Node> {
    let retry = receipt.get_optional_child("retry")?;
    let count = u8::try_from(retry.attrs().optional_u64("count")?).ok()?;
    let mut state = shared.state();
    let written = state.people.written.get(id)?;
    if written.never_again || count > ASKS {
        return None;
    }
    let author = written.author;
    if let Some(keys) = receipt.get_optional_child("keys") {
        let bundle = directory::read_bundle(receipt, keys)?;
        state.keys(author)?.0.meets(&bundle).ok()?;
    }
    state.stanza(id, Some(count)).ok().flatten()
}

/// Takes a `<chatstate>` of the device: people see that it types. A `<presence>` changes nothing here.
pub(crate) fn see(shared: &Shared, stanza: &Node) {
    if stanza.tag != "chatstate" {
        return;
    }
    let Some(to) = stanza.attrs().optional_jid("to") else {
        return shared.violation("a chat state for nobody");
    };
    if stanza.get_optional_child("composing").is_some() {
        let mut state = shared.state();
        if let Ok(Some(place)) = place_of(&state, &to) {
            *state.people.typing.entry(place).or_default() += 1;
        }
    }
    shared.changed();
}

/// The device logs in for the first time after it was linked: its phone shares keys with it.
pub(crate) fn meets_device(shared: &Shared) {
    let share = shared.state().account.key_share();
    shared.writes_to_own_device(share);
}
