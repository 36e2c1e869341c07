//! Journeys of what happens to chats on Telegram: a group becomes a supergroup, the bot is removed and comes back. They
//! run on the engine stand-in.

use journeys::model::Gate;
use journeys::telegram::{Chat, Person};
use journeys::world::{Engine, World};
use serde_json::json;

async fn with_family() -> (World, Person, Chat, Chat) {
    let (world, ann, direct) = World::ann_at_home(Engine::stand_in().await, &[]).await;
    let family = world.telegram.room(-4242, "Fam");
    ann.says(&family, "who is this bot?");
    world.admit(&family.address(), "family").await;
    (world, ann, direct, family)
}

fn service(chat: i64, kind: &str, field: &str, other: i64) -> serde_json::Value {
    json!({
        "message_id": 1, "date": 1, "chat": { "id": chat, "type": kind, "title": "Fam" },
        "from": { "id": 5, "is_bot": false, "first_name": "Ann" }, field: other,
    })
}

#[tokio::test]
async fn a_group_that_becomes_a_supergroup_goes_on_with_its_session_and_the_reply_in_flight() {
    let (world, ann, direct, family) = with_family().await;
    let gate = Gate::new();
    world.model.on("count the cups").waits_for(&gate).says("Three cups.");
    ann.says(&family, "@laz_bot count the cups");
    world.soon("the agent works", gate.arrived()).await;
    let grown = world.telegram.becomes_supergroup(&family, -1_004_242);
    gate.open();
    assert_eq!(world.hears(&grown).await, "Three cups.", "the send's error names the new id");

    // The service messages come later, and messages of the new chat with numbers that the old chat had.
    world.telegram.update("message", service(-4242, "group", "migrate_to_chat_id", -1_004_242));
    world.telegram.update("message", service(-1_004_242, "supergroup", "migrate_from_chat_id", -4242));
    world.model.on("and the plates").says("Two plates.");
    ann.says(&grown, "@laz_bot and the plates?");
    assert_eq!(world.hears(&grown).await, "Two plates.");
    assert_eq!(world.runs_of("family"), 1, "the same box goes on with the same session");
    let listed = world.lazaret(&["groups", "list"]).await;
    assert!(listed.contains("telegram:-1004242  Fam") && !listed.contains("telegram:-4242"), "{listed}");
    assert!(!listed.contains("wait to be admitted"), "{listed}");
    assert!(direct.unheard().is_empty() && grown.unheard().is_empty());
    world.finish().await;
}

#[tokio::test]
async fn the_service_messages_alone_rebind_the_chat_in_one_batch_with_a_message() {
    let (world, ann, _, family) = with_family().await;
    let grown = world.telegram.becomes_supergroup(&family, -1_004_242);
    let mention = json!({
        "message_id": 2, "date": 2, "chat": { "id": -1_004_242, "type": "supergroup", "title": "Fam" },
        "from": { "id": 5, "is_bot": false, "first_name": "Ann" }, "text": "@laz_bot hi",
        "entities": [{ "type": "mention", "offset": 0, "length": 8 }],
    });
    world.model.on("hi").says("Hi.");
    world.telegram.updates(vec![
        ("message", service(-4242, "group", "migrate_to_chat_id", -1_004_242)),
        ("message", service(-1_004_242, "supergroup", "migrate_from_chat_id", -4242)),
        ("message", mention),
    ]);
    assert_eq!(world.hears(&grown).await, "Hi.");
    drop(ann);
    world.finish().await;
}

#[tokio::test]
async fn a_removed_bot_is_told_to_main_at_once() {
    let (world, ann, direct, family) = with_family().await;
    let member = |status: &str| {
        json!({
            "chat": { "id": -4242, "type": "group", "title": "Fam" }, "date": 1,
            "from": { "id": 6, "is_bot": false, "first_name": "Bob" },
            "old_chat_member": { "status": "member" }, "new_chat_member": { "status": status },
        })
    };
    world.telegram.update("my_chat_member", member("kicked"));
    let told = world.hears(&direct).await;
    assert!(
        told.contains("Replies to Fam (telegram:-4242) cannot be delivered: the bot was removed by Bob."),
        "{told}"
    );
    assert!(world.lazaret(&["status"]).await.contains("cut off   telegram:-4242"));
    world.telegram.update("my_chat_member", member("member"));
    world.model.on("welcome back").says("Thanks.");
    ann.says(&family, "@laz_bot welcome back");
    assert_eq!(world.hears(&family).await, "Thanks.");
    assert!(!world.lazaret(&["status"]).await.contains("cut off"));
    world.finish().await;
}

