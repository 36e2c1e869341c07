//! `lazaret doctor`: what can be checked without starting anything. Each line that is not in order says what to do.

use std::process::ExitCode;

use serde_json::json;

use super::{Done, Here};
use crate::config::{Install, personality};
use crate::daemon;
use crate::policy::sandbox_plan::machine_architecture;
use crate::store::Store;

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

pub(super) async fn run(here: &Here) -> Done {
    let mut found = Findings::default();
    let runner = daemon::runner_binary(&here.env).map_err(|e| e.to_string()).and_then(|path| {
        if path.exists() {
            Ok(path)
        } else {
            Err(format!("{} is missing; `make build` makes it", path.display()))
        }
    });
    found.add("runner", runner, |path| path.display().to_string());
    if here.root.database().exists() {
        found.add("store", Store::beside(&here.root.database()), |_| {
            here.root.database().display().to_string()
        });
    }
    let install =
        found.add("settings", here.install(), |i| format!("model {} at {}", i.model.model, i.model.provider));
    if let Some(install) = install {
        groups(&install, &mut found);
        engine(here, &install, &mut found).await;
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

fn groups(install: &Install, found: &mut Findings) {
    for name in install.group_names() {
        let checked = install.group(&name).map_err(|e| e.to_string()).and_then(|group| {
            personality::read(&install.root.personality(&name)).map(|text| (group, text.is_some()))
        });
        found.add("group", checked, |(group, text)| {
            format!(
                "{name}: image {}, {}",
                group.image,
                if *text { "personality read" } else { "no CLAUDE.md" }
            )
        });
    }
}

async fn engine(here: &Here, install: &Install, found: &mut Findings) {
    let engine = daemon::engine(install, &here.env);
    let facts = engine.facts().await;
    let known = found.add("engine", facts, |f| {
        format!("{} (API {}, cgroup v{}, runtimes {})", f.version, f.api, f.cgroups, f.runtimes.join(", "))
    });
    if known.is_none() {
        return;
    }
    let mut images: Vec<String> = install
        .group_names()
        .iter()
        .filter_map(|name| install.group(name).ok().map(|group| group.image))
        .chain([install.file.image.clone()])
        .collect();
    images.sort();
    images.dedup();
    for image in images {
        let checked = match engine.image(&image).await {
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
