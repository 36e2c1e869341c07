//! A proxy between a host and its engine. It forwards every byte and calls a function before each call reaches the
//! engine. A test can use it to remove something between the host's check and the engine's use.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;

type Hears = dyn Fn(&str) + Send + Sync;

/// A socket that forwards to an engine. Dropping it closes the socket.
pub struct Proxy {
    dir: tempfile::TempDir,
    created: Arc<Mutex<Vec<Value>>>,
    accepting: JoinHandle<()>,
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy").field("dir", &self.dir).finish_non_exhaustive()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Proxy {
    /// Starts a proxy for the engine at `unix:///…`. It calls `hears` with the first line of each call, before the
    /// engine gets the call.
    pub fn new(engine: &str, hears: impl Fn(&str) + Send + Sync + 'static) -> Self {
        let engine = PathBuf::from(engine.trim_start_matches("unix://"));
        let opened = tempfile::Builder::new().prefix("lzb-").tempdir().and_then(|dir| {
            let listener = UnixListener::bind(dir.path().join("s"))?;
            Ok((dir, listener))
        });
        let (dir, listener) = match opened {
            Ok(opened) => opened,
            Err(e) => panic!("no place between host and engine: {e}"),
        };
        let created = Arc::<Mutex<Vec<Value>>>::default();
        let (hears, noted): (Arc<Hears>, _) = (Arc::new(hears), Arc::clone(&created));
        let accepting = tokio::spawn(async move {
            while let Ok((host, _)) = listener.accept().await {
                let (engine, hears, noted) = (engine.clone(), Arc::clone(&hears), Arc::clone(&noted));
                // Host and engine notice a broken connection themselves.
                tokio::spawn(async move { pass(host, &engine, &*hears, &noted).await });
            }
        });
        Self { dir, created, accepting }
    }

    /// Returns its address in the format of `DOCKER_HOST`.
    pub fn socket(&self) -> String {
        format!("unix://{}", self.dir.path().join("s").display())
    }

    /// Returns the bodies of the calls that created containers.
    pub fn created(&self) -> Vec<Value> {
        self.created.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn pass(host: UnixStream, engine: &Path, hears: &Hears, created: &Mutex<Vec<Value>>) -> io::Result<()> {
    let (mut from_host, mut to_host) = host.into_split();
    let (mut from_engine, mut to_engine) = UnixStream::connect(engine).await?.into_split();
    let asks = async {
        let (mut bytes, mut call) = (vec![0; 64 * 1024], Vec::new());
        loop {
            let n = from_host.read(&mut bytes).await?;
            if n == 0 {
                return to_engine.shutdown().await;
            }
            // The host sends one call after the other on a connection, so a line with the format of a request line
            // begins the next call.
            if let Some(line) = first_line(&bytes[..n]) {
                hears(&line);
                call.clear();
            }
            call.extend_from_slice(&bytes[..n]);
            if let Some(body) = made(&call) {
                created.lock().unwrap_or_else(PoisonError::into_inner).push(body);
                call.clear();
            }
            to_engine.write_all(&bytes[..n]).await?;
        }
    };
    let answers = tokio::io::copy(&mut from_engine, &mut to_host);
    tokio::select! {
        asked = asks => asked,
        answered = answers => answered.map(drop),
    }
}

/// Returns a request line such as `POST /v1.41/containers/create?name=… HTTP/1.1`.
fn first_line(bytes: &[u8]) -> Option<String> {
    let line = bytes.split(|b| *b == b'\r').next()?;
    let line = std::str::from_utf8(line).ok()?;
    line.ends_with(" HTTP/1.1").then(|| line.to_owned())
}

/// Returns the body of a call that creates a container, if the body is complete.
fn made(call: &[u8]) -> Option<Value> {
    let line = first_line(call)?;
    let head = call.windows(4).position(|w| w == b"\r\n\r\n")?;
    let made = line.starts_with("POST ") && line.contains("/containers/create");
    made.then(|| serde_json::from_slice(&call[head + 4..]).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_noted_when_it_is_whole() {
        let call = b"POST /v1.41/containers/create?name=x HTTP/1.1\r\nhost: l\r\n\r\n{\"Image\":\"i\"}";
        assert_eq!(made(call).unwrap()["Image"], "i");
        assert_eq!(made(&call[..call.len() - 1]), None);
        assert_eq!(made(b"GET /info HTTP/1.1\r\n\r\n"), None);
        assert_eq!(first_line(b"{\"no\":1}"), None);
    }
}
