//! Manifests: types, sizes, digests, and the words for what is not there.

use std::time::Duration;

use sampan_base::{ErrorKind, Failure as _};
use sampan_oci::{Digest, media};

use crate::fake::{Fake, Reply, Then};
use crate::{bench, nobody, reference};

const BODY: &str = r#"{"schemaVersion":2,"manifests":[]}"#;

#[test]
fn a_manifest_comes_by_tag_and_by_digest() {
    let fake = Fake::start(|seen| match seen.line().as_str() {
        "GET /v2/" => Reply::new(200, "{}"),
        _ => Reply::new(200, BODY).with("Content-Type", format!("{}; charset=utf-8", media::INDEX)),
    });
    let bench = bench();
    let digest = Digest::sha256_of(BODY.as_bytes());
    for rest in ["a/b:t".to_owned(), "a/b".to_owned(), format!("a/b@{digest}")] {
        let found = bench.client.manifest(&reference(&fake.host(), &rest), &nobody(), &bench.cancel).unwrap();
        assert_eq!((found.media_type.as_str(), found.bytes.as_slice(), &found.digest), (media::INDEX, BODY.as_bytes(), &digest));
    }
    let wanted: Vec<_> = ["t", "latest", digest.as_str()].iter().map(|last| format!("GET /v2/a/b/manifests/{last}")).collect();
    assert_eq!(fake.lines(), wanted);
    assert_eq!(fake.seen()[0].header("user-agent"), Some("test/1"));
    assert!(fake.seen()[1].headers.iter().any(|(name, value)| name == "accept" && value.contains(media::DOCKER_LIST)));
}

#[test]
fn a_type_that_says_nothing_is_looked_up_inside() {
    let fake = Fake::start(|_| Reply::new(200, BODY).with("Content-Type", "application/json"));
    let bench = bench();
    let found = bench.client.manifest(&reference(&fake.host(), "x:t"), &nobody(), &bench.cancel).unwrap();
    assert_eq!(found.media_type, media::INDEX);
}

#[test]
fn other_bytes_than_those_of_the_digest_are_refused() {
    let fake = Fake::start(|_| Reply::new(200, "{}").with("Content-Type", media::INDEX));
    let bench = bench();
    let digest = Digest::sha256_of(BODY.as_bytes());
    let error = bench.client.manifest(&reference(&fake.host(), &format!("x@{digest}")), &nobody(), &bench.cancel).unwrap_err();
    assert!(error.to_string().starts_with(&format!("content of {digest} does not match its digest")), "{error}");
}

#[test]
fn a_huge_manifest_is_not_read() {
    let bench = bench();
    let told = Fake::start(|seen| match seen.line().as_str() {
        "GET /v2/" => Reply::new(200, ""),
        _ => Reply::new(200, "").with("Content-Length", "4194305").then(Then::Stall),
    });
    let untold = Fake::start(|seen| match seen.line().as_str() {
        "GET /v2/" => Reply::new(200, ""),
        _ => Reply::new(200, "").then(Then::Endless),
    });
    for fake in [told, untold] {
        let error = bench.client.manifest(&reference(&fake.host(), "x:t"), &nobody(), &bench.cancel).unwrap_err();
        assert_eq!(error.to_string(), "manifest is larger than 4194304 bytes");
    }
}

#[test]
fn refusals_have_dockers_words() {
    let fake = Fake::start(|seen| match seen.line().as_str() {
        "GET /v2/" => Reply::new(200, "{}"),
        line if line.ends_with("/unknown") => Reply::refusal(404, "MANIFEST_UNKNOWN", "manifest unknown"),
        line if line.ends_with("/name") => Reply::refusal(404, "NAME_UNKNOWN", "repository name not known to registry"),
        line if line.ends_with("/denied") => Reply::refusal(403, "DENIED", "requested access to the resource is denied"),
        line if line.ends_with("/many") => Reply::refusal(429, "TOOMANYREQUESTS", "You have reached your pull rate limit"),
        line if line.ends_with("/text") => Reply::new(404, "boom"),
        _ => Reply::new(500, "boom"),
    });
    let bench = bench();
    let host = fake.host();
    for (tag, kind, wanted) in [
        ("unknown", ErrorKind::NotFound, format!("manifest for {host}/x:unknown not found: manifest unknown: manifest unknown")),
        ("name", ErrorKind::NotFound, format!("repository {host}/x not found: name unknown: repository name not known to registry")),
        (
            "denied",
            ErrorKind::NotFound,
            format!(
                "pull access denied for {host}/x, repository does not exist or may require 'docker login': denied: requested access to the resource is denied"
            ),
        ),
        ("many", ErrorKind::Unavailable, "toomanyrequests: You have reached your pull rate limit".to_owned()),
        ("text", ErrorKind::NotFound, "unknown: boom".to_owned()),
        ("fault", ErrorKind::Internal, "received unexpected HTTP status: 500 Internal Server Error".to_owned()),
    ] {
        let error = bench.client.manifest(&reference(&host, &format!("x:{tag}")), &nobody(), &bench.cancel).unwrap_err();
        assert_eq!((error.to_string(), error.kind()), (wanted, kind));
    }
    let count = |tag: &str| fake.lines().iter().filter(|line| line.ends_with(tag)).count();
    assert_eq!((count("unknown"), count("many"), count("fault")), (1, 3, 3), "only passing troubles are tried again");
}

