//! The layers of a push, several at once, top first as the original shows them.

use std::fs::File;
use std::io::{self, BufWriter, Read, Write as _};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use sampan_archive::{Hashing, gzip_members};
use sampan_base::{Cancel, Progress};
use sampan_oci::{DiffId, Digest, Reference, media};
use sampan_store::{BlobRow, NewBlob};
use sampan_transfer::Client;

use super::Push;
use super::manifest::Part;
use crate::ImageError;
use crate::pull::{cancelled, retrying};

/// How many other repositories are tried.
const MOST_MOUNTS: usize = 4;
/// How often the bytes of a layer are reported.
const TICK: Duration = Duration::from_millis(100);

impl Push<'_> {
    /// Brings all layers into the registry; gives what its manifest is to say of them, lowest first.
    pub(super) fn layers(&self, layers: &[DiffId], wanted: &[Option<Part>]) -> Result<Vec<Part>, ImageError> {
        let at_once = self.images.uploads.count();
        let mut order: Vec<usize> = Vec::new();
        for (number, layer) in layers.iter().enumerate().rev() {
            // A layer that is there twice is sent once.
            if !layers[..number].contains(layer) {
                order.push(number);
            }
            self.say(layer, "Preparing", None);
        }
        for number in order.iter().skip(at_once) {
            self.say(&layers[*number], "Waiting", None);
        }
        let (next, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
        let results: Vec<Mutex<Option<Result<Part, ImageError>>>> = layers.iter().map(|_| Mutex::new(None)).collect();
        let (tell, told) = channel::<(usize, u64)>();
        let (order, next, failed, results_of) = (&order, &next, &failed, &results);
        std::thread::scope(|scope| {
            // Pauses are told by the client's own threads, which outlive what is shared here: they send, this one shows.
            scope.spawn(move || told.into_iter().for_each(|(number, seconds)| self.say(&layers[number], &retrying(seconds), None)));
            for _ in 0..at_once.min(order.len()) {
                let tell = tell.clone();
                scope.spawn(move || {
                    while let Some(number) = order.get(next.fetch_add(1, Ordering::SeqCst)).filter(|_| !failed.load(Ordering::SeqCst)) {
                        let result = self.permitted_layer(&layers[*number], wanted[*number].as_ref(), (*number, tell.clone()));
                        if result.is_err() {
                            failed.store(true, Ordering::SeqCst);
                        }
                        *results_of[*number].lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
                    }
                });
            }
            drop(tell);
        });
        let mut parts: Vec<Option<Part>> = Vec::new();
        let mut error = None;
        for result in results {
            match result.into_inner().unwrap_or_else(PoisonError::into_inner) {
                None => parts.push(None),
                Some(Ok(part)) => parts.push(Some(part)),
                Some(Err(failure)) => {
                    parts.push(None);
                    error.get_or_insert(failure);
                }
            }
        }
        if let Some(error) = error {
            return Err(error);
        }
        let all = layers.iter().map(|layer| {
            let first = layers.iter().position(|other| other == layer);
            first.and_then(|first| parts[first].clone()).ok_or_else(|| ImageError::MissingLayer(layer.to_string()))
        });
        all.collect()
    }

    fn say(&self, layer: &DiffId, status: &str, bytes: Option<(u64, u64)>) {
        let (current, total) = bytes.unzip();
        self.progress.report(Progress::Part { id: layer.0.short().to_owned(), status: status.into(), current, total });
    }

    /// Brings one layer into the registry when its turn comes: other pushes send too.
    fn permitted_layer(
        &self,
        layer: &DiffId,
        wanted: Option<&Part>,
        (number, tell): (usize, Sender<(usize, u64)>),
    ) -> Result<Part, ImageError> {
        let _permit = self.images.uploads.take(self.cancel, || self.say(layer, "Waiting", None))?;
        self.cancel.check().map_err(|_| ImageError::Cancelled)?;
        let client = self.images.client()?.telling(move |seconds| {
            let _nobody_listens = tell.send((number, seconds));
        });
        self.layer(&client, layer, wanted)
    }

    /// Brings one layer into the registry, the cheapest way.
    fn layer(&self, client: &Client, layer: &DiffId, wanted: Option<&Part>) -> Result<Part, ImageError> {
        if let Some(part) = wanted.filter(|part| part.is_foreign) {
            self.say(layer, "Skipped foreign layer", None);
            return Ok(part.clone());
        }
        let mut known = self.images.store().layer_blobs(layer)?;
        // The form of the kept manifest first, then the one that is here.
        known.sort_by_key(|blob| (wanted.is_none_or(|part| part.digest != blob.digest), !blob.kept));
        for blob in &known {
            if let Some(part) = self.there_already(client, layer, blob)? {
                return Ok(part);
            }
        }
        if let Some(blob) = known.iter().find(|blob| blob.kept) {
            let row = self.images.store().layer(layer)?.ok_or_else(|| ImageError::MissingLayer(layer.to_string()))?;
            let path = self.images.store().layer_folder(&row).join("blob");
            return self.send(client, layer, &path, part(blob));
        }
        let folder = self.images.store().staging().map_err(ImageError::io("make a staging folder"))?;
        let result = self.compress_and_send(client, layer, &folder.join("blob"), &known);
        if let Err(error) = self.images.store().discard(&folder) {
            tracing::warn!(%error, "cannot remove a staging folder");
        }
        result
    }

    /// Whether the repository has a blob, or can take it over from another one of its registry.
    fn there_already(&self, client: &Client, layer: &DiffId, blob: &BlobRow) -> Result<Option<Part>, ImageError> {
        let (login, repository) = (&self.options.login, self.reference.repository());
        if client.has_blob(&repository, &blob.digest, login, self.cancel).map_err(cancelled)?.is_some() {
            self.say(layer, "Layer already exists", None);
            return Ok(Some(part(blob)));
        }
        let sources = self.images.store().blob_sources(&blob.digest)?;
        let sources = sources.iter().filter_map(|name| Reference::parse_normalized(name).ok());
        let sources = sources.filter(|source| source.domain() == repository.domain() && source.path() != repository.path());
        for source in sources.take(MOST_MOUNTS) {
            match client.mount_blob(&repository, &blob.digest, &source, login, self.cancel).map_err(cancelled) {
                Ok(true) => {
                    self.say(layer, &format!("Mounted from {}", source.path()), None);
                    return Ok(Some(part(blob)));
                }
                Ok(false) => self.images.store().delete_blob_source(&blob.digest, &source.to_string())?,
                Err(ImageError::Cancelled) => return Err(ImageError::Cancelled),
                Err(error) => tracing::debug!(%error, "cannot mount a blob"),
            }
        }
        Ok(None)
    }

    /// Compresses a layer, once for whoever needs it next, and sends it unless it is there.
    fn compress_and_send(&self, client: &Client, layer: &DiffId, spool: &Path, known: &[BlobRow]) -> Result<Part, ImageError> {
        let new = {
            let _all_processors = self.compressing.lock().unwrap_or_else(PoisonError::into_inner);
            self.compress(layer, spool)?
        };
        let part = Part { digest: new.digest.clone(), media_type: new.media_type.clone(), size: new.size, is_foreign: false };
        if !known.iter().any(|blob| blob.digest == new.digest) {
            self.images.store().remember_blob(layer, &new)?;
            let repository = self.reference.repository();
            if client.has_blob(&repository, &new.digest, &self.options.login, self.cancel).map_err(cancelled)?.is_some() {
                self.say(layer, "Layer already exists", None);
                return Ok(part);
            }
        }
        self.send(client, layer, spool, part)
    }

    fn compress(&self, layer: &DiffId, spool: &Path) -> Result<NewBlob, ImageError> {
        let fail = |error: io::Error| match error.kind() {
            io::ErrorKind::ConnectionAborted if self.cancel.is_cancelled() => ImageError::Cancelled,
            _ => ImageError::Io { action: format!("compress layer {layer}"), source: error },
        };
        let (tar, _) = self.images.layer_tar(layer).map_err(fail)?;
        let file = BufWriter::with_capacity(256 * 1024, File::create(spool).map_err(fail)?);
        let mut hashing = Hashing::new(file);
        let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        gzip_members(Stopping { inner: tar, cancel: self.cancel }, &mut hashing, threads).map_err(fail)?;
        hashing.flush().map_err(fail)?;
        let (_, digest, size) = hashing.finish();
        Ok(NewBlob { digest, media_type: media::DOCKER_LAYER.into(), size })
    }

    fn send(&self, client: &Client, layer: &DiffId, path: &Path, part: Part) -> Result<Part, ImageError> {
        let last: Mutex<Option<Instant>> = Mutex::new(None);
        let progress = |sent: u64| {
            let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
            if last.is_none_or(|last| last.elapsed() >= TICK) || sent >= part.size {
                *last = Some(Instant::now());
                self.say(layer, "Pushing", Some((sent, part.size)));
            }
        };
        let open = || File::open(path).map(|file| Box::new(file) as Box<dyn Read + Send>);
        let repository = self.reference.repository();
        client.put_blob(&repository, &part.digest, part.size, &open, &progress, &self.options.login, self.cancel).map_err(cancelled)?;
        self.say(layer, "Pushed", None);
        Ok(part)
    }
}

fn part(blob: &BlobRow) -> Part {
    let digest: Digest = blob.digest.clone();
    Part { digest, media_type: blob.media_type.clone(), size: blob.size, is_foreign: false }
}

/// Reading that ends when the operation does.
struct Stopping<'a, R> {
    inner: R,
    cancel: &'a Cancel,
}

impl<R: Read> Read for Stopping<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.cancel.is_cancelled() {
            // Not `Interrupted`: that would be tried again.
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        self.inner.read(buffer)
    }
}
