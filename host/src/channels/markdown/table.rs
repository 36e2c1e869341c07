//! Lays a table out in monospace, for platforms without tables.

use pulldown_cmark::Alignment;
use unicode_width::UnicodeWidthStr;

/// How many bytes the repeated titles of records may have. A table of a long heading and many rows would otherwise make
/// a text thousands of times as long as what the agent wrote.
const REPEATED_TITLES: usize = 16 * 1024;

/// A table with its head as the first row. A row may have more cells than the head.
#[derive(Debug, Default)]
pub struct Table {
    pub alignments: Vec<Alignment>,
    pub rows: Vec<Vec<String>>,
}

impl Table {
    /// Returns the table as aligned lines; `None` if it is wider than `widest` columns of a screen.
    pub fn aligned(&self, widest: usize) -> Option<String> {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            self.rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.width()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        if widths.iter().map(|width| width + 3).sum::<usize>() > widest + 3 {
            return None;
        }
        let line = |row: &Vec<String>| {
            let cell = |(column, width): (usize, &usize)| {
                let text = row.get(column).map_or("", String::as_str);
                aligned(text, *width, self.alignments.get(column))
            };
            widths.iter().enumerate().map(cell).collect::<Vec<_>>().join(" | ").trim_end().to_owned()
        };
        let mut lines: Vec<String> = self.rows.iter().map(line).collect();
        let rule = widths.iter().map(|width| "-".repeat(*width)).collect::<Vec<_>>().join("-+-");
        lines.insert(lines.len().min(1), rule);
        Some(lines.join("\n"))
    }

    /// Returns each row as pairs of a column's title and a cell. A table without rows gives its titles, and one whose
    /// titles would be repeated too often gives them once, as its first row.
    pub fn records<'a>(&'a self) -> Vec<Vec<(&'a str, &'a str)>> {
        let Some((head, rows)) = self.rows.split_first() else { return Vec::new() };
        if rows.is_empty() {
            return vec![head.iter().map(|title| ("", title.as_str())).collect()];
        }
        let titles: usize = head.iter().map(String::len).sum();
        if titles.saturating_mul(rows.len()) > REPEATED_TITLES {
            let untitled = |row: &'a Vec<String>| row.iter().map(|cell| ("", cell.as_str())).collect();
            return self.rows.iter().map(untitled).collect();
        }
        let cell = |cells: &'a [String], column: usize| cells.get(column).map_or("", String::as_str);
        let record = |row: &'a Vec<String>| {
            (0..head.len().max(row.len())).map(|column| (cell(head, column), cell(row, column))).collect()
        };
        rows.iter().map(record).collect()
    }
}

fn aligned(text: &str, width: usize, alignment: Option<&Alignment>) -> String {
    let room = width.saturating_sub(text.width());
    let before = match alignment {
        Some(Alignment::Right) => room,
        Some(Alignment::Center) => room / 2,
        _ => 0,
    };
    format!("{}{text}{}", " ".repeat(before), " ".repeat(room - before))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(rows: &[&[&str]]) -> Table {
        let rows = rows.iter().map(|row| row.iter().map(|cell| (*cell).to_owned()).collect()).collect();
        Table { alignments: vec![Alignment::None, Alignment::Right], rows }
    }

    #[test]
    fn columns_stand_below_each_other_as_a_screen_shows_them() {
        let shown = table(&[&["Name", "Age"], &["Ann", "5"], &["王小明", "41", "new"], &["👍"]]).aligned(32);
        assert_eq!(
            shown.unwrap(),
            "Name   | Age |\n-------+-----+----\nAnn    |   5 |\n王小明 |  41 | new\n👍     |     |"
        );
    }

    #[test]
    fn a_table_that_no_phone_shows_becomes_records() {
        let long = "word ".repeat(20);
        let table = table(&[&["Name", "What"], &["Ann", &long, "more"]]);
        assert_eq!(table.aligned(64), None);
        assert_eq!(table.records(), [[("Name", "Ann"), ("What", long.as_str()), ("", "more")]]);
    }

    #[test]
    fn a_long_heading_is_not_repeated_for_thousands_of_rows() {
        let heading = "word ".repeat(800);
        let mut rows = vec![vec![heading.clone()]];
        rows.extend(std::iter::repeat_n(vec!["a".to_owned()], 20_000));
        let table = Table { alignments: Vec::new(), rows };
        let records = table.records();
        assert_eq!((records.len(), &records[0]), (20_001, &vec![("", heading.as_str())]));
        assert_eq!(records[1], [("", "a")]);
    }
}
