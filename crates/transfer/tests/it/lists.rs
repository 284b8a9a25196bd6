//! Lists in pages, referrers, search.

use sampan_oci::Digest;

use crate::fake::{Fake, Reply, Then};
use crate::{bench, nobody, reference};

#[test]
fn pages_are_followed() {
    let fake = Fake::start(|seen| match seen.query() {
        "n=1000" => Reply::new(200, r#"{"tags":["a","b","not a tag","../x"]}"#).with("Link", "</v2/x/tags/list?last=b&n=2>; rel=\"next\""),
        "last=b&n=2" => Reply::new(200, r#"{"tags":["c"]}"#).with("Link", "<?last=c>; rel=\"next\""),
        _ => Reply::new(200, r#"{"name":"x","tags":null}"#),
    });
    let bench = bench();
    assert_eq!(bench.client.tags(&reference(&fake.host(), "x"), &nobody(), &bench.cancel).unwrap(), ["a", "b", "c"]);
}

#[test]
fn lists_without_end_end() {
    let bench = bench();
    for (reply, wanted) in [
        (Reply::new(200, r#"{"tags":["a"]}"#).with("Link", "<?n=1000>; rel=next"), "form a circle"),
        (Reply::new(200, r#"{"tags":["a"]}"#).with("Link", "<http://elsewhere.example/>; rel=next"), "lies elsewhere"),
        (Reply::new(200, "").then(Then::Endless), "list is larger than 8388608 bytes"),
        (Reply::new(200, "3"), "a list that is none"),
        (
            Reply::refusal(404, "NAME_UNKNOWN", "repository name not known to registry"),
            "name unknown: repository name not known to registry",
        ),
    ] {
        let served = reply.clone();
        let fake = Fake::start(move |seen| if seen.line() == "GET /v2/" { Reply::new(200, "") } else { served.clone() });
        let error = bench.client.tags(&reference(&fake.host(), "x"), &nobody(), &bench.cancel).unwrap_err().to_string();
        assert!(error.contains(wanted), "{reply:?}: {error}");
    }
    let fake = Fake::start(|seen| {
        let number: u32 = seen.query().rsplit('=').next().unwrap_or_default().parse().unwrap_or(0);
        Reply::new(200, r#"{"tags":["a"]}"#).with("Link", format!("<?l={}>; rel=next", number + 1))
    });
    let error = bench.client.tags(&reference(&fake.host(), "x"), &nobody(), &bench.cancel).unwrap_err().to_string();
    assert!(error.contains("a list of more than 2000 pages"), "{error}");
}

#[test]
fn the_catalog_is_read_up_to_a_limit() {
    let fake = Fake::start(|seen| match seen.line().as_str() {
        "GET /v2/_catalog" => {
            Reply::new(200, r#"{"repositories":["a","b/c","Bad","d"]}"#).with("Link", format!("<?x{}>; rel=next", seen.query().len()))
        }
        "GET /v2/" => Reply::new(200, "{}"),
        _ => Reply::new(404, "no search here"),
    });
    let bench = bench();
    assert_eq!(bench.client.catalog(&fake.host(), 5, &nobody(), &bench.cancel).unwrap(), ["a", "b/c", "d", "a", "b/c"]);
}

#[test]
fn search_asks_or_filters() {
    let bench = bench();
    let old = Fake::start(|seen| match seen.line().as_str() {
        "GET /v1/search" => Reply::new(
            200,
            r#"{"num_results":1,"results":[{"name":"x","description":"d","star_count":3,"is_official":true,"is_automated":false}]}"#,
        ),
        _ => Reply::new(200, "{}"),
    });
    let found = bench.client.search(&old.host(), "a b", 25, &nobody(), &bench.cancel).unwrap();
    assert_eq!((found[0].name.as_str(), found[0].stars, found[0].official), ("x", 3, true));
    assert_eq!(old.seen().pop().unwrap().query(), "q=a+b&n=25");
    for web_page in [false, true] {
        let new = Fake::start(move |seen| match seen.line().as_str() {
            "GET /v2/_catalog" => Reply::new(200, r#"{"repositories":["shop/web","shop/db","other"]}"#),
            "GET /v2/" => Reply::new(200, "{}"),
            _ if web_page => Reply::new(200, "<html>"),
            _ => Reply::new(404, ""),
        });
        let found = bench.client.search(&new.host(), "Shop", 25, &nobody(), &bench.cancel).unwrap();
        assert_eq!(found.iter().map(|item| item.name.as_str()).collect::<Vec<_>>(), ["shop/web", "shop/db"]);
    }
}

#[test]
fn referrers_come_from_the_list_or_from_the_tag() {
    let subject = Digest::sha256_of(b"subject");
    let (one, two) = (Digest::sha256_of(b"1"), Digest::sha256_of(b"2"));
    let index = format!(
        r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"m","digest":"{one}","size":1,"artifactType":"a/b"}},{{"mediaType":"m","digest":"{two}","size":2}}]}}"#
    );
    let bench = bench();
    for listed in [true, false] {
        let (index, subject) = (index.clone(), subject.clone());
        let tag = format!("GET /v2/x/manifests/sha256-{}", subject.hex());
        let fake = Fake::start(move |seen| match seen.line().as_str() {
            "GET /v2/" => Reply::new(200, "{}"),
            line if line.contains("/referrers/") && listed => Reply::new(200, index.as_str()),
            line if line == tag => Reply::new(200, index.as_str()).with("Content-Type", sampan_oci::media::INDEX),
            _ => Reply::refusal(404, "MANIFEST_UNKNOWN", "none"),
        });
        let subject = Digest::sha256_of(b"subject");
        let list = |digest: &Digest, kind| {
            let found = bench.client.referrers(&reference(&fake.host(), "x"), digest, kind, &nobody(), &bench.cancel).unwrap();
            found.into_iter().map(|descriptor| descriptor.digest).collect::<Vec<_>>()
        };
        assert_eq!(list(&subject, None), [one.clone(), two.clone()]);
        assert_eq!(list(&subject, Some("a/b")), std::slice::from_ref(&one));
        if !listed {
            assert!(list(&one, None).is_empty());
        }
    }
}
