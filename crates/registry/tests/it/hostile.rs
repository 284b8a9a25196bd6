//! Clients that mean no good.

use std::io::{Read as _, Write as _};
use std::time::Duration;

use sampan_registry::users::Role;

use crate::client::{Server, sha256};

#[test]
fn digests_that_lie_leave_nothing() {
    let server = Server::open();
    let lie = sha256(b"truth");
    let answer = server.send("POST", &format!("/v2/a/blobs/uploads/?digest={lie}"), &[], b"falsehood");
    assert_eq!((answer.status, answer.code().as_str()), (400, "DIGEST_INVALID"));
    let place = server.start("a");
    assert_eq!(server.send("PUT", &format!("{place}?digest={lie}"), &[], b"falsehood").status, 400);
    assert_eq!(server.get(&place).status, 404);
    assert_eq!(server.get(&format!("/v2/a/blobs/{lie}")).status, 404);
    let uploads = std::fs::read_dir(server.folder.path().join("data/uploads")).unwrap().count();
    assert_eq!(uploads, 0, "no file stays");
}

#[test]
fn paths_lead_nowhere() {
    let server = Server::open();
    std::fs::write(server.folder.path().join("data/secret"), "secret").unwrap();
    for path in [
        "/v2/../secret",
        "/v2/a/blobs/../../secret",
        "/v2/a/blobs/sha256:..%2f..%2fsecret",
        "/v2/a/blobs/uploads/..%2f..%2fregistry.db",
        "/v2/a/blobs/uploads/%2e%2e",
        "/v2/..%2f..%2fa/manifests/x",
        "/v2/a%00b/manifests/x",
        "/v2/%ff/tags/list",
        "/v2/a/tags/list/",
        "//v2/",
        "/token/..",
        "/%",
    ] {
        let answer = server.get(path);
        assert!((400..=404).contains(&answer.status), "{path}: {answer:?}");
        assert!(!String::from_utf8_lossy(&answer.body).contains("secret\""));
    }
}

