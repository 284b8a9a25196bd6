//! Immutable files as `Bytes`: mapped, not copied.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use sampan_sys::map::ReadMap;

/// A mapped file. Frames of it are `Bytes` that keep it alive. The file must never be cut: see `sampan_sys::map`.
#[derive(Debug, Clone)]
pub struct Mapping {
    map: Arc<ReadMap>,
    all: Bytes,
}

/// What lets `Bytes` own a share of a mapping.
struct Share(Arc<ReadMap>);

impl AsRef<[u8]> for Share {
    fn as_ref(&self) -> &[u8] {
        (*self.0).as_ref()
    }
}

impl Mapping {
    /// Maps a file of one byte or more.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn new(file: &File) -> io::Result<Self> {
        let map = Arc::new(ReadMap::new(file)?);
        Ok(Self { all: Bytes::from_owner(Share(Arc::clone(&map))), map })
    }

    /// A part of the file; what lies behind its end is left out.
    #[must_use]
    pub fn part(&self, range: Range<usize>) -> Bytes {
        let end = range.end.min(self.all.len());
        self.all.slice(range.start.min(end)..end)
    }

    /// Whether a part can be read without waiting for the disk.
    #[must_use]
    pub fn is_resident(&self, range: &Range<usize>) -> bool {
        self.map.is_resident(range)
    }

    /// Waits for the disk until a part is in memory.
    ///
    /// # Errors
    /// A failing disk.
    pub fn populate(&self, range: &Range<usize>) -> io::Result<()> {
        self.map.populate(range)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn frames_outlive_the_mapping() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"0123456789").unwrap();
        let mapping = Mapping::new(&file).unwrap();
        mapping.populate(&(0..10)).unwrap();
        assert!(mapping.is_resident(&(0..10)));
        let frame = mapping.part(3..6);
        assert_eq!(mapping.part(8..99), "89");
        assert_eq!(mapping.part(50..99), "");
        drop(mapping);
        assert_eq!(frame, "345");
    }
}
