//! Agents send files: the tests check what arrives, in which order, and what the host refuses to send.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use journeys::telegram::{Chat, SentMessage, Trouble};
use journeys::world::{Engine, World};
use serde_json::{Value, json};

const DELIVERY: &str = "LAZARET_CHANNELS_TELEGRAM_DELIVERY";

async fn hears_file(world: &World, chat: &Chat) -> SentMessage {
    world.soon("a file comes", chat.hears_message()).await
}

fn spool(world: &World) -> Vec<PathBuf> {
    let entries = fs::read_dir(world.root().join("state/spool")).into_iter().flatten().flatten();
    entries.map(|e| e.path()).collect()
}

fn list(path: &str) -> Value {
    json!({ "path": path, "caption": "What we **need**.", "name": "../shopping\u{202e} list.pdf" })
}

#[tokio::test]
async fn a_file_arrives_whole_and_in_order_between_the_texts() {
    let (world, ann, direct) = World::ann_at_home(Engine::stand_in().await, &[]).await;
    let bytes: Vec<u8> = (0..3_000_000u32).map(|n| (n * 7 % 251) as u8).collect();
    fs::create_dir_all(world.in_workspace("main", "")).unwrap();
    fs::write(world.in_workspace("main", "list"), &bytes).unwrap();
    fs::write(world.in_workspace("main", "plot.png"), b"\x89PNG and so on").unwrap();
    fs::write(world.in_workspace("main", "fake.png"), b"no picture").unwrap();
    world
        .model
        .on("what do we need")
        .runs("send_message", json!({ "text": "Here it is." }))
        .runs("send_file", list("/workspace/list"))
        .runs("send_file", json!({ "path": "plot.png" }))
        .runs("send_file", json!({ "path": "fake.png" }))
        .says("That was all.");
    ann.says(&direct, "what do we need?");

    assert_eq!(world.hears(&direct).await, "Here it is.");
    let sent = hears_file(&world, &direct).await;
    assert_eq!(sent.text, "What we need. [file shopping list.pdf]");
    assert!(sent.raw.contains("<b>need</b>"), "{}", sent.raw);
    let file = sent.file.unwrap();
    assert!(!file.is_picture && file.bytes == bytes);
    let plot = hears_file(&world, &direct).await.file.unwrap();
    assert!(plot.is_picture && plot.name == "plot.png" && plot.bytes == b"\x89PNG and so on");
    let fake = hears_file(&world, &direct).await.file.unwrap();
    assert!(
        !fake.is_picture && fake.bytes == b"no picture",
        "a file that is no picture is sent as a document"
    );
    assert_eq!(world.hears(&direct).await, "That was all.");
    assert_eq!(
        world.model.tool_results(),
        ["sent", "sent, 3000000 bytes", "sent, 14 bytes", "sent, 10 bytes"]
    );
    let trace = world.settled("m-1").await;
    assert!(trace.to_string().contains("[file shopping list.pdf]"), "{trace}");
    world.finish().await;
}

/// In a real box, the agent sends a file that its own user created.
#[tokio::test]
async fn a_box_sends_what_it_has_made() {
    let (world, ann, direct) = World::ann_at_home(Engine::docker(), &[]).await;
    let make = "mkdir -p out && seq 1 1000 > out/numbers && chmod 600 out/numbers && ln -s /etc out/etc";
    world
        .model
        .on("count for me")
        .runs("run_command", json!({ "command": make }))
        .runs("send_file", json!({ "path": "/workspace/out/numbers", "caption": "1 to 1000" }))
        .runs("send_file", json!({ "path": "out/etc/passwd" }))
        .says("Counted.");
    ann.says(&direct, "count for me");
    let sent = hears_file(&world, &direct).await;
    assert_eq!(sent.text, "1 to 1000 [file numbers]");
    let numbers: String = (1..=1000).map(|n| format!("{n}\n")).collect();
    assert_eq!(sent.file.unwrap().bytes, numbers.as_bytes());
    assert_eq!(world.hears(&direct).await, "Counted.");
    let told = world.model.tool_results();
    assert!(told[2].starts_with("refused (file.not_regular)"), "{told:?}");
    world.finish().await;
}

