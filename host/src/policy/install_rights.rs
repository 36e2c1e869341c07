//! Decides who else on the machine could replace an install, and which Unix group its boxes share. `config` reads the
//! facts; `lazaret up`, `doctor` and `config check` say what came of it.
//!
//! The accounts are those of /etc/passwd and /etc/group. Accounts of a directory service (NSS) are not seen here.

use std::fmt::{self, Display, Formatter};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

const STICKY: u32 = 0o1000;
const BY_ALL: u32 = 0o002;
const BY_GROUP: u32 = 0o020;

/// Installs of earlier versions have this group. It lies among those of people, and their files belong to it.
const EARLIER_GID: u32 = 20_000;
/// Above the groups of people (`GID_MAX` of login.defs is 60,000) and below the subordinate ids, which begin at
/// 100,000. The users of boxes lie there, too.
const GIDS: RangeInclusive<u32> = 69_000..=70_000;

/// The accounts of the machine.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Accounts {
    users: Vec<(String, u32, u32)>,
    groups: Vec<(String, u32, Vec<String>)>,
}

impl Accounts {
    /// Reads passwd(5) and group(5). A line that cannot be read is left out.
    pub fn parse(passwd: &str, group: &str) -> Self {
        let user = |line: &str| {
            let fields: Vec<&str> = line.split(':').collect();
            Some(((*fields.first()?).to_owned(), fields.get(2)?.parse().ok()?, fields.get(3)?.parse().ok()?))
        };
        let group_of = |line: &str| {
            let fields: Vec<&str> = line.split(':').collect();
            let members = fields.get(3).unwrap_or(&"").split(',').map(str::trim);
            let members = members.filter(|name| !name.is_empty()).map(str::to_owned).collect();
            Some(((*fields.first()?).to_owned(), fields.get(2)?.parse().ok()?, members))
        };
        Self {
            users: passwd.lines().filter_map(user).collect(),
            groups: group.lines().filter_map(group_of).collect(),
        }
    }

    /// The number of the group with this name.
    fn gid_named(&self, name: &str) -> Option<u32> {
        self.groups.iter().find(|(its, ..)| its == name).map(|(_, gid, _)| *gid)
    }

    /// The group that host and boxes share, for a host that is root: `lazaret` if the machine has it, else the one that
    /// the install has (`now`), else the first of our range that nobody has.
    pub fn shared_group(&self, now: u32) -> u32 {
        let ours = now == EARLIER_GID || GIDS.contains(&now);
        let free = || GIDS.rev().find(|gid| !self.knows(*gid)).unwrap_or(*GIDS.end());
        self.gid_named("lazaret").unwrap_or_else(|| if ours { now } else { free() })
    }

    fn user(&self, uid: u32) -> String {
        let known = self.users.iter().find(|(_, its, _)| *its == uid);
        known.map_or_else(|| uid.to_string(), |(name, ..)| name.clone())
    }

    fn group(&self, gid: u32) -> String {
        let known = self.groups.iter().find(|(_, its, _)| *its == gid);
        known.map_or_else(|| gid.to_string(), |(name, ..)| name.clone())
    }

    fn knows(&self, gid: u32) -> bool {
        self.groups.iter().any(|(_, its, _)| *its == gid) || self.users.iter().any(|(.., its)| *its == gid)
    }

    /// The users with this group, as their first or a further one. Those of `trusted` do not count.
    fn others_with(&self, gid: u32, trusted: &[u32]) -> Vec<&str> {
        let is_other = |name: &str| {
            let uid = self.users.iter().find(|(its, ..)| its == name).map(|(_, uid, _)| *uid);
            uid.is_none_or(|uid| !trusted.contains(&uid))
        };
        let first = self.users.iter().filter(|(.., its)| *its == gid).map(|(name, ..)| name);
        let members =
            self.groups.iter().filter(|(_, its, _)| *its == gid).flat_map(|(_, _, members)| members);
        let mut names: Vec<&str> = first.chain(members).map(String::as_str).collect();
        names.retain(|name| is_other(name));
        names.sort_unstable();
        names.dedup();
        names
    }
}

