//! Presses on buttons. A press becomes the command of its choice, as if the person had written it, or the person is
//! told why not.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::group_of_chat::{Found, group_of};
use crate::domain::group_settings::Group;
use crate::domain::message::{Admitted, Inbound, Press, PressAnswer, Role};
use crate::domain::{ChatId, SenderId};
use crate::policy::presses;
use crate::services::Services;
use crate::store::StoreError;

/// A press, for the answer to the person.
pub(super) struct Pressed {
    chat: ChatId,
    press: Press,
    /// Absent if the press is stored as a command. Then the store knows what it decided.
    answer: Option<PressAnswer>,
}

impl Pressed {
    /// Decides about a press. A press that is not taken is counted.
    pub(super) async fn admit(
        services: &Services,
        mut inbound: Inbound,
        press: Press,
        owners: &[SenderId],
        counts: &mut BTreeMap<String, u64>,
    ) -> Result<(Self, Option<Admitted>), StoreError> {
        let offer = services.store.offer(press.clone(), inbound.chat.clone()).await?;
        let mut group = None;
        if let Some(offer) = &offer {
            inbound.chat = offer.chat.clone();
            inbound.text.clone_from(&offer.command);
            inbound.at = services.clock.wall();
            if let Found::Group(found) = group_of(services, &inbound).await? {
                group = Some(*found);
            }
        }
        let chat = inbound.chat.clone();
        let (answer, taken) = match presses::decide(&inbound, offer.as_ref(), group.as_ref(), owners) {
            Ok(command) => {
                let (owner, role) = (owners.contains(&inbound.sender.id), Role::Command(command));
                let taken = |group: Group| Admitted {
                    rules: group.sender_rules(),
                    group: group.name,
                    role,
                    owner,
                    inbound,
                    attachments: Vec::new(),
                };
                (None, group.map(taken))
            }
            Err((counter, answer)) => {
                tracing::info!(%chat, sender = %inbound.sender.id, code = counter, "a press on a button does nothing");
                *counts.entry(counter.to_owned()).or_default() += 1;
                (Some(answer), None)
            }
        };
        Ok((Self { chat, press, answer }, taken))
    }

    /// Tells the person what became of the press, once it is stored. Nobody waits for that.
    pub(super) fn answer(self, services: &Arc<Services>) {
        let shared = Arc::clone(services);
        let name = format!("the answer to a press in {}", self.chat);
        // The answer is a courtesy: if it is lost, another press gets it.
        drop(services.workers.once(name, async move {
            let Some(channel) = shared.channels.of(&self.chat) else { return };
            let Self { chat, press, answer } = self;
            let answer = match answer {
                Some(answer) => answer,
                None => match shared.store.offer(press.clone(), chat.clone()).await {
                    Ok(Some(presses::Offer { decided: Some(decided), .. })) => decided.by_this_press(),
                    _ => return,
                },
            };
            channel.answer_press(&chat, &press, &answer).await;
        }));
    }
}
