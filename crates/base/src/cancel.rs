//! Cancellation: one flag that many parties watch.

use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// A cancellation token; clones share one state.
#[derive(Debug, Clone, Default)]
pub struct Cancel {
    state: Arc<(Mutex<bool>, Condvar)>,
}

/// The error of an operation whose token was cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cancelled;

impl std::fmt::Display for Cancelled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("operation cancelled")
    }
}

impl std::error::Error for Cancelled {}

impl Cancel {
    /// Makes a token that nobody has cancelled yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Cancels; wakes every waiter. Calling it again changes nothing.
    pub fn cancel(&self) {
        let (flag, wake) = &*self.state;
        *flag.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = true;
        wake.notify_all();
    }

    /// Whether [`Cancel::cancel`] was called.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        *self.state.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Fails once cancelled; to be called between the steps of long work.
    ///
    /// # Errors
    /// [`Cancelled`] after [`Cancel::cancel`].
    pub fn check(&self) -> Result<(), Cancelled> {
        if self.is_cancelled() { Err(Cancelled) } else { Ok(()) }
    }

    /// Waits until cancelled or until the time is over; says whether it was cancelled.
    #[must_use]
    pub fn wait_timeout(&self, timeout: Duration) -> bool {
        let (flag, wake) = &*self.state;
        let end = Instant::now() + timeout;
        let mut cancelled = flag.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        while !*cancelled {
            let Some(left) = end.checked_duration_since(Instant::now()) else { return false };
            cancelled = wake.wait_timeout(cancelled, left).unwrap_or_else(std::sync::PoisonError::into_inner).0;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clone_sees_the_cancellation_and_a_waiter_wakes() {
        let token = Cancel::new();
        assert_eq!(token.check(), Ok(()));
        let waiter = std::thread::spawn({
            let token = token.clone();
            move || token.wait_timeout(Duration::from_secs(60))
        });
        token.cancel();
        assert!(waiter.join().unwrap());
        assert_eq!(token.check(), Err(Cancelled));
    }

    #[test]
    fn a_wait_without_cancellation_ends() {
        assert!(!Cancel::new().wait_timeout(Duration::from_millis(1)));
    }
}
