//! Images to a registry and back: through both command lines, from registries that lie, over broken connections, past kill -9
//! and a full disk.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use sampan_testkit::images::{self, Tar};
use sampan_testkit::registry::{Answer, Ask, Registry, digest};
use sampan_testkit::{Service, World, WorldOptions, setup};
use serde_json::json;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// A layer of one file that does not compress to nothing.
fn layer(name: &str, length: usize) -> Vec<u8> {
    let mut number = images::sha256(name.as_bytes()).bytes().fold(1_u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(byte)));
    let mut content = Vec::with_capacity(length);
    while content.len() < length {
        number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        content.extend_from_slice(&number.to_be_bytes());
    }
    Tar::new().file(name, 0o644, &content).finish()
}

fn busybox() -> Vec<u8> {
    images::rootfs(&setup::busybox()).expect("busybox can be read")
}

/// The config of an image of these layers.
fn config(layers: &[Vec<u8>], architecture: &str) -> String {
    let layers: Vec<String> = layers.iter().map(|layer| digest(layer)).collect();
    json!({"architecture": architecture, "os": "linux", "config": {"Cmd": ["sh"], "Env": ["PATH=/bin"]}, "rootfs": {"type": "layers", "diff_ids": layers}})
        .to_string()
}

fn blob(kind: &str, bytes: &[u8]) -> serde_json::Value {
    json!({"mediaType": kind, "digest": digest(bytes), "size": bytes.len()})
}

/// Puts an image into a registry; gives its manifest.
fn publish(registry: &Registry, repository: &str, tag: &str, layers: &[Vec<u8>]) -> String {
    let config = config(layers, "amd64");
    registry.put_blob(repository, config.clone());
    let mut described = Vec::new();
    for layer in layers {
        registry.put_blob(repository, layer.clone());
        described.push(blob(LAYER, layer));
    }
    // Nobody else prints it so: only a copy has these bytes.
    let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": blob(CONFIG, config.as_bytes()), "layers": described, "annotations": {"a": "b"}});
    let manifest = format!("{manifest}\n \n");
    registry.put_manifest(repository, tag, MANIFEST, manifest.clone());
    manifest
}

fn nothing_left(world: &World) {
    assert_eq!(world.ok("ls -A /var/lib/sampan/ingest /var/lib/sampan/layers | grep -v :$ | grep . || true"), "");
    assert_eq!(world.ok("docker images -aq"), "");
}

/// Waits until something holds, without a clock of its own: the other side is at work.
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < end, "waited in vain: {what}");
        std::thread::yield_now();
    }
}

/// A door that requests wait at.
#[derive(Clone, Default)]
struct Door(Arc<(Mutex<bool>, Condvar)>);

impl Door {
    fn pass(&self) {
        let mut open = self.0.0.lock().expect("no holder panics");
        while !*open {
            open = self.0.1.wait(open).expect("no holder panics");
        }
    }

    fn open(&self) {
        *self.0.0.lock().expect("no holder panics") = true;
        self.0.1.notify_all();
    }
}

/// Our own registry, open to everybody at a loopback address.
fn our_registry(world: &World) -> Service {
    let root = world.folder().join("registry");
    std::fs::create_dir(&root).expect("a folder in the world's folder");
    std::os::unix::fs::chown(&root, Some(65534), Some(65534)).expect("root gives folders away");
    let mut command = world.command_as(65534, "sampan");
    command.args(["registry", "serve", "--http", "--listen", "127.0.0.1:5000", "--anonymous", "push", "--data-root"]).arg(root);
    Service::start(world, "registry", command, "127.0.0.1:5000")
}

