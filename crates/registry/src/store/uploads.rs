//! Uploads: bytes that come in pieces until they are a blob.
//!
//! An upload is a row and a file. Its hash so far is kept in memory between requests; after a restart it is made again from the
//! file. One request at a time writes: it owns the [`Writing`], and gives it back by dropping it.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, IoSlice, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use rusqlite::OptionalExtension as _;

use super::{Store, ensure_repo, now, random_id, sync_directory};
use crate::error::{Code, RegistryError, Result};
use crate::name::{Algorithm, Digest, Hasher};

/// Uploads that one identity may have open at a time.
const OWNED: i64 = 256;

/// How the owner of an upload begins that belongs to no user: whoever knows its name may go on with it. No name of a user begins so.
pub const STRANGER: char = ':';

/// What is known of an upload between requests.
#[derive(Debug, Clone)]
pub struct Progress {
    hasher: Hasher,
    offset: u64,
}

#[derive(Debug)]
enum Slot {
    Idle(Progress),
    /// Somebody writes.
    Busy,
}

/// Uploads that this process has seen.
#[derive(Debug, Default)]
pub(super) struct Sessions(Arc<Mutex<HashMap<String, Slot>>>);

/// An upload as clients ask about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upload {
    /// Its name.
    pub id: String,
    /// Bytes that have come.
    pub offset: u64,
}

/// The right to write to an upload.
#[derive(Debug)]
pub struct Writing {
    id: String,
    path: PathBuf,
    file: File,
    progress: Progress,
    sessions: Arc<Mutex<HashMap<String, Slot>>>,
    /// It has a row and goes on after this request.
    lasts: bool,
}

impl Drop for Writing {
    fn drop(&mut self) {
        let mut slots = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        if self.lasts {
            slots.insert(self.id.clone(), Slot::Idle(self.progress.clone()));
        } else {
            slots.remove(&self.id);
            drop(std::fs::remove_file(&self.path));
        }
    }
}

impl Writing {
    /// Its name.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Bytes so far.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.progress.offset
    }

    /// The present state, to come back to.
    #[must_use]
    pub fn checkpoint(&self) -> Progress {
        self.progress.clone()
    }

    /// Goes back to an earlier state.
    ///
    /// # Errors
    /// A failing disk.
    pub fn restore(&mut self, earlier: Progress) -> Result<()> {
        self.file.set_len(earlier.offset)?;
        self.progress = earlier;
        Ok(())
    }

    /// Takes bytes: all of them, or none.
    ///
    /// # Errors
    /// A failing or full disk.
    pub fn append(&mut self, frames: &[Bytes]) -> Result<()> {
        if let Err(error) = write_all(&mut self.file, frames) {
            // What was written in part is taken back, so that file and hash agree.
            self.file.set_len(self.progress.offset)?;
            return Err(error.into());
        }
        for frame in frames {
            self.progress.hasher.update(frame);
            self.progress.offset += frame.len() as u64;
        }
        Ok(())
    }

    /// The digest of all bytes.
    fn digest(&self, algorithm: Algorithm) -> Result<Digest> {
        if self.progress.hasher.algorithm() == algorithm {
            return Ok(self.progress.hasher.clone().finish());
        }
        Ok(hash_file(&self.path, algorithm)?.hasher.finish())
    }
}

fn write_all(file: &mut File, frames: &[Bytes]) -> io::Result<()> {
    let mut slices: Vec<IoSlice<'_>> = frames.iter().map(|frame| IoSlice::new(frame)).collect();
    let mut rest = &mut slices[..];
    IoSlice::advance_slices(&mut rest, 0);
    while !rest.is_empty() {
        match file.write_vectored(&rest[..rest.len().min(1024)]) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => IoSlice::advance_slices(&mut rest, count),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn hash_file(path: &Path, algorithm: Algorithm) -> io::Result<Progress> {
    let mut file = File::open(path)?;
    let mut progress = Progress { hasher: Hasher::new(algorithm), offset: 0 };
    let mut buffer = vec![0; 1 << 20];
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            return Ok(progress);
        }
        progress.hasher.update(&buffer[..count]);
        progress.offset += count as u64;
    }
}

fn unknown(id: &str) -> RegistryError {
    RegistryError::new(Code::BlobUploadUnknown).detail(id)
}

impl Store {
    fn upload_path(&self, id: &str) -> PathBuf {
        self.root.join("uploads").join(id)
    }

