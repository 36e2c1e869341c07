//! `/compact` and `/context`: the runner carries them out, and the model does not see them.

use super::*;
use crate::transcript::Body;
use ipc_schema::letters::ToAgent;
use ipc_schema::letters::to_agent::{Input, Order};

fn ordered(messages: &[(u64, &str, Option<Order>)]) -> Input {
    let plain: Vec<_> = messages.iter().map(|(id, text, _)| (*id, *text)).collect();
    let mut input = host::input(&plain);
    for (message, (.., order)) in input.messages.iter_mut().zip(messages) {
        message.order = *order;
    }
    input
}

fn orders(host: &Host, turn: TurnId, messages: &[(u64, &str, Option<Order>)]) {
    host.send(Some(turn), ToAgent::Input(ordered(messages)));
}

const COMPACT: Option<Order> = Some(Order::Compact);
const CONTEXT: Option<Order> = Some(Order::Context);

#[tokio::test]
async fn the_context_is_told_without_a_model_call() {
    let host = Host::new();
    let script = Script::new([]);
    host.begin();
    live(&host, &script, async {
        orders(&host, TURN, &[(1, "/context", CONTEXT)]);
        let done = host.done(TURN).await.1;
        assert_eq!((done.outcome, done.model_calls), (Outcome::Finished, 0));
        for part in [
            "of 100,000 tokens",
            "- tools: ",
            "- conversation: ",
            "Compactions in this session: 0. Model: test/scripted.",
        ] {
            assert!(done.text.contains(part), "{part}: {}", done.text);
        }
        orders(&host, NEXT, &[(2, "/compact", COMPACT)]);
        let told = host.done(NEXT).await.1.text;
        assert!(told.starts_with("Compacted") || told.starts_with("There is nothing to compact"), "{told}");
        host.close();
    })
    .await;
    assert_eq!(script.requests().len(), 0, "orders alone need no summary either");
}

#[tokio::test]
async fn a_person_compacts_the_conversation() {
    let host = Host::new();
    let script = Script::new([Script::says("a lot"), Script::says("Miez")]).summarising("The cat is Miez.");
    host.begin();
    live(&host, &script, async {
        host.says(TURN, &[(1, &"my cat is Miez ".repeat(500))]);
        host.done(TURN).await;
        orders(&host, NEXT, &[(2, "/compact", COMPACT)]);
        let told = host.done(NEXT).await.1.text;
        assert!(
            told.starts_with("Compacted the conversation from about ")
                && told.contains("/session/archive/s-1-2.md"),
            "{told}"
        );
        host.says(TurnId(43), &[(3, "what is the cat?")]);
        assert_eq!(host.done(TurnId(43)).await.1.text, "Miez");
        host.close();
    })
    .await;
    let last = script.requests().pop().unwrap().to_string();
    assert!(
        last.contains("The cat is Miez.") && !last.contains("my cat is Miez") && !last.contains("/compact")
    );
}

#[tokio::test]
async fn an_order_beside_messages_is_answered_by_itself_and_the_model_answers_the_rest() {
    let host = Host::new();
    let script = Script::new([Script::says("hello")]);
    host.begin();
    live(&host, &script, async {
        orders(&host, TURN, &[(1, "hi", None), (2, "/context", CONTEXT), (3, "/compact", COMPACT)]);
        assert_eq!(host.done(TURN).await.1.text, "hello");
        host.close();
    })
    .await;
    assert_eq!(kinds(&host), ["ready", "message", "message", "turn_done"]);
    assert!(!script.requests()[0].to_string().contains("/context"));
}

#[tokio::test]
async fn an_order_is_carried_out_once_over_two_runs() {
    let host = Host::new();
    let script = Script::new([Script::says("a lot")]).summarising("They said a lot.");
    host.begin();
    killed_after(&host, &script, async {
        host.says(TurnId(40), &[(1, "a long story")]);
        host.done(TurnId(40)).await;
        orders(&host, TURN, &[(2, "/compact", COMPACT)]);
        host.done(TURN).await;
    })
    .await;
    let host = host.again();
    host.begin_with(begin_open(&[]));
    live(&host, &script, async {
        orders(&host, TURN, &[(2, "/compact", COMPACT)]);
        assert!(host.done(TURN).await.1.text.starts_with("Compacted"));
        host.close();
    })
    .await;
    let done = host.transcript().entries().iter().filter(|e| matches!(e.body, Body::Order(_))).count();
    assert_eq!((done, script.requests().len()), (1, 2));
}
