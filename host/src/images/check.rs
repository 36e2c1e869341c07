//! Checks an image: from outside through the engine, and from inside by the runner, in a box of the full posture with
//! empty directories. No program of the image runs.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipc_schema::image_inventory::{FILE, ImageInventory};
use ipc_schema::names_and_paths::{FROM_AGENT, TO_AGENT};
use ipc_schema::text_sanitize;
use ipc_schema::untrusted_fs::UntrustedDir;

use super::{ImageError, Images};
use crate::config::Root;
use crate::domain::limits::RunLimits;
use crate::domain::{GroupName, Lane, RunId};
use crate::host_files::{self, shared_dir};
use crate::policy::image_verdict::{ImageAbout, ImageCheck};
use crate::policy::sandbox_plan::{ContainerSpec, PlanError, PlanInput, SECCOMP, Sources, plan};
use crate::sandbox::Trial;
use crate::sandbox::this_process;

/// The user of trial boxes: the one below all groups' (see `store::settings`).
const UID: u32 = 70_000;
/// Long enough for a busy machine to start a box and a runner.
const WITHIN: Duration = Duration::from_secs(45);
/// The greatest inventory that is read.
const INVENTORY_MAX: u64 = 16 * 1024;

impl Images {
    /// Checks an image now, even if it has passed before. The store remembers one that passes.
    ///
    /// # Errors
    /// When the check could not be done, which says nothing about the image.
    pub async fn check(&self, about: &ImageAbout) -> Result<ImageCheck, ImageError> {
        let trial = uuid::Uuid::now_v7().to_string();
        let dir = TrialDir::make(&self.context.root.trials().join(&trial), self.context.gid)?;
        let spec = match self.spec(&trial, &dir.path, about).await? {
            Ok(spec) => spec,
            Err(e) => return Ok(ImageCheck::breaks(about, e.code(), e.to_string())),
        };
        // Before the box starts: the engine would follow a link, and create mount points elsewhere.
        let links = self.engine.links(&self.context.install, &about.facts, spec.ways()).await?;
        if !links.is_empty() {
            return Ok(ImageCheck::linked(about, &links));
        }
        let tried = self.engine.run_one_shot(&spec, WITHIN).await?;
        let answer = match tried {
            Trial::Ended { exit, .. } if exit.code == Some(0) => dir.answer(),
            Trial::Ended { exit, words } => {
                let code = exit.code.map_or_else(|| "none".into(), |c| c.to_string());
                let last = words.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
                let last = text_sanitize::line(last, 200);
                Err(format!("it ended with exit code {code}: {last}"))
            }
            Trial::NotStarted(why) => Err(why),
            Trial::StillRunning => Err(format!("it did not end within {} s", WITHIN.as_secs())),
        };
        match answer {
            Ok(offers) => {
                let json = serde_json::to_string(&offers).unwrap_or_default();
                let (id, runner) = (&about.facts.id, &self.context.runner);
                self.store.image_passed(id, runner, json, self.clock.wall()).await?;
                Ok(ImageCheck::of(about, offers))
            }
            Err(why) => {
                let told = format!("the runner does not start in the image {}: {why}", about.facts.id);
                Ok(ImageCheck::breaks(about, "image.runner", told))
            }
        }
    }

    /// The plan of any box, with another program in it.
    async fn spec(
        &self,
        trial: &str,
        dir: &Path,
        about: &ImageAbout,
    ) -> Result<Result<ContainerSpec, PlanError>, ImageError> {
        let context = &self.context;
        let passwd_dir = context.root.passwd();
        closed_dir(&passwd_dir)?;
        // Planned once without the passwd file: the engine can only read that from an image that has a valid plan.
        let input = |passwd: PathBuf| PlanInput {
            install: context.install.clone(),
            run: trial_run(trial),
            lane: Lane::conversation(GroupName::main()),
            uid: UID,
            gid: context.gid,
            image: about.facts.clone(),
            runner: context.runner.clone(),
            foreign_runner: None,
            sources: sources(&context.runner_dir, dir, passwd),
            extra: Vec::new(),
            limits: RunLimits::default(),
            seccomp: SECCOMP.to_owned(),
            zone: "UTC".into(),
            runtime: None,
        };
        if let Err(e) = plan(&input(PathBuf::new())) {
            return Ok(Err(e));
        }
        let passwd =
            self.engine.passwd(&context.install, &about.facts, UID, context.gid, &passwd_dir).await?;
        let name = format!("lazaret-trial-{trial}");
        Ok(plan(&input(passwd)).map(|spec| spec.for_check(name, &this_process(), "inspect-image")))
    }
}

