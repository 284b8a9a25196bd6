//! Blobs on bad networks and from registries that lie.

use std::io::Read as _;
use std::sync::atomic::{AtomicUsize, Ordering};

use sampan_base::Failure as _;
use sampan_oci::{Descriptor, Digest};
use sampan_transfer::TransferError;

use crate::fake::{Fake, Reply, Seen, Then};
use crate::{Bench, bench, bench_with, impatient, nobody, reference, user};

fn content() -> Vec<u8> {
    (0..300_000_u32).flat_map(|number| number.to_le_bytes()).collect()
}

fn described(bytes: &[u8]) -> Descriptor {
    Descriptor {
        media_type: String::new(),
        digest: Digest::sha256_of(bytes),
        size: bytes.len() as u64,
        annotations: std::collections::BTreeMap::new(),
        platform: None,
    }
}

fn begin_of(seen: &Seen) -> usize {
    let range = seen.header("range").and_then(|range| range.strip_prefix("bytes=")).and_then(|range| range.strip_suffix('-'));
    range.map_or(0, |begin| begin.parse().unwrap())
}

/// The whole rest as an answer to a range.
fn partial(seen: &Seen, bytes: &[u8]) -> Reply {
    match begin_of(seen) {
        0 => Reply::new(200, bytes),
        begin => Reply::new(206, &bytes[begin..]).with("Content-Range", format!("bytes {begin}-{}/{}", bytes.len() - 1, bytes.len())),
    }
}

fn read(fake: &Fake, descriptor: &Descriptor, offset: u64) -> Result<Vec<u8>, String> {
    read_with(&bench(), fake, descriptor, offset)
}

fn read_with(bench: &Bench, fake: &Fake, descriptor: &Descriptor, offset: u64) -> Result<Vec<u8>, String> {
    let repository = reference(&fake.host(), "x");
    let mut reader = bench.client.blob(&repository, descriptor, offset, &nobody(), &bench.cancel).map_err(|error| error.to_string())?;
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes).map_err(|error| {
        assert!(error.get_ref().is_some_and(|inner| inner.is::<TransferError>()), "{error:?}");
        error.to_string()
    })?;
    Ok(bytes)
}

#[test]
fn a_blob_is_read_from_any_offset() {
    let bytes = content();
    let served = bytes.clone();
    let fake = Fake::start(move |seen| partial(seen, &served));
    let descriptor = described(&bytes);
    for offset in [0, 1, 1_000_000, bytes.len()] {
        assert_eq!(read(&fake, &descriptor, offset as u64).unwrap(), bytes[offset..], "{offset}");
    }
    assert!(read(&fake, &descriptor, bytes.len() as u64 + 1).unwrap_err().contains("behind the end"));
}

#[test]
fn an_empty_blob_is_empty() {
    let fake = Fake::start(|_| Reply::new(200, ""));
    assert_eq!(read(&fake, &described(b""), 0).unwrap(), b"");
}

#[test]
fn a_broken_transfer_goes_on_where_it_broke() {
    let bytes = content();
    let served = bytes.clone();
    let fake = Fake::start(move |seen| {
        let mut reply = partial(seen, &served).with("ETag", "\"e\"");
        if seen.path.contains("/blobs/") && reply.body.len() > 200_000 {
            // More tries than are allowed without progress.
            reply = reply.clone().with("Content-Length", reply.body.len().to_string()).then(Then::Close);
            reply.body.truncate(150_000);
        }
        reply
    });
    assert_eq!(read(&fake, &described(&bytes), 0).unwrap(), bytes);
    let seen: Vec<_> = fake.seen().into_iter().filter(|seen| seen.path.contains("/blobs/")).collect();
    assert_eq!(seen.iter().map(begin_of).collect::<Vec<_>>(), (0..8).map(|count| count * 150_000).collect::<Vec<_>>());
    assert!(seen[1..].iter().all(|seen| seen.header("if-match") == Some("\"e\"")));
}

#[test]
fn a_registry_without_ranges_is_read_again() {
    let bytes = content();
    let served = bytes.clone();
    let count = AtomicUsize::new(0);
    let fake = Fake::start(move |seen| {
        let mut reply = Reply::new(200, served.as_slice()).with("Content-Length", served.len().to_string());
        if seen.path.contains("/blobs/") && count.fetch_add(1, Ordering::SeqCst) == 0 {
            reply = reply.then(Then::Close);
            reply.body.truncate(100_000);
        }
        reply
    });
    assert_eq!(read(&fake, &described(&bytes), 0).unwrap(), bytes);
    assert_eq!(read(&fake, &described(&bytes), 500_000).unwrap(), bytes[500_000..]);
}

#[test]
fn a_stalled_transfer_goes_on_too() {
    let bytes = content();
    let served = bytes.clone();
    let fake = Fake::start(move |seen| {
        let mut reply = partial(seen, &served);
        if seen.path.contains("/blobs/") && begin_of(seen) == 0 {
            reply = reply.clone().with("Content-Length", reply.body.len().to_string()).then(Then::Stall);
            reply.body.truncate(150_000);
        }
        reply
    });
    assert_eq!(read_with(&bench_with(impatient()), &fake, &described(&bytes), 0).unwrap(), bytes);
}

