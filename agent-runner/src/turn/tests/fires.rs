//! Turns that a task's fire causes, and their gate scripts.

use super::*;
use crate::transcript::{Entry, Gate};
use ipc_schema::letters::ToAgent;
use ipc_schema::letters::from_agent::TurnDone;
use ipc_schema::letters::to_agent::{Fire, ToolRule, ToolVerdict};
use serde_json::json;
use std::rc::Rc;

const YES: &str = r#"echo x >> ran; echo '{"wake": true, "data": {"new": 2}}'"#;
const NO: &str = r#"echo x >> ran; echo '{"wake": false}'"#;

fn fires(host: &Host, turn: TurnId, change: impl FnOnce(&mut Fire)) {
    host.send(Some(turn), ToAgent::Input(host::fire(change, &[])));
}

/// One run with one turn that begins with this letter.
async fn one_turn(host: &Host, script: &Script, begin: Begin, letter: ToAgent) -> TurnDone {
    host.begin_with(begin);
    let mut end = None;
    live(host, script, async {
        host.send(Some(TURN), letter);
        let (letter, done) = host.done(TURN).await;
        assert_eq!(letter.ack, 2, "the turn has settled its fire and its messages");
        end = Some(done);
        host.close();
    })
    .await;
    end.unwrap()
}

/// How often the gate script ran.
fn runs(host: &Host) -> usize {
    std::fs::read_to_string(host.paths().resolve("ran")).unwrap_or_default().lines().count()
}

fn has_outcome(entry: &Entry) -> bool {
    matches!(entry.body, Body::Gate(_))
}

#[tokio::test]
async fn a_fire_is_work_like_a_message() {
    let host = Host::new();
    let script = Script::new([Script::calls("a", "list_files", json!({})), Script::says("Nothing new.")]);
    let done = one_turn(&host, &script, host::begin(), ToAgent::Input(host::fire(|_| {}, &[]))).await;
    assert_eq!((done.outcome, done.text.as_str(), done.gated), (Outcome::Finished, "Nothing new.", false));
    let first = &script.requests()[0];
    let text = first["messages"][0]["content"][0]["text"].as_str().unwrap();
    assert!(text.starts_with("<task id=\"f-12\"") && text.ends_with(">Tell what is new.</task>"), "{text}");
    assert!(first["system"][1]["text"].as_str().unwrap().contains("a direct chat with \"Ann\""));
}

#[tokio::test]
async fn a_fire_with_nothing_to_tell_ends_in_silence() {
    let host = Host::new();
    let script = Script::new([Script::says("")]);
    let done = one_turn(&host, &script, host::begin(), ToAgent::Input(host::fire(|_| {}, &[]))).await;
    assert_eq!((done.outcome, done.text.as_str(), done.model_calls), (Outcome::Finished, "", 1));
}

#[tokio::test]
async fn a_message_joins_a_fire_in_a_later_letter() {
    let host = Rc::new(Host::new());
    let writer = Rc::clone(&host);
    let script = Script::new([
        Play::Meanwhile(
            Box::new(move || writer.says(TURN, &[(1, "and the weather?")])),
            script::calls(&[("a", "list_files", json!({}))]),
        ),
        Script::says("No news, sunny."),
    ]);
    host.begin();
    live(&host, &script, async {
        fires(&host, TURN, |_| {});
        let (letter, done) = host.done(TURN).await;
        assert_eq!((done.text.as_str(), letter.ack), ("No news, sunny.", 3));
        host.close();
    })
    .await;
    assert!(script.last_user().contains("and the weather?"));
}

#[tokio::test]
async fn a_message_that_an_earlier_turn_left_unanswered_is_owed_an_answer_beside_a_fire() {
    let host = Host::new();
    host.transcript().append_input(TURN, host::input(&[(1, "are you there?")])).unwrap();
    let script = Script::new([Script::says("yes; and no news")]);
    host.begin_with(Begin { closed: vec![TURN], ..host::begin() });
    live(&host, &script, async {
        host.send(Some(NEXT), ToAgent::Input(host::fire(|_| {}, &[(1, "are you there?")])));
        host.done(NEXT).await;
        host.close();
    })
    .await;
    let last = script.last_user();
    assert!(last.contains("<task") && last.contains("Still waiting for an answer: m-1"), "{last}");
}

