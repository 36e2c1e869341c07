//! `lazaret backup` copies an install while its host runs; `lazaret restore` puts a copy back.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::{CliError, Done, Here};
use crate::backup::{self, Links};
use crate::clock::Clock;
use crate::config::{Install, shown_path};
use crate::daemon;
use crate::host_files;
use crate::store::{self, Transcripts};
use crate::terminal_output::safe_line;

/// Copy the database, or the whole install, while the host runs. The copy is verified before it gets its name.
#[derive(Debug, Args)]
pub struct Backup {
    /// The file to write. An existing file is never overwritten. Without it, the copy goes to `state/backups/`. There
    /// the host removes the oldest copies of the database, but no archives.
    file: Option<PathBuf>,
    /// Write one archive with settings, groups, database, sessions, inbox, shared folder, workspaces and files that
    /// wait to be sent. Keys and tokens are left out.
    #[arg(long)]
    all: bool,
    /// Put the keys of linked accounts into the archive too. Whoever has them reads and writes as these accounts. Keys
    /// that are older than a host's last message may be out of step: a new link is better.
    #[arg(long, requires = "all")]
    links: bool,
}

/// Put back a copy that `backup` or the host made. Stop the host first. The files that the copy replaces stay, as
/// `NAME.replaced-TIME`.
#[derive(Debug, Args)]
pub struct Restore {
    /// The copy: a database file, or an archive.
    file: PathBuf,
}

pub(super) async fn run(here: &Here, wanted: Backup) -> Done {
    // An install with a mistake in its settings is copied, too.
    let (install, _) = Install::read(here.root.clone(), &here.env);
    let root = here.root.clone();
    let now = Clock::new().wall();
    if !host_files::there(&root.database()) {
        let there = root.path().display();
        return Err(CliError::Plain(format!("there is no install at {there}; set LAZARET_ROOT")));
    }
    let done = tokio::task::spawn_blocking(move || {
        let named = |ending: &str| match &wanted.file {
            Some(file) => Ok(file.clone()),
            None => {
                backup::folder(&root).map(|dir| dir.join(format!("lazaret-{}.{ending}", backup::stamp(now))))
            }
        };
        if wanted.all {
            let links = if wanted.links { Links::TakeAlong } else { Links::LeaveOut };
            let archived = backup::write(&install, &named("tar")?, links, now)?;
            let (path, contents) = (shown_path(&archived.path), archived.contents);
            let mut text = format!(
                "{path}: {} files and a database of schema {} with {} rows, {} KiB, verified",
                contents.files(),
                contents.schema,
                contents.rows,
                archived.bytes >> 10
            );
            text += &listed("left out", &contents.left_out, contents.left_out_more);
            let json = json!({
                "file": archived.path, "bytes": archived.bytes, "files": contents.files(), "schema": contents.schema,
                "rows": contents.rows, "left_out": contents.left_out, "left_out_more": contents.left_out_more,
            });
            return Ok((json, text));
        }
        let copied = store::back_up(&root.database(), &named("db")?)?;
        let text = format!(
            "{}: schema {}, {} rows, {} KiB, verified",
            shown_path(&copied.path),
            copied.schema,
            copied.rows,
            copied.bytes >> 10
        );
        let json = json!({ "file": copied.path, "bytes": copied.bytes, "schema": copied.schema, "rows": copied.rows });
        Ok::<_, backup::BackupError>((json, text))
    });
    let (json, text) = done.await.map_err(|e| CliError::Plain(e.to_string()))??;
    here.print(&json, text);
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn restore(here: &Here, wanted: Restore) -> Done {
    // The restore holds the host's own lock, so that no host starts during a restore and no restore starts beside a
    // host.
    let _lock = daemon::hold(&here.root)?;
    let gid = daemon::shared_gid(&here.root.state())?;
    let (root, now) = (here.root.clone(), Clock::new().wall());
    let done = tokio::task::spawn_blocking(move || {
        if backup::is_archive(&wanted.file) {
            let (contents, restored) = backup::restore(&root, gid, &wanted.file, now)?;
            let (files, left_out) = (contents.files(), (contents.left_out, contents.left_out_more));
            return Ok((restored, Some((files, contents.at)), left_out));
        }
        // An install without database and sessions has no transcript that could hold later messages than the copy.
        let empty =
            !host_files::there(&root.database()) && !host_files::there(&root.state().join("sessions"));
        let transcripts = if empty { Transcripts::MatchCopy } else { Transcripts::MayBeNewer };
        let restored = store::restore(&root.database(), &wanted.file, transcripts, &backup::stamp(now))?;
        Ok::<_, backup::BackupError>((restored, None, (Vec::new(), 0)))
    });
    let (restored, archive, (left_out, more)) = done.await.map_err(|e| CliError::Plain(e.to_string()))??;
    let mut text = format!("restored: a database of schema {} with {} rows", restored.schema, restored.rows);
    if let Some((files, at)) = &archive {
        text += &format!(", and {files} files of {}", safe_line(at));
    }
    if let Some(replaced) = &restored.replaced {
        text += &format!("\nthe old database is kept: {}", shown_path(replaced));
    }
    text += &listed("not in it", &left_out, more);
    let json = json!({
        "schema": restored.schema, "rows": restored.rows, "replaced": restored.replaced,
        "files": archive.map(|(files, _)| files), "left_out": left_out, "left_out_more": more,
    });
    here.print(&json, text);
    Ok(ExitCode::SUCCESS)
}

/// Formats one line per entry. The archive can come from anybody, so the names are escaped.
fn listed(what: &str, left_out: &[String], more: u64) -> String {
    let mut text: String = left_out.iter().map(|left| format!("\n{what}: {}", safe_line(left))).collect();
    if more > 0 {
        text += &format!("\n{what}: {more} more");
    }
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn an_archives_list_makes_no_line_of_its_own() {
        let told = super::listed("not in it", &["f\u{1b}[2J\nrestored: all".to_owned()], 3);
        assert_eq!(told, "\nnot in it: f\\u{1b}[2J\\nrestored: all\nnot in it: 3 more");
    }
}
