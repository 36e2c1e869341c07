//! The worker of the connection: it waits for keys, runs one client after another on them, and takes orders of
//! commands.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::credentials::{Credentials, has_ended};
use super::network::Network;
use super::orders::{Order, Unlinked};
use super::session::{self, End, GONE, UNREACHED};
use super::shared::{Shared, Standing};
use super::trouble::{Then, Trouble};
use crate::channels::Account;
use crate::channels::linking::{LinkError, LinkState};
use crate::host_files::blocking;
use crate::policy::backoff::doubling;
use crate::policy::channel_trouble::wait_for_person;

/// How often the host looks at the keys while it waits for nothing else: a command may not have reached it.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// How soon the host looks again whether it has taken what an earlier client brought. Until then, messages wait at the
/// server.
const UNREAD_AGAIN: Duration = Duration::from_secs(5);
/// The pause between two clients of which the first could not connect.
const PAUSE: Duration = Duration::from_secs(30);
/// The pause doubles up to this while no client connects.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// Runs until the host closes the channel.
pub(super) async fn run_worker(shared: Arc<Shared>, orders: &mut mpsc::Receiver<Order>) {
    let (mut tries, mut stuck) = (0, 0);
    loop {
        let credentials = shared.credentials.clone();
        let waits = match blocking(move || credentials.state()).await {
            LinkState::NotLinked => {
                shared.standing.send_replace(Standing::NotLinked);
                LOOK_EVERY
            }
            LinkState::Broken { why, code } => {
                // Trouble that the host knows says more.
                if !matches!(*shared.standing.borrow(), Standing::Trouble(_)) {
                    troubled(&shared, Trouble { code, why, then: Then::Ended });
                }
                LOOK_EVERY
            }
            LinkState::Linked(account) => match client(&shared, account, orders).await {
                End::Look => {
                    tries = 0;
                    continue;
                }
                End::Stuck { was_up } => {
                    stuck = if was_up { 1 } else { stuck + 1 };
                    doubling(PAUSE, stuck, LONGEST_PAUSE)
                }
                End::Unread => UNREAD_AGAIN,
                End::Trouble(trouble) => {
                    tries += 1;
                    let wait = after(&shared.credentials, &trouble, tries).await;
                    troubled(&shared, trouble);
                    wait
                }
                End::Unlink(answer, told) => {
                    let _ = answer.send(forget(&shared.credentials, told).await);
                    continue;
                }
                End::Close => return,
            },
        };
        if idle(&shared.credentials, orders, waits).await {
            return;
        }
    }
}

/// Shows trouble that a person must end.
fn troubled(shared: &Shared, trouble: Trouble) {
    shared.acks.all_lost();
    shared.standing.send_replace(Standing::Trouble(trouble));
}

/// Runs one client.
async fn client(shared: &Arc<Shared>, account: Account, orders: &mut mpsc::Receiver<Order>) -> End {
    shared.knows(account);
    if shared.has_unread() {
        return End::Unread;
    }
    let credentials = shared.credentials.clone();
    let held = blocking(move || -> io::Result<Option<File>> {
        let held = credentials.hold()?;
        credentials.close_to_others()?;
        Ok(held)
    });
    let _lock = match held.await {
        Ok(Some(lock)) => lock,
        Ok(None) => {
            let why = "another process uses the keys: another host on a copy of this install, or a command; the host \
                       connects when that process has ended";
            return End::Trouble(Trouble {
                then: Then::Person(Some(PAUSE)),
                ..Trouble::passes("whatsapp.in_use", why)
            });
        }
        Err(e) => {
            let why = format!("{}: {e}", shared.credentials.folder().display());
            return End::Trouble(Trouble::person("whatsapp.keys", why));
        }
    };
    match Network::to(&shared.settings.base_url) {
        Ok(network) => session::run(shared, &network, &shared.credentials.keys(), orders).await,
        Err(why) => End::Trouble(Trouble::person("whatsapp.network", why)),
    }
}

/// Does what a trouble demands, and returns after which time the host tries again.
async fn after(credentials: &Credentials, trouble: &Trouble, tries: u32) -> Duration {
    match trouble.then {
        Then::Passes => PAUSE,
        Then::Person(within) => within.unwrap_or_else(|| wait_for_person(tries)).max(PAUSE),
        Then::Ended => {
            let (credentials, code, why) = (credentials.clone(), trouble.code, trouble.why.clone());
            match blocking(move || credentials.end(code, &why)).await {
                Ok(()) => LOOK_EVERY,
                Err(e) => {
                    // Without the note, the host asks the server again, which refuses it again.
                    tracing::warn!(
                        code = "whatsapp.keys",
                        "the host could not store that WhatsApp has ended the link: {e}"
                    );
                    wait_for_person(tries).max(LOOK_EVERY)
                }
            }
        }
    }
}

/// Waits for an order that changes the keys, or for a time. Returns true if the host closes the channel.
async fn idle(credentials: &Credentials, orders: &mut mpsc::Receiver<Order>, wait: Duration) -> bool {
    tokio::select! {
        () = tokio::time::sleep(wait) => false,
        order = orders.recv() => match order {
            Some(Order::Unlink(answer)) => {
                let linked = credentials.clone();
                let _ = answer.send(match blocking(move || linked.state()).await {
                    LinkState::NotLinked => Err(not_linked()),
                    LinkState::Broken { code, .. } if has_ended(code) => forget(credentials, GONE.to_owned()).await,
                    _ => forget(credentials, UNREACHED.to_owned()).await,
                });
                false
            }
            Some(Order::Look) => false,
            Some(Order::Close) | None => true,
        },
    }
}

/// Removes the keys.
pub(super) async fn forget(credentials: &Credentials, told: String) -> Unlinked {
    let (own, keys) = (credentials.clone(), credentials.keys());
    blocking(move || own.forget()).await.map(|()| told).map_err(|e| LinkError {
        code: "whatsapp.keys",
        why: format!("{} cannot be removed: {e}; remove it by hand", keys.display()),
    })
}

pub(super) fn not_linked() -> LinkError {
    LinkError {
        code: "whatsapp.not_linked",
        why: "no account is linked; `lazaret link whatsapp` links one".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn no_refusal_makes_the_host_log_in_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let credentials = Credentials::of(dir.path());
        let hour = Duration::from_secs(3600);
        for (asked, tries, waits) in [
            (Some(Duration::ZERO), 1, PAUSE),
            (Some(2 * hour), 1, 2 * hour),
            (None, 1, PAUSE),
            (None, 40, hour),
        ] {
            let trouble =
                Trouble { then: Then::Person(asked), ..Trouble::passes("whatsapp.banned", "a ban") };
            assert_eq!(after(&credentials, &trouble, tries).await, waits);
        }
    }
}
