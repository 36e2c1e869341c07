//! A message of every kind that an agent reads, and what it reads. The same messages are seeds of the fuzz target.

use whatsapp_rust::waproto;

use super::super::content::{FIELDS, Fate};
use super::super::samples::of_bytes;
use super::*;

macro_rules! row {
    ($field:ident: $value:expr, $words:expr) => {
        (stringify!($field), message!($field: $value), $words)
    };
}

type Row = (&'static str, wa::Message, &'static str);

fn some<T: Default>(value: T) -> MessageField<T> {
    MessageField::some(value)
}

fn texts_and_files() -> Vec<Row> {
    let card = s("BEGIN:VCARD\nFN:Cem\nTEL;waid=491510000009:+49 151 9\nEND:VCARD");
    let contact = of!(ContactMessage { display_name: s("Cem"), vcard: card });
    let contacts = vec![contact.clone()];
    let (north, east) = (Some(52.5), Some(13.4));
    let home = of!(LocationMessage { degrees_latitude: north, degrees_longitude: east, name: s("Home") });
    let live = of!(LiveLocationMessage { degrees_latitude: north, degrees_longitude: east });
    vec![
        ("conversation", says("hi"), "hi"),
        ("extended_text_message", says_with("hi", wa::ContextInfo::default()), "hi"),
        row!(image_message: ImageMessage::default(), "[photo]"),
        row!(video_message: of!(VideoMessage { gif_playback: Some(true) }), "[animation]"),
        row!(ptv_message: VideoMessage::default(), "[video]"),
        row!(audio_message: of!(AudioMessage { ptt: Some(true) }), "[voice message]"),
        row!(document_message: of!(DocumentMessage { file_name: s("a.pdf") }), "[document: a.pdf]"),
        row!(sticker_message: of!(StickerMessage { emojis: s("🐱") }), "[sticker: 🐱]"),
        row!(sticker_pack_message: of!(StickerPackMessage { name: s("Cats") }), "[sticker pack: Cats]"),
        row!(contact_message: contact, "[contact: Cem, +49 151 9]"),
        row!(contacts_array_message: of!(ContactsArrayMessage { contacts: contacts }), "[contact: Cem, +49 151 9]"),
        row!(location_message: home, "[location: Home, 52.5, 13.4]"),
        row!(live_location_message: live, "[live location: 52.5, 13.4]"),
        row!(placeholder_message: PlaceholderMessage::default(), "[a message that only the phone can show]"),
    ]
}

fn polls_and_invitations() -> Vec<Row> {
    let option = |name: &str| poll_creation_message::Option { option_name: s(name), ..Default::default() };
    let poll =
        of!(PollCreationMessage { name: s("Dinner?"), options: vec![option("Soup"), option("Pizza")] });
    let vote = poll_result_snapshot_message::PollVote { option_name: s("Soup"), option_vote_count: Some(2) };
    let result = of!(PollResultSnapshotMessage { name: s("Dinner?"), poll_votes: vec![vote] });
    let (asked, voted) = ("[poll: Dinner?]\n- Soup\n- Pizza", "[poll results: Dinner?]\n- Soup (2)");
    let party = of!(EventMessage { name: s("Party"), description: s("Bring cake"), start_time: Some(NOW) });
    let event = of!(EventInviteMessage { event_title: s("Party") });
    let group = of!(GroupInviteMessage { group_name: s("Club"), caption: s("join us") });
    let admin = of!(NewsletterAdminInviteMessage { newsletter_name: s("News") });
    let follower = of!(NewsletterFollowerInviteMessage { newsletter_name: s("News") });
    let call = of!(ScheduledCallCreationMessage { title: s("Standup") });
    vec![
        row!(poll_creation_message: poll.clone(), asked),
        row!(poll_creation_message_v2: poll.clone(), asked),
        row!(poll_creation_message_v3: poll.clone(), asked),
        row!(poll_creation_message_v5: poll.clone(), asked),
        row!(poll_creation_message_v6: poll, asked),
        row!(poll_result_snapshot_message: result.clone(), voted),
        row!(poll_result_snapshot_message_v3: result, voted),
        row!(event_message: party, "[event: Party, 2026-11-18T11:06:40.000Z]\nBring cake"),
        row!(event_invite_message: event, "[invitation to an event: Party]"),
        row!(group_invite_message: group, "join us\n[invitation to a room: Club]"),
        row!(newsletter_admin_invite_message: admin, "[invitation to a channel: News]"),
        row!(newsletter_follower_invite_message_v2: follower, "[invitation to a channel: News]"),
        row!(scheduled_call_creation_message: call, "[planned call: Standup]"),
    ]
}

