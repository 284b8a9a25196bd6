//! The access log: a line a request, written by a thread of its own so that no request waits for it.
//!
//! `TIME CLIENT IDENTITY METHOD PATH STATUS BYTES MILLISECONDS`

use std::io::{self, Write};
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use hyper::body::{Frame, SizeHint};

use super::body::Body;
use super::metrics::{Flight, Metrics, RequestLabels};
use crate::config::AccessLog;
use crate::rights::Identity;

/// Lines that may wait.
const WAITING: usize = 10_000;
/// How long lines gather before they are written: a thread that sleeps need not be woken by each request, and writes once for many.
const GATHER: Duration = Duration::from_millis(50);

/// A request that was answered.
#[derive(Debug)]
pub(crate) struct Line {
    time: SystemTime,
    client: IpAddr,
    identity: Option<Arc<Identity>>,
    method: hyper::Method,
    path: String,
    status: u16,
    bytes: u64,
    microseconds: u128,
}

impl Line {
    fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let time = jiff::Timestamp::try_from(self.time).unwrap_or_default();
        let time = time.round(jiff::Unit::Millisecond).unwrap_or(time);
        let user = self.identity.as_ref().and_then(|identity| identity.user.as_deref()).unwrap_or("-");
        let path = sampan_base::sanitize(&self.path).replace(' ', "%20");
        let (method, status, bytes) = (&self.method, self.status, self.bytes);
        let (whole, part) = (self.microseconds / 1000, self.microseconds % 1000);
        writeln!(out, "{time} {} {user} {method} {path} {status} {bytes} {whole}.{part:03}", self.client)
    }
}

/// The way to the log's thread.
#[derive(Debug)]
pub(crate) struct Log {
    lines: Mutex<Option<SyncSender<Line>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    lost: Arc<AtomicU64>,
}

impl Log {
    /// Opens the log.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub(crate) fn open(kind: &AccessLog) -> io::Result<Self> {
        let out: Box<dyn Write + Send> = match kind {
            AccessLog::Off => return Ok(Self { lines: Mutex::new(None), thread: Mutex::new(None), lost: Arc::default() }),
            AccessLog::Stdout => Box::new(io::stdout()),
            AccessLog::File(path) => Box::new(std::fs::File::options().append(true).create(true).open(path)?),
        };
        let (lines, received) = sync_channel(WAITING);
        let lost = Arc::new(AtomicU64::new(0));
        let ours = Arc::clone(&lost);
        let thread = std::thread::Builder::new().name("access-log".into()).spawn(move || write_lines(&received, out, &ours))?;
        Ok(Self { lines: Mutex::new(Some(lines)), thread: Mutex::new(Some(thread)), lost })
    }

    /// A handle for one connection.
    pub(crate) fn sender(&self) -> LogSender {
        LogSender { lines: self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone(), lost: Arc::clone(&self.lost) }
    }

    /// Writes what waits. Lines of connections that are still there are lost.
    pub(crate) fn close(&self) {
        drop(self.lines.lock().unwrap_or_else(PoisonError::into_inner).take());
        if let Some(thread) = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take() {
            drop(thread.join());
        }
    }
}

/// Takes lines of one connection.
#[derive(Debug, Clone)]
pub(crate) struct LogSender {
    lines: Option<SyncSender<Line>>,
    lost: Arc<AtomicU64>,
}

#[expect(clippy::disallowed_methods, reason = "time is to pass while lines gather: an event would be the waking that this saves")]
fn write_lines(lines: &Receiver<Line>, out: Box<dyn Write + Send>, lost: &AtomicU64) {
    let mut out = io::BufWriter::new(out);
    while let Ok(first) = lines.recv() {
        std::thread::sleep(GATHER);
        let mut failed = first.write(&mut out).is_err();
        while let Ok(line) = lines.try_recv() {
            failed |= line.write(&mut out).is_err();
        }
        let count = lost.swap(0, Ordering::Relaxed);
        if count > 0 {
            failed |= writeln!(out, "# {count} lines are missing here: they came faster than they could be written").is_err();
        }
        failed |= out.flush().is_err();
        if failed {
            // A log that cannot be written stops no registry; later lines are tried again.
            lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// A body that writes its line, and counts, when it is done or given up.
#[derive(Debug)]
pub(crate) struct Logged {
    body: Body,
    sent: u64,
    started: Instant,
    line: Option<Line>,
    log: LogSender,
    labels: RequestLabels,
    metrics: Arc<Metrics>,
    _flight: Flight,
}

/// What is known of a request before it is answered.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) at: Instant,
    pub(crate) client: IpAddr,
    pub(crate) method: hyper::Method,
    pub(crate) path: String,
    pub(crate) route: &'static str,
    pub(crate) flight: Flight,
}

impl Logged {
    pub(crate) fn new(
        body: Body,
        status: u16,
        started: Started,
        identity: Option<Arc<Identity>>,
        log: LogSender,
        metrics: Arc<Metrics>,
    ) -> Self {
        let labels = RequestLabels { method: super::metrics::method_label(&started.method), route: started.route, status };
        let line = Line {
            time: SystemTime::now(),
            client: started.client.to_canonical(),
            identity,
            method: started.method,
            path: started.path,
            status,
            bytes: 0,
            microseconds: 0,
        };
        Self { body, sent: 0, started: started.at, line: Some(line), log, labels, metrics, _flight: started.flight }
    }
}

impl hyper::body::Body for Logged {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = self.get_mut();
        let frame = Pin::new(&mut this.body).poll_frame(context);
        if let Poll::Ready(Some(Ok(frame))) = &frame {
            this.sent += frame.data_ref().map_or(0, |data| data.len() as u64);
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Logged {
    fn drop(&mut self) {
        self.metrics.answered(&self.labels, self.sent);
        if let (Some(mut line), Some(lines)) = (self.line.take(), &self.log.lines) {
            line.bytes = self.sent;
            line.microseconds = self.started.elapsed().as_micros();
            if lines.try_send(line).is_err() {
                self.log.lost.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_one_line_whatever_was_asked() {
        let line = Line {
            time: SystemTime::UNIX_EPOCH,
            client: "127.0.0.1".parse().unwrap(),
            identity: None,
            method: hyper::Method::GET,
            path: "/v2/a b\n\u{1b}[31m".into(),
            status: 404,
            bytes: 12,
            microseconds: 1500,
        };
        let mut out = Vec::new();
        line.write(&mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text, "1970-01-01T00:00:00Z 127.0.0.1 - GET /v2/a%20b\\u{a}\\u{1b}[31m 404 12 1.500\n");
    }
}
