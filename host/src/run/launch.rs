//! Makes and starts the box of a lane. Each step names what it needs. If a step fails, the run ends as never started,
//! with a reason that says what to do, and the host removes what it had made.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipc_schema::letters::ToAgent;
use ipc_schema::letters::to_agent::Begin;
use tokio::time::Instant;

use super::RunHandle;
use super::ensure_posture::{self, RunDirs, SandboxContext};
use super::gateway_session::GatewaySession;
use super::launch_error::LaunchError;
use super::session_folder;
use super::states::{Life, Turn};
use super::{Parts, READY_WITHIN, Run, SILENCE, build_letters};
use crate::domain::group_settings::Group;
use crate::domain::{ChatId, GroupName, Lane, RunId, Session, TurnId};
use crate::host_files::{self, shared_dir};
use crate::images::KeptImage;
use crate::mailbox::{Archive, RunMailbox};
use crate::policy::sandbox_plan::{ContainerSpec, ImageFacts, PlanInput, SECCOMP, Sources, plan};
use crate::sandbox::{BoxState, EngineError, check_source};
use crate::services::Services;
use crate::store::{BeginState, NewRun, letter_to_agent};
use crate::text::{self, Reader};
use crate::volumes::Volume;

/// How often the host looks for an earlier box of the lane, and how long it waits between two looks.
const REMOVALS: u32 = 20;
const REMOVAL: Duration = Duration::from_secs(1);

pub(super) async fn launch(services: &Arc<Services>, handle: &RunHandle) -> Result<Run, LaunchError> {
    let RunHandle { run, lane, .. } = handle;
    // The notice in the chat names the file, but not the place of the install on the server.
    let root = format!("{}/", services.install.root.path().display());
    let group = services.install.group(&lane.group);
    let group = group.map_err(|e| LaunchError::new(e.code(), e.in_brief().replace(&root, "")));
    let image_name = group.as_ref().map_or_else(|_| String::new(), |g| g.image.clone());
    let known = services.store.group(&lane.group, services.clock.wall()).await?;
    let state = services.store.begin_state(lane.clone()).await?;
    let turn = state.open.as_ref().map(|(open, _)| (open.turn, open.chat.clone()));
    let session = state.session.clone();
    let new = NewRun {
        run: run.clone(),
        lane: lane.clone(),
        session: session.name.clone(),
        image: image_name.clone(),
        runner: services.runner.digest.clone(),
        now: services.clock.wall(),
    };
    services.store.new_run(new).await?;
    let mut group = group?;
    match &state.model {
        Some(model) => group.model.model.clone_from(model),
        None => services.choose_model(&mut group).await,
    }
    stage(services, run, turn.as_ref(), "start");
    let image = image(services, &lane.group, &image_name, turn.as_ref().map(|(_, chat)| chat)).await?;
    let mut mailbox = open_mailbox(services, &group, lane, run, known.uid)?;
    let plan =
        Plan { services, lane, run, uid: known.uid, group: &group, session: session.clone(), state, image };
    let made = async {
        let (mut gateway, spec) = plan.prepare(&mut mailbox).await?;
        gateway.open_turn.send_replace(turn.as_ref().map(|(turn, _)| *turn));
        match start(services, handle, &group, &spec, turn.as_ref()).await {
            Ok(container) => Ok((gateway, container)),
            Err(e) => {
                gateway.close();
                Err(remove_unstarted(services, &spec, e).await)
            }
        }
    };
    let (gateway, container) = match made.await {
        Ok(made) => made,
        Err(e) => {
            mailbox.remove();
            return Err(e);
        }
    };
    let now = Instant::now();
    let life = Life::Starting { ready_by: now + READY_WITHIN };
    let turn = turn.map(|(id, chat)| Turn::open(id, chat, false, now + SILENCE));
    let session = session.name;
    Ok(Run::new(services, handle, Parts { group, session, container, mailbox, gateway, life, turn }))
}

