//! The files of an image, from the archive that `save` gives: its layers on top of each other, as one tar archive.
//!
//! Two passes: the first reads what every layer adds and takes away, the second copies what is left. Directories come first, parents
//! before children; then files in the order of their layers.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use sampan_archive::Decompress;
use sampan_archive::tar::{Header, Kind, Reader, Writer};

use crate::error::{CliError, Outcome};

/// Largest manifest of an archive.
const LARGEST_MANIFEST: u64 = 16 << 20;
const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

/// What a path is in the end: its header, and the entry whose content it has (layer, number in it).
#[derive(Debug)]
struct Node {
    header: Header,
    content: (usize, usize),
}

/// A path and its header.
type Named = (Vec<u8>, Header);
type Tree = BTreeMap<Vec<u8>, Node>;

fn broken(error: impl std::fmt::Display) -> CliError {
    CliError::new(format!("the engine's archive of the image cannot be read: {error}"))
}

/// Puts the members of an archive into a folder, and gives the layers of its first image, lowest first.
///
/// # Errors
/// A broken archive, a full disk.
pub(super) fn unpack(archive: impl Read, folder: &Path) -> Outcome<Vec<PathBuf>> {
    let mut reader = Reader::new(archive);
    let mut members: HashMap<Vec<u8>, PathBuf> = HashMap::new();
    while let Some(header) = reader.next_entry().map_err(broken)? {
        let path = folder.join(members.len().to_string());
        match header.kind {
            Kind::File => {
                io::copy(&mut reader, &mut File::create(&path)?)?;
                members.insert(header.path, path);
            }
            // An older form names a layer twice.
            Kind::Symlink => {
                let base = header.path.iter().rposition(|byte| *byte == b'/').map_or(&b""[..], |end| &header.path[..end]);
                let target = resolve(base, &header.link);
                if let Some(known) = members.get(&target).cloned() {
                    members.insert(header.path, known);
                }
            }
            _ => {}
        }
    }
    let manifest = members.get(&b"manifest.json"[..]).ok_or_else(|| broken("it has no manifest.json"))?;
    let mut text = Vec::new();
    File::open(manifest)?.take(LARGEST_MANIFEST).read_to_end(&mut text)?;
    let manifest: serde_json::Value = serde_json::from_slice(&text).map_err(broken)?;
    let layers = manifest.pointer("/0/Layers").and_then(serde_json::Value::as_array).cloned().unwrap_or_default();
    let layer = |name: &serde_json::Value| {
        let name = name.as_str().unwrap_or_default();
        members.get(name.as_bytes()).cloned().ok_or_else(|| broken(format!("it has no {name}")))
    };
    layers.iter().map(layer).collect()
}

/// A relative link of a member, followed by its text.
fn resolve(base: &[u8], link: &[u8]) -> Vec<u8> {
    let mut parts: Vec<&[u8]> = base.split(|byte| *byte == b'/').filter(|part| !part.is_empty()).collect();
    for part in link.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => drop(parts.pop()),
            other => parts.push(other),
        }
    }
    parts.join(&b'/')
}

/// Writes one archive of what the layers are together.
///
/// # Errors
/// A broken layer, a reader that went away.
pub(super) fn flatten(layers: &[PathBuf], out: impl Write) -> Outcome<()> {
    let mut tree = Tree::new();
    for (number, layer) in layers.iter().enumerate() {
        add(&mut tree, number, layer)?;
    }
    let mut writer = Writer::new(BufWriter::new(out));
    // Paths of each content, in their order.
    let mut wanted: HashMap<(usize, usize), Vec<Named>> = HashMap::new();
    for (path, node) in tree {
        if node.header.kind == Kind::Directory {
            writer.append(&Header { path, ..node.header }, &mut io::empty())?;
        } else {
            wanted.entry(node.content).or_default().push((path, node.header));
        }
    }
    for (number, layer) in layers.iter().enumerate() {
        let mut reader = open(layer)?;
        let mut entry = 0;
        while reader.next_entry().map_err(broken)?.is_some() {
            let names = wanted.remove(&(number, entry)).unwrap_or_default();
            entry += 1;
            let Some((first, header)) = names.first() else { continue };
            writer.append(&Header { path: first.clone(), ..header.clone() }, &mut reader)?;
            for (path, header) in &names[1..] {
                let link = Header { kind: Kind::Hardlink, size: 0, link: first.clone(), path: path.clone(), ..header.clone() };
                writer.append(&link, &mut io::empty())?;
            }
        }
    }
    Ok(writer.finish()?.flush()?)
}

fn open(layer: &Path) -> Outcome<Reader<impl Read + use<>>> {
    Ok(Reader::new(Decompress::new(BufReader::new(File::open(layer)?)).map_err(broken)?))
}

/// What a layer adds and takes away.
fn add(tree: &mut Tree, number: usize, layer: &Path) -> Outcome<()> {
    let mut reader = open(layer)?;
    let mut entry = 0;
    while let Some(header) = reader.next_entry().map_err(broken)? {
        let content = (number, entry);
        entry += 1;
        let path = resolve(b"", &header.path);
        if path.is_empty() {
            continue;
        }
        let cut = path.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
        let (folder, name) = path.split_at(cut);
        if name == OPAQUE {
            below(tree, folder, number);
        } else if let Some(hidden) = name.strip_prefix(WHITEOUT) {
            let mut target = folder.to_vec();
            target.extend_from_slice(hidden);
            if tree.get(&target).is_some_and(|node| node.content.0 < number) {
                tree.remove(&target);
            }
            target.push(b'/');
            below(tree, &target, number);
        } else {
            put(tree, path, header, content);
        }
    }
    Ok(())
}

