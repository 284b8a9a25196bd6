//! Masked and read-only paths. A path that does not exist is fine; links mean what they mean inside the root.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};

use rustix::fs::{Mode, OFlags};
use sampan_sys::mount::{self, Attributes};

use super::{Fault, place};
use crate::plan::Plan;
use crate::protocol::Stage;

/// Covers what is to be hidden and makes read-only what is to be kept.
pub(crate) fn apply(plan: &Plan, root: BorrowedFd<'_>) -> Result<(), Fault> {
    for path in &plan.readonly {
        tolerate(readonly(root, path)).map_err(Fault::new(Stage::Mask {}, path))?;
    }
    for path in &plan.masked {
        tolerate(mask(root, path)).map_err(Fault::new(Stage::Mask {}, path))?;
    }
    Ok(())
}

fn tolerate(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(()),
        other => other,
    }
}

fn readonly(root: BorrowedFd<'_>, path: &str) -> io::Result<()> {
    let found = place::open(root, path)?;
    let tree = mount::clone_tree(found.as_fd(), c"", true)?;
    mount::set_attributes(tree.as_fd(), Attributes::RDONLY, Attributes::empty(), None, true)?;
    mount::attach(tree.as_fd(), found.as_fd())
}

fn mask(root: BorrowedFd<'_>, path: &str) -> io::Result<()> {
    let found = place::open(root, path)?;
    let cover = if place::is_directory(found.as_fd())? {
        mount::new_filesystem(
            c"tmpfs",
            &[(c"nr_inodes", Some(c"1")), (c"size", Some(c"4k")), (c"mode", Some(c"0555"))],
            Attributes::RDONLY,
        )?
    } else {
        mount::clone_tree(null_device()?.as_fd(), c"", false)?
    };
    mount::attach(cover.as_fd(), found.as_fd())
}

/// The host's /dev/null, checked to be it (CVE-2025-31133).
fn null_device() -> io::Result<std::os::fd::OwnedFd> {
    let null = rustix::fs::open("/dev/null", OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    let facts = rustix::fs::fstat(&null)?;
    let device = (rustix::fs::major(facts.st_rdev), rustix::fs::minor(facts.st_rdev));
    let is_null = rustix::fs::FileType::from_raw_mode(facts.st_mode).is_char_device() && device == (1, 3);
    if is_null { Ok(null) } else { Err(io::Error::from_raw_os_error(19)) }
}
