//! People send files. The host fetches the files that an agent will read, within limits, and no other group waits.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;

use journeys::telegram::{Chat, Document, Person};
use journeys::world::{Engine, World};

fn document(bytes: usize) -> Document {
    Document {
        bytes: vec![7; bytes],
        claims: Some(bytes),
        name: "list.txt".into(),
        mime: "text/plain".into(),
    }
}

/// Returns the attachment tags in the last request to the model, in order.
fn read_of_files(world: &World) -> Vec<String> {
    let asked = world.model.last_request_text();
    asked.split("<attachment").skip(1).filter_map(|rest| Some(rest.split('>').next()?.to_owned())).collect()
}

fn inbox(world: &World, group: &str) -> Vec<String> {
    let entries = fs::read_dir(world.root().join("state/inbox").join(group)).into_iter().flatten().flatten();
    entries.map(|e| e.file_name().into_string().unwrap()).collect()
}

/// Ann stops the turn. The answer to `/stop` and the end of the turn arrive in either order.
async fn stop_and_wait(world: &World, ann: &Person, direct: &Chat) {
    ann.says(direct, "/stop");
    let mut told = [world.hears(direct).await, world.hears(direct).await];
    told.sort();
    assert_eq!(told, ["[lazaret] Stopped.", "[lazaret] Stopping."]);
}

/// Checks that the next message is answered and that the stopped message is not.
async fn goes_on(world: World, ann: &Person, direct: &Chat) {
    world.model.on("are you there").says("Yes.");
    ann.says(direct, "are you there?");
    assert_eq!(world.hears(direct).await, "Yes.");
    assert!(!world.model.last_request_text().contains("read this"), "it was stopped");
    world.finish().await;
}

/// Returns Bob and a room of his, admitted as `family`.
async fn bob_and_a_room(world: &World) -> (Person, Chat) {
    let bob = world.telegram.person(6, "Bob");
    let room = world.telegram.room(-100_123, "Family");
    bob.says(&room, "hello?");
    world.admit(&room.address(), "family").await;
    (bob, room)
}

/// Whatever size a sender claims, the host reads a file only up to the limit. It names the file by its bytes.
#[tokio::test]
async fn d2_a_file_that_lies_about_itself_costs_no_more_than_an_honest_one() {
    let (world, ann, direct) =
        World::ann_at_home(Engine::stand_in().await, &[("LAZARET_HOST_ATTACHMENT_MIB", "1")]).await;
    let lies = |bytes: usize, claims: Option<usize>| Document {
        bytes: vec![7; bytes],
        claims,
        name: "../../\u{1b}[31m holiday.jpg.sh".into(),
        mime: "image/jpeg\n".into(),
    };
    for (n, document, stored) in [
        (1, lies(1 << 20, Some(10)), true),
        (2, lies((1 << 20) + 1, Some(10)), false),
        (3, lies((1 << 20) + 2, None), false),
        (4, lies(20, Some(1 << 40)), false),
        (5, lies(30, Some(0)), true),
    ] {
        let caption = format!("look at number {n}");
        world.model.on(&caption).says("Seen.");
        ann.sends(&direct, document, &caption);
        assert_eq!(world.hears(&direct).await, "Seen.");
        let asked = world.model.last_request_text();
        let asked = &asked[asked.rfind("<attachment").unwrap()..];
        assert_eq!(asked.contains("not stored: "), !stored, "{n}: {asked}");
        assert!(!asked.contains('\u{1b}'), "{asked}");
    }
    let inbox = fs::read_dir(world.root().join("state/inbox/main")).unwrap().flatten();
    let names: Vec<String> = inbox.map(|e| e.file_name().into_string().unwrap()).collect();
    assert_eq!(names.len(), 2);
    let plain = |name: &String| name.len() == 23 && name.ends_with(".sh");
    assert!(names.iter().all(plain), "{names:?}");
    world.finish().await;
}

#[tokio::test]
async fn a_slow_file_keeps_nobody_waiting_but_its_own_turn() {
    let (world, ann, direct) = World::ann_at_home(Engine::stand_in().await, &[]).await;
    let (bob, room) = bob_and_a_room(&world).await;
    world.telegram.holds_files(true);
    world.model.on("read this").says("Read.");
    world.model.on("and you").says("I am well.");
    ann.sends(&direct, document(1234), "read this");
    world.soon("the file is asked for", world.telegram.comes_to_ask_for(1)).await;

    bob.says(&room, "@laz_bot and you?");
    assert_eq!(world.hears(&room).await, "I am well.");
    ann.says(&direct, "all of it");
    world.soon("it is stored", world.telegram.acknowledged()).await;
    assert!(direct.unheard().is_empty());

    world.telegram.holds_files(false);
    assert_eq!(world.hears(&direct).await, "Read.");
    let asked = world.model.last_request_text();
    assert!(asked.contains("/inbox/") && asked.contains("all of it"), "{asked}");
    let steps = world.settled("m-1").await.to_string();
    assert!(steps.contains("\"files\""), "a trace shows that the message waited for files: {steps}");
    world.finish().await;
}

