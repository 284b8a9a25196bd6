//! One layer on its way in: bytes of a blob ▸ {digest, file} ∥ inflate ▸ {digest of the archive} ∥ {files}.
//!
//! Each arrow is a bounded queue, so that a layer takes a few MiB of memory whatever its size. Both digests are known before
//! anything is published; until then all lies in a staging folder and in the partial download.

use std::fs::File;
use std::io::{self, BufReader, Read, Write as _};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use sampan_archive::{Decompress, Hasher};
use sampan_base::Cancel;
use sampan_layers::{ExtractError, Mode, extract};
use sampan_oci::{DiffId, Digest};

use crate::ImageError;

/// Bytes of one piece of a blob.
const PIECE: usize = 256 * 1024;
/// Pieces of the blob under way.
const PIECES: usize = 12;
/// Bytes of one chunk of the archive.
const CHUNK: usize = 512 * 1024;
/// Chunks under way to each of the two readers.
const CHUNKS: usize = 6;

/// What a layer turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unpacked {
    /// Bytes of its archive.
    pub(crate) size: u64,
    /// Bytes of its files.
    pub(crate) content: u64,
}

/// How far a layer is, for whoever watches.
#[derive(Debug, Default)]
pub(crate) struct Gauge {
    /// Bytes of the blob that are here.
    pub(crate) fetched: AtomicU64,
    /// Bytes of the blob that are unpacked.
    pub(crate) unpacked: AtomicU64,
}

/// Where a blob's bytes come from and where they stay.
pub(crate) struct Blob<'a> {
    pub(crate) digest: &'a Digest,
    pub(crate) size: u64,
    /// The partial download, open for reading and appending.
    pub(crate) file: &'a File,
    /// Opens the registry's bytes from an offset.
    pub(crate) open: &'a dyn Fn(u64) -> Result<Box<dyn Read + Send>, ImageError>,
    pub(crate) gauge: &'a Gauge,
    /// Called now and then while bytes come.
    pub(crate) tick: &'a dyn Fn(),
}

/// The bytes are not those of the digest: the partial download is worth nothing.
pub(crate) fn wrong_blob(digest: &Digest) -> ImageError {
    ImageError::Registry(format!("filesystem layer verification failed for digest {digest}"))
}

/// Fetches a blob and unpacks it into `fs`.
///
/// # Errors
/// Everything that can be wrong; what lies in `fs` is the caller's to remove then.
pub(crate) fn run(blob: &Blob<'_>, diff_id: &DiffId, fs: &Path, cancel: &Cancel) -> Result<Unpacked, ImageError> {
    let directory = File::open(fs).map_err(ImageError::io("open a layer's folder"))?;
    let hopeless = AtomicBool::new(false);
    let taken = &blob.gauge.unpacked;
    std::thread::scope(|scope| {
        let (to_inflate, pieces) = sync_channel::<Vec<u8>>(PIECES);
        let (to_hash, hashed) = sync_channel::<Arc<Vec<u8>>>(CHUNKS);
        let (to_files, chunks) = sync_channel::<Arc<Vec<u8>>>(CHUNKS);
        let inflating = spawn(scope, "inflate", move || inflate(Queue::new(pieces, taken), &to_hash, &to_files))?;
        let hashing = spawn(scope, "hash", move || {
            let mut hash = Hasher::like(&diff_id.0);
            hashed.iter().for_each(|chunk| hash.update(&chunk));
            hash.finish()
        })?;
        let hopeless = &hopeless;
        let files = spawn(scope, "files", move || {
            let unread = AtomicU64::new(0);
            let reader = BufReader::with_capacity(PIECE, Queue::new(chunks, &unread));
            let done = extract(reader, directory.as_fd(), Mode::Layer, cancel);
            if matches!(done, Err(ExtractError::Write { .. } | ExtractError::Cancelled)) {
                hopeless.store(true, Ordering::SeqCst);
            }
            done
        })?;
        let fetched = feed(blob, to_inflate, hopeless, cancel);
        let inflated = join(inflating)?;
        let (tar, files) = (join(hashing)?, join(files)?);
        // Files first when the disk is the reason; else the blob, as all that follows may be wrong because it is.
        match (files, fetched) {
            (Err(ExtractError::Cancelled), _) => Err(ImageError::Cancelled),
            (Err(error @ ExtractError::Write { .. }), _) => Err(ImageError::Register(error)),
            (_, Err(error)) => Err(error),
            (files, Ok(())) => {
                let (size, content) = match (inflated, files) {
                    // The stream ended because nobody took it.
                    (Err(stream), Err(files)) if stream.kind() == io::ErrorKind::BrokenPipe => return Err(ImageError::Register(files)),
                    (Err(stream), _) => return Err(bad_stream(blob.digest, &stream)),
                    (Ok(_), Err(files)) => return Err(ImageError::Register(files)),
                    (Ok(size), Ok(files)) => (size, files.content),
                };
                if tar == diff_id.0.as_str() { Ok(Unpacked { size, content }) } else { Err(mismatch()) }
            }
        }
    })
}

