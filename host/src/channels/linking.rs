//! How an account of a platform is linked to this host, for channels where a token is not enough: the person confirms
//! the link on another device. `lazaret link` and `lazaret unlink` drive it.

use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::mpsc;

use super::Account;

/// What the person asks for.
#[derive(Debug, Clone, Default)]
pub struct LinkRequest {
    /// The phone number of the account, to link with a code that the person types on the phone. Without it, the person
    /// scans a QR code.
    pub phone: Option<String>,
}

/// What the person must see or do now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkStep {
    /// Scan this QR code. A later one takes its place.
    Qr { content: String, valid_for: Duration },
    /// Type this code on the phone.
    Code { code: String, valid_for: Duration },
    /// Do what the text says, and paste the result as one line.
    Paste { what_to_do: String },
    /// Something has happened. Nothing is to be done.
    Progress(String),
}

/// Whether an account is linked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkState {
    NotLinked,
    Linked(Account),
    /// There are keys, but they are of no use: the platform has ended the link, or the file is damaged.
    Broken {
        /// What happened, and the command that repairs it.
        why: String,
        code: &'static str,
    },
}

/// An account that is linked now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Linked {
    pub account: Account,
    /// Whether a running host has taken it over.
    pub in_use: bool,
}

/// Why an account could not be linked or unlinked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct LinkError {
    pub code: &'static str,
    /// What happened, and what to do.
    pub why: String,
}

#[async_trait]
pub trait Linking: Send + Sync {
    fn state(&self) -> LinkState;

    /// Links an account. It ends by itself: with the account, or with the reason why there is none. It sends each step
    /// on `steps`, and reads on `pasted` what the person pastes. A host that runs uses the account at once.
    ///
    /// # Errors
    /// An account is linked already, the platform refuses, or nobody has confirmed in time.
    async fn link(
        &self,
        request: LinkRequest,
        steps: mpsc::Sender<LinkStep>,
        pasted: mpsc::Receiver<String>,
    ) -> Result<Linked, LinkError>;

    /// Ends the link at the platform, and removes the keys. A host that runs stops using the account.
    ///
    /// # Errors
    /// No account is linked, or the keys cannot be removed. A platform that does not answer is no error: the text that
    /// is returned says what the person must do on the phone.
    async fn unlink(&self) -> Result<String, LinkError>;
}
