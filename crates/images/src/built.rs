//! Images that a build makes: an upper directory becomes a layer by rename, a configuration becomes an image.
//!
//! Nothing here waits for the disk but [`Images::finish_build`]: steps are made again where a power cut takes them.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd as _;
use std::path::Path;

use sampan_archive::Hashing;
use sampan_base::Cancel;
use sampan_layers::{PackMode, pack};
use sampan_oci::{DiffId, Digest, ImageConfig, ImageId, Reference};
use sampan_store::ImageRow;

use crate::{ImageError, Images, now_nanos};

/// A layer that was made of an upper directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuiltLayer {
    /// Which.
    pub diff_id: DiffId,
    /// Digest of its files without their times.
    pub tree: String,
    /// Bytes of its files.
    pub content: u64,
    /// The image that has it on top.
    pub image: ImageId,
}

impl Images {
    /// Makes a layer of an upper directory, `staged/fs`, and an image of the configuration that `complete` gives for the layer.
    ///
    /// # Errors
    /// [`ImageError`]; no image is left then.
    pub fn publish_upper(
        &self,
        staged: &Path,
        parent: Option<&ImageId>,
        complete: impl FnOnce(&DiffId) -> ImageConfig,
        cancel: &Cancel,
    ) -> Result<BuiltLayer, ImageError> {
        let upper = File::open(staged.join("fs")).map_err(ImageError::io("open the changes of a step"))?;
        let mut sink = io::BufWriter::with_capacity(256 * 1024, Hashing::new(TreeHash::new()));
        let packed = pack(upper.as_fd(), &mut sink, PackMode::Upper, cancel).map_err(|error| match error.kind() {
            io::ErrorKind::Interrupted => ImageError::Cancelled,
            _ => ImageError::io("read the changes of a step")(error),
        })?;
        let hashing = sink.into_inner().map_err(|error| ImageError::io("read the changes of a step")(error.into_error()))?;
        let (tree, digest, size) = hashing.finish();
        let diff_id = DiffId(digest);
        self.adding(|| {
            self.store()
                .publish_built_layer(&diff_id, staged, (size, packed.content))
                .map_err(ImageError::io(format!("publish layer {diff_id}")))?;
            let image = self.create(&complete(&diff_id), parent)?;
            Ok(BuiltLayer { diff_id: diff_id.clone(), tree: tree.finish(), content: packed.content, image })
        })
    }

    /// Whether a folder of changes holds what a layer holds; times do not count.
    ///
    /// # Errors
    /// [`ImageError`], also when the layer is not here.
    pub fn is_same_tree(&self, changes: &Path, layer: &DiffId, cancel: &Cancel) -> Result<bool, ImageError> {
        let row = self.store().layer(layer)?.ok_or_else(|| ImageError::MissingLayer(layer.to_string()))?;
        let tree = |folder: &Path| -> Result<String, ImageError> {
            let folder = File::open(folder).map_err(ImageError::io("open a layer"))?;
            let mut sink = io::BufWriter::with_capacity(256 * 1024, TreeHash::new());
            pack(folder.as_fd(), &mut sink, PackMode::Upper, cancel).map_err(|error| match error.kind() {
                io::ErrorKind::Interrupted => ImageError::Cancelled,
                _ => ImageError::io("read a layer")(error),
            })?;
            Ok(sink.into_inner().map_err(|error| ImageError::io("read a layer")(error.into_error()))?.finish())
        };
        Ok(tree(changes)? == tree(&self.store().layer_folder(&row).join("fs"))?)
    }

    /// Makes an image without a name of a configuration whose layers are here.
    ///
    /// # Errors
    /// [`ImageError`], also when a layer is not here.
    pub fn create(&self, config: &ImageConfig, parent: Option<&ImageId>) -> Result<ImageId, ImageError> {
        let bytes = config.print();
        let id = ImageId(Digest::sha256_of(&bytes));
        let mut size = 0;
        for layer in &config.rootfs.diff_ids {
            size += self.store().layer(layer)?.ok_or_else(|| ImageError::MissingLayer(layer.to_string()))?.content;
        }
        let row = ImageRow { id: id.clone(), config: bytes, size, tagged: now_nanos(), parent: parent.map(ToString::to_string) };
        let _change = self.begin();
        self.store().put_built_image(&row, &config.rootfs.diff_ids)?;
        Ok(id)
    }

    /// Makes what a build made durable, and gives it its names.
    ///
    /// # Errors
    /// [`ImageError`].
    pub fn finish_build(&self, image: &ImageId, names: &[Reference]) -> Result<(), ImageError> {
        self.store().settle_layers().map_err(ImageError::io("write the layers of a build"))?;
        self.store().mark_build_result(&image.to_string())?;
        for name in names {
            let _change = self.begin();
            self.store().put_tag(&name.to_string(), image)?;
            self.event("tag", &image.to_string(), &name.familiar());
        }
        self.event("create", &image.to_string(), &image.to_string());
        Ok(())
    }

