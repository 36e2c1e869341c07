//! Docker engines die, hang and freeze. A host is killed while it has twenty boxes.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;

use journeys::model::Gate;
use journeys::telegram::{Chat, Person};
use journeys::world::{Engine, World, docker};
use serde_json::json;

const PATIENT: &str = "touch /workspace/began; while [ ! -e /workspace/go ]; do sleep 0.1; done; echo went";

/// Returns a group and its room with Ann.
async fn team(world: &World, ann: &Person, n: usize) -> (String, Chat) {
    let room = world.telegram.room(-100 - i64::try_from(n).unwrap(), &format!("Team {n}"));
    ann.says(&room, "hello?");
    let group = format!("team-{n}");
    world.admit(&room.address(), &group).await;
    (group, room)
}

#[tokio::test]
async fn twenty_boxes_lose_their_host_in_mid_turn_and_every_turn_is_answered_once() {
    let settings = [
        ("LAZARET_HOST_WORKING_RUNS", "20"),
        ("LAZARET_HOST_LIVE_BOXES", "20"),
        ("LAZARET_LIMITS_MEMORY_MIB", "64"),
    ];
    let (mut world, ann, _) = World::ann_at_home(Engine::docker(), &settings).await;
    let mut teams = Vec::new();
    for n in 1..=20 {
        teams.push(team(&world, &ann, n).await);
    }
    for (group, room) in &teams {
        world
            .model
            .on(&format!("task of {group}."))
            .runs("run_command", json!({ "command": PATIENT }))
            .says(&format!("{group} is done."));
        ann.says(room, &format!("@laz_bot task of {group}."));
    }
    for (group, _) in &teams {
        world.made_in_workspace(group, "began").await;
    }
    let before: BTreeSet<String> = world.boxes().await.into_iter().collect();
    assert_eq!(before.len(), 20);
    world.kill_host().await;
    world.up().await;
    for (group, _) in &teams {
        std::fs::write(world.in_workspace(group, "go"), "").unwrap();
    }
    for (group, room) in &teams {
        assert_eq!(world.hears(room).await, format!("{group} is done."));
    }
    let after: BTreeSet<String> = world.boxes().await.into_iter().collect();
    assert_eq!(after, before, "the host adopted all boxes and made none");
    let asked: String = world.model.requests().iter().map(|request| request.body.to_string()).collect();
    assert_eq!(asked.matches(r"went\n").count(), 20, "every command ended");
    assert!(!asked.contains("may have run"), "and none was interrupted");
    assert!(teams.iter().all(|(_, room)| room.unheard().is_empty()), "nothing is said twice");
    world.finish().await;
}

#[tokio::test]
async fn a_box_that_was_frozen_is_thawed_by_its_next_host() {
    let (mut world, ann, direct) = World::ann_at_home(Engine::docker(), &[]).await;
    let gate = Gate::new();
    world.model.on("think hard").waits_for(&gate).says("Forty-two.");
    ann.says(&direct, "think hard");
    world.soon("the model is asked", gate.arrived()).await;
    let boxes = world.boxes().await;
    docker(&["pause", &boxes[0]]).await;
    world.kill_host().await;
    gate.open();
    world.up().await;
    assert_eq!(world.hears(&direct).await, "Forty-two.");
    assert_eq!(world.boxes().await, boxes);
    let trace = world.settled("m-1").await;
    assert_eq!(trace["turn"]["attempt"], json!(1), "{trace}");
    world.finish().await;
}

/// A box is killed while it starts, while it works, while it listens, and while it closes.
#[tokio::test]
async fn a_box_is_killed_in_each_state_and_nothing_is_lost() {
    let (world, ann, direct) = World::ann_at_home(Engine::docker(), &[]).await;
    let kill_all = async || {
        for name in world.boxes().await {
            // A box that has just ended by itself is already removed.
            let _ = tokio::process::Command::new("docker").args(["kill", &name]).output().await;
        }
    };
    // The box starts.
    world.model.on("first").says("One.");
    ann.says(&direct, "first");
    world.patiently("there is a box", async || (!world.boxes().await.is_empty()).then_some(())).await;
    kill_all().await;
    let heard = world.hears(&direct).await;
    // If the box is killed before `ready`, the host reports that it did not start. If it is killed later, the host
    // retries without a notice.
    let answer = if heard.starts_with("[lazaret]") { world.hears(&direct).await } else { heard };
    assert_eq!(answer, "One.");
    // The box works.
    world.model.on("second").runs("run_command", json!({ "command": PATIENT })).says("Two.");
    ann.says(&direct, "second");
    world.made_in_workspace("main", "began").await;
    kill_all().await;
    assert_eq!(world.hears(&direct).await, "Two.");
    // The box listens.
    kill_all().await;
    world.model.on("third").says("Three.");
    ann.says(&direct, "third");
    assert_eq!(world.hears(&direct).await, "Three.");
    // The box closes.
    ann.says(&direct, "/new");
    kill_all().await;
    assert!(world.hears(&direct).await.starts_with("[lazaret] A new session begins"));
    world.model.on("fourth").says("Four.");
    ann.says(&direct, "fourth");
    assert_eq!(world.hears(&direct).await, "Four.");
    assert!(direct.unheard().is_empty(), "{:?}", direct.unheard());
    world.finish().await;
}

