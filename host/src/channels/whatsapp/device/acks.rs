//! The server's answers to what was sent. `send` of the library may succeed for a message that the server refuses, so a
//! message has arrived only once the server has acknowledged its id without an error.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// The server's answer to a message: `Err` holds the error's number, as the server wrote it.
pub(super) type Ack = Result<(), String>;

/// Messages that wait for their acknowledgement, by message id.
#[derive(Debug, Default)]
pub(super) struct Acks(Mutex<HashMap<String, oneshot::Sender<Ack>>>);

impl Acks {
    fn waiting(&self) -> MutexGuard<'_, HashMap<String, oneshot::Sender<Ack>>> {
        // Every use leaves the map consistent, so a poisoned lock is safe to use.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to wait for the acknowledgement of a message. It must come before the message is sent.
    pub fn expect(&self, message: &str) -> oneshot::Receiver<Ack> {
        let (sender, receiver) = oneshot::channel();
        let mut waiting = self.waiting();
        // Nobody waits any more for those that the host has given up.
        waiting.retain(|_, waiting| !waiting.is_closed());
        waiting.insert(message.to_owned(), sender);
        receiver
    }

    /// Passes an acknowledgement on. One that nobody waits for is dropped.
    pub fn came(&self, message: &str, error: Option<String>) {
        if let Some(waiting) = self.waiting().remove(message) {
            let _ = waiting.send(error.map_or(Ok(()), Err));
        }
    }

    /// The connection is gone: nobody knows what arrived. Each receiver gets an error.
    pub fn all_lost(&self) {
        self.waiting().clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_message_gets_its_own_acknowledgement_or_none() {
        let acks = Acks::default();
        let (one, two, three) = (acks.expect("1"), acks.expect("2"), acks.expect("3"));
        acks.came("2", Some("463".into()));
        acks.came("1", None);
        acks.came("4", None);
        acks.all_lost();
        assert_eq!((one.await, two.await), (Ok(Ok(())), Ok(Err("463".to_owned()))));
        assert!(three.await.is_err());
    }

    #[tokio::test]
    async fn a_call_that_was_given_up_leaves_nothing_behind() {
        let acks = Acks::default();
        drop(acks.expect("1"));
        let again = acks.expect("1");
        drop(acks.expect("2"));
        acks.came("1", None);
        drop(acks.expect("3"));
        assert_eq!(again.await, Ok(Ok(())));
        assert_eq!(acks.waiting().keys().collect::<Vec<_>>(), ["3"]);
    }
}