/// An image makes the round through a registry at 127.0.0.1:5000.
fn there_and_back(world: &World) {
    drop(world.ok("docker load -q -i box.tar && docker tag box 127.0.0.1:5000/shop/box:1"));
    let pushed = world.ok("docker push 127.0.0.1:5000/shop/box:1");
    assert!(pushed.starts_with("The push refers to repository [127.0.0.1:5000/shop/box]\n") && pushed.contains(": Pushed\n"), "{pushed}");
    let line = pushed.lines().last().expect("a last line");
    let name = line.strip_prefix("1: digest: ").and_then(|rest| rest.split(' ').next()).expect("a digest").to_owned();
    assert!(world.ok("docker push 127.0.0.1:5000/shop/box:1").contains(": Layer already exists\n"));
    drop(world.ok("docker tag box 127.0.0.1:5000/shop/other:2"));
    let mounted = world.ok("docker push 127.0.0.1:5000/shop/other:2");
    assert!(mounted.contains(": Mounted from shop/box\n") && mounted.contains(&name), "{mounted}");
    assert_eq!(world.ok("docker images --digests --format '{{.Digest}}' 127.0.0.1:5000/shop/box"), name);
    let by_digest = format!("127.0.0.1:5000/shop/box@{name}");
    assert_eq!(world.ok("docker inspect -f '{{index .RepoDigests 0}}' box"), by_digest);
    let before = world.ok("docker inspect -f '{{.Id}} {{.RootFS.Layers}}' box");
    drop(world.ok("docker rmi box 127.0.0.1:5000/shop/other:2"));
    assert_eq!(world.ok("docker rmi 127.0.0.1:5000/shop/box:1").lines().nth(1), Some(&*format!("Untagged: {by_digest}")));
    nothing_left(world);
    let pulled = world.ok("docker pull 127.0.0.1:5000/shop/box:1");
    let mut lines = pulled.lines();
    assert_eq!(lines.next(), Some("1: Pulling from shop/box"));
    assert!(lines.next().expect("a second line").ends_with(": Pulling fs layer") && pulled.contains(": Pull complete\n"), "{pulled}");
    let end = format!("Digest: {name}\nStatus: Downloaded newer image for 127.0.0.1:5000/shop/box:1\n127.0.0.1:5000/shop/box:1");
    assert!(pulled.ends_with(&end), "{pulled}");
    assert_eq!(world.ok("docker inspect -f '{{.Id}} {{.RootFS.Layers}}' 127.0.0.1:5000/shop/box:1"), before);
    assert!(world.ok("docker pull 127.0.0.1:5000/shop/box:1").contains("Status: Image is up to date for"));
    assert_eq!(world.ok("docker run --rm 127.0.0.1:5000/shop/box:1 echo runs"), "runs");
    // The kept blob is the archive, also for others.
    drop(
        world.ok(
            "docker save -o saved.tar 127.0.0.1:5000/shop/box:1 && docker rmi 127.0.0.1:5000/shop/box:1 && docker load -q -i saved.tar",
        ),
    );
    assert_eq!(world.ok("docker run --rm 127.0.0.1:5000/shop/box:1 echo again"), "again");
    drop(world.ok("docker rmi 127.0.0.1:5000/shop/box:1"));
    let missing = world.sh(&format!("docker run --rm {by_digest} echo by digest"));
    assert_eq!((missing.stdout.as_str(), missing.code), ("by digest\n", 0), "{missing:?}");
    assert_eq!(
        world.ok("docker images --digests --format '{{.Repository}} {{.Tag}} {{.Digest}}'"),
        format!("127.0.0.1:5000/shop/box <none> {name}")
    );
    drop(world.ok(&format!("docker rmi {by_digest}")));
    nothing_left(world);
}

#[test]
fn an_image_goes_to_a_registry_and_comes_back() {
    for world in [World::with_docker(), World::with_our_docker()] {
        let _registry = Registry::start(&world, 5000);
        there_and_back(&world);
    }
}

#[test]
fn an_image_goes_to_our_registry_and_comes_back() {
    for world in [World::with_docker(), World::with_our_docker()] {
        let registry = our_registry(&world);
        there_and_back(&world);
        drop(registry);
    }
}

