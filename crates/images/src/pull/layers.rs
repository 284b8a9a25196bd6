//! The layers of an image that is pulled: which are here, which must come, all of those at once.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Seek as _};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use sampan_base::{Cancel, Progress, ProgressSink};
use sampan_oci::{DiffId, Reference};
use sampan_store::{NewBlob, Store};
use sampan_transfer::{Client, Login};

use super::choose::LayerBlob;
use super::pipeline::{self, Blob, Gauge, Unpacked};
use crate::flight::{Permits, Reporter, Seat, Step};
use crate::{ImageError, Images};

/// How often the bytes of a layer are reported.
const TICK: Duration = Duration::from_millis(100);

/// All that a layer's thread needs; it may outlive the operation that began it.
struct Work {
    store: Arc<Store>,
    client: Client,
    permits: Arc<Permits>,
    login: Login,
    repository: Reference,
    blob: LayerBlob,
    diff_id: DiffId,
}

impl Images {
    /// Brings the layers of an image that are not here.
    ///
    /// # Errors
    /// The first failure; what other operations do not wait for is cancelled then.
    pub(super) fn pull_layers(
        &self,
        repository: &Reference,
        layers: &[(LayerBlob, DiffId)],
        login: &Login,
        progress: &dyn ProgressSink,
        cancel: &Cancel,
    ) -> Result<(), ImageError> {
        let mut shown = Shown { progress, names: Vec::new(), rows: Vec::new(), next: 0 };
        let mut missing: Vec<(usize, &(LayerBlob, DiffId))> = Vec::new();
        let mut first: HashMap<&DiffId, usize> = HashMap::new();
        for (number, layer) in layers.iter().enumerate() {
            shown.names.push(layer.0.descriptor.digest.short().to_owned());
            let is_here = self.store().layer(&layer.1)?.is_some();
            let again = first.contains_key(&layer.1);
            first.entry(&layer.1).or_insert(number);
            shown.rows.push(if is_here || again { Row::Present } else { Row::Coming });
            shown.say(number, if is_here || again { "Already exists" } else { "Pulling fs layer" }, None);
            if !is_here && !again {
                missing.push((number, layer));
            }
        }
        missing.sort_by_key(|(_, (blob, _))| std::cmp::Reverse(blob.descriptor.size));
        let mut seats: Vec<Seat> = Vec::new();
        for (_, (blob, diff_id)) in &missing {
            let work = Work {
                store: Arc::clone(&self.store),
                client: self.client()?.clone(),
                permits: Arc::clone(&self.permits),
                login: login.clone(),
                repository: repository.clone(),
                blob: blob.clone(),
                diff_id: diff_id.clone(),
            };
            seats.push(self.flights.join(&key(blob, diff_id), move |reporter, cancel| work.run(reporter, cancel))?);
        }
        let done = self.flights.wait(&mut seats, cancel, |seat, step| shown.step(missing[seat].0, step));
        // Those that nobody else waits for are cancelled, and have ended.
        drop(seats);
        if done.as_ref().is_err_and(|error| !error.may_pass()) {
            for (_, (blob, diff_id)) in &missing {
                if !self.flights.is_under_way(&key(blob, diff_id)) {
                    discard(self.store(), &self.store().partial(&blob.descriptor.digest, diff_id));
                }
            }
        }
        done
    }
}

fn key(blob: &LayerBlob, diff_id: &DiffId) -> String {
    format!("{} {diff_id}", blob.descriptor.digest)
}

/// The layers as their operation reports them: what is complete is said from the lowest on, as the original does.
struct Shown<'a> {
    progress: &'a dyn ProgressSink,
    names: Vec<String>,
    rows: Vec<Row>,
    next: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Row {
    Present,
    Coming,
    Complete,
}

impl Shown<'_> {
    fn say(&self, number: usize, status: &str, bytes: Option<(u64, u64)>) {
        let (current, total) = bytes.unzip();
        self.progress.report(Progress::Part { id: self.names[number].clone(), status: status.into(), current, total });
    }

    fn step(&mut self, number: usize, step: Step) {
        if step.status != COMPLETE {
            return self.say(number, &step.status, step.bytes);
        }
        self.rows[number] = Row::Complete;
        while let Some(row) = self.rows.get(self.next).filter(|row| **row != Row::Coming) {
            if *row == Row::Complete {
                self.say(self.next, COMPLETE, None);
            }
            self.next += 1;
        }
    }
}

const COMPLETE: &str = "Pull complete";

fn plain(status: impl Into<Cow<'static, str>>) -> Step {
    Step { status: status.into(), bytes: None }
}

/// How a pause before another try is shown.
pub(crate) fn retrying(seconds: u64) -> String {
    format!("Retrying in {seconds} second{}", if seconds == 1 { "" } else { "s" })
}

