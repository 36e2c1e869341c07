//! Which files a request shows, and what stands in the place of the others.

use ipc_schema::TurnId;

pub use super::document::tests::pdf;
use super::picture::tests::encoded;
use super::*;
use crate::tests_support::host;
use crate::transcript::{LeftOut, Results, ToolResult};
use image::ImageFormat;

pub fn jpeg() -> Vec<u8> {
    encoded(60, 40, ImageFormat::Jpeg)
}

fn attachment(name: &str, mime: &str, bytes: u64) -> Attachment {
    Attachment {
        path: Some(format!("/inbox/{name}")),
        name: name.into(),
        mime: mime.into(),
        bytes,
        problem: None,
        transcript: None,
        no_transcript: None,
    }
}

/// An input with these files, as entry `entry`.
fn sent(entry: u64, files: Vec<Attachment>) -> Entry {
    let mut input = host::input(&[(entry, "look")]);
    input.messages[0].attachments = files;
    Entry { entry, turn: TurnId(1), at: String::new(), body: Body::Input(input) }
}

fn photos(from: u64, to: u64) -> Vec<Entry> {
    (from..=to).map(|n| sent(n, vec![attachment(&format!("{n}.jpg"), "image/jpeg", 9)])).collect()
}

/// The paths that are shown, and those that are too old.
fn shown_and_old(entries: &[Entry]) -> (Vec<String>, Vec<String>) {
    let (shown, old): (Vec<_>, Vec<_>) =
        wanted(entries, &Omissions::default()).into_iter().partition(|one| one.fate == Fate::Shown);
    let paths = |all: Vec<Wanted>| all.into_iter().map(|one| one.file.path).collect();
    (paths(shown), paths(old))
}

#[test]
fn what_is_shown_goes_by_the_labels_of_the_sender() {
    for (name, mime, kind) in [
        ("a.bin", "image/jpeg", Some(FileKind::Picture)),
        ("A.PNG", "application/octet-stream", Some(FileKind::Picture)),
        ("a.heic", "image/heic", Some(FileKind::Picture)),
        ("a", "Application/PDF", Some(FileKind::Document)),
        ("a.pdf", "application/octet-stream", Some(FileKind::Document)),
        ("a.txt", "text/plain", None),
        ("voice.ogg", "audio/ogg", None),
        ("png", "", None),
    ] {
        assert_eq!(labelled(&attachment(name, mime, 1)), kind, "{name} {mime}");
    }
    assert_eq!(kind_of(b"%PDF-1.7"), Some(FileKind::Document));
    assert_eq!(kind_of(b"\xff\xd8\xff\xe0"), Some(FileKind::Picture));
    assert_eq!((kind_of(b"BM"), kind_of(b"")), (None, None));
}

#[test]
fn the_oldest_pictures_leave_ten_at_a_time() {
    for (all, first) in [(20, 1), (21, 11), (30, 11), (31, 21), (45, 31)] {
        let (shown, old) = shown_and_old(&photos(1, all));
        assert_eq!(shown[0], format!("/inbox/{first}.jpg"), "{all}");
        assert_eq!(old.len() as u64, first - 1);
    }
}

#[test]
fn a_long_document_counts_as_many_pictures() {
    let mut entries = photos(1, 10);
    entries.push(sent(11, vec![attachment("a.pdf", "application/pdf", 15 * PIECE_BYTES)]));
    let (shown, old) = shown_and_old(&entries);
    assert_eq!((shown, old.len()), (vec!["/inbox/a.pdf".to_owned()], 10));
}

#[test]
fn a_picture_that_comes_again_is_shown_where_it_came_first() {
    let photo = || attachment("1.jpg", "image/jpeg", 9);
    let later = attachment("2.jpg", "image/jpeg", 9);
    let entries = [sent(1, vec![photo()]), sent(2, vec![photo(), later])];
    let places: Vec<_> =
        wanted(&entries, &Omissions::default()).into_iter().map(|w| (w.entry, w.file.path)).collect();
    assert_eq!(places, [(1, "/inbox/1.jpg".into()), (2, "/inbox/2.jpg".into())]);
}

#[test]
fn an_entry_is_estimated_by_its_files() {
    let files = vec![attachment("1.jpg", "image/jpeg", 9), attachment("a.pdf", "application/pdf", 120_000)];
    assert_eq!(tokens(&sent(1, files)), 1_600 + 3 * 3_000);
    assert_eq!(tokens(&sent(1, vec![attachment("a.txt", "text/plain", 1 << 30)])), 0);
}

struct Box_(tempfile::TempDir);

impl Box_ {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        ["inbox", "workspace"].iter().for_each(|name| std::fs::create_dir(dir.path().join(name)).unwrap());
        Self(dir)
    }

    fn put(&self, path: &str, bytes: &[u8]) {
        std::fs::write(self.0.path().join(path), bytes).unwrap();
    }

    fn sight(&self, change: impl FnOnce(&mut Model)) -> Sight {
        let mut model = host::begin().model;
        change(&mut model);
        Sight::new(BoxPaths::below(self.0.path()), &model)
    }
}

async fn view_of(sight: &mut Sight, entry: &Entry) -> Vec<Arc<Seen>> {
    let view = sight.view(std::slice::from_ref(entry), &Omissions::default()).await;
    view.of(entry).iter().map(|(_, seen)| Arc::clone(seen)).collect()
}

fn note_of(seen: &Seen) -> &str {
    match seen {
        Seen::Note(text) => text,
        Seen::Block { .. } => panic!("it is shown"),
    }
}

