//! Tar archives: ustar, GNU and PAX in, deterministic ustar with PAX out.

mod read;
mod write;

pub use read::{Reader, TarError};
pub use write::Writer;

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link to [`Header::link`].
    Symlink,
    /// Another name of the file [`Header::link`].
    Hardlink,
    /// A character device.
    Character,
    /// A block device.
    Block,
    /// A named pipe.
    Fifo,
}

/// The facts of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Its path as written, without a leading `./` and trailing `/`.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Permission bits with set-id and sticky bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bytes of content.
    pub size: u64,
    /// Modification time: seconds since the epoch, nanoseconds.
    pub mtime: (i64, u32),
    /// Target of a link.
    pub link: Vec<u8>,
    /// Extended attributes.
    pub xattrs: Vec<(String, Vec<u8>)>,
    /// Major and minor number of a device.
    pub device: (u32, u32),
}

impl Header {
    /// A header of a kind at a path, owned by root, of 1970.
    #[must_use]
    pub fn new(kind: Kind, path: impl Into<Vec<u8>>) -> Self {
        let mode = if kind == Kind::Directory { 0o755 } else { 0o644 };
        Self { path: path.into(), kind, mode, uid: 0, gid: 0, size: 0, mtime: (0, 0), link: Vec::new(), xattrs: Vec::new(), device: (0, 0) }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use proptest::prelude::*;

    use super::*;

    fn list(bytes: &[u8]) -> Result<Vec<(Header, Vec<u8>)>, TarError> {
        let mut reader = Reader::new(bytes);
        let mut out = Vec::new();
        while let Some(header) = reader.next_entry()? {
            let mut content = Vec::new();
            reader.read_to_end(&mut content).map_err(|error| TarError::Read { source: error })?;
            out.push((header, content));
        }
        Ok(out)
    }

    fn write(entries: &[(Header, Vec<u8>)]) -> Vec<u8> {
        let mut writer = Writer::new(Vec::new());
        for (header, content) in entries {
            writer.append(header, &mut &content[..]).unwrap();
        }
        writer.finish().unwrap()
    }

    fn kinds() -> impl Strategy<Value = Kind> {
        prop::sample::select(vec![Kind::File, Kind::Directory, Kind::Symlink, Kind::Hardlink, Kind::Character, Kind::Block, Kind::Fifo])
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            kind in kinds(), path in "[a-z]{1,8}(/[a-zA-Z0-9üß]{1,60}){0,5}", mode in 0_u32..0o10000, ids: (u32, u32), seconds in -1_000_i64..1 << 40, nanoseconds in 0_u32..1_000_000_000,
            link in "[a-z/]{1,200}", content: Vec<u8>, xattr: Vec<u8>, device in (0_u32..4096, 0_u32..100_000),
        ) {
            let mut header = Header::new(kind, path.into_bytes());
            header.mode = mode;
            (header.uid, header.gid) = ids;
            header.mtime = (seconds, nanoseconds);
            header.xattrs = vec![("user.x".into(), xattr)];
            let content = if kind == Kind::File { content } else { Vec::new() };
            header.size = content.len() as u64;
            if matches!(kind, Kind::Symlink | Kind::Hardlink) {
                header.link = link.into_bytes();
            }
            if matches!(kind, Kind::Character | Kind::Block) {
                header.device = device;
            }
            let bytes = write(&[(header.clone(), content.clone()), (Header::new(Kind::Directory, "z"), Vec::new())]);
            let read = list(&bytes).unwrap();
            prop_assert_eq!(&read[0], &(header, content));
            prop_assert_eq!(read.len(), 2);
        }

        #[test]
        fn arbitrary_bytes_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..2048)) {
            let _either = list(&bytes);
        }

        #[test]
        fn damage_does_no_harm(at in 0_usize..3000, value: u8, cut in 0_usize..4000) {
            let mut file = Header::new(Kind::File, "a".repeat(150));
            file.size = 700;
            let mut bytes = write(&[(file, vec![1; 700])]);
            if at < bytes.len() {
                bytes[at] = value;
            }
            bytes.truncate(cut);
            let _either = list(&bytes);
        }
    }

    #[test]
    fn truncated_archives_are_errors() {
        let mut file = Header::new(Kind::File, "f");
        file.size = 1000;
        let bytes = write(&[(file, vec![1; 1000])]);
        assert!(matches!(list(&bytes[..800]), Err(TarError::Read { .. } | TarError::Truncated)));
        assert!(matches!(list(&bytes[..100]), Err(TarError::Truncated)));
        assert!(list(&bytes[..512 + 1024]).is_ok(), "a missing end marker is common");
    }

    #[test]
    fn a_wrong_checksum_is_an_error() {
        let mut bytes = write(&[(Header::new(Kind::Directory, "d"), Vec::new())]);
        bytes[0] = b'x';
        assert!(matches!(list(&bytes), Err(TarError::Malformed(_))));
    }
}
