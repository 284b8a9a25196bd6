//! Who may what: passwords, tokens, strangers.

use base64::Engine as _;
use sampan_registry::store::open_database;
use sampan_registry::users::{self, Role};

use crate::client::{Answer, Server, sha256};

fn basic(name: &str, password: &str) -> String {
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{name}:{password}")))
}

fn with(server: &Server, method: &str, path: &str, authorization: &str) -> Answer {
    server.send(method, path, &[("Authorization", authorization)], b"")
}

fn bearer(server: &Server, scope: &str, authorization: &str) -> String {
    let answer = with(server, "GET", &format!("/token?service=s&scope={scope}"), authorization);
    assert_eq!(answer.status, 200, "{answer:?}");
    format!("Bearer {}", answer.json()["token"].as_str().unwrap())
}

fn closed() -> Server {
    let server = Server::with(|_| ());
    let db = open_database(&server.folder.path().join("data")).unwrap();
    for (name, role) in [("reader", Role::Pull), ("writer", Role::Push), ("boss", Role::Admin)] {
        users::add(&db, name, "secret", role).unwrap();
    }
    server
}

#[test]
fn what_is_forbidden_looks_like_what_is_not_there() {
    let server = closed();
    let push = with(&server, "POST", "/v2/there/blobs/uploads/", &basic("writer", "secret"));
    assert_eq!(push.status, 202);
    let ask = |name: &str| {
        let answer = server.get(&format!("/v2/{name}/tags/list"));
        (answer.status, answer.code(), answer.header("www-authenticate").unwrap().replace(name, "NAME"))
    };
    let (status, code, challenge) = ask("there");
    assert_eq!((status, code.as_str()), (401, "UNAUTHORIZED"));
    let host = server.address;
    assert_eq!(challenge, format!("Bearer realm=\"http://{host}/token\",service=\"{host}\",scope=\"repository:NAME:pull\""));
    assert_eq!(ask("gone"), (status, code, challenge));
    assert_eq!(server.get("/v2/BAD/tags/list").status, 401);
    let mount = server.send("POST", "/v2/a/blobs/uploads/?mount=sha256:0&from=b", &[], b"");
    assert!(mount.header("www-authenticate").unwrap().ends_with("scope=\"repository:a:pull,push repository:b:pull\""), "{mount:?}");
}

#[test]
fn roles_are_kept_with_passwords_and_tokens() {
    let server = closed();
    let digest = format!("sha256:{}", "0".repeat(64));
    let table = [("reader", 404, 403, 403), ("writer", 404, 202, 403), ("boss", 404, 202, 404)];
    for (name, read, write, delete) in table {
        let password = basic(name, "secret");
        let token = bearer(&server, "repository:a:pull,push,delete", &password);
        let blob = format!("/v2/a/blobs/{digest}");
        for (authorization, refused) in [(&password, 403), (&token, 401)] {
            let expect = |status: u16| if status == 403 { refused } else { status };
            assert_eq!(with(&server, "GET", "/v2/", authorization).status, 200);
            assert_eq!(with(&server, "GET", &blob, authorization).status, read, "{name}");
            assert_eq!(with(&server, "POST", "/v2/a/blobs/uploads/", authorization).status, expect(write), "{name}");
            assert_eq!(with(&server, "DELETE", &blob, authorization).status, expect(delete), "{name}");
        }
        let other = with(&server, "GET", &format!("/v2/b/blobs/{digest}"), &token);
        assert_eq!(other.status, 401);
        assert!(other.header("www-authenticate").unwrap().contains("error=\"insufficient_scope\""));
    }
    assert_eq!(with(&server, "GET", "/v2/_catalog", &basic("reader", "secret")).status, 200);
    let catalog = bearer(&server, "registry:catalog:*", &basic("reader", "secret"));
    assert_eq!(with(&server, "GET", "/v2/_catalog", &catalog).status, 200);
}

