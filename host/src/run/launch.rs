//! From nothing to a started box. Each step names what it needs; the first that fails ends the run as never started,
//! with a reason that says what to do.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedSender;
use tokio::time::Instant;

use super::gateway_session::Gate;
use super::probe::{self, Ground, Walls};
use super::{Owed, READY_WITHIN, Run, begin};
use crate::disk::shared_dir;
use crate::dispatch::{Event, RunNo};
use crate::domain::group::Group;
use crate::domain::image::Named;
use crate::domain::{ChatId, GroupName, Lane, RunId};
use crate::images::ImageError;
use crate::mailbox::{Archive, RunBox};
use crate::policy::log_limiter::LogLimiter;
use crate::policy::mounts::MountError;
use crate::policy::sandbox_plan::{ContainerSpec, ImageFacts, PlanInput, SECCOMP, Sources, plan};
use crate::policy::turn_quota::Tally;
use crate::sandbox::{BoxState, EngineError, check_source};
use crate::services::Services;
use crate::store::{BeginState, NewRun, Patience};
use crate::text;
use crate::volumes::Volume;
use ipc_schema::ToAgentLetter;
use ipc_schema::letters::ToAgent;

/// So often an earlier box of the lane is looked for, and after so long each time.
const REMOVALS: u32 = 20;
const REMOVAL: Duration = Duration::from_secs(1);

/// Why there is no box, or no wall around it.
#[derive(Debug)]
pub struct Never {
    /// The machine's word.
    pub code: &'static str,
    /// The reason with what to do, for a person.
    pub why: String,
    /// Whether the engine may still have a box of it.
    pub left: bool,
}

impl Never {
    pub(super) fn new(code: &'static str, why: impl ToString) -> Self {
        Self { code, why: why.to_string(), left: false }
    }
}

/// Makes and starts the box of a lane.
pub(super) async fn born(
    services: &Arc<Services>,
    lane: &Lane,
    run: &RunId,
    no: RunNo,
    events: &UnboundedSender<Event>,
) -> Result<Run, Never> {
    // The chat is told which file; where the host keeps its install is none of its business.
    let root = format!("{}/", services.install.root.path().display());
    let group = services.install.group(&lane.group);
    let group = group.map_err(|e| Never::new(e.code(), e.to_string().replace(&root, "")));
    let image_name = group.as_ref().map_or_else(|_| String::new(), |g| g.image.clone());
    let known = services
        .store
        .group(&lane.group, services.clock.wall())
        .await
        .map_err(|e| Never::new(e.code(), e))?;
    let session = known.session_of(lane);
    let new = NewRun {
        run: run.clone(),
        lane: lane.clone(),
        session: session.clone(),
        image: image_name.clone(),
        now: services.clock.wall(),
    };
    services.store.new_run(new).await.map_err(|e| Never::new(e.code(), e))?;
    let group = group?;

    let state = services.store.begin_state(lane.clone()).await.map_err(|e| Never::new(e.code(), e))?;
    let turn = state.open.as_ref().map(|(open, _)| (open.turn, open.chat.clone()));
    let stage = |name| {
        services.store.stage(turn.as_ref().map(|(t, _)| *t), None, Some(run), name, services.clock.now());
    };
    stage("start");
    let image = image(services, &lane.group, &image_name, turn.as_ref().map(|(_, chat)| chat)).await?;
    let mut wall = open_wall(services, &group, lane, run, known.uid)?;
    let newborn = Newborn { services, lane, run, uid: known.uid, group: &group, session, state, image };
    let (gate, spec) = match newborn.furnish(&mut wall).await {
        Ok(furnished) => furnished,
        Err(never) => {
            wall.remove();
            return Err(never);
        }
    };
    gate.open_turn.send_replace(turn.as_ref().map(|(t, _)| *t));
    let last_chat = turn.as_ref().map(|(_, chat)| chat.clone());
    let box_run = Run {
        services: Arc::clone(services),
        no,
        run: run.clone(),
        lane: lane.clone(),
        group,
        container: spec.name.clone(),
        wall,
        events: events.clone(),
        turn: turn.clone(),
        gate,
        ready: false,
        deadline: None,
        interrupted: None,
        close_asked: false,
        killed: None,
        die_at: None,
        failed: None,
        suspend_at: None,
        fetching: None,
        patience: Patience::Whole,
        reads: None,
        fed: 0,
        owed: Owed::default(),
        tally: Tally::default(),
        telling: LogLimiter::default(),
        last_chat,
        reclaim: None,
        before: Vec::new(),
    };
    start(box_run, &spec, &stage).await
}

