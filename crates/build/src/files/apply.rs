//! Carries out the changes of a file operation in a root.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;

use sampan_base::Cancel;
use sampan_gotext::ignore::Ignore;
use sampan_layers::Quota;

use super::folder::Folder;
use super::select::{Selected, excludes};
use super::source::{Node, NodeKind, Source, join};
use super::target::{Content, NewFile, Owner, Target, place};
use super::unpack::{is_archive, unpack};
use crate::plan::{Copy, FileAction, Mode, Unpack};
use crate::run::BuildError;

/// An action with what its copy selects.
pub(crate) struct Applied<'a> {
    pub(crate) action: &'a FileAction,
    pub(crate) source: Option<&'a dyn Source>,
    pub(crate) selected: Vec<Selected>,
    /// A download: its files are 0600.
    pub(crate) download: bool,
}

/// Carries actions out, in order. `now` is the time of what is made here.
/// Archives unpack up to `quota`, each.
pub(crate) fn apply(target: &Target, actions: &[Applied<'_>], now: (i64, u32), quota: Quota, cancel: &Cancel) -> Result<(), BuildError> {
    let are_several = actions.iter().map(|one| if one.source.is_some() { one.selected.len() } else { 1 }).sum::<usize>() > 1;
    for one in actions {
        match one.action {
            FileAction::Mkdir { path, mode, owner } => {
                let owner = lookup(target, owner.as_deref())?;
                let fail = |error: io::Error| match error.raw_os_error() {
                    Some(20) => BuildError::invalid(format!("Cannot mkdir: {path} is not a directory")),
                    _ => BuildError::io(format!("make directory {path}"))(error),
                };
                target.directory(place(path.as_bytes()).0.as_slice(), 0o755, owner).map_err(fail)?;
                target.directory(path.trim_matches('/').as_bytes(), *mode, owner).map_err(fail)?;
            }
            FileAction::Write { path, .. }
                if are_several && !(path.ends_with('/') || target.is_directory(path.trim_matches('/').as_bytes())) =>
            {
                return Err(several(false));
            }
            FileAction::Write { path, name, mode, owner, content } => write(target, path, name, mode, owner.as_deref(), content, now)?,
            FileAction::Copy(copy) => {
                if let Some(source) = one.source {
                    Copier::new(target, source, copy, one.download, quota, cancel)?.run(&one.selected, are_several)?;
                }
            }
        }
    }
    Ok(())
}

/// Several files cannot have one name.
fn several(add: bool) -> BuildError {
    let verb = if add { "ADD" } else { "COPY" };
    BuildError::invalid(format!("When using {verb} with more than one source file, the destination must be a directory and end with a /"))
}

fn lookup(target: &Target, owner: Option<&str>) -> Result<Owner, BuildError> {
    owner.map_or(Ok((0, 0)), |wish| {
        target
            .owner(wish)
            .map_err(|reason| BuildError::invalid(format!("unable to convert uid/gid chown string to host mapping: {reason}")))
    })
}

fn write(
    target: &Target,
    path: &str,
    name: &str,
    mode: &Mode,
    owner: Option<&str>,
    content: &[u8],
    now: (i64, u32),
) -> Result<(), BuildError> {
    let owner = lookup(target, owner)?;
    let fail = |error| BuildError::io(format!("write {path}"))(error);
    let inside = path.ends_with('/') || target.is_directory(path.trim_matches('/').as_bytes());
    let (folder, name) =
        if inside { (path.trim_matches('/').as_bytes().to_vec(), name.as_bytes().to_vec()) } else { place(path.as_bytes()) };
    let parent_mode = if let Mode::Octal(mode) = mode { *mode } else { 0o755 };
    let folder = target.directory(&folder, parent_mode, owner).map_err(fail)?;
    let node = plain(NodeKind::File, now, content.len() as u64);
    let new = NewFile { node: &node, mode: changed(mode, &node), owner, hash: None };
    target.file(&folder, &name, &mut Content::Bytes(content), &new).map_err(fail)
}

fn plain(kind: NodeKind, mtime: (i64, u32), size: u64) -> Node {
    Node {
        path: Vec::new(),
        kind,
        mode: 0o644,
        uid: 0,
        gid: 0,
        size,
        mtime,
        link: Vec::new(),
        xattrs: Vec::new(),
        identity: None,
        device: 0,
    }
}

/// A node's mode after `--chmod`.
fn changed(mode: &Mode, node: &Node) -> u32 {
    match mode {
        Mode::Keep => node.mode,
        Mode::Octal(mode) => *mode,
        Mode::Symbolic(text) => symbolic(text, node.mode, node.kind == NodeKind::Directory),
    }
}

/// `u=rwX,go=rX`, as chmod(1) has it without a mask.
fn symbolic(text: &str, start: u32, directory: bool) -> u32 {
    let mut mode = start;
    for clause in text.split(',') {
        let at = clause.find(['+', '-', '=']).unwrap_or(clause.len());
        let (who, mut rest) = clause.split_at(at);
        let who = if who.is_empty() { "a" } else { who };
        let classes: Vec<u32> = who
            .chars()
            .flat_map(|class| match class {
                'u' => vec![6],
                'g' => vec![3],
                'o' => vec![0],
                _ => vec![6, 3, 0],
            })
            .collect();
        while let Some(sign) = rest.chars().next() {
            let body = &rest[1..];
            let end = body.find(['+', '-', '=']).unwrap_or(body.len());
            let rights = &body[..end];
            rest = &body[end..];
            for shift in &classes {
                let mut bits = 0;
                let mut special = 0;
                for right in rights.chars() {
                    match right {
                        'r' => bits |= 4,
                        'w' => bits |= 2,
                        'x' => bits |= 1,
                        'X' if directory || mode & 0o111 != 0 => bits |= 1,
                        's' if *shift == 6 => special |= 0o4000,
                        's' if *shift == 3 => special |= 0o2000,
                        't' => special |= 0o1000,
                        'u' => bits |= mode >> 6 & 7,
                        'g' => bits |= mode >> 3 & 7,
                        'o' => bits |= mode & 7,
                        _ => {}
                    }
                }
                let bits = bits << shift | special;
                match sign {
                    '+' => mode |= bits,
                    '-' => mode &= !bits,
                    _ => mode = mode & !(7 << shift) | bits,
                }
            }
        }
    }
    mode & 0o7777
}

/// One copy under way.
struct Copier<'a> {
    target: &'a Target,
    source: &'a dyn Source,
    copy: &'a Copy,
    owner: Option<Owner>,
    excludes: Ignore,
    download: bool,
    quota: Quota,
    cancel: &'a Cancel,
    /// First place of each file with several names.
    names: HashMap<(u64, u64), (OwnedFd, Vec<u8>)>,
}

