//! What the device wrote, as people's phones show it.

use wacore::download::MediaType;
use waproto::whatsapp as wa;
use waproto::whatsapp::message::protocol_message::Type;

use crate::media::Stored;

/// A message of the device, as people's phones show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    pub id: String,
    /// The chat's address in the host.
    pub chat: String,
    /// The text that people read, without markup and with the names of those whom it mentions. A file's name follows in
    /// brackets.
    pub text: String,
    /// The text that the device sent.
    pub raw: String,
    pub file: Option<SentFile>,
    /// The id of the message that it quotes.
    pub quotes: Option<String>,
    /// The JIDs of those whom it mentions.
    pub mentions: Vec<String>,
    /// The number of edits.
    pub edits: u32,
    /// How often a message with this id came. Phones show the first one.
    pub copies: u32,
    /// Whether the device deleted it for everybody.
    pub deleted: bool,
}

/// A file as phones show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SentFile {
    pub kind: FileKind,
    pub name: String,
    pub mime: String,
    pub bytes: Vec<u8>,
}

/// The message by which a file comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    Picture,
    Video,
    Audio,
    /// A voice message.
    Voice,
    Document,
}

/// What a message does to a chat.
#[derive(Debug)]
pub(crate) enum Act<'a> {
    Writes(Content<'a>),
    Edits {
        id: &'a str,
        content: Content<'a>,
    },
    Deletes {
        id: &'a str,
    },
    Reacts {
        id: &'a str,
        emoji: &'a str,
    },
    /// Nothing that people see.
    Nothing,
    /// Something that the phone does not know.
    Unknown,
}

/// The words and the file of a message.
#[derive(Debug, Default)]
pub(crate) struct Content<'a> {
    pub(crate) raw: &'a str,
    pub(crate) file: Option<FileOf<'a>>,
    pub(crate) context: Option<&'a wa::ContextInfo>,
}

/// What a message says about its file.
#[derive(Debug)]
pub(crate) struct FileOf<'a> {
    pub(crate) kind: FileKind,
    pub(crate) media: MediaType,
    pub(crate) name: &'a str,
    pub(crate) mime: &'a str,
    pub(crate) stored: Stored,
}

/// Reads what a message does.
pub(crate) fn act(message: &wa::Message) -> Act<'_> {
    let message = unwrapped(message);
    if let Some(protocol) = message.protocol_message.as_option() {
        let id = protocol.key.as_option().and_then(|key| key.id.as_deref());
        return match (protocol.r#type, id, protocol.edited_message.as_option()) {
            // The first value is the default, which need not be written.
            (Some(Type::Revoke) | None, Some(id), _) => Act::Deletes { id },
            (Some(Type::MessageEdit), Some(id), Some(edited)) => match content(unwrapped(edited)) {
                Some(content) => Act::Edits { id, content },
                None => Act::Unknown,
            },
            _ => Act::Nothing,
        };
    }
    if let Some(reaction) = message.reaction_message.as_option() {
        let id = reaction.key.as_option().and_then(|key| key.id.as_deref());
        return id.map_or(Act::Unknown, |id| Act::Reacts {
            id,
            emoji: reaction.text.as_deref().unwrap_or_default(),
        });
    }
    match content(message) {
        Some(content) => Act::Writes(content),
        None if message.sender_key_distribution_message.is_set() => Act::Nothing,
        None => Act::Unknown,
    }
}

/// Removes the wrappers around a message.
fn unwrapped(message: &wa::Message) -> &wa::Message {
    let wrapper = [
        &message.ephemeral_message,
        &message.document_with_caption_message,
        &message.view_once_message,
        &message.view_once_message_v2,
        &message.edited_message,
    ];
    let inner = wrapper.into_iter().find_map(|wrapper| wrapper.as_option()?.message.as_option());
    inner.map_or(message, unwrapped)
}

fn content(message: &wa::Message) -> Option<Content<'_>> {
    if let Some(text) = &message.conversation {
        return Some(Content { raw: text, ..Content::default() });
    }
    if let Some(text) = message.extended_text_message.as_option() {
        let (raw, context) = (text.text.as_deref().unwrap_or_default(), text.context_info.as_option());
        return Some(Content { raw, file: None, context });
    }
    macro_rules! file {
        ($of:expr, $kind:expr, $media:expr, $name:expr, $caption:expr) => {
            Content {
                raw: $caption,
                file: Some(FileOf {
                    kind: $kind,
                    media: $media,
                    name: $name,
                    mime: $of.mimetype.as_deref().unwrap_or_default(),
                    stored: Stored {
                        path: $of.direct_path.clone().unwrap_or_default(),
                        key: $of.media_key.clone().unwrap_or_default(),
                        digest: $of.file_sha256.clone().unwrap_or_default(),
                        sealed_digest: $of.file_enc_sha256.clone().unwrap_or_default(),
                        length: $of.file_length.unwrap_or_default(),
                    },
                }),
                context: $of.context_info.as_option(),
            }
        };
    }
    if let Some(of) = message.image_message.as_option() {
        let caption = of.caption.as_deref().unwrap_or_default();
        return Some(file!(of, FileKind::Picture, MediaType::Image, "picture", caption));
    }
    if let Some(of) = message.video_message.as_option() {
        let caption = of.caption.as_deref().unwrap_or_default();
        return Some(file!(of, FileKind::Video, MediaType::Video, "video", caption));
    }
    if let Some(of) = message.audio_message.as_option() {
        let kind = if of.ptt == Some(true) { FileKind::Voice } else { FileKind::Audio };
        return Some(file!(of, kind, MediaType::Audio, "audio", ""));
    }
    if let Some(of) = message.document_message.as_option() {
        let caption = of.caption.as_deref().unwrap_or_default();
        let name = of.file_name.as_deref().unwrap_or_default();
        return Some(file!(of, FileKind::Document, MediaType::Document, name, caption));
    }
    None
}