#[test]
fn what_was_pulled_is_pushed_byte_for_byte() {
    let world = World::with_our_docker();
    let registry = Registry::start(&world, 5000);
    let manifest = publish(&registry, "a/one", "1", &[busybox(), layer("x", 70_000)]);
    drop(world.ok("docker pull -q 127.0.0.1:5000/a/one:1 && docker tag 127.0.0.1:5000/a/one:1 127.0.0.1:5000/b/two:2"));
    drop(registry.asked());
    let pushed = world.ok("docker push 127.0.0.1:5000/b/two:2");
    assert_eq!(registry.manifest("b/two", "2"), Some(manifest.clone().into_bytes()), "{pushed}");
    assert!(pushed.contains(&format!("2: digest: {} size: {}", digest(manifest.as_bytes()), manifest.len())));
    assert_eq!(pushed.matches(": Mounted from a/one").count(), 2, "{pushed}");
    // A registry that has nothing gets the very blobs too.
    let other = Registry::start(&world, 5001);
    drop(world.ok("docker tag 127.0.0.1:5000/a/one:1 127.0.0.1:5001/c:3 && docker push 127.0.0.1:5001/c:3"));
    assert_eq!(other.manifest("c", "3"), Some(manifest.into_bytes()));
    assert_eq!(other.asked().iter().filter(|line| line.starts_with("PUT /v2/c/blobs/uploads/")).count(), 3);
}

#[test]
fn a_platform_is_chosen_and_missing_ones_are_named() {
    let world = World::with_our_docker();
    let registry = Registry::start(&world, 5000);
    let layers = [busybox()];
    let mut entries = Vec::new();
    registry.put_blob("multi", layers[0].clone());
    for architecture in ["amd64", "arm64", "unknown"] {
        let config = config(&layers, architecture);
        registry.put_blob("multi", config.clone());
        let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": blob(CONFIG, config.as_bytes()), "layers": [blob(LAYER, &layers[0])]}).to_string();
        registry.put_manifest("multi", architecture, MANIFEST, manifest.clone());
        let mut entry = blob(MANIFEST, manifest.as_bytes());
        let os = if architecture == "unknown" { "unknown" } else { "linux" };
        entry["platform"] = json!({"os": os, "architecture": architecture});
        entries.insert(0, entry);
    }
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}).to_string();
    registry.put_manifest("multi", "1", INDEX, index.clone());
    let nested = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [blob(INDEX, index.as_bytes())]}).to_string();
    registry.put_manifest("multi", "nested", INDEX, nested);
    drop(world.ok("docker pull -q 127.0.0.1:5000/multi:1"));
    assert_eq!(
        world.ok("docker inspect -f '{{.Architecture}} {{index .RepoDigests 0}}' 127.0.0.1:5000/multi:1"),
        format!("amd64 127.0.0.1:5000/multi@{}", digest(index.as_bytes()))
    );
    drop(world.ok("docker pull -q --platform linux/arm64/v8 127.0.0.1:5000/multi:nested"));
    assert_eq!(world.ok("docker inspect -f '{{.Architecture}}' 127.0.0.1:5000/multi:nested"), "arm64");
    let failed = world.sh("docker pull --platform linux/s390x 127.0.0.1:5000/multi:1");
    assert!(failed.stderr.contains("no matching manifest for linux/s390x in the manifest list entries"), "{failed:?}");
    let warned = world.ok("docker pull --platform linux/arm64 127.0.0.1:5000/multi:amd64");
    assert!(warned.contains("WARNING: image with reference 127.0.0.1:5000/multi:amd64 was found but its platform (linux/amd64) does not match the specified platform (linux/arm64)"), "{warned}");
}

/// Cuts a blob in its middle, and is out of order from then on.
fn broken(registry: &Registry, blob: &str, after: usize) {
    let (honest, blob) = (registry.clone(), blob.to_owned());
    registry.hook(move |ask| {
        if !ask.path.ends_with(&format!("/blobs/{blob}")) || ask.method != "GET" {
            return None;
        }
        if ask.headers.contains_key("range") {
            return Some(Answer::new(503, ""));
        }
        Some(Answer { cut: Some(after), ..honest.answer(ask) })
    });
}

/// Begins a pull of `big:1` and comes back when its big layer is here up to the middle.
fn half_a_pull(world: &World, registry: &Registry) -> (std::process::Child, String) {
    let big = layer("big", 3_000_000);
    publish(registry, "big", "1", &[busybox(), big.clone()]);
    broken(registry, &digest(&big), 2_000_000);
    let line = format!("GET /v2/big/blobs/{} from ", digest(&big));
    let script = format!("echo $$ > '{}/client.pid'; exec docker pull -q 127.0.0.1:5000/big:1", world.folder().display());
    let client = world.command("bash").args(["-c", &script]).spawn().expect("nsenter starts");
    until("the client asks for the rest", || registry.asked().iter().any(|asked| asked.starts_with(&line)));
    (client, line)
}

