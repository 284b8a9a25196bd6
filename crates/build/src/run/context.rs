//! A build's context and its Dockerfile: opened, read, and what `.dockerignore` names left out.

use std::io::Read;
use std::sync::{Arc, PoisonError};

use sampan_archive::Decompress;
use sampan_base::Cancel;
use sampan_gotext::ignore::Ignore;
use sampan_sys::user::Reader;

use super::builder::Builder;
use super::download::RemoteContext;
use super::error::BuildError;
use super::git::Checkout;
use super::request::ContextInput;
use crate::files::{HostTree, Limited, MOST_BYTES, MemoryTree, Source, quota, read_tar};
use crate::plan;

/// Longest Dockerfile.
pub(crate) const LONGEST: u64 = 64 << 20;

/// A context and its Dockerfile.
pub(super) struct OpenedContext {
    pub(super) tree: Arc<dyn Source>,
    /// The same as a folder of the host, where it is one.
    pub(super) host: Option<Arc<HostTree>>,
    /// The Dockerfile.
    pub(super) text: Vec<u8>,
    /// Where the folder goes with the build.
    pub(super) checkout: Option<Checkout>,
}

impl OpenedContext {
    fn memory(tree: MemoryTree, text: Vec<u8>) -> Self {
        Self { tree: Arc::new(tree), host: None, text, checkout: None }
    }
}

impl Builder {
    /// Opens a context and reads its Dockerfile.
    pub(super) fn open_context(
        &self,
        context: ContextInput<'_>,
        name: &str,
        wish: &mut plan::Request,
        cancel: &Cancel,
    ) -> Result<OpenedContext, BuildError> {
        match context {
            ContextInput::Remote(address) => match self.fetch_context(&address, cancel)? {
                RemoteContext::Tar(stream) => self.open_context(ContextInput::Tar(stream), name, wish, cancel),
                RemoteContext::Checkout(checkout) => {
                    let folder = sampan_sys::dir::open(&checkout.root).map_err(BuildError::io("open a fetched repository"))?;
                    let opened = self.open_context(ContextInput::Folder(folder, Reader::new(0, 0, Vec::new())), name, wish, cancel)?;
                    // It never comes again: nothing of it is worth to be known.
                    Ok(OpenedContext { checkout: Some(checkout), host: None, ..opened })
                }
                RemoteContext::Dockerfile(text) => Ok(OpenedContext::memory(MemoryTree::empty(Arc::clone(&self.mirror)), text)),
            },
            ContextInput::Tar(stream) => {
                let stream = Decompress::new(stream).map_err(|error| BuildError::context(&error))?;
                let mut tree = self.read_archive(Limited::new(stream, MOST_BYTES), cancel)?;
                let text = read_dockerfile(&tree, name)?;
                if let Some(ignore) = read_ignore(&tree, name, wish)? {
                    // The client left the others out, and sends these two all the same.
                    tree.remove_matching(&ignore, &[".dockerignore", name]);
                }
                Ok(OpenedContext::memory(tree, text))
            }
            ContextInput::Folder(folder, reader) => {
                let fail = || BuildError::io("open the build context");
                let indexes = self.folder.join("indexes");
                std::fs::create_dir_all(&indexes).map_err(fail())?;
                let tree = HostTree::open(folder, reader, &indexes).map_err(fail())?;
                let text = read_dockerfile(&tree, name)?;
                let ignore = read_ignore(&tree, name, wish)?.unwrap_or_default();
                let tree = Arc::new(tree.with_ignore(ignore));
                Ok(OpenedContext { tree: Arc::clone(&tree) as _, host: Some(tree), text, checkout: None })
            }
        }
    }

    /// Reads an archive into the mirror. One that fails leaves nothing there.
    fn read_archive(&self, stream: impl Read, cancel: &Cancel) -> Result<MemoryTree, BuildError> {
        let mut fresh = Vec::new();
        let read = read_tar(stream, Arc::clone(&self.mirror), quota(&self.folder), &mut fresh, cancel);
        if read.is_err() {
            let active = self.active.lock().unwrap_or_else(PoisonError::into_inner);
            // Another build may need them by now.
            if active.len() <= 1 {
                self.mirror.forget(&fresh);
            }
        }
        read
    }
}

/// The Dockerfile's text.
fn read_dockerfile(tree: &dyn Source, name: &str) -> Result<Vec<u8>, BuildError> {
    let read = |name: &str| tree.read(name, LONGEST).map_err(BuildError::io("read the Dockerfile"));
    let missing = || BuildError::invalid(format!("Cannot locate specified Dockerfile: {name}"));
    let found = match read(name)? {
        None if name == "Dockerfile" => read("dockerfile")?,
        other => other,
    };
    let text = found.ok_or_else(missing)?;
    if text.is_empty() {
        return Err(BuildError::invalid(format!("the Dockerfile ({name}) cannot be empty")));
    }
    Ok(text)
}

/// The patterns of `.dockerignore`; the Dockerfile's own file of that name wins.
fn read_ignore(tree: &dyn Source, name: &str, wish: &mut plan::Request) -> Result<Option<Ignore>, BuildError> {
    let read = |path: &str| tree.read(path, LONGEST).map_err(BuildError::io("read .dockerignore"));
    let own = read(&format!("{name}.dockerignore"))?;
    let Some(text) = (if own.is_some() { own } else { read(".dockerignore")? }) else { return Ok(None) };
    let patterns = sampan_gotext::ignore::read(&String::from_utf8_lossy(&text));
    let ignore = Ignore::new(&patterns).map_err(|error| BuildError::invalid(error.to_string()))?;
    wish.ignore_patterns = patterns;
    Ok(Some(ignore))
}
