//! What people's phones read: they decrypt what the device writes, show it, acknowledge it, and ask for it again if
//! they cannot decrypt it. They also see what is wrong with it.

use wacore_binary::builder::NodeBuilder;
use wacore_binary::{Jid, JidExt, Node, NodeContent};
use waproto::whatsapp as wa;

use crate::directory;
use crate::people::{Author, PRIMARY, Place};
use crate::phones::{self, MOST_RETRIES, Written, identity_of};
use crate::received::{self, Act, Content, Received, SentFile};
use crate::stanza::{attr, now};
use crate::{Seen, Shared, State};

/// The longest text that WhatsApp takes, in characters.
const LONGEST: usize = 65_536;

/// What becomes of a message of the device.
pub(crate) enum Verdict {
    /// Taken, with attributes of the acknowledgement.
    Accepted(Vec<(&'static str, String)>),
    /// Refused with an error code.
    Refused(u16),
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
    if !is_direct && attr(stanza, "addressing_mode") != state.people.mode(place) {
        return Err(421);
    }
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
    if count >= MOST_RETRIES {
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
            if let Some(stanza) = phones::sends_again(shared, receipt, &id) {
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

#[cfg(test)]
#[path = "reading_tests.rs"]
mod tests;
