//! Journeys of buttons: an owner admits or refuses a chat, a question is answered, a held part is resolved. They run on
//! the engine stand-in.

#![cfg(test)]

use journeys::telegram::{Chat, Person, SentMessage, Trouble};
use journeys::world::{Engine, World};
use serde_json::json;

/// Ann owns the install. Bob's room has asked to be admitted, and Ann has the card with the buttons.
async fn with_a_room_that_asks() -> (World, Person, Chat, Person, Chat, SentMessage) {
    let (world, ann, direct) = World::ann_at_home(Engine::stand_in().await, &[]).await;
    let bob = world.telegram.person(6, "Bob");
    let family = world.telegram.room(-100_123, "Our Family");
    world.model.on("who are you").says("I am Laz.");
    bob.says(&family, "@laz_bot who are you?");
    let card = world.soon("Ann is asked", direct.comes_to_show("asks to be admitted")).await;
    let labels: Vec<_> = card.buttons.iter().map(|button| button.text.as_str()).collect();
    assert_eq!(labels, ["Admit", "Refuse"]);
    assert!(!card.text.contains("/refuse"), "the buttons say it: {}", card.text);
    (world, ann, direct, bob, family, card)
}

/// Waits for the answer to a press: the text, and whether it is an alert.
async fn answer(world: &World, query: &str) -> (String, bool) {
    world.soon("the press is answered", world.telegram.answered(query)).await
}

fn count(world: &World, sql: &str) -> i64 {
    world.database().query_row(sql, [], |r| r.get(0)).unwrap()
}

#[tokio::test]
async fn an_owner_admits_a_chat_by_a_button_and_every_other_press_is_told_so() {
    let (world, ann, direct, _, family, card) = with_a_room_that_asks().await;
    let press = ann.presses(&card, "Admit");
    assert_eq!(answer(&world, &press).await, ("✓ Admit (Ann)".into(), false));
    assert!(world.hears(&direct).await.contains("telegram:-100123 now belongs to group our-family"));
    assert_eq!(world.hears(&family).await, "I am Laz.", "its first message is answered");
    world.soon("the outcome is shown", world.telegram.comes_to_offer(&card, "✓ Admit (Ann)")).await;

    let old = card.buttons[1].data.clone();
    for again in [ann.presses(&card, "✓ Admit"), ann.presses_with(&card, &old)] {
        assert_eq!(answer(&world, &again).await, ("Already decided: ✓ Admit (Ann)".into(), false));
    }
    assert_eq!(count(&world, "SELECT count(*) FROM message WHERE text LIKE '/admit %'"), 1);
    assert_eq!(count(&world, "SELECT value FROM number WHERE name = 'presses.decided'"), 2);
    assert!(direct.unheard().is_empty() && family.unheard().is_empty());
    world.finish().await;
}

#[tokio::test]
async fn a_refused_chat_is_silent_and_not_asked_about_again() {
    let (world, ann, direct, bob, family, card) = with_a_room_that_asks().await;
    let press = ann.presses(&card, "Refuse");
    assert_eq!(answer(&world, &press).await.0, "✓ Refuse (Ann)");
    let told = world.hears(&direct).await;
    assert!(
        told.contains("telegram:-100123 is refused and gets no answer") && told.contains("30 days"),
        "{told}"
    );
    bob.says(&family, "@laz_bot are you there?");
    world.telegram.acknowledged().await;
    assert!(world.lazaret(&["groups", "list"]).await.contains("Our Family — Bob (telegram:6), 2 messages"));
    assert!(world.lazaret(&["groups", "list"]).await.contains(", refused"));
    assert_eq!(count(&world, "SELECT count(*) FROM stranger WHERE first IS NULL"), 1, "nothing is kept");

    // Ann changes her mind. The message that was dropped is not answered.
    let code: String = world.database().query_row("SELECT code FROM stranger", [], |r| r.get(0)).unwrap();
    ann.says(&direct, &format!("/admit {code}"));
    assert!(world.hears(&direct).await.ends_with("now belongs to group our-family."));
    world.model.on("now").says("Now I am.");
    bob.says(&family, "@laz_bot and now?");
    assert_eq!(world.hears(&family).await, "Now I am.");
    assert!(direct.unheard().is_empty());
    world.finish().await;
}

