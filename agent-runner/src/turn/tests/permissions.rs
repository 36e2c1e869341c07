//! Tool calls that an owner must allow.

use ipc_schema::letters::to_agent::{AlwaysAllowed, Response, ToolRule, ToolVerdict, Verdict};
use ipc_schema::letters::{Request, ToAgent};
use ipc_schema::requests::{AskPermission, Permission};
use serde_json::json;

use super::*;

/// `begin` of a group that asks about `touch`.
fn asking(begin: Begin) -> Begin {
    let rule = |tool: &str, command: Option<&str>| ToolRule {
        tool: tool.into(),
        command: command.map(Into::into),
        verdict: ToolVerdict::Ask,
    };
    let rules = vec![rule("run_command", Some("touch *")), rule("send_message", None), rule("remind", None)];
    Begin { tools: ipc_schema::letters::to_agent::ToolPolicy { rules, ..begin.tools }, ..begin }
}

fn touch(id: &str, file: &str) -> Play {
    Script::calls(id, "run_command", json!({ "command": format!("true && touch  {file}") }))
}

/// The question of a tool call.
async fn question(host: &Host, call: &str) -> AskPermission {
    let id = format!("{TURN}:{call}");
    let letter = host.until(|l| l.id.as_str() == id && matches!(l.body, FromAgent::Request(_))).await;
    match letter.body {
        FromAgent::Request(Request::AskPermission(ask)) => ask,
        other => panic!("{other:?}"),
    }
}

fn decide(host: &Host, call: &str, verdict: Verdict) {
    let request = format!("{TURN}:{call}").parse().unwrap();
    host.send(Some(TURN), ToAgent::Response(Response { request, verdict }));
}

fn decided(permission: Permission) -> Verdict {
    Verdict::Ok { result: serde_json::to_value(permission).unwrap() }
}

fn is_there(host: &Host, file: &str) -> bool {
    host.paths().workspace().join(file).exists()
}

#[tokio::test]
async fn a_call_waits_for_its_permission_and_always_is_not_asked_again() {
    let host = Host::new();
    host.begin_with(asking(host::begin()));
    let plays =
        [touch("a", "one"), touch("b", "one"), touch("c", "one"), touch("d", "two"), Script::says("end")];
    let script = Script::new(plays);
    live(&host, &script, async {
        host.says(TURN, &[(1, "go")]);
        let ask = question(&host, "a").await;
        assert_eq!((ask.tool.as_str(), ask.detail.as_str()), ("run_command", "true && touch  one"));
        assert_eq!(ask.commands, ["touch one"]);
        assert!(!is_there(&host, "one"));
        decide(&host, "a", decided(Permission::Allowed { always: false }));
        question(&host, "b").await;
        assert!(is_there(&host, "one"));
        decide(&host, "b", decided(Permission::Allowed { always: true }));
        // "c" is the same command.
        question(&host, "d").await;
        decide(&host, "d", decided(Permission::Denied));
        host.done(TURN).await;
        host.close();
    })
    .await;
    assert!(!is_there(&host, "two"));
    let results = results(&host.transcript());
    assert_eq!(results.len(), 4);
    assert!(results[3].1 && results[3].0.contains("an owner has denied `touch two`"), "{results:?}");
    let asked = host.said().iter().filter(|l| matches!(l.body, FromAgent::Request(_))).count();
    assert_eq!(asked, 3);
}

#[tokio::test]
async fn no_decision_is_a_no_that_says_what_to_do() {
    let unsupported = Verdict::Refused { code: "unsupported".into(), reason: "no such request".into() };
    let away = Verdict::Refused { code: "chat.away".into(), reason: "nobody can be asked".into() };
    for (verdict, told) in [
        (decided(Permission::Pending), "call the tool again"),
        (decided(Permission::Expired), "which counts as a no"),
        (Verdict::Ok { result: json!("?") }, "nobody can be asked here"),
        (unsupported, "nobody can be asked here"),
        (away, "nobody can be asked"),
    ] {
        let host = Host::new();
        host.begin_with(asking(host::begin()));
        let script = Script::new([touch("a", "one"), Script::says("end")]);
        live(&host, &script, async {
            host.says(TURN, &[(1, "go")]);
            question(&host, "a").await;
            decide(&host, "a", verdict);
            host.done(TURN).await;
            host.close();
        })
        .await;
        assert!(!is_there(&host, "one"));
        let results = results(&host.transcript());
        assert!(
            results[0].1 && results[0].0.starts_with("not run: ") && results[0].0.contains(told),
            "{results:?}"
        );
    }
}