#[test]
fn a_mount_asks_for_the_right_to_read_its_source() {
    let server = closed();
    let password = basic("writer", "secret");
    let digest = sampan_registry::name::Hasher::of(sampan_registry::name::Algorithm::Sha256, b"shared").to_string();
    let push = server.send("POST", &format!("/v2/from/blobs/uploads/?digest={digest}"), &[("Authorization", &password)], b"shared");
    assert_eq!(push.status, 201);
    let mount = format!("/v2/to/blobs/uploads/?mount={digest}&from=from");
    let narrow = bearer(&server, "repository:to:pull,push", &password);
    let refused = with(&server, "POST", &mount, &narrow);
    let challenge = refused.header("www-authenticate").unwrap();
    assert_eq!(refused.status, 401);
    assert!(challenge.contains("scope=\"repository:to:pull,push repository:from:pull\",error=\"insufficient_scope\""), "{challenge}");
    let both = bearer(&server, "repository:to:pull,push%20repository:from:pull", &password);
    assert_eq!(with(&server, "POST", &mount, &both).status, 201);
    // Without a source a token finds nothing outside of what it names; a password does.
    let anywhere = format!("/v2/third/blobs/uploads/?mount={digest}");
    let third = bearer(&server, "repository:third:pull,push", &password);
    assert_eq!((with(&server, "POST", &anywhere, &third).status, with(&server, "POST", &anywhere, &password).status), (202, 201));
}

#[test]
fn scopes_come_in_several_parameters_and_with_classes() {
    let server = closed();
    let scopes = "repository:a:pull,push&scope=repository(plugin):b:pull&scope=repository:c:delete&account=writer&client_id=docker";
    let answer = with(&server, "GET", &format!("/token?service=s&offline_token=true&scope={scopes}"), &basic("writer", "secret"));
    let body = answer.json();
    assert_eq!(answer.status, 200);
    assert_eq!((body["token"].as_str(), body["expires_in"].as_u64() >= Some(60)), (body["access_token"].as_str(), true));
    assert!(body["issued_at"].as_str().unwrap().ends_with('Z') && body["refresh_token"].is_string(), "{body}");
    let token = format!("Bearer {}", body["token"].as_str().unwrap());
    let status = |method: &str, path: &str| with(&server, method, path, &token).status;
    assert_eq!((status("POST", "/v2/a/blobs/uploads/"), status("GET", "/v2/b/tags/list")), (202, 404));
    assert_eq!(status("DELETE", "/v2/c/manifests/x"), 401, "a role without that right gets a token without it");
}

#[test]
fn wrong_passwords_and_tokens_are_refused() {
    let server = closed();
    for authorization in [&basic("reader", "wrong"), &basic("nobody", "secret"), "Basic ???", "Basic", "Digest x", "Bearer x.y.z", "Bearer"]
    {
        let answer = with(&server, "GET", "/v2/", authorization);
        assert_eq!((answer.status, answer.code().as_str()), (401, "UNAUTHORIZED"), "{authorization}");
    }
    let token = with(&server, "GET", "/token", &basic("reader", "wrong"));
    assert_eq!((token.status, token.header("www-authenticate")), (401, Some("Basic realm=\"sampan-registry\"")));
    assert_eq!(server.get("/token?scope=repository:a:pull").status, 401);
    // After many of them the address must wait, whoever it says it is.
    let last = (0..40).map(|_| with(&server, "GET", "/token", &basic("reader", "wrong"))).find(|answer| answer.status == 429);
    assert_eq!(last.expect("the patience ends").code(), "TOOMANYREQUESTS");
}

