//! `lazaret box check` shows a box's protection and finds a key in a wrong place.

#![cfg(test)]

use journeys::model::{Gate, KEY};
use journeys::telegram::TOKEN;
use journeys::world::{Engine, World};
use serde_json::{Value, json};

#[tokio::test]
async fn a_box_is_looked_at_from_all_sides_beside_a_host_at_work() {
    let (world, ann, direct) = World::ann_at_home(Engine::docker(), &[]).await;
    let gate = Gate::new();
    world.model.on("work").runs("run_command", json!({ "command": "true" })).waits_for(&gate).says("Done.");
    ann.says(&direct, "work");
    world.soon("the box works", gate.arrived()).await;

    let text = world.lazaret(&["box", "check"]).await;
    let last = text.lines().last().unwrap();
    let (held, of) = last.strip_suffix(" held").and_then(|score| score.split_once(" of ")).unwrap();
    assert_eq!(held, of, "every line holds:\n{text}");
    assert!(!text.contains(KEY) && !text.contains(TOKEN), "a key is never printed");

    let told: Value =
        serde_json::from_str(&world.lazaret(&["box", "check", "main", "--json"]).await).unwrap();
    for line in told["lines"].as_array().unwrap() {
        assert_eq!(line["standing"], "held", "{line}");
    }
    let tried = |what: &str| told[what].as_array().unwrap().clone();
    assert!(tried("syscalls").len() >= 30 && tried("network").len() >= 9, "{told}");
    assert!(
        tried("network").iter().all(|way| way["refused"].is_string()),
        "every network attempt is refused: {told}"
    );
    let canary = &told["canary"];
    assert_eq!((canary["secrets"].as_u64(), &canary["hits"]), (Some(2), &json!([])), "{canary}");
    assert!(canary["places"].as_u64().unwrap() > 10, "{canary}");
    let boxes = world.boxes().await;
    assert_eq!(boxes.len(), 1, "only the run's box is left: {boxes:?}");
    gate.open();
    assert_eq!(world.hears(&direct).await, "Done.");
    world.finish().await;
}

#[tokio::test]
async fn a_key_that_got_into_a_workspace_is_found_and_not_printed() {
    let (world, ann, direct) = World::ann_at_home(Engine::docker(), &[]).await;
    // A person makes a mistake: a key in a chat ends up in a file. The gateway would hide it in the model's answer, so
    // the command joins two halves.
    let (one, other) = KEY.split_at(KEY.len() / 2);
    let command = format!("mkdir -p notes/deep; echo 'key = {one}''{other}' > notes/deep/key.txt");
    world.model.on("keep it").runs("run_command", json!({ "command": command })).says("Kept.");
    ann.says(&direct, &format!("keep it: {KEY}"));
    assert_eq!(world.hears(&direct).await, "Kept.");
    let check = world.run(&["box", "check"], "").await;
    assert_eq!(check.status.code(), Some(1));
    let told = String::from_utf8_lossy(&check.stdout);
    let line = told.lines().find(|line| line.starts_with("LOST      key-canary")).unwrap();
    assert!(line.contains("notes/deep/key.txt"), "{line}");
    assert!(
        line.contains("letters/main") && line.contains("sessions/main"),
        "the key is also in letters and sessions: {line}"
    );
    assert!(told.contains("revoke that key where it was issued") && !told.contains(KEY), "{told}");
    world.finish().await;
}
