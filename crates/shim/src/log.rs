//! The json-file log: its lines and its files. Written here, read by crate `runtime`.
//!
//! A line is `{"log":"text\n","stream":"stdout","time":"2024-01-31T10:00:00.123456789Z"}` and a line end; `attrs` stands before
//! `time` where labels were asked for. Text longer than 16 KiB without a line end is split into entries without `\n` that share
//! the time of the first. Rotation renames, so that a reader's open file stays what it was.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::plan::LogPlan;

/// The longest text of one entry.
pub const MAX_ENTRY: usize = 16 * 1024;

/// Which stream a text came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output, and everything of a terminal.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Stream {
    fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// Cuts a stream into entries.
#[derive(Debug, Default)]
struct Cutter {
    /// Text of the entry that is not complete yet.
    rest: Vec<u8>,
    /// Time of the first part of a long line.
    partial_since: Option<u128>,
}

/// A log that is being written.
#[derive(Debug)]
pub struct LogWriter {
    file: File,
    size: u64,
    path: PathBuf,
    plan: LogPlan,
    cutters: [Cutter; 2],
    buffer: Vec<u8>,
    /// Bytes that a failing disk did not take.
    dropped: u64,
}

impl LogWriter {
    /// Opens the log for appending.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn open(plan: &LogPlan) -> io::Result<Self> {
        let path = PathBuf::from(&plan.path);
        let file = open(&path)?;
        let size = file.metadata()?.len();
        Ok(Self { file, size, path, plan: plan.clone(), cutters: Default::default(), buffer: Vec::new(), dropped: 0 })
    }

    /// Takes output of a process. Never fails: a full disk drops output and goes on, as blocking would stop the container.
    pub fn write(&mut self, stream: Stream, mut text: &[u8]) {
        let now = now();
        let index = stream as usize;
        while let Some(end) = text.iter().position(|byte| *byte == b'\n') {
            self.take(index, stream, &text[..=end], now);
            text = &text[end + 1..];
        }
        if !text.is_empty() {
            self.take(index, stream, text, now);
        }
        self.flush();
    }

    /// Writes out what was not complete, without a line end: the stream has ended.
    pub fn finish(&mut self, stream: Stream) {
        let cutter = &mut self.cutters[stream as usize];
        let rest = std::mem::take(&mut cutter.rest);
        let since = cutter.partial_since.take();
        if !rest.is_empty() {
            self.entry(stream, &rest, since.unwrap_or_else(now));
        }
        self.flush();
    }

    /// How many bytes a failing disk did not take.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Takes a piece that has at most one line end, at its end.
    fn take(&mut self, index: usize, stream: Stream, mut piece: &[u8], now: u128) {
        loop {
            let cutter = &mut self.cutters[index];
            let room = MAX_ENTRY - cutter.rest.len();
            let complete = piece.last() == Some(&b'\n') && piece.len() <= room + 1;
            if complete {
                let since = cutter.partial_since.take().unwrap_or(now);
                if cutter.rest.is_empty() {
                    self.entry(stream, piece, since);
                } else {
                    let mut rest = std::mem::take(&mut cutter.rest);
                    rest.extend_from_slice(piece);
                    self.entry(stream, &rest, since);
                    rest.clear();
                    self.cutters[index].rest = rest;
                }
                return;
            }
            if piece.len() < room {
                cutter.rest.extend_from_slice(piece);
                return;
            }
            let mut full = std::mem::take(&mut cutter.rest);
            full.extend_from_slice(&piece[..room]);
            piece = &piece[room..];
            let since = *cutter.partial_since.get_or_insert(now);
            self.entry(stream, &full, since);
            full.clear();
            self.cutters[index].rest = full;
            if piece.is_empty() {
                return;
            }
        }
    }

    fn entry(&mut self, stream: Stream, text: &[u8], time: u128) {
        if self.plan.max_size > 0 && self.size + self.buffer.len() as u64 >= self.plan.max_size {
            self.flush();
            if self.size >= self.plan.max_size {
                self.rotate();
            }
        }
        encode_entry(&mut self.buffer, stream, text, &self.plan.attributes, time);
        if self.buffer.len() >= 256 * 1024 {
            self.flush();
        }
    }

    fn flush(&mut self) {
        if self.buffer.is_empty() {
            return;
        }
        match self.file.write_all(&self.buffer) {
            Ok(()) => self.size += self.buffer.len() as u64,
            Err(_) => {
                self.dropped += self.buffer.len() as u64;
                // Half an entry would spoil the next one.
                drop(self.file.set_len(self.size));
            }
        }
        self.buffer.clear();
        if self.buffer.capacity() > 64 * 1024 {
            self.buffer = Vec::new();
        }
    }

    /// Renames `log` to `log.1`, `log.1` to `log.2`, … and begins a new file. Best effort: on failure the old file goes on.
    fn rotate(&mut self) {
        let numbered = |number: u32| PathBuf::from(format!("{}.{number}", self.path.display()));
        let keep = self.plan.max_files.max(1) - 1;
        if keep == 0 {
            drop(std::fs::remove_file(&self.path));
        } else {
            for number in (1..keep).rev() {
                drop(std::fs::rename(numbered(number), numbered(number + 1)));
            }
            drop(std::fs::rename(&self.path, numbered(1)));
        }
        if let Ok(file) = open(&self.path) {
            self.file = file;
            self.size = 0;
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o640).open(path)
}

