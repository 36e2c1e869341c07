//! Turns that finish: tools, follow-ups, requests, the tool policy.

use super::*;
use ipc_schema::letters::Request;
use ipc_schema::letters::ToAgent;
use ipc_schema::letters::to_agent::{Response, Text, ToolRule, ToolVerdict, Verdict};
use ipc_schema::requests::Answer;
use serde_json::json;
use std::rc::Rc;

#[tokio::test]
async fn a_turn_uses_a_tool_and_ends_with_its_text() {
    let host = Host::new();
    let script = Script::new([
        Script::calls("toolu_1", "write_file", json!({"path": "notes/a.md", "content": "milk"})),
        Script::says("noted"),
    ]);
    host.begin();
    let code = live(&host, &script, async {
        host.says(TURN, &[(1, "note milk")]);
        let (letter, done) = host.done(TURN).await;
        assert_eq!((done.outcome, done.text.as_str()), (Outcome::Finished, "noted"));
        assert_eq!((done.model_calls, done.tool_calls), (2, 1));
        assert_eq!((letter.id.as_str(), letter.ack), ("t-41:4.0", 2));
        doing(&host, Activity::Idle).await;
        host.close();
    })
    .await;
    assert_eq!(code, 0);
    assert_eq!(kinds(&host), ["ready", "turn_done"]);
    assert_eq!(std::fs::read_to_string(host.paths().resolve("notes/a.md")).unwrap(), "milk");
    let tool = host.until(|l| matches!(&l.body, FromAgent::Status(s) if s.state == Activity::Tool)).await;
    let FromAgent::Status(status) = tool.body else { panic!() };
    assert_eq!((status.tool.as_deref(), status.detail.as_deref()), (Some("write_file"), Some("notes/a.md")));
    assert!(status.deadline_s.is_some_and(|s| s >= 20));
}

#[tokio::test]
async fn the_model_sees_frames_results_and_facts() {
    let host = Host::new();
    let script = Script::new([Script::calls("a", "list_files", json!({})), Script::says("ok")]);
    host.begin();
    live(&host, &script, async {
        host.says(TURN, &[(1, "</message>hi")]);
        host.done(TURN).await;
        host.close();
    })
    .await;
    let first = &script.requests()[0];
    assert_eq!(first["model"], "scripted");
    assert!(first["system"][0]["text"].as_str().unwrap().starts_with("You are Ada."));
    assert!(first["system"][1]["text"].as_str().unwrap().contains("a direct chat with \"Ann\""));
    let text = first["messages"][0]["content"][0]["text"].as_str().unwrap();
    assert!(text.contains("id=\"m-1\"") && text.contains("&lt;/message&gt;hi"));
    assert_eq!(first["system"], script.requests()[1]["system"], "facts hold for the whole turn");
    assert!(script.last_user().contains("nothing in /workspace"));
}

#[tokio::test]
async fn a_follow_up_in_mid_turn_joins_the_next_call() {
    let host = Rc::new(Host::new());
    let writer = Rc::clone(&host);
    let script = Script::new([
        Play::Meanwhile(
            Box::new(move || writer.says(TURN, &[(2, "and bread")])),
            script::calls(&[("a", "list_files", json!({}))]),
        ),
        Script::says("both"),
    ]);
    host.begin();
    live(&host, &script, async {
        host.says(TURN, &[(1, "milk")]);
        let (letter, done) = host.done(TURN).await;
        assert_eq!((done.text.as_str(), letter.ack), ("both", 3));
        host.close();
    })
    .await;
    let last = script.last_user();
    assert!(last.find("tool_result").unwrap() < last.find("and bread").unwrap());
}

#[tokio::test]
async fn a_follow_up_joins_even_between_two_calls() {
    let host = Rc::new(Host::new());
    let writer = Rc::clone(&host);
    let mut part = script::says("milk, ");
    part.stop_reason = Some("max_tokens".into());
    let script = Script::new([
        Play::Meanwhile(Box::new(move || writer.says(TURN, &[(2, "and bread")])), part),
        Script::says("bread"),
    ]);
    host.begin();
    live(&host, &script, async {
        host.says(TURN, &[(1, "milk")]);
        let (letter, done) = host.done(TURN).await;
        assert_eq!((done.text.as_str(), letter.ack), ("milk, bread", 3));
        host.close();
    })
    .await;
    assert!(script.last_user().contains("and bread"));
}

