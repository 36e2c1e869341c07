//! Decides who may end what an agent does for others: `/stop`, and `/new`, which ends the conversation of everybody.

use crate::domain::ChatKind;
use crate::domain::group_settings::MayStop;

/// Who gives the order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Orderer {
    pub owner: bool,
    pub kind: ChatKind,
    /// The agent works for this person at the moment: the person wrote the message that began the open turn.
    pub served: bool,
}

pub fn may_stop(setting: MayStop, by: Orderer) -> bool {
    match setting {
        MayStop::Anyone => true,
        MayStop::Served => by.owner || by.served || by.kind == ChatKind::Direct,
        MayStop::Owners => by.owner,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_a_room_an_order_is_for_owners_and_whom_the_agent_works_for() {
        use ChatKind::{Direct, Room};
        let table = [
            (MayStop::Served, (false, Room, false), false),
            (MayStop::Served, (false, Room, true), true),
            (MayStop::Served, (true, Room, false), true),
            (MayStop::Served, (false, Direct, false), true),
            (MayStop::Anyone, (false, Room, false), true),
            (MayStop::Owners, (false, Direct, true), false),
            (MayStop::Owners, (true, Room, false), true),
        ];
        for (setting, (owner, kind, served), expected) in table {
            assert_eq!(
                may_stop(setting, Orderer { owner, kind, served }),
                expected,
                "{setting:?} {owner} {kind:?}"
            );
        }
    }
}
