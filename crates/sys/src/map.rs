//! Read-only mappings of files that never change.
//!
//! A mapped file must keep its length for as long as the mapping lives: whoever cuts it makes readers die of SIGBUS. Callers map
//! only files that they wrote, made read-only and replace by other files instead of changing them.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::ptr::NonNull;

/// A whole file, mapped for reading.
#[derive(Debug)]
pub struct ReadMap {
    address: NonNull<libc::c_void>,
    length: usize,
}

// SAFETY: the mapping is read-only and belongs to no thread; it ends when the one owner is dropped.
// JUSTIFICATION: frames of one file are sent by many tasks.
unsafe impl Send for ReadMap {}
// SAFETY: as above; shared reads of memory that nobody writes.
// JUSTIFICATION: as above.
unsafe impl Sync for ReadMap {}

impl ReadMap {
    /// Maps a file of one byte or more.
    ///
    /// # Errors
    /// An empty file, and what the kernel says.
    pub fn new(file: &File) -> io::Result<Self> {
        use std::os::fd::AsRawFd as _;
        let length = usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
        if length == 0 {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        // SAFETY: a new mapping at an address of the kernel's choice overlaps nothing; the descriptor is open.
        // JUSTIFICATION: there is no safe interface; reading into buffers costs more than twice the processor time.
        let address = unsafe { libc::mmap(std::ptr::null_mut(), length, libc::PROT_READ, libc::MAP_SHARED, file.as_raw_fd(), 0) };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let address = NonNull::new(address).ok_or(io::ErrorKind::AddrNotAvailable)?;
        Ok(Self { address, length })
    }

    /// The pages that hold a range: their first byte, and how many bytes they are.
    fn pages(&self, range: &Range<usize>) -> Option<(*mut libc::c_void, usize)> {
        let page = rustix::param::page_size();
        let end = range.end.min(self.length);
        let start = range.start / page * page;
        // The start lies inside of the mapping, so the pointer does too.
        (start < end).then(|| (self.address.as_ptr().wrapping_byte_add(start), end - start))
    }

    /// Whether a range can be read without waiting for the disk. An answer of the moment.
    #[must_use]
    pub fn is_resident(&self, range: &Range<usize>) -> bool {
        let Some((start, length)) = self.pages(range) else { return true };
        let mut pages = vec![0_u8; length.div_ceil(rustix::param::page_size())];
        // SAFETY: start is aligned to a page inside of the mapping, and the vector has a byte for each page.
        // JUSTIFICATION: there is no safe interface to mincore(2).
        let failed = unsafe { libc::mincore(start, length, pages.as_mut_ptr()) } != 0;
        !failed && pages.iter().all(|page| page & 1 == 1)
    }

    /// Reads a range from the disk into memory, and waits for it.
    ///
    /// # Errors
    /// A disk that cannot be read: what would be a SIGBUS otherwise.
    pub fn populate(&self, range: &Range<usize>) -> io::Result<()> {
        let Some((start, length)) = self.pages(range) else { return Ok(()) };
        // SAFETY: the range lies inside of the mapping; the advice changes no content.
        // JUSTIFICATION: there is no safe interface that reports a failing disk instead of a signal.
        if unsafe { libc::madvise(start, length, libc::MADV_POPULATE_READ) } == 0 {
            return Ok(());
        }
        match io::Error::last_os_error() {
            // A kernel before 5.14 knows no such advice: pages come when they are touched.
            error if error.raw_os_error() == Some(libc::EINVAL) => Ok(()),
            error => Err(error),
        }
    }
}

impl AsRef<[u8]> for ReadMap {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: address and length are those of a mapping that lives as long as self, and nobody writes to it.
        // JUSTIFICATION: this is what the type is for.
        unsafe { std::slice::from_raw_parts(self.address.as_ptr().cast(), self.length) }
    }
}

impl Drop for ReadMap {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and no slice of it outlives self.
        // JUSTIFICATION: there is no safe interface.
        unsafe {
            libc::munmap(self.address.as_ptr(), self.length);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn a_file_is_mapped_whole() {
        let mut file = tempfile::tempfile().unwrap();
        assert!(ReadMap::new(&file).is_err(), "an empty file has no mapping");
        file.write_all(&[7; 10_000]).unwrap();
        let map = ReadMap::new(&file).unwrap();
        assert_eq!(map.as_ref(), [7; 10_000]);
        map.populate(&(5000..10_000)).unwrap();
        assert!(map.is_resident(&(0..10_000)));
        map.populate(&(0..99_999)).unwrap();
        assert!(map.is_resident(&(20_000..30_000)), "what is not there need not be waited for");
    }
}
