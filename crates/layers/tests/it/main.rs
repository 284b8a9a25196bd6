//! Extraction against hostile archives, and the way back: packing, differences. Runs as root, as whiteouts need it.
#![allow(clippy::unwrap_used, reason = "test code")]

use std::fs::File;
use std::os::fd::AsFd as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use sampan_archive::tar::{Header, Kind, Writer};
use sampan_base::Cancel;
use sampan_layers::{ExtractError, Extracted, Mode, PackMode, Quota, archive_path, changes, extract, extract_within, pack, stat_path};

/// One entry: a header and its content.
type Item = (Header, &'static [u8]);

fn file(path: &str, content: &'static [u8]) -> Item {
    let mut header = Header::new(Kind::File, path);
    header.size = content.len() as u64;
    (header, content)
}

fn directory(path: &str, mode: u32) -> Item {
    let mut header = Header::new(Kind::Directory, path);
    header.mode = mode;
    (header, b"")
}

fn link(kind: Kind, path: &str, target: &str) -> Item {
    let mut header = Header::new(kind, path);
    header.link = target.into();
    (header, b"")
}

fn archive(items: &[Item]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for (header, content) in items {
        writer.append(header, &mut &**content).unwrap();
    }
    writer.finish().unwrap()
}

fn unpack(root: &Path, items: &[Item], mode: Mode) -> Result<Extracted, ExtractError> {
    extract(&archive(items)[..], File::open(root).unwrap().as_fd(), mode, &Cancel::new())
}

/// A root to extract into, beside a file that must not change.
fn rig() -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("outside"), "untouched").unwrap();
    let root = folder.path().join("root");
    std::fs::create_dir(&root).unwrap();
    (folder, root)
}

fn assert_untouched(folder: &tempfile::TempDir) {
    assert_eq!(std::fs::read_to_string(folder.path().join("outside")).unwrap(), "untouched");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2, "nothing appeared outside of the root");
}

#[test]
fn paths_that_lead_out_are_refused() {
    for path in ["../outside", "a/../../outside", "/../outside"] {
        let (folder, root) = rig();
        assert!(matches!(unpack(&root, &[file(path, b"x")], Mode::Layer), Err(ExtractError::Escape(_))), "{path}");
        assert_untouched(&folder);
    }
}

#[test]
fn links_cannot_be_used_to_leave_the_root() {
    for target in ["/", "..", "/../..", "../.."] {
        let (folder, root) = rig();
        let items = [link(Kind::Symlink, "way", target), file("way/outside", b"x")];
        // Inside the root the link leads to the root itself: the file lands there.
        unpack(&root, &items, Mode::Layer).unwrap();
        assert_eq!(std::fs::read(root.join("outside")).unwrap(), b"x");
        assert_untouched(&folder);
    }
    let (folder, root) = rig();
    let hard = [link(Kind::Hardlink, "copy", "../outside")];
    assert!(matches!(unpack(&root, &hard, Mode::Layer), Err(ExtractError::Escape(_))));
    let absent = [link(Kind::Hardlink, "copy", "/outside")];
    assert!(matches!(unpack(&root, &absent, Mode::Layer), Err(ExtractError::Refused { .. })));
    assert_untouched(&folder);
}

#[test]
fn a_link_at_a_files_place_is_replaced_not_followed() {
    let (folder, root) = rig();
    let items =
        [link(Kind::Symlink, "etc", "../outside"), file("etc", b"plain"), link(Kind::Symlink, "d", "../outside"), directory("d", 0o700)];
    unpack(&root, &items, Mode::Layer).unwrap();
    assert_eq!(std::fs::read(root.join("etc")).unwrap(), b"plain");
    assert!(root.join("d").symlink_metadata().unwrap().is_dir());
    assert_untouched(&folder);
}

#[test]
fn whiteouts_take_overlays_form() {
    let (_folder, root) = rig();
    let items = [
        directory("dir", 0o755),
        file("dir/.wh..wh..opq", b""),
        file("dir/.wh.old", b""),
        file(".wh.gone", b""),
        file(".wh..wh.plnk", b""),
    ];
    unpack(&root, &items, Mode::Layer).unwrap();
    let gone = root.join("gone").symlink_metadata().unwrap();
    assert!(gone.file_type().is_char_device() && gone.rdev() == 0);
    assert!(!root.join("dir/old").exists(), "an opaque directory hides its names already");
    let names: Vec<_> = std::fs::read_dir(&root).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names.len(), 2, "{names:?}");
    let mut device = Header::new(Kind::Character, "fake");
    device.device = (0, 0);
    assert!(matches!(unpack(&root, &[(device, b"")], Mode::Layer), Err(ExtractError::Refused { .. })));
    assert!(matches!(unpack(&root, &[file(".wh.", b"")], Mode::Layer), Err(ExtractError::Refused { .. })));
}

