//! What the distribution specification asks of a registry, check by check.

use crate::client::{INDEX, Server, sha256, sha512};

fn check(server: &Server, method: &str, path: &str, status: u16, code: &str) {
    let answer = server.send(method, path, &[], b"");
    assert_eq!(answer.status, status, "{method} {path}: {answer:?}");
    if method != "HEAD" && !code.is_empty() {
        assert_eq!(answer.code(), code, "{method} {path}");
    }
    assert_eq!(answer.header("docker-distribution-api-version"), Some("registry/2.0"));
}

#[test]
fn errors_have_status_and_code() {
    let server = Server::open();
    let none = sha256(b"none");
    let none512 = sha512(b"none");
    server.push_image("a", "x", b"layer");
    let id = "0".repeat(32);
    let table = [
        ("GET", "/v2/".to_owned(), 401, "UNAUTHORIZED"),
        ("GET", format!("/v2/a/blobs/{none}"), 404, "BLOB_UNKNOWN"),
        ("HEAD", format!("/v2/a/blobs/{none}"), 404, ""),
        ("GET", format!("/v2/a/blobs/{none512}"), 404, "BLOB_UNKNOWN"),
        ("GET", "/v2/a/blobs/sha256:0".into(), 400, "DIGEST_INVALID"),
        ("GET", "/v2/a/blobs/md5:d41d8cd98f00b204e9800998ecf8427e".into(), 400, "DIGEST_INVALID"),
        ("DELETE", format!("/v2/a/blobs/{none}"), 404, "BLOB_UNKNOWN"),
        ("GET", "/v2/a/manifests/none".into(), 404, "MANIFEST_UNKNOWN"),
        ("GET", "/v2/a/manifests/.INVALID_MANIFEST_NAME".into(), 404, "MANIFEST_UNKNOWN"),
        ("PUT", "/v2/a/manifests/.INVALID_MANIFEST_NAME".into(), 400, "MANIFEST_INVALID"),
        ("HEAD", "/v2/a/manifests/none".into(), 404, ""),
        ("GET", format!("/v2/a/manifests/{none}"), 404, "MANIFEST_UNKNOWN"),
        ("GET", "/v2/a/manifests/sha256:xyz".into(), 400, "DIGEST_INVALID"),
        ("DELETE", "/v2/a/manifests/none".into(), 404, "MANIFEST_UNKNOWN"),
        ("DELETE", format!("/v2/a/manifests/{none}"), 404, "MANIFEST_UNKNOWN"),
        ("PUT", "/v2/a/manifests/x".into(), 400, "MANIFEST_INVALID"),
        ("GET", "/v2/none/tags/list".into(), 404, "NAME_UNKNOWN"),
        ("GET", "/v2/a/tags/list?n=x".into(), 400, "PAGINATION_NUMBER_INVALID"),
        ("GET", "/v2/_catalog?n=-1".into(), 400, "PAGINATION_NUMBER_INVALID"),
        ("GET", "/v2/A/tags/list".into(), 400, "NAME_INVALID"),
        ("GET", "/v2/a/referrers/sha256:0".into(), 400, "DIGEST_INVALID"),
        ("GET", format!("/v2/a/blobs/uploads/{id}"), 404, "BLOB_UPLOAD_UNKNOWN"),
        ("PATCH", format!("/v2/a/blobs/uploads/{id}"), 404, "BLOB_UPLOAD_UNKNOWN"),
        ("PUT", format!("/v2/a/blobs/uploads/{id}?digest={none}"), 404, "BLOB_UPLOAD_UNKNOWN"),
        ("PUT", format!("/v2/a/blobs/uploads/{id}"), 400, "DIGEST_INVALID"),
        ("DELETE", format!("/v2/a/blobs/uploads/{id}"), 404, "BLOB_UPLOAD_UNKNOWN"),
        ("GET", "/v2/a/blobs/uploads/strange".into(), 404, "BLOB_UPLOAD_UNKNOWN"),
        ("POST", "/v2/a/blobs/uploads/?digest=sha256:0".into(), 400, "DIGEST_INVALID"),
        ("POST", "/v2/a/blobs/uploads/?mount=sha256:0&from=b".into(), 400, "DIGEST_INVALID"),
        ("POST", "/v2/a/blobs/uploads/?digest-algorithm=md5".into(), 400, "DIGEST_INVALID"),
        ("POST", "/v2/a/manifests/x".into(), 405, "UNSUPPORTED"),
        ("BREW", "/v2/a/manifests/x".into(), 405, "UNSUPPORTED"),
        ("GET", "/nothing".into(), 404, "UNSUPPORTED"),
    ];
    for (method, path, status, code) in &table {
        check(&server, method, path, *status, code);
    }
}

