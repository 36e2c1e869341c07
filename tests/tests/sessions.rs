//! What an agent of a new session can find of the sessions before it: nothing, even if the earlier agent wanted to
//! leave something.

#![cfg(test)]

use std::fs;
use std::path::PathBuf;

use journeys::telegram::{Chat, Person};
use journeys::world::{Engine, World};
use serde_json::json;

/// Ann asks, and her agent looks for a pattern in everything of its session. Returns what it found. The pattern must
/// not match itself, because the transcript holds the command.
async fn found(world: &World, ann: &Person, direct: &Chat, asked: &str, pattern: &str) -> String {
    let look = format!("find /session | sort; grep -rl '{pattern}' /session");
    world.model.on(asked).runs("run_command", json!({ "command": look })).says("I have looked.");
    ann.says(direct, asked);
    assert_eq!(world.hears(direct).await, "I have looked.");
    world.model.tool_results().pop().unwrap()
}

fn transcript(world: &World, number: u32) -> PathBuf {
    let folder = world.session("main", number);
    folder.join(folder.file_name().unwrap()).with_extension("jsonl")
}

async fn begins_anew(world: &World, ann: &Person, direct: &Chat) {
    ann.says(direct, "/new");
    let told = world.hears(direct).await;
    assert!(told.starts_with("[lazaret] A new session begins"), "{told}");
    assert!(told.contains("The agent cannot read what was said before"), "{told}");
}

#[tokio::test]
async fn an_agent_cannot_read_what_was_said_before_new_and_the_operator_can() {
    let (mut world, ann, direct) = World::ann_at_home(Engine::stand_in().await, &[]).await;
    let leave = "ln /session/*.jsonl /session/twin; ln -s /etc/passwd /session/conversation-2";
    world.model.on("number 7411").runs("run_command", json!({ "command": leave })).says("I will.");
    ann.says(&direct, "remember the number 7411");
    assert_eq!(world.hears(&direct).await, "I will.");

    begins_anew(&world, &ann, &direct).await;
    let seen = found(&world, &ann, &direct, "what was it?", "number 741[1]").await;
    assert!(seen.contains("/session/conversation-2-") && seen.contains("exit code 1"), "{seen}");
    for trace in ["conversation-1", "twin", "passwd"] {
        assert!(!seen.contains(trace), "{trace}: {seen}");
    }
    let kept = transcript(&world, 1);
    assert!(fs::read_to_string(&kept).unwrap().contains("number 7411"));

    // A host that dies right after the order.
    ann.says(&direct, "/new");
    assert!(world.hears(&direct).await.starts_with("[lazaret] A new session begins (number 3)"));
    world.delivered().await;
    world.kill_host().await;
    world.up().await;
    let seen = found(&world, &ann, &direct, "and now?", "what was i[t]").await;
    assert!(seen.contains("/session/conversation-3-") && seen.contains("exit code 1"), "{seen}");
    world.finish().await;
}

