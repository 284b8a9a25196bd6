//! Images, containers and clients that mean harm: each gets a clear error or an ordinary answer, and nothing outside changes.

mod archives;
mod escape;
mod race;
mod requests;

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use sampan_testkit::images::{self, Tar};
use sampan_testkit::{Output, World, setup};

/// A folder of the host that nothing may touch, at a path that is the same inside and outside of a world.
struct Canary {
    folder: PathBuf,
    before: Vec<String>,
}

impl Canary {
    fn new(world: &World) -> Self {
        let folder = world.folder().join("canary");
        std::fs::create_dir_all(folder.join("folder")).expect("our own folder");
        for name in ["file", "folder/file", "passwd", "ptmx", "hosts"] {
            std::fs::write(folder.join(name), "evil:x:4321:4321::/:/bin/sh\n").expect("our own folder");
        }
        let before = facts(&folder);
        Self { folder, before }
    }

    /// The path of something in it.
    fn path(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    /// The same through so many `..` that it leads to the root from anywhere.
    fn upwards(&self, name: &str) -> String {
        format!("{}{}", "../".repeat(20), self.path(name).trim_start_matches('/'))
    }

    /// Asserts that nothing changed.
    fn check(&self, what: &str) {
        assert_eq!(facts(&self.folder), self.before, "the host was changed by: {what}");
    }
}

/// Everything about a tree that can be seen.
fn facts(folder: &Path) -> Vec<String> {
    let mut out = Vec::new();
    let mut pending = vec![folder.to_owned()];
    while let Some(path) = pending.pop() {
        let facts = path.symlink_metadata().expect("it is there");
        let content = if facts.is_file() { std::fs::read(&path).expect("it can be read") } else { Vec::new() };
        let numbers = (facts.mode(), facts.uid(), facts.gid(), facts.nlink(), facts.mtime(), facts.mtime_nsec());
        out.push(format!("{} {numbers:?} {}", path.display(), String::from_utf8_lossy(&content)));
        if facts.is_dir() {
            pending.extend(std::fs::read_dir(&path).expect("it can be read").flatten().map(|entry| entry.path()));
        }
    }
    out.sort();
    out
}

/// The busybox layer, honest.
fn base() -> Vec<u8> {
    images::rootfs(&setup::busybox()).expect("busybox can be read")
}

/// Writes a file into the world's working folder.
fn put(world: &World, name: &str, bytes: &[u8]) {
    images::write(&world.folder().join("work").join(name), bytes).expect("our own folder");
}

/// Loads an image of the busybox layer with another on top.
fn load(world: &World, name: &str, layer: Tar, preset: &serde_json::Value) {
    put(world, "evil.tar", &images::archive_of(&[base(), layer.finish()], name, preset));
    assert_eq!(world.ok("docker load -q -i evil.tar"), format!("Loaded image: {name}"));
}

/// Runs a command line that must fail in good time, with all of these words.
fn fails(world: &World, line: &str, words: &[&str]) -> Output {
    let output = world.sh(&format!("timeout -k 5 60 {line}"));
    let text = format!("{}{}", output.stdout, output.stderr);
    assert!(output.code != 0 && output.code != 124 && output.code != 137, "$ {line}\nmust fail: {output:?}\n{}", world.daemon_log());
    assert!(words.iter().all(|word| text.contains(word)), "$ {line}\nmust say {words:?}: {output:?}");
    output
}

/// Asserts that nothing unfinished lies in the data root.
fn nothing_left(world: &World) {
    assert_eq!(world.ok("ls -A /var/lib/sampan/ingest"), "", "no unfinished work is left");
    let rows = world.ok("ls /var/lib/sampan/layers | wc -l");
    let known = world.ok("for i in $(docker images -aq); do docker image inspect -f '{{range .RootFS.Layers}}{{println .}}{{end}}' $i; done | grep . | sort -u | wc -l");
    assert_eq!(rows, known, "no layer is left without an image");
}
