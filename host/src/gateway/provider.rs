//! Providers: kinds, addresses, keys.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use reqwest::Url;
use reqwest::header::{ACCEPT_ENCODING, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};

use super::GatewayError;
use super::error::ApiError;
use super::redact::Redactor;
use crate::domain::secret::Secret;

/// How long a provider's machine may take to accept a connection, TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Which wire a provider speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProviderKind {
    /// Anthropic Messages, as the box speaks it.
    Anthropic,
    /// OpenAI chat completions, or a server that is compatible with them.
    OpenAi,
    /// A scripted model inside the host, for people without a key.
    Tour,
}

/// One provider as the settings give it.
#[derive(Debug, Clone)]
pub struct ProviderSettings {
    /// Its name, by which groups choose it.
    pub name: String,
    /// The wire it speaks.
    pub kind: ProviderKind,
    /// Where it is: `https://api.anthropic.com`, `https://api.openai.com/v1`. The path of the wire is appended.
    pub base_url: String,
    /// The key. A local server may need none.
    pub key: Option<Secret>,
    /// The environment variable that the key is looked for in: named in errors.
    pub key_env: String,
    /// OpenAI's own models take the limit as `max_completion_tokens` and the newer ones refuse `max_tokens`;
    /// most compatible servers know only `max_tokens`.
    pub max_completion_tokens: bool,
    /// Whether an OpenAI-compatible model takes pictures. If not they are left out, with a note in their place.
    pub images: bool,
}

impl ProviderSettings {
    /// A provider of this kind at the kind's own address, without a key.
    pub fn new(name: &str, kind: ProviderKind) -> Self {
        let (base_url, key_env) = match kind {
            ProviderKind::Anthropic => ("https://api.anthropic.com", "ANTHROPIC_API_KEY"),
            ProviderKind::OpenAi => ("https://api.openai.com/v1", "OPENAI_API_KEY"),
            ProviderKind::Tour => ("", ""),
        };
        Self {
            name: name.to_owned(),
            kind,
            base_url: base_url.to_owned(),
            key: None,
            key_env: key_env.to_owned(),
            max_completion_tokens: kind == ProviderKind::OpenAi,
            images: true,
        }
    }
}

/// A provider that is ready to be asked.
pub(super) enum Provider {
    /// Another machine, or another process on this one.
    Remote(Box<Remote>),
    /// The tour.
    Tour,
}

/// A provider behind HTTP.
pub(super) struct Remote {
    /// As the owner set it; the URL has been checked.
    pub settings: ProviderSettings,
    /// Base URL and path: the only address that this provider's key is ever sent to.
    pub url: Url,
    /// Finds the provider's key in what it answers.
    pub redactor: Redactor,
    client: reqwest::Client,
    /// Everything that is sent but `anthropic-version`, the key included.
    headers: HeaderMap,
}

impl Remote {
    /// The request for this body. Nothing of the box's headers is in it but, checked, the wire's version.
    pub fn request(&self, version: Option<&HeaderValue>, body: Bytes) -> reqwest::RequestBuilder {
        let mut headers = self.headers.clone();
        if let (ProviderKind::Anthropic, Some(version)) = (self.settings.kind, version) {
            headers.insert(HeaderName::from_static("anthropic-version"), version.clone());
        }
        self.client.post(self.url.clone()).headers(headers).body(body)
    }

    /// The provider in an error's words.
    pub fn label(&self) -> String {
        format!("the provider `{}` at {}", self.settings.name, self.settings.base_url)
    }

    /// The error of a key that is missing or refused, with what the owner can do.
    pub fn key_refused(&self, status: u16) -> ApiError {
        let what = match self.settings.key {
            Some(_) => format!("refused the key ({status})"),
            None => format!("wants a key ({status}) and none is set"),
        };
        ApiError::of_status(
            status,
            format!(
                "{} {what}; the owner must set {} or `key_file` and restart",
                self.label(),
                self.settings.key_env
            ),
        )
    }
}

/// Checks all providers and builds what they need; the clients are shared.
pub(super) fn build(all: &[ProviderSettings]) -> Result<HashMap<String, Provider>, GatewayError> {
    let mut clients = Clients::default();
    let mut providers = HashMap::new();
    for settings in all {
        let provider = match settings.kind {
            ProviderKind::Tour => Provider::Tour,
            ProviderKind::Anthropic | ProviderKind::OpenAi => {
                Provider::Remote(Box::new(remote(settings, &mut clients)?))
            }
        };
        if providers.insert(settings.name.clone(), provider).is_some() {
            return Err(GatewayError::ProviderTwice(settings.name.clone()));
        }
    }
    Ok(providers)
}

fn remote(settings: &ProviderSettings, clients: &mut Clients) -> Result<Remote, GatewayError> {
    let base = settings.base_url.trim_end_matches('/');
    let path = match settings.kind {
        ProviderKind::OpenAi => "/chat/completions",
        ProviderKind::Anthropic | ProviderKind::Tour => "/v1/messages",
    };
    let refused = |why| GatewayError::BaseUrl {
        provider: settings.name.clone(),
        url: without_userinfo(&settings.base_url),
        why,
    };
    let url = Url::parse(&format!("{base}{path}")).map_err(|_| refused("is not a URL"))?;
    check_url(&url).map_err(refused)?;
    let client = if url.scheme() == "https" { clients.tls(&settings.name)? } else { clients.plain()? };
    if url.scheme() == "http" && settings.key.is_some() && !is_local(&url) {
        tracing::warn!(provider = %settings.name, "the key goes to this provider unencrypted (http://)");
    }
    Ok(Remote {
        settings: ProviderSettings { base_url: base.to_owned(), ..settings.clone() },
        redactor: Redactor::new(&settings.key),
        headers: headers(settings)?,
        url,
        client,
    })
}

