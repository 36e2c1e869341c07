//! Reads keys and tokens: from the environment, or from files that only their owner can read.

#![allow(clippy::disallowed_methods, reason = "key files of the owner, in no mount")]

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::schema::{InstallFile, ProviderFile};
use super::{ConfigError, Provider, Root};
use crate::domain::{ChannelName, ProviderKind, Secret};

type Env = BTreeMap<String, String>;

/// The providers of the settings. Without any: those whose keys the environment has, and else the demo model.
pub(super) fn providers(
    file: &InstallFile,
    root: &Root,
    env: &Env,
) -> Result<BTreeMap<String, Provider>, ConfigError> {
    let implied = |kind: ProviderKind| ProviderFile { kind, base_url: None, key_file: None, key_env: None };
    let mut wanted = file.providers.clone();
    if wanted.is_empty() {
        if set(env, "ANTHROPIC_API_KEY").is_some() {
            wanted.insert("anthropic".into(), implied(ProviderKind::Anthropic));
        }
        if set(env, "OPENAI_BASE_URL").or(set(env, "OPENAI_API_KEY")).is_some() {
            wanted.insert("openai".into(), implied(ProviderKind::Openai));
        }
        if wanted.is_empty() {
            wanted.insert("demo".into(), implied(ProviderKind::Demo));
        }
    }
    wanted.into_iter().map(|(name, p)| Ok((name.clone(), provider(&name, &p, root, env)?))).collect()
}

fn provider(name: &str, file: &ProviderFile, root: &Root, env: &Env) -> Result<Provider, ConfigError> {
    let base_env = match file.kind {
        ProviderKind::Anthropic => "ANTHROPIC_BASE_URL",
        ProviderKind::Openai => "OPENAI_BASE_URL",
        ProviderKind::Demo => "",
    };
    let base_url = file
        .base_url
        .clone()
        .or_else(|| set(env, base_env).map(str::to_owned))
        .unwrap_or_else(|| file.kind.default_base_url().to_owned());
    let place = || format!("lazaret.toml: providers.{name}");
    if file.kind != ProviderKind::Demo
        && !base_url.starts_with("http://")
        && !base_url.starts_with("https://")
    {
        return Err(ConfigError::new(
            place(),
            format!("base_url = {base_url:?} begins with neither http:// nor https://"),
        ));
    }
    let key_env = file.key_env.as_deref().or(file.kind.default_key_env());
    let key = match (&file.key_file, key_env) {
        (Some(path), _) => Some(secret_file(&root.path().join(path))?),
        (None, Some(variable)) => set(env, variable).map(Secret::new),
        (None, None) => None,
    };
    // A server of one's own that speaks the OpenAI wire often takes no key; Anthropic's always needs one.
    if key.is_none() && file.kind == ProviderKind::Anthropic {
        let variable = key_env.unwrap_or("ANTHROPIC_API_KEY");
        return Err(ConfigError::new(place(), "there is no key")
            .hint(format!("set {variable}, or key_file to a file of mode 0600"))
            .coded("config.secret"));
    }
    let base_url = base_url.trim_end_matches('/').to_owned();
    Ok(Provider { name: name.to_owned(), kind: file.kind, base_url, key })
}

/// The secrets of the channels that have one.
pub(super) fn of_channels(
    file: &InstallFile,
    root: &Root,
    env: &Env,
) -> Result<BTreeMap<ChannelName, Secret>, ConfigError> {
    let mut secrets = BTreeMap::new();
    for channel in file.channels.all() {
        let Some(source) = channel.secret() else { continue };
        let secret = match source.file {
            Some(path) => Some(secret_file(&root.path().join(path))?),
            None => set(env, source.variable).map(Secret::new),
        };
        secrets.extend(secret.map(|secret| (channel.name(), secret)));
    }
    Ok(secrets)
}

fn set<'a>(env: &'a Env, name: &str) -> Option<&'a str> {
    env.get(name).map(String::as_str).filter(|v| !v.trim().is_empty())
}

/// Reads a secret's file, which nobody but its owner may read.
fn secret_file(path: &Path) -> Result<Secret, ConfigError> {
    let place = || path.display().to_string();
    let refuse = |what: String| ConfigError::new(place(), what).coded("config.secret");
    let about = std::fs::metadata(path).map_err(|e| refuse(format!("the secret cannot be read: {e}")))?;
    if about.mode() & 0o077 != 0 {
        let what = format!("others can read this secret (mode {:04o})", about.mode() & 0o7777);
        return Err(refuse(what).hint(format!("chmod 600 {}", place())));
    }
    let text =
        std::fs::read_to_string(path).map_err(|e| refuse(format!("the secret cannot be read: {e}")))?;
    if text.trim().is_empty() {
        return Err(refuse("the file of the secret is empty".into()));
    }
    Ok(Secret::new(&text))
}
