//! Sends a part as a message, as a placeholder, or as the text of a placeholder, and classifies Telegram's errors
//! (<https://core.telegram.org/bots/api#sendmessage>, <https://core.telegram.org/bots/api#editmessagetext>).

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use super::api::{self, ApiError};
use super::html::{read_html, write_html};
use super::rendered_part::RenderedPart;
use super::split::{CAPTION_UNITS, TEXT_UNITS};
use super::{Telegram, address, buttons, update};
use crate::channels::SendError;
use crate::channels::markdown::{RichText, is_visible, units};
use crate::domain::outbound::{Part, SpooledFile};
use crate::text;

impl Telegram {
    pub(super) async fn send_part(&self, part: &Part) -> Result<String, SendError> {
        self.say("sendMessage", placed(part), part).await
    }

    pub(super) async fn send_placeholder(&self, part: &Part) -> Result<String, SendError> {
        let mut ask = placed(part);
        ask["text"] = json!(text::placeholder());
        let sent: Result<update::Sent, _> = self.api.call("sendMessage", &ask, api::QUICK).await;
        sent.map(|sent| sent.message_id.to_string()).map_err(|e| meaning(e, part))
    }

    pub(super) async fn fill_placeholder(&self, part: &Part, placeholder: &str) -> Result<(), SendError> {
        let mut ask = address(&part.chat);
        // Telegram takes no topic id in an edit: the message determines its topic.
        if let Some(ask) = ask.as_object_mut() {
            ask.remove("message_thread_id");
        }
        ask["message_id"] = json!(placeholder.parse::<i64>().unwrap_or(0));
        self.say("editMessageText", ask, part).await.map(|_| ())
    }

    /// Sends HTML first. If Telegram refuses the buttons, words take their place. If it refuses the text, sends plain
    /// text, because the text matters more than its formatting, and then only its beginning.
    async fn say(&self, method: &str, mut ask: Value, part: &Part) -> Result<String, SendError> {
        if let Some(choices) = &part.choices {
            ask["reply_markup"] = buttons::keyboard(part, choices);
        }
        let RenderedPart { html, plain } =
            RenderedPart::of(part.voice, &part.text, part.markup.as_deref(), TEXT_UNITS);
        ask["link_preview_options"] = json!({ "is_disabled": true });
        let mut refusal = match self.say_once(method, &mut ask, &html, true).await {
            Err(e) if part.choices.is_some() && buttons::refuses_buttons(&e) => {
                tracing::warn!(chat = %part.chat, code = "telegram.buttons", "sent without buttons: {e}");
                if let Some(ask) = ask.as_object_mut() {
                    ask.remove("reply_markup");
                }
                return Box::pin(self.say(method, ask, &part.in_words())).await;
            }
            Err(e) if is_about(&e, About::Text) => e,
            sent => return sent.map_err(|e| meaning(e, part)),
        };
        tracing::warn!(chat = %part.chat, code = "telegram.text", "sent as plain text: {refusal}");
        let plain = RichText::plain(plain);
        let mut tried = usize::MAX;
        for most in SMALLER {
            let (beginning, rest) = plain.cut(most);
            // A text that fits is the same one as before.
            if beginning.text.len() == tried {
                continue;
            }
            tried = beginning.text.len();
            match self.say_once(method, &mut ask, &beginning.text, false).await {
                Ok(receipt) if !is_visible(&rest.text) => return Ok(receipt),
                Ok(receipt) => {
                    return Err(SendError::Partly {
                        why: refusal.to_string(),
                        receipt,
                        rest: write_html(&rest),
                    });
                }
                Err(e) if is_about(&e, About::Text) => refusal = e,
                Err(e) => return Err(meaning(e, part)),
            }
        }
        Err(meaning(refusal, part))
    }

