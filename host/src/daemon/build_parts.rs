//! The parts of a host that the settings and the environment describe: engine, images, gateway, runner. Commands that
//! work while a host runs use them too.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use super::StartError;
use super::state_dir::{install_id, known_gid};
use crate::clock::Clock;
use crate::config::{Install, Root};
use crate::gateway::Gateway;
use crate::images::{CheckContext, Images};
use crate::model::transcription::Transcriber;
use crate::sandbox::Engine;
use crate::services::Runner;
use crate::store::Store;

/// Returns the engine of the setting, or of `DOCKER_HOST` if the setting has its default.
///
/// # Errors
/// The engine is on another machine. It could not mount the directories of this one into a box.
pub fn engine(install: &Install, env: &BTreeMap<String, String>) -> Result<Engine, StartError> {
    let configured = &install.file.engine.socket;
    let by_default = *configured == crate::config::schema::EngineFile::default().socket;
    let of_env = env.get("DOCKER_HOST").filter(|host| by_default && !host.trim().is_empty());
    let socket = of_env.unwrap_or(configured);
    if socket.starts_with("unix:///") {
        return Ok(Engine::new(socket));
    }
    let what = if of_env.is_some() { "DOCKER_HOST" } else { "engine.socket" };
    let why = "Lazaret uses an engine on this machine only, because boxes mount directories of it; unset it, or write \
               unix:///PATH";
    Err(StartError::machine("engine.elsewhere", format!("{what} = {socket:?}"), why))
}

pub(super) fn check_context(root: &Root, id: &str, gid: u32, runner: &Runner) -> CheckContext {
    CheckContext {
        root: root.clone(),
        install: id.to_owned(),
        gid,
        runner: runner.digest.clone(),
        runner_dir: runner.dir.clone(),
    }
}

/// Builds what a command needs to check and pin images while a host may be running.
///
/// # Errors
/// There is no runner, or the install was never started.
pub fn images_of(
    install: &Install,
    env: &BTreeMap<String, String>,
    store: Store,
) -> Result<Images, StartError> {
    let root = &install.root;
    let gid = known_gid(root)?;
    let runner = Runner::install(&runner_binary(env)?, &root.runners())
        .map_err(|why| StartError::machine("runner.missing", "the runner", why))?;
    let id = install_id(root)?;
    let context = check_context(root, &id, gid, &runner);
    Ok(Images::new(engine(install, env)?, store, Clock::new(), context))
}

pub(super) fn gateway(install: &Install) -> Result<Arc<Gateway>, StartError> {
    let settings = crate::gateway::settings_of(install);
    Gateway::new(settings).map(Arc::new).map_err(|e| StartError::machine(e.code(), "the gateway", e))
}

pub(super) fn transcriber(install: &Install) -> Result<Option<Transcriber>, StartError> {
    let built = install.transcription.as_ref().map(Transcriber::new).transpose();
    built.map_err(|e| StartError::machine("transcription.endpoint", "the endpoint of [transcription]", e))
}

/// Returns the path of the runner: `LAZARET_RUNNER`, or else the file beside the host's binary.
pub fn runner_binary(env: &BTreeMap<String, String>) -> Result<PathBuf, StartError> {
    if let Some(path) = env.get("LAZARET_RUNNER") {
        return Ok(PathBuf::from(path));
    }
    let here = std::env::current_exe().map_err(|e| StartError::machine("runner.missing", "the runner", e))?;
    Ok(here.with_file_name(ipc_schema::names_and_paths::RUNNER))
}
