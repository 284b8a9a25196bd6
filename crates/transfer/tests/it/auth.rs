//! Proofs of who asks: basic, bearer, several challenges, and registries that never have enough.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use sampan_base::{ErrorKind, Failure as _, Secret};
use sampan_oci::media;
use sampan_transfer::Login;

use crate::fake::{Fake, Reply, Seen, Then};
use crate::{bench, nobody, reference, user};

fn manifest() -> Reply {
    Reply::new(200, "{}").with("Content-Type", media::INDEX)
}

/// A registry with a token service of its own. `serve` is asked for everything else.
fn with_tokens(serve: impl Fn(&Seen, &str) -> Reply + Send + Sync + 'static) -> Fake {
    let own: Arc<OnceLock<String>> = Arc::default();
    let host = Arc::clone(&own);
    let fake = Fake::start(move |seen| serve(seen, host.get().map_or("", String::as_str)));
    own.set(fake.host()).unwrap();
    fake
}

fn challenge(host: &str, rest: &str) -> Reply {
    let value = format!("Bearer realm=\"http://{host}/token\",service=\"reg, istry\"{rest}");
    Reply::refusal(401, "UNAUTHORIZED", "authentication required").with("WWW-Authenticate", value)
}

#[test]
fn a_token_is_fetched_once_for_one_right() {
    let fake = with_tokens(|seen, host| match (seen.line().as_str(), seen.header("authorization")) {
        ("GET /token", _) => Reply::new(200, r#"{"token":"abc","expires_in":300}"#),
        (_, Some("Bearer abc")) => manifest(),
        _ => challenge(host, ""),
    });
    let bench = bench();
    std::thread::scope(|scope| {
        for tag in ["a", "b", "c", "d"] {
            let (bench, fake) = (&bench, &fake);
            scope.spawn(move || {
                bench.client.manifest(&reference(&fake.host(), &format!("x:{tag}")), &user(), &bench.cancel).unwrap();
            });
        }
    });
    let tokens: Vec<_> = fake.seen().into_iter().filter(|seen| seen.line() == "GET /token").collect();
    assert_eq!(tokens.len(), 1, "four requests share one token");
    assert_eq!(tokens[0].query(), "account=u&scope=repository%3Ax%3Apull&service=reg%2C+istry");
    assert_eq!(tokens[0].header("authorization"), Some("Basic dTpw"));
    bench.client.manifest(&reference(&fake.host(), "y:t"), &user(), &bench.cancel).unwrap();
    bench.client.manifest(&reference(&fake.host(), "x:t"), &nobody(), &bench.cancel).unwrap();
    let tokens: Vec<_> = fake.seen().into_iter().filter(|seen| seen.line() == "GET /token").collect();
    assert_eq!(tokens.len(), 3, "another right and another login need others");
    assert_eq!(tokens[2].header("authorization"), None);
}

#[test]
fn a_refused_token_is_renewed_once_with_the_new_scope() {
    let fake = with_tokens(|seen, host| match (seen.line().as_str(), seen.header("authorization")) {
        ("GET /token", _) if seen.query().contains("extra") => Reply::new(200, r#"{"access_token":"better"}"#),
        ("GET /token", _) => Reply::new(200, r#"{"token":"weak"}"#),
        ("GET /v2/", None) => challenge(host, ""),
        (_, Some("Bearer better")) => manifest(),
        _ => challenge(host, ",scope=\"repository:x:pull repository:extra:push,pull\""),
    });
    let bench = bench();
    bench.client.manifest(&reference(&fake.host(), "x:t"), &user(), &bench.cancel).unwrap();
    let asked: Vec<_> = fake.seen().iter().filter(|seen| seen.line() == "GET /token").map(|seen| seen.query().to_owned()).collect();
    assert_eq!(asked.len(), 2);
    assert!(asked[1].contains("scope=repository%3Aextra%3Apull%2Cpush&scope=repository%3Ax%3Apull"), "{}", asked[1]);
}

#[test]
fn a_registry_that_is_never_content_ends() {
    let fake = with_tokens(|seen, host| match seen.line().as_str() {
        "GET /token" => Reply::new(200, r#"{"token":"abc"}"#),
        _ => challenge(host, ",scope=\"repository:x:pull\""),
    });
    let bench = bench();
    let error = bench.client.manifest(&reference(&fake.host(), "x:t"), &user(), &bench.cancel).unwrap_err();
    assert_eq!((error.to_string().as_str(), error.kind()), ("unauthorized: authentication required", ErrorKind::Unauthorized));
    assert!(fake.seen().len() <= 5, "{:?}", fake.lines());
    let basic = Fake::start(|_| Reply::refusal(401, "UNAUTHORIZED", "no").with("WWW-Authenticate", "Basic realm=x"));
    let error = bench.client.manifest(&reference(&basic.host(), "x:t"), &user(), &bench.cancel).unwrap_err();
    assert_eq!(error.to_string(), "unauthorized: no");
    assert_eq!(basic.seen().len(), 2);
}

#[test]
fn bearer_is_preferred_and_other_schemes_are_passed_over() {
    let fake = with_tokens(|seen, host| match (seen.line().as_str(), seen.header("authorization")) {
        ("GET /token", _) => Reply::new(200, r#"{"token":"abc"}"#),
        (_, Some("Bearer abc")) => manifest(),
        _ => {
            let both = format!("Negotiate abc=, Basic realm=\"x\", Bearer realm=\"http://{host}/token\"");
            Reply::new(401, "").with("WWW-Authenticate", "NTLM").with("WWW-Authenticate", both)
        }
    });
    let bench = bench();
    bench.client.manifest(&reference(&fake.host(), "x:t"), &user(), &bench.cancel).unwrap();
}

#[test]
fn a_password_that_is_missing_is_told_as_docker_tells_it() {
    let fake = Fake::start(|_| Reply::new(401, "").with("WWW-Authenticate", "Basic realm=x"));
    let bench = bench();
    let host = fake.host();
    let error = bench.client.manifest(&reference(&host, "x:t"), &nobody(), &bench.cancel).unwrap_err();
    assert_eq!(error.to_string(), format!("Head \"http://{host}/v2/x/manifests/t\": no basic auth credentials"));
    assert_eq!(error.kind(), ErrorKind::Unauthorized);
    let error = bench.client.put_manifest(&reference(&host, "x:t"), "a/b", b"{}", &nobody(), &bench.cancel).unwrap_err();
    assert_eq!(error.to_string(), "no basic auth credentials");
}

#[test]
fn a_registry_that_took_the_place_of_another_is_asked_what_it_wants() {
    let wants = Arc::new(AtomicUsize::new(0));
    let now = Arc::clone(&wants);
    let fake = with_tokens(move |seen, host| match (now.load(Ordering::SeqCst), seen.line().as_str(), seen.header("authorization")) {
        (0, ..) => Reply::new(401, "").with("WWW-Authenticate", "Basic realm=x"),
        (1, "GET /token", _) => {
            Reply::new(401, r#"{"errors":[{"Code":"UNAUTHORIZED","message":"not you"}]}"#).with("Content-Type", "application/json")
        }
        (1, ..) => challenge(host, ""),
        _ => manifest(),
    });
    let bench = bench();
    let host = fake.host();
    let ask = || bench.client.manifest(&reference(&host, "x:t"), &nobody(), &bench.cancel).map_err(|error| error.to_string());
    assert_eq!(ask().unwrap_err(), format!("Head \"http://{host}/v2/x/manifests/t\": no basic auth credentials"));
    wants.store(1, Ordering::SeqCst);
    assert_eq!(ask().unwrap_err(), format!("Head \"http://{host}/v2/x/manifests/t\": unauthorized: not you"));
    wants.store(2, Ordering::SeqCst);
    assert!(ask().is_ok(), "it wants nothing any more");
}

#[test]
fn a_token_service_that_refuses_is_quoted() {
    let fake = with_tokens(|seen, host| match seen.line().as_str() {
        "GET /token" => Reply::refusal(401, "UNAUTHORIZED", "incorrect username or password"),
        _ => challenge(host, ""),
    });
    let bench = bench();
    let host = fake.host();
    let error = bench.client.manifest(&reference(&host, "x:t"), &user(), &bench.cancel).unwrap_err();
    assert_eq!(error.to_string(), format!("Head \"http://{host}/v2/x/manifests/t\": unauthorized: incorrect username or password"));
    let error = bench.client.login(&host, &user(), &bench.cancel).unwrap_err();
    assert_eq!(error.to_string(), format!("Get \"http://{host}/v2/\": unauthorized: incorrect username or password"));
}

#[test]
fn bad_token_services_do_no_harm() {
    for (reply, wanted) in [
        (Reply::new(200, "").then(Then::Endless), "token reply is larger than 1048576 bytes"),
        (Reply::new(200, "{}"), "authorization server did not include a token in the response"),
        (Reply::new(200, "<html>"), "unable to decode token response"),
        (Reply::new(200, "{\"token\":\"a\\nb\"}"), "the token is no text"),
        (Reply::new(200, r#"{"token":"abc","expires_in":-1e308}"#), ""),
        (Reply::new(500, ""), "500 Internal Server Error"),
        (Reply::new(302, "").with("Location", "http://169.254.169.254/"), "refusing to follow to http://169.254.169.254/"),
        (Reply::new(302, "").with("Location", "/token"), "stopped after 10 redirects"),
    ] {
        let served = reply.clone();
        let fake = with_tokens(move |seen, host| match (seen.line().as_str(), seen.header("authorization")) {
            ("GET /token", _) => served.clone(),
            (_, Some("Bearer abc")) => manifest(),
            _ => challenge(host, ""),
        });
        let bench = bench();
        let outcome = bench.client.manifest(&reference(&fake.host(), "x:t"), &nobody(), &bench.cancel);
        let text = outcome.err().map(|error| error.to_string()).unwrap_or_default();
        assert!(text.contains(wanted) && text.is_empty() == wanted.is_empty(), "{reply:?}: {text}");
    }
}

#[test]
fn a_token_service_may_not_be_a_metadata_service() {
    for realm in ["http://169.254.169.254/", "https://[fe80::1]/", "file:///etc/passwd", "", "nonsense"] {
        let fake = Fake::start(move |_| Reply::new(401, "").with("WWW-Authenticate", format!("Bearer realm=\"{realm}\"")));
        let bench = bench();
        let error = bench.client.manifest(&reference(&fake.host(), "x:t"), &user(), &bench.cancel).unwrap_err().to_string();
        assert!(error.contains("refusing to follow to") || error.contains("realm"), "{realm}: {error}");
        assert_eq!(fake.seen().len(), 1);
    }
}

#[test]
fn an_identity_token_is_exchanged() {
    let fake = with_tokens(|seen, host| match (seen.line().as_str(), seen.header("authorization")) {
        ("POST /token", None) => Reply::new(200, r#"{"access_token":"abc"}"#),
        (_, Some("Bearer abc")) => manifest(),
        _ => challenge(host, ""),
    });
    let login = Login { identity_token: Some(Secret::new("a&b".to_owned())), ..Login::default() };
    let bench = bench();
    bench.client.manifest(&reference(&fake.host(), "x:t"), &login, &bench.cancel).unwrap();
    let asked = fake.seen().into_iter().find(|seen| seen.method == "POST").unwrap();
    assert_eq!(asked.header("content-type"), Some("application/x-www-form-urlencoded"));
    assert_eq!(
        String::from_utf8(asked.body).unwrap(),
        "client_id=docker&grant_type=refresh_token&refresh_token=a%26b&scope=repository%3Ax%3Apull&service=reg%2C+istry"
    );
}

#[test]
fn a_registry_token_is_used_as_it_is() {
    let fake = Fake::start(|seen| match seen.header("authorization") {
        Some("Bearer mine") => manifest(),
        _ => Reply::new(401, "").with("WWW-Authenticate", "Bearer realm=\"https://nowhere.invalid/\""),
    });
    let login = Login { registry_token: Some(Secret::new("mine".to_owned())), ..Login::default() };
    let bench = bench();
    bench.client.manifest(&reference(&fake.host(), "x:t"), &login, &bench.cancel).unwrap();
}

#[test]
fn a_challenge_may_come_late() {
    let fake = Fake::start(|seen| match (seen.line().as_str(), seen.header("authorization")) {
        ("GET /v2/", _) => Reply::new(200, "{}"),
        (_, Some("Basic dTpw")) => manifest(),
        _ => Reply::new(401, "").with("WWW-Authenticate", "Basic realm=x"),
    });
    let bench = bench();
    bench.client.manifest(&reference(&fake.host(), "x:t"), &user(), &bench.cancel).unwrap();
}

#[test]
fn logins_are_proved() {
    let bench = bench();
    let basic = Fake::start(|seen| match seen.header("authorization") {
        Some("Basic dTpw") => Reply::new(200, "{}"),
        _ => Reply::new(401, "").with("WWW-Authenticate", "Basic realm=x"),
    });
    let answer = bench.client.login(&basic.host(), &user(), &bench.cancel).unwrap();
    assert_eq!((answer.status.as_str(), answer.identity_token), ("Login Succeeded", None));
    let wrong = Login { password: Secret::new("q".to_owned()), ..user() };
    let error = bench.client.login(&basic.host(), &wrong, &bench.cancel).unwrap_err();
    assert_eq!(error.to_string(), format!("login attempt to http://{}/v2/ failed with status: 401 Unauthorized", basic.host()));
    assert_eq!(error.kind(), ErrorKind::Unauthorized);

    let bearer = with_tokens(|seen, host| match (seen.line().as_str(), seen.header("authorization")) {
        ("GET /token", Some("Basic dTpw")) => Reply::new(200, r#"{"token":"abc","refresh_token":"keep"}"#),
        ("GET /v2/", Some("Bearer abc")) => Reply::new(200, "{}"),
        ("GET /token", _) => Reply::refusal(401, "UNAUTHORIZED", "wrong"),
        _ => challenge(host, ""),
    });
    let answer = bench.client.login(&bearer.host(), &user(), &bench.cancel).unwrap();
    assert_eq!(answer.identity_token.as_deref(), Some("keep"));
    let asked = bearer.seen().into_iter().find(|seen| seen.line() == "GET /token").unwrap();
    assert_eq!(asked.query(), "account=u&client_id=docker&offline_token=true&service=reg%2C+istry");
}

#[test]
fn mirrors_are_asked_first_and_get_no_credentials() {
    let broken = Fake::start(|_| Reply::refusal(404, "MANIFEST_UNKNOWN", "not here"));
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let good = Fake::start(move |seen| {
        counted.fetch_add(usize::from(seen.header("authorization").is_some()), Ordering::SeqCst);
        if seen.line() == "GET /v2/" { Reply::new(401, "").with("WWW-Authenticate", "Basic realm=x") } else { manifest() }
    });
    let open = Fake::start(|seen| if seen.line() == "GET /v2/library/x/manifests/t" { manifest() } else { Reply::new(200, "{}") });
    let mirrors = [&broken, &good, &open].map(|fake| format!("http://{}", fake.host())).to_vec();
    let bench = crate::bench_with(sampan_transfer::Config { mirrors, ..crate::config() });
    bench.client.manifest(&sampan_oci::Reference::parse_normalized("x:t").unwrap(), &user(), &bench.cancel).unwrap();
    assert_eq!(broken.lines(), ["GET /v2/library/x/manifests/t"]);
    assert_eq!(count.load(Ordering::SeqCst), 0);
    assert_eq!(open.lines(), ["GET /v2/library/x/manifests/t"]);

    let found = bench.client.head_manifest(&sampan_oci::Reference::parse_normalized("x:t").unwrap(), &nobody(), &bench.cancel);
    assert!(found.unwrap().is_some(), "a mirror that has it not is no answer");
}

#[test]
fn all_tags_are_pulled_from_a_mirror_too() {
    let broken = Fake::start(|_| Reply::refusal(404, "NAME_UNKNOWN", "not here"));
    let good = Fake::start(|_| Reply::new(200, r#"{"name":"library/x","tags":["a","b"]}"#));
    let mirrors = [&broken, &good].map(|fake| format!("http://{}", fake.host())).to_vec();
    let bench = crate::bench_with(sampan_transfer::Config { mirrors, ..crate::config() });
    let tags = bench.client.tags(&sampan_oci::Reference::parse_normalized("x").unwrap(), &nobody(), &bench.cancel).unwrap();
    assert_eq!((tags, broken.lines().len()), (vec!["a".to_owned(), "b".to_owned()], 1));
}
