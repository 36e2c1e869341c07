//! Pure rules. Each takes facts and gives a verdict; none touches a file, a socket or a clock.

pub mod admission;
pub mod authorize;
pub mod backoff;
pub mod delivery;
pub mod disk_budget;
pub mod disk_image;
pub mod disk_pressure;
pub mod image;
pub mod log_limiter;
pub mod media;
pub mod mounts;
pub mod nightly;
pub mod posture;
pub mod rate_limit;
pub mod retention;
pub mod retry;
pub mod sandbox_plan;
pub mod turn_quota;
pub mod worker_restart;
