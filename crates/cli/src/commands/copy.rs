//! `cp`: files between here and a container, as tar archives.

use std::io::{self, Read, Write};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use bytes::Bytes;
use http::Response;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use sampan_archive::tar::{Reader, Writer};
use sampan_base::Cancel;
use sampan_gotext::flags::{Flag, Kind, Matches};
use sampan_gotext::units::size_with_digits;
use sampan_layers::{Mode, PackMode, extract, pack_below, pack_one};
use sampan_ui::terminal;
use sampan_wire::Json;
use tokio::sync::mpsc;

use crate::app::App;
use crate::command::{Command, Things, Words};
use crate::error::{CliError, Outcome, errno_text};
use crate::remote::{Client, Sender, channel, escape};

pub(super) const COMMANDS: &[Command] = &[Command {
    paths: &["container cp", "cp"],
    usage: "[OPTIONS] CONTAINER:SRC_PATH DEST_PATH|-\n[OPTIONS] SRC_PATH|- CONTAINER:DEST_PATH",
    about: "Copy files between a container and this machine",
    more: "With '-' as the source a tar archive is read from standard input and unpacked\ninto a folder of the container; with '-' as the destination one is written to\nstandard output.",
    words: Words::Exactly(2),
    things: Things::CopyEnds,
    flags: &[&[
        Flag::new("archive", Kind::Bool, "Keep the numbers of users and groups").short('a'),
        Flag::new("follow-link", Kind::Bool, "Follow a symbolic link in SRC_PATH").short('L'),
        Flag::new("quiet", Kind::Bool, "Do not say what was copied").short('q'),
    ]],
    interspersed: true,
    run: |app, matches| Box::pin(copy(app, matches)),
}];

/// One end: a container and a path, or a path here.
fn end(text: &str) -> (Option<&str>, &str) {
    // An absolute path is one here, whatever colons it has.
    if text.starts_with('/') {
        return (None, text);
    }
    match text.split_once(':') {
        Some((container, path)) if !container.starts_with('.') && !container.is_empty() => (Some(container), path),
        _ => (None, text),
    }
}

async fn copy(app: &App, matches: &Matches) -> Outcome {
    let (from, to) = (end(&matches.words[0]), end(&matches.words[1]));
    if from.1.is_empty() {
        return Err(CliError::new("source can not be empty"));
    }
    if to.1.is_empty() {
        return Err(CliError::new("destination can not be empty"));
    }
    match (from, to) {
        ((Some(_), _), (Some(_), _)) => Err(CliError::new("copying between containers is not supported")),
        ((None, _), (None, _)) => Err(CliError::new("must specify at least one container source")),
        ((Some(container), source), (None, target)) => download(app, matches, container, source, target).await,
        ((None, source), (Some(container), target)) => upload(app, matches, source, container, target).await,
    }
}

/// What the engine says about a path.
#[derive(Debug, Clone)]
struct PathStat {
    name: String,
    mode: i64,
    link_target: String,
}

impl PathStat {
    const DIRECTORY: i64 = 1 << 31;
    const LINK: i64 = 1 << 27;

    fn of<T>(response: &Response<T>) -> Outcome<Self> {
        let header = response
            .headers()
            .get("X-Docker-Container-Path-Stat")
            .ok_or_else(|| CliError::new("the engine did not tell what the path is"))?;
        let bad = |error: &dyn std::fmt::Display| CliError::new(format!("unable to decode container path stat header: {error}"));
        let text = base64::engine::general_purpose::STANDARD.decode(header.as_bytes()).map_err(|error| bad(&error))?;
        let json = Json::parse(&text).map_err(|error| bad(&error))?;
        Ok(Self { name: json.text("name").to_owned(), mode: json.int("mode"), link_target: json.text("linkTarget").to_owned() })
    }

    fn is_directory(&self) -> bool {
        self.mode & Self::DIRECTORY != 0
    }
}

async fn stat(client: &Client, container: &str, path: &str) -> Outcome<PathStat> {
    let response = client.head(format!("/containers/{}/archive", escape(container))).query("path", path).send().await?;
    PathStat::of(&response)
}

/// Whether a source means what is in a folder, and not the folder itself.
fn means_contents(path: &str) -> bool {
    path == "." || path.ends_with("/.")
}

