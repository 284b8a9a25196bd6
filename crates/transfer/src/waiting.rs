//! Pauses between two tries, told to whoever watches as they go by: second by second, as a line of progress counts down.

use std::sync::Arc;
use std::time::Duration;

use sampan_base::Cancel;

/// Who is told how many seconds of a pause are left.
#[derive(Clone, Default)]
pub(crate) struct Waiting(Option<Arc<dyn Fn(u64) + Send + Sync>>);

impl std::fmt::Debug for Waiting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Waiting")
    }
}

impl Waiting {
    pub(crate) fn new(tell: impl Fn(u64) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(tell)))
    }

    /// Tells of the present second; gives what is left of it.
    fn second(&self, left: Duration) -> Duration {
        let seconds = left.as_secs() + u64::from(left.subsec_nanos() > 0);
        if let Some(tell) = &self.0 {
            tell(seconds);
        }
        left.saturating_sub(Duration::from_secs(seconds.saturating_sub(1)))
    }

    /// Lets a pause go by.
    pub(crate) async fn rest(&self, pause: Duration) {
        let mut left = pause;
        while !left.is_zero() {
            let second = self.second(left);
            tokio::time::sleep(second).await;
            left -= second;
        }
    }

    /// The same on a plain thread; false when it was cancelled.
    pub(crate) fn rest_blocking(&self, pause: Duration, cancel: &Cancel) -> bool {
        let mut left = pause;
        while !left.is_zero() {
            let second = self.second(left);
            if cancel.wait_timeout(second) {
                return false;
            }
            left -= second;
        }
        !cancel.is_cancelled()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn seconds_are_counted_down() {
        let told = Arc::new(Mutex::new(Vec::new()));
        let list = Arc::clone(&told);
        let waiting = Waiting::new(move |seconds| list.lock().unwrap().push(seconds));
        let mut left = Duration::from_millis(3200);
        while !left.is_zero() {
            left -= waiting.second(left);
        }
        assert!(waiting.rest_blocking(Duration::from_millis(1), &Cancel::new()));
        assert_eq!(*told.lock().unwrap(), [4, 3, 2, 1, 1]);
        let cancel = Cancel::new();
        cancel.cancel();
        assert!(!waiting.rest_blocking(Duration::from_secs(600), &cancel));
        assert!(Waiting::default().rest_blocking(Duration::ZERO, &Cancel::new()));
    }
}
