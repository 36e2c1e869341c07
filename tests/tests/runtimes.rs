//! A group can have another container runtime: gVisor, or a runtime that the install or the engine does not know.

#![cfg(test)]

use journeys::model::Gate;
use journeys::world::{Engine, World};
use serde_json::{Value, json};

#[track_caller]
fn has(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "{word:?} is not in:\n{text}");
    }
}

/// Under gVisor, inotify in the box does not see what the host writes, so the runner polls for letters.
#[tokio::test]
async fn a_group_under_gvisor_is_served_and_what_is_lost_there_is_named() {
    let known = [("LAZARET_ENGINE_RUNTIMES", "[\"runsc\", \"runsc-uncounted\"]")];
    let (world, ann, direct) = World::ann_at_home(Engine::own_docker_with_gvisor(), &known).await;
    world.write("groups/main/group.toml", "runtime = \"runsc\"\n");
    let gate = Gate::new();
    world
        .model
        .on("which kernel")
        .runs("run_command", json!({ "command": "dmesg | head -1; echo kept > note" }))
        .waits_for(&gate)
        .says("It is not the host's.");
    ann.says(&direct, "which kernel");
    world.soon("the box has looked", gate.arrived()).await;
    has(&world.model.tool_results().pop().unwrap(), &["Starting gVisor"]);
    gate.open();
    assert_eq!(world.hears(&direct).await, "It is not the host's.");

    world.model.on("again").runs("run_command", json!({ "command": "cat note" })).says("Still here.");
    ann.says(&direct, "again");
    assert_eq!(world.hears(&direct).await, "Still here.");
    has(&world.model.tool_results().pop().unwrap(), &["kept"]);
    assert_eq!(world.boxes().await.len(), 1, "the second letter reached the same box");

    let status: Value = serde_json::from_str(&world.lazaret(&["status", "--json"]).await).unwrap();
    let losses: Vec<&str> =
        status["losses"].as_array().unwrap().iter().map(|l| l["line"].as_str().unwrap()).collect();
    assert_eq!(losses, ["memory-filesystems", "room-at-once", "seccomp", "syscalls"], "{status}");
    assert!(status["losses"].as_array().unwrap().iter().all(|l| l["why"] == "runtime"), "{status}");
    let told = world.lazaret(&["status"]).await;
    has(
        &told,
        &["loss      main  room-at-once: any size in one call (runtime)", "fix: set `limits.disk_images"],
    );

    let check = world.lazaret(&["box", "check"]).await;
    has(
        &check,
        &[
            "runsc",
            "ok        network",
            "ok        capabilities",
            "ok        memory-limit",
            "ok        key-canary",
            "not offered by this runtime",
            "limits.disk_images = true",
        ],
    );

    // The same without control groups.
    world.write("groups/main/group.toml", "runtime = \"runsc-uncounted\"\nlimits.idle_window = 0\n");
    world.model.on("uncounted").says("As before.");
    ann.says(&direct, "/new");
    world.hears(&direct).await;
    ann.says(&direct, "uncounted");
    assert_eq!(world.hears(&direct).await, "As before.");
    has(
        &world.lazaret(&["status"]).await,
        &["loss      main  memory-limit: nothing that keeps it (runtime)", "pids-limit", "cpu-limit"],
    );
    has(&world.lazaret(&["box", "check"]).await, &["--ignore-cgroups"]);
    world.finish().await;
}

#[tokio::test]
async fn a_runtime_that_the_engine_does_not_know_is_refused_with_the_line_to_add() {
    let (world, ann, direct) = World::ann_at_home(Engine::stand_in().await, &[]).await;
    world.write("groups/main/group.toml", "runtime = \"runsc\"\n");
    ann.says(&direct, "hello");
    let told = world.hears(&direct).await;
    has(
        &told,
        &["does not know the runtime runsc", "--host-uds=open", "daemon.json", "systemctl reload docker"],
    );
    has(&world.log(), &["box.runtime"]);
    let doctor = world.run(&["doctor"], "").await;
    has(&String::from_utf8_lossy(&doctor.stdout), &["main: the engine does not know the runtime runsc"]);
    // The host keeps the message, and answers it when the group uses an available runtime.
    world.model.on("hello").says("Hello.");
    world.write("groups/main/group.toml", "");
    assert_eq!(world.hears(&direct).await, "Hello.");
    world.finish().await;
}

