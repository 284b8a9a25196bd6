//! Which context and which Dockerfile a command line means, with Docker's rules and texts. It reads the small files (Dockerfiles from
//! elsewhere, ignore files) and resolves links; the context's files are read by `context`, remote ones fetched by `fetch`.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};

use sampan_gotext::ignore::{self, Ignore};

use super::context::{Added, Selection};
use crate::error::{CliError, Outcome, errno_text};

/// Largest Dockerfile and ignore file.
pub(super) const LARGEST_TEXT: u64 = 16 << 20;
/// The name of a Dockerfile that nobody named.
pub(super) const DEFAULT: &str = "Dockerfile";

/// Where a context is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Stdin,
    Directory,
    Git,
    Http,
}

impl Place {
    /// # Errors
    /// Docker's texts.
    pub(super) fn of(context: &str, dockerfile: &str) -> Outcome<Self> {
        if context == "-" {
            if dockerfile == "-" {
                return Err(CliError::new("invalid argument: can't use stdin for both build context and dockerfile"));
            }
            return Ok(Self::Stdin);
        }
        // What exists is local, whatever it looks like.
        if !context.is_empty() && Path::new(context).metadata().is_ok() {
            return Ok(Self::Directory);
        }
        if is_git(context) {
            return Ok(Self::Git);
        }
        if is_http(context) {
            return Ok(Self::Http);
        }
        Err(CliError::new(format!("unable to prepare context: path {} not found", sampan_gotext::quote(context))))
    }
}

fn is_http(text: &str) -> bool {
    text.starts_with("http://") || text.starts_with("https://")
}

/// Docker's notion of a git address.
fn is_git(text: &str) -> bool {
    let before = text.split_once('#').map_or(text, |(before, _)| before);
    let names_git = before.ends_with(".git") && !text.ends_with('#');
    (is_http(text) && names_git) || ["git://", "github.com/", "git@"].iter().any(|start| text.starts_with(start))
}

/// A directory with its Dockerfile.
#[derive(Debug)]
pub(super) struct Local {
    pub(super) root: PathBuf,
    dockerfile: Dockerfile,
    /// The ignore file of this Dockerfile alone: it wins over `.dockerignore`.
    own_ignore: Option<Vec<u8>>,
}

#[derive(Debug)]
enum Dockerfile {
    /// In the context, by its path there.
    Inside(String),
    /// The text of one from elsewhere.
    Outside(Vec<u8>),
}

impl Local {
    /// Finds the Dockerfile of a directory. `stdin` is the text that was read for `-f -`.
    ///
    /// # Errors
    /// Docker's texts.
    pub(super) fn find(context: &Path, dockerfile: &str, stdin: Option<Vec<u8>>) -> Outcome<Self> {
        let prepare = |text: String| CliError::new(format!("unable to prepare context: {text}"));
        let root =
            eval_symlinks(&absolute(context)?).map_err(|text| prepare(format!("unable to evaluate symlinks in context path: {text}")))?;
        if !root.is_dir() {
            return Err(prepare(format!("context must be a directory: {}", root.display())));
        }
        if let Some(text) = stdin {
            return Ok(Self { root, dockerfile: Dockerfile::Outside(text), own_ignore: None });
        }
        let path = if dockerfile.is_empty() {
            let found = root.join(DEFAULT);
            let lower = root.join("dockerfile");
            let missing = found.symlink_metadata().is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
            if missing && lower.symlink_metadata().is_ok() { lower } else { found }
        } else {
            absolute(Path::new(dockerfile))?
        };
        let found = eval_symlinks(&path).map_err(|text| prepare(format!("unable to evaluate symlinks in Dockerfile path: {text}")))?;
        let own_ignore = read_some(&beside(&found)).or(read_some(&beside(&path)));
        let dockerfile = match found.strip_prefix(&root) {
            Ok(inside) => Dockerfile::Inside(inside.to_string_lossy().into_owned()),
            Err(_) => {
                let shown = if dockerfile.is_empty() { found.display().to_string() } else { dockerfile.to_owned() };
                let file = File::open(&found).map_err(|error| {
                    CliError::new(format!("unable to prepare context: unable to open Dockerfile: open {shown}: {}", errno_text(&error)))
                })?;
                Dockerfile::Outside(read_text(file, &shown)?)
            }
        };
        Ok(Self { root, dockerfile, own_ignore })
    }

    /// The Dockerfile's path in the context; `None` for one from elsewhere.
    pub(super) fn inside(&self) -> Option<&str> {
        match &self.dockerfile {
            Dockerfile::Inside(path) => Some(path),
            Dockerfile::Outside(_) => None,
        }
    }

