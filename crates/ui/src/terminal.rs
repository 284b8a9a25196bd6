//! Terminals: is there one, how large, raw mode and back.

use std::os::fd::AsFd;

use rustix::termios::{self, OptionalActions, Termios};

/// Whether it is a terminal.
#[must_use]
pub fn is_terminal(fd: impl AsFd) -> bool {
    termios::isatty(fd)
}

/// Rows and columns.
#[must_use]
pub fn size(fd: impl AsFd) -> Option<(u16, u16)> {
    let size = termios::tcgetwinsize(fd).ok()?;
    (size.ws_row > 0 && size.ws_col > 0).then_some((size.ws_row, size.ws_col))
}

/// Raw mode of standard input, left when this goes.
#[derive(Debug)]
pub struct Raw(Option<Termios>);

impl Raw {
    /// Enters raw mode; nothing happens without a terminal.
    ///
    /// # Errors
    /// When the terminal refuses.
    pub fn enter() -> std::io::Result<Self> {
        let stdin = std::io::stdin();
        let Ok(before) = termios::tcgetattr(&stdin) else { return Ok(Self(None)) };
        let mut raw = before.clone();
        raw.make_raw();
        termios::tcsetattr(&stdin, OptionalActions::Now, &raw)?;
        Ok(Self(Some(before)))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if let Some(before) = self.0.take() {
            let _gone_terminal = termios::tcsetattr(std::io::stdin(), OptionalActions::Now, &before);
        }
    }
}

/// Reads a line that is not shown. Raw mode is left in any case, also when the user gives up.
///
/// # Errors
/// A terminal that fails; [`std::io::ErrorKind::Interrupted`] at Ctrl-C.
pub fn read_hidden() -> std::io::Result<String> {
    use std::io::Read as _;
    const MOST: usize = 64 << 10;
    let _raw = Raw::enter()?;
    let mut line: Vec<u8> = Vec::new();
    let mut stdin = std::io::stdin().lock();
    let mut byte = [0];
    while stdin.read(&mut byte)? == 1 && line.len() < MOST {
        match byte[0] {
            b'\r' | b'\n' => break,
            3 => return Err(std::io::ErrorKind::Interrupted.into()),
            4 if line.is_empty() => break,
            // Ctrl-U.
            21 => line.clear(),
            8 | 127 => {
                // A character may be several bytes.
                while line.pop().is_some_and(|byte| byte & 0xc0 == 0x80) {}
            }
            other => line.push(other),
        }
    }
    String::from_utf8(line).map_err(|error| std::io::Error::new(std::io::ErrorKind::InvalidData, error))
}
