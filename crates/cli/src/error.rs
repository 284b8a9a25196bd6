//! What a command ends with when it fails: texts for standard error, hints, an exit code.

use std::fmt;

/// A failure of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CliError {
    /// What is printed on standard error; empty: nothing.
    pub text: String,
    /// Exit code.
    pub code: u8,
    /// A command to type next.
    pub hint: Option<String>,
    /// Whether an engine said it, and not we.
    pub from_engine: bool,
    /// The HTTP status, where an engine said it.
    pub status: u16,
}

/// What commands return: their exit code.
pub(crate) type Outcome<T = u8> = Result<T, CliError>;

impl CliError {
    /// A failure with exit code 1.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), code: 1, hint: None, from_engine: false, status: 0 }
    }

    /// What an engine answered.
    #[must_use]
    pub fn engine(status: u16, message: &str) -> Self {
        Self { text: format!("Error response from daemon: {message}"), from_engine: true, status, ..Self::new("") }
    }

    /// Something that is not there yet.
    #[must_use]
    pub fn unsupported(what: &str, reason: &str) -> Self {
        Self::new(format!("not supported: {what} ({reason})"))
    }

    /// Ends with a code and prints nothing.
    #[must_use]
    pub fn silent(code: u8) -> Self {
        Self { code, ..Self::new("") }
    }

    /// With another exit code.
    #[must_use]
    pub fn code(mut self, code: u8) -> Self {
        self.code = code;
        self
    }

    /// With a command to type next.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// A failure about a file, in the words of Go: `open x: no such file or directory`.
    #[must_use]
    pub fn file(verb: &str, path: impl fmt::Display, error: &std::io::Error) -> Self {
        Self::new(format!("{verb} {path}: {}", errno_text(error)))
    }
}

/// An errno as Go prints it.
#[must_use]
pub(crate) fn errno_text(error: &std::io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or(&text);
    let mut characters = text.chars();
    characters.next().map(|first| first.to_lowercase().collect::<String>() + characters.as_str()).unwrap_or_default()
}

impl fmt::Display for CliError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

impl std::error::Error for CliError {}

impl From<std::io::Error> for CliError {
    fn from(error: std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::BrokenPipe { Self::silent(1) } else { Self::new(errno_text(&error)) }
    }
}

impl From<sampan_gotext::template::TemplateError> for CliError {
    fn from(error: sampan_gotext::template::TemplateError) -> Self {
        Self::new(error.0)
    }
}
