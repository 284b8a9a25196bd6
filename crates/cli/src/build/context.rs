//! The context of a build: which folder or stream is meant, and the tar that is sent.
//!
//! The Dockerfile and `.dockerignore` are always sent; the engine takes them out again where `.dockerignore` says so.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::{File, Metadata};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use sampan_archive::Compression;
use sampan_archive::tar::{Header, Kind, Writer};
use sampan_gotext::ignore::{Ignore, Level, read};

use crate::error::{CliError, Outcome, errno_text};

/// Longest Dockerfile or `.dockerignore`.
const LONGEST: u64 = 64 << 20;

/// Where the files come from.
pub(crate) enum Context {
    /// A folder.
    Folder {
        root: PathBuf,
        ignore: Box<Ignore>,
        /// Files that are sent with a content of our own: name, content.
        extra: Vec<(String, Vec<u8>)>,
    },
    /// A tar stream.
    Stream(Box<dyn Read + Send>),
    /// Only a Dockerfile.
    Dockerfile(Vec<u8>),
    /// An address from which the engine fetches.
    Remote(String),
}

impl Context {
    /// The address, where it is one.
    pub(crate) fn address(&self) -> Option<&str> {
        match self {
            Self::Remote(address) => Some(address),
            _ => None,
        }
    }

    /// The folder, where it is one and nothing of our own goes with it.
    pub(crate) fn folder(&self) -> Option<&Path> {
        match self {
            Self::Folder { root, extra, .. } if extra.is_empty() => Some(root),
            _ => None,
        }
    }
}

/// A context, and the Dockerfile's path in it.
pub(crate) struct Prepared {
    pub(crate) context: Context,
    pub(crate) dockerfile: String,
}

fn prepare_error(text: impl std::fmt::Display) -> CliError {
    CliError::new(format!("unable to prepare context: {text}"))
}

fn is_url(text: &str) -> bool {
    ["http://", "https://", "git://", "github.com/", "git@", "ssh://"].iter().any(|start| text.starts_with(start))
}

/// Whether an address is a file's, not a repository's.
fn is_file_address(text: &str) -> bool {
    let path = text.split(['?', '#']).next().unwrap_or_default();
    (text.starts_with("http://") || text.starts_with("https://")) && !path.to_ascii_lowercase().ends_with(".git")
}

fn stdin_whole() -> Outcome<Vec<u8>> {
    let mut text = Vec::new();
    io::stdin().lock().take(LONGEST).read_to_end(&mut text)?;
    Ok(text)
}

/// Finds out what `build` was given.
pub(crate) fn prepare(word: &str, dockerfile: &str) -> Outcome<Prepared> {
    if word == "-" && dockerfile == "-" {
        return Err(CliError::new("invalid argument: can't use stdin for both build context and dockerfile"));
    }
    if word == "-" {
        return from_stdin(dockerfile);
    }
    if is_file_address(word) {
        return Ok(Prepared { context: Context::Remote(word.to_owned()), dockerfile: dockerfile.to_owned() });
    }
    if is_url(word) {
        return Err(CliError::unsupported(word, "clone it and give the folder"));
    }
    let missing = || prepare_error(format!("path {} not found", sampan_gotext::quote(word)));
    let root = Path::new(word).canonicalize().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => missing(),
        _ => prepare_error(errno_text(&error)),
    })?;
    if !root.is_dir() {
        return Err(prepare_error(format!("context must be a directory: {word}")));
    }
    let mut extra = Vec::new();
    let name = if dockerfile == "-" { outside(&mut extra, stdin_whole()?) } else { find(&root, dockerfile, &mut extra)? };
    let patterns = patterns(&root, &name)?;
    let ignore = Ignore::new(&patterns).map_err(|error| CliError::new(format!("error checking context: {error}")))?;
    if !extra.is_empty() {
        // What is not of the folder must not be copied into images.
        let mut text = patterns.join("\n").into_bytes();
        text.extend_from_slice(format!("\n{name}\n.dockerignore\n").as_bytes());
        if root.join(".dockerignore").exists() {
            text.truncate(text.len() - ".dockerignore\n".len());
        }
        extra.push((".dockerignore".into(), text));
    }
    Ok(Prepared { context: Context::Folder { root, ignore: Box::new(ignore), extra }, dockerfile: name })
}

/// Sends a Dockerfile that is not of the folder under a name that no file has.
fn outside(extra: &mut Vec<(String, Vec<u8>)>, text: Vec<u8>) -> String {
    let mut bytes = [0; 10];
    let _filled = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    let name = format!(".dockerfile.{}", hex::encode(bytes));
    extra.push((name.clone(), text));
    name
}

