//! A context that came as a tar stream: its tree in memory, its files' contents in the mirror, each content once.
//!
//! Contents are hashed while they are read; what the mirror has already is not written again. The mirror can be lost at any
//! time between builds.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use sampan_archive::tar::{Header, Kind, Reader};
use sampan_base::Cancel;
use sampan_gotext::ignore::Ignore;
use sampan_layers::Quota;

use super::source::{Node, NodeKind, Source, join, split};
use crate::run::BuildError;

/// Most entries of a context.
const MOST: usize = 1_000_000;
/// Most bytes that names, links and attributes of a context take in memory: a small archive can name much.
const MOST_HELD: usize = 1 << 30;
/// Files up to here are hashed before they are written.
const SMALL: u64 = 1 << 20;
/// Links that are followed on one way.
const LINKS: usize = 255;

/// Contents of files by their hash.
#[derive(Debug)]
pub(crate) struct Mirror {
    folder: PathBuf,
    next: AtomicU64,
}

impl Mirror {
    /// Opens the folder; unfinished files of an earlier process go.
    pub(crate) fn open(folder: &Path) -> io::Result<Self> {
        drop(std::fs::remove_dir_all(folder.join("new")));
        std::fs::create_dir_all(folder.join("new"))?;
        Ok(Self { folder: folder.to_owned(), next: AtomicU64::new(0) })
    }

    fn place(&self, hash: &[u8; 32]) -> PathBuf {
        let hex = hex::encode(hash);
        self.folder.join(&hex[..2]).join(&hex[2..])
    }

    /// Bytes in it, and how many files.
    pub(crate) fn size(&self) -> u64 {
        let mut sum = 0;
        for folder in std::fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            for file in std::fs::read_dir(folder.path()).into_iter().flatten().flatten() {
                sum += file.metadata().map_or(0, |facts| facts.len());
            }
        }
        sum
    }

    /// Removes everything. Only while no build reads from it.
    pub(crate) fn clear(&self) -> io::Result<()> {
        for folder in std::fs::read_dir(&self.folder)?.flatten() {
            if folder.file_name() != "new" {
                std::fs::remove_dir_all(folder.path())?;
            }
        }
        Ok(())
    }

    /// Whether a content of a size is there; what a power cut has damaged is not.
    pub(crate) fn has(&self, hash: &[u8; 32], size: u64) -> bool {
        self.place(hash).metadata().is_ok_and(|facts| facts.len() == size)
    }

    fn publish(&self, new: &Path, hash: &[u8; 32]) -> io::Result<()> {
        let place = self.place(hash);
        if let Some(folder) = place.parent() {
            std::fs::create_dir_all(folder)?;
        }
        std::fs::rename(new, place)
    }

    pub(crate) fn fresh(&self) -> PathBuf {
        self.folder.join("new").join(self.next.fetch_add(1, Ordering::Relaxed).to_string())
    }

    /// Takes a content in whose size shows at its end.
    pub(crate) fn take_all(&self, content: &mut dyn Read) -> io::Result<([u8; 32], u64)> {
        let new = self.fresh();
        let kept = self.keep(content, &new);
        if kept.is_err() {
            drop(std::fs::remove_file(&new));
        }
        kept
    }

    fn keep(&self, content: &mut dyn Read, new: &Path) -> io::Result<([u8; 32], u64)> {
        let mut hasher = blake3::Hasher::new();
        let mut file = File::create_new(new)?;
        let mut buffer = vec![0; 256 * 1024];
        let mut size = 0;
        loop {
            let count = match content.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            hasher.update(&buffer[..count]);
            file.write_all(&buffer[..count])?;
            size += count as u64;
        }
        let hash = *hasher.finalize().as_bytes();
        if self.has(&hash, size) {
            std::fs::remove_file(new)?;
        } else {
            self.publish(new, &hash)?;
        }
        Ok((hash, size))
    }

    /// Forgets contents.
    pub(crate) fn forget(&self, hashes: &[[u8; 32]]) {
        for hash in hashes {
            let _gone_already = std::fs::remove_file(self.place(hash));
        }
    }

    /// Takes a content of a size in; says whether it is new here.
    fn take(&self, content: &mut dyn Read, size: u64) -> io::Result<([u8; 32], bool)> {
        let mut hasher = blake3::Hasher::new();
        if size <= SMALL {
            let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
            content.take(size).read_to_end(&mut bytes)?;
            if bytes.len() as u64 != size {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let hash = *hasher.update(&bytes).finalize().as_bytes();
            let is_new = !self.has(&hash, size);
            if is_new {
                let new = self.fresh();
                std::fs::write(&new, &bytes)?;
                self.publish(&new, &hash)?;
            }
            return Ok((hash, is_new));
        }
        let new = self.fresh();
        let taken = self.take_large(content, size, &new);
        if taken.is_err() {
            drop(std::fs::remove_file(&new));
        }
        taken
    }

    fn take_large(&self, content: &mut dyn Read, size: u64, new: &Path) -> io::Result<([u8; 32], bool)> {
        let mut hasher = blake3::Hasher::new();
        let mut file = File::create_new(new)?;
        let mut buffer = vec![0; 256 * 1024];
        let mut left = size;
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
            let count = content.read(&mut buffer[..most])?;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            hasher.update(&buffer[..count]);
            file.write_all(&buffer[..count])?;
            left -= count as u64;
        }
        let hash = *hasher.finalize().as_bytes();
        let is_new = !self.has(&hash, size);
        if is_new {
            self.publish(new, &hash)?;
        } else {
            std::fs::remove_file(new)?;
        }
        Ok((hash, is_new))
    }
}

