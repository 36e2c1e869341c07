//! Builds the channels that are on, and admits the chats that the settings name. `daemon` calls it at start. It must
//! not name a platform.

use std::sync::Arc;

use super::StartError;
use super::state_dir::shown_letters;
use crate::channels::{Channels, LettersFolder, Surroundings};
use crate::clock::Clock;
use crate::config::Install;
use crate::domain::{ChatKind, GroupName};
use crate::services::Services;
use crate::store::{Admission, ChannelState};
use crate::workers::Workers;

/// Builds the channels of an install that are on.
pub(super) fn build(install: &Install, clock: Clock, workers: &Workers) -> Result<Channels, StartError> {
    let root = install.root.clone();
    let letters: LettersFolder = Arc::new(move |run| shown_letters(&root, run));
    let socket_dir = install.root.host_socket_dir();
    let mut channels = Channels::default();
    for settings in install.file.channels.all() {
        let folder = install.root.channel_folder(&settings.name());
        let host = Surroundings {
            secret: install.channel_secrets.get(&settings.name()),
            clock,
            workers,
            folder: &folder,
            socket_dir: &socket_dir,
            letters: Arc::clone(&letters),
        };
        let built = settings.build(&host).map_err(|e| StartError::machine(e.code, e.what, e.why))?;
        built.into_iter().for_each(|channel| channels.add(channel));
    }
    Ok(channels)
}

/// Stores which channels are off, and why.
pub(super) async fn note_off(services: &Services) -> Result<(), StartError> {
    let now = services.clock.wall();
    for settings in services.install.file.channels.all() {
        let name = settings.name();
        if services.channels.all().any(|channel| channel.name() == name) {
            continue;
        }
        let why = match (settings.missing(), settings.secret()) {
            (Some(missing), _) => format!("off: {missing}"),
            (None, Some(secret)) => {
                format!(
                    "off: no token was found in {} or in the file that the settings name",
                    secret.variable
                )
            }
            (None, None) => "off in the settings".to_owned(),
        };
        tracing::info!(channel = %name, "{why}");
        let state = ChannelState {
            channel: name.to_string(),
            account: String::new(),
            trouble: Some(ChannelState::OFF.to_owned()),
            why,
            since: now,
            asks_at: None,
        };
        services.store.set_channel_state(state).await?;
    }
    Ok(())
}

/// Admits the chats that groups have without admission, and those that the groups' files name.
pub(super) async fn admit_configured(services: &Services) -> Result<(), StartError> {
    let (install, now) = (&services.install, services.clock.wall());
    let known = services.store.chats().await?;
    let others = install.group_names().into_iter().filter(|group| !group.is_main());
    let mut wanted = Vec::new();
    for group in std::iter::once(GroupName::main()).chain(others) {
        for channel in services.channels.all() {
            let chat = channel.chat_of_group(&group);
            wanted.extend(chat.map(|chat| (chat, group.clone(), ChatKind::Direct, channel.name().as_str())));
        }
    }
    for (chat, group) in install.chats() {
        // This build does not have the chat's channel. `config check` and the group's runs report that.
        let Some(channel) = install.file.channels.named(chat.channel()) else { continue };
        let kind = channel.kind_of(&chat);
        wanted.push((chat, group, kind, ""));
    }
    for (chat, group, kind, title) in wanted {
        if known.iter().any(|(c, g, _)| *c == chat && *g == group) {
            continue;
        }
        services.store.group(&group, now).await?;
        let (title, by) = (title.to_owned(), "group.toml".to_owned());
        services.store.admit_chat(Admission { chat, group, kind, title, by, now }).await?;
    }
    Ok(())
}
