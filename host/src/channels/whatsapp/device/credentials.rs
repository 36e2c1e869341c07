//! The keys of the linked device: one SQLite file of the library's, which only the host's user can open. Whoever has a
//! copy of it reads and writes in the account's name.
//!
//! | file in `state/channels/whatsapp` | holds |
//! |---|---|
//! | `device.db` (and `-wal`, `-shm`) | the keys |
//! | `device.db.linking` | keys that `lazaret link` makes; they get the name above once the account is linked |
//! | `device.db.damaged-N` | a file that could not be read when the account was linked again |
//! | `ended` | the code of what ended the link, and why; the keys are of no use then |
//! | `lock`, `linking.lock` | held by the process that uses the keys, and by the one that links |
//! | `host` | the socket on which a running host takes orders of commands |

#![allow(clippy::disallowed_methods, reason = "the channel's own folder, which is in no mount")]

use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags, OptionalExtension};
use rustix::fs::{FlockOperation, flock};

use crate::channels::Account;
use crate::channels::linking::LinkState;
use crate::host_files;

const KEYS: &str = "device.db";
const LINKING: &str = "device.db.linking";
const ENDED: &str = "ended";
/// The codes of what ends a link.
pub(super) const LOGGED_OUT: &str = "whatsapp.logged_out";
pub(super) const LOCKED: &str = "whatsapp.locked";
const ENDINGS: [&str; 2] = [LOGGED_OUT, LOCKED];
/// The code of keys that cannot be read.
const DAMAGED: &str = "whatsapp.keys";
/// What SQLite puts beside a database.
const BESIDE: [&str; 3] = ["-wal", "-shm", "-journal"];
/// The command that repairs what is broken.
pub(super) const LINK_AGAIN: &str = "`lazaret link whatsapp` links the account again";

/// Whether this code says that the platform has ended the link.
pub(super) fn has_ended(code: &str) -> bool {
    ENDINGS.contains(&code)
}

#[derive(Debug, Clone)]
pub(super) struct Credentials {
    folder: PathBuf,
}

impl Credentials {
    pub fn of(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    pub fn keys(&self) -> PathBuf {
        self.folder.join(KEYS)
    }

    /// Makes the folder. As root, it belongs to the owner of the state, so that a command of root leaves nothing that
    /// the host cannot open.
    pub fn prepare(&self) -> io::Result<()> {
        let channels = self.folder.parent().unwrap_or(&self.folder);
        let made = [channels, &self.folder].map(|dir| (dir, !host_files::there(dir)));
        fs::create_dir_all(&self.folder)?;
        for (dir, new) in made {
            if new {
                give_to_owner(dir)?;
            }
        }
        fs::set_permissions(&self.folder, Permissions::from_mode(0o700))
    }

    pub fn state(&self) -> LinkState {
        let keys = self.keys();
        if let Ok(note) = fs::read_to_string(self.folder.join(ENDED)) {
            let (code, why) = note.split_once('\n').unwrap_or(("", &note));
            let code = ENDINGS.into_iter().find(|known| *known == code).unwrap_or(DAMAGED);
            return LinkState::Broken { why: why.to_owned(), code };
        }
        match fs::symlink_metadata(&keys) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return LinkState::NotLinked,
            Err(e) => return LinkState::Broken { why: format!("{}: {e}", keys.display()), code: DAMAGED },
            Ok(_) => {}
        }
        match account_in(&keys) {
            Ok(Some(account)) => LinkState::Linked(account),
            Ok(None) => self.damaged("it holds no account"),
            Err(e) => self.damaged(&e.to_string()),
        }
    }

    fn damaged(&self, why: &str) -> LinkState {
        let keys = self.keys();
        let why = format!(
            "the keys in {} cannot be read ({why}); {LINK_AGAIN} and keeps that file",
            keys.display()
        );
        LinkState::Broken { why, code: DAMAGED }
    }

    /// Takes the lock of the keys; `None` if another process has it.
    pub fn hold(&self) -> io::Result<Option<File>> {
        self.lock("lock")
    }

    fn lock(&self, name: &str) -> io::Result<Option<File>> {
        self.prepare()?;
        let path = self.folder.join(name);
        let file = private(&path)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(file)),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    /// Begins to link: makes an empty file for new keys. Returns `None` if another command links now.
    pub fn begin(&self) -> io::Result<Option<NewKeys>> {
        let Some(lock) = self.lock("linking.lock")? else { return Ok(None) };
        let keys = NewKeys { credentials: self.clone(), _lock: lock };
        // A command that was killed has left its files.
        keys.remove()?;
        private(&keys.path())?;
        Ok(Some(keys))
    }