/// Last name of a path; empty for the root.
fn base(path: &str) -> &str {
    path.trim_end_matches("/.").trim_end_matches('/').rsplit('/').next().unwrap_or_default()
}

/// Where entries go: the folder, and the name that the copied thing gets in it (empty: its contents go into the folder).
#[derive(Debug, PartialEq, Eq)]
struct Place {
    folder: String,
    name: String,
}

/// Docker's rules for the destination. `existing` says whether it exists, and whether as a folder.
fn place(target: &str, existing: Option<bool>, source: &str, source_is_directory: bool) -> Outcome<Place> {
    let wants_directory = target.ends_with('/') || means_contents(target);
    match existing {
        Some(true) => {
            let name = if means_contents(source) && source_is_directory { String::new() } else { base(source).to_owned() };
            Ok(Place { folder: target.to_owned(), name })
        }
        Some(false) if source_is_directory => Err(CliError::new("cannot copy directory")),
        Some(false) if wants_directory => Err(CliError::new("not a directory")),
        None if wants_directory && !source_is_directory => Err(CliError::new("no such directory")),
        _ => {
            let trimmed = target.trim_end_matches('/');
            let (folder, name) = trimmed.rsplit_once('/').unwrap_or((".", trimmed));
            Ok(Place { folder: if folder.is_empty() { "/".into() } else { folder.to_owned() }, name: name.to_owned() })
        }
    }
}

async fn download(app: &App, matches: &Matches, container: &str, source: &str, target: &str) -> Outcome {
    let client = app.client()?;
    let absolute = if source.starts_with('/') { source.to_owned() } else { format!("/{source}") };
    let mut asked = absolute.clone();
    if matches.truth("follow-link")
        && let Ok(found) = stat(client, container, &absolute).await
        && found.mode & PathStat::LINK != 0
    {
        asked = found.link_target;
    }
    if target != "-" {
        let folder = Path::new(target).parent().filter(|folder| !folder.as_os_str().is_empty());
        if let Some(folder) = folder.filter(|folder| !folder.exists()) {
            return Err(CliError::new(format!("invalid output path: directory \"{}\" does not exist", folder.display())));
        }
    }
    let response = client.get(format!("/containers/{}/archive", escape(container))).query("path", &asked).send().await?;
    let found = PathStat::of(&response)?;
    if target == "-" {
        let mut out = io::stdout().lock();
        let mut body = response.into_body();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| CliError::new(format!("the engine's answer broke off: {error}")))?;
            if let Ok(bytes) = frame.into_data() {
                out.write_all(&bytes)?;
            }
        }
        out.flush()?;
        return Ok(0);
    }
    let existing = std::fs::metadata(target).ok().map(|found| found.is_dir());
    let place = place(target, existing, &absolute, found.is_directory())?;
    let (sender, body) = mpsc::channel::<io::Result<Bytes>>(8);
    let work = tokio::task::spawn_blocking(move || {
        // What is in a folder comes without the folder's name.
        let root = if means_contents(&asked) { "" } else { &found.name };
        unpack(FrameReader::new(body), &place, root)
    });
    feed(response, sender).await;
    let content = work.await.map_err(|error| CliError::new(error.to_string()))??;
    say(matches, content, &absolute_here(target)?);
    Ok(0)
}

/// Sends a body's pieces to a thread.
async fn feed(response: Response<Incoming>, sender: mpsc::Sender<io::Result<Bytes>>) {
    let mut body = response.into_body();
    while let Some(frame) = body.frame().await {
        let piece = match frame {
            Ok(frame) => frame.into_data().map_err(drop).map(Ok),
            Err(error) => Ok(Err(io::Error::other(format!("the engine's answer broke off: {error}")))),
        };
        if let Ok(piece) = piece
            && sender.send(piece).await.is_err()
        {
            return;
        }
    }
}

/// Reads what another task sends.
#[derive(Debug)]
pub(super) struct FrameReader {
    frames: mpsc::Receiver<io::Result<Bytes>>,
    rest: Bytes,
}

impl FrameReader {
    pub(super) fn new(frames: mpsc::Receiver<io::Result<Bytes>>) -> Self {
        Self { frames, rest: Bytes::new() }
    }
}

