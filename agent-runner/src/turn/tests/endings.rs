//! Turns that are stopped, fail or reach a limit, and how runs end.

use super::*;
use crate::model::CallError;
use serde_json::json;

fn cut() -> Play {
    Play::Fails(CallError::Cut { reason: "reset by peer".into() })
}

fn away() -> Play {
    Play::Fails(CallError::HostAway { reason: "connection refused".into() })
}

async fn one_turn(host: &Host, script: &Script) -> ipc_schema::letters::from_agent::TurnDone {
    host.begin();
    let mut end = None;
    let code = live(host, script, async {
        host.says(TURN, &[(1, "go")]);
        end = Some(host.done(TURN).await.1);
        host.close();
    })
    .await;
    assert_eq!(code, 0);
    end.unwrap()
}

#[tokio::test]
async fn the_limit_of_model_calls_ends_the_turn_with_what_was_said_last() {
    let host = Host::new();
    let mut with_words = script::calls(&[("a", "list_files", json!({}))]);
    with_words.blocks.insert(0, script::says("I look around").blocks.remove(0));
    let script = Script::new([
        Play::Answers(with_words),
        Script::calls("b", "list_files", json!({})),
        Script::says("next turn"),
    ]);
    let mut begin = host::begin();
    begin.limits.model_calls = 2;
    host.begin_with(begin);
    live(&host, &script, async {
        host.says(TURN, &[(1, "go")]);
        let (letter, done) = host.done(TURN).await;
        assert_eq!(done.outcome, Outcome::Limit);
        assert!(done.text.starts_with("I stopped after 2 model calls in this turn. Say \"go on\""));
        assert!(done.text.ends_with("I look around"));
        assert_eq!(letter.id.as_str(), "t-41:6.0", "the end entry stands before its letter goes");
        host.says(NEXT, &[(2, "go on")]);
        assert_eq!(host.done(NEXT).await.1.text, "next turn");
        host.close();
    })
    .await;
    assert!(script.last_user().contains("stopped by its limit"));
}

#[tokio::test]
async fn an_interrupt_cancels_the_model() {
    let host = Host::new();
    let script = Script::new([Play::Hangs("thinking"), Script::says("fresh")]);
    host.begin();
    live(&host, &script, async {
        host.says(TURN, &[(1, "go")]);
        doing(&host, Activity::Thinking).await;
        host.send(Some(TURN), host::interrupt());
        let (letter, done) = host.done(TURN).await;
        assert_eq!((done.outcome, done.text.as_str(), letter.ack), (Outcome::Interrupted, "", 3));
        host.says(NEXT, &[(2, "again")]);
        assert_eq!(host.done(NEXT).await.1.text, "fresh");
        host.close();
    })
    .await;
}

#[tokio::test]
async fn an_interrupt_kills_the_tool_and_answers_every_call() {
    let host = Host::new();
    let script = Script::new([
        Play::Answers(script::calls(&[
            ("a", "run_command", json!({"command": "echo $$ > pid; sleep 1000; touch later"})),
            ("b", "write_file", json!({"path": "later", "content": ""})),
        ])),
        Script::says("fresh"),
    ]);
    host.begin();
    live(&host, &script, async {
        host.says(TURN, &[(1, "go")]);
        doing(&host, Activity::Tool).await;
        host.send(Some(TURN), host::interrupt());
        assert_eq!(host.done(TURN).await.1.outcome, Outcome::Interrupted);
        host.says(NEXT, &[(2, "again")]);
        host.done(NEXT).await;
        host.close();
    })
    .await;
    let expected = ["interrupted by the person", "not run: interrupted by the person"];
    assert_eq!(results(&host.transcript()), expected.map(|text| (text.to_owned(), true)));
    assert!(!host.paths().resolve("later").exists());
}

#[tokio::test]
async fn close_lets_the_tool_in_hand_finish_and_begins_nothing_after_it() {
    let host = Host::new();
    let script = Script::new([Play::Answers(script::calls(&[
        ("a", "run_command", json!({"command": "while [ ! -e go ]; do sleep 0.02; done; echo finished"})),
        ("b", "write_file", json!({"path": "later", "content": ""})),
    ]))]);
    host.begin();
    let code = live(&host, &script, async {
        host.says(TURN, &[(1, "go")]);
        doing(&host, Activity::Tool).await;
        host.close();
        std::fs::write(host.paths().resolve("go"), "").unwrap();
    })
    .await;
    assert_eq!(code, 0);
    assert_eq!(kinds(&host), ["ready"], "the turn stays open");
    let results = results(&host.transcript());
    assert_eq!(results[0], ("finished\n".into(), false));
    assert!(results[1].0.starts_with("not run: the container was closed"));
    assert!(!host.paths().resolve("later").exists());
}

