//! Pure rules: each function gets data and returns a decision. None may touch a file, a socket or a clock.

pub mod admission;
pub mod attachment_limits;
pub mod authorize_request;
pub mod backoff;
pub mod channel_trouble;
pub mod delivery;
pub mod delivery_notices;
pub mod disk_image;
pub mod disk_overrun;
pub mod disk_pressure;
pub mod image_selection;
pub mod image_verdict;
pub mod log_limiter;
pub mod mounts;
pub mod nightly;
pub mod platform_pace;
pub mod posture;
pub mod presses;
pub mod refusal_delay;
pub mod retention;
pub mod sandbox_plan;
pub mod task_fires;
pub mod task_request;
pub mod task_view;
pub mod turn_output_limits;
pub mod worker_restart;