fn stage(services: &Services, run: &RunId, turn: Option<&(TurnId, ChatId)>, name: &'static str) {
    services.store.stage(turn.map(|(turn, _)| *turn), None, Some(run), name, services.clock.now());
}

/// Returns the image of the run. If the settings name another image that failed its check, the host tells the operator
/// once and the run uses the earlier one.
async fn image(
    services: &Services,
    group: &GroupName,
    wanted: &str,
    chat: Option<&ChatId>,
) -> Result<ImageFacts, LaunchError> {
    let image = services.images.for_run(group, wanted).await?;
    if let Some(KeptImage { name, why, serves }) = image.kept {
        let key = format!("image:{}", services.clock.wall().0);
        match (Reader::of(group), chat) {
            (Reader::Operator, Some(chat)) => {
                services.notice(chat, &key, text::image_kept(&name, &why, &serves)).await;
            }
            (Reader::Operator, None) => {}
            // The agent answers as before, so its chats need no word about it.
            (Reader::Member, _) => {
                let told = text::group_keeps_image(group, &name, &why, &serves);
                services.tell_operator(&key, &told).await;
            }
        }
    }
    Ok(image.facts)
}

/// What the host needs before it makes a box.
struct Plan<'a> {
    services: &'a Arc<Services>,
    lane: &'a Lane,
    run: &'a RunId,
    uid: u32,
    group: &'a Group,
    session: Session,
    state: BeginState,
    image: ImageFacts,
}

impl Plan<'_> {
    /// Makes the directories, the first letter and the socket, and checks that the posture holds.
    async fn prepare(self, mailbox: &mut RunMailbox) -> Result<(GatewaySession, ContainerSpec), LaunchError> {
        let Self { services, lane, run, uid, group, session, state, image } = self;
        failpoint!("run.launch.mailbox");
        for mount in &group.mounts {
            check_source(&mount.source)?;
        }
        // An earlier box of the lane may write the files that the next step moves.
        remove_earlier(services, lane).await?;
        let dirs = RunDirs::below(mailbox.dir());
        let of = BoxOf { lane, run, uid, session: &session };
        let spec = spec_of(services.as_ref().into(), &of, group, image, dirs).await?;
        take_over_session(services, group, &session).await?;
        ensure_posture::ensure_posture(services, &spec, group, uid).await?;
        let (letter, left_out) = build_letters::begin(services, lane, group, state);
        if !left_out.is_empty() {
            tell_left_out(services, &letter, &left_out).await;
        }
        write_begin(services, run, mailbox, letter).await?;
        failpoint!("run.launch.begin");
        let gateway = GatewaySession::open(services, lane, run, group, mailbox)?;
        failpoint!("run.launch.socket");
        Ok((gateway, spec))
    }
}

/// Whose box it is.
#[derive(Debug, Clone, Copy)]
pub struct BoxOf<'a> {
    pub lane: &'a Lane,
    pub run: &'a RunId,
    pub uid: u32,
    /// The session that it continues.
    pub session: &'a Session,
}

/// Builds the specification of the box of a group's next run.
///
/// # Errors
/// Something cannot be made, or no box can have this specification.
pub async fn spec_of(
    context: SandboxContext<'_>,
    of: &BoxOf<'_>,
    group: &Group,
    image: ImageFacts,
    dirs: RunDirs,
) -> Result<ContainerSpec, LaunchError> {
    let BoxOf { lane, run, uid, session } = *of;
    let sources = sources(context, group, session, dirs, &image, uid).await?;
    Ok(plan(&PlanInput {
        install: context.id.to_owned(),
        run: run.clone(),
        lane: lane.clone(),
        uid,
        gid: context.gid,
        image,
        runner: context.runner.digest.clone(),
        foreign_runner: group.runner.clone(),
        sources,
        extra: group.mounts.clone(),
        limits: group.limits.clone(),
        seccomp: SECCOMP.to_owned(),
        zone: group.zone.name().to_owned(),
        runtime: group.runtime.clone(),
    })?)
}

