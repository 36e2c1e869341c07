//! The fate of every field of a message, and the words that stand for content without text, such as a contact or a
//! poll.

use serde_json::Value;
use whatsapp_rust::buffa::MessageField;
use whatsapp_rust::waproto::whatsapp as wa;

use crate::domain::WallMs;

/// What the host does with a field of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It tells what the message belongs to, or carries keys.
    Frame,
    /// It holds another message, which is read in its place.
    Wrapper,
    /// The agent reads it as text.
    Text,
    /// The agent gets it as a file.
    File,
    /// It tells of the chat. The agent reads it as context; it wakes nobody.
    Service,
    /// It changes or removes an earlier message, or concerns this device only.
    Change,
    /// It is counted, for this reason.
    Ignored(&'static str),
}
use Fate::{Change, File, Frame, Ignored, Service, Text, Wrapper};

const CALLS: Fate = Ignored("the account takes part in no call");
const POSTS: Fate = Ignored("the host reads no status and no channel");
const SECRET: Fate =
    Ignored("it is encrypted with the secret of another message, which this device does not have");
const SYNC: Fate = Ignored("the host keeps its own history");
const RIGHTS: Fate = Ignored("it says nothing that an agent can use");

/// Whether a field holds something.
trait Present {
    fn is_present(&self) -> bool;
}

impl Present for Option<String> {
    fn is_present(&self) -> bool {
        self.as_ref().is_some_and(|text| !text.is_empty())
    }
}

impl<T: Default> Present for MessageField<T> {
    fn is_present(&self) -> bool {
        self.is_set()
    }
}

/// The table. It takes the library's type apart, so a field without a row does not compile.
macro_rules! fields {
    ($($field:ident: $fate:expr,)*) => {
        #[cfg(test)]
        pub(super) const FIELDS: &[(&str, Fate)] = &[$((stringify!($field), $fate)),*];

        /// The fields that hold something, in the order of the table.
        pub(super) fn present(message: &wa::Message) -> Vec<(&'static str, Fate)> {
            let wa::Message { $($field),* } = message;
            let rows = [$((stringify!($field), $fate, $field.is_present())),*];
            rows.into_iter().filter(|row| row.2).map(|(field, fate, _)| (field, fate)).collect()
        }
    };
}

