//! Makes HTTPS clients: rustls with `ring` and the machine's certificates. They follow no redirects, and nothing makes
//! them accept an invalid certificate.

use std::time::Duration;

/// A client for platforms and providers.
///
/// # Errors
/// TLS cannot be set up, because the machine has no CA certificates.
pub fn client() -> Result<reqwest::Client, HttpError> {
    // It fails for the second caller, because the first one has installed it: no error.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
        .connect_timeout(Duration::from_secs(15))
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .map_err(|e| HttpError(e.to_string()))
}

/// An HTTPS client cannot be made.
#[derive(Debug, thiserror::Error)]
#[error("no HTTPS client ({0}); the machine may lack CA certificates: apt-get install ca-certificates")]
pub struct HttpError(String);