fn from_stdin(dockerfile: &str) -> Outcome<Prepared> {
    let mut input = io::stdin();
    let mut head = Vec::new();
    input.by_ref().take(512).read_to_end(&mut head)?;
    let compressed = !matches!(Compression::detect(&head[..head.len().min(6)]), Compression::None);
    if compressed || head.get(257..262) == Some(b"ustar") {
        let context = Context::Stream(Box::new(io::Cursor::new(head).chain(input)));
        return Ok(Prepared { context, dockerfile: dockerfile.to_owned() });
    }
    if !dockerfile.is_empty() {
        return Err(prepare_error("ambiguous Dockerfile source: both stdin and flag correspond to Dockerfiles"));
    }
    input.take(LONGEST).read_to_end(&mut head)?;
    Ok(Prepared { context: Context::Dockerfile(head), dockerfile: String::new() })
}

/// The Dockerfile's path in the folder; one from elsewhere is read.
fn find(root: &Path, dockerfile: &str, extra: &mut Vec<(String, Vec<u8>)>) -> Outcome<String> {
    let path = if dockerfile.is_empty() {
        let usual = root.join("Dockerfile");
        // The name is found in either case of its letter.
        if usual.symlink_metadata().is_err() && root.join("dockerfile").exists() { root.join("dockerfile") } else { usual }
    } else {
        std::path::absolute(dockerfile).map_err(|error| prepare_error(errno_text(&error)))?
    };
    let found =
        path.parent().map_or_else(|| path.canonicalize(), |parent| Ok(parent.canonicalize()?.join(path.file_name().unwrap_or_default())));
    let real = found.and_then(|found| found.metadata().map(|_| found)).map_err(|error| {
        prepare_error(format!("unable to evaluate symlinks in Dockerfile path: lstat {}: {}", path.display(), errno_text(&error)))
    })?;
    if let Ok(below) = real.strip_prefix(root) {
        return Ok(below.to_string_lossy().into_owned());
    }
    let mut text = Vec::new();
    let read = File::open(&real).and_then(|file| file.take(LONGEST).read_to_end(&mut text));
    read.map_err(|error| prepare_error(format!("unable to open Dockerfile: open {}: {}", real.display(), errno_text(&error))))?;
    Ok(outside(extra, text))
}

/// The patterns of `.dockerignore`; the Dockerfile's own file of that name wins.
fn patterns(root: &Path, dockerfile: &str) -> Outcome<Vec<String>> {
    for name in [format!("{dockerfile}.dockerignore"), ".dockerignore".to_owned()] {
        let mut text = Vec::new();
        match File::open(root.join(&name)) {
            Ok(file) => {
                file.take(LONGEST).read_to_end(&mut text)?;
                return Ok(read(&String::from_utf8_lossy(&text)));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(CliError::file("open", &name, &error)),
        }
    }
    Ok(Vec::new())
}

/// Writes the tar.
pub(crate) fn send(prepared: Prepared, out: &mut dyn Write) -> io::Result<()> {
    let Prepared { context, dockerfile } = prepared;
    match context {
        Context::Remote(_) => Ok(()),
        Context::Stream(mut stream) => io::copy(&mut stream, out).map(drop),
        Context::Dockerfile(text) => {
            let mut writer = Writer::new(out);
            content(&mut writer, "Dockerfile", &text)?;
            writer.finish().map(drop)
        }
        Context::Folder { root, ignore, extra } => {
            let mut writer = Writer::new(io::BufWriter::with_capacity(256 << 10, out));
            let own = [dockerfile.as_str(), ".dockerignore"];
            let walk = Walk { root: &root, ignore: &ignore, own, extra: &extra };
            walk.run(&mut writer)?;
            for (name, text) in &extra {
                content(&mut writer, name, text)?;
            }
            writer.finish()?.flush()
        }
    }
}

fn content(writer: &mut Writer<impl Write>, name: &str, text: &[u8]) -> io::Result<()> {
    let mut header = Header::new(Kind::File, name);
    header.size = text.len() as u64;
    writer.append(&header, &mut io::Cursor::new(text))
}

/// A walk through a folder.
struct Walk<'a> {
    root: &'a Path,
    ignore: &'a Ignore,
    own: [&'a str; 2],
    extra: &'a [(String, Vec<u8>)],
}

impl Walk<'_> {
    fn run(&self, writer: &mut Writer<impl Write>) -> io::Result<()> {
        let mut pending: VecDeque<(PathBuf, Level)> = VecDeque::from([(PathBuf::new(), Level::default())]);
        while let Some((folder, level)) = pending.pop_front() {
            let mut names: Vec<OsString> = Vec::new();
            for entry in std::fs::read_dir(self.root.join(&folder)).map_err(named(&folder))? {
                names.push(entry?.file_name());
            }
            names.sort();
            let mut inner = Vec::new();
            for name in names {
                let path = folder.join(&name);
                let shown = path.to_string_lossy().into_owned();
                let facts = match self.root.join(&path).symlink_metadata() {
                    // Gone meanwhile.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                    other => other.map_err(named(&path))?,
                };
                let here = self.ignore.enter(&level, &shown);
                if self.extra.iter().any(|(name, _)| *name == shown) {
                    continue;
                }
                let mine = self.own.contains(&shown.as_str());
                let ours_below =
                    facts.is_dir() && self.own.iter().any(|own| own.strip_prefix(&shown).is_some_and(|rest| rest.starts_with('/')));
                let looked_into = ours_below || (facts.is_dir() && self.ignore.may_include_below(&shown));
                if here.ignored() && !mine && !looked_into {
                    continue;
                }
                // An ignored folder is looked into for what comes along, and makes itself felt only where something does.
                if !(here.ignored() && facts.is_dir()) {
                    self.entry(writer, &path, &facts)?;
                }
                if facts.is_dir() {
                    inner.push((path, here));
                }
            }
            for one in inner.into_iter().rev() {
                pending.push_front(one);
            }
        }
        Ok(())
    }

    fn entry(&self, writer: &mut Writer<impl Write>, path: &Path, facts: &Metadata) -> io::Result<()> {
        let kind = facts.file_type();
        let kind = if kind.is_file() {
            Kind::File
        } else if kind.is_dir() {
            Kind::Directory
        } else if kind.is_symlink() {
            Kind::Symlink
        } else if kind.is_fifo() {
            Kind::Fifo
        } else {
            // Sockets and devices are no part of a context.
            return Ok(());
        };
        let mut header = Header::new(kind, path.as_os_str().as_bytes());
        header.mode = facts.mode() & 0o7777;
        header.mtime = (facts.mtime(), 0);
        match kind {
            Kind::Symlink => {
                header.link = self.root.join(path).read_link().map_err(named(path))?.into_os_string().as_bytes().to_vec();
                writer.append(&header, &mut io::empty())
            }
            Kind::File => {
                let file = File::open(self.root.join(path)).map_err(named(path))?;
                header.size = file.metadata()?.len();
                writer.append(&header, &mut io::BufReader::with_capacity(128 << 10, file)).map_err(named(path))
            }
            _ => writer.append(&header, &mut io::empty()),
        }
    }
}

