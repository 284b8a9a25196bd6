//! Requests on the real socket that no client would send: each gets a status and a message that names what is wrong.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use sampan_testkit::World;

/// Sends bytes; gives status and body.
fn send(world: &World, request: &[u8]) -> (u16, String) {
    let mut stream = UnixStream::connect(world.socket()).expect("the engine listens");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket");
    // The engine may have had enough before all of it is sent.
    drop(stream.write_all(request));
    let mut bytes = Vec::new();
    drop(stream.read_to_end(&mut bytes));
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let status = text.split_whitespace().nth(1).and_then(|word| word.parse().ok()).unwrap_or(0);
    (status, text.split_once("\r\n\r\n").map_or_else(String::new, |(_, body)| body.to_owned()))
}

fn post(world: &World, path: &str, body: &[u8]) -> (u16, String) {
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    send(world, &[head.as_bytes(), body].concat())
}

#[test]
fn wrong_bodies_are_named_and_change_nothing() {
    let world = World::with_docker();
    drop(world.ok("docker load -q -i box.tar && docker run -d --name one box sleep 1000"));
    let wrong = [
        (r#"{"Image":"box","Cmd":{"a":1}}"#, "Cmd"),
        (r#"{"Image":"box","Cmd":[1]}"#, "Cmd"),
        (r#"{"Image":["box"]}"#, "Image"),
        (r#"{"Image":"box","Labels":[]}"#, "Labels"),
        (r#"{"Image":"box","HostConfig":[]}"#, "HostConfig"),
        (r#"{"Image":"box","HostConfig":{"Memory":1.5}}"#, "Memory"),
        (r#"{"Image":"box","HostConfig":{"Memory":99999999999999999999}}"#, "Memory"),
        (r#"{"Image":"box","HostConfig":{"ConsoleSize":[-1,2]}}"#, "ConsoleSize"),
        (r#"{"Image":"box","HostConfig":{"ConsoleSize":"big"}}"#, "ConsoleSize"),
        (r#"{"Image":"box","HostConfig":{"PortBindings":{"80/tcp":"8080"}}}"#, "PortBindings"),
        (r#"{"Image":"box","HostConfig":{"PortBindings":{"http":[]}}}"#, "http"),
        (r#"{"Image":"box","HostConfig":{"Mounts":[{"Type":"tmpfs","Target":"/x","TmpfsOptions":{"Options":"noexec"}}]}}"#, "Options"),
        (r#"{"Image":"box","HostConfig":{"Mounts":[{"Type":"tmpfs","Target":"/x","TmpfsOptions":{"Mode":-1}}]}}"#, "Mode"),
        (r#"{"Image":"box","HostConfig":{"Binds":["/a:/b:c:d"]}}"#, "/a:/b:c:d"),
        (r#"{"Image":"box","HostConfig":{"Privileged":"yes"}}"#, "Privileged"),
        (r#"{"Image":"box"} trailing"#, "unexpected content after JSON"),
        (r#"{"Image":"box""#, "unexpected EOF"),
        ("", "EOF"),
        ("[]", "object"),
        ("\"box\"", "object"),
    ];
    for (body, word) in wrong {
        let (status, answer) = post(&world, "/v1.51/containers/create", body.as_bytes());
        assert!(status == 400 && answer.contains(word), "{body}: {status} {answer}");
    }
    for body in [&b"{\"Image\":\"\xff\xfe\"}"[..], b"\xef\xbb\xbf{}", b"\0\0\0\0", b"{\"Image\":\"\\ud800\"}"] {
        let (status, answer) = post(&world, "/v1.51/containers/create", body);
        assert!(status == 400 && answer.starts_with("{\"message\":"), "{body:?}: {status} {answer}");
    }
    let others: [(&str, &[u8], &str); 6] = [
        ("/v1.51/containers/one/update", br#"{"Memory":"x"}"#, "Memory"),
        ("/v1.51/containers/one/update", br#"{"RestartPolicy":{"Name":"often"}}"#, "often"),
        ("/v1.51/containers/one/exec", br#"{"Cmd":5}"#, "Cmd"),
        ("/v1.51/containers/one/exec", br#"{"Cmd":[]}"#, "No exec command specified"),
        ("/v1.51/volumes/create", br#"{"Name":{}}"#, "Name"),
        ("/v1.51/volumes/create", br#"{"Name":"../../x"}"#, "invalid characters"),
    ];
    for (path, body, word) in others {
        let (status, answer) = post(&world, path, body);
        assert!(status == 400 && answer.contains(word), "{path}: {status} {answer}");
    }
    let (status, answer) = post(
        &world,
        "/v1.51/containers/create?name=known",
        br#"{"Image":"box","Bogus":{"x":[1]},"cmd":["true"],"HostConfig":{"Unknown":null}}"#,
    );
    assert_eq!(status, 201, "unknown fields are ignored: {answer}");
    assert_eq!(world.ok("docker ps -a --format '{{.Names}}' | sort | tr '\\n' ' '"), "known one ", "nothing else was made");
    assert_eq!(world.ok("docker volume ls -q"), "");
    drop(world.ok("docker rm -f one known"));
}

#[test]
fn framing_that_makes_no_sense_ends_one_connection_only() {
    let world = World::with_docker();
    drop(world.ok("docker load -q -i box.tar && docker create --name one box true"));
    let start = "POST /v1.51/containers/create HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n";
    for rest in [
        "Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n{}\r\n",
        "Transfer-Encoding: chunked\r\n\r\n-5\r\n{}\r\n0\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\n2;ext=\u{1}\r\n{}XX0\r\n\r\n",
        "Transfer-Encoding: gzip\r\n\r\n{}",
        "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
        "Content-Length: 99999999999999999999\r\n\r\n{}",
        "Content-Length: 2, 3\r\n\r\n{}",
        "Content-Length: 2\r\nBad Header: x\r\n\r\n{}",
        "Content-Length: 2\r\n: x\r\n\r\n{}",
    ] {
        let (status, answer) = send(&world, format!("{start}{rest}").as_bytes());
        assert!(matches!(status, 0 | 400..=499 | 501), "{rest:?}: {status} {answer}");
    }
    let endless = ["GET /_ping HTTP/1.1\r\nX: ", &"x".repeat(1 << 20)].concat();
    assert!(matches!(send(&world, endless.as_bytes()).0, 0 | 400 | 431), "a header without end");
    let many = ["GET /_ping HTTP/1.1\r\n", &"A: b\r\n".repeat(1 << 17)].concat();
    assert!(matches!(send(&world, many.as_bytes()).0, 0 | 400 | 431), "headers without end");
    let (status, _) = post(&world, "/v1.51/containers/create", &vec![b' '; 9 << 20]);
    assert!(matches!(status, 0 | 413), "a huge body: {status}");
    for path in ["one/archive?path=%00", "one/archive?path=/%2e%2e/%2e%2e/etc/shadow", "one/archive", "%00/json", "one%2f..%2f/json"] {
        let (status, answer) =
            send(&world, format!("GET /v1.51/containers/{path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes());
        assert!((400..500).contains(&status) && answer.starts_with("{\"message\":"), "{path}: {status} {answer}");
    }
    assert_eq!(world.ok("docker ps -a --format '{{.Names}}'"), "one", "the engine goes on, and made nothing");
    drop(world.ok("docker rm one"));
}