    fn open_new(&self, algorithm: Algorithm, lasts: bool) -> Result<Writing> {
        let id = random_id()?;
        let path = self.upload_path(&id);
        let slots = || self.uploads.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Before its file, which a sweep would otherwise take for one that an earlier end had left.
        slots().insert(id.clone(), Slot::Busy);
        let file = File::options().append(true).create_new(true).mode(0o600).open(&path);
        let file = file.inspect_err(|_| drop(slots().remove(&id)))?;
        let progress = Progress { hasher: Hasher::new(algorithm), offset: 0 };
        Ok(Writing { id, path, file, progress, sessions: Arc::clone(&self.uploads.0), lasts })
    }

    /// Begins an upload that goes on over requests.
    ///
    /// # Errors
    /// `TOOMANYREQUESTS` when the owner has too many; a failing disk.
    pub fn start_upload(&self, repository: &str, algorithm: Algorithm, owner: &str) -> Result<Upload> {
        let mut writing = self.open_new(algorithm, false)?;
        let id = writing.id.clone();
        let started = self.writer.write("start upload", |transaction| {
            let open: i64 = transaction.query_row("SELECT count(*) FROM upload WHERE owner = ?1", [owner], |row| row.get(0))?;
            if open >= OWNED {
                return Ok(false);
            }
            let repo = ensure_repo(transaction, repository)?;
            let insert = "INSERT INTO upload (id, repo, algorithm, owner, started_at) VALUES (?1, ?2, ?3, ?4, ?5)";
            transaction.execute(insert, (&id, repo, algorithm.name(), owner, now())).map(|_| true)
        })?;
        if !started {
            return Err(RegistryError::say(Code::TooManyRequests, "too many uploads are open: finish or cancel some"));
        }
        writing.lasts = true;
        Ok(Upload { id, offset: 0 })
    }

    /// Begins an upload that ends with the request that brings it.
    ///
    /// # Errors
    /// A failing disk.
    pub fn start_whole(&self, algorithm: Algorithm) -> Result<Writing> {
        self.open_new(algorithm, false)
    }

    /// The algorithm of an upload of a repository, if it is the owner's. For others it is not there.
    fn upload_algorithm(&self, repository: &str, id: &str, owner: &str) -> Result<Algorithm> {
        const QUERY: &str =
            "SELECT upload.algorithm, upload.owner FROM upload JOIN repo ON repo.id = upload.repo WHERE upload.id = ?1 AND repo.name = ?2";
        let row: Option<(String, String)> = self.reader.read("find upload", |connection| {
            connection.prepare_cached(QUERY)?.query_row((id, repository), |row| Ok((row.get(0)?, row.get(1)?))).optional()
        })?;
        let (name, _) = row.filter(|(_, own)| own == owner || own.starts_with(STRANGER)).ok_or_else(|| unknown(id))?;
        Algorithm::parse(&name).ok_or_else(|| unknown(id))
    }

    /// How far an upload is.
    ///
    /// # Errors
    /// `BLOB_UPLOAD_UNKNOWN`; a failing disk.
    pub fn upload(&self, repository: &str, id: &str, owner: &str) -> Result<Upload> {
        self.upload_algorithm(repository, id, owner)?;
        let known = match self.uploads.0.lock().unwrap_or_else(PoisonError::into_inner).get(id) {
            Some(Slot::Idle(progress)) => Some(progress.offset),
            _ => None,
        };
        let offset = match known {
            Some(offset) => offset,
            None => std::fs::metadata(self.upload_path(id)).map_err(|_| unknown(id))?.len(),
        };
        Ok(Upload { id: id.to_owned(), offset })
    }

    /// Takes the right to write to an upload.
    ///
    /// # Errors
    /// `BLOB_UPLOAD_UNKNOWN`; `BLOB_UPLOAD_INVALID` with status 409 while somebody else writes; a failing disk.
    pub fn write_upload(&self, repository: &str, id: &str, owner: &str) -> Result<Writing> {
        let algorithm = self.upload_algorithm(repository, id, owner)?;
        let path = self.upload_path(id);
        let slot = self.uploads.0.lock().unwrap_or_else(PoisonError::into_inner).insert(id.to_owned(), Slot::Busy);
        let progress = match slot {
            Some(Slot::Busy) => {
                return Err(RegistryError::say(Code::BlobUploadInvalid, "another request writes to this upload").status(409));
            }
            Some(Slot::Idle(progress)) => Ok(progress),
            // Begun before a restart.
            None => hash_file(&path, algorithm),
        };
        let opened = progress.and_then(|progress| Ok((File::options().append(true).open(&path)?, progress)));
        match opened {
            Ok((file, progress)) => {
                Ok(Writing { id: id.to_owned(), path, file, progress, sessions: Arc::clone(&self.uploads.0), lasts: true })
            }
            Err(error) => {
                self.uploads.0.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
                Err(if error.kind() == io::ErrorKind::NotFound { unknown(id) } else { error.into() })
            }
        }
    }

