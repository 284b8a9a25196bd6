//! Which files of a source an instruction means, and the digest of them: names, attributes and contents, no times.

use std::io;

use sampan_base::Cancel;
use sampan_gotext::ignore::Ignore;
use sampan_gotext::pattern;

use super::source::{Node, NodeKind, Source, join, split};
use crate::plan::Copy;
use crate::run::BuildError;

/// Deepest path that is walked.
const DEEPEST: usize = 4096;

/// A file or directory that was selected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Selected {
    pub(crate) node: Node,
    /// With `--parents`: the directories that are kept.
    pub(crate) parents: Vec<u8>,
    /// The name that it keeps in a directory.
    pub(crate) name: Vec<u8>,
}

fn trimmed(path: &str) -> &[u8] {
    path.trim_matches('/').as_bytes()
}

/// The directories that `--parents` keeps of a path, which begins with the source's own directory.
fn kept_parents(copy: &Copy, path: &[u8]) -> Vec<u8> {
    if copy.parents.is_none() {
        return Vec::new();
    }
    let base = trimmed(&copy.source);
    let below = path.strip_prefix(base).unwrap_or(path);
    split(below.strip_prefix(b"/").unwrap_or(below)).0.to_vec()
}

/// Finds what a copy means.
pub(crate) fn select(source: &dyn Source, copy: &Copy, cancel: &Cancel) -> Result<Vec<Selected>, BuildError> {
    let whole = match &copy.parents {
        Some(below) => format!("{}/{below}", copy.source.trim_end_matches('/')),
        None => copy.source.clone(),
    };
    let path = trimmed(&whole);
    let fail = |error: io::Error| BuildError::io(format!("read {}", copy.source_as_written))(error);
    if !pattern::has_meta(&whole) {
        let node = source.find(path, true).map_err(fail)?.ok_or_else(|| BuildError::missing(copy, path, source.has_owners()))?;
        let found = Selected { parents: kept_parents(copy, path), name: split(path).1.to_vec(), node };
        return Ok(vec![found]);
    }
    let text = String::from_utf8_lossy(path).into_owned();
    let plain: Vec<&str> = text.split('/').take_while(|part| !pattern::has_meta(part)).collect();
    let base = plain.join("/");
    let Some(start) = source.find(base.as_bytes(), true).map_err(fail)? else { return Ok(Vec::new()) };
    let deep = text.contains("**").then(|| Ignore::new(std::slice::from_ref(&text))).transpose().ok().flatten();
    let depth = text.split('/').count();
    let mut out = Vec::new();
    let mut pending = vec![(start, base.into_bytes())];
    while let Some((folder, at)) = pending.pop() {
        cancel.check().map_err(|_| BuildError::Cancelled)?;
        if folder.kind != NodeKind::Directory || at.len() > DEEPEST {
            continue;
        }
        for node in source.children(&folder).map_err(fail)? {
            let path = join(&at, node.name());
            let shown = String::from_utf8_lossy(&path).into_owned();
            let fits = match &deep {
                Some(deep) => deep.matches(&shown),
                None => pattern::matches(&text, &shown).map_err(|_| BuildError::invalid("syntax error in pattern"))?,
            };
            if fits {
                out.push(Selected { parents: kept_parents(copy, &path), name: node.name().to_vec(), node });
            } else if deep.is_some() || shown.split('/').count() < depth {
                pending.push((node, path));
            }
        }
    }
    out.sort_by(|left, right| left.node.path.cmp(&right.node.path));
    // As a path without wildcards, each one is what it leads to.
    for one in out.iter_mut().filter(|one| copy.parents.is_none() && one.node.kind == NodeKind::Symlink) {
        let missing = || BuildError::missing(copy, &one.node.path, source.has_owners());
        one.node = source.find(&one.node.path, true).map_err(fail)?.ok_or_else(missing)?;
    }
    Ok(out)
}

/// The patterns that keep files back.
pub(crate) fn excludes(copy: &Copy) -> Result<Ignore, BuildError> {
    Ignore::new(&copy.excludes).map_err(|error| BuildError::invalid(error.to_string()))
}

/// Hashes what was selected.
pub(crate) fn digest(source: &dyn Source, copy: &Copy, selected: &[Selected], cancel: &Cancel) -> Result<[u8; 32], BuildError> {
    let excludes = excludes(copy)?;
    let mut hasher = blake3::Hasher::new();
    let fail = |error: io::Error| BuildError::io(format!("read {}", copy.source_as_written))(error);
    for one in selected {
        // A directory's own name is of no matter: its contents are copied.
        let name: &[u8] = if one.node.kind == NodeKind::Directory && copy.parents.is_none() { b"" } else { &one.name };
        field(&mut hasher, &one.parents);
        field(&mut hasher, name);
        let mut pending = vec![(one.node.clone(), Vec::new())];
        while let Some((node, below)) = pending.pop() {
            cancel.check().map_err(|_| BuildError::Cancelled)?;
            let shown = if below.is_empty() { one.name.clone() } else { below.clone() };
            let is_directory = node.kind == NodeKind::Directory;
            let text = String::from_utf8_lossy(&shown);
            let is_start = below.is_empty() && is_directory;
            if !is_start && excludes.matches(&text) && !(is_directory && excludes.may_include_below(&text)) {
                continue;
            }
            field(&mut hasher, &below);
            attributes(&mut hasher, source, &node);
            match node.kind {
                NodeKind::File => {
                    hasher.update(&source.content(&node).map_err(fail)?);
                }
                NodeKind::Directory => {
                    if below.len() > DEEPEST {
                        return Err(BuildError::invalid("a path of the source is longer than 4096 bytes"));
                    }
                    pending.extend(source.children(&node).map_err(fail)?.into_iter().rev().map(|child| {
                        let below = join(&below, child.name());
                        (child, below)
                    }));
                }
                NodeKind::Symlink => field(&mut hasher, &node.link),
                NodeKind::Fifo | NodeKind::Device => {}
            }
        }
    }
    Ok(*hasher.finalize().as_bytes())
}

fn field(hasher: &mut blake3::Hasher, bytes: &[u8]) {
    hasher.update(&(bytes.len() as u64).to_le_bytes());
    hasher.update(bytes);
}

fn attributes(hasher: &mut blake3::Hasher, source: &dyn Source, node: &Node) {
    let kind: u8 = match node.kind {
        NodeKind::File => 1,
        NodeKind::Directory => 2,
        NodeKind::Symlink => 3,
        NodeKind::Fifo => 4,
        NodeKind::Device => 5,
    };
    hasher.update(&[kind]);
    if node.kind != NodeKind::Symlink {
        hasher.update(&node.mode.to_le_bytes());
    }
    if source.has_owners() {
        hasher.update(&node.uid.to_le_bytes());
        hasher.update(&node.gid.to_le_bytes());
    }
    hasher.update(&node.device.to_le_bytes());
    for (name, value) in &node.xattrs {
        field(hasher, name.as_bytes());
        field(hasher, value);
    }
}
