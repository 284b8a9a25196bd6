//! Repositories that `ADD` or a context names, fetched by the host's `git` into a folder that goes with the build.
//!
//! What a repository says is a stranger's: no hooks, no helper programs, no configuration of this machine, no questions, no local
//! paths. Over ssh nothing is fetched, as the engine has no keys of a user.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use sampan_base::Cancel;

use super::error::BuildError;
use crate::plan::Git;

/// How often it is looked whether somebody still wants it.
const LOOK: std::time::Duration = std::time::Duration::from_millis(20);
/// Most that is kept of what git says.
const MOST_SAID: usize = 4096;

/// A checkout; it goes when this goes.
#[derive(Debug)]
pub(crate) struct Checkout {
    folder: PathBuf,
    /// What was asked for: the folder in the repository.
    pub(crate) root: PathBuf,
    /// The commit.
    pub(crate) commit: String,
}

impl Drop for Checkout {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.folder) {
            tracing::warn!(%error, folder = %self.folder.display(), "cannot remove a fetched repository");
        }
    }
}

/// Fetches a repository into a new folder.
///
/// # Errors
/// [`BuildError`] with what git said.
pub(crate) fn fetch(git: &Git, folder: PathBuf, cancel: &Cancel) -> Result<Checkout, BuildError> {
    let shown = sampan_base::sanitize(&git.remote);
    if !git.remote.starts_with("http://") && !git.remote.starts_with("https://") && !git.remote.starts_with("git://") {
        return Err(BuildError::unsupported(&format!("the repository {shown} (repositories are fetched over https, http and git only)")));
    }
    std::fs::create_dir_all(&folder).map_err(BuildError::io("make a folder for a repository"))?;
    let mut checkout = Checkout { root: folder.clone(), folder, commit: String::new() };
    let failed = |text: String| match cancel.check() {
        Ok(()) => BuildError::invalid(format!("failed to fetch remote {shown}: {}", sampan_base::sanitize(&text))),
        Err(_) => BuildError::Cancelled,
    };
    let place = checkout.folder.clone();
    let run = |words: &[&str]| run(&place, words, cancel);
    let reference = if git.reference.is_empty() { "HEAD" } else { &git.reference };
    if reference.starts_with('-') {
        return Err(failed(format!("invalid refspec: {reference}")));
    }
    run(&["init", "--quiet", "--template="]).map_err(failed)?;
    let fetch = |words: &[&str]| run(&[&["fetch", "--quiet"], words, &["--", &git.remote, reference]].concat());
    match fetch(&["--depth=1", "--no-tags"]) {
        // Servers that only serve files cannot cut the history off.
        Err(text) if text.contains("dumb http transport does not support shallow") => fetch(&["--no-tags"]),
        other => other,
    }
    .map_err(failed)?;
    checkout.commit = run(&["rev-parse", "FETCH_HEAD^{commit}"]).map_err(failed)?.trim().to_owned();
    if let Some(wanted) = git.checksum.as_ref().filter(|wanted| !checkout.commit.starts_with(wanted.as_str())) {
        let commit = &checkout.commit;
        return Err(BuildError::invalid(format!("expected checksum to match {wanted}, got {commit}")));
    }
    run(&["checkout", "--quiet", "--detach", "FETCH_HEAD"]).map_err(failed)?;
    run(&["submodule", "--quiet", "update", "--init", "--recursive", "--depth=1"]).map_err(failed)?;
    if !git.keep_git_dir {
        let _gone_already = std::fs::remove_dir_all(checkout.folder.join(".git"));
    }
    checkout.root = inside(&checkout.folder, &git.subdir).map_err(|_| failed(format!("subdir not found: {}", git.subdir)))?;
    Ok(checkout)
}

/// A folder of a checkout; neither `..` nor a link leads out.
fn inside(root: &Path, below: &str) -> io::Result<PathBuf> {
    let (root, found) = (root.canonicalize()?, root.join(below.trim_start_matches('/')).canonicalize()?);
    if found.starts_with(&root) && found.is_dir() { Ok(found) } else { Err(io::ErrorKind::NotFound.into()) }
}

/// Runs git to its end, or until nobody wants it any more. Gives its output; an error is what it said.
#[expect(clippy::disallowed_methods, reason = "the named exception for git contexts")]
fn run(folder: &Path, words: &[&str], cancel: &Cancel) -> Result<String, String> {
    use std::os::unix::process::CommandExt as _;
    let mut command = Command::new("git");
    command
        .args(["-c", "protocol.allow=never", "-c", "protocol.https.allow=always", "-c", "protocol.http.allow=always"])
        .args(["-c", "protocol.git.allow=always", "-c", "core.hooksPath=/dev/null", "-c", "credential.helper="])
        .args(words)
        .current_dir(folder)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("GIT_ASKPASS", "true")
        .env("GIT_PROTOCOL_FROM_USER", "0")
        .env("HOME", "/nonexistent")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // Its helpers end with it.
        .process_group(0);
    let mut child = command.spawn().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => "exec: \"git\": executable file not found in $PATH".to_owned(),
        _ => error.to_string(),
    })?;
    let read = |stream: Option<Box<dyn io::Read + Send>>| {
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            if let Some(mut stream) = stream {
                drop(io::Read::read_to_end(&mut io::Read::take(&mut stream, MOST_SAID as u64), &mut bytes));
                drop(io::copy(&mut stream, &mut io::sink()));
            }
            String::from_utf8_lossy(&bytes).into_owned()
        })
    };
    let (out, error) =
        (read(child.stdout.take().map(|stream| Box::new(stream) as _)), read(child.stderr.take().map(|stream| Box::new(stream) as _)));
    let status = loop {
        match child.try_wait().map_err(|error| error.to_string())? {
            Some(status) => break status,
            None if cancel.wait_timeout(LOOK) => {
                let group = rustix::process::Pid::from_child(&child);
                let _gone_already = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
                drop(child.wait());
                return Err("cancelled".to_owned());
            }
            None => {}
        }
    };
    let (out, error) = (out.join().unwrap_or_default(), error.join().unwrap_or_default());
    if status.success() { Ok(out) } else { Err(format!("{}: exit status {}", error.trim(), status.code().unwrap_or(-1))) }
}