/// A person who writes in a room without waking the agent makes the host fetch no file. When somebody wakes the agent,
/// the host fetches ten files at most.
#[tokio::test]
async fn d2_talk_that_wakes_nobody_costs_ten_files_when_it_is_read() {
    let (world, ann, _) = World::ann_at_home(Engine::stand_in().await, &[]).await;
    let (bob, room) = bob_and_a_room(&world).await;
    for n in 1..=15 {
        bob.sends(&room, document(n), "look");
    }
    world.soon("all of it is stored", world.telegram.acknowledged()).await;
    assert!(world.telegram.asked_for().is_empty() && inbox(&world, "family").is_empty());

    world.model.on("what did he send").says("Lists.");
    ann.says(&room, "@laz_bot what did he send?");
    assert_eq!(world.hears(&room).await, "Lists.");
    let newest: Vec<String> = (6..=15).rev().map(|n| format!("document-6-{n}")).collect();
    assert_eq!(world.telegram.asked_for(), newest);
    let read = read_of_files(&world);
    let missing = read.iter().filter(|file| file.contains("not fetched: ")).count();
    assert_eq!((read.len(), missing, inbox(&world, "family").len()), (15, 5, 10), "{read:?}");
    world.finish().await;
}

/// The host removes the oldest files of answered messages to make space. If one message has more than the inbox may
/// hold, the agent is told that a file is not stored.
#[tokio::test]
async fn d2_an_inbox_has_its_measure_and_the_agent_is_told_of_what_is_not_stored() {
    let settings = [("LAZARET_LIMITS_INBOX_MIB", "2")];
    let (world, ann, direct) = World::ann_at_home(Engine::stand_in().await, &settings).await;
    let mib = 1 << 20;
    for (n, bytes, left) in [(1, mib, 1), (2, mib - 1, 2), (3, mib + 2, 1), (4, 5, 2)] {
        let caption = format!("look at number {n}");
        world.model.on(&caption).says("Seen.");
        ann.sends(&direct, document(bytes), &caption);
        assert_eq!(world.hears(&direct).await, "Seen.");
        let read = read_of_files(&world).pop().unwrap();
        assert!(read.contains("/inbox/"), "{n}: {read}");
        assert_eq!(inbox(&world, "main").len(), left, "{n}");
    }
    world.model.on("and at this").says("I cannot.");
    ann.sends(&direct, Document { claims: None, ..document(3 * mib) }, "and at this");
    assert_eq!(world.hears(&direct).await, "I cannot.");
    let read = read_of_files(&world).pop().unwrap();
    assert!(read.contains("not stored: ") && read.contains("limits.inbox_mib"), "{read}");
    world.finish().await;
}

#[tokio::test]
async fn a_host_that_dies_while_a_file_is_on_its_way_fetches_it_again() {
    let (mut world, ann, direct) = World::ann_at_home(Engine::stand_in().await, &[]).await;
    world.telegram.holds_files(true);
    world.model.on("read this").says("Read.");
    ann.sends(&direct, document(1234), "read this");
    world.soon("the file is asked for", world.telegram.comes_to_ask_for(1)).await;
    world.kill_host().await;
    world.up().await;
    world.soon("it is asked for again", world.telegram.comes_to_ask_for(2)).await;
    world.telegram.holds_files(false);
    assert_eq!(world.hears(&direct).await, "Read.");
    assert!(read_of_files(&world)[0].contains("/inbox/"));
    assert_eq!(inbox(&world, "main").len(), 1);
    world.finish().await;
}

#[tokio::test]
async fn a_turn_is_stopped_while_its_file_is_on_its_way() {
    let (world, ann, direct) = World::ann_at_home(Engine::stand_in().await, &[]).await;
    world.telegram.holds_files(true);
    ann.sends(&direct, document(1234), "read this");
    world.soon("the file is asked for", world.telegram.comes_to_ask_for(1)).await;
    // A stop of a starting box is another case, so the test waits until the box is ready. The box has not been given
    // the message yet.
    world
        .patiently("the box is ready", async || world.log().contains("the box is ready").then_some(()))
        .await;
    stop_and_wait(&world, &ann, &direct).await;
    world.telegram.holds_files(false);
    goes_on(world, &ann, &direct).await;
}

#[tokio::test]
async fn a_platform_that_stumbles_is_asked_again_and_one_that_refuses_is_not() {
    let (world, ann, direct) = World::ann_at_home(Engine::stand_in().await, &[]).await;
    world.telegram.refuse_next("getFile", 502, "Bad Gateway", None);
    world.telegram.refuse_next("getFile", 429, "Too Many Requests", Some(1));
    world.model.on("read this").says("Read.");
    ann.sends(&direct, document(1234), "read this");
    assert_eq!(world.hears(&direct).await, "Read.");
    assert!(read_of_files(&world)[0].contains("/inbox/"));

    world.telegram.refuse_next("getFile", 400, "Bad Request: file is too big", None);
    world.model.on("and this").says("I cannot.");
    ann.sends(&direct, document(12), "and this");
    assert_eq!(world.hears(&direct).await, "I cannot.");
    let read = read_of_files(&world).pop().unwrap();
    assert!(read.contains("not stored: Bad Request: file is too big"), "{read}");
    world.finish().await;
}

