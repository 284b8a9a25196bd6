//! Compression, recognised by its first bytes.

use std::io::{self, BufReader, Chain, Cursor, Read};

/// How a stream is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// gzip, of any number of members.
    Gzip,
    /// Zstandard.
    Zstd,
    /// xz.
    Xz,
    /// bzip2.
    Bzip2,
}

impl Compression {
    /// Looks at the first bytes of a stream.
    #[must_use]
    pub fn detect(start: &[u8]) -> Self {
        let skippable = start.len() >= 4 && (0x50..=0x5f).contains(&start[0]) && start[1..4] == [0x2a, 0x4d, 0x18];
        if start.starts_with(&[0x1f, 0x8b]) {
            Self::Gzip
        } else if start.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) || skippable {
            Self::Zstd
        } else if start.starts_with(&[0xfd, b'7', b'z', b'X', b'Z', 0]) {
            Self::Xz
        } else if start.starts_with(b"BZh") {
            Self::Bzip2
        } else {
            Self::None
        }
    }
}

/// How much memory xz may take, in KiB: `xz -9` asks for 65 MiB.
const MOST_XZ_KIB: u32 = 128 << 10;

type Source<R> = BufReader<Chain<Cursor<Vec<u8>>, R>>;

/// A stream, decompressed.
pub struct Decompress<R: Read> {
    inner: Inner<R>,
    compression: Compression,
}

#[expect(clippy::large_enum_variant, reason = "one a stream, and it lives as long as the stream")]
enum Inner<R: Read> {
    None(Source<R>),
    Gzip(flate2::bufread::MultiGzDecoder<Source<R>>),
    Zstd(zstd::Decoder<'static, Source<R>>),
    Xz(Box<lzma_rust2::XzReader<Source<R>>>),
    Bzip2(bzip2::bufread::MultiBzDecoder<Source<R>>),
}

impl<R: Read> Decompress<R> {
    /// Recognises the compression and begins.
    ///
    /// # Errors
    /// What the stream says.
    pub fn new(mut reader: R) -> io::Result<Self> {
        let mut start = Vec::new();
        reader.by_ref().take(6).read_to_end(&mut start)?;
        let compression = Compression::detect(&start);
        let source = BufReader::with_capacity(256 * 1024, Cursor::new(start).chain(reader));
        let inner = match compression {
            Compression::None => Inner::None(source),
            Compression::Gzip => Inner::Gzip(flate2::bufread::MultiGzDecoder::new(source)),
            Compression::Zstd => {
                let mut decoder = zstd::Decoder::with_buffer(source)?;
                // 128 MiB of window: what zstd's own tool takes without being told.
                decoder.window_log_max(27)?;
                Inner::Zstd(decoder)
            }
            Compression::Xz => Inner::Xz(Box::new(lzma_rust2::XzReader::new_mem_limit(source, true, MOST_XZ_KIB))),
            Compression::Bzip2 => Inner::Bzip2(bzip2::bufread::MultiBzDecoder::new(source)),
        };
        Ok(Self { inner, compression })
    }

    /// What was recognised.
    #[must_use]
    pub fn compression(&self) -> Compression {
        self.compression
    }
}

impl<R: Read> Read for Decompress<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.inner {
            Inner::None(reader) => reader.read(buffer),
            Inner::Gzip(reader) => reader.read(buffer),
            Inner::Zstd(reader) => reader.read(buffer),
            Inner::Xz(reader) => reader.read(buffer),
            Inner::Bzip2(reader) => reader.read(buffer),
        }
    }
}

impl<R: Read> std::fmt::Debug for Decompress<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Decompress").field("compression", &self.compression).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use proptest::prelude::*;

    use super::*;

    fn read(bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        Decompress::new(bytes)?.read_to_end(&mut out)?;
        Ok(out)
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn every_format_is_recognised() {
        let text = b"hello hello hello".repeat(100);
        let mut bzip2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
        bzip2.write_all(&text).unwrap();
        let mut xz = lzma_rust2::XzWriter::new(Vec::new(), lzma_rust2::XzOptions::with_preset(1)).unwrap();
        xz.write_all(&text).unwrap();
        for bytes in [text.clone(), gzip(&text), zstd::encode_all(&*text, 1).unwrap(), bzip2.finish().unwrap(), xz.finish().unwrap()] {
            assert_eq!(read(&bytes).unwrap(), text);
        }
        let two = [gzip(b"a"), gzip(b"b")].concat();
        assert_eq!(read(&two).unwrap(), b"ab", "members follow each other");
    }

    #[test]
    fn truncation_and_damage_are_errors() {
        let mut bytes = gzip(&[7; 10_000]);
        assert!(read(&bytes[..bytes.len() - 1]).is_err());
        let last = bytes.len() - 5;
        bytes[last] ^= 1;
        assert!(read(&bytes).is_err(), "the checksum");
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_do_no_harm(kind in 0_usize..5, bytes: Vec<u8>) {
            let start: &[u8] = [&b"\x1f\x8b\x08"[..], b"\x28\xb5\x2f\xfd", b"\xfd7zXZ\0", b"BZh9", b""][kind];
            let _either = read(&[start, &bytes].concat());
        }
    }
}
