//! What client libraries rely on and no command line shows: hijacked connections byte by byte, attach with logs, keys that leave, and
//! files of containers that do not run. Spoken to over the socket, as docker-py, testcontainers and dockerode do.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::net::RecvFlags;
use sampan_testkit::World;
use serde_json::{Value, json};

fn world() -> World {
    let world = World::with_docker();
    drop(world.ok("docker load -q -i box.tar"));
    world
}

/// Sends a request; with `upgrade` the connection becomes a stream of bytes.
fn send(world: &World, method: &str, path: &str, body: &Value, upgrade: bool) -> UnixStream {
    let mut stream = UnixStream::connect(world.socket()).expect("the engine's socket");
    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout");
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let connection = if upgrade { "Upgrade\r\nUpgrade: tcp" } else { "close" };
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: engine\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: {connection}\r\n\r\n{body}",
        body.len()
    )
    .expect("a request");
    stream
}

/// Reads to the end: the head as text, and what follows.
fn rest(mut stream: UnixStream) -> (String, Vec<u8>) {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).expect("the connection ends");
    let at = bytes.windows(4).position(|window| window == b"\r\n\r\n").expect("a head");
    (String::from_utf8_lossy(&bytes[..at]).into_owned(), bytes.split_off(at + 4))
}

/// Reads until these bytes have come.
fn until(stream: &mut UnixStream, wanted: &[u8]) -> Vec<u8> {
    let (mut seen, mut buffer) = (Vec::new(), [0; 4096]);
    while !seen.windows(wanted.len()).any(|window| window == wanted) {
        let count = stream.read(&mut buffer).expect("more comes");
        assert!(count > 0, "ended with {:?}", String::from_utf8_lossy(&seen));
        seen.extend_from_slice(&buffer[..count]);
    }
    seen
}

fn exec(world: &World, container: &str, fields: &Value) -> String {
    let (head, body) = rest(send(world, "POST", &format!("/containers/{container}/exec"), fields, false));
    assert!(head.starts_with("HTTP/1.1 201"), "{head} {}", String::from_utf8_lossy(&body));
    let body: Value = serde_json::from_slice(&body).expect("JSON");
    body["Id"].as_str().expect("an id").to_owned()
}

fn frame(stream: u8, text: &str) -> Vec<u8> {
    [&[stream, 0, 0, 0], &u32::try_from(text.len()).expect("short").to_be_bytes(), text.as_bytes()].concat()
}

#[test]
fn frames_of_an_exec_are_what_its_start_asks_for() {
    let world = world();
    drop(world.ok("docker run -d --name one box sleep 600"));
    let framed = [frame(1, "out\n"), frame(2, "err\n")].concat();
    let cases: [(bool, bool, &str, Vec<u8>); 4] = [
        (false, false, "multiplexed", framed),
        (false, true, "raw", b"out\n".to_vec()),
        (true, true, "raw", b"out\r\nerr\r\n".to_vec()),
        (true, false, "multiplexed", b"out\r\nerr\r\n".to_vec()),
    ];
    for (terminal, asked, kind, wanted) in cases {
        let fields = json!({"Cmd": ["sh", "-c", "echo out; echo err >&2"], "AttachStdout": true, "AttachStderr": true, "Tty": terminal});
        let id = exec(&world, "one", &fields);
        let (head, mut bytes) = rest(send(&world, "POST", &format!("/exec/{id}/start"), &json!({"Tty": asked}), true));
        assert!(head.starts_with("HTTP/1.1 101") && head.contains(&format!("application/vnd.docker.{kind}-stream")), "{head}");
        if terminal && !asked {
            // A terminal's output comes in pieces that nobody chooses.
            let mut plain = Vec::new();
            while let Some((head, after)) = bytes.split_first_chunk::<8>() {
                let length = usize::from(head[7]);
                assert_eq!(head[..7], [1, 0, 0, 0, 0, 0, 0]);
                plain.extend_from_slice(&after[..length]);
                bytes.drain(..8 + length);
            }
            bytes = plain;
        }
        assert_eq!(String::from_utf8_lossy(&bytes), String::from_utf8_lossy(&wanted), "terminal {terminal}, asked {asked}");
    }
}

#[test]
fn output_follows_when_the_head_was_read() {
    let world = world();
    drop(world.ok("docker run --name one box echo done"));
    let stream = send(&world, "POST", "/containers/one/attach?logs=1&stdout=1", &Value::Null, true);
    stream.set_read_timeout(Some(Duration::from_millis(200))).expect("a timeout");
    // Everything that comes while nothing is taken: libraries that read the head through a buffer would lose what came with it.
    let mut buffer = [0; 4096];
    let (_, count) = rustix::net::recv(&stream, &mut buffer[..], RecvFlags::PEEK | RecvFlags::WAITALL).expect("the head");
    assert!(buffer[..count].ends_with(b"\r\n\r\n"), "{:?}", String::from_utf8_lossy(&buffer[..count]));
    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout");
    assert_eq!(rest(stream).1, frame(1, "done\n"));
}

