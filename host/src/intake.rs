//! Takes messages from a channel into the store: admission, transaction 1, and the event for the supervisor. It fetches
//! no attachments: a slow download would block every chat of the channel, and many attachments are never read by an
//! agent.

mod group_of_chat;
mod health;
mod presses;
mod strangers;

use std::sync::Arc;
use std::time::Duration;

use ipc_schema::text_sanitize::clean;
use tokio::sync::mpsc::UnboundedSender;
use tokio_util::sync::CancellationToken;

use crate::channels::{Batch, Channel, ChannelError, RenewalOrder};
use crate::domain::message::{Admitted, ChatEvent, Command, Inbound, Role};
use crate::domain::outbound::OutgoingText;
use crate::domain::{ChannelName, ChatKind, GroupName, Lane, MessageSeq, SenderId, WallMs};
use crate::policy::admission::{self, AdmissionDecision};
use crate::policy::attachment_limits;
use crate::policy::backoff::STORE_AGAIN;
use crate::services::Services;
use crate::store::{Accepted, ChatMoved, CommandRow, Intake, StoreError};
use crate::text;
use crate::turns::Placement;
use group_of_chat::{Found, group_of};
use health::Health;
use presses::Pressed;

/// The meaning of a stored message for the lanes.
#[derive(Debug)]
pub enum News {
    /// A lane has an open turn and needs a run.
    Wake(Lane),
    /// The lane's open turn has more messages.
    FollowUp(Lane),
    /// A person gave a command.
    Command(CommandRow),
    /// This `/stop` means the lane's open turn.
    Stop(Lane, MessageSeq),
    /// A question of the lane's open turn has its answer.
    Answered(Lane),
    /// The operator ends the boxes of a group.
    Renew(RenewalOrder),
    /// The question has no answer yet, and the turn waits at most this long.
    Suspended(Lane, Duration),
}

impl News {
    /// Returns the meaning of a stored message; `None` if it waits, is context or is a duplicate.
    pub fn of(accepted: Accepted) -> Option<Self> {
        let Accepted { seq, lane, chat, placement, .. } = accepted;
        match placement {
            Placement::NewTurn(_) => Some(Self::Wake(lane)),
            Placement::FollowUp(_) => Some(Self::FollowUp(lane)),
            Placement::Command(command) => {
                Some(Self::Command(CommandRow { seq, group: lane.group, chat, command }))
            }
            Placement::Waiting | Placement::Context | Placement::Duplicate => None,
        }
    }
}

/// The host quotes this many characters of the message that a message answers.
const QUOTE: usize = 500;

/// Reads a channel until the host drains.
pub async fn poll(
    services: Arc<Services>,
    channel: Arc<dyn Channel>,
    supervisor: UnboundedSender<News>,
    stop: CancellationToken,
) {
    let mut health = Health::of(&services, channel.name());
    health.starting().await;
    loop {
        // While the host cannot store messages, it does not ask for any: they wait at the platform.
        tokio::select! {
            () = services.intake_gate.opened() => {}
            () = stop.cancelled() => return,
        }
        // The host does not acknowledge what a cancelled read received; the channel delivers it again.
        let read = tokio::select! {
            read = read(&services, &channel, &mut health) => read,
            () = services.intake_gate.shut() => continue,
            () = stop.cancelled() => return,
        };
        let mut failed = false;
        let wait = match read {
            Ok((account, batch)) => {
                // The host acknowledges a batch only after it is stored. If that fails, the channel delivers the batch
                // again.
                match take_in(&services, channel.name(), account, batch, &supervisor).await {
                    Ok(()) => continue,
                    Err(e) => {
                        tracing::error!(channel = %channel.name(), code = e.code(), "messages wait at the platform: {e}");
                        STORE_AGAIN
                    }
                }
            }
            Err(NotRead::Store(e)) => {
                tracing::error!(channel = %channel.name(), code = e.code(), "where to read on is not known: {e}");
                STORE_AGAIN
            }
            Err(NotRead::Channel(e)) => {
                failed = true;
                health.failed(e).await
            }
        };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = channel.recovered(), if failed => {}
            () = stop.cancelled() => return,
        }
    }
}

/// Why there is no batch.
enum NotRead {
    Channel(ChannelError),
    Store(StoreError),
}

