//! Root file systems and docker-archives made on the spot from a static busybox, byte for byte reproducible.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

/// The applets that get a link in /bin.
const APPLETS: &[&str] = &[
    "[",
    "ash",
    "awk",
    "basename",
    "cat",
    "chmod",
    "chown",
    "chroot",
    "cp",
    "cut",
    "date",
    "dd",
    "df",
    "dirname",
    "du",
    "echo",
    "env",
    "expr",
    "false",
    "find",
    "free",
    "grep",
    "gunzip",
    "gzip",
    "head",
    "hostname",
    "httpd",
    "id",
    "ifconfig",
    "ip",
    "kill",
    "killall",
    "ln",
    "ls",
    "md5sum",
    "mkdir",
    "mkfifo",
    "mknod",
    "more",
    "mount",
    "mv",
    "nc",
    "netstat",
    "nslookup",
    "ping",
    "printf",
    "ps",
    "pwd",
    "readlink",
    "rm",
    "rmdir",
    "route",
    "sed",
    "seq",
    "setsid",
    "sh",
    "sha256sum",
    "sleep",
    "sort",
    "stat",
    "stty",
    "sync",
    "tail",
    "tar",
    "tee",
    "telnet",
    "test",
    "time",
    "timeout",
    "top",
    "touch",
    "tr",
    "true",
    "tty",
    "umount",
    "uname",
    "uniq",
    "unlink",
    "uptime",
    "usleep",
    "vi",
    "wc",
    "wget",
    "which",
    "whoami",
    "xargs",
    "yes",
];

/// An archive being written, honest or not.
#[derive(Debug, Clone, Default)]
pub struct Tar {
    bytes: Vec<u8>,
}

impl Tar {
    /// An empty archive.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A directory.
    #[must_use]
    pub fn directory(self, name: &str, mode: u32) -> Self {
        self.entry(&header(name, b'5', mode, 0, ""), &[])
    }

    /// A regular file.
    #[must_use]
    pub fn file(self, name: &str, mode: u32, content: &[u8]) -> Self {
        self.entry(&header(name, b'0', mode, content.len(), ""), content)
    }

    /// A symbolic link.
    #[must_use]
    pub fn link(self, name: &str, target: &str) -> Self {
        self.entry(&header(name, b'2', 0o777, 0, target), &[])
    }

    /// A hard link.
    #[must_use]
    pub fn hard_link(self, name: &str, target: &str) -> Self {
        self.entry(&header(name, b'1', 0o644, 0, target), &[])
    }

    /// A special file: kind `3` (character device), `4` (block device) or `6` (pipe).
    #[must_use]
    pub fn special(self, name: &str, kind: u8, device: (u32, u32)) -> Self {
        let mut block = header(name, kind, 0o666, 0, "");
        block[329..337].copy_from_slice(format!("{:07o}\0", device.0).as_bytes());
        block[337..345].copy_from_slice(format!("{:07o}\0", device.1).as_bytes());
        self.entry(&sealed(block), &[])
    }

    /// An entry of any kind with extended records before it; `size` is what its header claims, in any form.
    #[must_use]
    pub fn liar(self, name: &str, kind: u8, records: &[(&str, &str)], size: &[u8; 12], content: &[u8]) -> Self {
        let mut out = self;
        if !records.is_empty() {
            let text: String = records.iter().map(|(key, value)| record(key, value)).collect();
            out = out.entry(&header("PaxHeaders/x", b'x', 0o644, text.len(), ""), text.as_bytes());
        }
        let mut block = header(name, kind, 0o644, 0, "");
        block[124..136].copy_from_slice(size);
        out.entry(&sealed(block), content)
    }

    fn entry(mut self, header: &[u8; 512], content: &[u8]) -> Self {
        self.bytes.extend_from_slice(header);
        self.bytes.extend_from_slice(content);
        self.bytes.resize(self.bytes.len().next_multiple_of(512), 0);
        self
    }

    /// The archive with its end marker.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        self.bytes.resize(self.bytes.len() + 1024, 0);
        self.bytes
    }

    /// The archive without its end marker.
    #[must_use]
    pub fn unfinished(self) -> Vec<u8> {
        self.bytes
    }
}

/// `length key=value\n`, whose length counts itself.
fn record(key: &str, value: &str) -> String {
    let rest = format!(" {key}={value}\n");
    let length = (1..9).map(|digits| rest.len() + digits).find(|length| length.to_string().len() + rest.len() == *length).unwrap_or(0);
    format!("{length}{rest}")
}

/// A root file system of a static busybox, to which entries can be added.
///
/// # Errors
/// When busybox cannot be read.
pub fn rootfs_tar(busybox: &Path) -> io::Result<Tar> {
    let passwd =
        b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/home:/bin/false\nuser:x:1000:1000:A user:/home/user:/bin/sh\n";
    let group = b"root:x:0:\nusers:x:100:user\nnogroup:x:65534:\nuser:x:1000:\n";
    let tar = Tar::new()
        .directory("bin/", 0o755)
        .file("bin/busybox", 0o755, &std::fs::read(busybox)?)
        .directory("dev/", 0o755)
        .directory("etc/", 0o755)
        .file("etc/group", 0o644, group)
        .file("etc/passwd", 0o644, passwd)
        .directory("home/", 0o755)
        .directory("home/user/", 0o755)
        .directory("root/", 0o700)
        .directory("tmp/", 0o1777)
        .directory("usr/", 0o755)
        .directory("usr/sbin/", 0o755)
        .directory("var/", 0o755);
    Ok(APPLETS.iter().fold(tar, |tar, name| tar.link(&format!("bin/{name}"), "busybox")))
}