/// A file or folder on the way to an install, or the install's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub path: PathBuf,
    pub uid: u32,
    pub gid: u32,
    pub mode: u32,
    pub kind: PlaceKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlaceKind {
    /// A folder above the install.
    Above,
    /// The install's folder.
    Root,
    /// Settings in it. An owner may share them with a group on purpose.
    Settings,
}

/// Something that lets another user of the machine into an install.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Risk {
    pub why: String,
    /// The command that ends it.
    pub mend: String,
    /// Whether the host does not start with it.
    pub refused: bool,
}

impl Display for Risk {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}: `{}`", self.why, self.mend)
    }
}

/// Judges the places of an install, from the top down. `trusted` are root, the host's user, and nobody else.
pub fn risks(places: &[Place], trusted: &[u32], accounts: &Accounts) -> Vec<Risk> {
    let next_owner = |at: usize| places.get(at + 1).map(|next| next.uid);
    places
        .iter()
        .enumerate()
        .flat_map(|(at, place)| of_place(place, next_owner(at), trusted, accounts))
        .collect()
}

fn of_place(place: &Place, next: Option<u32>, trusted: &[u32], accounts: &Accounts) -> Vec<Risk> {
    let path = place.path.display();
    let mut found = Vec::new();
    if !trusted.contains(&place.uid) {
        found.push(Risk {
            why: format!(
                "{path} belongs to the user {}, who can replace what is in it",
                accounts.user(place.uid)
            ),
            mend: format!("chown {} {path}", trusted.last().copied().unwrap_or_default()),
            refused: false,
        });
    }
    // In a sticky folder, others make files, but do not move those of its owner (inode(7)).
    let stays = place.kind == PlaceKind::Above
        && place.mode & STICKY != 0
        && next.is_some_and(|uid| trusted.contains(&uid));
    if stays {
        return found;
    }
    if place.mode & BY_ALL != 0 {
        let why = format!("every user of this machine may write to {path} (mode {:o})", place.mode & 0o7777);
        found.push(Risk { why, mend: format!("chmod o-w {path}"), refused: true });
    }
    let others = accounts.others_with(place.gid, trusted);
    if place.mode & BY_GROUP != 0 && (!others.is_empty() || !accounts.knows(place.gid)) {
        let group = accounts.group(place.gid);
        let refused = !others.is_empty() && place.kind != PlaceKind::Settings;
        let who = if others.is_empty() { String::new() } else { format!(" ({})", others.join(", ")) };
        let why = format!("the group {group}{who} may write to {path}");
        found.push(Risk { why, mend: format!("chmod g-w {path}"), refused });
    }
    found
}

