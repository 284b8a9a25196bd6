//! A directory as the archive that engines take for a build's context. One pass over open directories, no path is resolved twice,
//! and no more is held than the names of the directories on the way.
//!
//! Entries stand in the order of their names, belong to root, have whole seconds; sockets stay behind. What is no part of this: which
//! directory and which Dockerfile (`source`), and how the archive gets to the engine.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::PathBuf;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use sampan_archive::tar::{Header, Kind, Writer};
use sampan_gotext::ignore::{Ignore, Level};

use crate::error::{CliError, Outcome, errno_text};

/// Deeper trees are refused: each level keeps a descriptor open.
const DEEPEST: usize = 512;
const IGNORE_FILE: &[u8] = b".dockerignore";

/// A Dockerfile that is not read from the context, under the name that it gets there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Added {
    pub(super) name: String,
    pub(super) content: Vec<u8>,
}

/// Which files of a directory go to the engine.
#[derive(Debug)]
pub(super) struct Selection {
    pub(super) root: PathBuf,
    pub(super) ignore: Ignore,
    /// A Dockerfile that is put in.
    pub(super) added: Option<Added>,
}

/// Writes the archive.
///
/// # Errors
/// Docker's texts for what cannot be read.
pub(super) fn write(selection: &Selection, sink: impl Write) -> Outcome<()> {
    let root = File::open(&selection.root).map_err(|error| CliError::file("open", selection.root.display(), &error))?;
    let mut walk = Walk { selection, out: Writer::new(sink), path: Vec::new(), links: HashMap::new(), ignore_file_sent: false };
    walk.tree(root.into())?;
    walk.finish()
}

/// A directory that is being walked: its descriptor, the names that are left (last first), the length of its path, its rules.
#[derive(Debug)]
struct Frame {
    folder: OwnedFd,
    names: Vec<OsString>,
    length: usize,
    level: Level,
}

struct Walk<'a, W: Write> {
    selection: &'a Selection,
    out: Writer<W>,
    /// The path of the entry at hand, relative to the root.
    path: Vec<u8>,
    /// Files with further names, by device and number.
    links: HashMap<(u64, u64), Vec<u8>>,
    ignore_file_sent: bool,
}

