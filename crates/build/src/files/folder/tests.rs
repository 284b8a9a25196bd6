//! Tests of a layer's folder as a target: links, parents, what is in the way.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;

use super::super::source::{Node, NodeKind};
use super::super::target::{Content, NewFile, Target};
use super::*;

struct Layers {
    folder: tempfile::TempDir,
    target: Target,
}

/// `/a/b` (0750, 1970), `/file`, `/link` to `/a/b`, `/up` to one that leads out, `/gone` to nothing.
fn layers() -> Layers {
    let folder = tempfile::tempdir().unwrap();
    let (upper, lower) = (folder.path().join("upper"), folder.path().join("lower"));
    fs::create_dir(&upper).unwrap();
    fs::create_dir_all(lower.join("a/b")).unwrap();
    fs::create_dir(lower.join("a/b/inner")).unwrap();
    fs::write(lower.join("file"), "below").unwrap();
    symlink("/a/b", lower.join("link")).unwrap();
    symlink("../../../../a", lower.join("up")).unwrap();
    symlink("nothing", lower.join("gone")).unwrap();
    symlink("loop", lower.join("loop")).unwrap();
    fs::set_permissions(lower.join("a/b"), fs::Permissions::from_mode(0o750)).unwrap();
    let old = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1000);
    for name in ["a/b", "a"] {
        fs::File::open(lower.join(name)).unwrap().set_modified(old).unwrap();
    }
    let merged = Merged::new(dir::open(&upper).unwrap(), dir::open(&lower).unwrap());
    Layers { target: Target::merged(merged, None), folder }
}

fn node(kind: NodeKind) -> Node {
    Node {
        path: b"x".to_vec(),
        kind,
        mode: 0o640,
        uid: 0,
        gid: 0,
        size: 3,
        mtime: (5, 0),
        link: Vec::new(),
        xattrs: Vec::new(),
        identity: None,
        device: 0,
    }
}

impl Layers {
    fn upper(&self, path: &str) -> std::path::PathBuf {
        self.folder.path().join("upper").join(path)
    }

    fn owner() -> (u32, u32) {
        let own = fs::metadata(Path::new("/proc/self")).unwrap();
        (own.uid(), own.gid())
    }

    fn write(&self, folder: &Folder, name: &str) -> io::Result<()> {
        let new = NewFile { node: &node(NodeKind::File), mode: 0o640, owner: Self::owner(), hash: None };
        self.target.file(folder, name.as_bytes(), &mut Content::Bytes(b"new"), &new)
    }

    fn directory(&self, path: &str) -> io::Result<Folder> {
        self.target.directory(path.as_bytes(), 0o755, Self::owner())
    }
}

#[test]
fn what_is_written_into_comes_up_with_its_attributes_and_nothing_else_does() {
    let layers = layers();
    let folder = layers.directory("up/b").unwrap();
    assert_eq!(folder.path, b"a/b");
    assert!(!layers.upper("a").exists(), "it was only looked at");
    layers.write(&folder, "f").unwrap();
    let (a, b) = (fs::metadata(layers.upper("a")).unwrap(), fs::metadata(layers.upper("a/b")).unwrap());
    assert_eq!((a.mtime(), b.mode() & 0o7777), (1000, 0o750));
    assert!(b.mtime() > 1000, "something was made in it");
    assert_eq!(fs::read(layers.upper("a/b/f")).unwrap(), b"new");
    let made = layers.directory("link/x/y").unwrap();
    assert_eq!(made.path, b"a/b/x/y");
    assert!(layers.upper("a/b/x/y").is_dir() && !layers.upper("a/b/inner").exists());
    // What was made is found again, through links too.
    layers.write(&layers.directory("link/x").unwrap(), "g").unwrap();
    assert!(layers.upper("a/b/x/g").is_file());
}

#[test]
fn kinds_do_not_replace_each_other() {
    let layers = layers();
    let root = layers.directory("").unwrap();
    layers.write(&root, "file").unwrap();
    assert_eq!(fs::read(layers.upper("file")).unwrap(), b"new");
    layers.write(&root, "link").unwrap();
    assert!(layers.upper("link").symlink_metadata().unwrap().is_file(), "a link is replaced and not followed");
    let told = layers.write(&root, "a").unwrap_err().to_string();
    assert_eq!(told, "cannot copy to a directory that is there");
    let enter = |name: &str| layers.target.enter(&root, name.as_bytes(), &node(NodeKind::Directory), 0o700, Layers::owner());
    assert_eq!(enter("file").unwrap_err().to_string(), "cannot copy a directory over something that is none");
    assert_eq!(enter("up").unwrap_err().to_string(), "cannot copy a directory over something that is none");
    let (inner, made) = enter("a").unwrap();
    assert!(!made && inner.path == b"a");
    assert!(!layers.upper("a").exists());
    assert!(enter("fresh").unwrap().1 && layers.upper("fresh").is_dir());
    assert!(!enter("fresh").unwrap().1);
}

#[test]
fn links_stay_inside_and_end() {
    let layers = layers();
    assert!(layers.target.is_directory(b"up/b/inner") && layers.target.is_directory(b"/link/../b"));
    assert!(!layers.target.is_directory(b"file") && !layers.target.is_directory(b"loop"));
    assert!(layers.directory("loop/x").is_err() && layers.directory("file/x").is_err());
    // What a link names and is not there is made where it leads.
    assert_eq!(layers.directory("gone/x").unwrap().path, b"nothing/x");
}
