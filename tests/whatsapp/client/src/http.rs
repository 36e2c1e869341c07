//! HTTP for media: the library asks servers by `https`, and the server of the tests speaks `http`.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use whatsapp_rust::anyhow::{Error, anyhow};
use whatsapp_rust::async_trait;
use whatsapp_rust::http::{HttpClient, HttpRequest, HttpResponse};

pub struct PlainHttp;

#[async_trait]
impl HttpClient for PlainHttp {
    async fn execute(&self, request: HttpRequest) -> Result<HttpResponse, Error> {
        let (host, path) = request
            .url
            .strip_prefix("https://")
            .and_then(|rest| rest.split_once('/'))
            .ok_or_else(|| anyhow!("no address: {}", request.url))?;
        let body = request.body.unwrap_or_default();
        let head = format!(
            "{} /{path} HTTP/1.1\r\nhost: {host}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
            request.method,
            body.len()
        );
        let mut stream = TcpStream::connect(host).await?;
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(&body).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        let end = answer.windows(4).position(|w| w == b"\r\n\r\n").ok_or_else(|| anyhow!("no head"))?;
        let status =
            std::str::from_utf8(&answer[..end])?.split(' ').nth(1).ok_or_else(|| anyhow!("no status"))?;
        Ok(HttpResponse { status_code: status.parse()?, body: answer[end + 4..].to_vec() })
    }
}
