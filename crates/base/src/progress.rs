//! Progress of long work as typed facts; the edges turn them into lines and bars.

/// One fact about a running operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// A line of text that stands for itself (`Loaded image: x`), without its line end.
    Message(String),
    /// A line of text about one part (`Pulling from library/x`, about a tag).
    About {
        /// Name of the part.
        id: String,
        /// The line.
        text: String,
    },
    /// The state of one part (a layer) changed; `status` is in Docker's words (`Loading layer`).
    Part {
        /// Short name of the part, twelve hex digits for a layer.
        id: String,
        /// What is being done to it.
        status: String,
        /// Bytes done so far, where known.
        current: Option<u64>,
        /// Bytes in all, where known.
        total: Option<u64>,
    },
    /// A warning that does not stop the operation.
    Warning(String),
}

/// Where an operation reports its progress. Called often: must be cheap and must not block.
pub trait ProgressSink: Send + Sync {
    /// Takes one report.
    fn report(&self, progress: Progress);
}

/// A sink for callers that watch nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoProgress;

impl ProgressSink for NoProgress {
    fn report(&self, _progress: Progress) {}
}

impl<F: Fn(Progress) + Send + Sync> ProgressSink for F {
    fn report(&self, progress: Progress) {
        self(progress);
    }
}