#[test]
fn attributes_and_times_are_kept_and_overlays_own_are_dropped() {
    let (_folder, root) = rig();
    let mut header = Header::new(Kind::File, "d/tool");
    (header.mode, header.uid, header.gid, header.mtime) = (0o4755, 12, 34, (1_000_000, 5));
    header.xattrs = vec![("user.x".into(), b"y".to_vec()), ("trusted.overlay.opaque".into(), b"y".to_vec())];
    let mut folder = directory("d", 0o1777);
    folder.0.mtime = (2_000_000, 0);
    unpack(&root, &[folder, (header, b"")], Mode::Layer).unwrap();
    let tool = root.join("d/tool").metadata().unwrap();
    assert_eq!(
        (tool.permissions().mode() & 0o7777, tool.uid(), tool.gid(), tool.mtime(), tool.mtime_nsec()),
        (0o4755, 12, 34, 1_000_000, 5)
    );
    let d = root.join("d").metadata().unwrap();
    assert_eq!((d.mode() & 0o7777, d.mtime()), (0o1777, 2_000_000), "a directory's time is set after its files");
    let file = File::open(root.join("d/tool")).unwrap();
    let mut buffer = [0; 8];
    assert!(rustix::fs::fgetxattr(&file, "trusted.overlay.opaque", &mut buffer[..]).is_err());
}

#[test]
fn truncated_archives_fail_clearly() {
    let (_folder, root) = rig();
    let bytes = archive(&[file("a", b"0123456789")]);
    for length in [1, 511, 515] {
        let error = extract(&bytes[..length], File::open(&root).unwrap().as_fd(), Mode::Layer, &Cancel::new()).unwrap_err();
        assert!(matches!(error, ExtractError::Tar(_)), "{length}: {error}");
    }
}

#[test]
fn an_upper_directory_packs_to_a_layer_and_back() {
    let (_folder, root) = rig();
    let items = [
        directory("d", 0o750),
        file("d/.wh.old", b""),
        file("a", b"content"),
        link(Kind::Hardlink, "b", "a"),
        link(Kind::Symlink, "c", "a"),
    ];
    unpack(&root, &items, Mode::Layer).unwrap();
    let packed = |mode| {
        let mut out = Vec::new();
        pack(File::open(&root).unwrap().as_fd(), &mut out, mode, &Cancel::new()).unwrap();
        out
    };
    let first = packed(PackMode::Upper);
    assert_eq!(first, packed(PackMode::Upper), "the same tree gives the same bytes");
    let again = tempfile::tempdir().unwrap();
    extract(&first[..], File::open(again.path()).unwrap().as_fd(), Mode::Layer, &Cancel::new()).unwrap();
    assert!(again.path().join("d/old").symlink_metadata().unwrap().file_type().is_char_device());
    assert_eq!(again.path().join("a").metadata().unwrap().ino(), again.path().join("b").metadata().unwrap().ino());
}

#[test]
fn differences_name_what_changed() {
    let (_folder, upper) = rig();
    let lower = tempfile::tempdir().unwrap();
    unpack(lower.path(), &[directory("etc", 0o755), file("etc/group", b"g"), file("etc/passwd", b"p")], Mode::Plain).unwrap();
    unpack(&upper, &[directory("etc", 0o755), file("etc/.wh.group", b""), file("etc/passwd", b"q"), file("new", b"n")], Mode::Layer)
        .unwrap();
    let lowers = [std::os::fd::OwnedFd::from(File::open(lower.path()).unwrap())];
    let found = changes(File::open(&upper).unwrap().as_fd(), &lowers).unwrap();
    let shown: Vec<String> = found.iter().map(|change| format!("{:?} {}", change.kind, change.path)).collect();
    assert_eq!(shown, ["Changed /etc", "Deleted /etc/group", "Changed /etc/passwd", "Added /new"]);
}

#[test]
fn a_copy_replaces_files_by_files_only() {
    let (_folder, root) = rig();
    unpack(&root, &[directory("d", 0o755), file("f", b"old")], Mode::Plain).unwrap();
    unpack(&root, &[file("f", b"new"), directory("d", 0o700)], Mode::Plain).unwrap();
    assert_eq!(std::fs::read(root.join("f")).unwrap(), b"new");
    assert!(matches!(unpack(&root, &[file("d", b"x")], Mode::Plain), Err(ExtractError::Write { .. })));
    assert!(matches!(unpack(&root, &[directory("f", 0o755)], Mode::Plain), Err(ExtractError::Write { .. })));
    assert!(root.join("d").is_dir() && root.join("f").is_file());
}

