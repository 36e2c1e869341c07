//! Bursts of honest people: every message is read, however many turns that takes.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use journeys::model::Does;
use journeys::world::{Engine, World};
use serde_json::Value;

/// The window that the settings give to a model, in tokens.
const WINDOW: u64 = 200_000;

/// Counts as providers do: four characters are about a token.
fn tokens(request: &Value) -> u64 {
    request.to_string().len() as u64 / 4
}

/// Ann sends this many messages of this many characters at once, to a model that refuses what exceeds its window.
async fn all_are_read(messages: u32, characters: usize) {
    let (world, ann, direct) = World::ann_at_home(Engine::stand_in().await, &[]).await;
    world.model.counts_tokens(tokens, WINDOW);
    let read: Arc<Mutex<BTreeSet<String>>> = Arc::default();
    let seen = Arc::clone(&read);
    world.model.answer_with(move |conversation| {
        let texts = conversation.entries.iter().map(|entry| entry.text()).collect::<String>();
        let marks = texts.split("burst-").skip(1).filter_map(|rest| rest.get(..5).map(str::to_owned));
        seen.lock().unwrap_or_else(PoisonError::into_inner).extend(marks);
        Does::Says("I have read it.".to_owned())
    });
    let rest = "word ".repeat(characters / 5);
    for n in 0..messages {
        ann.says(&direct, &format!("burst-{n:05} {rest}")[..characters]);
    }
    let count = |sql: &str| world.database().query_row(sql, [], |r| r.get::<_, u32>(0)).unwrap_or(0);
    let settled = async || {
        let done = count("SELECT count(*) FROM message WHERE text LIKE 'burst-%' AND state = 'done'");
        (done == messages).then_some(())
    };
    world.patiently("every message is done", settled).await;
    let turns = count("SELECT count(*) FROM turn");
    let read = read.lock().map_or(0, |read| read.len());
    println!("{messages} messages of {characters} characters: {read} read, {turns} turns");
    assert_eq!(u32::try_from(read), Ok(messages));
    assert_eq!(count("SELECT count(*) FROM turn WHERE state <> 'done'"), 0, "no turn failed");
    assert_eq!(count("SELECT count(*) FROM message WHERE returned > 0"), 0);
    world.delivered().await;
    let shown = direct.shows();
    assert!(shown.iter().all(|text| !text.starts_with("[lazaret]")), "nothing is given up: {shown:?}");
    world.finish().await;
}

#[tokio::test]
async fn three_thousand_messages_of_a_kibibyte_are_read() {
    all_are_read(3_000, 1_024).await;
}

#[tokio::test]
async fn twelve_messages_of_sixty_five_thousand_characters_are_read() {
    all_are_read(12, 65_000).await;
}
