//! A long talk: what people told early is found late, over compactions, restarts and changes of model.

#![cfg(test)]

use std::time::Duration;

use journeys::longtalk::{Plan, talk};
use journeys::world::{Engine, World};

#[tokio::test]
async fn facts_outlive_compactions_restarts_and_changes_of_model() {
    let outcome = talk(Plan::SHORT, |_| {}).await;
    assert!(outcome.holds() && outcome.compactions > 0, "{outcome:#?}");
}

#[tokio::test]
async fn people_see_and_order_what_fills_the_context() {
    let (world, ann, direct) = World::ann_at_home(Engine::stand_in().await, &[]).await;
    world.model.on("my cat").says("A fine name.");
    world.model.on_system("You summarise the older part").says("## Facts\n- The cat is Miez.");
    ann.says(&direct, &format!("my cat is Miez. {}", "She sleeps. ".repeat(200)));
    assert_eq!(world.hears(&direct).await, "A fine name.");
    ann.says(&direct, "/context");
    let told = world.hears(&direct).await;
    assert!(told.contains("of 200,000 tokens") && told.contains("tools: "), "{told}");
    ann.says(&direct, "/compact");
    let told = world.hears(&direct).await;
    assert!(told.starts_with("Compacted the conversation from about "), "{told}");
    let archive = told.rsplit(' ').next().unwrap().trim_end_matches('.').replace("/session", "");
    let file = world.session("main", 1).join(archive.trim_start_matches('/'));
    assert!(std::fs::read_to_string(file).unwrap().contains("my cat is Miez"));
    world.model.on("what is her name").says("Miez.");
    ann.says(&direct, "what is her name?");
    assert_eq!(world.hears(&direct).await, "Miez.");
    let last = world.model.requests().pop().unwrap().body.to_string();
    assert!(last.contains("The cat is Miez.") && !last.contains("She sleeps.") && !last.contains("/compact"));

    let said = world.chat("/context\n").await;
    assert!(said.contains("Compactions in this session: 1."), "the terminal knows it too: {said}");
    world.finish().await;
}

#[tokio::test]
async fn nobody_sees_half_of_an_answer_that_broke_off() {
    let (world, ann, direct) = World::ann_at_home(Engine::stand_in().await, &[]).await;
    let whole = "The whole answer.";
    world.model.on("tell me").drips(4, Duration::from_millis(1)).cut_after(1_500).says(whole);
    ann.says(&direct, "tell me");
    assert_eq!(world.hears(&direct).await, whole);
    world.model.on("once more").cut_after(1_500).cut_after(900).says(whole);
    let said = world.chat("once more\n").await;
    assert!(said.contains(whole) && !said.contains("This answer is cut"), "{said}");
    world.delivered().await;
    assert_eq!(direct.unheard(), Vec::<String>::new());
    world.finish().await;
}