async fn read(
    services: &Services,
    channel: &Arc<dyn Channel>,
    health: &mut Health<'_>,
) -> Result<(String, Batch), NotRead> {
    failpoint!("channel.poll.before", |e| NotRead::Channel(ChannelError::Later {
        why: e.to_string(),
        code: "channel.failpoint",
        wait: Duration::from_millis(100),
    }));
    if let Some(why) = channel.not_linked() {
        health.not_linked(why).await;
        channel.linked().await;
        health.starting().await;
    }
    let account = channel.account().await.map_err(NotRead::Channel)?;
    health.answered(&account).await;
    let position =
        services.store.position(channel.name(), account.id.clone()).await.map_err(NotRead::Store)?;
    let batch = channel.next(position).await.map_err(NotRead::Channel)?;
    health.reads().await;
    for note in &batch.notes {
        health.note(note).await;
    }
    failpoint!("channel.poll.after");
    Ok((account.id, batch))
}

/// Takes in one batch: admits, stores, acknowledges and announces its messages.
async fn take_in(
    services: &Arc<Services>,
    channel: ChannelName,
    account: String,
    mut batch: Batch,
    supervisor: &UnboundedSender<News>,
) -> Result<(), StoreError> {
    let now = services.clock.wall();
    // This comes before admission: a message of the same batch may be from the chat's new id.
    follow_orders_and_events(services, &mut batch, supervisor, now).await?;
    let owners = owners(services).await?;
    let mut admitted = Vec::new();
    let mut strangers = Vec::new();
    let mut presses = Vec::new();
    let mut counts = batch.counts;
    let mut stored_as = Vec::with_capacity(batch.inbound.len());
    for inbound in batch.inbound {
        let inbound = cleaned(inbound);
        if let Some(press) = inbound.press.clone() {
            let (pressed, taken) = Pressed::admit(services, inbound, press, &owners, &mut counts).await?;
            presses.push(pressed);
            stored_as.push(taken.is_some().then_some(admitted.len()));
            admitted.extend(taken);
            continue;
        }
        let group = match group_of(services, &inbound).await? {
            Found::Group(group) => Some(*group),
            Found::Stranger => None,
            Found::Gone(group) => {
                tell_group_gone(services, &inbound, &group).await;
                stored_as.push(None);
                continue;
            }
        };
        match (admission::admit(&inbound, group.as_ref(), &owners), group) {
            (AdmissionDecision::Take(role), Some(group)) => {
                let (rules, group) = (group.sender_rules(), group.name);
                let most = services.install.file.host.attachment_bytes();
                let attachments = attachment_limits::offered(&inbound.attachments, most);
                // Whoever passes words on does not lend them a standing.
                let owner = inbound.origin.is_none() && owners.contains(&inbound.sender.id);
                let first =
                    (role == Role::Command(Command::New)).then(|| admission::first_of_session(&inbound));
                admitted.push(Admitted {
                    group: group.clone(),
                    role,
                    owner,
                    rules,
                    inbound,
                    attachments: attachments.clone(),
                });
                if let Some(inbound) = first.flatten() {
                    admitted.push(Admitted { group, role: Role::First, owner, rules, inbound, attachments });
                }
                stored_as.push(Some(admitted.len() - 1));
                continue;
            }
            (AdmissionDecision::Stranger, _) | (AdmissionDecision::Take(_), None) => {
                strangers.push(strangers::stranger(services, &inbound, &owners).await?)
            }
            (AdmissionDecision::Refuse(text), _) => {
                let word = format!("refused:{}", inbound.message_id);
                services.store.say(None, OutgoingText::notice(&inbound.chat, &word, text), now).await?;
                services.outbox_signal.notify();
            }
            (AdmissionDecision::Ignore(why), _) => tracing::debug!(chat = %inbound.chat, "ignored: {why}"),
        }
        stored_as.push(None);
    }
    for s in &strangers {
        tracing::info!(chat = %s.chat, code = "chat.unknown", "a chat that is not admitted wrote; `lazaret groups list` shows it");
    }
    let asked = !strangers.is_empty();
    let position = batch.position;
    let intake = Intake { channel, account, position, admitted, strangers, owners, counts, now };
    let accepted = services.store.accept(intake).await?;
    let seqs: Vec<Option<MessageSeq>> =
        stored_as.iter().map(|at| at.and_then(|at| accepted.get(at)).map(|a| a.seq)).collect();
    failpoint!("channel.committed.before");
    if let Some(committed) = batch.committed {
        // A channel that does not wait for this has dropped the receiver.
        let _ = committed.send(seqs);
    }
    failpoint!("channel.committed.after");
    if asked || accepted.iter().any(|one| one.refused) {
        services.outbox_signal.notify();
    }
    presses.into_iter().for_each(|pressed| pressed.answer(services));
    for one in accepted {
        announce(services, one, supervisor);
    }
    Ok(())
}