/// Makes the container, starts it, and returns the engine's id of it.
async fn start(
    services: &Services,
    handle: &RunHandle,
    group: &Group,
    spec: &ContainerSpec,
    turn: Option<&(TurnId, ChatId)>,
) -> Result<String, LaunchError> {
    let (run, engine) = (&handle.run, &services.engine);
    let container = engine.create(spec).await.map_err(|e| LaunchError::of_engine(group, e))?;
    stage(services, run, turn, "created");
    if let Err(e) = services.store.run_container(run.clone(), container.clone()).await {
        tracing::warn!(%run, code = e.code(), "the box's id was not noted: {e}");
    }
    failpoint!("run.launch.noted");
    engine.start(&container).await.map_err(|e| LaunchError::of_engine(group, e))?;
    stage(services, run, turn, "started");
    Ok(container)
}

/// Removes the box after a failed start. An engine that did not answer may still have made it, so the host removes it
/// by its name.
async fn remove_unstarted(services: &Services, spec: &ContainerSpec, mut error: LaunchError) -> LaunchError {
    if let Err(e) = services.engine.remove(&spec.name).await {
        tracing::warn!(container = spec.name, code = e.code(), "a box that did not start stays for now: {e}");
        error.box_may_exist = true;
    }
    error
}

/// Removes an earlier box of the lane that could not be removed in time because the engine was away or hung. Two boxes
/// of a lane would write one transcript. An answer that a removal is in progress is not enough: the host waits until
/// the engine no longer lists the box.
async fn remove_earlier(services: &Services, lane: &Lane) -> Result<(), EngineError> {
    let engine = &services.engine;
    for _ in 0..REMOVALS {
        let mut alive = false;
        for earlier in engine.boxes_of_lane(&services.id, lane).await? {
            tracing::warn!(run = earlier.run, %lane, "an earlier box of this lane is removed");
            let removed = engine.remove(&earlier.container).await;
            match engine.state(&earlier.container).await? {
                BoxState::Absent => {}
                // This box no longer writes anything, so the host leaves it to the reaper.
                BoxState::Ended(_) | BoxState::Created => {
                    let why =
                        removed.err().map_or_else(|| "its removal goes on".to_owned(), |e| e.to_string());
                    tracing::warn!(run = earlier.run, "what is left of an earlier box stays for now: {why}");
                }
                BoxState::Running | BoxState::Paused => {
                    removed?;
                    alive = true;
                }
            }
        }
        if !alive {
            return Ok(());
        }
        tokio::time::sleep(REMOVAL).await;
    }
    Err(EngineError::Hangs {
        what: "remove an earlier box of the lane",
        seconds: u64::from(REMOVALS) * REMOVAL.as_secs(),
    })
}

fn open_mailbox(
    services: &Services,
    group: &Group,
    lane: &Lane,
    run: &RunId,
    uid: u32,
) -> Result<RunMailbox, LaunchError> {
    let root = &services.install.root;
    let archive =
        Archive::open(&root.letters(&lane.group, run)).map_err(|e| LaunchError::new("letters.dir", e))?;
    let parent = root.ipc().join(lane.group.as_str());
    host_files::dir(&parent, 0o700)
        .map_err(|e| LaunchError::new("mailbox.dir", format!("{}: {e}", parent.display())))?;
    let dir = root.run_ipc(&lane.group, run);
    Ok(services.mailbox.open(&dir, run.clone(), uid, group.limits.letters(), archive)?)
}

/// Makes the group's directories, which the host shares with the box by the group id.
async fn sources(
    context: SandboxContext<'_>,
    group: &Group,
    session: &Session,
    dirs: RunDirs,
    image: &ImageFacts,
    uid: u32,
) -> Result<Sources, LaunchError> {
    let root = &context.install.root;
    let [workspace, session] = writable(context, group, session).await?;
    let made = |path: PathBuf, mode: u32| {
        shared_dir(&path, context.gid, mode)
            .map(|()| path.clone())
            .map_err(|e| LaunchError::new("state.dir", format!("{} cannot be made: {e}", path.display())))
    };
    let passwd_dir = root.passwd();
    host_files::dir(&passwd_dir, 0o700)
        .map_err(|e| LaunchError::new("state.dir", format!("{}: {e}", passwd_dir.display())))?;
    let passwd = context.engine.passwd(context.id, image, uid, context.gid, &passwd_dir).await?;
    Ok(Sources {
        runner: context.runner.dir.clone(),
        to_agent: dirs.to_agent,
        from_agent: dirs.from_agent,
        socket: dirs.socket,
        session,
        workspace,
        inbox: made(root.inbox(&group.name), 0o2750)?,
        global: made(root.global(), 0o2770)?,
        passwd,
    })
}

