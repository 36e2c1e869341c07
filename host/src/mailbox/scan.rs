//! Reads the files that a box wrote, one pass at a time.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Instant;

use ipc_schema::names_and_paths::{self, FROM_AGENT, FileName, letter_name};
use ipc_schema::untrusted_fs::UntrustedDir;
use ipc_schema::{FromAgentLetter, LETTER_MAX_BYTES, Refusal, RefusalCode, sha256_hex};

use super::notifier::Pause;
use super::tmpfs_mount::{self, NoTmpfs, TmpfsMount};
use super::{RunMailbox, TmpfsUse, go_without, lock};
use crate::domain::limits::Budget;
use crate::text;

/// One pass takes at most this many letters, so that runs take turns.
const PASS_LETTERS: usize = 64;
/// One pass reads at most this many bytes.
const PASS_BYTES: u64 = 1 << 20;
/// The highest accepted distance of a number from the next one. It is the number of names that the directory may hold.
pub const FAR_AHEAD: u64 = 4096;
/// The host skips a missing number after this many scans without it.
pub const GAP_SCANS: u32 = 2;

/// A letter that the host read safely. The directory determines its run.
#[derive(Debug, Clone)]
pub struct ReceivedLetter {
    pub letter: FromAgentLetter,
    pub name: String,
    /// Its bytes. The host reads each file only once.
    pub bytes: Vec<u8>,
    /// Of its id, turn, type and body, in hex: the same in every run that repeats the letter.
    pub sha256: String,
}

/// A file in the directory that the host refuses.
#[derive(Debug, Clone)]
pub struct RefusedFile {
    /// The number in its name, if it has one. The number is used up.
    pub n: Option<u64>,
    pub name: OsString,
    pub refusal: Refusal,
    /// How many bytes the host has read of it.
    pub bytes: u64,
}

impl RefusedFile {
    /// A refused file that the host did not read.
    pub fn unread(n: Option<u64>, name: OsString, refusal: Refusal) -> Self {
        Self { n, name, refusal, bytes: 0 }
    }
}

#[derive(Debug, Default)]
pub struct Pass {
    pub letters: Vec<ReceivedLetter>,
    pub refused: Vec<RefusedFile>,
    /// Whether more letters can be taken at once.
    pub more: bool,
    /// How the box exceeded the limits of its directory.
    pub flood: Option<String>,
}

impl RunMailbox {
    /// Reads letters in number order, up to the limits of a pass. The caller stores each and then calls
    /// [`RunMailbox::done`]. If it cannot store one, it calls [`RunMailbox::rewind`], and a later pass reads the
    /// letter again.
    ///
    /// # Errors
    /// When the directory cannot be listed.
    pub fn pass(&mut self) -> std::io::Result<Pass> {
        failpoint!("mailbox.list.before", |e| e);
        self.check_tmpfs();
        if self.notifier.is_flooded() {
            let flood =
                Some(format!("changed files in {FROM_AGENT} many thousand times a second, without end"));
            return Ok(Pass { flood, ..Pass::default() });
        }
        let began = Instant::now();
        let pass = self.scan();
        let took = pass.as_ref().is_ok_and(|pass| !pass.letters.is_empty());
        self.pause = if took { Pause::none() } else { Pause::after(began) };
        pass
    }

