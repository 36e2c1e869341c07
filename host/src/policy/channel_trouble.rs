//! Decides how long a channel in trouble waits before it asks its platform again, and when people are told.

use std::time::Duration;

use super::backoff::doubling;

/// Trouble that passes by itself is told to people when it has lasted this long.
const PATIENCE: Duration = Duration::from_secs(600);

/// The wait after the `tries`-th failure in a row that only a person can end. One refusal may be the platform's error,
/// so the second question comes soon.
pub fn wait_for_person(tries: u32) -> Duration {
    doubling(Duration::from_secs(2), tries, Duration::from_secs(3600))
}

/// Whether people are told of a trouble, once. Trouble that needs a person is told at once.
pub fn is_told(needs_person: bool, lasted: Duration) -> bool {
    needs_person || lasted >= PATIENCE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_token_is_tried_soon_and_then_ever_more_seldom() {
        assert_eq!([1, 2, 6, 30].map(wait_for_person).map(|w| w.as_secs()), [2, 4, 64, 3600]);
        assert!(is_told(true, Duration::ZERO) && !is_told(false, Duration::from_secs(599)));
        assert!(is_told(false, PATIENCE));
    }
}