    /// How the context is sent: the Dockerfile's name in it, and which files.
    ///
    /// # Errors
    /// An ignore file that cannot be used.
    pub(super) fn sent(self, random: &str) -> Outcome<(String, Selection)> {
        let own = self.own_ignore.is_some();
        let mut patterns = match &self.own_ignore {
            Some(text) => ignore::read(&String::from_utf8_lossy(text)),
            None => read_ignore(&self.root)?,
        };
        let rules = compile(&patterns)?;
        let generated = format!(".dockerfile.{random}");
        let Self { root, dockerfile, .. } = self;
        let (name, added) = match dockerfile {
            Dockerfile::Outside(content) => (generated.clone(), Some(Added { name: generated, content })),
            // Engines know `.dockerignore` alone. What the Dockerfile's own ignore file hides from the build goes along under a name
            // that is hidden in the way they know.
            Dockerfile::Inside(path) if own && (rules.matches(&path) || rules.matches(".dockerignore")) => {
                let shown = root.join(&path);
                let file = File::open(&shown).map_err(|error| CliError::file("open", shown.display(), &error))?;
                let content = read_text(file, &shown.display().to_string())?;
                (generated.clone(), Some(Added { name: generated, content }))
            }
            Dockerfile::Inside(path) => (path, None),
        };
        if !own {
            // The engine needs both, whatever the patterns say, and takes them away itself.
            if rules.matches(".dockerignore") {
                patterns.push("!.dockerignore".to_owned());
            }
            if added.is_none() && rules.matches(&name) {
                patterns.push(format!("!{name}"));
            }
        }
        let ignore = compile(&patterns)?;
        Ok((name, Selection { root, ignore, added }))
    }
}

fn absolute(path: &Path) -> Outcome<PathBuf> {
    Ok(crate::create::mounts::clean(&std::env::current_dir()?.join(path)).into())
}

fn compile(patterns: &[String]) -> Outcome<Ignore> {
    Ignore::new(patterns).map_err(|error| CliError::new(format!("checking context: {error}")))
}

/// `DIR/NAME.dockerignore`.
fn beside(dockerfile: &Path) -> PathBuf {
    let mut name = dockerfile.as_os_str().to_owned();
    name.push(".dockerignore");
    name.into()
}

fn read_some(path: &Path) -> Option<Vec<u8>> {
    let file = File::open(path).ok()?;
    let regular = file.metadata().is_ok_and(|facts| facts.is_file());
    if regular { read_text(file, "").ok() } else { None }
}

fn read_ignore(root: &Path) -> Outcome<Vec<String>> {
    let path = root.join(".dockerignore");
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(CliError::file("open", path.display(), &error)),
    };
    let text = read_text(file, &path.display().to_string())
        .map_err(|error| CliError::new(format!("error reading .dockerignore: {}", error.text)))?;
    Ok(ignore::read(&String::from_utf8_lossy(&text)))
}

/// A small file, whole.
///
/// # Errors
/// `read NAME: is a directory`; one that is too large.
pub(super) fn read_text(source: impl Read, shown: &str) -> Outcome<Vec<u8>> {
    let mut text = Vec::new();
    source.take(LARGEST_TEXT + 1).read_to_end(&mut text).map_err(|error| CliError::file("read", shown, &error))?;
    if text.len() as u64 > LARGEST_TEXT {
        return Err(CliError::new(format!("read {shown}: larger than {} MiB", LARGEST_TEXT >> 20)));
    }
    Ok(text)
}

/// Go's `filepath.EvalSymlinks` of an absolute path, with its texts.
///
/// # Errors
/// `lstat PATH: no such file or directory`, of the first part that is missing.
pub(super) fn eval_symlinks(path: &Path) -> Result<PathBuf, String> {
    let mut done = PathBuf::from("/");
    let mut left: Vec<PathBuf> = parts(path);
    let mut links = 0;
    while let Some(part) = left.pop() {
        if part == Path::new("..") {
            done.pop();
            continue;
        }
        done.push(&part);
        let facts = done.symlink_metadata().map_err(|error| format!("lstat {}: {}", done.display(), errno_text(&error)))?;
        if facts.is_symlink() {
            links += 1;
            if links > 255 {
                return Err("EvalSymlinks: too many links".to_owned());
            }
            let target = std::fs::read_link(&done).map_err(|error| format!("readlink {}: {}", done.display(), errno_text(&error)))?;
            done.pop();
            if target.is_absolute() {
                done = PathBuf::from("/");
            }
            left.extend(parts(&target));
        } else if !facts.is_dir() && !left.is_empty() {
            return Err("not a directory".to_owned());
        }
    }
    Ok(done)
}

/// The parts of a path, the last first.
fn parts(path: &Path) -> Vec<PathBuf> {
    let mut parts: Vec<PathBuf> = path
        .components()
        .filter_map(|part| match part {
            Component::Normal(name) => Some(name.into()),
            Component::ParentDir => Some("..".into()),
            _ => None,
        })
        .collect();
    parts.reverse();
    parts
}

/// Twenty hexadecimal digits for a name that nobody has.
///
/// # Errors
/// A system without random numbers.
pub(super) fn random_name(bytes: usize) -> Outcome<String> {
    let mut buffer = vec![0_u8; bytes];
    let mut filled = 0;
    while filled < buffer.len() {
        filled += rustix::rand::getrandom(&mut buffer[filled..], rustix::rand::GetRandomFlags::empty()).map_err(io::Error::from)?;
    }
    Ok(hex::encode(buffer))
}
