//! A transcript survives what can happen to its file.

use super::*;
use crate::tests_support::{host, script};
use serde_json::json;
use std::path::Path;

const TURN: TurnId = TurnId(41);

fn told(dir: &Path) -> Transcript {
    let mut transcript = Transcript::load(dir.to_owned(), "s").unwrap();
    transcript.append_input(TURN, host::input(&[(1, "hello\nyou"), (2, "there")])).unwrap();
    let answer = script::calls(&[("toolu_1", "run_command", json!({"command": "ls"}))]);
    transcript.append(TURN, Body::Assistant(answer)).unwrap();
    let result =
        ToolResult { tool_use_id: "toolu_1".into(), content: "a\nb".into(), is_error: false, shown: None };
    transcript.append_results(TURN, vec![result]).unwrap();
    transcript.append(TURN, Body::Assistant(script::says("done"))).unwrap();
    transcript
}

fn numbers(transcript: &Transcript) -> Vec<u64> {
    transcript.entries().iter().map(|entry| entry.entry).collect()
}

fn lines(transcript: &Transcript) -> Vec<Vec<u8>> {
    transcript.entries().iter().map(|entry| entry.to_line().unwrap()).collect()
}

#[test]
fn what_was_told_is_read_again() {
    let dir = tempfile::tempdir().unwrap();
    let first = told(dir.path());
    let again = Transcript::load(dir.path().to_owned(), "s").unwrap();
    assert_eq!(lines(&again), lines(&first));
    assert_eq!(numbers(&again), [1, 2, 3, 4]);
    assert_eq!(again.last_turn(), Some(TURN));
    assert!(
        again.holds(TURN, &host::input(&[(2, "x")]))
            && !again.holds(TURN, &host::input(&[(2, "x"), (3, "x")]))
    );
}

#[test]
fn an_answer_with_bad_arguments_is_read_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut transcript = Transcript::load(dir.path().to_owned(), "s").unwrap();
    let mut answer = script::calls(&[("toolu_1", "run_command", json!({}))]);
    answer.bad_inputs.insert(0, "EOF".into());
    transcript.append(TURN, Body::Assistant(answer)).unwrap();
    assert_eq!(lines(&Transcript::load(dir.path().to_owned(), "s").unwrap()), lines(&transcript));
}

#[test]
fn a_message_is_taken_in_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut transcript = told(dir.path());
    assert!(!transcript.append_input(TURN, host::input(&[(1, "hello"), (2, "there")])).unwrap());
    assert!(transcript.append_input(TURN, host::input(&[(2, "there"), (3, "new")])).unwrap());
    let Body::Input(last) = &transcript.entries().last().unwrap().body else { panic!() };
    assert_eq!(last.messages.iter().map(|m| m.id.0).collect::<Vec<_>>(), [3]);
}

#[test]
fn a_fire_is_taken_in_once_per_turn_and_messages_join_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut transcript = told(dir.path());
    let fire = |messages: &[(u64, &str)]| host::fire(|_| {}, messages);
    assert!(!transcript.append_input(TURN, fire(&[])).unwrap(), "a fire is no message");
    assert!(transcript.append_input(TURN, fire(&[(3, "new")])).unwrap());
    assert!(!transcript.append_input(TURN, fire(&[(3, "new")])).unwrap());
    let taken = |entry: &Entry| match &entry.body {
        Body::Input(input) => Some((input.fire.is_some(), input.messages.len())),
        _ => None,
    };
    let again = Transcript::load(dir.path().to_owned(), "s").unwrap();
    assert_eq!(
        again.entries().iter().filter_map(taken).collect::<Vec<_>>(),
        [(false, 2), (true, 0), (false, 1)]
    );
    assert_eq!(lines(&again), lines(&transcript));
    assert!(again.holds(TURN, &fire(&[(3, "new")])) && !again.holds(TurnId(42), &fire(&[])));
    assert_eq!(again.fire_of(TURN).unwrap().name, "news");
    assert!(transcript.append_input(TurnId(42), fire(&[(4, "another turn")])).unwrap());
    assert_eq!(
        transcript.fire_of(TurnId(42)).unwrap().id,
        "f-12",
        "a fire that is given to another turn is its work"
    );
}

