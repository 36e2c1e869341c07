//! Orders of commands to a running host, over a socket in the channel's folder. The host alone uses the keys while it
//! runs, so it ends the link itself, and it looks at the folder when a command has put new keys there.

use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};

use crate::channels::linking::LinkError;
use crate::unix_socket;

const SOCKET: &str = "host";
/// The longest order and the longest answer.
const LINE_MAX: u64 = 4096;
/// How long a command waits for the host.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a command orders.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Wanted {
    Look,
    Unlink,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Answer {
    Done(String),
    Refused(String),
}

pub(super) type Unlinked = Result<String, LinkError>;

/// An order, as the connection gets it.
#[derive(Debug)]
pub(super) enum Order {
    /// The keys may be others now.
    Look,
    /// End the link and remove the keys.
    Unlink(oneshot::Sender<Unlinked>),
    /// The host ends.
    Close,
}

pub(super) fn bind(folder: &Path) -> std::io::Result<UnixListener> {
    unix_socket::bind(folder, SOCKET, 0o600, None)
}

/// Takes orders for as long as the host runs.
pub(super) async fn listen(listener: UnixListener, orders: mpsc::Sender<Order>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => drop(tokio::spawn(serve(stream, orders.clone()))),
            Err(e) => {
                tracing::warn!(
                    code = "whatsapp.orders",
                    "the host could not take the connection of a command: {e}"
                );
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

async fn serve(stream: UnixStream, orders: mpsc::Sender<Order>) {
    let (reader, mut writer) = stream.into_split();
    let mut line = String::new();
    if BufReader::new(reader.take(LINE_MAX)).read_line(&mut line).await.is_err() {
        return;
    }
    let answer = match serde_json::from_str(&line) {
        Ok(Wanted::Look) => orders.send(Order::Look).await.ok().map(|()| Answer::Done(String::new())),
        Ok(Wanted::Unlink) => {
            let (sender, answer) = oneshot::channel();
            let _ = orders.send(Order::Unlink(sender)).await;
            answer.await.ok().map(|unlinked| match unlinked {
                Ok(told) => Answer::Done(told),
                Err(refused) => Answer::Refused(refused.why),
            })
        }
        Err(_) => None,
    };
    // A command that has gone needs no answer. Without an answer, the end of the connection tells that the host failed.
    if let Some(line) = answer.and_then(|answer| serde_json::to_string(&answer).ok()) {
        let _ = writer.write_all(format!("{line}\n").as_bytes()).await;
    }
}

/// Tells a running host that there are new keys. Returns whether a host runs.
pub(super) async fn look(folder: &Path) -> bool {
    ask(folder, Wanted::Look).await.is_some()
}

/// Lets a running host end the link; `None` if no host runs.
pub(super) async fn unlink(folder: &Path) -> Option<Unlinked> {
    let failed = || {
        LinkError {
        code: "whatsapp.unlink",
        why: "the host did not say that it ended the link; its log says why, and `lazaret status` shows the state"
            .into(),
    }
    };
    Some(match ask(folder, Wanted::Unlink).await? {
        Some(Answer::Done(told)) => Ok(told),
        Some(Answer::Refused(why)) => Err(LinkError { code: "whatsapp.unlink", why }),
        None => Err(failed()),
    })
}

/// Asks a running host. The outer `None` means that no host runs, the inner one that it did not answer.
async fn ask(folder: &Path, wanted: Wanted) -> Option<Option<Answer>> {
    let stream = unix_socket::connect(folder, SOCKET).await.ok()?;
    let answered = async {
        let (reader, mut writer) = stream.into_split();
        let order = serde_json::to_string(&wanted).ok()?;
        writer.write_all(format!("{order}\n").as_bytes()).await.ok()?;
        let mut line = String::new();
        BufReader::new(reader.take(LINE_MAX)).read_line(&mut line).await.ok()?;
        serde_json::from_str(&line).ok()
    };
    Some(tokio::time::timeout(PATIENCE, answered).await.ok().flatten())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(folder: &Path) -> mpsc::Receiver<Order> {
        let (sender, orders) = mpsc::channel(1);
        tokio::spawn(listen(bind(folder).unwrap(), sender));
        orders
    }

    #[tokio::test]
    async fn a_command_reaches_the_host_and_gets_its_answer() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!look(dir.path()).await && unlink(dir.path()).await.is_none(), "no host runs");
        let mut orders = host(dir.path());
        assert!(look(dir.path()).await);
        assert!(matches!(orders.recv().await, Some(Order::Look)));
        for answer in [
            Ok("the link has ended".to_owned()),
            Err(LinkError { code: "whatsapp.unlink", why: "no account is linked".into() }),
        ] {
            let (told, ()) = tokio::join!(unlink(dir.path()), async {
                let Some(Order::Unlink(sender)) = orders.recv().await else { panic!() };
                sender.send(answer.clone()).unwrap();
            });
            assert_eq!(told, Some(answer));
        }
    }

    #[tokio::test]
    async fn a_host_that_dies_over_an_order_is_no_success() {
        let dir = tempfile::tempdir().unwrap();
        let mut orders = host(dir.path());
        let (told, ()) = tokio::join!(unlink(dir.path()), async {
            drop(orders.recv().await);
        });
        assert!(told.unwrap().is_err());
    }
}