fn named(path: &Path) -> impl Fn(io::Error) -> io::Error + '_ {
    move |error| match error.kind() {
        io::ErrorKind::UnexpectedEof => io::Error::new(error.kind(), format!("{} became shorter while it was read", path.display())),
        io::ErrorKind::BrokenPipe => error,
        kind => io::Error::new(kind, format!("{}: {}", path.display(), errno_text(&error))),
    }
}

#[cfg(test)]
mod tests {
    use sampan_archive::tar::Reader;

    use super::*;

    fn names(root: &Path, dockerfile: &str) -> Vec<String> {
        let prepared = prepare(&root.display().to_string(), dockerfile).unwrap();
        let mut tar = Vec::new();
        send(prepared, &mut tar).unwrap();
        let mut reader = Reader::new(io::Cursor::new(tar));
        let mut names = Vec::new();
        while let Some(header) = reader.next_entry().unwrap() {
            names.push(String::from_utf8(header.path).unwrap());
        }
        names
    }

    #[test]
    fn patterns_keep_files_back_but_for_our_own() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        std::fs::create_dir_all(root.join("node/deep")).unwrap();
        for file in ["Dockerfile", "a", "b.log", "node/x", "node/keep", "node/deep/y"] {
            std::fs::write(root.join(file), file).unwrap();
        }
        assert_eq!(names(root, "").len(), 8);
        std::fs::write(root.join(".dockerignore"), "*.log\nnode\n!node/keep\nDockerfile\n.dockerignore\n").unwrap();
        assert_eq!(names(root, ""), [".dockerignore", "Dockerfile", "a", "node/keep"]);
        std::fs::write(root.join("Dockerfile.dockerignore"), "*\n").unwrap();
        assert_eq!(names(root, ""), [".dockerignore", "Dockerfile"]);
    }

    #[test]
    fn mistakes_have_dockers_words() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        let text = |word: &str, file: &str| prepare(word, file).err().map(|error| error.text).unwrap_or_default();
        assert_eq!(text("/no/such", ""), "unable to prepare context: path \"/no/such\" not found");
        assert_eq!(
            text(&root.display().to_string(), ""),
            format!(
                "unable to prepare context: unable to evaluate symlinks in Dockerfile path: lstat {}/Dockerfile: no such file or directory",
                root.display()
            )
        );
        assert!(text("-", "-").contains("can't use stdin for both"));
    }
}