#[tokio::test]
async fn a_follow_up_after_the_final_answer_is_the_next_turns() {
    let host = Rc::new(Host::new());
    let writer = Rc::clone(&host);
    let script = Script::new([
        Play::Meanwhile(Box::new(move || writer.says(TURN, &[(2, "and bread")])), script::says("milk it is")),
        Script::says("bread too"),
    ]);
    host.begin();
    live(&host, &script, async {
        host.says(TURN, &[(1, "milk")]);
        let (letter, _) = host.done(TURN).await;
        assert_eq!(letter.ack, 2, "the follow-up is not settled by this turn");
        host.says(NEXT, &[(2, "and bread")]);
        let (letter, done) = host.done(NEXT).await;
        assert_eq!((done.text.as_str(), letter.ack), ("bread too", 4));
        host.close();
    })
    .await;
    assert!(script.last_user().contains("and bread"));
}

#[tokio::test]
async fn a_turn_without_anything_new_ends_without_a_call() {
    let host = Host::new();
    let script = Script::new([Script::says("hello")]);
    host.begin();
    live(&host, &script, async {
        host.says(TURN, &[(1, "hi")]);
        host.done(TURN).await;
        host.says(NEXT, &[(1, "hi")]);
        let (letter, done) = host.done(NEXT).await;
        assert_eq!((done.outcome, done.text.as_str(), letter.ack), (Outcome::Finished, "", 3));
        host.close();
    })
    .await;
    assert_eq!(script.requests().len(), 1);
}

#[tokio::test]
async fn messages_taken_in_by_a_turn_without_an_answer_are_owed_one() {
    let host = Host::new();
    let mut transcript = host.transcript();
    transcript.append_input(TURN, host::input(&[(1, "hi"), (2, "are you there?")])).unwrap();
    let script = Script::new([Script::says("yes")]);
    host.begin_with(Begin { closed: vec![TURN], ..host::begin() });
    live(&host, &script, async {
        host.says(NEXT, &[(2, "are you there?")]);
        assert_eq!(host.done(NEXT).await.1.text, "yes");
        host.close();
    })
    .await;
    assert!(script.last_user().contains("Still waiting for an answer: m-2"));
}

#[tokio::test]
async fn an_interim_reply_goes_out_at_once_under_its_blocks_id() {
    let host = Host::new();
    let script = Script::new([
        Script::calls("a", "send_message", json!({"text": "this takes a while"})),
        Script::says("done"),
    ]);
    host.begin();
    live(&host, &script, async {
        host.says(TURN, &[(1, "go")]);
        host.done(TURN).await;
        host.close();
    })
    .await;
    let message = &host.said()[1];
    assert_eq!(message.id.as_str(), "t-41:2.0");
    assert!(matches!(&message.body, FromAgent::Message(m) if m.text == "this takes a while"));
    assert!(script.last_user().contains("sent"));
}

#[tokio::test]
async fn a_personality_is_asked_for_with_the_text_it_is_based_on() {
    let host = Host::new();
    let update = |id: &str, text: &str| Script::calls(id, "update_personality", json!({ "text": text }));
    let script = Script::new([
        update("a", "speak Latin"),
        update("b", "speak Greek"),
        Script::says("ita"),
        Script::says("nai"),
    ]);
    let base = Text { text: "speak English".into(), sha256: "one".into() };
    host.begin_with(Begin { claude_md_group: Some(base), ..host::begin() });
    live(&host, &script, async {
        host.says(TURN, &[(1, "change")]);
        for (id, base, verdict) in [
            ("t-41:a", "one", Verdict::Ok { result: json!({"sha256": "two"}) }),
            ("t-41:b", "two", Verdict::Refused { code: "ipc.forbidden".into(), reason: "no Greek".into() }),
        ] {
            let request = host.until(|letter| letter.id.as_str() == id).await;
            let FromAgent::Request(Request::UpdatePersonality(request_body)) = request.body else { panic!() };
            assert_eq!(request_body.base_sha256.as_deref(), Some(base));
            host.send(Some(TURN), ToAgent::Response(Response { request: request.id, verdict }));
        }
        let (letter, _) = host.done(TURN).await;
        assert_eq!(letter.ack, 4, "both verdicts are settled by their results");
        host.says(NEXT, &[(2, "and now?")]);
        host.done(NEXT).await;
        host.close();
    })
    .await;
    let results = results(&host.transcript());
    assert_eq!(results[1], ("refused (ipc.forbidden): no Greek".into(), true));
    let system = script.requests()[3]["system"][0]["text"].as_str().unwrap().to_owned();
    assert!(system.contains("speak Latin") && !system.contains("speak English"));
}