    /// Ends an upload for good.
    ///
    /// # Errors
    /// A failing database.
    pub fn cancel_upload(&self, mut writing: Writing) -> Result<()> {
        self.writer.write("cancel upload", |transaction| transaction.execute("DELETE FROM upload WHERE id = ?1", [&writing.id]))?;
        writing.lasts = false;
        Ok(())
    }

    /// Makes an upload a blob of a repository: durable, checked against the digest that was promised.
    ///
    /// # Errors
    /// `DIGEST_INVALID` when the content is another, then the upload is gone; a failing disk, then it is still there.
    pub fn finish_upload(&self, repository: &str, writing: Writing, promised: &Digest) -> Result<()> {
        if writing.digest(promised.algorithm())? != *promised {
            self.cancel_upload(writing)?;
            return Err(RegistryError::new(Code::DigestInvalid).detail(promised.as_str()));
        }
        if !self.adopt(repository, promised)? {
            let object = self.place(&writing, promised)?;
            match self.publish(repository, promised, writing.offset(), &object) {
                Ok(true) => {}
                // Somebody else was faster with the same content.
                Ok(false) => self.trash.discard(&self.object_path(&object))?,
                Err(error) => {
                    drop(self.trash.discard(&self.object_path(&object)));
                    return Err(error);
                }
            }
        }
        self.cancel_upload(writing)
    }

    /// Gives the bytes a durable name below `blobs/`.
    fn place(&self, writing: &Writing, digest: &Digest) -> Result<String> {
        let (algorithm, digits) = (digest.algorithm().name(), digest.digits());
        let shelf = format!("{algorithm}/{}", digits.get(..2).unwrap_or_default());
        let folder = self.object_path(&shelf);
        match std::fs::DirBuilder::new().mode(0o700).create(&folder) {
            Ok(()) => sync_directory(&self.object_path(algorithm))?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error.into()),
        }
        let generation = random_id()?;
        let object = format!("{shelf}/{digits}.{}", generation.get(..16).unwrap_or_default());
        // The time says to a sweep after the next start that this name was given now.
        writing.file.set_modified(std::time::SystemTime::now())?;
        writing.file.set_permissions(std::fs::Permissions::from_mode(0o444))?;
        writing.file.sync_data()?;
        let path = self.object_path(&object);
        std::fs::hard_link(&writing.path, &path)?;
        if let Err(error) = sync_directory(&folder) {
            drop(std::fs::remove_file(&path));
            return Err(error.into());
        }
        Ok(object)
    }

    /// Ends uploads that nobody touched for so long, and removes files that belong to none; gives their number.
    pub(super) fn sweep_uploads(&self, age: Duration) -> Result<usize> {
        const ALL: &str = "SELECT upload.id, repo.name, upload.owner FROM upload JOIN repo ON repo.id = upload.repo";
        let rows: Vec<(String, String, String)> = self.reader.read("list uploads", |connection| {
            connection.prepare_cached(ALL)?.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?.collect()
        })?;
        let mut ended = 0;
        for (id, repository, owner) in &rows {
            let modified = std::fs::metadata(self.upload_path(id)).and_then(|facts| facts.modified());
            let young = modified.is_ok_and(|at| at.elapsed().map_or(true, |span| span < age));
            if young {
                continue;
            }
            match self.write_upload(repository, id, owner) {
                Ok(writing) => self.cancel_upload(writing)?,
                Err(error) if error.code == Code::BlobUploadUnknown => {
                    self.writer.write("cancel upload", |transaction| transaction.execute("DELETE FROM upload WHERE id = ?1", [id]))?;
                }
                Err(_) => continue,
            }
            ended += 1;
        }
        for entry in std::fs::read_dir(self.root.join("uploads"))?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let is_left = {
                let slots = self.uploads.0.lock().unwrap_or_else(PoisonError::into_inner);
                // One that ends this moment takes its file with it, under the same lock.
                !slots.contains_key(&name) && entry.path().exists()
            };
            let row = "SELECT count(*) FROM upload WHERE id = ?1";
            if is_left && self.writer.read("find upload", |connection| connection.query_row(row, [&name], |row| row.get::<_, i64>(0)))? == 0
            {
                self.trash.discard(&entry.path())?;
                ended += 1;
            }
        }
        Ok(ended)
    }
}
