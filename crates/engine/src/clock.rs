//! The present, in the one form that rows and events use.

/// Nanoseconds since the Unix epoch.
#[must_use]
pub(crate) fn now_nanos() -> i64 {
    i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX)
}
