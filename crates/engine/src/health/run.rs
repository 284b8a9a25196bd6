//! One probe: an exec in the container, its output read, its end awaited, killed when it takes too long.

use std::io::{ErrorKind, Read as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use super::rules::Rules;
use crate::Engine;
use crate::error::EngineError;
use crate::model::ExecRequest;

/// Bytes of output that are kept.
const LONGEST_OUTPUT: usize = 4096;
/// How long a killed probe may take to be gone; then its thread lets it be.
const GONE: Duration = Duration::from_secs(10);
const SIGKILL: i32 = 9;
/// Exit code of a probe that has none of its own.
const NO_CODE: i32 = -1;

impl Engine {
    /// Runs a probe; gives its exit code and what it wrote.
    pub(super) fn run_probe(&self, container: &str, rules: &Rules) -> (i32, String) {
        let request = ExecRequest { cmd: rules.arguments.clone(), attach_stdout: true, attach_stderr: true, ..ExecRequest::default() };
        let id = match self.exec_create(container, request) {
            Ok(id) => id,
            Err(error) => return (NO_CODE, error.to_string()),
        };
        let outcome = self.run_exec(container, &id, rules.timeout);
        // Nobody but this thread knows its id: users' execs are to be remembered, not probes.
        self.forget_exec(&id);
        outcome.unwrap_or_else(|error| (NO_CODE, error.to_string()))
    }

    fn run_exec(&self, container: &str, id: &str, timeout: Duration) -> Result<(i32, String), EngineError> {
        let mut end = self.exec_wait(id)?;
        let socket = match self.exec_launch(id, true, None)? {
            Ok(socket) => socket,
            Err(error) => return Ok((NO_CODE, error.to_string())),
        };
        let deadline = Instant::now().checked_add(timeout);
        let mut output = Output::default();
        let is_read = socket.is_none_or(|socket| output.read_until(socket, deadline));
        let code = match deadline {
            Some(deadline) if is_read => end.recv_deadline(deadline),
            Some(_) => None,
            None => end.recv(),
        };
        if let Some(code) = code {
            return Ok((code, output.text()));
        }
        let has_ended = self.sandboxes().signal_exec(container, id, SIGKILL).is_err();
        let code = end.recv_deadline(Instant::now() + GONE);
        // In time, but a child that it left behind holds its output open.
        if let (true, Some(code)) = (has_ended, code) {
            return Ok((code, output.text()));
        }
        let nanoseconds = i64::try_from(timeout.as_nanos()).unwrap_or(i64::MAX);
        let mut text = format!("Health check exceeded timeout ({})", sampan_gotext::duration::print(nanoseconds));
        if !output.bytes.is_empty() {
            text = format!("{text}: {}", output.text());
        }
        Ok((NO_CODE, text))
    }
}

/// The beginning of what a probe wrote, both streams in their order.
#[derive(Debug, Default)]
struct Output {
    bytes: Vec<u8>,
    is_cut: bool,
    /// Bytes of the present frame's head.
    head: Vec<u8>,
    /// Bytes of the present frame that are to come.
    left: usize,
}

impl Output {
    /// Reads frames to the end: true. False at the deadline.
    fn read_until(&mut self, socket: OwnedFd, deadline: Option<Instant>) -> bool {
        let mut socket = UnixStream::from(socket);
        let mut buffer = [0; 8192];
        loop {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) || socket.set_read_timeout(left).is_err() {
                return false;
            }
            match socket.read(&mut buffer) {
                Ok(0) => return true,
                Ok(count) => self.take(&buffer[..count]),
                Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(_) => return true,
            }
        }
    }

    /// Takes a piece of Docker's framed stream: eight bytes (stream, three zeros, length), then so many bytes.
    fn take(&mut self, mut piece: &[u8]) {
        while !piece.is_empty() {
            if self.left > 0 {
                let (now, rest) = piece.split_at(piece.len().min(self.left));
                self.left -= now.len();
                self.keep(now);
                piece = rest;
                continue;
            }
            let (now, rest) = piece.split_at(piece.len().min(8 - self.head.len()));
            self.head.extend_from_slice(now);
            piece = rest;
            if let [_, _, _, _, length @ ..] = &self.head[..]
                && let Ok(length) = <[u8; 4]>::try_from(length)
            {
                self.left = u32::from_be_bytes(length) as usize;
                self.head.clear();
            }
        }
    }

    fn keep(&mut self, bytes: &[u8]) {
        let fitting = bytes.len().min(LONGEST_OUTPUT - self.bytes.len());
        self.bytes.extend_from_slice(&bytes[..fitting]);
        self.is_cut |= fitting < bytes.len();
    }

    fn text(&self) -> String {
        let text = String::from_utf8_lossy(&self.bytes);
        if self.is_cut { format!("{text}...") } else { text.into_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(stream: u8, bytes: &[u8]) -> Vec<u8> {
        let mut frame = vec![stream, 0, 0, 0];
        frame.extend_from_slice(&u32::try_from(bytes.len()).unwrap().to_be_bytes());
        frame.extend_from_slice(bytes);
        frame
    }

    #[test]
    fn frames_are_joined_wherever_they_are_cut() {
        let stream = [frame(1, b"one "), frame(2, b""), frame(2, b"two "), frame(1, b"three")].concat();
        for size in 1..stream.len() {
            let mut output = Output::default();
            stream.chunks(size).for_each(|piece| output.take(piece));
            assert_eq!(output.text(), "one two three", "pieces of {size}");
        }
    }

    #[test]
    fn long_output_is_cut() {
        let mut output = Output::default();
        output.take(&frame(1, &[b'x'; LONGEST_OUTPUT]));
        assert_eq!(output.text().len(), LONGEST_OUTPUT);
        output.take(&frame(1, b"more"));
        assert_eq!(output.text(), "x".repeat(LONGEST_OUTPUT) + "...");
    }

    #[test]
    fn a_silent_socket_is_left_at_the_deadline() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut output = Output::default();
        assert!(!output.read_until(ours.try_clone().unwrap().into(), Some(Instant::now() + Duration::from_millis(20))));
        drop(theirs);
        assert!(output.read_until(ours.into(), None));
    }
}
