//! Builds a client of the library: for a host that is linked, and for a command that links.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use whatsapp_rust::bot::{Bot, BotBuilderError, BotHandle};
use whatsapp_rust::http::HttpClient;
use whatsapp_rust::pair_code::PairCodeOptions;
use whatsapp_rust::store::error::StoreError;
use whatsapp_rust::store::{SqliteStore, SqliteStoreConfig, Synchronous};
use whatsapp_rust::types::durability_hook::InboundMessage;
use whatsapp_rust::types::events::EventHandler;
use whatsapp_rust::version::fetch_latest_app_version;
use whatsapp_rust::wacore::store::{Device, DevicePropsOverride};
use whatsapp_rust::waproto::whatsapp::device_props::PlatformType;
use whatsapp_rust::{CacheConfig, Client, InboundDurabilityHook, anyhow};

use super::network::Network;

/// What people see in the phone's list of linked devices.
const DEVICE: &str = "Lazaret";
/// The plain name of an operating system. The server gives a code only to a device that names such a one.
const SYSTEM: &str = "Linux";
/// How long the host waits to learn the web client's version.
const VERSION_WITHIN: Duration = Duration::from_secs(10);
/// How long a phone may be off and still get a message that it could not decrypt: it asks for the message again, and
/// the library answers from what it has kept.
const SENT_KEPT: Duration = Duration::from_secs(7 * 24 * 3600);
/// How long a client may take to close.
const CLOSE_WITHIN: Duration = Duration::from_secs(15);

#[derive(Debug, thiserror::Error)]
pub(super) enum BuildClientError {
    #[error("{0}")]
    Keys(#[from] StoreError),
    #[error("{0}")]
    Client(#[from] BotBuilderError),
}

/// What a client is for.
pub(super) enum Use<H> {
    /// It reads and writes. The hook stores messages before the client acknowledges them.
    Channel(H),
    /// It links an account, with a code for this phone number if there is one.
    Link(Option<String>),
    /// It ends the link.
    Unlink,
}

/// Builds a client on the keys in a file, which exists.
pub(super) async fn build<H: InboundDurabilityHook + 'static>(
    network: &Network,
    keys: &Path,
    ear: impl EventHandler + 'static,
    what_for: Use<H>,
) -> Result<Bot, BuildClientError> {
    // The ratchet of the encryption must not go back after a power failure, so each commit is on the disk.
    let config = SqliteStoreConfig { synchronous: Synchronous::Full, ..SqliteStoreConfig::default() };
    let store = SqliteStore::with_config(&keys.to_string_lossy(), config).await?;
    let builder = Bot::builder()
        .with_backend(store)
        .with_transport_factory(network.clone())
        .with_http_client(network.clone())
        .with_version(version(network).await)
        .with_device_props(
            DevicePropsOverride::new().with_os(DEVICE).with_platform_type(PlatformType::CHROME),
        )
        .skip_history_sync()
        .with_cache_config(CacheConfig {
            sent_message_ttl_secs: SENT_KEPT.as_secs(),
            ..CacheConfig::default()
        })
        .with_event_handler(ear);
    let builder = match what_for {
        Use::Channel(hook) => builder.with_inbound_durability_hook(hook),
        Use::Link(Some(phone_number)) => {
            let display_os = Some(SYSTEM.to_owned());
            let builder = builder.with_inbound_durability_hook(TakesNothing);
            builder.with_pair_code(PairCodeOptions { phone_number, display_os, ..PairCodeOptions::default() })
        }
        Use::Link(None) | Use::Unlink => builder.with_inbound_durability_hook(TakesNothing),
    };
    Ok(builder.build().await?)
}

/// Takes no message. What people write while an account is linked waits: the library keeps it, acknowledges nothing,
/// and hands it over to the host at its first login.
struct TakesNothing;

#[async_trait]
impl InboundDurabilityHook for TakesNothing {
    async fn on_messages(&self, _client: Arc<Client>, _messages: &[InboundMessage]) -> anyhow::Result<()> {
        anyhow::bail!("the host takes messages")
    }
}

/// Returns the web client's version of today, which the server expects. A page that cannot be read must not keep the
/// host off: the version that the library knows holds for weeks.
async fn version(network: &Network) -> (u32, u32, u32) {
    let known = Device::new();
    let known = (known.app_version_primary, known.app_version_secondary, known.app_version_tertiary);
    if !network.is_whatsapp() {
        return known;
    }
    let http: Arc<dyn HttpClient> = Arc::new(network.clone());
    match tokio::time::timeout(VERSION_WITHIN, fetch_latest_app_version(&http)).await {
        Ok(Ok(version)) => version,
        Ok(Err(e)) => {
            tracing::warn!(
                code = "whatsapp.version",
                "the host could not look up the version of WhatsApp Web and uses the one that it knows: {e}"
            );
            known
        }
        Err(_) => known,
    }
}

/// Closes a client, so that the keys are stored as they are. When this returns, it does not use them any more.
pub(super) async fn close(running: &mut BotHandle) {
    let client = running.client();
    let closed = async {
        client.disconnect().await;
        (&mut *running).await;
    };
    if tokio::time::timeout(CLOSE_WITHIN, closed).await.is_err() {
        tracing::warn!(code = "whatsapp.close", "WhatsApp's library did not close the connection in time");
        running.abort();
        running.await;
    }
}
