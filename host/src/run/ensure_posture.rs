//! Checks, before the first run of a posture on an engine, that a box is what the host asks for. A host checks each
//! posture, image and engine once, with a box that it makes for the check. Runs that start meanwhile wait for the same
//! result. `launch` and `lazaret box check` call it.

use std::path::{Path, PathBuf};

use super::launch_error::LaunchError;
use super::new_run_id;
use crate::config::Install;
use crate::domain::group_settings::Group;
use crate::domain::{GroupName, RunId};
use crate::host_files::{self, shared_dir};
use crate::mailbox::{SOCKET_DIR, remove_run_dir};
use crate::policy::posture::{self, Circumstances, PostureFinding};
use crate::policy::sandbox_plan::ContainerSpec;
use crate::sandbox::this_process;
use crate::sandbox::{Engine, EngineFacts, ProbeError, Probed};
use crate::services::{Runner, Services};
use crate::store::PostureGap;
use ipc_schema::names_and_paths::{FROM_AGENT, TO_AGENT};

/// The parts of an install that a box needs in addition to its group, whether the host runs or not.
#[derive(Debug, Clone, Copy)]
pub struct SandboxContext<'a> {
    pub engine: &'a Engine,
    pub install: &'a Install,
    /// The install's id, which labels its boxes.
    pub id: &'a str,
    /// The id of the group that host and boxes share.
    pub gid: u32,
    pub runner: &'a Runner,
}

impl<'a> From<&'a Services> for SandboxContext<'a> {
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

/// The host's directories of one run that a box mounts.
#[derive(Debug, Clone)]
pub struct RunDirs {
    /// Letters to the agent.
    pub to_agent: PathBuf,
    pub from_agent: PathBuf,
    pub socket: PathBuf,
}

impl RunDirs {
    /// Names the directories below a run's folder.
    pub fn below(dir: &Path) -> Self {
        Self { to_agent: dir.join(TO_AGENT), from_agent: dir.join(FROM_AGENT), socket: dir.join(SOCKET_DIR) }
    }
}

/// The findings of a posture's probe.
#[derive(Debug)]
pub struct ProbeResult {
    pub findings: Vec<PostureFinding>,
    /// The raw results behind the findings.
    pub probed: Probed,
}

/// Refuses a run whose box would not have the required posture.
///
/// # Errors
/// `box.posture`, `box.ceiling` or `box.runtime`, with the fix; or the reason why the probe failed.
pub(super) async fn ensure_posture(
    services: &Services,
    spec: &ContainerSpec,
    group: &Group,
    uid: u32,
) -> Result<(), LaunchError> {
    let engine = services.engine.identity().await?;
    // The image can change the effect of the same plan: for example, a link in it moves a mount.
    let cell = services.probes.of(format!("{} {} {engine}", spec.posture(), spec.image));
    // The host remembers only successful checks. It checks again after somebody has fixed a failure.
    let probing = async {
        let facts = services.engine.facts().await?;
        check_machine_limits(spec, &facts)?;
        let run = new_run_id();
        let seen = SandboxContext::from(services).probe(spec, group, uid, &run, &facts).await?;
        let losses: Vec<PostureGap> = posture::losses(&seen.findings).map(loss).collect();
        let lost: Vec<&str> = losses.iter().map(|loss| loss.name.as_str()).collect();
        let ms = u64::try_from(seen.probed.took.as_millis()).unwrap_or(u64::MAX);
        let lost = lost.join(",");
        tracing::info!(group = %group.name, posture = spec.posture(), ms, lost, "the posture was probed");
        services.store.set_posture_gaps(&group.name, losses, services.clock.wall()).await?;
        match posture::refusal(&seen.findings) {
            Some(why) => Err(LaunchError::new("box.posture", why)),
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

/// Refuses limits above what the machine has. Such a limit limits nothing, and the engine accepts some of them
/// silently.
///
/// # Errors
/// `box.ceiling`, or `box.runtime` for a runtime that the engine does not list.
pub fn check_machine_limits(spec: &ContainerSpec, engine: &EngineFacts) -> Result<(), LaunchError> {
    if let Some(runtime) = spec.runtime.as_ref().filter(|name| !engine.runtimes.contains(name)) {
        return Err(LaunchError::new("box.runtime", posture::no_runtime(runtime)));
    }
    match posture::above_machine(spec.memory, spec.nano_cpus / 1_000_000, engine.memory, engine.cpus) {
        Some(why) => Err(LaunchError::new("box.ceiling", why)),
        None => Ok(()),
    }
}

impl SandboxContext<'_> {
    /// Makes a box from `spec`, inspects it from inside and outside, removes it, and compares it with the plan.
    ///
    /// # Errors
    /// The reason why the box could not be inspected.
    pub async fn probe(
        &self,
        spec: &ContainerSpec,
        group: &Group,
        uid: u32,
        run: &RunId,
        engine: &EngineFacts,
    ) -> Result<ProbeResult, LaunchError> {
        let dir = self.install.root.run_ipc(&group.name, run);
        let dirs = self.run_dirs(&group.name, &dir)?;
        let spec = spec.for_probe(
            run,
            &this_process(),
            dirs.to_agent.clone(),
            dirs.from_agent.clone(),
            dirs.socket.clone(),
        );
        // The nonce is as unpredictable as a random UUID, so nobody can write the answer before the question.
        let nonce = uuid::Uuid::new_v4().to_string();
        let probed = self.engine.probe(&spec, uid, &nonce, &dirs.to_agent, &dirs.from_agent).await;
        remove_run_dir(&dir);
        let probed = probed.map_err(|e| match e {
            ProbeError::Engine(e) => LaunchError::of_engine(group, e),
            e => LaunchError::new(e.code(), e),
        })?;
        let about = Circumstances {
            nonce,
            accepted: self.install.file.engine.accept.clone(),
            names: self.names(&group.name),
            apparmor: engine.security.iter().any(|option| option.contains("apparmor")),
            root: rustix::process::geteuid().is_root(),
        };
        let findings = posture::judge(&spec, &probed.report, &probed.outside, &about);
        Ok(ProbeResult { findings, probed })
    }

    /// Makes the missing directories of a run.
    pub(super) fn run_dirs(&self, group: &GroupName, dir: &Path) -> Result<RunDirs, LaunchError> {
        let dirs = RunDirs::below(dir);
        let parent = self.install.root.ipc().join(group.as_str());
        for path in [parent.as_path(), dir] {
            host_files::dir(path, 0o700)
                .map_err(|e| LaunchError::new("mailbox.dir", format!("{}: {e}", path.display())))?;
        }
        for (path, mode) in [(&dirs.to_agent, 0o2750), (&dirs.from_agent, 0o2770), (&dirs.socket, 0o2750)] {
            shared_dir(path, self.gid, mode)
                .map_err(|e| LaunchError::new("mailbox.dir", format!("{}: {e}", path.display())))?;
        }
        Ok(dirs)
    }

    /// Returns names that must not occur in the paths of a group's box: other groups, and the person in whose home the
    /// install lies.
    fn names(&self, group: &GroupName) -> Vec<String> {
        let others = self.install.group_names().into_iter().filter(|name| name != group);
        let mut names: Vec<String> = others.map(|name| name.to_string()).collect();
        let path = self.install.root.path().to_string_lossy();
        names
            .extend(path.split_once("/home/").and_then(|(_, rest)| Some(rest.split('/').next()?.to_owned())));
        names
    }
}
