//! Tool calls that owners always allow. They change what the group's file says from `ask` to `allow`, and nothing else.

use ipc_schema::letters::to_agent::AlwaysAllowed;
use rusqlite::{Connection, params};

use super::{Result, Store, StoreError, audit};
use crate::domain::permission::AskedPermission;
use crate::domain::{GroupName, WallMs};
use crate::policy::letter_room;

/// A call that an owner always allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolRuleRow {
    pub id: i64,
    pub allowed: AlwaysAllowed,
    /// The owner.
    pub made_by: String,
    pub made_at: WallMs,
}

impl Store {
    /// What owners have always allowed to a group, the oldest first.
    pub async fn tool_rules(&self, group: GroupName) -> Result<Vec<ToolRuleRow>> {
        self.read(move |c| of_group(c, &group)).await
    }

    /// Takes back what an owner has always allowed. Returns whether there was such a rule.
    pub async fn forget_tool_rule(
        &self,
        group: GroupName,
        rule: i64,
        by: String,
        now: WallMs,
    ) -> Result<bool> {
        self.write(move |c| {
            let sql = "DELETE FROM tool_rule WHERE grp = ?1 AND id = ?2";
            let gone = c.execute(sql, params![group.as_str(), rule])? > 0;
            if gone {
                audit(c, now, &by, "tool rule forgotten", &format!("{group}: {rule}"))?;
            }
            Ok(gone)
        })
        .await
    }
}

pub(super) fn of_group(c: &Connection, group: &GroupName) -> Result<Vec<ToolRuleRow>> {
    let sql = "SELECT id, tool, command, made_by, made_at FROM tool_rule INDEXED BY tool_rule_once
               WHERE grp = ?1 ORDER BY id";
    let mut rows = c.prepare_cached(sql)?;
    let rows = rows.query_map([group.as_str()], |r| {
        let allowed = AlwaysAllowed { tool: r.get(1)?, command: r.get(2)? };
        Ok(ToolRuleRow { id: r.get(0)?, allowed, made_by: r.get(3)?, made_at: WallMs(r.get(4)?) })
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// What fits into the first letter of a run. An owner is asked again about what does not fit.
pub(super) fn for_begin(c: &Connection, group: &GroupName) -> Result<Vec<AlwaysAllowed>> {
    let newest = of_group(c, group)?.into_iter().rev().map(|rule| rule.allowed);
    Ok(letter_room::allowed_that_fit(newest))
}

/// Whether every call of a tool is always allowed.
pub(super) fn allows(c: &Connection, group: &GroupName, tool: &str) -> Result<bool> {
    let sql = "SELECT count(*) FROM tool_rule WHERE grp = ?1 AND tool = ?2 AND coalesce(command, '') = ''";
    let rules: i64 = c.prepare_cached(sql)?.query_row([group.as_str(), tool], |r| r.get(0))?;
    Ok(rules > 0)
}

pub(super) fn add(
    c: &Connection,
    group: &GroupName,
    tool: &str,
    command: Option<&str>,
    by: &str,
    now: WallMs,
) -> Result<()> {
    let sql =
        "INSERT OR IGNORE INTO tool_rule(grp, tool, command, made_by, made_at) VALUES (?1, ?2, ?3, ?4, ?5)";
    c.execute(sql, params![group.as_str(), tool, command, by, now.0])?;
    audit(c, now, by, "tool allowed", &format!("{group}: {tool} {}", command.unwrap_or("(every call)")))
}

/// Reads what a question asks an owner to allow.
pub(super) fn asked(stored: Option<String>) -> Result<Option<AskedPermission>> {
    stored
        .map(|stored| serde_json::from_str(&stored))
        .transpose()
        .map_err(|e| StoreError::Row { what: "question.permission".into(), why: e.to_string() })
}