fields! {
    conversation: Text,
    extended_text_message: Text,
    image_message: File,
    video_message: File,
    ptv_message: File,
    audio_message: File,
    document_message: File,
    sticker_message: File,
    contact_message: Text,
    contacts_array_message: Text,
    location_message: Text,
    live_location_message: Text,
    poll_creation_message: Text,
    poll_creation_message_v2: Text,
    poll_creation_message_v3: Text,
    poll_creation_message_v5: Text,
    poll_creation_message_v6: Text,
    poll_result_snapshot_message: Text,
    poll_result_snapshot_message_v3: Text,
    event_message: Text,
    event_invite_message: Text,
    group_invite_message: Text,
    newsletter_admin_invite_message: Text,
    newsletter_follower_invite_message_v2: Text,
    scheduled_call_creation_message: Text,
    sticker_pack_message: Text,
    buttons_message: Text,
    buttons_response_message: Text,
    list_message: Text,
    list_response_message: Text,
    interactive_message: Text,
    interactive_response_message: Text,
    template_message: Text,
    template_button_reply_message: Text,
    highly_structured_message: Text,
    rich_response_message: Text,
    question_response_message: Text,
    status_question_answer_message: Text,
    product_message: Text,
    order_message: Text,
    invoice_message: Text,
    send_payment_message: Text,
    request_payment_message: Text,
    payment_invite_message: Text,
    payment_reminder_message: Text,
    split_payment_message: Text,
    placeholder_message: Text,
    reaction_message: Service,
    pin_in_chat_message: Service,
    poll_add_option_message: Service,
    scheduled_call_edit_message: Service,
    call_log_messsage: Service,
    decline_payment_request_message: Service,
    cancel_payment_request_message: Service,
    request_phone_number_message: Service,
    secret_encrypted_message: Service,
    protocol_message: Change,
    message_context_info: Frame,
    sender_key_distribution_message: Frame,
    fast_ratchet_key_sender_key_distribution_message: Frame,
    group_root_key_share: Frame,
    root_secret_distribute_message: Frame,
    album_message: Ignored("its pictures are messages of their own"),
    device_sent_message: Wrapper,
    ephemeral_message: Wrapper,
    view_once_message: Wrapper,
    view_once_message_v2: Wrapper,
    view_once_message_v2_extension: Wrapper,
    document_with_caption_message: Wrapper,
    edited_message: Wrapper,
    group_mentioned_message: Wrapper,
    bot_invoke_message: Wrapper,
    bot_forwarded_message: Wrapper,
    bot_task_message: Wrapper,
    lottie_sticker_message: Wrapper,
    associated_child_message: Wrapper,
    event_cover_image: Wrapper,
    poll_creation_message_v4: Wrapper,
    poll_creation_option_image_message: Wrapper,
    question_message: Wrapper,
    question_reply_message: Wrapper,
    spoiler_message: Wrapper,
    comment_message: Wrapper,
    call: CALLS,
    bcall_message: CALLS,
    chat: RIGHTS,
    keep_in_chat_message: RIGHTS,
    limit_sharing_message: RIGHTS,
    poll_update_message: SECRET,
    enc_reaction_message: SECRET,
    enc_comment_message: SECRET,
    enc_event_response_message: SECRET,
    conditional_reveal_message: SECRET,
    sticker_sync_rmr_message: SYNC,
    message_history_bundle: SYNC,
    message_history_notice: SYNC,
    status_mention_message: POSTS,
    group_status_mention_message: POSTS,
    status_add_yours: POSTS,
    group_status_message: POSTS,
    group_status_message_v2: POSTS,
    status_notification_message: POSTS,
    status_quoted_message: POSTS,
    status_sticker_interaction_message: POSTS,
    newsletter_admin_profile_message: POSTS,
    newsletter_admin_profile_message_v2: POSTS,
    newsletter_admin_profile_status_message: POSTS,
}

/// Wrappers can hold wrappers. A message has few; a hostile one may have more.
const DEEPEST: usize = 8;

/// The message inside all wrappers, and what it belongs to, such as an album.
pub(super) fn unwrapped(message: &wa::Message) -> (&wa::Message, Option<&wa::MessageAssociation>) {
    let (mut message, mut belongs) = (message, None);
    for _ in 0..DEEPEST {
        belongs = belongs.or_else(|| message.message_context_info.message_association.as_option());
        match inner(message) {
            Some(inside) => message = inside,
            None => break,
        }
    }
    (message, belongs)
}

fn inner(m: &wa::Message) -> Option<&wa::Message> {
    let wrappers = [
        &m.ephemeral_message,
        &m.view_once_message,
        &m.view_once_message_v2,
        &m.view_once_message_v2_extension,
        &m.document_with_caption_message,
        &m.edited_message,
        &m.group_mentioned_message,
        &m.bot_invoke_message,
        &m.bot_forwarded_message,
        &m.bot_task_message,
        &m.lottie_sticker_message,
        &m.associated_child_message,
        &m.event_cover_image,
        &m.poll_creation_message_v4,
        &m.poll_creation_option_image_message,
        &m.question_message,
        &m.question_reply_message,
        &m.spoiler_message,
    ];
    let wrapped = wrappers.into_iter().find_map(|wrapper| wrapper.message.as_option());
    wrapped
        .or_else(|| m.device_sent_message.message.as_option())
        .or_else(|| m.comment_message.message.as_option())
}