impl<W: Write> Walk<'_, W> {
    fn tree(&mut self, root: OwnedFd) -> Outcome<()> {
        let names = self.names(root.as_fd())?;
        let mut stack = vec![Frame { folder: root, names, length: 0, level: Level::default() }];
        while let Some(frame) = stack.last_mut() {
            let Some(name) = frame.names.pop() else {
                stack.pop();
                continue;
            };
            self.path.truncate(frame.length);
            if frame.length > 0 {
                self.path.push(b'/');
            }
            self.path.extend_from_slice(name.as_bytes());
            let depth = stack.len();
            if let Some(below) = stack.last().and_then(|frame| self.entry(frame, &name).transpose()) {
                if depth >= DEEPEST {
                    return Err(CliError::new(format!(
                        "checking context: more than {DEEPEST} directories in one another: {}",
                        self.shown()
                    )));
                }
                stack.push(below?);
            }
        }
        Ok(())
    }

    /// Sends an entry; gives the frame of a directory.
    fn entry(&mut self, frame: &Frame, name: &OsString) -> Outcome<Option<Frame>> {
        let ignore = &self.selection.ignore;
        let level = if ignore.is_empty() { Level::default() } else { ignore.enter(&frame.level, &String::from_utf8_lossy(&self.path)) };
        let ignored = level.ignored();
        // What stays behind is only looked at where it may be a directory with something to send.
        if ignored && !ignore.may_include_below(&String::from_utf8_lossy(&self.path)) {
            return Ok(None);
        }
        let stat = match rustix::fs::statat(&frame.folder, name.as_os_str(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(rustix::io::Errno::NOENT) => return Err(self.gone()),
            Err(error) => return Err(self.failed("lstat", error)),
        };
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind == FileType::Directory {
            if !ignored {
                let header = self.header(Kind::Directory, &stat);
                self.append(&header, &mut io::empty())?;
            }
            let folder = self.open(frame.folder.as_fd(), name, OFlags::DIRECTORY)?;
            let names = self.names(folder.as_fd())?;
            return Ok(Some(Frame { folder, names, length: self.path.len(), level }));
        }
        if ignored {
            return Ok(None);
        }
        self.leaf(frame, name, kind, &stat)?;
        Ok(None)
    }

    fn leaf(&mut self, frame: &Frame, name: &OsString, kind: FileType, stat: &Stat) -> Outcome<()> {
        let kind = match kind {
            FileType::RegularFile => return self.file(frame, name),
            FileType::Symlink => Kind::Symlink,
            FileType::CharacterDevice => Kind::Character,
            FileType::BlockDevice => Kind::Block,
            FileType::Fifo => Kind::Fifo,
            _ => {
                let shown = self.shown();
                drop(writeln!(io::stderr().lock(), "Can't add file {shown} to tar: archive/tar: sockets not supported"));
                return Ok(());
            }
        };
        let mut header = self.header(kind, stat);
        if kind == Kind::Symlink {
            let target = rustix::fs::readlinkat(&frame.folder, name.as_os_str(), Vec::new());
            header.link = target.map_err(|error| self.failed("readlink", error))?.into_bytes();
        }
        if matches!(kind, Kind::Character | Kind::Block) {
            header.device = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
        }
        self.append(&header, &mut io::empty())
    }

    fn file(&mut self, frame: &Frame, name: &OsString) -> Outcome<()> {
        let file = self.open(frame.folder.as_fd(), name, OFlags::NONBLOCK)?;
        // The descriptor's facts: the name may mean another file by now.
        let stat = rustix::fs::fstat(&file).map_err(|error| self.failed("stat", error))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(self.changed());
        }
        if self.path == IGNORE_FILE && self.selection.added.is_some() {
            return self.ignore_file(Some((file, &stat)));
        }
        let mut header = self.header(Kind::File, &stat);
        if let Some(capability) = capability(file.as_fd()) {
            header.xattrs.push(("security.capability".to_owned(), capability));
        }
        if stat.st_nlink > 1 {
            if let Some(first) = self.links.get(&(stat.st_dev, stat.st_ino)) {
                header.link.clone_from(first);
                header.kind = Kind::Hardlink;
                header.size = 0;
                return self.append(&header, &mut io::empty());
            }
            self.links.insert((stat.st_dev, stat.st_ino), self.path.clone());
        }
        self.append(&header, &mut File::from(file))
    }

    /// The ignore file of a context that gets a Dockerfile from elsewhere: it hides that Dockerfile, and itself where there was none.
    fn ignore_file(&mut self, found: Option<(OwnedFd, &Stat)>) -> Outcome<()> {
        let Some(added) = &self.selection.added else { return Ok(()) };
        self.ignore_file_sent = true;
        let now = jiff::Timestamp::now().as_second();
        let mut header = Header { mode: 0o600, mtime: (now, 0), ..Header::new(Kind::File, IGNORE_FILE) };
        let mut content = Vec::new();
        match found {
            Some((file, stat)) => {
                header = self.header(Kind::File, stat);
                let limit = super::source::LARGEST_TEXT;
                File::from(file).take(limit).read_to_end(&mut content).map_err(|error| self.failed("read", error))?;
            }
            None => content.extend_from_slice(IGNORE_FILE),
        }
        content.extend_from_slice(format!("\n{}\n", added.name).as_bytes());
        header.path = IGNORE_FILE.to_vec();
        header.size = content.len() as u64;
        self.append(&header, &mut content.as_slice())
    }

    fn finish(mut self) -> Outcome<()> {
        if let Some(added) = &self.selection.added {
            if !self.ignore_file_sent {
                self.ignore_file(None)?;
            }
            let mtime = (jiff::Timestamp::now().as_second(), 0);
            let size = added.content.len() as u64;
            let header = Header { mode: 0o600, mtime, size, ..Header::new(Kind::File, added.name.as_str()) };
            self.append(&header, &mut added.content.as_slice())?;
        }
        self.out.finish()?;
        Ok(())
    }

    fn header(&self, kind: Kind, stat: &Stat) -> Header {
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        Header {
            mode: stat.st_mode & 0o7777,
            size: if kind == Kind::File { size } else { 0 },
            mtime: (stat.st_mtime, 0),
            ..Header::new(kind, self.path.clone())
        }
    }

    fn append(&mut self, header: &Header, content: &mut dyn Read) -> Outcome<()> {
        self.out.append(header, content).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => self.changed(),
            io::ErrorKind::BrokenPipe => CliError::silent(1),
            _ => self.failed("read", error),
        })
    }

    /// The names of a directory, last first.
    fn names(&self, folder: BorrowedFd<'_>) -> Outcome<Vec<OsString>> {
        let mut names = Vec::new();
        let entries = rustix::fs::Dir::read_from(folder).map_err(|error| self.failed("readdir", error))?;
        for entry in entries {
            let entry = entry.map_err(|error| self.failed("readdirent", error))?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.push(OsString::from_vec(name.to_vec()));
            }
        }
        names.sort_unstable_by(|left, right| right.cmp(left));
        Ok(names)
    }

    fn open(&self, folder: BorrowedFd<'_>, name: &OsString, more: OFlags) -> Outcome<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NOCTTY | more;
        rustix::fs::openat(folder, name.as_os_str(), flags, Mode::empty()).map_err(|error| match error {
            rustix::io::Errno::ACCESS | rustix::io::Errno::PERM if more.contains(OFlags::DIRECTORY) => {
                CliError::new(format!("checking context: can't stat '{}'", self.shown()))
            }
            rustix::io::Errno::ACCESS | rustix::io::Errno::PERM => {
                CliError::new(format!("checking context: no permission to read from '{}'", self.shown()))
            }
            rustix::io::Errno::NOENT => self.gone(),
            rustix::io::Errno::LOOP | rustix::io::Errno::NOTDIR => self.changed(),
            error => self.failed("open", error),
        })
    }

    fn shown(&self) -> String {
        self.selection.root.join(std::ffi::OsStr::from_bytes(&self.path)).display().to_string()
    }

    fn gone(&self) -> CliError {
        CliError::new(format!("checking context: file ('{}') not found or excluded by .dockerignore", self.shown()))
    }

    fn changed(&self) -> CliError {
        CliError::new(format!("checking context: '{}' changed while it was read", self.shown()))
    }

    fn failed(&self, verb: &str, error: impl Into<io::Error>) -> CliError {
        CliError::new(format!("checking context: {verb} {}: {}", self.shown(), errno_text(&error.into())))
    }
}

