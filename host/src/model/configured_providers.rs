//! The configured providers: their settings, addresses, keys and HTTP clients. Built once, when the host starts.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use reqwest::Url;
use reqwest::header::{ACCEPT_ENCODING, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};

use super::dialect::{Dialect, Dialects};
use super::error::ProviderError;
use super::redact::Redactor;
use crate::domain::{ProviderKind, Secret};
use crate::http::{Clients, is_loopback};

/// One provider as the settings give it.
#[derive(Debug, Clone)]
pub struct ProviderSettings {
    /// Groups choose a provider by its name.
    pub name: String,
    pub kind: ProviderKind,
    /// `https://api.anthropic.com`, `https://api.openai.com/v1`: the path of the wire is appended.
    pub base_url: String,
    /// A local server may need none.
    pub key: Option<Secret>,
    /// The environment variable that may hold the key. Errors name it.
    pub key_env: String,
    /// OpenAI's own models take the limit as `max_completion_tokens` and the newer ones refuse `max_tokens`;
    /// most compatible servers know only `max_tokens`.
    pub max_completion_tokens: bool,
    /// Whether to ask for the counts of a stream. Some compatible servers refuse the field.
    pub stream_options: bool,
    /// Whether an OpenAI-compatible server takes PDF documents. If not, a note takes the place of each.
    pub documents: bool,
}

impl ProviderSettings {
    /// A provider of this kind at the kind's own address, without a key.
    pub fn new(name: &str, kind: ProviderKind) -> Self {
        Self {
            name: name.to_owned(),
            kind,
            base_url: kind.default_base_url().to_owned(),
            key: None,
            key_env: kind.default_key_env().unwrap_or_default().to_owned(),
            max_completion_tokens: kind == ProviderKind::Openai,
            stream_options: true,
            documents: true,
        }
    }

    /// How its models are asked before they have taught anything.
    pub fn dialect(&self) -> Dialect {
        let Self { max_completion_tokens, stream_options, .. } = *self;
        Dialect { max_completion_tokens, stream_options, ..Dialect::default() }
    }
}

/// A provider, ready for calls.
pub enum Provider {
    Remote(Arc<Remote>),
    /// The model that follows a script, inside the host.
    Demo,
}

/// Makes what a provider, or a server before it, says fit for a box.
#[derive(Clone)]
pub struct Words {
    /// Hides the provider's key.
    pub redactor: Redactor,
    /// The ways to write the provider's address. A box learns none: it may be one of a private network.
    addresses: Vec<String>,
}

impl Words {
    fn new(settings: &ProviderSettings, url: &Url) -> Self {
        let host = url.host_str().unwrap_or_default();
        let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
        let all =
            [settings.base_url.trim_end_matches('/').to_owned(), format!("{host}{port}"), host.to_owned()];
        // A bare word such as `localhost` alone tells nothing, and may be a word of the message.
        let addresses = all.into_iter().filter(|address| address.contains(['.', ':'])).collect();
        Self { redactor: Redactor::new(&settings.key), addresses }
    }

    /// The words without the key and the address.
    pub fn told(&self, words: &str) -> String {
        let words = self.redactor.text(words);
        self.addresses.iter().fold(words, |words, address| words.replace(address, "(its address)"))
    }
}

/// A provider behind HTTP.
pub struct Remote {
    /// The URL in them has been checked.
    pub settings: ProviderSettings,
    /// Base URL and path: the host sends this provider's key to no other address.
    pub url: Url,
    pub words: Words,
    pub dialects: Dialects,
    client: reqwest::Client,
    /// All headers but `anthropic-version`, the key included.
    headers: HeaderMap,
}

impl Remote {
    /// Builds the request. Of the box's headers it holds only the checked version of the wire.
    pub fn request(&self, version: Option<&HeaderValue>, body: Bytes) -> reqwest::RequestBuilder {
        let mut headers = self.headers.clone();
        if let (ProviderKind::Anthropic, Some(version)) = (self.settings.kind, version) {
            headers.insert(HeaderName::from_static("anthropic-version"), version.clone());
        }
        self.client.post(self.url.clone()).headers(headers).body(body)
    }

    /// Names the provider in an error. The box learns no address.
    pub fn label(&self) -> String {
        format!("the provider `{}`", self.settings.name)
    }

    /// What the owner can do about a missing or refused key.
    pub fn key_refused(&self, status: u16) -> String {
        let what = match self.settings.key {
            Some(_) => format!("refused the key ({status})"),
            None => format!("wants a key ({status}) and none is set"),
        };
        let env = &self.settings.key_env;
        format!("{} {what}; the owner must set {env} or `key_file` and restart", self.label())
    }
}

