//! Removal of large trees: renamed away at once, unlinked in the background.

use std::ffi::OsString;
use std::io;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};

use sampan_sys::dir;

/// A trash folder with its emptying thread.
#[derive(Debug)]
pub struct Trash {
    folder: PathBuf,
    next: AtomicU64,
    work: Sender<OsString>,
}

impl Trash {
    /// Opens the folder and begins to empty what an earlier process left in it.
    ///
    /// # Errors
    /// A failing disk.
    pub fn open(folder: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let left: Vec<OsString> = std::fs::read_dir(folder)?.flatten().map(|entry| entry.file_name()).collect();
        let (work, names) = channel::<OsString>();
        let handle = dir::open(folder)?;
        std::thread::Builder::new().name("trash".into()).spawn(move || {
            for name in left.into_iter().chain(names) {
                if let Err(error) = dir::remove_all(handle.as_fd(), &name) {
                    // It stays for the next start.
                    drop(error);
                }
            }
        })?;
        let start = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |span| span.as_nanos());
        Ok(Self { folder: folder.to_owned(), next: AtomicU64::new(u64::try_from(start).unwrap_or(0)), work })
    }

    /// Takes a file or tree away. What does not exist is fine.
    ///
    /// # Errors
    /// When it cannot be renamed.
    pub fn discard(&self, path: &Path) -> io::Result<()> {
        let name = OsString::from(self.next.fetch_add(1, Ordering::Relaxed).to_string());
        match std::fs::rename(path, self.folder.join(&name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other?,
        }
        drop(self.work.send(name));
        Ok(())
    }
}
