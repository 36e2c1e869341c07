//! `lazaret groups` lists groups and chats, adds groups, admits chats, and shows or restores a group's personality.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::json;

use super::{CliError, Done, Here};
use crate::clock::Clock;
use crate::config::{first, personality_file};
use crate::domain::GroupName;
use crate::host_files;

/// List, add and show groups, admit chats to them, and undo a change of personality.
#[derive(Debug, Args)]
pub struct Groups {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List the groups, their chats, and the chats that wait to be admitted.
    List,
    /// Make the folder of a new group from the template.
    Add {
        /// The name of the new group.
        name: GroupName,
    },
    /// Admit a waiting chat to a group, and make the group if it does not exist. `list` shows the chat's code.
    Admit {
        /// The code of the chat, as `list` shows it.
        code: String,
        /// The group. The first person admitted to `main` from a direct chat becomes an owner.
        #[arg(long)]
        group: GroupName,
    },
    /// Show a group's settings and personality.
    Show {
        /// The name of the group.
        name: GroupName,
    },
    /// Put back the text that a group's CLAUDE.md had before the agent's last change. A second call undoes that.
    Undo {
        /// The name of the group.
        name: GroupName,
    },
}

pub(super) async fn run(here: &Here, groups: Groups) -> Done {
    match groups.verb {
        Verb::List => list(here).await,
        Verb::Add { name } => {
            first::add_group(&here.root, &name).map_err(|e| CliError::Plain(format!("group {name}: {e}")))?;
            let dir = here.root.groups().join(name.as_str());
            here.print(
                &json!({ "group": name.as_str(), "folder": dir }),
                format!("group {name}: {}", dir.display()),
            );
            Ok(ExitCode::SUCCESS)
        }
        Verb::Admit { code, group } => admit(here, code, group).await,
        Verb::Show { name } => show(here, &name),
        Verb::Undo { name } => undo(here, name).await,
    }
}

async fn list(here: &Here) -> Done {
    let install = here.install()?;
    let store = here.store_to_read()?;
    let chats = store.chats().await?;
    let strangers = store.strangers().await?;
    let mut text = String::new();
    let mut groups = Vec::new();
    for name in install.group_names() {
        let own: Vec<_> = chats.iter().filter(|(_, group, _)| *group == name).collect();
        text += &format!("{name}\n");
        for (chat, _, title) in &own {
            text += &format!("  {chat}  {}\n", crate::terminal_output::safe(title));
        }
        groups.push(json!({
            "group": name.as_str(),
            "chats": own.iter().map(|(chat, _, title)| json!({ "chat": chat, "title": title })).collect::<Vec<_>>(),
        }));
    }
    if !strangers.is_empty() {
        text += "\nchats that wait to be admitted (lazaret groups admit CODE --group NAME):\n";
        for s in &strangers {
            let who =
                crate::terminal_output::safe(&format!("{} — {} ({})", s.title, s.sender_name, s.sender));
            text +=
                &format!("  {}  {}  {who}, {} messages, last {}\n", s.code, s.chat, s.messages, s.last_at);
        }
    }
    let waiting: Vec<_> = strangers
        .iter()
        .map(|s| json!({ "code": s.code, "chat": s.chat, "title": s.title, "sender": s.sender, "messages": s.messages }))
        .collect();
    here.print(&json!({ "groups": groups, "waiting": waiting }), text.trim_end());
    Ok(ExitCode::SUCCESS)
}

async fn admit(here: &Here, code: String, group: GroupName) -> Done {
    let store = here.store()?;
    if !group.is_main() && !host_files::there(&here.root.groups().join(group.as_str())) {
        first::add_group(&here.root, &group).map_err(|e| CliError::Plain(format!("group {group}: {e}")))?;
    }
    let now = Clock::new().wall();
    let Some(admitted) = store.admit_code(code.clone(), group.clone(), "terminal".into(), now).await? else {
        let why = format!("no chat waits under the code {code}; `lazaret groups list` shows those that do");
        return Err(CliError::Plain(why));
    };
    let mut text = format!("{} now belongs to group {group}", admitted.chat);
    if let Some(owner) = &admitted.owner {
        text += &format!(", and {owner} is the owner of this install");
    }
    let owner = admitted.owner.map(|o| o.to_string());
    here.print(&json!({ "chat": admitted.chat, "group": group.as_str(), "owner": owner }), text);
    Ok(ExitCode::SUCCESS)
}

fn show(here: &Here, name: &GroupName) -> Done {
    let group = here.install()?.group(name)?;
    let text = personality_file::read(&here.root.personality(name)).map_err(CliError::Plain)?;
    let facts = json!({
        "group": name.as_str(),
        "persona": group.persona,
        "image": group.image,
        "model": group.model.model,
        "provider": group.model.provider,
        "zone": group.zone.name(),
        "idle_window_s": group.limits.idle_window.0.as_secs(),
        "turn_s": group.limits.turn.0.as_secs(),
        "memory_mib": group.limits.memory_mib,
        "personality": text.as_ref().map(|t| t.text.clone()),
    });
    let shown = format!(
        "group    {name}\npersona  {}\nimage    {}\nmodel    {} at {}\nzone     {}\nsettings {}\n\n{}",
        group.persona,
        group.image,
        group.model.model,
        group.model.provider,
        group.zone.name(),
        here.root.group_file(name).display(),
        text.map_or_else(|| "(no CLAUDE.md)".to_owned(), |t| crate::terminal_output::safe(&t.text)),
    );
    here.print(&facts, shown.trim_end());
    Ok(ExitCode::SUCCESS)
}

async fn undo(here: &Here, name: GroupName) -> Done {
    let store = here.store()?;
    personality_file::undo(&here.root.personality(&name))
        .map_err(|e| CliError::Plain(format!("group {name}: {e}")))?;
    store.audit(Clock::new().wall(), "terminal".into(), "personality undone", name.to_string()).await?;
    here.print(
        &json!({ "group": name.as_str(), "undone": true }),
        format!("group {name}: the personality before this one is back"),
    );
    Ok(ExitCode::SUCCESS)
}
