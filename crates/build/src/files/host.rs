//! A context that is a folder of this machine, handed over by descriptor: nothing is copied, ignored files are not looked at, and
//! what was hashed before is known by its inode and its times.
//!
//! The index trusts a file whose change time lies well before the moment it was hashed, as git does. The folder may change while
//! it is read: who copies from it compares digests afterwards.
//!
//! Whatever is looked at is looked at as the user who handed the folder over ([`Reader::look`]): what that user may not read is not
//! read. So there is one index for each user, and a file is opened even where its hash is known.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{AtFlags, FileType, OFlags, Stat};
use sampan_gotext::ignore::Ignore;
use sampan_sys::dir;
use sampan_sys::user::Reader;

use super::source::{Node, NodeKind, Source, hash, join};

/// A file whose change is younger than this when it is hashed may change again without a trace: nanoseconds.
const RACY: i128 = 2_000_000_000;
/// Bytes of an entry of the index.
const RECORD: usize = 72;
/// Most entries of an index.
const MOST: usize = 1_000_000;

/// What tells that a file is the same: device, inode, change time, modification time (nanoseconds), size.
type Stamp = [u64; 5];

fn nanoseconds(seconds: i64, part: u64) -> u64 {
    seconds.cast_unsigned().wrapping_mul(1_000_000_000).wrapping_add(part)
}

fn stamp(stat: &Stat) -> Stamp {
    [
        stat.st_dev,
        stat.st_ino,
        nanoseconds(stat.st_ctime, stat.st_ctime_nsec),
        nanoseconds(stat.st_mtime, stat.st_mtime_nsec),
        u64::try_from(stat.st_size).unwrap_or(0),
    ]
}

/// Hashes of files by their stamps, kept between builds.
#[derive(Debug, Default)]
struct Index {
    known: HashMap<Stamp, [u8; 32]>,
    /// What this build asked for: the others go.
    used: HashMap<Stamp, [u8; 32]>,
    is_new: bool,
}

/// Reads an index; one that is damaged is empty.
fn load(path: &Path) -> HashMap<Stamp, [u8; 32]> {
    let Ok(bytes) = std::fs::read(path) else { return HashMap::new() };
    let Some(split) = bytes.len().checked_sub(32) else { return HashMap::new() };
    let (records, sum) = bytes.split_at(split);
    if blake3::hash(records).as_bytes() != sum || records.len() > RECORD * MOST {
        return HashMap::new();
    }
    let one = |record: &[u8]| {
        let mut stamp = [0; 5];
        for (number, word) in stamp.iter_mut().zip(record.chunks_exact(8)) {
            *number = u64::from_le_bytes(word.try_into().ok()?);
        }
        Some((stamp, record[40..].try_into().ok()?))
    };
    records.chunks_exact(RECORD).filter_map(one).collect()
}

/// A folder of the host.
#[derive(Debug)]
pub(crate) struct HostTree {
    root: OwnedFd,
    reader: Reader,
    /// Where the folder is: what links lead to is known by its path.
    place: Vec<u8>,
    ignore: Ignore,
    index: Mutex<Index>,
    file: PathBuf,
}

fn real_path(place: &OwnedFd) -> io::Result<Vec<u8>> {
    Ok(rustix::fs::readlink(format!("/proc/self/fd/{}", place.as_raw_fd()), Vec::new())?.into_bytes())
}

