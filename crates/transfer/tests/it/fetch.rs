//! Files at addresses that users name.

use std::io::Read as _;
use std::sync::atomic::{AtomicUsize, Ordering};

use sampan_base::{ErrorKind, Failure as _};
use sampan_transfer::{FetchRequest, Fetched, TransferError};

use crate::fake::{Fake, Reply, Then};
use crate::{Bench, bench, bench_with, config, impatient};

fn wish(fake: &Fake, path: &str) -> FetchRequest {
    FetchRequest { url: format!("http://{}{path}", fake.host()), limit: 1 << 20, ..FetchRequest::default() }
}

fn open(bench: &Bench, request: &FetchRequest) -> Result<Fetched, TransferError> {
    bench.client.fetch(request, &bench.cancel)
}

fn read(bench: &Bench, request: &FetchRequest) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let mut fetched = open(bench, request).map_err(|error| error.to_string())?;
    fetched.read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    Ok(bytes)
}

#[test]
fn a_file_comes_with_what_its_server_says_of_it() {
    let fake = Fake::start(|seen| {
        assert!(seen.header("authorization").is_none() && seen.header("accept-encoding") == Some("identity"));
        let reply = Reply::new(200, "content").with("ETag", "\"e1\"").with("Content-Type", "Text/Plain; charset=utf-8");
        reply.with("Last-Modified", "Wed, 21 Oct 2015 07:28:00 GMT")
    });
    // The runtime that brings the pieces lives as long as the bench.
    let bench = bench();
    let mut fetched = open(&bench, &wish(&fake, "/a?b")).unwrap();
    assert_eq!((fetched.etag.as_deref(), fetched.last_modified, fetched.length), (Some("\"e1\""), Some(1_445_412_480), Some(7)));
    assert_eq!((fetched.media_type.as_str(), fetched.not_modified), ("text/plain", false));
    let mut text = String::new();
    fetched.read_to_string(&mut text).unwrap();
    assert_eq!(text, "content");
    assert_eq!(fake.seen()[0].path, "/a?b");
}

#[test]
fn what_did_not_change_is_not_sent() {
    let fake = Fake::start(|seen| if seen.header("if-none-match") == Some("\"e\"") { Reply::new(304, "") } else { Reply::new(200, "x") });
    let bench = bench();
    let request = FetchRequest { etag: Some("\"e\"".into()), ..wish(&fake, "/") };
    assert!(open(&bench, &request).unwrap().not_modified);
    assert!(!open(&bench, &wish(&fake, "/")).unwrap().not_modified);
    // Who asked without a condition is told nothing by such an answer.
    let odd = Fake::start(|_| Reply::new(304, ""));
    assert_eq!(open(&bench, &wish(&odd, "/")).unwrap_err().to_string(), "invalid response status 304");
}

#[test]
fn statuses_are_told_and_passing_ones_are_tried_again() {
    let asked = std::sync::Arc::new(AtomicUsize::new(0));
    let count = std::sync::Arc::clone(&asked);
    let fake = Fake::start(move |seen| match (seen.path.as_str(), count.fetch_add(1, Ordering::SeqCst)) {
        ("/passing", 0) => Reply::new(503, ""),
        ("/passing", _) => Reply::new(200, "here"),
        _ => Reply::new(404, "no such file"),
    });
    let bench = bench();
    assert_eq!(read(&bench, &wish(&fake, "/passing")).unwrap(), b"here");
    assert_eq!(asked.load(Ordering::SeqCst), 2);
    let error = open(&bench, &wish(&fake, "/none")).unwrap_err();
    assert_eq!((error.to_string().as_str(), error.kind()), ("invalid response status 404", ErrorKind::NotFound));
    assert_eq!(asked.load(Ordering::SeqCst), 3);
}