fn trial_run(trial: &str) -> RunId {
    match trial.parse() {
        Ok(run) => run,
        Err(e) => unreachable!("a UUID is a run id: {e}"),
    }
}

fn sources(runner: &Path, dir: &Path, passwd: PathBuf) -> Sources {
    Sources {
        runner: runner.to_owned(),
        to_agent: dir.join(TO_AGENT),
        from_agent: dir.join(FROM_AGENT),
        socket: dir.join("socket"),
        session: dir.join("session"),
        workspace: dir.join("workspace"),
        inbox: dir.join("inbox"),
        global: dir.join("global"),
        passwd,
    }
}

fn closed_dir(path: &Path) -> Result<(), ImageError> {
    host_files::dir(path, 0o700)
        .map_err(|e| ImageError::Check { path: path.display().to_string(), why: e.to_string() })
}

fn make_dir(path: &Path, gid: u32, mode: u32) -> Result<(), ImageError> {
    shared_dir(path, gid, mode)
        .map_err(|e| ImageError::Check { path: path.display().to_string(), why: e.to_string() })
}

/// The directories of one trial. Dropping it removes them.
struct TrialDir {
    path: PathBuf,
    from: UntrustedDir,
}

/// The directories with their modes.
const DIRS: [(&str, u32); 7] = [
    (TO_AGENT, 0o2750),
    (FROM_AGENT, 0o2770),
    ("socket", 0o2750),
    ("session", 0o2770),
    ("workspace", 0o2770),
    ("inbox", 0o2750),
    ("global", 0o2750),
];

impl TrialDir {
    fn make(path: &Path, gid: u32) -> Result<Self, ImageError> {
        closed_dir(path)?;
        for (name, mode) in DIRS {
            make_dir(&path.join(name), gid, mode)?;
        }
        let from = path.join(FROM_AGENT);
        let opened = UntrustedDir::open(&from);
        let from =
            opened.map_err(|e| ImageError::Check { path: from.display().to_string(), why: e.to_string() })?;
        Ok(Self { path: path.to_owned(), from })
    }

    /// Reads the runner's report, like any file from a box.
    fn answer(&self) -> Result<ImageInventory, String> {
        let bytes = self.from.read(Path::new(FILE), UID, INVENTORY_MAX).map_err(|e| e.to_string())?;
        ImageInventory::read(&bytes).map_err(|e| e.to_string())
    }
}

impl Drop for TrialDir {
    fn drop(&mut self) {
        remove(&self.path, &self.from);
    }
}

/// The runner makes this one file and nothing else. A directory that is not empty stays, and the log says so.
fn remove(path: &Path, from: &UntrustedDir) {
    let _ = from.unlink(format!(".{FILE}").as_ref());
    let _ = from.unlink(FILE.as_ref());
    let emptied = DIRS.iter().try_for_each(|(name, _)| match fs::remove_dir(path.join(name)) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    });
    if let Err(e) = emptied.and_then(|()| fs::remove_dir(path)) {
        tracing::warn!(code = "image.check", "{} stays: {e}", path.display());
    }
}

/// Removes the directories of trials whose host or command was killed. A running trial is younger.
pub fn sweep(root: &Root) {
    const OVER: Duration = Duration::from_secs(3600);
    for trial in host_files::inside(&root.trials()) {
        let age = host_files::changed(&trial).ok().and_then(|at| at.elapsed().ok());
        if age.is_none_or(|age| age < OVER) {
            continue;
        }
        match UntrustedDir::open(&trial.join(FROM_AGENT)) {
            Ok(from) => remove(&trial, &from),
            Err(e) => tracing::warn!(code = "image.check", "{} stays: {e}", trial.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn the_directories_of_a_killed_trial_are_removed_after_an_hour() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path()).unwrap();
        let gid = rustix::process::getgid().as_raw();
        for name in ["old", "new"] {
            let trial = TrialDir::make(&root.trials().join(name), gid).unwrap();
            fs::write(trial.path.join(FROM_AGENT).join(FILE), "{}").unwrap();
            std::mem::forget(trial);
        }
        let long_ago = SystemTime::now() - Duration::from_secs(7200);
        fs::File::open(root.trials().join("old")).unwrap().set_modified(long_ago).unwrap();
        sweep(&root);
        assert!(!root.trials().join("old").exists() && root.trials().join("new").exists());
    }
}
