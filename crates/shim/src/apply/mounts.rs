//! The mounts of a plan: each made detached, then attached at a place found inside the root.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use sampan_sys::mount::{self, Attributes, Propagation};

use super::{Fault, place};
use crate::plan::{MountSource, MountStep, Plan};
use crate::protocol::Stage;

/// Mounts of ours that later steps work on: known by descriptor, so that nothing in the image can stand in for them.
#[derive(Debug, Default)]
pub(crate) struct Special {
    /// procfs.
    pub(crate) proc: Option<OwnedFd>,
    /// The tmpfs at /dev.
    pub(crate) dev: Option<OwnedFd>,
    /// devpts.
    pub(crate) pts: Option<OwnedFd>,
}

/// Makes and attaches every mount.
pub(crate) fn apply(plan: &Plan, root: BorrowedFd<'_>) -> Result<Special, Fault> {
    let mut special = Special::default();
    for step in &plan.mounts {
        let mounted = one(step, root).map_err(Fault::new(Stage::Mount {}, &step.target))?;
        if let MountSource::New { kind, .. } = &step.source {
            match (kind.as_str(), step.target.as_str()) {
                ("proc", "/proc") => special.proc = Some(mounted),
                ("tmpfs", "/dev") => special.dev = Some(mounted),
                ("devpts", "/dev/pts") => special.pts = Some(mounted),
                _ => {}
            }
        }
    }
    Ok(special)
}

fn one(step: &MountStep, root: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let (tree, is_directory) = detached(step)?;
    let place = if is_directory { place::make_directory(root, &step.target)? } else { place::make_file(root, &step.target)? };
    if step.copy_up && is_directory {
        copy_up(place.as_fd(), tree.as_fd())?;
    }
    set_attributes(step, tree.as_fd())?;
    mount::attach(tree.as_fd(), place.as_fd())?;
    Ok(tree)
}

fn detached(step: &MountStep) -> io::Result<(OwnedFd, bool)> {
    match &step.source {
        MountSource::New { kind, options } => {
            let owned = options.iter().map(|(key, value)| Ok((CString::new(key.as_str())?, CString::new(value.as_str())?)));
            let owned = owned.collect::<Result<Vec<_>, std::ffi::NulError>>()?;
            let borrowed: Vec<(&CStr, Option<&CStr>)> =
                owned.iter().map(|(key, value)| (key.as_c_str(), Some(value.as_c_str()).filter(|value| !value.is_empty()))).collect();
            let kind = CString::new(kind.as_str())?;
            Ok((mount::new_filesystem(&kind, &borrowed, Attributes::empty())?, true))
        }
        MountSource::Bind { path, recursive } => {
            let path = CString::new(path.as_str())?;
            let tree = mount::clone_tree(rustix::fs::CWD, &path, *recursive)?;
            let is_directory = place::is_directory(tree.as_fd())?;
            Ok((tree, is_directory))
        }
        MountSource::BindBeneath { directory, path } => {
            let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC;
            let directory = rustix::fs::open(directory, flags, rustix::fs::Mode::empty())?;
            let inside = place::open(directory.as_fd(), path)?;
            let tree = mount::clone_tree(inside.as_fd(), c"", true)?;
            let is_directory = place::is_directory(tree.as_fd())?;
            Ok((tree, is_directory))
        }
    }
}

fn set_attributes(step: &MountStep, tree: BorrowedFd<'_>) -> io::Result<()> {
    let set = Attributes::from_bits_truncate(step.attributes);
    let propagation = match step.propagation & 7 {
        1 => Some(Propagation::Private),
        2 => Some(Propagation::Shared),
        3 => Some(Propagation::Slave),
        _ => None,
    };
    if set == Attributes::empty() && propagation.is_none() {
        return Ok(());
    }
    if step.recursive && mount::set_attributes(tree, set, Attributes::empty(), None, true).is_err() && step.force_recursive {
        return Err(io::ErrorKind::Unsupported.into());
    }
    mount::set_attributes(tree, set, Attributes::empty(), None, false)?;
    match propagation {
        Some(_) => mount::set_attributes(tree, Attributes::empty(), Attributes::empty(), propagation, step.propagation & 8 != 0),
        None => Ok(()),
    }
}

/// Copies the regular files, directories and links that the image has at a tmpfs's place into the tmpfs: one level deep in memory,
/// however deep the tree.
fn copy_up(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<()> {
    use rustix::fs::{FileType, Mode, OFlags, openat};
    let readable = openat(from, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let mut pending = vec![(readable, openat(to, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)];
    while let Some((source, target)) = pending.pop() {
        for entry in rustix::fs::Dir::read_from(&source)? {
            let entry = entry?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            let facts = rustix::fs::statat(&source, name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW)?;
            let mode = Mode::from_raw_mode(facts.st_mode & 0o7777);
            let open = OFlags::NOFOLLOW | OFlags::CLOEXEC;
            match FileType::from_raw_mode(facts.st_mode) {
                FileType::Directory => {
                    rustix::fs::mkdirat(&target, name, mode)?;
                    let deeper = openat(&source, name, open | OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())?;
                    pending.push((deeper, openat(&target, name, open | OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())?));
                }
                FileType::RegularFile => {
                    let old = openat(&source, name, open | OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty())?;
                    let new = openat(&target, name, open | OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL, mode)?;
                    io::copy(&mut std::fs::File::from(old), &mut std::fs::File::from(new))?;
                }
                FileType::Symlink => {
                    let link = rustix::fs::readlinkat(&source, name, Vec::new())?;
                    rustix::fs::symlinkat(link, &target, name)?;
                }
                _ => {}
            }
            let (uid, gid) = (rustix::fs::Uid::from_raw(facts.st_uid), rustix::fs::Gid::from_raw(facts.st_gid));
            rustix::fs::chownat(&target, name, Some(uid), Some(gid), rustix::fs::AtFlags::SYMLINK_NOFOLLOW)?;
        }
    }
    Ok(())
}
