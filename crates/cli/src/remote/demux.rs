//! Docker's frames: eight bytes of head (stream, three zeros, length), then the bytes of that stream.

use std::io;

/// Takes frames apart as they come.
#[derive(Debug)]
pub(crate) struct Demux {
    /// Without frames all bytes are standard output.
    pub(crate) multiplexed: bool,
    head: [u8; 8],
    have: usize,
    left: usize,
}

impl Demux {
    pub(crate) fn new(multiplexed: bool) -> Self {
        Self { multiplexed, head: [0; 8], have: 0, left: 0 }
    }

    /// Passes on what the bytes hold: stream 1 or 2 and a piece.
    ///
    /// # Errors
    /// What `out` says; a frame of an unknown stream.
    pub(crate) fn feed(&mut self, mut bytes: &[u8], out: &mut dyn FnMut(u8, &[u8]) -> io::Result<()>) -> io::Result<()> {
        if !self.multiplexed {
            return out(1, bytes);
        }
        while !bytes.is_empty() {
            if self.left == 0 {
                let take = bytes.len().min(8 - self.have);
                self.head[self.have..self.have + take].copy_from_slice(&bytes[..take]);
                self.have += take;
                bytes = &bytes[take..];
                if self.have == 8 {
                    let [stream, _, _, _, length @ ..] = self.head;
                    if stream > 3 {
                        return Err(io::Error::other(format!("Unrecognized input header: {stream}")));
                    }
                    self.left = u32::from_be_bytes(length) as usize;
                    self.have = 0;
                }
                continue;
            }
            let take = bytes.len().min(self.left);
            out(self.head[0], &bytes[..take])?;
            self.left -= take;
            bytes = &bytes[take..];
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_may_come_in_any_pieces() {
        let bytes = b"\x01\0\0\0\0\0\0\x03out\x02\0\0\0\0\0\0\x04err\n\x01\0\0\0\0\0\0\0";
        for size in 1..=bytes.len() {
            let mut demux = Demux::new(true);
            let (mut out, mut err) = (Vec::new(), Vec::new());
            for piece in bytes.chunks(size) {
                demux
                    .feed(piece, &mut |stream, piece| {
                        if stream == 2 {
                            err.extend_from_slice(piece)
                        } else {
                            out.extend_from_slice(piece)
                        }
                        Ok(())
                    })
                    .unwrap();
            }
            assert_eq!((out.as_slice(), err.as_slice()), (&b"out"[..], &b"err\n"[..]), "{size}");
        }
        assert!(Demux::new(true).feed(b"GET / HTTP/1.1", &mut |_, _| Ok(())).is_err());
    }
}
