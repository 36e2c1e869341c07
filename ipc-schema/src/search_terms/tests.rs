//! Every test asks a real FTS5 table, because only that one says what an expression means.

use proptest::prelude::*;
use rusqlite::Connection;

use super::{TOKENIZER, index_text, match_expression};

fn table(texts: &[&str]) -> Connection {
    let db = Connection::open_in_memory().unwrap();
    db.execute_batch(&format!(
        "CREATE VIRTUAL TABLE t USING fts5(terms, content='', tokenize='{TOKENIZER}');"
    ))
    .unwrap();
    for (at, text) in texts.iter().enumerate() {
        db.execute("INSERT INTO t(rowid, terms) VALUES (?1, ?2)", (at as i64, index_text(text))).unwrap();
    }
    db
}

/// The texts that are found, the best first.
fn found(db: &Connection, query: &str) -> Vec<usize> {
    let Some(expression) = match_expression(query) else { return Vec::new() };
    let mut rows = db.prepare("SELECT rowid FROM t WHERE t MATCH ?1 ORDER BY rank").unwrap();
    let rows = rows.query_map([expression], |row| row.get::<_, i64>(0)).unwrap();
    rows.map(|row| row.unwrap() as usize).collect()
}

#[track_caller]
fn finds(text: &str, queries: &[&str]) {
    let db = table(&[text]);
    for query in queries {
        assert_eq!(found(&db, query), [0], "{query:?} does not find {text:?}: {:?}", match_expression(query));
    }
}

#[track_caller]
fn finds_not(text: &str, queries: &[&str]) {
    let db = table(&[text]);
    for query in queries {
        assert!(found(&db, query).is_empty(), "{query:?} finds {text:?}: {:?}", match_expression(query));
    }
}

#[test]
fn inflected_words_are_found() {
    finds("The plumber repaired both heaters", &["heater", "repairing", "plumbers", "REPAIR"]);
    finds("Die Ärztin hat zwei Termine verschoben", &["Termin", "Ärztin", "verschobene"]);
    finds("Nous avons mangé des pommes", &["manger", "pomme"]);
    finds("Мы купили билеты на поезд", &["билет", "поезда", "БИЛЕТОВ"]);
    finds("Compramos las entradas", &["entrada", "comprar"]);
}

#[test]
fn a_word_is_found_with_and_without_its_diacritics() {
    finds("Bücher aus der Straße", &["Bucher", "Buecher", "Buch", "strasse", "STRASSE", "Straßen"]);
    finds("Buecher aus der Strasse", &["Bücher", "Buch", "Straße"]);
    finds("Café José", &["cafe", "Jose", "cafe\u{301}"]);
    finds("cafe Jose", &["café", "José"]);
    finds("Ёлка стоит у окна", &["елка"]);
    finds("Smørrebrød w Łodzi", &["smorrebrod", "Lodzi"]);
}

#[test]
fn a_long_word_is_found_by_its_parts() {
    finds(
        "Die Krankenversicherungskarte liegt im Flur",
        &["Versicherung", "Krankenversicherung", "Karte", "Versicherungen", "Karten"],
    );
    finds("Der Zahnarzttermin", &["Zahnarzt", "Termin"]);
    finds("the greenhouse door", &["house", "green"]);
}

#[test]
fn scripts_without_blanks_are_found_by_any_word() {
    finds("奶奶的生日是三月五号，她喜欢桂花糕", &["生日", "桂花糕", "奶奶", "糕"]);
    finds("来週の歯医者は木曜日です", &["歯医者", "木曜日", "来週"]);
    finds("リンゴとｺｰﾋｰを買う", &["りんご", "コーヒー", "買う"]);
    finds("할머니께서 학교에서 오셨다", &["할머니", "학교", "학교는"]);
    finds("คุณยายชอบกินทุเรียนมาก", &["ทุเรียน", "คุณยาย", "ยาย"]);
    finds("น้ำปลา", &["นำปลา"]);
}

#[test]
fn scripts_without_a_stemmer_are_found_as_written() {
    finds("יום הולדת לסבתא", &["הולדת"]);
    finds("दादी का जन्मदिन", &["जन्मदिन"]);
    finds("عِيدُ الميلاد", &["عيد"]);
    finds("Τα γενέθλια της γιαγιάς", &["γενεθλια", "ΓΙΑΓΙΆΣ", "γιαγιά"]);
}

#[test]
fn other_words_are_not_found() {
    finds_not("The plumber repaired both heaters", &["electrician", "and", "", " ", "…", "\0", "🎂"]);
    finds_not("Der Termin", &["min"]);
    finds_not("奶奶的生日", &["医院"]);
}

#[test]
fn a_text_with_more_of_the_words_is_first() {
    let db = table(&[
        "The car is at the garage",
        "Mia's birthday party is at the garage",
        "The birthday of the house",
        "Mia likes trains",
    ]);
    assert_eq!(found(&db, "When is the birthday party of Mia?")[0], 1);
    assert_eq!(found(&db, "cars")[0], 0);
}

#[test]
fn words_that_say_nothing_count_only_if_there_are_no_others() {
    let db = table(&["who is who", "the plumber"]);
    assert_eq!(found(&db, "who is the plumber"), [1]);
    assert_eq!(found(&db, "who is"), [0]);
}

#[test]
fn operators_and_quotes_are_no_syntax() {
    let db = table(&["near and not or"]);
    for query in [
        "\"",
        "a\" OR \"b",
        "NEAR(a b)",
        "a AND NOT b",
        "terms : x",
        "^a",
        "a*",
        "(((((",
        "{a b} : c",
        "-a +b",
        "a\0b",
        "'; DROP TABLE t; --",
        "·",
        "\u{feff}",
        "e\u{301}\u{301}\u{301}",
        "\u{e48}",
        "\u{301}",
    ] {
        found(&db, query);
    }
    let long = "Donaudampfschifffahrt 生日 plumber ".repeat(3_000);
    found(&db, &long);
    found(&db, &"x".repeat(100_000));
    found(&db, &"(".repeat(100_000));
    found(&db, &"\u{301}".repeat(100_000));
    found(&db, &format!("ก{}", "\u{e34}".repeat(100_000)));
    assert!(match_expression(&long).unwrap().len() < 20_000);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_query_is_a_valid_expression(query in "\\PC{0,60}|[\"*^:(){}+\\-\0 a-dA-DäßÄорги生りกิ학]{0,60}") {
        let db = table(&["one text"]);
        found(&db, &query);
    }

    /// The words are those that a person sees: separated by blanks, with a letter or digit in them.
    #[test]
    fn a_text_is_found_by_each_of_its_words(text in "[a-zäöüßéèñçøı\u{400}-\u{44f}A-ZÄÖÜ0-9α-ω生日本語りんごカナ학교가ก-ฮ '-]{1,80}") {
        let db = table(&[&text]);
        for word in text.split([' ', '\'', '-']).filter(|word| !word.is_empty()) {
            prop_assert_eq!(found(&db, word), [0], "{:?} does not find {:?}", word, &text);
        }
    }

    #[test]
    fn a_text_is_found_by_itself(text in "\\PC{0,80}") {
        if !index_text(&text).is_empty() {
            prop_assert_eq!(found(&table(&[&text]), &text), [0]);
        }
    }
}