/// A room of `main` has members who are no owners, and a button may carry anything.
#[tokio::test]
async fn nobody_gets_by_a_button_what_they_may_not_write() {
    let (world, ann, direct) = World::ann_at_home(Engine::stand_in().await, &[]).await;
    let bob = world.telegram.person(6, "Bob");
    let crew = world.telegram.room(-100_500, "Crew");
    bob.says(&crew, "hello");
    world.admit(&crew.address(), "main").await;
    let club = world.telegram.room(-100_600, "Club");
    bob.says(&club, "@laz_bot let us in");
    let card = world.soon("the crew is asked", crew.comes_to_show("Club (telegram:-100600)")).await;

    let refused = answer(&world, &bob.presses(&card, "Admit")).await;
    assert!(refused.0.contains("Only an owner can admit or refuse chats") && refused.1, "{refused:?}");
    // The same button, as if it stood elsewhere; other programs' buttons; another number of a real one.
    let real = card.buttons[0].data.clone();
    let elsewhere = SentMessage { chat: 5, topic: None, ..card.clone() };
    let mut pressed = vec![ann.presses_with(&elsewhere, &real)];
    pressed.extend(["", "admit", "1:0", &real.replace(":0", ":7")].map(|data| ann.presses_with(&card, data)));
    pressed.push(bob.presses_with(&SentMessage { chat: -100_600, ..card.clone() }, &real));
    for press in pressed {
        let told = answer(&world, &press).await;
        assert!(told.0.starts_with("This button is not in use any more") && told.1, "{told:?}");
    }
    world.telegram.update("callback_query", json!({ "id": "1", "from": { "id": 5, "first_name": "Ann" } }));
    world.telegram.update("callback_query", json!({ "from": { "id": 5 }, "data": real }));
    world.telegram.acknowledged().await;
    assert_eq!(count(&world, "SELECT value FROM number WHERE name = 'presses.unknown'"), 7);
    assert_eq!(count(&world, "SELECT value FROM number WHERE name = 'presses.refused'"), 1);
    assert_eq!(count(&world, "SELECT value FROM number WHERE name = 'telegram.unreadable_update'"), 1);
    assert_eq!(count(&world, "SELECT count(*) FROM message WHERE role = 'command'"), 0);
    assert!(world.lazaret(&["groups", "list"]).await.contains("wait to be admitted"));

    // Ann may, in the same room.
    world.model.on("let us in").says("Welcome.");
    ann.presses(&card, "Admit");
    assert_eq!(world.hears(&club).await, "Welcome.");
    assert!(direct.unheard().is_empty());
    world.finish().await;
}

#[tokio::test]
async fn a_press_that_comes_while_the_host_is_down_counts_once() {
    let (mut world, ann, direct, _, family, card) = with_a_room_that_asks().await;
    world.delivered().await;
    world.kill_host().await;
    // Telegram hands both over when the host is back, and takes no answer any more.
    ann.presses(&card, "Admit");
    ann.presses(&card, "Refuse");
    world.telegram.queries_grow_old();
    world.up().await;
    assert!(world.hears(&direct).await.contains("now belongs to group our-family"));
    assert_eq!(world.hears(&family).await, "I am Laz.");
    world.soon("the outcome is shown", world.telegram.comes_to_offer(&card, "✓ Admit (Ann)")).await;
    assert_eq!(count(&world, "SELECT count(*) FROM message WHERE role = 'command'"), 1);
    assert!(direct.unheard().is_empty());
    world.finish().await;
}

