//! The mounts of a plan: each made detached, then attached at a place found inside the root.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags, openat};
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

/// Makes and attaches every mount. `given` came with the plan.
pub(crate) fn apply(plan: &Plan, given: &[OwnedFd], root: BorrowedFd<'_>) -> Result<Special, Fault> {
    let mut special = Special::default();
    for step in &plan.mounts {
        let place = place_of(step, given, root)?;
        let mounted = one(step, place).map_err(Fault::new(Stage::Mount {}, &step.target))?;
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

/// Makes and attaches mounts below a root that no process has, for whoever looks into it.
///
/// # Errors
/// What the kernel says of the first that fails.
pub fn attach_all(steps: &[MountStep], root: BorrowedFd<'_>) -> io::Result<()> {
    for step in steps {
        let place = place_of(step, &[], root).map_err(|fault| io::Error::from_raw_os_error(fault.errno))?;
        one(step, place)?;
    }
    Ok(())
}

/// A mount that is nowhere yet, and where it goes.
struct Found {
    tree: OwnedFd,
    is_directory: bool,
    place: OwnedFd,
}

/// What may be mounted over in /proc: files that tools fake.
const FAKED: &[&str] = &[
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/loadavg",
    "/proc/meminfo",
    "/proc/net/dev",
    "/proc/slabinfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/sys/kernel/ns_last_pid",
    "/proc/uptime",
];

fn place_of(step: &MountStep, given: &[OwnedFd], root: BorrowedFd<'_>) -> Result<Found, Fault> {
    let fault = || Fault::new(Stage::Mount {}, &step.target);
    let (tree, is_directory) = detached(step, given).map_err(fault())?;
    if let MountSource::New { kind, .. } = &step.source
        && matches!(kind.as_str(), "proc" | "sysfs")
    {
        // Behind a link of the image the masks, which know the kernel's paths, would cover nothing (CVE-2019-19921).
        return match place::open_plain(root, &step.target) {
            Ok(place) if place::is_directory(place.as_fd()).map_err(fault())? => Ok(Found { tree, is_directory, place }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let place = place::make_directory(root, &step.target).map_err(fault())?;
                Ok(Found { tree, is_directory, place })
            }
            _ => Err(Fault { stage: Stage::KernelPlace {}, errno: 20, detail: kind.clone() }),
        };
    }
    let place = if is_directory { place::make_directory(root, &step.target) } else { place::make_file(root, &step.target) };
    let place = place.map_err(fault())?;
    let on_proc = |place: BorrowedFd<'_>| place::is_on(place, place::PROCFS).map_err(fault());
    // Whatever the target's words: it may have got there through a link.
    if on_proc(place.as_fd())? && !on_proc(tree.as_fd())? && !FAKED.contains(&step.target.as_str()) {
        return Err(Fault { stage: Stage::InsideProc {}, errno: 1, detail: step.target.clone() });
    }
    Ok(Found { tree, is_directory, place })
}

fn one(step: &MountStep, found: Found) -> io::Result<OwnedFd> {
    let Found { tree, is_directory, place } = found;
    if step.copy_up && is_directory {
        copy_up(place.as_fd(), tree.as_fd())?;
    }
    set_attributes(step, tree.as_fd())?;
    mount::attach(tree.as_fd(), place.as_fd())?;
    Ok(tree)
}

fn detached(step: &MountStep, given: &[OwnedFd]) -> io::Result<(OwnedFd, bool)> {
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
            let inside = sampan_sys::dir::open_beneath(directory.as_fd(), path.as_bytes(), rustix::fs::OFlags::PATH)?;
            let tree = mount::clone_tree(inside.as_fd(), c"", true)?;
            let is_directory = place::is_directory(tree.as_fd())?;
            Ok((tree, is_directory))
        }
        MountSource::Given { number } => {
            let tree = given.get(*number as usize).ok_or(io::ErrorKind::InvalidInput)?.try_clone()?;
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

/// How deep a tree is copied: each level holds two descriptors.
const DEEPEST: usize = 200;

/// Copies the regular files, directories and links that the image has at a tmpfs's place into the tmpfs, depth first.
fn copy_up(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<()> {
    let open = |folder: BorrowedFd<'_>| openat(folder, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let first = open(from)?;
    let mut levels = vec![(rustix::fs::Dir::read_from(&first)?, first, open(to)?)];
    while let Some((entries, source, target)) = levels.last_mut() {
        let Some(entry) = entries.next() else {
            levels.pop();
            continue;
        };
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        if let Some((inner, copy)) = copy_entry(source, target, name)? {
            if levels.len() >= DEEPEST {
                return Err(rustix::io::Errno::NAMETOOLONG.into());
            }
            levels.push((rustix::fs::Dir::read_from(&inner)?, inner, copy));
        }
    }
    Ok(())
}

/// Copies one name; both sides of a directory are given back.
fn copy_entry(source: &OwnedFd, target: &OwnedFd, name: &CStr) -> io::Result<Option<(OwnedFd, OwnedFd)>> {
    let facts = rustix::fs::statat(source, name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW)?;
    let mode = Mode::from_raw_mode(facts.st_mode & 0o7777);
    let open = OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut deeper = None;
    match FileType::from_raw_mode(facts.st_mode) {
        FileType::Directory => {
            rustix::fs::mkdirat(target, name, mode)?;
            let flags = open | OFlags::RDONLY | OFlags::DIRECTORY;
            deeper = Some((openat(source, name, flags, Mode::empty())?, openat(target, name, flags, Mode::empty())?));
        }
        FileType::RegularFile => {
            let old = openat(source, name, open | OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty())?;
            let new = openat(target, name, open | OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL, mode)?;
            io::copy(&mut std::fs::File::from(old), &mut std::fs::File::from(new))?;
        }
        FileType::Symlink => {
            let link = rustix::fs::readlinkat(source, name, Vec::new())?;
            rustix::fs::symlinkat(link, target, name)?;
        }
        // Special files are not copied.
        _ => return Ok(None),
    }
    let (uid, gid) = (rustix::fs::Uid::from_raw(facts.st_uid), rustix::fs::Gid::from_raw(facts.st_gid));
    rustix::fs::chownat(target, name, Some(uid), Some(gid), rustix::fs::AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(deeper)
}
