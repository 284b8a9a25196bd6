//! When probes are due: one thread for all, which is there only while something is.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use sampan_base::Cancel;

use crate::Engine;
use crate::table::Container;

/// Wait before a probe for which there was no thread is tried again.
const NO_THREAD: Duration = Duration::from_secs(1);
/// Later than this is never.
const NEVER: Duration = Duration::from_secs(1 << 32);

/// A container that is probed. The probing ends with the token.
#[derive(Debug, Clone)]
pub(super) struct Watched {
    pub(super) container: Weak<Container>,
    pub(super) watch: Cancel,
}

/// The probes to come.
#[derive(Debug, Default)]
pub(crate) struct Schedule {
    engine: OnceLock<Weak<Engine>>,
    inner: Mutex<Inner>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Inner {
    /// By moment, and by the order in which they came.
    due: BTreeMap<(Instant, u64), Watched>,
    count: u64,
    has_thread: bool,
}

impl Schedule {
    /// Tells for whom probes run. Without it none do.
    pub(crate) fn serve(&self, engine: &Arc<Engine>) {
        // A second call names the same.
        let _known = self.engine.set(Arc::downgrade(engine));
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a probe that is due after some time.
    pub(super) fn add(self: &Arc<Self>, watched: Watched, delay: Duration) {
        let now = Instant::now();
        let at = now.checked_add(delay).unwrap_or(now + NEVER);
        let mut inner = self.lock();
        // What was given up need not be kept until it would be due.
        inner.due.retain(|_, other| !other.watch.is_cancelled());
        inner.count += 1;
        let number = inner.count;
        inner.due.insert((at, number), watched);
        if inner.has_thread {
            drop(inner);
            self.changed.notify_one();
            return;
        }
        let Some(engine) = self.engine.get().cloned() else { return };
        let schedule = Arc::clone(self);
        match std::thread::Builder::new().name("health".into()).stack_size(256 << 10).spawn(move || run(&schedule, &engine)) {
            Ok(_) => inner.has_thread = true,
            // The next one that is added tries again.
            Err(error) => tracing::error!(%error, "cannot start the thread of health probes"),
        }
    }

    /// Waits for the next one that is due; `None`: there are no more, and the thread is to end.
    fn next(&self) -> Option<Watched> {
        let mut inner = self.lock();
        loop {
            inner.due.retain(|_, watched| !watched.watch.is_cancelled());
            let Some((&(at, number), _)) = inner.due.first_key_value() else {
                inner.has_thread = false;
                return None;
            };
            let left = at.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return inner.due.remove(&(at, number));
            }
            inner = self.changed.wait_timeout(inner, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// The thread: each probe gets one of its own, as it may take long.
fn run(schedule: &Arc<Schedule>, engine: &Weak<Engine>) {
    while let Some(watched) = schedule.next() {
        let Some(engine) = engine.upgrade() else { return };
        let again = watched.clone();
        let work = move || engine.probe(&watched);
        if let Err(error) = std::thread::Builder::new().name("probe".into()).stack_size(512 << 10).spawn(work) {
            tracing::warn!(%error, "cannot start a thread for a health probe");
            schedule.add(again, NO_THREAD);
        }
    }
}
