//! The small init of `--init`: process 1 that starts the program, forwards every signal and reaps every orphan.

use std::ffi::CString;
use std::io;
use std::os::fd::AsFd as _;

use rustix::event::{PollFd, PollFlags, poll};
use sampan_sys::process::{self, Ended, Forked, NewNamespaces};

const SIGCHLD: i32 = 17;
const SIGTTIN: i32 = 21;
const SIGTTOU: i32 = 22;

/// Runs `arguments` (after `--`) as the child of this process 1 and gives the exit code: the program's, or 128 + signal.
#[must_use]
pub fn main(arguments: &[String]) -> i32 {
    let words = arguments.iter().skip_while(|word| *word == "--").map(|word| CString::new(word.as_str()).ok()).collect::<Option<Vec<_>>>();
    match words {
        Some(words) if !words.is_empty() => run(&words).unwrap_or(1),
        _ => 2,
    }
}

fn run(words: &[CString]) -> io::Result<i32> {
    let signals = process::signal_fd()?;
    let Forked::Parent { pid, pidfd } = process::fork(NewNamespaces::empty(), None)? else { child(words) };
    loop {
        let mut ready = [PollFd::new(&signals, PollFlags::IN)];
        match poll(&mut ready, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        while let Some(signal) = process::next_signal(signals.as_fd())? {
            if signal == SIGCHLD {
                if let Some(ended) = reap(pid) {
                    return Ok(ended.code());
                }
            } else if let Err(error) = process::send_signal(pidfd.as_fd(), signal)
                && error.raw_os_error() != Some(3)
            {
                return Err(error);
            }
        }
    }
}

/// Reaps every child that has ended; says how the program ended, if it was among them.
fn reap(pid: u32) -> Option<Ended> {
    while let Ok(Some((ended_pid, ended))) = process::try_wait_any() {
        if ended_pid == pid {
            return Some(ended);
        }
    }
    None
}

/// The child: own process group, foreground of the terminal if there is one, then the program.
fn child(words: &[CString]) -> ! {
    let _best_effort = rustix::process::setpgid(None, None);
    // Giving oneself the terminal from the background raises SIGTTOU, which is still blocked here.
    const _: (i32, i32) = (SIGTTIN, SIGTTOU);
    if let Ok(group) = rustix::process::getpgid(None) {
        let _best_effort = rustix::termios::tcsetpgrp(rustix::stdio::stdin(), group);
    }
    process::reset_signals();
    let environment: Vec<CString> = environment();
    let error = crate::apply::program::exec_in_path(words, &environment, None);
    process::exit_now(if error.raw_os_error() == Some(13) { 126 } else { 127 })
}

fn environment() -> Vec<CString> {
    use std::os::unix::ffi::OsStrExt as _;
    let pair = |(key, value): (std::ffi::OsString, std::ffi::OsString)| {
        let mut line = key.as_bytes().to_vec();
        line.push(b'=');
        line.extend_from_slice(value.as_bytes());
        CString::new(line).ok()
    };
    std::env::vars_os().filter_map(pair).collect()
}
