//! Sends a part as a message, as a placeholder, or as the text of a placeholder, and classifies Telegram's errors
//! (<https://core.telegram.org/bots/api#sendmessage>, <https://core.telegram.org/bots/api#editmessagetext>).

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use super::api::{self, ApiError};
use super::rendered_part::RenderedPart;
use super::split::{CAPTION_UNITS, TEXT_UNITS};
use super::{Telegram, address, buttons, update};
use crate::channels::SendError;
use crate::domain::outbound::{Part, SpooledFile};
use crate::text;

impl Telegram {
    pub(super) async fn send_part(&self, part: &Part) -> Result<String, SendError> {
        self.say("sendMessage", address(&part.chat), part).await.map_err(|e| meaning(e, part))
    }

    pub(super) async fn send_placeholder(&self, part: &Part) -> Result<String, SendError> {
        let mut ask = address(&part.chat);
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
        match self.say("editMessageText", ask, part).await {
            Ok(_) => Ok(()),
            // An earlier edit arrived although its answer was lost.
            Err(ApiError::Refused { what, .. }) if holds(&what, "message is not modified") => Ok(()),
            Err(ApiError::Refused { code: 400, what, .. })
                if GONE_MESSAGE.iter().any(|w| holds(&what, w)) =>
            {
                Err(SendError::Lost { why: what, stands: false })
            }
            Err(ApiError::Refused { code: 400, what, .. }) if holds(&what, "message can't be edited") => {
                Err(SendError::Lost { why: what, stands: true })
            }
            Err(e) => Err(meaning(e, part)),
        }
    }

    /// Sends a part with its buttons. If Telegram refuses them, words take their place.
    async fn say(&self, method: &str, mut ask: Value, part: &Part) -> Result<String, ApiError> {
        let Some(choices) = &part.choices else { return self.say_text(method, ask, part).await };
        let plain = ask.clone();
        ask["reply_markup"] = buttons::keyboard(part, choices);
        match self.say_text(method, ask, part).await {
            Err(e) if buttons::refuses_buttons(&e) => {
                tracing::warn!(chat = %part.chat, code = "telegram.buttons", "sent without buttons: {e}");
                self.say_text(method, plain, &part.in_words()).await
            }
            said => said,
        }
    }

    /// Sends HTML first. If Telegram refuses it, sends plain text, because the text matters more than its formatting.
    async fn say_text(&self, method: &str, mut ask: Value, part: &Part) -> Result<String, ApiError> {
        let RenderedPart { html, plain } = RenderedPart::of(part.voice, &part.text, TEXT_UNITS);
        ask["text"] = json!(html);
        ask["parse_mode"] = json!("HTML");
        ask["link_preview_options"] = json!({ "is_disabled": true });
        let sent: Result<update::Sent, _> = self.api.call(method, &ask, api::QUICK).await;
        let sent = match sent {
            Err(ApiError::Refused { code: 400, what, .. }) if holds(&what, "can't parse entities") => {
                tracing::warn!(chat = %part.chat, code = "telegram.entities", "sent as plain text: {what}");
                ask["text"] = json!(plain);
                if let Some(ask) = ask.as_object_mut() {
                    ask.remove("parse_mode");
                }
                self.api.call::<update::Sent>(method, &ask, api::QUICK).await?
            }
            sent => sent?,
        };
        Ok(sent.message_id.to_string())
    }
}

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
        if file.bytes <= PICTURE_MAX && PICTURES.iter().any(|ending| name.ends_with(ending)) {
            match self.upload("sendPhoto", "photo", part, file, path).await {
                // The file is no picture, or it has dimensions that Telegram does not show.
                Err(ApiError::Refused { code: 400, what, .. }) if !is_about_the_chat(&what) => {
                    tracing::info!(chat = %part.chat, code = "telegram.picture", "sent as a document: {what}");
                }
                sent => return sent.map_err(|e| meaning(e, part)),
            }
        }
        self.upload("sendDocument", "document", part, file, path).await.map_err(|e| meaning(e, part))
    }

    async fn upload(
        &self,
        method: &str,
        field: &'static str,
        part: &Part,
        file: &SpooledFile,
        path: &Path,
    ) -> Result<String, ApiError> {
        let mut ask = address(&part.chat);
        let RenderedPart { html, plain } = RenderedPart::of(part.voice, &part.text, CAPTION_UNITS);
        if !plain.is_empty() {
            ask["caption"] = json!(html);
            ask["parse_mode"] = json!("HTML");
        }
        let send =
            async |ask: &Value| self.api.upload::<update::Sent>(method, ask, field, (path, &file.name)).await;
        let sent = match send(&ask).await {
            Err(ApiError::Refused { code: 400, what, .. }) if holds(&what, "can't parse entities") => {
                ask["caption"] = json!(plain);
                if let Some(ask) = ask.as_object_mut() {
                    ask.remove("parse_mode");
                }
                send(&ask).await?
            }
            sent => sent?,
        };
        Ok(sent.message_id.to_string())
    }
}

fn is_about_the_chat(what: &str) -> bool {
    GONE_CHAT.iter().any(|words| holds(what, words))
}

/// Errors about a placeholder that somebody has deleted.
const GONE_MESSAGE: [&str; 3] = ["message to edit not found", "MESSAGE_ID_INVALID", "message not found"];

/// Errors with status 400 that concern the chat and not the text. An error with status 403 always concerns the chat.
const GONE_CHAT: [&str; 13] = [
    "chat not found",
    "user not found",
    "PEER_ID_INVALID",
    "chat_id is empty",
    "group chat was deactivated",
    "group chat was upgraded to a supergroup",
    "chat is deactivated",
    "message thread not found",
    "TOPIC_DELETED",
    "TOPIC_CLOSED",
    "CHAT_WRITE_FORBIDDEN",
    "have no rights to send a message",
    "not enough rights to send text messages",
];

/// Compares without case, because Telegram's error texts differ in case between methods and versions.
fn holds(what: &str, words: &str) -> bool {
    what.to_ascii_lowercase().contains(&words.to_ascii_lowercase())
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
        ApiError::Refused { code: 400, what, retry_after: None } => {
            if is_about_the_chat(&what) {
                SendError::Gone { why: what }
            } else {
                SendError::Refused { why: what }
            }
        }
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