/// A shared group that users of the machine have. `state/` is closed to it, so the host starts all the same.
pub fn of_group(gid: u32, state: &Path, trusted: &[u32], accounts: &Accounts) -> Option<Risk> {
    let others = accounts.others_with(gid, trusted);
    if others.is_empty() {
        return None;
    }
    let state = state.display();
    Some(Risk {
        why: format!(
            "the boxes share the group {} with users of this machine ({}); give the boxes one that nobody has, while \
             the host is down",
            accounts.group(gid),
            others.join(", ")
        ),
        mend: match accounts.gid_named("lazaret") {
            Some(its) if its == gid => format!("gpasswd -M '' {}", accounts.group(gid)),
            _ => format!(
                "groupadd --system lazaret; chgrp lazaret {state}; find {state} -group {gid} -exec chgrp -h lazaret {{}} +"
            ),
        },
        refused: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accounts() -> Accounts {
        Accounts::parse(
            "root:x:0:0::/root:/bin/sh\nann:x:1000:1000::/:/bin/sh\nbob:x:1001:1001::/:/bin/sh\nbroken\n",
            "root:x:0:\nann:x:1000:\nstaff:x:50:ann,bob\nempty:x:60:\nodd:x:20000:bob\n",
        )
    }

    fn place(path: &str, uid: u32, gid: u32, mode: u32) -> Place {
        Place { path: path.into(), uid, gid, mode: 0o40_000 | mode, kind: PlaceKind::Above }
    }

    /// `false` is a risk that is only named.
    fn judged(places: &[Place], host: u32) -> Vec<(bool, String)> {
        risks(places, &[0, host], &accounts()).into_iter().map(|risk| (risk.refused, risk.mend)).collect()
    }

    #[test]
    fn g6_who_may_write_above_an_install_may_replace_it() {
        let root = place("/", 0, 0, 0o755);
        let install = |mode, gid| Place { kind: PlaceKind::Root, ..place("/srv/l", 0, gid, mode) };
        let table = [
            (vec![root.clone(), install(0o750, 0)], vec![]),
            (vec![root.clone(), install(0o777, 0)], vec![(true, "chmod o-w /srv/l")]),
            (vec![install(0o1777, 0)], vec![(true, "chmod o-w /srv/l")]),
            (vec![install(0o2775, 50)], vec![(true, "chmod g-w /srv/l")]),
            (vec![install(0o2775, 60)], vec![]),
            (vec![install(0o2775, 777)], vec![(false, "chmod g-w /srv/l")]),
            (vec![place("/tmp", 0, 0, 0o1777), install(0o750, 0)], vec![]),
            (vec![place("/tmp", 0, 0, 0o777), install(0o750, 0)], vec![(true, "chmod o-w /tmp")]),
            (
                vec![place("/home/bob", 1001, 1001, 0o755), install(0o750, 0)],
                vec![(false, "chown 0 /home/bob")],
            ),
        ];
        for (places, expected) in table {
            let expected: Vec<_> =
                expected.into_iter().map(|(refused, mend)| (refused, mend.to_owned())).collect();
            assert_eq!(judged(&places, 0), expected, "{places:?}");
        }
        let settings = |mode| [Place { kind: PlaceKind::Settings, ..place("/srv/l/groups", 0, 50, mode) }];
        assert_eq!(judged(&settings(0o2775), 0), [(false, "chmod g-w /srv/l/groups".into())]);
        assert!(judged(&settings(0o777), 0).contains(&(true, "chmod o-w /srv/l/groups".into())));
        let of_ann = [Place { uid: 1000, gid: 1000, ..install(0o775, 0) }];
        assert_eq!(judged(&of_ann, 1000), [], "a group of one's own has nobody else in it");
        let sticky_of_bob = [place("/tmp", 0, 0, 0o1777), Place { uid: 1001, ..install(0o755, 0) }];
        let told = risks(&sticky_of_bob, &[0, 0], &accounts());
        assert!(
            told.iter().any(|risk| risk.refused),
            "bob can move what is his out of a sticky folder: {told:?}"
        );
    }

    #[test]
    fn g6_the_shared_group_is_one_that_nobody_has() {
        let none = Accounts::default();
        assert_eq!(none.shared_group(0), 70_000);
        assert_eq!(none.shared_group(50), 70_000, "inherited from the folder above");
        assert_eq!(none.shared_group(20_000), 20_000, "an install of an earlier version keeps its group");
        let taken = Accounts::parse("x:x:70000:70000::/:/bin/sh", "y:x:69999:");
        assert_eq!(taken.shared_group(0), 69_998);
        assert_eq!(taken.shared_group(69_500), 69_500);
        assert_eq!(Accounts::parse("", "lazaret:x:990:").shared_group(20_000), 990);

        let state = Path::new("/srv/l/state");
        let told = of_group(20_000, state, &[0, 0], &accounts()).unwrap();
        assert!(told.why.contains("odd") && told.why.contains("bob") && !told.refused, "{told}");
        assert!(told.mend.contains("groupadd") && told.mend.contains("/srv/l/state"), "{told}");
        assert_eq!(of_group(60, state, &[0, 0], &accounts()), None);
        assert_eq!(of_group(1000, state, &[0, 1000], &accounts()), None);
        assert!(of_group(1000, state, &[0, 0], &accounts()).is_some());
    }
}
