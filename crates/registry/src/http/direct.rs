//! Plain connections on which files go out without being copied: by sendfile(2) from the page cache.
//!
//! HTTP is written by hyper, which knows bytes alone. A body that is a part of a mapped file says so to its connection, and the
//! connection, asked to write bytes that lie in that mapping, has the kernel send the file instead. Bytes that lie elsewhere are
//! written as ever; with TLS all are.

use std::fs::File;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

/// Shorter pieces are written: the calls cost more than the copy.
const LEAST: usize = 32 << 10;

/// The file that a connection sends at present.
#[derive(Debug, Clone, Default)]
pub(crate) struct Window(Arc<Mutex<Option<Shown>>>);

#[derive(Debug)]
struct Shown {
    /// The whole file, mapped. Kept here, so that nothing else can lie at its address as long as it is compared with.
    bytes: Bytes,
    file: Arc<File>,
}

impl Window {
    /// Tells which file is sent from now on.
    pub(crate) fn show(&self, bytes: Bytes, file: Arc<File>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Shown { bytes, file });
    }

    /// Forgets a file, if it is still the one.
    pub(crate) fn hide(&self, file: &Arc<File>) {
        let mut shown = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if shown.as_ref().is_some_and(|shown| Arc::ptr_eq(&shown.file, file)) {
            *shown = None;
        }
    }

    /// The file in which some bytes lie, and where.
    fn find(&self, bytes: &[u8]) -> Option<(Arc<File>, u64)> {
        if bytes.len() < LEAST {
            return None;
        }
        let shown = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let shown = shown.as_ref()?;
        let at = bytes.as_ptr().addr().checked_sub(shown.bytes.as_ptr().addr())?;
        let is_inside = at.checked_add(bytes.len()).is_some_and(|end| end <= shown.bytes.len());
        is_inside.then(|| (Arc::clone(&shown.file), at as u64))
    }
}

/// A connection that sends files of its window.
#[derive(Debug)]
pub(crate) struct Direct {
    stream: TcpStream,
    window: Window,
}

impl Direct {
    pub(crate) fn new(stream: TcpStream, window: Window) -> Self {
        Self { stream, window }
    }

    fn poll_send(&self, context: &mut Context<'_>, file: &File, at: u64, length: usize) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.stream.poll_write_ready(context))?;
            let mut offset = at;
            let send = || Ok(rustix::fs::sendfile(&self.stream, file, Some(&mut offset), length)?);
            match self.stream.try_io(Interest::WRITABLE, send) {
                // The file is shorter than its mapping: the disk lost something.
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                outcome => return Poll::Ready(outcome),
            }
        }
    }
}

impl AsyncRead for Direct {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Direct {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.window.find(bytes) {
            Some((file, at)) => self.poll_send(context, &file, at, bytes.len()),
            None => Pin::new(&mut self.stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, context: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let found = slices.iter().enumerate().find_map(|(number, slice)| Some((number, slice.len(), self.window.find(slice)?)));
        match found {
            Some((0, length, (file, at))) => self.poll_send(context, &file, at, length),
            // What lies before a part of the file goes first.
            Some((number, ..)) => Pin::new(&mut self.stream).poll_write_vectored(context, &slices[..number]),
            None => Pin::new(&mut self.stream).poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use sampan_durable::Mapping;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    fn mapped(content: &[u8]) -> (Mapping, Bytes, Arc<File>) {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(content).unwrap();
        let mapping = Mapping::new(&file).unwrap();
        let bytes = mapping.part(0..content.len());
        (mapping, bytes, Arc::new(file))
    }

    #[test]
    fn only_what_lies_in_the_file_is_taken_from_it() {
        let content: Vec<u8> = (0..300_000_u32).map(|number| number.to_le_bytes()[1]).collect();
        let (_mapping, bytes, file) = mapped(&content);
        let window = Window::default();
        assert!(window.find(&bytes).is_none());
        window.show(bytes.clone(), Arc::clone(&file));
        assert_eq!(window.find(&bytes[1000..200_000]).unwrap().1, 1000);
        assert!(window.find(&bytes[1000..2000]).is_none() && window.find(&content).is_none());
        let (_other, elsewhere, other) = mapped(&content);
        assert!(window.find(&elsewhere).is_none());
        window.hide(&other);
        assert!(window.find(&bytes).is_some());
        window.hide(&file);
        assert!(window.find(&bytes).is_none());
    }

    #[tokio::test]
    async fn files_and_other_bytes_come_in_order() {
        let content: Vec<u8> = (0..3_000_000_u32).map(|number| number.wrapping_mul(number).to_le_bytes()[1]).collect();
        let (_mapping, bytes, file) = mapped(&content);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut reader = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let window = Window::default();
        window.show(bytes.clone(), file);
        let mut direct = Direct::new(listener.accept().await.unwrap().0, window);
        let sent = bytes.clone();
        tokio::spawn(async move {
            let mut slices = [IoSlice::new(b"head"), IoSlice::new(&sent[7..1_000_000]), IoSlice::new(&[9; 50_000]), IoSlice::new(&sent)];
            let mut slices = &mut slices[..];
            while !slices.is_empty() {
                let count = direct.write_vectored(slices).await.unwrap();
                IoSlice::advance_slices(&mut slices, count);
            }
            direct.write_all(&sent[100_000..]).await.unwrap();
        });
        let mut all = Vec::new();
        reader.read_to_end(&mut all).await.unwrap();
        let wanted = [b"head", &content[7..1_000_000], &[9; 50_000], &content, &content[100_000..]].concat();
        assert!(all == wanted, "{} of {} bytes", all.len(), wanted.len());
    }
}