    async fn say_once(
        &self,
        method: &str,
        ask: &mut Value,
        text: &str,
        html: bool,
    ) -> Result<String, ApiError> {
        ask["text"] = json!(text);
        ask["parse_mode"] = json!("HTML");
        if let (false, Some(ask)) = (html, ask.as_object_mut()) {
            ask.remove("parse_mode");
        }
        match self.api.call::<update::Sent>(method, ask, api::QUICK).await {
            // An earlier edit arrived although its answer was lost.
            Err(e) if is_about(&e, About::Unchanged) => Ok(ask["message_id"].to_string()),
            sent => sent.map(|sent| sent.message_id.to_string()),
        }
    }
}

/// Where a part goes: its chat and topic, and the message that it quotes. That message may have been deleted meanwhile.
/// An id from before the chat's move to a supergroup names no message of the new chat; no number of it is left.
fn placed(part: &Part) -> Value {
    let mut ask = address(&part.chat);
    if let Some(message) = part.quotes.as_deref().and_then(|id| id.parse::<i64>().ok()) {
        ask["reply_parameters"] = json!({ "message_id": message, "allow_sending_without_reply": true });
    }
    ask
}

/// The lengths that are tried one after the other when Telegram refuses a text. What is refused now is no matter of
/// the documented limit, so the last one is small.
const SMALLER: [usize; 3] = [TEXT_UNITS, TEXT_UNITS / 2, TEXT_UNITS / 8];

/// File names that Telegram takes as photos.
const PICTURES: [&str; 3] = [".jpg", ".jpeg", ".png"];
/// The largest photo that Telegram takes, in bytes.
const PICTURE_MAX: u64 = 10 << 20;

impl Telegram {
    /// Sends a picture as a photo and any other file as a document. It decides by the name only; the host does not
    /// parse the file.
    pub(super) async fn upload_part(
        &self,
        part: &Part,
        file: &SpooledFile,
        path: &Path,
    ) -> Result<String, SendError> {
        let name = file.name.to_lowercase();
        let is_picture = file.bytes <= PICTURE_MAX && PICTURES.iter().any(|ending| name.ends_with(ending));
        let sent = match is_picture {
            true => match self.upload("sendPhoto", "photo", part, file, path).await {
                // The file is no picture, or it has dimensions that Telegram does not show.
                Err(e) if is_about(&e, About::Other) => {
                    tracing::info!(chat = %part.chat, code = "telegram.picture", "sent as a document: {e}");
                    self.upload("sendDocument", "document", part, file, path).await
                }
                sent => sent,
            },
            false => self.upload("sendDocument", "document", part, file, path).await,
        };
        match sent.map_err(|e| meaning(e, part))? {
            (receipt, None) => Ok(receipt),
            (receipt, Some(rest)) => {
                let why = "Telegram does not take the caption below the file".to_owned();
                Err(SendError::Partly { why, receipt, rest })
            }
        }
    }

    /// Sends a file with its caption as HTML, or as plain text, or without it. Returns a caption that was left out.
    async fn upload(
        &self,
        method: &str,
        field: &'static str,
        part: &Part,
        file: &SpooledFile,
        path: &Path,
    ) -> Result<(String, Option<String>), ApiError> {
        let RenderedPart { html, plain } =
            RenderedPart::of(part.voice, &part.text, part.markup.as_deref(), CAPTION_UNITS);
        let fits = |text: &str| is_visible(text) && units(text) <= CAPTION_UNITS;
        let captions = [
            fits(&read_html(&html).text).then_some((&html, Some("HTML"))),
            fits(&plain).then_some((&plain, None)),
        ];
        for (caption, mode) in captions.into_iter().flatten() {
            let mut ask = placed(part);
            ask["caption"] = json!(caption);
            if let Some(mode) = mode {
                ask["parse_mode"] = json!(mode);
            }
            match self.api.upload::<update::Sent>(method, &ask, field, (path, &file.name)).await {
                Err(e) if is_about(&e, About::Text) => {
                    tracing::warn!(chat = %part.chat, code = "telegram.text", "the caption is refused: {e}");
                }
                sent => return sent.map(|sent| (sent.message_id.to_string(), None)),
            }
        }
        let ask = placed(part);
        let sent: update::Sent = self.api.upload(method, &ask, field, (path, &file.name)).await?;
        Ok((sent.message_id.to_string(), is_visible(&plain).then_some(html)))
    }
}

