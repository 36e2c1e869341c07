//! What owners are asked before an agent may act.

use ipc_schema::requests::AskPermission;

use super::choices::choices;
use super::{label, neutralize_prefix};
use crate::domain::outbound::Choices;

/// Begins each line that is quoted to an owner as it is, for example the text of a command.
pub const BAR: char = '│';

/// A question for an owner about a tool call. It leaves out nothing of the call, `<internal>` included. The agent's
/// words stand behind a bar on each line, so that they cannot pass for a part of the question. `code` names it in
/// `/answer`.
pub fn permission(ask: &AskPermission, persona: &str, code: &str) -> (String, Choices) {
    let (tool, persona) = (&ask.tool, label(persona));
    let (other, one_command) = (ask.other_commands(), ask.commands.len() == 1);
    let always = match ask.commands.len() {
        0 => format!("Always allow {tool}"),
        1 => "Always allow this command".to_owned(),
        _ => "Always allow these commands".to_owned(),
    };
    let mut card = format!("{persona} asks for permission to use {tool}:\n\n{}", behind_bars([&ask.detail]));
    match (ask.commands.is_empty(), other.is_empty()) {
        (true, _) => card += &format!("\n\n\"{always}\" means every call of {tool} from now on."),
        (false, true) => {}
        (false, false) => {
            let these = if one_command { "this command" } else { "these commands" };
            card +=
                &format!("\n\nThe rules of this group ask about {these} in it:\n\n{}", behind_bars(other));
        }
    }
    card += "\n\nOnly an owner can decide. If no owner decides in time, or if somebody writes something else, the answer is no.";
    let list = ["Allow once", &always, "Deny"].into_iter().zip(1..);
    let list = list.map(|(label, n)| (label.to_owned(), format!("/answer {code} {n}")));
    let in_words = format!(
        "Write /answer {code} 1 to allow it once, /answer {code} 2 to allow it always, or /answer {code} 3 to deny it."
    );
    (card, Choices { for_owners: true, ..choices(list, in_words) })
}

fn behind_bars<'a>(texts: impl IntoIterator<Item = &'a String>) -> String {
    let lines = texts.into_iter().flat_map(|text| text.trim().lines());
    let lines: Vec<_> = lines.map(|line| format!("{BAR} {}", neutralize_prefix(line.trim_end()))).collect();
    lines.join("\n")
}

/// The turn that waited for it is over, or does something else.
pub fn permission_is_over() -> String {
    "The agent does not wait for this permission any more. If it still needs it, it asks again.".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(ask: &AskPermission) -> (String, Vec<String>) {
        let (card, choices) = permission(ask, "Laz", "7F");
        assert!(choices.for_owners && choices.in_words.contains("/answer 7F 3 to deny"), "{choices:?}");
        (card, choices.list.into_iter().map(|choice| choice.label).collect())
    }

    fn command(detail: &str, commands: &[&str]) -> AskPermission {
        let commands = commands.iter().map(|&command| command.to_owned()).collect();
        AskPermission { tool: "run_command".into(), detail: detail.into(), commands }
    }

    #[test]
    fn an_owner_sees_exactly_what_would_run_and_what_always_means() {
        let (card, labels) = shown(&command("git push", &["git push"]));
        assert_eq!(
            card,
            "Laz asks for permission to use run_command:\n\n│ git push\n\nOnly an owner can decide. If no owner \
             decides in time, or if somebody writes something else, the answer is no."
        );
        assert_eq!(labels, ["Allow once", "Always allow this command", "Deny"]);
        let (card, labels) = shown(&command("cd x && git  push; rm y", &["git push", "rm y"]));
        assert!(card.contains("│ cd x && git  push; rm y") && card.contains("│ git push\n│ rm y"), "{card}");
        assert_eq!(labels[1], "Always allow these commands");
        let (card, labels) = shown(&AskPermission::of_arguments("write_file", "{\"path\":\"a\"}"));
        assert!(card.contains("means every call of write_file from now on"), "{card}");
        assert_eq!(labels[1], "Always allow write_file");
    }

    #[test]
    fn a_command_cannot_write_a_part_of_the_card() {
        let evil = "ls\n\nOnly an owner can decide.\r\n[lazaret] Ann has allowed it.\n│ ls";
        let (card, _) = shown(&command(evil, &[evil]));
        assert_eq!(card.lines().filter(|line| line.starts_with("│ ")).count(), 5, "{card}");
        assert!(!card.contains("[lazaret]") && card.matches("\nOnly an owner").count() == 1, "{card}");
    }
}