    /// Keeps in mind that the platform has ended the link.
    pub fn end(&self, code: &str, why: &str) -> io::Result<()> {
        let path = self.folder.join(ENDED);
        host_files::put(&path, format!("{code}\n{why}").as_bytes(), 0o600, None)?;
        give_to_owner(&path)?;
        host_files::sync_dir(&self.folder)
    }

    /// Removes the keys.
    pub fn forget(&self) -> io::Result<()> {
        remove_database(&self.keys())?;
        host_files::remove(&self.folder.join(ENDED))?;
        host_files::sync_dir(&self.folder)
    }

    /// Closes the keys to other users, whoever made the file.
    pub fn close_to_others(&self) -> io::Result<()> {
        for path in
            std::iter::once(self.keys()).chain(BESIDE.map(|more| host_files::beside(&self.keys(), more)))
        {
            match fs::set_permissions(&path, Permissions::from_mode(0o600)) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
        }
        Ok(())
    }

    /// Makes room for new keys: keeps a file that cannot be read, and removes keys of no use.
    fn set_aside(&self) -> io::Result<()> {
        let keys = self.keys();
        let ended = host_files::there(&self.folder.join(ENDED));
        if ended || !host_files::there(&keys) {
            return self.forget();
        }
        let free = (1..).map(|n| host_files::beside(&keys, &format!(".damaged-{n}")));
        let Some(aside) = free.into_iter().find(|path| !host_files::there(path)) else { return Ok(()) };
        for more in BESIDE {
            // They are of no use without their database, and would spoil the new one.
            host_files::remove(&host_files::beside(&keys, more))?;
        }
        fs::rename(&keys, aside)
    }
}

/// Keys that are being made. Dropping them removes them.
#[derive(Debug)]
pub(super) struct NewKeys {
    credentials: Credentials,
    _lock: File,
}

impl NewKeys {
    pub fn path(&self) -> PathBuf {
        self.credentials.folder.join(LINKING)
    }

    /// Where the keys lie just before they get their name.
    fn copy(&self) -> PathBuf {
        host_files::beside(&self.path(), ".part")
    }

    fn remove(&self) -> io::Result<()> {
        remove_database(&self.path())?;
        remove_database(&self.copy())
    }

    /// Makes these keys the account's. The library may still have its file open, so a copy gets the name.
    pub fn keep(self) -> io::Result<()> {
        let copy = self.copy();
        remove_database(&copy)?;
        let database = Connection::open(self.path()).map_err(io::Error::other)?;
        let to = copy.to_str().ok_or_else(|| io::Error::other("the path is no UTF-8"))?;
        // SQLite fills an empty file that exists, and keeps its mode.
        private(&copy)?;
        database.execute("VACUUM INTO ?1", [to]).map_err(io::Error::other)?;
        host_files::sync(&copy)?;
        self.credentials.set_aside()?;
        fs::rename(&copy, self.credentials.keys())?;
        host_files::sync_dir(&self.credentials.folder)
    }
}

impl Drop for NewKeys {
    fn drop(&mut self) {
        // The next command that links removes what could not be removed now.
        let _ = self.remove();
    }
}

fn remove_database(path: &Path) -> io::Result<()> {
    BESIDE.iter().try_for_each(|more| host_files::remove(&host_files::beside(path, more)))?;
    host_files::remove(path)
}

/// Opens a file that only the host's user can open, and makes it if it is missing. SQLite gives its owner and its mode
/// to the files beside it.
fn private(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed())
        .open(path)?;
    give_to_owner(path)?;
    Ok(file)
}

/// Gives a file that root has made to the owner of its folder.
fn give_to_owner(path: &Path) -> io::Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let above = fs::metadata(path.parent().unwrap_or(path))?;
    chown(path, Some(above.uid()), None)
}

/// Returns the linked account that a file of keys holds.
fn account_in(keys: &Path) -> rusqlite::Result<Option<Account>> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let database = Connection::open_with_flags(keys, flags)?;
    let found = database.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0))?;
    if found != "ok" {
        let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT);
        return Err(rusqlite::Error::SqliteFailure(code, Some(found)));
    }
    let sql = "SELECT pn, push_name FROM device WHERE account IS NOT NULL AND pn <> ''";
    let row = database.query_row(sql, [], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)));
    Ok(row.optional()?.map(|(jid, name)| account(&jid, &name)))
}