#[test]
fn copies_stay_inside_the_root() {
    let (_folder, root) = rig();
    unpack(&root, &[link(Kind::Symlink, "way", "/../../outside"), file("f", b"x")], Mode::Plain).unwrap();
    let root = File::open(&root).unwrap();
    assert_eq!(stat_path(root.as_fd(), "/way").unwrap().link_target, "/../../outside");
    assert!(stat_path(root.as_fd(), "/way/").is_err());
    assert!(archive_path(root.as_fd(), "/../outside", Vec::new(), &Cancel::new()).is_err());
    let mut out = Vec::new();
    archive_path(root.as_fd(), "/f", &mut out, &Cancel::new()).unwrap();
    assert!(out.starts_with(b"f\0"));
}

#[test]
fn the_names_in_an_archive_tell_a_folder_from_what_is_in_it() {
    let (_folder, root) = rig();
    unpack(&root, &[directory("d", 0o755), file("d/f", b"x"), link(Kind::Symlink, "up", "/")], Mode::Plain).unwrap();
    let root = File::open(&root).unwrap();
    let names = |path: &str| {
        let mut out = Vec::new();
        archive_path(root.as_fd(), path, &mut out, &Cancel::new()).unwrap();
        let headers = out.chunks(512).filter(|block| block.len() == 512 && block[257..262] == *b"ustar");
        let mut names: Vec<String> = headers
            .map(|block| String::from_utf8_lossy(block[..100].split(|byte| *byte == 0).next().unwrap_or_default()).into_owned())
            .collect();
        // Headers of times with fractions are no entries.
        names.retain(|name| !name.starts_with("PaxHeaders"));
        names.sort();
        names
    };
    assert_eq!(names("/d"), ["d/", "d/f"]);
    assert_eq!(names("/d/"), ["d/", "d/f"]);
    for contents in ["/d/.", "d/.", "/d/./"] {
        assert_eq!(names(contents), ["./", "./f"], "{contents}");
    }
    assert_eq!(names("/"), ["/", "/d/", "/d/f", "/up"]);
    for contents in [".", "/.", "./", "/./", "/up/."] {
        assert_eq!(names(contents), ["./", "./d/", "./d/f", "./up"], "{contents}");
    }
    assert_eq!(names("/up"), ["up"]);
    assert_eq!(names("/up/"), ["up/", "up/d/", "up/d/f", "up/up"]);
}

#[test]
fn a_folder_that_comes_anew_hides_what_it_says() {
    let (folder, root) = rig();
    let items =
        [directory("d", 0o755), file("d/.wh..wh..opq", b""), file("d", b"in between"), directory("d", 0o755), file("d/.wh.hidden", b"")];
    unpack(&root, &items, Mode::Layer).unwrap();
    assert!(root.join("d/hidden").symlink_metadata().unwrap().file_type().is_char_device(), "the whiteout is not left out");
    assert_untouched(&folder);
}

#[test]
fn trees_deeper_than_archives_are_refused_and_broad_ones_compared() {
    let (folder, root) = rig();
    let mut place = root.clone();
    for _ in 0..12 {
        place = place.join("n".repeat(250));
        std::fs::create_dir(&place).unwrap();
    }
    let mut out = Vec::new();
    let handle = File::open(&root).unwrap();
    pack(handle.as_fd(), &mut out, PackMode::Upper, &Cancel::new()).unwrap();
    for _ in 0..6 {
        // A short path to a deep place.
        rustix::fs::renameat(&handle, "n".repeat(250), &handle, "d").unwrap();
        std::fs::create_dir(root.join("n".repeat(250))).unwrap();
        rustix::fs::renameat(&handle, "d", &handle, format!("{}/d{}", "n".repeat(250), "n".repeat(249))).unwrap();
    }
    let error = pack(handle.as_fd(), &mut Vec::new(), PackMode::Upper, &Cancel::new()).unwrap_err();
    assert!(error.to_string().contains("more than 4096 bytes"), "{error}");
    let error = changes(handle.as_fd(), &[]).unwrap_err();
    assert!(error.to_string().contains("too deep"), "{error}");
    sampan_sys::dir::remove_all(handle.as_fd(), std::ffi::OsStr::new(&"n".repeat(250))).unwrap();
    assert_untouched(&folder);
}

#[test]
fn what_unpacks_to_more_than_is_allowed_ends_before_it_is_written() {
    let items = [file("a", b"12345"), file("b", b"678"), directory("c", 0o755)];
    let within = |entries, content| {
        let (_folder, root) = rig();
        let quota = Quota { entries, content, of_disk: false };
        let done = extract_within(&archive(&items)[..], File::open(&root).unwrap().as_fd(), Mode::Plain, quota, &Cancel::new());
        (done.map_err(|error| error.to_string()), std::fs::read_dir(&root).unwrap().count())
    };
    assert_eq!(within(3, 8), (Ok(Extracted { entries: 3, content: 8 }), 3));
    assert_eq!(within(2, 8), (Err("the archive unpacks to more than 2 files or 0 MiB".into()), 2));
    assert_eq!(within(3, 7), (Err("the archive unpacks to more than 3 files or 0 MiB".into()), 1));
}