    /// Images that are steps of builds and no build's end: lists leave them out.
    ///
    /// # Errors
    /// A failing database.
    pub fn build_steps(&self) -> Result<std::collections::HashSet<String>, ImageError> {
        let rows = self.store().build_results()?;
        let results: std::collections::HashSet<&str> = rows.iter().filter(|row| row.result).map(|row| row.image.as_str()).collect();
        Ok(rows.iter().filter(|row| !results.contains(row.image.as_str())).map(|row| row.image.clone()).collect())
    }
}

const BLOCK: usize = 512;

/// Hashes our own archives without the times in them.
struct TreeHash {
    hasher: blake3::Hasher,
    /// Bytes of the present block of a header or of extended records.
    held: Vec<u8>,
    /// How many bytes are to be held: a header, or records with their padding.
    wanted: usize,
    records: bool,
    /// Content that is left.
    content: u64,
}

impl TreeHash {
    fn new() -> Self {
        Self { hasher: blake3::Hasher::new(), held: Vec::new(), wanted: BLOCK, records: false, content: 0 }
    }

    fn finish(self) -> String {
        self.hasher.finalize().to_hex().to_string()
    }

    fn block(&mut self) {
        let held = std::mem::take(&mut self.held);
        self.wanted = BLOCK;
        if std::mem::take(&mut self.records) {
            let mut rest = held.as_slice();
            while let Some(record) = first_record(rest) {
                if !record.1.starts_with(b"mtime=") {
                    self.hasher.update(record.1);
                }
                rest = &rest[record.0..];
            }
            return;
        }
        let digits = std::str::from_utf8(&held[124..135]).unwrap_or_default();
        let size = u64::from_str_radix(digits.trim_matches(|c: char| c == '\0' || c == ' '), 8).unwrap_or(0);
        let padded = size.next_multiple_of(BLOCK as u64);
        if held[156] == b'x' {
            // Whether there are records must not tell of a time that is in them; neither must their size.
            self.records = size > 0;
            self.wanted = usize::try_from(padded).unwrap_or(BLOCK).max(1);
            return;
        }
        self.hasher.update(&held[..136]);
        self.hasher.update(&held[156..]);
        self.content = padded;
    }
}

/// The first of a run of PAX records: its whole length, and what stands behind its length.
fn first_record(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let blank = bytes.iter().take(20).position(|byte| *byte == b' ')?;
    let length: usize = std::str::from_utf8(&bytes[..blank]).ok()?.parse().ok()?;
    Some((length, bytes.get(blank + 1..length)?))
}

impl Write for TreeHash {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut rest = bytes;
        while !rest.is_empty() {
            if self.content > 0 {
                let count = usize::try_from(self.content).unwrap_or(usize::MAX).min(rest.len());
                self.hasher.update(&rest[..count]);
                self.content -= count as u64;
                rest = &rest[count..];
                continue;
            }
            let count = (self.wanted - self.held.len()).min(rest.len());
            self.held.extend_from_slice(&rest[..count]);
            rest = &rest[count..];
            if self.held.len() == self.wanted {
                self.block();
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use sampan_base::NoEvents;
    use sampan_store::Store;

    use super::*;

    fn tree(seconds: i64, content: &str) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a-name");
        std::fs::write(&path, content).unwrap();
        let time = std::time::UNIX_EPOCH + std::time::Duration::new(u64::try_from(seconds).unwrap(), 5);
        File::open(&path).unwrap().set_modified(time).unwrap();
        let mut sink = TreeHash::new();
        pack(File::open(folder.path()).unwrap().as_fd(), &mut sink, PackMode::Upper, &Cancel::new()).unwrap();
        sink.finish()
    }

    #[test]
    fn times_do_not_count_and_contents_do() {
        assert_eq!(tree(1_000, "x"), tree(2_000_000, "x"));
        assert_ne!(tree(1_000, "x"), tree(1_000, "y"));
        assert_ne!(tree(1_000, "x"), tree(1_000, "xx"));
    }

    #[test]
    fn an_upper_directory_becomes_a_layer_and_an_image() {
        let root = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open(root.path()).unwrap());
        let images = Images::open(Arc::clone(&store), Arc::new(NoEvents));
        let staged = store.staging().unwrap();
        std::fs::create_dir(staged.join("fs")).unwrap();
        std::fs::write(staged.join("fs/file"), "content").unwrap();
        let config = |layer: &DiffId| ImageConfig {
            rootfs: sampan_oci::RootFs { kind: "layers".into(), diff_ids: vec![layer.clone()] },
            os: "linux".into(),
            ..ImageConfig::default()
        };
        let built = images.publish_upper(&staged, None, config, &Cancel::new()).unwrap();
        let found = images.resolve(&built.image.to_string()).unwrap();
        assert_eq!(found.layers(), std::slice::from_ref(&built.diff_id));
        let name = Reference::parse_normalized("x/y:1").unwrap();
        images.finish_build(&built.image, &[name]).unwrap();
        assert_eq!(images.resolve("x/y:1").unwrap().id, built.image);
        let mut bytes = Vec::new();
        io::Read::read_to_end(&mut images.layer_tar(&built.diff_id).unwrap().0, &mut bytes).unwrap();
        assert_eq!(DiffId(Digest::sha256_of(&bytes)), built.diff_id);
        assert!(!staged.exists());
        drop((images, store));
        assert!(Store::open(root.path()).unwrap().layer(&built.diff_id).unwrap().is_some());
    }
}