/// What a refusal with status 400 is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum About {
    Text,
    Chat,
    /// The placeholder: somebody has deleted it.
    Deleted,
    /// The placeholder can no longer be edited.
    Frozen,
    /// The message has this text already.
    Unchanged,
    Other,
}

/// The words of Telegram's descriptions. They differ in case between methods and versions.
const ABOUT: [(About, &[&str]); 5] = [
    (About::Unchanged, &["message is not modified", "message_not_modified"]),
    (About::Deleted, &["message to edit not found", "message_id_invalid", "message not found"]),
    (About::Frozen, &["message can't be edited", "message_edit_time_expired"]),
    (
        About::Chat,
        &[
            "chat not found",
            "user not found",
            "peer_id_invalid",
            "chat_id is empty",
            "group chat was deactivated",
            "group chat was upgraded to a supergroup",
            "chat is deactivated",
            "message thread not found",
            "topic_deleted",
            "topic_closed",
            "chat_write_forbidden",
            "have no rights to send a message",
            "not enough rights to send text messages",
        ],
    ),
    (
        About::Text,
        &[
            "can't parse entities",
            "can't parse message text",
            "can't parse caption",
            "entities_too_long",
            "entity_bounds_invalid",
            "entity_mention",
            "message text is empty",
            "text must be non-empty",
            "message_empty",
            "message is too long",
            "message_too_long",
            "text is too long",
            "caption is too long",
            "caption_too_long",
            "must be encoded in utf-8",
        ],
    ),
];

/// Tells by the description what a refusal is about: the Bot API gives no finer code than 400.
fn about(what: &str) -> About {
    let what = what.to_ascii_lowercase();
    let found = ABOUT.iter().find(|(_, known)| known.iter().any(|words| what.contains(words)));
    found.map_or(About::Other, |(about, _)| *about)
}

pub(super) fn is_about(error: &ApiError, expected: About) -> bool {
    matches!(error, ApiError::Refused { code: 400, what, .. } if about(what) == expected)
}