#[test]
fn a_pull_that_was_cancelled_goes_on_where_it_stopped() {
    let world = World::with_our_docker();
    let registry = Registry::start(&world, 5000);
    let (mut client, line) = half_a_pull(&world, &registry);
    // Not the helper that entered the world, but what it started there.
    drop(world.ok("kill -9 $(cat ../client.pid)"));
    client.wait().unwrap();
    // The daemon notices that the client is gone, and takes what it was unpacking away.
    until("the daemon gave up", || world.ok("ls /var/lib/sampan/ingest | grep -v ^blob- || true").is_empty());
    registry.honest();
    drop(registry.asked());
    drop(world.ok("docker pull -q 127.0.0.1:5000/big:1"));
    let asked = registry.asked();
    let rest = asked.iter().find_map(|asked| asked.strip_prefix(&line)?.parse::<u32>().ok());
    assert!(rest.is_some_and(|from| from > 1_500_000), "the rest was asked for: {asked:?}");
    assert_eq!(world.ok("docker run --rm 127.0.0.1:5000/big:1 stat -c %s /big"), "3000000");
    assert_eq!(world.ok("ls -A /var/lib/sampan/ingest"), "");
}

#[test]
fn a_pull_that_was_killed_goes_on_where_it_stopped() {
    let mut world = World::with_our_docker();
    let registry = Registry::start(&world, 5000);
    let (mut client, line) = half_a_pull(&world, &registry);
    world.kill_daemon();
    assert!(!client.wait().unwrap().success());
    registry.honest();
    world.start_daemon();
    assert_eq!(world.ok("docker images -aq"), "");
    drop(world.ok("docker pull -q 127.0.0.1:5000/big:1"));
    let asked = registry.asked();
    let rest = asked.iter().find_map(|asked| asked.strip_prefix(&line)?.parse::<u32>().ok());
    assert!(rest.is_some_and(|from| from > 1_500_000), "the rest was asked for: {asked:?}");
    assert_eq!(world.ok("docker run --rm 127.0.0.1:5000/big:1 stat -c %s /big"), "3000000");
    assert_eq!(world.ok("ls -A /var/lib/sampan/ingest"), "");
    drop(world.ok("docker rmi 127.0.0.1:5000/big:1"));
    nothing_left(&world);
}

/// A registry that fails the first requests of a method whose path has some words: a download breaks off, the rest is refused.
fn moody(registry: &Registry, method: &'static str, words: String, times: usize) {
    let (honest, left) = (registry.clone(), AtomicUsize::new(times));
    registry.hook(move |ask| {
        let is_meant = ask.method == method && ask.path.contains(&words);
        let fails = is_meant && left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
        fails.then(|| if method == "GET" { Answer { cut: Some(1000), ..honest.answer(ask) } } else { Answer::new(503, "") })
    });
}

#[test]
fn pauses_are_shown_as_docker_shows_them() {
    let world = World::with_our_docker();
    let registry = Registry::start(&world, 5000);
    let top = layer("top", 100_000);
    publish(&registry, "moody", "1", std::slice::from_ref(&top));
    moody(&registry, "GET", digest(&top), 2);
    let pulled = world.ok("docker pull 127.0.0.1:5000/moody:1");
    assert!(pulled.contains(": Retrying in 1 second\n") && pulled.contains("Status: Downloaded newer image"), "{pulled}");
    moody(&registry, "PUT", "/blobs/".to_owned(), 3);
    let pushed = world.ok("docker load -q -i box.tar && docker tag box 127.0.0.1:5000/other:1 && docker push 127.0.0.1:5000/other:1");
    assert!(pushed.contains(": Retrying in 1 second\n") && pushed.contains(": Retrying in 2 seconds\n"), "{pushed}");
    assert!(pushed.contains(": Pushed\n") && registry.manifest("other", "1").is_some(), "{pushed}");
    // Who interrupts a push that waits does not wait.
    moody(&registry, "PUT", "/blobs/".to_owned(), usize::MAX);
    let interrupted = world
        .sh("set -m; docker tag box 127.0.0.1:5000/third:1; mkfifo said; (exec docker push 127.0.0.1:5000/third:1 > said 2>&1) & \
         grep -q -m1 Retrying said; kill -INT $!; wait $!; echo code $?");
    assert!(!interrupted.stdout.contains("code 0") && registry.manifest("third", "1").is_none(), "{interrupted:?}");
    until("the push gave up", || world.ok("ls -A /var/lib/sampan/ingest").is_empty());
}

