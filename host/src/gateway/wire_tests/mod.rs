//! The real gateway over a real unix socket, against a provider that is scripted byte by byte.

mod demo_model;
mod openai;
mod overuse;
mod passing;
mod provider;
mod refused_requests;
mod trouble;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::header::HeaderMap;
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use ipc_schema::server_sent_events::EventParser;
use ipc_schema::{GroupName, TurnId};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{Gateway, GatewaySettings, Ledger, ModelChoice, RunScope};
use crate::domain::{ProviderKind, Secret};
use crate::model::{ProviderSettings, RetryLimits};
use crate::store::Usage;
use crate::workers::Workers;
use provider::{Provider, Reply, anthropic};

/// Long enough for any machine; a test that waits this long has failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// The key that must never come out.
const CANARY: &str = "sk-canary-0123456789abcdef";

/// A gateway that serves one run, and the run's runner.
struct World {
    directory: tempfile::TempDir,
    scope: Arc<RunScope>,
    gateway: Arc<Gateway>,
    booked: mpsc::UnboundedReceiver<Usage>,
    refused: Counts,
    serving: JoinHandle<()>,
    /// Gets a permit with the first bytes of every answer: a provider that waits for one goes on only when the box
    /// has seen what came before.
    arrived: Arc<Semaphore>,
}

/// Counts of refusals, by code.
type Counts = Arc<Mutex<BTreeMap<&'static str, u64>>>;

struct Book(mpsc::UnboundedSender<Usage>, Counts);

#[async_trait]
impl Ledger for Book {
    async fn usage(&self, usage: Usage) {
        let _ = self.0.send(usage);
    }

    async fn refused(&self, code: &'static str, count: u64) {
        let mut refused = self.1.lock().unwrap();
        *refused.entry(code).or_default() += count;
    }
}

/// What the runner got.
struct Answer {
    status: u16,
    headers: HeaderMap,
    body: String,
    /// Whether the body ended as HTTP says it ends.
    whole: bool,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    /// The error's type and message.
    fn error(&self) -> (String, String) {
        let error = &self.json()["error"];
        (error["type"].as_str().unwrap().to_owned(), error["message"].as_str().unwrap().to_owned())
    }

    fn events(&self) -> Vec<Value> {
        let events = EventParser::default().feed(self.body.as_bytes()).unwrap();
        events.iter().map(|event| serde_json::from_str(event).unwrap()).collect()
    }
}

/// A provider of this kind at `url`, with the canary as its key.
fn provider(name: &str, kind: ProviderKind, url: &str) -> ProviderSettings {
    let mut settings = ProviderSettings::new(name, kind);
    if kind != ProviderKind::Demo {
        settings.base_url = url.to_owned();
        settings.key = Some(Secret::new(CANARY));
    }
    settings
}

/// Settings whose retries take no time.
fn quick(providers: Vec<ProviderSettings>) -> GatewaySettings {
    let no_wait = Duration::from_millis(1);
    let retry = RetryLimits { total: Duration::from_secs(10), first: no_wait, most: no_wait };
    GatewaySettings { providers, retry, ..GatewaySettings::default() }
}

/// Settings under which no attempt is repeated.
fn once(providers: Vec<ProviderSettings>) -> GatewaySettings {
    let mut settings = quick(providers);
    settings.retry.total = Duration::ZERO;
    settings
}

impl World {
    /// A world whose one provider, `a`, answers by script.
    async fn over(
        kind: ProviderKind,
        replies: Vec<Reply>,
        settings: impl FnOnce(Vec<ProviderSettings>) -> GatewaySettings,
    ) -> (Self, Provider) {
        let upstream = Provider::start(replies).await;
        (Self::start(settings(vec![provider("a", kind, &upstream.url)])), upstream)
    }

    /// The first provider answers.
    fn start(settings: GatewaySettings) -> Self {
        Self::beside(Arc::new(Gateway::new(settings).unwrap()))
    }

