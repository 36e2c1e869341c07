//! The real binary, from `begin` to its exit, against a gateway of a few lines on a real unix socket.
// The lint's exception for tests sees test functions only, not the helpers of a test file.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::VecDeque;
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use ipc_schema::letter_writer::LetterDir;
use ipc_schema::letters::from_agent::{Outcome, TurnDone};
use ipc_schema::letters::to_agent::*;
use ipc_schema::letters::{FromAgent, ToAgent};
use ipc_schema::{FromAgentLetter, LetterId, MessageSeq, ToAgentLetter, TurnId, names_and_paths};
use serde_json::{Value, json};
use tokio::net::UnixListener;
use tokio::process::{Child, Command};

const RUN: &str = "019ab000-0000-7000-8000-000000000001";
const TURN: TurnId = TurnId(41);

struct Box_ {
    root: tempfile::TempDir,
    letters: LetterDir,
}

impl Box_ {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        for dir in ["ipc/to-agent", "ipc/from-agent", "run/lazaret", "session", "workspace"] {
            std::fs::create_dir_all(root.path().join(dir)).unwrap();
        }
        let letters = LetterDir::open(&root.path().join("ipc/to-agent")).unwrap();
        Self { root, letters }
    }

    fn path(&self, inside: &str) -> PathBuf {
        self.root.path().join(inside)
    }

    fn start(&self) -> Child {
        Command::new(env!("CARGO_BIN_EXE_agent-runner"))
            .args(["run", "--root"])
            .arg(self.root.path())
            // As in a box with egress: the model must not be looked for behind them.
            .env("HTTP_PROXY", "http://127.0.0.1:9")
            .env("http_proxy", "http://127.0.0.1:9")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap()
    }

    fn put(&self, n: u64, turn: Option<TurnId>, body: ToAgent) {
        let letter = ToAgentLetter {
            id: LetterId::of_host(n),
            run: RUN.parse().unwrap(),
            turn,
            n,
            ack: 0,
            at: "2026-11-21T14:03:00Z".into(),
            body,
        };
        self.letters.put(&letter.file_name(), &letter.to_bytes().unwrap()).unwrap();
    }

    fn begin(&self) {
        let begin = Begin {
            minor: 0,
            group: "family".parse().unwrap(),
            lane: "conversation".into(),
            main: false,
            session: "s".into(),
            persona: "Ada".into(),
            model: Model {
                name: "scripted".into(),
                provider: None,
                max_tokens: 1000,
                window: 100_000,
                no_images: false,
            },
            limits: Limits {
                model_calls: 40,
                turn_s: 900,
                command_s: 20,
                command_max_s: 60,
                output_bytes: 30_000,
                requests: 200,
                compaction_percent: 80,
            },
            tools: ToolPolicy { default: ToolVerdict::Record, rules: vec![] },
            reactions: true,
            allowed: vec![],
            files: true,
            network: "off for this group".into(),
            zone: "Europe/Berlin".into(),
            claude_md_global: None,
            claude_md_group: None,
            open: None,
            closed: vec![],
        };
        self.put(1, None, ToAgent::Begin(Box::new(begin)));
    }

    fn fire(&self, n: u64, turn: TurnId, gate: &str) {
        let chat = Chat { id: "telegram:5".into(), kind: ChatKind::Direct, title: "Ann".into() };
        let fire = Fire {
            id: format!("f-{n}"),
            task: "task-3".into(),
            name: "news".into(),
            prompt: "Tell what is new.".into(),
            planned: "2026-11-21T07:30:00+01:00".into(),
            late: false,
            silent: false,
            gate: Some(gate.into()),
            model_calls: None,
        };
        let input = Input { chat, messages: vec![], context_omitted: 0, fire: Some(fire) };
        self.put(n, Some(turn), ToAgent::Input(input));
    }

    async fn done(&self, turn: TurnId) -> (FromAgentLetter, TurnDone) {
        self.until(|letter| match &letter.body {
            FromAgent::TurnDone(done) if letter.turn == Some(turn) => Some((letter.clone(), done.clone())),
            _ => None,
        })
        .await
    }

    fn input(&self, n: u64, text: &str) {
        let message = Message {
            id: MessageSeq(n),
            wakes: true,
            from: Person { id: "telegram:5".into(), name: "Ann".into(), owner: true },
            at: "2026-11-21T14:03:00+01:00".into(),
            text: text.into(),
            forwarded_from: None,
            edited: false,
            reply_to: None,
            attachments: vec![],
            order: None,
        };
        let chat = Chat { id: "telegram:5".into(), kind: ChatKind::Direct, title: "Ann".into() };
        let input = Input { chat, messages: vec![message], context_omitted: 0, fire: None };
        self.put(n, Some(TURN), ToAgent::Input(input));
    }

    fn close(&self, n: u64) {
        self.put(n, None, ToAgent::Close(Close { why: CloseWhy::Idle, reason: "quiet".into() }));
    }

    /// Waits for a letter that is one of these.
    async fn until<T>(&self, wanted: impl Fn(&FromAgentLetter) -> Option<T>) -> T {
        let look = async {
            loop {
                let dir = std::fs::read_dir(self.path("ipc/from-agent")).unwrap();
                let found = dir.map(|entry| entry.unwrap()).find_map(|entry| {
                    let name = entry.file_name();
                    let is_letter = matches!(
                        names_and_paths::parse_name(name.as_encoded_bytes()),
                        Ok(names_and_paths::FileName::Letter { .. })
                    );
                    let letter = is_letter.then(|| std::fs::read(entry.path()).unwrap())?;
                    wanted(&FromAgentLetter::parse(&letter).unwrap())
                });
                match found {
                    Some(found) => return found,
                    None => tokio::time::sleep(Duration::from_millis(5)).await,
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(60), look).await.expect("the letter never comes")
    }
}

async fn ended(mut child: Child) -> ExitStatus {
    tokio::time::timeout(Duration::from_secs(60), child.wait()).await.expect("it does not end").unwrap()
}

#[derive(Clone, Default)]
struct Gateway {
    answers: Arc<Mutex<VecDeque<String>>>,
    requests: Arc<Mutex<Vec<Value>>>,
}

impl Gateway {
    fn serve(socket: &Path, answers: impl IntoIterator<Item = String>) -> Self {
        let gateway = Self::default();
        gateway.answers.lock().unwrap().extend(answers);
        let listener = UnixListener::bind(socket).unwrap();
        let serving = gateway.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let serving = serving.clone();
                let service = service_fn(move |request| serving.clone().answer(request));
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service),
                );
            }
        });
        gateway
    }

    async fn answer(self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
        assert_eq!((request.method().as_str(), request.uri().path()), ("POST", "/v1/messages"));
        assert_eq!(request.headers()["anthropic-version"], "2023-06-01");
        assert!(
            request.headers().get("x-api-key").is_none() && request.headers().get("authorization").is_none()
        );
        let body = request.into_body().collect().await.unwrap().to_bytes();
        self.requests.lock().unwrap().push(serde_json::from_slice(&body).unwrap());
        let answer = self.answers.lock().unwrap().pop_front().expect("a call that nobody scripted");
        Ok(Response::builder()
            .header("content-type", "text/event-stream")
            .body(Full::new(Bytes::from(answer)))
            .unwrap())
    }
}

