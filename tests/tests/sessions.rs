//! What an agent of a new session can find of the sessions before it: nothing, even if the earlier agent wanted to
//! leave something.

#![cfg(test)]

use std::fs;

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

async fn begins_anew(world: &World, ann: &Person, direct: &Chat) {
    ann.says(direct, "/new");
    let told = world.hears(direct).await;
    assert!(told.starts_with("[lazaret] A new session begins"), "{told}");
    assert!(told.contains("The agent cannot read what was said before"), "{told}");
}

#[tokio::test]
async fn an_agent_cannot_read_what_was_said_before_new_and_the_operator_can() {
    let (mut world, ann, direct) = World::ann_at_home(Engine::stand_in().await, &[]).await;
    let leave = "ln /session/conversation-1.jsonl /session/twin; ln -s /etc/passwd /session/conversation-2";
    world.model.on("number 7411").runs("run_command", json!({ "command": leave })).says("I will.");
    ann.says(&direct, "remember the number 7411");
    assert_eq!(world.hears(&direct).await, "I will.");

    begins_anew(&world, &ann, &direct).await;
    let seen = found(&world, &ann, &direct, "what was it?", "number 741[1]").await;
    assert!(seen.contains("/session/conversation-2.jsonl") && seen.contains("exit code 1"), "{seen}");
    for trace in ["conversation-1", "twin", "passwd"] {
        assert!(!seen.contains(trace), "{trace}: {seen}");
    }
    let kept = world.root().join("state/sessions/main/conversation-1/conversation-1.jsonl");
    assert!(fs::read_to_string(&kept).unwrap().contains("number 7411"));

    // A host that dies right after the order.
    ann.says(&direct, "/new");
    assert!(world.hears(&direct).await.starts_with("[lazaret] A new session begins (number 3)"));
    world.delivered().await;
    world.kill_host().await;
    world.up().await;
    let seen = found(&world, &ann, &direct, "and now?", "what was i[t]").await;
    assert!(seen.contains("/session/conversation-3.jsonl") && seen.contains("exit code 1"), "{seen}");
    world.finish().await;
}

/// Earlier versions kept the transcripts of a group in one folder, which every box saw.
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
    for name in ["conversation-1", "conversation-2"] {
        let file = format!("{name}.jsonl");
        fs::rename(sessions.join(name).join(&file), sessions.join(&file)).unwrap();
        fs::remove_dir(sessions.join(name)).unwrap();
    }

    world.up().await;
    let seen = found(&world, &ann, &direct, "which number?", "number 741[1]").await;
    assert!(seen.contains("exit code 1") && !seen.contains("conversation-1"), "{seen}");
    let transcript = world.model.requests().pop().unwrap().body.to_string();
    assert!(transcript.contains("number 8522"), "the session goes on: {transcript}");
    assert!(sessions.join("conversation-1.jsonl").exists(), "it waits for the end of its retention");
    world.finish().await;
}
