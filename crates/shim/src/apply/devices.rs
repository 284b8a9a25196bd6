//! Device nodes, the links of /dev, the terminal and /dev/console.
//!
//! All are made in the tmpfs that the plan mounts at /dev, reached by its descriptor: an image whose /dev is a link cannot make
//! us write elsewhere (runc CVE-2026-41579, crun CVE-2026-47766).

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, Gid, Mode, OFlags, ResolveFlags, Uid};
use sampan_sys::{mount, pty};

use super::mounts::Special;
use super::{Fault, place};
use crate::plan::{DeviceNode, Plan};
use crate::protocol::Stage;

/// Both ends of the container's terminal.
pub(crate) type Terminal = (OwnedFd, OwnedFd);

/// Makes nodes and links, and opens the terminal if the plan has one.
pub(crate) fn apply(plan: &Plan, root: BorrowedFd<'_>, special: &Special) -> Result<Option<Terminal>, Fault> {
    for node in &plan.devices {
        make_node(node, root, special).map_err(Fault::new(Stage::Device {}, &node.path))?;
    }
    if let Some(dev) = &special.dev {
        for (name, target) in &plan.links {
            match rustix::fs::symlinkat(target.as_str(), dev, name.as_str()) {
                Ok(()) | Err(rustix::io::Errno::EXIST) => {}
                Err(error) => return Err(Fault::new(Stage::Device {}, name)(error.into())),
            }
        }
    }
    if !plan.process.terminal {
        return Ok(None);
    }
    open_terminal(special).map(Some).map_err(Fault::new(Stage::Stdio {}, "terminal"))
}

fn make_node(node: &DeviceNode, root: BorrowedFd<'_>, special: &Special) -> std::io::Result<()> {
    let (folder, name) = match (node.path.strip_prefix("/dev/"), &special.dev) {
        (Some(rest), Some(dev)) => {
            let (below, name) = rest.rsplit_once('/').unwrap_or(("", rest));
            (place::make_directory(dev.as_fd(), below)?, name)
        }
        _ => {
            let (below, name) = node.path.rsplit_once('/').unwrap_or(("", &node.path));
            (place::make_directory(root, below)?, name)
        }
    };
    let kind = FileType::from_raw_mode(node.mode);
    let device = rustix::fs::makedev(node.major, node.minor);
    let nofollow = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
    match rustix::fs::statat(&folder, name, nofollow) {
        // The same device again, with other rights or another owner.
        Ok(facts) if FileType::from_raw_mode(facts.st_mode) == kind && facts.st_rdev == device => {
            rustix::fs::unlinkat(&folder, name, rustix::fs::AtFlags::empty())?;
        }
        // Anything else stays what it is: through a link of the image we would change a file of the host.
        Ok(_) => return Err(rustix::io::Errno::EXIST.into()),
        Err(rustix::io::Errno::NOENT) => {}
        Err(error) => return Err(error.into()),
    }
    // The mode comes with the node: setting it afterwards could follow a link.
    let umask = rustix::process::umask(Mode::empty());
    let made = rustix::fs::mknodat(&folder, name, kind, Mode::from_raw_mode(node.mode & 0o7777), device);
    rustix::process::umask(umask);
    made?;
    let owner = (Some(Uid::from_raw(node.uid)), Some(Gid::from_raw(node.gid)));
    Ok(rustix::fs::chownat(&folder, name, owner.0, owner.1, nofollow)?)
}

/// Opens a terminal in the container's own devpts, and shows it at /dev/console.
fn open_terminal(special: &Special) -> std::io::Result<Terminal> {
    let Some(pts) = &special.pts else { return Err(std::io::ErrorKind::NotFound.into()) };
    let master = rustix::fs::openat(pts, "ptmx", OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty())?;
    let slave = pty::peer(master.as_fd())?;
    if let Some(dev) = &special.dev {
        let number = std::ffi::CString::new(pty::number(master.as_fd())?)?;
        let console = place::make_file(dev.as_fd(), "/console")?;
        let tree = mount::clone_tree(pts.as_fd(), &number, false)?;
        mount::attach(tree.as_fd(), console.as_fd())?;
    }
    Ok((master, slave))
}

/// The magic number of devpts, to tell it from something that an image mounted or put there.
const DEVPTS: u64 = 0x1cd1;

/// Opens a terminal for a further process: the caller is inside the container already.
pub(crate) fn open_terminal_inside() -> std::io::Result<Terminal> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let master = rustix::fs::openat2(rustix::fs::CWD, "/dev/pts/ptmx", flags, Mode::empty(), ResolveFlags::NO_SYMLINKS)?;
    if !place::is_on(master.as_fd(), DEVPTS)? {
        return Err(std::io::Error::from_raw_os_error(19));
    }
    let slave = pty::peer(master.as_fd())?;
    Ok((master, slave))
}
