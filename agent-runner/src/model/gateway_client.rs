//! The HTTP client of the gateway, over the run's unix socket. It has no TLS, no key and resolves no name: the host
//! adds all of that.

use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use ipc_schema::server_sent_events::EventParser;
use tokio::net::UnixStream;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::{Answer, CallError, Draft, Model, error_codes, stream};

/// The value of the `anthropic-version` header.
const VERSION: &str = "2023-06-01";

/// The longest silence within one answer. The gateway gives up on its provider sooner; this catches a gateway that
/// hangs.
const SILENCE: Duration = Duration::from_secs(300);

/// How often to look for a host that is away. A restart takes about a second.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// Bytes of an error's body that are read.
const ERROR_MAX_BYTES: usize = 64 * 1024;

/// The gateway behind a unix socket.
///
/// Each call makes a connection of its own: a host that was replaced has closed its connections, and a pooled one
/// would fail the next call.
#[derive(Debug)]
pub struct Gateway {
    socket: PathBuf,
}

/// The tokio task that drives a connection. It is aborted with the call, so that the host sees a cancelled call hang
/// up.
struct Connection(JoinHandle<()>);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Gateway {
    pub fn new(path: PathBuf) -> Self {
        Self { socket: path }
    }

    async fn ask(&self, body: String) -> Result<(Response<Incoming>, Connection), CallError> {
        let away = |e: &dyn Error| CallError::HostAway { reason: chain(e) };
        let stream = UnixStream::connect(&self.socket).await.map_err(|e| away(&e))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|e| away(&e))?;
        let connection = Connection(tokio::spawn(async move {
            // An error here also ends the answer, which reports it.
            let _ = connection.await;
        }));
        let request = Request::post("/v1/messages")
            // The gateway ignores the name: the socket identifies the caller.
            .header("host", "gateway")
            .header("content-type", "application/json")
            .header("accept", "text/event-stream")
            .header("anthropic-version", VERSION)
            .body(Full::new(Bytes::from(body)))
            .map_err(|e| away(&e))?;
        let response = timeout(SILENCE, sender.send_request(request)).await.map_err(|e| away(&e))?;
        Ok((response.map_err(|e| away(&e))?, connection))
    }
}

impl Model for Gateway {
    async fn call(&self, body: String, draft: &Draft) -> Result<Answer, CallError> {
        let (response, _connection) = self.ask(body).await?;
        let status = response.status();
        if !status.is_success() {
            return Err(error_codes::of_status(status.as_u16(), &error_body(response.into_body()).await));
        }
        read_stream(response.into_body(), draft).await
    }

    async fn wait_until_reachable(&self) {
        loop {
            sleep(LOOK_AGAIN).await;
            if UnixStream::connect(&self.socket).await.is_ok() {
                return;
            }
        }
    }
}

/// The next bytes of an answer; `None` at its end.
async fn chunk(body: &mut Incoming) -> Result<Option<Bytes>, CallError> {
    loop {
        match timeout(SILENCE, body.frame()).await {
            Err(silence) => return Err(CallError::Cut { reason: silence.to_string() }),
            Ok(None) => return Ok(None),
            Ok(Some(Err(error))) => return Err(CallError::Cut { reason: chain(&error) }),
            Ok(Some(Ok(frame))) => {
                // Trailers are ignored.
                if let Ok(data) = frame.into_data() {
                    return Ok(Some(data));
                }
            }
        }
    }
}

async fn read_stream(mut body: Incoming, draft: &Draft) -> Result<Answer, CallError> {
    let mut parser = EventParser::default();
    let mut assembly = stream::Assembly::default();
    loop {
        let Some(chunk) = chunk(&mut body).await? else {
            return Err(CallError::Cut { reason: "the answer ended before its end".into() });
        };
        let events = parser.feed(&chunk).map_err(|e| CallError::Cut { reason: e.to_string() })?;
        for event in events {
            if let Some(answer) = assembly.event(&event, draft)? {
                return Ok(answer);
            }
        }
    }
}

async fn error_body(mut incoming: Incoming) -> String {
    let mut body = Vec::new();
    while let Ok(Some(chunk)) = chunk(&mut incoming).await {
        body.extend_from_slice(&chunk);
        if body.len() > ERROR_MAX_BYTES {
            break;
        }
    }
    String::from_utf8_lossy(&body).into_owned()
}

/// The error with its causes, because "error sending request" alone does not help.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixListener;

    /// A gateway that says one thing to whoever comes, then hangs up.
    async fn says(socket: &Path, answer: &str) {
        let listener = UnixListener::bind(socket).unwrap();
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = vec![0; 1024];
        let _ = stream.read(&mut request).await.unwrap();
        stream.write_all(answer.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
    }

    async fn asked(answer: Option<&str>) -> (Result<Answer, CallError>, Draft) {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("s");
        let gateway = Gateway::new(socket.clone());
        let draft = Draft::default();
        let served = async {
            if let Some(answer) = answer {
                says(&socket, answer).await;
            }
        };
        let (called, ()) = tokio::join!(
            async {
                while answer.is_some() && !socket.exists() {
                    tokio::task::yield_now().await;
                }
                gateway.call("{}".into(), &draft).await
            },
            served
        );
        (called, draft)
    }

    #[tokio::test]
    async fn no_socket_means_that_the_host_is_away() {
        assert!(matches!(asked(None).await.0, Err(CallError::HostAway { .. })));
        // Hung up without a word: the host went away in this very moment.
        assert!(matches!(asked(Some("")).await.0, Err(CallError::HostAway { .. })));
    }

    #[tokio::test]
    async fn an_answer_without_its_end_is_cut_and_its_text_was_drafted() {
        let event = "data: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"Once\"}}\n\n";
        let whole = format!("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n{event}");
        let (called, draft) = asked(Some(&whole)).await;
        assert!(matches!(called, Err(CallError::Cut { .. })));
        assert_eq!(draft.newer_than(0).as_deref(), Some("Once"));
        let announced = format!("HTTP/1.1 200 OK\r\ncontent-length: 9999\r\n\r\n{event}");
        assert!(matches!(asked(Some(&announced)).await.0, Err(CallError::Cut { .. })));
    }

    #[tokio::test]
    async fn a_refusal_is_told_with_its_code() {
        let body = r#"{"type":"error","error":{"type":"authentication_error","message":"set a key"}}"#;
        let answer = format!("HTTP/1.1 401 Unauthorized\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        let (called, _) = asked(Some(&answer)).await;
        let Err(CallError::Failed(failure)) = called else { panic!("{called:?}") };
        assert_eq!(
            (failure.trouble.code.as_str(), failure.trouble.reason.as_str()),
            ("model.auth", "set a key")
        );
    }
}
