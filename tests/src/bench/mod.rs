//! The measurements of `make bench`. Kinds that are compared are measured in one run on one machine, alternately. The
//! report gives medians and names the goals that were missed.

mod box_start;
mod history;
mod idle;
mod recall;
mod runner;

pub use box_start::start;
pub use history::history;
pub use idle::idle;
pub use recall::{Recall, recall, ten_thousand};
pub use runner::runner;

/// Returns the median.
pub fn median(mut measured: Vec<f64>) -> f64 {
    measured.sort_by(f64::total_cmp);
    let middle = measured.len() / 2;
    let at = |n: usize| measured.get(n).copied();
    match (measured.len() % 2, at(middle)) {
        (1, Some(value)) => value,
        (0, Some(value)) => (value + at(middle - 1).unwrap_or(value)) / 2.0,
        _ => panic!("nothing was measured"),
    }
}

/// Returns a number of `status` in a folder of a process or of a thread below `/proc`; sizes are in KiB.
fn status(folder: &str, name: &str) -> Option<f64> {
    let status = std::fs::read_to_string(format!("{folder}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with(name))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_middle_is_the_middle() {
        assert!((super::median(vec![3.0, 1.0, 2.0]) - 2.0).abs() < 1e-9);
        assert!((super::median(vec![4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < 1e-9);
    }
}
