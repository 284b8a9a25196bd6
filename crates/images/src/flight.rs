//! Work that several operations want at once is done once: a flight. Who joins later sees the same progress and the same end.
//!
//! A flight runs on a thread of its own. It is cancelled when the last operation that waits for it leaves.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sampan_base::Cancel;

use crate::ImageError;

/// How often a waiting operation looks whether it was cancelled.
const LOOK: Duration = Duration::from_millis(100);

/// One thing that a flight reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Step {
    /// What is being done, in Docker's words.
    pub(crate) status: Cow<'static, str>,
    /// Bytes done and bytes in all.
    pub(crate) bytes: Option<(u64, u64)>,
}

/// All flights under way.
#[derive(Debug, Default)]
pub(crate) struct Flights {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    table: Mutex<HashMap<String, Arc<Flight>>>,
    changed: Condvar,
}

#[derive(Debug)]
struct Flight {
    state: Mutex<State>,
    cancel: Cancel,
}

#[derive(Debug, Default)]
struct State {
    waiters: usize,
    steps: Vec<Step>,
    done: Option<Result<(), Arc<ImageError>>>,
}

/// Where a flight's work reports.
#[derive(Debug, Clone)]
pub(crate) struct Reporter {
    flight: Arc<Flight>,
    shared: Arc<Shared>,
}

/// An operation's seat in a flight; leaving it early may cancel the flight.
#[derive(Debug)]
pub(crate) struct Seat {
    flight: Arc<Flight>,
    shared: Arc<Shared>,
    seen: usize,
    shown: Option<Step>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Reporter {
    /// Reports a step; a step of the same status takes the place of the one before.
    pub(crate) fn report(&self, step: Step) {
        let mut state = lock(&self.flight.state);
        match state.steps.last_mut() {
            Some(last) if last.status == step.status => *last = step,
            _ => state.steps.push(step),
        }
        drop(state);
        self.shared.wake();
    }
}

impl Shared {
    /// Wakes all that wait; the lock orders it behind their looking.
    fn wake(&self) {
        drop(lock(&self.table));
        self.changed.notify_all();
    }
}

impl Flights {
    /// Joins the flight of a key, or begins it with `work`.
    ///
    /// # Errors
    /// When no thread can be started.
    pub(crate) fn join(
        &self,
        key: &str,
        work: impl FnOnce(&Reporter, &Cancel) -> Result<(), ImageError> + Send + 'static,
    ) -> Result<Seat, ImageError> {
        let mut table = lock(&self.shared.table);
        let present = table.get(key).filter(|flight| !flight.cancel.is_cancelled() && lock(&flight.state).done.is_none());
        if let Some(flight) = present {
            let mut state = lock(&flight.state);
            state.waiters += 1;
            // What went before is history: the last step says where it is.
            let seen = state.steps.len().saturating_sub(1);
            drop(state);
            return Ok(Seat { flight: Arc::clone(flight), shared: Arc::clone(&self.shared), seen, shown: None });
        }
        let flight = Arc::new(Flight { state: Mutex::new(State { waiters: 1, ..State::default() }), cancel: Cancel::new() });
        let earlier = table.insert(key.to_owned(), Arc::clone(&flight));
        drop(table);
        let (shared, mine, key) = (Arc::clone(&self.shared), Arc::clone(&flight), key.to_owned());
        let seat = Seat { flight, shared: Arc::clone(&shared), seen: 0, shown: None };
        let thread = std::thread::Builder::new().name("layer".into()).spawn(move || {
            if let Some(earlier) = earlier {
                // One that was cancelled still holds the partial download.
                shared.wait_for(&earlier);
            }
            let reporter = Reporter { flight: Arc::clone(&mine), shared: Arc::clone(&shared) };
            let result = mine.cancel.check().map_err(|_| ImageError::Cancelled).and_then(|()| work(&reporter, &mine.cancel));
            lock(&mine.state).done = Some(result.map_err(Arc::new));
            let mut table = lock(&shared.table);
            if table.get(&key).is_some_and(|present| Arc::ptr_eq(present, &mine)) {
                table.remove(&key);
            }
            drop(table);
            shared.changed.notify_all();
        });
        if let Err(error) = thread {
            lock(&seat.flight.state).done = Some(Err(Arc::new(ImageError::Cancelled)));
            return Err(ImageError::io("start a thread")(error));
        }
        Ok(seat)
    }

    /// Whether somebody waits for the flight of a key.
    pub(crate) fn is_under_way(&self, key: &str) -> bool {
        lock(&self.shared.table).get(key).is_some_and(|flight| lock(&flight.state).done.is_none())
    }

