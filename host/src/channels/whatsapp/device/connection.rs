//! The connection to WhatsApp's server: one client of the library, from the link of an account to its end.

use std::path::Path;
use std::sync::Arc;

use whatsapp_rust::Client;

use super::acks::Acks;
use super::disappearing::Timers;
use crate::channels::{Account, Batch, ChannelError, SendError};

pub(super) struct Connection {
    acks: Arc<Acks>,
    timers: Arc<Timers>,
}

impl Connection {
    pub fn new(_folder: &Path) -> Self {
        Self { acks: Arc::default(), timers: Arc::default() }
    }

    /// Returns the client; an error if it is not logged in now.
    pub fn client(&self) -> Result<Arc<Client>, SendError> {
        Err(SendError::NotArrived { why: "WhatsApp is not connected".into(), after: None })
    }

    pub fn acks(&self) -> &Acks {
        &self.acks
    }

    pub fn timers(&self) -> &Timers {
        &self.timers
    }

    pub fn not_linked(&self) -> Option<String> {
        Some("no account is linked: `lazaret link whatsapp`".into())
    }

    pub async fn linked(&self) {
        std::future::pending().await
    }

    pub async fn account(&self) -> Result<Account, ChannelError> {
        std::future::pending().await
    }

    /// Waits for what people write.
    pub async fn next(&self) -> Result<Batch, ChannelError> {
        std::future::pending().await
    }
}
