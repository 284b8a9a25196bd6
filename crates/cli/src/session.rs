//! Sitting at a process: its output here, our input there, the terminal's size, signals, the keys that detach.

use std::io::{self, Read as _, Write as _};

use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use sampan_ui::terminal::{self, Raw};
use tokio::io::{AsyncWriteExt as _, WriteHalf};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot};

use crate::app::App;
use crate::error::{CliError, Outcome};
use crate::remote::{Hijacked, Reader};

/// What a session is about.
#[derive(Debug)]
pub(crate) struct Session<'a> {
    pub(crate) app: &'a App,
    /// `/containers/ID` or `/exec/ID`: where the terminal's size goes.
    pub(crate) resize: String,
    /// The container that gets our signals; `None`: they end us.
    pub(crate) signals: Option<String>,
    pub(crate) stdin: bool,
    pub(crate) terminal: bool,
    pub(crate) detach_keys: Vec<u8>,
}

/// How a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// The output is over.
    Over,
    /// The user pressed the keys.
    Detached,
}

impl Session<'_> {
    /// Runs until the output ends or the user detaches. `started` is awaited first: what it says ends the session too.
    pub(crate) async fn run(self, hijacked: Hijacked) -> Outcome<End> {
        let Hijacked { mut reader, writer } = hijacked;
        reader.set_terminal(self.terminal);
        let _raw = if self.stdin && self.terminal { Some(Raw::enter()?) } else { None };
        let (detached, mut detach) = oneshot::channel();
        let input = if self.stdin {
            Some(tokio::spawn(forward(read_stdin(), writer, self.detach_keys.clone(), self.terminal, detached)))
        } else {
            // The connection stays open both ways: dropping this half alone closes nothing.
            drop(detached);
            drop(writer);
            None
        };
        let mut output = Output::new(input.is_some());
        let mut window = if self.terminal { Some(signal(SignalKind::window_change())?) } else { None };
        let mut signals = Signals::listen(self.signals.is_some())?;
        let mut may_detach = input.is_some();
        let end = loop {
            tokio::select! {
                more = step(&mut reader, &mut output) => match more {
                    Ok(true) => output.flush().await?,
                    Ok(false) => break End::Over,
                    Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Err(CliError::silent(1)),
                    // The engine went away in the middle: what it sent is all there is.
                    Err(_) => break End::Over,
                },
                found = &mut detach, if may_detach => match found {
                    Ok(()) => break End::Detached,
                    Err(_) => may_detach = false,
                },
                () = next(window.as_mut()) => self.send_size().await,
                name = signals.next() => self.pass_on(name).await,
            }
        };
        if let Some(input) = input {
            input.abort();
        }
        output.finish().await;
        Ok(end)
    }

    /// Tells the size of our terminal.
    pub(crate) async fn send_size(&self) {
        let Some((rows, columns)) = terminal::size(io::stdout()) else { return };
        let Ok(client) = self.app.client() else { return };
        let call = client.post(format!("{}/resize", self.resize)).query("h", &rows.to_string()).query("w", &columns.to_string());
        // A process that has ended has no size.
        drop(call.done().await);
    }

    async fn pass_on(&self, name: &str) {
        if let (Some(id), Ok(client)) = (&self.signals, self.app.client()) {
            drop(client.post(format!("/containers/{id}/kill")).query("signal", name).done().await);
        }
    }
}

/// Reads a piece of output. Only the reading waits: what was read is never lost.
async fn step(reader: &mut Reader, output: &mut Output) -> io::Result<bool> {
    reader.next(&mut |stream, bytes| output.write(stream, bytes)).await
}

async fn next(signal: Option<&mut Signal>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}

/// The signals that are passed on.
#[derive(Debug)]
struct Signals(Vec<(&'static str, Signal)>);

impl Signals {
    fn listen(wanted: bool) -> io::Result<Self> {
        if !wanted {
            return Ok(Self(Vec::new()));
        }
        let kinds = [
            ("HUP", SignalKind::hangup()),
            ("INT", SignalKind::interrupt()),
            ("QUIT", SignalKind::quit()),
            ("TERM", SignalKind::terminate()),
            ("USR1", SignalKind::user_defined1()),
            ("USR2", SignalKind::user_defined2()),
            ("ALRM", SignalKind::alarm()),
        ];
        kinds.into_iter().map(|(name, kind)| Ok((name, signal(kind)?))).collect::<io::Result<_>>().map(Self)
    }

    async fn next(&mut self) -> &'static str {
        std::future::poll_fn(|context| {
            for (name, signal) in &mut self.0 {
                if signal.poll_recv(context).is_ready() {
                    return std::task::Poll::Ready(*name);
                }
            }
            std::task::Poll::Pending
        })
        .await
    }
}

/// A thread that reads standard input; it ends with the process at the latest.
fn read_stdin() -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel(4);
    std::thread::spawn(move || {
        let mut stdin = io::stdin().lock();
        let mut buffer = vec![0; 32 << 10];
        loop {
            match stdin.read(&mut buffer) {
                Ok(0) => return,
                Ok(count) if sender.blocking_send(buffer[..count].to_vec()).is_ok() => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                _ => return,
            }
        }
    });
    receiver
}