#[tokio::test]
async fn an_engine_with_live_restore_is_killed_and_no_box_notices() {
    let engine = Engine::own_docker(true);
    let (world, ann, direct) = World::ann_at_home(engine.clone(), &[]).await;
    world.model.on("a long job").runs("run_command", json!({ "command": PATIENT })).says("The job is done.");
    ann.says(&direct, "a long job, please");
    world.made_in_workspace("main", "began").await;
    let boxes = world.boxes().await;
    engine.dockerd().kill();
    // The turn ends without the engine, because letters and the gateway's socket do not need it.
    std::fs::write(world.in_workspace("main", "go"), "").unwrap();
    assert_eq!(world.hears(&direct).await, "The job is done.");
    engine.dockerd().again();
    world.model.on("thank you").says("You are welcome.");
    ann.says(&direct, "thank you");
    assert_eq!(world.hears(&direct).await, "You are welcome.");
    assert_eq!((world.boxes().await, world.runs_of("main")), (boxes, 1));
    world.finish().await;
}

#[tokio::test]
async fn an_engine_without_live_restore_takes_its_boxes_along_and_the_turn_is_tried_again() {
    let engine = Engine::own_docker(false);
    let (mut world, ann, direct) = World::ann_at_home(engine.clone(), &[]).await;
    world.model.on("a long job").runs("run_command", json!({ "command": PATIENT })).says("The job is done.");
    ann.says(&direct, "a long job, please");
    world.made_in_workspace("main", "began").await;
    // The host and the engine die together, as in a power cut.
    engine.dockerd().kill();
    world.kill_host().await;
    world.up().await;
    engine.dockerd().again();
    assert_eq!(world.hears(&direct).await, "The job is done.");
    let trace = world.settled("m-1").await;
    assert_eq!(trace["turn"]["attempt"], json!(2), "{trace}");
    assert!(direct.unheard().is_empty());
    world.finish().await;
}

#[tokio::test]
async fn an_engine_that_hangs_holds_up_no_letters_and_no_channel() {
    let engine = Engine::own_docker(true);
    let (world, ann, direct) = World::ann_at_home(engine.clone(), &[]).await;
    let (_, room) = team(&world, &ann, 1).await;
    world.model.on("a long job").runs("run_command", json!({ "command": PATIENT })).says("The job is done.");
    ann.says(&direct, "a long job, please");
    world.made_in_workspace("main", "began").await;
    engine.dockerd().hangs(true);
    world.model.on("anybody there").says("Here I am.");
    ann.says(&room, "@laz_bot anybody there?");
    ann.says(&direct, "/status");
    assert!(world.hears(&direct).await.starts_with("[lazaret] group main: working"));
    std::fs::write(world.in_workspace("main", "go"), "").unwrap();
    assert_eq!(world.hears(&direct).await, "The job is done.");
    engine.dockerd().hangs(false);
    let heard = world.hears(&room).await;
    // The chat may have got a notice meanwhile that the box cannot start.
    let answer = if heard.starts_with("[lazaret]") { world.hears(&room).await } else { heard };
    assert_eq!(answer, "Here I am.");
    world.finish().await;
}

#[tokio::test]
async fn status_names_an_engine_that_takes_calls_and_does_not_answer() {
    let mut world = World::on(Engine::stand_in().await).await;
    let socket = world.root().join("engine.sock");
    let _mute = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    world.set("DOCKER_HOST", &format!("unix://{}", socket.display()));
    world.up().await;
    let told = world.lazaret(&["status"]).await;
    let engine = told.lines().find(|line| line.starts_with("engine")).unwrap_or_default();
    assert!(engine.contains("HANGS") && engine.contains("systemctl restart docker"), "{told}");
    // The end of the host waits for no answer either.
    world.stop_host().await;
}

#[tokio::test]
async fn the_box_of_a_check_goes_with_the_host_that_began_it() {
    let mut world = World::on(Engine::stand_in().await).await;
    let runner = world.root().join("slow-runner");
    std::fs::write(&runner, "#!/bin/sh\nexec sleep 600\n").unwrap();
    world.set("LAZARET_RUNNER", &runner.to_string_lossy()).set("LAZARET_HOST_DRAIN", "1s");
    world.up().await;
    let checks = async || {
        let boxes = world.boxes().await;
        boxes.iter().any(|name| name.contains("lazaret-trial-")).then_some(())
    };
    tokio::select! {
        said = world.chat("hello\n") => panic!("the chat ended too early:\n{said}"),
        () = world.patiently("the image is checked", checks) => {}
    }
    world.finish().await;
}
