//! The canonical writer: the same entries give the same bytes for ever, as digests depend on it. Version 1.

use std::io::{self, Read, Write};

use super::{Header, Kind};

const BLOCK: usize = 512;
/// What twelve octal digits hold.
const MAX_OCTAL: u64 = 0o77_777_777_777;
/// The highest number of the eight bytes for owners and devices.
const MAX_ID: u32 = 0o7_777_777;

/// A tar archive being written.
#[derive(Debug)]
pub struct Writer<W> {
    sink: W,
}

impl<W: Write> Writer<W> {
    /// Begins an archive.
    pub fn new(sink: W) -> Self {
        Self { sink }
    }

    /// Appends an entry; a file's content is read to `header.size` bytes exactly.
    ///
    /// # Errors
    /// A failing stream; [`io::ErrorKind::UnexpectedEof`] for a content shorter than its size.
    pub fn append(&mut self, header: &Header, content: &mut dyn Read) -> io::Result<()> {
        if header.device.0 > MAX_ID || header.device.1 > MAX_ID {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a device number that archives cannot hold"));
        }
        let records = pax_records(header);
        if !records.is_empty() {
            let mut extension = Header::new(Kind::File, "PaxHeaders.0/x");
            extension.size = records.len() as u64;
            self.sink.write_all(&block(&extension, b'x'))?;
            self.sink.write_all(&records)?;
            self.pad(records.len() as u64)?;
        }
        let kind = match header.kind {
            Kind::File => b'0',
            Kind::Hardlink => b'1',
            Kind::Symlink => b'2',
            Kind::Character => b'3',
            Kind::Block => b'4',
            Kind::Directory => b'5',
            Kind::Fifo => b'6',
        };
        self.sink.write_all(&block(header, kind))?;
        if header.kind == Kind::File {
            let written = io::copy(&mut content.take(header.size), &mut self.sink)?;
            if written != header.size {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.pad(header.size)?;
        }
        Ok(())
    }

    fn pad(&mut self, size: u64) -> io::Result<()> {
        let padding = size.next_multiple_of(BLOCK as u64) - size;
        self.sink.write_all(&[0; BLOCK][..usize::try_from(padding).unwrap_or(0)])
    }

    /// Ends the archive and gives the stream back.
    ///
    /// # Errors
    /// A failing stream.
    pub fn finish(mut self) -> io::Result<W> {
        self.sink.write_all(&[0; 2 * BLOCK])?;
        self.sink.flush()?;
        Ok(self.sink)
    }
}

/// What a header block cannot say.
fn pax_records(header: &Header) -> Vec<u8> {
    let mut out = Vec::new();
    let path = shown_path(header);
    if path.len() > 100 || !path.is_ascii() {
        record(&mut out, "path", &path);
    }
    if header.link.len() > 100 || !header.link.is_ascii() {
        record(&mut out, "linkpath", &header.link);
    }
    if header.size > MAX_OCTAL {
        record(&mut out, "size", header.size.to_string().as_bytes());
    }
    for (key, id) in [("uid", header.uid), ("gid", header.gid)] {
        if id > MAX_ID {
            record(&mut out, key, id.to_string().as_bytes());
        }
    }
    let (seconds, nanoseconds) = header.mtime;
    if nanoseconds > 0 || !(0..=MAX_OCTAL.cast_signed()).contains(&seconds) {
        record(&mut out, "mtime", pax_time(seconds, nanoseconds).as_bytes());
    }
    let mut xattrs: Vec<_> = header.xattrs.iter().collect();
    xattrs.sort();
    for (name, value) in xattrs {
        record(&mut out, &format!("SCHILY.xattr.{name}"), value);
    }
    out
}

fn pax_time(seconds: i64, nanoseconds: u32) -> String {
    if nanoseconds == 0 {
        return seconds.to_string();
    }
    if seconds < 0 {
        let text = format!("-{}.{:09}", -(seconds + 1), 1_000_000_000 - nanoseconds);
        return text.trim_end_matches('0').to_owned();
    }
    format!("{seconds}.{nanoseconds:09}").trim_end_matches('0').to_owned()
}

/// `length key=value\n`, where the length counts its own digits.
fn record(out: &mut Vec<u8>, key: &str, value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while rest + length.to_string().len() != length {
        length = rest + length.to_string().len();
    }
    out.extend_from_slice(format!("{length} {key}=").as_bytes());
    out.extend_from_slice(value);
    out.push(b'\n');
}

/// Directories end in a slash.
fn shown_path(header: &Header) -> Vec<u8> {
    let mut path = if header.path.is_empty() { b".".to_vec() } else { header.path.clone() };
    if header.kind == Kind::Directory && !path.ends_with(b"/") {
        path.push(b'/');
    }
    path
}

fn block(header: &Header, kind: u8) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    let cut = |bytes: &[u8]| bytes[..bytes.len().min(100)].to_vec();
    put(&mut block, 0, &cut(&shown_path(header)));
    octal(&mut block, 100, 8, u64::from(header.mode & 0o7777));
    octal(&mut block, 108, 8, u64::from(if header.uid > MAX_ID { 0 } else { header.uid }));
    octal(&mut block, 116, 8, u64::from(if header.gid > MAX_ID { 0 } else { header.gid }));
    octal(&mut block, 124, 12, if header.size > MAX_OCTAL { 0 } else { header.size });
    let seconds = u64::try_from(header.mtime.0).unwrap_or(0);
    octal(&mut block, 136, 12, if seconds > MAX_OCTAL { 0 } else { seconds });
    block[156] = kind;
    put(&mut block, 157, &cut(&header.link));
    put(&mut block, 257, b"ustar\x0000");
    if matches!(header.kind, Kind::Character | Kind::Block) {
        octal(&mut block, 329, 8, u64::from(header.device.0));
        octal(&mut block, 337, 8, u64::from(header.device.1));
    }
    put(&mut block, 148, b"        ");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    put(&mut block, 148, format!("{sum:06o}\0 ").as_bytes());
    block
}

fn put(block: &mut [u8; BLOCK], at: usize, bytes: &[u8]) {
    block[at..at + bytes.len()].copy_from_slice(bytes);
}

fn octal(block: &mut [u8; BLOCK], at: usize, width: usize, value: u64) {
    put(block, at, format!("{value:0width$o}\0", width = width - 1).as_bytes());
}
