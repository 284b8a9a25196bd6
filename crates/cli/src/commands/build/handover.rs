//! The context as an open directory, given to our own engine on this machine in place of an archive.
//!
//! A message on the socket `context.sock` beside the engine's: a random token and a descriptor of the directory. The connection is kept:
//! its end takes the token back. The engine reads with the rights of the process that sent it.

use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use rustix::fs::{Mode, OFlags};

use super::source::random_name;
use crate::error::Outcome;
use crate::remote::Endpoint;

/// An engine that does not answer within this time gets an archive.
const PATIENCE: Duration = Duration::from_secs(10);

/// A directory that an engine holds; it is taken back when this goes.
#[derive(Debug)]
pub(super) struct Handed {
    pub(super) token: String,
    _connection: OwnedFd,
}

/// Hands a directory over; `None` where the engine does not take it.
///
/// # Errors
/// A system without random numbers.
pub(super) fn hand_over(endpoint: &Endpoint, directory: &Path) -> Outcome<Option<Handed>> {
    let Endpoint::Unix(socket) = endpoint else { return Ok(None) };
    let token = random_name(16)?;
    let offered = offer(&socket.with_file_name("context.sock"), directory, &token);
    Ok(offered.ok().flatten().map(|connection| Handed { token, _connection: connection }))
}

fn offer(socket: &Path, directory: &Path, token: &str) -> io::Result<Option<OwnedFd>> {
    let connection: OwnedFd = match UnixStream::connect(socket) {
        Ok(stream) => stream.into(),
        // It speaks in messages.
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::PROTOTYPE.raw_os_error()) => sampan_sys::sock::connect(socket)?,
        Err(error) => return Err(error),
    };
    let directory = rustix::fs::open(directory, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::net::sockopt::set_socket_timeout(&connection, rustix::net::sockopt::Timeout::Recv, Some(PATIENCE))?;
    rustix::net::sockopt::set_socket_timeout(&connection, rustix::net::sockopt::Timeout::Send, Some(PATIENCE))?;
    sampan_sys::sock::send(connection.as_fd(), token.as_bytes(), &[directory.as_fd()])?;
    let mut stream = UnixStream::from(connection);
    let mut answer = Vec::new();
    while !answer.ends_with(b"\n") && answer.len() < 3 {
        let mut piece = [0_u8; 16];
        let count = stream.read(&mut piece)?;
        if count == 0 {
            break;
        }
        answer.extend_from_slice(&piece[..count]);
    }
    Ok((answer == b"ok\n").then(|| stream.into()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    fn engine(folder: &Path, answer: &'static [u8]) -> std::thread::JoinHandle<(Vec<u8>, usize)> {
        let listener = UnixListener::bind(folder.join("context.sock")).unwrap();
        std::thread::spawn(move || {
            use std::io::Write as _;
            let (mut stream, _) = listener.accept().unwrap();
            let (message, descriptors) = sampan_sys::sock::receive(stream.as_fd(), true).unwrap();
            stream.write_all(answer).unwrap();
            // Until the token is taken back.
            let ended = stream.read(&mut [0]).unwrap();
            assert_eq!(ended, 0);
            (message, descriptors.len())
        })
    }

    #[test]
    fn an_engine_takes_a_directory_or_does_not() {
        for (answer, taken) in [(&b"ok\n"[..], true), (b"no\n", false), (b"", false)] {
            let folder = tempfile::tempdir().unwrap();
            if answer.is_empty() {
                let endpoint = Endpoint::Unix(folder.path().join("sampan.sock"));
                assert!(hand_over(&endpoint, folder.path()).unwrap().is_none());
                continue;
            }
            let engine = engine(folder.path(), answer);
            let handed = hand_over(&Endpoint::Unix(folder.path().join("sampan.sock")), folder.path()).unwrap();
            assert_eq!(handed.is_some(), taken);
            let token = handed.as_ref().map(|handed| handed.token.clone());
            drop(handed);
            let (message, descriptors) = engine.join().unwrap();
            assert_eq!((message.len(), descriptors), (32, 1));
            assert!(token.is_none_or(|token| token.as_bytes() == message));
        }
        assert!(hand_over(&Endpoint::Tcp("x:1".into()), Path::new("/")).unwrap().is_none());
    }
}
