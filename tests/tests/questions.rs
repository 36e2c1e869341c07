//! An agent asks a person, who answers late, writes something else or does not answer.

use journeys::world::{Engine, World};
use serde_json::{Value, json};

fn milk() -> Value {
    json!({ "question": "Which milk?", "choices": ["whole", "skimmed"] })
}

/// Returns the code in the text of a question.
fn code(card: &str) -> String {
    assert!(card.starts_with("Which milk?") && card.contains("1. whole"), "{card}");
    let code = card.split("/answer ").nth(1).and_then(|rest| rest.split_whitespace().next());
    code.unwrap_or_else(|| panic!("no code: {card}")).to_owned()
}

/// The box is closed and the host is killed. A new box of a new host still gets the answer to the question.
#[tokio::test]
async fn a_suspended_turn_is_resumed_by_its_answer_over_a_restart() {
    let settings = [("LAZARET_HOST_QUESTION_WAIT", "0s")];
    let (mut world, ann, direct) = World::ann_at_home(Engine::stand_in().await, &settings).await;
    world.model.on("buy milk").runs("ask_person", milk()).says("Whole it is.");
    ann.says(&direct, "buy milk");
    let code = code(&world.hears(&direct).await);
    world.patiently("the box is closed", async || world.boxes().await.is_empty().then_some(())).await;
    ann.says(&direct, "/status");
    let status = world.hears(&direct).await;
    assert!(status.starts_with("[lazaret] group main: waiting for an answer"), "{status}");
    assert!(status.contains("0 of 4 working"), "{status}");
    world.delivered().await;
    world.kill_host().await;
    world.up().await;
    ann.says(&direct, &format!("/answer {code} 1"));
    assert_eq!(world.hears(&direct).await, "Whole it is.");
    assert_eq!(world.model.tool_results(), ["Ann (telegram:5) answers:\nwhole"]);
    assert_eq!(world.runs_of("main"), 2);
    let trace = world.settled("m-1").await;
    assert_eq!((&trace["turn"]["state"], &trace["turn"]["attempt"]), (&json!("done"), &json!(1)), "{trace}");
    assert!(direct.unheard().is_empty(), "it was asked once: {:?}", direct.unheard());
    world.finish().await;
}

#[tokio::test]
async fn a_question_that_nobody_answers_expires_and_the_turn_goes_on() {
    let settings = [("LAZARET_HOST_QUESTION_WAIT", "0s"), ("LAZARET_HOST_QUESTION_EXPIRY", "2s")];
    let (world, ann, direct) = World::ann_at_home(Engine::stand_in().await, &settings).await;
    world.model.on("buy milk").runs("ask_person", milk()).says("I bought none.");
    ann.says(&direct, "buy milk");
    code(&world.hears(&direct).await);
    assert_eq!(world.hears(&direct).await, "I bought none.");
    assert!(world.model.tool_results()[0].starts_with("Nobody answered in time"));
    assert!(direct.unheard().is_empty());
    world.finish().await;
}

/// A message that does not answer the question becomes the next turn at once. A late answer becomes a separate message.
#[tokio::test]
async fn a_message_past_the_question_is_the_next_turn_and_the_late_answer_another() {
    let settings = [("LAZARET_HOST_QUESTION_WAIT", "0s")];
    let (world, ann, direct) = World::ann_at_home(Engine::stand_in().await, &settings).await;
    world.model.on("buy milk").runs("ask_person", milk()).says("never said");
    ann.says(&direct, "buy milk");
    let code = code(&world.hears(&direct).await);
    world.patiently("the box is closed", async || world.boxes().await.is_empty().then_some(())).await;
    world.model.on("never mind the milk").says("As you like.");
    ann.says(&direct, "never mind the milk");
    assert_eq!(world.hears(&direct).await, "As you like.");
    let transcript = world.model.requests().pop().map(|r| r.body.to_string()).unwrap_or_default();
    assert!(transcript.contains("No answer yet: somebody wrote something else"), "{transcript}");
    world.model.on("skimmed").says("Skimmed after all.");
    ann.says(&direct, &format!("/answer {code} 2"));
    assert_eq!(world.hears(&direct).await, "Skimmed after all.");
    assert!(world.model.last_request_text().contains("Which milk?"), "it quotes the question");
    world.settled("m-1").await;
    assert!(direct.unheard().is_empty());
    world.finish().await;
}
