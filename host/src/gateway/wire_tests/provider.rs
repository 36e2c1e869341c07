//! A provider that answers by script, byte by byte, and remembers what it was sent.

use std::sync::{Arc, Mutex};

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::PATIENCE;

/// One answer, as bytes on the wire.
#[derive(Clone)]
pub(super) struct Reply {
    bytes: String,
    end: End,
}

#[derive(Clone)]
enum End {
    Close,
    /// Stay silent until the gateway hangs up.
    Hang,
    /// Wait for a permit, then send one more chunk and the end of the stream.
    Then(Arc<Semaphore>, String),
}

impl Reply {
    /// A status with headers and a body.
    pub fn new(status: u16, headers: &str, body: &str) -> Self {
        let length = body.len();
        let bytes = format!("HTTP/1.1 {status} X\r\ncontent-length: {length}\r\n{headers}\r\n{body}");
        Self { bytes, end: End::Close }
    }

    /// An error in Anthropic's shape.
    pub fn error(status: u16, headers: &str, message: &str) -> Self {
        let body = serde_json::json!({ "type": "error", "error": { "type": "x", "message": message } });
        Self::new(status, headers, &body.to_string())
    }

    /// A whole JSON answer.
    pub fn json(body: &Value) -> Self {
        Self::new(200, "content-type: application/json\r\n", &body.to_string())
    }

    /// A stream that ends.
    pub fn stream(body: &str) -> Self {
        let mut reply = Self::cut(body);
        reply.bytes.push_str("0\r\n\r\n");
        reply
    }

    /// A stream that is cut after `body`.
    pub fn cut(body: &str) -> Self {
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\
                    request-id: req_1\r\nset-cookie: no=1\r\nx-other: no\r\n\r\n";
        let chunk = if body.is_empty() { String::new() } else { format!("{:x}\r\n{body}\r\n", body.len()) };
        Self { bytes: format!("{head}{chunk}"), end: End::Close }
    }

    /// A stream that falls silent after `body`.
    pub fn silent(body: &str) -> Self {
        Self { end: End::Hang, ..Self::cut(body) }
    }

    /// A stream whose second part comes when `gate` has a permit.
    pub fn gated(first: &str, gate: &Arc<Semaphore>, second: &str) -> Self {
        Self { end: End::Then(Arc::clone(gate), second.to_owned()), ..Self::cut(first) }
    }

    /// A connection that is closed without a word.
    pub fn nothing() -> Self {
        Self { bytes: String::new(), end: End::Close }
    }
}

/// What the provider got.
#[derive(Clone)]
pub(super) struct Seen {
    /// Request line and headers.
    pub head: String,
    pub body: Value,
}

/// A scripted provider: one reply after the other, the last one again and again.
pub(super) struct Provider {
    pub url: String,
    seen: Arc<Mutex<Vec<Seen>>>,
    hung_up: Arc<Semaphore>,
}

impl Provider {
    pub async fn start(replies: Vec<Reply>) -> Self {
        Self::serve(TcpListener::bind("127.0.0.1:0").await.unwrap(), replies)
    }

    /// Serves on this listener.
    pub fn serve(listener: TcpListener, replies: Vec<Reply>) -> Self {
        let url = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let hung_up = Arc::new(Semaphore::new(0));
        let (remember, count) = (Arc::clone(&seen), Arc::clone(&hung_up));
        tokio::spawn(async move {
            for number in 0.. {
                let (stream, _) = listener.accept().await.unwrap();
                let reply = replies[number.min(replies.len() - 1)].clone();
                tokio::spawn(serve(stream, reply, Arc::clone(&remember), Arc::clone(&count)));
            }
        });
        Self { url, seen, hung_up }
    }

    /// What it got so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// Waits until the gateway has hung up on a reply that hangs.
    pub async fn hung_up(&self) {
        tokio::time::timeout(PATIENCE, self.hung_up.acquire()).await.unwrap().unwrap().forget();
    }
}

async fn serve(stream: TcpStream, reply: Reply, seen: Arc<Mutex<Vec<Seen>>>, hung_up: Arc<Semaphore>) {
    let mut stream = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head).await.unwrap() == 0 {
            return;
        }
    }
    let lower = head.to_lowercase();
    let length = lower.split("content-length: ").nth(1).and_then(|rest| rest.lines().next()).unwrap();
    let mut body = vec![0; length.parse().unwrap()];
    stream.read_exact(&mut body).await.unwrap();
    seen.lock().unwrap().push(Seen { head, body: serde_json::from_slice(&body).unwrap() });
    stream.write_all(reply.bytes.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    match reply.end {
        End::Close => {}
        End::Hang => {
            let _ = stream.read(&mut [0]).await;
            hung_up.add_permits(1);
        }
        End::Then(gate, second) => {
            gate.acquire().await.unwrap().forget();
            let last = format!("{:x}\r\n{second}\r\n0\r\n\r\n", second.len());
            stream.write_all(last.as_bytes()).await.unwrap();
        }
    }
}

/// The events of a short Anthropic answer that says `text`.
pub(super) fn anthropic(text: &str) -> String {
    let message = serde_json::json!({
        "id": "msg_1", "type": "message", "role": "assistant", "model": "m",
        "content": [
            { "type": "thinking", "thinking": "hm", "signature": "c2ln" },
            { "type": "text", "text": text },
        ],
        "stop_reason": "end_turn", "stop_sequence": null,
        "usage": { "input_tokens": 11, "output_tokens": 22, "cache_read_input_tokens": 33, "cache_creation_input_tokens": 44 },
    });
    String::from_utf8(crate::model::write_events::of_message(&message)).unwrap()
}