/// Classifies an error for the part: above all, whether the part may have arrived.
fn meaning(error: ApiError, part: &Part) -> SendError {
    match error {
        ApiError::Moved { what, to } => match format!("telegram:{to}").parse() {
            Ok(to) => SendError::Moved { why: what, to },
            Err(_) => SendError::Gone { why: what },
        },
        ApiError::Refused { code: 500.., what, .. } => {
            SendError::Cut { why: format!("Telegram is in trouble: {what}") }
        }
        ApiError::Refused { code: 403, what, .. } => SendError::Gone { why: what },
        ApiError::Refused { code: 400, what, retry_after: None } => match about(&what) {
            About::Chat => SendError::Gone { why: what },
            About::Deleted => SendError::Lost { why: what, stands: false },
            About::Frozen => SendError::Lost { why: what, stands: true },
            About::Text | About::Unchanged | About::Other => SendError::Refused { why: what },
        },
        // The file is too large for Telegram, and a retry would not change that.
        ApiError::Refused { code: 413, what, .. } => SendError::Refused { why: what },
        ApiError::Garbage { why, status: 413 } if part.file.is_some() => SendError::Refused { why },
        ApiError::Unreadable { why } => SendError::Refused { why },
        // A 404 without more concerns the token, as a 401 does. The part can be sent once the token is fixed.
        ApiError::Refused { code, what, retry_after } => {
            let after = retry_after.map(|after| after.max(Duration::from_secs(1)));
            if code != 429 {
                tracing::warn!(chat = %part.chat, code = "telegram.refused", "Telegram refuses the call itself: {what} ({code})");
            }
            SendError::NotArrived { why: format!("{what} ({code})"), after }
        }
        ApiError::Unreachable { why, written: false } => SendError::NotArrived { why, after: None },
        ApiError::Unreachable { why, written: true } => SendError::Cut { why },
        ApiError::Garbage { why, status: 400..500 } => SendError::NotArrived { why, after: None },
        ApiError::Garbage { why, .. } => SendError::Cut { why },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(code: u16, what: &str, after: Option<u64>) -> &'static str {
        let retry_after = after.map(Duration::from_secs);
        meaning(ApiError::Refused { code, what: what.into(), retry_after }, &Part::for_tests("telegram:5", 1))
            .code()
    }

    #[test]
    fn each_refusal_says_whether_the_part_may_have_arrived() {
        for (code, what, expected) in [
            (400, "Bad Request: message is too long", "delivery.refused"),
            (400, "Bad Request: chat not found", "delivery.unreachable"),
            (400, "Bad Request: message thread not found", "delivery.unreachable"),
            (400, "Bad Request: group chat was upgraded to a supergroup chat", "delivery.unreachable"),
            (400, "Bad Request: not enough rights to send text messages to the chat", "delivery.unreachable"),
            (401, "Unauthorized", "delivery.later"),
            (403, "Forbidden: bot was kicked from the supergroup chat", "delivery.unreachable"),
            (403, "Forbidden: bot was blocked by the user", "delivery.unreachable"),
            (404, "Not Found", "delivery.later"),
            (429, "Too Many Requests: retry after 7", "delivery.later"),
            (500, "Internal Server Error", "delivery.cut"),
            (502, "Bad Gateway", "delivery.cut"),
        ] {
            assert_eq!(refused(code, what, None), expected, "{code} {what}");
        }
        let asked = ApiError::Refused {
            code: 429,
            what: "Too Many Requests".into(),
            retry_after: Some(Duration::from_secs(7)),
        };
        let SendError::NotArrived { after, .. } = meaning(asked, &Part::for_tests("telegram:5", 1)) else {
            panic!()
        };
        assert_eq!(after, Some(Duration::from_secs(7)));
    }

    #[test]
    fn a_refusal_says_what_it_is_about() {
        for (what, expected) in [
            ("Bad Request: can't parse entities: Unsupported start tag \"x\" at byte offset 3", About::Text),
            ("Bad Request: message text is empty", About::Text),
            ("Bad Request: text must be non-empty", About::Text),
            ("Bad Request: message is too long", About::Text),
            ("Bad Request: MESSAGE_TOO_LONG", About::Text),
            ("Bad Request: ENTITIES_TOO_LONG", About::Text),
            ("Bad Request: ENTITY_BOUNDS_INVALID", About::Text),
            ("Bad Request: message caption is too long", About::Text),
            ("Bad Request: MEDIA_CAPTION_TOO_LONG", About::Text),
            ("Bad Request: strings must be encoded in UTF-8", About::Text),
            ("Bad Request: message to edit not found", About::Deleted),
            ("Bad Request: message can't be edited", About::Frozen),
            ("Bad Request: message is not modified: specified new message content", About::Unchanged),
            ("Bad Request: TOPIC_CLOSED", About::Chat),
            ("Bad Request: IMAGE_PROCESS_FAILED", About::Other),
            ("Bad Request: PHOTO_INVALID_DIMENSIONS", About::Other),
        ] {
            assert_eq!(about(what), expected, "{what}");
        }
    }

    #[test]
    fn no_answer_is_certain_only_where_nothing_was_written() {
        let cut = |written| {
            meaning(ApiError::Unreachable { why: "x".into(), written }, &Part::for_tests("telegram:5", 1))
                .code()
        };
        assert_eq!((cut(false), cut(true)), ("delivery.later", "delivery.cut"));
        let garbage = |status| {
            meaning(ApiError::Garbage { why: "x".into(), status }, &Part::for_tests("telegram:5", 1)).code()
        };
        assert_eq!(garbage(200), "delivery.cut", "it may have done what was asked");
        assert_eq!((garbage(413), garbage(502)), ("delivery.later", "delivery.cut"));
    }
}