#[test]
fn a_fire_that_its_gate_has_ended_is_held_without_its_text() {
    let dir = tempfile::tempdir().unwrap();
    let mut transcript = Transcript::load(dir.path().to_owned(), "s").unwrap();
    let gate = |wake| Body::Gate(Gate { fire: "f-12".into(), wake, error: None, shown: None });
    let fire = host::fire(|_| {}, &[]);
    transcript.append(TURN, gate(true)).unwrap();
    assert!(transcript.has_gate(TURN, "f-12") && !transcript.holds(TURN, &fire), "the fire still comes");
    transcript.append(TURN, gate(false)).unwrap();
    let mut again = Transcript::load(dir.path().to_owned(), "s").unwrap();
    assert_eq!(lines(&again), lines(&transcript));
    assert!(again.holds(TURN, &fire) && again.fire_of(TURN).is_none());
    again.append_input(TURN, fire).unwrap();
    assert_eq!(numbers(&again), [1, 2]);
}

#[test]
fn a_last_line_torn_at_any_byte_is_dropped_and_its_number_given_again() {
    let dir = tempfile::tempdir().unwrap();
    let whole = lines(&told(dir.path()));
    let path = dir.path().join("s.jsonl");
    let bytes = std::fs::read(&path).unwrap();
    let last = whole.last().unwrap().len();
    for kept in 0..last {
        std::fs::write(&path, &bytes[..bytes.len() - last + kept]).unwrap();
        let mut transcript = Transcript::load(dir.path().to_owned(), "s").unwrap();
        // The last byte is the line break: without it the entry is whole, but nothing has acted on it.
        let expected = if kept == last - 1 { &whole[..] } else { &whole[..3] };
        assert_eq!(lines(&transcript), expected, "{kept} bytes of the last line");
        transcript.append(TURN, Body::Note(Note { text: "next".into() })).unwrap();
        let again = Transcript::load(dir.path().to_owned(), "s").unwrap();
        assert_eq!(numbers(&again).last(), Some(&(expected.len() as u64 + 1)));
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "no copy is kept of a torn line");
}

#[test]
fn a_damaged_line_ends_the_transcript_and_the_file_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let whole = lines(&told(dir.path()));
    let path = dir.path().join("s.jsonl");
    for (n, damage) in [
        "{\"entry\":2}\n",
        "\0\0\0\n",
        "{\"entry\":1,\"turn\":\"t-41\",\"at\":\"\",\"kind\":\"note\",\"body\":{\"text\":\"\"}}\n",
    ]
    .iter()
    .enumerate()
    {
        let damaged = [&whole[0], damage.as_bytes(), &whole[2], &whole[3]].concat();
        std::fs::write(&path, &damaged).unwrap();
        let mut transcript = Transcript::load(dir.path().to_owned(), "s").unwrap();
        assert_eq!(lines(&transcript), &whole[..1]);
        let aside = dir.path().join(format!("s.damaged-{}.jsonl", n + 1));
        assert_eq!(std::fs::read(aside).unwrap(), damaged);
        let next = transcript.append(TURN, Body::Note(Note { text: "on".into() })).unwrap();
        assert_eq!(next, 5, "letters may be known under the numbers that were lost");
    }
}