/// The manifest and the config speak of different images.
pub(crate) fn mismatch() -> ImageError {
    ImageError::Registry("layers from manifest don't match image configuration".into())
}

fn bad_stream(digest: &Digest, error: &io::Error) -> ImageError {
    ImageError::Registry(format!("failed to register layer: cannot decompress {digest}: {error}"))
}

fn spawn<'scope, T: Send + 'scope>(
    scope: &'scope std::thread::Scope<'scope, '_>,
    name: &str,
    work: impl FnOnce() -> T + Send + 'scope,
) -> Result<std::thread::ScopedJoinHandle<'scope, T>, ImageError> {
    let builder = std::thread::Builder::new().name(name.to_owned()).stack_size(1 << 20);
    builder.spawn_scoped(scope, work).map_err(ImageError::io("start a thread"))
}

fn join<T>(handle: std::thread::ScopedJoinHandle<'_, T>) -> Result<T, ImageError> {
    handle.join().map_err(|_| ImageError::Invalid("a thread of the download ended early".into()))
}

/// Reads what is here of the blob, then the rest from the registry; hashes all, keeps the new, and passes everything on. Where
/// nobody takes it any more it goes on, unless that is hopeless: only the whole blob tells whether it is the right one.
fn feed(blob: &Blob<'_>, to_inflate: SyncSender<Vec<u8>>, hopeless: &AtomicBool, cancel: &Cancel) -> Result<(), ImageError> {
    let mut hash = Hasher::like(blob.digest);
    let mut to_inflate = Some(to_inflate);
    let mut pass = |piece: Vec<u8>| {
        hash.update(&piece);
        let count = piece.len() as u64;
        if to_inflate.as_ref().is_some_and(|queue| queue.send(piece).is_err()) {
            to_inflate = None;
        }
        blob.gauge.fetched.fetch_add(count, Ordering::Relaxed);
        (blob.tick)();
        if cancel.is_cancelled() || hopeless.load(Ordering::SeqCst) { Err(ImageError::Cancelled) } else { Ok(()) }
    };
    let mut file = blob.file;
    let mut here = 0;
    loop {
        let mut bytes = Vec::with_capacity(PIECE);
        file.take(PIECE as u64).read_to_end(&mut bytes).map_err(ImageError::io("read a partial download"))?;
        if bytes.is_empty() {
            break;
        }
        here += bytes.len() as u64;
        pass(bytes)?;
    }
    if here < blob.size {
        let mut source = (blob.open)(here)?;
        loop {
            let mut bytes = Vec::with_capacity(PIECE);
            let read = source.by_ref().take(PIECE as u64).read_to_end(&mut bytes);
            if bytes.is_empty() && read.is_ok() {
                break;
            }
            here += bytes.len() as u64;
            if here > blob.size {
                return Err(wrong_blob(blob.digest));
            }
            // What came before it broke is kept for the next try.
            file.write_all(&bytes).map_err(ImageError::io("write a partial download"))?;
            read.map_err(broken(cancel))?;
            pass(bytes)?;
        }
    }
    drop(to_inflate);
    if here == blob.size && hash.finish() == blob.digest.as_str() { Ok(()) } else { Err(wrong_blob(blob.digest)) }
}