#[derive(Debug)]
struct Entry {
    node: Node,
    hash: [u8; 32],
    /// Names of a directory.
    names: Vec<Vec<u8>>,
}

/// A tree in memory with contents in a mirror.
#[derive(Debug)]
pub(crate) struct MemoryTree {
    mirror: std::sync::Arc<Mirror>,
    entries: BTreeMap<Vec<u8>, Entry>,
    /// About how many bytes the entries take, and how many they may.
    held: usize,
    most_held: usize,
}

/// A directory that the stream does not describe: made now.
fn implied(path: Vec<u8>) -> Node {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Node { mtime: (i64::try_from(now.as_secs()).unwrap_or(0), now.subsec_nanos()), ..directory(path) }
}

fn directory(path: Vec<u8>) -> Node {
    Node {
        path,
        kind: NodeKind::Directory,
        mode: 0o755,
        uid: 0,
        gid: 0,
        size: 0,
        mtime: (0, 0),
        link: Vec::new(),
        xattrs: Vec::new(),
        identity: None,
        device: 0,
    }
}

/// A path without `.`, `..` and empty parts: by words alone, and the root is above itself.
fn clean(path: &[u8]) -> Vec<u8> {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join(&b'/')
}

impl MemoryTree {
    /// A tree without files.
    pub(crate) fn empty(mirror: std::sync::Arc<Mirror>) -> Self {
        let root = Entry { node: implied(Vec::new()), hash: [0; 32], names: Vec::new() };
        Self { mirror, entries: BTreeMap::from([(Vec::new(), root)]), held: 0, most_held: MOST_HELD }
    }

    /// A tree of one file, whose content the mirror has.
    pub(crate) fn single(mirror: std::sync::Arc<Mirror>, name: &str, hash: [u8; 32], size: u64, mtime: i64) -> Self {
        let mut tree = Self::empty(mirror);
        let path = name.as_bytes().to_vec();
        let node = Node { kind: NodeKind::File, mode: 0o600, size, mtime: (mtime, 0), ..directory(path.clone()) };
        if let Some(root) = tree.entries.get_mut(&b""[..]) {
            root.names.push(path.clone());
        }
        tree.entries.insert(path, Entry { node, hash, names: Vec::new() });
        tree
    }
}

/// Reads a context from a tar stream. The contents that the mirror did not have before are added to `fresh`, also where it fails.
/// Devices are left out; a path that leads out stays below the root, a hard link to no file fails.
pub(crate) fn read_tar(
    stream: impl Read,
    mirror: std::sync::Arc<Mirror>,
    quota: Quota,
    fresh: &mut Vec<[u8; 32]>,
    cancel: &Cancel,
) -> Result<MemoryTree, BuildError> {
    fill(MemoryTree::empty(mirror), stream, quota, fresh, cancel)
}

fn fill(
    mut tree: MemoryTree,
    stream: impl Read,
    quota: Quota,
    fresh: &mut Vec<[u8; 32]>,
    cancel: &Cancel,
) -> Result<MemoryTree, BuildError> {
    let mut room = quota.content;
    let too_much = || BuildError::invalid(format!("the build context unpacks to more than {quota}: use a .dockerignore file"));
    let mut reader = Reader::new(stream);
    while let Some(header) = reader.next_entry().map_err(|error| BuildError::context(&error))? {
        cancel.check().map_err(|_| BuildError::Cancelled)?;
        // What is here already takes no room, which shows of small files when they are read.
        if tree.entries.len() as u64 > quota.entries || (header.size > SMALL && header.size > room) {
            return Err(too_much());
        }
        let path = clean(&header.path);
        if let Some(hash) = tree.add(&path, &header, &mut reader)? {
            fresh.push(hash);
            room = room.checked_sub(header.size).ok_or_else(too_much)?;
        }
    }
    // What comes behind the end is read, so that the sender sees no broken pipe.
    io::copy(&mut reader.into_inner(), &mut io::sink()).map_err(|error| BuildError::context(&error))?;
    tree.settle()?;
    Ok(tree)
}

