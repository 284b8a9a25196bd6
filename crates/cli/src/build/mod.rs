//! What `build` does beside asking the engine: the context that is sent, and how progress is shown.

pub(crate) mod context;
pub(crate) mod progress;
