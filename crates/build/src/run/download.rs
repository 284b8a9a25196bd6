//! Downloads: files that `ADD` names by their address, and build contexts at an address.
//!
//! Contents are kept in the mirror, each once. What is known of an address (the server's tag, the content's hash, its time) is a small
//! file beside it, named by a hash, as addresses may hold passwords; it can be lost at any time. A content whose checksum the
//! Dockerfile gives is asked for only where it is not here; one with a tag is asked for only where it changed.

use std::collections::HashMap;
use std::io::{self, Cursor, Read};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use sampan_archive::{Compression, Hasher};
use sampan_base::{Cancel, ErrorKind, Failure as _};
use sampan_oci::Digest;
use sampan_transfer::{FetchRequest, Fetched, TransferError};
use serde::{Deserialize, Serialize};

use super::build::Run;
use super::builder::Builder;
use super::context::LONGEST;
use super::error::BuildError;
use super::file::Opened;
use super::key::hash;
use crate::files::MemoryTree;
use crate::plan::{Http, Remote, classify};

/// Largest file that is fetched.
const LARGEST: u64 = 64 << 30;
/// Most addresses of which something is known.
const MOST: usize = 4096;

/// The downloads of one build, by address and checksum: each is fetched once.
pub(crate) type Downloads = Mutex<HashMap<String, Arc<Mutex<Option<Opened>>>>>;

/// What is known of an address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Known {
    /// The server's tag of the content.
    etag: Option<String>,
    /// The content in the mirror.
    content: String,
    size: u64,
    /// Seconds since the epoch.
    mtime: i64,
}

impl Known {
    fn hash(&self) -> Option<[u8; 32]> {
        hex::decode(&self.content).ok()?.try_into().ok()
    }
}

/// A context at an address.
pub(crate) enum RemoteContext {
    /// A tar stream, compressed or not.
    Tar(Box<dyn Read + Send>),
    /// A Dockerfile alone.
    Dockerfile(Vec<u8>),
}

/// A failed download in BuildKit's words.
fn failed(error: &TransferError) -> BuildError {
    match error.kind() {
        ErrorKind::Cancelled => BuildError::Cancelled,
        // Another's refusal is no status of ours: the Dockerfile names what cannot be had.
        _ => BuildError::invalid(error.to_string()),
    }
}

fn failed_read(error: io::Error) -> BuildError {
    match error.downcast::<TransferError>() {
        Ok(error) => failed(&error),
        Err(error) => BuildError::io("keep a download")(error),
    }
}

/// Hashes what is read.
struct Checked<'a, R> {
    inner: R,
    hasher: Hasher,
    cancel: &'a Cancel,
}

impl<R: Read> Read for Checked<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.cancel.check().map_err(|_| io::Error::other(TransferError::Cancelled))?;
        let count = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        Ok(count)
    }
}

impl Builder {
    fn known_place(&self, http: &Http) -> PathBuf {
        let checksum = http.checksum.as_ref().map(ToString::to_string).unwrap_or_default();
        self.folder.join("downloads").join(hash(&format!("{}\n{checksum}", http.url)))
    }

    fn known(&self, http: &Http) -> Option<(Known, [u8; 32])> {
        let known: Known = serde_json::from_slice(&std::fs::read(self.known_place(http)).ok()?).ok()?;
        let hash = known.hash().filter(|hash| self.mirror.has(hash, known.size))?;
        Some((known, hash))
    }

    /// Keeps what is known of an address; it is a hint only, and no build fails for it.
    fn remember(&self, http: &Http, known: &Known) {
        let keep = || -> io::Result<()> {
            let folder = self.folder.join("downloads");
            std::fs::create_dir_all(&folder)?;
            if std::fs::read_dir(&folder)?.count() >= MOST {
                std::fs::remove_dir_all(&folder)?;
                std::fs::create_dir_all(&folder)?;
            }
            let new = self.mirror.fresh();
            std::fs::write(&new, serde_json::to_vec(known).map_err(io::Error::other)?)?;
            std::fs::rename(&new, self.known_place(http))
        };
        if let Err(error) = keep() {
            tracing::warn!(%error, "cannot keep what is known of an address");
        }
    }

    fn fetch(&self, request: &FetchRequest, cancel: &Cancel) -> Result<Fetched, BuildError> {
        let client = self.client.as_ref().ok_or_else(|| BuildError::unsupported("downloads by this engine"))?;
        client.fetch(request, cancel).map_err(|error| failed(&error))
    }