fn shown(path: &[u8]) -> String {
    sampan_base::sanitize(&String::from_utf8_lossy(path))
}

impl MemoryTree {
    /// Adds an entry. Gives its content's hash where the mirror did not have it.
    fn add<R: Read>(&mut self, path: &[u8], header: &Header, reader: &mut Reader<R>) -> Result<Option<[u8; 32]>, BuildError> {
        let kind = match header.kind {
            Kind::Directory => NodeKind::Directory,
            Kind::Symlink => NodeKind::Symlink,
            Kind::File | Kind::Hardlink => NodeKind::File,
            Kind::Fifo => NodeKind::Fifo,
            Kind::Character | Kind::Block => return Ok(None),
        };
        let mut node = Node {
            kind,
            mode: header.mode & 0o7777,
            mtime: header.mtime,
            link: if kind == NodeKind::Symlink { header.link.clone() } else { Vec::new() },
            xattrs: header.xattrs.clone(),
            ..directory(path.to_vec())
        };
        node.xattrs.retain(|(name, _)| super::source::is_kept(name));
        if path.is_empty() && kind != NodeKind::Directory {
            return Err(BuildError::invalid("the build context's root is no directory"));
        }
        let (mut hash, mut fresh) = ([0; 32], None);
        if header.kind == Kind::Hardlink {
            let number = self.entries.len() as u64;
            let target = self.entries.get_mut(&clean(&header.link)).filter(|entry| entry.node.kind == NodeKind::File);
            let target = target.ok_or_else(|| {
                BuildError::invalid(format!("forbidden link outside the build context: {} -> {}", shown(path), shown(&header.link)))
            })?;
            // Both are one file.
            let identity = *target.node.identity.get_or_insert((0, number));
            node = Node { path: path.to_vec(), identity: Some(identity), ..target.node.clone() };
            hash = target.hash;
        } else if kind == NodeKind::File {
            let (taken, is_new) = self.mirror.take(reader, header.size).map_err(|error| BuildError::context(&error))?;
            hash = taken;
            fresh = is_new.then_some(taken);
            node.size = header.size;
        }
        if kind != NodeKind::Directory {
            let below = join(path, b"");
            let inner: Vec<Vec<u8>> =
                self.entries.range(below.clone()..).take_while(|(key, _)| key.starts_with(&below)).map(|(key, _)| key.clone()).collect();
            for key in inner {
                self.entries.remove(&key);
            }
        }
        self.insert(node, hash)?;
        Ok(fresh)
    }

    /// Adds an entry, unless there are too many or they take too much room.
    fn insert(&mut self, node: Node, hash: [u8; 32]) -> Result<(), BuildError> {
        // The path stands in the key, in the node, and its last part in the folder's list.
        let attributes: usize = node.xattrs.iter().map(|(name, value)| name.len() + value.len() + 64).sum();
        self.held += 3 * node.path.len() + node.link.len() + attributes + size_of::<Entry>();
        if self.held > self.most_held || self.entries.len() > MOST {
            let text = format!("the build context has more than {MOST} files, or their names are too long: use a .dockerignore file");
            return Err(BuildError::invalid(text));
        }
        self.entries.insert(node.path.clone(), Entry { node, hash, names: Vec::new() });
        Ok(())
    }

    /// Makes missing parents, and lists the names of directories.
    fn settle(&mut self) -> Result<(), BuildError> {
        let paths: Vec<Vec<u8>> = self.entries.keys().cloned().collect();
        for path in &paths {
            let mut folder = split(path).0;
            while !folder.is_empty() && self.entries.get(folder).is_none_or(|entry| entry.node.kind != NodeKind::Directory) {
                self.insert(implied(folder.to_vec()), [0; 32])?;
                folder = split(folder).0;
            }
        }
        let paths: Vec<Vec<u8>> = self.entries.keys().filter(|path| !path.is_empty()).cloned().collect();
        for path in paths {
            let (folder, name) = split(&path);
            if let Some(entry) = self.entries.get_mut(folder) {
                entry.names.push(name.to_vec());
            }
        }
        Ok(())
    }

