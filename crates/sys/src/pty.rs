//! Pseudo-terminals.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;

/// Opens the two ends of a terminal in the instance that `ptmx` (an open `/dev/pts/ptmx`) belongs to.
///
/// # Errors
/// What the kernel says.
pub fn peer(master: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    rustix::pty::unlockpt(master)?;
    Ok(rustix::pty::ioctl_tiocgptpeer(master, OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?)
}

/// The name of a terminal's second end: the number below /dev/pts.
///
/// # Errors
/// What the kernel says.
pub fn number(master: BorrowedFd<'_>) -> io::Result<String> {
    let name = rustix::pty::ptsname(master, Vec::new())?;
    let name = name.to_string_lossy();
    Ok(name.rsplit('/').next().unwrap_or_default().to_owned())
}

/// Sets a terminal's size in characters.
///
/// # Errors
/// What the kernel says.
pub fn resize(master: BorrowedFd<'_>, width: u16, height: u16) -> io::Result<()> {
    Ok(rustix::termios::tcsetwinsize(master, Winsize { ws_row: height, ws_col: width, ws_xpixel: 0, ws_ypixel: 0 })?)
}
