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
    /// What ends each entry of one piece of output.
    tail: Vec<u8>,
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
        Ok(Self { file, size, path, plan: plan.clone(), cutters: Default::default(), buffer: Vec::new(), tail: Vec::new(), dropped: 0 })
    }

    /// Takes output of a process. Never fails: a full disk drops output and goes on, as blocking would stop the container.
    pub fn write(&mut self, stream: Stream, mut text: &[u8]) {
        let now = now();
        let index = stream as usize;
        let mut tail = std::mem::take(&mut self.tail);
        tail.clear();
        put_tail(&mut tail, stream, &self.plan.attributes, now);
        while !text.is_empty() {
            if self.cutters[index].rest.is_empty() && self.cutters[index].partial_since.is_none() {
                text = self.take_lines(text, &tail);
            }
            // What began earlier, has no end yet, or is too long for one entry.
            let end = text.iter().position(|byte| *byte == b'\n').map_or(text.len(), |end| end + 1);
            if end > 0 {
                self.take(index, stream, &text[..end], now);
            }
            text = &text[end..];
        }
        self.tail = tail;
        self.flush();
    }

    /// Takes the whole lines that a text begins with, each looked at once; gives what is left.
    fn take_lines<'a>(&mut self, mut text: &'a [u8], tail: &[u8]) -> &'a [u8] {
        while !text.is_empty() {
            self.make_room();
            let start = self.buffer.len();
            self.buffer.extend_from_slice(HEAD);
            let Some(used) = escape_line(&mut self.buffer, text) else {
                self.buffer.truncate(start);
                break;
            };
            self.buffer.extend_from_slice(tail);
            text = &text[used..];
        }
        text
    }

    /// Gives memory back that the next output would need again.
    pub fn shrink(&mut self) {
        self.buffer = Vec::new();
        self.tail = Vec::new();
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
        self.make_room();
        encode_entry(&mut self.buffer, stream, text, &self.plan.attributes, time);
    }

    /// Before an entry: a new file if this one is full, an empty buffer if that is.
    fn make_room(&mut self) {
        if self.plan.max_size > 0 && self.size + self.buffer.len() as u64 >= self.plan.max_size {
            self.flush();
            if self.size >= self.plan.max_size {
                self.rotate();
            }
        }
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

/// What every entry begins with.
const HEAD: &[u8] = b"{\"log\":\"";

/// Appends one entry with its line end.
pub fn encode_entry(out: &mut Vec<u8>, stream: Stream, text: &[u8], attributes: &str, time: u128) {
    out.extend_from_slice(HEAD);
    escape(out, text);
    put_tail(out, stream, attributes, time);
}

/// What stands behind an entry's text.
fn put_tail(out: &mut Vec<u8>, stream: Stream, attributes: &str, time: u128) {
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

/// Escapes up to the first line end and says how many bytes that took; `None` if it is not within one entry, with `out` spoilt.
fn escape_line(out: &mut Vec<u8>, text: &[u8]) -> Option<usize> {
    let mut rest = &text[..text.len().min(MAX_ENTRY + 1)];
    let whole = rest.len();
    loop {
        let run = plain_run(rest);
        out.extend_from_slice(&rest[..run]);
        rest = &rest[run..];
        if *rest.first()? == b'\n' {
            out.extend_from_slice(b"\\n");
            return Some(whole - rest.len() + 1);
        }
        let used = escape_one(out, rest);
        rest = &rest[used..];
    }
}

/// JSON string escapes as the original writes them: `<`, `>`, `&` and controls as `\u00xx`, invalid bytes as `\ufffd`.
fn escape(out: &mut Vec<u8>, mut text: &[u8]) {
    loop {
        let run = plain_run(text);
        out.extend_from_slice(&text[..run]);
        text = &text[run..];
        if text.is_empty() {
            return;
        }
        let used = escape_one(out, text);
        text = &text[used..];
    }
}

/// The first character of a text that does not begin with a plain one; says how many bytes it took.
fn escape_one(out: &mut Vec<u8>, text: &[u8]) -> usize {
    match text[0] {
        byte @ (b'"' | b'\\') => out.extend_from_slice(&[b'\\', byte]),
        b'\n' => out.extend_from_slice(b"\\n"),
        b'\r' => out.extend_from_slice(b"\\r"),
        byte if byte < 0x80 => {
            let digit = |value: u8| if value < 10 { b'0' + value } else { b'a' + value - 10 };
            out.extend_from_slice(&[b'\\', b'u', b'0', b'0', digit(byte >> 4), digit(byte & 15)]);
        }
        _ => return escape_wide(out, text),
    }
    1
}

/// How many bytes at the start of a text need no escape: ASCII without controls, `"`, `\`, `<`, `>` and `&`.
fn plain_run(text: &[u8]) -> usize {
    let (words, _) = text.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        let marks = marks(u64::from_le_bytes(*word));
        if marks != 0 {
            return index * 8 + marks.trailing_zeros() as usize / 8;
        }
    }
    let start = words.len() * 8;
    start + text[start..].iter().position(|byte| !is_plain(*byte)).unwrap_or(text.len() - start)
}

fn is_plain(byte: u8) -> bool {
    (0x20..0x80).contains(&byte) && !matches!(byte, b'"' | b'\\' | b'<' | b'>' | b'&')
}

/// The high bit of each of eight bytes that is not plain. Those above the lowest such byte may be wrong: borrows go upwards.
fn marks(word: u64) -> u64 {
    const ONES: u64 = u64::from_le_bytes([1; 8]);
    const HIGH: u64 = ONES << 7;
    let is = |word: u64, byte: u8| {
        let zero_where_equal = word ^ (ONES * u64::from(byte));
        zero_where_equal.wrapping_sub(ONES) & !zero_where_equal
    };
    // `"` and `&` differ in one bit, `<` and `>` too.
    let quote_or_and = is(word | (ONES * 4), b'&');
    let angle = is(word | (ONES * 2), b'>');
    let control = word.wrapping_sub(ONES * 0x20) & !word;
    (word | quote_or_and | angle | is(word, b'\\') | control) & HIGH
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

    #[test]
    fn eight_bytes_at_a_time_find_what_one_does() {
        for byte in 0..=255 {
            for place in 0..20 {
                let mut text = [b'a'; 20];
                text[place] = byte;
                let expected = if is_plain(byte) { 20 } else { place };
                assert_eq!(plain_run(&text), expected, "{byte:#x} at {place}");
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn pieces_of_any_length_give_the_same_entries(text: Vec<u8>, cuts: Vec<u8>, long in 16_370_usize..16_400) {
            // Bytes that matter, in the middle of lines of about the longest length.
            let mut text: Vec<u8> = text.iter().flat_map(|byte| if *byte < 9 { vec![b'x'; long] } else { vec![*byte] }).collect();
            text.push(b'\n');
            let folder = tempfile::tempdir().unwrap();
            let entries = |name: &str, pieces: &[&[u8]]| {
                let path = folder.path().join(name);
                let mut log = LogWriter::open(&LogPlan { path: path.display().to_string(), ..LogPlan::default() }).unwrap();
                pieces.iter().for_each(|piece| log.write(Stream::Stdout, piece));
                log.finish(Stream::Stdout);
                let text = std::fs::read_to_string(&path).unwrap();
                text.lines().map(|line| line.split("\",\"stream\"").next().unwrap().to_owned()).collect::<Vec<_>>()
            };
            let mut pieces = Vec::new();
            let mut rest = &text[..];
            for cut in cuts {
                let (piece, after) = rest.split_at(usize::from(cut).min(rest.len()));
                pieces.push(piece);
                rest = after;
            }
            pieces.push(rest);
            proptest::prop_assert_eq!(entries("whole", &[&text]), entries("pieces", &pieces));
        }
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
