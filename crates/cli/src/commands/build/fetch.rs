//! Contexts that lie elsewhere, fetched here as Docker's client does it: a git repository by `git`, a document by HTTP.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use bytes::Bytes;
use sampan_gotext::units::size;
use sampan_ui::steps::clean_lines;
use tokio::sync::mpsc;

use super::source::{eval_symlinks, random_name};
use crate::commands::copy::FrameReader;
use crate::error::{CliError, Outcome, errno_text};

/// Most of an error page that is shown.
const MOST_OF_PAGE: usize = 64 << 10;

/// A folder that goes when this goes.
#[derive(Debug)]
pub(super) struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

impl Temporary {
    /// # Errors
    /// A folder for temporary files that cannot be written.
    pub(super) fn new(name: &str) -> Outcome<Self> {
        use std::os::unix::fs::DirBuilderExt as _;
        let path = std::env::temp_dir().join(format!("{name}{}", random_name(8)?));
        std::fs::DirBuilder::new().mode(0o700).create(&path).map_err(|error| CliError::file("mkdir", path.display(), &error))?;
        Ok(Self(path))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

/// Where a repository is, which state of it, and which folder: `URL#REF:FOLDER`.
#[derive(Debug, PartialEq, Eq)]
struct Repository {
    remote: String,
    reference: String,
    folder: String,
}

impl Repository {
    fn parse(text: &str) -> Outcome<Self> {
        let (remote, fragment) = text.split_once('#').unwrap_or((text, ""));
        let (reference, folder) = fragment.split_once(':').unwrap_or((fragment, ""));
        if reference.starts_with('-') {
            return Err(git_failed(&format!("invalid refspec: {reference}")));
        }
        let known = ["http://", "https://", "git://", "git@"].iter().any(|start| remote.starts_with(start));
        let remote = if known { remote.to_owned() } else { format!("https://{remote}") };
        Ok(Self { remote, reference: reference.to_owned(), folder: folder.to_owned() })
    }
}

fn git_failed(text: &str) -> CliError {
    // What a server said through git is a stranger's text.
    CliError::new(format!("unable to prepare context: unable to 'git clone' to temporary context directory: {}", clean_lines(text)))
}

/// Clones a repository into a folder: gives the folder that is the context.
///
/// # Errors
/// Docker's texts.
pub(super) fn git(address: &str, root: &Path) -> Outcome<PathBuf> {
    let repository = Repository::parse(address)?;
    run_git(root, &["init"]).map_err(|text| git_failed(&format!("failed to init repo at {}: {text}", root.display())))?;
    run_git(root, &["remote", "add", "origin", &repository.remote])
        .map_err(|text| git_failed(&format!("failed add origin repo at {}: {text}", repository.remote)))?;
    let reference = if repository.reference.is_empty() { "HEAD" } else { &repository.reference };
    let shallow = run_git(root, &["fetch", "--depth", "1", "origin", "--", reference]);
    // Servers that only serve files cannot cut the history off.
    let fetched = match shallow {
        Err(text) if text.contains("dumb http transport does not support shallow") => run_git(root, &["fetch", "origin", "--", reference]),
        other => other,
    };
    fetched.map_err(|text| git_failed(&format!("error fetching: {text}")))?;
    // A branch or tag by its name, else what was fetched.
    if run_git(root, &["checkout", reference, "--"]).is_err() || reference == "HEAD" {
        run_git(root, &["checkout", "FETCH_HEAD"]).map_err(|text| git_failed(&format!("error checking out {reference}: {text}")))?;
    }
    run_git(root, &["submodule", "update", "--init", "--recursive", "--depth=1"])
        .map_err(|text| git_failed(&format!("error initializing submodules: {text}")))?;
    inside(root, &repository.folder)
}

/// A folder of the repository; links and `..` do not lead out of it.
fn inside(root: &Path, folder: &str) -> Outcome<PathBuf> {
    if folder.is_empty() {
        return Ok(root.to_owned());
    }
    let path = root.join(folder.trim_start_matches('/'));
    let real = eval_symlinks(root).map_err(|text| git_failed(&text))?;
    let found = eval_symlinks(&path).map_err(|text| git_failed(&text.replacen("lstat", "stat", 1)))?;
    if !found.starts_with(&real) {
        let root = root.display();
        let text = format!(
            "error setting git context, {} not within git root: evalSymlinksInScope: {} is not in {root}",
            sampan_gotext::quote(folder),
            found.display()
        );
        return Err(git_failed(&text));
    }
    if !found.is_dir() {
        return Err(git_failed(&format!("error setting git context, not a directory: {}", found.display())));
    }
    Ok(found)
}

#[expect(clippy::disallowed_methods, reason = "the named exception for git contexts")]
fn run_git(root: &Path, words: &[&str]) -> Result<(), String> {
    let mut command = Command::new("git");
    // Addresses of submodules are a stranger's: no helper programs, no files of this machine.
    command.env("GIT_PROTOCOL_FROM_USER", "0").env("GIT_TERMINAL_PROMPT", "0").args(["-c", "protocol.file.allow=never"]);
    let done = command.current_dir(root).args(words).stdin(Stdio::null()).output().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => "exec: \"git\": executable file not found in $PATH".to_owned(),
        _ => errno_text(&error),
    })?;
    if done.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
    Err(format!("{text}: exit status {}", done.status.code().unwrap_or(-1)))
}

