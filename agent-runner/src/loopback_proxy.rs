//! Forwards connections to 127.0.0.1:3128 to the gateway's socket.
//!
//! Programs in the box know proxies by `HTTPS_PROXY=http://127.0.0.1:3128`; few can use a unix socket. This listener
//! hands their bytes on, unread. It is a convenience and no security boundary: whatever else connects to the socket
//! meets the same gateway, which decides and logs.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::Semaphore;

/// The address in the box's proxy variables.
const ADDRESS: &str = "127.0.0.1:3128";
/// Concurrent connections. The gateway has a limit of its own.
const CONNECTIONS: usize = 12;

/// Serves until the process ends. Without a loopback the box has no proxy, and the run goes on: it has no network
/// either way.
pub async fn serve(gateway: &Path) {
    let listener = match TcpListener::bind(ADDRESS).await {
        Ok(listener) => listener,
        Err(error) => {
            tracing::warn!(%error, address = ADDRESS, "cannot listen: programs in this container have no proxy");
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
                tracing::warn!(%error, "cannot accept a connection to the proxy");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Either side may close early. The program then sees its connection end.
async fn hand_on(mut program: TcpStream, gateway: &Path) {
    match UnixStream::connect(gateway).await {
        Ok(mut host) => {
            let _ = copy_bidirectional(&mut program, &mut host).await;
        }
        Err(error) => tracing::debug!(%error, "cannot reach the gateway"),
    }
}
