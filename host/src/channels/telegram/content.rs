//! The fate of every field of a message and of every kind of update of the Bot API (version 10.3), and the words that
//! stand for content without text, such as a contact or a poll.

use serde_json::Value;

/// What the host does with a field of a message, or with a kind of update.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It tells who wrote, where, when, or what the message belongs to.
    Frame,
    /// The agent reads it as text.
    Text,
    /// The agent gets it as a file.
    File,
    /// It tells of the chat. The agent reads it as context; it wakes nobody.
    Service,
    /// It changes what the host knows of the chat.
    Event,
    /// A person pressed a button. It counts as the command of the button.
    Press,
    /// It is counted, for this reason.
    Ignored(&'static str),
}
use Fate::{Event, File, Frame, Ignored, Press, Service, Text};

const LOOKS: Fate = Ignored("it only changes how the message looks");
const MONEY: Fate = Ignored("the bot sells nothing");
const CALLS: Fate = Ignored("the bot takes part in no call");
const POSTS: Fate = Ignored("the bot runs no channel");
const RIGHTS: Fate = Ignored("it says nothing that an agent can use");
const NOT_ASKED: Fate = Ignored("the host does not ask for it");

pub(super) const FIELDS: [(&str, Fate); 126] = [
    ("message_id", Frame),
    ("ephemeral_message_id", Frame),
    ("message_thread_id", Frame),
    ("is_topic_message", Frame),
    ("from", Frame),
    ("sender_chat", Frame),
    ("author_signature", Frame),
    ("date", Frame),
    ("edit_date", Frame),
    ("chat", Frame),
    ("forward_origin", Frame),
    // The fields of a forwarded message before Bot API 7.0, for a Bot API server of one's own.
    ("forward_from", Frame),
    ("forward_from_chat", Frame),
    ("forward_sender_name", Frame),
    ("forward_date", Frame),
    ("forward_from_message_id", Frame),
    ("forward_signature", Frame),
    ("is_automatic_forward", Frame),
    ("via_bot", Frame),
    ("reply_to_message", Frame),
    ("external_reply", Frame),
    ("quote", Frame),
    ("reply_to_story", Frame),
    ("media_group_id", Frame),
    ("entities", Frame),
    ("caption_entities", Frame),
    ("text", Text),
    ("caption", Text),
    ("rich_message", Text),
    ("contact", Text),
    ("dice", Text),
    ("game", Text),
    ("poll", Text),
    ("venue", Text),
    ("location", Text),
    ("checklist", Text),
    ("story", Text),
    ("paid_media", Text),
    ("invoice", Text),
    ("giveaway", Text),
    ("giveaway_winners", Text),
    ("gift", Text),
    ("unique_gift", Text),
    ("animation", File),
    ("audio", File),
    ("document", File),
    ("live_photo", File),
    ("photo", File),
    ("sticker", File),
    ("video", File),
    ("video_note", File),
    ("voice", File),
    ("new_chat_members", Service),
    ("left_chat_member", Service),
    ("new_chat_title", Service),
    ("pinned_message", Service),
    ("forum_topic_created", Service),
    ("forum_topic_edited", Service),
    ("forum_topic_closed", Service),
    ("forum_topic_reopened", Service),
    ("checklist_tasks_done", Service),
    ("checklist_tasks_added", Service),
    ("poll_option_added", Service),
    ("poll_option_deleted", Service),
    ("successful_payment", Service),
    ("refunded_payment", Service),
    ("migrate_to_chat_id", Event),
    ("migrate_from_chat_id", Event),
    ("sender_boost_count", RIGHTS),
    ("sender_business_bot", NOT_ASKED),
    ("sender_tag", RIGHTS),
    ("receiver_user", RIGHTS),
    ("business_connection_id", NOT_ASKED),
    ("guest_query_id", NOT_ASKED),
    ("guest_bot_caller_user", NOT_ASKED),
    ("guest_bot_caller_chat", NOT_ASKED),
    ("direct_messages_topic", POSTS),
    ("reply_to_checklist_task_id", RIGHTS),
    ("reply_to_poll_option_id", RIGHTS),
    ("has_protected_content", LOOKS),
    ("is_from_offline", LOOKS),
    ("is_paid_post", MONEY),
    ("paid_star_count", MONEY),
    ("link_preview_options", LOOKS),
    ("effect_id", LOOKS),
    ("show_caption_above_media", LOOKS),
    ("has_media_spoiler", LOOKS),
    ("reply_markup", LOOKS),
    ("suggested_post_info", POSTS),
    ("suggested_post_approved", POSTS),
    ("suggested_post_approval_failed", POSTS),
    ("suggested_post_declined", POSTS),
    ("suggested_post_paid", POSTS),
    ("suggested_post_refunded", POSTS),
    ("direct_message_price_changed", POSTS),
    ("paid_message_price_changed", MONEY),
    ("giveaway_created", MONEY),
    ("giveaway_completed", MONEY),
    ("gift_upgrade_sent", MONEY),
    ("video_chat_scheduled", CALLS),
    ("video_chat_started", CALLS),
    ("video_chat_ended", CALLS),
    ("video_chat_participants_invited", CALLS),
    ("new_chat_photo", LOOKS),
    ("delete_chat_photo", LOOKS),
    ("chat_background_set", LOOKS),
    ("group_chat_created", RIGHTS),
    ("supergroup_chat_created", RIGHTS),
    ("channel_chat_created", POSTS),
    ("message_auto_delete_timer_changed", RIGHTS),
    ("general_forum_topic_hidden", RIGHTS),
    ("general_forum_topic_unhidden", RIGHTS),
    ("boost_added", RIGHTS),
    ("proximity_alert_triggered", RIGHTS),
    ("write_access_allowed", RIGHTS),
    ("chat_owner_left", RIGHTS),
    ("chat_owner_changed", RIGHTS),
    ("community_chat_added", RIGHTS),
    ("community_chat_joined", RIGHTS),
    ("community_chat_removed", RIGHTS),
    ("managed_bot_created", RIGHTS),
    ("users_shared", NOT_ASKED),
    ("chat_shared", NOT_ASKED),
    ("connected_website", NOT_ASKED),
    ("passport_data", NOT_ASKED),
    ("web_app_data", NOT_ASKED),
];

