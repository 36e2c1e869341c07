//! Limits for files that people send: which ones are fetched, how much room they have, and their stored names.
//! `intake` and the run call it.
//!
//! Nobody inspects the content: the media type and the name are the sender's labels, and the stored name is made of
//! the digest.

use crate::domain::limits::Budget;
use crate::domain::message::{Attachment, OfferedFile};
use crate::text::{self, label};

/// How many files of one message the host may fetch.
const FILES: usize = 10;
/// How many files of context messages one letter may bring, newest first. It limits what people cost the host who
/// write in a room and never wake the agent.
pub const FILES_OF_CONTEXT: usize = 10;
/// The most files in a group's inbox. Each takes at least a block and an inode.
const INBOX_NAMES: u64 = 20_000;

/// A message's files for the store. `most` is the largest file in bytes. The host fetches no file before an agent
/// reads the message.
pub fn offered(files: &[OfferedFile], most: u64) -> Vec<Attachment> {
    let one = |file: &OfferedFile| Attachment {
        handle: Some(file.handle.clone()),
        file: None,
        name: label(&file.name),
        mime: label(&file.mime),
        bytes: file.bytes.unwrap_or(0),
        problem: None,
        spoken: file.spoken,
        transcript: None,
        no_transcript: None,
    };
    let fetched = files.iter().take(FILES).map(|file| match file.bytes {
        Some(bytes) if bytes > most => one(file).given_up(text::not_stored(bytes, most)),
        _ => one(file),
    });
    // One entry stands for all the others, because ten thousand entries would not fit into a letter.
    let rest = files.get(FILES).map(|next| one(next).given_up(beyond(files.len() - FILES)));
    fetched.chain(rest).collect()
}

/// The budget of an inbox with a limit of this many bytes.
pub fn inbox(bytes: u64) -> Budget {
    Budget { bytes, names: INBOX_NAMES }
}

/// The largest size in bytes of the next file, for an inbox that holds `held`.
///
/// # Errors
/// The text for the agent if there is no room.
pub fn room(held: Budget, inbox: Budget, most: u64) -> Result<u64, String> {
    let left = inbox.bytes.saturating_sub(held.bytes);
    if left > 0 && held.names < inbox.names {
        return Ok(left.min(most));
    }
    Err(full(held, inbox))
}

/// For the agent: why a file larger than [`room`] allowed was not stored.
pub fn too_large(bytes: u64, held: Budget, inbox: Budget, most: u64) -> String {
    if bytes > most { text::not_stored(bytes, most) } else { full(held, inbox) }
}

fn full(held: Budget, inbox: Budget) -> String {
    format!(
        "not stored: there is no room for it in this group's inbox ({} files, {} MiB; at most {} files and {} MiB, limits.inbox_mib), all of it for messages that are not answered yet",
        held.names,
        held.bytes >> 20,
        inbox.names,
        inbox.bytes >> 20,
    )
}

/// For the agent: why a file of a context message was not fetched.
pub fn of_context() -> String {
    format!(
        "not fetched: of messages that are not for you only the newest {FILES_OF_CONTEXT} files are; ask for it to be sent again"
    )
}

/// For the agent: why a voice message has no text.
pub fn no_speech_endpoint() -> String {
    "no speech model is set up here; the owner can set [transcription] in lazaret.toml".to_owned()
}

/// The name of a stored file: its digest, and at most a short plain extension of the sender's label.
pub fn file_name(sha256: &str, label: &str) -> String {
    let short: String = sha256.chars().take(20).collect();
    let ending = label.rsplit_once('.').map_or("", |(_, ending)| ending);
    let ending: String =
        ending.chars().filter(char::is_ascii_alphanumeric).take(8).collect::<String>().to_lowercase();
    if ending.is_empty() { short } else { format!("{short}.{ending}") }
}

/// For the agent: how many more files the message has.
fn beyond(rest: usize) -> String {
    format!("not stored: {rest} more; a message may carry {FILES} files")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_stored_file_is_called_by_its_bytes_whatever_its_sender_calls_it(label in any::<String>()) {
            let name = file_name(&"ab".repeat(32), &label);
            prop_assert!(name.starts_with("abababababababababab") && name.len() <= 29, "{name}");
            prop_assert!(name.chars().all(|c| c.is_ascii_alphanumeric() || c == '.'), "{name}");
        }
    }

    fn photo(bytes: Option<u64>) -> OfferedFile {
        OfferedFile {
            handle: "h".into(),
            name: "p\u{202e}.jpg".into(),
            mime: "image/jpeg".into(),
            bytes,
            spoken: false,
        }
    }

    #[test]
    fn d2_ten_thousand_files_are_ten_to_fetch_and_one_line() {
        let all = offered(&vec![photo(None); 10_000], 20);
        assert_eq!(all.len(), 11);
        assert!(all[..10].iter().all(|a| a.handle.is_some() && a.problem.is_none() && a.name == "p.jpg"));
        assert_eq!(all[10].handle, None);
        assert_eq!(all[10].problem.as_deref(), Some("not stored: 9990 more; a message may carry 10 files"));
    }

    #[test]
    fn d2_what_says_itself_that_it_is_too_large_is_never_asked_for() {
        let all = offered(&[photo(Some(20)), photo(Some(21)), photo(None)], 20);
        let asked: Vec<bool> = all.iter().map(|a| a.handle.is_some()).collect();
        assert_eq!(asked, [true, false, true]);
    }

    #[test]
    fn d2_an_inbox_takes_what_it_has_room_for_and_says_when_it_has_none() {
        let limit = inbox(100);
        let held = |bytes, names| Budget { bytes, names };
        assert_eq!(room(held(0, 0), limit, 60), Ok(60));
        assert_eq!(room(held(70, 1), limit, 60), Ok(30), "no more than there is room for");
        for full in [held(100, 1), held(200, 1), held(0, INBOX_NAMES)] {
            assert!(room(full, limit, 60).unwrap_err().contains("limits.inbox_mib"));
        }
        assert!(too_large(31, held(70, 1), limit, 60).contains("limits.inbox_mib"));
        assert!(too_large(61, held(70, 1), limit, 60).contains("are taken"));
    }

    #[test]
    fn d2_a_label_reaches_the_disk_as_an_ending_or_not_at_all() {
        let digest = "0123456789abcdef0123456789abcdef";
        for (label, expected) in [
            ("fridge.JPG", "0123456789abcdef0123.jpg"),
            ("../../etc/passwd", "0123456789abcdef0123.etcpassw"),
            ("a.\u{202e}gpj.exe", "0123456789abcdef0123.exe"),
            ("-rf", "0123456789abcdef0123"),
            ("a.\n", "0123456789abcdef0123"),
            ("a.superlongending", "0123456789abcdef0123.superlon"),
        ] {
            assert_eq!(file_name(digest, label), expected, "{label:?}");
        }
    }
}
