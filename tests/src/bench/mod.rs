//! What `make bench` measures. Everything that is compared is measured in one run, in turns, on one machine; medians
//! are told, and what was not reached is told like what was.

mod start;

pub use start::start;

/// The middle of what was measured.
///
/// # Panics
/// When nothing was.
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

#[cfg(test)]
mod tests {
    #[test]
    fn the_middle_is_the_middle() {
        assert!((super::median(vec![3.0, 1.0, 2.0]) - 2.0).abs() < 1e-9);
        assert!((super::median(vec![4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < 1e-9);
    }
}
