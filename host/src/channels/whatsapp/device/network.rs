//! The library's way to WhatsApp's servers, over the host's own HTTP clients (`crate::http`), which decide proxies and
//! certificates: a WebSocket for messages, and requests for media.

use std::io::Read;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures_util::{StreamExt, stream};
use reqwest::{Body, Method, StatusCode, Url};
use sha1::{Digest, Sha1};
use tokio::runtime::Handle;
use tokio_websockets::ClientBuilder;
use whatsapp_rust::anyhow::{self, Context, bail};
use whatsapp_rust::async_channel::Receiver;
use whatsapp_rust::http::{HttpClient, HttpRequest, HttpResponse};
use whatsapp_rust::transport::{Transport, TransportEvent, TransportFactory, from_websocket};
use whatsapp_rust::wacore::net::UploadBody;

use crate::host_files::blocking;
use crate::http::{Clients, causes, is_loopback};

/// The page that WhatsApp's web client belongs to. The servers expect it whatever the address is.
const ORIGIN: &str = "https://web.whatsapp.com";
/// What the server's answer to the key of a WebSocket is made with (RFC 6455, section 1.3).
const WEBSOCKET: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// The longest body of an answer. A hostile sender can say any length and give any file.
const BODY_MAX: usize = 64 << 20;
/// How much of an upload is in memory at once.
const CHUNK: usize = 64 << 10;
/// How long a request may take with its body.
const PATIENCE: Duration = Duration::from_secs(180);

/// The network of one client of the library. Clones share their connections.
#[derive(Debug, Clone)]
pub(super) struct Network(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// The server's address, with `https` in the place of `wss`.
    server: Url,
    clients: Mutex<Clients>,
    tries: Mutex<Tries>,
}

/// How the tries to connect went.
#[derive(Debug, Default)]
struct Tries {
    failed: u32,
    failure: Option<String>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every use leaves the value consistent, so a poisoned lock is safe to use.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Network {
    /// # Errors
    /// The address cannot be used, or the environment names a proxy that cannot be used.
    pub fn to(base_url: &str) -> Result<Self, String> {
        let http = match base_url.split_once("://") {
            Some(("wss", rest)) => format!("https://{rest}"),
            Some(("ws", rest)) => format!("http://{rest}"),
            _ => return Err(format!("{base_url:?} is no address of a WebSocket: it begins with wss://")),
        };
        let server = Url::parse(&http).map_err(|e| format!("{base_url:?}: {e}"))?;
        let mut clients = Clients::default();
        clients.of(&server).map_err(|e| e.to_string())?;
        Ok(Self(Arc::new(Inner { server, clients: Mutex::new(clients), tries: Mutex::default() })))
    }

    /// Whether this is WhatsApp's own server, and not a stand-in of the owner's.
    pub fn is_whatsapp(&self) -> bool {
        self.0.server.host_str().is_some_and(|host| host.ends_with(".whatsapp.com"))
    }

    /// Returns why the last try to connect failed; `None` after one that succeeded.
    pub fn failure(&self) -> Option<String> {
        lock(&self.0.tries).failure.clone()
    }

    /// Returns whether there are tries that failed, and none that succeeded since.
    pub fn has_failed(&self) -> bool {
        lock(&self.0.tries).failed > 0
    }

    fn client(&self, url: &Url) -> anyhow::Result<reqwest::Client> {
        Ok(lock(&self.0.clients).of(url)?)
    }

    /// Returns the address that a request goes to. The library asks media servers by `https://` alone; the server of
    /// the tests, on this machine, has no certificate.
    fn address(&self, asked: &str) -> anyhow::Result<Url> {
        let mut url = Url::parse(asked)?;
        let (server, at) = (&self.0.server, |url: &Url| (url.host_str().map(str::to_owned), url.port()));
        if server.scheme() == "http" && is_loopback(server) && at(server) == at(&url) {
            // It cannot fail from `https` to `http`.
            let _ = url.set_scheme("http");
        }
        Ok(url)
    }

    async fn connect(&self) -> anyhow::Result<(Arc<dyn Transport>, Receiver<TransportEvent>)> {
        let server = &self.0.server;
        let key = STANDARD.encode(uuid::Uuid::new_v4().as_bytes());
        let request = self
            .client(server)?
            .get(server.clone())
            .header("Connection", "Upgrade")
            .header("Upgrade", "websocket")
            .header("Sec-WebSocket-Version", "13")
            .header("Sec-WebSocket-Key", &key)
            .header("Origin", ORIGIN);
        let answer = request.send().await.map_err(|e| anyhow::anyhow!(told(&e)))?;
        let host = server.host_str().unwrap_or_default();
        if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
            bail!("{host} answers {} instead of opening a WebSocket", answer.status());
        }
        let accepted = answer.headers().get("Sec-WebSocket-Accept").map(|value| value.as_bytes().to_vec());
        let expected = STANDARD.encode(Sha1::digest(format!("{key}{WEBSOCKET}")));
        if accepted.as_deref() != Some(expected.as_bytes()) {
            bail!("{host} opens something that is no WebSocket");
        }
        let stream = answer.upgrade().await.map_err(|e| anyhow::anyhow!(told(&e)))?;
        Ok(from_websocket(ClientBuilder::new().take_over(stream)))
    }
}