/// What a message quotes, whom it mentions, and whether it is forwarded.
pub(super) fn context(m: &wa::Message) -> Option<&wa::ContextInfo> {
    let contexts = [
        &m.extended_text_message.context_info,
        &m.image_message.context_info,
        &m.video_message.context_info,
        &m.ptv_message.context_info,
        &m.audio_message.context_info,
        &m.document_message.context_info,
        &m.sticker_message.context_info,
        &m.contact_message.context_info,
        &m.contacts_array_message.context_info,
        &m.location_message.context_info,
        &m.live_location_message.context_info,
        &m.poll_creation_message.context_info,
        &m.poll_creation_message_v2.context_info,
        &m.poll_creation_message_v3.context_info,
        &m.poll_creation_message_v5.context_info,
        &m.poll_creation_message_v6.context_info,
        &m.poll_result_snapshot_message.context_info,
        &m.poll_result_snapshot_message_v3.context_info,
        &m.event_message.context_info,
        &m.event_invite_message.context_info,
        &m.group_invite_message.context_info,
        &m.sticker_pack_message.context_info,
        &m.buttons_message.context_info,
        &m.buttons_response_message.context_info,
        &m.list_message.context_info,
        &m.list_response_message.context_info,
        &m.interactive_message.context_info,
        &m.interactive_response_message.context_info,
        &m.template_message.context_info,
        &m.template_button_reply_message.context_info,
        &m.rich_response_message.context_info,
        &m.product_message.context_info,
        &m.order_message.context_info,
    ];
    contexts.into_iter().find_map(MessageField::as_option)
}

/// The text, or the caption of a file.
pub(super) fn said(m: &wa::Message) -> Option<&str> {
    let texts = [
        &m.conversation,
        &m.extended_text_message.text,
        &m.image_message.caption,
        &m.video_message.caption,
        &m.ptv_message.caption,
        &m.document_message.caption,
        &m.sticker_pack_message.caption,
        &m.group_invite_message.caption,
        &m.event_invite_message.caption,
        &m.newsletter_admin_invite_message.caption,
        &m.newsletter_follower_invite_message_v2.caption,
    ];
    texts.into_iter().flatten().map(String::as_str).find(|text| !text.is_empty())
}

/// The words that stand for a field. A text or caption gives none: [`said`] has it.
pub(super) fn words(field: &str, m: &wa::Message) -> Option<String> {
    let told = match field {
        "image_message" => "[photo]".to_owned(),
        "video_message" if is(m.video_message.gif_playback) => "[animation]".to_owned(),
        "video_message" | "ptv_message" => "[video]".to_owned(),
        "audio_message" if is(m.audio_message.ptt) => "[voice message]".to_owned(),
        "audio_message" => "[audio]".to_owned(),
        "document_message" => {
            bracket("document", [text(&m.document_message.file_name), text(&m.document_message.title)])
        }
        "sticker_message" => {
            let s = &m.sticker_message;
            bracket("sticker", [text(&s.emojis), text(&s.accessibility_label)])
        }
        "sticker_pack_message" => bracket("sticker pack", [text(&m.sticker_pack_message.name)]),
        "contact_message" => contact(&m.contact_message),
        "contacts_array_message" => lines(m.contacts_array_message.contacts.iter().map(contact)),
        "location_message" => {
            let l = &m.location_message;
            let place = place(l.degrees_latitude, l.degrees_longitude);
            bracket("location", [text(&l.name), text(&l.address), place, text(&l.comment)])
        }
        "live_location_message" => {
            let l = &m.live_location_message;
            bracket("live location", [text(&l.caption), place(l.degrees_latitude, l.degrees_longitude)])
        }
        "poll_creation_message" => poll(&m.poll_creation_message),
        "poll_creation_message_v2" => poll(&m.poll_creation_message_v2),
        "poll_creation_message_v3" => poll(&m.poll_creation_message_v3),
        "poll_creation_message_v5" => poll(&m.poll_creation_message_v5),
        "poll_creation_message_v6" => poll(&m.poll_creation_message_v6),
        "poll_result_snapshot_message" => results(&m.poll_result_snapshot_message),
        "poll_result_snapshot_message_v3" => results(&m.poll_result_snapshot_message_v3),
        "poll_add_option_message" => {
            bracket("option added to a poll", [text(&m.poll_add_option_message.add_option.option_name)])
        }
        "event_message" => event(&m.event_message),
        "event_invite_message" => {
            let e = &m.event_invite_message;
            bracket("invitation to an event", [text(&e.event_title), at(e.start_time)])
        }
        "group_invite_message" => bracket("invitation to a room", [text(&m.group_invite_message.group_name)]),
        "newsletter_admin_invite_message" => {
            bracket("invitation to a channel", [text(&m.newsletter_admin_invite_message.newsletter_name)])
        }
        "newsletter_follower_invite_message_v2" => bracket(
            "invitation to a channel",
            [text(&m.newsletter_follower_invite_message_v2.newsletter_name)],
        ),
        "scheduled_call_creation_message" => {
            let c = &m.scheduled_call_creation_message;
            bracket("planned call", [text(&c.title), at(c.scheduled_timestamp_ms.map(|ms| ms / 1000))])
        }
        "scheduled_call_edit_message" => "[a planned call was cancelled]".to_owned(),
        "call_log_messsage" => "[call]".to_owned(),
        "request_phone_number_message" => "[asks for this account's phone number]".to_owned(),
        "placeholder_message" => "[a message that only the phone can show]".to_owned(),
        "secret_encrypted_message" => "[changed an earlier message; the change could not be read]".to_owned(),
        "pin_in_chat_message" => match m.pin_in_chat_message.r#type {
            Some(wa::message::pin_in_chat_message::Type::UNPIN_FOR_ALL) => "[unpinned a message]".to_owned(),
            _ => "[pinned a message]".to_owned(),
        },
        _ => return business(field, m),
    };
    Some(told).filter(|told| !told.trim().is_empty())
}

