//! A build's context and its Dockerfile: opened, read, and what `.dockerignore` names left out.

use std::sync::Arc;

use sampan_archive::Decompress;
use sampan_base::Cancel;
use sampan_gotext::ignore::Ignore;

use super::builder::Builder;
use super::download::RemoteContext;
use super::error::BuildError;
use super::request::ContextInput;
use crate::files::{HostTree, MemoryTree, Source, read_tar};
use crate::plan;

/// Longest Dockerfile.
pub(crate) const LONGEST: u64 = 64 << 20;

/// A context, the same as a folder of the host where it is one, and its Dockerfile.
pub(super) type OpenedContext = (Arc<dyn Source>, Option<Arc<HostTree>>, Vec<u8>);

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
                RemoteContext::Dockerfile(text) => Ok((Arc::new(MemoryTree::empty(Arc::clone(&self.mirror))), None, text)),
            },
            ContextInput::Tar(stream) => {
                let stream = Decompress::new(stream).map_err(|error| BuildError::context(&error))?;
                let mut tree = read_tar(stream, Arc::clone(&self.mirror), cancel)?;
                let text = read_dockerfile(&tree, name)?;
                if let Some(ignore) = read_ignore(&tree, name, wish)? {
                    // The client left the others out, and sends these two all the same.
                    tree.remove_matching(&ignore, &[".dockerignore", name]);
                }
                Ok((Arc::new(tree), None, text))
            }
            ContextInput::Folder(folder, reader) => {
                let fail = || BuildError::io("open the build context");
                let indexes = self.folder.join("indexes");
                std::fs::create_dir_all(&indexes).map_err(fail())?;
                let tree = HostTree::open(folder, reader, &indexes).map_err(fail())?;
                let text = read_dockerfile(&tree, name)?;
                let ignore = read_ignore(&tree, name, wish)?.unwrap_or_default();
                let tree = Arc::new(tree.with_ignore(ignore));
                Ok((Arc::clone(&tree) as _, Some(tree), text))
            }
        }
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