#[async_trait::async_trait]
impl TransportFactory for Network {
    async fn create_transport(&self) -> anyhow::Result<(Arc<dyn Transport>, Receiver<TransportEvent>)> {
        // The library drops a try that takes too long.
        lock(&self.0.tries).failure = Some("it does not answer".to_owned());
        let connected = self.connect().await;
        let mut tries = lock(&self.0.tries);
        tries.failure = connected.as_ref().err().map(ToString::to_string);
        tries.failed = if connected.is_ok() { 0 } else { tries.failed.saturating_add(1) };
        connected
    }
}

#[async_trait::async_trait]
impl HttpClient for Network {
    async fn execute(&self, mut asked: HttpRequest) -> anyhow::Result<HttpResponse> {
        let body = asked.body.take().map(Body::from);
        self.ask(asked, body).await
    }

    fn supports_upload_streaming(&self) -> bool {
        true
    }

    fn execute_upload(
        &self,
        asked: HttpRequest,
        body: UploadBody,
        length: u64,
    ) -> anyhow::Result<HttpResponse> {
        let chunks = stream::unfold(body, |mut body| {
            blocking(move || {
                let mut chunk = vec![0; CHUNK];
                let read = body.read(&mut chunk).map(|read| chunk.truncate(read));
                match read {
                    Ok(()) if chunk.is_empty() => None,
                    read => Some((read.map(|()| chunk), body)),
                }
            })
        });
        // Media servers take no upload of unknown length.
        let asked = asked.with_header("Content-Length", length.to_string());
        // The library calls this on a thread that may wait.
        Handle::current().block_on(self.ask(asked, Some(Body::wrap_stream(chunks))))
    }
}

impl Network {
    async fn ask(&self, asked: HttpRequest, body: Option<Body>) -> anyhow::Result<HttpResponse> {
        let url = self.address(&asked.url)?;
        let method = Method::from_bytes(asked.method.as_bytes()).context("the method of a request")?;
        let mut request = self.client(&url)?.request(method, url).timeout(PATIENCE);
        for (name, value) in &asked.headers {
            request = request.header(name, value);
        }
        if let Some(body) = body {
            request = request.body(body);
        }
        let answer = request.send().await.map_err(|e| anyhow::anyhow!(told(&e)))?;
        let (status_code, mut chunks) = (answer.status().as_u16(), answer.bytes_stream());
        let mut body = Vec::new();
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk.map_err(|e| anyhow::anyhow!(told(&e)))?;
            if body.len() + chunk.len() > BODY_MAX {
                bail!("the answer has more than {} MiB", BODY_MAX >> 20);
            }
            body.extend_from_slice(&chunk);
        }
        Ok(HttpResponse { status_code, body })
    }
}

