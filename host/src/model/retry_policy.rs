//! Decides whether a failed attempt is repeated, and when. Pure: time and chance are arguments.

use std::time::Duration;

use jiff::fmt::rfc2822;

/// How long and how often a call is repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryLimits {
    /// No attempt begins later than this after the first one began.
    pub total: Duration,
    /// The longest first wait; it doubles with every attempt.
    pub first: Duration,
    /// The longest wait, unless the provider asks for more.
    pub most: Duration,
}

impl Default for RetryLimits {
    /// 2 minutes in total, from 1 second up to 30.
    fn default() -> Self {
        Self { total: Duration::from_secs(120), first: Duration::from_secs(1), most: Duration::from_secs(30) }
    }
}

/// What follows a failed attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryDecision {
    Retry { wait: Duration },
    GiveUp,
}

/// Whether the cause of a status may pass: too many calls, overload, a broken or unreachable server, a request that
/// came too slowly (408), too early (425) or beside another one (409). Proxies in front of a provider use 520 to 529,
/// and 529 is Anthropic's "overloaded".
fn is_transient(status: u16) -> bool {
    matches!(status, 408 | 409 | 425 | 429 | 500 | 502..=504 | 520..=529)
}

/// Decides after attempt number `attempt` (from 1) ended with `status`, `elapsed` after the first one began.
///
/// The wait is exponential with full jitter, on top of the provider's `retry_after`: boxes that received the same
/// `retry_after` must not come back in the same instant. `random` is in `0.0..1.0`.
pub fn after(
    limits: &RetryLimits,
    attempt: u32,
    status: u16,
    retry_after: Option<Duration>,
    elapsed: Duration,
    random: f64,
) -> RetryDecision {
    let left = limits.total.saturating_sub(elapsed);
    let asked = retry_after.unwrap_or_default();
    if !is_transient(status) || left.is_zero() || asked > left {
        return RetryDecision::GiveUp;
    }
    let doubled = limits.first.saturating_mul(1 << attempt.saturating_sub(1).min(16));
    let jitter = doubled.min(limits.most).mul_f64(random.clamp(0.0, 1.0));
    RetryDecision::Retry { wait: (asked + jitter).min(left) }
}

/// Reads `retry-after` (RFC 9110, 10.2.3): seconds, or a date. A date is measured against the answer's own `date`,
/// so that a wrong clock on either side does no harm; without that header it is ignored.
pub fn parse_retry_after(value: Option<&str>, date: Option<&str>) -> Option<Duration> {
    let value = value?.trim();
    if let Ok(seconds) = value.parse::<u32>() {
        return Some(Duration::from_secs(seconds.into()));
    }
    let until = rfc2822::parse(value).ok()?;
    let now = rfc2822::parse(date?.trim()).ok()?;
    Some(until.duration_since(&now).try_into().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: fn(u64) -> Duration = Duration::from_secs;

    #[test]
    fn the_table_of_decisions() {
        let retry = |wait| RetryDecision::Retry { wait };
        let table = [
            // attempt, status, retry-after, elapsed, random → decision
            (1, 429, None, S(0), 0.5, retry(Duration::from_millis(500))),
            (1, 529, None, S(0), 0.0, retry(S(0))),
            (3, 503, None, S(5), 1.0, retry(S(4))),
            (20, 500, None, S(5), 1.0, retry(S(30))),
            (1, 429, Some(S(7)), S(0), 0.0, retry(S(7))),
            (1, 429, Some(S(7)), S(0), 0.5, retry(Duration::from_millis(7500))),
            (1, 429, Some(S(0)), S(0), 1.0, retry(S(1))),
            (1, 429, Some(S(121)), S(0), 0.0, RetryDecision::GiveUp),
            (5, 429, Some(S(30)), S(100), 0.0, RetryDecision::GiveUp),
            (5, 502, None, S(119), 1.0, retry(S(1))),
            (9, 502, None, S(120), 0.0, RetryDecision::GiveUp),
            (1, 408, None, S(0), 0.0, retry(S(0))),
            (1, 409, None, S(0), 0.0, retry(S(0))),
            (1, 425, None, S(0), 0.0, retry(S(0))),
            (1, 400, None, S(0), 0.0, RetryDecision::GiveUp),
            (1, 401, Some(S(1)), S(0), 0.0, RetryDecision::GiveUp),
            (1, 413, None, S(0), 0.0, RetryDecision::GiveUp),
            (1, 501, None, S(0), 0.0, RetryDecision::GiveUp),
        ];
        for (attempt, status, asked, elapsed, random, expected) in table {
            let decision = after(&RetryLimits::default(), attempt, status, asked, elapsed, random);
            assert_eq!(decision, expected, "attempt {attempt}, status {status}, {asked:?} after {elapsed:?}");
        }
    }

    #[test]
    fn retry_after_is_seconds_or_a_date_measured_by_the_servers_own_clock() {
        let date = Some("Sat, 21 Nov 2026 05:00:00 GMT");
        assert_eq!(parse_retry_after(Some("12"), None), Some(S(12)));
        assert_eq!(parse_retry_after(Some("Sat, 21 Nov 2026 05:01:30 GMT"), date), Some(S(90)));
        assert_eq!(parse_retry_after(Some("Sat, 21 Nov 2026 04:00:00 GMT"), date), Some(S(0)), "the past");
        assert_eq!(parse_retry_after(Some("Sat, 21 Nov 2026 05:01:30 GMT"), None), None);
        assert_eq!(parse_retry_after(Some("soon"), date), None);
        assert_eq!(parse_retry_after(None, date), None);
    }
}
