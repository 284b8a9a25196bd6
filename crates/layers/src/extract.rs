//! Extraction of archives into a directory, safe against hostile ones.
//!
//! Parents are opened with openat2 inside the root; the last name is made with `O_EXCL` and never followed. A path with `..` is
//! refused. In layer mode whiteouts take their overlay form and overlay's own attributes are dropped.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;

use rustix::fs::{AtFlags, FileType, Gid, OFlags, Timespec, Timestamps, Uid, XattrFlags};
use sampan_archive::tar::{Header, Kind, Reader, TarError};
use sampan_base::{Cancel, ErrorKind};
use sampan_sys::dir;

/// What whiteouts mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// An image layer: whiteouts become overlay's.
    Layer,
    /// Files as they are; directories and what is none never replace each other.
    Plain,
    /// Files as they are; what is in an entry's way goes.
    Over {
        /// Owner and group of everything, instead of the archive's.
        owner: Option<(u32, u32)>,
    },
}

/// What an extraction made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Extracted {
    /// Entries.
    pub entries: u64,
    /// Bytes of file content and of the targets of symbolic links: what the files' own sizes say.
    pub content: u64,
}

/// An extraction that failed. What it made so far is the caller's to remove.
#[derive(Debug, thiserror::Error)]
pub enum ExtractError {
    /// The archive is bad.
    #[error(transparent)]
    Tar(#[from] TarError),
    /// A path leads out.
    #[error("archive entry {0:?} has a path that leads out of its root")]
    Escape(String),
    /// An entry makes no sense.
    #[error("archive entry {path:?} is not acceptable: {reason}")]
    Refused {
        /// Its path.
        path: String,
        /// Why.
        reason: &'static str,
    },
    /// The disk or the kernel refused.
    #[error("write archive entry {path:?}")]
    Write {
        /// Its path.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is more than there is room for.
    #[error("the archive unpacks to more than {0}")]
    TooMuch(Quota),
    /// The caller gave up.
    #[error("operation cancelled")]
    Cancelled,
}

/// How much may be unpacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// Entries.
    pub entries: u64,
    /// Bytes of file content.
    pub content: u64,
    /// Whether that is what the disk has left; the text of an error then says so.
    pub of_disk: bool,
}

impl Quota {
    /// No limit but the disk's.
    pub const NONE: Self = Self { entries: u64::MAX, content: u64::MAX, of_disk: false };
}

impl std::fmt::Display for Quota {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let why = if self.of_disk { " (no space left on device)" } else { "" };
        write!(formatter, "{} files or {} MiB{why}", self.entries, self.content >> 20)
    }
}

impl sampan_base::Failure for ExtractError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Tar(TarError::Read { .. }) | Self::Write { .. } => ErrorKind::Internal,
            Self::Tar(TarError::Unsupported(_)) => ErrorKind::Unsupported,
            Self::Tar(_) | Self::Escape(_) | Self::Refused { .. } | Self::TooMuch(_) => ErrorKind::Invalid,
            Self::Cancelled => ErrorKind::Cancelled,
        }
    }
}

/// Most bytes of paths that are remembered until the end: an archive names a directory as often as it likes, and through its links in
/// as many ways.
const MOST_HELD: usize = 256 << 20;
/// How many open parents are remembered.
const PARENTS: usize = 64;

/// Extracts a whole archive.
///
/// # Errors
/// [`ExtractError`]; what was made stays, for the caller to remove.
pub fn extract(archive: impl Read, root: BorrowedFd<'_>, mode: Mode, cancel: &Cancel) -> Result<Extracted, ExtractError> {
    extract_within(archive, root, mode, Quota::NONE, cancel)
}

/// The same up to a limit: what unpacks to more ends early.
///
/// # Errors
/// As [`extract`].
pub fn extract_within(
    archive: impl Read,
    root: BorrowedFd<'_>,
    mode: Mode,
    quota: Quota,
    cancel: &Cancel,
) -> Result<Extracted, ExtractError> {
    let mut work = Extraction { quota, ..Extraction::new(root, mode) };
    let mut reader = Reader::new(archive);
    work.run(&mut reader, cancel)?;
    // The rest of the stream belongs to the digest.
    io::copy(&mut reader.into_inner().take(quota.content), &mut io::sink()).map_err(|source| TarError::Read { source })?;
    Ok(work.done)
}