impl HostTree {
    /// A folder as a user sees it; its index is kept in a folder of ours.
    pub(crate) fn open(root: OwnedFd, reader: Reader, indexes: &Path) -> io::Result<Self> {
        if FileType::from_raw_mode(rustix::fs::fstat(&root)?.st_mode) != FileType::Directory {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        let place = real_path(&root)?;
        let mut key = place.clone();
        if !reader.is_root() {
            key.extend_from_slice(format!("\0{}", reader.uid()).as_bytes());
        }
        let file = indexes.join(blake3::hash(&key).to_hex().as_str());
        let index = Mutex::new(Index { known: load(&file), ..Index::default() });
        Ok(Self { root, reader, place, ignore: Ignore::default(), index, file })
    }

    /// Leaves out what patterns of `.dockerignore` match.
    pub(crate) fn with_ignore(self, ignore: Ignore) -> Self {
        Self { ignore, ..self }
    }

    /// Keeps what was hashed for the next build.
    pub(crate) fn save(&self) -> io::Result<()> {
        let index = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        if !index.is_new {
            return Ok(());
        }
        let mut bytes = Vec::with_capacity((index.used.len() + 1) * RECORD);
        for (stamp, hash) in index.used.iter().take(MOST) {
            stamp.iter().for_each(|number| bytes.extend_from_slice(&number.to_le_bytes()));
            bytes.extend_from_slice(hash);
        }
        let sum = *blake3::hash(&bytes).as_bytes();
        bytes.extend_from_slice(&sum);
        let new = self.file.with_extension(std::process::id().to_string());
        std::fs::write(&new, bytes)?;
        std::fs::rename(&new, &self.file)
    }

    fn is_left_out(&self, path: &[u8], directory: bool) -> io::Result<bool> {
        if self.ignore.is_empty() || path.is_empty() {
            return Ok(false);
        }
        let shown = String::from_utf8_lossy(path);
        if !self.ignore.matches(&shown) {
            return Ok(false);
        }
        // An ignored folder comes along only with something in it that does.
        Ok(!(directory && self.ignore.may_include_below(&shown) && self.has_included(path)?))
    }

    fn has_included(&self, path: &[u8]) -> io::Result<bool> {
        for (name, directory) in self.names(path)? {
            if !self.is_left_out(&join(path, &name), directory)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Names in a directory, and which are directories.
    fn names(&self, path: &[u8]) -> io::Result<Vec<(Vec<u8>, bool)>> {
        let folder = dir::open_plain_in(self.root.as_fd(), path, OFlags::RDONLY | OFlags::DIRECTORY)?;
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(&folder)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.push((name.to_vec(), entry.file_type() == FileType::Directory));
            }
        }
        names.sort();
        Ok(names)
    }

    fn node(&self, path: Vec<u8>, stat: &Stat) -> io::Result<Option<Node>> {
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => NodeKind::File,
            FileType::Directory => NodeKind::Directory,
            FileType::Symlink => NodeKind::Symlink,
            FileType::Fifo => NodeKind::Fifo,
            // Sockets and devices are no part of a context.
            _ => return Ok(None),
        };
        if self.is_left_out(&path, kind == NodeKind::Directory)? {
            return Ok(None);
        }
        let link = if kind == NodeKind::Symlink {
            rustix::fs::readlinkat(&self.root, OsStr::from_bytes(&path), Vec::new())?.into_bytes()
        } else {
            Vec::new()
        };
        Ok(Some(Node {
            path,
            kind,
            mode: stat.st_mode & 0o7777,
            uid: 0,
            gid: 0,
            size: if kind == NodeKind::File { u64::try_from(stat.st_size).unwrap_or(0) } else { 0 },
            // As in the archives that clients send.
            mtime: (stat.st_mtime, 0),
            link,
            xattrs: Vec::new(),
            identity: None,
            device: 0,
        }))
    }
}

impl Source for HostTree {
    fn find(&self, path: &[u8], follow: bool) -> io::Result<Option<Node>> {
        let _look = self.reader.look()?;
        let flags = if follow { OFlags::PATH } else { OFlags::PATH | OFlags::NOFOLLOW };
        let place = match dir::open_in(self.root.as_fd(), path, flags) {
            Ok(place) => place,
            Err(error) if matches!(error.raw_os_error(), Some(2 | 20 | 40)) => return Ok(None),
            Err(error) => return Err(error),
        };
        let real = real_path(&place)?;
        let Some(below) = real.strip_prefix(self.place.as_slice()) else { return Ok(None) };
        let below = below.strip_prefix(b"/").unwrap_or(below).to_vec();
        self.node(below, &rustix::fs::fstat(&place)?)
    }

    fn children(&self, directory: &Node) -> io::Result<Vec<Node>> {
        let _look = self.reader.look()?;
        let folder = dir::open_plain_in(self.root.as_fd(), &directory.path, OFlags::RDONLY | OFlags::DIRECTORY)?;
        let mut out = Vec::new();
        for (name, _) in self.names(&directory.path)? {
            let stat = match rustix::fs::statat(&folder, OsStr::from_bytes(&name), AtFlags::SYMLINK_NOFOLLOW) {
                // Gone meanwhile.
                Err(rustix::io::Errno::NOENT) => continue,
                other => other?,
            };
            out.extend(self.node(join(&directory.path, &name), &stat)?);
        }
        Ok(out)
    }

    fn open(&self, file: &Node) -> io::Result<File> {
        let _look = self.reader.look()?;
        let (folder, name) = super::source::split(&file.path);
        let folder = dir::open_plain_in(self.root.as_fd(), folder, OFlags::PATH | OFlags::DIRECTORY)?;
        Ok(dir::open_regular(folder.as_fd(), OsStr::from_bytes(name))?.into())
    }

    fn content(&self, file: &Node) -> io::Result<[u8; 32]> {
        let _look = self.reader.look()?;
        // Knowing a file from before is no right to it now.
        let opened = if self.reader.is_root() { None } else { Some(self.open(file)?) };
        let stat = rustix::fs::statat(&self.root, OsStr::from_bytes(&file.path), AtFlags::SYMLINK_NOFOLLOW)?;
        let lock = || self.index.lock().unwrap_or_else(PoisonError::into_inner);
        let before = stamp(&stat);
        {
            let mut index = lock();
            if let Some(known) = index.known.get(&before).copied() {
                index.used.insert(before, known);
                return Ok(known);
            }
        }
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |span| span.as_nanos());
        let open = opened.map_or_else(|| self.open(file), Ok)?;
        let same = stamp(&rustix::fs::fstat(&open)?) == before;
        let hash = hash(&open, before[4])?;
        let calm = i128::try_from(now).unwrap_or(0) - i128::from(before[2]) > RACY;
        if same && calm && stamp(&rustix::fs::fstat(&open)?) == before {
            let mut index = lock();
            index.is_new = true;
            index.known.insert(before, hash);
            index.used.insert(before, hash);
        }
        Ok(hash)
    }

    fn has_owners(&self) -> bool {
        false
    }

    fn is_live(&self) -> bool {
        true
    }
}
