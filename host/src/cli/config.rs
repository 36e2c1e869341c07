//! `lazaret config` checks and prints settings.

use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;

use super::{Done, Here, told_waiting};
use crate::config::{Install, install_rights, schema_of_group, schema_of_install};
use crate::terminal_output::print;

/// Check and print the settings.
#[derive(Debug, Args)]
pub struct Config {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Check every settings file, and report each setting that cannot be used.
    Check,
    /// Print every setting, its value, and where it comes from.
    Show,
    /// Print the JSON Schema of a settings file.
    Schema {
        /// The settings file to describe.
        #[arg(value_enum, default_value_t = File::Install)]
        file: File,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum File {
    /// lazaret.toml
    Install,
    /// group.toml
    Group,
}

pub(super) async fn run(here: &Here, config: Config) -> Done {
    match config.verb {
        Verb::Check => {
            let install = match Install::check_all(here.root.clone(), &here.env) {
                Ok(install) => install,
                Err(e) if here.json => {
                    print(json!({ "ok": false, "mistakes": e.mistakes() }));
                    return Ok(ExitCode::FAILURE);
                }
                Err(e) => return Err(e.into()),
            };
            let names = install.group_names();
            let shown: Vec<&str> = names.iter().map(|n| n.as_str()).collect();
            let mut text =
                format!("lazaret.toml and {} groups have no errors: {}", shown.len(), shown.join(", "));
            for missing in &install.missing_secrets {
                text += &format!("\nnot in this environment, and needed by the host: {missing}");
            }
            for channel in install.file.channels.all() {
                let missing = channel.missing().map(|missing| format!("\n{}: {missing}", channel.name()));
                text += &missing.unwrap_or_default();
            }
            let risks = install_rights::of_install(&here.root);
            for risk in &risks {
                text +=
                    &format!("\n{}: {risk}", if risk.refused { "refused by `lazaret up`" } else { "risk" });
            }
            let ok = !risks.iter().any(|risk| risk.refused);
            let risks: Vec<String> = risks.iter().map(ToString::to_string).collect();
            let json = json!({
                "ok": ok, "groups": shown, "missing_secrets": install.missing_secrets, "risks": risks,
            });
            here.print(&json, text);
            if !ok {
                return Ok(ExitCode::FAILURE);
            }
        }
        Verb::Show => {
            let install = here.install()?;
            let shown = install.shown();
            let name = shown.iter().map(|s| s.name.len()).max().unwrap_or(0);
            let value = shown.iter().map(|s| s.value.len()).max().unwrap_or(0).min(40);
            let lines: Vec<String> =
                shown.iter().map(|s| format!("{:name$}  {:value$}  {}", s.name, s.value, s.source)).collect();
            let waiting = here.waiting_settings(&install).await;
            let json: Vec<_> = shown
                .iter()
                .map(|s| {
                    let differs = waiting.iter().find(|one| one.name == s.name);
                    json!({ "name": s.name, "value": s.value, "source": s.source, "running": differs.map(|one| &one.running) })
                })
                .collect();
            here.print(&json!(json), lines.join("\n") + &told_waiting(&waiting));
        }
        Verb::Schema { file } => {
            let schema = match file {
                File::Install => schema_of_install(),
                File::Group => schema_of_group(),
            };
            print(serde_json::to_string_pretty(&schema).unwrap_or_default());
        }
    }
    Ok(ExitCode::SUCCESS)
}
