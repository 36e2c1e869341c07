//! Runs that resume a transcript after a kill.

use super::*;
use crate::transcript::Assistant;
use ipc_schema::letters::ToAgent;
use ipc_schema::letters::from_agent::Lost;
use ipc_schema::letters::to_agent::{Response, Verdict};
use serde_json::{Value, json};

/// A host whose session ends with this answer of the model.
fn left_with(answer: Assistant) -> Host {
    let host = Host::new();
    let mut transcript = host.transcript();
    transcript.append_input(TURN, host::input(&[(1, "go")])).unwrap();
    transcript.append(TURN, Body::Assistant(answer)).unwrap();
    host
}

fn tool(name: &str, input: Value) -> Assistant {
    script::calls(&[("toolu_1", name, input)])
}

#[tokio::test]
async fn killed_between_final_text_and_its_letter_says_the_end_without_a_call() {
    let host = left_with(script::says("the end"));
    host.begin_with(begin_open(&[]));
    let script = Script::default();
    live(&host, &script, async {
        host.says(TURN, &[(1, "go")]);
        let (letter, done) = host.done(TURN).await;
        assert_eq!((done.outcome, done.text.as_str()), (Outcome::Finished, "the end"));
        assert_eq!((letter.id.as_str(), letter.ack), ("t-41:2.0", 2), "its messages are answered by it");
        host.close();
    })
    .await;
    let ready = &host.said()[0];
    assert!(matches!(&ready.body, FromAgent::Ready(r) if r.resumes == Some(TURN) && r.entries == 2));
}

#[tokio::test(start_paused = true)]
async fn an_end_waits_for_its_messages_however_long_the_host_is_away() {
    let host = left_with(script::says("the end"));
    host.begin_with(begin_open(&[]));
    live(&host, &Script::default(), async {
        tokio::time::sleep(std::time::Duration::from_secs(20)).await;
        host.says(TURN, &[(1, "go")]);
        let (letter, done) = host.done(TURN).await;
        assert_eq!(
            (done.text.as_str(), letter.ack),
            ("the end", 2),
            "it answers the message: nobody asks again"
        );
        host.close();
    })
    .await;
}

#[tokio::test]
async fn a_message_written_after_the_final_text_is_left_for_the_next_turn() {
    let host = left_with(script::says("the end"));
    host.begin_with(begin_open(&[]));
    let script = Script::new([Script::says("more")]);
    live(&host, &script, async {
        host.says(TURN, &[(1, "go"), (2, "wait!")]);
        assert_eq!(host.done(TURN).await.0.ack, 1);
        host.says(NEXT, &[(1, "go"), (2, "wait!")]);
        assert_eq!(host.done(NEXT).await.1.text, "more");
        host.close();
    })
    .await;
    let last = script.last_user();
    assert!(last.contains("wait!") && !last.contains("m-1\\\""), "m-1 was answered: {last}");
}

#[tokio::test]
async fn an_end_entry_is_said_again_word_for_word() {
    let host = left_with(tool("list_files", json!({})));
    let end = crate::transcript::End { outcome: Outcome::Limit, text: "enough".into(), error: None };
    host.transcript().append(TURN, Body::End(end)).unwrap();
    host.begin_with(begin_open(&[]));
    live(&host, &Script::default(), async {
        host.says(TURN, &[(1, "go")]);
        let (letter, done) = host.done(TURN).await;
        assert_eq!((done.outcome, done.text.as_str()), (Outcome::Limit, "enough"));
        assert_eq!(letter.id.as_str(), "t-41:3.0");
        host.close();
    })
    .await;
}

#[tokio::test]
async fn killed_between_transcript_and_letter_writes_the_letter() {
    for (consumed, expected) in [(&[][..], 1), (&["t-41:2.0"][..], 0)] {
        let host = left_with(tool("send_message", json!({"text": "soon"})));
        host.begin_with(begin_open(consumed));
        let script = Script::new([Script::says("done")]);
        live(&host, &script, async {
            host.until(|letter| matches!(letter.body, FromAgent::Ready(_))).await;
            host.says(TURN, &[(1, "go")]);
            host.done(TURN).await;
            host.close();
        })
        .await;
        let said = host.said();
        let messages: Vec<_> = said.iter().filter(|l| matches!(l.body, FromAgent::Message(_))).collect();
        assert_eq!(messages.len(), expected);
        assert!(messages.iter().all(|letter| letter.id.as_str() == "t-41:2.0"));
        assert!(script.last_user().contains("\"sent\""), "its real outcome: it was sent");
    }
}

