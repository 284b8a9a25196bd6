//! One process with its streams: process 1 or a further one.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::{Duration, Instant};

use rustix::pipe::PipeFlags;
use sampan_sys::process::Ended;

use super::streams::{Client, Health};
use crate::apply::Stdio;
use crate::log::{LogWriter, Stream};
use crate::plan::ProcessPlan;

/// Our side of a process's streams.
#[derive(Debug, Default)]
pub(super) struct Ours {
    stdin: Option<OwnedFd>,
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
}

/// A process that lives, or ended and is not yet drained.
#[derive(Debug)]
pub(super) struct Child {
    /// Empty for process 1.
    pub(super) name: String,
    pub(super) pid: u32,
    pub(super) pidfd: OwnedFd,
    pub(super) terminal: bool,
    stdin_once: bool,
    ours: Ours,
    pub(super) clients: Vec<Client>,
    /// Input that the process has not taken yet.
    input: Vec<u8>,
    /// Standard input closes once what waits was taken.
    close_after_input: bool,
    pub(super) ended: Option<Ended>,
    /// When draining is given up: something else holds the streams open.
    pub(super) drain_until: Option<Instant>,
    /// When its last little output came.
    trickled: Option<Instant>,
    /// Output comes in many small pieces: it is left to gather until then.
    rest_until: Option<Instant>,
}

/// Less than this at once is little.
const LITTLE: usize = 16 * 1024;
/// Little output that soon after other: more of it is coming.
const SOON: Duration = Duration::from_millis(1);
/// How long little output gathers then. A pipe holds more than most programs write in that time.
const REST: Duration = Duration::from_micros(200);

/// Streams for a plan: the process's side and ours.
pub(super) fn make_stdio(plan: &ProcessPlan) -> io::Result<(Stdio, Ours)> {
    if plan.terminal {
        return Ok((Stdio::Terminal, Ours::default()));
    }
    let pipe = || rustix::pipe::pipe_with(PipeFlags::CLOEXEC);
    let (stdin, our_stdin) = if plan.stdin {
        let (read, write) = pipe()?;
        rustix::io::ioctl_fionbio(&write, true)?;
        (read, Some(write))
    } else {
        let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC;
        (rustix::fs::open("/dev/null", flags, rustix::fs::Mode::empty())?, None)
    };
    let (our_stdout, stdout) = pipe()?;
    let (our_stderr, stderr) = pipe()?;
    // Only our ends: a non-blocking end of the process's would surprise it.
    rustix::io::ioctl_fionbio(&our_stdout, true)?;
    rustix::io::ioctl_fionbio(&our_stderr, true)?;
    let ours = Ours { stdin: our_stdin, stdout: Some(our_stdout), stderr: Some(our_stderr) };
    Ok((Stdio::Pipes([stdin, stdout, stderr]), ours))
}

impl Ours {
    /// With a terminal, its master carries all.
    pub(super) fn with_terminal(mut self, master: Option<OwnedFd>, stdin: bool) -> io::Result<Self> {
        if let Some(master) = master {
            rustix::io::ioctl_fionbio(&master, true)?;
            self.stdin = if stdin { Some(master.try_clone()?) } else { None };
            self.stdout = Some(master);
        }
        Ok(self)
    }
}

impl Child {
    pub(super) fn new(name: String, pid: u32, pidfd: OwnedFd, plan: &ProcessPlan, ours: Ours, clients: Vec<Client>) -> Self {
        Self {
            name,
            pid,
            pidfd,
            terminal: plan.terminal,
            stdin_once: plan.stdin_once,
            ours,
            clients,
            input: Vec::new(),
            close_after_input: false,
            ended: None,
            drain_until: None,
            trickled: None,
            rest_until: None,
        }
    }

    pub(super) fn stream(&self, stream: Stream) -> Option<&OwnedFd> {
        match stream {
            Stream::Stdout => self.ours.stdout.as_ref(),
            Stream::Stderr => self.ours.stderr.as_ref(),
        }
    }

    pub(super) fn stdin(&self) -> Option<&OwnedFd> {
        self.ours.stdin.as_ref()
    }

    /// Whether a client's backlog forbids reading more output now.
    pub(super) fn is_held(&self) -> bool {
        self.clients.iter().any(Client::is_full)
    }

    /// Until when output is left to gather, if it is.
    pub(super) fn resting(&self, now: Instant) -> Option<Instant> {
        self.rest_until.filter(|end| *end > now)
    }

    /// Many small pieces cost a wake-up and a write each: where one follows another at once, the next ones may gather.
    fn trickle(&mut self) {
        let now = Instant::now();
        let again = self.trickled.is_some_and(|last| now.duration_since(last) < SOON);
        self.rest_until = again.then(|| now + REST);
        self.trickled = Some(now);
    }

    /// Whether input waits for the process to read.
    pub(super) fn has_input(&self) -> bool {
        !self.input.is_empty()
    }

