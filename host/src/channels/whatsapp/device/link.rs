//! Links this host as a device of an account, and ends the link.

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use tokio::sync::mpsc;

use super::super::WhatsAppSettings;
use crate::channels::Account;
use crate::channels::linking::{LinkError, LinkRequest, LinkState, LinkStep, Linking};

pub(in super::super) struct Link {
    _settings: WhatsAppSettings,
    _folder: PathBuf,
}

impl Link {
    pub fn new(settings: WhatsAppSettings, folder: &Path) -> Self {
        Self { _settings: settings, _folder: folder.to_owned() }
    }
}

#[async_trait]
impl Linking for Link {
    fn state(&self) -> LinkState {
        LinkState::NotLinked
    }

    async fn link(
        &self,
        _request: LinkRequest,
        _steps: mpsc::Sender<LinkStep>,
        _pasted: mpsc::Receiver<String>,
    ) -> Result<Account, LinkError> {
        Err(LinkError { code: "whatsapp.link", why: "not built yet".into() })
    }

    async fn unlink(&self) -> Result<String, LinkError> {
        Err(LinkError { code: "whatsapp.link", why: "not built yet".into() })
    }
}
