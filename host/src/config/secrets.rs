//! Reads keys and tokens: from the environment, or from files that only their owner can read.

#![allow(clippy::disallowed_methods, reason = "key files of the owner, in no mount")]

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::schema::{InstallFile, ProviderFile};
use super::values::check_url;
use super::{Mistake, Provider, Root, Source};
use crate::domain::transcription::TranscriptionChoice;
use crate::domain::{ChannelName, ProviderKind, Secret};

type Env = BTreeMap<String, String>;

/// The providers of the settings. Without any: those whose keys the environment has, and else the demo model.
pub(super) fn providers(
    file: &InstallFile,
    root: &Root,
    env: &Env,
    source: &mut Source<'_>,
    missing: &mut Vec<Mistake>,
) -> BTreeMap<String, Provider> {
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
    let mut build = |(name, file): (String, ProviderFile)| {
        let provider = provider(&name, &file, root, env, source, missing);
        (name, provider)
    };
    wanted.into_iter().map(&mut build).collect()
}

fn provider(
    name: &str,
    file: &ProviderFile,
    root: &Root,
    env: &Env,
    source: &mut Source<'_>,
    missing: &mut Vec<Mistake>,
) -> Provider {
    let base_env = match file.kind {
        ProviderKind::Anthropic => "ANTHROPIC_BASE_URL",
        ProviderKind::Openai => "OPENAI_BASE_URL",
        ProviderKind::Demo => "",
    };
    let of_env = set(env, base_env).filter(|_| file.base_url.is_none());
    let base_url = file.base_url.as_deref().or(of_env).unwrap_or_else(|| file.kind.default_base_url());
    if file.kind != ProviderKind::Demo
        && let Err(why) = check_url(base_url)
    {
        match of_env {
            Some(_) => source.mistakes.push(Mistake::of(base_env, why)),
            None => source.refuse(&["providers", name, "base_url"], format!("base_url = {base_url:?} {why}")),
        }
    }
    let key_env = file.key_env.as_deref().or(file.kind.default_key_env());
    let keys = ["providers", name, "key_file"];
    let key = match (&file.key_file, key_env) {
        (Some(path), _) => secret_file(&root.path().join(path), &keys, source, missing),
        (None, Some(variable)) => set(env, variable).map(Secret::new),
        (None, None) => None,
    };
    // A server of one's own that speaks the OpenAI wire often takes no key; Anthropic's always needs one.
    if key.is_none() && file.key_file.is_none() && file.kind == ProviderKind::Anthropic {
        let variable = key_env.unwrap_or("ANTHROPIC_API_KEY");
        let place = format!("{}: providers.{name}", source.name());
        let hint = format!("set {variable}, or key_file to a file of mode 0600");
        missing.push(Mistake::of(place, "there is no key").hint(hint).coded("config.secret"));
    }
    let base_url = base_url.trim_end_matches('/').to_owned();
    Provider { name: name.to_owned(), kind: file.kind, base_url, key }
}

/// The endpoint for voice messages, if the settings name one.
pub(super) fn transcription(
    file: &InstallFile,
    root: &Root,
    env: &Env,
    source: &mut Source<'_>,
    missing: &mut Vec<Mistake>,
) -> Option<TranscriptionChoice> {
    let file = &file.transcription;
    let base_url = file.base_url.as_deref()?.trim_end_matches('/');
    if let Err(why) = check_url(base_url) {
        source.refuse(&["transcription", "base_url"], format!("base_url = {base_url:?} {why}"));
        return None;
    }
    // A key of OpenAI goes to no other server by itself.
    let openai = ProviderKind::Openai;
    let of_openai = openai.default_key_env().filter(|_| base_url == openai.default_base_url());
    let named = file.key_env.as_deref().or(of_openai);
    let key = match &file.key_file {
        Some(path) => secret_file(&root.path().join(path), &["transcription", "key_file"], source, missing),
        None => named.and_then(|variable| set(env, variable)).map(Secret::new),
    };
    if let (None, None, Some(variable)) = (&key, &file.key_file, named) {
        let place = format!("{}: transcription", source.name());
        let hint = format!("set {variable}, or key_file to a file of mode 0600");
        missing.push(Mistake::of(place, "there is no key").hint(hint).coded("config.secret"));
    }
    Some(TranscriptionChoice {
        base_url: base_url.to_owned(),
        model: file.model.clone(),
        key,
        language: file.language.clone(),
        max_bytes: file.max_mib.saturating_mul(1 << 20),
        timeout: file.timeout.0,
    })
}

/// The secrets of the channels that have one.
pub(super) fn of_channels(
    file: &InstallFile,
    root: &Root,
    env: &Env,
    source: &mut Source<'_>,
    missing: &mut Vec<Mistake>,
) -> BTreeMap<ChannelName, Secret> {
    let mut secrets = BTreeMap::new();
    for channel in file.channels.all() {
        let Some(wanted) = channel.secret() else { continue };
        let name = channel.name();
        let keys = ["channels", name.as_str()];
        let secret = match wanted.file {
            Some(path) => secret_file(&root.path().join(path), &keys, source, missing),
            None => set(env, wanted.variable).map(Secret::new),
        };
        secrets.extend(secret.map(|secret| (name, secret)));
    }
    secrets
}

fn set<'a>(env: &'a Env, name: &str) -> Option<&'a str> {
    env.get(name).map(String::as_str).filter(|v| !v.trim().is_empty())
}

/// Reads a secret's file, which nobody but its owner may read. A file that another user owns may be missing for this
/// command and be there for the host.
fn secret_file(
    path: &Path,
    keys: &[&str],
    source: &mut Source<'_>,
    missing: &mut Vec<Mistake>,
) -> Option<Secret> {
    let shown = path.display();
    let refuse = |what: String| Mistake::from(format!("{shown}: {what}")).coded("config.secret");
    let unreadable = |e: std::io::Error| {
        Mistake { file: shown.to_string(), ..format!("the secret cannot be read: {e}").into() }
            .coded("config.secret")
    };
    let about = match std::fs::metadata(path) {
        Ok(about) => about,
        Err(e) => {
            missing.push(unreadable(e));
            return None;
        }
    };
    if about.mode() & 0o077 != 0 {
        let what = format!("others can read this secret (mode {:04o})", about.mode() & 0o7777);
        source.refuse(keys, refuse(what).hint(format!("chmod 600 {shown}")));
        return None;
    }
    match std::fs::read_to_string(path) {
        Ok(text) if text.trim().is_empty() => {
            source.refuse(keys, refuse("the file of the secret is empty".into()))
        }
        Ok(text) => return Some(Secret::new(&text)),
        Err(e) => missing.push(unreadable(e)),
    }
    None
}
