//! `sampan registry` as a program: without privileges, with TLS under a name, and killed while it takes what clients bring.
#![allow(clippy::unwrap_used, reason = "test code")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use sampan_testkit::{World, WorldOptions, images, setup};

/// A registry in its own process.
struct Server {
    child: Child,
    address: SocketAddr,
}

impl Server {
    fn start(root: &Path) -> Self {
        let mut command = Command::new(setup::sampan());
        command.args([
            "registry",
            "serve",
            "--http",
            "--listen",
            "127.0.0.1:0",
            "--anonymous",
            "push",
            "--access-log",
            "none",
            "--data-root",
        ]);
        let mut child = command.arg(root).env_clear().stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let address = lines.into_iter().find_map(|line| line.strip_prefix("listening on http://")?.parse().ok());
        Self { child, address: address.expect("the registry says where it listens") }
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        drop(self.child.wait());
    }
}

/// Sends a request; status and body, unless the server is gone.
fn send(address: SocketAddr, method: &str, path: &str, body: &[u8]) -> Option<(u16, Vec<u8>)> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(60))).ok()?;
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).ok()?;
    stream.write_all(body).ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&answer[..end]).into_owned();
    let length = head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse::<usize>().ok());
    let body = answer[end + 4..].to_vec();
    // An answer that was cut off is none.
    (length.unwrap_or(0) == body.len()).then(|| Some((head.split(' ').nth(1)?.parse().ok()?, body)))?
}

/// Pushes images until the server is gone; notes what was acknowledged.
fn push_until_gone(address: SocketAddr, name: &str, done: &Mutex<Vec<(String, Vec<u8>)>>) {
    for number in 0.. {
        let layer: Vec<u8> = format!("{name} {number} ").into_bytes().repeat(1 + number * 7919 % 40_000);
        for blob in [b"{}".as_slice(), &layer] {
            let digest = images::sha256(blob);
            let digest = digest.strip_prefix("sha256:").unwrap_or(&digest);
            let path = format!("/v2/{name}/blobs/uploads/?digest=sha256:{digest}");
            let Some((status, body)) = send(address, "POST", &path, blob) else { return };
            assert_eq!(status, 201, "{}", String::from_utf8_lossy(&body));
            done.lock().unwrap().push((format!("/v2/{name}/blobs/sha256:{digest}"), blob.to_vec()));
        }
        let digest = |blob: &[u8]| format!("sha256:{}", images::sha256(blob).trim_start_matches("sha256:"));
        let manifest = format!(
            r#"{{"schemaVersion":2,"config":{{"digest":"{}","size":2}},"layers":[{{"digest":"{}","size":{}}}]}}"#,
            digest(b"{}"),
            digest(&layer),
            layer.len()
        );
        let path = format!("/v2/{name}/manifests/t{number}");
        let Some((status, body)) = send(address, "PUT", &path, manifest.as_bytes()) else { return };
        assert_eq!(status, 201, "{}", String::from_utf8_lossy(&body));
        done.lock().unwrap().push((path, manifest.into_bytes()));
    }
}

fn files_below(folder: &Path) -> usize {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| if entry.path().is_dir() { files_below(&entry.path()) } else { 1 }).sum()
}

fn blob_rows(address: SocketAddr) -> usize {
    let (_, text) = send(address, "GET", "/metrics", b"").expect("the registry answers");
    let text = String::from_utf8(text).unwrap();
    text.lines().find_map(|line| line.strip_prefix("sampan_registry_blobs ")?.parse().ok()).expect("a figure")
}

#[test]
fn nothing_that_was_acknowledged_is_lost_by_kills() {
    let (kills, seed) = setup::storm();
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("data");
    let done = Mutex::new(Vec::new());
    let mut state = seed | 1;
    for round in 0..kills {
        let server = Server::start(&root);
        let address = server.address;
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let moment = Duration::from_millis(20 + state % 400);
        let gone = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for pusher in 0..4 {
                let (done, gone) = (&done, &gone);
                scope.spawn(move || {
                    push_until_gone(address, &format!("r{round}/p{pusher}"), done);
                    assert!(gone.load(Ordering::SeqCst), "seed {seed}: a request failed before the kill");
                });
            }
            // The moment of the kill is what is tested; nothing is waited for.
            std::thread::park_timeout(moment);
            gone.store(true, Ordering::SeqCst);
            server.kill();
        });
    }
    let server = Server::start(&root);
    let done = done.into_inner().unwrap();
    assert!(!done.is_empty());
    for (path, content) in &done {
        let (status, body) = send(server.address, "GET", path, b"").expect("the registry answers");
        assert_eq!((status, &body), (200, content), "seed {seed}: {path}");
    }
    // Files that have no row are swept after a start.
    let end = Instant::now() + Duration::from_secs(30);
    while files_below(&root.join("blobs")) != blob_rows(server.address) || files_below(&root.join("uploads")) != 0 {
        assert!(Instant::now() < end, "seed {seed}: {} files, {} rows", files_below(&root.join("blobs")), blob_rows(server.address));
        std::thread::yield_now();
    }
    server.kill();
}

