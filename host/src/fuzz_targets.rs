//! The fuzz targets of the host: one for every parser that reads foreign bytes. `tests/fuzz` calls them. Each does with
//! the bytes what the host does, and panics if a property does not hold. They exist in fuzz builds and in tests, which
//! run them over the committed corpus.

use ipc_schema::text_sanitize::clean;

use crate::channels::terminal::wire::{FromClient, ToClient};
use crate::channels::{telegram, whatsapp};
use crate::domain::group_settings::{Group, Trigger};
use crate::domain::message::{Addressee, Inbound, NameOf, Role, Sender};
use crate::domain::{ChatKind, SenderId, WallMs, Zone};
use crate::policy::admission::{self, AdmissionDecision};
use crate::schedule::{self, Schedule};
use crate::{backup, config, model, sandbox, terminal_output, text};

/// A fuzz target with its name.
pub type FuzzTarget = (&'static str, fn(&[u8]));

/// The fuzz targets of this crate, by name.
pub const FUZZ_TARGETS: [FuzzTarget; 18] = [
    ("admission", admission),
    ("anthropic_stream", model::fuzz_targets::anthropic_stream),
    ("archive", backup::fuzz),
    ("events", model::fuzz_targets::events),
    ("group_toml", config::fuzz_targets::group),
    ("image_passwd", image_passwd),
    ("install_toml", config::fuzz_targets::install),
    ("model_request", model::fuzz_targets::model_request),
    ("names", names),
    ("openai_answer", model::fuzz_targets::openai_answer),
    ("openai_stream", model::fuzz_targets::openai_stream),
    ("provider_error", model::fuzz_targets::provider_error),
    ("redaction", model::fuzz_targets::redaction),
    ("reply", reply),
    ("schedule", schedule),
    ("telegram_update", telegram_update),
    ("terminal_line", terminal_line),
    ("whatsapp_message", whatsapp_message),
];

/// An update, and admission after it.
fn telegram_update(data: &[u8]) {
    let Some(mut inbound) = telegram::fuzz_targets::update(data) else { return };
    inbound.text = clean(&inbound.text);
    let _ = admitted(&inbound, Trigger::Addressed);
    one_line(&text::label(&inbound.sender.name));
    one_line(&text::label(&inbound.title));
}

/// A decrypted message, and admission after it. Without the channel there is nothing to read.
fn whatsapp_message(data: &[u8]) {
    #[cfg(feature = "whatsapp")]
    for mut inbound in whatsapp::fuzz_targets::message(data) {
        inbound.text = clean(&inbound.text);
        let _ = admitted(&inbound, Trigger::Addressed);
        one_line(&inbound.sender.name);
        one_line(&text::label(&inbound.title));
    }
    #[cfg(not(feature = "whatsapp"))]
    let _ = data;
}

/// First line the trigger's word, then a message: it wakes exactly when the word stands in it by itself.
fn admission(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (word, text) = text.split_once('\n').unwrap_or(("laz", &text));
    let (Ok(chat), Ok(sender)) = ("telegram:-1".parse(), "telegram:5".parse()) else { return };
    let message = Inbound {
        chat,
        kind: ChatKind::Room,
        title: "Family".into(),
        message_id: "1".into(),
        version: 0,
        sender: Sender { id: sender, name: "Ann".into(), is_bot: false },
        text: clean(text),
        origin: None,
        service: false,
        reply_to: None,
        attachments: Vec::new(),
        addressee: Addressee::Anyone,
        at: WallMs(0),
        press: None,
    };
    let role = admitted(&message, Trigger::Words(vec![word.to_owned()]));
    if role == Some(Role::Wake) {
        assert!(message.text.to_lowercase().contains(&word.to_lowercase()));
    }
}

/// In a chat that is admitted, whoever may order is heard; a stranger never is.
fn admitted(message: &Inbound, trigger: Trigger) -> Option<Role> {
    let nobody: [SenderId; 0] = [];
    assert!(matches!(
        admission::admit(message, None, &nobody),
        AdmissionDecision::Stranger | AdmissionDecision::Ignore(_)
    ));
    let group = Group { trigger, senders: Some(Vec::new()), ..Group::for_tests("family") };
    let unheard = admission::admit(message, Some(&group), &nobody);
    assert!(
        !matches!(unheard, AdmissionDecision::Take(Role::Wake | Role::Command(_))),
        "who may not order was obeyed"
    );
    let group = Group { senders: None, ..group };
    match admission::admit(message, Some(&group), &nobody) {
        AdmissionDecision::Take(role) => Some(role),
        _ => None,
    }
}

/// What an agent says, on each platform and on a terminal.
fn reply(data: &[u8]) {
    telegram::fuzz_targets::reply(data);
    whatsapp::check_reply(data);
    let text = String::from_utf8_lossy(data);
    let told = text::render(crate::domain::outbound::Voice::Reply, &text);
    let shown = terminal_output::safe(&told);
    assert!(!text::looks_like_notice(&told) && !text::looks_like_notice(&shown), "{shown}");
    assert!(shown.chars().all(|c| !c.is_control() || matches!(c, '\n' | '\t')), "{shown:?}");
}

/// A name that a person chose, and one that an agent gave a file.
fn names(data: &[u8]) {
    let name = String::from_utf8_lossy(data);
    let file = text::file_name(&name);
    one_line(&file);
    assert!(!file.is_empty() && !file.starts_with('.') && !file.contains(['/', '\\']), "{file:?}");
    assert!(!text::looks_like_notice(&file), "{file:?}");
    let told = text::unambiguous_name(&name, "Laz", NameOf::Own);
    one_line(&told);
    for taken in ["Laz", "[lazaret]"] {
        assert!(told != taken, "{name:?} wears {taken}");
    }
}

/// A schedule that a person or an agent wrote: what is stored means the same, and its fires go on.
fn schedule(data: &[u8]) {
    const NOW: WallMs = WallMs(1_795_000_000_000);
    let (text, zone) = (String::from_utf8_lossy(data), Zone::utc());
    let _ = Schedule::from_canonical(&text);
    let Ok(schedule) = schedule::parse(&text, &zone, NOW) else { return };
    assert_eq!(Schedule::from_canonical(&schedule.canonical()), Ok(schedule.clone()));
    assert!(!schedule.describe(&zone).contains(char::is_control), "{schedule:?}");
    let mut last = NOW;
    for _ in 0..3 {
        let Some(fire) = schedule.next(&zone, last) else {
            assert!(matches!(schedule, Schedule::Once(_)) && last > NOW, "{schedule:?} ends");
            return;
        };
        assert!(fire > last, "{schedule:?} goes back");
        last = fire;
    }
}

fn one_line(label: &str) {
    assert!(label.chars().count() <= 100 && label == label.trim(), "{label:?}");
    assert!(
        label.chars().all(|c| !c.is_control() && !ipc_schema::text_sanitize::is_zero_width(c)),
        "{label:?}"
    );
}

/// A line of a chat's client, and of the host.
fn terminal_line(data: &[u8]) {
    if let Ok(line) = serde_json::from_slice::<FromClient>(data) {
        let again = serde_json::to_vec(&line).and_then(|text| serde_json::from_slice::<FromClient>(&text));
        assert_eq!(again.ok(), Some(line));
    }
    if let Ok(line) = serde_json::from_slice::<ToClient>(data) {
        let again = serde_json::to_vec(&line).and_then(|text| serde_json::from_slice::<ToClient>(&text));
        assert_eq!(again.ok(), Some(line));
    }
}

/// An archive of an image's passwd: never more than was in it.
fn image_passwd(data: &[u8]) {
    assert!(sandbox::first_file(data).len() <= data.len().saturating_sub(512));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Inputs that a fuzz run has found once stay tested: every file of the corpus runs through its target.
    #[test]
    fn every_target_accepts_its_corpus() {
        for (name, target) in FUZZ_TARGETS {
            let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fuzz/corpus");
            let files: Vec<_> = std::fs::read_dir(format!("{corpus}/{name}")).unwrap().collect();
            assert!(files.len() >= 2, "{name} has no corpus");
            for file in files {
                target(&std::fs::read(file.unwrap().path()).unwrap());
            }
            target(b"");
            target(&[0xff; 64]);
        }
    }
}
