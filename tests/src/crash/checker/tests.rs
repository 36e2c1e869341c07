//! Plants faults into the evidence of a good run and checks that the checker finds each.

use super::*;

/// A good run: two chats, an answer to two messages at once, an answer in two parts, a notice instead of an answer, and
/// a command.
fn good_run() -> Evidence {
    let mut run = Evidence::default();
    let mut seq = 0;
    let mut say = |run: &mut Evidence, chat: &str, id: &str, text: &str, turn: Option<i64>| {
        seq += 1;
        for what in [What::Said, What::Accepted] {
            run.log.push(line(chat, id, text, what));
        }
        let outcome = turn.is_none().then(|| "told".to_owned());
        run.messages.insert((chat.to_owned(), id.to_owned()), Stored { seq, turn, outcome });
    };
    say(&mut run, "telegram:1", "11", "hello K-a-1", Some(1));
    say(&mut run, "telegram:1", "12", "and K-a-2", Some(1));
    say(&mut run, "telegram:2", "21", "hello K-b-1", Some(2));
    say(&mut run, "telegram:2", "22", "hello K-b-2", Some(3));
    say(&mut run, "telegram:1", "13", "/new", None);
    say(&mut run, "telegram:1", "14", "more K-a-3", Some(4));
    for (id, chat, turn, text) in [
        (101, "telegram:1", 1, "working on: K-a-1"),
        (102, "telegram:1", 1, "answer: K-a-1 K-a-2"),
        (103, "telegram:2", 2, "answer: K-b-1\nand so on"),
        (104, "telegram:2", 2, "rest of the answer: K-b-1"),
        (106, "telegram:1", 4, "answer: K-a-3"),
    ] {
        said(&mut run, id, chat, Some(turn), text);
    }
    said(&mut run, 105, "telegram:2", Some(3), "[lazaret] The model failed.");
    run
}

fn line(chat: &str, id: &str, text: &str, what: What) -> Line {
    Line { at: 0, chat: chat.to_owned(), id: id.to_owned(), text: text.to_owned(), what }
}

fn said(run: &mut Evidence, id: i64, chat: &str, turn: Option<i64>, text: &str) {
    let notice = text.starts_with("[lazaret]");
    let key = if notice { "notice:end".to_owned() } else { format!("e-{id}") };
    run.log.push(line(chat, &id.to_string(), text, What::Delivered { edit: false }));
    run.outbox.push(Outbox {
        id,
        chat: chat.to_owned(),
        notice,
        turn,
        key,
        text: text.trim_start_matches("[lazaret] ").to_owned(),
        receipt: Some(id.to_string()),
        uncertain: 0,
        resent: false,
    });
    run.outbox.sort_by_key(|row| row.id);
}

/// Returns the position in the log at which a text was delivered.
fn place(run: &Evidence, text: &str) -> usize {
    let here = |line: &Line| line.text == text && matches!(line.what, What::Delivered { .. });
    run.log.iter().position(here).expect("it is in the good run")
}

#[test]
fn a_good_run_holds() {
    let verdict = check(&good_run());
    assert!(verdict.holds(), "{:?}", verdict.broken);
    assert_eq!((verdict.messages, verdict.lost, verdict.duplicated, verdict.out_of_order), (6, 0, 0, 0));
}

#[test]
fn a_lost_message_is_found() {
    for text in ["answer: K-a-1 K-a-2", "[lazaret] The model failed."] {
        let mut run = good_run();
        run.log.remove(place(&run, text));
        assert!(check(&run).lost > 0, "without {text:?}");
    }
    let mut run = good_run();
    run.messages.remove(&("telegram:2".to_owned(), "21".to_owned()));
    assert_eq!(check(&run).lost, 1, "accepted, and never stored");
}

#[test]
fn a_text_that_stands_twice_is_found_unless_the_host_counted_it_as_uncertain() {
    let mut run = good_run();
    run.log.push(line("telegram:1", "999", "answer: K-a-3", What::Delivered { edit: false }));
    assert_eq!(check(&run).duplicated, 1);
    run.outbox.iter_mut().filter(|row| row.id == 106).for_each(|row| row.uncertain = 1);
    let verdict = check(&run);
    assert_eq!((verdict.duplicated, verdict.extra_copies, verdict.uncertain), (0, 1, 1));
    assert!(verdict.holds());
    // The terminal shows a repeat with the same id once.
    let mut run = good_run();
    run.log.push(line("telegram:1", "106", "answer: K-a-3", What::Delivered { edit: false }));
    assert!(check(&run).holds());
    // Two rows with the same text do not excuse a repeated text, and neither do two different answers to one message.
    let mut run = good_run();
    said(&mut run, 107, "telegram:1", Some(4), "answer: K-a-3");
    assert_eq!(check(&run).duplicated, 1);
    let mut run = good_run();
    said(&mut run, 107, "telegram:1", Some(4), "answer: K-a-3 K-a-3");
    assert_eq!(check(&run).duplicated, 1);
}

#[test]
fn texts_that_changed_places_are_found() {
    for (one, other) in [
        ("working on: K-a-1", "answer: K-a-1 K-a-2"),
        ("answer: K-a-1 K-a-2", "answer: K-a-3"),
        ("answer: K-b-1\nand so on", "rest of the answer: K-b-1"),
    ] {
        let mut run = good_run();
        let (a, b) = (place(&run, one), place(&run, other));
        run.log.swap(a, b);
        assert!(check(&run).out_of_order > 0, "{one:?} and {other:?}");
    }
}

#[test]
fn a_text_in_another_chat_is_found() {
    let mut run = good_run();
    let at = place(&run, "answer: K-a-3");
    run.log[at].chat = "telegram:2".to_owned();
    assert_eq!(check(&run).wrong_chat, 1);
}

#[test]
fn a_placeholder_is_counted_apart_and_its_text_is_the_last_one() {
    let mut run = good_run();
    let at = place(&run, "answer: K-a-3");
    run.log.insert(at, line("telegram:1", "106", "…", What::Delivered { edit: false }));
    run.log[at + 1].what = What::Delivered { edit: true };
    run.log.push(line("telegram:1", "998", "…", What::Delivered { edit: false }));
    let verdict = check(&run);
    assert!(verdict.holds(), "{:?}", verdict.broken);
    assert_eq!(verdict.placeholders, 1);
}

#[test]
fn what_is_left_over_is_found() {
    let mut run = good_run();
    run.facts.boxes_left = 1;
    run.unfinished.push("turn t-4 of main is open".into());
    run.damage.push("row 3 missing from index".into());
    let verdict = check(&run);
    assert!(!verdict.holds());
    assert_eq!((verdict.boxes_left, verdict.unfinished, verdict.damage), (1, 1, 1));
}