#[test]
fn guesses_that_come_together_are_no_more_than_one_after_another() {
    let server = closed();
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let guess = |number: u32| {
            let server = &server;
            scope.spawn(move || with(server, "GET", "/token", &basic("reader", &format!("wrong{number}"))).status)
        };
        let all: Vec<_> = (0..100).map(guess).collect();
        all.into_iter().map(|one| one.join().unwrap()).collect()
    });
    let checked = statuses.iter().filter(|status| **status == 401).count();
    assert!((20..40).contains(&checked) && statuses.iter().all(|status| [401, 429].contains(status)), "{checked}: {statuses:?}");
}

#[test]
fn an_upload_belongs_to_who_began_it() {
    let server = closed();
    let (writer, boss) = (basic("writer", "secret"), basic("boss", "secret"));
    let place = with(&server, "POST", "/v2/a/blobs/uploads/", &writer).header("location").unwrap().to_owned();
    assert_eq!(server.send("PATCH", &place, &[("Authorization", &writer)], b"abc").status, 202);
    let finish = format!("{place}?digest={}", sha256(b"abc"));
    for (method, path) in [("GET", &place), ("PATCH", &place), ("PUT", &finish), ("DELETE", &place)] {
        let other = with(&server, method, path, &boss);
        assert_eq!((other.status, other.code().as_str()), (404, "BLOB_UPLOAD_UNKNOWN"), "{method}");
        let elsewhere = with(&server, method, &path.replace("/v2/a/", "/v2/b/"), &writer);
        assert_eq!((elsewhere.status, elsewhere.code().as_str()), (404, "BLOB_UPLOAD_UNKNOWN"), "{method}");
        let reader = with(&server, method, path, &basic("reader", "secret"));
        assert_eq!(reader.status, 403, "{method}");
    }
    let token = bearer(&server, "repository:a:pull,push", &writer);
    assert_eq!(with(&server, "PUT", &finish, &token).status, 201, "a token of the same user");
}