/// Checks all providers of the settings. They share their HTTP clients.
///
/// # Errors
/// When two providers have one name, a base URL or key cannot be used, or a client cannot be made: no CA certificates,
/// or a proxy that cannot be used.
pub fn build(all: &[ProviderSettings]) -> Result<HashMap<String, Provider>, ProviderError> {
    let mut clients = Clients::default();
    let mut providers = HashMap::new();
    for settings in all {
        let provider = match settings.kind {
            ProviderKind::Demo => Provider::Demo,
            ProviderKind::Anthropic | ProviderKind::Openai => {
                Provider::Remote(Arc::new(remote(settings, &mut clients)?))
            }
        };
        if providers.insert(settings.name.clone(), provider).is_some() {
            return Err(ProviderError::ProviderTwice(settings.name.clone()));
        }
    }
    Ok(providers)
}

fn remote(settings: &ProviderSettings, clients: &mut Clients) -> Result<Remote, ProviderError> {
    let base = settings.base_url.trim_end_matches('/');
    let path = match settings.kind {
        ProviderKind::Openai => "/chat/completions",
        ProviderKind::Anthropic | ProviderKind::Demo => "/v1/messages",
    };
    let refused = |why| ProviderError::BaseUrl {
        provider: settings.name.clone(),
        url: without_userinfo(&settings.base_url),
        why,
    };
    let url = Url::parse(&format!("{base}{path}")).map_err(|_| refused("is not a URL"))?;
    check_url(&url).map_err(refused)?;
    let client = clients
        .of(&url)
        .map_err(|source| ProviderError::Client { provider: settings.name.clone(), source })?;
    if url.scheme() == "http" && settings.key.is_some() && !is_loopback(&url) {
        tracing::warn!(provider = %settings.name, "the key goes to this provider unencrypted (http://)");
    }
    Ok(Remote {
        settings: ProviderSettings { base_url: base.to_owned(), ..settings.clone() },
        words: Words::new(settings, &url),
        dialects: Dialects::new(settings.dialect()),
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

fn headers(settings: &ProviderSettings) -> Result<HeaderMap, ProviderError> {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    // The redactor cannot find a key in a compressed answer.
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    if settings.kind == ProviderKind::Anthropic {
        let name = HeaderName::from_static("anthropic-version");
        headers.insert(name, HeaderValue::from_static("2023-06-01"));
    }
    let Some(key) = &settings.key else { return Ok(headers) };
    let (name, text) = match settings.kind {
        ProviderKind::Openai => (AUTHORIZATION, format!("Bearer {}", key.expose())),
        ProviderKind::Anthropic | ProviderKind::Demo => {
            (HeaderName::from_static("x-api-key"), key.expose().to_owned())
        }
    };
    let mut value =
        HeaderValue::try_from(text).map_err(|_| ProviderError::Key { provider: settings.name.clone() })?;
    value.set_sensitive(true);
    headers.insert(name, value);
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(base_url: &str, key: Option<&str>) -> Result<HashMap<String, Provider>, ProviderError> {
        let mut settings = ProviderSettings::new("local", ProviderKind::Openai);
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
            assert!(matches!(with(bad, None), Err(ProviderError::BaseUrl { .. })), "{bad:?}");
        }
    }

    #[test]
    fn words_for_a_box_hold_neither_key_nor_address() {
        let key = "sk-canary-0123456789";
        let providers = with("http://llm.internal.example:8080/v1", Some(key)).unwrap();
        let Some(Provider::Remote(remote)) = providers.get("local") else { panic!("no provider") };
        let words =
            format!("{key}: no http://llm.internal.example:8080/v1/x at llm.internal.example Port 8080");
        assert_eq!(remote.words.told(&words), "[redacted]: no (its address)/x at (its address) Port 8080");
        assert!(!remote.label().contains("internal") && !remote.key_refused(401).contains("internal"));
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
        let demo = ProviderSettings::new("demo", ProviderKind::Demo);
        assert!(matches!(build(&[demo.clone(), demo]), Err(ProviderError::ProviderTwice(_))));
    }

    #[test]
    fn a_key_never_shows_in_debug() {
        let mut settings = ProviderSettings::new("a", ProviderKind::Anthropic);
        settings.key = Some(Secret::new("sk-canary-0123456789"));
        let shown = format!("{settings:?} {:?}", headers(&settings).unwrap());
        assert!(!shown.contains("canary"), "{shown}");
    }
}