/// A root file system of a static busybox as a tar archive.
///
/// # Errors
/// When busybox cannot be read.
pub fn rootfs(busybox: &Path) -> io::Result<Vec<u8>> {
    Ok(rootfs_tar(busybox)?.finish())
}

/// A docker-archive with one image of one layer, tagged `reference`.
///
/// # Errors
/// When busybox cannot be read.
pub fn docker_archive(busybox: &Path, reference: &str) -> io::Result<Vec<u8>> {
    Ok(archive_of(&[rootfs(busybox)?], reference, &serde_json::json!({})))
}

/// A docker-archive with one image of some layers, lowest first. `preset` replaces keys of the config's `config`.
#[must_use]
pub fn archive_of(layers: &[Vec<u8>], reference: &str, preset: &serde_json::Value) -> Vec<u8> {
    let ids: Vec<String> = layers.iter().map(|layer| sha256(layer)).collect();
    let documents = Documents::new(&ids, reference, "busybox of Debian's busybox-static", preset);
    let mut tar = Tar::new();
    for (id, layer) in ids.iter().zip(layers) {
        tar = tar.directory(&format!("{id}/"), 0o755).file(&format!("{id}/layer.tar"), 0o644, layer);
    }
    tar.file(&documents.config_name, 0o644, &documents.config).file("manifest.json", 0o644, &documents.manifest).finish()
}

/// Writes a docker-archive whose layers are files, lowest first, without holding them in memory.
///
/// # Errors
/// When a layer cannot be read or the archive not be written.
pub fn write_archive(path: &Path, layers: &[PathBuf], reference: &str, preset: &serde_json::Value) -> io::Result<()> {
    let ids: Vec<String> = layers.iter().map(|layer| sha256_of_file(layer)).collect::<io::Result<_>>()?;
    let documents = Documents::new(&ids, reference, "packages of Debian", preset);
    let unfinished = path.with_extension("unfinished");
    let mut out = io::BufWriter::new(std::fs::File::create(&unfinished)?);
    for (id, layer) in ids.iter().zip(layers) {
        let mut file = std::fs::File::open(layer)?;
        let size = usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
        out.write_all(&Tar::new().directory(&format!("{id}/"), 0o755).unfinished())?;
        out.write_all(&header(&format!("{id}/layer.tar"), b'0', 0o644, size, ""))?;
        io::copy(&mut file, &mut out)?;
        out.write_all(&[0; 512][..size.next_multiple_of(512) - size])?;
    }
    let rest = Tar::new().file(&documents.config_name, 0o644, &documents.config).file("manifest.json", 0o644, &documents.manifest);
    out.write_all(&rest.finish())?;
    out.into_inner().map_err(io::Error::other)?;
    std::fs::rename(unfinished, path)
}

/// The config and the manifest of a docker-archive.
struct Documents {
    config_name: String,
    config: Vec<u8>,
    manifest: Vec<u8>,
}

impl Documents {
    fn new(ids: &[String], reference: &str, made_of: &str, preset: &serde_json::Value) -> Self {
        let mut config = serde_json::json!({
            "architecture": "amd64",
            "config": {"Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"], "Cmd": ["sh"]},
            "created": "2024-09-26T21:31:42Z",
            "history": ids.iter().map(|_| serde_json::json!({"created": "2024-09-26T21:31:42Z", "created_by": made_of})).collect::<Vec<_>>(),
            "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": ids.iter().map(|id| format!("sha256:{id}")).collect::<Vec<_>>()},
        });
        for (key, value) in preset.as_object().into_iter().flatten() {
            config["config"][key] = value.clone();
        }
        let config = config.to_string().into_bytes();
        let config_name = format!("{}.json", sha256(&config));
        let names: Vec<String> = ids.iter().map(|id| format!("{id}/layer.tar")).collect();
        let manifest = serde_json::json!([{"Config": config_name, "RepoTags": [reference], "Layers": names}]).to_string().into_bytes();
        Self { config_name, config, manifest }
    }
}

/// Hex SHA-256 of some bytes.
#[must_use]
pub fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// Hex SHA-256 of a file.
///
/// # Errors
/// When it cannot be read.
pub fn sha256_of_file(path: &Path) -> io::Result<String> {
    let mut hash = Sha256::new();
    let (mut file, mut buffer) = (std::fs::File::open(path)?, vec![0; 1 << 20]);
    loop {
        match io::Read::read(&mut file, &mut buffer)? {
            0 => return Ok(hex::encode(hash.finalize())),
            count => hash.update(&buffer[..count]),
        }
    }
}

fn header(name: &str, kind: u8, mode: u32, size: usize, target: &str) -> [u8; 512] {
    let mut block = [0_u8; 512];
    let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, name.as_bytes());
    put(100, format!("{mode:07o}\0").as_bytes());
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    put(124, format!("{size:011o}\0").as_bytes());
    put(136, format!("{:011o}\0", 1_727_386_302).as_bytes());
    put(148, b"        ");
    put(156, &[kind]);
    put(157, target.as_bytes());
    put(257, b"ustar\x0000");
    sealed(block)
}

/// The header with its checksum.
fn sealed(mut block: [u8; 512]) -> [u8; 512] {
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

/// Writes bytes to a file, making its folder.
///
/// # Errors
/// When the file cannot be written.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::File::create(path)?.write_all(bytes)
}
