//! Pure rules. Each takes facts and gives a verdict; none touches a file, a socket or a clock.

pub mod admission;
pub mod authorize;
pub mod delivery;
pub mod disk_budget;
pub mod disk_image;
pub mod image;
pub mod media;
pub mod mounts;
pub mod night;
pub mod pace;
pub mod patience;
pub mod posture;
pub mod pressure;
pub mod retention;
pub mod retry;
pub mod sandbox_plan;
pub mod tally;
pub mod telling;
