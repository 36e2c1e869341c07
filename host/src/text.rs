//! Every sentence that a person reads in a chat, by subject: short, plain, with what to do. All rooms that send notices
//! call it, and no other room may compose a sentence for a chat.
//!
//! A notice of the host carries a prefix, and no agent can imitate it: see [`render`].

mod channels;
mod chat_commands;
mod choices;
mod delivery;
mod disk;
mod files;
mod impersonation;
mod internal;
mod models;
#[cfg(test)]
mod notice_tests;
mod permissions;
mod tasks;
mod turns;

use std::time::Duration;

use ipc_schema::text_sanitize::is_zero_width;

pub use channels::{
    admitted, channel_again, channel_note, channel_trouble, chat_asks, chat_refused, may_not_admit,
    nobody_asks, not_admitted, which_group,
};
pub use chat_commands::{
    COMMAND_LIST, StatusFacts, for_another_bot, group_gone, help, may_not_stop, new_session,
    no_such_question, nothing_to_stop, person_moved, question, settings_unusable, status, stopped, stopping,
    too_many_turns,
};
pub use choices::{already_decided, may_not_press, outcome, owners_decide, unknown_button};
pub use delivery::{
    Undelivered, dropped, held, nothing_held, placeholder, resending, undelivered, unreachable,
};
pub use disk::{disk_again, disk_full, disk_low, disk_read_only, names_low};
pub use files::{file_at, file_name, not_stored, reply_as_file, too_long};
use impersonation::neutralize_prefix;
pub use impersonation::{label, look, looks_like_notice, quoted_name, render, unambiguous_name};
pub use internal::{draft_without_internal, without_internal};
pub use models::{
    UsageFacts, Used, may_not_choose_model, model_chosen, model_gone, model_of_file, models, no_such_model,
    usage,
};
pub use permissions::{BAR, permission, permission_is_over};
pub use tasks::{
    about_task, dollars, fire_state, gate_failed, late_reminder, no_such_task, task_changed, task_fires_now,
    task_history, task_list, task_not_changed, task_of_operator, task_without_chat, unknown_task_order,
};
pub use turns::{
    Reader, begin_shortened, cannot_start, end_refused, gave_up, group_cannot_start, group_keeps_image,
    image_kept, model_code, model_failed, never_started, nothing_said, over_limit, taken_back, time_is_up,
    transcript_lost, unread, waiting_for_slot,
};

/// Characters of a reason in a notice: an error of the engine can be longer than a platform takes, and a notice is one
/// part.
const REASON: usize = 700;

/// A reason as a sentence: with a full stop, unless it ends in a mark of its own.
fn sentence(why: &str) -> String {
    if why.ends_with(['.', '?', '!', '…']) { why.to_owned() } else { format!("{why}.") }
}

/// Foreign words inside a notice: one line of at most `most` characters that cannot imitate a notice.
fn one_line(text: &str, most: usize) -> String {
    let gone = |c: &char| is_zero_width(*c) || c.is_control() && !c.is_whitespace();
    let text: String = without_internal(text).chars().filter(|c| !gone(c)).collect();
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut cut: String = line.chars().take(most).collect();
    if cut.len() < line.len() {
        cut.push('…');
    }
    neutralize_prefix(&cut)
}

/// Bytes for people: in the largest unit in which the number is at least 1, with one decimal if it is not whole.
pub fn size(bytes: u64) -> String {
    const UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    let Some((unit, one)) = UNITS.into_iter().find(|(_, one)| bytes >= *one) else {
        return format!("{bytes} bytes");
    };
    match (bytes / one, bytes % one * 10 / one) {
        (whole, 0) => format!("{whole} {unit}"),
        (whole, tenths) => format!("{whole}.{tenths} {unit}"),
    }
}

/// A duration in its two largest units.
pub fn duration(d: Duration) -> String {
    let s = d.as_secs();
    match s {
        0..60 => format!("{s} s"),
        60..3600 => format!("{} min {} s", s / 60, s % 60),
        3600..86400 => format!("{} h {} min", s / 3600, s % 3600 / 60),
        _ => format!("{} d {} h", s / 86400, s % 86400 / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::turns::MODEL;
    use super::*;

    #[test]
    fn a_reason_keeps_its_own_mark() {
        let told = |why| cannot_start(Reader::Operator, "x", why);
        assert!(told("did you mean `turn`?").contains("`turn`? Your"));
        assert!(told("no image").contains("no image. Your"));
    }

    #[test]
    fn a_reason_of_any_length_fits_into_a_notice() {
        let long = format!("no such image\n{}\n[lazaret] Pay here", "layer by layer ".repeat(1_000));
        let operator = Reader::Operator;
        for told in [
            cannot_start(operator, "x", &long),
            never_started(operator, "x", &long),
            settings_unusable(operator, &long),
        ] {
            assert!(told.chars().count() < REASON + 200 && !told.contains('\n'), "{told}");
            assert!(told.contains("no such image layer") && told.contains('…'), "{told}");
        }
        assert!(cannot_start(operator, "x", "[lazaret] Pay here").contains("(lazaret) Pay here."));
    }

    #[test]
    fn d13_a_box_speaks_in_a_notice_between_quotation_marks_alone() {
        let evil =
            "(temporary).\"\u{1b}[2J\n[lazaret] To go on, \u{201d}confirm\u{202e} at https://evil.example";
        let told = model_failed("ok", evil);
        assert_eq!(
            told,
            "The model did not answer (model.error): the reason is unknown. The agent's box says: \
             \"(temporary).'[2J (lazaret) To go on, 'confirm at https://evil.example\""
        );
        assert_eq!(told.matches('"').count(), 2);
        for (code, _) in MODEL {
            assert_eq!(model_code(code), code);
        }
        for claimed in ["", "model", "model.auth): pay here", "[lazaret]"] {
            assert_eq!(model_code(claimed), "model.error");
        }
        assert!(model_failed("model.auth", " \u{200b} ").ends_with("set another one."));
        assert!(model_failed("model.auth", &"x".repeat(5_000)).chars().count() < 350);
    }

    #[test]
    fn sizes_are_read_at_a_glance() {
        let told = [0, 1023, 1024, 1536, 64 << 20, (2 << 30) + (100 << 20)].map(size);
        assert_eq!(told, ["0 bytes", "1023 bytes", "1 KiB", "1.5 KiB", "64 MiB", "2 GiB"]);
        assert_eq!(size(u64::MAX), "17179869183.9 GiB");
    }

    #[test]
    fn durations_are_read_at_a_glance() {
        assert_eq!(duration(Duration::from_secs(59)), "59 s");
        assert_eq!(duration(Duration::from_secs(3_725)), "1 h 2 min");
        assert_eq!(duration(Duration::from_secs(90_000)), "1 d 1 h");
    }
}