fn shops_and_money() -> Vec<Row> {
    let words = some(buttons_message::button::ButtonText { display_text: s("Yes") });
    let button = buttons_message::Button { button_text: words, ..Default::default() };
    let pressed = Some(buttons_response_message::Response::SelectedDisplayText("Yes".into()));
    let rows = vec![list_message::Row { title: s("Tea"), ..Default::default() }];
    let sections = vec![list_message::Section { rows, ..Default::default() }];
    let body = some(interactive_message::Body { text: s("Choose") });
    let reply = some(interactive_response_message::Body { text: s("Blue"), ..Default::default() });
    let code = template_message::HydratedFourRowTemplate {
        hydrated_content_text: s("Your code"),
        ..Default::default()
    };
    let template = of!(TemplateMessage { hydrated_template: some(code) });
    let structured = of!(HighlyStructuredMessage { hydrated_hsm: some(template.clone()) });
    let said = vec![wa::AIRichResponseSubMessage { message_text: s("42"), ..Default::default() }];
    let rich = wa::AIRichResponseMessage { submessages: said, ..Default::default() };
    let product = some(product_message::ProductSnapshot { title: s("Lamp"), ..Default::default() });
    let asked = of!(RequestPaymentMessage { currency_code_iso4217: s("EUR") });
    let button_reply = of!(TemplateButtonReplyMessage { selected_display_text: s("Yes") });
    vec![
        row!(buttons_message: of!(ButtonsMessage { content_text: s("Sure?"), buttons: vec![button] }), "Sure?\n- Yes"),
        row!(buttons_response_message: of!(ButtonsResponseMessage { response: pressed }), "Yes"),
        row!(list_message: of!(ListMessage { title: s("Drinks"), sections: sections }), "Drinks\n- Tea"),
        row!(list_response_message: of!(ListResponseMessage { title: s("Tea") }), "Tea"),
        row!(interactive_message: of!(InteractiveMessage { body: body }), "Choose"),
        row!(interactive_response_message: of!(InteractiveResponseMessage { body: reply }), "Blue"),
        row!(template_message: template, "Your code"),
        row!(template_button_reply_message: button_reply, "Yes"),
        row!(highly_structured_message: structured, "Your code"),
        row!(rich_response_message: rich, "42"),
        row!(question_response_message: of!(QuestionResponseMessage { text: s("Red") }), "Red"),
        row!(status_question_answer_message: of!(StatusQuestionAnswerMessage { text: s("Red") }), "Red"),
        row!(product_message: of!(ProductMessage { product: product }), "[product: Lamp]"),
        row!(order_message: of!(OrderMessage { order_title: s("2 lamps") }), "[order: 2 lamps]"),
        row!(invoice_message: of!(InvoiceMessage { note: s("May") }), "[invoice: May]"),
        row!(send_payment_message: of!(SendPaymentMessage { note_message: some(says("rent")) }), "[payment: rent]"),
        row!(request_payment_message: asked, "[payment asked for: EUR]"),
        row!(payment_invite_message: PaymentInviteMessage::default(), "[invitation to payments]"),
        row!(payment_reminder_message: of!(PaymentReminderMessage { description: s("rent") }), "[reminder of a payment: rent]"),
        row!(split_payment_message: of!(SplitPaymentMessage { description: s("trip") }), "[split payment: trip]"),
    ]
}

fn what_tells_of_the_chat() -> Vec<Row> {
    let emoji = of!(ReactionMessage { key: key("3EB0AA", None), text: s("👍") });
    let rice = some(poll_creation_message::Option { option_name: s("Rice"), ..Default::default() });
    let cancelled = "[a planned call was cancelled]";
    let (declined, withdrawn) =
        (DeclinePaymentRequestMessage::default(), CancelPaymentRequestMessage::default());
    let changed = "[changed an earlier message; the change could not be read]";
    vec![
        row!(reaction_message: emoji, "[reacted 👍 to your message]"),
        row!(pin_in_chat_message: PinInChatMessage::default(), "[pinned a message]"),
        row!(poll_add_option_message: of!(PollAddOptionMessage { add_option: rice }), "[option added to a poll: Rice]"),
        row!(scheduled_call_edit_message: ScheduledCallEditMessage::default(), cancelled),
        row!(call_log_messsage: CallLogMessage::default(), "[call]"),
        row!(decline_payment_request_message: declined, "[declined a payment]"),
        row!(cancel_payment_request_message: withdrawn, "[cancelled a payment]"),
        row!(request_phone_number_message: RequestPhoneNumberMessage::default(), "[asks for this account's phone number]"),
        row!(secret_encrypted_message: SecretEncryptedMessage::default(), changed),
    ]
}

fn shown() -> Vec<Row> {
    [texts_and_files(), polls_and_invitations(), shops_and_money(), what_tells_of_the_chat()].concat()
}

#[test]
fn every_field_that_an_agent_reads_has_words() {
    let shown = shown();
    for (field, message, words) in &shown {
        let m = direct(message);
        assert_eq!(m.text, *words, "{field}");
        let fate = FIELDS.iter().find(|(name, _)| name == field).unwrap().1;
        assert_eq!(m.service, fate == Fate::Service, "{field}");
    }
    let read = FIELDS.iter().filter(|(_, fate)| matches!(fate, Fate::Text | Fate::File | Fate::Service));
    let untold: Vec<_> = read.filter(|(field, _)| !shown.iter().any(|(name, ..)| name == field)).collect();
    assert!(untold.is_empty(), "no words for {untold:?}");
}

/// The same messages as the bytes that WhatsApp sends are the seeds of the fuzz target.
#[test]
fn the_corpus_holds_a_message_of_every_kind() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fuzz/corpus/whatsapp_message");
    let pictures = [("picture", message!(image_message: picture(Some("look"))), "look")];
    for (name, message, words) in shown().into_iter().chain(pictures) {
        let (file, bytes) = (format!("{folder}/{name}"), waproto::codec::message_to_vec(&message));
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::create_dir_all(folder).unwrap();
            std::fs::write(&file, &bytes).unwrap();
        }
        assert_eq!(std::fs::read(&file).unwrap_or_default(), bytes, "{file}: write it with UPDATE_GOLDEN=1");
        assert_eq!(of_bytes(&bytes, &ann()).unwrap().text, words);
    }
}