    /// Whether nothing more can come out of it.
    pub(super) fn is_drained(&self, now: Instant) -> bool {
        let closed = self.ours.stdout.is_none() && self.ours.stderr.is_none();
        let flushed = self.clients.iter().all(|client| !client.is_behind());
        self.ended.is_some() && ((closed && flushed) || self.drain_until.is_some_and(|end| end <= now))
    }

    /// Whether its own output is over, whoever still reads the rest.
    pub(super) fn output_over(&self, now: Instant) -> bool {
        let closed = self.ours.stdout.is_none() && self.ours.stderr.is_none();
        closed || self.drain_until.is_some_and(|end| end <= now)
    }

    /// Moves output to the log and the clients.
    pub(super) fn pump(&mut self, stream: Stream, mut log: Option<&mut LogWriter>, buffer: &mut [u8]) {
        for _ in 0..16 {
            if self.is_held() {
                return;
            }
            let Some(fd) = self.stream(stream) else { return };
            match rustix::io::read(fd, &mut *buffer) {
                Ok(count) if count > 0 => {
                    let text = &buffer[..count];
                    if let Some(log) = log.as_deref_mut() {
                        log.write(stream, text);
                    }
                    self.clients.retain_mut(|client| client.send(stream, text) != Health::Gone);
                    if count < buffer.len() && !self.terminal {
                        // A short read of a pipe: most likely empty now; poll tells if not.
                        if count < LITTLE {
                            self.trickle();
                        }
                        return;
                    }
                }
                Err(rustix::io::Errno::AGAIN) => return,
                Err(rustix::io::Errno::INTR) => {}
                // The end; a terminal says EIO when its last other end closes.
                Ok(_) | Err(_) => {
                    if let Some(log) = log {
                        log.finish(stream);
                    }
                    match stream {
                        Stream::Stdout => self.ours.stdout = None,
                        Stream::Stderr => self.ours.stderr = None,
                    }
                    return;
                }
            }
        }
    }

    /// Reads a client's input. What it sends after its process has closed its input is thrown away.
    pub(super) fn take_input(&mut self, index: usize) {
        let mut buffer = [0; 16 * 1024];
        let mut ended = false;
        while self.input.len() < 64 * 1024 {
            let Some(client) = self.clients.get(index) else { return };
            match rustix::io::read(&client.socket, &mut buffer) {
                Ok(0) => {
                    ended = true;
                    break;
                }
                Ok(count) if self.ours.stdin.is_some() && client.streams.stdin => self.input.extend_from_slice(&buffer[..count]),
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => break,
                Err(_) => {
                    ended = true;
                    break;
                }
            }
        }
        if ended && let Some(client) = self.clients.get_mut(index) {
            let wrote = client.streams.stdin;
            client.input_ended = true;
            if wrote && self.stdin_once {
                self.close_after_input = true;
            }
        }
        self.flush_input();
    }

    /// Gives waiting input to the process.
    pub(super) fn flush_input(&mut self) {
        while !self.input.is_empty() {
            let Some(stdin) = &self.ours.stdin else {
                self.input.clear();
                break;
            };
            match rustix::io::write(stdin, &self.input) {
                Ok(count) => drop(self.input.drain(..count)),
                Err(rustix::io::Errno::AGAIN) => return,
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => {
                    // The process closed its input.
                    self.ours.stdin = None;
                    self.input.clear();
                }
            }
        }
        if self.close_after_input {
            if self.terminal
                && let Some(stdin) = &self.ours.stdin
            {
                // On a terminal the end of input is a character.
                let _best_effort = rustix::io::write(stdin, &[4]);
            }
            self.ours.stdin = None;
        }
    }

    /// Drops clients that are gone or were stuck for too long.
    pub(super) fn sweep_clients(&mut self, now: Instant) {
        self.clients.retain_mut(|client| !client.is_stuck(now));
    }

    /// Sends waiting output to one client.
    pub(super) fn flush_client(&mut self, index: usize) {
        if self.clients.get_mut(index).is_some_and(|client| client.flush() == Health::Gone) {
            self.clients.remove(index);
        }
    }

    /// Drops a client that hung up.
    pub(super) fn drop_client(&mut self, index: usize) {
        if index < self.clients.len() {
            self.clients.remove(index);
        }
    }

    /// Adds a client; when the process has no output any more it is closed at once.
    pub(super) fn attach(&mut self, client: Client) {
        if self.ended.is_none() {
            self.clients.push(client);
        }
    }

    /// The terminal, for its size.
    pub(super) fn terminal_fd(&self) -> Option<&OwnedFd> {
        if self.terminal { self.ours.stdout.as_ref() } else { None }
    }

    pub(super) fn send_signal(&self, number: i32) -> io::Result<()> {
        sampan_sys::process::send_signal(self.pidfd.as_fd(), number)
    }
}
