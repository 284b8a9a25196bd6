//! Archives that ADD unpacks.

use std::fs::File;
use std::io::{Read as _, Seek as _};
use std::os::fd::{AsFd as _, OwnedFd};

use sampan_archive::tar::Reader;
use sampan_archive::{Compression, Decompress};
use sampan_base::Cancel;
use sampan_layers::{Mode, Quota, extract_within};

use super::target::Owner;
use crate::run::BuildError;

/// Whether a file is a tar archive, compressed or not.
pub(crate) fn is_archive(file: &File) -> bool {
    let check = || -> std::io::Result<bool> {
        let mut file = file.try_clone()?;
        let mut head = [0; 512];
        let mut count = 0;
        while count < head.len() {
            match file.read(&mut head[count..])? {
                0 => break,
                more => count += more,
            }
        }
        file.rewind()?;
        if matches!(Compression::detect(&head[..count.min(6)]), Compression::None) && head.get(257..262) != Some(b"ustar") {
            return Ok(false);
        }
        let found = Decompress::new(&file).is_ok_and(|reader| matches!(Reader::new(reader).next_entry(), Ok(Some(_))));
        file.rewind()?;
        Ok(found)
    };
    check().unwrap_or(false)
}

/// Unpacks an archive into a directory, up to a limit; everything gets the owner, where one is given.
pub(crate) fn unpack(file: File, directory: &OwnedFd, owner: Option<Owner>, quota: Quota, cancel: &Cancel) -> Result<(), BuildError> {
    let reader = Decompress::new(file).map_err(BuildError::io("read an archive"))?;
    let mode = Mode::Over { owner };
    extract_within(reader, directory.as_fd(), mode, quota, cancel).map(drop).map_err(|error| BuildError::room("ADD failed", &error))
}