#[test]
fn heads_have_limits() {
    let server = Server::open();
    let large = server.raw(format!("GET /v2/ HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "a".repeat(1 << 20)).as_bytes());
    assert_eq!(large.status, 431);
    let many = format!("GET /v2/ HTTP/1.1\r\nHost: x\r\n{}\r\n", "X: y\r\n".repeat(200));
    assert_eq!(server.raw(many.as_bytes()).status, 431);
    let odd = server.raw(b"GET /v2/a/tags/list HTTP/1.1\r\nHost: a\"b\r\n\r\n");
    assert_eq!(odd.status, 400);
    assert!(odd.header("www-authenticate").is_none());
    assert_eq!(server.raw(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\r\n\r\n").status, 400);
    assert_eq!(server.get("/healthz").status, 200);
}

#[test]
fn slow_clients_are_let_go() {
    let server = Server::with(|config| {
        config.strangers = Some(Role::Push);
        config.limits.head = Duration::from_millis(200);
        config.limits.idle = Duration::from_millis(200);
        config.limits.stop = Duration::from_secs(1);
    });
    // A head that never ends.
    let mut stream = server.connect();
    stream.write_all(b"GET /v2/ HTTP/1.1\r\nHost: ").unwrap();
    let mut rest = Vec::new();
    drop(stream.read_to_end(&mut rest));
    // A body that never ends: what came is kept, the upload goes on.
    let place = server.start("a");
    let answer = server.raw(format!("PATCH {place} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nabc").as_bytes());
    assert_eq!(answer.status, 408, "{answer:?}");
    assert_eq!(server.get(&place).header("range"), Some("0-2"));
    // A reader that does not read.
    let content = vec![7; 32 << 20];
    let digest = server.push("a", &content);
    let mut stream = server.connect();
    stream.write_all(format!("GET /v2/a/blobs/{digest} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).unwrap();
    let mut first = [0; 16];
    stream.read_exact(&mut first).unwrap();
    // The registry stops in time, though that request has not ended.
    drop(server.stop());
}

#[test]
fn who_does_not_begin_to_speak_is_let_go() {
    let server = Server::with(|config| config.limits.head = Duration::from_millis(200));
    // Nothing, the beginning of HTTP/2's first line, and a line that may become a request.
    for words in ["", "P", "PRI * HTTP/2.0\r\n\r\nSM", "GET /v2/ HTTP"] {
        let mut stream = server.connect();
        stream.write_all(words.as_bytes()).unwrap();
        let mut rest = Vec::new();
        if let Err(error) = stream.read_to_end(&mut rest) {
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{words:?}: it is still open after a minute");
        }
    }
    assert_eq!(server.get("/healthz").status, 200);
}

#[test]
fn one_upload_has_one_writer() {
    let server = Server::open();
    let place = server.start("a");
    let mut slow = server.connect();
    let head = format!("PATCH {place} HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\nExpect: 100-continue\r\n\r\n");
    slow.write_all(head.as_bytes()).unwrap();
    // "100 Continue" says that the body is being waited for: the upload is taken.
    let mut first = [0; 25];
    slow.read_exact(&mut first).unwrap();
    assert!(first.starts_with(b"HTTP/1.1 100"), "{:?}", String::from_utf8_lossy(&first));
    let second = server.send("PATCH", &place, &[], b"xx");
    assert_eq!((second.status, second.code().as_str()), (409, "BLOB_UPLOAD_INVALID"));
    slow.write_all(b"abcdef").unwrap();
    let mut answer = [0; 12];
    slow.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 202");
    assert_eq!(server.send("PUT", &format!("{place}?digest={}", sha256(b"abcdef")), &[], b"").status, 201);
}

#[test]
fn long_annotations_come_in_pages() {
    let server = Server::open();
    let subject = server.push_image("a", "x", b"layer");
    for number in 0..6 {
        let note = format!("{number}{}", "x".repeat(1 << 20));
        let more = format!(
            r#","subject":{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{subject}","size":1}},"annotations":{{"note":"{note}"}}"#
        );
        let manifest = server.image("a", b"layer", &more);
        assert_eq!(server.put("a", &sha256(manifest.as_bytes()), &manifest).status, 201);
    }
    let (mut next, mut sizes) = (Some(format!("/v2/a/referrers/{subject}")), Vec::new());
    while let Some(path) = next {
        let page = server.get(&path);
        assert!(page.body.len() < 4 << 20, "{}", page.body.len());
        sizes.push(page.json()["manifests"].as_array().unwrap().len());
        next = page.next();
    }
    assert_eq!(sizes, [2, 2, 2]);
}

#[test]
fn many_push_the_same_blob_at_once() {
    let server = Server::open();
    let content = vec![42; 3 << 20];
    std::thread::scope(|scope| {
        for number in 0..8 {
            let (server, content) = (&server, &content);
            scope.spawn(move || server.push(&format!("r{number}"), content));
        }
    });
    let digest = sha256(&content);
    for number in 0..8 {
        assert_eq!(server.get(&format!("/v2/r{number}/blobs/{digest}")).body, content);
    }
    let shelf = server.folder.path().join("data/blobs/sha256").join(&digest[7..9]);
    assert_eq!(std::fs::read_dir(shelf).unwrap().count(), 1, "it is kept once");
}

#[test]
fn blobs_and_uploads_have_limits() {
    let server = Server::with(|config| {
        config.strangers = Some(Role::Push);
        config.limits.blob = 1000;
    });
    let digest = sha256(&[1; 1001]);
    let answer = server.send("POST", &format!("/v2/a/blobs/uploads/?digest={digest}"), &[], &[1; 1001]);
    assert_eq!(answer.status, 413);
    let place = server.start("a");
    assert_eq!(server.send("PATCH", &place, &[], &[1; 600]).status, 202);
    let chunked = format!("PATCH {place} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n258\r\n{}\r\n0\r\n\r\n", "a".repeat(600));
    assert_eq!(server.raw(chunked.as_bytes()).status, 413);
    let refused = (0..300).map(|_| server.send("POST", "/v2/a/blobs/uploads/", &[], b"")).find(|answer| answer.status == 429);
    assert!(refused.is_some(), "nobody has so many uploads");
}

#[test]
fn ten_thousand_tags_are_listed() {
    let server = Server::open();
    let manifest = server.image("a", b"layer", "");
    for page in 0..101 {
        let query = (0..100).map(|number| format!("tag=t{page:03}-{number:02}")).collect::<Vec<_>>().join("&");
        assert_eq!(server.put("a", &format!("{}?{query}", sha256(manifest.as_bytes())), &manifest).status, 201);
    }
    let first = server.get("/v2/a/tags/list");
    assert_eq!(first.json()["tags"].as_array().unwrap().len(), 10_000);
    assert_eq!(server.get(&first.next().unwrap()).json()["tags"].as_array().unwrap().len(), 100);
    let too_many = (0..101).map(|number| format!("tag=x{number}")).collect::<Vec<_>>().join("&");
    assert_eq!(server.put("a", &format!("{}?{too_many}", sha256(manifest.as_bytes())), &manifest).status, 414);
}