/// A registry of user 1000 under the name `registry.test`, with TLS; `serve.log` has what it says.
fn tls_world() -> World {
    let world = World::start(WorldOptions { no_daemon: true, ..WorldOptions::default() });
    drop(world.ok("cp /etc/hosts hosts && echo '127.0.0.1 registry.test' >> hosts && mount --bind hosts /etc/hosts && mkdir -m 700 data && chown 1000:1000 data"));
    let serve =
        "sampan registry serve --data-root data --listen 127.0.0.1:5443 --tls-generate --hostname registry.test --access-log access.log";
    drop(world.ok(&format!(
        "touch access.log && chown 1000 access.log && chmod 711 . && \
         (setpriv --reuid 1000 --regid 1000 --clear-groups --bounding-set -all {serve} > serve.log 2>&1 & echo $! > pid) && \
         timeout 30 bash -c 'until grep -q ^listening serve.log; do :; done' || (cat serve.log; false)"
    )));
    world
}

#[test]
fn it_serves_with_tls_without_privileges_and_notices_users() {
    let world = tls_world();
    let log = world.ok("cat serve.log");
    assert!(log.contains("/etc/docker/certs.d/HOST:5443/ca.crt\n") && log.contains("/etc/sampan/certs.d/HOST:5443/ca.crt\n"), "{log}");
    assert!(log.contains("registry user add NAME --data-root data\nlistening on https://127.0.0.1:5443"), "{log}");
    let curl = "curl -sS --cacert data/tls/ca.crt";
    assert_ne!(world.sh("curl -sS https://registry.test:5443/v2/").code, 0, "nobody trusts it without its authority");
    assert_eq!(world.ok(&format!("{curl} -o /dev/null -w '%{{http_code}} %{{http_version}}' https://registry.test:5443/v2/")), "401 2");
    let head = world.ok(&format!("{curl} --http1.1 -D - -o /dev/null https://registry.test:5443/v2/a/tags/list"));
    assert!(
        head.contains("Bearer realm=\"https://registry.test:5443/token\",service=\"registry.test:5443\",scope=\"repository:a:pull\""),
        "{head}"
    );
    // Root makes the user, the files stay those of user 1000, the server knows at once.
    assert_eq!(world.ok("echo secret | sampan registry user add anna --data-root data --password-stdin"), "anna");
    assert_eq!(world.ok("find data -not -uid 1000 | wc -l"), "0");
    assert_eq!(world.ok(&format!("{curl} -u anna:secret https://registry.test:5443/v2/")), "{}");
    assert_eq!(world.ok("sampan registry user ls --data-root data --format '{{.Name}} {{.Role}}'"), "anna push");
    let refused = world.sh("echo x | sampan registry user add anna --data-root data --password-stdin");
    assert_eq!((refused.code, refused.stderr.as_str()), (1, "user anna exists already\n"));
    assert_eq!(world.ok("echo new | sampan registry user passwd anna --data-root data --password-stdin"), "anna");
    let status =
        |password: &str| world.ok(&format!("{curl} -o /dev/null -w '%{{http_code}}' -u anna:{password} https://registry.test:5443/v2/"));
    assert_eq!((status("secret"), status("new")), ("401".into(), "200".into()));
    assert_eq!(world.ok("sampan registry user rm anna --data-root data"), "anna");
    assert_eq!(status("new"), "401");
    let root = world.sh("sampan registry serve --data-root data --http");
    assert!(root.code == 1 && root.stderr.contains("belongs to user 1000"), "{root:?}");
    drop(world.ok("kill -TERM $(cat pid) && tail --pid=$(cat pid) -f /dev/null"));
    let lines = world.ok("grep -c ' anna GET /v2/ 200 2 ' access.log");
    assert_eq!(lines, "2", "{}", world.ok("cat access.log"));
}

#[test]
fn what_serve_cannot_do_it_says() {
    let world = World::start(WorldOptions { no_daemon: true, ..WorldOptions::default() });
    let table = [
        (
            "--listen 0.0.0.0:5000",
            "say how connections are protected: --tls-cert FILE --tls-key FILE, --tls-generate, or --http for not at all\n",
        ),
        ("--http --tls-generate", "conflicting options: give one of --tls-cert with --tls-key, --tls-generate and --http\n"),
        ("--tls-cert x", "--tls-cert and --tls-key belong together\n"),
        ("--http --hostname x", "--hostname is for the certificate of --tls-generate\n"),
        ("--http --anonymous all", "invalid argument \"all\" for --anonymous: must be none, pull, push or delete\n"),
        ("--http --listen 127.0.0.1:x", "invalid argument \"127.0.0.1:x\" for --listen: "),
        ("--tls-cert none --tls-key none --data-root data", "prepare TLS: read or write none: "),
    ];
    for (options, text) in table {
        let output = world.sh(&format!("sampan registry serve {options}"));
        assert!(output.code == 1 && output.stderr.contains(text), "{options}: {output:?}");
    }
}