    fn scan(&mut self) -> std::io::Result<Pass> {
        let mut pass = Pass::default();
        let Budget { bytes, names } = self.budget;
        let used = self.from.usage(names)?;
        if used.truncated {
            pass.flood = Some(format!("left more than {names} files in {FROM_AGENT}"));
            return Ok(pass);
        }
        if used.bytes > bytes {
            pass.flood = Some(format!(
                "left {} in {FROM_AGENT}, where {} may lie",
                text::size(used.bytes),
                text::size(bytes)
            ));
            return Ok(pass);
        }
        if used.unread > 0 {
            // A host without root cannot list the folder, so it could contain anything.
            pass.flood = Some(format!("made folders in {FROM_AGENT} that the host may not look into"));
            return Ok(pass);
        }
        let limit = usize::try_from(names).unwrap_or(usize::MAX);
        let listing = self.from.names(limit)?;
        // A directory that is not empty stays, and so does a file that a host without root may not remove. It was
        // refused and counted once, and it still counts against the budget.
        if !self.not_removable.is_empty() {
            self.not_removable.retain(|name| listing.names.contains(name));
        }
        let mut numbers: Vec<(u64, String)> = Vec::new();
        for name in listing.names.into_iter().filter(|name| !self.not_removable.contains(name)) {
            match names_and_paths::parse_name(name.as_bytes()) {
                Ok(FileName::Letter { n, kind }) => numbers.push((n, kind.to_owned())),
                Ok(FileName::Partial) => {}
                Ok(FileName::Close) => {
                    let why = "only the host writes _close";
                    pass.refused.push(RefusedFile::unread(None, name, Refusal::new(RefusalCode::Name, why)));
                }
                Err(refusal) => pass.refused.push(RefusedFile::unread(None, name, refusal)),
            }
        }
        numbers.sort();
        self.take_in_order(numbers, &mut pass);
        Ok(pass)
    }

    /// Stops using the tmpfs if the box writes beneath it.
    fn check_tmpfs(&mut self) {
        if self.tmpfs.as_ref().is_some_and(TmpfsMount::is_bypassed) {
            self.tmpfs = None;
            go_without(&self.tmpfs_use, NoTmpfs::NotSeen);
            self.watcher.unwatch(self.from_path.clone());
            tmpfs_mount::unmount_at(&self.from_path);
            match UntrustedDir::open(&self.from_path) {
                Ok(from) => self.from = from,
                Err(e) => {
                    tracing::error!(run = %self.run, code = "ipc.io", "its letters cannot be reached: {e}")
                }
            }
            self.watcher.watch(self.from_path.clone(), &self.notifier);
        }
    }

    fn take_in_order(&mut self, numbers: Vec<(u64, String)>, pass: &mut Pass) {
        let mut bytes_taken = 0;
        for (n, kind) in numbers {
            let name = letter_name(n, &kind);
            // Used numbers count too, because a box can write a number again and again, and the host reads it each
            // time.
            if pass.letters.len() + pass.refused.len() >= PASS_LETTERS || bytes_taken >= PASS_BYTES {
                pass.more = true;
                return;
            }
            if n < self.next {
                // A used number: a letter of a host that died before the unlink, or a replay. The store compares the
                // bytes and decides.
                bytes_taken += self.read_one(n, &kind, name, pass).bytes();
                continue;
            }
            if n > self.next {
                if n - self.next > FAR_AHEAD {
                    // No runner skips so many numbers, and if the host skipped them it would lose the runner's own
                    // letters.
                    let why = format!("number {n} is far beyond {}", self.next);
                    let refusal = Refusal::new(RefusalCode::Envelope, why);
                    pass.refused.push(RefusedFile::unread(None, name.into(), refusal));
                    continue;
                }
                self.gap += 1;
                if self.gap <= GAP_SCANS {
                    // A listing that races with a rename can miss a file (readdir(3)). The next scan follows after the
                    // period or with the next letter.
                    return;
                }
                tracing::warn!(run = %self.run, code = "ipc.gap", "letters {} to {} never came", self.next, n - 1);
            }
            self.gap = 0;
            let read = self.read_one(n, &kind, name, pass);
            bytes_taken += read.bytes();
            match read {
                Read::Used(_) => self.next = n + 1,
                Read::NotNow => return,
            }
        }
    }

    fn read_one(&mut self, n: u64, kind: &str, name: String, pass: &mut Pass) -> Read {
        let refuse = |pass: &mut Pass, refusal: Refusal, bytes: u64| {
            pass.refused.push(RefusedFile { n: Some(n), name: name.clone().into(), refusal, bytes });
            Read::Used(bytes)
        };
        failpoint!("mailbox.read.before");
        let bytes = match self.from.read(Path::new(&name), self.uid, LETTER_MAX_BYTES) {
            Ok(bytes) => bytes,
            // Gone: the file was renamed between listing and reading. Io: an error of the host. The next pass reads
            // both again.
            Err(r) if matches!(r.code, RefusalCode::Gone | RefusalCode::Io) => {
                tracing::debug!(run = %self.run, code = r.code.as_str(), "{r}");
                return Read::NotNow;
            }
            Err(refusal) => return refuse(pass, refusal, 0),
        };
        let read = bytes.len() as u64;
        let parsed = FromAgentLetter::parse(&bytes).and_then(|letter| self.same_as_its_name(letter, n, kind));
        match parsed {
            Ok(letter) => {
                // The letter proves that the box writes into the tmpfs.
                if self.tmpfs.take().is_some() {
                    *lock(&self.tmpfs_use) = TmpfsUse::Works;
                }
                let sha256 = digest(&letter);
                pass.letters.push(ReceivedLetter { letter, name, bytes, sha256 });
                Read::Used(read)
            }
            Err(refusal) => {
                self.archive.reject(&name, &bytes);
                refuse(pass, refusal, read)
            }
        }
    }

