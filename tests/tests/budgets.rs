//! A box that takes too much is ended, and its chat is told in plain words what it took and how much it may.

#![cfg(test)]

use journeys::telegram::{Chat, Person};
use journeys::world::{Engine, World};
use serde_json::json;

/// Ann's agent runs a command; what her chat is told of it.
async fn runs(settings: &[(&str, &str)], command: &str) -> (World, Person, Chat, String) {
    let (world, ann, direct) = World::ann_at_home(Engine::docker(), settings).await;
    world.model.on("do it").runs("run_command", json!({ "command": command })).says("It is done.");
    ann.says(&direct, "do it");
    let told = world.hears(&direct).await;
    (world, ann, direct, told)
}

/// The chat is served as before.
async fn goes_on(world: World, ann: &Person, direct: &Chat) {
    world.model.on("are you there").says("I am.");
    ann.says(direct, "are you there?");
    assert_eq!(world.hears(direct).await, "I am.");
    world.finish().await;
}

fn has(told: &str, words: &[&str]) {
    for word in words {
        assert!(told.contains(word), "{word:?} is not in: {told}");
    }
}

#[tokio::test]
async fn a_full_workspace_is_named_with_its_limit() {
    let settings = [("LAZARET_LIMITS_WORKSPACE_MIB", "16")];
    let fill =
        "echo hello >/workspace/note; sleep 2; dd if=/dev/zero of=/workspace/fill bs=1M count=200; sleep 60";
    let (world, ann, direct, told) = runs(&settings, fill).await;
    has(&told, &["[lazaret]", "it filled its workspace with", "of 16 MiB (limits.workspace_mib)"]);
    // Its limit would bound nothing if what went beyond it stayed.
    has(&world.hears(&direct).await, &["[lazaret]", "the newest file", "I removed it"]);
    assert!(!world.in_workspace("main", "fill").exists());
    assert!(world.in_workspace("main", "note").exists(), "what was there before stays");
    goes_on(world, &ann, &direct).await;
}

#[tokio::test]
async fn a_flood_of_letters_is_named_with_its_limit() {
    let settings = [("LAZARET_LIMITS_LETTERS_NAMES", "200")];
    let flood = "cd /ipc/from-agent; i=0; while i=$((i+1)); do : >.$i; done; sleep 60";
    let (world, ann, direct, told) = runs(&settings, flood).await;
    has(&told, &["it left more than 200 files in from-agent"]);
    goes_on(world, &ann, &direct).await;
}

/// What lies there at one time is little; what passes through it is not.
#[tokio::test]
async fn a_stream_of_letters_is_named_with_its_limit() {
    let settings = [("LAZARET_LIMITS_TURN_LETTERS", "300")];
    let flood = "cd /ipc/from-agent; i=0; while i=$((i+1)); do : >junk; usleep 2000; done";
    let (world, ann, direct, told) = runs(&settings, flood).await;
    has(&told, &["letters in one turn, of 300"]);
    let log = world.log();
    assert!(log.matches("is no letter's name").count() <= 25, "the box wrote the operator's log:\n{log}");
    goes_on(world, &ann, &direct).await;
}
