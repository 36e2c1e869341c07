//! Reads one decrypted message: pure, so that a fuzzer can call it.

use whatsapp_rust::Jid;
use whatsapp_rust::types::message::{MessageCategory, MessageInfo};
use whatsapp_rust::wacore_binary::JidExt;
use whatsapp_rust::waproto::whatsapp as wa;
use whatsapp_rust::waproto::whatsapp::message::protocol_message::Type;
use whatsapp_rust::waproto::whatsapp::message_association::AssociationType;

use super::super::people::{MessageId, chat_of, sender_of};
use super::content::{self, Fate};
use super::files;
use super::known::Known;
use crate::domain::message::{Addressee, Inbound, OfferedFile, ReplyTo, Sender};
use crate::domain::{ChatId, ChatKind};

/// A hostile message may mention more people; the rest stay numbers.
const MENTIONS: usize = 256;
/// The longest text of a reaction: an emoji with its skin tones and joiners.
const EMOJI: usize = 16;

/// What a message is for the host.
#[derive(Debug)]
pub(in super::super) enum News {
    Message {
        inbound: Box<Inbound>,
        /// The album that it is a part of.
        album: Option<String>,
    },
    /// It is counted under this name.
    Ignored(&'static str),
}

/// Reads a message. It does not change what is known.
pub(in super::super) fn read(message: &wa::Message, info: &MessageInfo, known: &Known) -> News {
    if let Some(why) = not_for_us(info) {
        return News::Ignored(why);
    }
    let Some(place) = Place::of(info, known) else { return News::Ignored("address") };
    let (message, belongs) = content::unwrapped(message);
    let present = content::present(message);
    let change = message.protocol_message.as_option();
    if let Some(change) = change {
        return place.change(change);
    }
    let album = match belongs.and_then(|b| b.association_type) {
        Some(AssociationType::MEDIA_ALBUM) => belongs.and_then(|b| b.parent_message_key.id.clone()),
        Some(
            AssociationType::HD_IMAGE_DUAL_UPLOAD
            | AssociationType::HD_VIDEO_DUAL_UPLOAD
            | AssociationType::HEVC_VIDEO_DUAL_UPLOAD
            | AssociationType::MOTION_PHOTO,
        ) => return News::Ignored("second_copy"),
        _ => None,
    };
    match place.inbound(message, &present, place.id(&info.id), 0) {
        Ok(inbound) => News::Message { inbound: Box::new(inbound), album },
        Err(why) => News::Ignored(why),
    }
}

/// The addresses whose phone numbers [`read`] looks up.
pub(super) fn people_in<'a>(message: &'a wa::Message, info: &'a MessageInfo) -> Vec<Jid> {
    let message = content::unwrapped(message).0;
    let change = message.protocol_message.as_option();
    let edited = change.and_then(|change| change.edited_message.as_option());
    let message = edited.map_or(message, |edited| content::unwrapped(edited).0);
    let context = content::context(message);
    let named = [
        change.and_then(|change| change.key.participant.as_ref()),
        message.reaction_message.key.participant.as_ref(),
        context.and_then(|context| context.participant.as_ref()),
    ];
    let mentioned = context.into_iter().flat_map(|context| &context.mentioned_jid).take(MENTIONS);
    let named = named.into_iter().flatten().chain(mentioned).filter_map(|jid| jid.parse().ok());
    std::iter::once(info.source.sender.clone()).chain(named).collect()
}

/// Says why the host reads nothing of a message, by who sent it and where.
pub(super) fn not_for_us(info: &MessageInfo) -> Option<&'static str> {
    let source = &info.source;
    match () {
        () if source.is_from_me => Some("own"),
        () if info.category == MessageCategory::Peer => Some("peer"),
        () if source.chat.is_status_broadcast() => Some("status"),
        () if source.chat.is_newsletter() => Some("newsletter"),
        () if source.sender.is_bot() => Some("bot"),
        () => None,
    }
}

/// Where a message stands, and who wrote it.
pub(super) struct Place<'a> {
    pub chat: ChatId,
    kind: ChatKind,
    title: String,
    sender: Sender,
    /// In a room: the sender, as the room writes it.
    author: Option<Jid>,
    info: &'a MessageInfo,
    known: &'a Known,
}

impl<'a> Place<'a> {
    /// A message to a broadcast list stands in the chat with its sender, as phones show it.
    pub fn of(info: &'a MessageInfo, known: &'a Known) -> Option<Self> {
        let source = &info.source;
        let sender = known.person(&source.sender);
        let name = known.name(&sender);
        let room = source.chat.is_group();
        let chat = chat_of(if room { &source.chat } else { &sender })?;
        Some(Self {
            chat,
            kind: if room { ChatKind::Room } else { ChatKind::Direct },
            title: if room { known.title(&source.chat.to_non_ad()) } else { name.clone() },
            sender: Sender { id: sender_of(&sender)?, name, is_bot: false },
            author: room.then(|| source.sender.to_non_ad()),
            info,
            known,
        })
    }

    pub fn id(&self, id: &str) -> String {
        MessageId { id: id.to_owned(), author: self.author.clone() }.to_string()
    }

