//! Progress of long work as JSON lines, in a body that begins when there is something to say.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use http::{HeaderValue, Response, header};
use sampan_base::{Cancel, Progress, ProgressSink};
use sampan_gotext::units::size;
use sampan_wire::{Json, object};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;

use crate::body;
use crate::respond::{ApiError, Body, Reply};

/// Lines that may wait for a slow client; states of parts are left out beyond.
const MOST_WAITING: usize = 10_000;
/// Lines under way from which on output of commands waits.
const PATIENT: usize = 256;

/// Progress as JSON lines. Reporting never blocks: a task carries the lines to the client.
pub(crate) struct Lines {
    queue: UnboundedSender<String>,
    waiting: Arc<AtomicUsize>,
    /// States of parts are left out.
    quiet: bool,
    /// Told when the first line comes: until then an error may still become a status.
    begun: Mutex<Option<oneshot::Sender<Result<(), ApiError>>>>,
}

impl Lines {
    /// Lines of a body. Must be called within the runtime. A client that goes away cancels the work.
    fn cancelling(writer: body::BodyWriter, quiet: bool, cancel: Cancel) -> Self {
        let (queue, mut lines) = unbounded_channel::<String>();
        let waiting = Arc::new(AtomicUsize::new(0));
        let carried = Arc::clone(&waiting);
        tokio::spawn(async move {
            loop {
                let line = tokio::select! {
                    line = lines.recv() => line,
                    () = writer.closed() => return cancel.cancel(),
                };
                let Some(line) = line else { return };
                carried.fetch_sub(1, Ordering::Relaxed);
                if !writer.send(line).await {
                    return cancel.cancel();
                }
            }
        });
        Self { queue, waiting, quiet, begun: Mutex::new(None) }
    }

    /// Writes one document.
    pub(crate) fn send(&self, document: &Json) {
        self.begin();
        self.waiting.fetch_add(1, Ordering::Relaxed);
        // A client that is gone reads nothing.
        drop(self.queue.send(document.print() + "\r\n"));
    }

    /// Writes a blank where something was said before: a client that is gone is noticed by what it does not take.
    pub(crate) fn beat(&self) {
        if self.begun.lock().unwrap_or_else(PoisonError::into_inner).is_none() {
            self.waiting.fetch_add(1, Ordering::Relaxed);
            drop(self.queue.send("\r\n".to_owned()));
        }
    }

    /// Waits until the client has taken what is under way: for output of commands, of which nothing may be left out.
    pub(crate) fn await_room(&self) {
        let pause = Cancel::new();
        while self.waiting.load(Ordering::Relaxed) > PATIENT && !self.queue.is_closed() {
            let _timed_out = pause.wait_timeout(std::time::Duration::from_millis(5));
        }
    }

    fn begin(&self) {
        let begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(begun) = begun {
            // A client that is gone wants no answer.
            drop(begun.send(Ok(())));
        }
    }

    /// Ends the work: an error becomes a status when nothing was said yet, else the last line.
    fn end(&self, result: Result<(), ApiError>) {
        let Err(error) = result else { return self.begin() };
        let begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner).take();
        match begun {
            Some(begun) => drop(begun.send(Err(error))),
            None => self.send(&failure(&error.message)),
        }
    }
}

impl ProgressSink for Lines {
    fn report(&self, progress: Progress) {
        let document = match progress {
            Progress::Part { .. } if self.quiet || self.waiting.load(Ordering::Relaxed) > MOST_WAITING => return,
            Progress::Message(text) => object! { "status": text },
            Progress::About { id, text } => object! { "status": text, "id": id },
            Progress::Warning(text) => object! { "stream": format!("{text}\n") },
            Progress::Part { id, status, current: None, total: None } => {
                object! { "status": status, "progressDetail": Json::Object(Vec::new()), "id": id }
            }
            Progress::Part { id, status, current, total } => {
                let (current, total) = (current.unwrap_or(0), total.unwrap_or(0));
                let detail = object! { "current": current, "total": total };
                object! { "status": status, "progressDetail": detail, "progress": bar(current, total), "id": id }
            }
        };
        self.send(&document);
    }
}

/// The line of an error.
pub(crate) fn failure(text: &str) -> Json {
    object! { "errorDetail": object! { "message": text }, "error": text }
}

/// `[====>   ]  1.2MB/3MB`, for clients that draw nothing themselves.
#[expect(clippy::cast_precision_loss, reason = "sizes for people")]
fn bar(current: u64, total: u64) -> String {
    let shown = size(current as f64);
    if total == 0 {
        return if current == 0 { String::new() } else { format!("{shown:>8}") };
    }
    let filled = usize::try_from(u128::from(current) * 50 / u128::from(total)).unwrap_or(50).min(50);
    let head = format!("[{}>{}] {shown:>8}", "=".repeat(filled), " ".repeat(50 - filled));
    if current > total { head } else { format!("{head}/{}", size(total as f64)) }
}

/// An answer of JSON lines.
pub(crate) fn answer(stream: Body) -> Response<Body> {
    let mut response = Response::new(stream);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Runs blocking work that reports lines; its answer begins with the first of them. A client that goes away cancels it.
pub(crate) async fn run(work: impl FnOnce(&Lines, &Cancel) -> Result<(), ApiError> + Send + 'static) -> Reply {
    run_quiet(false, work).await
}

/// The same; states of parts may be left out.
pub(crate) async fn run_quiet(quiet: bool, work: impl FnOnce(&Lines, &Cancel) -> Result<(), ApiError> + Send + 'static) -> Reply {
    let (writer, stream) = body::streaming();
    let (begun, first) = oneshot::channel();
    let cancel = Cancel::new();
    let lines = Lines { begun: Mutex::new(Some(begun)), ..Lines::cancelling(writer, quiet, cancel.clone()) };
    tokio::task::spawn_blocking(move || {
        let result = work(&lines, &cancel);
        lines.end(result);
    });
    match first.await {
        Ok(Ok(())) => Ok(answer(stream)),
        Ok(Err(error)) => Err(error),
        Err(_) => Err(ApiError::new(http::StatusCode::INTERNAL_SERVER_ERROR, "internal error: the operation ended early")),
    }
}

#[cfg(test)]
mod tests {
    use super::bar;

    #[test]
    fn bars_are_dockers() {
        assert_eq!(bar(127, 127), format!("[{}>]     127B/127B", "=".repeat(50)));
        assert_eq!(bar(512, 3), format!("[{}>]     512B", "=".repeat(50)));
        assert_eq!(bar(1, 4), format!("[{}>{}]       1B/4B", "=".repeat(12), " ".repeat(38)));
        assert_eq!((bar(0, 0), bar(5, 0)), (String::new(), "      5B".to_owned()));
    }
}