/// Makes the two directories that a box can fill: the group's workspace, and its session's folder among the
/// transcripts. Workspace and transcripts are each a file system of its own where the settings say so.
async fn writable(
    context: SandboxContext<'_>,
    group: &Group,
    session: &Session,
) -> Result<[PathBuf; 2], LaunchError> {
    let (root, gid, limits) = (&context.install.root, context.gid, group.limits.clone());
    let volumes = root.volumes_of(&group.name).map(Volume::from);
    let [workspace, sessions] = volumes.clone().map(|volume| volume.dir);
    let session = session.clone();
    let made = host_files::blocking(move || {
        for (volume, limit) in volumes.iter().zip([limits.workspace(), limits.session()]) {
            let mounted =
                if limits.disk_images { volume.ensure_mounted(limit, gid) } else { volume.check_absent() };
            mounted.map_err(|e| LaunchError::new(e.code(), e))?;
            if !limits.disk_images {
                shared_dir(&volume.dir, gid, 0o2770).map_err(|e| {
                    LaunchError::new("state.dir", format!("{} cannot be made: {e}", volume.dir.display()))
                })?;
            }
        }
        let session = session_folder::make(&sessions, &session, gid).map_err(|e| {
            LaunchError::new(
                "state.dir",
                format!("{}/{} cannot be made: {e}", sessions.display(), session.name),
            )
        })?;
        Ok([workspace, session])
    });
    // The error must not tell the place of the install.
    let place = format!("{}/", root.path().display());
    made.await.map_err(|e: LaunchError| LaunchError { why: e.why.replace(&place, ""), ..e })
}

/// Moves a transcript that an earlier version left among those of other sessions.
async fn take_over_session(services: &Services, group: &Group, session: &Session) -> Result<(), LaunchError> {
    if !session.begun {
        return Ok(());
    }
    let (sessions, name) = (services.install.root.sessions(&group.name), session.name.clone());
    let moved = host_files::blocking(move || session_folder::take_over(&sessions, &name)).await;
    failpoint!("run.session.taken");
    moved.map_err(|e| {
        LaunchError::new("state.dir", format!("the transcript {} cannot be moved: {e}", session.name))
    })
}

/// Tells the operator, once for the same texts, what an agent starts without.
async fn tell_left_out(services: &Services, begin: &Begin, left_out: &[&str]) {
    let what = left_out.join(", ");
    tracing::warn!(group = %begin.group, code = "begin.shortened", "the agent starts without {what}");
    let texts = [&begin.claude_md_global, &begin.claude_md_group].into_iter().flatten();
    let digests: String = texts.map(|text| text.sha256.as_str()).collect();
    let key =
        format!("begin:{}:{}", begin.group, ipc_schema::sha256_hex(format!("{what}{digests}").as_bytes()));
    services.tell_operator(&key, &text::begin_shortened(&begin.group, left_out)).await;
}

async fn write_begin(
    services: &Services,
    run: &RunId,
    mailbox: &mut RunMailbox,
    body: Begin,
) -> Result<(), LaunchError> {
    let (id, at) = (run.clone(), services.clock.wall());
    let build = move |n| letter_to_agent(&id, None, n, 0, at, ToAgent::Begin(Box::new(body))).to_bytes();
    let letter = services.store.add_letter(run.clone(), None, "begin", at, build).await?;
    mailbox.write(&letter.name, &letter.bytes).map(drop).map_err(|e| LaunchError::new("ipc.write", e))
}