/// The host dies when it has stored the press, and is still answering it; or when it has not received it whole.
#[tokio::test]
async fn a_press_survives_a_host_that_is_killed() {
    for (method, trouble) in
        [("answerCallbackQuery", Trouble::HangsAfter), ("editMessageReplyMarkup", Trouble::CutBefore)]
    {
        let (mut world, ann, direct, _, family, card) = with_a_room_that_asks().await;
        world.delivered().await;
        world.telegram.plan(method, "", trouble);
        ann.presses(&card, "Admit");
        world.soon("the press is stored", world.telegram.troubled()).await;
        world.kill_host().await;
        world.up().await;
        assert!(world.hears(&direct).await.contains("now belongs to group our-family"));
        assert_eq!(world.hears(&family).await, "I am Laz.");
        assert_eq!(count(&world, "SELECT count(*) FROM message WHERE role = 'command'"), 1);
        // The buttons still stand, and another press puts that right.
        let again = ann.presses(&card, "Refuse");
        assert_eq!(answer(&world, &again).await.0, "Already decided: ✓ Admit (Ann)");
        world.soon("the outcome is shown", world.telegram.comes_to_offer(&card, "✓ Admit (Ann)")).await;
        world.finish().await;
    }
}

#[tokio::test]
async fn a_question_is_answered_by_a_button_like_by_words() {
    let (mut world, ann, direct) = World::ann_at_home(Engine::stand_in().await, &[]).await;
    let ask = json!({ "question": "Which milk?", "choices": ["whole", "skimmed, from the blue shelf"] });
    world.model.on("buy milk").runs("ask_person", ask).says("Skimmed it is.");
    ann.says(&direct, "buy milk");
    let card = world.soon("Ann is asked", direct.hears_message()).await;
    assert!(card.text.contains("1. whole") && card.text.contains("Answer with /answer "), "{}", card.text);
    assert_eq!(card.buttons.len(), 2);
    world.delivered().await;
    world.kill_host().await;
    world.up().await;
    let press = ann.presses(&card, "2. skimmed");
    assert_eq!(answer(&world, &press).await.0, "✓ 2. skimmed, from the blue shelf (Ann)");
    assert_eq!(world.hears(&direct).await, "Skimmed it is.");
    let told = world.model.tool_results();
    assert_eq!(told, ["Ann (telegram:5) answers:\nskimmed, from the blue shelf"]);
    assert!(direct.unheard().is_empty());
    world.finish().await;
}

#[tokio::test]
async fn a_question_in_the_terminal_is_a_numbered_list() {
    let settings = [("LAZARET_HOST_QUESTION_WAIT", "0s"), ("LAZARET_HOST_QUESTION_EXPIRY", "1s")];
    let (world, ..) = World::ann_at_home(Engine::stand_in().await, &settings).await;
    let ask = json!({ "question": "Which milk?", "choices": ["whole", "skimmed"] });
    world.model.on("buy milk").runs("ask_person", ask).says("I bought none.");
    let chatted = world.chat("buy milk\n").await;
    assert!(chatted.contains("1. whole\n2. skimmed\n\nAnswer with /answer "), "{chatted}");
    world.finish().await;
}

#[tokio::test]
async fn a_part_that_may_have_arrived_is_resolved_by_a_button() {
    let settings = [("LAZARET_CHANNELS_TELEGRAM_DELIVERY", "hold")];
    let (world, ann, direct) = World::ann_at_home(Engine::stand_in().await, &settings).await;
    world.model.on("hello").says("Good morning.");
    world.telegram.plan("sendMessage", "Good morning.", Trouble::CutBefore);
    ann.says(&direct, "hello");
    let card = world.soon("Ann is asked", direct.comes_to_show("may or may not")).await;
    ann.presses(&card, "Send it again");
    let sent = async || direct.shows().contains(&"Good morning.".to_owned()).then_some(());
    world.patiently("it is sent", sent).await;
    world.soon("the outcome is shown", world.telegram.comes_to_offer(&card, "✓ Send it again (Ann)")).await;
    world.finish().await;
}

#[tokio::test]
async fn a_card_whose_buttons_are_refused_is_sent_with_words() {
    let (world, _, direct) = World::ann_at_home(Engine::stand_in().await, &[]).await;
    let bob = world.telegram.person(6, "Bob");
    world.telegram.refuse_next("sendMessage", 400, "Bad Request: BUTTON_DATA_INVALID", None);
    bob.says(&bob.direct(), "let me in");
    let card = world.soon("Ann is asked", direct.comes_to_show("asks to be admitted")).await;
    assert!(card.buttons.is_empty() && card.text.contains("Write /admit "), "{}", card.text);
    world.finish().await;
}
