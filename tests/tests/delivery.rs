//! The host delivers replies over a failing platform: outages, lost responses, hosts that die during a send, chats that
//! removed the bot. What people see must match the outbox's counts.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::PathBuf;

use journeys::model::Gate;
use journeys::telegram::{Chat, PLACEHOLDER, Person, Trouble};
use journeys::world::{Engine, PACE, World};
use rusqlite::{Connection, OpenFlags};
use serde_json::{Value, json};

const DELIVERY: &str = "LAZARET_CHANNELS_TELEGRAM_DELIVERY";

async fn ann_with(policy: &str) -> (World, Person, Chat) {
    World::ann_at_home(Engine::stand_in().await, &[(DELIVERY, policy)]).await
}

#[derive(Debug)]
struct Row {
    text: String,
    state: String,
    uncertain: u32,
    strays: u32,
}

fn database(world: &World) -> PathBuf {
    world.root().join("state/lazaret.db")
}

fn outbox(world: &World) -> Vec<Row> {
    let c = Connection::open_with_flags(database(world), OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let mut rows = c.prepare("SELECT text, state, uncertain, strays FROM outbox ORDER BY id").unwrap();
    let rows = rows.query_map([], |r| {
        Ok(Row { text: r.get(0)?, state: r.get(1)?, uncertain: r.get(2)?, strays: r.get(3)? })
    });
    rows.unwrap().collect::<Result<_, _>>().unwrap()
}

fn row(world: &World, words: &str) -> Row {
    outbox(world).into_iter().find(|row| row.text.contains(words)).unwrap()
}

/// Waits until the row with these words has this state.
async fn wait_for_state(world: &World, words: &str, state: &str) {
    let is = async || outbox(world).iter().any(|r| r.text.contains(words) && r.state == state).then_some(());
    world.patiently(&format!("{words:?} is {state}"), is).await;
}

/// Checks that people see no more repetitions than the host counted: further copies of each text, and empty
/// placeholders.
fn assert_accounted_for(world: &World, chats: &[&Chat]) {
    let shown: Vec<String> = chats.iter().flat_map(|chat| chat.shows()).collect();
    let rows = outbox(world);
    for row in &rows {
        let notice = format!("[lazaret] {}", row.text);
        let copies = shown.iter().filter(|text| **text == row.text || **text == notice).count();
        assert!(copies <= 1 + row.uncertain as usize, "{copies} copies of {row:?}");
    }
    let empty = shown.iter().filter(|text| *text == PLACEHOLDER).count();
    let strays: u32 = rows.iter().map(|row| row.strays).sum();
    assert!(empty <= strays as usize, "{empty} placeholders stand empty, {strays} are counted");
}

async fn status(world: &World) -> Value {
    serde_json::from_str(&world.lazaret(&["status", "--json"]).await).unwrap()
}

/// Ann asks, and the chat gets the reply.
async fn assert_answered(world: &World, ann: &Person, chat: &Chat, question: &str, reply: &str) {
    world.model.on(question).says(reply);
    ann.says(chat, question);
    assert_eq!(world.hears(chat).await, reply);
}

#[tokio::test]
async fn order_is_kept_through_an_outage_and_nothing_is_doubled() {
    let (world, ann, direct) = ann_with("resend").await;
    let gate = Gate::new();
    let long = format!("{}\n\n{}", "one ".repeat(800).trim(), "two ".repeat(800).trim());
    world
        .model
        .on("tell me")
        .runs("send_message", json!({ "text": "I begin." }))
        .waits_for(&gate)
        .runs("send_message", json!({ "text": "I go on." }))
        .says(&long);
    ann.says(&direct, "tell me");
    assert_eq!(world.hears(&direct).await, "I begin.");
    world.soon("the agent works", gate.arrived()).await;
    world.telegram.goes_away().await;
    gate.open();
    wait_for_state(&world, "two two", "ready").await;
    wait_for_state(&world, "I go on.", "deferred").await;
    assert_eq!(status(&world).await["outbox"]["deferred"], 1);
    world.telegram.comes_back().await;

    assert_eq!(world.hears(&direct).await, "I go on.");
    assert!(world.hears(&direct).await.starts_with("one one"));
    assert!(world.hears(&direct).await.starts_with("two two"));
    world.settled("m-1").await;
    assert_eq!(direct.shows().len(), 4);
    assert!(
        outbox(&world).iter().all(|row| row.uncertain == 0),
        "a send without a connection is never uncertain"
    );
    world.finish().await;
}

#[tokio::test]
async fn a_repeat_in_doubt_is_counted_and_one_that_is_certain_is_not() {
    let (world, ann, direct) = ann_with("resend").await;
    for (words, trouble, copies, doubts) in [
        ("answer A", Trouble::CutAfter, 2, 1),
        ("answer B", Trouble::CutBefore, 1, 1),
        ("answer C", Trouble::BadGatewayAfter, 2, 1),
        ("answer D", Trouble::BadGatewayBefore, 1, 1),
        ("answer E", Trouble::Refused(429, "Too Many Requests: retry after 1".into()), 1, 0),
        ("answer F", Trouble::Refused(401, "Unauthorized".into()), 1, 0),
    ] {
        world.telegram.plan("sendMessage", words, trouble.clone());
        let question = format!("give me {words}");
        world.model.on(&question).says(words);
        ann.says(&direct, &question);
        wait_for_state(&world, words, "sent").await;
        let shown = direct.shows().iter().filter(|text| *text == words).count();
        assert_eq!((shown, row(&world, words).uncertain), (copies, doubts), "{trouble:?}");
    }
    assert_accounted_for(&world, &[&direct]);
    assert_eq!(status(&world).await["outbox"]["uncertain"], 4);
    world.finish().await;
}

#[tokio::test]
async fn an_edit_may_be_repeated_and_its_text_stands_once() {
    let (world, ann, direct) = ann_with("edit").await;
    assert_answered(&world, &ann, &direct, "how are you?", "Quite well.").await;
    for (n, method, trouble, placeholders) in [
        (1, "sendMessage", Trouble::CutAfter, 1),
        (2, "sendMessage", Trouble::BadGatewayBefore, 1),
        (3, "editMessageText", Trouble::CutAfter, 1),
        (4, "editMessageText", Trouble::BadGatewayAfter, 1),
        (5, "editMessageText", Trouble::BadGatewayBefore, 1),
    ] {
        let text = format!("answer {n}");
        let words = if method == "sendMessage" { PLACEHOLDER } else { &text };
        world.telegram.plan(method, words, trouble.clone());
        let question = format!("question {n}");
        world.model.on(&question).says(&text);
        ann.says(&direct, &question);
        wait_for_state(&world, &text, "sent").await;
        assert_eq!(direct.shows().iter().filter(|shown| **shown == text).count(), 1, "{trouble:?}");
        let empty = direct.shows().iter().filter(|shown| *shown == PLACEHOLDER).count();
        assert_eq!(empty, placeholders, "the first placeholder stays empty: {trouble:?}");
    }
    let counted: Vec<u32> = (1..=5).map(|n| row(&world, &format!("answer {n}")).strays).collect();
    assert_eq!(counted, [1, 1, 0, 0, 0], "a 502 may mean that a placeholder arrived");

    // Somebody deletes the placeholder before its text arrives. The host sends another message instead.
    world.telegram.plan("editMessageText", "answer 6", Trouble::DeletedBefore);
    world.model.on("question 6").says("answer 6");
    ann.says(&direct, "question 6");
    wait_for_state(&world, "answer 6", "sent").await;
    world.soon("the placeholder was deleted", world.telegram.troubled()).await;
    assert_eq!(direct.shows().iter().filter(|shown| *shown == "answer 6").count(), 1);
    assert_eq!(row(&world, "answer 6").strays, 0);
    assert!(outbox(&world).iter().all(|row| row.uncertain == 0));
    assert_accounted_for(&world, &[&direct]);
    world.finish().await;
}

/// Returns the code in the question about a part.
fn code_in(question: &str) -> String {
    question.split("/resend ").nth(1).unwrap().split(' ').next().unwrap().to_owned()
}

#[tokio::test]
async fn a_part_in_doubt_is_held_and_the_chat_decides() {
    let (world, ann, direct) = ann_with("hold").await;
    let mut codes = Vec::new();
    for text in ["It is seven.", "It is eight."] {
        world.telegram.plan("sendMessage", text, Trouble::CutAfter);
        world.model.on(&format!("tell me: {text}")).says(text);
        ann.says(&direct, &format!("tell me: {text}"));
        assert_eq!(world.hears(&direct).await, text, "it had arrived, but the host cannot know");
        let asked = world.hears(&direct).await;
        assert!(asked.starts_with("[lazaret] A part may or may not have arrived"), "{asked}");
        assert!(asked.contains(text), "{asked}");
        codes.push(code_in(&asked));
        // The parts after it are sent.
        assert_answered(&world, &ann, &direct, &format!("and after {text}"), &format!("After: {text}")).await;
    }
    let held = status(&world).await["outbox"]["held"].clone();
    assert_eq!((&held[0]["code"], &held[1]["code"]), (&json!(codes[0]), &json!(codes[1])), "{held}");
    let told = world.lazaret(&["status"]).await;
    assert!(told.contains(&format!("/resend {}", codes[0])), "{told}");

    ann.says(&direct, &format!("/drop {}", codes[0]));
    assert_eq!(world.hears(&direct).await, format!("[lazaret] {} is not sent again.", codes[0]));
    ann.says(&direct, &format!("/resend {}", codes[1]));
    assert_eq!(world.hears(&direct).await, "It is eight.");
    assert_eq!(world.hears(&direct).await, format!("[lazaret] {} is sent again.", codes[1]));
    ann.says(&direct, &format!("/resend {}", codes[1]));
    let told = world.hears(&direct).await;
    assert!(told.starts_with("[lazaret] Nothing is held here"), "{told}");
    assert_eq!(direct.shows().iter().filter(|text| *text == "It is seven.").count(), 1);
    assert_accounted_for(&world, &[&direct]);
    assert_eq!(status(&world).await["outbox"]["held"], json!([]));
    world.finish().await;
}

/// The platform has the message, and the host dies before it gets the answer.
#[tokio::test]
async fn a_host_that_is_killed_between_send_and_receipt_keeps_the_owners_policy() {
    for policy in ["resend", "edit", "hold"] {
        let (mut world, ann, direct) = ann_with(policy).await;
        let methods: &[&str] =
            if policy == "edit" { &["sendMessage", "editMessageText"] } else { &["sendMessage"] };
        for (n, method) in methods.iter().enumerate() {
            let text = format!("It is {n} o'clock.");
            let words = if (policy, *method) == ("edit", "sendMessage") { PLACEHOLDER } else { &text };
            world.telegram.plan(method, words, Trouble::HangsAfter);
            world.model.on(&format!("what time is it, {n}")).says(&text);
            ann.says(&direct, &format!("what time is it, {n}"));
            world.soon("the platform has it", direct.comes_to_show(words)).await;
            world.kill_host().await;
            assert_eq!(row(&world, &text).state, "sending");
            world.up().await;

            let shown = || direct.shows().iter().filter(|shown| **shown == text).count();
            match policy {
                "hold" => {
                    let asked = world.soon("the chat is asked", direct.comes_to_show("may or may not")).await;
                    ann.says(&direct, &format!("/drop {}", code_in(&asked.text)));
                    wait_for_state(&world, &text, "failed").await;
                    assert_eq!(shown(), 1);
                }
                "edit" => {
                    wait_for_state(&world, &text, "sent").await;
                    assert_eq!(shown(), 1, "never twice");
                    assert_eq!(row(&world, &text).strays, u32::from(*method == "sendMessage"));
                }
                _ => {
                    wait_for_state(&world, &text, "sent").await;
                    assert_eq!(
                        (shown(), row(&world, &text).uncertain),
                        (2, 1),
                        "the text is not lost, and the second copy is counted"
                    );
                }
            }
            assert_accounted_for(&world, &[&direct]);
        }
        world.finish().await;
    }
}

#[tokio::test]
async fn a_group_chooses_for_itself() {
    let (world, ann, direct) = ann_with("resend").await;
    let family = world.telegram.room(-100_123, "Family");
    ann.says(&family, "hello?");
    world.admit(&family.address(), "family").await;
    world.write("groups/family/group.toml", "delivery = \"edit\"\n");
    assert_answered(&world, &ann, &direct, "how are you?", "Quite well.").await;
    assert_answered(&world, &ann, &family, "@laz_bot how is it?", "Quite well, all of us.").await;
    let sent = world.telegram.sent();
    // `main` also hears that the room asks to be admitted.
    let replies = sent.iter().filter(|sent| sent.text.contains("Quite well"));
    assert_eq!(replies.map(|sent| sent.edits).collect::<Vec<_>>(), [0, 1]);
    world.finish().await;
}

#[tokio::test]
async fn a_room_that_removed_the_bot_is_told_once_to_the_owner() {
    let (world, ann, direct) = ann_with("resend").await;
    let family = world.telegram.room(-100_123, "Family");
    ann.says(&family, "hello?");
    world.admit(&family.address(), "family").await;
    let gate = Gate::new();
    world
        .model
        .on("a long job")
        .waits_for(&gate)
        .runs("send_message", json!({ "text": "Half of it." }))
        .runs("send_message", json!({ "text": "Three quarters." }))
        .says("All of it.");
    ann.says(&family, "@laz_bot a long job");
    world.soon("the agent works", gate.arrived()).await;
    world.telegram.kicks(&family, true);
    gate.open();
    let told = world.hears(&direct).await;
    assert!(
        told.starts_with("[lazaret] Replies to Family (telegram:-100123) cannot be delivered:"),
        "{told}"
    );
    assert!(told.contains("bot was kicked"), "{told}");
    wait_for_state(&world, "All of it.", "failed").await;
    let outbox = status(&world).await["outbox"].clone();
    assert_eq!(outbox["unreachable"][0]["chat"], "telegram:-100123", "{outbox}");
    assert!(direct.unheard().is_empty(), "told once");
    let shown = world.lazaret(&["status"]).await;
    assert!(shown.contains("cut off   telegram:-100123"), "{shown}");

    world.telegram.kicks(&family, false);
    assert_answered(&world, &ann, &family, "@laz_bot are you back?", "Here I am.").await;
    assert_eq!(status(&world).await["outbox"]["unreachable"], json!([]));
    assert!(family.unheard().is_empty() && direct.unheard().is_empty());
    world.finish().await;
}

#[tokio::test]
async fn of_a_reply_whose_second_part_fails_no_torn_rest_is_sent() {
    let (world, ann, direct) = ann_with("resend").await;
    let parts = ["one ", "two ", "three "].map(|word| word.repeat(600).trim().to_owned());
    world.telegram.plan("sendMessage", "two two", Trouble::Refused(400, "Bad Request: no such words".into()));
    world.model.on("tell me").says(&parts.join("\n\n"));
    ann.says(&direct, "tell me");
    assert!(world.hears(&direct).await.starts_with("one one"));
    assert_eq!(
        world.hears(&direct).await,
        "[lazaret] The rest of a reply could not be delivered: Bad Request: no such words. \
         Ask again if you still need it."
    );
    assert_eq!(
        (row(&world, "two two").state, row(&world, "three three").state),
        ("failed".into(), "failed".into())
    );
    assert_answered(&world, &ann, &direct, "try again", "It works.").await;
    assert!(direct.unheard().is_empty());
    world.finish().await;
}

#[tokio::test]
async fn a_reply_older_than_a_day_is_not_said_and_the_chat_is_told() {
    let (mut world, ann, direct) = ann_with("resend").await;
    let gate = Gate::new();
    world.model.on("what time is it").waits_for(&gate).says("It is noon.");
    ann.says(&direct, "what time is it?");
    world.soon("the agent works", gate.arrived()).await;
    world.telegram.goes_away().await;
    gate.open();
    wait_for_state(&world, "It is noon.", "deferred").await;
    world.kill_host().await;
    // Makes the row a day and a second older.
    let c = Connection::open(database(&world)).unwrap();
    c.execute("UPDATE outbox SET lives_from = lives_from - 86401000, created_at = created_at - 86401000", [])
        .unwrap();
    drop(c);
    world.telegram.comes_back().await;
    world.up().await;
    assert_eq!(
        world.hears(&direct).await,
        "[lazaret] A reply could not be delivered in time, and is too old now. Ask again if you still need it."
    );
    assert_eq!(row(&world, "It is noon.").state, "expired");
    assert_eq!(direct.shows().len(), 1);
    assert_eq!(status(&world).await["outbox"]["expired"], 1);
    world.finish().await;
}

#[tokio::test]
async fn a_host_that_is_told_to_stop_leaves_what_must_wait_to_the_next_one() {
    let mut world = World::on(Engine::stand_in().await).await;
    // The rate limit allows one call, and then none during this host's life.
    world
        .set("LAZARET_CHANNELS_TELEGRAM_CHAT_BURST", "1")
        .set("LAZARET_CHANNELS_TELEGRAM_ROOM_PER_MINUTE", "1");
    let ann = world.telegram.person(5, "Ann");
    let family = world.telegram.room(-100_123, "Family");
    world.up().await;
    ann.says(&family, "hello?");
    world.admit(&family.address(), "family").await;
    let parts = ["one ", "two ", "three "].map(|word| word.repeat(600).trim().to_owned());
    world.model.on("tell me").says(&parts.join("\n\n"));
    ann.says(&family, "@laz_bot tell me");
    assert!(world.hears(&family).await.starts_with("one one"));
    wait_for_state(&world, "one one", "sent").await;
    world.stop_host().await;
    for words in ["two two", "three three"] {
        assert_eq!((row(&world, words).state.as_str(), row(&world, words).uncertain), ("ready", 0));
    }
    for limit in PACE {
        world.set(limit, "100000");
    }
    world.up().await;
    assert!(world.hears(&family).await.starts_with("two two"));
    assert!(world.hears(&family).await.starts_with("three three"));
    world.settled("m-1").await;
    assert_eq!(family.shows().len(), 3);
    world.finish().await;
}

/// The fake Telegram server counts: at most 3 calls in 3 seconds in a chat, 20 a minute in a room, and none while a 429
/// asks the bot to wait.
#[tokio::test]
async fn thirty_replies_into_one_room_keep_the_documented_pace() {
    let mut world = World::on(Engine::stand_in().await).await;
    for limit in PACE {
        world.unset(limit);
    }
    world.set("LAZARET_LIMITS_IDLE_WINDOW", "5m");
    world.telegram.holds_to_pace();
    let ann = world.telegram.person(5, "Ann");
    let team = world.telegram.room(-100_777, "Team");
    let (lunch, work) = (team.topic(1), team.topic(2));
    world.up().await;
    for (topic, group) in [(&lunch, "lunch"), (&work, "work")] {
        ann.says(topic, "hello?");
        world.admit(&topic.address(), group).await;
        let parts: Vec<String> =
            (0..15).map(|n| format!("{group} {n} {}", "word ".repeat(600).trim())).collect();
        // More than ten parts at once would be a file.
        let (first, rest) = parts.split_at(8);
        world
            .model
            .on(&format!("talk of {group}"))
            .runs("send_message", json!({ "text": first.join("\n\n") }))
            .says(&rest.join("\n\n"));
    }
    world.telegram.refuse_next("sendMessage", 429, "Too Many Requests: retry after 2", Some(2));
    ann.says(&lunch, "@laz_bot talk of lunch");
    // A call for the other topic may already be under way when the 429 arrives, so Ann writes there only afterwards.
    world.soon("the room has asked for patience", world.telegram.troubled()).await;
    ann.says(&work, "@laz_bot talk of work");
    for (topic, group) in [(&lunch, "lunch"), (&work, "work")] {
        for n in 0..15 {
            let heard = world.hears(topic).await;
            assert!(heard.starts_with(&format!("{group} {n} ")), "{group} {n}: {heard}");
        }
    }
    world.settled("m-1").await;
    let attempts: Vec<i64> = {
        let c = Connection::open_with_flags(database(&world), OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
        let mut rows = c.prepare("SELECT attempts FROM outbox ORDER BY attempts DESC").unwrap();
        rows.query_map([], |r| r.get(0)).unwrap().collect::<Result<_, _>>().unwrap()
    };
    assert_eq!(
        (attempts.len(), attempts.iter().sum::<i64>()),
        (30, 31),
        "a wait for the rate limit must not count as an attempt"
    );
    world.finish().await;
}
