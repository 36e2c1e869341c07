//! Rooms: their members, what the server says about them, and what changes in them.

use std::sync::Arc;

use wacore_binary::builder::NodeBuilder;
use wacore_binary::{Jid, Node};

use crate::directory::key_index_list;
use crate::people::{Author, Chat, PRIMARY, Person, Place, room_jid};
use crate::signal::Keys;
use crate::stanza::now;
use crate::{Shared, State};

/// A room as the server knows it.
pub(crate) struct Room {
    title: String,
    /// The people in it, by their places in the list. The first one is the administrator.
    members: Vec<usize>,
    pub(crate) has_account: bool,
    /// Whether the room names people by LID.
    pub(crate) by_lid: bool,
}

impl Chat {
    pub(crate) fn room(shared: Arc<Shared>, id: u64, title: &str, members: &[&Person]) -> Self {
        let members = members.iter().map(|member| member.index).collect();
        let room = Room { title: title.to_owned(), members, has_account: true, by_lid: false };
        shared.state().people.rooms.insert(id, room);
        Self { shared, place: Place::Room(id) }
    }

    /// Lets the room name people by LID, as new rooms do.
    pub fn names_by_lid(self) -> Self {
        self.changes(|room| room.by_lid = true);
        self
    }

    /// The administrator removes the account from the room.
    pub fn kicks_device(&self) {
        let removed = self.shared.account_in(self.place);
        self.notifies("remove", None, &removed, |room| room.has_account = false);
    }

    /// The administrator adds the account to the room.
    pub fn adds_device(&self) {
        let added = self.shared.account_in(self.place);
        self.notifies("add", None, &added, |room| room.has_account = true);
    }

    /// The administrator adds a person.
    pub fn adds(&self, person: &Person) {
        let added = self.name_of(person);
        self.notifies("add", None, &added, |room| room.members.push(person.index));
    }

    /// The administrator gives the room another title.
    pub fn is_renamed(&self, title: &str) {
        let by = self.administrator();
        self.changes(|room| room.title = title.to_owned());
        let subject = NodeBuilder::new("subject")
            .attr("subject", title)
            .attr("s_t", now().to_string())
            .attr("s_o", by.clone());
        self.notify(&by, subject.build());
    }

    fn id(&self) -> u64 {
        match self.place {
            Place::Room(id) => id,
            Place::Direct(_) | Place::Status => panic!("not a room"),
        }
    }

    fn changes(&self, change: impl FnOnce(&mut Room)) {
        let id = self.id();
        match self.shared.state().people.rooms.get_mut(&id) {
            Some(room) => change(room),
            None => panic!("there is no room {id}"),
        }
    }

    fn name_of(&self, person: &Person) -> Jid {
        let state = self.shared.state();
        let author = Author::Person { index: person.index, device: PRIMARY };
        state.names(author, state.people.is_by_lid(self.place)).0
    }

    fn administrator(&self) -> Jid {
        let state = self.shared.state();
        let first = state.people.rooms.get(&self.id()).and_then(|room| room.members.first().copied());
        let author = first.map_or(Author::Phone, |index| Author::Person { index, device: PRIMARY });
        state.names(author, state.people.is_by_lid(self.place)).0
    }

    /// Changes the members, and tells the device.
    fn notifies(&self, what: &'static str, by: Option<&Jid>, whom: &Jid, change: impl FnOnce(&mut Room)) {
        self.changes(change);
        let by = by.cloned().unwrap_or_else(|| self.administrator());
        let participant = NodeBuilder::new("participant").attr("jid", whom.clone()).build();
        self.notify(&by, NodeBuilder::new(what).children([participant]).build());
    }

    fn notify(&self, by: &Jid, change: Node) {
        let mode = self.shared.state().people.mode(self.place);
        let notification = NodeBuilder::new("notification")
            .attr("type", "w:gp2")
            .attr("from", room_jid(self.id()))
            .attr("participant", by)
            .attr("addressing_mode", mode);
        self.shared.notifies_device(notification.children([change]));
    }
}

impl Person {
    /// Leaves a room.
    pub fn leaves(&self, chat: &Chat) {
        let left = chat.name_of(self);
        chat.notifies("remove", Some(&left), &left, |room| {
            room.members.retain(|member| *member != self.index)
        });
    }

