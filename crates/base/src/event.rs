//! Events: what happened to which object, for `events` subscribers.

/// Which sort of object an event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EventKind {
    /// A container.
    Container,
    /// An image.
    Image,
    /// A network.
    Network,
    /// A volume.
    Volume,
    /// The daemon itself.
    Daemon,
    /// The build cache.
    Builder,
}

impl EventKind {
    /// The name clients see in `Type`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Container => "container",
            Self::Image => "image",
            Self::Network => "network",
            Self::Volume => "volume",
            Self::Daemon => "daemon",
            Self::Builder => "builder",
        }
    }
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The sort of object.
    pub kind: EventKind,
    /// What happened, in Docker's words: `create`, `start`, `die`, `exec_start: sh`.
    pub action: String,
    /// The object's id (containers, networks), reference or digest (images), or name (volumes).
    pub id: String,
    /// Facts for filters and readers, in insertion order; clients see them sorted by key.
    pub attributes: Vec<(String, String)>,
    /// Nanoseconds since the Unix epoch; 0 lets the sink take the present.
    pub time_nano: i64,
}

/// Where operations put their events.
pub trait EventSink: Send + Sync {
    /// Publishes one event; never blocks on a slow reader.
    fn publish(&self, event: Event);
}

/// A sink for callers that want no events.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoEvents;

impl EventSink for NoEvents {
    fn publish(&self, _event: Event) {}
}