#[tokio::test]
async fn close_cancels_the_model() {
    let host = Host::new();
    let script = Script::new([Play::Hangs("")]);
    host.begin();
    let code = live(&host, &script, async {
        host.says(TURN, &[(1, "go")]);
        doing(&host, Activity::Thinking).await;
        host.close();
    })
    .await;
    assert_eq!((code, kinds(&host)), (0, vec!["ready"]));
}

#[tokio::test]
async fn an_input_beside_close_is_not_begun() {
    let host = Host::new();
    host.begin();
    host.says(TURN, &[(1, "go")]);
    host.close();
    assert_eq!(live(&host, &Script::default(), async {}).await, 0);
    assert_eq!(kinds(&host), ["ready"]);
    assert_eq!(host.letters()[0].ack, 1);
    assert!(host.transcript().entries().is_empty());
}

#[tokio::test]
async fn close_before_begin_is_a_quiet_end() {
    let host = Host::new();
    host.close();
    assert_eq!(live(&host, &Script::default(), async {}).await, 0);
    assert!(host.letters().is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_breaks_off_is_asked_for_again() {
    let host = Host::new();
    let script = Script::new([cut(), cut(), cut(), Script::says("whole")]);
    assert_eq!(one_turn(&host, &script).await.text, "whole");
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_always_breaks_off_fails_the_turn() {
    let host = Host::new();
    let script = Script::new([cut(), cut(), cut(), cut()]);
    let done = one_turn(&host, &script).await;
    assert_eq!(done.outcome, Outcome::Failed);
    let error = done.error.unwrap();
    assert_eq!(error.code, "model.cut");
    assert!(error.reason.contains("reset by peer"));
}

#[tokio::test(start_paused = true)]
async fn a_host_that_restarts_costs_no_failure() {
    let host = Host::new();
    let restart = || [cut(), away(), away()];
    let script = Script::new((0..6).flat_map(|_| restart()).chain([Script::says("back")]));
    assert_eq!(one_turn(&host, &script).await.text, "back");
}

#[tokio::test(start_paused = true)]
async fn a_host_that_stays_away_ends_the_run_after_180_tries() {
    let host = Host::new();
    let script = Script::new((0..180).map(|_| away()));
    host.begin();
    let code = live(&host, &script, async { host.says(TURN, &[(1, "go")]) }).await;
    assert_eq!((code, script.left()), (1, 0));
    assert_eq!(kinds(&host), ["ready", "failed"]);
    let failed = host.said().remove(1);
    assert!(matches!(&failed.body, FromAgent::Failed(f) if f.code == "host.unreachable"));
    assert_eq!(failed.ack, 2, "the input is safe in the transcript");
}

#[tokio::test]
async fn a_refusal_of_the_models_side_fails_the_turn_and_not_the_session() {
    let host = Host::new();
    let script = Script::new([
        Play::Fails(script::refusal("model.auth", "the owner must set a key", false)),
        Script::says("works again"),
    ]);
    host.begin();
    live(&host, &script, async {
        host.says(TURN, &[(1, "one")]);
        let (letter, done) = host.done(TURN).await;
        assert_eq!(done.outcome, Outcome::Failed);
        assert_eq!(done.error.unwrap().code, "model.auth");
        assert_eq!(letter.ack, 2);
        host.says(NEXT, &[(2, "two")]);
        assert_eq!(host.done(NEXT).await.1.text, "works again");
        host.close();
    })
    .await;
    let messages = script.requests()[1]["messages"].as_array().unwrap().clone();
    assert_eq!(messages.len(), 1, "both turns' messages are one user message");
}

fn invalid() -> Play {
    Play::Fails(script::refusal("model.invalid_request", "messages.1: bad", false))
}

#[tokio::test]
async fn a_conversation_that_is_refused_goes_on_without_the_part_that_may_be_the_fault() {
    let host = Host::new();
    let mut thinks = script::calls(&[("a", "list_files", json!({}))]);
    let thought = r#"{"type":"thinking","thinking":"hm","signature":"s"}"#;
    thinks.blocks.insert(0, crate::transcript::Block::new(thought).unwrap());
    let script = Script::new([
        Play::Answers(thinks),
        invalid(),
        invalid(),
        invalid(),
        Script::says("found it"),
        Script::says("and on"),
    ]);
    host.begin();
    live(&host, &script, async {
        host.says(TURN, &[(1, "go")]);
        assert_eq!(host.done(TURN).await.1.text, "found it");
        host.says(NEXT, &[(2, "again")]);
        assert_eq!(host.done(NEXT).await.1.text, "and on");
        host.close();
    })
    .await;
    let requests: Vec<_> = script.requests().iter().map(|request| request["messages"].to_string()).collect();
    assert_eq!(requests[1], requests[2], "one refusal may be a fault of the provider");
    let holds = |n: usize| ["\"hm\"", "tool_use", "go"].map(|words| requests[n].contains(words));
    assert_eq!(holds(2), [true, true, true]);
    assert_eq!(holds(3), [false, true, true]);
    assert_eq!(holds(4), [false, false, true]);
    assert!(requests[4].contains("list_files"), "the model knows what it had called: {}", requests[4]);
    assert_eq!(holds(5), [false, false, true], "it stays left out");
    let told: Vec<_> = host
        .said()
        .into_iter()
        .filter_map(|letter| match letter.body {
            FromAgent::Message(message) => Some(message.text),
            _ => None,
        })
        .collect();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("what I had done so far") && told[0].contains("/new"), "{told:?}");
}

#[tokio::test]
async fn a_refusal_that_has_nothing_to_do_with_the_conversation_leaves_nothing_out() {
    let host = Host::new();
    let mut plays = vec![Script::says("hi")];
    plays.extend((0..3).map(|_| invalid()));
    plays.push(Script::says("back"));
    let script = Script::new(plays);
    host.begin();
    live(&host, &script, async {
        host.says(TURN, &[(1, "hello")]);
        host.done(TURN).await;
        host.says(NEXT, &[(2, "and?")]);
        let done = host.done(NEXT).await.1;
        assert_eq!(done.error.unwrap().code, "model.invalid_request");
        host.says(TurnId(43), &[(3, "and now?")]);
        assert_eq!(host.done(TurnId(43)).await.1.text, "back");
        host.close();
    })
    .await;
    assert!(script.requests().last().unwrap()["messages"].to_string().contains("hello"));
}

#[tokio::test]
async fn calls_without_an_id_or_with_one_id_all_run_and_each_has_its_result() {
    let host = Host::new();
    let write = |path: &str| json!({ "path": path, "content": "x" });
    let script = Script::new([
        Play::Answers(script::calls(&[
            ("", "write_file", write("a")),
            ("same", "write_file", write("b")),
            ("same", "write_file", write("c")),
        ])),
        Script::calls("same", "write_file", write("d")),
        Script::says("done"),
    ]);
    assert_eq!(one_turn(&host, &script).await.text, "done");
    assert_eq!(results(&host.transcript()).len(), 4);
    assert!(["a", "b", "c", "d"].iter().all(|name| host.paths().workspace().join(name).exists()));
}

#[tokio::test]
async fn a_model_that_declines_fails_the_turn_with_its_words() {
    let host = Host::new();
    let mut declined = script::says("I cannot help with that.");
    declined.stop_reason = Some("refusal".into());
    let done = one_turn(&host, &Script::new([Play::Answers(declined)])).await;
    let error = done.error.unwrap();
    assert_eq!((error.code.as_str(), done.outcome), ("model.refused", Outcome::Failed));
    assert!(error.reason.contains("I cannot help"));
}

#[tokio::test]
async fn a_long_answer_goes_on_and_arrives_whole() {
    let host = Host::new();
    let mut part = script::says("first, ");
    part.stop_reason = Some("max_tokens".into());
    let script = Script::new([Play::Answers(part), Script::says("second")]);
    assert_eq!(one_turn(&host, &script).await.text, "first, second");
    assert!(script.last_user().contains("Continue."));
}

#[tokio::test]
async fn a_letter_that_cannot_be_read_ends_the_run_with_its_code() {
    let host = Host::new();
    host.begin();
    let code = live(&host, &Script::default(), async {
        host.until(|letter| matches!(letter.body, FromAgent::Ready(_))).await;
        host.raw("0000000002-input.json", "{\"v\":1");
    })
    .await;
    assert_eq!(code, 1);
    let last = host.said().pop().unwrap();
    assert!(matches!(&last.body, FromAgent::Failed(f) if f.code == "ipc.json"));
}

#[tokio::test]
async fn a_begin_that_cannot_be_read_is_told_too() {
    let host = Host::new();
    host.raw("0000000001-begin.json", &format!("{{\"v\":9,\"run\":\"{}\"}}", Host::RUN));
    assert_eq!(live(&host, &Script::default(), async {}).await, 1);
    assert_eq!(kinds(&host), ["failed"]);
}

#[tokio::test]
async fn a_transcript_that_cannot_be_opened_is_told() {
    let host = Host::new();
    std::fs::remove_dir(host.paths().session()).unwrap();
    std::fs::write(host.paths().session(), "no folder").unwrap();
    host.begin();
    assert_eq!(live(&host, &Script::default(), async {}).await, 1);
    assert!(matches!(&host.said()[0].body, FromAgent::Failed(f) if f.code == "session.unreadable"));
}
