//! Hashing and counting of what flows by.

use std::io::{self, Read, Write};

use sampan_oci::Digest;
use sha2::{Digest as _, Sha256, Sha384, Sha512};

/// A running digest of whichever algorithm.
#[derive(Debug, Clone)]
pub struct Hasher(Algorithm);

#[derive(Debug, Clone)]
enum Algorithm {
    Sha256(Sha256),
    Sha384(Sha384),
    Sha512(Sha512),
}

impl Hasher {
    /// Begins a digest of the same algorithm as another.
    #[must_use]
    pub fn like(digest: &Digest) -> Self {
        Self(match digest.algorithm() {
            "sha384" => Algorithm::Sha384(Sha384::new()),
            "sha512" => Algorithm::Sha512(Sha512::new()),
            _ => Algorithm::Sha256(Sha256::new()),
        })
    }

    /// Takes bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            Algorithm::Sha256(hash) => hash.update(bytes),
            Algorithm::Sha384(hash) => hash.update(bytes),
            Algorithm::Sha512(hash) => hash.update(bytes),
        }
    }

    /// The digest as text, `algorithm:hex`.
    #[must_use]
    pub fn finish(self) -> String {
        match self.0 {
            Algorithm::Sha256(hash) => format!("sha256:{}", hex::encode(hash.finalize())),
            Algorithm::Sha384(hash) => format!("sha384:{}", hex::encode(hash.finalize())),
            Algorithm::Sha512(hash) => format!("sha512:{}", hex::encode(hash.finalize())),
        }
    }
}

/// A reader or writer that takes the SHA-256 of what passes.
#[derive(Debug)]
pub struct Hashing<T> {
    inner: T,
    hash: Sha256,
    count: u64,
}

impl<T> Hashing<T> {
    /// Wraps a stream.
    pub fn new(inner: T) -> Self {
        Self { inner, hash: Sha256::new(), count: 0 }
    }

    /// The stream, the digest and the number of bytes.
    pub fn finish(self) -> (T, Digest, u64) {
        (self.inner, Digest::from_sha256(self.hash.finalize().into()), self.count)
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hash.update(&buffer[..count]);
        self.count += count as u64;
        Ok(count)
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.hash.update(&bytes[..count]);
        self.count += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