struct Extraction<'a> {
    root: BorrowedFd<'a>,
    mode: Mode,
    quota: Quota,
    parents: HashMap<Vec<u8>, OwnedFd>,
    /// Their times are set last, deepest first.
    directories: BTreeMap<Vec<u8>, (i64, u32)>,
    opaque: HashSet<Vec<u8>>,
    /// Bytes of paths in both.
    held: usize,
    most_held: usize,
    done: Extracted,
    buffer: Vec<u8>,
}

fn shown(path: &[u8]) -> String {
    sampan_base::sanitize(&String::from_utf8_lossy(path))
}

fn write_error(path: &[u8]) -> impl Fn(io::Error) -> ExtractError + '_ {
    move |source| ExtractError::Write { path: shown(path), source }
}

fn split(path: &[u8]) -> (&[u8], &[u8]) {
    path.iter().rposition(|byte| *byte == b'/').map_or((&[], path), |slash| (&path[..slash], &path[slash + 1..]))
}

impl<'a> Extraction<'a> {
    fn new(root: BorrowedFd<'a>, mode: Mode) -> Self {
        Self {
            root,
            mode,
            quota: Quota::NONE,
            parents: HashMap::new(),
            directories: BTreeMap::new(),
            opaque: HashSet::new(),
            held: 0,
            most_held: MOST_HELD,
            done: Extracted::default(),
            buffer: vec![0; 128 * 1024],
        }
    }

    fn run<R: Read>(&mut self, reader: &mut Reader<R>, cancel: &Cancel) -> Result<(), ExtractError> {
        while let Some(mut header) = reader.next_entry()? {
            cancel.check().map_err(|_| ExtractError::Cancelled)?;
            self.done.entries += 1;
            // What an entry promises is not written first.
            if self.done.entries > self.quota.entries || header.size > self.quota.content.saturating_sub(self.done.content) {
                return Err(ExtractError::TooMuch(self.quota));
            }
            header.path = checked(&header.path)?;
            self.entry(&header, reader)?;
        }
        for (path, mtime) in std::mem::take(&mut self.directories).into_iter().rev() {
            let directory = dir::open_in(self.root, &path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW);
            // It may have been replaced by a later entry.
            if let Ok(directory) = directory {
                rustix::fs::futimens(&directory, &times(mtime)).map_err(|error| write_error(&path)(error.into()))?;
            }
        }
        Ok(())
    }

    fn entry<R: Read>(&mut self, header: &Header, reader: &mut Reader<R>) -> Result<(), ExtractError> {
        if header.path.is_empty() {
            if header.kind == Kind::Directory {
                let root = dir::open_in(self.root, b"", OFlags::RDONLY | OFlags::DIRECTORY).map_err(write_error(b"/"))?;
                self.attributes(&root, header).map_err(write_error(b"/"))?;
                self.directories.insert(Vec::new(), header.mtime);
            }
            return Ok(());
        }
        let (folder, name) = split(&header.path);
        let parent = self.parent(folder)?;
        if self.mode == Mode::Layer && name.starts_with(b".wh.") {
            return self.whiteout(header, folder, name, parent.as_fd());
        }
        self.make(header, name, parent.as_fd(), reader)
    }

    /// Counts a path that is remembered.
    fn hold(&mut self, path: &[u8]) -> Result<(), ExtractError> {
        self.held += path.len() + 64;
        if self.held <= self.most_held {
            return Ok(());
        }
        Err(ExtractError::Refused { path: shown(path), reason: "the paths of the archive's directories are too long together" })
    }

