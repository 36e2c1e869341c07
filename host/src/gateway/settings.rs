//! The gateway's settings, and how they follow from the install's.

use std::time::Duration;

use crate::config::Install;
use crate::domain::ProviderKind;
use crate::model::{ProviderSettings, RetryLimits};

/// What holds for all runs.
#[derive(Debug, Clone)]
pub struct GatewaySettings {
    /// The providers, by distinct names.
    pub providers: Vec<ProviderSettings>,
    /// The greatest `max_tokens` of a request; a greater one is lowered.
    pub max_tokens: u32,
    /// How long and how often failed attempts are repeated.
    pub retry: RetryLimits,
    /// The longest call, from the box's request to the last byte: attempts and answer together.
    pub call_time: Duration,
    /// The longest silence of a provider, before and within a streamed answer. An answer that is not streamed arrives
    /// whole, so only `call_time` limits it.
    pub silence: Duration,
    /// How long the body of a request may take to arrive, once there is room for it. A box is on the same machine: the
    /// greatest body needs a thousandth of 30 seconds.
    pub body_time: Duration,
}

impl Default for GatewaySettings {
    fn default() -> Self {
        Self {
            providers: Vec::new(),
            max_tokens: 8192,
            retry: RetryLimits::default(),
            call_time: Duration::from_secs(600),
            silence: Duration::from_secs(120),
            body_time: Duration::from_secs(30),
        }
    }
}

/// The gateway's settings of an install.
pub fn settings_of(install: &Install) -> GatewaySettings {
    let providers = install.providers.values().map(|provider| {
        // At another address than OpenAI's own stands a compatible server.
        let is_openai =
            provider.kind == ProviderKind::Openai && provider.base_url == provider.kind.default_base_url();
        ProviderSettings {
            base_url: provider.base_url.clone(),
            key: provider.key.clone(),
            max_completion_tokens: is_openai,
            documents: is_openai,
            ..ProviderSettings::new(&provider.name, provider.kind)
        }
    });
    let retry = RetryLimits { total: install.file.host.model_retry.0, ..RetryLimits::default() };
    GatewaySettings { providers: providers.collect(), retry, ..GatewaySettings::default() }
}