/// Begins to download a document. Its bytes come out of the reader, which belongs to a thread.
///
/// # Errors
/// Docker's texts.
pub(super) async fn http(address: &str, quiet: bool) -> Outcome<FrameReader> {
    let failed = |text: String| CliError::new(format!("unable to prepare context: unable to download remote context {address}: {text}"));
    let transport = |error: &dyn std::error::Error| {
        let mut cause = error;
        while let Some(next) = cause.source() {
            cause = next;
        }
        let text = cause.to_string();
        let text = text.split(" (os error").next().unwrap_or_default().to_lowercase();
        failed(format!("Get {}: {text}", sampan_gotext::quote(address)))
    };
    let client = reqwest::Client::builder().user_agent("sampan").build().map_err(|error| transport(&error))?;
    let mut response = client.get(address).send().await.map_err(|error| transport(&error))?;
    let status = response.status();
    if status.as_u16() >= 400 {
        let mut page = Vec::new();
        while let Ok(Some(bytes)) = response.chunk().await {
            page.extend_from_slice(&bytes);
            if page.len() > MOST_OF_PAGE {
                break;
            }
        }
        let page = clean_lines(String::from_utf8_lossy(&page).trim());
        return Err(failed(format!("failed to GET {address} with status {status}: {page}")));
    }
    let total = response.content_length();
    let (sender, frames) = mpsc::channel::<io::Result<Bytes>>(8);
    let shown = address.to_owned();
    tokio::spawn(async move {
        let mut done = 0_u64;
        loop {
            match response.chunk().await {
                Ok(Some(bytes)) => {
                    done += bytes.len() as u64;
                    if sender.send(Ok(bytes)).await.is_err() {
                        return;
                    }
                }
                Ok(None) => break,
                Err(error) => {
                    drop(sender.send(Err(io::Error::other(format!("the download broke off: {error}")))).await);
                    return;
                }
            }
        }
        if !quiet {
            say_downloaded(&shown, done, total);
        }
    });
    Ok(FrameReader::new(frames))
}

#[expect(clippy::cast_precision_loss, reason = "sizes for people")]
fn say_downloaded(address: &str, done: u64, total: Option<u64>) {
    let shown = size(done as f64);
    let counts = match total {
        Some(total) if total > 0 => format!("[{}>] {shown:>8}/{}", "=".repeat(50), size(total as f64)),
        _ => format!("{shown:>8}"),
    };
    let mut out = io::stdout().lock();
    drop(write!(out, "\nDownloading build context from remote url: {address} {counts}\r\r\n").and_then(|()| out.flush()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_repositories_are_taken_apart() {
        let parse = |text: &str| {
            Repository::parse(text)
                .map(|found| format!("{} {} {}", found.remote, found.reference, found.folder))
                .map_err(|error| error.text)
        };
        assert_eq!(parse("github.com/a/b").as_deref(), Ok("https://github.com/a/b  "));
        assert_eq!(parse("git@host:a/b.git#v1:sub/dir").as_deref(), Ok("git@host:a/b.git v1 sub/dir"));
        assert_eq!(parse("https://h/x.git#:sub").as_deref(), Ok("https://h/x.git  sub"));
        assert!(parse("https://h/x.git#--upload-pack=evil").unwrap_err().contains("invalid refspec"));
    }

    #[test]
    fn folders_of_a_repository_do_not_lead_out() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().canonicalize().unwrap();
        std::fs::create_dir_all(path.join("a/b")).unwrap();
        std::fs::write(path.join("f"), "").unwrap();
        std::os::unix::fs::symlink("/", path.join("out")).unwrap();
        assert_eq!(inside(&path, "a/b").unwrap(), path.join("a/b"));
        assert_eq!(inside(&path, "/a").unwrap(), path.join("a"));
        for bad in ["../..", "out", "out/tmp", "nosuch", "f"] {
            assert!(inside(&path, bad).is_err(), "{bad}");
        }
    }
}
