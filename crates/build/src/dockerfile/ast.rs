//! What a Dockerfile says, typed. Plain data.

/// A range of lines, both ends included, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lines {
    /// The first.
    pub first: usize,
    /// The last.
    pub last: usize,
}

/// A finding of a check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// The check: `StageNameCasing`, …
    pub rule: &'static str,
    /// What it is about in general.
    pub description: &'static str,
    /// Where it is explained.
    pub url: &'static str,
    /// What was found.
    pub message: String,
    /// Where.
    pub lines: Option<Lines>,
}

/// A Dockerfile that was read.
#[derive(Debug, Clone, PartialEq)]
pub struct Dockerfile {}