/// Sends input on; at its end our half of the connection is closed.
async fn forward(
    mut input: mpsc::Receiver<Vec<u8>>,
    mut writer: WriteHalf<TokioIo<Upgraded>>,
    keys: Vec<u8>,
    terminal: bool,
    detached: oneshot::Sender<()>,
) {
    let mut watch = Keys { keys: if terminal { keys } else { Vec::new() }, seen: 0 };
    while let Some(bytes) = input.recv().await {
        let (send, found) = watch.filter(&bytes);
        if writer.write_all(&send).await.is_err() {
            return;
        }
        if found {
            let _session_is_over = detached.send(());
            return;
        }
    }
    drop(writer.shutdown().await);
    // The connection must not be dropped before the session ends.
    std::future::pending::<()>().await;
}

/// Looks for the keys that detach. Those of a sequence that has begun are held back.
#[derive(Debug)]
struct Keys {
    keys: Vec<u8>,
    seen: usize,
}

impl Keys {
    fn filter(&mut self, bytes: &[u8]) -> (Vec<u8>, bool) {
        if self.keys.is_empty() {
            return (bytes.to_vec(), false);
        }
        let mut out = Vec::with_capacity(bytes.len());
        for byte in bytes {
            if *byte == self.keys[self.seen] {
                self.seen += 1;
                if self.seen == self.keys.len() {
                    return (out, true);
                }
                continue;
            }
            out.extend_from_slice(&self.keys[..self.seen]);
            self.seen = usize::from(*byte == self.keys[0]);
            if self.seen == 0 {
                out.push(*byte);
            }
        }
        (out, false)
    }
}

/// Reads `ctrl-p,ctrl-q`.
///
/// # Errors
/// `Invalid detach keys (x) …`.
pub(crate) fn detach_keys(text: &str) -> Outcome<Vec<u8>> {
    if text.is_empty() {
        return Ok(vec![16, 17]);
    }
    let key = |name: &str| {
        let lower = name.to_lowercase();
        match lower.strip_prefix("ctrl-").map(str::as_bytes) {
            Some([letter @ b'a'..=b'z']) => Some(letter - b'a' + 1),
            Some([b'@']) => Some(0),
            Some([mark @ (b'[' | b'\\' | b']' | b'^' | b'_')]) => Some(mark - b'@'),
            Some(_) => None,
            None => match name.as_bytes() {
                [byte] => Some(*byte),
                _ => None,
            },
        }
    };
    let keys = text.split(',').map(|name| key(name).ok_or(name)).collect::<Result<_, _>>();
    keys.map_err(|name| CliError::new(format!("invalid detach keys ({text}): Unknown character: '{name}'")))
}

/// Where output goes: straight, or through a thread while input is forwarded, so that a slow reader of ours never stops the input.
#[derive(Debug)]
enum Output {
    Straight,
    Thread { batch: Vec<(u8, Vec<u8>)>, queue: mpsc::Sender<Vec<(u8, Vec<u8>)>>, done: oneshot::Receiver<()> },
}

impl Output {
    fn new(apart: bool) -> Self {
        if !apart {
            return Self::Straight;
        }
        let (queue, mut batches) = mpsc::channel::<Vec<(u8, Vec<u8>)>>(8);
        let (tell, done) = oneshot::channel();
        std::thread::spawn(move || {
            while let Some(batch) = batches.blocking_recv() {
                if batch.iter().any(|(stream, bytes)| write(*stream, bytes).is_err()) {
                    break;
                }
            }
            let _session_is_over = tell.send(());
        });
        Self::Thread { batch: Vec::new(), queue, done }
    }

    fn write(&mut self, stream: u8, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Straight => return write(stream, bytes),
            Self::Thread { batch, .. } => batch.push((stream, bytes.to_vec())),
        }
        Ok(())
    }

    /// Hands over what was written; waits for room.
    async fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Straight => Ok(()),
            Self::Thread { batch, queue, .. } => queue.send(std::mem::take(batch)).await.map_err(|_| io::ErrorKind::BrokenPipe.into()),
        }
    }

    async fn finish(self) {
        if let Self::Thread { queue, done, .. } = self {
            drop(queue);
            drop(done.await);
        }
    }
}

/// Writes a piece to standard output or standard error.
pub(crate) fn write(stream: u8, bytes: &[u8]) -> io::Result<()> {
    if stream >= 2 {
        return io::stderr().lock().write_all(bytes);
    }
    let mut out = io::stdout().lock();
    out.write_all(bytes)?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_and_found() {
        assert_eq!(detach_keys("").unwrap(), [16, 17]);
        assert_eq!(detach_keys("ctrl-a,x,ctrl-[").unwrap(), [1, b'x', 27]);
        assert!(detach_keys("ctrl-aa").is_err() && detach_keys("xy").is_err());
        let mut keys = Keys { keys: vec![16, 17], seen: 0 };
        assert_eq!(keys.filter(b"ab"), (b"ab".to_vec(), false));
        assert_eq!(keys.filter(&[b'x', 16]), (b"x".to_vec(), false));
        assert_eq!(keys.filter(b"y"), (vec![16, b'y'], false));
        assert_eq!(keys.filter(&[16, 16, 17, b'z']), (vec![16], true));
    }
}
