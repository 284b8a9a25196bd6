//! Uploads: in one piece, in several, mounted, and begun anew.

use std::io::{self, Cursor, Read};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use sampan_oci::Digest;

use crate::fake::{Fake, Reply, Then};
use crate::{Bench, bench, nobody, reference};

fn content() -> Vec<u8> {
    (0..700_000_u32).map(|number| u8::try_from(number % 251).unwrap()).collect()
}

fn put(bench: &Bench, fake: &Fake, bytes: &[u8]) -> Result<Vec<u64>, String> {
    let told = Mutex::new(Vec::new());
    let open = || -> io::Result<Box<dyn Read + Send>> { Ok(Box::new(Cursor::new(bytes.to_vec()))) };
    let progress = |count| told.lock().unwrap().push(count);
    let digest = Digest::sha256_of(bytes);
    let size = bytes.len() as u64;
    let outcome = bench.client.put_blob(&reference(&fake.host(), "x"), &digest, size, &open, &progress, &nobody(), &bench.cancel);
    outcome.map(|()| told.into_inner().unwrap()).map_err(|error| error.to_string())
}

fn session(rest: &str) -> Reply {
    Reply::new(202, "").with("Location", format!("/v2/x/blobs/uploads/1?state=a%2Fb{rest}"))
}

#[test]
fn a_blob_goes_in_one_piece() {
    let fake = Fake::start(|seen| match seen.method.as_str() {
        "POST" => session(""),
        "PUT" => Reply::new(201, ""),
        _ => Reply::new(200, "{}"),
    });
    let bytes = content();
    let told = put(&bench(), &fake, &bytes).unwrap();
    assert_eq!((told.first(), told.last()), (Some(&0), Some(&(bytes.len() as u64))));
    assert!(told.is_sorted());
    assert_eq!(fake.lines(), ["POST /v2/x/blobs/uploads/", "PUT /v2/x/blobs/uploads/1"]);
    let sent = fake.seen().pop().unwrap();
    let hex = Digest::sha256_of(&bytes).hex().to_owned();
    assert_eq!((sent.query(), sent.body == bytes), (format!("state=a%2Fb&digest=sha256%3A{hex}").as_str(), true));
    assert_eq!(sent.header("content-length"), Some("700000"));
    put(&bench(), &fake, b"").unwrap();
}

#[test]
fn a_broken_upload_begins_anew() {
    let count = AtomicUsize::new(0);
    let fake = Fake::start(move |seen| match seen.method.as_str() {
        "POST" => session(""),
        "PUT" => match count.fetch_add(1, Ordering::SeqCst) {
            0 => Reply::new(200, "").with("Content-Length", "bad").then(Then::Close),
            1 => Reply::new(503, ""),
            _ => Reply::new(201, ""),
        },
        "DELETE" => Reply::new(204, ""),
        _ => Reply::new(200, "{}"),
    });
    put(&bench(), &fake, &content()).unwrap();
    let count = |method: &str| fake.seen().iter().filter(|seen| seen.method == method).count();
    assert_eq!((count("POST"), count("PUT"), count("DELETE")), (3, 3, 2), "sessions that failed are given up");
}

#[test]
fn a_refusal_is_told() {
    let fake = Fake::start(|seen| match seen.method.as_str() {
        "POST" => Reply::refusal(403, "DENIED", "requested access to the resource is denied"),
        _ => Reply::new(200, "{}"),
    });
    assert_eq!(put(&bench(), &fake, b"x").unwrap_err(), "denied: requested access to the resource is denied");
    let fake = Fake::start(|seen| match seen.method.as_str() {
        "POST" => session(""),
        "PUT" => Reply::refusal(400, "DIGEST_INVALID", "provided digest did not match uploaded content"),
        _ => Reply::new(200, "{}"),
    });
    assert_eq!(put(&bench(), &fake, b"x").unwrap_err(), "digest invalid: provided digest did not match uploaded content");
    let fake = Fake::start(|_| Reply::new(200, "{}"));
    assert_eq!(put(&bench(), &fake, b"x").unwrap_err(), "received unexpected HTTP status: 200 OK");
}