/// Removes WhatsApp's markup, as phones do: pairs of marks around words, code, and marks at the beginning of a line.
pub(crate) fn as_read(raw: &str) -> String {
    let mut read = String::with_capacity(raw.len());
    let mut rest = raw;
    // Nothing is markup inside a block of code.
    while let Some((before, after)) = rest.split_once("```") {
        let Some((code, after)) = after.split_once("```").filter(|(code, _)| !code.is_empty()) else { break };
        read.push_str(&lines_as_read(before));
        read.push_str(code.trim_matches('\n'));
        rest = after;
    }
    read.push_str(&lines_as_read(rest));
    read
}

fn lines_as_read(text: &str) -> String {
    let lines = text.split('\n').map(|line| spans_as_read(line.strip_prefix("> ").unwrap_or(line)));
    lines.collect::<Vec<_>>().join("\n")
}

fn spans_as_read(line: &str) -> String {
    let chars: Vec<char> = line.chars().collect();
    let mut read = String::with_capacity(line.len());
    let mut at = 0;
    while at < chars.len() {
        let mark = chars[at];
        let Some(end) = end_of_span(&chars, at) else {
            read.push(mark);
            at += 1;
            continue;
        };
        let inner: String = chars[at + 1..end].iter().collect();
        read.push_str(&if mark == '`' { inner } else { spans_as_read(&inner) });
        at = end + 1;
    }
    read
}

/// Returns the place of the mark that ends the span that begins here. A span begins and ends at the edge of a word.
fn end_of_span(chars: &[char], at: usize) -> Option<usize> {
    let mark = chars[at];
    let is_word =
        |place: Option<usize>| place.and_then(|p| chars.get(p)).is_some_and(|c| c.is_alphanumeric());
    let is_space = |place: usize| chars.get(place).is_none_or(|c| c.is_whitespace());
    if !"*_~`".contains(mark)
        || is_word(at.checked_sub(1))
        || is_space(at + 1)
        || chars.get(at + 1) == Some(&mark)
    {
        return None;
    }
    (at + 2..chars.len()).find(|end| chars[*end] == mark && !is_space(end - 1) && !is_word(Some(end + 1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phones_show_text_without_its_markup() {
        for (raw, read) in [
            ("plain", "plain"),
            ("*bold* and _italic_, ~gone~", "bold and italic, gone"),
            ("*_both_*", "both"),
            ("`code *x*` and *b*", "code *x* and b"),
            ("```\nlet a = *b*;\n``` *c*", "let a = *b*; c"),
            ("> quoted\n> *twice*", "quoted\ntwice"),
            ("2 * 3 * 4 and snake_case_name", "2 * 3 * 4 and snake_case_name"),
            ("* not bold* and *not closed", "* not bold* and *not closed"),
            ("(*bold*)", "(bold)"),
            ("``", "``"),
            ("", ""),
        ] {
            assert_eq!(as_read(raw), read, "{raw}");
        }
    }

    #[test]
    fn phones_know_what_a_message_does() {
        let text = wa::Message { conversation: Some("hello".into()), ..wa::Message::default() };
        assert!(matches!(act(&text), Act::Writes(Content { raw: "hello", file: None, .. })));
        let wrapped = wa::Message {
            ephemeral_message: wa::message::FutureProofMessage { message: text.clone().into() }.into(),
            ..wa::Message::default()
        };
        assert!(matches!(act(&wrapped), Act::Writes(Content { raw: "hello", .. })));
        let key = wa::MessageKey { id: Some("A1".into()), ..wa::MessageKey::default() };
        let mut protocol = wa::message::ProtocolMessage {
            key: key.clone().into(),
            r#type: Some(Type::MessageEdit),
            edited_message: text.into(),
            ..wa::message::ProtocolMessage::default()
        };
        let edit = wa::Message { protocol_message: protocol.clone().into(), ..wa::Message::default() };
        assert!(matches!(act(&edit), Act::Edits { id: "A1", content: Content { raw: "hello", .. } }));
        protocol.r#type = Some(Type::Revoke);
        let deletion = wa::Message { protocol_message: protocol.into(), ..wa::Message::default() };
        assert!(matches!(act(&deletion), Act::Deletes { id: "A1" }));
        let reaction =
            wa::message::ReactionMessage { key: key.into(), text: Some("👍".into()), ..Default::default() };
        let reaction = wa::Message { reaction_message: reaction.into(), ..wa::Message::default() };
        assert!(matches!(act(&reaction), Act::Reacts { id: "A1", emoji: "👍" }));
        assert!(matches!(act(&wa::Message::default()), Act::Unknown));
    }
}