#[tokio::test]
async fn g3_a_lost_transcript_is_told_and_its_numbers_are_not_given_again() {
    let host = Host::new();
    std::fs::create_dir(host.paths().session().join("s.jsonl")).unwrap();
    host.begin_with(begin_open(&["t-41:7.0"]));
    live(&host, &Script::new([Script::says("done")]), async {
        host.until(|letter| matches!(letter.body, FromAgent::Ready(_))).await;
        host.says(TURN, &[(1, "go")]);
        host.done(TURN).await;
        host.close();
    })
    .await;
    let said = host.said();
    let lost =
        |letter: &FromAgent| matches!(letter, FromAgent::Ready(ready) if ready.lost == Some(Lost::All));
    assert!(said.iter().any(|letter| lost(&letter.body)));
    let done = said.iter().find(|letter| matches!(letter.body, FromAgent::TurnDone(_))).unwrap();
    assert!(done.id.entry() > Some(7), "the host would take it for a repeat: {:?}", done.id);
}

#[tokio::test]
async fn a_letter_that_the_host_never_read_is_repeated_though_its_result_stands() {
    let host = left_with(tool("send_message", json!({"text": "soon"})));
    let sent = crate::transcript::ToolResult {
        tool_use_id: "toolu_1".into(),
        content: "sent".into(),
        is_error: false,
        shown: None,
    };
    host.transcript().append_results(TURN, vec![sent]).unwrap();
    host.begin_with(begin_open(&[]));
    killed_after(&host, &Script::default(), async {
        let letter = host.until(|letter| matches!(letter.body, FromAgent::Message(_))).await;
        assert_eq!(letter.id.as_str(), "t-41:2.0");
    })
    .await;
}

#[tokio::test]
async fn a_local_tool_that_was_cut_off_may_have_run_and_the_one_after_it_has_not() {
    let write = |path: &str| json!({"path": path, "content": ""});
    let host = left_with(script::calls(&[
        ("a", "write_file", write("first")),
        ("b", "write_file", write("second")),
        ("c", "send_message", json!({"text": "both written"})),
    ]));
    host.begin_with(begin_open(&[]));
    let script = Script::new([Script::says("I looked")]);
    live(&host, &script, async {
        host.says(TURN, &[(1, "go")]);
        host.done(TURN).await;
        host.close();
    })
    .await;
    let results = results(&host.transcript());
    assert!(results[0].0.starts_with("interrupted; it may have run") && results[0].1);
    assert!(results[1].0.starts_with("not run") && results[1].1);
    assert_eq!(results[2], ("sent".into(), false));
    assert!(!host.paths().resolve("first").exists() && !host.paths().resolve("second").exists());
}

#[tokio::test]
async fn a_request_without_its_verdict_is_asked_again_in_the_same_words() {
    let host = Host::new();
    let script = Script::new([
        Play::Answers(tool("update_personality", json!({"text": "speak Latin"}))),
        Script::says("ita"),
    ]);
    let asked = |letter: &ipc_schema::FromAgentLetter| matches!(letter.body, FromAgent::Request(_));
    host.begin();
    let mut first = None;
    killed_after(&host, &script, async {
        host.says(TURN, &[(1, "change")]);
        first = Some(host.until(asked).await);
    })
    .await;
    let first = first.unwrap();
    let host = host.again();
    // The host performed it meanwhile: another text is in force, and the request is known to it.
    let mut begin = begin_open(&[first.id.as_str()]);
    begin.claude_md_group =
        Some(ipc_schema::letters::to_agent::Text { text: "speak Latin".into(), sha256: "new".into() });
    host.begin_with(begin);
    live(&host, &script, async {
        let again = host.until(asked).await;
        assert_eq!((again.id.clone(), again.body), (first.id, first.body));
        host.says(TURN, &[(1, "change")]);
        let verdict = Verdict::Ok { result: json!({"sha256": "new"}) };
        host.send(Some(TURN), ToAgent::Response(Response { request: again.id, verdict }));
        let (letter, done) = host.done(TURN).await;
        assert_eq!((done.text.as_str(), letter.ack), ("ita", 3));
        host.close();
    })
    .await;
    assert_eq!(host.said().iter().filter(|letter| asked(letter)).count(), 1, "once in this run");
    let transcript = host.transcript();
    let requests = transcript.entries().iter().filter(|entry| matches!(entry.body, Body::Request(_)));
    assert_eq!(requests.count(), 1, "one request, however often it is asked");
}