fn sse(events: &[Value]) -> String {
    events.iter().map(|e| format!("event: {}\ndata: {e}\n\n", e["type"].as_str().unwrap())).collect()
}

fn answer(block: Value, delta: Value, stop_reason: &str) -> String {
    sse(&[
        json!({"type": "message_start", "message": {"usage": {"input_tokens": 10, "output_tokens": 1}}}),
        json!({"type": "content_block_start", "index": 0, "content_block": block}),
        json!({"type": "content_block_delta", "index": 0, "delta": delta}),
        json!({"type": "content_block_stop", "index": 0}),
        json!({"type": "message_delta", "delta": {"stop_reason": stop_reason}, "usage": {"output_tokens": 9}}),
        json!({"type": "message_stop"}),
    ])
}

fn runs(command: &str) -> String {
    let input = json!({ "command": command }).to_string();
    answer(
        json!({"type": "tool_use", "id": "toolu_1", "name": "run_command", "input": {}}),
        json!({"type": "input_json_delta", "partial_json": input}),
        "tool_use",
    )
}

fn says(text: &str) -> String {
    answer(json!({"type": "text", "text": ""}), json!({"type": "text_delta", "text": text}), "end_turn")
}

fn is_ready(letter: &FromAgentLetter) -> Option<u64> {
    matches!(letter.body, FromAgent::Ready(_)).then_some(letter.n)
}