/// The file capabilities, where there are any.
fn capability(file: BorrowedFd<'_>) -> Option<Vec<u8>> {
    let mut value = vec![0_u8; 64];
    let length = rustix::fs::fgetxattr(file, c"security.capability", value.as_mut_slice()).ok()?;
    value.truncate(length);
    Some(value)
}

/// An archive of a few small files.
///
/// # Errors
/// None in practice: it is written to memory.
pub(super) fn small(files: &[(&str, &[u8])]) -> Outcome<Vec<u8>> {
    let mut out = Writer::new(Vec::new());
    for (name, content) in files {
        let mtime = (jiff::Timestamp::now().as_second(), 0);
        let header = Header { mtime, size: content.len() as u64, ..Header::new(Kind::File, *name) };
        let mut content = *content;
        out.append(&header, &mut content)?;
    }
    Ok(out.finish()?)
}

/// Copies an archive and puts a Dockerfile in, hidden by the ignore file.
///
/// # Errors
/// A broken archive; a failing stream.
pub(super) fn rewrite(archive: impl Read, added: &Added, sink: impl Write) -> Outcome<()> {
    let broken = |error: &dyn std::fmt::Display| CliError::new(format!("error reading the context: {error}"));
    let archive = sampan_archive::Decompress::new(archive)?;
    let mut reader = sampan_archive::tar::Reader::new(archive);
    let mut out = Writer::new(sink);
    let line = format!("\n{}\n", added.name);
    let mut hidden = false;
    while let Some(mut header) = reader.next_entry().map_err(|error| broken(&error))? {
        if header.path == IGNORE_FILE && header.kind == Kind::File {
            hidden = true;
            header.size += line.len() as u64;
            out.append(&header, &mut (&mut reader).chain(line.as_bytes()))?;
        } else {
            out.append(&header, &mut reader)?;
        }
    }
    let mtime = (jiff::Timestamp::now().as_second(), 0);
    let mut put = |name: &[u8], content: &[u8]| {
        let mut content = content;
        let header = Header { mode: 0o600, mtime, size: content.len() as u64, ..Header::new(Kind::File, name) };
        out.append(&header, &mut content)
    };
    if !hidden {
        put(IGNORE_FILE, format!(".dockerignore{line}").as_bytes())?;
    }
    put(added.name.as_bytes(), &added.content)?;
    out.finish()?;
    Ok(())
}