#[test]
fn pieces_are_sent_where_one_is_too_large() {
    let got = Mutex::new(Vec::new());
    let fake = Fake::start(move |seen| match seen.method.as_str() {
        "POST" => {
            got.lock().unwrap().clear();
            session("").with("OCI-Chunk-Min-Length", "300000")
        }
        "PATCH" if seen.body.len() > 400_000 => Reply::new(413, ""),
        "PATCH" => {
            let mut got = got.lock().unwrap();
            let range = format!("{}-{}", got.len(), got.len() + seen.body.len() - 1);
            assert_eq!(seen.header("content-range"), Some(range.as_str()));
            got.extend_from_slice(&seen.body);
            session(&format!("&at={}", got.len()))
        }
        "PUT" if seen.body.is_empty() => {
            assert!(seen.query().contains(&format!("digest=sha256%3A{}", Digest::sha256_of(&got.lock().unwrap()).hex())));
            assert!(seen.query().contains("at=700000"));
            Reply::new(201, "")
        }
        "PUT" => Reply::refusal(413, "SIZE_INVALID", "too large"),
        _ => Reply::new(200, "{}"),
    });
    let told = put(&bench(), &fake, &content()).unwrap();
    assert_eq!(told.last(), Some(&700_000));
    assert_eq!(fake.seen().iter().filter(|seen| seen.method == "PATCH" && seen.body.len() <= 400_000).count(), 3);
}

#[test]
fn a_body_that_is_refused_before_it_is_read_goes_in_pieces() {
    let fake = Fake::start(|seen| match (seen.method.as_str(), seen.body.is_empty()) {
        ("POST", _) => session(""),
        // What comes without a body here was longer than what is read.
        ("PATCH", true) => Reply::new(413, ""),
        ("PATCH", false) => session(""),
        ("PUT", _) if seen.header("content-length") != Some("0") => Reply::new(413, "too large"),
        ("PUT", _) => Reply::new(201, ""),
        _ => Reply::new(200, "{}"),
    });
    let bytes = vec![7; crate::fake::EARLY + 2_000_000];
    put(&bench(), &fake, &bytes).unwrap();
    let sizes: Vec<_> = fake.seen().iter().filter(|seen| seen.method == "PATCH").map(|seen| seen.body.len()).collect();
    assert_eq!(sizes, [0, 4 << 20, 4 << 20, bytes.len() - (8 << 20)]);
}

#[test]
fn a_source_that_fails_is_not_the_registrys_fault() {
    let fake = Fake::start(|seen| match seen.method.as_str() {
        "POST" => session(""),
        _ => Reply::new(200, "{}"),
    });
    let bench = bench();
    let open = || -> io::Result<Box<dyn Read + Send>> { Ok(Box::new(Cursor::new(b"short".to_vec()))) };
    let digest = Digest::sha256_of(b"longer");
    let error = bench.client.put_blob(&reference(&fake.host(), "x"), &digest, 6, &open, &|_| {}, &nobody(), &bench.cancel).unwrap_err();
    assert_eq!(error.to_string(), "reading the content to send");
    let open = || Err(io::Error::other("gone"));
    let error = bench.client.put_blob(&reference(&fake.host(), "x"), &digest, 6, &open, &|_| {}, &nobody(), &bench.cancel).unwrap_err();
    assert_eq!(std::error::Error::source(&error).unwrap().to_string(), "gone");
}

#[test]
fn an_upload_elsewhere_gets_no_credentials() {
    let store = Fake::start(|_| Reply::new(201, ""));
    let target = format!("http://{}/put", store.host());
    let fake = Fake::start(move |seen| match (seen.method.as_str(), seen.header("authorization")) {
        (_, None) => Reply::new(401, "").with("WWW-Authenticate", "Basic realm=x"),
        ("POST", _) => Reply::new(202, "").with("Location", target.as_str()),
        _ => Reply::new(200, "{}"),
    });
    let bench = bench();
    let open = || -> io::Result<Box<dyn Read + Send>> { Ok(Box::new(Cursor::new(b"x".to_vec()))) };
    let digest = Digest::sha256_of(b"x");
    bench.client.put_blob(&reference(&fake.host(), "x"), &digest, 1, &open, &|_| {}, &crate::user(), &bench.cancel).unwrap();
    assert_eq!(store.seen()[0].header("authorization"), None);
    for bad in ["http://169.254.169.254/x", "ftp://h/", "http://[fe80::1]/"] {
        let fake = Fake::start(move |_| Reply::new(202, "").with("Location", bad));
        assert!(put(&bench, &fake, b"x").unwrap_err().contains("refusing to follow to"));
    }
}