#[test]
fn g3_what_can_be_no_transcript_moves_aside_and_the_session_begins_anew() {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    let place = |dir: &Path, odd: &dyn Fn(&Path)| odd(&dir.join("s.jsonl"));
    let odd: [&dyn Fn(&Path); 4] = [
        &|at| mknodat(CWD, at, FileType::Fifo, Mode::from_raw_mode(0o400), 0).unwrap(),
        &|at| std::os::unix::fs::symlink("/etc/passwd", at).unwrap(),
        &|at| std::fs::create_dir_all(at.join("full")).unwrap(),
        &|at| std::fs::File::create(at).unwrap().set_len((64 << 20) + 1).unwrap(),
    ];
    for make in odd {
        let dir = tempfile::tempdir().unwrap();
        place(dir.path(), make);
        let mut anew = Transcript::load(dir.path().to_owned(), "s").unwrap();
        assert!(anew.entries().is_empty() && anew.lost() == Some(Lost::All));
        anew.append(TURN, Body::Note(Note { text: "on".into() })).unwrap();
        let names = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name());
        assert!(names.into_iter().any(|name| name.to_string_lossy().starts_with("s.aside-")), "it is kept");
        let again = Transcript::load(dir.path().to_owned(), "s").unwrap();
        assert_eq!((numbers(&again), again.lost()), (vec![1], None), "once");
    }
    let dir = tempfile::tempdir().unwrap();
    for bad in ["", "../x", "A", "a b", &"x".repeat(65)] {
        assert_eq!(Transcript::load(dir.path().to_owned(), bad).unwrap_err().code(), "session.name");
    }
}

#[test]
fn g3_a_second_name_and_missing_rights_lose_nothing() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let dir = tempfile::tempdir().unwrap();
    let whole = lines(&told(dir.path()));
    let path = dir.path().join("s.jsonl");
    std::fs::hard_link(&path, dir.path().join("twin")).unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o000)).unwrap();
    let mut transcript = Transcript::load(dir.path().to_owned(), "s").unwrap();
    assert_eq!((lines(&transcript), transcript.lost()), (whole, None));
    transcript.append(TURN, Body::Note(Note { text: "on".into() })).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().nlink(), 1, "the twin is another file now");
    assert!(!std::fs::read_to_string(dir.path().join("twin")).unwrap().contains("\"on\""));
}

#[test]
fn g3_what_lies_in_the_way_of_a_compaction_moves_aside() {
    let dir = tempfile::tempdir().unwrap();
    let mut transcript = told(dir.path());
    for way in [".s.jsonl.new", "archive/s.md"] {
        std::fs::create_dir_all(dir.path().join(way).join("full")).unwrap();
    }
    let kept = || std::fs::read_to_string(dir.path().join("archive/s.md")).unwrap();
    transcript.archive("s.md", "told").unwrap();
    assert_eq!(kept(), "told");
    std::fs::remove_dir_all(dir.path().join("archive")).unwrap();
    for make in [
        |at: &Path| std::fs::write(at, "").unwrap(),
        |at: &Path| {
            std::os::unix::fs::symlink("/nowhere", at).unwrap();
        },
    ] {
        let _ = std::fs::remove_dir_all(dir.path().join("archive"));
        make(&dir.path().join("archive"));
        transcript.archive("s.md", "again").unwrap();
        assert_eq!(kept(), "again");
    }
    let summary =
        Summary { text: "short".into(), archive: "a".into(), made_at: 1, held: vec![], compactions: 1 };
    transcript.shorten(1, summary).unwrap();
}

#[test]
fn g3_a_forged_number_takes_none_from_the_entries_after_it() {
    let dir = tempfile::tempdir().unwrap();
    let line = |entry: u64| {
        format!(
            "{{\"entry\":{entry},\"turn\":\"t-41\",\"at\":\"\",\"kind\":\"note\",\"body\":{{\"text\":\"\"}}}}\n"
        )
    };
    std::fs::write(dir.path().join("s.jsonl"), line(1) + &line(u64::MAX)).unwrap();
    let mut transcript = Transcript::load(dir.path().to_owned(), "s").unwrap();
    assert_eq!((numbers(&transcript), transcript.lost()), (vec![1], Some(Lost::End)));
    let known = [LetterId::of_block(TURN, 9, 0), LetterId::of_block(TURN, u64::MAX, 0), LetterId::of_run(70)];
    transcript.pass_over_numbers(&known);
    assert_eq!(transcript.append(TURN, Body::Note(Note { text: "on".into() })).unwrap(), 10);
}

