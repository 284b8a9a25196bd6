//! Full disks on the way from a Dockerfile to another engine: a clear error, nothing half, and a retry that succeeds once there is
//! room.

use sampan_testkit::{Fleet, REGISTRY_NAME, Service, World, WorldOptions};

/// MiB of the engines' and the registry's disks.
const SIZE: u32 = 48;

/// A context whose layer takes 8 MB that cannot be compressed, and that runs commands.
fn context(world: &World, base: &str) {
    let file = format!("FROM {base}\\nCOPY data /data\\nRUN sha256sum /data > /sum\\n");
    let _made = world.ok(&format!("mkdir ctx; head -c 8M /dev/urandom > ctx/data; printf '{file}' > ctx/Dockerfile"));
}

/// Fills a disk but for so many KiB.
fn fill(world: &World, folder: &str, spare: u32) {
    let line =
        format!("fallocate -l {spare}K '{folder}/spare'; cat /dev/zero > '{folder}/ballast' 2> full; rm -f '{folder}/spare'; cat full");
    let told = world.ok(&line);
    assert!(told.contains("No space left on device"), "{told}");
}

fn free(world: &World, folder: &str) {
    let _freed = world.ok(&format!("rm '{folder}/ballast'"));
}

const DATA: &str = "/var/lib/sampan";

/// Runs a line that must fail for want of room.
fn no_room(world: &World, line: &str) {
    let output = world.sh(&format!("timeout -k 5 120 env DOCKER_BUILDKIT=0 {line}"));
    let text = format!("{}{}", output.stdout, output.stderr);
    let lower = text.to_lowercase();
    let is_clear = lower.contains("no space left on device") || lower.contains("disk is full");
    assert!(output.code != 0 && output.code < 124 && is_clear, "$ {line}\n{output:?}\n{}", world.daemon_log());
    assert!(!lower.contains("panicked") && !world.daemon_log().contains("panicked"), "{output:?}\n{}", world.daemon_log());
}

/// No unfinished work is left, and every layer has an image.
fn nothing_half(world: &World) {
    assert_eq!(world.ok("ls -A /var/lib/sampan/ingest /var/lib/sampan/trash | grep -v : | grep . || true"), "");
    assert_eq!(world.ok("ls /run/sampan/containers"), "");
    let layers = "docker image inspect -f '{{range .RootFS.Layers}}{{println .}}{{end}}' $(docker images -aq) | grep . | sort -u | wc -l";
    assert_eq!(world.ok("ls /var/lib/sampan/layers | wc -l"), world.ok(layers), "{}", world.ok("ls /var/lib/sampan/layers"));
}

fn content(world: &World, name: &str) -> String {
    world.ok(&format!("docker run --rm --network none {name} sh -c 'sha256sum /data | diff - /sum && cat /sum'"))
}

#[test]
fn builds_on_a_full_disk_leave_nothing() {
    let world = World::with_docker_and(WorldOptions { data_size: Some(SIZE), ..WorldOptions::default() });
    let _loaded = world.ok("docker load -q -i box.tar");
    context(&world, "box");
    let _written = world.ok("printf 'FROM box\\nRUN dd if=/dev/zero of=/big bs=1M count=8\\n' > Dockerfile.big");
    for program in ["docker", "sampan"] {
        for spare in [4, 200, 2000, 7000] {
            fill(&world, DATA, spare);
            no_room(&world, &format!("{program} build --network none -t web ctx"));
            no_room(&world, &format!("{program} build --network none -t web -f Dockerfile.big ."));
            nothing_half(&world);
            assert_eq!(world.ok("docker images -q web"), "", "no name was given");
            free(&world, DATA);
        }
        let _built = world.ok(&format!("DOCKER_BUILDKIT=0 {program} build --network none -t web ctx"));
        let _sum = content(&world, "web");
        let _gone = world.ok("docker rmi web && sampan builder prune -af && docker image prune -f");
        nothing_half(&world);
    }
}