/// The image of the run. Where another one was named and did not pass, the chat is told once, and the run goes on.
async fn image(
    services: &Services,
    group: &GroupName,
    wanted: &str,
    chat: Option<&ChatId>,
) -> Result<ImageFacts, Never> {
    let image = services.images.for_run(group, wanted).await.map_err(|e| Never::new(e.code(), e))?;
    if let (Some(kept), Some(chat)) = (image.kept, chat) {
        let text = text::image_kept(&kept.name, &kept.why, &kept.serves);
        services.notice(chat, &format!("image:{}", services.clock.wall().0), text).await;
    }
    Ok(image.facts)
}

/// What a box needs before it is made.
struct Newborn<'a> {
    services: &'a Arc<Services>,
    lane: &'a Lane,
    run: &'a RunId,
    uid: u32,
    group: &'a Group,
    session: String,
    state: BeginState,
    image: ImageFacts,
}

impl Newborn<'_> {
    /// Sockets, directories, the first letter, and the plan of the box.
    async fn furnish(self, wall: &mut RunBox) -> Result<(Gate, ContainerSpec), Never> {
        let Self { services, lane, run, uid, group, session, state, image } = self;
        failpoint!("run.born.wall");
        for mount in &group.mounts {
            check_source(&mount.source).map_err(|e| Never::new(e.code(), e))?;
        }
        let spec =
            spec_of(services.as_ref().into(), lane, run, uid, group, image, Walls::below(wall.dir())).await?;
        probe::held(services, &spec, group, uid).await?;
        let letter = begin::begin(services, lane, session, group, state);
        write_begin(services, run, wall, letter).await?;
        failpoint!("run.born.begin");
        let gate = Gate::open(services, lane, run, group, wall)?;
        failpoint!("run.born.socket");
        Ok((gate, spec))
    }
}

/// The box of a group's next run, as a value.
///
/// # Errors
/// What cannot be made, or cannot be a box.
pub async fn spec_of(
    ground: Ground<'_>,
    lane: &Lane,
    run: &RunId,
    uid: u32,
    group: &Group,
    image: ImageFacts,
    walls: Walls,
) -> Result<ContainerSpec, Never> {
    let sources = sources(ground, group, walls, &image, uid).await?;
    plan(&PlanInput {
        install: ground.id.to_owned(),
        run: run.clone(),
        lane: lane.clone(),
        uid,
        gid: ground.gid,
        image,
        runner: ground.runner.digest.clone(),
        sources,
        extra: group.mounts.clone(),
        limits: group.limits.clone(),
        seccomp: SECCOMP.to_owned(),
        zone: group.zone.name().to_owned(),
        runtime: group.runtime.clone(),
    })
    .map_err(|e| Never::new(e.code(), &e))
}