#[test]
fn a_method_that_is_not_there_names_those_that_are() {
    let server = Server::open();
    let digest = sha256(b"none");
    for (path, methods) in [
        ("/v2/a/manifests/x".to_owned(), "GET, HEAD, PUT, DELETE"),
        (format!("/v2/a/blobs/{digest}"), "GET, HEAD, DELETE"),
        ("/v2/a/blobs/uploads/".to_owned(), "POST"),
        (format!("/v2/a/blobs/uploads/{}", "0".repeat(32)), "GET, HEAD, PATCH, PUT, DELETE"),
        ("/v2/a/tags/list".to_owned(), "GET, HEAD"),
        (format!("/v2/a/referrers/{digest}"), "GET, HEAD"),
        ("/token".to_owned(), "GET, POST"),
    ] {
        let answer = server.send("BREW", &path, &[], b"");
        assert_eq!((answer.status, answer.code().as_str(), answer.header("allow")), (405, "UNSUPPORTED", Some(methods)), "{path}");
    }
}

#[test]
fn a_refused_chunk_leaves_the_connection_as_it_was() {
    let server = Server::open();
    let place = server.start("a");
    let mut stream = server.connect();
    let body = vec![b'x'; 32 << 20];
    for (range, status) in [("7-33554438", 416), ("0-33554431", 202)] {
        let length = body.len();
        let head = format!("PATCH {place} HTTP/1.1\r\nHost: x\r\nContent-Range: {range}\r\nContent-Length: {length}\r\n\r\n");
        std::io::Write::write_all(&mut stream, head.as_bytes()).unwrap();
        std::io::Write::write_all(&mut stream, &body).unwrap();
        assert_eq!(crate::client::Answer::read(&mut stream, false).status, status, "{range}");
    }
}

