//! The reader: header blocks with their GNU and PAX extensions become [`Header`]s; content is read in between.

use std::io::{self, Read};

use super::{Header, Kind};

const BLOCK: usize = 512;
/// Longest PAX or GNU extension.
const MAX_EXTENSION: u64 = 1 << 20;
/// Longest path.
const MAX_PATH: usize = 4096;
/// Longest extended attribute.
const MAX_XATTR: usize = 64 << 10;
/// Most extended attributes of an entry.
const MAX_XATTRS: usize = 256;
/// Longest run of extension headers before an entry.
const MAX_EXTENSIONS: usize = 16;

/// An archive that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    /// The stream below failed.
    #[error("read archive")]
    Read {
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It ends in the middle of something.
    #[error("archive is truncated")]
    Truncated,
    /// A header makes no sense.
    #[error("malformed archive: {0}")]
    Malformed(&'static str),
    /// Something is larger than it may be.
    #[error("archive exceeds a limit: {0}")]
    Limit(&'static str),
    /// A feature that is not read.
    #[error("not supported in archives: {0}")]
    Unsupported(&'static str),
}

/// A tar archive being read.
#[derive(Debug)]
pub struct Reader<R> {
    source: R,
    /// Content of the present entry that was not read.
    content: u64,
    /// Padding behind it.
    padding: u64,
    /// PAX values for all entries.
    global: Extensions,
}

/// What extension headers say of the next entry.
#[derive(Debug, Clone, Default)]
struct Extensions {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u32>,
    gid: Option<u32>,
    mtime: Option<(i64, u32)>,
    xattrs: Vec<(String, Vec<u8>)>,
    sparse: bool,
}

fn read_error(source: io::Error) -> TarError {
    if source.kind() == io::ErrorKind::UnexpectedEof { TarError::Truncated } else { TarError::Read { source } }
}

impl<R: Read> Reader<R> {
    /// Begins at the start of an archive.
    pub fn new(source: R) -> Self {
        Self { source, content: 0, padding: 0, global: Extensions::default() }
    }

    /// The stream below, at the place where reading stopped.
    pub fn into_inner(self) -> R {
        self.source
    }

    /// Goes to the next entry; what was not read of the present one is skipped. `None` at the end.
    ///
    /// # Errors
    /// [`TarError`].
    pub fn next_entry(&mut self) -> Result<Option<Header>, TarError> {
        self.skip()?;
        let mut extensions = self.global.clone();
        for _ in 0..MAX_EXTENSIONS {
            let Some(block) = self.block()? else { return Ok(None) };
            let size = number(&block[124..136])?;
            match block[156] {
                b'x' => extensions.take_pax(&self.extension(size)?)?,
                b'g' => {
                    let bytes = self.extension(size)?;
                    self.global.take_pax(&bytes)?;
                    extensions.take_pax(&bytes)?;
                }
                b'L' => extensions.path = Some(text(&self.extension(size)?).to_vec()),
                b'K' => extensions.link = Some(text(&self.extension(size)?).to_vec()),
                b'S' => return Err(TarError::Unsupported("GNU sparse files")),
                b'M' | b'V' => return Err(TarError::Unsupported("multi-volume archives")),
                _ => return self.entry(&block, size, extensions).map(Some),
            }
        }
        Err(TarError::Limit("extension headers of one entry"))
    }

    fn skip(&mut self) -> Result<(), TarError> {
        let (content, padding) = (std::mem::take(&mut self.content), std::mem::take(&mut self.padding));
        let skipped = io::copy(&mut self.source.by_ref().take(content + padding), &mut io::sink()).map_err(read_error)?;
        // Docker's command line sends archives that end with their last file's content.
        if skipped == content + padding || skipped == content { Ok(()) } else { Err(TarError::Truncated) }
    }

    /// A header block; `None` at the end of the archive.
    fn block(&mut self) -> Result<Option<[u8; BLOCK]>, TarError> {
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            match self.source.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(TarError::Truncated),
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(read_error(error)),
            }
        }
        if block.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let sum = |signed: bool| {
            let value = |byte: u8| if signed { i64::from(byte.cast_signed()) } else { i64::from(byte) };
            block.iter().enumerate().map(|(index, byte)| if (148..156).contains(&index) { 32 } else { value(*byte) }).sum::<i64>()
        };
        let wanted = i64::try_from(number(&block[148..156])?).unwrap_or(-1);
        if wanted == sum(false) || wanted == sum(true) { Ok(Some(block)) } else { Err(TarError::Malformed("wrong header checksum")) }
    }

    fn extension(&mut self, size: u64) -> Result<Vec<u8>, TarError> {
        if size > MAX_EXTENSION {
            return Err(TarError::Limit("extension header of more than 1 MiB"));
        }
        let mut bytes = Vec::new();
        self.source.by_ref().take(size).read_to_end(&mut bytes).map_err(read_error)?;
        if bytes.len() as u64 != size {
            return Err(TarError::Truncated);
        }
        self.padding = size.next_multiple_of(BLOCK as u64) - size;
        self.skip()?;
        Ok(bytes)
    }

    fn entry(&mut self, block: &[u8; BLOCK], size: u64, extensions: Extensions) -> Result<Header, TarError> {
        if extensions.sparse {
            return Err(TarError::Unsupported("PAX sparse files"));
        }
        let path = extensions.path.unwrap_or_else(|| header_path(block));
        let trailing_slash = path.ends_with(b"/");
        let kind = match block[156] {
            b'0' | 0 if trailing_slash => Kind::Directory,
            b'0' | 0 | b'7' => Kind::File,
            b'1' => Kind::Hardlink,
            b'2' => Kind::Symlink,
            b'3' => Kind::Character,
            b'4' => Kind::Block,
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            _ => return Err(TarError::Unsupported("an unknown type of entry")),
        };
        // PAX wins over the header (RUSTSEC-2026-0068). Only files have content, whatever the size field says.
        let size = if kind == Kind::File { extensions.size.unwrap_or(size) } else { 0 };
        let link = extensions.link.unwrap_or_else(|| text(&block[157..257]).to_vec());
        if path.len() > MAX_PATH || link.len() > MAX_PATH {
            return Err(TarError::Limit("path of more than 4096 bytes"));
        }
        if path.contains(&0) || link.contains(&0) {
            return Err(TarError::Malformed("a zero byte in a path"));
        }
        let id = |bytes: &[u8]| u32::try_from(number(bytes)?).map_err(|_| TarError::Malformed("an owner beyond 32 bits"));
        let is_link = matches!(kind, Kind::Hardlink | Kind::Symlink);
        let is_device = matches!(kind, Kind::Character | Kind::Block);
        let header = Header {
            path: clean(&path),
            kind,
            mode: u32::try_from(number(&block[100..108])? & 0o7777).unwrap_or(0),
            uid: extensions.uid.map_or_else(|| id(&block[108..116]), Ok)?,
            gid: extensions.gid.map_or_else(|| id(&block[116..124]), Ok)?,
            size,
            mtime: extensions.mtime.map_or_else(|| Ok::<_, TarError>((signed(&block[136..148])?, 0)), Ok)?,
            link: if is_link { link } else { Vec::new() },
            xattrs: extensions.xattrs,
            device: if is_device { (id(&block[329..337])?, id(&block[337..345])?) } else { (0, 0) },
        };
        self.content = size;
        self.padding = size.checked_next_multiple_of(BLOCK as u64).ok_or(TarError::Malformed("an impossible size"))? - size;
        Ok(header)
    }
}

impl<R: Read> Read for Reader<R> {
    /// Reads the present entry's content; a truncated one is [`io::ErrorKind::UnexpectedEof`].
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.content == 0 || buffer.is_empty() {
            return Ok(0);
        }
        let most = usize::try_from(self.content).unwrap_or(usize::MAX).min(buffer.len());
        let count = self.source.read(&mut buffer[..most])?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.content -= count as u64;
        Ok(count)
    }
}