#[tokio::test]
async fn a_fire_has_its_own_limit_of_model_calls() {
    for (own, general, calls) in [(Some(2), 40, 2), (Some(50), 1, 1), (None, 1, 1)] {
        let host = Host::new();
        let plays = (0..calls).map(|n| Script::calls(&format!("c{n}"), "list_files", json!({})));
        let mut begin = host::begin();
        begin.limits.model_calls = general;
        let letter = ToAgent::Input(host::fire(|fire| fire.model_calls = own, &[]));
        let done = one_turn(&host, &Script::new(plays), begin, letter).await;
        assert_eq!((done.outcome, done.model_calls), (Outcome::Limit, calls));
        assert!(done.text.contains(&format!("the task \"news\" after {calls} model calls")), "{}", done.text);
    }
}

#[tokio::test]
async fn a_gate_that_says_yes_shows_what_it_found() {
    let host = Host::new();
    let script = Script::new([Script::says("two new")]);
    let done = one_turn(&host, &script, host::begin(), host::gated(YES, &[])).await;
    assert_eq!((done.text.as_str(), done.gated, done.model_calls), ("two new", false, 1));
    let seen = script.requests()[0]["messages"][0]["content"].clone();
    assert_eq!(
        seen[0]["text"], r#"<gate id="f-12" name="news">{&quot;new&quot;: 2}</gate>"#,
        "it stands before the task: {seen}"
    );
    assert!(seen[1]["text"].as_str().unwrap().starts_with("<task"));
    assert_eq!(runs(&host), 1);
    let status = host.until(|l| matches!(&l.body, FromAgent::Status(s) if s.state == Activity::Tool)).await;
    let FromAgent::Status(status) = status.body else { panic!() };
    assert_eq!(status.tool.as_deref(), Some("gate"));
    assert!(status.detail.is_some_and(|detail| detail.starts_with("echo x")) && status.deadline_s > Some(20));
}

#[tokio::test]
async fn a_gate_runs_where_commands_run_and_its_last_line_counts() {
    let host = Host::new();
    std::fs::write(host.paths().resolve("state"), "old").unwrap();
    let gate = r#"head -c 1000000 /dev/zero; echo; grep -q old state && printf '{"wake":true}\n\n'"#;
    let done =
        one_turn(&host, &Script::new([Script::says("ok")]), host::begin(), host::gated(gate, &[])).await;
    assert_eq!(done.text, "ok");
}

#[tokio::test]
async fn large_data_of_a_gate_is_cut() {
    let host = Host::new();
    let script = Script::new([Script::says("much")]);
    let gate = r#"printf '{"wake": true, "data": "'; head -c 12000 /dev/zero | tr '\0' x; echo '"}'"#;
    one_turn(&host, &script, host::begin(), host::gated(gate, &[])).await;
    let seen = script.requests()[0]["messages"][0]["content"][0]["text"].as_str().unwrap().to_owned();
    assert!(seen.contains("[… cut: the data has 12002 bytes]") && seen.len() < 9_000, "{}", seen.len());
}

#[tokio::test]
async fn a_gate_that_says_no_a_hundred_times_costs_no_model_call_and_leaves_no_conversation() {
    let host = Host::new();
    let script = Script::new([Script::says("hello")]);
    host.begin();
    live(&host, &script, async {
        for n in 100..200 {
            let input = host::fire(
                |fire| {
                    fire.id = format!("f-{n}");
                    fire.prompt = "x".repeat(8_000);
                    fire.gate = Some(NO.into());
                },
                &[],
            );
            host.send(Some(TurnId(n)), ToAgent::Input(input));
            let (letter, done) = host.done(TurnId(n)).await;
            assert_eq!((done.outcome, done.text.as_str(), done.gated), (Outcome::Finished, "", true));
            assert_eq!((done.model_calls, letter.ack), (0, n - 98));
        }
        host.says(TurnId(200), &[(1, "hi")]);
        host.done(TurnId(200)).await;
        host.close();
    })
    .await;
    assert_eq!((runs(&host), script.requests().len()), (100, 1));
    let request = script.requests()[0]["messages"].to_string();
    assert!(!request.contains("task") && !request.contains("gate"), "{request}");
    let bytes = std::fs::metadata(host.paths().session().join("s.jsonl")).unwrap().len();
    assert!(bytes < 20_000, "{bytes}");
}

