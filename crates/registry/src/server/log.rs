//! The access log: one line a request. Never waits for a slow reader longer than a write takes.

use std::fs::File;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Where requests are logged.
#[derive(Debug)]
pub(crate) struct Log(Mutex<Option<File>>);

/// One request.
#[derive(Debug)]
pub(crate) struct Line<'a> {
    pub(crate) peer: SocketAddr,
    pub(crate) identity: &'a str,
    pub(crate) method: &'a str,
    pub(crate) path: &'a str,
    pub(crate) status: u16,
    pub(crate) bytes: u64,
    pub(crate) took: Duration,
}

impl Log {
    /// Appends to a file, or prints to standard output.
    pub(crate) fn open(path: Option<&Path>) -> io::Result<Self> {
        let file = path.map(|path| File::options().append(true).create(true).open(path)).transpose()?;
        Ok(Self(Mutex::new(file)))
    }

    /// Writes a line; a log that cannot be written stops nothing.
    pub(crate) fn write(&self, line: &Line<'_>) {
        let text = line.print(&jiff::Timestamp::now());
        let mut file = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let written = match file.as_mut() {
            Some(file) => file.write_all(text.as_bytes()),
            None => io::stdout().lock().write_all(text.as_bytes()),
        };
        drop(written);
    }
}

impl Line<'_> {
    fn print(&self, time: &jiff::Timestamp) -> String {
        let who = if self.identity.is_empty() { "-".to_owned() } else { sampan_base::sanitize(self.identity) };
        format!(
            "{time:.3} {} {who} {} {} {} {} {:.1}ms\n",
            self.peer.ip(),
            sampan_base::sanitize(self.method),
            sampan_base::sanitize(self.path),
            self.status,
            self.bytes,
            self.took.as_secs_f64() * 1000.0
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_one_line_whatever_the_client_sends() {
        let line = Line {
            peer: "10.0.0.1:5".parse().unwrap(),
            identity: "",
            method: "GET",
            path: "/v2/a\n2026 fake",
            status: 404,
            bytes: 12,
            took: Duration::from_micros(1500),
        };
        let text = line.print(&"2026-01-02T03:04:05Z".parse().unwrap());
        assert!(text.starts_with("2026-01-02T03:04:05.000Z 10.0.0.1 - GET /v2/a"), "{text}");
        assert!(text.ends_with(" 404 12 1.5ms\n") && text.lines().count() == 1, "{text}");
    }
}