#[tokio::test]
async fn a_runtime_that_the_install_does_not_list_is_no_groups_to_choose() {
    let (world, ann, direct) = World::ann_at_home(Engine::stand_in().await, &[]).await;
    world.write("groups/main/group.toml", "runtime = \"nvidia\"\n");
    ann.says(&direct, "hello");
    let told = world.hears(&direct).await;
    has(&told, &["runtime = \"nvidia\"", "engine.runtimes in lazaret.toml", "runc, runsc"]);
}

/// The engine stand-in has neither seccomp nor control groups, but reports that it has both. So the host must find out
/// with a probe.
#[tokio::test]
async fn an_engine_that_does_not_do_what_it_is_asked_is_found_and_refused_and_an_owner_may_accept_it() {
    let (mut world, ann, direct) = World::ann_at_home(
        Engine::stand_in().await,
        &[("LAZARET_ENGINE_ACCEPT", "[\"seccomp\", \"syscalls\"]")],
    )
    .await;
    ann.says(&direct, "hello");
    let told = world.hears(&direct).await;
    has(
        &told,
        &[
            "does not make the box",
            "lazaret box check",
            "accept = [\"memory-limit\"",
            "memory-limit: asked for 1024 MiB",
        ],
    );
    assert!(!told.contains("seccomp: asked"), "an accepted gap is no reason to refuse: {told}");
    has(&world.log(), &["box.posture"]);

    world.stop_host().await;
    world.set("LAZARET_ENGINE_ACCEPT", "[\"memory\"]");
    let refused = world.run(&["config", "check"], "").await;
    has(
        &String::from_utf8_lossy(&refused.stderr),
        &["LAZARET_ENGINE_ACCEPT", "\"memory\" is no line of the posture", "memory-limit"],
    );
    world.set(
        "LAZARET_ENGINE_ACCEPT",
        "[\"seccomp\", \"syscalls\", \"room-at-once\", \"memory-limit\", \"pids-limit\", \"cpu-limit\", \"swap-limit\"]",
    );
    world.model.on("hello").says("Hello.");
    world.up().await;
    assert_eq!(world.hears(&direct).await, "Hello.");
    has(&world.lazaret(&["status"]).await, &["loss      main  memory-limit", "(accepted)"]);
    has(&world.lazaret(&["doctor"]).await, &["main runs without memory-limit (accepted)"]);
    let check = world.run(&["box", "check"], "").await;
    assert_eq!(check.status.code(), Some(0), "an accepted loss does not fail the check");
    has(&String::from_utf8_lossy(&check.stdout), &["accepted  memory-limit"]);
    world.finish().await;
}

#[tokio::test]
async fn a_ceiling_above_the_machines_own_is_refused_with_the_number() {
    let (world, ann, direct) =
        World::ann_at_home(Engine::docker(), &[("LAZARET_LIMITS_MEMORY_MIB", "99000000")]).await;
    ann.says(&direct, "hello");
    let told = world.hears(&direct).await;
    has(&told, &["limits.memory_mib = 99000000", "of this machine", "lower it"]);
    has(&world.log(), &["box.ceiling"]);
    let doctor = world.run(&["doctor"], "").await;
    has(&String::from_utf8_lossy(&doctor.stdout), &["BAD  box", "limits.memory_mib = 99000000"]);
}

#[tokio::test]
async fn a_posture_is_probed_once_in_a_hosts_life_however_many_are_born() {
    let (world, ann, direct) =
        World::ann_at_home(Engine::docker(), &[("LAZARET_LIMITS_IDLE_WINDOW", "0")]).await;
    for word in ["one", "two", "three"] {
        world.model.on(word).says(word);
        ann.says(&direct, word);
        assert_eq!(world.hears(&direct).await, word);
    }
    assert_eq!(world.log().matches("the posture was probed").count(), 1, "{}", world.log());
    world.finish().await;
}