/// A fleet of two engines with small disks, and our registry with one.
fn small() -> (Fleet, Service, String) {
    let make = || World::with_docker_and(WorldOptions { data_size: Some(SIZE), ..WorldOptions::default() });
    let fleet = Fleet::start(2, make);
    let root = fleet.registry_root().display().to_string();
    let _mounted = fleet.harbor.ok(&format!("mount -t tmpfs -o size={SIZE}m,uid=65534,gid=65534,mode=700 disk '{root}'"));
    let registry = fleet.serve_with_user("sailor", "three boards");
    for (number, world) in fleet.engines.iter().enumerate() {
        fleet.trust(number, &fleet.authority());
        let _in = world.ok(&format!("docker login -u sailor --password-stdin {REGISTRY_NAME}:5000 <<<'three boards'"));
    }
    (fleet, registry, root)
}

#[test]
fn pushes_and_pulls_on_full_disks_leave_nothing() {
    let (fleet, registry, root) = small();
    let [here, there] = &fleet.engines[..] else { panic!("two engines") };
    let name = format!("{REGISTRY_NAME}:5000/shop/web:1");
    let _loaded = here.ok("docker load -q -i box.tar");
    context(here, "box");
    let _built = here.ok(&format!("DOCKER_BUILDKIT=0 docker build -q --network none -t {name} ctx"));
    let files = || fleet.harbor.ok(&format!("find '{root}/blobs' '{root}/uploads' -type f | wc -l"));

    // The pushing engine has no room for what it compresses.
    for spare in [4, 2000] {
        fill(here, DATA, spare);
        no_room(here, &format!("docker push {name}"));
        nothing_half(here);
        free(here, DATA);
    }
    // The registry has no room for what it is sent, and goes on serving.
    for (program, spare) in [("docker", 4), ("sampan", 500), ("docker", 5000)] {
        fill(&fleet.harbor, &root, spare);
        no_room(here, &format!("{program} push {name}"));
        nothing_half(here);
        let missing = there.sh(&format!("docker pull {name}"));
        assert!(missing.code == 1 && missing.stderr.contains("not found"), "{missing:?}\n{}", registry.log());
        free(&fleet.harbor, &root);
    }
    let pushed = here.ok(&format!("docker push {name}"));
    assert_eq!(files(), "4", "three layers and the config, no upload: {pushed}");

    for (program, spare) in [("docker", 4), ("sampan", 2000), ("docker", 12000)] {
        fill(there, DATA, spare);
        no_room(there, &format!("{program} pull {name}"));
        nothing_half(there);
        assert_eq!(there.ok("docker images -aq"), "");
        free(there, DATA);
    }
    let _pulled = there.ok(&format!("docker pull {name}"));
    assert_eq!(content(here, &name), content(there, &name));
    assert!(!registry.log().contains("panicked"), "{}", registry.log());
}

#[test]
fn what_starts_on_a_full_disk_gives_what_it_has() {
    let (mut fleet, mut registry, root) = small();
    let name = format!("{REGISTRY_NAME}:5000/shop/web:1");
    let here = &fleet.engines[0];
    let _loaded = here.ok("docker load -q -i box.tar");
    context(here, "box");
    let _built = here.ok(&format!("DOCKER_BUILDKIT=0 docker build -q --network none -t {name} ctx && docker push -q {name}"));
    let sum = content(here, &name);

    fill(&fleet.harbor, &root, 0);
    registry.kill();
    let registry = fleet.serve_registry(&["--tls-generate", "--hostname", REGISTRY_NAME]);
    let there = &fleet.engines[1];
    let _pulled = there.ok(&format!("docker pull -q {name}"));
    assert_eq!(content(there, &name), sum);
    free(&fleet.harbor, &root);
    let _tagged = there.ok(&format!("docker tag {name} {name}-1 && docker push -q {name}-1"));
    assert!(!registry.log().contains("panicked"), "{}", registry.log());

    fill(there, DATA, 0);
    let there = &mut fleet.engines[1];
    there.kill_daemon();
    there.start_daemon();
    assert_eq!(there.ok(&format!("docker images -q {REGISTRY_NAME}:5000/shop/web | sort -u | wc -l")), "1");
    free(there, DATA);
    assert_eq!(content(there, &name), sum);
    nothing_half(there);
}
