//! What stays over a restart, and what is swept.

use std::time::Duration;

use sampan_registry::store::{Store, open_database};
use sampan_registry::users::Role;

use crate::client::{Server, sha256};

fn again(folder: tempfile::TempDir) -> Server {
    Server::at(folder, |config| config.strangers = Some(Role::Admin))
}

#[test]
fn an_upload_goes_on_after_a_restart() {
    let server = Server::open();
    let digest = server.push_image("a", "x", b"layer");
    let place = server.start("a");
    assert_eq!(server.send("PATCH", &place, &[], b"first ").status, 202);
    let server = again(server.stop());
    assert_eq!(server.get("/v2/a/manifests/x").header("docker-content-digest"), Some(digest.as_str()));
    assert_eq!(server.get(&place).header("range"), Some("0-5"));
    assert_eq!(
        server.send("PUT", &format!("{place}?digest={}", sha256(b"first second")), &[("Content-Range", "6-11")], b"second").status,
        201
    );
}

#[test]
fn a_second_server_is_refused() {
    let server = Server::open();
    let error = Store::open(&server.folder.path().join("data"), Duration::from_secs(1)).unwrap_err();
    assert!(error.to_string().starts_with("another registry serves"), "{error}");
}

#[test]
fn what_nobody_needs_is_collected_and_what_is_needed_stays() {
    let server = Server::open();
    server.push_image("a", "x", b"needed");
    let alone = server.push("a", b"alone");
    let folder = server.stop();
    let root = folder.path().join("data");
    // Files of a kill: a blob without a row, an upload without one.
    let orphan = root.join("blobs/sha256").join(&alone[7..9]).join(format!("{}.0123456789abcdef", &alone[7..]));
    std::fs::write(&orphan, "x").unwrap();
    std::fs::write(root.join("uploads").join("0".repeat(32)), "x").unwrap();
    let store = Store::open(&root, Duration::from_secs(3600)).unwrap();
    assert_eq!(store.sweep_files(std::time::SystemTime::UNIX_EPOCH).unwrap(), 0, "what is younger than the start stays");
    assert_eq!(store.sweep_files(std::time::SystemTime::now() + Duration::from_secs(9)).unwrap(), 1);
    assert!(!orphan.exists());
    let swept = store.sweep().unwrap();
    assert_eq!((swept.blobs, swept.uploads), (0, 1), "leases hold");
    let db = open_database(&root).unwrap();
    db.write("end leases", |transaction| transaction.execute("UPDATE blob SET lease_until = 0", [])).unwrap();
    let swept = store.sweep().unwrap();
    assert_eq!((swept.blobs, swept.bytes), (1, 5));
    drop(store);
    let server = again(folder);
    assert_eq!(server.get(&format!("/v2/a/blobs/{alone}")).status, 404);
    assert_eq!(server.get(&format!("/v2/a/blobs/{}", sha256(b"needed"))).body, b"needed");
    // It can come again.
    assert_eq!(server.push("a", b"alone"), alone);
    assert_eq!(server.get(&format!("/v2/a/blobs/{alone}")).body, b"alone");
}

#[test]
fn who_asks_for_a_blob_may_build_on_it() {
    let server = Server::open();
    // An image needs it, so that no sweep takes it meanwhile.
    server.push_image("a", "latest", b"asked for");
    let digest = sha256(b"asked for");
    let root = server.folder.path().join("data");
    let db = open_database(&root).unwrap();
    db.write("end leases", |transaction| transaction.execute("UPDATE blob SET lease_until = 0", [])).unwrap();
    assert_eq!(server.send("HEAD", &format!("/v2/a/blobs/{digest}"), &[], b"").status, 200);
    let lease: i64 =
        db.read("read lease", |connection| connection.query_row("SELECT max(lease_until) FROM blob", [], |row| row.get(0))).unwrap();
    assert!(lease > 0);
}

#[test]
fn a_sweep_takes_no_upload_that_begins() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("data"), Duration::from_secs(60)).unwrap();
    let over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(std::sync::atomic::Ordering::SeqCst) {
                assert_eq!(store.sweep().unwrap().uploads, 0);
            }
        });
        for _ in 0..300 {
            let writing = store.start_whole(sampan_registry::name::Algorithm::Sha256).unwrap();
            assert!(folder.path().join("data/uploads").join(writing.id()).is_file());
        }
        over.store(true, std::sync::atomic::Ordering::SeqCst);
    });
}