    /// A line that stands for what is no message of a person.
    pub fn line(&self, message_id: String, version: i64, text: String) -> Inbound {
        Inbound {
            chat: self.chat.clone(),
            kind: self.kind,
            title: self.title.clone(),
            message_id,
            version,
            sender: self.sender.clone(),
            text,
            origin: None,
            service: true,
            reply_to: None,
            attachments: Vec::new(),
            addressee: Addressee::Anyone,
            at: self.known.time(self.info.timestamp.timestamp_millis()),
            press: None,
        }
    }

    /// The version of a change. The server's time has seconds, so that nobody's clock can put a change before an
    /// earlier one; `part` orders the changes within a second.
    fn version(&self, part: i64) -> i64 {
        self.info.timestamp.timestamp().max(1).saturating_mul(1000).saturating_add(part.rem_euclid(1000))
    }

    /// An edit or a deletion. Only the author changes a message: the id of the changed message holds who wrote it.
    fn change(&self, change: &wa::message::ProtocolMessage) -> News {
        let key = &change.key;
        let Some(id) = key.id.as_deref().filter(|id| !id.is_empty()) else {
            return News::Ignored("protocol_message");
        };
        let author: Option<Jid> = key.participant.as_ref().and_then(|author| author.parse().ok());
        let own = match &author {
            Some(author) => self.known.person(author) == self.known.person(&self.info.source.sender),
            None => key.from_me != Some(false),
        };
        match change.r#type {
            Some(Type::MESSAGE_EDIT) if own => {
                let (message, _) = content::unwrapped(&change.edited_message);
                let present = content::present(message);
                let version = self.version(change.timestamp_ms.unwrap_or_default());
                match self.inbound(message, &present, self.id(id), version) {
                    Ok(inbound) => News::Message { inbound: Box::new(inbound), album: None },
                    Err(why) => News::Ignored(why),
                }
            }
            Some(Type::MESSAGE_EDIT) => News::Ignored("edit_of_another"),
            Some(Type::REVOKE) if own => {
                let deleted = self.line(self.id(id), self.version(999), "[deleted this message]".to_owned());
                News::Message { inbound: Box::new(deleted), album: None }
            }
            // The message of another person stays what it was: the host does not know who administers a room.
            Some(Type::REVOKE) if self.kind == ChatKind::Room => {
                let whose = author.map_or_else(|| "somebody".to_owned(), |author| self.known.name(&author));
                let text = format!("[deleted a message of {whose}]");
                let line = self.line(self.id(&self.info.id), 0, text);
                News::Message { inbound: Box::new(line), album: None }
            }
            _ => News::Ignored("protocol_message"),
        }
    }

    /// A person's message, or why the host reads nothing of it.
    fn inbound(
        &self,
        message: &wa::Message,
        present: &[(&'static str, Fate)],
        message_id: String,
        version: i64,
    ) -> Result<Inbound, &'static str> {
        let context = content::context(message);
        let mentions = Mentions::of(context, self.known);
        let mut attachments = files::of(message, self.holder(&self.info.id, self.author.as_ref()));
        let mut parts: Vec<String> =
            content::said(message).map(|said| mentions.readable(said)).into_iter().collect();
        let nothing_else = parts.is_empty() && attachments.is_empty();
        let told = |field: &str, fate: Fate| match fate {
            Fate::Text | Fate::Service => true,
            Fate::File => nothing_else || field == "sticker_message",
            _ => false,
        };
        for (field, _) in present.iter().filter(|(field, fate)| told(field, *fate)) {
            parts.extend(match *field {
                "reaction_message" => Some(self.reaction(&message.reaction_message)),
                field => content::words(field, message),
            });
        }
        if parts.is_empty() && attachments.is_empty() {
            match present.iter().find(|(_, fate)| matches!(fate, Fate::Ignored(_))) {
                Some((field, _)) => return Err(field),
                None => parts.push(content::UNREADABLE.to_owned()),
            }
        }
        let has = |fates: &[Fate]| present.iter().any(|(_, fate)| fates.contains(fate));
        let origin = context.and_then(origin);
        let reply = context.and_then(|context| self.reply(context));
        let to_us = reply.as_ref().is_some_and(|reply| reply.to_us);
        let mentions_us = mentions.us && origin.is_none();
        if let Some(reply) = &reply {
            // The agent can look at what the person answers, even if it came before the agent did.
            let answered = reply.files.iter().cloned();
            attachments
                .extend(answered.map(|file| OfferedFile { name: format!("answered-{}", file.name), ..file }));
        }
        Ok(Inbound {
            origin,
            service: has(&[Fate::Service]) && !has(&[Fate::Text, Fate::File]),
            reply_to: reply.map(|reply| reply.quote),
            attachments,
            addressee: if to_us || mentions_us { Addressee::Us } else { Addressee::Anyone },
            ..self.line(message_id, version, parts.join("\n"))
        })
    }

    fn reaction(&self, reaction: &wa::message::ReactionMessage) -> String {
        let key = &reaction.key;
        let author: Option<Jid> = key.participant.as_ref().and_then(|author| author.parse().ok());
        let sender = self.known.person(&self.info.source.sender);
        let whose = match author.map(|author| self.known.person(&author)) {
            Some(author) if self.known.is_us(&author) => "your message".to_owned(),
            Some(author) if author == sender => "their own message".to_owned(),
            Some(author) => format!("a message of {}", self.known.name(&author)),
            None if key.from_me == Some(true) => "their own message".to_owned(),
            None => "your message".to_owned(),
        };
        let emoji = reaction.text.as_deref().unwrap_or_default().chars();
        match emoji.filter(|c| !c.is_control()).take(EMOJI).collect::<String>() {
            emoji if emoji.is_empty() => format!("[took back a reaction to {whose}]"),
            emoji => format!("[reacted {emoji} to {whose}]"),
        }
    }

    fn reply(&self, context: &wa::ContextInfo) -> Option<Reply> {
        let id = context.stanza_id.as_ref()?;
        let author: Option<Jid> = context.participant.as_ref().and_then(|author| author.parse().ok());
        let to_us = author.as_ref().is_some_and(|author| self.known.is_us(author));
        let quoted = content::unwrapped(&context.quoted_message).0;
        let from = author.as_ref().map_or_else(|| "somebody".to_owned(), |author| self.known.name(author));
        let elsewhere: Option<Jid> = context.remote_jid.as_ref().and_then(|chat| chat.parse().ok());
        if elsewhere.is_some_and(|chat| chat.is_status_broadcast()) {
            let quote = ReplyTo { from, text: "[a status]".to_owned(), message: None };
            return Some(Reply { quote, to_us, files: Vec::new() });
        }
        let room = self.kind == ChatKind::Room;
        let author = author.filter(|_| room && !to_us).map(|author| author.to_non_ad());
        let files = files::of(quoted, self.holder(id, author.as_ref()));
        let message = Some(MessageId { id: id.clone(), author }.to_string());
        Some(Reply { quote: ReplyTo { from, text: quoted_words(quoted, self.known), message }, to_us, files })
    }

    fn holder<'b>(&'b self, id: &'b str, author: Option<&'b Jid>) -> files::Holder<'b> {
        files::Holder { id, chat: &self.info.source.chat, author }
    }
}