/// What shops and their programs send, and answers to it.
fn business(field: &str, m: &wa::Message) -> Option<String> {
    let told = match field {
        "buttons_message" => {
            let b = &m.buttons_message;
            let buttons = b.buttons.iter().map(|button| choice(&button.button_text.display_text));
            lines([text(&b.content_text), text(&b.footer_text)].into_iter().chain(buttons))
        }
        "buttons_response_message" => {
            let r = &m.buttons_response_message;
            match &r.response {
                Some(wa::message::buttons_response_message::Response::SelectedDisplayText(words)) => {
                    words.clone()
                }
                None => text(&r.selected_button_id),
            }
        }
        "list_message" => {
            let l = &m.list_message;
            let rows = l.sections.iter().flat_map(|section| &section.rows).map(|row| choice(&row.title));
            lines([text(&l.title), text(&l.description), text(&l.footer_text)].into_iter().chain(rows))
        }
        "list_response_message" => {
            let r = &m.list_response_message;
            lines([text(&r.title), text(&r.description)])
        }
        "interactive_message" => interactive(&m.interactive_message),
        "interactive_response_message" => text(&m.interactive_response_message.body.text),
        "template_message" => template(&m.template_message),
        "template_button_reply_message" => text(&m.template_button_reply_message.selected_display_text),
        "highly_structured_message" => template(&m.highly_structured_message.hydrated_hsm),
        "rich_response_message" => {
            lines(m.rich_response_message.submessages.iter().map(|part| text(&part.message_text)))
        }
        "question_response_message" => text(&m.question_response_message.text),
        "status_question_answer_message" => text(&m.status_question_answer_message.text),
        "product_message" => {
            let p = &m.product_message;
            let product = &p.product;
            let told = [text(&product.title), text(&product.description), text(&product.url)];
            lines([bracket("product", told), text(&p.body), text(&p.footer)])
        }
        "order_message" => {
            let o = &m.order_message;
            bracket("order", [text(&o.order_title), text(&o.message)])
        }
        "invoice_message" => bracket("invoice", [text(&m.invoice_message.note)]),
        "send_payment_message" => {
            bracket("payment", [noted(m.send_payment_message.note_message.as_option())])
        }
        "request_payment_message" => {
            let r = &m.request_payment_message;
            bracket("payment asked for", [text(&r.currency_code_iso4217), noted(r.note_message.as_option())])
        }
        "payment_invite_message" => "[invitation to payments]".to_owned(),
        "payment_reminder_message" => {
            bracket("reminder of a payment", [text(&m.payment_reminder_message.description)])
        }
        "split_payment_message" => bracket("split payment", [text(&m.split_payment_message.description)]),
        "decline_payment_request_message" => "[declined a payment]".to_owned(),
        "cancel_payment_request_message" => "[cancelled a payment]".to_owned(),
        _ => return None,
    };
    Some(told).filter(|told| !told.trim().is_empty())
}

