//! Clients of the terminal channel, each in one chat. They choose the ids of their messages and repeat messages that
//! were not accepted. They log every part that arrives, repeated parts too, with its row id.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;

use crate::crash::PlatformLog;

/// The pause between two attempts to connect.
const AGAIN: Duration = Duration::from_millis(20);

/// A person at a terminal. Dropping it disconnects, and forgets what the host has not accepted.
pub struct TerminalClient {
    says: UnboundedSender<(String, String)>,
    living: JoinHandle<()>,
}

impl Drop for TerminalClient {
    fn drop(&mut self) {
        self.living.abort();
    }
}

impl TerminalClient {
    /// Joins the chat of `group`, which the host knows as `chat`. With the probability `lost`, the client loses a
    /// receipt and its connection.
    pub fn join(socket: PathBuf, group: &str, chat: &str, log: PlatformLog, lost: f64, seed: u64) -> Self {
        let (says, heard) = unbounded_channel();
        let client = Client {
            socket,
            group: group.to_owned(),
            chat: chat.to_owned(),
            log,
            lost,
            chance: fastrand::Rng::with_seed(seed),
            unaccepted: VecDeque::new(),
        };
        Self { says, living: tokio::spawn(client.live(heard)) }
    }

    pub fn says(&self, id: &str, text: &str) {
        // The task of the client lives as long as `self`.
        let _ = self.says.send((id.to_owned(), text.to_owned()));
    }
}

struct Client {
    socket: PathBuf,
    group: String,
    chat: String,
    log: PlatformLog,
    lost: f64,
    chance: fastrand::Rng,
    unaccepted: VecDeque<(String, String)>,
}

impl Client {
    async fn live(mut self, mut says: UnboundedReceiver<(String, String)>) {
        loop {
            if let Ok(stream) = UnixStream::connect(&self.socket).await {
                // The host ended or the receipt was lost, so the client connects again.
                let _ = self.talk(stream, &mut says).await;
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    async fn talk(
        &mut self,
        stream: UnixStream,
        says: &mut UnboundedReceiver<(String, String)>,
    ) -> std::io::Result<()> {
        let (reader, mut writer) = stream.into_split();
        let mut lines: Lines<BufReader<OwnedReadHalf>> = BufReader::new(reader).lines();
        let mut joined = self.group == "main";
        if !joined {
            write(&mut writer, &json!({ "type": "join", "group": self.group })).await?;
        }
        for (id, text) in &self.unaccepted {
            write(&mut writer, &json!({ "type": "say", "id": id, "text": text })).await?;
        }
        loop {
            let told = tokio::select! {
                Some((id, text)) = says.recv() => {
                    self.unaccepted.push_back((id.clone(), text.clone()));
                    write(&mut writer, &json!({ "type": "say", "id": id, "text": text })).await?;
                    continue;
                }
                line = lines.next_line() => line?.ok_or(std::io::ErrorKind::UnexpectedEof)?,
            };
            let told: Value = serde_json::from_str(&told)?;
            match told["type"].as_str() {
                Some("joined") => joined = true,
                // Before `joined` the lines belong to another group.
                _ if !joined => {}
                Some("accepted") => self.accepted(told["id"].as_str().unwrap_or_default()),
                Some("part") => {
                    let row = format!("row-{}", told["row"]);
                    self.log.delivered(&self.chat, &row, told["text"].as_str().unwrap_or_default(), false);
                    if self.chance.f64() < self.lost {
                        return Ok(());
                    }
                    write(&mut writer, &json!({ "type": "shown", "row": told["row"] })).await?;
                }
                _ => {}
            }
        }
    }

    fn accepted(&mut self, id: &str) {
        if let Some(at) = self.unaccepted.iter().position(|(its, _)| its == id)
            && let Some((id, text)) = self.unaccepted.remove(at)
        {
            self.log.accepted(&self.chat, &id, &text);
        }
    }
}

async fn write(writer: &mut OwnedWriteHalf, line: &Value) -> std::io::Result<()> {
    writer.write_all(format!("{line}\n").as_bytes()).await
}
