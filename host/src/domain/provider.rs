//! The kinds of model provider, with what belongs to each when the settings name nothing else.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The wire that a provider speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(extend("aliases" = ["tour"]))]
pub enum ProviderKind {
    /// Anthropic Messages.
    Anthropic,
    /// OpenAI chat completions, which many servers speak.
    Openai,
    /// The demo model in the host, which follows a script and needs no key.
    #[serde(alias = "tour")]
    Demo,
}

impl ProviderKind {
    /// The model when none is named.
    pub fn default_model(self) -> &'static str {
        match self {
            Self::Anthropic => "claude-sonnet-5-5",
            Self::Openai => "gpt-5.2",
            Self::Demo => "demo",
        }
    }

    /// The address when none is named.
    pub fn default_base_url(self) -> &'static str {
        match self {
            Self::Anthropic => "https://api.anthropic.com",
            Self::Openai => "https://api.openai.com/v1",
            Self::Demo => "",
        }
    }

    /// The environment variable of its key.
    pub fn default_key_env(self) -> Option<&'static str> {
        match self {
            Self::Anthropic => Some("ANTHROPIC_API_KEY"),
            Self::Openai => Some("OPENAI_API_KEY"),
            Self::Demo => None,
        }
    }
}
