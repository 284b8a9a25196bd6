//! Netlink sockets: send a batch, read acknowledgements and dumps.
//!
//! Bytes in, bytes out: what messages mean is the caller's. A socket belongs to the network namespace of the thread that opened it.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

/// Which family of messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// Links, addresses, routes.
    Route,
    /// nf_tables, conntrack.
    Netfilter,
}

/// Length of a message header.
pub const HEADER: usize = 16;
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// Answers beyond this are cut off: no dump of ours comes near.
const MAX_ANSWER: usize = 64 << 20;

/// An open netlink socket.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    sequence: u32,
}

/// A message that the kernel refused.
#[derive(Debug)]
pub struct Refused {
    /// Its place in the batch, from 0.
    pub index: usize,
    /// Why.
    pub error: io::Error,
}

/// Something that happened in a subsystem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notification {
    /// Type of the message.
    pub kind: u16,
    /// Whose doing it was: see [`Socket::port`].
    pub port: u32,
    /// Fixed part and attributes.
    pub body: Vec<u8>,
}

impl Socket {
    /// Opens a socket in this thread's network namespace.
    ///
    /// # Errors
    /// What socket(2) says.
    pub fn open(family: Family) -> io::Result<Self> {
        let protocol = match family {
            Family::Route => None, // NETLINK_ROUTE is 0
            Family::Netfilter => Some(rustix::net::netlink::NETFILTER),
        };
        let fd = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)?;
        for size in [1_usize << 20, 4 << 20] {
            // Best effort: the default suffices for all but very large batches.
            let _ignored = rustix::net::sockopt::set_socket_recv_buffer_size(&fd, size);
            let _ignored = rustix::net::sockopt::set_socket_send_buffer_size(&fd, size);
        }
        Ok(Self { fd, sequence: 0 })
    }

    /// Joins groups of notifications (a mask), in this thread's network namespace.
    ///
    /// # Errors
    /// What socket(2) or bind(2) says.
    pub fn subscribe(family: Family, groups: u32) -> io::Result<Self> {
        let socket = Self::open(family)?;
        rustix::net::bind(&socket.fd, &SocketAddrNetlink::new(0, groups))?;
        Ok(socket)
    }

    /// The number that the kernel puts into notifications of what this socket did; 0 before it sent anything.
    ///
    /// # Errors
    /// What getsockname(2) says.
    pub fn port(&self) -> io::Result<u32> {
        let address = rustix::net::getsockname(&self.fd)?;
        Ok(SocketAddrNetlink::try_from(address).map_err(io::Error::from)?.pid())
    }

    /// Waits for notifications for at most a second: type, port of whose doing it was, body. `None`: some were lost.
    ///
    /// # Errors
    /// What recv(2) says.
    pub fn notifications(&self) -> io::Result<Option<Vec<Notification>>> {
        let mut ready = [rustix::event::PollFd::from_borrowed_fd(self.fd.as_fd(), rustix::event::PollFlags::IN)];
        let second = rustix::event::Timespec { tv_sec: 1, tv_nsec: 0 };
        if rustix::event::poll(&mut ready, Some(&second)).unwrap_or(0) == 0 {
            return Ok(Some(Vec::new()));
        }
        let bytes = match self.receive() {
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::NOBUFS.raw_os_error()) => return Ok(None),
            other => other?,
        };
        let mut rest = &bytes[..];
        let mut out = Vec::new();
        for (kind, _, body) in parse(&bytes) {
            let port = rest.get(12..16).and_then(|bytes| bytes.first_chunk::<4>()).map_or(0, |bytes| u32::from_ne_bytes(*bytes));
            out.push(Notification { kind, port, body: body.to_vec() });
            rest = rest.get((HEADER + body.len()).next_multiple_of(4)..).unwrap_or_default();
        }
        Ok(Some(out))
    }

    fn number(&mut self, messages: &mut [Vec<u8>]) -> u32 {
        let first = self.sequence.wrapping_add(1);
        for message in messages {
            self.sequence = self.sequence.wrapping_add(1);
            let length = u32::try_from(message.len()).unwrap_or(0);
            message[0..4].copy_from_slice(&length.to_ne_bytes());
            message[8..12].copy_from_slice(&self.sequence.to_ne_bytes());
        }
        first
    }

    fn send(&self, messages: &[Vec<u8>]) -> io::Result<()> {
        let mut bytes = Vec::new();
        for message in messages {
            bytes.extend_from_slice(message);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        rustix::net::send(&self.fd, &bytes, SendFlags::empty())?;
        Ok(())
    }

    fn receive(&self) -> io::Result<Vec<u8>> {
        let mut buffer = vec![0; 256 * 1024];
        let (length, _) = rustix::net::recv(&self.fd, &mut *buffer, RecvFlags::empty())?;
        buffer.truncate(length);
        Ok(buffer)
    }

    /// Sends messages (header with type and flags filled in; length and sequence are set here) and waits for one answer to each
    /// whose flags ask for an acknowledgement.
    ///
    /// # Errors
    /// The first message that was refused; later ones may have been done.
    pub fn transact(&mut self, messages: &mut [Vec<u8>]) -> Result<(), Refused> {
        const ACK: u16 = 4;
        let fail = |error: io::Error| Refused { index: 0, error };
        let first = self.number(messages);
        let wants_ack = |message: &Vec<u8>| u16::from_ne_bytes([message[6], message[7]]) & ACK != 0;
        let mut pending: Vec<u32> =
            (first..).zip(messages.iter()).filter(|(_, message)| wants_ack(message)).map(|(number, _)| number).collect();
        self.send(messages).map_err(fail)?;
        let mut refused: Option<Refused> = None;
        while !pending.is_empty() {
            for (kind, sequence, body) in parse(&self.receive().map_err(fail)?) {
                if kind != ERROR {
                    continue;
                }
                let code = body.first_chunk::<4>().map_or(0, |bytes| i32::from_ne_bytes(*bytes));
                pending.retain(|number| *number != sequence);
                if code != 0 && refused.is_none() {
                    let index = sequence.wrapping_sub(first) as usize;
                    refused = Some(Refused { index, error: io::Error::from_raw_os_error(-code) });
                    // A refused batch answers for the bad message only.
                    if index >= messages.len() || !messages.get(index).is_some_and(&wants_ack) {
                        pending.clear();
                    }
                }
            }
            if refused.is_some() && self.is_quiet() {
                break;
            }
        }
        refused.map_or(Ok(()), Err)
    }

    /// Whether no answer is waiting.
    fn is_quiet(&self) -> bool {
        let mut ready = [rustix::event::PollFd::from_borrowed_fd(self.fd.as_fd(), rustix::event::PollFlags::IN)];
        let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        rustix::event::poll(&mut ready, Some(&now)) == Ok(0)
    }

    /// Sends a dump request and collects the answers: type and body of each message.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn dump(&mut self, message: Vec<u8>) -> io::Result<Vec<(u16, Vec<u8>)>> {
        let mut messages = [message];
        let number = self.number(&mut messages);
        self.send(&messages)?;
        let (mut out, mut total) = (Vec::new(), 0);
        loop {
            let answer = self.receive()?;
            total += answer.len();
            for (kind, sequence, body) in parse(&answer) {
                if sequence != number {
                    continue;
                }
                match kind {
                    DONE => return Ok(out),
                    ERROR => {
                        let code = body.first_chunk::<4>().map_or(0, |bytes| i32::from_ne_bytes(*bytes));
                        return if code == 0 { Ok(out) } else { Err(io::Error::from_raw_os_error(-code)) };
                    }
                    _ => out.push((kind, body.to_vec())),
                }
            }
            if total > MAX_ANSWER {
                return Err(io::ErrorKind::FileTooLarge.into());
            }
        }
    }

    /// The number by which the kernel knows this socket.
    #[must_use]
    pub fn raw(&self) -> i32 {
        self.fd.as_raw_fd()
    }
}