#[test]
fn attach_gives_the_log_first() {
    let world = world();
    drop(world.ok("docker run --name over box sh -c 'echo out; echo err >&2'"));
    let all = rest(send(&world, "POST", "/containers/over/attach?logs=1&stdout=1&stderr=1", &Value::Null, true)).1;
    assert_eq!(all, [frame(1, "out\n"), frame(2, "err\n")].concat());
    let (head, one) = rest(send(&world, "POST", "/containers/over/attach?logs=1&stderr=1", &Value::Null, false));
    assert!(head.starts_with("HTTP/1.1 200") && one.windows(12).any(|window| window == frame(2, "err\n")), "{head}");
    let nothing = rest(send(&world, "POST", "/containers/over/attach?stdout=1", &Value::Null, true));
    assert!(nothing.0.starts_with("HTTP/1.1 101") && nothing.1.is_empty(), "neither log nor stream: {nothing:?}");

    drop(world.ok("docker run -d -i --name on box sh -c 'echo before; cat'"));
    let _said = world.ok("until docker logs on | grep -q before; do :; done");
    let path = "/containers/on/attach?logs=1&stream=1&stdin=1&stdout=1";
    let mut stream = send(&world, "POST", path, &Value::Null, true);
    let _log = until(&mut stream, &frame(1, "before\n"));
    stream.write_all(b"after\n").expect("input");
    let _live = until(&mut stream, &frame(1, "after\n"));
}

#[test]
fn keys_leave_a_terminal_and_the_process_goes_on() {
    let world = world();
    drop(world.ok("docker run -dit --name one box cat"));
    let mut stream = send(&world, "POST", "/containers/one/attach?stream=1&stdin=1&stdout=1&detachKeys=a,b", &Value::Null, true);
    let _head = until(&mut stream, b"\r\n\r\n");
    stream.write_all(b"xac").expect("input");
    let _echo = until(&mut stream, b"xac");
    stream.write_all(b"ab").expect("input");
    let mut left = Vec::new();
    stream.read_to_end(&mut left).expect("the connection ends");
    assert_eq!((left, world.ok("docker inspect -f '{{.State.Running}}' one").as_str()), (Vec::new(), "true"));

    let fields = json!({"Cmd": ["cat"], "AttachStdin": true, "AttachStdout": true, "Tty": true});
    let id = exec(&world, "one", &fields);
    let mut stream = send(&world, "POST", &format!("/exec/{id}/start"), &json!({"Tty": true}), true);
    let _head = until(&mut stream, b"\r\n\r\n");
    stream.write_all(b"\x10\x11").expect("the usual keys");
    let mut told = String::new();
    stream.read_to_string(&mut told).expect("the connection ends");
    assert_eq!(told, "exec attach failed: error on attach stdin: read escape sequence\r\n");
    let events = world.ok("docker events --since 0 --until $(date +%s.%N) --format '{{.Action}}' | grep detach");
    assert_eq!(events, "detach\nexec_detach");

    let (head, body) = rest(send(&world, "POST", "/containers/one/attach?stream=1&detachKeys=foo", &Value::Null, false));
    assert!(head.starts_with("HTTP/1.1 400") && String::from_utf8_lossy(&body).contains("Invalid detach keys (foo) provided"), "{head}");
    let fields = json!({"Cmd": ["cat"], "DetachKeys": "foo"});
    let (head, body) = rest(send(&world, "POST", "/containers/one/exec", &fields, false));
    assert!(head.starts_with("HTTP/1.1 400") && String::from_utf8_lossy(&body).contains("Invalid escape keys (foo) provided"), "{head}");
}

#[test]
fn files_of_volumes_are_copied_whether_the_container_runs_or_not() {
    let world = world();
    let _made = world.ok("mkdir host; echo from host >host/h; echo from file >f");
    drop(world.ok("docker create --name one -v data:/deep/er -v \"$PWD/host:/host\" --hostname shown box cat /deep/er/f"));
    drop(world.ok("docker cp -q f one:/deep/er/"));
    assert_eq!(world.ok("docker start -a one"), "from file", "what was copied before the start is in the volume");
    assert_eq!(world.ok("docker cp one:/deep/er/f - | tar -xO"), "from file");
    assert_eq!(world.ok("docker cp one:/host/h - | tar -xO"), "from host");
    assert_eq!(world.ok("docker cp one:/etc/hostname - | tar -xO"), "shown");
    assert_eq!(world.ok("docker run --rm -v data:/v box cat /v/f"), "from file");
    let _gone = world.ok("rm -r host");
    assert_eq!(world.ok("docker cp one:/deep/er/f - | tar -xO"), "from file", "a folder of the host that is gone hides nothing else");
}

#[test]
fn each_end_of_a_container_that_restarts_is_waited_for() {
    let world = world();
    drop(world.ok("docker run -d --name one --restart always box sh -c 'sleep 1; exit 3'"));
    assert_eq!(world.ok("docker wait one"), "3");
    // Between two runs: after some ends the pause is long enough to be met.
    let refused = world.sh("while :; do docker rm one 2>said; grep -q restarting said && break; done; cat said >&2; exit 1");
    let wanted = "cannot remove container \"one\": container is restarting: stop the container before removing or force remove";
    assert!(refused.stderr.contains(wanted), "{refused:?}");
    drop(world.ok("docker rm -f one"));
}

#[test]
fn a_number_of_log_files_needs_no_size() {
    let world = world();
    assert_eq!(world.ok("docker run --name one --log-opt max-file=100 box echo said"), "said");
    assert_eq!(world.ok("docker logs one; docker inspect -f '{{.HostConfig.LogConfig.Config}}' one"), "said\nmap[max-file:100]");
}

#[test]
fn what_is_not_there_says_so() {
    let world = world();
    let cases = [
        ("POST", "/plugins/pull?remote=x", "managed plugins"),
        ("GET", "/plugins/privileges?remote=x", "managed plugins"),
        ("POST", "/plugins/create?name=x", "managed plugins"),
        ("POST", "/swarm/init", "swarm mode"),
        ("POST", "/swarm/join", "swarm mode"),
    ];
    for (method, path, words) in cases {
        let (head, body) = rest(send(&world, method, path, &Value::Null, false));
        let body = String::from_utf8_lossy(&body).into_owned();
        assert!(head.starts_with("HTTP/1.1 501") && body.contains(&format!("not supported: {words}")), "{path}: {head} {body}");
    }
}
