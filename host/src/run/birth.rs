//! From nothing to a started box. Each step names what it needs; the first that fails ends the run as never started,
//! with a reason that says what to do.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{Run, begin};
use crate::dispatch::{Event, RunNo};
use crate::domain::group::Group;
use crate::domain::{Lane, RunId};
use crate::gateway::{self, RunScope};
use crate::mailbox::{Archive, RunBox, shared_dir};
use crate::parts::Parts;
use crate::policy::sandbox_plan::{ImageFacts, PlanInput, Sources, plan};
use crate::sandbox::EngineError;
use crate::store::NewRun;
use ipc_schema::ToAgentLetter;
use ipc_schema::layout::GATEWAY_SOCKET;
use ipc_schema::letters::ToAgent;

/// The engine's own default allows more than a box needs; ours is part of the posture.
const SECCOMP: &str = include_str!("../../../container/seccomp.json");

/// Why there is no box.
pub(super) struct Never {
    pub(super) code: &'static str,
    pub(super) why: String,
}

impl Never {
    fn new(code: &'static str, why: impl ToString) -> Self {
        Self { code, why: why.to_string() }
    }
}

/// Makes and starts the box of a lane.
pub(super) async fn born(
    parts: &Arc<Parts>,
    lane: &Lane,
    run: &RunId,
    no: RunNo,
    events: &UnboundedSender<Event>,
) -> Result<Run, Never> {
    // The chat is told which file; where the host keeps its install is none of its business.
    let root = format!("{}/", parts.install.root.path().display());
    let group = parts.install.group(&lane.group);
    let group = group.map_err(|e| Never::new(e.code(), e.to_string().replace(&root, "")));
    let image_name = group.as_ref().map_or_else(|_| String::new(), |g| g.image.clone());
    let known =
        parts.store.group(&lane.group, parts.clock.wall()).await.map_err(|e| Never::new(e.code(), e))?;
    let session = format!("{}-{}", lane.kind, known.session);
    let new = NewRun {
        run: run.clone(),
        lane: lane.clone(),
        session: session.clone(),
        image: image_name.clone(),
        now: parts.clock.wall(),
    };
    parts.store.new_run(new).await.map_err(|e| Never::new(e.code(), e))?;
    let group = group?;

    let state = parts.store.begin_state(lane.clone()).await.map_err(|e| Never::new(e.code(), e))?;
    let turn = state.open.as_ref().map(|(open, _)| (open.turn, open.chat.clone()));
    let stage = |name| {
        parts.store.stage(turn.as_ref().map(|(t, _)| *t), None, Some(run), name, parts.clock.now());
    };
    stage("start");
    let image = parts.engine.image(&image_name).await.map_err(|e| Never::new(e.code(), e))?;
    let wall = open_wall(parts, lane, run, known.uid)?;
    failpoint!("run.born.wall");
    let sources = sources(parts, lane, &wall, &image, known.uid).await?;
    let (open_turn, cancel) = open_gateway(parts, lane, run, &group, &wall)?;
    failpoint!("run.born.socket");
    open_turn.send_replace(turn.as_ref().map(|(t, _)| *t));
    let letter = begin::begin(parts, lane, session, &group, state);
    write_begin(parts, run, &wall, letter).await.inspect_err(|_| cancel.cancel())?;
    failpoint!("run.born.begin");
    let spec = plan(&PlanInput {
        install: parts.id.clone(),
        run: run.clone(),
        lane: lane.clone(),
        uid: known.uid,
        gid: parts.gid,
        image,
        runner: parts.runner.digest.clone(),
        sources,
        limits: group.limits.clone(),
        seccomp: SECCOMP.to_owned(),
        zone: group.zone.name().to_owned(),
    });
    let box_run = Run {
        parts: Arc::clone(parts),
        no,
        run: run.clone(),
        lane: lane.clone(),
        group,
        container: String::new(),
        wall,
        events: events.clone(),
        turn: turn.clone(),
        open_turn,
        cancel,
        ready: false,
        deadline: None,
        interrupted: None,
        close_asked: false,
        killed: None,
        failed: None,
    };
    match spec {
        Ok(spec) => start(box_run, &spec, &stage).await,
        Err(e) => Err(box_run.unborn(Never::new(e.code(), &e)).await),
    }
}

