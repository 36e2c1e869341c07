//! Journeys over the Telegram API with Docker containers.

use journeys::telegram::Photo;
use journeys::world::World;
use serde_json::json;

/// The owner is paired and a room is admitted. Each chat gets only its own answers, for: a trigger, context, a
/// follow-up during a turn, a picture, a reply in two parts, and a 429 in between.
#[tokio::test]
async fn two_groups_and_the_right_answers_in_the_right_chats() {
    let mut world = World::new().await;
    let ann = world.telegram.person(5, "Ann");
    let bob = world.telegram.person(6, "Bob");
    let direct = ann.direct();
    let family = world.telegram.room(-100_123, "Family");
    world.up().await;

    // Nobody is admitted yet: the host counts the messages and does not answer.
    ann.says(&direct, "hello?");
    world.admit(&direct.address(), "main").await;
    bob.says(&family, "who is this bot?");
    world.admit(&family.address(), "family").await;
    assert!(direct.unheard().is_empty() && family.unheard().is_empty());

    // A message in a direct chat wakes the agent, and the box runs a command.
    world
        .model
        .on("what is in my box")
        .runs("run_command", json!({ "command": "echo $((40+2))" }))
        .says("It says **42**.");
    ann.says(&direct, "what is in my box?");
    direct.sees_typing().await;
    assert_eq!(world.soon("Ann is answered", direct.hears()).await, "It says 42.");
    assert_eq!(world.model.tool_results().len(), 1);

    // In a room only a mention wakes the agent. The earlier messages come along as context.
    world.model.on("what do we need").says("Milk, as Bob said.");
    bob.says(&family, "we are out of milk");
    ann.says(&family, "@laz_bot what do we need?");
    assert_eq!(world.soon("the room is answered", family.hears()).await, "Milk, as Bob said.");
    let asked = world.model.last_request_text();
    assert!(asked.contains("we are out of milk") && asked.contains("Bob"), "{asked}");
    assert!(!asked.contains("what is in my box"), "another group's talk: {asked}");

    // A follow-up while the box works joins the same turn.
    let gate = journeys::model::Gate::new();
    world
        .model
        .on("count the cups")
        .runs("run_command", json!({ "command": "echo counting" }))
        .waits_for(&gate)
        .runs("run_command", json!({ "command": "echo still counting" }))
        .says("Three cups, and two plates.");
    ann.says(&family, "@laz_bot count the cups");
    world.soon("the agent works", gate.arrived()).await;
    ann.says(&family, "@laz_bot and the plates");
    let given = async || {
        let letters = world.newest_letters("family").join("to-agent");
        let names = std::fs::read_dir(letters).into_iter().flatten().flatten().map(|entry| entry.file_name());
        let inputs = names.filter(|name| name.to_string_lossy().ends_with("-input.json")).count();
        (inputs >= 3).then_some(())
    };
    world.patiently("the box has the follow-up", given).await;
    gate.open();
    assert_eq!(world.soon("one answer to both", family.hears()).await, "Three cups, and two plates.");
    assert!(world.model.last_request_text().contains("and the plates"));

    // A picture with a caption is in the box's inbox.
    world
        .model
        .on("what is this")
        .runs("run_command", json!({ "command": "cat /inbox/*.jpg | wc -c" }))
        .says("A picture of 1234 bytes.");
    ann.shows(&direct, Photo { bytes: vec![7; 1234], caption: "what is this?".into() });
    assert_eq!(world.soon("the picture is answered", direct.hears()).await, "A picture of 1234 bytes.");
    let counted = world.model.tool_results();
    assert!(counted.last().is_some_and(|r| r.contains("1234")), "{counted:?}");

    // A long reply comes in two parts, in order, and the host waits after the 429.
    let long = format!("{}\n\n{}", "one ".repeat(800).trim(), "two ".repeat(800).trim());
    world.model.on("tell me a story").says(&long);
    world.telegram.refuse_next("sendMessage", 429, "Too Many Requests: retry after 1", Some(1));
    ann.says(&direct, "tell me a story");
    let first = world.soon("the first part", direct.hears()).await;
    let second = world.soon("the second part", direct.hears()).await;
    assert!(first.starts_with("one one") && second.starts_with("two two"));

    assert!(direct.unheard().is_empty() && family.unheard().is_empty(), "nothing is said twice");
    world.finish().await;
}