fn now() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |span| span.as_nanos())
}

/// Appends one entry with its line end.
pub fn encode_entry(out: &mut Vec<u8>, stream: Stream, text: &[u8], attributes: &str, time: u128) {
    out.extend_from_slice(b"{\"log\":\"");
    escape(out, text);
    out.extend_from_slice(b"\",\"stream\":\"");
    out.extend_from_slice(stream.name().as_bytes());
    out.extend_from_slice(b"\"");
    if !attributes.is_empty() {
        out.extend_from_slice(b",\"attrs\":");
        out.extend_from_slice(attributes.as_bytes());
    }
    out.extend_from_slice(b",\"time\":\"");
    put_time(out, time);
    out.extend_from_slice(b"\"}\n");
}

/// JSON string escapes as the original writes them: `<`, `>`, `&` and controls as `\u00xx`, invalid bytes as `\ufffd`.
fn escape(out: &mut Vec<u8>, mut text: &[u8]) {
    const PLAIN: [bool; 256] = plain_bytes();
    while !text.is_empty() {
        let run = text.iter().position(|byte| !PLAIN[usize::from(*byte)]).unwrap_or(text.len());
        out.extend_from_slice(&text[..run]);
        text = &text[run..];
        let Some(byte) = text.first().copied() else { break };
        if byte < 0x80 {
            match byte {
                b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
                b'\n' => out.extend_from_slice(b"\\n"),
                b'\r' => out.extend_from_slice(b"\\r"),
                _ => out.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
            }
            text = &text[1..];
            continue;
        }
        let used = escape_wide(out, text);
        text = &text[used..];
    }
}

/// One character beyond ASCII, or one invalid byte; says how many bytes it took.
fn escape_wide(out: &mut Vec<u8>, text: &[u8]) -> usize {
    let length = match text[0] {
        0xc2..=0xdf => 2,
        0xe0..=0xef => 3,
        0xf0..=0xf4 => 4,
        _ => 1,
    };
    match text.get(..length).map(std::str::from_utf8) {
        Some(Ok("\u{2028}")) => out.extend_from_slice(b"\\u2028"),
        Some(Ok("\u{2029}")) => out.extend_from_slice(b"\\u2029"),
        Some(Ok(character)) => out.extend_from_slice(character.as_bytes()),
        _ => {
            out.extend_from_slice(b"\\ufffd");
            return 1;
        }
    }
    length
}

