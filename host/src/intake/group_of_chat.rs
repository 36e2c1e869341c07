//! The group that a message belongs to.

use super::strangers;
use crate::domain::GroupName;
use crate::domain::group_settings::Group;
use crate::domain::message::Inbound;
use crate::services::Services;
use crate::store::StoreError;

/// The group of a message's chat.
pub(super) enum Found {
    Group(Box<Group>),
    /// The chat is not admitted.
    Stranger,
    /// The group's folder was removed.
    Gone(GroupName),
}

pub(super) async fn group_of(services: &Services, inbound: &Inbound) -> Result<Found, StoreError> {
    let name = match services.store.group_of(&inbound.chat).await? {
        Some(name) => name,
        None => match strangers::follow(services, inbound).await? {
            Some(name) => name,
            None => return Ok(Found::Stranger),
        },
    };
    match services.install.group(&name) {
        Ok(group) => Ok(Found::Group(Box::new(group))),
        Err(_) if !services.install.has_group(&name) => Ok(Found::Gone(name)),
        Err(e) => {
            // A typing error in the group's file must not lose the message. The host takes it with the default
            // settings, and the run that it starts tells the chat the file, line and column.
            tracing::error!(group = %name, code = e.code(), "{e}");
            Ok(Found::Group(Box::new(services.install.default_group(name))))
        }
    }
}
