//! Runs one turn per line of standard input with each model API, as `make run` does with a pipe.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use journeys::model::KEY;
use journeys::world::{Engine, World};
use serde_json::json;

const LINE: &str = "make a note that says hello, then list your files\n";

async fn note_and_list(world: &World) -> String {
    world
        .model
        .on("make a note")
        .thinks("A note, then a listing.")
        .runs("write_file", json!({ "path": "notes/hello.md", "content": "hello\n" }))
        .runs("run_command", json!({ "command": "ls notes" }))
        .says("The note is there: `notes/hello.md`.");
    let output = world.run(&["up", "--chat"], LINE).await;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    said
}

fn made_in_a_container(world: &World, said: &str) {
    assert!(said.contains("The note is there"), "{said}");
    assert!(
        world.model.tool_results().iter().any(|r| r.contains("hello.md")),
        "{:?}",
        world.model.tool_results()
    );
    let note = world.root().join("state/workspaces/main/notes/hello.md");
    assert_eq!(std::fs::read_to_string(note).unwrap(), "hello\n");
    let letters = said.lines().find_map(|l| l.split_once("letters: ")).unwrap().1;
    let turn_done = std::fs::read_dir(format!("{letters}/from-agent")).unwrap();
    assert!(turn_done.flatten().any(|e| e.file_name().to_string_lossy().ends_with("-turn_done.json")));
}

#[tokio::test]
async fn over_the_anthropic_wire() {
    let world = World::new().await;
    let said = note_and_list(&world).await;
    made_in_a_container(&world, &said);
    assert!(world.model.requests().iter().all(|r| r.path == "/v1/messages"));
    world.finish().await;
}

#[tokio::test]
async fn over_the_openai_wire() {
    let mut world = World::new().await;
    let url = world.model.openai_url();
    world.unset("ANTHROPIC_API_KEY").unset("ANTHROPIC_BASE_URL");
    world.set("OPENAI_BASE_URL", &url).set("OPENAI_API_KEY", KEY);
    let said = note_and_list(&world).await;
    made_in_a_container(&world, &said);
    let requests = world.model.requests();
    assert!(requests.iter().all(|r| r.path == "/v1/chat/completions"));
    let thoughts = requests[1].body["messages"].as_array().unwrap().iter().map(|m| &m["reasoning_content"]);
    let thoughts: Vec<_> = thoughts.filter_map(|thought| thought.as_str()).collect();
    assert_eq!(thoughts, ["A note, then a listing."], "the model gets its thoughts back");
    world.finish().await;
}

#[tokio::test]
async fn what_a_local_model_thinks_stays_out_of_the_chat() {
    let mut world = World::on(Engine::stand_in().await).await;
    let url = world.model.openai_url();
    world.unset("ANTHROPIC_API_KEY").unset("ANTHROPIC_BASE_URL");
    world.set("OPENAI_BASE_URL", &url).set("OPENAI_API_KEY", KEY);
    world.up().await;
    world.model.on("hello").says("<think>\nthey seem upset\n</think>\n\nHello!");
    let said = world.chat("hello\n").await;
    assert!(said.contains("Hello!") && !said.contains("upset") && !said.contains("think>"), "{said}");
    world.finish().await;
}

#[tokio::test]
async fn without_a_key_the_tour_says_that_it_is_one() {
    let mut world = World::new().await;
    world.unset("ANTHROPIC_API_KEY").unset("ANTHROPIC_BASE_URL");
    let output = world.run(&["up", "--chat"], &format!("{LINE}\nwho are you?\n")).await;
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
    assert_eq!(said.matches("[demo model").count(), 2, "every reply carries the label: {said}");
    assert!(said.contains("hello"), "{said}");
    assert!(world.model.requests().is_empty());
    world.finish().await;
}