#[test]
fn a_busy_registry_is_asked_again() {
    let count = std::sync::atomic::AtomicUsize::new(0);
    let fake = Fake::start(move |seen| match seen.line().as_str() {
        "GET /v2/" => Reply::new(200, "{}"),
        _ => match count.fetch_add(1, std::sync::atomic::Ordering::SeqCst) {
            0 => Reply::new(429, "").with("Retry-After", "3600"),
            1 => Reply::new(503, "").then(Then::Close),
            _ => Reply::new(200, BODY).with("Content-Type", media::INDEX),
        },
    });
    let bench = bench();
    bench.client.manifest(&reference(&fake.host(), "x:t"), &nobody(), &bench.cancel).unwrap();
    assert_eq!(fake.lines().len(), 3);
}

#[test]
fn retry_after_is_honoured() {
    let first = std::sync::Mutex::new(None);
    let fake = Fake::start(move |seen| match seen.line().as_str() {
        "GET /v2/" => Reply::new(200, "{}"),
        _ => match *first.lock().unwrap().get_or_insert_with(std::time::Instant::now) {
            begin if begin.elapsed() < Duration::from_millis(900) => Reply::new(429, "").with("Retry-After", "1"),
            _ => Reply::new(200, BODY).with("Content-Type", media::INDEX),
        },
    });
    let mut config = crate::config();
    config.timing.longest_pause = Duration::from_secs(5);
    config.timing.attempts = 2;
    let bench = crate::bench_with(config);
    bench.client.manifest(&reference(&fake.host(), "x:t"), &nobody(), &bench.cancel).unwrap();
}

#[test]
fn head_tells_what_there_is() {
    let digest = Digest::sha256_of(BODY.as_bytes());
    let said = digest.to_string();
    let fake = Fake::start(move |seen| match seen.line().as_str() {
        "GET /v2/" => Reply::new(200, "{}"),
        "HEAD /v2/x/manifests/there" => {
            Reply::new(200, BODY).with("Content-Type", media::INDEX).with("Docker-Content-Digest", said.as_str())
        }
        "HEAD /v2/x/manifests/old" => Reply::new(405, ""),
        "HEAD /v2/x/manifests/terse" => Reply::new(200, ""),
        "GET /v2/x/manifests/old" | "GET /v2/x/manifests/terse" => Reply::new(200, BODY).with("Content-Type", media::INDEX),
        _ => Reply::refusal(404, "MANIFEST_UNKNOWN", "m"),
    });
    let bench = bench();
    for tag in ["there", "old", "terse"] {
        let found = bench.client.head_manifest(&reference(&fake.host(), &format!("x:{tag}")), &nobody(), &bench.cancel).unwrap().unwrap();
        assert_eq!((found.digest, found.size, found.media_type.as_str()), (digest.clone(), BODY.len() as u64, media::INDEX), "{tag}");
    }
    assert_eq!(bench.client.head_manifest(&reference(&fake.host(), "x:none"), &nobody(), &bench.cancel).unwrap(), None);
}

#[test]
fn manifests_are_sent_and_deleted() {
    let fake = Fake::start(|seen| match seen.line().as_str() {
        "PUT /v2/x/manifests/t" => Reply::new(201, "").with("Docker-Content-Digest", Digest::sha256_of(&seen.body).to_string()),
        "PUT /v2/x/manifests/liar" => Reply::new(201, "").with("Docker-Content-Digest", Digest::sha256_of(b"other").to_string()),
        "PUT /v2/x/manifests/bad" => Reply::refusal(400, "MANIFEST_INVALID", "manifest invalid"),
        "DELETE /v2/x/manifests/t" => Reply::new(202, ""),
        _ => Reply::new(200, "{}"),
    });
    let bench = bench();
    let put = |tag: &str| {
        bench.client.put_manifest(&reference(&fake.host(), &format!("x:{tag}")), media::INDEX, BODY.as_bytes(), &nobody(), &bench.cancel)
    };
    assert_eq!(put("t").unwrap(), Digest::sha256_of(BODY.as_bytes()));
    assert_eq!(put("bad").unwrap_err().to_string(), "manifest invalid: manifest invalid");
    assert!(put("liar").unwrap_err().to_string().contains("does not match its digest"));
    let sent = fake.seen().into_iter().find(|seen| seen.method == "PUT").unwrap();
    assert_eq!((sent.header("content-type"), sent.body.as_slice()), (Some(media::INDEX), BODY.as_bytes()));
    bench.client.delete_manifest(&reference(&fake.host(), "x:t"), &nobody(), &bench.cancel).unwrap();
}
