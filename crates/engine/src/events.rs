//! The event bus: the last 256 events, and whoever wants the next ones.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use sampan_base::{Event, EventSink};

use crate::clock;
use crate::subscription::{Sender, Subscription, channel};

/// How many events a late subscriber can still see, as in the original.
const RECENT: usize = 256;
/// How far a slow subscriber may fall behind.
const BACKLOG: usize = 4096;

/// Collects events of all rooms and hands them on.
#[derive(Debug, Default)]
pub struct EventBus {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    recent: VecDeque<Event>,
    readers: Vec<Sender<Event>>,
}

impl EventBus {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The recent events, oldest first, and a subscription that starts right after them.
    #[must_use]
    pub fn subscribe(&self) -> (Vec<Event>, Subscription<Event>) {
        let (sender, subscription) = channel(BACKLOG);
        let mut inner = self.lock();
        inner.readers.push(sender);
        (inner.recent.iter().cloned().collect(), subscription)
    }
}

impl EventSink for EventBus {
    fn publish(&self, mut event: Event) {
        if event.time_nano == 0 {
            event.time_nano = clock::now_nanos();
        }
        let mut inner = self.lock();
        inner.readers.retain(|reader| reader.send(event.clone()));
        if inner.recent.len() == RECENT {
            inner.recent.pop_front();
        }
        inner.recent.push_back(event);
    }
}

#[cfg(test)]
mod tests {
    use sampan_base::EventKind;

    use super::*;

    fn event(action: &str) -> Event {
        Event { kind: EventKind::Container, action: action.into(), id: "x".into(), attributes: Vec::new(), time_nano: 0 }
    }

    #[test]
    fn a_late_subscriber_sees_the_past_once_and_the_future_in_order() {
        let bus = EventBus::default();
        for number in 0..300 {
            bus.publish(event(&number.to_string()));
        }
        let (recent, mut next) = bus.subscribe();
        assert_eq!((recent.len(), recent[0].action.as_str()), (256, "44"));
        assert!(recent[0].time_nano > 0);
        bus.publish(event("later"));
        assert_eq!(next.try_recv().map(|event| event.action), Some("later".to_owned()));
    }
}
