//! Makes every HTTP client of the host: rustls with `ring` and the machine's certificates. The clients follow no
//! redirects, and nothing makes them accept an invalid certificate.
//!
//! This module alone decides which requests go through a proxy of the environment: those to `https://` on another
//! machine. A proxy would read the keys and tokens in a plain `http://` request, and such a server is the owner's own.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use reqwest::{NoProxy, Proxy, Url};

/// The longest time to connect, TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The variables that may name the proxy of `https://` requests. The first one that is not empty counts.
const VARIABLES: [&str; 4] = ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];
const SCHEMES: [&str; 6] = ["http", "https", "socks4", "socks4a", "socks5", "socks5h"];

/// How requests reach a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Route {
    /// Unencrypted, without a proxy and without CA certificates.
    Plain,
    /// Over TLS on this machine, without a proxy.
    Loopback,
    /// Over TLS, through the proxy of the environment if it names one.
    Outside,
}

fn route(url: &Url) -> Route {
    match url.scheme() {
        "https" if is_loopback(url) => Route::Loopback,
        "https" => Route::Outside,
        _ => Route::Plain,
    }
}

/// Whether a request to this address stays on this machine.
pub fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches([']', '.']);
    let local = host == "localhost" || host.ends_with(".localhost");
    local || host.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
}

/// Makes one client for each route that is asked for, so that an install with `http://` servers only needs no CA
/// certificates.
#[derive(Debug, Default)]
pub struct Clients(HashMap<Route, reqwest::Client>);

impl Clients {
    /// The client for requests to this address and no other.
    ///
    /// # Errors
    /// TLS cannot be set up, or the environment names a proxy that cannot be used.
    pub fn of(&mut self, url: &Url) -> Result<reqwest::Client, HttpError> {
        let route = route(url);
        if let Some(client) = self.0.get(&route) {
            return Ok(client.clone());
        }
        let env = |name: &str| std::env::var(name).ok();
        let proxy = if route == Route::Outside { proxy(env)? } else { None };
        // It fails for the second caller, because the first one has installed it: no error.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let builder = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false)
            .connect_timeout(CONNECT_TIMEOUT)
            .no_proxy();
        let builder = match route {
            Route::Plain => builder.tls_certs_only([]),
            Route::Loopback | Route::Outside => builder.https_only(true),
        };
        let builder = match proxy {
            Some(found) => builder.proxy(found.proxy.no_proxy(no_proxy(env))),
            None => builder,
        };
        let client = builder.build().map_err(|error| HttpError::Tls(causes(&error)))?;
        Ok(self.0.entry(route).or_insert(client).clone())
    }
}

/// The proxy that the environment names.
#[derive(Debug)]
pub struct NamedProxy {
    pub variable: &'static str,
    /// Its address without a password.
    pub address: String,
    proxy: Proxy,
}

/// Reads the proxy of `https://` requests from the environment.
///
/// # Errors
/// Its address cannot be used.
pub fn proxy(env: impl Fn(&str) -> Option<String>) -> Result<Option<NamedProxy>, HttpError> {
    let named =
        VARIABLES.into_iter().find_map(|name| Some((name, env(name)?)).filter(|(_, v)| !v.trim().is_empty()));
    let Some((variable, value)) = named else { return Ok(None) };
    let value = value.trim();
    let full = if value.contains("://") { value.to_owned() } else { format!("http://{value}") };
    let url = Url::parse(&full).ok().filter(|url| url.has_host() && SCHEMES.contains(&url.scheme()));
    let shown = full.rsplit_once('@').map_or(full.as_str(), |(_, host)| host);
    let refused = || HttpError::Proxy { variable, address: shown.to_owned() };
    let url = url.ok_or_else(refused)?;
    let proxy = Proxy::https(url.as_str()).map_err(|_| refused())?;
    let scheme = url.scheme();
    let address = if shown == full { full.clone() } else { format!("{scheme}://{shown}") };
    Ok(Some(NamedProxy { variable, address, proxy }))
}

fn no_proxy(env: impl Fn(&str) -> Option<String>) -> Option<NoProxy> {
    NoProxy::from_string(&env("NO_PROXY").or_else(|| env("no_proxy"))?)
}

/// The causes of an error, without the URL.
pub fn causes(error: &reqwest::Error) -> String {
    let mut causes = Vec::new();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        causes.push(inner.to_string());
        cause = inner.source();
    }
    causes.dedup();
    if causes.is_empty() { "no reason given".to_owned() } else { causes.join(": ") }
}

/// An HTTP client cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    #[error("no HTTPS client ({0}); if this machine has no CA certificates: apt-get install ca-certificates")]
    Tls(String),
    #[error(
        "{variable} names {address:?}, which is no proxy that Lazaret can use; write its address with {}://, or unset it",
        SCHEMES.join("://, ")
    )]
    Proxy { variable: &'static str, address: String },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(value: &'static str) -> Result<Option<NamedProxy>, HttpError> {
        proxy(move |name| (name == "ALL_PROXY").then(|| value.to_owned()))
    }

    #[test]
    fn only_https_to_another_machine_may_go_through_a_proxy() {
        for (url, way) in [
            ("https://api.telegram.org", Route::Outside),
            ("https://10.0.0.7:8443", Route::Outside),
            ("http://api.telegram.org", Route::Plain),
            ("http://127.0.0.1:8081", Route::Plain),
            ("https://localhost:8443/v1", Route::Loopback),
            ("https://llm.localhost", Route::Loopback),
            ("https://127.8.0.1", Route::Loopback),
            ("https://[::1]:1", Route::Loopback),
            ("https://[::ffff:127.0.0.1]", Route::Loopback),
            ("https://localhost.example.org", Route::Outside),
        ] {
            assert_eq!(route(&Url::parse(url).unwrap()), way, "{url}");
        }
    }

    #[test]
    fn a_proxy_is_used_or_refused_by_name() {
        for (good, shown) in [
            ("socks5h://127.0.0.1:1080", "socks5h://127.0.0.1:1080"),
            ("socks5://proxy", "socks5://proxy"),
            ("socks4://10.0.0.1:1", "socks4://10.0.0.1:1"),
            ("http://ann:canary@proxy:3128", "http://proxy:3128"),
            ("proxy.example:3128", "http://proxy.example:3128"),
        ] {
            let found = of(good).unwrap().unwrap();
            assert_eq!((found.variable, found.address.as_str()), ("ALL_PROXY", shown));
        }
        for bad in ["socks9://x:1", "ftp://x", "http://", "http://a b", "socks://ann:canary@x:1"] {
            let told = of(bad).unwrap_err().to_string();
            assert!(told.contains("ALL_PROXY") && told.contains("socks5h://"), "{told}");
            assert!(!told.contains("canary"), "{told}");
        }
        assert!(of(" ").unwrap().is_none());
        let both = |name: &str| (name != "https_proxy").then(|| format!("http://{}", name.to_lowercase()));
        assert_eq!(proxy(both).unwrap().unwrap().variable, "HTTPS_PROXY");
    }
}
