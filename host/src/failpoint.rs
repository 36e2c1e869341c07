//! Places where the crash program kills, delays or fails this process, or makes a worker panic; see the crate
//! `failpoint`.
//!
//! Without the feature `failpoints` a place is nothing at all: neither its name nor its error is compiled.

/// A place between two steps, or, with a way to say the error in the caller's type, one that can fail.
#[cfg(feature = "failpoints")]
macro_rules! failpoint {
    ($name:literal) => {
        let _ = ::failpoint::hit($name);
    };
    ($name:literal, $error:expr) => {
        ::failpoint::hit($name).map_err($error)?;
    };
}

#[cfg(not(feature = "failpoints"))]
macro_rules! failpoint {
    ($($place:tt)*) => {};
}
