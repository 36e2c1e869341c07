//! Before the first run of a posture on an engine: is the box what it is asked to be? Asked once in a host's life for
//! each posture, each image and each engine, by a box that is made for it; whoever is born meanwhile waits for the
//! same answer.

use std::path::{Path, PathBuf};

use super::launch::{Never, of_what_went};
use super::new_run_id;
use crate::config::Install;
use crate::disk::shared_dir;
use crate::domain::group::Group;
use crate::domain::{GroupName, RunId};
use crate::mailbox::{SOCKET_DIR, remove_run_dir};
use crate::policy::posture::{self, Circumstances, PostureFinding};
use crate::policy::sandbox_plan::ContainerSpec;
use crate::sandbox::{Engine, EngineFacts, ProbeError, Probed};
use crate::services::{Runner, Services};
use crate::store::PostureGap;
use ipc_schema::directory_layout::{FROM_AGENT, TO_AGENT};

/// What boxes are made on: an install, whether its host runs or not.
#[derive(Debug, Clone, Copy)]
pub struct Ground<'a> {
    /// The engine.
    pub engine: &'a Engine,
    /// The settings.
    pub install: &'a Install,
    /// What makes this install's boxes ours.
    pub id: &'a str,
    /// The group that host and boxes share.
    pub gid: u32,
    /// Digest and folder of the runner.
    pub runner: &'a Runner,
}

impl<'a> From<&'a Services> for Ground<'a> {
    fn from(services: &'a Services) -> Self {
        Self {
            engine: &services.engine,
            install: &services.install,
            id: &services.id,
            gid: services.gid,
            runner: &services.runner,
        }
    }
}

/// The host's directories of one run, as a box mounts them.
#[derive(Debug, Clone)]
pub struct Walls {
    /// Letters to the agent.
    pub to_agent: PathBuf,
    /// Letters from it.
    pub from_agent: PathBuf,
    /// The gateway's socket.
    pub socket: PathBuf,
}

impl Walls {
    /// Those below a run's folder.
    pub fn below(dir: &Path) -> Self {
        Self { to_agent: dir.join(TO_AGENT), from_agent: dir.join(FROM_AGENT), socket: dir.join(SOCKET_DIR) }
    }
}

/// A posture that was probed.
#[derive(Debug)]
pub struct Seen {
    /// Line by line.
    pub findings: Vec<PostureFinding>,
    /// What they come from.
    pub probed: Probed,
}

/// Refuses a run whose box would not be what it must be.
///
/// # Errors
/// `box.posture`, `box.ceiling` or `box.runtime`, with the fix; or why nothing could be probed.
pub(super) async fn held(
    services: &Services,
    spec: &ContainerSpec,
    group: &Group,
    uid: u32,
) -> Result<(), Never> {
    let engine = services.engine.identity().await.map_err(|e| Never::new(e.code(), e))?;
    // What an image holds can change what the same plan comes to: a link moves a mount.
    let cell = services.probes.of(format!("{} {} {engine}", spec.posture(), spec.image));
    // Only what holds is remembered: what was refused is looked at again when somebody has mended it.
    let probing = async {
        let facts = services.engine.facts().await.map_err(|e| Never::new(e.code(), e))?;
        possible(spec, &facts)?;
        let run = new_run_id();
        let seen = Ground::from(services).probe(spec, group, uid, &run, &facts).await?;
        let losses: Vec<PostureGap> = posture::losses(&seen.findings).map(loss).collect();
        let lost: Vec<&str> = losses.iter().map(|loss| loss.name.as_str()).collect();
        let ms = u64::try_from(seen.probed.took.as_millis()).unwrap_or(u64::MAX);
        tracing::info!(group = %group.name, posture = spec.posture(), ms, ?lost, "the box was probed");
        let stored = services.store.set_posture_gaps(&group.name, losses, services.clock.wall()).await;
        stored.map_err(|e| Never::new(e.code(), e))?;
        match posture::refusal(&seen.findings) {
            Some(why) => Err(Never::new("box.posture", why)),
            None => Ok(()),
        }
    };
    cell.get_or_try_init(|| probing).await.copied()
}

