//! How each channel fares, for people, and how far it has read.

use rusqlite::{Connection, OptionalExtension, params};

use super::{Result, Store};
use crate::domain::{ChannelName, WallMs};

/// How a channel fares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelState {
    pub channel: String,
    /// The account that the platform knows, such as `@laz_bot`; empty before the platform answers.
    pub account: String,
    /// An error code; absent while the channel reads.
    pub trouble: Option<String>,
    /// What happened, and what to do.
    pub why: String,
    pub since: WallMs,
    /// When the host asks again.
    pub asks_at: Option<WallMs>,
}

impl ChannelState {
    /// The code of a channel that is off.
    pub const OFF: &str = "channel.off";
    /// The code of a channel whose platform has not answered since the host started.
    pub const STARTING: &str = "channel.starting";

    /// Whether a person should look at it.
    pub fn is_bad(&self) -> bool {
        self.trouble.as_deref().is_some_and(|code| code != Self::OFF && code != Self::STARTING)
    }

    /// One line for people.
    pub fn told(&self) -> String {
        let Self { channel, account, why, since, .. } = self;
        match (self.trouble.as_deref(), self.asks_at) {
            (None, _) if account.is_empty() => format!("{channel} reads, since {since}"),
            (None, _) => format!("{channel} reads {account}, since {since}"),
            (Some(Self::OFF | Self::STARTING), _) => format!("{channel}: {why}"),
            (Some(code), Some(at)) => {
                format!("{channel} reads nothing since {since} ({code}): {why}; asks again at {at}")
            }
            (Some(code), None) => format!("{channel} reads nothing since {since} ({code}): {why}"),
        }
    }
}

impl Store {
    /// Stores how a channel fares. A trouble of the same code keeps the time of its begin.
    pub async fn set_channel_state(&self, state: ChannelState) -> Result<()> {
        self.write(move |c| {
            let sql = "INSERT INTO channel_state VALUES (?1, ?2, ?3, ?4, ?5, ?6)
                       ON CONFLICT(channel) DO UPDATE SET account = coalesce(nullif(?2, ''), account), why = ?4,
                         since = CASE WHEN trouble IS ?3 THEN since ELSE ?5 END, trouble = ?3, asks_at = ?6";
            let asks_at = state.asks_at.map(|at| at.0);
            let ChannelState { channel, account, trouble, why, since, .. } = state;
            c.execute(sql, params![channel, account, trouble, why, since.0, asks_at])?;
            Ok(())
        })
        .await
    }

    /// How each channel fares, by name.
    pub async fn channel_states(&self) -> Result<Vec<ChannelState>> {
        self.read(|c| {
            let sql =
                "SELECT channel, account, trouble, why, since, asks_at FROM channel_state ORDER BY channel";
            let mut rows = c.prepare(sql)?;
            let rows = rows.query_map([], |r| {
                Ok(ChannelState {
                    channel: r.get(0)?,
                    account: r.get(1)?,
                    trouble: r.get(2)?,
                    why: r.get(3)?,
                    since: WallMs(r.get(4)?),
                    asks_at: r.get::<_, Option<i64>>(5)?.map(WallMs),
                })
            })?;
            Ok(rows.collect::<std::result::Result<_, _>>()?)
        })
        .await
    }

    /// The position from which an account continues to read. A position that an earlier release stored without an
    /// account belongs to the first account that asks.
    pub async fn position(&self, channel: ChannelName, account: String) -> Result<Option<String>> {
        let key = (channel.as_str(), account.clone());
        let found: Option<(String, String)> = self
            .read(move |c| {
                let sql = "SELECT account, value FROM position WHERE channel = ?1 AND account IN (?2, '')
                           ORDER BY account DESC LIMIT 1";
                Ok(c.query_row(sql, params![key.0, key.1], |r| Ok((r.get(0)?, r.get(1)?))).optional()?)
            })
            .await?;
        let Some((owner, value)) = found else { return Ok(None) };
        if owner != account {
            self.write(move |c| {
                let sql = "UPDATE position SET account = ?2 WHERE channel = ?1 AND account = ''";
                c.execute(sql, params![channel.as_str(), account])?;
                Ok(())
            })
            .await?;
        }
        Ok(Some(value))
    }
}

/// Stores how far an account has read.
pub(super) fn set_position(
    c: &Connection,
    channel: ChannelName,
    account: &str,
    value: &str,
    now: WallMs,
) -> Result<()> {
    let sql = "INSERT INTO position(channel, account, value, at, home)
               VALUES (?1, ?2, ?3, ?4, NOT EXISTS (SELECT 1 FROM position WHERE channel = ?1))
               ON CONFLICT(channel, account) DO UPDATE SET value = ?3, at = ?4";
    c.execute(sql, params![channel.as_str(), account, value, now.0])?;
    Ok(())
}

/// Whether the numbers of an account's messages collide with those of another account, the first of this channel. The
/// key of such a message begins with its account.
pub(super) fn is_foreign(c: &Connection, channel: ChannelName, account: &str) -> Result<bool> {
    let sql = "SELECT account FROM position WHERE channel = ?1 AND home";
    let home: Option<String> = c.query_row(sql, [channel.as_str()], |r| r.get(0)).optional()?;
    Ok(home.is_some_and(|home| home != account))
}
