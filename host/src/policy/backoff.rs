//! Computes when a failed action is retried.

use std::time::Duration;

/// The wait before the host retries a store that failed (a full disk, another program's lock).
pub const STORE_AGAIN: Duration = Duration::from_secs(5);
/// The longest wait before the host sends a part again, whatever the platform asks for.
pub const LONGEST_WAIT: Duration = Duration::from_secs(3600);

/// `first`, doubled with each further try, at most `longest`. `tries` counts from 1.
pub fn doubling(first: Duration, tries: u32, longest: Duration) -> Duration {
    let factor = 1u32.checked_shl(tries.saturating_sub(1)).unwrap_or(u32::MAX);
    first.checked_mul(factor).unwrap_or(longest).min(longest)
}

/// The wait before the host sends a part again that the platform did not accept. It is what the platform asked for, or
/// else doubles from one second. It is an hour at most.
pub fn next_send(attempts: u32, asked: Option<Duration>) -> Duration {
    asked.unwrap_or_else(|| doubling(Duration::from_secs(1), attempts, LONGEST_WAIT)).min(LONGEST_WAIT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sends_wait_as_asked_or_ever_longer() {
        assert_eq!(next_send(1, Some(Duration::from_secs(7))), Duration::from_secs(7));
        assert_eq!(next_send(1, None), Duration::from_secs(1));
        assert_eq!(next_send(5, None), Duration::from_secs(16));
        assert_eq!(next_send(60, None), LONGEST_WAIT);
        assert_eq!(
            next_send(1, Some(30 * LONGEST_WAIT)),
            LONGEST_WAIT,
            "no platform silences a chat for a day"
        );
    }
}