/// A transfer that broke: the reason in the registry client's words.
fn broken(cancel: &Cancel) -> impl FnOnce(io::Error) -> ImageError + '_ {
    move |error| {
        if cancel.is_cancelled() {
            return ImageError::Cancelled;
        }
        match error.downcast::<sampan_transfer::TransferError>() {
            Ok(sampan_transfer::TransferError::Cancelled) => ImageError::Cancelled,
            Ok(error) => error.into(),
            Err(source) => ImageError::Io { action: "download a layer".into(), source },
        }
    }
}

/// Decompresses into chunks for both readers. One that went away is left out; without any it ends.
fn inflate(pieces: Queue<'_, Vec<u8>>, to_hash: &SyncSender<Arc<Vec<u8>>>, to_files: &SyncSender<Arc<Vec<u8>>>) -> io::Result<u64> {
    let mut reader = Decompress::new(pieces)?;
    let mut total = 0;
    loop {
        let mut chunk = Vec::with_capacity(CHUNK);
        reader.by_ref().take(CHUNK as u64).read_to_end(&mut chunk)?;
        if chunk.is_empty() {
            return Ok(total);
        }
        total += chunk.len() as u64;
        let chunk = Arc::new(chunk);
        if to_files.send(Arc::clone(&chunk)).is_err() {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        drop(to_hash.send(chunk));
    }
}

/// A queue of pieces as a stream; counts what was taken from it.
struct Queue<'a, T> {
    pieces: Receiver<T>,
    present: Option<T>,
    at: usize,
    taken: &'a AtomicU64,
}

impl<'a, T> Queue<'a, T> {
    fn new(pieces: Receiver<T>, taken: &'a AtomicU64) -> Self {
        Self { pieces, present: None, at: 0, taken }
    }
}

/// What holds bytes: a piece, or a chunk that two readers share.
trait Bytes {
    fn bytes(&self) -> &[u8];
}

impl Bytes for Vec<u8> {
    fn bytes(&self) -> &[u8] {
        self
    }
}

impl Bytes for Arc<Vec<u8>> {
    fn bytes(&self) -> &[u8] {
        self
    }
}