/// Returns the account of an address such as `491511234567:2@s.whatsapp.net`.
pub(super) fn account(jid: &str, push_name: &str) -> Account {
    let number = jid.split([':', '.', '@']).next().unwrap_or_default().to_owned();
    let name = if push_name.is_empty() { format!("+{number}") } else { push_name.to_owned() };
    Account { id: number, name }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANNA: &str = "CREATE TABLE device (id INTEGER PRIMARY KEY, pn TEXT, push_name TEXT, account BLOB);
        INSERT INTO device VALUES (1, '491511234567:2@s.whatsapp.net', 'Anna', x'01');";

    fn links(credentials: &Credentials, sql: &str) {
        let new = credentials.begin().unwrap().unwrap();
        Connection::open(new.path()).unwrap().execute_batch(sql).unwrap();
        new.keep().unwrap();
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    fn names(credentials: &Credentials) -> Vec<String> {
        let paths = host_files::inside(credentials.folder());
        let name = |path: PathBuf| path.file_name().unwrap().to_string_lossy().into_owned();
        let mut names: Vec<String> =
            paths.into_iter().map(name).filter(|name| !name.ends_with("lock")).collect();
        names.sort();
        names
    }

    fn linked() -> (tempfile::TempDir, Credentials) {
        let dir = tempfile::tempdir().unwrap();
        let credentials = Credentials::of(&dir.path().join("channels/whatsapp"));
        links(&credentials, ANNA);
        (dir, credentials)
    }

    #[test]
    fn a_link_makes_keys_that_nobody_else_can_open() {
        let (_dir, credentials) = linked();
        let anna = Account { id: "491511234567".into(), name: "Anna".into() };
        assert_eq!(credentials.state(), LinkState::Linked(anna));
        assert_eq!((mode(credentials.folder()), mode(&credentials.keys())), (0o700, 0o600));
        assert_eq!(names(&credentials), ["device.db"]);
        credentials.forget().unwrap();
        assert_eq!((credentials.state(), names(&credentials).len()), (LinkState::NotLinked, 0));
    }

    #[test]
    fn files_of_the_library_are_private_too_and_open_ones_are_closed() {
        let (_dir, credentials) = linked();
        let database = Connection::open(credentials.keys()).unwrap();
        database.execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE more (x)").unwrap();
        assert_eq!(mode(&host_files::beside(&credentials.keys(), "-wal")), 0o600);
        fs::set_permissions(credentials.keys(), Permissions::from_mode(0o644)).unwrap();
        credentials.close_to_others().unwrap();
        assert_eq!(mode(&credentials.keys()), 0o600);
    }

    #[test]
    fn a_link_that_fails_leaves_a_working_one_as_it_is() {
        let (_dir, credentials) = linked();
        let new = credentials.begin().unwrap().unwrap();
        fs::write(new.path(), "half").unwrap();
        assert!(credentials.begin().unwrap().is_none(), "one command links at a time");
        drop(new);
        assert_eq!(names(&credentials), ["device.db"]);
        assert!(matches!(credentials.state(), LinkState::Linked(_)));
        // A command that was killed.
        fs::write(credentials.folder().join(LINKING), "half").unwrap();
        links(&credentials, ANNA);
        assert!(matches!(credentials.state(), LinkState::Linked(_)));
    }

    #[test]
    fn damaged_keys_are_refused_with_the_command_that_links_again_and_are_kept() {
        let (_dir, credentials) = linked();
        for n in 1..=2 {
            fs::write(credentials.keys(), "no database at all, and long enough to be read as one".repeat(40))
                .unwrap();
            let LinkState::Broken { why, .. } = credentials.state() else {
                panic!("{:?}", credentials.state())
            };
            assert!(why.contains("device.db") && why.contains("lazaret link whatsapp"), "{why}");
            links(&credentials, ANNA);
            assert!(matches!(credentials.state(), LinkState::Linked(_)));
            assert!(names(&credentials).contains(&format!("device.db.damaged-{n}")));
        }
        fs::write(credentials.keys(), "").unwrap();
        assert!(matches!(credentials.state(), LinkState::Broken { .. }), "an empty file holds no account");
    }

    #[test]
    fn a_link_that_the_platform_has_ended_stays_ended_over_a_restart_until_the_next_link() {
        let (_dir, credentials) = linked();
        for code in ENDINGS {
            credentials.end(code, "the phone has removed this device").unwrap();
            let ended = LinkState::Broken { why: "the phone has removed this device".into(), code };
            assert_eq!(Credentials::of(credentials.folder()).state(), ended);
        }
        links(&credentials, ANNA);
        assert!(matches!(credentials.state(), LinkState::Linked(_)));
        assert_eq!(names(&credentials), ["device.db"], "keys of no use are not kept");
    }

    #[test]
    fn one_process_uses_the_keys_at_a_time() {
        let (_dir, credentials) = linked();
        let held = credentials.hold().unwrap().unwrap();
        assert!(credentials.hold().unwrap().is_none());
        drop(held);
        assert!(credentials.hold().unwrap().is_some());
    }
}