/// Tries every way out of the workspace in a path, and everything in the workspace that is not a plain file.
#[tokio::test]
async fn a37_what_is_no_file_of_the_workspace_is_refused_and_nothing_is_sent() {
    let (world, ann, direct) = World::ann_at_home(Engine::stand_in().await, &[]).await;
    let inside = |name: &str| world.in_workspace("main", name);
    fs::create_dir_all(inside("out")).unwrap();
    let secret = world.root().join("state/secret");
    fs::write(&secret, "of the host").unwrap();
    symlink(&secret, inside("link")).unwrap();
    symlink(world.root(), inside("up")).unwrap();
    fs::hard_link(&secret, inside("twin")).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(inside("fifo")).status().unwrap().success());
    File::create(inside("big")).unwrap().set_len(21 << 20).unwrap();
    File::create(inside("sparse")).unwrap().set_len(1 << 40).unwrap();
    let cases = [
        ("../../secret", "file.outside"),
        ("/workspace/../../secret", "file.outside"),
        ("/etc/shadow", "file.outside"),
        ("missing", "file.missing"),
        ("out", "file.not_regular"),
        ("link", "file.not_regular"),
        ("up/state/secret", "file.not_regular"),
        ("fifo", "file.not_regular"),
        ("twin", "file.link"),
        ("big", "file.too_big"),
        ("sparse", "file.too_big"),
    ];
    let asked = world.model.on("send me everything");
    let asked = cases.iter().fold(asked, |asked, (path, _)| asked.runs("send_file", json!({ "path": path })));
    asked.says("I could not.");
    ann.says(&direct, "send me everything");
    assert_eq!(world.hears(&direct).await, "I could not.");
    for (told, (path, code)) in world.model.tool_results().iter().zip(cases) {
        assert!(told.starts_with(&format!("refused ({code}):")), "{path}: {told}");
    }
    assert_eq!(world.model.tool_results().len(), cases.len());
    assert_eq!((direct.shows().len(), spool(&world).len()), (1, 0));
    world.finish().await;
}

/// The host sends the bytes that it copied, even if the file has changed and the host was killed. The owner's delivery
/// policy decides about repetition.
#[tokio::test]
async fn a_file_survives_the_host_and_is_sent_by_the_owners_policy() {
    for (policy, copies) in [("resend", 2), ("edit", 2), ("hold", 1)] {
        let (mut world, ann, direct) =
            World::ann_at_home(Engine::stand_in().await, &[(DELIVERY, policy)]).await;
        fs::create_dir_all(world.in_workspace("main", "")).unwrap();
        fs::write(world.in_workspace("main", "list"), "as it was").unwrap();
        world.telegram.plan("sendDocument", "list", Trouble::HangsAfter);
        world.model.on("the list").runs("send_file", json!({ "path": "list" })).says("There.");
        ann.says(&direct, "the list, please");
        world.soon("the platform has it", direct.comes_to_show("[file list]")).await;
        world.kill_host().await;
        fs::write(world.in_workspace("main", "list"), "as it never was sent").unwrap();
        world.up().await;
        if policy == "hold" {
            let asked = world.soon("the chat is asked", direct.comes_to_show("may or may not")).await;
            assert!(asked.text.contains("[file list]"), "{}", asked.text);
            let code = asked.text.split("/drop ").nth(1).and_then(|rest| rest.split_whitespace().next());
            ann.says(&direct, &format!("/drop {}", code.unwrap()));
        }
        world.soon("the turn ends", direct.comes_to_show("There.")).await;
        world.settled("m-1").await;
        let sent: Vec<Vec<u8>> =
            direct.messages().into_iter().filter_map(|m| m.file).map(|f| f.bytes).collect();
        assert_eq!(sent, vec![b"as it was".to_vec(); copies], "{policy}");
        let uncertain = "SELECT sum(uncertain) FROM outbox WHERE file IS NOT NULL";
        assert_eq!(world.database().query_row(uncertain, [], |r| r.get::<_, i64>(0)).unwrap(), 1, "{policy}");
        assert_eq!(spool(&world).len(), 1, "the copy stays, so that a person at a terminal can open it");
        world.finish().await;
    }
}

#[tokio::test]
async fn a_terminal_is_shown_where_the_copy_lies_and_a_turn_has_its_measure() {
    let mut world = World::on(Engine::stand_in().await).await;
    world.set("LAZARET_HOST_ATTACHMENT_MIB", "1");
    world.up().await;
    fs::create_dir_all(world.in_workspace("main", "")).unwrap();
    fs::write(world.in_workspace("main", "list"), "milk").unwrap();
    let asked = world.model.on("the list").runs("send_file", json!({ "path": "list" }));
    let asked = (0..5).fold(asked, |asked, n| {
        fs::write(world.in_workspace("main", &format!("big{n}")), vec![n; 1 << 20]).unwrap();
        asked.runs("send_file", json!({ "path": format!("big{n}") }))
    });
    asked.runs("send_file", json!({ "path": "list" })).says("There.");
    let told = world.chat("the list, please\n").await;
    let line = told.lines().find(|line| line.starts_with("[file list, 1 KiB: ")).expect(&told);
    let path = line.trim_start_matches("[file list, 1 KiB: ").trim_end_matches(']');
    assert_eq!(fs::read_to_string(path).unwrap(), "milk");
    let results = world.model.tool_results();
    assert_eq!(results.iter().filter(|told| told.starts_with("sent")).count(), 6, "{results:?}");
    assert!(
        results[5].starts_with("refused (file.too_big)"),
        "the last file is four bytes too large: {results:?}"
    );
    world.finish().await;
}