#[tokio::test]
async fn a_file_is_read_once_and_stays_the_same_when_it_is_gone() {
    let here = Box_::new();
    here.put("inbox/1.png", &encoded(30, 20, ImageFormat::Png));
    here.put("inbox/a.pdf", &pdf(2));
    let entry =
        sent(1, vec![attachment("1.png", "image/png", 9), attachment("a.pdf", "application/pdf", 300)]);
    let mut sight = here.sight(|_| {});
    assert!(sight.is_new(std::slice::from_ref(&entry), &Omissions::default()));
    let seen = view_of(&mut sight, &entry).await;
    let kinds: Vec<_> = seen
        .iter()
        .map(|seen| match &**seen {
            Seen::Block { kind, media_type, data } => {
                (*kind, *media_type, BASE64_STANDARD.decode(data).unwrap()[..4].to_vec())
            }
            Seen::Note(why) => panic!("{why}"),
        })
        .collect();
    let expected = [
        (FileKind::Picture, "image/png", b"\x89PNG".to_vec()),
        (FileKind::Document, "application/pdf", b"%PDF".to_vec()),
    ];
    assert_eq!(kinds, expected);
    std::fs::remove_dir_all(here.0.path().join("inbox")).unwrap();
    assert!(!sight.is_new(std::slice::from_ref(&entry), &Omissions::default()));
    assert_eq!(view_of(&mut sight, &entry).await, seen, "as this run saw it");
    let later = view_of(&mut here.sight(|_| {}), &entry).await;
    assert!(note_of(&later[0]).contains("/inbox/1.png does not exist"), "{later:?}");
}

#[tokio::test]
async fn what_cannot_be_shown_is_a_line_that_names_the_file() {
    let here = Box_::new();
    here.put("inbox/text.jpg", b"just a text");
    here.put("inbox/cut.jpg", &encoded(300, 200, ImageFormat::Jpeg)[..400]);
    here.put("inbox/bomb.png", &super::picture::tests::png_bomb(20_000, 20_000));
    here.put("inbox/cut.pdf", &pdf(2)[..60]);
    std::os::unix::fs::symlink("/dev/zero", here.0.path().join("inbox/zero.png")).unwrap();
    let mut sight = here.sight(|_| {});
    for (name, mime, bytes, why) in [
        ("text.jpg", "image/jpeg", 11, "it is no JPEG"),
        ("cut.jpg", "image/jpeg", 400, "cut off"),
        ("bomb.png", "image/png", 60, "20000 × 20000 pixels are too many"),
        ("cut.pdf", "application/pdf", 60, "cut off"),
        ("zero.png", "image/png", 0, "a device"),
        ("a.heic", "image/heic", 9, "does not exist"),
        ("huge.pdf", "application/pdf", 1 << 40, "it is larger than 15 MiB"),
    ] {
        let seen = view_of(&mut sight, &sent(1, vec![attachment(name, mime, bytes)])).await;
        let note = note_of(&seen[0]);
        assert!(
            note.starts_with('[') && note.contains(&format!("/inbox/{name}")) && note.contains(why),
            "{note}"
        );
    }
}

#[tokio::test]
async fn a_model_that_sees_nothing_is_told_so_and_no_file_is_read() {
    let here = Box_::new();
    let mut sight = here.sight(|model| model.no_images = true);
    let entry = sent(1, vec![attachment("1.png", "image/png", 9)]);
    assert!(!sight.is_new(std::slice::from_ref(&entry), &Omissions::default()));
    let seen = view_of(&mut sight, &entry).await;
    assert_eq!(
        note_of(&seen[0]),
        "[The picture /inbox/1.png is not shown: the model that you run on sees none.]"
    );
}

#[tokio::test]
async fn what_the_provider_refused_leaves_its_place_to_newer_files() {
    let here = Box_::new();
    here.put("inbox/2.jpg", &encoded(30, 20, ImageFormat::Jpeg));
    let entries = photos(1, 2);
    let left = LeftOut { through: 1, from: None, only_files: true, told: String::new() };
    let refused = Omissions::default().and(TurnId(1), &left);
    let view = here.sight(|_| {}).view(&entries, &refused).await;
    assert!(note_of(&view.of(&entries[0])[0].1).contains("the provider refused"));
    assert!(matches!(&*view.of(&entries[1])[0].1, Seen::Block { media_type: "image/jpeg", .. }));
}

#[tokio::test]
async fn a_file_that_was_looked_at_is_shown_as_long_as_it_is_the_same() {
    let here = Box_::new();
    let bytes = encoded(30, 20, ImageFormat::Png);
    here.put("workspace/a.png", &bytes);
    let shown = ShownFile {
        kind: FileKind::Picture,
        path: "/workspace/a.png".into(),
        sha256: ipc_schema::sha256_hex(&bytes),
        bytes: bytes.len() as u64,
    };
    let block =
        ToolResult { tool_use_id: "a".into(), content: "a.png:".into(), is_error: false, shown: Some(shown) };
    let body = Body::Results(Results { blocks: vec![block] });
    let entry = Entry { entry: 1, turn: TurnId(1), at: String::new(), body };
    let seen = view_of(&mut here.sight(|_| {}), &entry).await;
    assert!(matches!(&*seen[0], Seen::Block { .. }));
    here.put("workspace/a.png", &encoded(31, 20, ImageFormat::Png));
    let seen = view_of(&mut here.sight(|_| {}), &entry).await;
    assert!(note_of(&seen[0]).contains("has changed since"));
}
