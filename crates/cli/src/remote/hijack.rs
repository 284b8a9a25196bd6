//! A connection that has become a raw stream: input one way, output the other, multiplexed without a terminal.

use std::io;

use http::Response;
use hyper::body::Incoming;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, ReadHalf, WriteHalf};

use super::demux::Demux;
use crate::error::{CliError, Outcome};

/// A raw stream.
#[derive(Debug)]
pub(crate) struct Hijacked {
    pub(crate) reader: Reader,
    pub(crate) writer: WriteHalf<TokioIo<Upgraded>>,
}

/// The output side.
#[derive(Debug)]
pub(crate) struct Reader {
    stream: ReadHalf<TokioIo<Upgraded>>,
    demux: Demux,
    buffer: Vec<u8>,
}

impl Hijacked {
    pub(super) async fn take(response: Response<Incoming>) -> Outcome<Self> {
        if response.status().as_u16() != 101 {
            return Err(CliError::new(format!("unable to upgrade to tcp, received {}", response.status().as_u16())));
        }
        let kind = response.headers().get("Content-Type").and_then(|value| value.to_str().ok());
        let multiplexed = kind != Some("application/vnd.docker.raw-stream");
        let stream = hyper::upgrade::on(response).await.map_err(|error| CliError::new(format!("unable to upgrade to tcp: {error}")))?;
        let (stream, writer) = tokio::io::split(TokioIo::new(stream));
        Ok(Self { reader: Reader { stream, demux: Demux::new(multiplexed), buffer: vec![0; 64 << 10] }, writer })
    }
}

impl Reader {
    /// Says whether there is a terminal at the other end; old engines do not say it themselves.
    pub(crate) fn set_terminal(&mut self, terminal: bool) {
        self.demux.multiplexed = !terminal;
    }

    /// Passes on the next piece of output with its stream (1 or 2); `false` at the end.
    pub(crate) async fn next(&mut self, out: &mut dyn FnMut(u8, &[u8]) -> io::Result<()>) -> io::Result<bool> {
        let count = self.stream.read(&mut self.buffer).await?;
        self.demux.feed(&self.buffer[..count], out)?;
        Ok(count > 0)
    }
}