async fn start(
    mut run: Run,
    spec: &crate::policy::sandbox_plan::ContainerSpec,
    stage: &impl Fn(&'static str),
) -> Result<Run, Never> {
    let engine = run.parts.engine.clone();
    if let Err(e) = remove_earlier(&run).await {
        return Err(run.unborn(Never::new(e.code(), e)).await);
    }
    match engine.create(spec).await {
        Ok(container) => run.container = container,
        Err(e) => return Err(run.unborn(Never::new(e.code(), e)).await),
    }
    stage("created");
    let noted = run.parts.store.run_container(run.run.clone(), run.container.clone()).await;
    if let Err(e) = noted {
        tracing::warn!(run = %run.run, code = e.code(), "the box's id was not noted: {e}");
    }
    failpoint!("run.born.noted");
    if let Err(e) = engine.start(&run.container).await {
        return Err(run.unborn(Never::new(e.code(), e)).await);
    }
    stage("started");
    Ok(run)
}

/// Two boxes of a lane would write one transcript. An earlier box that could not be removed in its time (the engine
/// was away, or hung) goes now, before the next one is made.
async fn remove_earlier(run: &Run) -> Result<(), EngineError> {
    let engine = &run.parts.engine;
    for earlier in engine.boxes_of_lane(&run.parts.id, &run.lane).await? {
        tracing::warn!(run = earlier.run, lane = %run.lane, "an earlier box of this lane is removed");
        engine.remove(&earlier.container).await?;
    }
    Ok(())
}

impl Run {
    /// Takes back what was made for a box that did not start.
    async fn unborn(self, never: Never) -> Never {
        self.cancel.cancel();
        if !self.container.is_empty()
            && let Err(e) = self.parts.engine.remove(&self.container).await
        {
            tracing::warn!(run = %self.run, code = e.code(), "a box that did not start stays: {e}");
        }
        never
    }
}

fn open_wall(parts: &Parts, lane: &Lane, run: &RunId, uid: u32) -> Result<RunBox, Never> {
    let root = &parts.install.root;
    let archive = Archive::open(&root.letters(&lane.group, run)).map_err(|e| Never::new("letters.dir", e))?;
    let parent = root.ipc().join(lane.group.as_str());
    shared_dir(&parent, parts.gid, 0o2750)
        .map_err(|e| Never::new("mailbox.dir", format!("{}: {e}", parent.display())))?;
    let dir = root.run_ipc(&lane.group, run);
    parts.mailbox.open(&dir, run.clone(), uid, archive).map_err(|e| Never::new(e.code(), e))
}

/// The group's directories, made by the host and shared with the box by the group id.
async fn sources(
    parts: &Parts,
    lane: &Lane,
    wall: &RunBox,
    image: &ImageFacts,
    uid: u32,
) -> Result<Sources, Never> {
    let root = &parts.install.root;
    let made = |path: PathBuf, mode: u32| {
        shared_dir(&path, parts.gid, mode)
            .map(|()| path.clone())
            .map_err(|e| Never::new("state.dir", format!("{} cannot be made: {e}", path.display())))
    };
    let passwd_dir = made(root.passwd(), 0o2750)?;
    let passwd =
        parts.engine.passwd(image, uid, parts.gid, &passwd_dir).await.map_err(|e| Never::new(e.code(), e))?;
    Ok(Sources {
        runner: parts.runner.dir.clone(),
        to_agent: wall.dir().join(ipc_schema::layout::TO_AGENT),
        from_agent: wall.dir().join(ipc_schema::layout::FROM_AGENT),
        socket: wall.socket_dir(),
        session: made(root.sessions(&lane.group), 0o2770)?,
        workspace: made(root.workspace(&lane.group), 0o2770)?,
        inbox: made(root.inbox(&lane.group), 0o2750)?,
        global: made(root.global(), 0o2770)?,
        passwd,
    })
}

type OpenGateway = (watch::Sender<Option<ipc_schema::TurnId>>, CancellationToken);

fn open_gateway(
    parts: &Parts,
    lane: &Lane,
    run: &RunId,
    group: &Group,
    wall: &RunBox,
) -> Result<OpenGateway, Never> {
    let dir = wall.socket_dir();
    let listener = crate::unix_socket::bind(&dir, GATEWAY_SOCKET, 0o660, Some(parts.gid)).map_err(|e| {
        Never::new("gateway.socket", format!("the gateway's socket in {}: {e}", dir.display()))
    })?;
    let (open_turn, seen) = watch::channel(None);
    let cancel = CancellationToken::new();
    let scope = RunScope {
        run: run.clone(),
        group: lane.group.clone(),
        model: gateway::ModelChoice {
            provider: group.model.provider.clone(),
            model: group.model.model.clone(),
        },
        fail_over: Vec::new(),
        open_turn: seen,
        exchanges_dir: wall.archive().dir().join(crate::mailbox::MODEL),
        ledger: Arc::new(parts.store.clone()),
        cancel: cancel.clone(),
    };
    tokio::spawn(Arc::clone(&parts.gateway).serve(listener, Arc::new(scope)));
    Ok((open_turn, cancel))
}

async fn write_begin(
    parts: &Parts,
    run: &RunId,
    wall: &RunBox,
    body: ipc_schema::letters::to_agent::Begin,
) -> Result<(), Never> {
    let (id, at) = (run.clone(), parts.clock.wall());
    let letter = parts
        .store
        .add_letter(run.clone(), None, "begin", at, move |n| {
            let body = ToAgent::Begin(Box::new(body));
            let id_of = ipc_schema::LetterId::of_host(n);
            ToAgentLetter { id: id_of, run: id, turn: None, n, ack: 0, at: at.rfc3339(), body }.to_bytes()
        })
        .await
        .map_err(|e| Never::new(e.code(), e))?;
    let name = ipc_schema::layout::letter_name(letter.n, letter.kind);
    wall.write(&name, &letter.bytes).map(drop).map_err(|e| Never::new("ipc.write", e))
}
