//! A listener that a host may take for its proxy. It forwards nothing and remembers what each connection asked for.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// Dropping it closes the listener.
#[derive(Debug)]
pub struct RecordingProxy {
    address: SocketAddr,
    heard: Arc<Mutex<Vec<String>>>,
    accepting: JoinHandle<()>,
}

impl Drop for RecordingProxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl RecordingProxy {
    pub async fn start() -> Self {
        let bound = async {
            let listener = TcpListener::bind("127.0.0.1:0").await?;
            Ok((listener.local_addr()?, listener))
        };
        let (address, listener) = match bound.await {
            Ok(bound) => bound,
            Err::<_, std::io::Error>(e) => panic!("no port for a proxy: {e}"),
        };
        let heard = Arc::<Mutex<Vec<String>>>::default();
        let noted = Arc::clone(&heard);
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let noted = Arc::clone(&noted);
                // A client that breaks the connection has said what it wanted to say.
                tokio::spawn(async move { drop(listen(stream, &noted).await) });
            }
        });
        Self { address, heard, accepting }
    }

    /// Returns its address with this scheme.
    pub fn at(&self, scheme: &str) -> String {
        format!("{scheme}://{}", self.address)
    }

    /// Returns everything that clients sent, one entry per connection.
    pub fn heard(&self) -> Vec<String> {
        lock(&self.heard).clone()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Answers a SOCKS5 greeting (RFC 1928), so that the client names its destination. Refuses everything else.
async fn listen(mut stream: TcpStream, heard: &Mutex<Vec<String>>) -> std::io::Result<()> {
    let mut bytes = vec![0; 4096];
    let read = stream.read(&mut bytes).await?;
    let first = bytes.get(..read).unwrap_or_default();
    if first.first() != Some(&5) {
        lock(heard).push(String::from_utf8_lossy(first).into_owned());
        return stream.write_all(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n").await;
    }
    stream.write_all(&[5, 0]).await?;
    let read = stream.read(&mut bytes).await?;
    let order = String::from_utf8_lossy(bytes.get(..read).unwrap_or_default()).into_owned();
    lock(heard).push(format!("SOCKS5 {order}"));
    // Connection refused.
    stream.write_all(&[5, 5, 0, 1, 0, 0, 0, 0, 0, 0]).await
}
