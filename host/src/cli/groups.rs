//! `lazaret groups` lists groups and chats, adds groups, admits chats, and shows or restores a group's personality.

use std::collections::BTreeSet;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::json;

use super::{CliError, Done, Here, told_waiting};
use crate::backup;
use crate::channels::terminal::wire::FromClient;
use crate::clock::Clock;
use crate::config::{first, personality_file};
use crate::domain::message::{Admitted, Inbound, Role};
use crate::domain::{ChatId, ChatKind, GroupName};
use crate::host_files;
use crate::policy::admission;
use crate::policy::strangers::MOST;
use crate::store::{Store, Stranger};

/// List, add, show and remove groups, admit chats to them and revoke that, and undo a change of personality.
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
        /// Do not answer what the chat has written before.
        #[arg(long)]
        unanswered: bool,
    },
    /// End the admission of a chat. The agent does not answer it any more; what it wrote stays.
    Revoke {
        /// The chat, as `list` shows it.
        chat: ChatId,
    },
    /// End the admission of a group's chats and set its folder aside. Its workspace and conversation stay in `state/`.
    Remove {
        /// The name of the group.
        name: GroupName,
    },
    /// Show a group's settings and personality.
    Show {
        /// The name of the group.
        name: GroupName,
    },
    /// List the tool calls that owners always allow to a group where its rules say `ask`, or take one back.
    Rules {
        /// The name of the group.
        name: GroupName,
        /// Take back the one with this number. A box that is open keeps it until it closes.
        #[arg(long, value_name = "NUMBER")]
        forget: Option<i64>,
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
        Verb::Admit { code, group, unanswered } => admit(here, code, group, !unanswered).await,
        Verb::Revoke { chat } => revoke(here, chat).await,
        Verb::Remove { name } => remove(here, name).await,
        Verb::Show { name } => show(here, &name).await,
        Verb::Rules { name, forget: None } => rules(here, name).await,
        Verb::Rules { name, forget: Some(rule) } => forget_rule(here, name, rule).await,
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
    let mut names = install.group_names();
    let gone = chats.iter().map(|(_, group, _)| group).filter(|group| !install.has_group(group));
    names.extend(gone.cloned().collect::<BTreeSet<_>>());
    for name in names {
        let own: Vec<_> = chats.iter().filter(|(_, group, _)| *group == name).collect();
        let state =
            if install.has_group(&name) { "" } else { "  (its folder is gone: its chats start nothing)" };
        text += &format!("{name}{state}\n");
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
            let refused = if s.refused { ", refused" } else { "" };
            let who =
                crate::terminal_output::safe(&format!("{} — {} ({})", s.title, s.sender_name, s.sender));
            text += &format!(
                "  {}  {}  {who}, {} messages, last {}{refused}\n",
                s.code, s.chat, s.messages, s.last_at
            );
        }
    }
    if strangers.len() >= MOST {
        text += &format!(
            "\n{MOST} chats wait, and there is room for no other: the host only counts what new chats write, unless an \
             owner writes there.\n/refuse CODE in a chat of main makes room; `owners` in lazaret.toml names owners\n"
        );
    }
    let waiting: Vec<_> = strangers
        .iter()
        .map(|s| json!({ "code": s.code, "chat": s.chat, "title": s.title, "sender": s.sender, "messages": s.messages, "refused": s.refused }))
        .collect();
    here.print(&json!({ "groups": groups, "waiting": waiting }), text.trim_end());
    Ok(ExitCode::SUCCESS)
}

async fn admit(here: &Here, code: String, group: GroupName, answers: bool) -> Done {
    let store = here.store()?;
    if !group.is_main() && !host_files::there(&here.root.groups().join(group.as_str())) {
        first::add_group(&here.root, &group).map_err(|e| CliError::Plain(format!("group {group}: {e}")))?;
    }
    let now = Clock::new().wall();
    let first = if answers { first_message(here, &store, &code, &group).await? } else { None };
    let answered = first.as_ref().is_some_and(|first| first.role == Role::Wake);
    let admitted = store.admit_code(code.clone(), group.clone(), "terminal".into(), first, now).await?;
    let Some(admitted) = admitted else {
        let why = format!("no chat waits under the code {code}; `lazaret groups list` shows those that do");
        return Err(CliError::Plain(why));
    };
    let mut text = format!("{} now belongs to group {group}", admitted.chat);
    if let Some(owner) = &admitted.owner {
        text += &format!(", and {owner} is the owner of this install");
    }
    if answered {
        let up = here.tell_host(&FromClient::Admitted { group: group.clone() }).await;
        text += if up {
            "; its first message is answered now"
        } else {
            "; its first message is answered when the host starts"
        };
    }
    let owner = admitted.owner.map(|o| o.to_string());
    let told =
        json!({ "chat": admitted.chat, "group": group.as_str(), "owner": owner, "answered": answered });
    here.print(&told, text);
    Ok(ExitCode::SUCCESS)
}

/// The kept message of the chat that waits under this code, if the agent answers it.
async fn first_message(
    here: &Here,
    store: &Store,
    code: &str,
    group: &GroupName,
) -> Result<Option<Admitted>, CliError> {
    let install = here.install()?;
    let mut owners = [install.owners.clone(), store.owners().await?].concat();
    let waiting = store.strangers().await?.into_iter().find(|s| s.code.eq_ignore_ascii_case(code));
    let asked = waiting.and_then(Stranger::first_message);
    // As the store does: the first person of `main` becomes owner from a direct chat only.
    let first_owner = |(inbound, _): &&(Inbound, _)| {
        group.is_main() && owners.is_empty() && inbound.kind == ChatKind::Direct
    };
    if let Some((inbound, _)) = asked.as_ref().filter(first_owner) {
        owners.push(inbound.sender.id.clone());
    }
    let settings = install.group(group)?;
    Ok(asked.and_then(|asked| admission::first_message(asked, &settings, &owners)))
}

