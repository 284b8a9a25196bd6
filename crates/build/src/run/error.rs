//! Why a build failed, in Docker's words where clients read them.

use std::error::Error;

use sampan_base::{ErrorKind, Failure};

use crate::dockerfile::{Lines, ParseError};
use crate::plan::{Copy, PlanError};

/// A build that failed.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A command ended with another code than 0.
    #[error("The command '{command}' returned a non-zero code: {code}")]
    Command {
        /// As the classic builder shows it.
        command: String,
        /// Its words, with blanks between them, as BuildKit shows it.
        process: String,
        /// The code.
        code: i32,
    },
    /// The Dockerfile, the context or the request is wrong, or a room below failed: its words and its kind.
    #[error("{text}")]
    Room {
        /// In words for clients.
        text: String,
        /// What sort of failure.
        kind: ErrorKind,
    },
    /// The Dockerfile is wrong at a place.
    #[error("{text}")]
    Dockerfile {
        /// In the classic builder's words.
        text: String,
        /// In BuildKit's.
        solve: String,
        /// What sort of failure.
        kind: ErrorKind,
        /// The faulty lines and those around, as Docker shows them; empty where there is no place.
        excerpt: String,
    },
    /// A step of a build failed.
    #[error("{failure}")]
    Step {
        /// Its number in the plan.
        step: usize,
        /// Its lines and those around, as Docker shows them.
        excerpt: String,
        /// How it failed.
        failure: Box<Self>,
    },
    /// The disk or the kernel failed.
    #[error("{action}")]
    Io {
        /// What was attempted.
        action: String,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
    /// The client has gone, or somebody cancelled it.
    #[error("operation cancelled")]
    Cancelled,
}

impl Failure for BuildError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Command { .. } => ErrorKind::Invalid,
            Self::Room { kind, .. } | Self::Dockerfile { kind, .. } => *kind,
            Self::Step { failure, .. } => failure.kind(),
            Self::Io { .. } => ErrorKind::Internal,
            Self::Cancelled => ErrorKind::Cancelled,
        }
    }
}

/// A failure with all that caused it, in one line.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}

impl BuildError {
    /// A wrong request.
    pub fn invalid(text: impl Into<String>) -> Self {
        Self::Room { text: text.into(), kind: ErrorKind::Invalid }
    }

    /// The failure of a step. That a build ends is no step's failure.
    pub(crate) fn at(self, step: usize, excerpt: impl FnOnce() -> String) -> Self {
        match self {
            Self::Cancelled | Self::Step { .. } => self,
            failure => Self::Step { step, excerpt: excerpt(), failure: Box::new(failure) },
        }
    }

    /// The failure without the step that it belongs to.
    #[must_use]
    pub fn bare(&self) -> &Self {
        if let Self::Step { failure, .. } = self { failure.bare() } else { self }
    }

    /// The failure in BuildKit's words, where those differ from the classic builder's.
    #[must_use]
    pub fn solve_text(&self) -> Option<String> {
        match self {
            Self::Command { process, code, .. } => {
                Some(format!("process {} did not complete successfully: exit code: {code}", sampan_gotext::quote(process)))
            }
            Self::Dockerfile { solve, .. } => Some(solve.clone()),
            Self::Step { failure, .. } => failure.solve_text(),
            _ => None,
        }
    }

    /// A Dockerfile that cannot be read. `excerpt`: the lines it is about, as shown.
    pub(super) fn reading(error: &ParseError, excerpt: impl FnOnce(Option<Lines>) -> String) -> Self {
        let text = error.to_string();
        Self::Dockerfile { solve: text.clone(), text, kind: sampan_base::Failure::kind(error), excerpt: excerpt(error.lines) }
    }

    /// A Dockerfile of which no build can be planned.
    pub(super) fn planning(error: &PlanError, excerpt: impl FnOnce(Option<Lines>) -> String) -> Self {
        Self::Dockerfile {
            text: error.classic_message().to_owned(),
            solve: error.message.clone(),
            kind: error.kind,
            excerpt: excerpt(error.lines),
        }
    }

    /// What is not there yet.
    pub fn unsupported(text: &str) -> Self {
        Self::Room { text: format!("not supported: {text}"), kind: ErrorKind::Unsupported }
    }

    /// The failure of a room below, behind what was attempted.
    pub(crate) fn room<E: Failure + 'static>(action: &str, error: &E) -> Self {
        if error.kind() == ErrorKind::Cancelled {
            return Self::Cancelled;
        }
        let text = chain(error);
        Self::Room { text: if action.is_empty() { text } else { format!("{action}: {text}") }, kind: error.kind() }
    }

    /// A context that cannot be read.
    pub(crate) fn context<E: Error + 'static>(error: &E) -> Self {
        Self::invalid(format!("Error processing tar file: {}", chain(error)))
    }

    pub(crate) fn io(action: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let action = action.into();
        move |source| Self::Io { action, source }
    }

    /// A source that is not there, in the context or elsewhere.
    pub(crate) fn missing(copy: &Copy, path: &[u8], elsewhere: bool) -> Self {
        let verb = if copy.add { "ADD" } else { "COPY" };
        let place = if elsewhere { "" } else { "file not found in build context or excluded by .dockerignore: " };
        let path = sampan_base::sanitize(&String::from_utf8_lossy(path));
        Self::invalid(format!("{verb} failed: {place}stat {path}: file does not exist"))
    }
}
