//! The exit record: how process 1 ended, durable before anyone is told.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;

/// How a container's process 1 ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExitRecord {
    /// Exit code, 128 + n after signal n.
    pub code: i32,
    /// Whether the kernel killed something in the container for memory.
    pub oom: bool,
    /// Nanoseconds since the epoch.
    pub at: i64,
}

impl ExitRecord {
    /// Writes the record so that it survives a power cut: temporary file, fsync, rename, fsync of the directory.
    ///
    /// # Errors
    /// A failing disk; an older record stays then.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let temporary = path.with_extension("tmp");
        let text = format!("sampan-exit 1\ncode {}\noom {}\nat {}\n", self.code, u8::from(self.oom), self.at);
        // Not cut off first: the room that was reserved must stay ours on a full disk.
        let mut file = File::options().write(true).create(true).truncate(false).open(&temporary)?;
        file.write_all(text.as_bytes())?;
        file.set_len(text.len() as u64)?;
        file.sync_data()?;
        std::fs::rename(&temporary, path)?;
        let folder = path.parent().unwrap_or(Path::new("/"));
        File::open(folder)?.sync_all()
    }

    /// Takes the room that [`Self::write`] needs, so that a disk that fills up meanwhile cannot lose how the container ended.
    ///
    /// # Errors
    /// A failing disk.
    pub fn reserve(path: &Path) -> io::Result<()> {
        std::fs::write(path.with_extension("tmp"), [b' '; 256])
    }

    /// Reads a record; `None` when there is none or it is not one.
    ///
    /// # Errors
    /// A failing disk.
    pub fn read(path: &Path) -> io::Result<Option<Self>> {
        match std::fs::read_to_string(path) {
            Ok(text) => Ok(Self::parse(&text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        if lines.next() != Some("sampan-exit 1") {
            return None;
        }
        let mut field = |name: &str| lines.next()?.strip_prefix(name)?.strip_prefix(' ')?.parse::<i64>().ok();
        let (code, oom, at) = (field("code")?, field("oom")?, field("at")?);
        Some(Self { code: i32::try_from(code).ok()?, oom: oom == 1, at })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_as_written_and_nonsense_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("exit");
        assert_eq!(ExitRecord::read(&path).unwrap(), None);
        let record = ExitRecord { code: 137, oom: true, at: 5 };
        ExitRecord::reserve(&path).unwrap();
        assert_eq!(ExitRecord::read(&path).unwrap(), None, "room is no record");
        record.write(&path).unwrap();
        assert_eq!(ExitRecord::read(&path).unwrap(), Some(record));
        for text in ["", "sampan-exit 1\ncode x\n", "sampan-exit 2\ncode 1\noom 0\nat 0\n"] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(ExitRecord::read(&path).unwrap(), None);
        }
    }
}