#[expect(clippy::cast_possible_truncation, reason = "below 128")]
const fn plain_bytes() -> [bool; 256] {
    let mut table = [false; 256];
    let mut byte = 0x20;
    while byte < 0x80 {
        table[byte] = !matches!(byte as u8, b'"' | b'\\' | b'<' | b'>' | b'&');
        byte += 1;
    }
    table
}

/// RFC 3339 in UTC with up to nine digits, trailing zeros dropped.
fn put_time(out: &mut Vec<u8>, nanoseconds: u128) {
    let seconds = nanoseconds / 1_000_000_000;
    let (days, clock) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(i64::try_from(days).unwrap_or(0));
    let (hour, minute, second) = (clock / 3600, clock / 60 % 60, clock % 60);
    let text = format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}");
    out.extend_from_slice(text.as_bytes());
    let fraction = nanoseconds % 1_000_000_000;
    if fraction > 0 {
        let digits = format!(".{fraction:09}");
        out.extend_from_slice(digits.trim_end_matches('0').as_bytes());
    }
    out.push(b'Z');
}

/// Year, month and day of a day number since 1970-01-01 (proleptic Gregorian calendar).
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_index + 2) / 5 + 1;
    let month = if month_index < 10 { month_index + 3 } else { month_index - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &[u8], attributes: &str, time: u128) -> String {
        let mut out = Vec::new();
        encode_entry(&mut out, Stream::Stdout, text, attributes, time);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn lines_are_dockers() {
        assert_eq!(
            line(b"hi\n", "", 1_706_695_200_120_000_000),
            "{\"log\":\"hi\\n\",\"stream\":\"stdout\",\"time\":\"2024-01-31T10:00:00.12Z\"}\n"
        );
        assert_eq!(
            line(b"x", "{\"a\":\"b\"}", 0),
            "{\"log\":\"x\",\"stream\":\"stdout\",\"attrs\":{\"a\":\"b\"},\"time\":\"1970-01-01T00:00:00Z\"}\n"
        );
        let odd = line("a\t\"\\<>&\x7fü\u{2028}\u{1F600}".as_bytes(), "", 0);
        assert!(odd.starts_with("{\"log\":\"a\\u0009\\\"\\\\\\u003c\\u003e\\u0026\x7fü\\u2028\u{1F600}\""), "{odd}");
        assert!(line(b"\xff\xc3", "", 0).starts_with("{\"log\":\"\\ufffd\\ufffd\""));
    }

    #[test]
    fn leap_days_and_centuries() {
        assert_eq!((civil(0), civil(11_016), civil(19_782), civil(-1)), ((1970, 1, 1), (2000, 2, 29), (2024, 2, 29), (1969, 12, 31)));
    }

    fn texts(path: &Path) -> Vec<usize> {
        let text = std::fs::read_to_string(path).unwrap();
        text.lines().map(|line| line.split("\",\"stream\"").next().unwrap().len() - "{\"log\":\"".len()).collect()
    }

    #[test]
    fn long_lines_are_split_at_sixteen_kibibytes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let plan = LogPlan { path: path.display().to_string(), ..LogPlan::default() };
        let mut log = LogWriter::open(&plan).unwrap();
        log.write(Stream::Stdout, &[b'a'; 40_000]);
        log.write(Stream::Stdout, b"\nshort\nrest");
        log.finish(Stream::Stdout);
        // Two full parts, the remainder with its line end (two characters), a short line, an unterminated one.
        assert_eq!(texts(&path), [16_384, 16_384, 40_000 - 32_768 + 2, 7, 4]);
    }

    #[test]
    fn rotation_keeps_so_many_files() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let plan = LogPlan { path: path.display().to_string(), max_size: 200, max_files: 3, attributes: String::new() };
        let mut log = LogWriter::open(&plan).unwrap();
        for number in 0..100 {
            log.write(Stream::Stderr, format!("line {number}\n").as_bytes());
        }
        let mut names: Vec<_> =
            std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        assert_eq!(names, ["log", "log.1", "log.2"]);
        assert!(std::fs::read_to_string(&path).unwrap().contains("line 99"));
    }
}
