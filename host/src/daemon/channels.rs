//! Builds the channels, and admits the chats that the settings name.

use std::sync::Arc;

use super::StartError;
use super::state::shown_letters;
use crate::channels::Channels;
use crate::channels::telegram::Telegram;
use crate::channels::terminal::{self, Terminal};
use crate::clock::Clock;
use crate::config::{Install, Root};
use crate::domain::{ChannelName, ChatKind, GroupName};
use crate::services::Services;
use crate::store::Admission;

/// The channels of an install.
pub(super) fn build(root: &Root, install: &Install, clock: Clock) -> Result<Channels, StartError> {
    let mut channels = Channels::default();
    let letters_root = root.clone();
    let terminal =
        Terminal::start(&root.host_socket_dir(), clock, move |run| shown_letters(&letters_root, run))
            .map_err(|e| {
                StartError::machine("terminal.socket", root.host_socket_dir().display().to_string(), e)
            })?;
    channels.add(Arc::new(terminal));
    if let Some(settings) = &install.telegram {
        let telegram = Telegram::new(settings.token.clone(), settings.base_url.clone(), settings.pace)
            .map_err(|e| StartError::machine("telegram.start", "telegram", e))?;
        channels.add(Arc::new(telegram));
    }
    Ok(channels)
}

/// Chats that files name, and the terminal.
pub(super) async fn admit_configured(services: &Services) -> Result<(), StartError> {
    let now = services.clock.wall();
    let known = services.store.chats().await?;
    let others = services.install.group_names().into_iter().filter(|group| !group.is_main());
    let groups = std::iter::once(GroupName::main()).chain(others);
    let terminals = groups.filter_map(|group| Some((terminal::chat_of(&group)?, group)));
    let mut wanted: Vec<_> =
        terminals.map(|(chat, group)| (chat, group, ChatKind::Direct, "terminal")).collect();
    for (chat, group) in services.install.chats() {
        let kind = if chat.channel() == ChannelName::Telegram && chat.local().starts_with('-') {
            ChatKind::Room
        } else {
            ChatKind::Direct
        };
        wanted.push((chat, group, kind, ""));
    }
    for (chat, group, kind, title) in wanted {
        if known.iter().any(|(c, g, _)| *c == chat && *g == group) {
            continue;
        }
        services.store.group(&group, now).await?;
        let title = title.to_owned();
        services
            .store
            .admit_chat(Admission { chat, group, kind, title, by: "group.toml".into(), now })
            .await?;
    }
    Ok(())
}
