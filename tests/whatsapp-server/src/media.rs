//! The servers of pictures and files. What they keep is encrypted; the keys are in the messages.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use sha2::{Digest, Sha256};
use tokio::net::TcpStream;
use wacore::download::{DownloadUtils, MediaType};
use wacore::upload::encrypt_media;
use wacore_binary::Node;
use wacore_binary::builder::NodeBuilder;

use crate::Shared;

/// What lets the account's devices upload.
const AUTH: &str = "media-auth-of-the-account";
/// The largest file that WhatsApp takes (2 GiB).
const LARGEST: usize = 2 << 30;

/// The encrypted files, by their paths.
#[derive(Default)]
pub(crate) struct Media {
    files: HashMap<String, Vec<u8>>,
    /// The paths that the device has downloaded, in order.
    fetched: Vec<String>,
    expired: bool,
}

/// A file that is on the server, with all that a message says about it.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    pub(crate) path: String,
    pub(crate) key: Vec<u8>,
    pub(crate) digest: Vec<u8>,
    pub(crate) sealed_digest: Vec<u8>,
    pub(crate) length: u64,
}

/// An answer of the HTTP server: its status and its body.
type Answer = (u16, Vec<u8>);

impl Media {
    /// Encrypts and keeps a file of a person.
    pub(crate) fn keeps(&mut self, bytes: &[u8], kind: MediaType) -> Stored {
        let sealed = match encrypt_media(bytes, kind) {
            Ok(sealed) => sealed,
            Err(e) => panic!("a file cannot be encrypted: {e}"),
        };
        let path = path_of(&sealed.data_to_upload);
        self.files.insert(path.clone(), sealed.data_to_upload);
        Stored {
            path,
            key: sealed.media_key.to_vec(),
            digest: sealed.file_sha256.to_vec(),
            sealed_digest: sealed.file_enc_sha256.to_vec(),
            length: bytes.len() as u64,
        }
    }

    /// Reads a file of which a message of the device speaks. Says what is wrong with it.
    pub(crate) fn opens(&self, file: &Stored, kind: MediaType) -> Result<Vec<u8>, String> {
        let Some(sealed) = self.files.get(&file.path) else {
            return Err(format!("there is no file {:?}", file.path));
        };
        if Sha256::digest(sealed).as_slice() != file.sealed_digest {
            return Err("fileEncSha256 is of another file".into());
        }
        let bytes = DownloadUtils::verify_and_decrypt(sealed, &file.key, kind).map_err(|e| e.to_string())?;
        if Sha256::digest(&bytes).as_slice() != file.digest {
            return Err("fileSha256 is of another file".into());
        }
        if bytes.len() as u64 != file.length {
            return Err(format!("fileLength is {} and not {}", file.length, bytes.len()));
        }
        Ok(bytes)
    }

    /// Lets every file be gone, as WhatsApp's files are after some weeks.
    pub(crate) fn expires(&mut self, expired: bool) {
        self.expired = expired;
    }

    /// Returns the paths that the device has downloaded, in order.
    pub(crate) fn fetched(&self) -> &[String] {
        &self.fetched
    }

    fn gives(&mut self, path: &str, query: &Query) -> Answer {
        let Some(sealed) = self.files.get(path).filter(|_| !self.expired) else {
            return (404, Vec::new());
        };
        if query.get("token") != Some(token_of(sealed).as_str()) {
            return (403, Vec::new());
        }
        self.fetched.push(path.to_owned());
        (200, sealed.clone())
    }

