//! Mentions in an agent's text: `@` and the number of somebody who is in the room.

use whatsapp_rust::Jid;
use whatsapp_rust::wacore::client::context::GroupInfo;

/// A text, and the people that it mentions. WhatsApp shows a name in the place of `@` and the user part of each
/// address.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Mentioned {
    pub text: String,
    pub people: Vec<String>,
}

impl Mentioned {
    pub fn nobody(text: String) -> Self {
        Self { text, people: Vec::new() }
    }

    /// Finds the mentions of members. Whatever else begins with `@` stays text.
    pub fn of(text: &str, member: impl Fn(&str) -> Option<Jid>) -> Self {
        let (mut said, mut people) = (String::with_capacity(text.len()), Vec::new());
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('@') {
            said.push_str(before);
            said.push('@');
            let digits = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
            let (number, end) = after.split_at(digits);
            // An address such as `ann@4915.example` is no mention.
            let alone = !said[..said.len() - 1].ends_with(char::is_alphanumeric)
                && !end.starts_with(char::is_alphanumeric);
            match member(number).filter(|_| alone && !number.is_empty()) {
                Some(person) => {
                    said.push_str(&person.user);
                    let person = person.to_non_ad_string();
                    if !people.contains(&person) {
                        people.push(person);
                    }
                }
                None => said.push_str(number),
            }
            rest = end;
        }
        said.push_str(rest);
        Self { text: said, people }
    }
}

/// Whether a look at the room's members is worth it.
pub(super) fn may_mention(text: &str) -> bool {
    text.split('@').skip(1).any(|after| after.starts_with(|c: char| c.is_ascii_digit()))
}

/// Returns the member of a room with this phone number or LID, as the room addresses its members.
pub(super) fn member(room: &GroupInfo, number: &str) -> Option<Jid> {
    let is_phone_of =
        |jid: &Jid| room.phone_jid_for_lid_user(&jid.user).is_some_and(|phone| phone.user == number);
    let found = room.participants.iter().find(|jid| jid.user == number || is_phone_of(jid));
    found.map(Jid::to_non_ad)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use whatsapp_rust::wacore::types::message::AddressingMode;

    fn room() -> GroupInfo {
        let members = ["900@lid", "901@lid"].map(|jid| jid.parse().unwrap()).to_vec();
        let phones = HashMap::from([("900".into(), "491511@s.whatsapp.net".parse().unwrap())]);
        GroupInfo::with_lid_to_pn_map(members, AddressingMode::Lid, phones)
    }

    fn of(text: &str) -> (String, Vec<String>) {
        let room = room();
        let Mentioned { text, people } = Mentioned::of(text, |number| member(&room, number));
        (text, people)
    }

    #[test]
    fn a_members_number_becomes_a_mention() {
        assert_eq!(of("Ask @491511, please"), ("Ask @900, please".into(), vec!["900@lid".into()]));
        let both = of("@901 and *@491511* and @901");
        assert_eq!(both, ("@901 and *@900* and @901".into(), vec!["901@lid".into(), "900@lid".into()]));
    }

    #[test]
    fn nobody_else_is_mentioned() {
        for text in ["@4999 and @", "@everyone @all", "ann@491511", "@491511x", "no at", "@@", "a@b.org @"] {
            assert_eq!(of(text), (text.to_owned(), Vec::new()));
        }
        assert!(may_mention("x @4") && !may_mention("@all a@b"));
    }

    #[test]
    fn a_room_that_knows_people_by_phone_number_mentions_them_so() {
        let members = vec!["491511:3@s.whatsapp.net".parse().unwrap()];
        let room = GroupInfo::new(members, AddressingMode::Pn);
        assert_eq!(member(&room, "491511").unwrap().to_string(), "491511@s.whatsapp.net");
    }
}