    /// Removes those of some paths that patterns match.
    pub(crate) fn remove_matching(&mut self, ignore: &Ignore, paths: &[&str]) {
        for path in paths.iter().filter(|path| ignore.matches(path)) {
            let (folder, name) = split(path.as_bytes());
            self.entries.remove(path.as_bytes());
            if let Some(folder) = self.entries.get_mut(folder) {
                folder.names.retain(|other| other != name);
            }
        }
    }

    /// Follows links inside the tree, as the kernel does below a root.
    fn resolve(&self, path: &[u8], follow: bool) -> Option<&Entry> {
        let mut pending: Vec<Vec<u8>> = path.split(|byte| *byte == b'/').rev().map(<[u8]>::to_vec).collect();
        let mut at: Vec<u8> = Vec::new();
        let mut links = 0;
        while let Some(part) = pending.pop() {
            match part.as_slice() {
                b"" | b"." => continue,
                b".." => {
                    at = split(&at).0.to_vec();
                    continue;
                }
                _ => {}
            }
            let next = join(&at, &part);
            let entry = self.entries.get(&next)?;
            let is_last = pending.iter().all(|part| part.is_empty());
            if entry.node.kind == NodeKind::Symlink && (follow || !is_last) {
                links += 1;
                if links > LINKS {
                    return None;
                }
                if entry.node.link.starts_with(b"/") {
                    at.clear();
                }
                pending.extend(entry.node.link.split(|byte| *byte == b'/').rev().map(<[u8]>::to_vec));
                continue;
            }
            at = next;
        }
        self.entries.get(&at)
    }
}

impl Source for MemoryTree {
    fn find(&self, path: &[u8], follow: bool) -> io::Result<Option<Node>> {
        Ok(self.resolve(path, follow).map(|entry| entry.node.clone()))
    }

    fn children(&self, directory: &Node) -> io::Result<Vec<Node>> {
        let Some(entry) = self.resolve(&directory.path, true) else { return Ok(Vec::new()) };
        Ok(entry.names.iter().filter_map(|name| self.entries.get(&join(&entry.node.path, name))).map(|entry| entry.node.clone()).collect())
    }

    fn open(&self, file: &Node) -> io::Result<File> {
        let entry = self.resolve(&file.path, true).ok_or(io::ErrorKind::NotFound)?;
        File::open(self.mirror.place(&entry.hash))
    }

    fn content(&self, file: &Node) -> io::Result<[u8; 32]> {
        self.resolve(&file.path, true).map(|entry| entry.hash).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn has_owners(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use sampan_archive::tar::Writer;

    use super::*;

    fn read(headers: &[Header], most_held: usize) -> Result<MemoryTree, BuildError> {
        let folder = tempfile::tempdir().unwrap();
        let mirror = Arc::new(Mirror::open(folder.path()).unwrap());
        let mut writer = Writer::new(Vec::new());
        headers.iter().for_each(|header| writer.append(header, &mut &b""[..]).unwrap());
        let bytes = writer.finish().unwrap();
        let quota = Quota { entries: 1_000_000, content: 1 << 30, of_disk: false };
        fill(MemoryTree { most_held, ..MemoryTree::empty(mirror) }, &bytes[..], quota, &mut Vec::new(), &Cancel::new())
    }

    #[test]
    fn a_small_archive_takes_no_large_memory() {
        // Each of these paths names two thousand directories.
        let deep: Vec<Header> = (0..10).map(|number| Header::new(Kind::File, format!("{number}{}", "/a".repeat(2000)))).collect();
        let noted = |name: usize| {
            let mut header = Header::new(Kind::File, name.to_string());
            header.xattrs = (0..15).map(|number| (format!("user.{number}"), vec![b'x'; 60_000])).collect();
            header
        };
        let noted: Vec<Header> = (0..10).map(noted).collect();
        let most = 4 << 20;
        for headers in [&deep, &noted] {
            assert!(read(headers, most).unwrap_err().to_string().contains("use a .dockerignore file"));
        }
        assert_eq!(read(&deep[..1], 32 << 20).unwrap().entries.len(), 2002);
    }

    #[test]
    fn no_path_leads_out_of_a_context() {
        for (path, clean_path) in [("../foo", "foo"), ("/bar", "bar"), ("a/../../b/./c", "b/c"), ("..", ""), ("a//b/..", "a")] {
            assert_eq!(clean(path.as_bytes()), clean_path.as_bytes(), "{path}");
        }
        let tree = read(&[Header::new(Kind::File, "../../x".to_owned()), Header::new(Kind::File, "/y/../z".to_owned())], 1 << 20).unwrap();
        let names: Vec<&[u8]> = tree.entries.keys().map(Vec::as_slice).collect();
        assert_eq!(names, [&b""[..], b"x", b"z"]);
    }
}
