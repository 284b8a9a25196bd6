//! Subscriptions: things that arrive later, for blocking and for asynchronous readers alike.
//!
//! A [`Subscription`] is the reading end of a bounded queue. A thread calls [`Subscription::recv`]; a task calls
//! [`Subscription::poll_next`] with its own context, so that no runtime is known here and no thread is parked for a client.
//! A reader that does not keep up loses the oldest items: a writer never blocks.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};

/// The reading end. Dropping it ends the subscription.
#[derive(Debug)]
pub struct Subscription<T> {
    shared: Arc<Shared<T>>,
}

/// The writing end; see [`channel`]. Dropping the last one ends the stream.
#[derive(Debug)]
pub struct Sender<T> {
    shared: Weak<Shared<T>>,
}

#[derive(Debug)]
struct Shared<T> {
    queue: Mutex<Queue<T>>,
    arrived: Condvar,
    capacity: usize,
}

#[derive(Debug)]
struct Queue<T> {
    items: VecDeque<T>,
    closed: bool,
    waker: Option<Waker>,
}

/// Makes a subscription that holds at most `capacity` items.
#[must_use]
pub fn channel<T>(capacity: usize) -> (Sender<T>, Subscription<T>) {
    let queue = Queue { items: VecDeque::new(), closed: false, waker: None };
    let shared = Arc::new(Shared { queue: Mutex::new(queue), arrived: Condvar::new(), capacity: capacity.max(1) });
    (Sender { shared: Arc::downgrade(&shared) }, Subscription { shared })
}

/// Makes a subscription that already holds its items and ends after them.
#[must_use]
pub fn ready<T>(items: impl IntoIterator<Item = T>) -> Subscription<T> {
    let queue = Queue { items: items.into_iter().collect(), closed: true, waker: None };
    Subscription { shared: Arc::new(Shared { queue: Mutex::new(queue), arrived: Condvar::new(), capacity: usize::MAX }) }
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, Queue<T>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Sender<T> {
    /// Gives an item to the reader; `false` when there is none any more.
    pub fn send(&self, item: T) -> bool {
        let Some(shared) = self.shared.upgrade() else { return false };
        let waker = {
            let mut queue = shared.lock();
            if queue.items.len() >= shared.capacity {
                queue.items.pop_front();
            }
            queue.items.push_back(item);
            queue.waker.take()
        };
        shared.arrived.notify_all();
        if let Some(waker) = waker {
            waker.wake();
        }
        true
    }

    /// Whether the reader is still there.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.shared.strong_count() > 0
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let Some(shared) = self.shared.upgrade() else { return };
        let waker = {
            let mut queue = shared.lock();
            queue.closed = true;
            queue.waker.take()
        };
        shared.arrived.notify_all();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl<T> Subscription<T> {
    /// Waits for the next item; `None` at the end.
    pub fn recv(&mut self) -> Option<T> {
        let mut queue = self.shared.lock();
        loop {
            if let Some(item) = queue.items.pop_front() {
                return Some(item);
            }
            if queue.closed {
                return None;
            }
            queue = self.shared.arrived.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits for the next item until a moment; `None` at the end and when the time is over.
    pub fn recv_deadline(&mut self, end: std::time::Instant) -> Option<T> {
        let mut queue = self.shared.lock();
        loop {
            if let Some(item) = queue.items.pop_front() {
                return Some(item);
            }
            let left = end.checked_duration_since(std::time::Instant::now()).filter(|_| !queue.closed)?;
            queue = self.shared.arrived.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The next item if one is there.
    pub fn try_recv(&mut self) -> Option<T> {
        self.shared.lock().items.pop_front()
    }

    /// Polls for the next item; `Ready(None)` at the end.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<T>> {
        let mut queue = self.shared.lock();
        if let Some(item) = queue.items.pop_front() {
            return Poll::Ready(Some(item));
        }
        if queue.closed {
            return Poll::Ready(None);
        }
        queue.waker = Some(context.waker().clone());
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_arrive_in_order_and_the_end_is_seen() {
        let (sender, mut subscription) = channel(8);
        let writer = std::thread::spawn(move || {
            for number in 0..5 {
                assert!(sender.send(number));
            }
        });
        let mut seen = Vec::new();
        while let Some(number) = subscription.recv() {
            seen.push(number);
        }
        writer.join().unwrap();
        assert_eq!(seen, [0, 1, 2, 3, 4]);
    }

    #[test]
    fn a_slow_reader_loses_the_oldest_and_blocks_nobody() {
        let (sender, mut subscription) = channel(2);
        for number in 0..5 {
            sender.send(number);
        }
        assert_eq!((subscription.recv(), subscription.recv(), subscription.try_recv()), (Some(3), Some(4), None));
    }

    #[test]
    fn a_gone_reader_is_noticed() {
        let (sender, subscription) = channel::<u8>(1);
        drop(subscription);
        assert!(!sender.send(1));
    }

    #[test]
    fn polling_registers_and_wakes() {
        let (sender, mut subscription) = channel(1);
        let mut context = Context::from_waker(Waker::noop());
        assert!(subscription.poll_next(&mut context).is_pending());
        sender.send(7);
        assert_eq!(subscription.poll_next(&mut context), Poll::Ready(Some(7)));
        drop(sender);
        assert_eq!(subscription.poll_next(&mut context), Poll::Ready(None));
    }
}