#[test]
fn blobs_come_whole_and_in_chunks() {
    let server = Server::open();
    let content = b"a blob in three chunks";
    let digest = sha256(content);
    // POST and PUT.
    let place = server.start("a");
    let answer = server.send("PUT", &format!("{place}?digest={digest}"), &[("Content-Type", "application/octet-stream")], content);
    assert_eq!(answer.status, 201, "{answer:?}");
    assert_eq!(answer.header("location").unwrap(), format!("/v2/a/blobs/{digest}"));
    assert_eq!(answer.header("docker-content-digest"), Some(digest.as_str()));
    // In chunks, the last one in the PUT.
    for digest in [sha256(content), sha512(content)] {
        let place = server.start("b/c");
        let answer = server.send("PATCH", &place, &[("Content-Range", "0-6")], &content[..7]);
        assert_eq!((answer.status, answer.header("range")), (202, Some("0-6")), "{answer:?}");
        let wrong = server.send("PATCH", &place, &[("Content-Range", "0-6")], &content[..7]);
        assert_eq!((wrong.status, wrong.header("range"), wrong.code().as_str()), (416, Some("0-6"), "RANGE_INVALID"), "{wrong:?}");
        let behind = server.send("PATCH", &place, &[("Content-Range", "9-10")], b"xx");
        assert_eq!(behind.status, 416);
        let odd = server.send("PATCH", &place, &[("Content-Range", "seven")], b"xx");
        assert_eq!(odd.status, 416);
        let short = server.send("PATCH", &place, &[("Content-Range", "7-20")], b"xx");
        assert_eq!((short.status, short.code().as_str()), (400, "SIZE_INVALID"));
        let status = server.get(&place);
        assert_eq!((status.status, status.header("range"), status.header("location")), (204, Some("0-6"), Some(place.as_str())));
        assert_eq!(server.send("PATCH", &place, &[], &content[7..10]).header("range"), Some("0-9"));
        let last = server.send("PUT", &format!("{place}?digest={digest}"), &[("Content-Range", "0-3")], &content[10..]);
        assert_eq!(last.status, 416, "{last:?}");
        let range = format!("10-{}", content.len() - 1);
        let last = server.send("PUT", &format!("{place}?digest={digest}"), &[("Content-Range", &range)], &content[10..]);
        assert_eq!(last.status, 201, "{last:?}");
        assert_eq!(server.get(&place).status, 404, "the upload is over");
        let answer = server.get(&format!("/v2/b/c/blobs/{digest}"));
        assert_eq!((answer.status, answer.body.as_slice()), (200, content.as_slice()));
        assert_eq!(answer.header("docker-content-digest"), Some(digest.as_str()));
    }
    // A single POST, of nothing too.
    assert_eq!(server.push("d", b""), sha256(b""));
    let empty = server.get(&format!("/v2/d/blobs/{}", sha256(b"")));
    assert_eq!((empty.status, empty.body.len()), (200, 0));
    // With another algorithm from the start.
    let place = server.send("POST", "/v2/d/blobs/uploads/?digest-algorithm=sha512", &[], b"").header("location").unwrap().to_owned();
    assert_eq!(server.send("PUT", &format!("{place}?digest={}", sha512(b"x")), &[], b"x").status, 201);
    // Cancelled.
    let place = server.start("d");
    assert_eq!(server.send("DELETE", &place, &[], b"").status, 204);
    assert_eq!(server.send("PATCH", &place, &[], b"x").status, 404);
}

#[test]
fn blobs_are_served_in_parts() {
    let server = Server::open();
    let content: Vec<u8> = (0..3_000_000_u32).map(|number| u8::try_from(number % 251).unwrap()).collect();
    let path = format!("/v2/a/blobs/{}", server.push("a", &content));
    let head = server.send("HEAD", &path, &[], b"");
    assert_eq!((head.status, head.header("content-length")), (200, Some("3000000")));
    let tag = head.header("etag").unwrap().to_owned();
    let range = |range: &str| server.send("GET", &path, &[("Range", range)], b"");
    let part = range("bytes=1048570-2097160");
    assert_eq!((part.status, part.header("content-range")), (206, Some("bytes 1048570-2097160/3000000")));
    assert_eq!(part.body, content[1_048_570..=2_097_160]);
    assert_eq!(range("bytes=-5").body, content[2_999_995..]);
    assert_eq!(range("bytes=2999999-").body.len(), 1);
    let behind = range("bytes=3000000-");
    assert_eq!((behind.status, behind.header("content-range")), (416, Some("bytes */3000000")));
    assert_eq!(range("bytes=5-1").status, 416);
    assert_eq!(range("bytes=0-1,5-6").body.len(), 3_000_000);
    assert_eq!(server.get(&path).body, content);
    assert_eq!(server.send("GET", &path, &[("If-None-Match", &tag)], b"").status, 304);
    assert_eq!(server.send("GET", &path, &[("If-None-Match", "\"other\"")], b"").status, 200);
    assert_eq!(server.send("GET", &path, &[("Range", "bytes=0-0"), ("If-Range", &tag)], b"").status, 206);
    assert_eq!(server.send("GET", &path, &[("Range", "bytes=0-0"), ("If-Range", "\"other\"")], b"").status, 200);
}

