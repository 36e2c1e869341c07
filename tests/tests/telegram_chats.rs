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
