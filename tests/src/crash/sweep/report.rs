//! The result of a sweep: a table for people, and a line for machines.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use failpoint::TABLE;
use serde_json::json;

use super::{Case, HITS, Outcome};

#[derive(Debug)]
pub struct Report {
    done: Vec<(Case, Outcome)>,
    took: Duration,
}

impl Report {
    pub(super) fn new(done: Vec<(Case, Outcome)>, took: Duration) -> Self {
        Self { done, took }
    }

    fn count(&self, of: impl Fn(&Outcome) -> bool) -> usize {
        self.done.iter().filter(|(_, outcome)| of(outcome)).count()
    }

    /// Returns whether every case held and every failpoint was reached at least once.
    pub fn holds(&self) -> bool {
        self.count(|outcome| matches!(outcome, Outcome::Broken(_))) == 0 && self.never_reached().is_empty()
    }

    fn never_reached(&self) -> Vec<&'static str> {
        let silent = |name: &&str| {
            let mut here = self.done.iter().filter(|(case, _)| case.point.name == *name).peekable();
            here.peek().is_some() && here.all(|(_, outcome)| *outcome == Outcome::NotReached)
        };
        TABLE.iter().map(|point| point.name).filter(silent).collect()
    }

    pub fn line(&self) -> String {
        json!({
            "cases": self.done.len(),
            "held": self.count(|outcome| *outcome == Outcome::Held),
            "not_reached": self.count(|outcome| *outcome == Outcome::NotReached),
            "broken": self.count(|outcome| matches!(outcome, Outcome::Broken(_))),
            "places_never_reached": self.never_reached(),
            "seconds": self.took.as_secs(),
        })
        .to_string()
    }
}

impl fmt::Display for Report {
    /// Prints a row per failpoint with the outcomes at the 1st, 2nd and 10th hit: `+` held, `.` was not reached, `X` is
    /// broken.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<32} hits {HITS:?}: + held, . not reached, X broken", "place")?;
        for point in TABLE {
            let mut row: BTreeMap<&str, [char; 3]> = BTreeMap::new();
            for (case, outcome) in self.done.iter().filter(|(case, _)| case.point == *point) {
                let cell = match outcome {
                    Outcome::Held => '+',
                    Outcome::NotReached => '.',
                    Outcome::Broken(_) => 'X',
                };
                let marks = row.entry(case.action).or_insert([' '; 3]);
                if let Some(mark) =
                    HITS.iter().position(|hit| *hit == case.hit).and_then(|at| marks.get_mut(at))
                {
                    *mark = cell;
                }
            }
            if !row.is_empty() {
                write!(f, "{:<32}", point.name)?;
                for (action, marks) in row {
                    write!(
                        f,
                        "  {} {}",
                        action.split('(').next().unwrap_or(action),
                        marks.iter().collect::<String>()
                    )?;
                }
                writeln!(f)?;
            }
        }
        for (case, outcome) in &self.done {
            if let Outcome::Broken(why) = outcome {
                writeln!(f, "X {} {}*{}: {why:.600}", case.point.name, case.hit, case.action)?;
            }
        }
        Ok(())
    }
}