/// A quote with what follows from it.
struct Reply {
    quote: ReplyTo,
    to_us: bool,
    files: Vec<OfferedFile>,
}

/// The words that a reply quotes: the text, and what stands for the content.
fn quoted_words(quoted: &wa::Message, known: &Known) -> String {
    let said = content::said(quoted).map(|said| Mentions::of(content::context(quoted), known).readable(said));
    let fields =
        content::present(quoted).into_iter().filter(|(_, fate)| matches!(fate, Fate::Text | Fate::File));
    let words = fields.filter_map(|(field, _)| content::words(field, quoted));
    said.into_iter().chain(words).collect::<Vec<_>>().join("\n")
}

/// Whose words a message carries, if not its sender's. WhatsApp names only channels.
fn origin(context: &wa::ContextInfo) -> Option<String> {
    let channel = context.forwarded_newsletter_message_info.newsletter_name.clone();
    let forwarded = context.is_forwarded == Some(true) || context.forwarding_score.unwrap_or_default() > 0;
    channel.or_else(|| forwarded.then(|| "somebody".to_owned()))
}

/// Whom a text mentions. It holds their numbers: `@491511234567`.
struct Mentions {
    /// The number in the text, the person's name, and whether it is the account.
    people: Vec<(String, String, bool)>,
    us: bool,
}

impl Mentions {
    fn of(context: Option<&wa::ContextInfo>, known: &Known) -> Self {
        let mentioned = context.into_iter().flat_map(|context| &context.mentioned_jid).take(MENTIONS);
        let people: Vec<_> = mentioned
            .filter_map(|jid| jid.parse::<Jid>().ok())
            .map(|jid| (jid.user.to_string(), known.name(&jid), known.is_us(&jid)))
            .collect();
        Self { us: people.iter().any(|(_, _, us)| *us), people }
    }

    /// The text with names in the place of numbers. A mention of the account before a command says only whom the
    /// command is for.
    fn readable(&self, text: &str) -> String {
        if let Some((who, rest)) = token(text.trim_start())
            && self.people.iter().any(|(number, _, us)| *us && number == who)
            && rest.trim_start().starts_with('/')
        {
            return self.readable(rest.trim_start());
        }
        let (mut out, mut rest) = (String::with_capacity(text.len()), text);
        while let Some(at) = rest.find('@') {
            let (before, from) = rest.split_at(at);
            out.push_str(before);
            rest = match token(from) {
                Some((who, after)) => {
                    let name = self.people.iter().find(|(number, ..)| number == who).map(|(_, name, _)| name);
                    out.push('@');
                    out.push_str(name.map_or(who, String::as_str));
                    after
                }
                None => {
                    out.push('@');
                    from.split_at(1).1
                }
            };
        }
        out + rest
    }
}

/// Splits `@123 hello` into the number and the rest.
fn token(text: &str) -> Option<(&str, &str)> {
    let digits = text.strip_prefix('@')?;
    let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    (end > 0).then(|| digits.split_at(end))
}
