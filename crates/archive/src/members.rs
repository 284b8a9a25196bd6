//! gzip on all processors: members of a fixed size of input, so that the same input gives the same bytes on any machine.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use libdeflater::{CompressionLvl, Compressor};

/// Input of one member.
const MEMBER: usize = 1 << 20;
/// Another level is another digest of the same layer.
const LEVEL: i32 = 4;

type Piece = (u64, Vec<u8>);

/// Compresses a stream with so many threads; the number does not change the result. Gives the number of bytes read.
///
/// # Errors
/// What the reader or the writer says.
pub fn gzip_members(mut reader: impl Read, mut writer: impl Write, threads: usize) -> io::Result<u64> {
    let threads = threads.clamp(1, 64);
    std::thread::scope(|scope| {
        let (feed, pieces) = sync_channel::<Piece>(threads);
        let (finished, results) = channel::<(u64, io::Result<Vec<u8>>)>();
        let pieces = Arc::new(Mutex::new(pieces));
        for _ in 0..threads {
            let (pieces, finished) = (Arc::clone(&pieces), finished.clone());
            scope.spawn(move || work(&pieces, &finished));
        }
        drop(finished);
        // What a worker cannot take any more ends with it; so does the scope.
        drop(pieces);
        copy(&mut reader, &mut writer, feed, &results, threads)
    })
}

/// Feeds the workers and writes what they give back, in order; at most two pieces for each thread are under way.
fn copy(
    reader: &mut impl Read,
    writer: &mut impl Write,
    feed: SyncSender<Piece>,
    results: &Receiver<(u64, io::Result<Vec<u8>>)>,
    threads: usize,
) -> io::Result<u64> {
    let mut waiting = BTreeMap::new();
    let (mut fed, mut written, mut total) = (0_u64, 0_u64, 0_u64);
    let mut feed = Some(feed);
    loop {
        if feed.is_some() && fed - written < 2 * threads as u64 {
            let mut piece = Vec::with_capacity(MEMBER);
            reader.by_ref().take(MEMBER as u64).read_to_end(&mut piece)?;
            total += piece.len() as u64;
            let is_last = piece.len() < MEMBER;
            // An empty stream is one empty member.
            if (!piece.is_empty() || fed == 0)
                && let Some(feed) = &feed
            {
                feed.send((fed, piece)).map_err(|_| io::Error::other("a compressing thread ended"))?;
                fed += 1;
            }
            if is_last {
                feed = None;
            }
            if feed.is_some() && fed - written < 2 * threads as u64 {
                while let Ok((number, member)) = results.try_recv() {
                    waiting.insert(number, member?);
                }
            }
        } else if written == fed {
            return Ok(total);
        } else {
            let (number, member) = results.recv().map_err(|_| io::Error::other("a compressing thread ended"))?;
            waiting.insert(number, member?);
        }
        while let Some(member) = waiting.remove(&written) {
            writer.write_all(&member)?;
            written += 1;
        }
    }
}

fn work(pieces: &Mutex<Receiver<Piece>>, finished: &Sender<(u64, io::Result<Vec<u8>>)>) {
    let Ok(level) = CompressionLvl::new(LEVEL) else { return };
    let mut compressor = Compressor::new(level);
    loop {
        let next = pieces.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok((number, piece)) = next else { return };
        let mut member = vec![0; compressor.gzip_compress_bound(piece.len())];
        let done = compressor.gzip_compress(&piece, &mut member).map_err(io::Error::other).map(|length| {
            member.truncate(length);
            member
        });
        if finished.send((number, done)).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Decompress;

    fn compressed(bytes: &[u8], threads: usize) -> Vec<u8> {
        let mut out = Vec::new();
        assert_eq!(gzip_members(bytes, &mut out, threads).unwrap(), bytes.len() as u64);
        out
    }

    #[test]
    fn any_number_of_threads_gives_the_same_bytes_and_they_are_the_input() {
        for length in [0, 1, MEMBER - 1, MEMBER, MEMBER + 1, 5 * MEMBER + 77] {
            let bytes: Vec<u8> = (0..length).map(|at| u8::try_from((at * at / 7 + at) % 251).unwrap()).collect();
            let one = compressed(&bytes, 1);
            assert!([2, 3, 8].iter().all(|threads| compressed(&bytes, *threads) == one), "{length}");
            let mut back = Vec::new();
            Decompress::new(&one[..]).unwrap().read_to_end(&mut back).unwrap();
            assert!(back == bytes, "{length}");
        }
    }

    #[test]
    fn a_failing_side_ends_it() {
        struct Failing;
        impl Read for Failing {
            fn read(&mut self, _buffer: &mut [u8]) -> io::Result<usize> {
                Err(io::ErrorKind::UnexpectedEof.into())
            }
        }
        impl Write for Failing {
            fn write(&mut self, _bytes: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::StorageFull.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        assert_eq!(gzip_members(Failing, Vec::new(), 2).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(gzip_members(&vec![1; 9 * MEMBER][..], Failing, 2).unwrap_err().kind(), io::ErrorKind::StorageFull);
    }
}
