//! Builds the letters that give the agent its work: `begin`, and the input of a turn. It does no I/O except that it
//! reads the personality files.

use ipc_schema::letters::ToAgent;
use ipc_schema::letters::to_agent as letter;
use ipc_schema::names_and_paths::box_path;
use ipc_schema::{Refusal, RunId};

use crate::channels::Channel;
use crate::config::personality_file::{self, Personality};
use crate::config::zone_data;
use crate::domain::group_settings::Group;
use crate::domain::message::{Command, ReplyTo, StoredMessage};
use crate::domain::task::{AgentWork, FROM_FILE, Work};
use crate::domain::{ChatKind, Lane, WallMs, Zone};
use crate::policy::{heartbeats, letter_room};
use crate::services::Services;
use crate::store::{BeginState, FireInput, InputState, letter_to_agent};
use crate::text::{label, quoted_name, unambiguous_name};

/// Builds `begin` of a run. Returns also what the agent starts without, because it does not fit into the letter.
pub(super) fn begin(
    services: &Services,
    lane: &Lane,
    group: &Group,
    state: BeginState,
) -> (letter::Begin, Vec<&'static str>) {
    let text = |path: &std::path::Path| {
        personality_file::read(path).unwrap_or_else(|why| {
            tracing::warn!(code = "config.personality", "the turn goes on without it: {why}");
            None
        })
    };
    let root = &services.install.root;
    let (shared, own) = (text(&root.global_personality()), text(&root.personality(&lane.group)));
    let is_cut = |text: &Option<Personality>| text.as_ref().is_some_and(|text| text.cut);
    let cut = [(is_cut(&shared), "the end of global/CLAUDE.md"), (is_cut(&own), "the end of its CLAUDE.md")];
    let seconds = |d: std::time::Duration| u32::try_from(d.as_secs()).unwrap_or(u32::MAX);
    let limits = &group.limits;
    let mut begin = letter::Begin {
        minor: ipc_schema::MINOR,
        group: lane.group.clone(),
        lane: lane.kind.to_string(),
        main: lane.group.is_main(),
        session: state.session.name.clone(),
        persona: group.persona.clone(),
        model: letter::Model {
            name: group.model.model.clone(),
            provider: Some(group.model.provider.clone()),
            max_tokens: group.model.max_tokens,
            window: group.model.window,
            no_images: !group.model.images,
        },
        limits: letter::Limits {
            model_calls: limits.model_calls,
            turn_s: seconds(limits.turn.0),
            command_s: seconds(limits.command.0),
            command_max_s: seconds(limits.command_max.0),
            output_bytes: limits.output_bytes,
            requests: limits.requests,
            compaction_percent: 80,
        },
        tools: group.tools.clone(),
        files: any_of_chat(services, &state, |channel| channel.takes_files()),
        reactions: any_of_chat(services, &state, |channel| channel.reacts()),
        allowed: state.allowed,
        network: "There is no network here: egress is off for this group, and this version of Lazaret opens no way out of a box.".to_owned(),
        zone: group.zone.name().to_owned(),
        claude_md_global: shared.map(|personality| personality.text),
        claude_md_group: own.map(|personality| personality.text),
        open: state.open.map(|(open, consumed)| letter::OpenTurn { turn: open.turn, consumed }),
        closed: state.closed,
    };
    let mut left_out = letter_room::fit_begin(&mut begin);
    let cut = cut.into_iter().filter_map(|(is_cut, what)| is_cut.then_some(what));
    left_out.extend(cut.filter(|what| !left_out.contains(what)).collect::<Vec<_>>());
    (begin, left_out)
}

/// Returns whether the channel of the open turn's chat can do something; between turns, whether any channel can. Each
/// request checks again and decides.
fn any_of_chat(services: &Services, state: &BeginState, can: impl Fn(&dyn Channel) -> bool) -> bool {
    match &state.open {
        Some((open, _)) => services.channels.of(&open.chat).is_some_and(|channel| can(&*channel)),
        None => services.channels.all().any(|channel| can(&**channel)),
    }
}

/// Builds an input letter.
pub(super) fn input_letter(
    run: &RunId,
    n: u64,
    ack: u64,
    at: WallMs,
    group: &Group,
    state: InputState,
) -> Result<Vec<u8>, Refusal> {
    let kind = match state.kind {
        ChatKind::Direct => letter::ChatKind::Direct,
        ChatKind::Room => letter::ChatKind::Room,
    };
    let message = |m| message(m, group);
    let input = letter::Input {
        chat: letter::Chat { id: state.chat.to_string(), kind, title: label(&state.title) },
        messages: state.messages.into_iter().map(message).collect(),
        context_omitted: state.omitted,
        fire: state.fire.map(fire),
    };
    letter_to_agent(run, Some(state.turn), n, ack, at, ToAgent::Input(input)).to_bytes()
}

fn fire(given: FireInput) -> letter::Fire {
    let FireInput { fire, task, planned, late } = given;
    let zone = zone_data::get(&task.zone).unwrap_or_else(Zone::utc);
    let work = match task.work {
        Work::Agent(work) => work,
        Work::Remind => AgentWork::default(),
    };
    letter::Fire {
        id: fire.to_string(),
        task: task.id.to_string(),
        name: label(&task.name),
        prompt: if task.origin.by == FROM_FILE { heartbeats::for_agent(&task.prompt) } else { task.prompt },
        planned: planned.local(&zone),
        late,
        silent: work.silent,
        gate: work.gate,
        model_calls: work.model_calls,
    }
}

/// The order to the runner in a message, if admission took it as one: its sender's own words, in their first version.
fn order(m: &StoredMessage) -> Option<letter::Order> {
    let alone = Command::words_after(&m.text).trim().is_empty() && m.attachments.is_empty();
    let own = m.wakes && m.origin.is_none() && m.version == 0 && alone;
    Command::of(&m.text).filter(|_| own)?.order()
}

fn message(m: StoredMessage, group: &Group) -> letter::Message {
    let order = order(&m);
    let name = if m.owner {
        label(&m.sender_name)
    } else {
        unambiguous_name(&m.sender_name, &group.persona, m.name)
    };
    let quote = |r: ReplyTo| letter::Quote { from: quoted_name(&r.from, m.quoted_name), text: r.text };
    letter::Message {
        id: m.seq,
        wakes: m.wakes,
        from: letter::Person { id: m.sender_id, name, owner: m.owner },
        at: m.at.local(&group.zone),
        text: m.text,
        forwarded_from: m.origin.map(|origin| label(&origin)),
        edited: m.version > 0,
        reply_to: m.reply_to.map(quote),
        attachments: m
            .attachments
            .into_iter()
            .map(|a| letter::Attachment {
                path: a.file.map(|file| format!("{}/{file}", box_path::INBOX)),
                name: label(&a.name),
                mime: a.mime,
                bytes: a.bytes,
                problem: a.problem,
                transcript: a.transcript,
                no_transcript: a.no_transcript,
            })
            .collect(),
        order,
    }
}
