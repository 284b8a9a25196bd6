//! Uploads under way: a file that grows, and the hash of what is in it.
//!
//! An upload belongs to one request at a time. It outlives a broken connection and a restart: what was written is hashed again
//! when somebody goes on with it. Those that nobody touched for a day are removed.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use sampan_oci::Digest;
use sha2::{Digest as _, Sha256, Sha512};

/// After how long an upload that nobody touches is removed.
const IDLE: Duration = Duration::from_secs(24 * 3600);
/// How many uploads may be under way.
const MAX_SESSIONS: usize = 10_000;

/// The hash of what was written so far.
#[derive(Debug, Clone)]
enum State {
    Sha256(Sha256),
    Sha512(Box<Sha512>),
}

impl State {
    fn new(is_512: bool) -> Self {
        if is_512 { Self::Sha512(Box::default()) } else { Self::Sha256(Sha256::new()) }
    }

    fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(state) => state.update(bytes),
            Self::Sha512(state) => state.update(bytes),
        }
    }

    fn finish(self) -> String {
        match self {
            Self::Sha256(state) => format!("sha256:{}", hex::encode(state.finalize())),
            Self::Sha512(state) => format!("sha512:{}", hex::encode(state.finalize())),
        }
    }
}

/// One upload.
#[derive(Debug)]
struct Upload {
    folder: PathBuf,
    file: File,
    state: State,
    size: u64,
}

/// An upload that this request has; it goes back when this is dropped.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) id: String,
    upload: Option<Upload>,
    uploads: Arc<Inner>,
}

/// Why there is no session.
#[derive(Debug)]
pub(crate) enum TakeError {
    /// No such upload in this repository.
    Unknown,
    /// Another request works on it.
    Busy,
    /// Too many are under way.
    Full,
    /// The disk failed.
    Io(io::Error),
}

impl From<io::Error> for TakeError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

#[derive(Debug)]
struct Inner {
    folder: PathBuf,
    /// Known uploads; `None` while a request has one.
    known: Mutex<HashMap<String, Option<Upload>>>,
}

/// All uploads under way.
#[derive(Debug, Clone)]
pub(crate) struct Uploads(Arc<Inner>);

impl Inner {
    fn known(&self) -> std::sync::MutexGuard<'_, HashMap<String, Option<Upload>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Uploads {
    /// Opens the folder of uploads.
    pub(super) fn open(folder: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let uploads = Self(Arc::new(Inner { folder: folder.to_owned(), known: Mutex::default() }));
        uploads.sweep(IDLE);
        Ok(uploads)
    }

    /// Begins an upload to a repository.
    pub(crate) fn begin(&self, repo: &str, is_512: bool) -> Result<Session, TakeError> {
        if self.0.known().len() >= MAX_SESSIONS {
            return Err(TakeError::Full);
        }
        let mut random = [0; 16];
        getrandom::fill(&mut random).map_err(io::Error::other)?;
        let id = hex::encode(random);
        let folder = self.0.folder.join(&id);
        std::fs::create_dir(&folder)?;
        let made = (|| {
            std::fs::write(folder.join("repository"), repo)?;
            File::options().read(true).write(true).create_new(true).open(folder.join("data"))
        })();
        let file = made.inspect_err(|_| drop(std::fs::remove_dir_all(&folder)))?;
        self.0.known().insert(id.clone(), None);
        let upload = Upload { folder, file, state: State::new(is_512), size: 0 };
        Ok(Session { id, upload: Some(upload), uploads: Arc::clone(&self.0) })
    }

    /// Takes an upload of a repository to work on it. Reads all of it again if a restart lost its hash: blocks.
    pub(crate) fn take(&self, repo: &str, id: &str) -> Result<Session, TakeError> {
        if id.len() != 32 || !id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(TakeError::Unknown);
        }
        let folder = self.0.folder.join(id);
        match std::fs::read_to_string(folder.join("repository")) {
            Ok(owner) if owner == repo => {}
            Ok(_) => return Err(TakeError::Unknown),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(TakeError::Unknown),
            Err(error) => return Err(error.into()),
        }
        let found = match self.0.known().entry(id.to_owned()) {
            std::collections::hash_map::Entry::Vacant(entry) => {
                entry.insert(None);
                None
            }
            std::collections::hash_map::Entry::Occupied(mut entry) => Some(entry.get_mut().take().ok_or(TakeError::Busy)?),
        };
        let upload = match found {
            Some(upload) => upload,
            None => recover(folder).inspect_err(|_| drop(self.0.known().remove(id)))?,
        };
        Ok(Session { id: id.to_owned(), upload: Some(upload), uploads: Arc::clone(&self.0) })
    }

    /// Removes uploads that nobody touched for so long.
    pub(crate) fn sweep(&self, idle: Duration) {
        for entry in std::fs::read_dir(&self.0.folder).into_iter().flatten().flatten() {
            let id = entry.file_name().to_string_lossy().into_owned();
            let touched = std::fs::metadata(entry.path().join("data")).or_else(|_| entry.metadata()).and_then(|data| data.modified());
            let is_old = touched.is_ok_and(|time| SystemTime::now().duration_since(time).is_ok_and(|age| age >= idle));
            let is_free = !matches!(self.0.known().get(&id), Some(None));
            if is_old && is_free {
                self.0.known().remove(&id);
                if let Err(error) = std::fs::remove_dir_all(entry.path()) {
                    tracing::warn!("cannot remove an old upload: {error}");
                }
            }
        }
    }

    /// How many are under way.
    pub(crate) fn count(&self) -> usize {
        self.0.known().len()
    }
}

