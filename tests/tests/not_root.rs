//! A host without root, and boxes that lock it out of their files. A helper box opens the folders after the end of the
//! agent's box.

#![cfg(test)]

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use journeys::telegram::{Chat, Person};
use journeys::world::{World, docker};
use serde_json::json;

/// Ann's agent runs a command and answers. Returns the command's result.
async fn does(world: &World, ann: &Person, direct: &Chat, order: &str, command: &str) -> String {
    world.model.on(order).runs("run_command", json!({ "command": command })).says("It is done.");
    ann.says(direct, order);
    assert_eq!(world.hears(direct).await, "It is done.", "{}", world.log());
    world.delivered().await;
    world.model.tool_results().pop().unwrap()
}

fn has(told: &str, words: &[&str]) {
    for word in words {
        assert!(told.contains(word), "{word:?} is not in: {told}");
    }
}

/// Returns the directories of all runs, ended ones too.
fn runs(world: &World) -> Vec<PathBuf> {
    let dirs = std::fs::read_dir(world.root().join("state/ipc/main")).into_iter().flatten().flatten();
    dirs.map(|entry| entry.path()).collect()
}

async fn no_run_is_left(world: &World) {
    world.patiently("the run's directory is gone", async || runs(world).is_empty().then_some(())).await;
}

