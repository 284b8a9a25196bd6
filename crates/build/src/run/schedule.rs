//! Which step may run when: after what it needs, the beginnings of long chains first, independent ones at the same time.

use std::sync::{Condvar, Mutex, PoisonError};

/// What each step needs, by number; always lower numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Needs(pub(crate) Vec<Vec<usize>>);

impl Needs {
    /// How long the longest chain from each step to an end is.
    pub(crate) fn heights(&self) -> Vec<usize> {
        let mut heights = vec![1; self.0.len()];
        for step in (0..self.0.len()).rev() {
            for need in &self.0[step] {
                heights[*need] = heights[*need].max(heights[step] + 1);
            }
        }
        heights
    }
}

#[derive(Debug)]
struct State<T, E> {
    done: Vec<Option<T>>,
    taken: Vec<bool>,
    failed: Option<E>,
}

/// Does a step; the second argument gives the results of other steps.
pub(crate) type Work<'a, T, E> = &'a (dyn Fn(usize, &dyn Fn(usize) -> Option<T>) -> Result<T, E> + Sync);

/// Runs steps on a few threads. Each gets the results of what it needs. The first failure ends it: `stop` is called then.
pub(crate) fn run<T: Clone + Send, E: Send>(
    needs: &Needs,
    threads: usize,
    work: Work<'_, T, E>,
    stop: &(dyn Fn() + Sync),
) -> Result<Vec<Option<T>>, E> {
    let count = needs.0.len();
    let heights = needs.heights();
    let state = Mutex::new(State { done: (0..count).map(|_| None).collect(), taken: vec![false; count], failed: None });
    let changed = Condvar::new();
    let lock = || state.lock().unwrap_or_else(PoisonError::into_inner);
    let worker = || {
        let mut guard = lock();
        loop {
            if guard.failed.is_some() || guard.taken.iter().all(|taken| *taken) {
                return;
            }
            let is_ready = |step: &usize| !guard.taken[*step] && needs.0[*step].iter().all(|need| guard.done[*need].is_some());
            let Some(step) = (0..count).filter(is_ready).max_by_key(|step| (heights[*step], count - step)) else {
                guard = changed.wait(guard).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            guard.taken[step] = true;
            drop(guard);
            let result = work(step, &|need| lock().done.get(need).cloned().flatten());
            guard = lock();
            match result {
                Ok(value) => guard.done[step] = Some(value),
                Err(error) => {
                    if guard.failed.is_none() {
                        guard.failed = Some(error);
                        stop();
                    }
                }
            }
            changed.notify_all();
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads.min(count).max(1) {
            scope.spawn(worker);
        }
        worker();
    });
    let state = state.into_inner().unwrap_or_else(PoisonError::into_inner);
    state.failed.map_or(Ok(state.done), Err)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_follow_what_they_need() {
        let needs = Needs(vec![vec![], vec![0], vec![], vec![2], vec![1, 3]]);
        assert_eq!(needs.heights(), [3, 2, 3, 2, 1]);
        let sum = |step: usize, get: &dyn Fn(usize) -> Option<usize>| -> Result<usize, ()> {
            Ok(step + needs.0[step].iter().map(|need| get(*need).expect("it is done")).sum::<usize>())
        };
        for threads in [1, 4] {
            let done = run(&needs, threads, &sum, &|| {}).unwrap();
            assert_eq!(done, [Some(0), Some(1), Some(2), Some(5), Some(10)]);
        }
    }

    #[test]
    fn a_failure_ends_it() {
        let needs = Needs(vec![vec![], vec![0], vec![1]]);
        let stopped = std::sync::atomic::AtomicBool::new(false);
        let fail = |step: usize, _: &dyn Fn(usize) -> Option<()>| if step == 1 { Err("broken") } else { Ok(()) };
        let stop = || stopped.store(true, std::sync::atomic::Ordering::SeqCst);
        assert_eq!(run(&needs, 2, &fail, &stop), Err("broken"));
        assert!(stopped.into_inner());
    }
}
