//! Points at which the crash tests kill, delay or fail this process; see the crate `failpoint`.
//!
//! Without the feature `failpoints` the macro expands to nothing: neither the name nor the error is compiled.

/// Marks a point between two steps. With a second argument, which maps the injected error to the caller's type, the
/// point can also fail.
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
