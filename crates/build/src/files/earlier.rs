//! Files of an earlier result of the same step: one with the same content and attributes becomes a link to that one, and nothing is
//! copied. Files of layers never change, so two layers can share one.
//!
//! A layer's folder has, beside its files, `contents`: the hash of each file that a build copied from its context. Path lengths (u32,
//! little-endian), paths and hashes follow each other, and a hash of all that ends it. It lives and goes with the layer. One that is
//! damaged or missing costs time only.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, OFlags};
use sampan_sys::dir;

use super::source::Node;

/// Largest list that is read.
const LARGEST: u64 = 1 << 30;

/// A file's hash by its path.
type Contents = HashMap<Vec<u8>, [u8; 32]>;

/// The files of an earlier layer.
#[derive(Debug)]
pub(crate) struct Earlier {
    root: OwnedFd,
    contents: Contents,
}

impl Earlier {
    /// Opens a layer's folder; `None` where nothing is known of it.
    pub(crate) fn open(folder: &Path) -> Option<Self> {
        let list = folder.join("contents");
        if std::fs::metadata(&list).ok()?.len() > LARGEST {
            return None;
        }
        let contents = parse(&std::fs::read(list).ok()?)?;
        Some(Self { root: dir::open(&folder.join("fs")).ok()?, contents })
    }

    /// Makes a name a link to the file of a path, if that has a content and attributes. Says whether it did; whatever stands in the
    /// way is no failure, as a copy does the same.
    pub(super) fn link(&self, path: &[u8], wanted: &Wanted<'_>, folder: &OwnedFd, name: &std::ffi::OsStr) -> bool {
        if self.contents.get(path) != Some(wanted.hash) {
            return false;
        }
        let Ok(file) = dir::open_plain_in(self.root.as_fd(), path, OFlags::PATH | OFlags::NOFOLLOW) else { return false };
        let Ok(stat) = rustix::fs::fstat(&file) else { return false };
        let node = wanted.node;
        let same = rustix::fs::FileType::from_raw_mode(stat.st_mode).is_file()
            && stat.st_mode & 0o7777 == wanted.mode
            && (stat.st_uid, stat.st_gid) == wanted.owner
            && u64::try_from(stat.st_size) == Ok(node.size)
            && (stat.st_mtime, u32::try_from(stat.st_mtime_nsec).unwrap_or(u32::MAX)) == node.mtime;
        let place = format!("/proc/thread-self/fd/{}", file.as_raw_fd());
        same && rustix::fs::linkat(rustix::fs::CWD, place, folder, name, AtFlags::SYMLINK_FOLLOW).is_ok()
    }
}

/// What a file is to be.
pub(super) struct Wanted<'a> {
    pub(super) hash: &'a [u8; 32],
    pub(super) node: &'a Node,
    pub(super) mode: u32,
    pub(super) owner: (u32, u32),
}

fn parse(bytes: &[u8]) -> Option<Contents> {
    let (mut rest, sum) = bytes.split_at_checked(bytes.len().checked_sub(32)?)?;
    if blake3::hash(rest).as_bytes() != sum {
        return None;
    }
    let mut contents = Contents::new();
    while !rest.is_empty() {
        let (length, more) = rest.split_first_chunk::<4>()?;
        let (path, more) = more.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?)?;
        let (hash, more) = more.split_first_chunk::<32>()?;
        contents.insert(path.to_vec(), *hash);
        rest = more;
    }
    Some(contents)
}

/// The list of a layer that is being made.
#[derive(Debug, Default)]
pub(crate) struct Record(BTreeMap<Vec<u8>, [u8; 32]>);

impl Record {
    pub(super) fn add(&mut self, path: Vec<u8>, hash: [u8; 32]) {
        self.0.insert(path, hash);
    }

    /// Something else stands at a path now.
    pub(super) fn forget(&mut self, path: &[u8]) {
        self.0.remove(path);
    }

    /// Writes the list into the layer's folder.
    pub(crate) fn save(&self, folder: &Path) -> io::Result<()> {
        if self.0.is_empty() {
            return Ok(());
        }
        let mut bytes = Vec::new();
        for (path, hash) in &self.0 {
            bytes.extend_from_slice(&u32::try_from(path.len()).map_err(io::Error::other)?.to_le_bytes());
            bytes.extend_from_slice(path);
            bytes.extend_from_slice(hash);
        }
        let sum = *blake3::hash(&bytes).as_bytes();
        bytes.extend_from_slice(&sum);
        std::fs::write(folder.join("contents"), bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_read_back_and_a_damaged_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let mut record = Record::default();
        record.add(b"a/b".to_vec(), [1; 32]);
        record.add(b"a/b".to_vec(), [2; 32]);
        record.add(b"c".to_vec(), [3; 32]);
        record.add(b"d".to_vec(), [4; 32]);
        record.forget(b"d");
        record.save(folder.path()).unwrap();
        let mut bytes = std::fs::read(folder.path().join("contents")).unwrap();
        // What was written last counts.
        assert_eq!(parse(&bytes).unwrap(), Contents::from([(b"a/b".to_vec(), [2; 32]), (b"c".to_vec(), [3; 32])]));
        for damage in 0..bytes.len() {
            bytes[damage] ^= 1;
            assert!(parse(&bytes).is_none(), "{damage}");
            bytes[damage] ^= 1;
        }
        assert!(parse(&bytes[..10]).is_none() && parse(b"").is_none());
    }
}