    fn same_as_its_name(
        &self,
        letter: FromAgentLetter,
        n: u64,
        kind: &str,
    ) -> Result<FromAgentLetter, Refusal> {
        let refused = |why: String| Err(Refusal::new(RefusalCode::Envelope, why));
        if letter.run != self.run {
            return refused(format!("it names run {}, and lies in that of {}", letter.run, self.run));
        }
        if letter.n != n || letter.body.kind() != kind {
            return refused(format!("it says {} number {}, its name another", letter.body.kind(), letter.n));
        }
        Ok(letter)
    }

    /// Copies an accepted letter into the archive.
    pub fn keep(&self, received: &ReceivedLetter) {
        failpoint!("mailbox.keep.before");
        self.archive.keep_first(FROM_AGENT, &received.name, &received.bytes);
    }

    /// Copies a letter that was read and then refused into the archive.
    pub fn reject(&self, received: &ReceivedLetter) {
        self.archive.reject(&received.name, &received.bytes);
    }

    /// Removes a file whose outcome is stored.
    pub fn done(&mut self, name: &OsStr) {
        failpoint!("mailbox.unlink.before");
        if let Err(e) = self.from.unlink(name) {
            let shown = ipc_schema::refusal::quote(&name.to_string_lossy(), 80);
            tracing::debug!(run = %self.run, code = "ipc.unlink", "{shown} stays: {e}");
            self.not_removable.insert(name.to_owned());
        }
        failpoint!("mailbox.unlink.after");
    }

    /// Reads letters from `n` on again, because the caller could not store their outcome.
    pub fn rewind(&mut self, n: u64) {
        self.next = self.next.min(n);
    }
}

/// The digest of what a repeat of a letter has in common with it. The envelope differs: number, run, time and
/// acknowledgement.
fn digest(letter: &FromAgentLetter) -> String {
    let FromAgentLetter { id, turn, body, .. } = letter;
    let same = serde_json::to_vec(&(id, turn, body)).unwrap_or_default();
    sha256_hex(&same)
}

enum Read {
    /// The number is used up by a letter or a refused file. The value is the number of bytes read.
    Used(u64),
    /// The next pass reads it again.
    NotNow,
}

