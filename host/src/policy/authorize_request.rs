//! Decides whether a group may make a request. The actions perform only an [`Allowed`] request, and only [`authorize`]
//! makes one.

use ipc_schema::letters::to_agent::{ToolPolicy, ToolVerdict};
use ipc_schema::requests::RequestArgs;
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

/// An owner must approve the request first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Approval {
    /// The kind of the request.
    pub kind: &'static str,
}

impl From<Approval> for Refusal {
    /// The host cannot ask an owner yet, so it refuses a request that needs an approval and gives that reason.
    fn from(approval: Approval) -> Self {
        refused_by(ToolVerdict::Ask, approval.kind)
    }
}

#[derive(Debug, PartialEq, Eq)]
pub enum Authorization<R> {
    Allow(Allowed<R>),
    /// An owner must approve it first.
    Ask(Approval),
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
    match rules.verdict_on(R::KIND) {
        ToolVerdict::Allow | ToolVerdict::Record => Authorization::Allow(Allowed { request, group }),
        ToolVerdict::Ask => Authorization::Ask(Approval { kind: R::KIND }),
        ToolVerdict::Deny => Authorization::Refuse(refused_by(ToolVerdict::Deny, R::KIND)),
    }
}

fn refused_by(verdict: ToolVerdict, kind: &str) -> Refusal {
    Refusal::new(RefusalCode::Forbidden, verdict.refusal(kind).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use ipc_schema::letters::to_agent::ToolRule;
    use ipc_schema::requests::{AskPerson, UpdatePersonality};

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
    fn an_approval_that_cannot_be_asked_for_is_a_refusal_that_says_so() {
        let decided = authorize(&Authority::Main, &rules(ToolVerdict::Ask), update("Be kind."));
        let Authorization::Ask(approval) = decided else { panic!("{decided:?}") };
        let refusal = Refusal::from(approval);
        assert_eq!(refusal.code, RefusalCode::Forbidden);
        assert!(refusal.reason.contains("the owner must allow `update_personality`"), "{refusal}");
    }
}