pub(super) const KINDS: [(&str, Fate); 27] = [
    ("message", Text),
    ("edited_message", Text),
    ("my_chat_member", Event),
    ("channel_post", POSTS),
    ("edited_channel_post", POSTS),
    ("business_connection", NOT_ASKED),
    ("business_message", NOT_ASKED),
    ("edited_business_message", NOT_ASKED),
    ("deleted_business_messages", NOT_ASKED),
    ("guest_message", NOT_ASKED),
    ("message_reaction", NOT_ASKED),
    ("message_reaction_count", NOT_ASKED),
    ("inline_query", NOT_ASKED),
    ("chosen_inline_result", NOT_ASKED),
    ("callback_query", Press),
    ("shipping_query", MONEY),
    ("pre_checkout_query", MONEY),
    ("purchased_paid_media", MONEY),
    ("poll", NOT_ASKED),
    ("poll_answer", NOT_ASKED),
    ("chat_member", NOT_ASKED),
    ("chat_join_request", NOT_ASKED),
    ("chat_boost", NOT_ASKED),
    ("removed_chat_boost", NOT_ASKED),
    ("managed_bot", NOT_ASKED),
    ("subscription", MONEY),
    ("stopped_message_generation", NOT_ASKED),
];

/// The kinds of updates that the host asks for.
pub(super) fn asked_for() -> impl Iterator<Item = &'static str> {
    KINDS.iter().filter(|(_, fate)| !matches!(fate, Ignored(_))).map(|(kind, _)| *kind)
}

/// The fate of a field; `None` for one that this version does not know.
pub(super) fn fate(field: &str) -> Option<Fate> {
    FIELDS.iter().find(|(name, _)| *name == field).map(|(_, fate)| *fate)
}

/// The words that stand for a field with content. A text without content gives none.
pub(super) fn words(field: &str, v: &Value) -> Option<String> {
    let told = match field {
        "rich_message" => gathered(v),
        "contact" => bracket("contact", [name(v), text(v, "phone_number")]),
        "dice" => format!("[dice {}: {}]", text(v, "emoji"), text(v, "value")),
        "game" => bracket("game", [text(v, "title"), text(v, "description")]),
        "poll" => poll(v),
        "venue" => {
            let place = v.get("location").map(place).unwrap_or_default();
            bracket("venue", [text(v, "title"), text(v, "address"), place])
        }
        "location" => bracket("location", [place(v)]),
        "checklist" => checklist(v),
        "story" => bracket("a story", [v.get("chat").map(name).unwrap_or_default()]),
        "paid_media" => bracket("paid media", [format!("{} stars", text(v, "star_count"))]),
        "invoice" => bracket("invoice", [text(v, "title"), text(v, "description"), sum(v)]),
        "giveaway" | "giveaway_winners" => "[giveaway]".to_owned(),
        "gift" | "unique_gift" => bracket("gift", [text(v, "text")]),
        "sticker" => bracket("sticker", [text(v, "emoji"), text(v, "set_name")]),
        "animation" => "[animation]".to_owned(),
        "audio" => bracket("audio", [text(v, "performer"), text(v, "title"), text(v, "file_name")]),
        "document" => bracket("document", [text(v, "file_name")]),
        "live_photo" | "photo" => "[photo]".to_owned(),
        "video" | "video_note" => "[video]".to_owned(),
        "voice" => "[voice message]".to_owned(),
        "new_chat_members" => format!("[{} joined]", names(v)),
        "left_chat_member" => format!("[{} left]", name(v)),
        "new_chat_title" => format!("[the chat is now called {}]", v.as_str()?),
        "pinned_message" => bracket("pinned", [first_words(v)]),
        "forum_topic_created" => bracket("topic opened", [text(v, "name")]),
        "forum_topic_edited" => bracket("topic changed", [text(v, "name")]),
        "forum_topic_closed" => "[topic closed]".to_owned(),
        "forum_topic_reopened" => "[topic opened again]".to_owned(),
        "checklist_tasks_done" => "[tasks of a checklist were ticked or unticked]".to_owned(),
        "checklist_tasks_added" => bracket("tasks added", [tasks(v)]),
        "poll_option_added" => bracket("option added to a poll", [text(v, "option_text")]),
        "poll_option_deleted" => bracket("option removed from a poll", [text(v, "option_text")]),
        "successful_payment" => bracket("payment", [sum(v)]),
        "refunded_payment" => bracket("payment returned", [sum(v)]),
        _ => return None,
    };
    (!told.trim().is_empty()).then_some(told)
}

