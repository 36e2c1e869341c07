//! `lazaret owners` shows who may do everything, and changes it.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::json;

use super::{CliError, Done, Here};
use crate::clock::Clock;
use crate::domain::SenderId;

/// Show, add and remove owners: the people who may do everything.
#[derive(Debug, Args)]
pub struct Owners {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List the owners, and what made them owners.
    List,
    /// Make a person an owner.
    Add {
        /// The person, such as `telegram:12345`.
        id: SenderId,
    },
    /// End a person's ownership.
    Remove {
        /// The person, as `list` shows it.
        id: SenderId,
    },
}

pub(super) async fn run(here: &Here, owners: Owners) -> Done {
    let (install, now) = (here.install()?, Clock::new().wall());
    let file = install.root.install_file();
    match owners.verb {
        Verb::List => {
            let by_file = install.owners.iter().map(|owner| (owner.to_string(), file.display().to_string()));
            let paired = here.store_to_read()?.owners().await?.into_iter();
            let paired = paired.map(|owner| (owner.to_string(), "admitted or added".to_owned()));
            let all: Vec<(String, String)> = by_file.chain(paired).collect();
            let lines: Vec<String> = all.iter().map(|(owner, by)| format!("{owner}  {by}")).collect();
            let none =
                "there is no owner: the first person admitted to `main` from a direct chat becomes one";
            let text = if lines.is_empty() { none.to_owned() } else { lines.join("\n") };
            let json: Vec<_> = all.iter().map(|(owner, by)| json!({ "owner": owner, "by": by })).collect();
            here.print(&json!(json), text);
        }
        Verb::Add { id } => {
            if install.file.channels.named(id.channel()).is_none() {
                return Err(CliError::Plain(format!("there is no channel {:?}", id.channel())));
            }
            let new = here.store()?.add_owner(id.clone(), now).await?;
            let text = format!("{id} {} an owner", if new { "is now" } else { "was already" });
            here.print(&json!({ "owner": id, "new": new }), text);
        }
        Verb::Remove { id } => {
            if install.owners.contains(&id) {
                let why = format!(
                    "{} names {id} in `owners`; take it out there and start the host again",
                    file.display()
                );
                return Err(CliError::Plain(why));
            }
            let store = here.store()?;
            if !store.remove_owner(id.clone(), now).await? {
                return Err(CliError::Plain(format!("{id} is no owner; `lazaret owners list` shows all")));
            }
            let mut text = format!(
                "{id} is no owner any more; the chats of {id} stay admitted (`lazaret groups revoke`)"
            );
            if install.owners.is_empty() && store.owners().await?.is_empty() {
                text += "\nthere is no owner now: the next person admitted to `main` from a direct chat becomes one";
            }
            here.print(&json!({ "owner": id, "removed": true }), text);
        }
    }
    Ok(ExitCode::SUCCESS)
}
