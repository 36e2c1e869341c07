//! Media over HTTP, on the port of the server.

use std::sync::Arc;

use tokio::net::TcpStream;

use crate::Shared;

/// Serves a connection of an HTTP client.
pub(crate) async fn serve(_stream: TcpStream, shared: Arc<Shared>) {
    shared.violation("the device asked for media, which this server does not have yet");
}
