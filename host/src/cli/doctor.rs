//! `lazaret doctor` checks an install without starting anything. Each failed check says what to do.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::{Done, Here};
use crate::backup;
use crate::channels::linking::LinkState;
use crate::clock::Clock;
use crate::config::{Install, install_rights, personality_file, zone_data};
use crate::daemon;
use crate::domain::group_settings::Group;
use crate::host_files;
use crate::http;
use crate::model::transcription::Transcriber;
use crate::policy::disk_pressure::names_floor;
use crate::policy::image_selection::of_next_run;
use crate::policy::posture::{above_machine, no_runtime};
use crate::policy::sandbox_plan::machine_architecture;
use crate::sandbox::check_source;
use crate::store::{self, BALLAST, Store};
use crate::tasks::Tasks;
use crate::terminal_output::safe_line;
use crate::text;
use crate::volumes::{Volume, VolumeError};

/// If the newest copy is older, the host missed two nights.
const TWO_DAYS: Duration = Duration::from_secs(48 * 3600);

struct Finding {
    ok: bool,
    what: &'static str,
    told: String,
}

#[derive(Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn add<T, E: std::fmt::Display>(
        &mut self,
        what: &'static str,
        result: Result<T, E>,
        told: impl FnOnce(&T) -> String,
    ) -> Option<T> {
        match result {
            Ok(value) => {
                self.0.push(Finding { ok: true, what, told: told(&value) });
                Some(value)
            }
            Err(e) => {
                self.0.push(Finding { ok: false, what, told: e.to_string() });
                None
            }
        }
    }
}

/// Check that the install has what it needs.
#[derive(Debug, Args)]
pub struct Doctor {
    /// Read every page of the database too. That takes seconds for each gigabyte.
    #[arg(long)]
    deep: bool,
}

