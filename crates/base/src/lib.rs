//! What every operation of sampan needs and nothing else.
//!
//! Error kinds, cancellation, typed progress, events, secrets, and the sanitising of names that strangers chose.
//! Plain data and small mechanisms: no I/O, no threads, no dependency.
#![forbid(unsafe_code)]

mod cancel;
mod event;
mod failure;
mod kind;
mod progress;
mod sanitize;
mod secret;

pub use cancel::{Cancel, CancelWatch, Cancelled};
pub use event::{Event, EventKind, EventSink, NoEvents};
pub use failure::Failure;
pub use kind::ErrorKind;
pub use progress::{NoProgress, Progress, ProgressSink};
pub use sanitize::sanitize;
pub use secret::Secret;
