//! What well-meaning clients see.

use std::io::Write as _;

use crate::world::{World, read};

#[test]
fn every_answer_has_the_heads_that_clients_look_for() {
    let world = World::new();
    for path in ["/_ping", "/v1.24/_ping", "/v1.51/containers/json", "/v1.51/containers/nosuch/json", "/v1.99/info", "/nosuch"] {
        let answer = world.get(path);
        assert_eq!(answer.header("Server"), Some("Docker/28.5.2+sampan (linux)"), "{path}");
        assert_eq!(answer.header("Api-Version"), Some("1.51"), "{path}");
        assert_eq!(answer.header("Ostype"), Some("linux"), "{path}");
        assert_eq!(answer.header("Docker-Experimental"), Some("false"), "{path}");
        let kind = if path.ends_with("_ping") { "text/plain; charset=utf-8" } else { "application/json" };
        assert_eq!(answer.header("Content-Type"), Some(kind), "{path}");
    }
}

#[test]
fn ping_answers_get_and_head() {
    let world = World::new();
    let answer = world.get("/_ping");
    assert_eq!((answer.status(), answer.body.as_str()), (200, "OK"));
    assert_eq!(answer.header("Swarm"), Some("inactive"));
    assert_eq!(answer.header("Cache-Control"), Some("no-cache, no-store, must-revalidate"));
    let answer = world.send("HEAD /_ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    assert_eq!((answer.status(), answer.body.as_str()), (200, ""));
}

#[test]
fn errors_have_docker_s_status_and_text() {
    let world = World::new();
    let too_old = "client version 1.23 is too old. Minimum supported API version is 1.24, please upgrade your client to a newer version";
    let swarm = "This node is not a swarm manager. Use \\\"docker swarm init\\\" or \\\"docker swarm join\\\" to connect this node to swarm and try again.";
    for (path, status, message) in [
        ("/v1.23/info", 400, too_old),
        ("/v1.99/info", 400, "client version 1.99 is too new. Maximum supported API version is 1.51"),
        ("/v1.51/nosuch", 404, "page not found"),
        ("/v1.51/containers/json/", 404, "page not found"),
        ("/v1.51/containers/nosuch/json", 404, "No such container: nosuch"),
        ("/v1.51/images/nosuch/json", 404, "No such image: nosuch:latest"),
        ("/v1.51/images/get?names=nosuch", 404, "No such image: nosuch"),
        ("/v1.51/networks/nosuch", 404, "network nosuch not found"),
        ("/v1.51/volumes/nosuch", 404, "get nosuch: no such volume"),
        ("/v1.51/exec/nosuch/json", 404, "No such exec instance: nosuch"),
        ("/v1.51/swarm", 503, swarm),
        ("/v1.51/containers/json?filters=x", 400, "invalid filter"),
        ("/v1.51/containers/json?filters=%7B%22bogus%22:%5B%22x%22%5D%7D", 400, "invalid filter 'bogus'"),
        ("/v1.51/containers/nosuch/archive", 400, "bad parameter: pathcannot be empty"),
        ("/v1.51/system/df?type=x", 400, "unknown object type: x"),
    ] {
        let answer = world.get(path);
        assert_eq!((answer.status(), answer.body.as_str()), (status, format!("{{\"message\":\"{message}\"}}\n").as_str()), "{path}");
    }
}

#[test]
fn create_reads_its_body_as_docker_does() {
    let world = World::new();
    for (body, status, message) in [
        ("", 400, "invalid JSON: got EOF while reading request body"),
        ("{", 400, "invalid JSON: unexpected EOF"),
        ("{\"Image\":\"box\"}x", 400, "unexpected content after JSON"),
        ("{}", 400, "config cannot be empty in order to create a container"),
        ("null", 400, "config cannot be empty in order to create a container"),
        ("{\"image\":\"nosuch\"}", 404, "No such image: nosuch:latest"),
    ] {
        let answer = world.post("/v1.51/containers/create", body);
        assert_eq!((answer.status(), answer.body.as_str()), (status, format!("{{\"message\":\"{message}\"}}\n").as_str()), "{body}");
    }
    let answer = world.send(
        "POST /v1.51/containers/create HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\n{}",
    );
    assert_eq!(answer.body, "{\"message\":\"unsupported Content-Type header (text/plain): must be 'application/json'\"}\n");
}

#[test]
fn empty_lists_are_written_as_the_original_writes_them() {
    let world = World::new();
    for (path, body) in [
        ("/v1.51/containers/json", "[]\n"),
        ("/containers/json?all=1", "[]\n"),
        ("/v1.51/images/json", "[]\n"),
        ("/v1.51/volumes", "{\"Volumes\":[],\"Warnings\":null}\n"),
        ("/v1.51/plugins", "[]\n"),
        ("/v1.51/system/df", "{\"LayersSize\":0,\"Images\":[],\"Containers\":[],\"Volumes\":[],\"BuildCache\":[]}\n"),
    ] {
        let answer = world.get(path);
        assert_eq!((answer.status(), answer.body.as_str()), (200, body), "{path}");
    }
    for (path, body) in [
        ("/v1.51/containers/prune", "{\"ContainersDeleted\":null,\"SpaceReclaimed\":0}\n"),
        ("/v1.51/images/prune", "{\"ImagesDeleted\":null,\"SpaceReclaimed\":0}\n"),
        ("/v1.51/volumes/prune", "{\"VolumesDeleted\":[],\"SpaceReclaimed\":0}\n"),
        ("/v1.51/networks/prune", "{\"NetworksDeleted\":null}\n"),
    ] {
        assert_eq!(world.post(path, "").body, body, "{path}");
    }
}

#[test]
fn what_is_not_offered_yet_says_so() {
    let world = World::new();
    for path in ["/v1.51/build?version=2", "/v1.51/session", "/v1.51/grpc", "/v1.51/networks/create"] {
        let answer = world.post(path, "{}");
        assert_eq!(answer.status(), 501, "{path}");
        assert!(answer.body.starts_with("{\"message\":\"not supported: "), "{path}: {}", answer.body);
    }
}

#[test]
fn one_connection_serves_many_requests_and_the_server_ends_with_a_follower_on_it() {
    let mut world = World::new();
    let mut stream = world.connect();
    stream.write_all(b"GET /_ping HTTP/1.1\r\nHost: x\r\n\r\nGET /_ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let both = read(&mut stream);
    assert_eq!((both.body.matches("HTTP/1.1 200 OK").count(), both.body.ends_with("OK")), (1, true), "{both:?}");
    let mut follower = world.connect();
    follower.write_all(b"GET /v1.51/events HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    // The past is over at once; this also proves that the follower's request was taken before the end.
    assert_eq!(world.get("/v1.51/events?since=1&until=2").status(), 200);
    world.stop();
    drop(read(&mut follower));
}
