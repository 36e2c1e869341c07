//! Tool calls and requests that an owner must allow first. The journeys run on the engine stand-in.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use journeys::telegram::{Chat, Person, SentMessage};
use journeys::world::{Engine, World};
use serde_json::{Value, json};

const RULES: &str = r#"
[tools]
default = "record"
rules = [
  { tool = "run_command", command = "touch *", verdict = "ask" },
  { tool = "update_personality", verdict = "ask" },
]
"#;

/// Ann at home, in a group whose rules ask.
async fn asking(settings: &[(&str, &str)]) -> (World, Person, Chat) {
    let (world, ann, direct) = World::ann_at_home(Engine::stand_in().await, settings).await;
    world.write("groups/main/group.toml", RULES);
    (world, ann, direct)
}

async fn card(world: &World, chat: &Chat) -> SentMessage {
    let card = world.soon("an owner is asked", chat.hears_message()).await;
    assert!(card.text.contains("asks for permission"), "{}", card.text);
    card
}

async fn answer(world: &World, query: &str) -> (String, bool) {
    world.soon("the press is answered", world.telegram.answered(query)).await
}

fn touch(file: &str) -> Value {
    json!({ "command": format!("touch {file}") })
}

fn is_there(world: &World, file: &str) -> bool {
    world.root().join("state/workspaces/main").join(file).exists()
}

fn count(world: &World, sql: &str) -> i64 {
    world.database().query_row(sql, [], |r| r.get(0)).unwrap()
}

/// The card's buttons stand while the host is killed, and the answer comes after it. The box is closed meanwhile.
#[tokio::test]
async fn an_ask_card_survives_a_killed_host_and_is_answered_after_it() {
    let (mut world, ann, direct) = asking(&[("LAZARET_HOST_QUESTION_WAIT", "0s")]).await;
    world.model.on("make one").runs("run_command", touch("one")).says("Made.");
    ann.says(&direct, "make one");
    let card = card(&world, &direct).await;
    assert!(
        card.text.starts_with("[lazaret] Laz asks for permission to use run_command:\n\n│ touch one\n"),
        "{}",
        card.text
    );
    let labels: Vec<_> = card.buttons.iter().map(|button| button.text.as_str()).collect();
    assert_eq!(labels, ["Allow once", "Always allow this command", "Deny"]);
    world.patiently("the box is closed", async || world.boxes().await.is_empty().then_some(())).await;
    world.delivered().await;
    world.kill_host().await;
    world.up().await;
    assert!(!is_there(&world, "one"));
    let press = ann.presses(&card, "Allow once");
    assert_eq!(answer(&world, &press).await.0, "✓ Allow once (Ann)");
    assert_eq!(world.hears(&direct).await, "Made.");
    assert!(is_there(&world, "one"));
    assert_eq!((world.runs_of("main"), count(&world, "SELECT count(*) FROM tool_rule")), (2, 0));
    assert!(direct.unheard().is_empty(), "it was asked once: {:?}", direct.unheard());
    world.finish().await;
}

#[tokio::test]
async fn always_is_for_exactly_this_command_and_can_be_taken_back() {
    let (world, ann, direct) = asking(&[]).await;
    world
        .model
        .on("make both")
        .runs("run_command", touch("one"))
        .runs("run_command", touch("one"))
        .runs("run_command", touch("two"))
        .says("Done.");
    ann.says(&direct, "make both");
    ann.presses(&card(&world, &direct).await, "Always allow");
    let second = world.soon("she is asked about two", direct.comes_to_show("│ touch two")).await;
    // A reply to the card decides as a button does.
    ann.answers(&direct, &second, "no");
    world.soon("the end", direct.comes_to_show("Done.")).await;
    assert!(is_there(&world, "one") && !is_there(&world, "two"));
    let results = world.model.tool_results();
    assert!(results[2].contains("an owner has denied `touch two`"), "{results:?}");

    let rules = world.lazaret(&["groups", "rules", "main"]).await;
    assert!(rules.contains("run_command: touch one  (by telegram:5, "), "{rules}");
    let number = rules.split_whitespace().next().unwrap();
    world.lazaret(&["groups", "rules", "main", "--forget", number]).await;
    assert!(world.lazaret(&["groups", "rules", "main"]).await.contains("always allowed nothing"));
    assert_eq!(world.run(&["groups", "rules", "main", "--forget", number], "").await.status.code(), Some(1));
    world.finish().await;
}