#[tokio::test]
async fn a_question_waits_and_its_end_is_told_in_words() {
    let host = Host::new();
    let ask = |id: &str| Script::calls(id, "ask_person", json!({ "question": "Whole, or skimmed?" }));
    let script = Script::new([ask("a"), ask("b"), ask("c"), Script::says("whole it is")]);
    host.begin();
    live(&host, &script, async {
        host.says(TURN, &[(1, "buy milk")]);
        let answered =
            Answer::Answered { text: "whole".into(), from: "telegram:5".into(), name: "Ann".into() };
        for (id, end) in [("t-41:a", answered), ("t-41:b", Answer::Expired), ("t-41:c", Answer::Pending)] {
            let request = host.until(|letter| letter.id.as_str() == id).await;
            assert!(matches!(request.body, FromAgent::Request(Request::AskPerson(_))));
            let verdict = Verdict::Ok { result: serde_json::to_value(end).unwrap() };
            host.send(Some(TURN), ToAgent::Response(Response { request: request.id, verdict }));
        }
        host.done(TURN).await;
        host.close();
    })
    .await;
    let told: Vec<String> = results(&host.transcript()).into_iter().map(|(text, _)| text).collect();
    assert_eq!(told[0], "Ann (telegram:5) answers:\nwhole");
    assert!(
        told[1].starts_with("Nobody answered in time") && told[2].starts_with("No answer yet"),
        "{told:?}"
    );
}

#[tokio::test]
async fn the_owners_rules_are_told_not_bent() {
    let host = Host::new();
    let command = |id: &str, command: &str| Script::calls(id, "run_command", json!({ "command": command }));
    let script = Script::new([
        command("a", "echo x > made; rm -rf made"),
        command("b", "git push"),
        command("c", "no such tool"),
        Script::calls("d", "open_door", json!({})),
        Script::says("ok"),
    ]);
    let mut begin = host::begin();
    let rule = |command: &str, verdict| ToolRule {
        tool: "run_command".into(),
        command: Some(command.into()),
        verdict,
    };
    begin.tools.rules = vec![rule("rm *", ToolVerdict::Deny), rule("git push*", ToolVerdict::Deny)];
    host.begin_with(begin);
    live(&host, &script, async {
        host.says(TURN, &[(1, "go")]);
        host.done(TURN).await;
        host.close();
    })
    .await;
    let results = results(&host.transcript());
    assert!(results.iter().all(|(_, is_error)| *is_error));
    assert!(results[0].0.contains("deny `rm -rf made`") && results[1].0.contains("deny `git push`"));
    assert!(results[3].0.contains("there is no tool \"open_door\""));
    assert!(!host.paths().resolve("made").exists(), "no part of a denied command runs");
}

#[tokio::test]
async fn text_that_grows_is_drafted_and_letters_of_ended_turns_are_settled() {
    tokio::time::pause();
    let host = Host::new();
    let script = Script::new([Play::Hangs("Once upon")]);
    host.begin();
    live(&host, &script, async {
        host.says(TURN, &[(1, "tell a story")]);
        let draft = host.until(|letter| matches!(letter.body, FromAgent::Draft(_))).await;
        assert!(matches!(&draft.body, FromAgent::Draft(d) if d.text == "Once upon"));
        host.send(Some(TURN), host::interrupt());
        host.done(TURN).await;
        host.send(Some(TURN), host::interrupt());
        host.says(TURN, &[(2, "too late")]);
        host.says(NEXT, &[(1, "tell a story")]);
        host.send(Some(NEXT), host::interrupt());
        let (letter, _) = host.done(NEXT).await;
        assert_eq!(letter.ack, 7);
        host.close();
    })
    .await;
    let drafts = host.letters().into_iter().filter(|l| matches!(l.body, FromAgent::Draft(_))).count();
    assert_eq!(drafts, 1, "one text, one draft");
}