/// Type, sequence and body of each message of a buffer; stops at the first malformed one.
fn parse(mut buffer: &[u8]) -> Vec<(u16, u32, &[u8])> {
    let mut out = Vec::new();
    while let Some(header) = buffer.first_chunk::<HEADER>() {
        let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
        if length < HEADER || length > buffer.len() {
            break;
        }
        let kind = u16::from_ne_bytes([header[4], header[5]]);
        let sequence = u32::from_ne_bytes([header[8], header[9], header[10], header[11]]);
        out.push((kind, sequence, &buffer[HEADER..length]));
        buffer = &buffer[length.next_multiple_of(4).min(buffer.len())..];
    }
    out
}

/// The index of an interface of this thread's network namespace.
///
/// # Errors
/// `ENODEV` when there is none of that name.
pub fn interface_index(name: &str) -> io::Result<u32> {
    let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    Ok(rustix::net::netdevice::name_to_index(&socket, name)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn malformed_buffers_end_the_parsing() {
        assert!(parse(&[0; 15]).is_empty());
        assert!(parse(&[0; 16]).is_empty(), "a length of zero");
        assert!(parse(&[255; 64]).is_empty());
    }

    #[test]
    fn links_can_be_dumped_and_nonsense_is_refused() {
        let mut socket = Socket::open(Family::Route).unwrap();
        let mut message = vec![0; 16 + 16];
        message[4..6].copy_from_slice(&18_u16.to_ne_bytes()); // RTM_GETLINK
        message[6..8].copy_from_slice(&0x301_u16.to_ne_bytes()); // request, dump
        assert!(!socket.dump(message.clone()).unwrap().is_empty());
        message[4..6].copy_from_slice(&17_u16.to_ne_bytes()); // RTM_DELLINK of nothing
        message[6..8].copy_from_slice(&5_u16.to_ne_bytes());
        assert!(socket.transact(&mut [message]).is_err());
    }
}
