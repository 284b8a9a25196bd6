//! File operations: what they read, their keys, and their changes of a root.

use std::path::Path;
use std::sync::Arc;

use super::build::Run;
use super::chain::Link;
use super::error::BuildError;
use super::key::{Parts, hash};
use crate::files::{Applied, Earlier, Merged, NodeKind, Record, Selected, Source, Target, TreeSource, apply, digest, quota, select};
use crate::plan::{Copy, File, FileAction, Http, Op, OpId, Unpack};

/// A source that is open, and the digest of the tree that it shows where that is known without reading it.
#[derive(Clone)]
pub(crate) struct Opened {
    pub(crate) source: Arc<dyn Source>,
    pub(crate) tree: Option<String>,
    pub(crate) download: bool,
}

type Get<'a> = &'a dyn Fn(usize) -> Option<Link>;

impl Run<'_> {
    /// The tree of a source that another step or an image has; `None` for contexts.
    fn tree_of(&self, from: Option<OpId>, get: Get<'_>) -> Result<Option<Link>, BuildError> {
        let Some(op) = from else { return Ok(Some(Link::scratch(Arc::default()))) };
        if let Some(link) = self.makers.get(&op).and_then(|step| get(*step)) {
            return Ok(Some(link));
        }
        match self.graph.ops.get(op.0) {
            Some(Op::Image { image, .. }) => Ok(Some(self.image_link(&image.id)?)),
            Some(Op::Scratch) => Ok(Some(Link::scratch(Arc::default()))),
            _ => Ok(None),
        }
    }

    /// Opens a source.
    pub(crate) fn source(&self, from: Option<OpId>, get: Get<'_>) -> Result<Opened, BuildError> {
        if let Some(link) = self.tree_of(from, get)? {
            let lowers = self.builder.lowers(&link.layers)?;
            let root = self.builder.sandboxes.mount_root(&lowers, None).map_err(BuildError::io("mount the files of another stage"))?;
            return Ok(Opened { source: Arc::new(TreeSource::new(root)), tree: Some(link.tree), download: false });
        }
        from.and_then(|op| self.graph.ops.get(op.0))
            .map_or_else(|| Err(BuildError::invalid("a source that makes no files")), |op| self.source_of(op))
    }

    /// Opens a source that no step makes.
    fn source_of(&self, op: &Op) -> Result<Opened, BuildError> {
        match op {
            Op::Context { name } if name.is_empty() => {
                let context = self.context.clone().ok_or_else(|| BuildError::invalid("there is no build context"))?;
                Ok(Opened { source: context, tree: None, download: false })
            }
            Op::Context { name } => Err(BuildError::unsupported(&format!("the named context {name} (with BuildKit's protocol)"))),
            Op::Http(http) => self.download(http),
            Op::Git(git) => self.repository(git),
            _ => Err(BuildError::invalid("a source that makes no files")),
        }
    }

    /// What a file operation's result depends on, without a look into other stages; and whether that look could tell more.
    pub(crate) fn file_parts(&self, file: &File, link: &Link, get: Get<'_>) -> Result<(Parts, bool), BuildError> {
        let mut parts = self.parts(link).with("instruction", describe(&file.actions));
        let mut loose = false;
        for (number, copy) in copies(&file.actions).enumerate() {
            let name = format!("files of {}{}", copy.source_as_written, if number == 0 { String::new() } else { format!(" ({number})") });
            if let Some(source) = self.tree_of(copy.from, get)? {
                parts = parts.with(&name, source.tree);
                loose = true;
            } else if let Some(op @ Op::Git(_)) = copy.from.and_then(|op| self.graph.ops.get(op.0)) {
                // Its commit says what it holds.
                parts = parts.with(&name, self.source_of(op)?.tree.unwrap_or_default());
            } else if let Some(Op::Http(Http { checksum: Some(checksum), .. })) = copy.from.and_then(|op| self.graph.ops.get(op.0)) {
                // What it must be is known without a look at it.
                parts = parts.with(&name, checksum.to_string());
            } else {
                parts = parts.with(&name, self.selected(copy, get)?.1);
            }
        }
        Ok((parts, loose))
    }

    /// The same with the contents of what is copied from other stages.
    pub(crate) fn content_parts(&self, file: &File, link: &Link, get: Get<'_>) -> Result<Parts, BuildError> {
        let mut parts = self.parts(link).with("instruction", describe(&file.actions)).with("by", "content");
        for (number, copy) in copies(&file.actions).enumerate() {
            let name = format!("files of {}{}", copy.source_as_written, if number == 0 { String::new() } else { format!(" ({number})") });
            parts = parts.with(&name, self.selected(copy, get)?.1);
        }
        Ok(parts)
    }

    fn selected(&self, copy: &Copy, get: Get<'_>) -> Result<(Vec<Selected>, String), BuildError> {
        let opened = self.source(copy.from, get)?;
        let selected = select(&*opened.source, copy, &self.cancel)?;
        let digest = digest(&*opened.source, copy, &selected, &self.cancel)?;
        Ok((selected, hex::encode(digest)))
    }

    /// Writes what a file operation changes into `upper` of a staged folder. What it copied is given back.
    pub(crate) fn apply_file(
        &self,
        file: &File,
        link: &Link,
        folder: &Path,
        earlier: Option<Earlier>,
        get: Get<'_>,
    ) -> Result<Record, BuildError> {
        let opened = copies(&file.actions).map(|copy| self.source(copy.from, get)).collect::<Result<Vec<_>, _>>()?;
        let mut sources = opened.iter();
        let mut applied = Vec::new();
        let mut found = 0;
        let mut wanted = 0;
        for action in &file.actions {
            let mut one = Applied { action, source: None, selected: Vec::new(), download: false };
            if let FileAction::Copy(copy) = action
                && let Some(opened) = sources.next()
            {
                one.selected = select(&*opened.source, copy, &self.cancel)?;
                one.source = Some(&*opened.source);
                one.download = opened.download;
                wanted += 1;
                found += one.selected.len();
            }
            applied.push(one);
        }
        if wanted > 0 && found == 0 && applied.len() == wanted {
            let verb = if copies(&file.actions).any(|copy| copy.add) { "ADD" } else { "COPY" };
            return Err(BuildError::invalid(format!("{verb} failed: no source files were specified")));
        }
        let unpacks = |one: &Applied<'_>| {
            let wanted = matches!(one.action, FileAction::Copy(copy) if copy.unpack != Unpack::Never);
            wanted && one.selected.iter().any(|selected| selected.node.kind == NodeKind::File)
        };
        let target = self.target(link, folder, earlier, applied.iter().any(unpacks))?;
        apply(&target, &applied, self.now(), quota(&self.builder.folder), &self.cancel)?;
        Ok(target.into_record())
    }

    /// The root of a step. What an archive does to one is overlay's own business.
    fn target(&self, link: &Link, folder: &Path, earlier: Option<Earlier>, unpacks: bool) -> Result<Target, BuildError> {
        let lowers = self.builder.lowers(&link.layers)?;
        let mount = |folder| self.builder.sandboxes.mount_root(&lowers, folder).map_err(BuildError::io("mount the root of a step"));
        if unpacks {
            return Ok(Target::plain(mount(Some(folder))?));
        }
        let upper = sampan_sys::dir::open(&folder.join("upper")).map_err(BuildError::io("open the folder of a step"))?;
        Ok(Target::merged(Merged::new(upper, mount(None)?), earlier))
    }
}

pub(crate) fn copies(actions: &[FileAction]) -> impl Iterator<Item = &Copy> {
    actions.iter().filter_map(|action| if let FileAction::Copy(copy) = action { Some(&**copy) } else { None })
}

/// Actions without the numbers of their sources.
fn describe(actions: &[FileAction]) -> String {
    let one = |action: &FileAction| match action {
        FileAction::Copy(copy) => format!("{:?}", Copy { from: None, source_as_written: String::new(), ..Copy::clone(copy) }),
        FileAction::Write { content, .. } => {
            format!("{action:?}").replace(&format!("{content:?}"), &hex::encode(blake3::hash(content).as_bytes()))
        }
        FileAction::Mkdir { .. } => format!("{action:?}"),
    };
    hash(&actions.iter().map(one).collect::<Vec<_>>().join("\n"))
}