/// Up to the first zero byte.
fn text(bytes: &[u8]) -> &[u8] {
    &bytes[..bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len())]
}

/// Name and, for POSIX archives, its prefix.
fn header_path(block: &[u8; BLOCK]) -> Vec<u8> {
    let name = text(&block[0..100]);
    let prefix = text(&block[345..500]);
    if prefix.is_empty() || &block[257..263] != b"ustar\0" {
        return name.to_vec();
    }
    [prefix, b"/", name].concat()
}

/// Without leading `./` and trailing slashes; the root itself is empty.
fn clean(path: &[u8]) -> Vec<u8> {
    let mut path = path;
    while let Some(rest) = path.strip_prefix(b"./") {
        path = rest.iter().position(|byte| *byte != b'/').map_or(&rest[rest.len()..], |start| &rest[start..]);
    }
    while let Some(rest) = path.strip_suffix(b"/") {
        path = rest;
    }
    if path == b"." { Vec::new() } else { path.to_vec() }
}

/// Octal digits, or a base-256 number with the high bit set.
fn number(field: &[u8]) -> Result<u64, TarError> {
    if field[0] & 0x80 != 0 {
        if field[0] & 0x40 != 0 {
            return Err(TarError::Malformed("a negative number"));
        }
        let mut value = u64::from(field[0] & 0x3f);
        for byte in &field[1..] {
            value = value
                .checked_mul(256)
                .and_then(|value| value.checked_add(u64::from(*byte)))
                .ok_or(TarError::Malformed("a number beyond 64 bits"))?;
        }
        return Ok(value);
    }
    let mut value = 0_u64;
    let digits = field.iter().copied().skip_while(|byte| *byte == b' ').take_while(|byte| !matches!(byte, 0 | b' '));
    for byte in digits {
        if !(b'0'..=b'7').contains(&byte) {
            return Err(TarError::Malformed("a number that is not octal"));
        }
        value = value.checked_mul(8).ok_or(TarError::Malformed("a number beyond 64 bits"))? + u64::from(byte - b'0');
    }
    Ok(value)
}