#[test]
fn layers_come_one_after_another_where_that_is_wanted() {
    let mut world = World::with_our_docker();
    let registry = Registry::start(&world, 5000);
    let layers: Vec<Vec<u8>> = (0..5).map(|number| layer(&format!("l{number}"), 200_000)).collect();
    publish(&registry, "many", "1", &layers);
    drop(world.ok("mkdir -p /etc/sampan; echo '{\"max-concurrent-downloads\":1,\"max-concurrent-uploads\":1}' > /etc/sampan/daemon.json"));
    world.kill_daemon();
    world.start_daemon();
    let target = Registry::start(&world, 5001);
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    for side in [&registry, &target] {
        let (count, peak, honest) = (Arc::clone(&now), Arc::clone(&most), side.clone());
        side.hook(move |ask| {
            let is_layer = ask.path.contains("/blobs/") && ["GET", "PUT"].contains(&ask.method.as_str());
            is_layer.then(|| {
                peak.fetch_max(count.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                let answer = honest.answer(ask);
                std::thread::yield_now();
                count.fetch_sub(1, Ordering::SeqCst);
                answer
            })
        });
    }
    drop(world.ok("docker pull -q 127.0.0.1:5000/many:1 && docker tag 127.0.0.1:5000/many:1 127.0.0.1:5001/more:1 && docker push -q 127.0.0.1:5001/more:1"));
    assert_eq!(most.load(Ordering::SeqCst), 1);
    assert!(target.manifest("more", "1").is_some());
}

#[test]
fn lying_registries_get_a_clear_error_and_leave_nothing() {
    let world = World::with_our_docker();
    let registry = Registry::start(&world, 5000);
    let (base, top) = (busybox(), layer("top", 300_000));
    publish(&registry, "lie", "1", &[base.clone(), top.clone()]);
    let is_top = {
        let name = digest(&top);
        move |ask: &Ask| ask.method == "GET" && ask.path.ends_with(&name)
    };
    let fails = |line: &str, part: &str| {
        let output = world.sh(line);
        assert!(output.code == 1 && output.stderr.contains(part), "{part}: {output:?}\n{}", world.daemon_log());
        nothing_left(&world);
    };
    let (other, check) = (layer("tip", 300_000), is_top.clone());
    registry.hook(move |ask| check(ask).then(|| Answer::new(200, other.clone())));
    fails("docker pull 127.0.0.1:5000/lie:1", "filesystem layer verification failed for digest");
    let (short, check) = (top[..1000].to_vec(), is_top.clone());
    registry.hook(move |ask| check(ask).then(|| Answer::new(200, short.clone())));
    fails("docker pull 127.0.0.1:5000/lie:1", "wrong size");
    let (long, check) = ([top.clone(), vec![0; 100_000]].concat(), is_top);
    registry.hook(move |ask| check(ask).then(|| Answer::new(200, long.clone())));
    fails("docker pull 127.0.0.1:5000/lie:1", "wrong size");
    registry.honest();
    // Config and manifest of different images.
    let config = config(&[base.clone(), layer("none", 10)], "amd64");
    registry.put_blob("lie", config.clone());
    let manifest = |layers: Vec<serde_json::Value>| {
        json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": blob(CONFIG, config.as_bytes()), "layers": layers}).to_string()
    };
    registry.put_manifest("lie", "mixed", MANIFEST, manifest(vec![blob(LAYER, &base), blob(LAYER, &top)]));
    fails("docker pull 127.0.0.1:5000/lie:mixed", "layers from manifest don't match image configuration");
    registry.put_manifest("lie", "fewer", MANIFEST, manifest(vec![blob(LAYER, &base)]));
    fails("docker pull 127.0.0.1:5000/lie:fewer", "layers from manifest don't match image configuration");
    // What is no layer.
    let garbage = layer("garbage", 50_000)[300..20_000].to_vec();
    let escape = Tar::new().file("../../escape", 0o644, b"x").finish();
    for (tag, bytes) in [("garbage", garbage), ("escape", escape)] {
        publish(&registry, "lie", tag, &[bytes]);
        fails(&format!("docker pull 127.0.0.1:5000/lie:{tag}"), "failed to register layer");
    }
    registry.put_manifest("lie", "old", "application/vnd.docker.distribution.manifest.v1+prettyjws", r#"{"schemaVersion":1}"#);
    fails("docker pull 127.0.0.1:5000/lie:old", "schema 1 support has been removed");
    registry.put_manifest("lie", "huge", MANIFEST, format!("{}{}", manifest(Vec::new()), " ".repeat(5 << 20)));
    fails("docker pull 127.0.0.1:5000/lie:huge", "larger than");
    registry.put_manifest("lie", "deep", INDEX, "[".repeat(100_000));
    fails("docker pull 127.0.0.1:5000/lie:deep", "invalid manifest");
    fails("docker pull 127.0.0.1:5000/lie:none", "manifest for 127.0.0.1:5000/lie:none not found: manifest unknown: manifest unknown");
    let _end = publish(&registry, "lie", "good", &[base, top]);
    drop(world.ok("docker pull -q 127.0.0.1:5000/lie:good"));
}

#[test]
fn two_pulls_share_a_download_and_a_prune_harms_neither() {
    let world = World::with_our_docker();
    let registry = Registry::start(&world, 5000);
    let (base, top) = (busybox(), layer("top", 500_000));
    publish(&registry, "one", "1", &[base.clone(), top.clone()]);
    publish(&registry, "two", "1", &[base.clone(), top.clone(), layer("more", 1000)]);
    let (door, reached) = (Door::default(), Arc::new(AtomicBool::new(false)));
    let (wait, name, told) = (door.clone(), digest(&top), Arc::clone(&reached));
    registry.hook(move |ask| {
        if ask.method == "GET" && ask.path.ends_with(&name) {
            told.store(true, Ordering::SeqCst);
            wait.pass();
        }
        None
    });
    let pull =
        |name: &str| world.command("docker").args(["pull", "-q", &format!("127.0.0.1:5000/{name}:1")]).spawn().expect("nsenter starts");
    let mut first = pull("one");
    until("the first download begins", || reached.load(Ordering::SeqCst));
    // The lower layer of the first is here and has no image yet.
    until("the base is published", || world.ok("ls /var/lib/sampan/layers | wc -l") == "1");
    let mut second = pull("two");
    let mut asked = Vec::new();
    until("the second one has its layers", || {
        asked.extend(registry.asked());
        asked.iter().any(|line| line.starts_with("GET /v2/two/blobs/") && line.contains(&digest(&layer("more", 1000))))
    });
    drop(world.ok("docker load -q -i box.tar && docker rmi box && docker image prune -af"));
    door.open();
    assert!(first.wait().unwrap().success() && second.wait().unwrap().success(), "{}", world.daemon_log());
    asked.extend(registry.asked());
    let count = |digest: &str| asked.iter().filter(|line| line.starts_with("GET ") && line.contains(digest)).count();
    assert_eq!((count(&digest(&top)), count(&digest(&base))), (1, 1), "{asked:?}");
    for name in ["one", "two"] {
        assert_eq!(world.ok(&format!("docker run --rm 127.0.0.1:5000/{name}:1 stat -c %s /top")), "500000");
    }
}

#[test]
fn a_full_disk_is_named_and_a_retry_succeeds() {
    let world = World::with_docker_and(WorldOptions { data_size: Some(40), ..WorldOptions::default() });
    let registry = Registry::start(&world, 5000);
    publish(&registry, "big", "1", &[busybox(), layer("big", 6_000_000)]);
    assert!(world.sh("head -c 35M /dev/zero > /var/lib/sampan/ballast").code == 0);
    let failed = world.sh("docker pull 127.0.0.1:5000/big:1");
    assert!(failed.code == 1 && failed.stderr.to_lowercase().contains("no space left on device"), "{failed:?}");
    nothing_left(&world);
    drop(world.ok("rm /var/lib/sampan/ballast && docker pull -q 127.0.0.1:5000/big:1"));
    assert!(world.sh("cat /dev/zero > /var/lib/sampan/ballast").code != 0);
    // The blobs are kept: a push needs no room.
    drop(world.ok("rm /var/lib/sampan/ballast && docker commit $(docker create 127.0.0.1:5000/big:1) 127.0.0.1:5000/more:1"));
    drop(world.sh("cat /dev/zero > /var/lib/sampan/ballast"));
    drop(registry.asked());
    let failed = world.sh("docker push 127.0.0.1:5000/more:1");
    let named = ["no space left on device", "disk is full"].iter().any(|part| failed.stderr.to_lowercase().contains(part));
    assert!(failed.code == 0 || named, "{failed:?}");
    drop(world.ok("rm /var/lib/sampan/ballast && docker push 127.0.0.1:5000/more:1"));
    assert!(registry.manifest("more", "1").is_some());
}

fn logins(world: &World) {
    let registry = Registry::start(world, 5000);
    registry.require("ann", "s3cret: ä");
    publish(&registry, "shop/box", "1", &[busybox()]);
    let denied = world.sh("docker pull 127.0.0.1:5000/shop/box:1");
    assert!(denied.code == 1 && denied.stderr.contains("no basic auth credentials"), "{denied:?}");
    let wrong = world.sh("echo wrong | docker login -u ann --password-stdin 127.0.0.1:5000");
    assert!(wrong.code == 1 && wrong.stderr.contains("401 Unauthorized"), "{wrong:?}");
    let login = world.sh("echo 's3cret: ä' | docker login -u ann --password-stdin 127.0.0.1:5000");
    assert_eq!((login.stdout.as_str(), login.code), ("Login Succeeded\n", 0), "{login:?}");
    assert!(
        login.stderr.contains("WARNING! Your credentials are stored unencrypted in '") && login.stderr.contains("/.docker/config.json'.")
    );
    assert_eq!(world.ok("stat -c %a ~/.docker/config.json"), "600");
    let again = world.sh("docker login 127.0.0.1:5000");
    assert!(
        again.stdout == "Login Succeeded\n" && again.stderr.starts_with("Authenticating with existing credentials... [Username: ann]\n"),
        "{again:?}"
    );
    assert_eq!(world.ok("docker run --rm -q 127.0.0.1:5000/shop/box:1 echo in"), "in");
    drop(world.ok("docker tag 127.0.0.1:5000/shop/box:1 127.0.0.1:5000/shop/new:1 && docker push -q 127.0.0.1:5000/shop/new:1"));
    assert_eq!(world.ok("docker logout 127.0.0.1:5000"), "Removing login credentials for 127.0.0.1:5000");
    assert!(world.sh("docker push 127.0.0.1:5000/shop/new:1").code == 1);
    // A helper keeps it instead.
    let helper = "#!/bin/sh\ncase $1 in store) cat > $HOME/kept;; get) cat > /dev/null; [ -e $HOME/kept ] && cat $HOME/kept || { echo credentials not found in native keychain; exit 1; };; erase) cat > /dev/null; rm -f $HOME/kept;; list) echo '{}';; esac\n";
    let path = world.folder().join("bin/docker-credential-test");
    std::fs::write(&path, helper).expect("a file in the world's folder");
    drop(world.ok(&format!("chmod 755 {} && echo '{{\"credsStore\":\"test\"}}' > ~/.docker/config.json", path.display())));
    let login = world.sh("echo 's3cret: ä' | docker login -u ann --password-stdin 127.0.0.1:5000");
    assert_eq!((login.stdout.as_str(), login.stderr.as_str()), ("Login Succeeded\n", ""), "{login:?}");
    assert!(!world.ok("cat ~/.docker/config.json").contains("YW5u"));
    drop(world.ok("docker push -q 127.0.0.1:5000/shop/new:1 && docker logout 127.0.0.1:5000"));
    assert!(world.sh("docker push 127.0.0.1:5000/shop/new:1").code == 1);
}

#[test]
fn logins_are_kept_and_used_by_both_command_lines() {
    logins(&World::with_docker());
    logins(&World::with_our_docker());
}
