//! Conversations that outgrow the context window: compaction.

use super::*;
use crate::model::{CallError, Failure};
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
        let long = "x".repeat(52_000);
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
    assert!(requests[1]["messages"][0]["content"][0]["text"].as_str().unwrap().contains(&"x".repeat(52_000)));
    let third = requests[2].to_string();
    assert!(third.contains("They wrote many x.") && !third.contains("xxxxx"));
    assert!(third.contains("/session/archive/s-1-2.md"));
    let archive = std::fs::read_to_string(host.paths().session().join("archive/s-1-2.md")).unwrap();
    assert!(archive.contains(&"x".repeat(52_000)) && archive.contains("long indeed"));
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
async fn without_the_models_summary_the_words_of_people_stay() {
    let host = Host::new();
    let script = Script::new([
        after_reading(80_001, "long indeed"),
        Play::Fails(script::refusal("model.overloaded", "busy", false)),
        Script::says("what?"),
        Script::says("fine"),
    ]);
    three_turns(&host, &script).await;
    let third = script.requests()[2].to_string();
    assert!(third.contains("The model could not summarise") && third.contains("I: long indeed"));
    assert!(third.contains("/session/archive/s-1-2.md") && !third.contains(&"x".repeat(1_000)));
    assert!(host.paths().session().join("archive/s-1-2.md").exists());
}

#[tokio::test(start_paused = true)]
async fn a_summary_that_takes_too_long_is_made_without_the_model() {
    let host = Host::new();
    let script = Script::new([
        after_reading(80_001, "long indeed"),
        Play::Hangs("They wrote"),
        Script::says("what?"),
        Script::says("fine"),
    ]);
    three_turns(&host, &script).await;
    assert!(script.requests()[2].to_string().contains("The model could not summarise"));
}

#[tokio::test]
async fn a_model_that_finds_it_too_long_is_asked_again_with_less() {
    let host = Host::new();
    let script = Script::new([
        Script::says("long indeed"),
        Play::Fails(script::refusal("model.too_large", "prompt is too long", true)),
        Script::says("x"),
        Script::says("fine"),
    ])
    .summarising("They wrote many x.");
    three_turns(&host, &script).await;
    assert_eq!(script.left(), 0);
    let last = script.requests().pop().unwrap().to_string();
    assert!(last.contains("They wrote many x.") && !last.contains("xxxxx"));
}

/// The refusal of a model that states its window.
fn reads_only(window: u32) -> Play {
    let trouble = ipc_schema::letters::from_agent::ErrorDetail {
        code: "model.too_large".into(),
        reason: "too large".into(),
    };
    Play::Fails(CallError::Failed(Failure { trouble, too_long: true, window: Some(window) }))
}

#[tokio::test]
async fn a_summary_that_is_too_long_for_the_model_is_made_of_smaller_pieces() {
    let host = Host::new();
    let script = Script::new([
        Script::says("long indeed"),
        reads_only(99_999),
        Play::Fails(script::refusal("model.too_large", "too large", true)),
        Script::says("They wrote many x."),
        Script::says("They wrote x only."),
        Script::says("x"),
        Script::says("fine"),
    ]);
    three_turns(&host, &script).await;
    assert_eq!(script.left(), 0);
    let requests = script.requests();
    assert!(
        requests[4].to_string().contains("They wrote many x.") && !requests[5].to_string().contains("xxxxx")
    );
    assert!(requests[5].to_string().contains("They wrote x only."));
}

#[tokio::test]
async fn one_turn_that_is_too_long_alone_fails_and_the_next_one_works() {
    let host = Host::new();
    let script =
        Script::new([Play::Fails(script::refusal("model.too_large", "too large", true)), Script::says("ok")])
            .summarising("A long text.");
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
    assert_eq!(script.left(), 0, "the next turn learnt from the refusal and compacts first");
}

#[tokio::test]
async fn a_window_that_a_refusal_states_counts_from_then_on() {
    let host = Host::new();
    let script =
        Script::new([Script::says("one"), reads_only(16_000), Script::says("two"), Script::says("three")])
            .summarising("They wrote words.");
    host.begin();
    live(&host, &script, async {
        let long = "word ".repeat(7_000);
        for n in [41, 42, 43] {
            host.says(TurnId(n), &[(n, &long)]);
            host.done(TurnId(n)).await;
        }
        host.close();
    })
    .await;
    assert_eq!(script.left(), 0);
    all_fit_after(&script, 2, 16_000);
}

fn small_window() -> Begin {
    let mut begin = host::begin();
    begin.model.window = 24_000;
    begin
}

fn all_fit(script: &Script, window: u64) {
    all_fit_after(script, 0, window);
}

