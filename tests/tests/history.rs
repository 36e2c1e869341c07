//! An agent searches what was said in its group's chats, over a restart of the host, and no other group's agent can.

use journeys::telegram::{Chat, Person};
use journeys::world::{Engine, World};
use serde_json::{Value, json};

/// Makes the model search when somebody says these words, and returns what it is told.
async fn searched(world: &World, by: &Person, in_chat: &Chat, ask: &str, search: Value) -> String {
    world.model.on(ask).runs("search_history", search).says("Here it is.");
    by.says(in_chat, ask);
    assert_eq!(world.hears(in_chat).await, "Here it is.");
    world.model.tool_results().pop().unwrap_or_default()
}

/// Changes times in the database. The clock of the platform's stand-in stands still, so each message was sent when it
/// was stored.
fn times(world: &World, change: &str) {
    let sql = format!("UPDATE message SET sent_at = stored_at WHERE sent_at = 1795000000000; {change}");
    if let Err(e) = world.database().execute_batch(&sql) {
        panic!("the times do not change: {e}");
    }
}

/// Everything was said a day earlier.
const A_DAY_PASSES: &str = "UPDATE message SET sent_at = sent_at - 86400000, stored_at = stored_at - 86400000;
    UPDATE outbox SET created_at = created_at - 86400000; UPDATE chat SET admitted_at = admitted_at - 86400000;";

#[tokio::test]
async fn what_was_said_in_two_chats_is_found_after_a_crash_and_by_no_other_group() {
    let (mut world, ann, direct) = World::ann_at_home(Engine::stand_in().await, &[]).await;
    let room = world.telegram.room(-100_123, "Family");
    let club = world.telegram.room(-100_456, "Club");
    for (chat, group) in [(&room, "main"), (&club, "club")] {
        ann.says(chat, "@laz_bot hello");
        world.admit(&chat.address(), group).await;
    }
    world.model.on("the boiler is loud").says("I note that: Brandt repairs boilers.");
    ann.says(&direct, "the boiler is loud");
    world.hears(&direct).await;
    world.delivered().await;
    world.kill_host().await;
    times(&world, A_DAY_PASSES);
    world.up().await;

    // Talk that wakes nobody, in another chat of the group.
    ann.says(&room, "Der Kesselmonteur kommt morgen um neun");
    world
        .patiently("the talk is stored", async || {
            let sql = "SELECT count(*) FROM message WHERE text LIKE 'Der Kessel%'";
            world.database().query_row(sql, [], |r| r.get::<_, i64>(0)).ok().filter(|n| *n == 1)
        })
        .await;
    times(&world, "");

    let by_word = searched(&world, &ann, &direct, "find it", json!({ "query": "boilers" })).await;
    assert!(by_word.contains("Ann (telegram:5)") && by_word.contains(": the boiler is loud"), "{by_word}");
    assert!(by_word.contains(" m-") && by_word.contains("- reply, "), "{by_word}");
    assert!(by_word.contains("Brandt repairs boilers"), "{by_word}");

    let by_part = searched(&world, &ann, &direct, "who comes", json!({ "query": "Monteur" })).await;
    assert!(by_part.contains("in \"Family\" (telegram:-100123): Der Kesselmonteur kommt"), "{by_part}");

    let yesterday = searched(&world, &ann, &direct, "sum up the day", json!({ "range": "yesterday" })).await;
    let (asked, answered) = (yesterday.find("the boiler is loud"), yesterday.find("Brandt repairs boilers"));
    assert!(asked.is_some() && asked < answered, "in order: {yesterday}");
    assert!(!yesterday.contains("Kesselmonteur"), "{yesterday}");

    let only = json!({ "range": "today", "chat": "family" });
    let today = searched(&world, &ann, &direct, "what about today", only).await;
    assert!(today.contains("Kesselmonteur") && !today.contains("boiler is loud"), "{today}");

    let phrase = searched(&world, &ann, &direct, "and then", json!({ "range": "whenever" })).await;
    assert!(phrase.contains("is not a range of time") && phrase.contains("\"last week\""), "{phrase}");
    let chat = json!({ "query": "boiler", "chat": "Club" });
    let other = searched(&world, &ann, &direct, "in the club", chat).await;
    assert!(other.contains("no chat of this group") && other.contains("telegram:-100123"), "{other}");

    let theirs =
        searched(&world, &ann, &club, "@laz_bot tell me", json!({ "query": "boiler Monteur Brandt" })).await;
    assert_eq!(theirs, "Nothing was found.");
    world.finish().await;
}

#[tokio::test]
async fn a_lost_index_and_a_hostile_query_end_no_turn() {
    let (world, ann, direct) = World::ann_at_home(Engine::stand_in().await, &[]).await;
    world.model.on("ทุเรียน").says("ok");
    ann.says(&direct, "คุณยายชอบกินทุเรียนมาก");
    world.hears(&direct).await;
    let thai = searched(&world, &ann, &direct, "look", json!({ "query": "ทุเรียน", "count": 1 })).await;
    assert!(thai.contains("คุณยายชอบกินทุเรียนมาก"), "{thai}");
    for file in ["history-index.db", "history-index.db-wal", "history-index.db-shm"] {
        let _ = std::fs::write(world.root().join("state").join(file), "damaged by somebody, and long enough");
    }
    let again = searched(&world, &ann, &direct, "once more", json!({ "query": "ทุเรียน" })).await;
    assert!(again.contains("คุณยายชอบกินทุเรียนมาก"), "{again}");
    for (ask, query) in [
        ("first", "\" OR places:* NEAR(a b) NOT {words} : (".to_owned()),
        ("second", "\"*'; DROP TABLE entry; --".to_owned()),
        ("third", "🎂".to_owned()),
    ] {
        let told = searched(&world, &ann, &direct, ask, json!({ "query": query })).await;
        assert!(told.starts_with("Nothing was found") || told.starts_with("Page 1"), "{told}");
    }
    for (ask, search, why) in [
        ("fourth", json!({ "query": "x".repeat(64 << 10) }), "at most 1,000"),
        ("fifth", json!({ "query": "a\u{1b}[31m" }), "control characters"),
        ("sixth", json!({ "query": 7 }), "expected a string"),
        ("seventh", json!({}), "`query`"),
        ("eighth", json!({ "query": "x", "count": 51 }), "between 1 and 50"),
    ] {
        let told = searched(&world, &ann, &direct, ask, search).await;
        assert!(told.contains(why), "{ask}: {told}");
    }
    world.finish().await;
}