    /// One more run of this gateway.
    fn beside(gateway: Arc<Gateway>) -> Self {
        let settings = &gateway.settings;
        let directory = tempfile::tempdir().unwrap();
        let (books, booked) = mpsc::unbounded_channel();
        let refused = Counts::default();
        let provider = settings.providers[0].name.clone();
        let model = format!("model-of-{provider}");
        let scope = Arc::new(RunScope {
            run: "019ab000-0000-7000-8000-000000000001".parse().unwrap(),
            group: GroupName::main(),
            model: ModelChoice { provider, model, max_tokens: 8192, window: 200_000, images: true },
            open_turn: watch::channel(Some(TurnId(7))).1,
            zone: crate::domain::Zone::utc(),
            model_calls: 40,
            exchanges_dir: directory.path().join("model"),
            ledger: Arc::new(Book(books, Arc::clone(&refused))),
            cancel: CancellationToken::new(),
            workers: Workers::default(),
        });
        let listener = crate::unix_socket::bind(directory.path(), "gateway.sock", 0o660, None).unwrap();
        let serving = tokio::spawn(Arc::clone(&gateway).serve(listener, Arc::clone(&scope)));
        Self { directory, scope, gateway, booked, refused, serving, arrived: Arc::new(Semaphore::new(0)) }
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("gateway.sock")
    }

    /// Sends one request and reads the answer to its end.
    async fn send(&self, method: Method, path: &str, headers: &[(&str, &str)], body: Bytes) -> Answer {
        let stream = UnixStream::connect(self.socket()).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        let connection = tokio::spawn(connection);
        let mut request = Request::builder().method(method).uri(path).header("host", "gateway");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = sender.send_request(request.body(Full::new(body)).unwrap()).await.unwrap();
        let (head, mut stream) = response.into_parts();
        let mut body = Vec::new();
        let mut whole = true;
        while let Some(frame) = stream.frame().await {
            match frame {
                Ok(frame) => {
                    if body.is_empty() {
                        self.arrived.add_permits(1);
                    }
                    body.extend_from_slice(frame.data_ref().unwrap());
                }
                Err(_) => whole = false,
            }
        }
        drop(sender);
        let _ = connection.await.unwrap();
        let body = String::from_utf8(body).unwrap();
        Answer { status: head.status.as_u16(), headers: head.headers, body, whole }
    }

    async fn ask(&self, request: &Value) -> Answer {
        let body = Bytes::from(request.to_string());
        let answer = self.send(Method::POST, "/v1/messages", &[], body);
        tokio::time::timeout(PATIENCE, answer).await.unwrap()
    }

    /// Writes bytes to the socket and reads what comes back until the gateway closes.
    async fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = UnixStream::connect(self.socket()).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut answer = String::new();
        tokio::time::timeout(PATIENCE, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
        answer
    }

    /// The next row of the ledger.
    async fn booked(&mut self) -> Usage {
        tokio::time::timeout(PATIENCE, self.booked.recv()).await.unwrap().unwrap()
    }

    /// Ends the run; the recorded exchanges, by name, and the rows that nobody has looked at.
    async fn end(mut self) -> (Vec<(String, String)>, Vec<Usage>) {
        self.scope.cancel.cancel();
        tokio::time::timeout(PATIENCE, self.serving).await.unwrap().unwrap();
        let mut records = Vec::new();
        for entry in std::fs::read_dir(self.directory.path().join("model")).into_iter().flatten() {
            let entry = entry.unwrap();
            let text = std::fs::read_to_string(entry.path()).unwrap();
            records.push((entry.file_name().into_string().unwrap(), text));
        }
        records.sort();
        let rows = std::iter::from_fn(|| self.booked.try_recv().ok()).collect();
        (records, rows)
    }
}

/// What a runner asks.
fn question(stream: bool) -> Value {
    json!({
        "model": "whatever", "max_tokens": 100_000, "stream": stream, "system": "be kind",
        "messages": [{ "role": "user", "content": "hi" }],
    })
}