#[tokio::test]
async fn an_owner_admits_a_chat_in_a_chat_and_its_first_message_is_answered() {
    let (world, ann, direct) = World::ann_at_home(Engine::stand_in().await, &[]).await;
    let bob = world.telegram.person(6, "Bob");
    let family = world.telegram.room(-100_123, "Our Family");
    bob.says(&family, "hello all");
    bob.says(&family, "@laz_bot who are you?");
    let asked = world.soon("Ann is told", direct.comes_to_show("asks to be admitted")).await.text;
    assert!(asked.contains("Our Family (telegram:-100123), where Bob wrote. "), "{asked}");
    let code = asked.split("/admit ").nth(1).unwrap().split(' ').next().unwrap().to_owned();

    world.model.on("who are you").says("I am Laz.");
    ann.says(&direct, &format!("/admit {code}"));
    let told = world.hears(&direct).await;
    assert!(told.contains("telegram:-100123 now belongs to group our-family"), "{told}");
    assert_eq!(world.hears(&family).await, "I am Laz.", "its first message for the agent is answered");
    assert!(world.root().join("groups/our-family/group.toml").exists());

    // Only an owner, and only in main.
    bob.says(&family, "/admit ABC234 main");
    assert!(world.hears(&family).await.contains("Only an owner can admit or refuse chats"));
    ann.says(&direct, "/admit NOBODY");
    assert!(world.hears(&direct).await.contains("No chat waits under the code NOBODY"));

    // A new topic of the admitted room needs no word of anybody, and titles follow.
    let renamed = world.telegram.room(-100_123, "Kin");
    let topic = renamed.topic(7);
    world.model.on("in the topic").says("Here I am.");
    ann.says(&topic, "@laz_bot are you in the topic?");
    assert_eq!(world.hears(&topic).await, "Here I am.");
    bob.says(&renamed, "a new name");
    world.telegram.acknowledged().await;
    let listed = world.lazaret(&["groups", "list"]).await;
    assert!(
        listed.contains("telegram:-100123  Kin") && listed.contains("telegram:-100123/7  Kin"),
        "{listed}"
    );
    world.finish().await;
}

#[tokio::test]
async fn a_chat_that_is_admitted_on_the_server_is_answered_too() {
    let (mut world, _ann, direct) = World::ann_at_home(Engine::stand_in().await, &[]).await;
    let bob = world.telegram.person(6, "Bob");
    let family = world.telegram.room(-100_123, "Our Family");
    world.model.on("who are you").says("I am Laz.");
    bob.says(&family, "@laz_bot who are you?");
    let code = world.code_of(&family.address()).await;
    let told = world.lazaret(&["groups", "admit", &code, "--group", "family"]).await;
    assert!(told.contains("its first message is answered now"), "{told}");
    assert_eq!(world.hears(&family).await, "I am Laz.");

    // While the host is down, too.
    let club = world.telegram.room(-100_124, "Club");
    world.model.on("what can you do").says("I keep minutes.");
    bob.says(&club, "@laz_bot what can you do?");
    let code = world.code_of(&club.address()).await;
    world.stop_host().await;
    world.lazaret(&["groups", "admit", &code, "--group", "club"]).await;
    world.up().await;
    assert_eq!(world.hears(&club).await, "I keep minutes.");
    drop(direct);
    world.finish().await;
}

#[tokio::test]
async fn a_new_topic_asks_where_the_settings_want_that() {
    let settings = [("LAZARET_CHANNELS_TELEGRAM_TOPICS", "ask")];
    let (world, ann, direct) = World::ann_at_home(Engine::stand_in().await, &settings).await;
    let forum = world.telegram.room(-100_123, "Forum");
    ann.says(&forum, "who is this bot?");
    world.admit(&forum.address(), "forum").await;
    ann.says(&forum.topic(7), "@laz_bot hello");
    world.soon("Ann is told", direct.comes_to_show("Forum (telegram:-100123/7)")).await;
    world.finish().await;
}
