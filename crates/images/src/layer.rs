//! The exact archive of a layer, from whatever of it is kept.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use sampan_archive::{Decompress, Hashing};
use sampan_base::Cancel;
use sampan_layers::{PackMode, pack};
use sampan_oci::DiffId;

use crate::Images;

/// Pieces under way between the packing thread and its reader.
const DEPTH: usize = 4;
/// Bytes of one piece.
const PIECE: usize = 256 * 1024;

impl Images {
    /// The exact archive of a layer and its size: the kept one, the kept blob without its compression, or the tree packed anew.
    ///
    /// # Errors
    /// A layer that is not here, a failing disk; a tree that does not give the layer's digest any more fails at the end of the
    /// stream.
    pub fn layer_tar(&self, diff_id: &DiffId) -> io::Result<(Box<dyn Read + Send>, u64)> {
        let missing = || io::Error::new(io::ErrorKind::NotFound, format!("layer {diff_id} is missing"));
        let row = self.store().layer(diff_id).map_err(io::Error::other)?.ok_or_else(missing)?;
        let folder = self.store().layer_folder(&row);
        if let Some(tar) = open(&folder.join("tar"))? {
            let size = tar.metadata()?.len();
            return Ok((Box::new(tar), size));
        }
        if let Some(blob) = open(&folder.join("blob"))? {
            return Ok((Box::new(Decompress::new(blob)?), row.size));
        }
        let tree = File::open(folder.join("fs"))?;
        let (sender, pieces) = sync_channel(DEPTH);
        let wanted = diff_id.clone();
        std::thread::Builder::new().name("pack".into()).spawn(move || {
            let mut pieces = Hashing::new(Pieces { sender: sender.clone(), buffer: Vec::with_capacity(PIECE) });
            let packed = pack(tree.as_fd(), &mut pieces, PackMode::Upper, &Cancel::new());
            let (mut rest, digest, _) = pieces.finish();
            let done = packed.and_then(|_| io::Write::flush(&mut rest));
            let ended = match done {
                Ok(()) if digest == wanted.0 => return,
                Ok(()) => io::Error::new(io::ErrorKind::InvalidData, format!("the files of layer {wanted} are not as they came")),
                Err(error) => error,
            };
            // A reader that went away wants no reason.
            drop(sender.send(Err(ended)));
        })?;
        Ok((Box::new(Packed { pieces, present: Vec::new(), at: 0 }), row.size))
    }
}

fn open(path: &Path) -> io::Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// What is packed, in pieces.
struct Pieces {
    sender: SyncSender<io::Result<Vec<u8>>>,
    buffer: Vec<u8>,
}

impl io::Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= PIECE {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let full = std::mem::replace(&mut self.buffer, Vec::with_capacity(PIECE));
        self.sender.send(Ok(full)).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

/// The reader of what is packed.
struct Packed {
    pieces: Receiver<io::Result<Vec<u8>>>,
    present: Vec<u8>,
    at: usize,
}

impl Read for Packed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.present.len() {
            match self.pieces.recv() {
                Err(_) => return Ok(0),
                Ok(piece) => (self.present, self.at) = (piece?, 0),
            }
        }
        let count = buffer.len().min(self.present.len() - self.at);
        buffer[..count].copy_from_slice(&self.present[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::sync::Arc;

    use sampan_base::NoEvents;
    use sampan_oci::Digest;
    use sampan_store::{NewBlob, Store};

    use super::*;

    /// A data root with a layer of one file, kept in one of three ways.
    fn with_layer(kept: &str) -> (tempfile::TempDir, Images, DiffId, Vec<u8>) {
        let root = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open(root.path()).unwrap());
        let staged = store.staging().unwrap().join("layer");
        std::fs::create_dir_all(staged.join("fs")).unwrap();
        std::fs::write(staged.join("fs/name"), vec![7; 1_000_000]).unwrap();
        let mut tar = Vec::new();
        pack(File::open(staged.join("fs")).unwrap().as_fd(), &mut tar, PackMode::Upper, &Cancel::new()).unwrap();
        let diff_id = DiffId(Digest::sha256_of(&tar));
        let size = tar.len() as u64;
        match kept {
            "tar" => std::fs::write(staged.join("tar"), &tar).unwrap(),
            "blob" => {
                let mut encoder = flate2(&tar);
                std::fs::write(staged.join("blob"), std::mem::take(&mut encoder)).unwrap();
            }
            _ => {}
        }
        if kept == "blob" {
            let blob = NewBlob { digest: Digest::sha256_of(b"any"), media_type: "any".into(), size: 3 };
            store.publish_pulled_layer(&diff_id, &staged, (size, 1), &blob).unwrap();
            assert!(store.layer_blobs(&diff_id).unwrap()[0].kept);
        } else {
            store.publish_layer(&diff_id, &staged, size, 1).unwrap();
        }
        let images = Images::open(store, Arc::new(NoEvents));
        (root, images, diff_id, tar)
    }

    fn flate2(bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        sampan_archive::gzip_members(bytes, &mut out, 2).unwrap();
        out.flush().unwrap();
        out
    }

    #[test]
    fn the_archive_is_exact_whatever_is_kept() {
        for kept in ["tar", "blob", "neither"] {
            let (_root, images, diff_id, tar) = with_layer(kept);
            let (mut reader, size) = images.layer_tar(&diff_id).unwrap();
            let mut read = Vec::new();
            reader.read_to_end(&mut read).unwrap();
            assert_eq!((read == tar, size), (true, tar.len() as u64), "{kept}");
        }
    }

    #[test]
    fn a_changed_tree_is_noticed() {
        let (root, images, diff_id, _) = with_layer("neither");
        let layer = std::fs::read_dir(root.path().join("layers")).unwrap().next().unwrap().unwrap();
        std::fs::write(layer.path().join("fs/more"), b"x").unwrap();
        let (mut reader, _) = images.layer_tar(&diff_id).unwrap();
        assert!(reader.read_to_end(&mut Vec::new()).unwrap_err().to_string().contains("not as they came"));
        assert!(images.layer_tar(&DiffId(Digest::sha256_of(b"other"))).is_err());
    }
}