/// An upload of an earlier server.
fn recover(folder: PathBuf) -> io::Result<Upload> {
    let mut file = File::options().read(true).write(true).open(folder.join("data"))?;
    let (mut state, mut size, mut buffer) = (State::new(false), 0, vec![0; 1 << 20]);
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            return Ok(Upload { folder, file, state, size });
        }
        state.update(&buffer[..count]);
        size += count as u64;
    }
}

impl Session {
    fn upload(&mut self) -> io::Result<&mut Upload> {
        self.upload.as_mut().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// How many bytes are there.
    pub(crate) fn size(&self) -> u64 {
        self.upload.as_ref().map_or(0, |upload| upload.size)
    }

    /// Appends bytes; when the disk fails what was there before stays as it was.
    pub(crate) fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let upload = self.upload()?;
        if let Err(error) = upload.file.write_all_at(bytes, upload.size) {
            drop(upload.file.set_len(upload.size));
            return Err(error);
        }
        upload.state.update(bytes);
        upload.size += bytes.len() as u64;
        Ok(())
    }

    /// Reserves room for what is going to come, where the file system can.
    pub(crate) fn reserve(&mut self, more: u64) -> io::Result<()> {
        let upload = self.upload()?;
        match rustix::fs::fallocate(&upload.file, rustix::fs::FallocateFlags::KEEP_SIZE, upload.size, more) {
            Err(rustix::io::Errno::NOSPC) => Err(io::ErrorKind::StorageFull.into()),
            _ => Ok(()),
        }
    }

    /// Whether the bytes are those of a digest. Reads them again for an algorithm that was not expected: blocks.
    pub(crate) fn verify(&mut self, digest: &Digest) -> io::Result<bool> {
        let upload = self.upload()?;
        let is_512 = digest.algorithm() == "sha512";
        if is_512 == matches!(upload.state, State::Sha512(_)) {
            return Ok(upload.state.clone().finish() == digest.as_str());
        }
        let (mut state, mut offset, mut buffer) = (State::new(is_512), 0, vec![0; 1 << 20]);
        loop {
            let count = upload.file.read_at(&mut buffer, offset)?;
            if count == 0 {
                return Ok(state.finish() == digest.as_str());
            }
            state.update(&buffer[..count]);
            offset += count as u64;
        }
    }

    /// Brings the bytes to the disk, and gives their file.
    pub(crate) fn sync(&mut self) -> io::Result<PathBuf> {
        let upload = self.upload()?;
        upload.file.set_len(upload.size)?;
        upload.file.sync_data()?;
        Ok(upload.folder.join("data"))
    }

    /// Ends the upload: nothing of it stays.
    pub(crate) fn end(mut self) {
        if let Some(upload) = self.upload.take() {
            if let Err(error) = std::fs::remove_dir_all(&upload.folder) {
                tracing::warn!("cannot remove a finished upload: {error}");
            }
            self.uploads.known().remove(&self.id);
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some(upload) = self.upload.take() {
            self.uploads.known().insert(self.id.clone(), Some(upload));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upload_goes_on_after_a_break_and_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let uploads = Uploads::open(folder.path()).unwrap();
        let mut session = uploads.begin("a/b", false).unwrap();
        let id = session.id.clone();
        session.append(b"hello ").unwrap();
        assert!(matches!(uploads.take("a/b", &id), Err(TakeError::Busy)));
        drop(session);
        assert!(matches!(uploads.take("other", &id), Err(TakeError::Unknown)), "it belongs to its repository");
        assert!(matches!(uploads.take("a/b", "../../etc"), Err(TakeError::Unknown)));
        let again = Uploads::open(folder.path()).unwrap();
        let mut session = again.take("a/b", &id).unwrap();
        assert_eq!(session.size(), 6);
        session.append(b"world").unwrap();
        assert!(session.verify(&Digest::sha256_of(b"hello world")).unwrap());
        let sha512 = format!("sha512:{}", hex::encode(Sha512::digest(b"hello world")));
        assert!(session.verify(&sha512.parse().unwrap()).unwrap());
        assert!(!session.verify(&Digest::sha256_of(b"hello")).unwrap());
        session.end();
        assert!(matches!(again.take("a/b", &id), Err(TakeError::Unknown)));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn old_uploads_go_but_not_those_in_use() {
        let folder = tempfile::tempdir().unwrap();
        let uploads = Uploads::open(folder.path()).unwrap();
        let held = uploads.begin("a", false).unwrap();
        drop(uploads.begin("a", false).unwrap());
        uploads.sweep(Duration::ZERO);
        assert_eq!(uploads.count(), 1);
        held.end();
        assert_eq!(uploads.count(), 0);
    }
}
