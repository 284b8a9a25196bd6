//! Reading of json-file logs: the last lines, a span of time, and what comes later, over rotated files.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Seek as _, SeekFrom};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::inotify;
use serde::Deserialize;

/// Which lines.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogQuery {
    /// With standard output.
    pub stdout: bool,
    /// With standard error.
    pub stderr: bool,
    /// Only the last so many; `None`: all.
    pub tail: Option<usize>,
    /// Not before this moment, nanoseconds since the epoch.
    pub since: Option<i64>,
    /// Not after this moment.
    pub until: Option<i64>,
    /// Go on with what comes later.
    pub follow: bool,
}

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct LogEntry {
    /// Text with its line end; without for a part of a long line.
    #[serde(default)]
    pub log: String,
    /// `stdout` or `stderr`.
    #[serde(default)]
    pub stream: String,
    /// Labels and environment, sorted.
    #[serde(default)]
    pub attrs: std::collections::BTreeMap<String, String>,
    /// As written.
    #[serde(default)]
    pub time: String,
}

impl LogEntry {
    /// Nanoseconds since the epoch; 0 for a time that is none.
    #[must_use]
    pub fn nanoseconds(&self) -> i64 {
        self.time.parse::<jiff::Timestamp>().map_or(0, |time| i64::try_from(time.as_nanosecond()).unwrap_or(0))
    }
}

/// The longest line that is read: 16 KiB of text, escaped, with labels.
const MAX_LINE: u64 = 1 << 20;

/// A log being read. [`LogStream::next`] never waits: at `None` the caller waits for [`LogStream::wake`] to be readable, if the
/// query follows, or is done.
#[derive(Debug)]
pub struct LogStream {
    path: PathBuf,
    query: LogQuery,
    /// Files yet to be read, oldest last.
    older: Vec<PathBuf>,
    current: Option<BufReader<File>>,
    /// Entries to be left out from the front, so that only the tail remains.
    skip: usize,
    partial: Vec<u8>,
    watch: Option<OwnedFd>,
    ended: bool,
}

/// Opens a container's log.
///
/// # Errors
/// A failing disk; a log that does not exist is empty.
pub fn open(path: &Path, query: &LogQuery) -> io::Result<LogStream> {
    let mut older: Vec<PathBuf> = vec![path.to_owned()];
    for number in 1.. {
        let rotated = PathBuf::from(format!("{}.{number}", path.display()));
        if !rotated.is_file() {
            break;
        }
        older.push(rotated);
    }
    let watch = if query.follow { Some(watch(path)?) } else { None };
    let mut stream =
        LogStream { path: path.to_owned(), query: query.clone(), older, current: None, skip: 0, partial: Vec::new(), watch, ended: false };
    if let Some(tail) = query.tail {
        stream.seek_tail(tail)?;
    }
    Ok(stream)
}

fn watch(path: &Path) -> io::Result<OwnedFd> {
    let fd = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
    let folder = path.parent().unwrap_or(Path::new("/"));
    inotify::add_watch(&fd, folder, inotify::WatchFlags::CREATE | inotify::WatchFlags::MODIFY | inotify::WatchFlags::MOVED_TO)?;
    Ok(fd)
}

