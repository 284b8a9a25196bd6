//! Folders that our own command line hands over by descriptor: a second socket beside the API's, for those who may use that one. The
//! client sends an open folder, gets a token for one build, and holds the connection until the build is done.
//!
//! Who hands a folder over is asked of the kernel, and files below it are read with that user's rights, never with the engine's.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use rustix::event::{PollFd, PollFlags, Timespec};
use sampan_sys::sock;
use sampan_sys::user::Reader;

/// Folders that wait at once.
const MOST: usize = 64;
/// What a client says.
const HELLO: &[u8] = b"sampan-context-1";

/// A folder and who handed it over.
pub(crate) type Handed = (OwnedFd, Reader);

/// Folders that wait for their builds, by token.
#[derive(Debug, Default)]
pub(crate) struct Handover {
    waiting: Mutex<HashMap<String, Handed>>,
}

/// The socket that belongs to an API socket.
pub(crate) fn socket_of(api: &Path) -> PathBuf {
    let mut path = api.as_os_str().to_owned();
    path.push(".files");
    path.into()
}

/// Lets those use a socket who may use another one.
fn admit_like(other: &Path, socket: &Path) -> io::Result<()> {
    let facts = std::fs::metadata(other)?;
    std::os::unix::fs::chown(socket, Some(facts.uid()), Some(facts.gid()))?;
    std::fs::set_permissions(socket, facts.permissions())
}

impl Handover {
    /// Listens beside an API socket as long as the table lives.
    pub(crate) fn listen(self: &Arc<Self>, api: &Path) -> io::Result<()> {
        let path = socket_of(api);
        let listener = sock::listen(&path)?;
        admit_like(api, &path)?;
        let table = Arc::downgrade(self);
        std::thread::Builder::new().name("handover".into()).stack_size(256 * 1024).spawn(move || {
            while table.strong_count() > 0 {
                let second = Timespec { tv_sec: 1, tv_nsec: 0 };
                let _either = rustix::event::poll(&mut [PollFd::new(&listener, PollFlags::IN)], Some(&second));
                while let Ok(Some(client)) = sock::accept(listener.as_fd()) {
                    let table = Weak::clone(&table);
                    let served = std::thread::Builder::new().name("handed".into()).stack_size(256 * 1024);
                    drop(served.spawn(move || serve(&client, &table)));
                }
            }
            drop(std::fs::remove_file(&path));
        })?;
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Handed>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the folder of a token; there is no second time.
    pub(crate) fn take(&self, token: &str) -> Option<Handed> {
        self.lock().remove(token)
    }

    fn put(&self, handed: Handed) -> Option<String> {
        let mut bytes = [0; 32];
        rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()).ok()?;
        let token: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let mut waiting = self.lock();
        if waiting.len() >= MOST {
            return None;
        }
        waiting.insert(token.clone(), handed);
        Some(token)
    }
}

fn serve(client: &OwnedFd, table: &Weak<Handover>) {
    let Ok((hello, mut folders)) = sock::receive(client.as_fd(), true) else { return };
    let (Some(folder), true, Some(handover)) = (folders.pop(), hello == HELLO, table.upgrade()) else { return };
    let Ok(reader) = Reader::of_peer(client.as_fd()) else { return };
    let Some(token) = handover.put((folder, reader)) else { return };
    drop(handover);
    if sock::send(client.as_fd(), token.as_bytes(), &[]).is_ok() {
        // Until the client goes.
        let _end = sock::receive(client.as_fd(), true);
    }
    if let Some(handover) = table.upgrade() {
        drop(handover.take(&token));
    }
}
