//! How much room things take.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// Bytes of the regular files below a directory; what cannot be read counts nothing. Follows no links, leaves no file system.
#[must_use]
pub(crate) fn tree_size(folder: &Path) -> u64 {
    let Ok(metadata) = folder.symlink_metadata() else { return 0 };
    let device = metadata.dev();
    let mut total = 0;
    let mut seen = std::collections::HashSet::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.dev() != device {
                continue;
            }
            if metadata.is_dir() {
                folders.push(entry.path());
            } else if metadata.is_file() && (metadata.nlink() == 1 || seen.insert(metadata.ino())) {
                total += metadata.len();
            }
        }
    }
    total
}