/// Each request but the first ones is smaller than the window, by an estimate that is rather too high.
fn all_fit_after(script: &Script, first: usize, window: u64) {
    for (n, request) in script.requests().iter().enumerate().skip(first) {
        let size = crate::estimate::of_request(&request.to_string());
        assert!(size.total() < window, "request {n}: {size:?}");
    }
}

#[tokio::test]
async fn a_turn_that_outgrows_the_window_loses_old_results_and_goes_on() {
    let host = Host::new();
    std::fs::write(host.paths().workspace().join("long.txt"), "word ".repeat(5_000)).unwrap();
    let read = |id: &str| Script::calls(id, "read_file", json!({"path": "long.txt"}));
    let ids: Vec<_> = (0..15).map(|n| format!("c{n}")).collect();
    let script = Script::new(ids.iter().map(|id| read(id)).chain([Script::says("read it all")]))
        .summarising("I read long.txt.");
    host.begin_with(small_window());
    live(&host, &script, async {
        host.says(TURN, &[(1, "read it fifteen times")]);
        assert_eq!(host.done(TURN).await.1.text, "read it all");
        host.close();
    })
    .await;
    all_fit(&script, 24_000);
    let last = script.requests().pop().unwrap().to_string();
    assert!(last.contains("read it fifteen times"), "what is asked stays");
    assert!(last.matches("word word").count() > 100, "the newest result is whole");
    assert!(last.contains("cut to save room") && last.contains("/session/archive/s-2-"));
    let archive = std::fs::read_dir(host.paths().session().join("archive")).unwrap().next().unwrap().unwrap();
    assert!(std::fs::read_to_string(archive.path()).unwrap().contains(&"word ".repeat(5_000)));
}

#[tokio::test]
async fn a_turn_of_many_large_calls_keeps_its_last_steps_and_a_summary_of_the_others() {
    let host = Host::new();
    let write = |id: &str| {
        let text = "word ".repeat(3_000);
        Script::calls(id, "write_file", json!({"path": format!("{id}.txt"), "content": text}))
    };
    let ids: Vec<_> = (0..12).map(|n| format!("c{n}")).collect();
    let script = Script::new(ids.iter().map(|id| write(id)).chain([Script::says("written")]))
        .summarising("## Done\nI wrote c0.txt and more.");
    host.begin_with(small_window());
    live(&host, &script, async {
        host.says(TURN, &[(1, "write twelve files")]);
        assert_eq!(host.done(TURN).await.1.text, "written");
        host.close();
    })
    .await;
    all_fit(&script, 24_000);
    let last = script.requests().pop().unwrap().to_string();
    assert!(last.contains("My earlier steps in this turn") && last.contains("I wrote c0.txt and more."));
    assert!(last.contains("write twelve files") && last.contains("c11.txt") && !last.contains("c3.txt"));
    let summaries = script.requests().into_iter().filter(|request| request.get("tools").is_none());
    let carried = summaries.filter(|request| request.to_string().contains("The summary so far:"));
    assert!(carried.count() > 0, "a later summary carries the earlier one on");
}

#[tokio::test]
async fn a_thousand_calls_in_one_answer_each_have_a_result_and_the_session_goes_on() {
    let host = Host::new();
    let ids: Vec<_> = (0..1_000).map(|n| format!("c{n}")).collect();
    let calls: Vec<_> = ids.iter().map(|id| (&**id, "list_files", json!({"pattern": "*"}))).collect();
    let script =
        Script::new([Play::Answers(script::calls(&calls)), Script::says("done"), Script::says("yes")]);
    host.begin();
    live(&host, &script, async {
        host.says(TURN, &[(1, "go")]);
        assert_eq!(host.done(TURN).await.1.text, "done");
        host.says(NEXT, &[(2, "still there?")]);
        assert_eq!(host.done(NEXT).await.1.text, "yes");
        host.close();
    })
    .await;
    assert_eq!(script.requests()[1].to_string().matches("\"tool_result\"").count(), 1_000);
}

#[tokio::test]
async fn a_fixed_part_that_fills_the_window_is_refused_by_name() {
    let host = Host::new();
    let script = Script::new([]);
    let text = "word ".repeat(30_000);
    let claude_md_group = Some(ipc_schema::letters::to_agent::Text { text, sha256: "0".repeat(64) });
    host.begin_with(Begin { claude_md_group, ..small_window() });
    live(&host, &script, async {
        host.says(TURN, &[(1, "hello")]);
        let error = host.done(TURN).await.1.error.unwrap();
        assert_eq!(error.code, "model.fixed_part");
        assert!(error.reason.contains("CLAUDE.md of this group 30"), "{}", error.reason);
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