/// The words for a message of a kind that a later Bot API has.
pub(super) fn unknown(field: &str) -> String {
    format!("[Telegram sent something that this version of Lazaret cannot read: {field}]")
}

/// A name, from the fields of a user, a chat or a contact.
pub(super) fn name(v: &Value) -> String {
    let of = ["title", "first_name"].map(|key| text(v, key)).into_iter().find(|name| !name.is_empty());
    let whole = format!("{} {}", of.unwrap_or_default(), text(v, "last_name"));
    match whole.trim() {
        "" => text(v, "username"),
        name => name.to_owned(),
    }
}

fn names(v: &Value) -> String {
    let names: Vec<String> = v.as_array().into_iter().flatten().map(name).collect();
    names.join(", ")
}

fn bracket<const N: usize>(what: &str, parts: [String; N]) -> String {
    let parts: Vec<String> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    if parts.is_empty() { format!("[{what}]") } else { format!("[{what}: {}]", parts.join(", ")) }
}

/// A text or a number as text; empty if it is absent or of another type.
fn text(v: &Value, key: &str) -> String {
    match v.get(key) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) => number.to_string(),
        _ => String::new(),
    }
}

fn place(v: &Value) -> String {
    let (latitude, longitude) = (text(v, "latitude"), text(v, "longitude"));
    if latitude.is_empty() { String::new() } else { format!("{latitude}, {longitude}") }
}

fn sum(v: &Value) -> String {
    format!("{} {}", text(v, "total_amount"), text(v, "currency")).trim().to_owned()
}

fn poll(v: &Value) -> String {
    let options = v.get("options").and_then(Value::as_array).into_iter().flatten();
    let options =
        options.map(|option| format!("\n- {} ({})", text(option, "text"), text(option, "voter_count")));
    format!("[poll: {}]{}", text(v, "question"), options.collect::<String>())
}

fn checklist(v: &Value) -> String {
    let tasks = v.get("tasks").and_then(Value::as_array).into_iter().flatten();
    let tasks = tasks.map(|task| {
        let done = task.get("completion_date").is_some_and(|at| !at.is_null());
        format!("\n- [{}] {}", if done { "x" } else { " " }, text(task, "text"))
    });
    format!("[checklist: {}]{}", text(v, "title"), tasks.collect::<String>())
}

fn tasks(v: &Value) -> String {
    let tasks = v.get("tasks").and_then(Value::as_array).into_iter().flatten();
    tasks.map(|task| text(task, "text")).collect::<Vec<_>>().join(", ")
}

fn first_words(v: &Value) -> String {
    let said = [text(v, "text"), text(v, "caption")].into_iter().find(|said| !said.is_empty());
    said.unwrap_or_default().chars().take(200).collect()
}

/// Every text inside a structure, one a line, to a bounded depth.
fn gathered(v: &Value) -> String {
    fn gather(v: &Value, depth: u8, lines: &mut Vec<String>) {
        match v {
            Value::Array(items) if depth > 0 => items.iter().for_each(|item| gather(item, depth - 1, lines)),
            Value::Object(fields) if depth > 0 => {
                for (key, field) in fields {
                    match field {
                        Value::String(text) if key == "text" || key == "caption" => lines.push(text.clone()),
                        field => gather(field, depth - 1, lines),
                    }
                }
            }
            _ => {}
        }
    }
    let mut lines = Vec::new();
    gather(v, 16, &mut lines);
    lines.join("\n")
}