/// A directory being filled.
struct Level {
    folder: Folder,
    pending: std::vec::IntoIter<Node>,
    /// Path below what was selected.
    below: Vec<u8>,
    /// Set at the end.
    mtime: (i64, u32),
}

impl<'a> Copier<'a> {
    fn new(
        target: &'a Target,
        source: &'a dyn Source,
        copy: &'a Copy,
        download: bool,
        quota: Quota,
        cancel: &'a Cancel,
    ) -> Result<Self, BuildError> {
        let owner = match &copy.owner {
            Some(wish) => Some(lookup(target, Some(wish))?),
            None => None,
        };
        Ok(Self { target, source, copy, owner, excludes: excludes(copy)?, download, quota, cancel, names: HashMap::new() })
    }

    fn fail(&self) -> impl Fn(io::Error) -> BuildError + use<'a> {
        let text = format!("{} failed: copy {}", if self.copy.add { "ADD" } else { "COPY" }, self.copy.source_as_written);
        move |error| BuildError::io(text.clone())(error)
    }

    fn owner_of(&self, node: &Node) -> Owner {
        self.owner.unwrap_or(if self.source.has_owners() { (node.uid, node.gid) } else { (0, 0) })
    }

    fn mode_of(&self, node: &Node) -> u32 {
        match &self.copy.mode {
            Mode::Keep if self.download => 0o600,
            mode => changed(mode, node),
        }
    }

    fn run(&mut self, selected: &[Selected], are_several: bool) -> Result<(), BuildError> {
        let fail = self.fail();
        let dest = self.copy.dest.trim_matches('/').as_bytes();
        let parent_owner = self.owner.unwrap_or((0, 0));
        for one in selected {
            let inside = self.copy.parents.is_some() || self.copy.dest_is_dir || self.target.is_directory(dest);
            let mut folder = dest.to_vec();
            if !one.parents.is_empty() {
                folder = join(&folder, &one.parents);
            }
            if one.node.kind == NodeKind::Directory {
                let into = if self.copy.parents.is_some() { join(&folder, &one.name) } else { folder };
                let into = into.strip_prefix(b"/").map_or(into.clone(), <[u8]>::to_vec);
                self.directory(&into, &one.node)?;
                continue;
            }
            if self.copy.unpack == Unpack::IfArchive && one.node.kind == NodeKind::File {
                let file = self.source.open(&one.node).map_err(&fail)?;
                if is_archive(&file) {
                    let place = self.target.directory(&folder, 0o755, parent_owner).map_err(&fail)?;
                    unpack(file, self.target.writable(&place).map_err(&fail)?, self.owner, self.quota, self.cancel)?;
                    continue;
                }
            }
            if are_several && !inside {
                return Err(several(self.copy.add));
            }
            let (folder, name) = if inside { (folder, one.name.clone()) } else { self.place_of(dest, one).map_err(&fail)? };
            let folder = self.target.directory(&folder, self.parent_mode(), parent_owner).map_err(&fail)?;
            self.single(&folder, &name, &one.node).map_err(&fail)?;
        }
        Ok(())
    }

    /// The mode of directories that are made on the way to a destination.
    fn parent_mode(&self) -> u32 {
        if let Mode::Octal(mode) = self.copy.mode { mode } else { 0o755 }
    }

    /// The folder and the name of a file that has a name of its own at the destination. What is there is written through links.
    fn place_of(&self, dest: &[u8], one: &Selected) -> io::Result<(Vec<u8>, Vec<u8>)> {
        let dest = if one.node.kind == NodeKind::File { self.target.followed(dest)? } else { dest.to_vec() };
        Ok(place(&dest))
    }

    /// Copies what is in a directory. The directory itself gives its time only: its mode and owner stay behind.
    fn directory(&mut self, into: &[u8], node: &Node) -> Result<(), BuildError> {
        let fail = self.fail();
        let folder = self.target.directory(into, self.parent_mode(), self.owner.unwrap_or((0, 0))).map_err(&fail)?;
        let children = self.source.children(node).map_err(&fail)?;
        let mut levels = vec![Level { folder, pending: children.into_iter(), below: Vec::new(), mtime: node.mtime }];
        while let Some(level) = levels.last_mut() {
            self.cancel.check().map_err(|_| BuildError::Cancelled)?;
            let Some(child) = level.pending.next() else {
                if let Some(made) = level.folder.made() {
                    rustix::fs::futimens(made, &super::target::times(level.mtime)).map_err(|error| fail(error.into()))?;
                }
                levels.pop();
                continue;
            };
            let below = join(&level.below, child.name());
            let shown = String::from_utf8_lossy(&below).into_owned();
            let ignored = !self.excludes.is_empty() && self.excludes.matches(&shown);
            if ignored && !(child.kind == NodeKind::Directory && self.excludes.may_include_below(&shown)) {
                continue;
            }
            let name = child.name().to_vec();
            if child.kind != NodeKind::Directory {
                self.single(&level.folder, &name, &child).map_err(&fail)?;
                continue;
            }
            let (mode, owner) = (self.mode_of(&child), self.owner_of(&child));
            let (folder, made) = self.target.enter(&level.folder, &name, &child, mode, owner).map_err(&fail)?;
            if !made {
                self.target.renew(&folder, &child, mode, owner).map_err(&fail)?;
            }
            let children = self.source.children(&child).map_err(&fail)?;
            levels.push(Level { folder, pending: children.into_iter(), below, mtime: child.mtime });
        }
        Ok(())
    }

    /// Copies what is no directory.
    fn single(&mut self, folder: &Folder, name: &[u8], node: &Node) -> io::Result<()> {
        let (owner, mode) = (self.owner_of(node), self.mode_of(node));
        if node.kind != NodeKind::File {
            return self.target.special(folder, name, node, mode, owner);
        }
        if let Some(first) = node.identity.and_then(|identity| self.names.get(&identity)) {
            return self.target.same((&first.0, &first.1), folder, name);
        }
        // Contexts know the hashes of their files; another stage's files would have to be read.
        let hash = if self.target.wants_hashes() && !self.source.has_owners() { Some(self.source.content(node)?) } else { None };
        let open = || self.source.open(node);
        self.target.file(folder, name, &mut Content::File(&open), &NewFile { node, mode, owner, hash })?;
        if let Some(identity) = node.identity
            && self.names.len() < 256
        {
            self.names.insert(identity, (self.target.writable(folder)?.try_clone()?, name.to_vec()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::symbolic;

    #[test]
    fn symbolic_modes() {
        for (text, start, directory, expected) in [
            ("u=rwX,go=rX", 0o600, true, 0o755),
            ("u=rwX,go=rX", 0o600, false, 0o644),
            ("a+x", 0o644, false, 0o755),
            ("go-rwx", 0o777, false, 0o700),
            ("u+s", 0o755, false, 0o4755),
            ("+t", 0o777, true, 0o1777),
            ("g=u", 0o740, false, 0o770),
        ] {
            assert_eq!(symbolic(text, start, directory), expected, "{text}");
        }
    }
}