async fn start(mut run: Run, spec: &ContainerSpec, stage: &impl Fn(&'static str)) -> Result<Run, Never> {
    let engine = run.services.engine.clone();
    if let Err(e) = remove_earlier(&run).await {
        return Err(run.unborn(Never::new(e.code(), e)).await);
    }
    match engine.create(spec).await {
        Ok(container) => run.container = container,
        Err(e) => {
            let never = of_what_went(&run.group, e);
            return Err(run.unborn(never).await);
        }
    }
    stage("created");
    let noted = run.services.store.run_container(run.run.clone(), run.container.clone()).await;
    if let Err(e) = noted {
        tracing::warn!(run = %run.run, code = e.code(), "the box's id was not noted: {e}");
    }
    failpoint!("run.born.noted");
    if let Err(e) = engine.start(&run.container).await {
        let never = of_what_went(&run.group, e);
        return Err(run.unborn(never).await);
    }
    stage("started");
    run.deadline = Some(Instant::now() + READY_WITHIN);
    Ok(run)
}

/// The image, or a mount of the settings, may have been removed between the check and the box: the error then names the
/// setting.
pub(super) fn of_what_went(group: &Group, e: EngineError) -> Never {
    match e {
        EngineError::NoImage { .. } => {
            let image = Named { name: group.image.clone(), id: String::new() };
            let gone = ImageError::Gone { group: group.name.clone(), image };
            Never::new(gone.code(), gone)
        }
        EngineError::NoMountSource { path, .. } if group.mounts.iter().any(|m| m.source == path) => {
            let gone = MountError::Gone { source_path: path };
            Never::new(gone.code(), gone)
        }
        e => Never::new(e.code(), e),
    }
}

/// Two boxes of a lane would write one transcript. An earlier box that could not be removed in its time (the engine
/// was away, or hung) goes now, before the next one is made. A removal that is under way already is no answer: the
/// box is gone when it is listed no more.
async fn remove_earlier(run: &Run) -> Result<(), EngineError> {
    let engine = &run.services.engine;
    for _ in 0..REMOVALS {
        let mut alive = false;
        for earlier in engine.boxes_of_lane(&run.services.id, &run.lane).await? {
            tracing::warn!(run = earlier.run, lane = %run.lane, "an earlier box of this lane is removed");
            let removed = engine.remove(&earlier.container).await;
            match engine.state(&earlier.container).await? {
                BoxState::Absent => {}
                // It writes nothing any more; the reaper has it.
                BoxState::Ended(_) | BoxState::Created => {
                    tracing::warn!(run = earlier.run, "what is left of an earlier box stays: {removed:?}");
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

impl Run {
    /// Takes back what was made for a box that did not start. An engine that gave no answer may have made it all the
    /// same: it is removed by its name then.
    async fn unborn(self, mut never: Never) -> Never {
        self.gate.close();
        if let Err(e) = self.services.engine.remove(&self.container).await {
            tracing::warn!(run = %self.run, code = e.code(), "a box that did not start stays for now: {e}");
            never.left = true;
        }
        self.wall.remove();
        never
    }
}

fn open_wall(
    services: &Services,
    group: &Group,
    lane: &Lane,
    run: &RunId,
    uid: u32,
) -> Result<RunBox, Never> {
    let root = &services.install.root;
    let archive = Archive::open(&root.letters(&lane.group, run)).map_err(|e| Never::new("letters.dir", e))?;
    let parent = root.ipc().join(lane.group.as_str());
    shared_dir(&parent, services.gid, 0o2750)
        .map_err(|e| Never::new("mailbox.dir", format!("{}: {e}", parent.display())))?;
    let dir = root.run_ipc(&lane.group, run);
    services
        .mailbox
        .open(&dir, run.clone(), uid, group.limits.letters(), archive)
        .map_err(|e| Never::new(e.code(), e))
}

/// The group's directories, made by the host and shared with the box by the group id.
async fn sources(
    ground: Ground<'_>,
    group: &Group,
    walls: Walls,
    image: &ImageFacts,
    uid: u32,
) -> Result<Sources, Never> {
    let root = &ground.install.root;
    let [workspace, session] = filled(ground, group).await?;
    let made = |path: PathBuf, mode: u32| {
        shared_dir(&path, ground.gid, mode)
            .map(|()| path.clone())
            .map_err(|e| Never::new("state.dir", format!("{} cannot be made: {e}", path.display())))
    };
    let passwd_dir = made(root.passwd(), 0o2750)?;
    let passwd = ground
        .engine
        .passwd(ground.id, image, uid, ground.gid, &passwd_dir)
        .await
        .map_err(|e| Never::new(e.code(), e))?;
    Ok(Sources {
        runner: ground.runner.dir.clone(),
        to_agent: walls.to_agent,
        from_agent: walls.from_agent,
        socket: walls.socket,
        session,
        workspace,
        inbox: made(root.inbox(&group.name), 0o2750)?,
        global: made(root.global(), 0o2770)?,
        passwd,
    })
}

/// The two that a box fills: each a file system of its own where the settings say so.
async fn filled(ground: Ground<'_>, group: &Group) -> Result<[PathBuf; 2], Never> {
    let (root, gid, limits) = (&ground.install.root, ground.gid, group.limits.clone());
    let volumes = root.volumes_of(&group.name).map(Volume::from);
    let dirs = volumes.clone().map(|volume| volume.dir);
    let had = tokio::task::spawn_blocking(move || {
        for (volume, limit) in volumes.iter().zip([limits.workspace(), limits.session()]) {
            let had =
                if limits.disk_images { volume.ensure_mounted(limit, gid) } else { volume.check_absent() };
            had.map_err(|e| Never::new(e.code(), e))?;
            if !limits.disk_images {
                shared_dir(&volume.dir, gid, 0o2770).map_err(|e| {
                    Never::new("state.dir", format!("{} cannot be made: {e}", volume.dir.display()))
                })?;
            }
        }
        Ok(())
    });
    let had = had.await.unwrap_or_else(|e| Err(Never::new("disk.image", e)));
    // As with the group's file: where the install is kept is not told.
    let place = format!("{}/", root.path().display());
    had.map_err(|never: Never| Never { why: never.why.replace(&place, ""), ..never })?;
    Ok(dirs)
}

async fn write_begin(
    services: &Services,
    run: &RunId,
    wall: &mut RunBox,
    body: ipc_schema::letters::to_agent::Begin,
) -> Result<(), Never> {
    let (id, at) = (run.clone(), services.clock.wall());
    let letter = services
        .store
        .add_letter(run.clone(), None, "begin", at, move |n| {
            let body = ToAgent::Begin(Box::new(body));
            let id_of = ipc_schema::LetterId::of_host(n);
            ToAgentLetter { id: id_of, run: id, turn: None, n, ack: 0, at: at.rfc3339(), body }.to_bytes()
        })
        .await
        .map_err(|e| Never::new(e.code(), e))?;
    wall.write(&letter.name, &letter.bytes).map(drop).map_err(|e| Never::new("ipc.write", e))
}