pub(super) async fn run(here: &Here, doctor: &Doctor) -> Done {
    let mut found = Findings::default();
    let runner = daemon::runner_binary(&here.env).map_err(|e| e.to_string()).and_then(|path| {
        if host_files::there(&path) {
            Ok(path)
        } else {
            Err(format!("{} is missing; `make build` makes it", path.display()))
        }
    });
    found.add("runner", runner, |path| path.display().to_string());
    let path = here.root.database();
    let store = host_files::there(&path).then(|| Store::open_to_read(&path).map_err(|e| e.to_string()));
    if let Some(store) = &store {
        found.add("store", database(store, &path, doctor.deep).await, String::clone);
        found.add("copy", copy(here), String::clone);
        if let Ok(store) = store {
            for state in store.channel_states().await.unwrap_or_default() {
                let told = safe_line(&state.told());
                found.add("channel", if state.is_bad() { Err(told) } else { Ok(told) }, String::clone);
            }
        }
    }
    let install =
        found.add("settings", here.install(), |i| format!("model {} at {}", i.model.model, i.model.provider));
    rights(here, &mut found);
    found.add("time zones", Ok::<_, String>(zone_data::in_use()), |used| (*used).to_owned());
    found.add("proxy", http::proxy(|name| here.env.get(name).cloned()), |used| match used {
        Some(used) => format!("{} ({}), for https:// to other machines", used.address, used.variable),
        None => "none in the environment".to_owned(),
    });
    if let Some(install) = install {
        let speech = install.transcription.as_ref().map(|choice| Transcriber::new(choice).map(|_| choice));
        found.add("speech", speech.transpose(), |choice| match choice {
            Some(choice) => format!("model {} at {}", choice.model, choice.base_url),
            None => "voice messages have no text: transcription.base_url is not set".to_owned(),
        });
        for one in here.waiting_settings(&install).await {
            found.add("restart", Ok::<_, String>(one), |one| format!("{one}; a restart takes it"));
        }
        for missing in &install.missing_secrets {
            let told = format!("not in this environment, and needed by the host: {missing}");
            found.add("secret", Ok::<_, String>(told), String::clone);
        }
        links(&install, &mut found);
        disk(&install, &mut found);
        groups(&install, &mut found);
        if let Some(Ok(store)) = &store {
            heartbeats(&install, store, &mut found).await;
        }
        engine(here, &install, store.as_ref(), &mut found).await;
    }
    let healthy = found.0.iter().all(|f| f.ok);
    let lines: Vec<String> = found
        .0
        .iter()
        .map(|f| format!("{}  {:<12} {}", if f.ok { "ok " } else { "BAD" }, f.what, f.told))
        .collect();
    let json: Vec<_> =
        found.0.iter().map(|f| json!({ "ok": f.ok, "what": f.what, "told": f.told })).collect();
    here.print(&json!(json), lines.join("\n"));
    Ok(if healthy { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Reports what lets other users of the machine into the install.
fn rights(here: &Here, found: &mut Findings) {
    let risks = install_rights::of_install(&here.root);
    if risks.is_empty() {
        let told = "no other user of /etc/passwd can replace the install or has the group of its boxes";
        found.add("rights", Ok::<_, String>(told), |told| (*told).to_owned());
    }
    for risk in risks {
        found.add("rights", Err::<(), _>(risk), |()| String::new());
    }
}

/// The database, or why it cannot be opened.
type Opened = Result<Store, String>;

/// Reads the database, and looks at what the last full check found. The host makes one after a crash, and one of each
/// nightly copy.
async fn database(store: &Opened, path: &Path, deep: bool) -> Result<String, String> {
    store.as_ref().map_err(String::clone)?.summary().await.map_err(|e| e.to_string())?;
    if deep {
        store::check(path).map_err(|e| e.to_string())?;
        return Ok(format!("{}, every page and reference checked", path.display()));
    }
    match store::damage(path) {
        Some(damage) => Err(damage.to_string()),
        None => Ok(format!("{} opens; `lazaret doctor --deep` reads every page", path.display())),
    }
}

/// Finds the newest verified copy. If an install of two days has none, its host does not run at night or its copies
/// fail.
fn copy(here: &Here) -> Result<String, String> {
    let now = Clock::new().wall();
    let made = host_files::born(&here.root.database()).ok();
    let age = made.and_then(|at| at.elapsed().ok()).unwrap_or_default();
    match backup::newest(&here.root, now) {
        Some((path, at)) if now.since(at) < TWO_DAYS => {
            Ok(format!("{}, {} old, verified", path.display(), text::duration(now.since(at))))
        }
        Some((path, at)) => Err(format!(
            "the newest copy, {}, is {} old; the host's log says why, `lazaret backup` makes one now",
            path.display(),
            text::duration(now.since(at))
        )),
        None if age < TWO_DAYS => Ok("none yet; the host makes one each night".into()),
        None => Err("there is no copy; the host's log says why, `lazaret backup` makes one now".into()),
    }
}

/// Reports the accounts that are linked, and files of their keys that other users can open.
fn links(install: &Install, found: &mut Findings) {
    for settings in install.file.channels.all() {
        let name = settings.name();
        if let Some(missing) = settings.missing() {
            found.add("link", Ok::<_, String>(missing), |missing| format!("{name}: {missing}"));
        }
        let folder = install.root.channel_folder(&name);
        let Some(linking) = settings.linking(&folder) else { continue };
        let state = match linking.state() {
            LinkState::NotLinked => {
                Ok(format!("{name}: no account is linked; `lazaret link {name}` links one"))
            }
            LinkState::Linked(account) => Ok(format!("{name}: {} is linked", safe_line(&account.name))),
            LinkState::Broken { why, .. } => Err(format!("{name}: {}", safe_line(&why))),
        };
        found.add("link", state, String::clone);
        let open =
            host_files::inside(&folder).into_iter().chain([folder]).filter(|path| host_files::is_open(path));
        for path in open {
            let told = format!("{name}: other users can open {0}; chmod go= {0}", path.display());
            found.add("link", Err::<(), _>(told), |()| String::new());
        }
    }
}

fn disk(install: &Install, found: &mut Findings) {
    let (state, host) = (install.root.state(), &install.file.host);
    let place = if host_files::there(&state) { state.as_path() } else { install.root.path() };
    let checked = host_files::room(place).map_err(|e| format!("{}: {e}", place.display())).and_then(|room| {
        let (free, floor) = (room.free >> 20, host.free_floor_mib);
        let names = room.names < names_floor(room.all_names);
        match (room.read_only, free < floor) {
            (false, false) if names => Err(format!(
                "the disk has room for only {} more files, so the host reads no messages; remove some on {}",
                room.names,
                place.display()
            )),
            (true, _) => Err(format!("{} is mounted read-only; make it writable", place.display())),
            (_, true) => Err(format!(
                "{free} MiB are free, less than host.free_floor_mib = {floor}, so the host reads no messages; make room on {}",
                place.display()
            )),
            _ => Ok(free),
        }
    });
    let held = host_files::holds(&state.join(BALLAST), host.ballast_mib << 20);
    let ballast = match (host.ballast_mib, held) {
        (0, _) => "no ballast is set".to_owned(),
        (mib, true) => format!("{mib} MiB of ballast"),
        (_, false) => "the ballast is made while the host runs".to_owned(),
    };
    found.add("disk", checked, |free| format!("{free} MiB free, {ballast}"));
}

fn groups(install: &Install, found: &mut Findings) {
    for name in install.group_names() {
        let checked = install.group(&name).map_err(|e| e.to_string()).and_then(|group| {
            group.mounts.iter().try_for_each(|m| check_source(&m.source)).map_err(|e| e.to_string())?;
            volumes(install, &group).map_err(|e| format!("{name}: {e}"))?;
            personality_file::read(&install.root.personality(&name)).map(|text| (group, text))
        });
        found.add("group", checked, |(group, text)| {
            format!(
                "{name}: image {}, {}",
                group.image,
                match text {
                    Some(text) if text.cut => "CLAUDE.md is too long, and the agent gets its beginning",
                    Some(_) => "personality read",
                    None => "no CLAUDE.md",
                }
            )
        });
    }
}

/// Reports the heartbeats that cannot be tasks. `groups` has reported a file that cannot be used.
async fn heartbeats(install: &Install, store: &Store, found: &mut Findings) {
    let tasks = Tasks { store, install, now: Clock::new().wall() };
    let problems = tasks.heartbeat_problems().await.unwrap_or_default();
    for problem in problems {
        found.add("heartbeat", Err::<(), _>(format!("{}: {problem}", problem.group)), |()| String::new());
    }
}

/// Returns whether the host can prepare the folders of the group's next run.
fn volumes(install: &Install, group: &Group) -> Result<(), VolumeError> {
    let limits = [group.limits.workspace(), group.limits.session()];
    let volumes = install.root.volumes_of(&group.name).map(Volume::from);
    volumes.iter().zip(limits).try_for_each(|(volume, limit)| {
        if group.limits.disk_images { volume.check(limit) } else { volume.check_absent() }
    })
}

async fn engine(here: &Here, install: &Install, store: Option<&Opened>, found: &mut Findings) {
    let engine = match daemon::engine(install, &here.env) {
        Ok(engine) => engine,
        Err(e) => {
            found.add("engine", Err::<(), _>(e), |()| String::new());
            return;
        }
    };
    let facts = engine.facts().await;
    let known = found.add("engine", facts, |f| {
        format!("{} (API {}, cgroup v{}, runtimes {})", f.version, f.api, f.cgroups, f.runtimes.join(", "))
    });
    let Some(facts) = known else { return };
    found.add("box", losses(store).await, String::clone);
    for name in install.group_names() {
        // The check `groups` has already reported a file that cannot be used.
        let Ok(group) = install.group(&name) else { continue };
        let limits = &group.limits;
        let above = above_machine(limits.memory(), limits.milli_cpus, facts.memory, facts.cpus);
        let unknown = group.runtime.as_ref().filter(|name| !facts.runtimes.contains(name));
        let why = above.or_else(|| unknown.map(|name| no_runtime(name)));
        if let Some(why) = why {
            found.add("box", Err::<(), _>(format!("{name}: {why}")), |()| String::new());
        }
    }
    let pins = match store {
        Some(Ok(store)) => store.pins().await.unwrap_or_default(),
        Some(Err(_)) | None => Vec::new(),
    };
    let mut images: Vec<(String, String)> = install
        .group_names()
        .iter()
        .filter_map(|name| {
            let wanted = install.group(name).ok()?.image;
            let pin = pins.iter().find(|(group, _)| group == name);
            let serves = of_next_run(&wanted, pin.map(|(_, pin)| pin)).to_owned();
            Some((serves, wanted))
        })
        .collect();
    if images.is_empty() {
        images.push((install.file.image.clone(), install.file.image.clone()));
    }
    images.sort();
    images.dedup();
    for (serves, image) in images {
        let checked = match engine.image(&serves).await {
            Ok(facts) if facts.architecture != machine_architecture() => Err(format!(
                "{image} is for {}, this machine is {}",
                facts.architecture,
                machine_architecture()
            )),
            Ok(facts) => Ok(facts),
            Err(e) => Err(e.to_string()),
        };
        found.add("image", checked, |facts| format!("{image} = {}", facts.id));
    }
}

/// Lists the losses of protection that the last probes found and the owner has accepted.
async fn losses(store: Option<&Opened>) -> Result<String, String> {
    let Some(store) = store else {
        return Ok("no box was checked yet; `lazaret box check` does it".into());
    };
    let losses = store.as_ref().map_err(String::clone)?.posture_gaps().await.map_err(|e| e.to_string())?;
    let told: Vec<String> =
        losses.iter().map(|(group, l)| format!("{group} runs without {} ({})", l.name, l.why)).collect();
    if told.is_empty() {
        Ok("no loss is known; `lazaret box check` checks again".into())
    } else {
        Ok(told.join(", "))
    }
}