/// The host asks before it performs a request, also if it dies between the owner's yes and the work.
#[tokio::test]
async fn a_request_is_performed_once_an_owner_has_allowed_it() {
    let (mut world, ann, direct) = asking(&[("LAZARET_HOST_QUESTION_WAIT", "0s")]).await;
    let change = json!({ "text": "Be kind.\n" });
    world.model.on("be kind").runs("update_personality", change).says("I will.");
    ann.says(&direct, "be kind");
    let card = card(&world, &direct).await;
    assert!(card.text.contains("│ {\"text\":\"Be kind.\\n\""), "{}", card.text);
    let personality = || std::fs::read_to_string(world.root().join("groups/main/CLAUDE.md")).unwrap();
    assert!(!personality().contains("Be kind."));
    world.patiently("the box is closed", async || world.boxes().await.is_empty().then_some(())).await;
    world.delivered().await;
    world.kill_host().await;
    ann.presses(&card, "Always allow update_personality");
    world.up().await;
    assert_eq!(world.hears(&direct).await, "I will.");
    let personality = || std::fs::read_to_string(world.root().join("groups/main/CLAUDE.md")).unwrap();
    assert_eq!(personality(), "Be kind.\n");
    assert_eq!(count(&world, "SELECT count(*) FROM audit WHERE what = 'personality'"), 1);
    // From now on it is not asked about.
    world.model.on("be brief").runs("update_personality", json!({ "text": "Be brief.\n" })).says("Yes.");
    ann.says(&direct, "be brief");
    assert_eq!(world.hears(&direct).await, "Yes.");
    assert_eq!(personality(), "Be brief.\n");
    world.finish().await;
}

#[tokio::test]
async fn only_an_owner_decides_and_what_nobody_decides_is_a_no() {
    let settings = [("LAZARET_HOST_QUESTION_WAIT", "0s"), ("LAZARET_HOST_QUESTION_EXPIRY", "3s")];
    let (world, ann, direct) = World::ann_at_home(Engine::stand_in().await, &settings).await;
    let bob = world.telegram.person(6, "Bob");
    let crew = world.telegram.room(-100_500, "Crew");
    world.write("groups/crew/group.toml", RULES);
    bob.says(&crew, "@laz_bot hello");
    world.admit(&crew.address(), "crew").await;
    world.model.on("make one").runs("run_command", touch("one")).says("I may not.");
    bob.says(&crew, "@laz_bot make one");
    let card = card(&world, &crew).await;
    let refused = answer(&world, &bob.presses(&card, "Allow once")).await;
    assert_eq!(refused, ("Only an owner can decide this.".into(), true));
    let code: String = world.database().query_row("SELECT code FROM question", [], |r| r.get(0)).unwrap();
    bob.says(&crew, &format!("/answer {code} 1"));
    world.soon("Bob is told", crew.comes_to_show("Only an owner can decide this.")).await;
    world.soon("the end", crew.comes_to_show("I may not.")).await;
    assert!(world.model.tool_results()[0].contains("which counts as a no"));
    // The question is over, also for an owner.
    let late = answer(&world, &ann.presses(&card, "Allow once")).await;
    assert_eq!(late.0, "✓ Allow once (Ann)");
    world.soon("she is told", crew.comes_to_show("No question here waits")).await;
    drop(direct);
    world.finish().await;
}

#[tokio::test]
async fn a_channel_without_buttons_has_words() {
    let settings = [("LAZARET_HOST_QUESTION_WAIT", "0s"), ("LAZARET_HOST_QUESTION_EXPIRY", "2s")];
    let (world, ..) = asking(&settings).await;
    world.model.on("make one").runs("run_command", touch("one")).says("I may not.");
    let chatted = world.chat("make one\n").await;
    assert!(chatted.contains("│ touch one") && chatted.contains(" 3 to deny it."), "{chatted}");
    assert!(chatted.contains("I may not."), "{chatted}");
    world.finish().await;
}

/// Somebody writes on without deciding. The agent hears of it, and the old card does nothing any more.
#[tokio::test]
async fn who_writes_on_instead_of_deciding_is_heard_first() {
    let (world, ann, direct) = asking(&[]).await;
    world.model.on("make one").runs("run_command", touch("one")).says("First you.");
    ann.says(&direct, "make one");
    let card = card(&world, &direct).await;
    ann.says(&direct, "wait a moment");
    world.soon("the end", direct.comes_to_show("First you.")).await;
    assert!(
        world.model.tool_results()[0].contains("call the tool again"),
        "{:?}",
        world.model.tool_results()
    );
    ann.presses(&card, "Always allow");
    world.soon("she is told", direct.comes_to_show("does not wait for this permission any more")).await;
    assert_eq!(count(&world, "SELECT count(*) FROM tool_rule"), 0);
    assert!(!is_there(&world, "one"));
    world.finish().await;
}
