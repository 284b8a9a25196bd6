//! Attached clients: what they were sent and what they send.

use std::collections::VecDeque;
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::{Duration, Instant};

use crate::log::Stream;
use crate::protocol::Streams;

/// Bytes of a frame's header: stream, three zeros, length (big endian).
pub const RAW_HEADER: usize = 8;
/// From here on a client's backlog stops the reading of the process's output.
pub(super) const BACKLOG: usize = 256 * 1024;
/// A client that takes nothing for so long is dropped, so that it cannot hold up the container.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// A piece of output as Docker frames it.
#[must_use]
pub fn frame(stream: Stream, text: &[u8]) -> Vec<u8> {
    let number = match stream {
        Stream::Stdout => 1,
        Stream::Stderr => 2,
    };
    let mut out = Vec::with_capacity(RAW_HEADER + text.len());
    out.extend_from_slice(&[number, 0, 0, 0]);
    out.extend_from_slice(&u32::try_from(text.len()).unwrap_or(u32::MAX).to_be_bytes());
    out.extend_from_slice(text);
    out
}

/// One attached client.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) socket: OwnedFd,
    pub(super) streams: Streams,
    raw: bool,
    backlog: VecDeque<u8>,
    stuck_since: Option<Instant>,
    /// Its half of the conversation has ended.
    pub(super) input_ended: bool,
}

/// What became of a client after an attempt to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Health {
    /// All is written.
    Clear,
    /// It has a backlog.
    Behind,
    /// It is gone.
    Gone,
}

impl Client {
    pub(super) fn new(socket: OwnedFd, streams: Streams, raw: bool) -> std::io::Result<Self> {
        rustix::io::ioctl_fionbio(&socket, true)?;
        let input_ended = !streams.stdin;
        Ok(Self { socket, streams, raw, backlog: VecDeque::new(), stuck_since: None, input_ended })
    }

    /// Sends output if the client wants it.
    pub(super) fn send(&mut self, stream: Stream, text: &[u8]) -> Health {
        let wanted = match stream {
            Stream::Stdout => self.streams.stdout,
            Stream::Stderr => self.streams.stderr,
        };
        if !wanted {
            return self.health();
        }
        if self.raw {
            self.push(text);
        } else {
            self.push(&frame(stream, text));
        }
        self.flush()
    }

    fn push(&mut self, bytes: &[u8]) {
        self.backlog.extend(bytes);
    }

    /// Writes as much of the backlog as the client takes.
    pub(super) fn flush(&mut self) -> Health {
        while !self.backlog.is_empty() {
            let (front, _) = self.backlog.as_slices();
            match rustix::net::send(self.socket.as_fd(), front, rustix::net::SendFlags::NOSIGNAL | rustix::net::SendFlags::DONTWAIT) {
                Ok(count) => {
                    self.backlog.drain(..count);
                    self.stuck_since = None;
                }
                Err(rustix::io::Errno::AGAIN) => {
                    self.stuck_since.get_or_insert_with(Instant::now);
                    return Health::Behind;
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => return Health::Gone,
            }
        }
        self.backlog.shrink_to(0);
        Health::Clear
    }

    fn health(&self) -> Health {
        if self.backlog.is_empty() { Health::Clear } else { Health::Behind }
    }

    pub(super) fn is_behind(&self) -> bool {
        !self.backlog.is_empty()
    }

    pub(super) fn is_full(&self) -> bool {
        self.backlog.len() > BACKLOG
    }

    /// When this client's patience ends, if it is behind.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.stuck_since.map(|since| since + PATIENCE)
    }

    /// Whether it has been stuck for too long.
    pub(super) fn is_stuck(&self, now: Instant) -> bool {
        self.deadline().is_some_and(|deadline| deadline <= now)
    }
}
