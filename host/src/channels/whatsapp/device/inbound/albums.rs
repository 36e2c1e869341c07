//! Joins the parts of an album. WhatsApp sends each picture of an album as a message of its own, and hands over the
//! next one only after the host has stored the one before. So the first part is the message, and each later part makes
//! a later version of it with all parts so far. An agent that has not read it yet reads only the last version.
//!
//! A changed caption comes without its file, so the host remembers the files of the latest messages.

use std::collections::VecDeque;

use crate::domain::message::{Addressee, Inbound};

/// How many messages with files the channel remembers, the newest ones.
const REMEMBERED: usize = 256;

#[derive(Debug, Default)]
pub(super) struct Albums(VecDeque<Album>);

#[derive(Debug)]
struct Album {
    /// The album's id, or the message's own.
    id: String,
    parts: Vec<Inbound>,
    /// The part whose id the message has. The parts before it have woken nobody.
    first: usize,
}

impl Albums {
    /// Returns the message that a new part makes. The same part again makes the same version of the same message.
    pub fn add(&mut self, album: Option<String>, part: Inbound) -> Inbound {
        if album.is_none() && part.attachments.is_empty() {
            return part;
        }
        let id = album.unwrap_or_else(|| part.message_id.clone());
        let of = |album: &&mut Album| album.id == id && album.parts.iter().all(|p| beside(p, &part));
        if let Some(album) = self.0.iter_mut().find(of) {
            let number = album.number_of(&part);
            return album.whole(number).unwrap_or(part);
        }
        self.0.push_back(Album { id, parts: vec![part.clone()], first: 0 });
        if self.0.len() > REMEMBERED {
            self.0.pop_front();
        }
        part
    }

    /// Returns the message that the change of a part makes.
    pub fn changed(&mut self, change: Inbound) -> Inbound {
        let of = |part: &Inbound| part.message_id == change.message_id && beside(part, &change);
        for album in &mut self.0 {
            let Some(number) = album.parts.iter().position(of) else { continue };
            let Some(part) = album.parts.get_mut(number) else { continue };
            let files = std::mem::replace(part, change.clone()).attachments;
            if !part.service && part.attachments.is_empty() {
                part.attachments = files;
            }
            let whole = album.whole(number).map(|whole| Inbound { version: change.version, ..whole });
            return whole.unwrap_or(change);
        }
        change
    }
}

impl Album {
    /// The number of a part, which may be new.
    fn number_of(&mut self, part: &Inbound) -> usize {
        if let Some(number) = self.parts.iter().position(|p| p.message_id == part.message_id) {
            return number;
        }
        let number = self.parts.len();
        // A version of a message that woke nobody would wake nobody either.
        if part.addressee == Addressee::Us && self.parts.iter().all(|p| p.addressee != Addressee::Us) {
            self.first = number;
        }
        self.parts.push(part.clone());
        number
    }

    /// The message with all parts, as the part with this number makes it.
    fn whole(&self, number: usize) -> Option<Inbound> {
        let first = if number < self.first { 0 } else { self.first };
        let mut parts = self.parts.iter();
        let mut whole = parts.next()?.clone();
        parts.for_each(|part| whole.join(part));
        whole.message_id.clone_from(&self.parts.get(first)?.message_id);
        whole.version = i64::try_from(number.saturating_sub(first)).ok()?;
        Some(whole)
    }
}

/// Whether two messages are of one person in one chat. Nobody puts a picture into another person's album.
fn beside(one: &Inbound, other: &Inbound) -> bool {
    one.chat == other.chat && one.sender.id == other.sender.id
}
