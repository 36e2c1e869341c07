//! Conversations that outgrow the context window: compaction.

use super::*;
use crate::transcript::Usage;
use serde_json::json;

/// An answer whose usage says that the conversation had this many tokens.
fn after_reading(tokens: u64, text: &str) -> Play {
    let usage = Usage { cache_read_input_tokens: tokens, ..Usage::default() };
    Play::Answers(crate::transcript::Assistant { usage, ..script::says(text) })
}

async fn three_turns(host: &Host, script: &Script) {
    host.begin();
    live(host, script, async {
        let long = "x".repeat(90_000);
        for (n, text) in [(41, long.as_str()), (42, "what was it?"), (43, "and now?")] {
            host.says(TurnId(n), &[(n, text)]);
            host.done(TurnId(n)).await;
        }
        host.close();
    })
    .await;
}

#[tokio::test]
async fn a_conversation_past_its_share_of_the_window_is_summarised() {
    let host = Host::new();
    let script = Script::new([
        after_reading(80_001, "long indeed"),
        Script::says("They wrote many x."),
        after_reading(900, "x"),
        Script::says("fine"),
    ]);
    three_turns(&host, &script).await;
    let requests = script.requests();
    assert!(requests[1].get("tools").is_none(), "the summary is made without tools");
    assert!(requests[1]["messages"][0]["content"][0]["text"].as_str().unwrap().contains(&"x".repeat(90_000)));
    let third = requests[2].to_string();
    assert!(third.contains("They wrote many x.") && !third.contains("xxxxx"));
    assert!(third.contains("/session/archive/s-1-2.md"));
    let archive = std::fs::read_to_string(host.paths().session().join("archive/s-1-2.md")).unwrap();
    assert!(archive.contains(&"x".repeat(90_000)) && archive.contains("long indeed"));
    let transcript = host.transcript();
    let numbers: Vec<_> = transcript.entries().iter().map(|entry| entry.entry).collect();
    assert_eq!(numbers, [2, 3, 4, 5, 6]);
    assert!(transcript.holds(TURN, &host::input(&[(41, "")])), "a summarised message is still known");
    assert!(
        host.letters()
            .iter()
            .any(|l| matches!(&l.body, FromAgent::Status(s) if s.state == Activity::Compacting))
    );
}

#[tokio::test]
async fn without_a_summary_old_turns_go_all_the_same() {
    let host = Host::new();
    let script = Script::new([
        after_reading(80_001, "long indeed"),
        Play::Fails(script::refusal("model.overloaded", "busy", false)),
        Script::says("what?"),
        Script::says("fine"),
    ]);
    three_turns(&host, &script).await;
    let third = script.requests()[2].to_string();
    assert!(third.contains("was put away") && !third.contains("xxxxx"));
    assert!(host.paths().session().join("archive/s-1-2.md").exists());
}

#[tokio::test]
async fn a_model_that_finds_it_too_long_is_asked_again_with_less() {
    let host = Host::new();
    let script = Script::new([
        Script::says("long indeed"),
        Play::Fails(script::refusal("model.too_large", "prompt is too long", true)),
        Script::says("They wrote many x."),
        Script::says("x"),
        Script::says("fine"),
    ]);
    three_turns(&host, &script).await;
    assert_eq!(script.left(), 0);
    assert!(!script.requests()[3].to_string().contains("xxxxx"));
}

#[tokio::test]
async fn a_summary_that_is_too_long_for_the_model_is_made_of_smaller_pieces() {
    let host = Host::new();
    let too_long = || Play::Fails(script::refusal("model.too_large", "too large", true));
    let script = Script::new([
        Script::says("long indeed"),
        too_long(),
        too_long(),
        Script::says("They wrote many x."),
        Script::says("They wrote very many x."),
        Script::says("They wrote x only."),
        Script::says("x"),
        Script::says("fine"),
    ]);
    three_turns(&host, &script).await;
    assert_eq!(script.left(), 0);
    let requests = script.requests();
    assert!(
        requests[4].to_string().contains("They wrote many x.") && !requests[6].to_string().contains("xxxxx")
    );
    assert!(requests[6].to_string().contains("They wrote x only."));
}

#[tokio::test]
async fn one_turn_that_is_too_long_alone_fails_and_the_next_one_works() {
    let host = Host::new();
    let too_long = || Play::Fails(script::refusal("model.too_large", "too large", true));
    let script =
        Script::new([too_long(), too_long(), too_long(), Script::says("A long text."), Script::says("ok")]);
    host.begin();
    live(&host, &script, async {
        host.says(TURN, &[(1, &"x".repeat(90_000))]);
        let done = host.done(TURN).await.1;
        assert_eq!((done.outcome, done.error.unwrap().code.as_str()), (Outcome::Failed, "model.too_large"));
        host.says(NEXT, &[(2, "hello?")]);
        assert_eq!(host.done(NEXT).await.1.text, "ok");
        host.close();
    })
    .await;
}

#[tokio::test]
async fn a_long_turn_of_tools_stays_whole() {
    let host = Host::new();
    let usage = Usage { input_tokens: 99_000, ..Usage::default() };
    let call = crate::transcript::Assistant { usage, ..script::calls(&[("a", "list_files", json!({}))]) };
    let script = Script::new([Play::Answers(call), Script::says("done")]);
    host.begin();
    live(&host, &script, async {
        host.says(TURN, &[(1, "go")]);
        assert_eq!(host.done(TURN).await.1.text, "done");
        host.close();
    })
    .await;
    assert!(script.last_user().contains("tool_result"));
}