#[test]
fn no_progress_ends_after_all_tries() {
    let fake = Fake::start(|seen| match seen.line().as_str() {
        "GET /v2/" => Reply::new(200, ""),
        _ => Reply::new(200, "").with("Content-Length", "5").then(Then::Close),
    });
    let error = read(&fake, &described(b"12345"), 0).unwrap_err();
    assert!(error.ends_with("unexpected EOF"), "{error}");
    assert_eq!(fake.lines().len(), 3);
}

#[test]
fn pauses_are_told_and_downloads_have_tries_of_their_own() {
    let fake = Fake::start(|seen| match seen.line().as_str() {
        "GET /v2/" => Reply::new(200, ""),
        _ => Reply::new(200, "").with("Content-Length", "5").then(Then::Close),
    });
    let mut config = crate::config();
    config.timing.download_attempts = 5;
    let bench = bench_with(config);
    let told = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let list = std::sync::Arc::clone(&told);
    let client = bench.client.telling(move |seconds| list.lock().unwrap().push(seconds));
    let mut reader = client.blob(&reference(&fake.host(), "x"), &described(b"12345"), 0, &nobody(), &bench.cancel).unwrap();
    assert!(reader.read_to_end(&mut Vec::new()).is_err());
    assert_eq!(*told.lock().unwrap(), [1; 4], "pauses of less than a second");
    assert_eq!(fake.seen().iter().filter(|seen| seen.path.contains("/blobs/")).count(), 5);
}

#[test]
fn wrong_lengths_are_errors() {
    for (reply, wanted) in [
        (Reply::new(200, "1234"), "expected 5 bytes, received 4"),
        (Reply::new(200, "123456"), "expected 5 bytes, received 6"),
        (Reply::new(200, "").then(Then::Endless), "expected 5 bytes, received more than 5"),
        (Reply::new(200, "4\r\n1234\r\n0\r\n\r\n").with("Transfer-Encoding", "chunked"), "expected 5 bytes, received 4"),
        (Reply::new(206, "12345"), "the wrong Content-Range"),
        (Reply::new(206, "12345").with("Content-Range", "bytes 0-4/6"), "the wrong Content-Range"),
        (Reply::refusal(404, "BLOB_UNKNOWN", "blob unknown to registry"), "blob unknown: blob unknown to registry"),
    ] {
        let served = reply.clone();
        let fake = Fake::start(move |seen| if seen.line() == "GET /v2/" { Reply::new(200, "") } else { served.clone() });
        let error = read(&fake, &described(b"12345"), 0).unwrap_err();
        assert!(error.contains(wanted), "{reply:?}: {error}");
    }
}

#[test]
fn a_tag_of_another_server_is_given_up() {
    let fake = Fake::start(|seen| match (seen.line().as_str(), begin_of(seen)) {
        ("GET /v2/", _) => Reply::new(200, ""),
        (_, 0) => Reply::new(200, "123").with("Content-Length", "5").with("ETag", "\"a\"").then(Then::Close),
        _ if seen.header("if-match") == Some("\"a\"") => Reply::new(412, ""),
        _ => Reply::new(206, "45").with("Content-Range", "bytes 3-4/5"),
    });
    assert_eq!(read(&fake, &described(b"12345"), 0).unwrap(), b"12345");
    assert_eq!(fake.lines().len(), 3);
}

#[test]
fn documents_are_checked() {
    let fake = Fake::start(|_| Reply::new(200, "12345"));
    let bench = bench();
    let repository = reference(&fake.host(), "x");
    let get = |descriptor: &Descriptor, limit| bench.client.document(&repository, descriptor, limit, &nobody(), &bench.cancel);
    assert_eq!(get(&described(b"12345"), 5).unwrap(), b"12345");
    assert!(get(&described(b"54321"), 5).unwrap_err().to_string().contains("does not match its digest"));
    assert_eq!(get(&described(b"12345"), 4).unwrap_err().to_string(), "document is larger than 4 bytes");
}

#[test]
fn cancelling_ends_every_wait() {
    let fake = Fake::start(|seen| match seen.line().as_str() {
        "GET /v2/" => Reply::new(200, ""),
        "GET /v2/x/manifests/t" => Reply::new(429, "").with("Retry-After", "3600"),
        _ => Reply::new(200, "123").with("Content-Length", "5").then(Then::Stall),
    });
    let mut config = crate::config();
    config.timing.stall = std::time::Duration::from_secs(3600);
    config.timing.longest_pause = std::time::Duration::from_secs(3600);
    let bench = crate::bench_with(config);
    let repository = reference(&fake.host(), "x:t");
    let mut reader = bench.client.blob(&repository, &described(b"12345"), 0, &nobody(), &bench.cancel).unwrap();
    reader.read_exact(&mut [0; 3]).unwrap();
    std::thread::scope(|scope| {
        let reading = scope.spawn(|| reader.read(&mut [0; 1]).unwrap_err().to_string());
        let pausing = scope.spawn(|| bench.client.manifest(&repository, &nobody(), &bench.cancel).unwrap_err().to_string());
        bench.cancel.cancel();
        assert_eq!(reading.join().unwrap(), "context canceled");
        assert_eq!(pausing.join().unwrap(), "context canceled");
    });
    let error = bench.client.manifest(&repository, &nobody(), &bench.cancel).unwrap_err();
    assert_eq!(error.kind(), sampan_base::ErrorKind::Cancelled);
}