async fn revoke(here: &Here, chat: ChatId) -> Done {
    let (install, store) = (here.install()?, here.store()?);
    if let Some((_, group)) = install.chats().into_iter().find(|(named, _)| *named == chat) {
        let file = install.root.group_file(&group);
        let why = format!(
            "{} names {chat} in `chats`; take it out there first, or the next start admits it again",
            file.display()
        );
        return Err(CliError::Plain(why));
    }
    let Some(group) = store.revoke_chat(chat.clone(), "terminal".into(), Clock::new().wall()).await? else {
        let why = format!("{chat} is not admitted; `lazaret groups list` shows the chats that are");
        return Err(CliError::Plain(why));
    };
    let text =
        format!("{chat} does not belong to group {group} any more; a turn that is under way still ends");
    here.print(&json!({ "chat": chat, "group": group.as_str() }), text);
    Ok(ExitCode::SUCCESS)
}

async fn remove(here: &Here, name: GroupName) -> Done {
    if name.is_main() {
        return Err(CliError::Plain(
            "main is the group of this install's owner and cannot be removed".into(),
        ));
    }
    let (store, now) = (here.store()?, Clock::new().wall());
    let folder = here.root.groups().join(name.as_str());
    let chats = store.chats().await?.into_iter().filter(|(_, group, _)| *group == name);
    let chats: Vec<ChatId> = chats.map(|(chat, _, _)| chat).collect();
    if chats.is_empty() && !host_files::there(&folder) {
        return Err(CliError::Plain(format!(
            "there is no group {name}; `lazaret groups list` shows all groups"
        )));
    }
    let aside = here.root.groups().join(format!("{name}.removed-{}", backup::stamp(now)));
    let moved =
        first::set_aside(&folder, &aside).map_err(|e| CliError::Plain(format!("group {name}: {e}")))?;
    for chat in &chats {
        store.revoke_chat(chat.clone(), "terminal".into(), now).await?;
    }
    store.audit(now, "terminal".into(), "group removed", name.to_string()).await?;
    let mut text = format!("group {name} is removed, and {} chats are admitted no more", chats.len());
    if moved {
        text += &format!("\nits folder is kept: {}", aside.display());
    }
    text += &format!("\nits files are kept: {}", here.root.workspace(&name).display());
    here.print(&json!({ "group": name.as_str(), "chats": chats, "kept": moved.then_some(aside) }), text);
    Ok(ExitCode::SUCCESS)
}

async fn show(here: &Here, name: &GroupName) -> Done {
    let install = here.install()?;
    let (mut group, waiting) = (install.group(name)?, here.waiting_settings(&install).await);
    let chosen = match here.store_to_read() {
        Ok(store) => store.model_choice(name.clone()).await?,
        // The host was never started here.
        Err(_) => None,
    };
    let chosen = chosen.and_then(|(provider, model)| install.chosen(&group, (&provider, &model)));
    let by_chat = if chosen.is_some() { " (chosen with /model)" } else { "" };
    group.model = chosen.unwrap_or(group.model);
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
        "personality": text.as_ref().map(|t| t.text.text.clone()),
        "waiting": waiting,
    });
    let shown = format!(
        "group    {name}\npersona  {}\nimage    {}\nmodel    {} at {}{by_chat}\nzone     {}\nsettings {}{}\n\n{}",
        group.persona,
        group.image,
        group.model.model,
        group.model.provider,
        group.zone.name(),
        here.root.group_file(name).display(),
        told_waiting(&waiting),
        text.map_or_else(|| "(no CLAUDE.md)".to_owned(), |t| crate::terminal_output::safe(&t.text.text)),
    );
    here.print(&facts, shown.trim_end());
    Ok(ExitCode::SUCCESS)
}

async fn rules(here: &Here, name: GroupName) -> Done {
    let rules = here.store_to_read()?.tool_rules(name.clone()).await?;
    let listed = rules.iter().map(|rule| {
        json!({
            "number": rule.id,
            "tool": rule.allowed.tool,
            "command": rule.allowed.command,
            "by": rule.made_by,
            "at": rule.made_at.to_string(),
        })
    });
    let lines = rules.iter().map(|rule| {
        let call = rule.allowed.command.as_deref().unwrap_or("(every call)");
        let call = crate::terminal_output::safe(&call.replace('\n', "\n      "));
        format!("{:>4}  {}: {call}  (by {}, {})", rule.id, rule.allowed.tool, rule.made_by, rule.made_at)
    });
    let shown = match rules.is_empty() {
        true => format!("owners have always allowed nothing to group {name}"),
        false => lines.collect::<Vec<_>>().join("\n"),
    };
    here.print(&json!({ "group": name.as_str(), "rules": listed.collect::<Vec<_>>() }), shown);
    Ok(ExitCode::SUCCESS)
}

async fn forget_rule(here: &Here, name: GroupName, rule: i64) -> Done {
    let now = Clock::new().wall();
    if !here.store()?.forget_tool_rule(name.clone(), rule, "terminal".into(), now).await? {
        let why = format!("group {name} has no rule {rule}; `lazaret groups rules {name}` lists them");
        return Err(CliError::Plain(why));
    }
    let text = format!("group {name}: rule {rule} is forgotten, and the next box asks again");
    here.print(&json!({ "group": name.as_str(), "forgotten": rule }), text);
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