#[test]
fn blobs_are_mounted() {
    let server = Server::open();
    let digest = server.push("from", b"shared");
    let mount = |query: String| server.send("POST", &format!("/v2/to/blobs/uploads/?{query}"), &[], b"");
    assert_eq!(server.get(&format!("/v2/to/blobs/{digest}")).status, 404, "a blob is of the repositories that have it");
    let wrong = mount(format!("mount={}&from=from", sha256(b"other")));
    assert_eq!(wrong.status, 202);
    assert!(wrong.header("location").unwrap().starts_with("/v2/to/blobs/uploads/"));
    assert_eq!(mount(format!("mount={digest}&from=nowhere")).status, 202);
    let done = mount(format!("mount={digest}&from=from"));
    assert_eq!((done.status, done.header("location").unwrap()), (201, format!("/v2/to/blobs/{digest}").as_str()));
    assert_eq!(server.get(&format!("/v2/to/blobs/{digest}")).body, b"shared");
    // From wherever it is.
    assert_eq!(server.send("POST", &format!("/v2/third/blobs/uploads/?mount={digest}"), &[], b"").status, 201);
    // Taken away in one place alone.
    assert_eq!(server.send("DELETE", &format!("/v2/to/blobs/{digest}"), &[], b"").status, 202);
    assert_eq!(server.get(&format!("/v2/to/blobs/{digest}")).status, 404);
    assert_eq!(server.get(&format!("/v2/from/blobs/{digest}")).status, 200);
}

#[test]
fn manifests_are_kept_byte_for_byte() {
    let server = Server::open();
    let manifest = format!(" {}\n", server.image("a", b"layer", ""));
    let answer = server.put("a", "one", &manifest);
    let digest = sha256(manifest.as_bytes());
    assert_eq!((answer.status, answer.header("docker-content-digest")), (201, Some(digest.as_str())));
    assert_eq!(answer.header("location").unwrap(), format!("/v2/a/manifests/{digest}"));
    for reference in ["one", &digest] {
        let path = format!("/v2/a/manifests/{reference}");
        for _ in 0..2 {
            let got = server.send("GET", &path, &[("Accept", "text/html")], b"");
            assert_eq!((got.status, got.body.as_slice()), (200, manifest.as_bytes()));
            assert_eq!(got.header("content-type"), Some(crate::client::IMAGE));
            assert_eq!(got.header("docker-content-digest"), Some(digest.as_str()));
        }
        let head = server.send("HEAD", &path, &[], b"");
        assert_eq!((head.status, head.header("content-length").unwrap()), (200, manifest.len().to_string().as_str()));
        assert_eq!(server.send("GET", &path, &[("If-None-Match", &format!("\"{digest}\""))], b"").status, 304);
    }
    // By digest, with tags, and with the other algorithm.
    let digest512 = sha512(manifest.as_bytes());
    let tags: Vec<String> = (0..12).map(|number| format!("t{number}")).collect();
    let query = tags.iter().map(|tag| format!("tag={tag}")).collect::<Vec<_>>().join("&");
    let answer = server.put("a", &format!("{digest512}?{query}"), &manifest);
    assert_eq!((answer.status, answer.header("docker-content-digest")), (201, Some(digest512.as_str())));
    let named: Vec<&str> = answer.headers.iter().filter(|(name, _)| name == "oci-tag").map(|(_, value)| value.as_str()).collect();
    assert_eq!(named, tags);
    assert_eq!(server.get("/v2/a/manifests/t11").header("docker-content-digest"), Some(digest512.as_str()));
    assert_eq!(server.put("a", &format!("{digest}?tag=.bad"), &manifest).status, 400);
    let lie = server.put("a", &sha256(b"other"), &manifest);
    assert_eq!((lie.status, lie.code().as_str()), (400, "DIGEST_INVALID"));
    // A tag goes alone, a manifest with its tags.
    let delete = |reference: &str| server.send("DELETE", &format!("/v2/a/manifests/{reference}"), &[], b"").status;
    assert_eq!((delete("t0"), server.get("/v2/a/manifests/t0").status, server.get("/v2/a/manifests/t1").status), (202, 404, 200));
    assert_eq!((delete(&digest512), server.get("/v2/a/manifests/t1").status, server.get("/v2/a/manifests/one").status), (202, 404, 200));
}