/// Says what failed without the URL: those of media are secrets of the chat.
fn told(error: &reqwest::Error) -> String {
    let what = if error.is_connect() { "no connection" } else { "the connection failed" };
    format!("{what} ({})", causes(error))
}

#[cfg(test)]
mod tests {
    use std::io;

    use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    /// Reads a request's head, and returns its lines and the rest of the stream.
    async fn head(stream: TcpStream) -> io::Result<(Vec<String>, BufReader<TcpStream>)> {
        let (mut lines, mut stream) = (Vec::new(), BufReader::new(stream));
        loop {
            let mut line = String::new();
            stream.read_line(&mut line).await?;
            if line.trim().is_empty() {
                return Ok((lines, stream));
            }
            lines.push(line.trim().to_owned());
        }
    }

    /// A server for one connection, which answers with what `answer` makes of the request. It returns the request, and
    /// 18 bytes that came after it.
    async fn server(
        answer: impl Fn(&[String]) -> Vec<u8> + Send + 'static,
        reads: usize,
    ) -> (String, tokio::task::JoinHandle<(Vec<String>, Vec<u8>)>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap().to_string();
        let served = tokio::spawn(async move {
            let (lines, mut stream) = head(listener.accept().await.unwrap().0).await.unwrap();
            stream.write_all(&answer(&lines)).await.unwrap();
            let mut more = vec![0; reads];
            stream.read_exact(&mut more).await.unwrap();
            (lines, more)
        });
        (at, served)
    }

