//! A chat whose lines come through a pipe ends with a status, however the turn ends.

#![cfg(test)]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use journeys::world::{Engine, World};
use serde_json::json;

async fn chats(world: &World, lines: &str) -> (String, Option<i32>) {
    let output = world.run(&["chat"], lines).await;
    let told =
        [output.stdout, output.stderr].map(|told| String::from_utf8_lossy(&told).into_owned()).concat();
    (told, output.status.code())
}

#[tokio::test]
async fn a_turn_that_the_host_ends_is_over_for_the_chat() {
    let mut world = World::on(Engine::stand_in().await).await;
    world.set("LAZARET_LIMITS_LETTERS_NAMES", "200");
    world.up().await;
    let flood = "cd /ipc/from-agent; i=0; while i=$((i+1)); do : >.$i; done; sleep 60";
    world.model.on("flood").runs("run_command", json!({ "command": flood })).says("never said");
    world.model.on("and now").says("Now it goes.");
    let (told, code) = chats(&world, "flood\nand now\n").await;
    assert!(told.contains("[m-1, t-1] failed: ipc.flood"), "{told}");
    assert!(told.contains("Now it goes.") && code == Some(1), "{code:?} {told}");
    world.finish().await;
}

#[tokio::test]
async fn a_turn_that_somebody_stops_before_it_has_a_box_is_over_for_the_chat() {
    let mut world = World::on(Engine::stand_in().await).await;
    world.set("LAZARET_IMAGE", "no-such-image");
    world.up().await;
    let stops = async {
        let refused = async || world.log().contains("image.missing").then_some(());
        world.patiently("the run is refused", refused).await;
        chats(&world, "/stop\n").await
    };
    let ((told, code), _) = tokio::join!(chats(&world, "hello\n"), stops);
    assert!(told.contains("[m-1, t-1] stopped") && code == Some(1), "{code:?} {told}");
    world.finish().await;
}

#[tokio::test]
async fn a_line_of_which_nothing_is_left_is_over_for_the_chat() {
    let mut world = World::on(Engine::stand_in().await).await;
    world.up().await;
    let (told, code) = chats(&world, "\u{200b}\n").await;
    assert!(told.contains("[no message, no turn] not taken") && code == Some(1), "{code:?} {told}");
    world.finish().await;
}

#[tokio::test]
async fn the_end_of_the_host_ends_the_chat() {
    let mut world = World::on(Engine::stand_in().await).await;
    world.set("LAZARET_IMAGE", "no-such-image");
    world.up().await;
    let chat = world
        .command(&["chat"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::piped())
        .spawn();
    let mut chat = chat.unwrap();
    tokio::io::AsyncWriteExt::write_all(chat.stdin.as_mut().unwrap(), b"hello\n").await.unwrap();
    let refused = async || world.log().contains("image.missing").then_some(());
    world.patiently("the run is refused", refused).await;
    world.kill_host().await;
    let output = chat.wait_with_output().await.unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(told.contains("the host has ended") && output.status.code() == Some(1), "{told}");
    world.finish().await;
}