fn mode(path: &Path) -> u32 {
    std::fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

async fn closes(world: &World, ann: &Person, direct: &Chat) {
    // A new session needs a new box.
    ann.says(direct, "/new");
    has(&world.hears(direct).await, &["[lazaret]"]);
    no_run_is_left(world).await;
}

#[tokio::test]
async fn a_host_that_is_not_root_answers_and_names_what_it_cannot_see() {
    let (mut world, ann, direct) = World::ann_at_home_without_root(&[]).await;
    let told =
        does(&world, &ann, &direct, "who are you", "id -u; id -g; umask; echo hi > /workspace/note").await;
    has(&told, &["23456", "0007"]);
    let host = std::fs::metadata(format!("/proc/{}", world.host().pid().unwrap())).unwrap();
    let note = std::fs::metadata(world.in_workspace("main", "note")).unwrap();
    assert_eq!((host.uid(), note.gid()), (12_345, 23_456));
    assert!(note.uid() >= 70_000 && note.mode() & 0o060 == 0o060, "{:o} of {}", note.mode(), note.uid());
    has(
        &world.lazaret(&["status"]).await,
        &["main  disk-watch: folders that an agent shuts are counted after its run"],
    );
    let check = world.run(&["box", "check", "--json"], "").await;
    let check: serde_json::Value = serde_json::from_slice(&check.stdout).unwrap();
    let lines = check["lines"].as_array().unwrap();
    let lost = lines.iter().filter(|l| ["lost", "named"].contains(&l["standing"].as_str().unwrap()));
    assert_eq!(lost.map(|l| l["name"].as_str().unwrap()).collect::<Vec<_>>(), ["disk-watch"], "{check}");
    // A person with access to the workspace may have a private folder there.
    let private = world.in_workspace("main", "private");
    std::fs::create_dir(&private).unwrap();
    std::fs::set_permissions(&private, PermissionsExt::from_mode(0o700)).unwrap();
    closes(&world, &ann, &direct).await;
    assert!(
        !world.log().contains("what an agent has shut"),
        "the agent has shut nothing, so nothing is opened"
    );
    world.finish().await;
}

#[tokio::test]
async fn a_folder_that_is_shut_among_the_letters_goes_with_its_run() {
    let (world, ann, direct) = World::ann_at_home_without_root(&[]).await;
    // The folder has the name of a draft, because the host removes other names at once if they are empty folders.
    let shut = "cd /ipc/from-agent && mkdir .x .x/y && echo mine > .x/f && chmod 0 .x/y .x; sleep 60";
    world.model.on("shut it").runs("run_command", json!({ "command": shut })).says("It is done.");
    ann.says(&direct, "shut it");
    has(
        &world.hears(&direct).await,
        &["[lazaret]", "made folders in from-agent that the host may not look into"],
    );
    no_run_is_left(&world).await;

    // The host may list this folder and not remove its entries.
    let kept = "cd /ipc/from-agent && mkdir .x && echo mine > .x/f && chmod 550 .x";
    does(&world, &ann, &direct, "keep it", kept).await;
    closes(&world, &ann, &direct).await;
    assert_eq!(world.log().matches("what an agent has shut was opened").count(), 2, "{}", world.log());
    world.finish().await;
}

#[tokio::test]
async fn g2_a_file_that_others_would_run_as_its_owner_loses_that_right_after_its_run() {
    let (world, ann, direct) = World::ann_at_home_without_root(&[]).await;
    let set =
        "cd /workspace && echo 'echo hi' > tool && chmod 6755 tool && echo mine > note && chmod 640 note";
    does(&world, &ann, &direct, "make it", set).await;
    assert_eq!(mode(&world.in_workspace("main", "tool")), 0o6755);
    closes(&world, &ann, &direct).await;
    let modes = ["tool", "note"].map(|name| mode(&world.in_workspace("main", name)));
    assert_eq!(modes, [0o755, 0o640], "{}", world.log());
    world.finish().await;
}

#[tokio::test]
async fn what_a_box_hides_in_a_shut_folder_is_counted_and_taken_back_after_its_run() {
    let settings = [("LAZARET_LIMITS_WORKSPACE_MIB", "16")];
    let (world, ann, direct) = World::ann_at_home_without_root(&settings).await;
    let old = "cd /workspace && mkdir -m 700 old && echo mine > old/note && chmod 600 old/note";
    does(&world, &ann, &direct, "note it", old).await;
    closes(&world, &ann, &direct).await;
    assert_eq!(mode(&world.in_workspace("main", "old")) & 0o770, 0o770);
    assert_eq!(
        mode(&world.in_workspace("main", "old/note")),
        0o600,
        "the helper box does not change a file's mode"
    );

    // The host finds the newest files by their time in seconds.
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    let hide = "cd /workspace && mkdir -m 700 deep && mkdir -m 500 deep/er && chmod 700 deep/er \
                && dd if=/dev/zero of=deep/er/fill bs=1M count=100 && chmod 500 deep/er && chmod 0 deep";
    does(&world, &ann, &direct, "hide it", hide).await;
    assert!(world.in_workspace("main", "deep/er/fill").exists());
    ann.says(&direct, "/new");
    let told = [world.hears(&direct).await, world.hears(&direct).await].concat();
    has(&told, &["the newest file (100", "I removed it"]);
    no_run_is_left(&world).await;
    assert!(!world.in_workspace("main", "deep/er/fill").exists());
    let note = std::fs::read_to_string(world.in_workspace("main", "old/note")).unwrap();
    assert_eq!(note, "mine\n", "files from before the run stay");
    has(&does(&world, &ann, &direct, "look", "ls /workspace/deep/er | wc -l").await, &["0"]);
    world.finish().await;
}

#[tokio::test]
async fn what_a_killed_host_left_shut_is_opened_by_the_next() {
    let (mut world, ann, direct) = World::ann_at_home_without_root(&[]).await;
    let shut = "cd /workspace; touch ready; while [ ! -e go ]; do usleep 50000; done; mkdir -m 700 shut; touch shut/f; \
                mkdir -m 700 /ipc/from-agent/.x; touch /ipc/from-agent/.x/f done; sleep 600";
    world.model.on("shut it").runs("run_command", json!({ "command": shut })).says("It is done.");
    ann.says(&direct, "shut it");
    world.made_in_workspace("main", "ready").await;

    // Between the end of the agent's box and the start of the helper box there is no host.
    world.kill_host().await;
    std::fs::write(world.in_workspace("main", "go"), "").unwrap();
    world.made_in_workspace("main", "done").await;
    let left = runs(&world);
    assert_eq!(left.len(), 1);
    docker(&["kill", &world.boxes().await[0]]).await;
    world.up().await;
    world.patiently("the run's directory is gone", async || (!left[0].exists()).then_some(())).await;
    assert_eq!(mode(&world.in_workspace("main", "shut")) & 0o770, 0o770, "{}", world.log());
    has(
        &world.hears(&direct).await,
        &["[lazaret]", "made folders in from-agent that the host may not look into"],
    );
    world.delivered().await;

    // The host dies one step later: the run has ended in the store, and only its directory is left.
    world.stop_host().await;
    let agent = std::fs::metadata(world.in_workspace("main", "done")).unwrap().uid();
    let from = left[0].join("from-agent");
    std::fs::create_dir_all(from.join("x/y")).unwrap();
    for (path, owner) in [(left[0].clone(), 12_345), (from.clone(), 12_345), (from.join("x"), agent)] {
        chown(&path, Some(owner), Some(23_456)).unwrap();
    }
    std::fs::set_permissions(&from, PermissionsExt::from_mode(0o2770)).unwrap();
    std::fs::set_permissions(from.join("x"), PermissionsExt::from_mode(0o700)).unwrap();
    world.up().await;
    world.patiently("what was left is gone", async || (!left[0].exists()).then_some(())).await;
    world.finish().await;
}

#[tokio::test]
async fn a_host_that_is_killed_while_the_box_opens_leaves_both_to_the_next() {
    let (mut world, ann, direct) = World::ann_at_home_without_root(&[]).await;
    let shut = "cd /ipc/from-agent && mkdir .x && i=0 && while [ $i -lt 2000 ]; do \
                mkdir .x/$i; : > .x/$i/f; i=$((i+1)); done \
                && chmod 550 .x/* .x";
    does(&world, &ann, &direct, "keep it", shut).await;
    ann.says(&direct, "/new");
    has(&world.hears(&direct).await, &["[lazaret]"]);
    world.delivered().await;
    // The outcome must be the same at whatever moment the kill happens.
    let opening = async || {
        let boxes = world.boxes().await;
        let seen = boxes.iter().any(|name| name.starts_with("lazaret-open-"));
        (seen || runs(&world).is_empty()).then_some(())
    };
    world.patiently("a box opens what is shut", opening).await;
    world.kill_host().await;
    world.up().await;
    no_run_is_left(&world).await;
    world.patiently("no box is left", async || world.boxes().await.is_empty().then_some(())).await;
    world.finish().await;
}

#[tokio::test]
async fn file_systems_of_their_own_need_root_and_are_not_silently_done_without() {
    let images = [("LAZARET_LIMITS_DISK_IMAGES", "true")];
    let (world, ann, direct) = World::ann_at_home_without_root(&images).await;
    ann.says(&direct, "who are you");
    has(&world.hears(&direct).await, &["[lazaret]", "disk images", "root", "limits.disk_images"]);
    assert!(world.model.requests().is_empty(), "no run without the limit that was asked for");
    world.finish().await;
}