#[test]
fn a_blob_is_taken_over_only_from_where_it_may_be_read() {
    let server = closed();
    let writer = basic("writer", "secret");
    let digest = sha256(b"private");
    let pushed = server.send("POST", &format!("/v2/b/blobs/uploads/?digest={digest}"), &[("Authorization", &writer)], b"private");
    assert_eq!(pushed.status, 201);
    let narrow = bearer(&server, "repository:a:pull,push", &writer);
    // With a source the client is told which token would do, without one nothing is found.
    for (path, status) in
        [(format!("/v2/a/blobs/uploads/?mount={digest}&from=b"), 401), (format!("/v2/a/blobs/uploads/?mount={digest}"), 202)]
    {
        assert_eq!(with(&server, "POST", &path, &narrow).status, status, "{path}");
        assert_eq!(with(&server, "GET", &format!("/v2/a/blobs/{digest}"), &narrow).status, 404);
        let manifest = format!(r#"{{"schemaVersion":2,"config":{{"mediaType":"x","digest":"{digest}","size":7}},"layers":[]}}"#);
        let named = server.send("PUT", "/v2/a/manifests/x", &[("Authorization", &narrow)], manifest.as_bytes());
        assert_eq!((named.status, named.code().as_str()), (404, "MANIFEST_BLOB_UNKNOWN"));
    }
    let push_only = bearer(&server, "repository:a:pull,push&scope=repository:b:push", &writer);
    assert_eq!(with(&server, "POST", &format!("/v2/a/blobs/uploads/?mount={digest}&from=b"), &push_only).status, 401);
    let wide = bearer(&server, "repository:a:pull,push&scope=repository:b:pull", &writer);
    assert_eq!(with(&server, "POST", &format!("/v2/a/blobs/uploads/?mount={digest}&from=b"), &wide).status, 201);
}

#[test]
fn lists_are_shown_to_who_may_read() {
    let server = closed();
    let writer = basic("writer", "secret");
    let other = bearer(&server, "repository:b:pull,push", &writer);
    let digest = format!("sha256:{}", "0".repeat(64));
    for path in ["/v2/_catalog", "/v2/a/tags/list", &format!("/v2/a/referrers/{digest}"), "/v2/a/manifests/x", "/metrics"] {
        let proxied = [("X-Forwarded-For", "203.0.113.1")];
        assert_eq!(server.send("GET", path, &proxied, b"").status, 401, "{path}");
        let headers = [("Authorization", other.as_str()), proxied[0]];
        assert_eq!(server.send("GET", path, &headers, b"").status, 401, "{path}: with a token for something else");
    }
}

#[test]
fn forms_and_refresh_tokens_work_until_the_password_changes() {
    let server = closed();
    let db = open_database(&server.folder.path().join("data")).unwrap();
    let form = |body: &str| server.send("POST", "/token", &[("Content-Type", "application/x-www-form-urlencoded")], body.as_bytes());
    let first = form(
        "grant_type=password&username=writer&password=secret&service=s&client_id=c&access_type=offline&scope=repository%3Aa%3Apull%2Cpush",
    );
    assert_eq!((first.status, first.json()["scope"].as_str()), (200, Some("repository:a:pull,push")), "{first:?}");
    let refresh = first.json()["refresh_token"].as_str().unwrap().to_owned();
    let again = form(&format!("grant_type=refresh_token&refresh_token={refresh}&service=s&scope=repository:a:pull"));
    let access = format!("Bearer {}", again.json()["access_token"].as_str().unwrap());
    assert_eq!(with(&server, "GET", "/v2/a/tags/list", &access).status, 404);
    assert_eq!(with(&server, "GET", "/v2/", &format!("Bearer {refresh}")).status, 401, "a refresh token opens nothing itself");
    assert_eq!(form("grant_type=other").status, 400);
    assert_eq!(form("grant_type=password&username=writer&password=wrong").status, 401);
    users::change_password(&db, "writer", "new").unwrap();
    assert_eq!(form(&format!("grant_type=refresh_token&refresh_token={refresh}")).status, 401);
    assert_eq!(with(&server, "GET", "/v2/", &basic("writer", "secret")).status, 401, "noticed at once");
    assert_eq!(with(&server, "GET", "/v2/", &access).status, 401, "tokens of the old password are over");
    assert_eq!(with(&server, "GET", "/v2/", &basic("writer", "new")).status, 200);
    users::remove(&db, "writer").unwrap();
    assert_eq!(with(&server, "GET", "/v2/", &basic("writer", "new")).status, 401);
}

#[test]
fn strangers_read_where_they_may() {
    let server = Server::with(|config| config.strangers = Some(Role::Pull));
    assert_eq!(server.get("/v2/a/tags/list").status, 404);
    assert_eq!(server.send("POST", "/v2/a/blobs/uploads/", &[], b"").status, 401);
    // Nobody's name and no password are those of a stranger.
    let nobody = with(&server, "GET", "/token?scope=repository:a:pull", "Basic Og==");
    assert_eq!((nobody.status, with(&server, "GET", "/v2/", "Basic Og==").status), (200, 401));
    assert_eq!(with(&closed(), "GET", "/token?scope=repository:a:pull", "Basic Og==").status, 401);
    let token = server.get("/token?scope=repository:a:pull,push").json()["token"].as_str().unwrap().to_owned();
    assert_eq!(with(&server, "GET", "/v2/", &format!("Bearer {token}")).status, 200);
    assert_eq!(with(&server, "POST", "/v2/a/blobs/uploads/", &format!("Bearer {token}")).status, 401);
    assert_eq!(with(&server, "GET", "/v2/a/tags/list", &format!("Bearer {token}")).status, 404);
}

#[test]
fn figures_are_shown_to_this_machine() {
    let server = closed();
    assert_eq!(server.get("/healthz").status, 200);
    let text = String::from_utf8(server.get("/metrics").body).unwrap();
    assert!(text.contains("sampan_registry_requests_total{method=\"GET\",route=\"health\",status=\"200\"} 1"), "{text}");
    assert!(text.ends_with("# EOF\n"));
}