impl LogStream {
    /// Readable when there may be more; `None` when the query does not follow.
    #[must_use]
    pub fn wake(&self) -> Option<BorrowedFd<'_>> {
        self.watch.as_ref().map(OwnedFd::as_fd)
    }

    /// Takes the wake-up back: to be called before the next round of [`LogStream::next`].
    pub fn clear_wake(&mut self) {
        let mut buffer = [0; 4096];
        if let Some(watch) = &self.watch {
            while rustix::io::read(watch, &mut buffer).is_ok_and(|count| count > 0) {}
        }
    }

    /// Whether nothing more will come however long one waits.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.ended || self.watch.is_none()
    }

    /// The next entry that fits the query, if one is there now.
    ///
    /// # Errors
    /// A failing disk.
    #[expect(clippy::should_implement_trait, reason = "not an iterator: `None` may be followed by more")]
    pub fn next(&mut self) -> io::Result<Option<LogEntry>> {
        while !self.ended {
            let Some(line) = self.next_line()? else { return Ok(None) };
            // A line that a crash cut short is no entry.
            let Ok(entry) = serde_json::from_slice::<LogEntry>(&line) else { continue };
            if self.skip > 0 {
                self.skip -= 1;
                continue;
            }
            if self.fits(&entry) {
                return Ok(Some(entry));
            }
        }
        Ok(None)
    }

    fn fits(&mut self, entry: &LogEntry) -> bool {
        let wanted = match entry.stream.as_str() {
            "stderr" => self.query.stderr,
            _ => self.query.stdout,
        };
        if self.query.since.is_none() && self.query.until.is_none() {
            return wanted;
        }
        let time = entry.nanoseconds();
        if self.query.until.is_some_and(|until| time > until) {
            self.ended = true;
            return false;
        }
        wanted && self.query.since.is_none_or(|since| time >= since)
    }

    fn next_line(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            if self.current.is_none() {
                let Some(path) = self.older.pop() else { return Ok(None) };
                match File::open(&path) {
                    Ok(file) => self.current = Some(BufReader::with_capacity(64 * 1024, file)),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {
                        if self.older.is_empty() {
                            // Not written yet: try again at the next wake-up.
                            self.older.push(path);
                            return Ok(None);
                        }
                        continue;
                    }
                    Err(error) => return Err(error),
                }
            }
            let Some(reader) = self.current.as_mut() else { return Ok(None) };
            io::Read::take(&mut *reader, MAX_LINE).read_until(b'\n', &mut self.partial)?;
            if self.partial.last() == Some(&b'\n') || self.partial.len() as u64 >= MAX_LINE {
                return Ok(Some(std::mem::take(&mut self.partial)));
            }
            if !self.older.is_empty() {
                self.current = None;
                self.partial.clear();
            } else if self.was_rotated()? {
                self.partial.clear();
            } else {
                return Ok(None);
            }
        }
    }

    /// At the end of the newest file: whether another took its name meanwhile, which is then opened.
    fn was_rotated(&mut self) -> io::Result<bool> {
        use std::os::unix::fs::MetadataExt as _;
        if self.watch.is_none() {
            return Ok(false);
        }
        let Some(reader) = &self.current else { return Ok(false) };
        let Ok(now) = self.path.metadata() else { return Ok(false) };
        if reader.get_ref().metadata()?.ino() == now.ino() {
            return Ok(false);
        }
        self.current = Some(BufReader::with_capacity(64 * 1024, File::open(&self.path)?));
        Ok(true)
    }

    /// Counts lines from the end, file by file, and positions the stream so that `tail` entries remain.
    fn seek_tail(&mut self, tail: usize) -> io::Result<()> {
        let filtered = !(self.query.stdout && self.query.stderr) || self.query.since.is_some() || self.query.until.is_some();
        if filtered && tail > 0 {
            return self.skip_by_counting(tail);
        }
        let mut left = tail;
        let mut keep = 0;
        for path in &self.older {
            keep += 1;
            let Ok(mut file) = File::open(path) else { continue };
            let (found, position) = tail_of(&mut file, left)?;
            left -= found;
            if left == 0 {
                file.seek(SeekFrom::Start(position))?;
                self.current = Some(BufReader::with_capacity(64 * 1024, file));
                keep -= 1;
                break;
            }
        }
        self.older.truncate(keep);
        Ok(())
    }

    /// With a filter only counting the fitting entries tells which are the last.
    fn skip_by_counting(&mut self, tail: usize) -> io::Result<()> {
        let query = LogQuery { tail: None, follow: false, ..self.query.clone() };
        let mut all = open(&self.path, &query)?;
        let mut fitting = 0_usize;
        while all.next()?.is_some() {
            fitting += 1;
        }
        let mut unfit = open(&self.path, &query)?;
        let mut to_pass = fitting.saturating_sub(tail);
        while to_pass > 0 && unfit.next()?.is_some() {
            to_pass -= 1;
        }
        self.older = std::mem::take(&mut unfit.older);
        self.current = unfit.current.take();
        Ok(())
    }
}

