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

/// Standard input without echo, for passwords; left when this goes.
#[derive(Debug)]
pub struct Quiet(Option<Termios>);

impl Quiet {
    /// Turns the echo off; nothing happens without a terminal.
    ///
    /// # Errors
    /// When the terminal refuses.
    pub fn enter() -> std::io::Result<Self> {
        let stdin = std::io::stdin();
        let Ok(before) = termios::tcgetattr(&stdin) else { return Ok(Self(None)) };
        let mut quiet = before.clone();
        quiet.local_modes -= termios::LocalModes::ECHO;
        quiet.local_modes |= termios::LocalModes::ICANON | termios::LocalModes::ISIG;
        termios::tcsetattr(&stdin, OptionalActions::Flush, &quiet)?;
        Ok(Self(Some(before)))
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        if let Some(before) = self.0.take() {
            let _gone_terminal = termios::tcsetattr(std::io::stdin(), OptionalActions::Now, &before);
        }
    }
}
