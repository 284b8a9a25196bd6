//! Files that are there whole or not at all.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// Writes a file so that a reader, also one after a power cut, sees the old content or the new: temporary file, fsync, rename,
/// fsync of the directory.
///
/// # Errors
/// A failing disk; the old file stays then.
pub fn write_atomic(path: &Path, content: &[u8]) -> io::Result<()> {
    write_atomic_with_mode(path, content, 0o666)
}

/// As [`write_atomic`], with the permissions of the file; the umask applies.
///
/// # Errors
/// A failing disk; the old file stays then.
pub fn write_atomic_with_mode(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_string_lossy().into_owned();
    let mut random = [0; 6];
    getrandom::fill(&mut random).map_err(io::Error::other)?;
    let temporary = path.with_file_name(format!(".{name}.{}", hex::encode(random)));
    let result = (|| {
        let mut file = File::options().write(true).create_new(true).mode(mode).open(&temporary)?;
        file.write_all(content)?;
        file.sync_data()?;
        std::fs::rename(&temporary, path)
    })();
    if result.is_err() {
        drop(std::fs::remove_file(&temporary));
        return result;
    }
    File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        write_atomic(&path, b"one").unwrap();
        write_atomic(&path, b"two").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"two");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file stays");
        assert!(write_atomic(&folder.path().join("no/such"), b"").is_err());
    }
}