impl Read {
    fn bytes(&self) -> u64 {
        match self {
            Self::Used(bytes) => *bytes,
            Self::NotNow => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mailbox::{Archive, Mailbox};
    use ipc_schema::letters::FromAgent;
    use ipc_schema::letters::from_agent::Message;
    use ipc_schema::{LetterId, TurnId};
    use std::os::unix::fs::MetadataExt;
    use std::path::PathBuf;
    use std::time::Duration;

    const BUDGET: Budget = Budget { bytes: 16 << 20, names: 4096 };
    const RUN: &str = "019ab000-0000-7000-8000-000000000001";

    struct Fixture {
        _dir: tempfile::TempDir,
        from: PathBuf,
        rejected: PathBuf,
        run: RunMailbox,
        _mailbox: Mailbox,
    }

    fn fixture() -> Fixture {
        let dir = tempfile::tempdir().unwrap();
        let me = std::fs::metadata(dir.path()).unwrap();
        let mailbox = Mailbox::new(me.gid()).unwrap();
        let archive = Archive::open(&dir.path().join("letters")).unwrap();
        let run =
            mailbox.open(&dir.path().join("ipc"), RUN.parse().unwrap(), me.uid(), BUDGET, archive).unwrap();
        let (from, rejected) = (dir.path().join("ipc/from-agent"), dir.path().join("letters/rejected"));
        Fixture { _dir: dir, from, rejected, run, _mailbox: mailbox }
    }

    fn letter(n: u64, text: &str) -> (String, Vec<u8>) {
        let letter = FromAgentLetter {
            id: LetterId::of_block(TurnId(1), n, 0),
            run: RUN.parse().unwrap(),
            turn: Some(TurnId(1)),
            n,
            ack: 1,
            at: "2026-11-21T10:00:00Z".into(),
            body: FromAgent::Message(Message { text: text.into() }),
        };
        (letter.file_name(), letter.to_bytes().unwrap())
    }

    impl Fixture {
        fn put(&self, n: u64) {
            let (name, bytes) = letter(n, "hi");
            std::fs::write(self.from.join(name), bytes).unwrap();
        }
        fn numbers(&mut self) -> Vec<u64> {
            let pass = self.run.pass().unwrap();
            pass.letters
                .iter()
                .map(|l| {
                    self.run.done(OsStr::new(&l.name));
                    l.letter.n
                })
                .collect()
        }
    }

    #[test]
    fn letters_come_in_number_order_whatever_the_listing_says() {
        let mut w = fixture();
        for n in [3, 1, 2] {
            w.put(n);
        }
        assert_eq!(w.numbers(), [1, 2, 3]);
        assert_eq!(w.numbers(), [0u64; 0]);
        assert_eq!(std::fs::read_dir(&w.from).unwrap().count(), 0);
    }

    #[test]
    fn a_gap_waits_two_scans_and_is_then_passed_over() {
        let mut w = fixture();
        w.put(2);
        assert_eq!(w.numbers(), [0u64; 0]);
        w.put(1);
        assert_eq!(w.numbers(), [1, 2], "it was only late");
        w.put(4);
        assert_eq!((w.numbers(), w.numbers()), (vec![], vec![]));
        assert_eq!(w.numbers(), [4], "it never came");
    }

    #[test]
    fn one_pass_takes_no_more_than_its_share() {
        let mut w = fixture();
        for n in 1..=100 {
            w.put(n);
        }
        let pass = w.run.pass().unwrap();
        assert!(pass.more && pass.letters.len() == PASS_LETTERS);
        w.run.rewind(1);
        assert_eq!(w.numbers().len(), PASS_LETTERS, "what could not be stored is found again");
        assert_eq!(w.numbers(), (65..=100).collect::<Vec<u64>>());
    }

    #[test]
    fn a26_numbers_that_were_used_are_read_in_shares_too() {
        let mut w = fixture();
        w.put(1);
        assert_eq!(w.numbers(), [1]);
        for kind in 'a'..='z' {
            let sparse = std::fs::File::create(w.from.join(format!("0000000001-{kind}.json"))).unwrap();
            sparse.set_len(LETTER_MAX_BYTES).unwrap();
        }
        let pass = w.run.pass().unwrap();
        assert!(pass.more && pass.refused.len() == 4, "{} in one pass", pass.refused.len());
        assert!(pass.refused.iter().all(|r| r.bytes == LETTER_MAX_BYTES), "what was read is counted");
    }

    #[test]
    fn a18_a_flood_is_counted_not_listed() {
        let mut w = fixture();
        for i in 0..30 {
            std::fs::write(w.from.join(format!("junk{i}")), b"").unwrap();
        }
        w.run.budget.names = 20;
        assert!(w.run.pass().unwrap().flood.is_some());
        w.run.budget.names = 40;
        assert!(w.run.pass().unwrap().flood.is_none());
        w.run.budget.bytes = 1 << 20;
        std::fs::write(w.from.join(".draft"), vec![1u8; 2 << 20]).unwrap();
        assert!(w.run.pass().unwrap().flood.is_some_and(|f| f.contains("2 MiB")), "drafts count");
        std::fs::remove_file(w.from.join(".draft")).unwrap();
        std::fs::create_dir_all(w.from.join(".x/y")).unwrap();
        std::fs::write(w.from.join(".x/y/z"), vec![1u8; 2 << 20]).unwrap();
        assert!(w.run.pass().unwrap().flood.is_some_and(|f| f.contains("2 MiB")), "and what lies deeper");
    }

    #[test]
    fn a24_a34_what_is_no_letter_is_refused_and_uses_up_its_number() {
        let mut w = fixture();
        std::fs::write(w.from.join("0000000001-message.json"), b"{ torn").unwrap();
        std::fs::write(w.from.join("evil\n.json"), b"").unwrap();
        std::fs::write(w.from.join("_close"), b"").unwrap();
        std::fs::write(w.from.join(".0000000009-message.json.part"), b"").unwrap();
        w.put(2);
        let pass = w.run.pass().unwrap();
        assert_eq!(pass.letters.len(), 1);
        let mut codes: Vec<_> = pass.refused.iter().map(|r| (r.n, r.refusal.code.as_str())).collect();
        codes.sort();
        assert_eq!(codes, [(None, "ipc.name"), (None, "ipc.name"), (Some(1), "ipc.json")]);
        assert_eq!(std::fs::read_dir(&w.rejected).unwrap().count(), 1, "its bytes are kept for the operator");
    }

    #[tokio::test]
    async fn a18_the_hosts_own_look_into_a_directory_is_no_reason_to_look_again() {
        let mut w = fixture();
        std::fs::create_dir_all(w.from.join("deep/deeper")).unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
        w.run.next_change(Duration::ZERO).await;
        let quiet = Duration::from_millis(400);
        for _ in 0..3 {
            w.run.pass().unwrap();
            let began = Instant::now();
            w.run.next_change(quiet).await;
            assert!(began.elapsed() >= quiet, "next_change after {:?}", began.elapsed());
        }
    }

    #[test]
    fn a30_what_cannot_be_removed_is_refused_once() {
        let mut w = fixture();
        std::fs::create_dir_all(w.from.join("0000000001-message.json/deep")).unwrap();
        w.put(2);
        let pass = w.run.pass().unwrap();
        assert_eq!(pass.refused[0].refusal.code, RefusalCode::NotRegular);
        w.run.done(&pass.refused[0].name);
        pass.letters.iter().for_each(|l| w.run.done(OsStr::new(&l.name)));
        let quiet = w.run.pass().unwrap();
        assert!(quiet.refused.is_empty() && quiet.letters.is_empty(), "{quiet:?}");
        w.put(3);
        assert_eq!(w.numbers(), [3], "and nothing waits for it");
    }

    #[test]
    fn a27_a_letter_of_another_run_is_refused() {
        let mut w = fixture();
        let (name, bytes) = letter(1, "hi");
        let forged = String::from_utf8(bytes).unwrap().replace("000000000001", "000000000002");
        std::fs::write(w.from.join(name), forged).unwrap();
        let pass = w.run.pass().unwrap();
        assert_eq!(pass.refused[0].refusal.code, RefusalCode::Envelope);
    }

    #[test]
    fn a_repeat_has_the_digest_of_the_first_and_another_content_has_not() {
        let (_, bytes) = letter(1, "hi");
        let first = FromAgentLetter::parse(&bytes).unwrap();
        let (at, run) = ("2026-11-22T10:00:00Z".to_owned(), RUN.replace('1', "2").parse().unwrap());
        let repeat = FromAgentLetter { n: 9, ack: 7, at, run, ..first.clone() };
        assert_eq!(digest(&first), digest(&repeat));
        let body = FromAgent::Message(Message { text: "ho".into() });
        assert_ne!(digest(&first), digest(&FromAgentLetter { body, ..first.clone() }));
        let id = LetterId::of_block(TurnId(1), 2, 0);
        assert_ne!(digest(&first), digest(&FromAgentLetter { id, ..first.clone() }));
    }

    #[tokio::test]
    async fn the_run_is_notified_when_a_letter_is_renamed_into_place() {
        let w = fixture();
        let (name, bytes) = letter(1, "hi");
        let part = w.from.join(".x.part");
        std::fs::write(&part, bytes).unwrap();
        std::fs::rename(part, w.from.join(name)).unwrap();
        // The period is an hour: only a notification ends this wait in time.
        tokio::time::timeout(Duration::from_secs(10), w.run.next_change(Duration::from_secs(3600)))
            .await
            .unwrap();
    }
}