#[test]
fn redirects_are_followed_but_not_for_ever_and_not_to_metadata_services() {
    let fake = Fake::start(|seen| match seen.path.as_str() {
        "/a" => Reply::new(302, "").with("Location", "/b"),
        "/b" => Reply::new(200, "b"),
        "/loop" => Reply::new(301, "").with("Location", "/loop"),
        "/file" => Reply::new(302, "").with("Location", "file:///etc/passwd"),
        _ => Reply::new(302, "").with("Location", "http://169.254.169.254/latest"),
    });
    let bench = bench();
    assert_eq!(read(&bench, &wish(&fake, "/a")).unwrap(), b"b");
    for (path, wanted) in
        [("/loop", "stopped after 10 redirects"), ("/file", "only http and https"), ("/evil", "link-local or a metadata service's")]
    {
        let told = read(&bench, &wish(&fake, path)).unwrap_err();
        assert!(told.contains(wanted), "{told}");
    }
}

#[test]
fn a_password_in_an_address_stays_at_its_host_and_is_not_told() {
    let other = Fake::start(|seen| {
        assert!(seen.header("authorization").is_none());
        Reply::new(404, "")
    });
    let target = format!("http://localhost:{}/", other.address.port());
    let fake = Fake::start(move |seen| {
        assert_eq!(seen.header("authorization"), Some("Basic dTpzZWNyZXQ="));
        Reply::new(302, "").with("Location", target.clone())
    });
    let request = FetchRequest { url: format!("http://u:secret@{}/x", fake.host()), limit: 9, ..FetchRequest::default() };
    let error = open(&bench(), &request).unwrap_err();
    assert!(!format!("{error:?}").contains("secret"), "{error:?}");
    assert_eq!(other.seen().len(), 1);
}

#[test]
fn sizes_have_limits() {
    let fake = Fake::start(|seen| match seen.path.as_str() {
        "/said" => Reply::new(200, vec![0; 101]),
        "/exact" => Reply::new(200, vec![0; 100]),
        _ => Reply::new(200, "x").with("Transfer-Encoding", "identity").then(Then::Endless),
    });
    let bench = bench();
    let limited = |path: &str| FetchRequest { limit: 100, ..wish(&fake, path) };
    assert_eq!(read(&bench, &limited("/exact")).unwrap().len(), 100);
    assert_eq!(read(&bench, &limited("/said")).unwrap_err(), "file is larger than 100 bytes");
    assert_eq!(read(&bench, &limited("/endless")).unwrap_err(), "file is larger than 100 bytes");
}

#[test]
fn broken_and_silent_bodies_are_errors() {
    let cut = Fake::start(|_| Reply::new(200, "half").with("Content-Length", "8").then(Then::Close));
    assert!(read(&bench(), &wish(&cut, "/")).unwrap_err().contains("EOF"));
    let silent = Fake::start(|_| Reply::new(200, "half").with("Content-Length", "8").then(Then::Stall));
    assert!(read(&bench_with(impatient()), &wish(&silent, "/")).unwrap_err().contains("canceled"));
    let nobody = FetchRequest { url: "http://127.0.0.1:1/".into(), ..FetchRequest::default() };
    let error = open(&bench(), &nobody).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("connection refused"), "{error}");
}

#[test]
fn a_proxy_is_asked_and_a_cancelled_fetch_ends() {
    let proxy = Fake::start(|seen| Reply::new(200, seen.path.clone()));
    let mut config = config();
    config.proxies.http = Some(proxy.host());
    let bench = bench_with(config);
    let request = FetchRequest { url: "http://files.example/x".into(), limit: 100, ..FetchRequest::default() };
    assert_eq!(read(&bench, &request).unwrap(), b"http://files.example/x");
    let stalled = Fake::start(|_| Reply::new(200, "half").with("Content-Length", "8").then(Then::Stall));
    let mut fetched = open(&bench, &wish(&stalled, "/")).unwrap();
    let mut half = [0; 4];
    fetched.read_exact(&mut half).unwrap();
    bench.cancel.cancel();
    assert!(fetched.read(&mut half).is_err());
}
