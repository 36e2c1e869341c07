//! Decides whether a group may make a request. The actions perform only an [`Allowed`] request, and only [`authorize`]
//! makes one.

use ipc_schema::letters::to_agent::{ToolPolicy, ToolVerdict};
use ipc_schema::requests::{AskPermission, AskPerson, RequestArgs};
use ipc_schema::{GroupName, Refusal, RefusalCode};

use crate::domain::Authority;

/// An authorized request.
#[derive(Debug, PartialEq, Eq)]
pub struct Allowed<R> {
    request: R,
    group: GroupName,
}

impl<R> Allowed<R> {
    /// The request, and the group that it concerns.
    pub fn into_parts(self) -> (R, GroupName) {
        (self.request, self.group)
    }
}

/// A request that an owner must allow first.
#[derive(Debug, PartialEq, Eq)]
pub struct Approval<R>(Allowed<R>);

impl<R> Approval<R> {
    pub fn request(&self) -> &R {
        &self.0.request
    }

    pub fn group(&self) -> &GroupName {
        &self.0.group
    }

    /// An owner has allowed it.
    pub fn granted(self) -> Allowed<R> {
        self.0
    }
}

#[derive(Debug, PartialEq, Eq)]
pub enum Authorization<R> {
    Allow(Allowed<R>),
    Ask(Approval<R>),
    Refuse(Refusal),
}

/// Decides about a request. The letter's directory determines the group. A request concerns that group and the chat of
/// its turn, never another group. `rules` are the owner's. The runner must follow them too, and the host refuses the
/// request of a runner that does not.
pub fn authorize<R: RequestArgs>(authority: &Authority, rules: &ToolPolicy, request: R) -> Authorization<R> {
    if let Err(refusal) = request.check() {
        return Authorization::Refuse(refusal);
    }
    let group = match authority {
        Authority::Main => GroupName::main(),
        Authority::Member(group) => group.clone(),
    };
    let allowed = Allowed { request, group };
    let verdict = match rules.verdict_on(R::KIND) {
        // A question about a call of the box's own tools is no call of a tool.
        _ if R::KIND == AskPermission::KIND => ToolVerdict::Allow,
        // Nobody is asked whether people may be asked.
        ToolVerdict::Ask if R::KIND == AskPerson::KIND => ToolVerdict::Allow,
        verdict => verdict,
    };
    match verdict {
        ToolVerdict::Allow | ToolVerdict::Record => Authorization::Allow(allowed),
        ToolVerdict::Ask => Authorization::Ask(Approval(allowed)),
        ToolVerdict::Deny => {
            let why = ToolVerdict::Deny.refusal(R::KIND).unwrap_or_default();
            Authorization::Refuse(Refusal::new(RefusalCode::Forbidden, why))
        }
    }
}

#[cfg(test)]
mod tests {
    use ipc_schema::letters::to_agent::ToolRule;
    use ipc_schema::requests::UpdatePersonality;

    use super::*;

    fn update(text: &str) -> UpdatePersonality {
        UpdatePersonality { text: text.into(), base_sha256: None }
    }

    fn rules(verdict: ToolVerdict) -> ToolPolicy {
        let rule = ToolRule { tool: "update_personality".into(), command: None, verdict };
        ToolPolicy { default: ToolVerdict::Record, rules: vec![rule] }
    }

    #[test]
    fn a_group_changes_its_own_personality_and_no_other() {
        let concerned = |authority: &Authority| match authorize(
            authority,
            &rules(ToolVerdict::Allow),
            update("Be kind."),
        ) {
            Authorization::Allow(allowed) => allowed.into_parts().1,
            other => panic!("{other:?}"),
        };
        assert_eq!(concerned(&Authority::of(&"family".parse().unwrap())).as_str(), "family");
        assert!(concerned(&Authority::Main).is_main());
    }

    #[test]
    fn a_question_to_people_needs_no_permission_and_can_be_denied() {
        let all = |default| ToolPolicy { default, rules: vec![] };
        let ask = || AskPerson { question: "Go?".into(), choices: vec![] };
        let decided = |default| authorize(&Authority::Main, &all(default), ask());
        assert!(matches!(decided(ToolVerdict::Ask), Authorization::Allow(_)));
        assert!(matches!(decided(ToolVerdict::Deny), Authorization::Refuse(_)));
    }

    #[test]
    fn what_breaks_a_limit_is_refused() {
        let decided = authorize(&Authority::Main, &rules(ToolVerdict::Allow), update("  "));
        assert!(matches!(decided, Authorization::Refuse(refusal) if refusal.code == RefusalCode::Forbidden));
    }

    #[test]
    fn the_owners_rules_hold_whatever_the_runner_does() {
        let decided = |verdict| authorize(&Authority::Main, &rules(verdict), update("Be kind."));
        assert!(matches!(decided(ToolVerdict::Record), Authorization::Allow(_)));
        let Authorization::Refuse(denied) = decided(ToolVerdict::Deny) else { panic!() };
        assert!(denied.reason.contains("deny `update_personality`"), "{denied}");
        let ask = AskPerson { question: "Go?".into(), choices: vec![] };
        assert!(matches!(
            authorize(&Authority::Main, &rules(ToolVerdict::Deny), ask),
            Authorization::Allow(_)
        ));
    }

    #[test]
    fn what_an_owner_must_allow_is_asked_about_and_the_question_itself_is_not() {
        let decided = authorize(&Authority::Main, &rules(ToolVerdict::Ask), update("Be kind."));
        let Authorization::Ask(approval) = decided else { panic!("{decided:?}") };
        assert!(approval.group().is_main() && approval.request().text == "Be kind.");
        let all = ToolPolicy { default: ToolVerdict::Deny, rules: vec![] };
        let ask = AskPermission::of_arguments("write_file", "{}");
        assert!(matches!(authorize(&Authority::Main, &all, ask), Authorization::Allow(_)));
    }
}