    /// Fetches a file that is not here or has changed.
    fn download(&self, http: &Http, cancel: &Cancel) -> Result<Opened, BuildError> {
        let known = self.known(http);
        if let (Some((known, hash)), true) = (&known, http.checksum.is_some()) {
            return Ok(self.opened(http, known, *hash));
        }
        let request = FetchRequest {
            url: http.url.clone(),
            limit: LARGEST,
            etag: known.as_ref().and_then(|(known, _)| known.etag.clone()),
            checked: http.checksum.is_some(),
        };
        let fetched = self.fetch(&request, cancel).map_err(|error| match (error, &http.checksum) {
            (BuildError::Room { text, kind }, None) => BuildError::Room { text: format!("failed to load cache key: {text}"), kind },
            (error, _) => error,
        })?;
        if let (Some((known, hash)), true) = (&known, fetched.not_modified) {
            return Ok(self.opened(http, known, *hash));
        }
        let (etag, mtime) = (fetched.etag.clone(), fetched.last_modified.unwrap_or(0));
        let like = http.checksum.clone().unwrap_or_else(|| Digest::sha256_of(b""));
        let mut content = Checked { inner: fetched, hasher: Hasher::like(&like), cancel };
        let (hash, size) = self.mirror.take_all(&mut content).map_err(failed_read)?;
        let received = content.hasher.finish();
        if let Some(wanted) = http.checksum.as_ref().filter(|wanted| wanted.to_string() != received) {
            return Err(BuildError::invalid(format!("digest mismatch {received}: {wanted}")));
        }
        let known = Known { etag, content: hex::encode(hash), size, mtime };
        if known.etag.is_some() || http.checksum.is_some() {
            self.remember(http, &known);
        }
        Ok(self.opened(http, &known, hash))
    }

    fn opened(&self, http: &Http, known: &Known, hash: [u8; 32]) -> Opened {
        let tree = MemoryTree::single(Arc::clone(&self.mirror), &http.file_name, hash, known.size, known.mtime);
        Opened { source: Arc::new(tree), tree: None, download: true }
    }

    /// Opens a context at an address.
    pub(crate) fn fetch_context(&self, address: &str, cancel: &Cancel) -> Result<RemoteContext, BuildError> {
        let shown = || sampan_base::sanitize(address);
        match classify(address) {
            Ok(Remote::Http) => {}
            Ok(Remote::Local) if !address.starts_with("github.com/") => {
                return Err(BuildError::invalid(format!("remoteURL ({}) could not be recognized as URL", shown())));
            }
            _ => {
                return Err(BuildError::unsupported(&format!(
                    "the repository {} as a build context (clone it and build the folder)",
                    shown()
                )));
            }
        }
        let request = FetchRequest { url: address.to_owned(), limit: LARGEST, ..FetchRequest::default() };
        let mut fetched = self.fetch(&request, cancel)?;
        let mut start = Vec::new();
        (&mut fetched).take(512).read_to_end(&mut start).map_err(failed_read)?;
        let is_tar = is_archive(&start, &fetched.media_type);
        let whole = Cursor::new(start).chain(fetched);
        if is_tar {
            return Ok(RemoteContext::Tar(Box::new(whole)));
        }
        let mut text = Vec::new();
        whole.take(LONGEST + 1).read_to_end(&mut text).map_err(failed_read)?;
        if text.len() as u64 > LONGEST {
            return Err(BuildError::invalid("the file at the context's address is neither an archive nor a Dockerfile"));
        }
        Ok(RemoteContext::Dockerfile(text))
    }
}

/// Whether a file is an archive, by its first 512 bytes and what its server calls it.
fn is_archive(start: &[u8], media_type: &str) -> bool {
    Compression::detect(start) != Compression::None || start.get(257..262) == Some(b"ustar") || media_type == "application/x-tar"
}

impl Run<'_> {
    /// The file of an address; fetched once in a build, whatever it is asked for.
    pub(crate) fn download(&self, http: &Http) -> Result<Opened, BuildError> {
        let key = format!("{}\n{:?}", http.url, http.checksum);
        let place = Arc::clone(self.downloads.lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_default());
        let mut place = place.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(opened) = &*place {
            return Ok(opened.clone());
        }
        let opened = self.builder.download(http, &self.cancel)?;
        *place = Some(opened.clone());
        Ok(opened)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archives_are_told_from_dockerfiles() {
        let mut tar = vec![b'x'; 512];
        tar[257..262].copy_from_slice(b"ustar");
        assert!(is_archive(&tar, "") && is_archive(b"\x1f\x8b\x08rest", "text/plain") && is_archive(b"", "application/x-tar"));
        assert!(!is_archive(b"FROM scratch\n", "application/octet-stream") && !is_archive(b"", ""));
    }
}