/// The words for a message of a kind that this version does not know, or that holds nothing that it can read.
pub(super) const UNREADABLE: &str = "[WhatsApp sent something that this version of Lazaret cannot read]";

fn is(flag: Option<bool>) -> bool {
    flag == Some(true)
}

fn text(field: &Option<String>) -> String {
    field.clone().unwrap_or_default()
}

fn bracket<const N: usize>(what: &str, parts: [String; N]) -> String {
    let parts: Vec<String> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    if parts.is_empty() { format!("[{what}]") } else { format!("[{what}: {}]", parts.join(", ")) }
}

fn lines(parts: impl IntoIterator<Item = String>) -> String {
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("\n")
}

fn choice(words: &Option<String>) -> String {
    words.as_ref().map(|words| format!("- {words}")).unwrap_or_default()
}

fn place(latitude: Option<f64>, longitude: Option<f64>) -> String {
    latitude
        .zip(longitude)
        .map(|(latitude, longitude)| format!("{latitude}, {longitude}"))
        .unwrap_or_default()
}

/// A time in seconds.
fn at(seconds: Option<i64>) -> String {
    seconds.map(|at| WallMs(at.saturating_mul(1000)).rfc3339()).unwrap_or_default()
}

fn noted(note: Option<&wa::Message>) -> String {
    note.and_then(said).unwrap_or_default().to_owned()
}

/// The name, and the numbers of the card.
fn contact(c: &wa::message::ContactMessage) -> String {
    let card = text(&c.vcard);
    let numbers = card.lines().filter(|line| line.contains("TEL")).filter_map(|line| line.rsplit(':').next());
    let numbers: Vec<&str> = numbers.map(str::trim).collect();
    bracket("contact", [text(&c.display_name), numbers.join(", ")])
}

fn poll(p: &wa::message::PollCreationMessage) -> String {
    let options = p.options.iter().map(|option| choice(&option.option_name));
    lines(std::iter::once(format!("[poll: {}]", text(&p.name))).chain(options))
}

fn results(p: &wa::message::PollResultSnapshotMessage) -> String {
    let votes = p.poll_votes.iter().map(|vote| {
        format!("- {} ({})", text(&vote.option_name), vote.option_vote_count.unwrap_or_default())
    });
    lines(std::iter::once(format!("[poll results: {}]", text(&p.name))).chain(votes))
}

fn event(e: &wa::message::EventMessage) -> String {
    let what = if is(e.is_canceled) { "cancelled event" } else { "event" };
    let parts = [text(&e.name), at(e.start_time), text(&e.location.name), text(&e.join_link)];
    lines([bracket(what, parts), text(&e.description)])
}

fn interactive(i: &wa::message::InteractiveMessage) -> String {
    use wa::message::interactive_message::InteractiveMessage as Kind;
    let told = [text(&i.header.title), text(&i.header.subtitle), text(&i.body.text), text(&i.footer.text)];
    let buttons = match &i.interactive_message {
        Some(Kind::NativeFlowMessage(flow)) => flow.buttons.as_slice(),
        _ => &[],
    };
    let buttons = buttons.iter().map(|button| {
        let params: Option<Value> =
            button.button_params_json.as_ref().and_then(|json| serde_json::from_str(json).ok());
        choice(&params.and_then(|params| Some(params.get("display_text")?.as_str()?.to_owned())))
    });
    lines(told.into_iter().chain(buttons))
}

fn template(t: &wa::message::TemplateMessage) -> String {
    use wa::message::template_message::Format;
    let hydrated = match &t.format {
        Some(Format::HydratedFourRowTemplate(hydrated)) => hydrated,
        Some(Format::InteractiveMessageTemplate(message)) => return interactive(message),
        _ => &*t.hydrated_template,
    };
    lines([text(&hydrated.hydrated_content_text), text(&hydrated.hydrated_footer_text)])
}
