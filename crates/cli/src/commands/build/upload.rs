//! The thread that makes the context's archive while it is sent, and says how much was sent.

use std::io::{self, BufWriter, Read, Write};

use flate2::Compression;
use flate2::write::GzEncoder;
use sampan_gotext::units::size;
use sampan_ui::terminal;
use tokio::sync::oneshot;

use super::context::{self, Added, Selection};
use crate::error::{CliError, Outcome};
use crate::remote::{Body, Sender, channel};

/// Pieces of this size go to the connection.
const PIECE: usize = 256 << 10;
/// A terminal is told again after so many bytes.
const STRIDE: u64 = 512 << 10;

/// Where the archive comes from.
pub(super) enum Content {
    Directory(Selection),
    /// An archive as it is.
    Stream(Box<dyn Read + Send>),
    /// An archive into which a Dockerfile is put.
    Rewritten(Box<dyn Read + Send>, Added),
}

/// Starts the thread: the body, and what the thread ends with: how much was sent.
pub(super) fn start(content: Content, compress: bool, quiet: bool) -> (Body, oneshot::Receiver<Outcome<u64>>) {
    let (sender, body) = channel();
    let (tell, done) = oneshot::channel();
    std::thread::spawn(move || {
        let counted = Counted { sender, done: 0, told: 0, shown: !quiet, terminal: terminal::is_terminal(io::stdout()) };
        let mut out = BufWriter::with_capacity(PIECE, counted);
        let written = if compress {
            let mut encoder = GzEncoder::new(&mut out, Compression::default());
            write(content, &mut encoder).and_then(|()| Ok(encoder.finish().map(drop)?))
        } else {
            write(content, &mut out)
        };
        let (counted, written) = match (out.into_inner(), written) {
            (Ok(counted), written) => (counted, written),
            (Err(error), written) => {
                let (error, buffer) = error.into_parts();
                (buffer.into_parts().0, written.and(Err(error.into())))
            }
        };
        let failed = written.as_ref().err().map(|error| error.text.clone());
        if failed.is_none() {
            counted.end();
        }
        // What went wrong here is known before the request breaks off for it.
        let _nobody_waits = tell.send(written.map(|()| counted.done));
        if let Some(text) = failed {
            counted.sender.fail(io::Error::other(text));
        }
    });
    (body, done)
}

fn write(content: Content, out: &mut impl Write) -> Outcome<()> {
    match content {
        Content::Directory(selection) => context::write(&selection, out),
        Content::Rewritten(archive, added) => context::rewrite(archive, &added, out),
        Content::Stream(mut source) => {
            let mut buffer = vec![0; PIECE];
            loop {
                match source.read(&mut buffer) {
                    Ok(0) => return Ok(()),
                    Ok(count) => out.write_all(&buffer[..count])?,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(CliError::new(format!("error reading the context: {}", crate::error::errno_text(&error)))),
                }
            }
        }
    }
}

/// What is said about so many bytes.
#[expect(clippy::cast_precision_loss, reason = "sizes for people")]
pub(super) fn sent(bytes: u64) -> String {
    format!("Sending build context to Docker daemon {:>8}\r", size(bytes as f64))
}

/// Counts what is sent and tells it in Docker's words.
struct Counted {
    sender: Sender,
    done: u64,
    told: u64,
    shown: bool,
    terminal: bool,
}

impl Counted {
    fn tell(&self, end: &str) {
        let mut out = io::stdout().lock();
        drop(write!(out, "{}{end}", sent(self.done)).and_then(|()| out.flush()));
    }

    fn end(&self) {
        if self.shown {
            self.tell("\r\n");
        }
    }
}

impl Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.sender.write(bytes)?;
        self.done += count as u64;
        if self.shown && self.terminal && self.done - self.told >= STRIDE {
            self.told = self.done;
            self.tell("");
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.sender.flush()
    }
}