/// Ann's turn runs a long command in its box.
async fn start_long_turn(world: &World, ann: &Person, direct: &Chat) {
    let command = serde_json::json!({ "command": "touch /workspace/watching; sleep 1000" });
    world.model.on("watch the pot").runs("run_command", command).says("Boiled.");
    ann.says(direct, "watch the pot");
    world.made_in_workspace("main", "watching").await;
}

/// Freezes the box's processes, so that the box reacts to nothing.
async fn freeze_box(world: &World) {
    let boxes = world.boxes().await;
    let about = format!("/containers/{}/json", boxes[0]);
    let pid = world.engine().ask(hyper::Method::GET, &about, None).await.json()["State"]["Pid"].to_string();
    let freeze = format!("for child in $(cat /proc/{pid}/task/*/children); do kill -STOP $child; done");
    assert!(std::process::Command::new("sh").args(["-c", &freeze]).status().unwrap().success());
}

/// The host kills a box that does not obey `/stop`. Messages after the `/stop` become the next turn, even if a file is
/// still on its way or another host takes over.
#[tokio::test]
async fn what_is_written_after_a_stop_is_answered_whatever_comes_in_between() {
    for crash in [false, true] {
        let (mut world, ann, direct) = World::ann_at_home(Engine::stand_in().await, &[]).await;
        start_long_turn(&world, &ann, &direct).await;
        freeze_box(&world).await;
        world.telegram.holds_files(true);
        ann.sends(&direct, document(1234), "and read this");
        world.soon("the file is asked for", world.telegram.comes_to_ask_for(1)).await;
        ann.says(&direct, "/stop");
        assert_eq!(world.hears(&direct).await, "[lazaret] Stopping.");
        world.model.on("something else").says("Done.");
        ann.says(&direct, "do something else");
        world.soon("it is stored", world.telegram.acknowledged()).await;
        if crash {
            world.delivered().await;
            world.kill_host().await;
            world.up().await;
        }
        world.telegram.holds_files(false);
        assert_eq!(world.hears(&direct).await, "[lazaret] Stopped.", "{crash}");
        assert_eq!(world.hears(&direct).await, "Done.", "{crash}");
        assert!(
            !world.model.last_request_text().contains("and read this"),
            "the stopped message is not in the next turn"
        );
        world.finish().await;
    }
}

/// The box obeys the stop. The platform does not deliver the stopped message's file, and no later turn waits for it.
#[tokio::test]
async fn nothing_waits_for_a_file_that_was_stopped() {
    let (world, ann, direct) = World::ann_at_home(Engine::stand_in().await, &[]).await;
    start_long_turn(&world, &ann, &direct).await;
    world.telegram.holds_files(true);
    ann.sends(&direct, document(1234), "and read this");
    world.soon("the file is asked for", world.telegram.comes_to_ask_for(1)).await;
    stop_and_wait(&world, &ann, &direct).await;
    world.model.on("something else").says("Done.");
    ann.says(&direct, "do something else");
    assert_eq!(world.hears(&direct).await, "Done.");
    world.telegram.holds_files(false);
    world.finish().await;
}

/// A message whose file does not fit on the disk waits. A `/stop` ends it like any other message.
#[tokio::test]
async fn a_turn_is_stopped_that_waits_for_room_on_the_disk() {
    let (world, ann, direct) = World::ann_at_home(Engine::stand_in().await, &[]).await;
    let inbox = world.root().join("state/inbox");
    fs::create_dir_all(&inbox).unwrap();
    let mut mount = std::process::Command::new("mount");
    assert!(mount.args(["-t", "tmpfs", "-o", "size=64k", "none"]).arg(&inbox).status().unwrap().success());
    ann.sends(&direct, document(1 << 20), "read this");
    let full = async || world.log().contains("the box is fed later").then_some(());
    world.patiently("there is no room", full).await;
    stop_and_wait(&world, &ann, &direct).await;
    journeys::engine::unmount_below(&inbox);
    goes_on(world, &ann, &direct).await;
}

/// Later files arrive while an earlier file is on its way. The first question waits only for its own file.
#[tokio::test]
async fn d2_a_question_does_not_wait_for_files_that_come_after_it() {
    let (world, ann, direct) = World::ann_at_home(Engine::stand_in().await, &[]).await;
    world.telegram.holds_files(true);
    world.model.on("what is in it").says("Seen.");
    ann.sends(&direct, document(1), "what is in it?");
    world.soon("the file is asked for", world.telegram.comes_to_ask_for(1)).await;
    ann.sends(&direct, document(2), "and in this");
    world.soon("it is stored", world.telegram.acknowledged()).await;
    world.telegram.gives_one_file();
    assert_eq!(world.hears(&direct).await, "Seen.");
    assert!(!world.model.last_request_text().contains("and in this"), "its file is still on its way");
    world.model.on("and in this").says("That too.");
    world.telegram.holds_files(false);
    assert_eq!(world.hears(&direct).await, "That too.");
    world.finish().await;
}
