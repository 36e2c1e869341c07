//! Randomness for waits: callers that failed together, or one that calls again and again, do not call in step.

use uuid::Uuid;

/// Returns a number in `0.0..1.0`, from the random bits of a new UUID: a wait needs no better.
pub fn fraction() -> f64 {
    let low = u32::try_from(Uuid::now_v7().as_u128() & u128::from(u32::MAX)).unwrap_or_default();
    f64::from(low) / (f64::from(u32::MAX) + 1.0)
}