impl<T: Bytes> Read for Queue<'_, T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Some(present) = &self.present {
                let rest = &present.bytes()[self.at..];
                if !rest.is_empty() {
                    let count = buffer.len().min(rest.len());
                    buffer[..count].copy_from_slice(&rest[..count]);
                    self.at += count;
                    self.taken.fetch_add(count as u64, Ordering::Relaxed);
                    return Ok(count);
                }
            }
            match self.pieces.recv() {
                Err(_) => return Ok(0),
                Ok(piece) => (self.present, self.at) = (Some(piece), 0),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Seek as _;

    use sampan_archive::gzip_members;
    use sampan_archive::tar::{Header, Kind, Writer};

    use super::*;

    fn archive(content: &[u8]) -> Vec<u8> {
        let mut writer = Writer::new(Vec::new());
        let mut header = Header::new(Kind::File, "file");
        header.size = content.len() as u64;
        (header.uid, header.gid) = owner();
        writer.append(&header, &mut &content[..]).unwrap();
        writer.finish().unwrap()
    }

    /// An owner that whoever runs the test may give.
    fn owner() -> (u32, u32) {
        let own = std::fs::metadata("/proc/self").unwrap();
        (std::os::unix::fs::MetadataExt::uid(&own), std::os::unix::fs::MetadataExt::gid(&own))
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        gzip_members(bytes, &mut out, 2).unwrap();
        out
    }

    /// Runs a layer whose first bytes are here already; says what it became, which offset was asked for, and what is kept.
    fn fetch(sent: &[u8], here: &[u8], digest: &Digest, diff_id: &DiffId) -> (Result<Unpacked, String>, Option<u64>, usize) {
        let folder = tempfile::tempdir().unwrap();
        let mut file = File::options().read(true).append(true).create(true).open(folder.path().join("blob")).unwrap();
        file.write_all(here).unwrap();
        file.rewind().unwrap();
        let offset = std::sync::Mutex::new(None);
        let open = |at: u64| {
            *offset.lock().unwrap() = Some(at);
            let rest = sent[usize::try_from(at).unwrap()..].to_vec();
            Ok(Box::new(io::Cursor::new(rest)) as Box<dyn Read + Send>)
        };
        let gauge = Gauge::default();
        let blob = Blob { digest, size: sent.len() as u64, file: &file, open: &open, gauge: &gauge, tick: &|| {} };
        let fs = folder.path().join("fs");
        std::fs::create_dir(&fs).unwrap();
        let result = run(&blob, diff_id, &fs, &Cancel::new()).map_err(|error| error.to_string());
        let asked = *offset.lock().unwrap();
        (result, asked, usize::try_from(file.metadata().unwrap().len()).unwrap())
    }

    #[test]
    fn a_layer_comes_whole_or_from_where_it_stopped() {
        let content: Vec<u8> = (0..3_000_000_u32).flat_map(|number| number.wrapping_mul(number).to_le_bytes()).collect();
        let tar = archive(&content);
        let blob = gzip(&tar);
        let (digest, diff_id) = (Digest::sha256_of(&blob), DiffId(Digest::sha256_of(&tar)));
        for here in [0, 1, PIECE, blob.len() / 2, blob.len()] {
            let (result, asked, kept) = fetch(&blob, &blob[..here], &digest, &diff_id);
            let unpacked = result.unwrap();
            assert_eq!((unpacked.size, unpacked.content), (tar.len() as u64, content.len() as u64));
            assert_eq!((asked, kept), ((here < blob.len()).then_some(here as u64), blob.len()), "from {here}");
        }
        let zstd = zstd_of(&tar);
        assert!(fetch(&zstd, &[], &Digest::sha256_of(&zstd), &diff_id).0.is_ok());
        assert!(fetch(&tar, &[], &diff_id.0, &diff_id).0.is_ok(), "not compressed at all");
    }

    fn zstd_of(bytes: &[u8]) -> Vec<u8> {
        // A frame of raw blocks: the format without its compression.
        let mut out = vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x58];
        let mut blocks = bytes.chunks(64 << 10).peekable();
        while let Some(block) = blocks.next() {
            let head = (u32::try_from(block.len()).unwrap() << 3) | u32::from(blocks.peek().is_none());
            out.extend_from_slice(&head.to_le_bytes()[..3]);
            out.extend_from_slice(block);
        }
        out
    }

    #[test]
    fn lies_are_found_out() {
        let tar = archive(&vec![9; 2_000_000]);
        let blob = gzip(&tar);
        let (digest, diff_id) = (Digest::sha256_of(&blob), DiffId(Digest::sha256_of(&tar)));
        let other = Digest::sha256_of(b"other");
        let error = |result: (Result<Unpacked, String>, Option<u64>, usize)| result.0.unwrap_err();
        assert_eq!(error(fetch(&blob, &[], &other, &diff_id)), format!("filesystem layer verification failed for digest {other}"));
        assert_eq!(error(fetch(&blob, &[], &digest, &DiffId(other.clone()))), "layers from manifest don't match image configuration");
        let mut damaged = blob.clone();
        damaged[blob.len() / 2] ^= 0x55;
        assert!(
            error(fetch(&blob, &damaged[..blob.len() - 9], &digest, &diff_id)).contains("verification failed"),
            "a damaged partial file"
        );
        let garbage = vec![0x1f; 100_000];
        assert!(error(fetch(&garbage, &[], &digest, &diff_id)).contains("verification failed"), "the blob first, whatever it holds");
        assert!(error(fetch(&garbage, &[], &Digest::sha256_of(&garbage), &diff_id)).contains("failed to register layer"));
    }
}