fn loss(finding: &PostureFinding) -> PostureGap {
    PostureGap {
        name: finding.name.to_owned(),
        why: match finding.standing {
            posture::Standing::Accepted => "accepted",
            posture::Standing::Runtime => "runtime",
            _ => "named",
        }
        .to_owned(),
        expected: finding.expected.clone(),
        seen: finding.seen.clone(),
        fix: finding.fix.to_owned(),
    }
}

/// A limit above what the machine has is none, and an engine takes some of them without a word.
///
/// # Errors
/// `box.ceiling`, or `box.runtime` for a runtime that the engine does not list.
pub fn possible(spec: &ContainerSpec, engine: &EngineFacts) -> Result<(), Never> {
    if let Some(runtime) = spec.runtime.as_ref().filter(|name| !engine.runtimes.contains(name)) {
        return Err(Never::new("box.runtime", posture::no_runtime(runtime)));
    }
    match posture::above_machine(spec.memory, spec.nano_cpus / 1_000_000, engine.memory, engine.cpus) {
        Some(why) => Err(Never::new("box.ceiling", why)),
        None => Ok(()),
    }
}

impl Ground<'_> {
    /// Makes a box as `spec` says, looks at it from all sides, removes it, and holds it against the plan.
    ///
    /// # Errors
    /// Why nothing could be seen.
    pub async fn probe(
        &self,
        spec: &ContainerSpec,
        group: &Group,
        uid: u32,
        run: &RunId,
        engine: &EngineFacts,
    ) -> Result<Seen, Never> {
        let dir = self.install.root.run_ipc(&group.name, run);
        let walls = self.walls(&group.name, &dir)?;
        let spec = spec.for_probe(
            run,
            std::process::id(),
            walls.to_agent.clone(),
            walls.from_agent.clone(),
            walls.socket.clone(),
        );
        // As unforeseeable as a random UUID: nobody writes the answer before the question.
        let nonce = uuid::Uuid::new_v4().to_string();
        let probed = self.engine.probe(&spec, uid, &nonce, &walls.to_agent, &walls.from_agent).await;
        remove_run_dir(&dir);
        let probed = probed.map_err(|e| match e {
            ProbeError::Engine(e) => of_what_went(group, e),
            e => Never::new(e.code(), e),
        })?;
        let about = Circumstances {
            nonce,
            accepted: self.install.file.engine.accept.clone(),
            names: self.names(&group.name),
            apparmor: engine.security.iter().any(|option| option.contains("apparmor")),
            root: rustix::process::geteuid().is_root(),
        };
        let findings = posture::judge(&spec, &probed.report, &probed.outside, &about);
        Ok(Seen { findings, probed })
    }

    /// Makes what of a run's directories is not there.
    pub(super) fn walls(&self, group: &GroupName, dir: &Path) -> Result<Walls, Never> {
        let walls = Walls::below(dir);
        let parent = self.install.root.ipc().join(group.as_str());
        for (path, mode) in [
            (parent.as_path(), 0o2750),
            (dir, 0o2750),
            (&walls.to_agent, 0o2750),
            (&walls.from_agent, 0o2770),
            (&walls.socket, 0o2750),
        ] {
            shared_dir(path, self.gid, mode)
                .map_err(|e| Never::new("mailbox.dir", format!("{}: {e}", path.display())))?;
        }
        Ok(walls)
    }

    /// Names that the paths of a group's box must not hold: other groups', and a person's whose home the install is in.
    fn names(&self, group: &GroupName) -> Vec<String> {
        let others = self.install.group_names().into_iter().filter(|name| name != group);
        let mut names: Vec<String> = others.map(|name| name.to_string()).collect();
        let path = self.install.root.path().to_string_lossy();
        names
            .extend(path.split_once("/home/").and_then(|(_, rest)| Some(rest.split('/').next()?.to_owned())));
        names
    }
}