#[test]
fn manifests_are_checked() {
    let server = Server::open();
    let manifest = server.image("a", b"layer", "");
    let put = |repository: &str, kind: &str, body: &str| {
        server.send("PUT", &format!("/v2/{repository}/manifests/x"), &[("Content-Type", kind)], body.as_bytes())
    };
    let missing = put("b", crate::client::IMAGE, &manifest);
    assert_eq!((missing.status, missing.code().as_str()), (404, "MANIFEST_BLOB_UNKNOWN"));
    assert_eq!(put("a", "application/vnd.docker.distribution.manifest.v1+prettyjws", "{\"schemaVersion\":1}").code(), "MANIFEST_INVALID");
    assert_eq!(put("a", INDEX, &manifest).code(), "MANIFEST_INVALID");
    assert_eq!(put("a", crate::client::IMAGE, "{").code(), "MANIFEST_INVALID");
    // Layers that lie elsewhere need not be here.
    let elsewhere = manifest.replace("image.layer.v1.tar", "image.layer.nondistributable.v1.tar").replace(&sha256(b"layer"), &sha256(b"?"));
    assert_eq!(put("a", crate::client::IMAGE, &elsewhere).status, 201);
    // Nor the manifests of an index; and Docker's types stay what they are.
    let list = "application/vnd.docker.distribution.manifest.list.v2+json";
    let index =
        format!(r#"{{"schemaVersion":2,"mediaType":"{list}","manifests":[{{"mediaType":"x","digest":"{}","size":1}}]}}"#, sha256(b"?"));
    assert_eq!(put("a", list, &index).status, 201);
    assert_eq!(server.get("/v2/a/manifests/x").header("content-type"), Some(list));
    // 4 MiB are taken, more are not.
    let padded = |size: usize| format!("{manifest}{}", " ".repeat(size - manifest.len()));
    assert_eq!(put("a", crate::client::IMAGE, &padded(4 << 20)).status, 201);
    assert_eq!(server.get("/v2/a/manifests/x").body.len(), 4 << 20);
    assert_eq!(put("a", crate::client::IMAGE, &padded((4 << 20) + 1)).status, 413);
}

#[test]
fn tags_and_repositories_are_listed_in_pages() {
    let server = Server::open();
    let manifest = server.image("a", b"layer", "");
    for tag in ["b", "a", "B", "_", "1.0", "a-1"] {
        assert_eq!(server.put("a", tag, &manifest).status, 201);
    }
    let all = server.get("/v2/a/tags/list").json();
    assert_eq!(all, serde_json::json!({"name": "a", "tags": ["1.0", "B", "_", "a", "a-1", "b"]}));
    let mut seen = Vec::new();
    let mut path = Some("/v2/a/tags/list?n=4".to_owned());
    while let Some(next) = path {
        let page = server.get(&next);
        seen.extend(page.json()["tags"].as_array().unwrap().iter().map(|tag| tag.as_str().unwrap().to_owned()));
        path = page.next();
    }
    assert_eq!(seen, ["1.0", "B", "_", "a", "a-1", "b"]);
    assert_eq!(server.get("/v2/a/tags/list?last=a").json()["tags"], serde_json::json!(["a-1", "b"]));
    assert_eq!(server.get("/v2/a/tags/list?n=0").json()["tags"], serde_json::json!([]));
    assert!(server.get("/v2/a/tags/list?n=6").next().is_none());
    server.push_image("c/d", "x", b"1");
    server.push_image("c", "x", b"2");
    server.push("only/blobs", b"3");
    assert_eq!(server.get("/v2/_catalog").json(), serde_json::json!({"repositories": ["a", "c", "c/d"]}));
    let page = server.get("/v2/_catalog?n=2");
    assert_eq!(page.json()["repositories"], serde_json::json!(["a", "c"]));
    assert_eq!(server.get(&page.next().unwrap()).json()["repositories"], serde_json::json!(["c/d"]));
}

#[test]
fn referrers_are_found_by_subject() {
    let server = Server::open();
    let subject = server.push_image("a", "x", b"layer");
    let empty = server.get(&format!("/v2/none/referrers/{subject}"));
    assert_eq!((empty.status, empty.header("content-type")), (200, Some(INDEX)));
    assert_eq!(empty.json()["manifests"], serde_json::json!([]));
    let mut pushed = Vec::new();
    for (kind, note) in [("x/sbom", "1"), ("x/signature", "2"), ("x/sbom", "3")] {
        let more = format!(
            r#","artifactType":"{kind}","subject":{{"mediaType":"{}","digest":"{subject}","size":1}},"annotations":{{"note":"{note}"}}"#,
            crate::client::IMAGE
        );
        let manifest = server.image("a", b"artifact", &more);
        let answer = server.put("a", &sha256(manifest.as_bytes()), &manifest);
        assert_eq!((answer.status, answer.header("oci-subject")), (201, Some(subject.as_str())));
        pushed.push(sha256(manifest.as_bytes()));
    }
    let all = server.get(&format!("/v2/a/referrers/{subject}"));
    assert_eq!(all.json()["manifests"].as_array().unwrap().len(), 3);
    assert_eq!((all.json()["mediaType"].as_str(), all.header("oci-filters-applied")), (Some(INDEX), None));
    let some = server.get(&format!("/v2/a/referrers/{subject}?artifactType=x%2Fsbom"));
    assert_eq!(some.header("oci-filters-applied"), Some("artifactType"));
    let found = some.json()["manifests"].clone();
    assert_eq!(found.as_array().unwrap().len(), 2);
    for one in found.as_array().unwrap() {
        assert_eq!(one["artifactType"], "x/sbom");
        assert!(one["annotations"]["note"].is_string() && one["size"].as_u64() > Some(100));
    }
    let page = server.get(&format!("/v2/a/referrers/{subject}?n=2"));
    assert_eq!(page.json()["manifests"].as_array().unwrap().len(), 2);
    assert_eq!(server.get(&page.next().unwrap()).json()["manifests"].as_array().unwrap().len(), 1);
    // Also of a subject that is not there, and no longer once it is deleted.
    assert_eq!(server.send("DELETE", &format!("/v2/a/manifests/{}", pushed[0]), &[], b"").status, 202);
    assert_eq!(server.get(&format!("/v2/a/referrers/{subject}")).json()["manifests"].as_array().unwrap().len(), 2);
}

#[test]
fn manifests_may_come_before_their_blobs_where_that_is_allowed() {
    let server = Server::with(|config| {
        config.strangers = Some(sampan_registry::users::Role::Admin);
        config.allow_missing_blobs = true;
        config.lease = std::time::Duration::ZERO;
        config.sweep = std::time::Duration::from_millis(20);
    });
    let layer = sha256(b"later");
    let manifest = server.image("a", b"layer", "").replace(&sha256(b"layer"), &layer);
    assert_eq!(server.put("a", "x", &manifest).status, 201);
    assert_eq!(server.get("/v2/a/manifests/x").body, manifest.as_bytes());
    assert_eq!(server.get(&format!("/v2/a/blobs/{layer}")).status, 404);
    // A layer that comes after all is kept for the manifest, what nobody names is not; here too.
    server.push("b", b"later");
    server.push("a", b"later");
    let other = server.push("a", b"nobody's");
    let end = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while server.get(&format!("/v2/a/blobs/{other}")).status != 404 {
        assert!(std::time::Instant::now() < end, "nothing is collected");
    }
    assert_eq!(server.get(&format!("/v2/a/blobs/{layer}")).body, b"later");
    assert_eq!(server.put("a", "y", &manifest).status, 201);
}
