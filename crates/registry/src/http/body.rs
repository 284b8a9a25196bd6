//! Bodies of answers: nothing, bytes, or a part of a mapped file.

use std::fs::File;
use std::future::Future as _;
use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use sampan_durable::Mapping;
use tokio::task::JoinHandle;

use super::direct::Window;

/// Bytes of a frame.
const FRAME: usize = 1 << 20;
/// Bytes that are read ahead from a cold disk.
const AHEAD: usize = 4 << 20;

/// The body of an answer.
#[derive(Debug)]
pub(crate) enum Body {
    /// Bytes, once.
    Whole(Bytes),
    /// A part of a file.
    Part(FilePart),
}

/// What is left of a file.
#[derive(Debug)]
pub(crate) struct FilePart {
    mapping: Mapping,
    /// Where the connection learns that it is a file.
    direct: Option<(Window, Arc<File>)>,
    left: Range<usize>,
    /// Ready to be sent up to here.
    warm: usize,
    reading: Option<JoinHandle<io::Result<()>>>,
}

impl FilePart {
    /// A part of a mapped file; where the connection has a window, the file goes out through it.
    pub(crate) fn new(file: File, range: Range<usize>, window: Option<Window>) -> io::Result<Self> {
        let mapping = Mapping::new(&file)?;
        let direct = window.map(|window| (window, Arc::new(file)));
        if let Some((window, file)) = &direct {
            window.show(mapping.part(0..usize::MAX), Arc::clone(file));
        }
        Ok(Self { mapping, direct, warm: range.start, left: range, reading: None })
    }

    /// Waits until the next frame is in memory: a page fault would stop all requests of this thread.
    fn poll_warm(&mut self, context: &mut Context<'_>, end: usize) -> Poll<io::Result<()>> {
        loop {
            if let Some(reading) = &mut self.reading {
                let done = ready!(Pin::new(reading).poll(context));
                self.reading = None;
                done.map_err(io::Error::other)??;
            }
            if self.warm >= end || self.mapping.is_resident(&(self.left.start..end)) {
                return Poll::Ready(Ok(()));
            }
            let ahead = self.left.start..(self.left.start + AHEAD).min(self.left.end);
            self.warm = ahead.end;
            let mapping = self.mapping.clone();
            self.reading = Some(tokio::task::spawn_blocking(move || mapping.populate(&ahead)));
        }
    }
}

impl Drop for FilePart {
    fn drop(&mut self) {
        if let Some((window, file)) = &self.direct {
            window.hide(file);
        }
    }
}

impl Body {
    pub(crate) fn empty() -> Self {
        Self::Whole(Bytes::new())
    }

    fn left(&self) -> u64 {
        match self {
            Self::Whole(bytes) => bytes.len() as u64,
            Self::Part(part) => part.left.len() as u64,
        }
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self::Whole(bytes)
    }
}

impl From<String> for Body {
    fn from(text: String) -> Self {
        Self::Whole(text.into())
    }
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match self.get_mut() {
            Self::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::Part(part) if part.left.is_empty() => Poll::Ready(None),
            Self::Part(part) => {
                let end = (part.left.start + FRAME).min(part.left.end);
                if let Err(error) = ready!(part.poll_warm(context, end)) {
                    return Poll::Ready(Some(Err(error)));
                }
                let bytes = part.mapping.part(part.left.start..end);
                part.left.start = end;
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.left() == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left())
    }
}
