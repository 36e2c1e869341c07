//! Decides which chats that wait for admission the host remembers. Anybody can make such chats, so a flood of them must
//! cost nobody the place that they have: least of all an owner.

use std::time::Duration;

use crate::domain::WallMs;

/// How many chats that are not admitted the host remembers.
pub const MOST: usize = 64;
/// How many of them one person can make.
const OF_SENDER: usize = 3;
/// A chat that nobody admits loses its code after this time. It gets another one when it writes again.
const WAITS_FOR: Duration = Duration::from_secs(30 * 24 * 3600);

/// A chat that the host remembers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    pub chat: String,
    pub sender: String,
    pub owner: bool,
    pub first_at: WallMs,
    pub refused: bool,
}

/// What becomes of a new chat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// It gets a code. These chats are forgotten for that.
    Kept(Vec<String>),
    /// Its messages are only counted.
    Counted,
}

/// Decides about a new chat of `sender`. `known` does not hold it.
pub fn place(known: &[Known], sender: &str, owner: bool, now: WallMs) -> Place {
    let over = |k: &&Known| !k.owner && now.since(k.first_at) > WAITS_FOR;
    let mut forgotten: Vec<&Known> = known.iter().filter(over).collect();
    let left = || known.iter().filter(|k| !over(k));
    if !owner && left().filter(|k| k.sender == sender && !k.owner).count() >= OF_SENDER {
        return Place::Counted;
    }
    if left().count() >= MOST {
        // The oldest refused chat goes first. For an owner, the youngest of the others goes.
        let refused = left().filter(|k| k.refused).min_by_key(|k| k.first_at);
        let youngest = || left().filter(|k| !k.owner).max_by_key(|k| k.first_at);
        match refused.or_else(|| owner.then(youngest).flatten()) {
            Some(goes) => forgotten.push(goes),
            // All of them are owners' chats.
            None if owner => {}
            None => return Place::Counted,
        }
    }
    Place::Kept(forgotten.into_iter().map(|k| k.chat.clone()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(n: usize, owner: bool) -> Known {
        let at = WallMs(i64::try_from(n).unwrap());
        Known { chat: format!("c{n}"), sender: format!("s{n}"), owner, first_at: at, refused: false }
    }

    fn kept(chats: &[&str]) -> Place {
        Place::Kept(chats.iter().map(|chat| (*chat).to_owned()).collect())
    }

    #[test]
    fn g11_a_flood_costs_neither_the_owner_nor_the_oldest_their_place() {
        let mut full: Vec<Known> = (0..MOST).map(|n| known(n, n == MOST - 1)).collect();
        let now = WallMs(1_000);
        assert_eq!(place(&full[..MOST - 1], "new", false, now), kept(&[]));
        assert_eq!(place(&full, "new", false, now), Place::Counted, "who was first stays");
        assert_eq!(place(&full, "owner", true, now), kept(&["c62"]), "the youngest that is no owner's");
        let owners: Vec<Known> = (0..MOST).map(|n| known(n, true)).collect();
        assert_eq!(place(&owners, "owner", true, now), kept(&[]), "an owner always gets in");
        full[5].refused = true;
        full[3].refused = true;
        assert_eq!(place(&full, "new", false, now), kept(&["c3"]), "an answer was given");
    }

    #[test]
    fn g11_one_person_makes_few_codes_and_none_for_ever() {
        let of_eve = |n| Known { sender: "eve".into(), ..known(n, false) };
        let three = [of_eve(1), of_eve(2), of_eve(3)];
        assert_eq!(place(&three, "eve", false, WallMs(9)), Place::Counted);
        assert_eq!(place(&three, "bob", false, WallMs(9)), kept(&[]));
        let later = WallMs(i64::try_from(WAITS_FOR.as_millis()).unwrap() + 3);
        assert_eq!(place(&three, "eve", false, later), kept(&["c1", "c2"]));
        let owners = [Known { owner: true, ..of_eve(1) }];
        assert_eq!(place(&owners, "bob", false, later), kept(&[]), "an owner's code stays");
    }
}