impl Read for FrameReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() {
            match self.frames.blocking_recv() {
                Some(piece) => self.rest = piece?,
                None => return Ok(0),
            }
        }
        let count = buffer.len().min(self.rest.len());
        buffer[..count].copy_from_slice(&self.rest.split_to(count));
        Ok(count)
    }
}

/// Unpacks an archive whose entries stand below `root`: the first name is replaced, the files become ours.
fn unpack(archive: impl Read + Send, place: &Place, root: &str) -> Outcome<u64> {
    let folder =
        std::fs::File::open(&place.folder).map_err(|error| CliError::new(format!("open {}: {}", place.folder, errno_text(&error))))?;
    let (reader, writer) = io::pipe()?;
    let owner = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    std::thread::scope(|scope| {
        let renaming = scope.spawn(|| rename(archive, writer, root, &place.name, owner));
        let extracted = extract(reader, folder.as_fd(), Mode::Plain, &Cancel::new());
        let renamed = renaming.join().map_err(|_| CliError::new("the copying thread failed"))?;
        let extracted = extracted.map_err(|error| {
            let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
            CliError::new(format!("{error}{cause}"))
        });
        // A broken archive is the cause of what follows from it.
        match renamed {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(CliError::new(error.to_string())),
            _ => extracted.map(|done| done.content),
        }
    })
}

/// Unpacks a whole archive into a folder; its files become ours.
///
/// # Errors
/// A broken archive, a full disk.
pub(super) fn unpack_all(archive: impl Read + Send, folder: &str) -> Outcome<()> {
    unpack(archive, &Place { folder: folder.to_owned(), name: String::new() }, "").map(drop)
}

/// Copies an archive entry by entry with other names and owners.
fn rename(archive: impl Read, out: impl Write, root: &str, name: &str, (uid, gid): (u32, u32)) -> io::Result<()> {
    let mut reader = Reader::new(archive);
    let mut writer = Writer::new(out);
    let changed = |path: &[u8]| -> Option<Vec<u8>> {
        let rest = if root == "/" || root.is_empty() { path } else { path.strip_prefix(root.as_bytes())? };
        let rest = rest.strip_prefix(b"/").unwrap_or(rest);
        let mut new = name.as_bytes().to_vec();
        if !new.is_empty() && !rest.is_empty() {
            new.push(b'/');
        }
        new.extend_from_slice(rest);
        Some(new)
    };
    while let Some(mut header) = reader.next_entry().map_err(io::Error::other)? {
        let Some(path) = changed(&header.path) else { continue };
        // The folder itself is there already.
        if path.is_empty() {
            continue;
        }
        header.path = path;
        if header.kind == sampan_archive::tar::Kind::Hardlink
            && let Some(target) = changed(&header.link)
        {
            header.link = target;
        }
        (header.uid, header.gid) = (uid, gid);
        header.xattrs.clear();
        writer.append(&header, &mut reader)?;
    }
    writer.finish()?.flush()
}