    fn field<'a>(lines: &'a [String], name: &str) -> Option<&'a str> {
        lines.iter().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    /// The answer of a WebSocket server, and a message of three bytes.
    fn opens(lines: &[String]) -> Vec<u8> {
        let key = field(lines, "Sec-WebSocket-Key").unwrap();
        let accept = STANDARD.encode(Sha1::digest(format!("{key}{WEBSOCKET}")));
        let mut bytes = format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Accept: {accept}\r\n\r\n"
        )
        .into_bytes();
        bytes.extend([0x82, 3, 1, 2, 3]);
        bytes
    }

    #[tokio::test]
    async fn bytes_go_both_ways_through_a_websocket_that_the_hosts_client_opens() {
        // A masked frame of the client: two bytes, four of the mask, three of content.
        let (at, served) = server(opens, 9).await;
        let network = Network::to(&format!("ws://{at}/ws/chat")).unwrap();
        let (transport, events) = network.create_transport().await.unwrap();
        assert!(matches!(events.recv().await, Ok(TransportEvent::Connected)));
        let Ok(TransportEvent::DataReceived(bytes)) = events.recv().await else { panic!() };
        assert_eq!(&bytes[..], [1, 2, 3]);
        transport.send(vec![4, 5, 6].into()).await.unwrap();
        let (lines, frame) = served.await.unwrap();
        assert_eq!(lines[0], "GET /ws/chat HTTP/1.1");
        assert_eq!(field(&lines, "Origin"), Some("https://web.whatsapp.com"));
        assert_eq!(field(&lines, "Sec-WebSocket-Version"), Some("13"));
        assert_eq!((frame[0], frame[1], frame[6] ^ frame[2]), (0x82, 0x83, 4));
        assert_eq!(network.failure(), None);
        assert!(matches!(events.recv().await, Ok(TransportEvent::Disconnected(_))));
    }

    #[tokio::test]
    async fn a_server_that_opens_no_websocket_is_refused_and_the_reason_is_kept() {
        let refuses =
            |_: &[String]| b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n".to_vec();
        let (at, _served) = server(refuses, 0).await;
        let network = Network::to(&format!("ws://{at}/ws/chat")).unwrap();
        assert!(network.create_transport().await.is_err());
        assert!(network.failure().unwrap().contains("503"), "{:?}", network.failure());
        let opens_another = |_: &[String]| {
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
              Sec-WebSocket-Accept: AAAA\r\n\r\n"
                .to_vec()
        };
        let (at, _served) = server(opens_another, 0).await;
        assert!(Network::to(&format!("ws://{at}/")).unwrap().create_transport().await.is_err());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let nobody = listener.local_addr().unwrap();
        drop(listener);
        let network = Network::to(&format!("ws://{nobody}/")).unwrap();
        assert!(network.create_transport().await.is_err());
        assert!(network.failure().unwrap().contains("no connection"), "{:?}", network.failure());
    }

    #[test]
    fn only_the_server_of_the_tests_is_asked_without_encryption() {
        let address =
            |base: &str, asked: &str| Network::to(base).unwrap().address(asked).unwrap().to_string();
        let test = "ws://127.0.0.1:8080/ws/chat";
        assert_eq!(address(test, "https://127.0.0.1:8080/mms/x"), "http://127.0.0.1:8080/mms/x");
        for (base, asked) in [
            (test, "https://127.0.0.1:8081/mms/x"),
            (test, "https://mmg.whatsapp.net/x"),
            ("ws://10.0.0.7:8080/ws/chat", "https://10.0.0.7:8080/x"),
        ] {
            assert_eq!(address(base, asked), asked);
        }
        for bad in ["https://web.whatsapp.com", "wss://", "web.whatsapp.com"] {
            assert!(Network::to(bad).unwrap_err().contains(bad), "{bad}");
        }
    }

    #[tokio::test]
    async fn a_refusal_of_a_media_server_is_an_answer() {
        let gone = |_: &[String]| b"HTTP/1.1 410 Gone\r\nContent-Length: 4\r\n\r\ngone".to_vec();
        let (at, served) = server(gone, 4).await;
        let network = Network::to(&format!("ws://{at}/ws/chat")).unwrap();
        let request =
            HttpRequest::post(format!("https://{at}/mms/image")).with_body("body").with_header("X-A", "b");
        let answer = network.execute(request).await.unwrap();
        assert_eq!((answer.status_code, answer.body.as_slice()), (410, b"gone".as_slice()));
        let (lines, body) = served.await.unwrap();
        assert_eq!((lines[0].as_str(), field(&lines, "X-A")), ("POST /mms/image HTTP/1.1", Some("b")));
        assert_eq!(body, b"body");
    }

    #[tokio::test]
    async fn an_upload_goes_out_while_it_is_read_and_tells_its_length() {
        let plain: Vec<u8> = (0..200_000u32).map(|n| n.to_le_bytes()[0]).collect();
        let takes = |_: &[String]| b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_vec();
        let (at, served) = server(takes, plain.len()).await;
        let network = Network::to(&format!("ws://{at}/ws/chat")).unwrap();
        let (request, body) = (HttpRequest::post(format!("https://{at}/mms/document")), plain.clone());
        let uploaded =
            blocking(move || network.execute_upload(request, Box::new(io::Cursor::new(body)), 200_000));
        assert_eq!(uploaded.await.unwrap().status_code, 200);
        let (lines, came) = served.await.unwrap();
        assert_eq!(field(&lines, "Content-Length"), Some("200000"));
        assert!(field(&lines, "Transfer-Encoding").is_none() && came == plain);
    }

    #[tokio::test]
    async fn an_answer_without_end_is_cut() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (_, mut stream) = head(listener.accept().await.unwrap().0).await.unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
            // It ends when the client closes the connection.
            while stream.write_all(&[0; 1 << 16]).await.is_ok() {}
        });
        let network = Network::to(&format!("ws://{at}/ws/chat")).unwrap();
        let refused = network.execute(HttpRequest::get(format!("https://{at}/x"))).await.unwrap_err();
        assert!(refused.to_string().contains("64 MiB"), "{refused}");
    }
}