/// Earlier versions kept the transcripts of a group in one folder, which every box saw, under names that could be
/// guessed. An agent of that time may have left something for a session to come.
#[tokio::test]
async fn a_session_of_an_earlier_version_goes_on_and_those_before_it_are_out_of_reach() {
    let settings = [("LAZARET_LIMITS_IDLE_WINDOW", "0s")];
    let (mut world, ann, direct) = World::ann_at_home(Engine::stand_in().await, &settings).await;
    world.model.on("number 7411").says("I will.");
    ann.says(&direct, "remember the number 7411");
    assert_eq!(world.hears(&direct).await, "I will.");
    begins_anew(&world, &ann, &direct).await;
    world.model.on("number 8522").says("Again.");
    ann.says(&direct, "remember the number 8522");
    assert_eq!(world.hears(&direct).await, "Again.");
    world.delivered().await;
    world.patiently("the box is gone", async || world.boxes().await.is_empty().then_some(())).await;
    world.stop_host().await;
    let sessions = world.root().join("state/sessions/main");
    for (number, name) in [(1, "conversation-1"), (2, "conversation-2")] {
        fs::rename(transcript(&world, number), sessions.join(name).with_extension("jsonl")).unwrap();
        fs::remove_dir(world.session("main", number)).unwrap();
        let earlier = "UPDATE run SET session = ?1 WHERE session LIKE ?1 || '-%'";
        world.database().execute(earlier, [name]).unwrap();
    }
    let forged = fs::read_to_string(sessions.join("conversation-1.jsonl")).unwrap();
    fs::write(sessions.join("conversation-3.jsonl"), &forged).unwrap();
    fs::create_dir(sessions.join("conversation-3")).unwrap();
    fs::write(sessions.join("conversation-3/conversation-3.jsonl"), &forged).unwrap();

    world.up().await;
    let seen = found(&world, &ann, &direct, "which number?", "number 741[1]").await;
    assert!(seen.contains("exit code 1") && !seen.contains("conversation-1"), "{seen}");
    let transcript = world.model.requests().pop().unwrap().body.to_string();
    assert!(transcript.contains("number 8522"), "the session goes on: {transcript}");
    assert!(sessions.join("conversation-1.jsonl").exists(), "it waits for the end of its retention");
    world.delivered().await;

    begins_anew(&world, &ann, &direct).await;
    let seen = found(&world, &ann, &direct, "and what waited for you?", "number 741[1]").await;
    assert!(seen.contains("exit code 1") && seen.contains("/session/conversation-3-"), "{seen}");
    let transcript = world.model.requests().pop().unwrap().body.to_string();
    assert!(!transcript.contains("number 7411"), "what was planted is not read: {transcript}");
    world.finish().await;
}

/// A command of the agent can do anything to its own session. The group goes on all the same.
#[tokio::test]
async fn g3_a_transcript_that_became_something_else_is_begun_anew_and_the_chat_is_told_once() {
    let settings = [("LAZARET_LIMITS_IDLE_WINDOW", "0s")];
    let (world, ann, direct) = World::ann_at_home(Engine::stand_in().await, &settings).await;
    for (round, becomes) in
        ["mkfifo -m 400 $f", "mkdir -p $f/x", "ln -s /etc/passwd $f"].into_iter().enumerate()
    {
        let spoil =
            format!("f=$(ls -d /session/conversation-1-*.jsonl | grep -v aside); rm -rf $f; {becomes}");
        let (asked, again) = (format!("spoil it, {round}"), format!("still there, {round}?"));
        world.model.on(&asked).runs("run_command", json!({ "command": spoil })).says("Done.");
        ann.says(&direct, &asked);
        assert_eq!(world.hears(&direct).await, "Done.");
        world.delivered().await;
        world.patiently("the box is gone", async || world.boxes().await.is_empty().then_some(())).await;
        world.model.on(&again).says("Yes.");
        ann.says(&direct, &again);
        let told = world.hears(&direct).await;
        assert!(told.starts_with("[lazaret] The record of this conversation cannot be used"), "{told}");
        assert_eq!(world.hears(&direct).await, "Yes.");
    }
    let kept = fs::read_dir(world.session("main", 1)).unwrap().map(|entry| entry.unwrap().file_name());
    assert_eq!(kept.filter(|name| name.to_string_lossy().contains(".aside-")).count(), 3);
    world.model.on("once more").says("Still here.");
    ann.says(&direct, "once more");
    assert_eq!(world.hears(&direct).await, "Still here.", "told once");
    world.finish().await;
}

#[tokio::test]
async fn g5_a_personality_that_fits_into_no_letter_is_given_as_far_as_it_fits() {
    let (world, ann, direct) = World::ann_at_home(Engine::stand_in().await, &[]).await;
    world.write("groups/main/CLAUDE.md", format!("Be kind. {}", "\u{1}".repeat(60_000)));
    world.write("groups/global/CLAUDE.md", "Be brief. ".repeat(20_000));
    world.model.on_system("Be kind.").says("Gladly.");
    ann.says(&direct, "are you there?");
    let told = world.hears(&direct).await;
    assert!(told.starts_with("[lazaret] The agent of group main starts without the end of "), "{told}");
    assert!(told.contains("global/CLAUDE.md and the end of its CLAUDE.md"), "{told}");
    assert_eq!(world.hears(&direct).await, "Gladly.");
    world.finish().await;
}