async fn upload(app: &App, matches: &Matches, source: &str, container: &str, target: &str) -> Outcome {
    let client = app.client()?;
    let mut target = if target.starts_with('/') { target.to_owned() } else { format!("/{target}") };
    let mut existing = None;
    // An error here is one later too: the engine names what is missing.
    if let Ok(found) = stat(client, container, &target).await {
        existing = Some(found.is_directory());
        if found.mode & PathStat::LINK != 0 {
            let tail = if target.ends_with('/') { "/" } else { "" };
            target = format!("{}{tail}", found.link_target);
            // A link that leads nowhere: what it names is made.
            existing = stat(client, container, &target).await.ok().map(|behind| behind.is_directory());
        }
    }
    let put = |folder: &str| {
        let call =
            client.put(format!("/containers/{}/archive", escape(container))).query("path", folder).query("noOverwriteDirNonDir", "true");
        if matches.truth("archive") { call.query("copyUIDGID", "true") } else { call }
    };
    let (mut sender, body) = channel();
    if source == "-" {
        if existing != Some(true) {
            return Err(CliError::new(format!("destination \"{container}:{target}\" must be a directory")));
        }
        std::thread::spawn(move || {
            if let Err(error) = io::copy(&mut io::stdin().lock(), &mut sender) {
                sender.fail(error);
            }
        });
        put(&target).stream(body, "application/x-tar").done().await?;
        return Ok(0);
    }
    let follow = matches.truth("follow-link") || source.ends_with('/') || means_contents(source);
    let facts = if follow { std::fs::metadata(source) } else { std::fs::symlink_metadata(source) };
    let facts =
        facts.map_err(|error| CliError::new(format!("lstat {}: {}", absolute_here(source).unwrap_or_default(), errno_text(&error))))?;
    let whole = absolute_here(source)?;
    let named = if means_contents(source) { format!("{whole}/.") } else { whole };
    let place = place(&target, existing, &named, facts.is_dir())?;
    let name = place.name.clone();
    let path = if follow { std::fs::canonicalize(source)? } else { PathBuf::from(source) };
    let is_directory = facts.is_dir();
    let work = tokio::task::spawn_blocking(move || pack(&path, is_directory, &name, sender));
    let sent = put(&place.folder).stream(body, "application/x-tar").done().await;
    let packed = work.await.map_err(|error| CliError::new(error.to_string()))?;
    match (sent, packed) {
        (Ok(()), Ok(content)) => {
            say(matches, content, &format!("{container}:{target}"));
            Ok(0)
        }
        (Err(error), _) if error.from_engine => Err(error),
        (_, Err(error)) => Err(error),
        (Err(error), _) => Err(error),
    }
}

/// Packs a file or a folder under a name. What fails breaks the request off.
fn pack(path: &Path, is_directory: bool, name: &str, mut sender: Sender) -> Outcome<u64> {
    let packed = (|| {
        if is_directory {
            let folder = std::fs::File::open(path)?;
            return pack_below(folder.as_fd(), name.as_bytes(), &mut sender, PackMode::Plain, !name.is_empty(), &Cancel::new())
                .map(|done| done.content);
        }
        let file = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let folder = std::fs::File::open(folder)?;
        pack_one(folder.as_fd(), file, name.as_bytes(), &mut sender)?;
        Ok(std::fs::symlink_metadata(path)?.len())
    })();
    packed.map_err(|error: io::Error| {
        let text = format!("{}: {}", path.display(), errno_text(&error));
        sender.fail(error);
        CliError::new(text)
    })
}

fn absolute_here(path: &str) -> Outcome<String> {
    Ok(crate::create::mounts::clean(&std::env::current_dir()?.join(path)))
}

/// Says on a terminal what was copied.
fn say(matches: &Matches, content: u64, target: &str) {
    if matches.truth("quiet") || !terminal::is_terminal(io::stderr()) {
        return;
    }
    #[expect(clippy::cast_precision_loss, reason = "sizes for people")]
    let shown = size_with_digits(content as f64, 3);
    drop(writeln!(io::stderr().lock(), "Successfully copied {shown} to {target}"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_containers_or_paths() {
        assert_eq!(end("web:/x"), (Some("web"), "/x"));
        assert_eq!(end("/a:b"), (None, "/a:b"));
        assert_eq!(end("./a:b"), (None, "./a:b"));
        assert_eq!(end("file"), (None, "file"));
    }

    #[test]
    fn the_destination_follows_dockers_rules() {
        let go = |target: &str, existing: Option<bool>, source: &str, directory: bool| {
            place(target, existing, source, directory).map(|place| format!("{}|{}", place.folder, place.name)).map_err(|error| error.text)
        };
        assert_eq!(go("/to", Some(true), "/a/f", false).as_deref(), Ok("/to|f"));
        assert_eq!(go("/to", Some(true), "/a/d/.", true).as_deref(), Ok("/to|"));
        assert_eq!(go("/to/g", Some(false), "/a/f", false).as_deref(), Ok("/to|g"));
        assert_eq!(go("/to/g", None, "/a/d", true).as_deref(), Ok("/to|g"));
        assert_eq!(go("g", None, "/a/f", false).as_deref(), Ok(".|g"));
        assert_eq!(go("/g", None, "/a/f", false).as_deref(), Ok("/|g"));
        assert_eq!(go("/to/g", Some(false), "/a/d", true).unwrap_err(), "cannot copy directory");
        assert_eq!(go("/to/", None, "/a/f", false).unwrap_err(), "no such directory");
    }
}