/// How many complete lines (at most `wanted`) a file ends in, and where the first of them begins.
fn tail_of(file: &mut File, wanted: usize) -> io::Result<(usize, u64)> {
    let end = file.metadata()?.len();
    if wanted == 0 {
        return Ok((0, end));
    }
    let mut position = end;
    let mut found = 0;
    let mut block = vec![0; 64 * 1024];
    while position > 0 {
        let size = position.min(block.len() as u64);
        position -= size;
        let part = &mut block[..usize::try_from(size).unwrap_or(0)];
        file.seek(SeekFrom::Start(position))?;
        io::Read::read_exact(file, part)?;
        for (offset, byte) in part.iter().enumerate().rev() {
            let at = position + offset as u64;
            // The line end at the very end of the file closes the last line, it does not begin another.
            if *byte == b'\n' && at + 1 < end {
                found += 1;
                if found == wanted {
                    return Ok((found, at + 1));
                }
            }
        }
    }
    Ok((if end > 0 { found + 1 } else { 0 }, 0))
}

#[cfg(test)]
mod tests {
    use sampan_shim::log::{Stream, encode_entry};

    use super::*;

    fn write(path: &Path, numbers: std::ops::Range<u32>) {
        let mut out = Vec::new();
        for number in numbers {
            let stream = if number % 2 == 0 { Stream::Stdout } else { Stream::Stderr };
            encode_entry(&mut out, stream, format!("{number}\n").as_bytes(), "", u128::from(number) * 1_000_000_000);
        }
        io::Write::write_all(&mut File::options().append(true).create(true).open(path).unwrap(), &out).unwrap();
    }

    fn all(stream: &mut LogStream) -> Vec<u32> {
        std::iter::from_fn(|| stream.next().unwrap()).map(|entry| entry.log.trim().parse().unwrap()).collect()
    }

    fn query() -> LogQuery {
        LogQuery { stdout: true, stderr: true, ..LogQuery::default() }
    }

    fn both(folder: &Path) -> PathBuf {
        let path = folder.join("log");
        write(&folder.join("log.1"), 0..5);
        write(&path, 5..10);
        path
    }

    #[test]
    fn tail_goes_over_rotated_files() {
        let folder = tempfile::tempdir().unwrap();
        let path = both(folder.path());
        let tail = |count| all(&mut open(&path, &LogQuery { tail: Some(count), ..query() }).unwrap());
        assert_eq!(all(&mut open(&path, &query()).unwrap()), (0..10).collect::<Vec<_>>());
        assert_eq!(tail(2), [8, 9]);
        assert_eq!(tail(5), (5..10).collect::<Vec<_>>());
        assert_eq!(tail(7), (3..10).collect::<Vec<_>>());
        assert_eq!(tail(100), (0..10).collect::<Vec<_>>());
        assert_eq!(tail(0), Vec::<u32>::new());
    }

    #[test]
    fn streams_and_times_filter() {
        let folder = tempfile::tempdir().unwrap();
        let path = both(folder.path());
        let with = |query: LogQuery| all(&mut open(&path, &query).unwrap());
        assert_eq!(with(LogQuery { stderr: false, ..query() }), [0, 2, 4, 6, 8]);
        assert_eq!(with(LogQuery { stderr: false, tail: Some(2), ..query() }), [6, 8]);
        assert_eq!(with(LogQuery { since: Some(3_000_000_000), until: Some(6_000_000_000), ..query() }), [3, 4, 5, 6]);
    }

    #[test]
    fn following_sees_new_lines_and_rotation() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut stream = open(&path, &LogQuery { follow: true, ..query() }).unwrap();
        assert_eq!(all(&mut stream), Vec::<u32>::new());
        write(&path, 0..2);
        assert_eq!(all(&mut stream), [0, 1]);
        write(&path, 2..3);
        std::fs::rename(&path, folder.path().join("log.1")).unwrap();
        write(&path, 3..4);
        assert_eq!(all(&mut stream), [2, 3]);
        assert!(!stream.is_over());
        let mut ready = [rustix::event::PollFd::from_borrowed_fd(stream.wake().unwrap(), rustix::event::PollFlags::IN)];
        assert_eq!(rustix::event::poll(&mut ready, Some(&rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 })), Ok(1));
    }

    #[test]
    fn a_line_cut_by_a_crash_is_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        write(&path, 0..1);
        io::Write::write_all(&mut File::options().append(true).open(&path).unwrap(), b"{\"log\":\"bro\n").unwrap();
        write(&path, 2..3);
        assert_eq!(all(&mut open(&path, &query()).unwrap()), [0, 2]);
    }
}