    /// Waits for all seats; the first failure, or the caller's cancellation, ends it. `report` is told of each seat's steps.
    ///
    /// # Errors
    /// The first failure.
    pub(crate) fn wait(&self, seats: &mut [Seat], cancel: &Cancel, mut report: impl FnMut(usize, Step)) -> Result<(), ImageError> {
        loop {
            let mut open = 0;
            for (number, seat) in seats.iter_mut().enumerate() {
                let (steps, done) = seat.news();
                steps.into_iter().for_each(|step| report(number, step));
                match done {
                    None => open += 1,
                    Some(Ok(())) => {}
                    Some(Err(error)) => return Err(Arc::try_unwrap(error).unwrap_or_else(ImageError::Shared)),
                }
            }
            if open == 0 {
                return Ok(());
            }
            cancel.check().map_err(|_| ImageError::Cancelled)?;
            let table = lock(&self.shared.table);
            if seats.iter().any(Seat::has_news) {
                continue;
            }
            drop(self.shared.changed.wait_timeout(table, LOOK));
        }
    }
}

impl Shared {
    fn wait_for(&self, flight: &Flight) {
        let mut table = lock(&self.table);
        while lock(&flight.state).done.is_none() {
            table = self.changed.wait_timeout(table, LOOK).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Seat {
    fn has_news(&self) -> bool {
        let state = lock(&self.flight.state);
        let last = state.steps.last();
        self.seen < state.steps.len().saturating_sub(1) || last != self.shown.as_ref() || (state.done.is_some() && self.seen != usize::MAX)
    }

    /// The steps since the last call, and the end if it is there.
    fn news(&mut self) -> (Vec<Step>, Option<Result<(), Arc<ImageError>>>) {
        if self.seen == usize::MAX {
            return (Vec::new(), Some(Ok(())));
        }
        let state = lock(&self.flight.state);
        let mut steps: Vec<Step> = state.steps.get(self.seen..).unwrap_or_default().to_vec();
        // The first of them may have been shown as it was then.
        if self.shown.is_some() && steps.first() == self.shown.as_ref() {
            steps.remove(0);
        }
        self.shown = state.steps.last().cloned();
        self.seen = state.steps.len().saturating_sub(1);
        let done = state.done.clone();
        drop(state);
        if done.is_some() {
            self.seen = usize::MAX;
        }
        (steps, done)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut state = lock(&self.flight.state);
        state.waiters -= 1;
        let last = state.waiters == 0 && state.done.is_none();
        drop(state);
        if last {
            self.flight.cancel.cancel();
            // What it was writing is gone when the operation says that it ended.
            self.shared.wait_for(&self.flight);
        }
    }
}

/// At most so many at once, whoever comes.
#[derive(Debug)]
pub(crate) struct Permits {
    count: usize,
    free: Mutex<usize>,
    changed: Condvar,
}

/// One of the permits, given back when it goes.
#[derive(Debug)]
pub(crate) struct Permit {
    from: Arc<Permits>,
}

impl Permits {
    pub(crate) fn new(count: usize) -> Arc<Self> {
        Arc::new(Self { count, free: Mutex::new(count), changed: Condvar::new() })
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// Takes a permit; `waiting` is called when none is free.
    ///
    /// # Errors
    /// Cancellation.
    pub(crate) fn take(self: &Arc<Self>, cancel: &Cancel, waiting: impl FnOnce()) -> Result<Permit, ImageError> {
        let mut free = lock(&self.free);
        if *free == 0 {
            drop(free);
            waiting();
            free = lock(&self.free);
        }
        while *free == 0 {
            cancel.check().map_err(|_| ImageError::Cancelled)?;
            free = self.changed.wait_timeout(free, LOOK).unwrap_or_else(PoisonError::into_inner).0;
        }
        *free -= 1;
        drop(free);
        Ok(Permit { from: Arc::clone(self) })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        *lock(&self.from.free) += 1;
        self.from.changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc::channel;

    use super::*;

    const STEP: Step = Step { status: Cow::Borrowed("Downloading"), bytes: Some((1, 2)) };

    #[test]
    fn the_work_of_many_is_done_once_and_all_see_it() {
        let flights = Flights::default();
        let count = Arc::new(AtomicUsize::new(0));
        let (go, wait) = channel::<()>();
        let mut seats = Vec::new();
        let mut wait = Some(wait);
        for _ in 0..3 {
            let (count, wait) = (Arc::clone(&count), wait.take());
            let work = move |reporter: &Reporter, _: &Cancel| {
                count.fetch_add(1, Ordering::SeqCst);
                reporter.report(STEP);
                wait.unwrap().recv().unwrap();
                reporter.report(Step { status: "Done".into(), bytes: None });
                Ok(())
            };
            seats.push(flights.join("key", work).unwrap());
        }
        go.send(()).unwrap();
        let mut done = 0;
        flights.wait(&mut seats, &Cancel::new(), |_, step| done += usize::from(step.status == "Done")).unwrap();
        assert_eq!((count.load(Ordering::SeqCst), done), (1, 3));
        assert!(lock(&flights.shared.table).is_empty());
    }

    #[test]
    fn the_last_that_leaves_cancels_and_the_next_begins_anew() {
        let flights = Flights::default();
        let (told, ended) = channel();
        let (tell, begun) = channel();
        let work = move |_: &Reporter, cancel: &Cancel| {
            tell.send(()).unwrap();
            assert!(cancel.wait_timeout(Duration::from_secs(60)));
            told.send(()).unwrap();
            Err(ImageError::Cancelled)
        };
        let first = flights.join("key", work).unwrap();
        begun.recv().unwrap();
        let second = flights.join("key", |_: &Reporter, _: &Cancel| unreachable!()).unwrap();
        drop(first);
        assert!(ended.try_recv().is_err(), "one still waits");
        drop(second);
        assert!(ended.try_recv().is_ok(), "it ended before the last one had left");
        let mut third = [flights.join("key", |_: &Reporter, _: &Cancel| Err(ImageError::Invalid("x".into()))).unwrap()];
        assert!(flights.wait(&mut third, &Cancel::new(), |_, _| {}).is_err());
        let cancelled = Cancel::new();
        cancelled.cancel();
        let mut fourth = [flights
            .join("key", |_: &Reporter, cancel: &Cancel| {
                assert!(cancel.wait_timeout(Duration::from_secs(60)));
                Ok(())
            })
            .unwrap()];
        assert!(matches!(flights.wait(&mut fourth, &cancelled, |_, _| {}), Err(ImageError::Cancelled)));
    }
}