#[tokio::test]
async fn a_gate_that_does_not_say_yes_or_no_fails_the_turn_with_its_reason() {
    let mut strict = host::begin();
    strict.limits.command_s = 1;
    for (script, code, reason) in [
        ("true", "gate.output", "printed nothing"),
        ("printf '\\n \\n'", "gate.output", "blank"),
        ("echo all good", "gate.output", "no JSON object). A gate ends"),
        ("echo all good", "gate.output", "Its output ends: all good"),
        ("echo '[true]'", "gate.output", "no JSON object"),
        ("echo true", "gate.output", "no JSON object"),
        ("echo '{\"wake\": true'", "gate.output", "EOF"),
        ("echo '{\"data\": 1}'", "gate.output", "missing field `wake`"),
        ("echo '{\"wake\": \"yes\"}'", "gate.output", "expected a boolean"),
        ("echo '{\"wake\": null}'", "gate.output", "expected a boolean"),
        ("echo '{\"wake\": true}'; echo warning >&2", "gate.output", "ends: {\"wake\": true}\\nwarning"),
        ("head -c 1000000 /dev/zero | tr '\\0' x", "gate.output", "too long"),
        ("head -c 1000000 /dev/urandom; echo", "gate.output", "A gate ends"),
        ("echo '{\"wake\": true}'; exit 3", "gate.exit", "(exit code 3)"),
        ("printf 'a\\033[2Jb\\n'; kill -9 $$", "gate.exit", "killed by signal 9"),
        ("no-such-program", "gate.exit", "did not find the command"),
        ("echo started; sleep 1000", "gate.time", "within 1 s and was stopped"),
        ("sleep 1000 & echo '{\"wake\": 1}'", "gate.output", "expected a boolean"),
    ] {
        let host = Host::new();
        let begin = if code == "gate.time" { strict.clone() } else { host::begin() };
        let done = one_turn(&host, &Script::default(), begin, host::gated(script, &[])).await;
        assert_eq!((done.outcome, done.text.as_str(), done.gated), (Outcome::Failed, "", false), "{script}");
        let error = done.error.unwrap();
        assert_eq!(error.code, code, "{script}: {}", error.reason);
        assert!(error.reason.contains(reason), "{script}: {}", error.reason);
        assert!(error.reason.len() < 2_500 && !error.reason.contains(['\n', '\u{1b}']), "{}", error.reason);
    }
}

#[tokio::test]
async fn a_gate_keeps_to_the_owners_rules_for_commands() {
    let host = Host::new();
    let mut begin = host::begin();
    let rule =
        ToolRule { tool: "run_command".into(), command: Some("curl *".into()), verdict: ToolVerdict::Deny };
    begin.tools.rules = vec![rule];
    let done = one_turn(&host, &Script::default(), begin, host::gated("echo x >> ran; curl x", &[])).await;
    let error = done.error.unwrap();
    assert_eq!((error.code.as_str(), runs(&host)), ("gate.denied", 0));
    assert!(error.reason.contains("deny `curl x`"), "{}", error.reason);
}

#[tokio::test]
async fn an_interrupt_kills_the_gate_and_ends_the_turn() {
    let host = Host::new();
    host.begin();
    live(&host, &Script::default(), async {
        host.send(Some(TURN), host::gated("echo $$ > pid; sleep 1000", &[(1, "hello")]));
        doing(&host, Activity::Tool).await;
        host.send(Some(TURN), host::interrupt());
        let (letter, done) = host.done(TURN).await;
        assert_eq!((done.outcome, done.gated, letter.ack), (Outcome::Interrupted, false, 3));
        host.close();
    })
    .await;
    assert!(!host.transcript().entries().iter().any(has_outcome));
}

#[tokio::test]
async fn a_gate_that_close_cuts_off_runs_again_in_the_next_run() {
    let host = Host::new();
    let slow = |seconds: u32| format!("echo x >> ran; sleep {seconds}; echo '{{\"wake\": false}}'");
    host.begin();
    let code = live(&host, &Script::default(), async {
        host.send(Some(TURN), host::gated(&slow(1000), &[]));
        while runs(&host) == 0 {
            tokio::task::yield_now().await;
        }
        host.close();
    })
    .await;
    assert_eq!((code, kinds(&host)), (0, vec!["ready"]), "the turn stays open");
    assert!(host.transcript().entries().is_empty());
    let host = host.again();
    let done = one_turn(&host, &Script::default(), begin_open(&[]), host::gated(&slow(0), &[])).await;
    assert_eq!((done.gated, runs(&host)), (true, 2));
}

