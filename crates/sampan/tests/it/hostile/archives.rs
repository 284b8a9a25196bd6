//! Archives that lie: each is refused with a clear error, and leaves nothing.

use sampan_testkit::World;
use sampan_testkit::images::{self, Tar};
use serde_json::{Value, json};

use super::{Canary, base, fails, nothing_left, put};

/// A docker-archive of raw parts.
fn archive(manifest: &str, files: &[(&str, &[u8])]) -> Vec<u8> {
    files
        .iter()
        .fold(Tar::new(), |tar, (name, content)| tar.file(name, 0o644, content))
        .file("manifest.json", 0o644, manifest.as_bytes())
        .finish()
}

/// A config for layers of these diff ids.
fn config(diff_ids: &[String]) -> Vec<u8> {
    json!({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": diff_ids}}).to_string().into_bytes()
}

fn manifest(config: &str, layers: &[&str]) -> String {
    json!([{"Config": config, "RepoTags": ["bad:1"], "Layers": layers}]).to_string()
}

/// Each is loaded; it must be refused with these words, and nothing may be left.
fn refused(world: &World, cases: &[(&str, Vec<u8>, &[&str])]) {
    for (name, bytes, words) in cases {
        put(world, "bad.tar", bytes);
        let output = fails(world, "docker load -i bad.tar", words);
        assert!(output.stderr.len() < 1000, "{name}: an error of reasonable length: {output:?}");
        assert_eq!(world.ok("docker images -q bad"), "", "{name}");
        nothing_left(world);
    }
}

#[test]
fn manifests_that_lie_are_refused() {
    let world = World::with_docker();
    let layer = Tar::new().file("f", 0o644, b"x").finish();
    let other = format!("sha256:{}", images::sha256(b"other"));
    let honest = format!("sha256:{}", images::sha256(&layer));
    let good = config(std::slice::from_ref(&honest));
    let deep = format!("[{{\"x\":{}", "[".repeat(100_000));
    let foreign = String::from_utf8(good.clone()).expect("JSON").replace("linux", "plan9").into_bytes();
    let many = config(&vec![honest.clone(); 126]);
    let list = manifest("c", &["l"; 126]);
    refused(
        &world,
        &[
            ("no manifest", Tar::new().file("x", 0o644, b"x").finish(), &["does not contain a manifest.json or index.json"]),
            ("broken manifest", archive("[{", &[]), &["invalid manifest", "EOF"]),
            ("wrong form", archive("{\"Config\":1}", &[]), &["invalid manifest"]),
            ("wrong types", archive("[{\"Config\":1,\"RepoTags\":null,\"Layers\":[]}]", &[]), &["invalid manifest", "string"]),
            ("deep", archive(&deep, &[]), &["invalid manifest", "EOF"]),
            ("huge", archive(&" ".repeat(9 << 20), &[]), &["manifest.json is larger than 8 MiB"]),
            ("no config", archive(&manifest("c", &["l"]), &[("l", &layer)]), &["invalid archive: c is missing"]),
            ("broken config", archive(&manifest("c", &["l"]), &[("c", b"{\"rootfs\":5}"), ("l", &layer)]), &["invalid image config"]),
            (
                "invalid UTF-8",
                archive(&manifest("c", &["l"]), &[("c", b"{\"author\":\"\xff\"}"), ("l", &layer)]),
                &["invalid image config"],
            ),
            ("no layer", archive(&manifest("c", &["l"]), &[("c", &good)]), &["invalid archive: l is missing"]),
            ("too few layers", archive(&manifest("c", &[]), &[("c", &good)]), &["layers length mismatch: expected 1, got 0"]),
            ("escape", archive(&manifest("../../../../etc/passwd", &["/etc/passwd"]), &[("l", &layer)]), &["etc/passwd is missing"]),
            (
                "other bytes",
                archive(&manifest("c", &["l"]), &[("c", &config(std::slice::from_ref(&other))), ("l", &layer)]),
                &["invalid diffID for layer: expected", &other],
            ),
            (
                "no digest",
                archive(&manifest("c", &["l"]), &[("c", b"{\"rootfs\":{\"diff_ids\":[\"md5:1\"]}}"), ("l", &layer)]),
                &["unsupported digest algorithm"],
            ),
            ("other system", archive(&manifest("c", &["l"]), &[("c", &foreign), ("l", &layer)]), &["cannot load plan9 image on linux"]),
            ("too many layers", archive(&list, &[("c", &many), ("l", &layer)]), &["max depth exceeded"]),
            (
                "bad name",
                archive(&manifest("c", &["l"]).replace("bad:1", "../BAD"), &[("c", &good), ("l", &layer)]),
                &["invalid reference format"],
            ),
            ("links in a circle", Tar::new().link("manifest.json", "a").link("a", "manifest.json").finish(), &["does not contain"]),
        ],
    );
    let bad = format!("{}{}", "0".repeat(63), "1");
    let index = json!({"schemaVersion": 2, "manifests": [{"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": format!("sha256:{bad}"), "size": 2}]}).to_string();
    let layout = Tar::new().file("index.json", 0o644, index.as_bytes()).file(&format!("blobs/sha256/{bad}"), 0o644, b"{}").finish();
    refused(&world, &[("digest of a manifest", layout, &["has digest"])]);
}

#[test]
fn layers_that_lie_are_refused() {
    let world = World::with_docker();
    let canary = Canary::new(&world);
    let of = |tar: Tar| images::archive_of(&[base(), tar.finish()], "bad:1", &json!({}));
    let raw = |bytes: Vec<u8>| images::archive_of(&[bytes], "bad:1", &json!({}));
    let file = |size: &[u8; 12]| Tar::new().liar("f", b'0', &[], size, b"short");
    let records = |key: &str, value: &str| Tar::new().liar("f", b'0', &[(key, value)], b"00000000000\0", b"");
    let huge = "9".repeat(19);
    let whole = base();
    refused(
        &world,
        &[
            ("cut in a file", raw(whole[..whole.len() / 2].to_vec()), &["archive is truncated"]),
            ("cut in a header", raw(whole[..700].to_vec()), &["archive is truncated"]),
            ("size beyond the end", raw(file(b"00077777777\0").unfinished()), &["archive is truncated"]),
            ("negative size", raw(file(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff").unfinished()), &["a negative number"]),
            ("endless size", raw(file(b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff").unfinished()), &["archive is truncated"]),
            ("impossible size", raw(file(b"\x80\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff").unfinished()), &["an impossible size"]),
            ("no number", raw(file(b"not a number").unfinished()), &["a number that is not octal"]),
            ("size in a record", of(records("size", &huge)), &["archive is truncated"]),
            ("size beyond 64 bits", of(records("size", "99999999999999999999999")), &["a PAX number"]),
            ("negative in a record", of(records("size", "-5")), &["a PAX number"]),
            ("sparse in a record", of(records("GNU.sparse.major", "1")), &["not supported in archives: PAX sparse files"]),
            ("sparse", of(Tar::new().liar("f", b'S', &[], b"00000000000\0", b"")), &["not supported in archives: GNU sparse files"]),
            ("huge record", of(Tar::new().liar("x", b'x', &[], b"00777777777\0", b"")), &["extension header of more than 1 MiB"]),
            (
                "endless records",
                of((0..20).fold(Tar::new(), |tar, _| tar.liar("x", b'x', &[], b"00000000000\0", b""))),
                &["extension headers of one entry"],
            ),
            ("long path", of(records("path", &"p/".repeat(3000))), &["path of more than 4096 bytes"]),
            ("long name", of(records("path", &"p".repeat(300))), &["a name of more than 255 bytes"]),
            ("up", of(Tar::new().file(&format!("../../../../../..{}", canary.path("file")), 0o644, b"x")), &["leads out of its root"]),
            ("up in the middle", of(Tar::new().file("a/../../x", 0o644, b"x")), &["leads out of its root"]),
            ("hard link up", of(Tar::new().hard_link("h", "../../../../etc/passwd")), &["leads out of its root"]),
            ("hard link out", of(Tar::new().hard_link("h", &canary.path("file"))), &["a hard link to a file that is not in this archive"]),
            (
                "hard link through a link",
                of(Tar::new().link("l", &canary.path("")).hard_link("h", "l/file")),
                &["a hard link to a file that is not in this archive"],
            ),
            ("whiteout of the parent", of(Tar::new().file("d/.wh...", 0o644, b"")), &["a whiteout without a name"]),
            ("whiteout of nothing", of(Tar::new().file(".wh.", 0o644, b"")), &["a whiteout without a name"]),
            ("whiteout by device", of(Tar::new().special("d", b'3', (0, 0))), &["a device 0:0 would be a whiteout"]),
            ("unknown type", of(Tar::new().liar("f", b'Z', &[], b"00000000000\0", b"")), &["an unknown type of entry"]),
            ("owner", of(records("uid", "4294967296")), &["an owner beyond 32 bits"]),
        ],
    );
    canary.check("hostile layers");
}

#[test]
fn layers_through_links_stay_inside() {
    let world = World::with_docker();
    let canary = Canary::new(&world);
    let (folder, up) = (canary.path("folder"), canary.upwards("folder"));
    let layer = Tar::new()
        .link("abs", &folder)
        .link("up", &up)
        .file("abs/written", 0o644, b"inside\n")
        .file("up/written", 0o644, b"inside\n")
        .file("abs/.wh.file", 0o644, b"")
        .file("up/.wh..wh..opq", 0o644, b"")
        .file(&format!("{}/file", folder.trim_start_matches('/')), 0o666, b"inside\n")
        .liar(
            "f",
            b'0',
            &[("SCHILY.xattr.trusted.overlay.redirect", &folder), ("SCHILY.xattr.trusted.overlay.opaque", "y")],
            b"00000000000\0",
            b"",
        );
    put(&world, "links.tar", &images::archive_of(&[base(), layer.clone().finish()], "links:1", &json!({})));
    drop(world.sh("docker load -i links.tar"));
    canary.check("a layer with links");
    put(&world, "links.layer", &layer.finish());
    drop(world.sh("docker import links.layer links:2"));
    canary.check("an import with links");
    drop(world.ok("docker load -q -i box.tar && docker create --name one box true"));
    drop(world.sh("docker cp - one:/ < links.layer"));
    canary.check("a copy with links");
    fails(&world, "docker cp - one:/missing < links.layer", &["must be a directory"]);
    put(&world, "up.layer", &Tar::new().file("../../up", 0o644, b"x").finish());
    fails(&world, "docker cp - one:/tmp < up.layer", &["leads out of its root"]);
    fails(&world, "docker import up.layer up:1", &["leads out of its root"]);
    fails(&world, "docker import bad.tar", &[]);
    drop(world.ok("docker rm one"));
    nothing_left(&world);
}

#[test]
fn configs_that_lie_are_refused_or_harmless() {
    let world = World::with_docker();
    let run = |preset: Value, words: &[&str]| {
        put(&world, "odd.tar", &images::archive_of(&[base()], "odd:1", &preset));
        drop(world.ok("docker load -q -i odd.tar"));
        fails(&world, "docker run --rm odd:1 true", words);
        assert_eq!(world.ok("docker ps -aq"), "");
    };
    run(json!({"Volumes": {"/": {}}}), &["destination can't be '/'"]);
    run(json!({"Volumes": {"../../etc": {}}}), &["mount path must be absolute"]);
    run(json!({"User": "nosuch"}), &["unable to find user nosuch"]);
    run(json!({"User": "4294967295"}), &["uids and gids must be in range"]);
    run(json!({"WorkingDir": "/bin/busybox/x"}), &["/bin/busybox/x"]);
    run(json!({"WorkingDir": "relative"}), &["the working directory 'relative' is invalid, it needs to be an absolute path"]);
    run(json!({"Env": ["A=\u{0}B"]}), &["zero byte"]);
    put(
        &world,
        "odd.tar",
        &images::archive_of(
            &[base()],
            "odd:2",
            &json!({"WorkingDir": "/new/../made", "StopSignal": "NOSUCH", "Labels": {"a\nb": "\u{1b}[2J"}, "Unknown": {"x": [1]}}),
        ),
    );
    drop(world.ok("docker load -q -i odd.tar"));
    assert_eq!(world.ok("docker run --rm odd:2 pwd"), "/made");
    drop(world.ok("docker run -d --name one odd:2 sleep 1000 && docker stop -t 1 one && docker rm one"));
}