#[test]
fn strangers_may_delete_and_parts_may_be_missing_where_that_is_said() {
    let world = World::start(WorldOptions { no_daemon: true, ..WorldOptions::default() });
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let config = format!("{{\"mediaType\":\"x/y\",\"digest\":\"sha256:{}\",\"size\":2}}", "0".repeat(64));
    let manifest = format!("{{\"schemaVersion\":2,\"mediaType\":\"{kind}\",\"config\":{config},\"layers\":[]}}");
    std::fs::write(world.folder().join("work/manifest"), manifest).unwrap();
    for (port, more, put, delete) in [
        (5000, "--anonymous push", 404, 401),
        (5001, "--anonymous delete", 404, 404),
        (5002, "--anonymous delete --allow-missing-blobs", 201, 202),
    ] {
        let serve =
            format!("sampan registry serve --http --listen 127.0.0.1:{port} {more} --access-log none --data-root /var/lib/sampan/{port}");
        drop(world.ok(&format!(
            "({serve} > {port}.log 2>&1 & echo $! > {port}.pid); timeout 30 bash -c 'until grep -q ^listening {port}.log; do :; done'"
        )));
        let ask = |arguments: &str| {
            let place = format!("http://127.0.0.1:{port}/v2/a/manifests/x");
            world.ok(&format!("curl -s -o /dev/null -w '%{{http_code}}' {arguments} {place}"))
        };
        assert_eq!(ask(&format!("-X PUT -H 'Content-Type: {kind}' --data-binary @manifest")), put.to_string(), "{more}");
        assert_eq!(ask("-X DELETE"), delete.to_string(), "{more}");
        drop(world.ok(&format!("kill -TERM $(cat {port}.pid) && tail --pid=$(cat {port}.pid) -f /dev/null")));
    }
}

#[test]
fn a_full_disk_is_said_and_leaves_no_half_state() {
    let world = World::start(WorldOptions { no_daemon: true, data_size: Some(24), ..WorldOptions::default() });
    let root = "/var/lib/sampan/registry";
    let serve = format!("sampan registry serve --http --listen 127.0.0.1:5000 --anonymous push --access-log none --data-root {root}");
    drop(
        world.ok(&format!(
            "({serve} > serve.log 2>&1 & echo $! > pid); timeout 30 bash -c 'until grep -q ^listening serve.log; do :; done'"
        )),
    );
    drop(
        world.ok(
            "head -c 6000000 /dev/urandom > one; head -c 6000000 /dev/urandom > two; head -c 14000000 /dev/zero > /var/lib/sampan/filler",
        ),
    );
    let push = |name: &str| {
        let digest = format!("$(sha256sum < {name} | cut -d' ' -f1)");
        world.ok(&format!(
            "curl -s -w '\\n%{{http_code}}' -T {name} -X POST \"http://127.0.0.1:5000/v2/a/blobs/uploads?digest=sha256:{digest}\" | tr -d '\\n'"
        ))
    };
    assert_eq!(push("one"), "201");
    let refused = push("two");
    // Docker shows the message of statuses below 500 only, and does not try again what is denied.
    assert!(refused.ends_with("413") && refused.contains("\"code\":\"DENIED\"") && refused.contains("disk is full"), "{refused}");
    assert_eq!(world.ok(&format!("ls {root}/uploads | wc -l; find {root}/blobs -type f | wc -l")), "0\n1");
    // Chunks of an upload: what did not fit is taken back, and the upload goes on when there is room.
    let place = "http://127.0.0.1:5000$(cat place)";
    drop(world.ok("curl -s -D - -o /dev/null -X POST http://127.0.0.1:5000/v2/a/blobs/uploads/ | sed -n 's/^[Ll]ocation: //p' | tr -d '\\r\\n' > place"));
    assert!(world.ok(&format!("curl -s -w '%{{http_code}}' -T two -X PATCH {place}")).ends_with("413"));
    let fits = world.ok(&format!("curl -s -D - {place} | sed -n 's/^[Rr]ange: 0-//p' | tr -d '\\r\\n'"));
    let fits: u64 = fits.parse().unwrap();
    assert_eq!(world.ok(&format!("stat -c %s {root}/uploads/*")), if fits == 0 { "0".to_owned() } else { (fits + 1).to_string() });
    drop(world.ok("rm /var/lib/sampan/filler"));
    let start = if fits == 0 { 0 } else { fits + 1 };
    drop(world.ok(&format!("tail -c +{} two > rest", start + 1)));
    let finish = format!("curl -s -w '%{{http_code}}' -T rest \"{place}?digest=sha256:$(sha256sum < two | cut -d' ' -f1)\"");
    assert_eq!(world.ok(&finish), "201");
    drop(world.ok("kill -TERM $(cat pid) && tail --pid=$(cat pid) -f /dev/null"));
}