#[tokio::test]
async fn a_run_from_begin_to_close() {
    let box_ = Box_::new();
    let broken_off =
        says("never whole").replace("event: message_stop", "event: x").replace("message_stop", "x");
    let gateway = Gateway::serve(
        &box_.path("run/lazaret/gateway.sock"),
        [broken_off, runs("echo milk > list && cat list && umask"), says("noted: milk")],
    );
    let child = box_.start();
    box_.begin();
    assert_eq!(box_.until(is_ready).await, 1);
    box_.input(2, "note milk");
    let (letter, done) = box_.done(TURN).await;
    assert_eq!((done.outcome, done.text.as_str()), (Outcome::Finished, "noted: milk"));
    assert_eq!((letter.id.as_str(), letter.ack), ("t-41:4.0", 2));
    box_.close(2);
    assert_eq!(ended(child).await.code(), Some(0));

    assert_eq!(std::fs::read_to_string(box_.path("workspace/list")).unwrap(), "milk\n");
    let requests = gateway.requests.lock().unwrap().clone();
    assert_eq!(requests.len(), 3);
    assert_eq!(requests[0], requests[1], "an answer that broke off is asked for again");
    let result = &requests[2]["messages"][2]["content"][0];
    assert_eq!(result["content"], "milk\n0007\n");
    assert_eq!(requests[2]["messages"][1]["content"][0]["id"], "toolu_1");
    let lines = std::fs::read_to_string(box_.path("session/s.jsonl")).unwrap();
    assert_eq!(lines.lines().count(), 4);
}

#[tokio::test]
async fn a_gate_decides_whether_the_model_is_called() {
    let box_ = Box_::new();
    let gateway = Gateway::serve(&box_.path("run/lazaret/gateway.sock"), [says("One new thing.")]);
    let child = box_.start();
    box_.begin();
    let gate =
        "[ -e seen ] && echo '{\"wake\": true, \"data\": [1]}' || { touch seen; echo '{\"wake\": false}'; }";
    box_.fire(2, TURN, gate);
    let (letter, done) = box_.done(TURN).await;
    assert_eq!((done.outcome, done.text.as_str(), done.gated), (Outcome::Finished, "", true));
    assert_eq!((letter.id.as_str(), letter.ack, done.model_calls), ("t-41:1.0", 2, 0));
    assert!(gateway.requests.lock().unwrap().is_empty());

    box_.fire(3, TurnId(42), gate);
    let (letter, done) = box_.done(TurnId(42)).await;
    assert_eq!((done.text.as_str(), done.gated, letter.ack), ("One new thing.", false, 3));
    box_.close(3);
    assert_eq!(ended(child).await.code(), Some(0));
    let seen = gateway.requests.lock().unwrap()[0]["messages"].to_string();
    assert!(seen.contains(">[1]</gate>") && seen.contains(">Tell what is new.</task>"), "{seen}");
}

#[tokio::test]
async fn sigterm_ends_it_at_once_with_its_tool_and_a_readable_transcript() {
    let box_ = Box_::new();
    let _gateway = Gateway::serve(
        &box_.path("run/lazaret/gateway.sock"),
        [runs("echo $$ > pid; while :; do sleep 1; done")],
    );
    let child = box_.start();
    box_.begin();
    box_.input(2, "wait");
    let command = loop {
        let pid = std::fs::read_to_string(box_.path("workspace/pid")).unwrap_or_default();
        if pid.ends_with('\n') {
            break pid.trim().to_owned();
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    let pid = rustix::process::Pid::from_raw(child.id().unwrap().try_into().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(ended(child).await.code(), Some(143));
    let lives = || {
        let stat = std::fs::read_to_string(format!("/proc/{command}/stat")).unwrap_or_default();
        stat.rsplit(')').next().is_some_and(|rest| !rest.is_empty() && !rest.trim().starts_with('Z'))
    };
    while lives() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let lines = std::fs::read_to_string(box_.path("session/s.jsonl")).unwrap();
    assert!(lines.ends_with('\n'));
    let kinds: Vec<_> = lines
        .lines()
        .map(|l| serde_json::from_str::<Value>(l).unwrap()["kind"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(kinds, ["input", "assistant"]);
}

#[tokio::test]
async fn nothing_is_printed_to_stdout() {
    let box_ = Box_::new();
    let child = box_.start();
    box_.close(0);
    let output =
        tokio::time::timeout(Duration::from_secs(60), child.wait_with_output()).await.unwrap().unwrap();
    assert_eq!((output.status.code(), output.stdout.len()), (Some(0), 0));
}
