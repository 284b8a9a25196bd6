//! The context as an open directory, given to our own engine on this machine in place of an archive.
//!
//! A message with a descriptor of the directory, on the socket beside the engine's (`.files` behind its name); the answer is a token for
//! one build. The connection is kept: its end takes the token back.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_timeout};

use crate::remote::Endpoint;

/// An engine that does not answer within this time gets an archive.
const PATIENCE: Duration = Duration::from_secs(10);
/// What is said with the descriptor.
const HELLO: &[u8] = b"sampan-context-1";

/// A directory that an engine holds; it is taken back when this goes.
#[derive(Debug)]
pub(super) struct Handed {
    pub(super) token: String,
    _connection: OwnedFd,
}

/// Hands a directory over; `None` where the engine does not take it.
pub(super) fn hand_over(endpoint: &Endpoint, directory: &Path) -> Option<Handed> {
    let Endpoint::Unix(socket) = endpoint else { return None };
    let mut path = socket.clone().into_os_string();
    path.push(".files");
    offer(&PathBuf::from(path), directory).ok().flatten()
}

fn offer(socket: &Path, directory: &Path) -> io::Result<Option<Handed>> {
    let connection = sampan_sys::sock::connect(socket)?;
    let directory = sampan_sys::dir::open(directory)?;
    for way in [Timeout::Recv, Timeout::Send] {
        set_socket_timeout(&connection, way, Some(PATIENCE))?;
    }
    sampan_sys::sock::send(connection.as_fd(), HELLO, &[directory.as_fd()])?;
    let (token, _) = sampan_sys::sock::receive(connection.as_fd(), true)?;
    let token = String::from_utf8(token).ok().filter(|token| !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_alphanumeric()));
    Ok(token.map(|token| Handed { token, _connection: connection }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_takes_a_directory_or_does_not() {
        for (answer, taken) in [(&b"0123abcd"[..], true), (b"", false), (b"no token\n", false)] {
            let folder = tempfile::tempdir().unwrap();
            let listener = sampan_sys::sock::listen(&folder.path().join("s.files")).unwrap();
            let engine = std::thread::spawn(move || {
                rustix::event::poll(&mut [rustix::event::PollFd::new(&listener, rustix::event::PollFlags::IN)], None).unwrap();
                let client = sampan_sys::sock::accept(listener.as_fd()).unwrap().unwrap();
                let (hello, directories) = sampan_sys::sock::receive(client.as_fd(), true).unwrap();
                assert_eq!((hello.as_slice(), directories.len()), (HELLO, 1));
                if !answer.is_empty() {
                    sampan_sys::sock::send(client.as_fd(), answer, &[]).unwrap();
                    // Until the token is taken back.
                    assert!(sampan_sys::sock::receive(client.as_fd(), true).unwrap().0.is_empty());
                }
            });
            let handed = hand_over(&Endpoint::Unix(folder.path().join("s")), folder.path());
            assert_eq!(handed.map(|handed| handed.token), taken.then(|| "0123abcd".to_owned()));
            engine.join().unwrap();
        }
        assert!(hand_over(&Endpoint::Unix("/nowhere/at/all".into()), Path::new("/")).is_none());
        assert!(hand_over(&Endpoint::Tcp("x:1".into()), Path::new("/")).is_none());
    }
}
