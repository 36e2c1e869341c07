//! What an agent marks as internal reaches nobody, whichever way its words take.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use journeys::world::{Engine, World};
use serde_json::json;

/// Words with a hidden remark.
fn hiding(words: &str) -> String {
    format!("{words}<internal>SECRET</internal>")
}

#[tokio::test]
async fn no_way_into_a_telegram_chat_shows_it() {
    let (world, ann, direct) = World::ann_at_home(Engine::stand_in().await, &[]).await;
    let ask = json!({ "question": hiding("Which milk?"), "choices": [hiding("whole"), "skimmed"] });
    world
        .model
        .on("use every way")
        .runs("send_message", json!({ "text": hiding("I begin.") }))
        .runs("write_file", json!({ "path": "a.txt", "content": "a" }))
        .runs("send_file", json!({ "path": "a.txt", "caption": hiding("The file.") }))
        .runs("remind", json!({ "text": hiding("Stretch."), "when": "in 1 second" }))
        .runs("ask_person", ask)
        .says("Whole.\n\n<internal>SECRET\n\n```\n</internal>\nBye. <Internal>SECRET");
    ann.says(&direct, "use every way");
    let card = world.soon("Ann is asked", direct.comes_to_show("Which milk?")).await;
    assert_eq!(card.buttons[0].text, "1. whole");
    ann.presses(&card, "1. whole");
    for shown in ["I begin.", "The file.", "Stretch.", "Whole.\n\nBye."] {
        world.soon("it is shown", direct.comes_to_show(shown)).await;
    }
    world.delivered().await;
    let all = direct.messages().iter().map(|m| format!("{m:?}")).collect::<String>();
    assert!(!all.contains("SECRET") && !all.to_lowercase().contains("internal"), "{all}");
    world.finish().await;
}

/// The draft is written in small pieces, so the tags are cut in every place.
#[tokio::test]
async fn the_terminal_shows_none_of_it_and_says_when_nothing_is_left() {
    let (world, ..) = World::ann_at_home(Engine::stand_in().await, &[]).await;
    let drip = std::time::Duration::from_millis(100);
    world
        .model
        .on("slowly")
        .says("Good <internal>SECRET and more SECRET</internal> morning.")
        .drips(40, drip);
    world.model.on("only that").says("<internal>SECRET</internal>");
    let chatted = world.chat("slowly\nonly that\n").await;
    assert!(chatted.contains("Good  morning."), "{chatted}");
    assert!(chatted.contains("had nothing to say"), "{chatted}");
    assert!(!chatted.contains("SECRET") && !chatted.contains("intern"), "{chatted}");
    world.finish().await;
}
