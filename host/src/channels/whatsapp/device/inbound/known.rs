//! What the host knows of people and groups: the account itself, the phone numbers behind LIDs, and names. The pure
//! reading of a message looks these up as data.

use std::collections::HashMap;

use whatsapp_rust::types::message::MessageInfo;
use whatsapp_rust::{Jid, Server};

use crate::domain::WallMs;
use crate::text::label;

/// More than this many people or groups, and the host begins to learn them anew.
const MOST: usize = 20_000;

/// Nobody sent a message before WhatsApp existed (2009).
const EARLIEST: WallMs = WallMs(1_230_768_000_000);

#[derive(Debug)]
pub(super) struct Known {
    /// The account's addresses: its phone number and its LID.
    pub me: Vec<Jid>,
    /// The account's name.
    pub my_name: String,
    pub now: WallMs,
    /// Phone numbers by LID.
    numbers: HashMap<String, String>,
    /// Names by address.
    names: HashMap<Jid, String>,
    /// Subjects of groups.
    titles: HashMap<Jid, String>,
}

impl Known {
    pub fn new() -> Self {
        Self {
            me: Vec::new(),
            my_name: String::new(),
            now: WallMs(0),
            numbers: HashMap::new(),
            names: HashMap::new(),
            titles: HashMap::new(),
        }
    }

    pub fn is_us(&self, jid: &Jid) -> bool {
        let jid = self.person(jid);
        self.me.iter().any(|me| self.person(me) == jid)
    }

    /// A person's one address: the phone number, or the LID while no phone number is known.
    pub fn person(&self, jid: &Jid) -> Jid {
        match jid.server {
            Server::Pn | Server::Hosted | Server::Legacy => Jid::pn(jid.user.clone()),
            Server::Lid | Server::HostedLid => match self.numbers.get(jid.user.as_str()) {
                Some(number) => Jid::pn(number.as_str()),
                None => Jid::lid(jid.user.clone()),
            },
            _ => jid.to_non_ad(),
        }
    }

    /// Whether a person's phone number is still to be found.
    pub fn lacks_number(&self, jid: &Jid) -> bool {
        jid.server.is_lid_family() && !self.numbers.contains_key(jid.user.as_str())
    }

    /// Learns that two addresses are the same person's.
    pub fn same(&mut self, one: &Jid, other: &Jid) {
        let (lid, number) = if one.server.is_lid_family() { (one, other) } else { (other, one) };
        if lid.server.is_lid_family() && number.server.is_pn_family() {
            bounded(&mut self.numbers).insert(lid.user.to_string(), number.user.to_string());
        }
    }

    /// Learns what a message says of its sender.
    pub fn learn(&mut self, info: &MessageInfo) {
        let source = &info.source;
        if let Some(other) = &source.sender_alt {
            self.same(&source.sender, other);
        }
        let name = match (&info.push_name, &info.verified_name) {
            (name, Some(business)) if name.is_empty() => business.name.clone().unwrap_or_default(),
            (name, _) => name.clone(),
        };
        self.named(&source.sender, &name);
    }

    pub fn named(&mut self, jid: &Jid, name: &str) {
        let (person, name) = (self.person(jid), label(name));
        if !name.is_empty() {
            bounded(&mut self.names).insert(person, name);
        }
    }

    /// The name, or the phone number.
    pub fn name(&self, jid: &Jid) -> String {
        let person = self.person(jid);
        if self.is_us(&person) && !self.my_name.is_empty() {
            return self.my_name.clone();
        }
        match self.names.get(&person) {
            Some(name) => name.clone(),
            None if person.is_pn() => format!("+{}", person.user),
            None => "somebody".to_owned(),
        }
    }

    pub fn titled(&mut self, group: &Jid, title: &str) {
        bounded(&mut self.titles).insert(group.to_non_ad(), label(title));
    }

    /// The subject of a group, or its address.
    pub fn title(&self, group: &Jid) -> String {
        let title = self.titles.get(group).filter(|title| !title.is_empty());
        title.cloned().unwrap_or_else(|| group.to_string())
    }

    pub fn lacks_title(&self, group: &Jid) -> bool {
        !self.titles.contains_key(group)
    }

    /// The time of a message, or now if the message comes from no possible time.
    pub fn time(&self, ms: i64) -> WallMs {
        if (EARLIEST..=self.now).contains(&WallMs(ms)) { WallMs(ms) } else { self.now }
    }
}

fn bounded<K, V>(map: &mut HashMap<K, V>) -> &mut HashMap<K, V> {
    if map.len() >= MOST {
        map.clear();
    }
    map
}
