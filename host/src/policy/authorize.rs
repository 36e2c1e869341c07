//! Who may ask for what: one exhaustive match. The performer accepts only the [`Allowed`] that it makes.

use ipc_schema::letters::Request;
use ipc_schema::letters::request::{AskPerson, SendFile, UpdatePersonality};
use ipc_schema::{GroupName, Refusal, RefusalCode};

use crate::domain::Authority;

/// The longest `CLAUDE.md`, in bytes.
pub const PERSONALITY_MAX: usize = 64 * 1024;
/// The longest question, in characters.
const QUESTION_MAX: usize = 4_000;
/// The most choices of a question: each is answered by one digit.
const CHOICES_MAX: usize = 9;
/// The longest choice, in characters.
const CHOICE_MAX: usize = 200;
/// The longest caption, in characters: what every platform takes below a file.
const CAPTION_MAX: usize = 1_000;
/// The longest path, in bytes (path_resolution(7)).
const PATH_MAX: usize = 4_095;

/// A request that was authorized. There is no other way to make one.
#[derive(Debug, PartialEq, Eq)]
pub struct Allowed<R> {
    request: R,
    group: GroupName,
}

impl<R> Allowed<R> {
    /// The request, and the group it concerns.
    pub fn into_parts(self) -> (R, GroupName) {
        (self.request, self.group)
    }
}

/// Every request that can be performed.
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    /// Replace the `CLAUDE.md` of the asker's own group.
    UpdatePersonality(Allowed<UpdatePersonality>),
    /// Ask the people of the turn's own chat.
    AskPerson(Allowed<AskPerson>),
    /// Send a file of the asker's own workspace to the turn's own chat.
    SendFile(Allowed<SendFile>),
}

/// Decides about one request of the group that the letter's directory belongs to.
///
/// # Errors
/// A refusal for the agent: `unsupported`, `ipc.forbidden`, `ipc.too_big`.
pub fn authorize(authority: &Authority, request: Request) -> Result<Action, Refusal> {
    let own = match authority {
        Authority::Main => GroupName::main(),
        Authority::Member(group) => group.clone(),
    };
    match request {
        Request::UpdatePersonality(request) => {
            if request.text.len() > PERSONALITY_MAX {
                let why =
                    format!("{} bytes; a personality has at most {PERSONALITY_MAX}", request.text.len());
                return Err(Refusal::new(RefusalCode::TooBig, why));
            }
            if request.text.trim().is_empty() {
                let why =
                    "an empty personality would leave the agent without instructions; write what should hold";
                return Err(Refusal::new(RefusalCode::Forbidden, why));
            }
            Ok(Action::UpdatePersonality(Allowed { request, group: own }))
        }
        Request::AskPerson(request) => {
            let texts = || request.choices.iter().chain([&request.question]);
            if request.question.chars().count() > QUESTION_MAX
                || request.choices.len() > CHOICES_MAX
                || request.choices.iter().any(|choice| choice.chars().count() > CHOICE_MAX)
            {
                let why = format!(
                    "a question has at most {QUESTION_MAX} characters and {CHOICES_MAX} choices of {CHOICE_MAX}"
                );
                return Err(Refusal::new(RefusalCode::TooBig, why));
            }
            if texts().any(|text| text.trim().is_empty()) {
                return Err(Refusal::new(
                    RefusalCode::Forbidden,
                    "the question, or one of its choices, is empty",
                ));
            }
            Ok(Action::AskPerson(Allowed { request, group: own }))
        }
        Request::SendFile(request) => {
            let caption = request.caption.as_deref().unwrap_or_default().chars().count();
            if caption > CAPTION_MAX {
                let why = format!(
                    "the caption has {caption} characters, at most {CAPTION_MAX}; say the rest in a message of its own"
                );
                return Err(Refusal::new(RefusalCode::TooBig, why));
            }
            if request.path.is_empty() || request.path.len() > PATH_MAX {
                let why = format!("a path has 1 to {PATH_MAX} bytes");
                return Err(Refusal::new(RefusalCode::Forbidden, why));
            }
            Ok(Action::SendFile(Allowed { request, group: own }))
        }
        Request::Unsupported { kind } => {
            let why = format!("this host has no request {kind:?}; go on without it");
            Err(Refusal::new(RefusalCode::Unsupported, why))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn update(text: &str) -> Request {
        Request::UpdatePersonality(UpdatePersonality { text: text.into(), base_sha256: None })
    }

    #[test]
    fn a_group_changes_its_own_personality_and_no_other() {
        let family = Authority::of(&"family".parse().unwrap());
        let Ok(Action::UpdatePersonality(allowed)) = authorize(&family, update("Be kind.")) else { panic!() };
        assert_eq!(allowed.into_parts().1.as_str(), "family");
        let Ok(Action::UpdatePersonality(allowed)) = authorize(&Authority::Main, update("Be kind.")) else {
            panic!()
        };
        assert!(allowed.into_parts().1.is_main());
    }

    #[test]
    fn refusals_say_why() {
        let code = |r| authorize(&Authority::Main, r).unwrap_err().code;
        assert_eq!(code(update(&"x".repeat(PERSONALITY_MAX + 1))), RefusalCode::TooBig);
        assert_eq!(code(update("  ")), RefusalCode::Forbidden);
        let file = |path: &str, caption: usize| {
            Request::SendFile(SendFile { path: path.into(), caption: Some("é".repeat(caption)), name: None })
        };
        assert!(authorize(&Authority::Main, file("a", CAPTION_MAX)).is_ok());
        assert_eq!(code(file("a", CAPTION_MAX + 1)), RefusalCode::TooBig);
        assert_eq!(code(file("", 0)), RefusalCode::Forbidden);
        assert_eq!(code(Request::Unsupported { kind: "fly".into() }), RefusalCode::Unsupported);
    }
}
