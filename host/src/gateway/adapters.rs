//! The gateway's side doors: its settings out of the install's, and its ledger in the store.

use async_trait::async_trait;

use super::usage::Usage;
use super::{GatewaySettings, Ledger, ProviderKind, ProviderSettings, RetryLimits};
use crate::clock::Clock;
use crate::config::Install;
use crate::config::schema;
use crate::store::{Store, UsageRow};

/// The gateway's settings.
pub fn settings_of(install: &Install) -> GatewaySettings {
    let providers = install.providers.values().map(|provider| {
        let kind = match provider.kind {
            schema::ProviderKind::Anthropic => ProviderKind::Anthropic,
            schema::ProviderKind::Openai => ProviderKind::OpenAi,
            schema::ProviderKind::Tour => ProviderKind::Tour,
        };
        let own = provider.kind != schema::ProviderKind::Openai
            || provider.base_url == schema::ProviderKind::Openai.default_base_url();
        ProviderSettings {
            base_url: provider.base_url.clone(),
            key: provider.key.clone(),
            max_completion_tokens: own && provider.kind == schema::ProviderKind::Openai,
            ..ProviderSettings::new(&provider.name, kind)
        }
    });
    let retry = RetryLimits { total: install.file.host.model_retry.0, ..RetryLimits::default() };
    GatewaySettings { providers: providers.collect(), retry, ..GatewaySettings::default() }
}

#[async_trait]
impl Ledger for Store {
    async fn usage(&self, u: Usage) {
        let row = UsageRow {
            run: u.run,
            turn: u.turn,
            group: u.group,
            provider: u.provider,
            model: u.model,
            tokens: [u.input, u.output, u.cache_read, u.cache_write],
            micros: u.cost_micros,
            estimated: u.estimated,
            status: u.status,
            took_ms: u64::try_from(u.took.as_millis()).unwrap_or(u64::MAX),
            at: Clock::new().wall(),
        };
        if let Err(e) = self.add_usage(row).await {
            tracing::error!(code = e.code(), "a model call was not booked: {e}");
        }
    }
    async fn refused(&self, code: &'static str, count: u64) {
        if let Err(e) = self.count(code, count).await {
            tracing::warn!(code = e.code(), "{count} refusals of {code} were not counted: {e}");
        }
    }
}