/// The owners that the settings name, those who were admitted, and whoever uses a local channel.
async fn owners(services: &Services) -> Result<Vec<SenderId>, StoreError> {
    let mut owners = services.install.owners.clone();
    owners.extend(services.store.owners().await?);
    owners.extend(services.channels.all().filter_map(|channel| channel.local_owner()));
    Ok(owners)
}

/// What a batch tells beside messages: the operator's orders, and what became of chats. The terminal does not repeat an
/// order, so orders come before what can fail.
async fn follow_orders_and_events(
    services: &Services,
    batch: &mut Batch,
    supervisor: &UnboundedSender<News>,
    now: WallMs,
) -> Result<(), StoreError> {
    for order in std::mem::take(&mut batch.renewals) {
        let _ = supervisor.send(News::Renew(order));
    }
    if batch.tasks_changed {
        services.tasks_signal.notify();
    }
    for event in &batch.events {
        if let ChatEvent::Admitted { group } = event
            && let Ok(Some(lane)) = waits(services, group.clone()).await
        {
            let _ = supervisor.send(News::Wake(lane));
        }
    }
    if !batch.events.is_empty() {
        batch.events.iter().for_each(tell_event);
        for moved in services.store.chat_events(std::mem::take(&mut batch.events), now).await? {
            tell_moved(services, &moved).await;
        }
        services.outbox_signal.notify();
    }
    Ok(())
}

/// The conversation of a group, if its open turn needs a run and does not wait for a person.
async fn waits(services: &Services, group: GroupName) -> Result<Option<Lane>, StoreError> {
    let lane = Lane::conversation(group);
    let open = services.store.open_turn(lane.clone()).await?.is_some();
    let asks = services.store.suspended().await?.iter().any(|suspended| suspended.lane == lane);
    Ok(Some(lane).filter(|_| open && !asks))
}

fn tell_event(event: &ChatEvent) {
    match event {
        // The store knows whether it concerns an admitted chat.
        ChatEvent::Moved { .. } => {}
        ChatEvent::Lost { chat, why } => tracing::warn!(%chat, code = "chat.lost", "{why}"),
        ChatEvent::Back { chat } => tracing::info!(%chat, "the bot is in this chat again"),
        ChatEvent::Admitted { group } => tracing::info!(%group, "a command has admitted a chat"),
    }
}

/// A person with another id is another person for every rule, so the operator hears how to change the rules.
async fn tell_moved(services: &Services, ChatMoved { from, to, kind, title }: &ChatMoved) {
    tracing::warn!(
        chat = %from, code = "chat.moved",
        "the platform has given this chat the id {to}; write that id where the settings name the old one"
    );
    if *kind == ChatKind::Direct {
        services.tell_operator(&format!("moved:{to}"), &text::person_moved(title, from, to)).await;
    }
}

/// Tells the operator once that a chat's group is gone. The message starts nothing.
async fn tell_group_gone(services: &Services, inbound: &Inbound, group: &GroupName) {
    tracing::warn!(chat = %inbound.chat, %group, code = "group.gone", "the chat's group has no folder");
    let told = text::group_gone(&inbound.chat, &inbound.title, group);
    services.tell_operator(&format!("gone:{group}:{}", inbound.chat), &told).await;
}

fn announce(services: &Services, one: Accepted, supervisor: &UnboundedSender<News>) {
    let turn = match &one.placement {
        Placement::NewTurn(turn) | Placement::FollowUp(turn) => Some(*turn),
        _ => None,
    };
    failpoint!("intake.announce.before");
    if one.placement == Placement::Duplicate {
        tracing::debug!(message = %one.seq, "the channel delivered it again");
    } else {
        services.store.stage(turn, Some(one.seq), None, "stored", services.clock.now());
    }
    if let Some(news) = News::of(one) {
        // The supervisor is gone only when the host ends, and the store keeps the message.
        let _ = supervisor.send(news);
    }
}

fn cleaned(mut inbound: Inbound) -> Inbound {
    inbound.text = clean(&inbound.text);
    inbound.title = text::label(&inbound.title);
    if let Some(reply) = &mut inbound.reply_to {
        reply.text = clean(&reply.text).chars().take(QUOTE).collect();
    }
    inbound
}