    /// Takes a file of the device. `Err` is what a real server would not take.
    fn takes(
        &mut self,
        address: SocketAddr,
        path: &str,
        query: &Query,
        body: Vec<u8>,
    ) -> Result<Answer, String> {
        let Some((kind, token)) = path.strip_prefix("/mms/").and_then(|rest| rest.split_once('/')) else {
            return Err(format!("an upload to {path:?}"));
        };
        if !["image", "video", "audio", "document", "thumbnail-link"].contains(&kind) {
            return Err(format!("an upload of the kind {kind:?}"));
        }
        if query.get("auth") != Some(AUTH) {
            return Ok((401, Vec::new()));
        }
        if query.get("resume").is_some() {
            return Ok((200, br#"{"resume":"0"}"#.to_vec()));
        }
        if body.is_empty() || body.len() > LARGEST {
            return Err(format!("an upload of {} bytes", body.len()));
        }
        if token != token_of(&body) || query.get("token") != Some(token) {
            return Err("an upload whose token is not its digest".into());
        }
        let path = path_of(&body);
        let answer = format!(r#"{{"url":"https://{address}{path}","direct_path":"{path}"}}"#);
        self.files.insert(path, body);
        Ok((200, answer.into_bytes()))
    }
}

/// Serves a connection of an HTTP client.
pub(crate) async fn serve(stream: TcpStream, shared: Arc<Shared>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let shared = Arc::clone(&shared);
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await?.to_bytes().to_vec();
            let path_and_query = head.uri.path_and_query().map(|at| at.as_str()).unwrap_or_default();
            let (status, body) = answer(&shared, head.method.as_str(), path_and_query, body);
            let mut response = Response::new(Full::new(Bytes::from(body)));
            *response.status_mut() = StatusCode::from_u16(status).unwrap_or_default();
            Ok::<_, hyper::Error>(response)
        }
    });
    // A client that goes away in the middle is no concern of the server.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

/// Answers a request to the servers of files.
fn answer(shared: &Shared, method: &str, path_and_query: &str, body: Vec<u8>) -> Answer {
    let (path, query) = path_and_query.split_once('?').unwrap_or((path_and_query, ""));
    let query = Query(query);
    let answer = match method {
        "GET" => Ok(shared.state().people.media.gives(path, &query)),
        "POST" => shared.state().people.media.takes(shared.address, path, &query, body),
        _ => Err(format!("the method {method:?} of a request for files")),
    };
    shared.changed();
    answer.unwrap_or_else(|what| {
        shared.violation(what);
        (400, Vec::new())
    })
}

/// Returns the answer to a query for the servers of files: this one.
pub(crate) fn connection(address: SocketAddr) -> Node {
    let host = NodeBuilder::new("host").attr("hostname", address.to_string()).attr("type", "primary");
    NodeBuilder::new("media_conn")
        .attr("auth", AUTH)
        .attr("ttl", "3600")
        .attr("auth_ttl", "21600")
        .attr("max_buckets", "12")
        .children([host.build()])
        .build()
}

struct Query<'a>(&'a str);

impl Query<'_> {
    fn get(&self, name: &str) -> Option<&str> {
        let pairs = self.0.split('&').filter_map(|pair| pair.split_once('='));
        pairs.into_iter().find(|(key, _)| *key == name).map(|(_, value)| value)
    }
}

fn token_of(sealed: &[u8]) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(sealed))
}

fn path_of(sealed: &[u8]) -> String {
    format!("/v/t62.7118-24/{}.enc", token_of(sealed))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PORT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 4243);

    fn uploaded(media: &mut Media, token: &str, auth: &str, body: &[u8]) -> Result<Answer, String> {
        let query = format!("auth={auth}&token={token}");
        media.takes(PORT, &format!("/mms/image/{token}"), &Query(&query), body.to_vec())
    }

    #[test]
    fn a_file_of_a_person_is_given_to_whoever_knows_its_digest() {
        let mut media = Media::default();
        let stored = media.keeps(b"a picture", MediaType::Image);
        let token = BASE64_URL_SAFE_NO_PAD.encode(&stored.sealed_digest);
        assert_eq!(media.gives(&stored.path, &Query("token=guessed")).0, 403);
        let (status, sealed) = media.gives(&stored.path, &Query(&format!("auth=x&token={token}")));
        assert_eq!(status, 200);
        let opened = DownloadUtils::verify_and_decrypt(&sealed, &stored.key, MediaType::Image);
        assert_eq!(opened.ok().as_deref(), Some(b"a picture".as_slice()));
        media.expires(true);
        assert_eq!(media.gives(&stored.path, &Query(&format!("token={token}"))).0, 404);
        assert_eq!(media.fetched(), [stored.path]);
    }

    #[test]
    fn an_upload_names_its_digest_and_the_account() {
        let mut media = Media::default();
        let token = token_of(b"sealed");
        assert!(uploaded(&mut media, "another", AUTH, b"sealed").is_err());
        assert!(uploaded(&mut media, &token, AUTH, b"").is_err());
        assert_eq!(uploaded(&mut media, &token, "stolen", b"sealed").map(|answer| answer.0), Ok(401));
        let answer = uploaded(&mut media, &token, AUTH, b"sealed");
        assert!(answer.is_ok_and(|(status, body)| status == 200 && !body.is_empty()));
        assert_eq!(
            media.gives(&path_of(b"sealed"), &Query(&format!("token={token}"))),
            (200, b"sealed".to_vec())
        );
    }

    #[test]
    fn a_message_that_lies_about_its_file_is_found_out() {
        let mut media = Media::default();
        let stored = media.keeps(b"a picture", MediaType::Image);
        assert_eq!(media.opens(&stored, MediaType::Image).as_deref(), Ok(b"a picture".as_slice()));
        let lies: [fn(&mut Stored); 5] = [
            |file| file.path.push('x'),
            |file| file.key[0] ^= 1,
            |file| file.digest[0] ^= 1,
            |file| file.sealed_digest[0] ^= 1,
            |file| file.length += 1,
        ];
        for (at, lie) in lies.into_iter().enumerate() {
            let mut file = stored.clone();
            lie(&mut file);
            assert!(media.opens(&file, MediaType::Image).is_err(), "lie {at}");
        }
        assert!(media.opens(&stored, MediaType::Video).is_err());
    }
}
