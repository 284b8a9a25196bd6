//! Directories and entries, by descriptor: extraction, packing, differences, overlay mounts, and the file half of `cp`.
//!
//! No path is ever resolved by the kernel outside the root it belongs to. Knows no rows and no images.
#![forbid(unsafe_code)]

mod changes;
mod copy;
mod extract;
mod overlay;
mod pack;

pub use changes::{Change, ChangeKind, changes};
pub use copy::{PathStat, archive_path, put_archive, stat_path};
pub use extract::{ExtractError, Extracted, Mode, Quota, extract, extract_within};
pub use overlay::{make_places, mount as overlay_mount, mount_with as overlay_mount_with, private_directory};
pub use pack::{PackMode, Packed, pack, pack_below, pack_one};

/// The attribute that makes a directory of an upper layer hide the lower ones.
const OPAQUE: &str = "trusted.overlay.opaque";