fn check_url(url: &Url) -> Result<(), &'static str> {
    if !matches!(url.scheme(), "http" | "https") {
        return Err("must begin with https:// or http://");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("holds a user or password; keys belong into the environment or `key_file`");
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("must end with its path, without `?` or `#`");
    }
    Ok(())
}

fn without_userinfo(url: &str) -> String {
    match (url.find("//"), url.find('@')) {
        (Some(start), Some(end)) if start + 2 <= end => format!("{}…{}", &url[..start + 2], &url[end..]),
        _ => url.to_owned(),
    }
}

/// Whether what is sent there stays on this machine.
fn is_local(url: &Url) -> bool {
    matches!(url.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"))
}

fn headers(settings: &ProviderSettings) -> Result<HeaderMap, GatewayError> {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    // A compressed answer could not be searched for the key.
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    if settings.kind == ProviderKind::Anthropic {
        let name = HeaderName::from_static("anthropic-version");
        headers.insert(name, HeaderValue::from_static("2023-06-01"));
    }
    let Some(key) = &settings.key else { return Ok(headers) };
    let (name, text) = match settings.kind {
        ProviderKind::OpenAi => (AUTHORIZATION, format!("Bearer {}", key.expose())),
        ProviderKind::Anthropic | ProviderKind::Tour => {
            (HeaderName::from_static("x-api-key"), key.expose().to_owned())
        }
    };
    let mut value =
        HeaderValue::try_from(text).map_err(|_| GatewayError::Key { provider: settings.name.clone() })?;
    value.set_sensitive(true);
    headers.insert(name, value);
    Ok(headers)
}

/// Two clients, each built when the first provider needs it, so that an install with `http://` providers only
/// needs no CA certificates.
#[derive(Default)]
struct Clients {
    tls: Option<reqwest::Client>,
    plain: Option<reqwest::Client>,
}

impl Clients {
    fn tls(&mut self, provider: &str) -> Result<reqwest::Client, GatewayError> {
        if let Some(client) = &self.tls {
            return Ok(client.clone());
        }
        // An error says that one is installed already, which is as good: there is only `ring` in this build.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let built = builder().https_only(true).build();
        let client = built
            .map_err(|error| GatewayError::Tls { provider: provider.to_owned(), why: reason(&error) })?;
        Ok(self.tls.insert(client).clone())
    }

    /// Never through a proxy of the environment: what is plain stays on machines of one's own.
    fn plain(&mut self) -> Result<reqwest::Client, GatewayError> {
        if let Some(client) = &self.plain {
            return Ok(client.clone());
        }
        let _ = rustls::crypto::ring::default_provider().install_default();
        let built = builder().tls_certs_only([]).no_proxy().build();
        Ok(self.plain.insert(built.map_err(GatewayError::Client)?).clone())
    }
}

fn builder() -> reqwest::ClientBuilder {
    reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .referer(false)
        .connect_timeout(CONNECT_TIMEOUT)
}

/// An error with its causes, without the URL.
pub(super) fn reason(error: &reqwest::Error) -> String {
    let mut causes = Vec::new();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        causes.push(inner.to_string());
        cause = inner.source();
    }
    causes.dedup();
    if causes.is_empty() { "no reason given".to_owned() } else { causes.join(": ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(base_url: &str, key: Option<&str>) -> Result<HashMap<String, Provider>, GatewayError> {
        let mut settings = ProviderSettings::new("local", ProviderKind::OpenAi);
        settings.base_url = base_url.to_owned();
        settings.key = key.map(Secret::new);
        build(&[settings])
    }

    #[test]
    fn a_base_url_is_a_place_and_nothing_else() {
        let providers = with("http://127.0.0.1:8080/v1/", None).unwrap();
        let Some(Provider::Remote(remote)) = providers.get("local") else { panic!("no provider") };
        assert_eq!(remote.url.as_str(), "http://127.0.0.1:8080/v1/chat/completions");
        for bad in ["", "localhost:8080", "ftp://x", "http://x/?key=1", "http://x/#a"] {
            assert!(matches!(with(bad, None), Err(GatewayError::BaseUrl { .. })), "{bad:?}");
        }
    }

    #[test]
    fn a_password_in_the_url_is_refused_without_repeating_it() {
        let error = with("http://user:canary@x/v1", None).err().unwrap().to_string();
        assert!(!error.contains("canary") && error.contains("//…@x/v1"), "{error}");
    }

    #[test]
    fn a_key_that_breaks_the_header_is_refused_without_repeating_it() {
        let error = with("http://x/v1", Some("can\nary")).err().unwrap();
        assert_eq!(error.code(), "gateway.key");
        assert!(!format!("{error:?} {error}").contains("ary"));
    }

    #[test]
    fn two_providers_of_one_name_are_refused() {
        let tour = ProviderSettings::new("tour", ProviderKind::Tour);
        assert!(matches!(build(&[tour.clone(), tour]), Err(GatewayError::ProviderTwice(_))));
    }

    #[test]
    fn a_key_never_shows_in_debug() {
        let mut settings = ProviderSettings::new("a", ProviderKind::Anthropic);
        settings.key = Some(Secret::new("sk-canary-0123456789"));
        let shown = format!("{settings:?} {:?}", headers(&settings).unwrap());
        assert!(!shown.contains("canary"), "{shown}");
    }
}
