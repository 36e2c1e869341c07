//! A client for the stand-in's API. The world and the stand-in's tests use it.

use std::io;
use std::path::Path;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::UnixStream;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answered {
    pub status: u16,
    pub body: Bytes,
}

impl Answered {
    /// Returns the body as JSON, or `null` if it is not JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    pub fn message(&self) -> String {
        self.json()["message"].as_str().unwrap_or_default().to_owned()
    }
}

/// Makes one call over a new connection. `path` includes the query, escaped. Fails if nobody answers at the socket, or
/// if the answer is not HTTP.
pub async fn ask(socket: &Path, method: Method, path: &str, body: Option<&Value>) -> io::Result<Answered> {
    let stream = TokioIo::new(UnixStream::connect(socket).await?);
    let (mut sender, connection) = http1::handshake(stream).await.map_err(io::Error::other)?;
    let body = body.map(Value::to_string).unwrap_or_default();
    let request = Request::builder().method(method).uri(path).header(HOST, "engine");
    let request = request.header(CONTENT_TYPE, "application/json").body(Full::new(Bytes::from(body)));
    let answered = async {
        let answer =
            sender.send_request(request.map_err(io::Error::other)?).await.map_err(io::Error::other)?;
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await.map_err(io::Error::other)?.to_bytes();
        Ok(Answered { status, body })
    };
    tokio::select! {
        answered = answered => answered,
        // The connection ends before the answer only if it broke.
        broken = connection => Err(broken.map_or_else(io::Error::other, |()| io::ErrorKind::UnexpectedEof.into())),
    }
}