#[test]
fn cancelling_ends_a_connection_that_is_being_made() {
    // Whoever listens and never accepts lets the handshake wait.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let mut config = crate::config();
    config.timing.connect = std::time::Duration::from_secs(3600);
    config.timing.stall = std::time::Duration::from_secs(3600);
    let bench = crate::bench_with(config);
    std::thread::scope(|scope| {
        let pulling = scope.spawn(|| bench.client.manifest(&reference(&host, "x:t"), &nobody(), &bench.cancel).unwrap_err());
        let _connected = listener.accept().unwrap();
        bench.cancel.cancel();
        assert_eq!(pulling.join().unwrap().to_string(), "context canceled");
    });
}

#[test]
fn a_trickle_ends() {
    let fake = Fake::start(|seen| match seen.line().as_str() {
        "GET /v2/" => Reply::new(200, ""),
        _ => Reply::new(200, "").with("Content-Type", sampan_oci::media::INDEX).then(Then::Trickle),
    });
    let bench = bench_with(impatient());
    let error = bench.client.manifest(&reference(&fake.host(), "x:t"), &nobody(), &bench.cancel).unwrap_err();
    assert!(error.to_string().ends_with("while reading body)"), "{error}");
}

#[test]
fn a_redirect_to_another_place_gets_no_credentials() {
    let bytes = content();
    let served = bytes.clone();
    let store = Fake::start(move |seen| partial(seen, &served));
    let target = format!("http://thief:secret@{}/store?sig=1", store.host());
    let fake = Fake::start(move |seen| match (seen.line().as_str(), seen.header("authorization")) {
        (_, None) => Reply::refusal(401, "UNAUTHORIZED", "a").with("WWW-Authenticate", "Basic realm=x"),
        ("GET /v2/", _) => Reply::new(200, ""),
        _ => Reply::new(307, "").with("Location", target.as_str()),
    });
    let bench = bench();
    let mut reader = bench.client.blob(&reference(&fake.host(), "x"), &described(&bytes), 7, &user(), &bench.cancel).unwrap();
    let mut read = Vec::new();
    reader.read_to_end(&mut read).unwrap();
    assert_eq!(read, bytes[7..]);
    assert!(fake.seen().last().unwrap().header("authorization").is_some());
    let seen = store.seen();
    assert_eq!((seen.len(), seen[0].header("authorization"), seen[0].header("range")), (1, None, Some("bytes=7-")));
}

#[test]
fn redirects_end() {
    let fake = Fake::start(|seen| match seen.line().as_str() {
        "GET /v2/" => Reply::new(200, ""),
        _ => Reply::new(302, "").with("Location", "/v2/x/again"),
    });
    let error = read(&fake, &described(b"12345"), 0).unwrap_err();
    assert!(error.ends_with("stopped after 10 redirects"), "{error}");
}

#[test]
fn no_redirect_leads_to_a_metadata_service() {
    for target in ["http://169.254.169.254/latest/meta-data/", "http://[fe80::1]/", "http://0xA9FEA9FE/x", "ftp://h/x", "http:///"] {
        let fake = Fake::start(move |seen| match seen.line().as_str() {
            "GET /v2/" => Reply::new(200, ""),
            _ => Reply::new(302, "").with("Location", target),
        });
        let error = read(&fake, &described(b"12345"), 0).unwrap_err();
        assert!(error.contains("refusing to follow to") || error.contains("Location"), "{target}: {error}");
        assert_eq!(fake.lines().len(), 1);
    }
}

#[test]
fn foreign_layers_come_without_credentials() {
    let fake = Fake::start(|seen| if seen.path == "/layer" { Reply::new(200, "12345") } else { Reply::new(404, "none") });
    let bench = bench();
    let urls = [format!("http://{}/gone", fake.host()), format!("http://u:p@{}/layer", fake.host())];
    let mut read = String::new();
    let mut reader = bench.client.foreign_blob(&urls, &described(b"12345"), 0, &bench.cancel).unwrap();
    reader.read_to_string(&mut read).unwrap();
    assert_eq!(read, "12345");
    assert!(fake.seen().iter().all(|seen| seen.header("authorization").is_none()));
    for bad in ["file:///etc/passwd", "http://169.254.169.254/"] {
        assert!(bench.client.foreign_blob(&[bad.to_owned()], &described(b"12345"), 0, &bench.cancel).is_err());
    }
}