#[tokio::test]
async fn a_message_beside_a_gate_that_says_no_is_answered_without_the_task() {
    for late in [false, true] {
        let host = Host::new();
        let script = Script::new([Script::says("hi Ann"), Script::says("good")]);
        host.begin();
        let gate = "while [ ! -e go ]; do sleep 0.02; done; echo '{\"wake\": false}'";
        live(&host, &script, async {
            host.send(Some(TURN), host::gated(gate, if late { &[] } else { &[(1, "hello")] }));
            doing(&host, Activity::Tool).await;
            if late {
                host.says(TURN, &[(1, "hello")]);
            }
            std::fs::write(host.paths().resolve("go"), "").unwrap();
            let (letter, done) = host.done(TURN).await;
            assert_eq!((done.text.as_str(), done.gated), ("hi Ann", true));
            assert_eq!(letter.ack, if late { 3 } else { 2 });
            host.says(NEXT, &[(2, "and you?")]);
            host.done(NEXT).await;
            host.close();
        })
        .await;
        for request in script.requests() {
            let seen = request["messages"].to_string();
            assert!(seen.contains("hello") && !seen.contains("<task"), "{seen}");
        }
    }
}

#[tokio::test]
async fn a_message_beside_a_gate_that_fails_is_answered_and_the_model_knows_why() {
    let host = Host::new();
    let script = Script::new([Script::says("hi; the check of news is broken")]);
    let done = one_turn(&host, &script, host::begin(), host::gated("exit 3", &[(1, "hello")])).await;
    assert_eq!((done.outcome, done.gated), (Outcome::Finished, false));
    let seen = script.last_user();
    assert!(seen.contains(r#"name=\"news\" failed=\"gate.exit\">"#), "{seen}");
    assert!(seen.contains("exit code 3") && !seen.contains("<task"), "{seen}");
}

/// A host whose session ends with these entries of the turn.
fn left_with(bodies: Vec<Body>) -> Host {
    let host = Host::new();
    for body in bodies {
        host.transcript().append(TURN, body).unwrap();
    }
    host
}

fn outcome(wake: bool) -> Body {
    let shown = wake.then(|| "<gate>found</gate>".to_owned());
    Body::Gate(Gate { fire: "f-12".into(), wake, error: None, shown })
}

#[tokio::test]
async fn an_outcome_that_is_on_disk_stands_and_the_script_does_not_run_again() {
    let host = left_with(vec![outcome(false)]);
    let done = one_turn(&host, &Script::default(), begin_open(&[]), host::gated(NO, &[])).await;
    assert_eq!((done.gated, runs(&host)), (true, 0));

    let host = left_with(vec![outcome(true)]);
    let script = Script::new([Script::says("found")]);
    let done = one_turn(&host, &script, begin_open(&[]), host::gated(NO, &[])).await;
    assert_eq!((done.text.as_str(), runs(&host)), ("found", 0));
    assert!(script.last_user().contains("<gate>found") && script.last_user().contains("<task"));
}

#[tokio::test]
async fn a_message_after_the_outcome_is_left_for_the_next_turn() {
    let host = left_with(vec![outcome(false)]);
    host.begin_with(begin_open(&[]));
    let script = Script::new([Script::says("hi")]);
    live(&host, &script, async {
        host.send(Some(TURN), host::gated(NO, &[(1, "hello")]));
        let (letter, done) = host.done(TURN).await;
        assert_eq!((done.gated, letter.ack), (true, 1));
        host.says(NEXT, &[(1, "hello")]);
        assert_eq!(host.done(NEXT).await.1.text, "hi");
        host.close();
    })
    .await;
}

#[tokio::test]
async fn a_turn_of_a_fire_that_the_host_gave_up_is_closed_and_a_later_turn_does_the_fire_anew() {
    for left in [vec![outcome(true)], vec![Body::Input(host::fire(|_| {}, &[]))]] {
        let host = left_with(left);
        host.begin_with(Begin { closed: vec![TURN], ..host::begin() });
        let script = Script::new([Script::says("done")]);
        live(&host, &script, async {
            host.send(Some(NEXT), host::gated(YES, &[]));
            assert_eq!(host.done(NEXT).await.1.text, "done");
            host.close();
        })
        .await;
        assert_eq!(runs(&host), 1);
        let last = script.last_user();
        assert!(last.contains("[The turn above was interrupted.]") && last.contains("<task"), "{last}");
    }
}

#[tokio::test]
async fn a_fire_killed_anywhere_is_done_once() {
    // Killed as soon as the n-th letter is out, for every n, with a gate and without.
    for (gate, letters) in [None, Some(YES)].into_iter().flat_map(|gate| (1..12).map(move |n| (gate, n))) {
        let letter = || ToAgent::Input(host::fire(|fire| fire.gate = gate.map(str::to_owned), &[]));
        let script = Script::new([
            Script::calls("a", "send_message", json!({"text": "one"})),
            Script::calls("b", "list_files", json!({})),
            Script::says("end"),
        ]);
        let host = Host::new();
        host.begin();
        killed_after(&host, &script, async {
            host.send(Some(TURN), letter());
            while host.letters().len() < letters
                && host.said().last().is_none_or(|l| l.body.kind() != "turn_done")
            {
                tokio::task::yield_now().await;
            }
        })
        .await;
        let said = host.said();
        if said.iter().any(|l| l.body.kind() == "turn_done") {
            continue;
        }
        let mut ids: Vec<_> = said.iter().filter(|l| l.turn.is_some()).map(|l| l.id.clone()).collect();
        let stood = host.transcript().entries().iter().any(has_outcome).then(|| runs(&host));
        let consumed: Vec<_> = ids.iter().map(|id| id.as_str().to_owned()).collect();
        let host = host.again();
        host.begin_with(begin_open(&consumed.iter().map(String::as_str).collect::<Vec<_>>()));
        live(&host, &script, async {
            host.send(Some(TURN), letter());
            let (last, done) = host.done(TURN).await;
            assert_eq!((done.text.as_str(), last.ack), ("end", 2));
            host.close();
        })
        .await;
        ids.extend(host.said().iter().filter(|l| l.turn.is_some()).map(|l| l.id.clone()));
        assert_eq!(ids.len(), 2, "killed after {letters} letters: {ids:?}");
        let count =
            |wanted: fn(&Entry) -> bool| host.transcript().entries().iter().filter(|e| wanted(e)).count();
        assert_eq!(count(|entry| matches!(entry.body, Body::Input(_))), 1);
        assert_eq!(count(has_outcome), usize::from(gate.is_some()));
        assert!(stood.is_none_or(|before| before == runs(&host)), "its outcome was on disk");
    }
}

#[tokio::test]
async fn a_fire_is_kept_through_refusals_and_compaction() {
    let host = Host::new();
    let invalid = || Play::Fails(script::refusal("model.invalid_request", "messages.1: bad", false));
    let too_long = Play::Fails(script::refusal("model.too_large", "prompt is too long", true));
    let script = Script::new([
        Script::says("long indeed"),
        invalid(),
        invalid(),
        Script::says("no news"),
        too_long,
        Script::says("They talked."),
        Script::says("no news again"),
    ]);
    host.begin();
    live(&host, &script, async {
        host.says(TURN, &[(1, &"x".repeat(5_000))]);
        host.done(TURN).await;
        fires(&host, NEXT, |_| {});
        assert_eq!(host.done(NEXT).await.1.text, "no news");
        fires(&host, TurnId(43), |fire| (fire.id, fire.prompt) = ("f-13".into(), "And now?".into()));
        assert_eq!(host.done(TurnId(43)).await.1.text, "no news again");
        host.close();
    })
    .await;
    let seen = |n: usize| script.requests()[n]["messages"].to_string();
    assert!(seen(3).contains("Tell what is new.") && !seen(3).contains("xxxxx"), "{}", seen(3));
    assert!(seen(6).contains("And now?") && seen(6).contains("They talked.") && !seen(6).contains("f-12"));
    let archive = std::fs::read_dir(host.paths().session().join("archive")).unwrap().next().unwrap().unwrap();
    assert!(std::fs::read_to_string(archive.path()).unwrap().contains(">Tell what is new.</task>"));
}