/// Takes away what lower layers have below a folder, whose path ends in a slash.
fn below(tree: &mut Tree, folder: &[u8], layer: usize) {
    let inside = tree.range(folder.to_vec()..).take_while(|(path, _)| path.starts_with(folder));
    let gone: Vec<Vec<u8>> = inside.filter(|(_, node)| node.content.0 < layer).map(|(path, _)| path.clone()).collect();
    for path in gone {
        tree.remove(&path);
    }
}

fn put(tree: &mut Tree, path: Vec<u8>, header: Header, content: (usize, usize)) {
    let node = if header.kind == Kind::Hardlink {
        // Another name of what is there: the same content.
        let Some(target) = tree.get(&resolve(b"", &header.link)) else { return };
        Node { header: target.header.clone(), content: target.content }
    } else {
        Node { header, content }
    };
    if node.header.kind != Kind::Directory && tree.get(&path).is_some_and(|old| old.header.kind == Kind::Directory) {
        let mut folder = path.clone();
        folder.push(b'/');
        below(tree, &folder, content.0 + 1);
    }
    tree.insert(path, node);
}

/// Copies an archive without the members that an OCI layout does not have.
///
/// # Errors
/// A broken archive, a reader that went away.
pub(super) fn layout(archive: impl Read, out: impl Write) -> Outcome<()> {
    let mut reader = Reader::new(archive);
    let mut writer = Writer::new(BufWriter::new(out));
    let mut marked = false;
    while let Some(header) = reader.next_entry().map_err(broken)? {
        let top = header.path.split(|byte| *byte == b'/').next().unwrap_or_default();
        marked |= top == b"oci-layout";
        if matches!(top, b"oci-layout" | b"index.json" | b"blobs") && matches!(header.kind, Kind::File | Kind::Directory) {
            writer.append(&header, &mut reader)?;
        }
    }
    if !marked {
        return Err(CliError::unsupported("--output type=oci", "this engine does not save OCI layouts"));
    }
    Ok(writer.finish()?.flush()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Layers in a small notation: `d/` a folder, `f=text` a file, `h>f` a hard link.
    fn layer(folder: &Path, number: usize, entries: &[&str]) -> PathBuf {
        let path = folder.join(format!("layer{number}"));
        let mut writer = Writer::new(File::create(&path).unwrap());
        for entry in entries {
            if let Some(name) = entry.strip_suffix('/') {
                writer.append(&Header::new(Kind::Directory, name), &mut io::empty()).unwrap();
            } else if let Some((name, target)) = entry.split_once('>') {
                writer.append(&Header { link: target.into(), ..Header::new(Kind::Hardlink, name) }, &mut io::empty()).unwrap();
            } else {
                let (name, text) = entry.split_once('=').unwrap_or((entry, ""));
                let header = Header { size: text.len() as u64, ..Header::new(Kind::File, name) };
                writer.append(&header, &mut text.as_bytes()).unwrap();
            }
        }
        writer.finish().unwrap();
        path
    }

    fn flat(layers: &[&[&str]]) -> String {
        let folder = tempfile::tempdir().unwrap();
        let layers: Vec<PathBuf> = layers.iter().enumerate().map(|(number, entries)| layer(folder.path(), number, entries)).collect();
        let mut out = Vec::new();
        flatten(&layers, &mut out).unwrap();
        let mut reader = Reader::new(&out[..]);
        let mut shown = Vec::new();
        while let Some(header) = reader.next_entry().unwrap() {
            let mut text = String::new();
            reader.read_to_string(&mut text).unwrap();
            let name = String::from_utf8(header.path).unwrap();
            shown.push(match header.kind {
                Kind::Directory => format!("{name}/"),
                Kind::Hardlink => format!("{name}>{}", String::from_utf8(header.link).unwrap()),
                _ => format!("{name}={text}"),
            });
        }
        shown.join(" ")
    }

    #[test]
    fn upper_layers_change_lower_ones() {
        assert_eq!(flat(&[&["a/", "a/x=1", "b=2"], &["a/x=3", "c="]]), "a/ b=2 a/x=3 c=");
        // Removed: a file, a folder with all that is in it, all of a folder but what is new.
        assert_eq!(flat(&[&["a/", "a/x=1", "a/y=1", "b/", "b/z=1"], &["a/.wh.x", ".wh.b"]]), "a/ a/y=1");
        assert_eq!(flat(&[&["a/", "a/x=1"], &["a/", "a/new=2", "a/.wh..wh..opq"]]), "a/ a/new=2");
        // A folder becomes a file, a file a folder; names that begin alike stay.
        assert_eq!(flat(&[&["a/", "a/x=1", "a.b=1", "f=1"], &["a=2", "f/", "f/y=3"]]), "f/ a.b=1 a=2 f/y=3");
    }

    #[test]
    fn hard_links_keep_their_content_whatever_happens_to_the_first_name() {
        assert_eq!(flat(&[&["a=1", "b>a"]]), "a=1 b>a");
        assert_eq!(flat(&[&["a=1", "b>a"], &["a=2"]]), "b=1 a=2");
        assert_eq!(flat(&[&["a=1", "b>a"], &[".wh.a"]]), "b=1");
    }

    #[test]
    fn names_that_lead_out_stay_inside() {
        assert_eq!(flat(&[&["../../e=1", "./d/", "/r=2"]]), "d/ e=1 r=2");
        assert_eq!(resolve(b"x", b"../layer/../y.tar"), b"y.tar");
    }
}
