//! Joins the parts of an album. Telegram sends each picture of an album as a message of its own, and they share a
//! `media_group_id`. The host takes them as one message: the first part's, with all files and captions.
//!
//! Parts that come in a later poll make a later version of that message, as an edit does. So they join the turn that
//! reads it, and no second answer follows one that was given.

use std::collections::VecDeque;

use crate::domain::message::{Addressee, Inbound};

/// How many albums the channel remembers, the newest ones.
const KNOWN: usize = 64;

#[derive(Default)]
pub(super) struct Albums(VecDeque<Album>);

struct Album {
    id: String,
    parts: Vec<Part>,
    /// The message that the host has of it.
    message_id: String,
    addressee: Addressee,
    stored: bool,
}

struct Part {
    update_id: i64,
    inbound: Inbound,
}

impl Albums {
    /// Forgets the parts from this update on, because Telegram delivers them again: the host has not stored them.
    pub(super) fn unstored_from(&mut self, update_id: i64) {
        for album in &mut self.0 {
            album.parts.retain(|part| part.update_id < update_id);
            album.stored = true;
        }
        self.0.retain(|album| !album.parts.is_empty());
    }

    /// Adds a part, in place of an earlier version of it.
    pub(super) fn add(&mut self, id: &str, update_id: i64, inbound: Inbound) {
        let part = Part { update_id, inbound };
        let of = |album: &&mut Album| {
            album.id == id && album.parts.iter().all(|p| p.inbound.chat == part.inbound.chat)
        };
        if let Some(album) = self.0.iter_mut().find(of) {
            album.parts.retain(|p| p.inbound.message_id != part.inbound.message_id);
            album.parts.push(part);
            album.parts.sort_by_key(|p| number(&p.inbound));
            return;
        }
        let message_id = part.inbound.message_id.clone();
        let (parts, addressee) = (vec![part], Addressee::Anyone);
        self.0.push_back(Album { id: id.to_owned(), parts, message_id, addressee, stored: false });
        if self.0.len() > KNOWN {
            self.0.pop_front();
        }
    }

    /// The message of an album after a poll that brought parts from update `first` on.
    pub(super) fn whole(&mut self, id: &str, first: i64) -> Option<Inbound> {
        let album = self.0.iter_mut().find(|a| a.id == id && a.parts.iter().any(|p| p.update_id >= first))?;
        let new = album.parts.iter().filter(|part| part.update_id >= first).map(|part| &part.inbound);
        let newest =
            new.clone().map(|part| if part.version > 0 { part.version } else { number(part) }).max()?;
        let edited = new.clone().map(|part| part.version).max()?;
        let newest_id = new.clone().next_back()?.message_id.clone();
        let mut whole = album.parts.first()?.inbound.clone();
        album.parts.iter().skip(1).for_each(|part| whole.join(&part.inbound));
        if !album.stored {
            album.message_id.clone_from(&whole.message_id);
            whole.version = edited;
        } else if whole.addressee == Addressee::Us && album.addressee != Addressee::Us {
            // A version of a message that woke nobody would wake nobody either.
            (album.message_id, whole.version) = (newest_id, 0);
        } else {
            whole.version = newest;
        }
        (album.addressee, whole.message_id) = (whole.addressee, album.message_id.clone());
        Some(whole)
    }

    pub(super) fn is_known(&self, id: &str) -> bool {
        self.0.iter().any(|album| album.id == id)
    }
}

fn number(part: &Inbound) -> i64 {
    part.message_id.parse().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::super::update::{Me, News, read};
    use super::*;

    fn part(n: i64, caption: &str) -> Inbound {
        let raw = format!(
            r#"{{"update_id":{n},"message":{{"message_id":{n},"date":1,"chat":{{"id":-5,"type":"group","title":"R"}},"from":{{"id":5,"first_name":"Ann"}},"media_group_id":"g","photo":[{{"file_id":"p{n}"}}],"caption":"{caption}","caption_entities":[{{"type":"mention","offset":0,"length":4}}]}}}}"#
        );
        let Ok(News::Message { inbound, .. }) = read(&raw, &Me { id: 9, username: "laz".into() }).news else {
            panic!()
        };
        *inbound
    }

    /// A poll from `offset` on that brings these parts.
    fn poll(
        albums: &mut Albums,
        offset: i64,
        parts: &[(i64, &str)],
    ) -> (String, i64, usize, Addressee, String) {
        albums.unstored_from(offset);
        parts.iter().for_each(|(n, caption)| albums.add("g", *n, part(*n, caption)));
        let m = albums.whole("g", parts[0].0).unwrap();
        (m.message_id, m.version, m.attachments.len(), m.addressee, m.text)
    }

    #[test]
    fn the_parts_of_one_poll_are_one_message() {
        let mut albums = Albums::default();
        let whole = poll(&mut albums, 0, &[(1, "@laz look"), (2, ""), (3, "and here")]);
        assert_eq!(whole, ("1".into(), 0, 3, Addressee::Us, "@laz look\nand here".into()));
        assert!(albums.is_known("g") && !albums.is_known("h"));
    }

    #[test]
    fn a_late_part_is_a_later_version_with_all_parts() {
        let mut albums = Albums::default();
        poll(&mut albums, 0, &[(1, "@laz look")]);
        // The host could not store the first one, and Telegram delivers it again.
        assert_eq!(poll(&mut albums, 0, &[(1, "@laz look")]).1, 0);
        let late = poll(&mut albums, 2, &[(2, "")]);
        assert_eq!(late, ("1".into(), 2, 2, Addressee::Us, "@laz look".into()));
        assert_eq!(poll(&mut albums, 3, &[(3, "")]).2, 3);
    }

    #[test]
    fn a_mention_in_a_late_part_wakes() {
        let mut albums = Albums::default();
        assert_eq!(poll(&mut albums, 0, &[(1, "")]).3, Addressee::Anyone);
        let late = poll(&mut albums, 2, &[(2, "@laz look")]);
        assert_eq!(late, ("2".into(), 0, 2, Addressee::Us, "@laz look".into()));
        assert_eq!(poll(&mut albums, 3, &[(3, "")]), ("2".into(), 3, 3, Addressee::Us, "@laz look".into()));
    }
}