    /// Gets another phone number. The device is told in the direct chat and in the rooms.
    pub fn changes_number(&self, new: u64) {
        let chat = self.direct();
        let (old, lid) = {
            let mut state = chat.shared.state();
            let human = &mut state.people.people[self.index];
            let old = human.pn();
            human.number = new;
            (old, human.lid())
        };
        let new = Jid::pn(new.to_string());
        let modify = NodeBuilder::new("modify")
            .attr("old", old.clone())
            .attr("new", new.clone())
            .attr("old_lid", lid.clone())
            .attr("new_lid", lid);
        let notification =
            NodeBuilder::new("notification").attr("type", "contacts").attr("from", old.clone());
        chat.shared.notifies_device(notification.children([modify.build()]));
        let rooms: Vec<u64> = {
            let state = chat.shared.state();
            let here = state
                .people
                .rooms
                .iter()
                .filter(|(_, room)| !room.by_lid && room.members.contains(&self.index));
            here.map(|(id, _)| *id).collect()
        };
        for id in rooms {
            let room = Chat { shared: Arc::clone(&chat.shared), place: Place::Room(id) };
            let participant = NodeBuilder::new("participant").attr("jid", new.clone()).build();
            room.notify(&old, NodeBuilder::new("modify").children([participant]).build());
        }
    }
}

impl Shared {
    /// Sends a notification to the device, if there is one.
    fn notifies_device(&self, notification: NodeBuilder) {
        let mut state = self.state();
        if state.device.is_none() {
            return;
        }
        let notification = notification.attr("id", state.people.next_id()).attr("t", now().to_string());
        drop(state);
        self.to_device(notification.build());
    }

    /// Adds a device to a person, and tells the account's device.
    pub(crate) fn adds_device_of_person(&self, index: usize, device: u16) {
        let mut state = self.state();
        let human = &mut state.people.people[index];
        if human.devices.contains_key(&device) {
            return;
        }
        human.devices.insert(device, Keys::default());
        let numbers: Vec<u16> = human.devices.keys().copied().collect();
        let (pn, lid) = (human.pn(), human.lid());
        drop(state);
        let added = NodeBuilder::new("device")
            .attr("jid", pn.with_device(device))
            .attr("lid", lid.with_device(device))
            .attr("key-index", device.to_string());
        let add = NodeBuilder::new("add").children([added.build(), key_index_list(&numbers)]);
        let notification =
            NodeBuilder::new("notification").attr("type", "devices").attr("from", pn).attr("lid", lid);
        self.notifies_device(notification.children([add.build()]));
    }
}

impl State {
    /// Returns every device in a room but the account's linked one, with its address there.
    pub(crate) fn members(&self, id: u64) -> Vec<(Author, Jid)> {
        let Some(room) = self.people.rooms.get(&id) else { return Vec::new() };
        let people = room.members.iter().flat_map(|index| {
            let devices = self.people.people[*index].devices.keys();
            devices.map(|device| Author::Person { index: *index, device: *device })
        });
        people.chain([Author::Phone]).map(|author| (author, self.names(author, room.by_lid).0)).collect()
    }
}

/// Answers a query about rooms.
pub(crate) fn answers(state: &State, query: &Node) -> Option<Result<Vec<Node>, u16>> {
    if query.get_optional_child("participating").is_some() {
        let own = state.people.rooms.iter().filter(|(_, room)| room.has_account);
        let own = own.map(|(id, room)| metadata(state, *id, room));
        return Some(Ok(vec![NodeBuilder::new("groups").children(own).build()]));
    }
    query.get_optional_child("query")?;
    let asked = query.attrs().optional_jid("to")?;
    let id = asked.user.parse().ok();
    let room = id.and_then(|id| Some((id, state.people.rooms.get(&id)?)));
    Some(match room {
        Some((id, room)) if room.has_account => Ok(vec![metadata(state, id, room)]),
        Some(_) => Err(403),
        None => Err(404),
    })
}

fn metadata(state: &State, id: u64, room: &Room) -> Node {
    let everybody = room.members.iter().map(|index| Author::Person { index: *index, device: PRIMARY });
    let participants = everybody.chain([Author::Phone]).enumerate().map(|(at, author)| {
        let (name, other) = state.names(author, room.by_lid);
        let mut participant = NodeBuilder::new("participant");
        if let Some(other) = other {
            participant = participant.attr(if name.is_lid() { "phone_number" } else { "lid" }, other);
        }
        participant = participant.attr("jid", name);
        if at == 0 { participant.attr("type", "superadmin") } else { participant }.build()
    });
    NodeBuilder::new("group")
        .attr("id", id.to_string())
        .attr("subject", room.title.clone())
        .attr("addressing_mode", if room.by_lid { "lid" } else { "pn" })
        .attr("creation", "1700000000")
        .attr("s_t", "1700000000")
        .attr("size", (room.members.len() + 1).to_string())
        .children(participants)
        .build()
}