/// The box closes while the owner thinks. The next one asks the same, and gets the answer.
#[tokio::test]
async fn a_call_that_waits_is_asked_about_by_the_next_box() {
    let host = Host::new();
    host.begin_with(asking(host::begin()));
    let both = script::calls(&[
        ("a", "run_command", json!({ "command": "touch one" })),
        ("b", "run_command", json!({ "command": "touch two" })),
    ]);
    let script = Script::new([Play::Answers(both), Script::says("end")]);
    live(&host, &script, async {
        host.says(TURN, &[(1, "go")]);
        question(&host, "a").await;
        host.close();
    })
    .await;
    assert_eq!(results(&host.transcript()).len(), 1, "the other call has not begun, and says so");
    let host = host.again();
    host.begin_with(asking(begin_open(&[])));
    live(&host, &script, async {
        host.says(TURN, &[(1, "go")]);
        question(&host, "a").await;
        decide(&host, "a", decided(Permission::Allowed { always: false }));
        host.done(TURN).await;
        host.close();
    })
    .await;
    assert!(is_there(&host, "one"));
}

/// After the permission the call may have run, however often the box dies.
#[tokio::test]
async fn a_permission_lets_a_call_run_once() {
    let host = Host::new();
    host.begin_with(asking(host::begin()));
    let slow = json!({ "command": "touch one; sleep 1000" });
    let script = Script::new([Script::calls("a", "run_command", slow), Script::says("end")]);
    killed_after(&host, &script, async {
        host.says(TURN, &[(1, "go")]);
        question(&host, "a").await;
        decide(&host, "a", decided(Permission::Allowed { always: false }));
        while !is_there(&host, "one") {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
    std::fs::remove_file(host.paths().workspace().join("one")).unwrap();
    let host = host.again();
    host.begin_with(asking(begin_open(&[])));
    live(&host, &script, async {
        host.says(TURN, &[(1, "go")]);
        host.done(TURN).await;
        host.close();
    })
    .await;
    assert!(!is_there(&host, "one"));
    assert!(results(&host.transcript())[0].0.starts_with("interrupted; it may have run"));
}

#[tokio::test]
async fn the_runner_asks_about_messages_and_the_host_about_its_own_requests() {
    let host = Host::new();
    let allowed = vec![AlwaysAllowed { tool: "run_command".into(), command: Some("touch one".into()) }];
    host.begin_with(Begin { allowed, ..asking(host::begin()) });
    let script = Script::new([
        touch("a", "one"),
        Script::calls("b", "send_message", json!({ "text": "hello" })),
        Script::calls("c", "remind", json!({ "text": "stretch", "when": "in 1 hour" })),
        Script::says("end"),
    ]);
    live(&host, &script, async {
        host.says(TURN, &[(1, "go")]);
        let ask = question(&host, "b").await;
        assert_eq!((ask.tool.as_str(), ask.detail.as_str()), ("send_message", "{\"text\":\"hello\"}"));
        assert!(is_there(&host, "one"), "an owner has always allowed it");
        decide(&host, "b", decided(Permission::Allowed { always: false }));
        let id = format!("{TURN}:c");
        let remind = host.until(|l| l.id.as_str() == id).await;
        assert!(matches!(remind.body, FromAgent::Request(Request::Remind(_))));
        let refused =
            Verdict::Refused { code: "ipc.forbidden".into(), reason: "an owner has denied it".into() };
        decide(&host, "c", refused);
        host.done(TURN).await;
        host.close();
    })
    .await;
    assert_eq!(kinds(&host), ["ready", "request", "message", "request", "turn_done"]);
    let results = results(&host.transcript());
    assert_eq!((results[1].0.as_str(), results[2].1), ("sent", true));
}

#[tokio::test]
async fn what_a_person_cannot_see_whole_is_not_asked() {
    let host = Host::new();
    host.begin_with(asking(host::begin()));
    let long = json!({ "command": format!("touch {}", "x ".repeat(3_000)) });
    let script = Script::new([Script::calls("a", "run_command", long), Script::says("end")]);
    live(&host, &script, async {
        host.says(TURN, &[(1, "go")]);
        host.done(TURN).await;
        host.close();
    })
    .await;
    let results = results(&host.transcript());
    assert!(results[0].1 && results[0].0.contains("at most 3,000 characters"), "{results:?}");
}
