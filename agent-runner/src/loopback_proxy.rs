//! The loopback end of the gateway's proxy.
//!
//! Programs in the box know proxies by `HTTPS_PROXY=http://127.0.0.1:3128`; few can use a unix socket. So this
//! process listens there and hands the bytes on, unread, to the gateway, which decides and logs. It is a
//! convenience and no wall: whatever else connects to the socket meets the same gateway.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::Semaphore;

/// Where the box's proxy variables point.
const ADDRESS: &str = "127.0.0.1:3128";
/// Connections at once; the gateway has a limit of its own.
const CONNECTIONS: usize = 12;

/// Serves until the process ends. A box without a loopback goes on without a proxy: it has no network either way.
pub async fn serve(gateway: &Path) {
    let listener = match TcpListener::bind(ADDRESS).await {
        Ok(listener) => listener,
        Err(error) => {
            tracing::warn!(%error, address = ADDRESS, "no proxy for programs in this box");
            return;
        }
    };
    let gateway: Arc<Path> = gateway.into();
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let gateway = Arc::clone(&gateway);
                tokio::spawn(async move {
                    hand_on(stream, &gateway).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a program could not reach the proxy");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Either side may break off; the program sees that its connection ended.
async fn hand_on(mut program: TcpStream, gateway: &Path) {
    match UnixStream::connect(gateway).await {
        Ok(mut host) => {
            let _ = copy_bidirectional(&mut program, &mut host).await;
        }
        Err(error) => tracing::debug!(%error, "the gateway is away"),
    }
}