impl Work {
    fn run(&self, reporter: &Reporter, cancel: &Cancel) -> Result<(), ImageError> {
        let _permit = self.permits.take(cancel, || reporter.report(plain("Waiting")))?;
        // Another image may have brought it meanwhile.
        if self.store.layer(&self.diff_id)?.is_none() {
            let folder = self.store.staging().map_err(ImageError::io("make a staging folder"))?;
            let result = self.fetch(&folder, reporter, cancel);
            if let Err(error) = self.store.discard(&folder) {
                tracing::warn!(%error, "cannot remove a staging folder");
            }
            result?;
        }
        reporter.report(plain(COMPLETE));
        Ok(())
    }

    /// Fetches, unpacks and publishes. What came stays as a partial download when that fails for a reason that may pass.
    fn fetch(&self, folder: &Path, reporter: &Reporter, cancel: &Cancel) -> Result<(), ImageError> {
        let descriptor = &self.blob.descriptor;
        let partial = self.store.partial(&descriptor.digest, &self.diff_id);
        let mut resumed = false;
        let mut done = self.attempt(&partial, &folder.join("layer"), &mut resumed, reporter, cancel);
        if resumed && matches!(done, Err(ImageError::Registry(_))) {
            // What lay here may have been damaged: once more from the beginning.
            discard(&self.store, &partial);
            done = self.attempt(&partial, &folder.join("again"), &mut resumed, reporter, cancel);
        }
        let place = folder.join(if folder.join("again").exists() { "again" } else { "layer" });
        let published = done.and_then(|unpacked| {
            std::fs::hard_link(&partial, place.join("blob")).map_err(ImageError::io("keep a layer's blob"))?;
            let blob = NewBlob { digest: descriptor.digest.clone(), media_type: descriptor.media_type.clone(), size: descriptor.size };
            self.store
                .publish_pulled_layer(&self.diff_id, &place, (unpacked.size, unpacked.content), &blob)
                .map_err(ImageError::io(format!("publish layer {}", self.diff_id)))?;
            Ok(())
        });
        if !published.as_ref().is_err_and(|error| error.may_pass() && !error.is_disk_full()) {
            discard(&self.store, &partial);
        }
        published
    }

    fn attempt(
        &self,
        partial: &Path,
        place: &Path,
        resumed: &mut bool,
        reporter: &Reporter,
        cancel: &Cancel,
    ) -> Result<Unpacked, ImageError> {
        let fs = place.join("fs");
        std::fs::create_dir_all(&fs).map_err(ImageError::io("make a layer's folder"))?;
        let descriptor = &self.blob.descriptor;
        let open = || -> std::io::Result<(File, u64)> {
            let file = File::options().read(true).append(true).create(true).open(partial)?;
            let here = file.metadata()?.len();
            if here > descriptor.size {
                file.set_len(0)?;
                return Ok((file, 0));
            }
            Ok((file, here))
        };
        let (mut file, here) = open().map_err(ImageError::io("open a partial download"))?;
        file.rewind().map_err(ImageError::io("open a partial download"))?;
        *resumed = here > 0;
        let gauge = Gauge::default();
        let meter = Meter { gauge: &gauge, size: descriptor.size, reporter, last: Mutex::new(None) };
        let told = reporter.clone();
        let client = self.client.telling(move |seconds| told.report(plain(retrying(seconds))));
        let ask = |offset: u64| -> Result<Box<dyn Read + Send>, ImageError> {
            let reader = if self.blob.urls.is_empty() {
                client.blob(&self.repository, descriptor, offset, &self.login, cancel)
            } else {
                client.foreign_blob(&self.blob.urls, descriptor, offset, cancel)
            };
            Ok(Box::new(reader.map_err(cancelled)?))
        };
        let blob =
            Blob { digest: &descriptor.digest, size: descriptor.size, file: &file, open: &ask, gauge: &gauge, tick: &|| meter.tick() };
        pipeline::run(&blob, &self.diff_id, &fs, cancel)
    }
}

pub(crate) fn cancelled(error: sampan_transfer::TransferError) -> ImageError {
    match error {
        sampan_transfer::TransferError::Cancelled => ImageError::Cancelled,
        other => other.into(),
    }
}

fn discard(store: &Store, path: &Path) {
    if let Err(error) = store.discard(path) {
        tracing::warn!(path = %path.display(), %error, "cannot remove a partial download");
    }
}

/// Reports how far a layer is, not too often; the end of the download at once.
struct Meter<'a> {
    gauge: &'a Gauge,
    size: u64,
    reporter: &'a Reporter,
    /// When the last report was; `None` before the first.
    last: Mutex<Option<Instant>>,
}

impl Meter<'_> {
    fn tick(&self) {
        let fetched = self.gauge.fetched.load(Ordering::Relaxed);
        if fetched >= self.size {
            self.reporter.report(plain("Verifying Checksum"));
            self.reporter.report(plain("Download complete"));
            let unpacked = self.gauge.unpacked.load(Ordering::Relaxed);
            return self.reporter.report(Step { status: "Extracting".into(), bytes: Some((unpacked, self.size)) });
        }
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_none_or(|last| last.elapsed() >= TICK) {
            *last = Some(Instant::now());
            self.reporter.report(Step { status: "Downloading".into(), bytes: Some((fetched, self.size)) });
        }
    }
}
