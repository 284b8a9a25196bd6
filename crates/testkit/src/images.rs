//! Root file systems and docker-archives made on the spot from a static busybox, byte for byte reproducible.

use std::io::{self, Write as _};
use std::path::Path;

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

/// One entry of an archive made here.
enum Item<'a> {
    Directory(&'a str, u32),
    File(&'a str, u32, Vec<u8>),
    Link(String, &'a str),
}

/// A root file system of a static busybox as a tar archive.
///
/// # Errors
/// When busybox cannot be read.
pub fn rootfs(busybox: &Path) -> io::Result<Vec<u8>> {
    let passwd =
        b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/home:/bin/false\nuser:x:1000:1000:A user:/home/user:/bin/sh\n";
    let group = b"root:x:0:\nusers:x:100:user\nnogroup:x:65534:\nuser:x:1000:\n";
    let mut items = vec![
        Item::Directory("bin/", 0o755),
        Item::File("bin/busybox", 0o755, std::fs::read(busybox)?),
        Item::Directory("dev/", 0o755),
        Item::Directory("etc/", 0o755),
        Item::File("etc/group", 0o644, group.to_vec()),
        Item::File("etc/passwd", 0o644, passwd.to_vec()),
        Item::Directory("home/", 0o755),
        Item::Directory("home/user/", 0o755),
        Item::Directory("root/", 0o700),
        Item::Directory("tmp/", 0o1777),
        Item::Directory("usr/", 0o755),
        Item::Directory("usr/sbin/", 0o755),
        Item::Directory("var/", 0o755),
    ];
    items.extend(APPLETS.iter().map(|name| Item::Link(format!("bin/{name}"), "busybox")));
    Ok(archive(&items))
}

/// A docker-archive with one image of one layer, tagged `reference`.
///
/// # Errors
/// When busybox cannot be read.
pub fn docker_archive(busybox: &Path, reference: &str) -> io::Result<Vec<u8>> {
    let layer = rootfs(busybox)?;
    let diff_id = sha256(&layer);
    let config = serde_json::json!({
        "architecture": "amd64",
        "config": {"Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"], "Cmd": ["sh"]},
        "created": "2024-09-26T21:31:42Z",
        "history": [{"created": "2024-09-26T21:31:42Z", "created_by": "busybox of Debian's busybox-static"}],
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{diff_id}")]},
    });
    let config = serde_json::to_vec(&config)?;
    let config_name = format!("{}.json", sha256(&config));
    let layer_name = format!("{diff_id}/layer.tar");
    let manifest = serde_json::to_vec(&serde_json::json!([{"Config": config_name, "RepoTags": [reference], "Layers": [layer_name]}]))?;
    let folder = format!("{diff_id}/");
    Ok(archive(&[
        Item::Directory(&folder, 0o755),
        Item::File(&layer_name, 0o644, layer),
        Item::File(&config_name, 0o644, config),
        Item::File("manifest.json", 0o644, manifest),
    ]))
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

fn archive(items: &[Item<'_>]) -> Vec<u8> {
    let mut out = Vec::new();
    for item in items {
        let (name, kind, mode, content, target): (&str, u8, u32, &[u8], &str) = match item {
            Item::Directory(name, mode) => (name, b'5', *mode, &[], ""),
            Item::File(name, mode, content) => (name, b'0', *mode, content, ""),
            Item::Link(name, target) => (name, b'2', 0o777, &[], target),
        };
        out.extend(header(name, kind, mode, content.len(), target));
        out.extend_from_slice(content);
        out.resize(out.len().next_multiple_of(512), 0);
    }
    out.resize(out.len() + 1024, 0);
    out
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
