//! The one way to make an HTTPS client: rustls with `ring`, the machine's certificates, no redirects, no switch to
//! accept invalid ones.

use std::time::Duration;

/// A client for platforms and providers.
///
/// # Errors
/// When TLS cannot be set up, which is when the machine has no CA certificates.
pub fn client() -> Result<reqwest::Client, HttpError> {
    // The second caller finds the provider installed: that is no error.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
        .connect_timeout(Duration::from_secs(15))
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .map_err(|e| HttpError(e.to_string()))
}

/// There is no HTTPS client.
#[derive(Debug, thiserror::Error)]
#[error("no HTTPS client ({0}); the machine may lack CA certificates: apt-get install ca-certificates")]
pub struct HttpError(String);
