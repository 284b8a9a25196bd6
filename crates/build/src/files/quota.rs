//! How much contexts and archives may unpack to: a small archive can hold more than any disk.

use std::io::{self, Read};
use std::path::Path;

use sampan_layers::Quota;

/// Most bytes that an archive or a context unpacks to, whatever room there is.
pub(crate) const MOST_BYTES: u64 = 64 << 30;
/// Most files.
const MOST_FILES: u64 = 1_000_000;

/// What may be unpacked below a folder: nine tenths of the room that its disk has now, up to 64 GiB and a million files.
pub(crate) fn quota(folder: &Path) -> Quota {
    let Ok(disk) = rustix::fs::statvfs(folder) else { return Quota { entries: MOST_FILES, content: MOST_BYTES, of_disk: false } };
    let room = disk.f_bavail.saturating_mul(disk.f_frsize) / 10 * 9;
    // Disks without a table of files count none.
    let files = if disk.f_files == 0 { u64::MAX } else { disk.f_favail / 10 * 9 };
    Quota { entries: files.min(MOST_FILES), content: room.min(MOST_BYTES), of_disk: room < MOST_BYTES || files < MOST_FILES }
}

/// Fails behind so many bytes.
pub(crate) struct Limited<R> {
    inner: R,
    left: u64,
    most: u64,
}

impl<R: Read> Limited<R> {
    pub(crate) fn new(inner: R, most: u64) -> Self {
        Self { inner, left: most, most }
    }
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.left = self
            .left
            .checked_sub(count as u64)
            .ok_or_else(|| io::Error::new(io::ErrorKind::FileTooLarge, format!("it unpacks to more than {} MiB", self.most >> 20)))?;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_end_where_their_limit_is() {
        let read = |most| Limited::new(&b"12345"[..], most).read_to_end(&mut Vec::new()).map_err(|error| error.to_string());
        assert_eq!((read(5), read(4)), (Ok(5), Err("it unpacks to more than 0 MiB".into())));
    }
}
