//! Clients that mean harm get an error or a closed connection, and the server lives on.

use std::io::Write as _;

use crate::world::{World, read};

/// Writes until the peer has enough, at most `limit` bytes; says how many were taken.
fn pour(stream: &mut std::os::unix::net::UnixStream, piece: &[u8], limit: usize) -> usize {
    let mut sent = 0;
    while sent < limit && stream.write_all(piece).is_ok() {
        sent += piece.len();
    }
    sent
}

fn lives(world: &World) {
    assert_eq!(world.get("/_ping").body, "OK");
}

#[test]
fn endless_headers_are_cut_off() {
    let world = World::new();
    for (start, piece) in
        [("GET /_ping HTTP/1.1\r\nX: ", "x".repeat(4096)), ("GET /_ping HTTP/1.1\r\n", "A: b\r\n".repeat(500)), ("GET /", "y".repeat(4096))]
    {
        let mut stream = world.connect();
        stream.write_all(start.as_bytes()).unwrap();
        let limit = 16 << 20;
        assert!(pour(&mut stream, piece.as_bytes(), limit) < limit, "{start}");
        let answer = read(&mut stream);
        assert!(matches!(answer.status(), 0 | 400 | 414 | 431), "{}", answer.head);
    }
    lives(&world);
}

#[test]
fn a_json_body_without_end_is_refused() {
    let world = World::new();
    let mut stream = world.connect();
    stream
        .write_all(
            b"POST /v1.51/containers/create HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n",
        )
        .unwrap();
    let piece = format!("10000\r\n{}\r\n", "[".repeat(0x10000));
    let limit = 64 << 20;
    assert!(pour(&mut stream, piece.as_bytes(), limit) < limit);
    let answer = read(&mut stream);
    assert!(matches!(answer.status(), 0 | 413), "{}", answer.head);
    lives(&world);
}

#[test]
fn deep_json_and_broken_framing_are_errors() {
    let world = World::new();
    let deep = world.post("/v1.51/containers/create", &"[".repeat(200_000));
    assert_eq!(deep.status(), 400);
    for head in [
        "POST /v1.51/containers/create HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
        "POST /v1.51/containers/create HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n{}",
        "POST /v1.51/containers/create HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n{}",
        "GARBAGE\r\n\r\n",
        "GET /_ping HTTP/9.9\r\n\r\n",
        "\0\0\0\0\r\n\r\n",
    ] {
        let answer = world.send(head);
        assert!(matches!(answer.status(), 0 | 400..=499 | 505), "{head:?}: {}", answer.head);
    }
    lives(&world);
}

#[test]
fn odd_paths_and_queries_are_ordinary_errors() {
    let world = World::new();
    for path in [
        "//",
        "/v1.51//containers/json",
        "/v1.51/containers/%2e%2e%2f/json",
        "/v1.51/containers/%ff%fe/json",
        "/%",
        "/v1.51/images/%00/json",
        "/v/x",
        "/v1.51",
    ] {
        let answer = world.get(path);
        assert!((400..500).contains(&answer.status()), "{path}: {}", answer.head);
        assert!(answer.body.starts_with("{\"message\":"), "{path}");
    }
    for query in ["limit=99999999999999999999", "filters=%7B%22id%22:5%7D", "filters=[]", "filters=%7B%22id%22:%5B5%5D%7D"] {
        assert!(world.get(&format!("/v1.51/containers/json?{query}")).status() >= 400, "{query}");
    }
    for query in ["since=99999999999999999999", "until=1e400", "since=9223372036854775807"] {
        let answer = world.get(&format!("/v1.51/events?{query}&until=2"));
        assert!(matches!(answer.status(), 200 | 400), "{query}: {}", answer.head);
    }
    lives(&world);
}

#[test]
fn archives_that_are_none_change_nothing() {
    let world = World::new();
    for body in ["", "garbage", "\u{1f}\u{8b}\u{8}"] {
        let answer = world.post("/v1.51/images/load", body);
        assert!(answer.status() >= 400 || answer.body.contains("errorDetail"), "{body:?}: {}", answer.body);
    }
    assert_eq!(world.get("/v1.51/images/json").body, "[]\n");
}