    /// The open parent of an entry; missing ones are made.
    fn parent(&mut self, folder: &[u8]) -> Result<OwnedFd, ExtractError> {
        if let Some(known) = self.parents.get(folder) {
            return known.try_clone().map_err(write_error(folder));
        }
        let opened = match dir::open_in(self.root, folder, OFlags::PATH | OFlags::DIRECTORY) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.make_parents(folder)?,
            other => other.map_err(write_error(folder))?,
        };
        if self.parents.len() >= PARENTS {
            self.parents.clear();
        }
        self.parents.insert(folder.to_vec(), opened.try_clone().map_err(write_error(folder))?);
        Ok(opened)
    }

    fn make_parents(&mut self, folder: &[u8]) -> Result<OwnedFd, ExtractError> {
        let mut done: Vec<u8> = Vec::new();
        let mut place = dir::open_in(self.root, b"", OFlags::PATH | OFlags::DIRECTORY).map_err(write_error(folder))?;
        let mut is_new = false;
        for part in folder.split(|byte| *byte == b'/') {
            if !done.is_empty() {
                done.push(b'/');
            }
            done.extend_from_slice(part);
            // Below one that was made here nothing is there yet, and no path is walked from the root again.
            if !is_new {
                match dir::open_in(self.root, &done, OFlags::PATH | OFlags::DIRECTORY) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => is_new = true,
                    other => {
                        place = other.map_err(write_error(&done))?;
                        continue;
                    }
                }
            }
            let part = OsStr::from_bytes(part);
            let mode = rustix::fs::Mode::from_raw_mode(0o755);
            rustix::fs::mkdirat(&place, part, mode).map_err(|error| write_error(&done)(error.into()))?;
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            place = rustix::fs::openat(&place, part, flags, mode).map_err(|error| write_error(&done)(error.into()))?;
        }
        Ok(place)
    }

    fn whiteout(&mut self, header: &Header, folder: &[u8], name: &[u8], parent: BorrowedFd<'_>) -> Result<(), ExtractError> {
        let fail = write_error(&header.path);
        if name == b".wh..wh..opq" {
            let directory =
                rustix::fs::openat(parent, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, rustix::fs::Mode::empty());
            let directory = directory.map_err(|error| fail(error.into()))?;
            rustix::fs::fsetxattr(&directory, crate::OPAQUE, b"y", XattrFlags::empty()).map_err(|error| fail(error.into()))?;
            return if self.opaque.insert(folder.to_vec()) { self.hold(folder) } else { Ok(()) };
        }
        let hidden = &name[4..];
        if hidden.is_empty() || hidden == b"." || hidden == b".." {
            return Err(ExtractError::Refused { path: shown(&header.path), reason: "a whiteout without a name" });
        }
        // Other marks of AUFS, and names that an opaque directory hides anyway.
        if hidden.starts_with(b".wh.") || self.opaque.contains(folder) {
            return Ok(());
        }
        let hidden = OsStr::from_bytes(hidden);
        match rustix::fs::mknodat(parent, hidden, FileType::CharacterDevice, rustix::fs::Mode::empty(), 0) {
            // An entry of the same layer wins over its own whiteout.
            Ok(()) | Err(rustix::io::Errno::EXIST) => Ok(()),
            Err(error) => Err(fail(error.into())),
        }
    }

    fn make<R: Read>(&mut self, header: &Header, name: &[u8], parent: BorrowedFd<'_>, reader: &mut Reader<R>) -> Result<(), ExtractError> {
        let fail = write_error(&header.path);
        let os = OsStr::from_bytes(name);
        if header.kind == Kind::Character && header.device == (0, 0) && self.mode == Mode::Layer {
            return Err(ExtractError::Refused { path: shown(&header.path), reason: "a device 0:0 would be a whiteout" });
        }
        self.clear(header, os, parent).map_err(&fail)?;
        match header.kind {
            Kind::Directory => {
                self.parents.remove(&header.path);
                match rustix::fs::mkdirat(parent, os, rustix::fs::Mode::from_raw_mode(0o700)) {
                    Ok(()) | Err(rustix::io::Errno::EXIST) => {}
                    Err(error) => return Err(fail(error.into())),
                }
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let made = rustix::fs::openat(parent, os, flags, rustix::fs::Mode::empty()).map_err(|error| fail(error.into()))?;
                self.attributes(&made, header).map_err(&fail)?;
                if self.directories.insert(header.path.clone(), header.mtime).is_none() {
                    self.hold(&header.path)?;
                }
            }
            Kind::File => {
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let made =
                    rustix::fs::openat(parent, os, flags, rustix::fs::Mode::from_raw_mode(0o600)).map_err(|error| fail(error.into()))?;
                let mut file = File::from(made);
                if let Err(error) = self.content(&mut file, reader, &header.path) {
                    // Half a file is worse than none.
                    let _best_effort = rustix::fs::unlinkat(parent, os, AtFlags::empty());
                    return Err(error);
                }
                let made = OwnedFd::from(file);
                self.attributes(&made, header).map_err(&fail)?;
                rustix::fs::futimens(&made, &times(header.mtime)).map_err(|error| fail(error.into()))?;
            }
            Kind::Hardlink => self.hardlink(header, os, parent)?,
            Kind::Symlink => {
                rustix::fs::symlinkat(OsStr::from_bytes(&header.link), parent, os).map_err(|error| fail(error.into()))?;
                self.done.content += header.link.len() as u64;
                self.attributes_by_name(header, os, parent).map_err(&fail)?;
            }
            Kind::Character | Kind::Block | Kind::Fifo => {
                let kind = match header.kind {
                    Kind::Character => FileType::CharacterDevice,
                    Kind::Block => FileType::BlockDevice,
                    _ => FileType::Fifo,
                };
                let device = rustix::fs::makedev(header.device.0, header.device.1);
                rustix::fs::mknodat(parent, os, kind, rustix::fs::Mode::from_raw_mode(0o600), device)
                    .map_err(|error| fail(error.into()))?;
                self.attributes_by_name(header, os, parent).map_err(&fail)?;
                dir::set_mode(parent, os, kind, header.mode).map_err(&fail)?;
            }
        }
        Ok(())
    }

    /// Makes room: a later entry of the same path wins, but a directory stays where a directory comes.
    fn clear(&mut self, header: &Header, name: &OsStr, parent: BorrowedFd<'_>) -> io::Result<()> {
        let present = match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(facts) => FileType::from_raw_mode(facts.st_mode),
            Err(rustix::io::Errno::NOENT) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        if present == FileType::Directory && header.kind == Kind::Directory {
            return Ok(());
        }
        if self.mode == Mode::Plain && (present == FileType::Directory || header.kind == Kind::Directory) {
            // A copy into a container replaces files by files only.
            let text = if present == FileType::Directory {
                "cannot overwrite a directory with a non-directory"
            } else {
                "cannot overwrite a non-directory with a directory"
            };
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, text));
        }
        self.parents.clear();
        // What is made anew in its place hides nothing.
        let is_gone = |path: &[u8]| path.strip_prefix(&header.path[..]).is_some_and(|rest| rest.is_empty() || rest[0] == b'/');
        self.opaque.retain(|folder| !is_gone(folder));
        let near = self.directories.range(header.path.clone()..).map(|(path, _)| path).take_while(|path| path.starts_with(&header.path));
        let gone: Vec<Vec<u8>> = near.filter(|path| is_gone(path)).cloned().collect();
        for path in &gone {
            self.directories.remove(path);
        }
        dir::remove_all(parent, name)
    }

    fn content<R: Read>(&mut self, file: &mut File, reader: &mut Reader<R>, path: &[u8]) -> Result<(), ExtractError> {
        loop {
            let count = match reader.read(&mut self.buffer) {
                Ok(0) => return Ok(()),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(TarError::Truncated.into()),
                Err(source) => return Err(TarError::Read { source }.into()),
            };
            io::Write::write_all(file, &self.buffer[..count]).map_err(write_error(path))?;
            self.done.content += count as u64;
        }
    }

    fn hardlink(&mut self, header: &Header, name: &OsStr, parent: BorrowedFd<'_>) -> Result<(), ExtractError> {
        let fail = write_error(&header.path);
        let target = checked(&header.link)?;
        let (folder, file) = split(&target);
        let missing = || ExtractError::Refused { path: shown(&header.path), reason: "a hard link to a file that is not in this archive" };
        let folder = dir::open_in(self.root, folder, OFlags::PATH | OFlags::DIRECTORY).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => missing(),
            _ => fail(error),
        })?;
        rustix::fs::linkat(&folder, OsStr::from_bytes(file), parent, name, AtFlags::empty()).map_err(|error| match error {
            rustix::io::Errno::NOENT => missing(),
            other => fail(other.into()),
        })
    }

    fn owner(&self, header: &Header) -> (Option<Uid>, Option<Gid>) {
        let (uid, gid) = match self.mode {
            Mode::Over { owner: Some(owner) } => owner,
            _ => (header.uid, header.gid),
        };
        (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
    }

    /// Owner, then mode, then attributes: in another order the kernel would clear some of them.
    fn attributes(&self, made: &OwnedFd, header: &Header) -> io::Result<()> {
        let (uid, gid) = self.owner(header);
        rustix::fs::fchown(made, uid, gid)?;
        rustix::fs::fchmod(made, rustix::fs::Mode::from_raw_mode(header.mode))?;
        for (name, value) in header.xattrs.iter().filter(|(name, _)| self.keeps(name)) {
            match rustix::fs::fsetxattr(made, name.as_str(), value, XattrFlags::empty()) {
                // A file system without this namespace of attributes loses it, as in the original.
                Ok(()) | Err(rustix::io::Errno::OPNOTSUPP) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// The same for what cannot be opened: links and special files. Their own extended attributes are left out.
    fn attributes_by_name(&self, header: &Header, name: &OsStr, parent: BorrowedFd<'_>) -> io::Result<()> {
        let (uid, gid) = self.owner(header);
        rustix::fs::chownat(parent, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(rustix::fs::utimensat(parent, name, &times(header.mtime), AtFlags::SYMLINK_NOFOLLOW)?)
    }

    fn keeps(&self, name: &str) -> bool {
        let overlay = name.starts_with("trusted.overlay.") || name.starts_with("user.overlay.");
        !overlay && (self.mode == Mode::Layer || !name.starts_with("trusted."))
    }
}

/// A path without a leading slash; `..` is refused.
fn checked(path: &[u8]) -> Result<Vec<u8>, ExtractError> {
    let parts: Vec<&[u8]> = path.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".").collect();
    if parts.contains(&&b".."[..]) {
        return Err(ExtractError::Escape(shown(path)));
    }
    if parts.iter().any(|part| part.len() > 255) {
        return Err(ExtractError::Refused { path: shown(path), reason: "a name of more than 255 bytes" });
    }
    Ok(parts.join(&b"/"[..]))
}

fn times((seconds, nanoseconds): (i64, u32)) -> Timestamps {
    let time = Timespec { tv_sec: seconds, tv_nsec: i64::from(nanoseconds) };
    Timestamps { last_access: time, last_modification: time }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;
    use std::path::Path;

    use sampan_archive::tar::Writer;

    use super::*;

    fn directory(path: String, seconds: i64) -> Header {
        let own = std::fs::metadata("/proc/self").unwrap();
        Header { uid: own.uid(), gid: own.gid(), mode: 0o755, mtime: (seconds, 0), ..Header::new(Kind::Directory, path) }
    }

    fn run(headers: &[Header], root: &Path, most_held: usize) -> Result<(), ExtractError> {
        let mut writer = Writer::new(Vec::new());
        headers.iter().for_each(|header| writer.append(header, &mut &b""[..]).unwrap());
        let bytes = writer.finish().unwrap();
        let root = dir::open(root).unwrap();
        Extraction { most_held, ..Extraction::new(root.as_fd(), Mode::Plain) }.run(&mut Reader::new(&bytes[..]), &Cancel::new())
    }

    #[test]
    fn what_is_remembered_of_directories_has_a_limit() {
        let folder = tempfile::tempdir().unwrap();
        let long = "x".repeat(200);
        // The same name as often as one likes; the last time counts.
        let again: Vec<Header> = (0..100).map(|number| directory(long.clone(), number)).collect();
        run(&again, folder.path(), 1000).unwrap();
        assert_eq!(std::fs::metadata(folder.path().join(&long)).unwrap().mtime(), 99);
        // One directory under many names: through a link to itself.
        std::os::unix::fs::symlink(".", folder.path().join("l")).unwrap();
        let aliases: Vec<Header> = (0..40).map(|number| directory(format!("{}{long}", "l/".repeat(number)), 1)).collect();
        assert!(matches!(run(&aliases, folder.path(), 1000), Err(ExtractError::Refused { .. })));
        run(&aliases, folder.path(), 1 << 20).unwrap();
    }

    #[test]
    fn missing_parents_of_any_depth_are_made() {
        let folder = tempfile::tempdir().unwrap();
        run(&[directory(format!("a{}", "/b".repeat(1500)), 7)], folder.path(), 1 << 20).unwrap();
        let deep = format!("a{}", "/b".repeat(1500));
        assert_eq!(std::fs::metadata(folder.path().join(deep)).unwrap().mtime(), 7);
        let root = dir::open(folder.path()).unwrap();
        dir::remove_all(root.as_fd(), OsStr::new("a")).unwrap();
    }
}