#[test]
fn shortening_keeps_numbers_and_the_memory_of_messages() {
    let dir = tempfile::tempdir().unwrap();
    let mut transcript = told(dir.path());
    transcript.append_input(TurnId(42), host::input(&[(3, "next")])).unwrap();
    let summary = Summary {
        text: "they said hello".into(),
        archive: "/session/archive/s-1-4.md".into(),
        made_at: 5,
        held: vec![MessageSeq(1), MessageSeq(2)],
        compactions: 1,
    };
    transcript.shorten(4, summary).unwrap();
    let mut again = Transcript::load(dir.path().to_owned(), "s").unwrap();
    assert_eq!(numbers(&again), [4, 5]);
    assert!(again.holds(TURN, &host::input(&[(1, ""), (2, ""), (3, "")])));
    assert_eq!(again.of_turn(TURN).count(), 0, "a summary belongs to no turn");
    assert_eq!(again.append(TurnId(42), Body::Note(Note { text: "x".into() })).unwrap(), 6);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "no draft is left behind");
}

/// One line of each kind, as it stands in the file.
fn one_of_each_kind() -> Vec<String> {
    let request = r#"{"kind":"send_file","body":{"path":"a.txt"}}"#;
    let bodies = [
        ("input", serde_json::to_string(&host::input(&[(1, "hello")])).unwrap()),
        ("gate", r#"{"fire":"f-1","wake":true,"shown":"new"}"#.into()),
        (
            "assistant",
            r#"{"blocks":[{"type":"text","text":"hi"}],"usage":{"input_tokens":9,"estimated":8}}"#.into(),
        ),
        ("results", r#"{"blocks":[{"tool_use_id":"a","content":"ok"}]}"#.into()),
        ("request", format!(r#"{{"tool_use_id":"a","request":{request}}}"#)),
        ("note", r#"{"text":"Continue."}"#.into()),
        ("end", r#"{"outcome":"finished"}"#.into()),
        ("summary", r#"{"text":"they met","archive":"a","made_at":1}"#.into()),
        ("left_out", r#"{"through":1}"#.into()),
        ("shortened", r#"{"through":1,"results":80,"archive":"a"}"#.into()),
        ("order", r#"{"message":"m-1","text":"Compacted"}"#.into()),
    ];
    let line = |(kind, body)| format!(r#"{{"entry":2,"turn":"t-41","at":"","kind":"{kind}","body":{body}}}"#);
    bodies.map(line).to_vec()
}

#[test]
fn a_line_of_any_kind_may_be_torn_or_edited_and_the_session_goes_on() {
    let first = r#"{"entry":1,"turn":"t-41","at":"","kind":"note","body":{"text":"hello"}}"#;
    for line in one_of_each_kind() {
        let whole = Entry::parse(line.as_bytes()).map(drop);
        assert!(whole.is_ok() || line.contains("\"request\""), "{line}: {whole:?}");
        let edits = [
            line.replace("\"body\":{", "\"body\":["),
            line.replace("\"entry\":2", "\"entry\":0"),
            line.replace("\"kind\":\"", "\"kind\":\"un"),
            line.replace('{', ""),
            "\u{0}\u{0}".to_owned(),
        ];
        let torn = (1..line.len()).filter(|at| line.is_char_boundary(*at)).map(|at| line[..at].to_owned());
        for text in torn.step_by(31).chain(edits.map(|edit| edit + "\n")) {
            let dir = tempfile::tempdir().unwrap();
            std::fs::write(dir.path().join("s.jsonl"), format!("{first}\n{text}")).unwrap();
            let mut transcript = Transcript::load(dir.path().to_owned(), "s").unwrap();
            assert_eq!(numbers(&transcript), [1], "{text}");
            let next = transcript.append(TURN, Body::Note(Note { text: "on".into() })).unwrap();
            assert!(next > 1);
            let again = Transcript::load(dir.path().to_owned(), "s").unwrap();
            assert_eq!(numbers(&again), [1, next], "{text}");
        }
    }
}