#[test]
fn a_registry_may_ask_for_proofs_late_or_again() {
    let fake = Fake::start(|seen| match (seen.method.as_str(), seen.header("authorization")) {
        ("POST" | "PUT", None) => Reply::new(401, "").with("WWW-Authenticate", "Basic realm=x"),
        ("POST", _) => session(""),
        ("PUT", _) => Reply::new(201, ""),
        _ => Reply::new(200, "{}"),
    });
    let send = |bench: &Bench, fake: &Fake| {
        let open = || -> io::Result<Box<dyn Read + Send>> { Ok(Box::new(Cursor::new(b"x".to_vec()))) };
        let digest = Digest::sha256_of(b"x");
        bench.client.put_blob(&reference(&fake.host(), "x"), &digest, 1, &open, &|_| {}, &crate::user(), &bench.cancel)
    };
    send(&bench(), &fake).unwrap();

    // A token that is revoked between the two requests; the challenge names a part of the rights only.
    let count = AtomicUsize::new(0);
    let (realm, own) = (std::sync::Arc::new(Mutex::new(String::new())), Mutex::new(String::new()));
    let named = std::sync::Arc::clone(&realm);
    let fake = Fake::start(move |seen| {
        let challenge = format!("Bearer realm=\"http://{}/token\",scope=\"repository:x:push\"", named.lock().unwrap());
        let challenged = Reply::new(401, "").with("WWW-Authenticate", challenge);
        match (seen.line().as_str(), seen.header("authorization")) {
            ("GET /token", _) => {
                *own.lock().unwrap() = format!("t{}", count.fetch_add(1, Ordering::SeqCst));
                Reply::new(200, format!("{{\"token\":\"{}\"}}", own.lock().unwrap()))
            }
            ("POST /v2/x/blobs/uploads/", Some(_)) => session(""),
            ("PUT /v2/x/blobs/uploads/1", Some("Bearer t1")) => Reply::new(201, ""),
            _ => challenged,
        }
    });
    *realm.lock().unwrap() = fake.host();
    send(&bench(), &fake).unwrap();
    assert_eq!(fake.seen().iter().filter(|seen| seen.line() == "GET /token").count(), 2);
}

#[test]
fn a_stalled_upload_ends() {
    let fake = Fake::start(|seen| match seen.method.as_str() {
        "POST" => session(""),
        "PUT" => Reply::new(100, "").then(Then::Stall),
        _ => Reply::new(200, "{}"),
    });
    let mut config = crate::impatient();
    config.timing.stall = std::time::Duration::from_millis(250);
    config.timing.attempts = 1;
    let error = put(&crate::bench_with(config), &fake, b"x").unwrap_err();
    assert!(error.contains("Client.Timeout exceeded while sending body"), "{error}");
}

#[test]
fn blobs_are_mounted_and_found() {
    let there = Digest::sha256_of(b"there");
    let found = there.to_string();
    let fake = Fake::start(move |seen| match seen.line().as_str() {
        "POST /v2/x/blobs/uploads/" if seen.query().contains("from=yes") => Reply::new(201, ""),
        "POST /v2/x/blobs/uploads/" if seen.query().contains("from=no") => session(""),
        "POST /v2/x/blobs/uploads/" => Reply::refusal(400, "UNSUPPORTED", "no"),
        line if line == format!("HEAD /v2/x/blobs/{found}") => Reply::new(200, "12345"),
        line if line.starts_with("HEAD") => Reply::new(404, ""),
        _ => Reply::new(204, ""),
    });
    let bench = bench();
    let host = fake.host();
    let mount = |from: &str| bench.client.mount_blob(&reference(&host, "x"), &there, &reference(&host, from), &nobody(), &bench.cancel);
    assert!(mount("yes").unwrap());
    assert!(!mount("no").unwrap() && !mount("odd").unwrap());
    assert!(fake.lines().contains(&"DELETE /v2/x/blobs/uploads/1".to_owned()), "the session that nobody wants is given up");
    let has = |digest: &Digest| bench.client.has_blob(&reference(&host, "x"), digest, &nobody(), &bench.cancel).unwrap();
    assert_eq!((has(&there), has(&Digest::sha256_of(b"other"))), (Some(5), None));
    let elsewhere = reference("other.example", "x");
    assert!(!bench.client.mount_blob(&reference(&host, "x"), &there, &elsewhere, &nobody(), &bench.cancel).unwrap());
}
