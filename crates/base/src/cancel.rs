//! Cancellation: one flag that many parties watch.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A cancellation token; clones share one state.
#[derive(Clone, Default)]
pub struct Cancel {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Default)]
struct State {
    cancelled: bool,
    next: u64,
    watchers: Vec<(u64, Box<dyn FnOnce() + Send>)>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps a function of [`Cancel::watch`] registered; dropping it takes the function away.
#[must_use]
pub struct CancelWatch {
    shared: Arc<Shared>,
    id: u64,
}

impl Drop for CancelWatch {
    fn drop(&mut self) {
        // What the function holds is dropped outside of the lock.
        let _removed = {
            let mut state = self.shared.lock();
            state.watchers.iter().position(|(id, _)| *id == self.id).map(|at| state.watchers.swap_remove(at))
        };
    }
}

impl std::fmt::Debug for CancelWatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CancelWatch").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Cancel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cancel").field("cancelled", &self.is_cancelled()).finish_non_exhaustive()
    }
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

    /// Cancels; wakes every waiter and calls every watcher. Calling it again changes nothing.
    pub fn cancel(&self) {
        let watchers = {
            let mut state = self.shared.lock();
            state.cancelled = true;
            std::mem::take(&mut state.watchers)
        };
        self.shared.wake.notify_all();
        for (_, call) in watchers {
            call();
        }
    }

    /// Whether [`Cancel::cancel`] was called.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.shared.lock().cancelled
    }

    /// Has a function called on cancellation, once, by the thread that cancels; at once where that has happened already.
    ///
    /// It is for those who wait for something else at the same time and cannot sit in [`Cancel::wait_timeout`]. The function must
    /// be short.
    pub fn watch(&self, call: impl FnOnce() + Send + 'static) -> CancelWatch {
        let mut state = self.shared.lock();
        let id = state.next;
        state.next += 1;
        if state.cancelled {
            drop(state);
            call();
        } else {
            state.watchers.push((id, Box::new(call)));
        }
        CancelWatch { shared: Arc::clone(&self.shared), id }
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
        let end = Instant::now() + timeout;
        let mut state = self.shared.lock();
        while !state.cancelled {
            let Some(left) = end.checked_duration_since(Instant::now()) else { return false };
            state = self.shared.wake.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
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

    #[test]
    fn watchers_are_called_once_and_only_while_they_are_kept() {
        let token = Cancel::new();
        let (sender, calls) = std::sync::mpsc::channel();
        let watch = |name: &'static str| {
            let sender = sender.clone();
            token.watch(move || sender.send(name).unwrap())
        };
        let _kept = watch("kept");
        drop(watch("dropped"));
        token.cancel();
        token.cancel();
        let _late = watch("late");
        assert_eq!(calls.try_iter().collect::<Vec<_>>(), ["kept", "late"]);
    }
}