#[tokio::test]
async fn close_while_waiting_for_a_verdict_leaves_the_question_open() {
    let host = Host::new();
    let script = Script::new([Play::Answers(tool("update_personality", json!({"text": "x"})))]);
    host.begin();
    let code = live(&host, &script, async {
        host.says(TURN, &[(1, "change")]);
        doing(&host, Activity::Waiting).await;
        host.close();
    })
    .await;
    assert_eq!(code, 0);
    assert!(results(&host.transcript()).is_empty());
}

#[tokio::test]
async fn nothing_of_a_closed_turn_is_repeated() {
    for begin in [
        Begin { closed: vec![TURN], ..host::begin() },
        Begin { open: Some(OpenTurn { turn: NEXT, consumed: vec![] }), ..host::begin() },
        Begin { closed: vec![TURN], ..begin_open(&[]) },
    ] {
        let host = left_with(tool("send_message", json!({"text": "soon"})));
        host.begin_with(begin);
        let script = Script::new([Script::says("hello")]);
        live(&host, &script, async {
            host.says(NEXT, &[(2, "new")]);
            host.done(NEXT).await;
            host.close();
        })
        .await;
        assert_eq!(kinds(&host), ["ready", "turn_done"]);
        assert!(matches!(&host.said()[0].body, FromAgent::Ready(r) if r.resumes.is_none()));
        assert!(script.last_user().contains("interrupted; it may have run"));
    }
}

#[tokio::test]
async fn the_limit_counts_calls_of_earlier_runs() {
    let host = left_with(tool("list_files", json!({})));
    let mut begin = begin_open(&[]);
    begin.limits.model_calls = 1;
    host.begin_with(begin);
    live(&host, &Script::default(), async {
        host.says(TURN, &[(1, "go")]);
        let done = host.done(TURN).await.1;
        assert_eq!((done.outcome, done.model_calls), (Outcome::Limit, 0));
        host.close();
    })
    .await;
}

#[tokio::test]
async fn a_turn_killed_anywhere_is_answered_once() {
    // Killed as soon as the n-th letter is out, for every n: each message and the end reach the host once by id.
    for letters in 1..12 {
        let host = Host::new();
        let plays = || {
            Script::new([
                Script::calls("a", "send_message", json!({"text": "one"})),
                Script::calls("b", "list_files", json!({})),
                Script::says("end"),
            ])
        };
        host.begin();
        let script = plays();
        killed_after(&host, &script, async {
            host.says(TURN, &[(1, "go")]);
            while host.letters().len() < letters
                && host.said().last().is_none_or(|l| l.body.kind() != "turn_done")
            {
                tokio::task::yield_now().await;
            }
        })
        .await;
        let mut ids: Vec<_> = host.said().iter().filter(|l| l.turn.is_some()).map(|l| l.id.clone()).collect();
        if ids.iter().any(|id| host.said().iter().any(|l| l.id == *id && l.body.kind() == "turn_done")) {
            continue;
        }
        let consumed: Vec<_> = ids.iter().map(|id| id.as_str().to_owned()).collect();
        let host = host.again();
        host.begin_with(begin_open(&consumed.iter().map(String::as_str).collect::<Vec<_>>()));
        live(&host, &script, async {
            host.says(TURN, &[(1, "go")]);
            assert_eq!(host.done(TURN).await.1.text, "end");
            host.close();
        })
        .await;
        ids.extend(host.said().iter().filter(|l| l.turn.is_some()).map(|l| l.id.clone()));
        let ids: Vec<_> = ids.iter().map(|id| id.as_str()).collect();
        assert_eq!(ids.len(), 2, "killed after {letters} letters: {ids:?}");
        assert!(ids.contains(&"t-41:2.0"));
    }
}