/// A time: as a number, but base-256 may be negative.
fn signed(field: &[u8]) -> Result<i64, TarError> {
    if field[0] & 0xc0 == 0xc0 {
        let mut bytes = [0xff; 8];
        let tail = &field[field.len() - 8..];
        bytes.copy_from_slice(tail);
        return Ok(i64::from_be_bytes(bytes));
    }
    i64::try_from(number(field)?).map_err(|_| TarError::Malformed("a time beyond 63 bits"))
}

impl Extensions {
    /// Records `length key=value\n`.
    fn take_pax(&mut self, mut bytes: &[u8]) -> Result<(), TarError> {
        const MALFORMED: TarError = TarError::Malformed("a PAX record");
        while !bytes.is_empty() {
            let space = bytes.iter().take(10).position(|byte| *byte == b' ').ok_or(MALFORMED)?;
            let length: usize = std::str::from_utf8(&bytes[..space]).ok().and_then(|text| text.parse().ok()).ok_or(MALFORMED)?;
            if length <= space + 1 || length > bytes.len() || bytes[length - 1] != b'\n' {
                return Err(MALFORMED);
            }
            let record = &bytes[space + 1..length - 1];
            let equals = record.iter().position(|byte| *byte == b'=').ok_or(MALFORMED)?;
            self.take_record(&record[..equals], &record[equals + 1..])?;
            bytes = &bytes[length..];
        }
        Ok(())
    }

    fn take_record(&mut self, key: &[u8], value: &[u8]) -> Result<(), TarError> {
        let word = || std::str::from_utf8(value).map_err(|_| TarError::Malformed("a PAX value"));
        let parsed = |text: &str| text.parse::<u64>().map_err(|_| TarError::Malformed("a PAX number"));
        let id = |text: &str| text.parse::<u32>().map_err(|_| TarError::Malformed("an owner beyond 32 bits"));
        match key {
            b"path" => self.path = Some(value.to_vec()),
            b"linkpath" => self.link = Some(value.to_vec()),
            b"size" => self.size = Some(parsed(word()?)?),
            b"uid" => self.uid = Some(id(word()?)?),
            b"gid" => self.gid = Some(id(word()?)?),
            b"mtime" => self.mtime = Some(pax_time(word()?)?),
            key if key.starts_with(b"GNU.sparse.") => self.sparse = true,
            key => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    if value.len() > MAX_XATTR {
                        return Err(TarError::Limit("extended attribute of more than 64 KiB"));
                    }
                    let name = std::str::from_utf8(name).map_err(|_| TarError::Malformed("an attribute's name"))?;
                    self.xattrs.retain(|(known, _)| known != name);
                    if self.xattrs.len() >= MAX_XATTRS {
                        return Err(TarError::Limit("more than 256 extended attributes of one entry"));
                    }
                    self.xattrs.push((name.to_owned(), value.to_vec()));
                }
            }
        }
        Ok(())
    }
}

/// Seconds with a decimal fraction, perhaps negative.
fn pax_time(text: &str) -> Result<(i64, u32), TarError> {
    let malformed = |_| TarError::Malformed("a PAX time");
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().map_err(malformed)?;
    let digits: String = fraction.chars().take(9).collect();
    let nanoseconds: u32 = if digits.is_empty() { 0 } else { format!("{digits:0<9}").parse().map_err(malformed)? };
    if whole.starts_with('-') && nanoseconds > 0 {
        let seconds = seconds.checked_sub(1).ok_or(TarError::Malformed("a PAX time"))?;
        return Ok((seconds, 1_000_000_000 - nanoseconds));
    }
    Ok((seconds, nanoseconds))
}
