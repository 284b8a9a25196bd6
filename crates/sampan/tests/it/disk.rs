//! Disks that are full or cannot be written, and two daemons at one place: clear errors, nothing half, and all is well afterwards.

use sampan_testkit::{World, WorldOptions};

/// A world whose data root has a small disk of its own, with the image loaded.
fn small() -> World {
    let world = World::with_docker_and(WorldOptions { data_size: Some(48), ..WorldOptions::default() });
    drop(world.ok("docker load -q -i box.tar"));
    world
}

/// Fills the disk of the data root to the last byte.
fn fill(world: &World) {
    let full = world.sh("cat /dev/zero > /var/lib/sampan/ballast");
    assert!(full.stderr.contains("No space left on device"), "{full:?}");
}

fn free(world: &World) {
    drop(world.ok("rm /var/lib/sampan/ballast"));
}

/// Runs a line that must fail for want of room, and say in which step.
fn no_room(world: &World, line: &str, step: &str) {
    let output = world.sh(&format!("timeout -k 5 60 {line}"));
    let text = format!("{}{}", output.stdout, output.stderr);
    let lower = text.to_lowercase();
    assert!(output.code != 0 && output.code != 124, "$ {line}\n{output:?}");
    assert!(
        lower.contains("no space left on device") && text.contains(step),
        "$ {line}\nmust name {step:?}: {output:?}\n{}",
        world.daemon_log()
    );
}

fn nothing_half(world: &World) {
    assert_eq!(world.ok("ls -A /var/lib/sampan/ingest"), "");
    assert_eq!(world.ok("ls /var/lib/sampan/layers | wc -l"), "1", "the layer of the one image");
    assert_eq!(world.ok("docker images -q | wc -l"), "1");
}

#[test]
fn images_on_a_full_disk_leave_nothing() {
    let world = small();
    drop(world.ok("docker run --name changed box sh -c 'dd if=/dev/zero of=/big bs=1M count=8 2>/dev/null'"));
    drop(world.ok("docker tag box kept && tar -cf more.tar -C /usr/bin bash && docker rmi box"));
    drop(world.ok("sed s/box:latest/xob:latest/ box.tar | head -c 0; docker save kept -o saved.tar"));
    fill(&world);
    no_room(&world, "docker load -i box.tar", "stage the archive");
    nothing_half(&world);
    no_room(&world, "docker import more.tar more:1", "archive");
    nothing_half(&world);
    no_room(&world, "docker commit changed more:2", "pack the container's changes");
    nothing_half(&world);
    assert_eq!(world.ok("docker images --format '{{.Repository}}'"), "kept", "no name was given");
    assert_eq!(world.ok("docker inspect -f '{{.State.Status}}' changed"), "exited");
    free(&world);
    drop(world.ok("docker load -q -i box.tar && docker import more.tar more:1 && docker commit changed more:2"));
    assert_eq!(world.ok("docker run --rm more:2 stat -c %s /big"), "8388608");
    drop(world.ok("docker rm changed && docker rmi more:1 more:2 kept box"));
    assert_eq!(world.ok("ls /var/lib/sampan/layers | wc -l"), "0");
}

#[test]
fn containers_on_a_full_disk_are_told_so() {
    let world = small();
    drop(
        world.ok(
            "docker run -d --name lives box sh -c 'trap \"exit 7\" TERM; i=0; while :; do i=$((i+1)); echo line $i; usleep 1000; done'",
        ),
    );
    drop(world.ok("docker create --name waits box echo started"));
    drop(world.ok("head -c 5000000 /dev/zero > big"));
    fill(&world);
    no_room(&world, "docker cp big lives:/big", "big");
    assert_ne!(world.sh("docker exec lives stat /big").code, 0, "no half file is left");
    let made = world.sh("docker create --name new box true");
    let started = world.sh("docker start waits");
    let volume = world.sh("docker volume create vol");
    for output in [&made, &started, &volume] {
        let is_clear = output.stderr.to_lowercase().contains("no space left") || output.stderr.contains("disk is full");
        assert!(output.code == 0 || is_clear, "{output:?}");
    }
    if made.code != 0 {
        assert_eq!(world.ok("docker ps -aq --filter name=new"), "", "no half container");
        assert_eq!(world.ok("ls /var/lib/sampan/containers | wc -l"), "2");
    }
    assert_eq!(world.ok("docker exec lives echo still"), "still", "what runs goes on");
    // The log goes on without what found no room, and is read without complaint.
    drop(world.ok("docker logs --tail 5 lives"));
    free(&world);
    let seen = world.ok("docker exec lives sh -c 'echo; true'; docker logs lives | tail -n 1 | cut -d' ' -f2");
    let later = format!("timeout 30 sh -c 'until [ $(docker logs lives | tail -n 1 | cut -d\" \" -f2) -gt {} ]; do :; done'", seen.trim());
    drop(world.ok(&later));
    assert_eq!(world.ok("docker logs lives | grep -vc '^line [0-9]*$' || true"), "0", "no entry is torn");
    drop(world.ok("docker cp big lives:/big && docker start waits && docker wait waits"));
    assert_eq!(world.ok("docker logs waits | tail -n 1"), "started");
    drop(world.ok("docker rm -f lives waits"));
}

#[test]
fn an_end_on_a_full_disk_is_not_lost() {
    let mut world = small();
    drop(world.ok("docker run -d --name seven box sh -c 'trap \"exit 7\" TERM; echo ready; while :; do usleep 1000; done'"));
    drop(world.ok("timeout 20 sh -c 'until docker logs seven | grep -q ready; do :; done'"));
    let pid = world.ok("docker inspect -f '{{.State.Pid}}' seven");
    fill(&world);
    world.kill_daemon();
    drop(world.ok(&format!("kill -TERM {pid}; timeout 20 sh -c 'while kill -0 {pid} 2>/dev/null; do :; done'")));
    free(&world);
    world.start_daemon();
    assert_eq!(world.ok("docker wait seven"), "7");
    drop(world.ok("docker rm seven"));
}

#[test]
fn a_data_root_that_cannot_be_used_gives_one_clear_error() {
    let world = World::with_docker();
    drop(world.ok("mkdir readonly full && mount -t tmpfs -o ro none readonly && mount -t tmpfs -o size=4k none full && cat /dev/zero > full/x 2>/dev/null; echo > file"));
    let places = world.ok("pwd");
    for (root, reason) in [
        ("readonly/data", "Read-only file system"),
        ("file/data", "Not a directory"),
        ("full/data", "No space left on device"),
        ("/proc/none", "No such file or directory"),
    ] {
        let root = if root.starts_with('/') { root.to_owned() } else { format!("{places}/{root}") };
        let line = format!(
            "timeout 30 sampan daemon --data-root {root} --exec-root /run/other --host unix:///run/other.sock --pidfile /run/other.pid --bridge none --cgroup-parent other"
        );
        let output = world.sh(&line);
        assert!(output.code != 0 && output.code != 124, "{root}: {output:?}");
        assert!(output.stderr.contains(reason) && output.stderr.contains(&root), "{root}: {output:?}");
        assert!(output.stderr.lines().count() <= 2 && !output.stderr.contains("panicked"), "{root}: one error: {output:?}");
        assert!(!world.folder().join("run/../other.sock").exists());
    }
    assert_eq!(world.ok("docker version -f '{{.Server.Os}}'"), "linux", "the other daemon goes on");
}

#[test]
fn a_second_daemon_harms_nothing() {
    let world = World::with_docker();
    drop(world.ok("docker load -q -i box.tar && docker run -d --name web -p 127.0.0.1:18081:8080 box httpd -f -p 8080 -h /etc"));
    let before = world.ok("find /var/lib/sampan /run/sampan | sort; nft list ruleset 2>/dev/null; ip -4 -o addr; ls /sys/class/net");
    for (line, reason) in [
        ("sampan daemon", "another daemon"),
        (
            "sampan daemon --exec-root /run/second --host unix:///run/second.sock --pidfile /run/second.pid",
            "another daemon uses the data root",
        ),
        ("sampan daemon --data-root $PWD/second", "another daemon"),
        (
            "sampan daemon --data-root $PWD/third --host unix:///run/third.sock --pidfile /run/third.pid --bridge none",
            "another daemon uses",
        ),
    ] {
        let output = world.sh(&format!("timeout 20 {line} --cgroup-parent {}", "second"));
        assert!(output.code != 0 && output.code != 124 && output.stderr.contains(reason), "{line}: {output:?}");
        assert_eq!(
            world.ok("find /var/lib/sampan /run/sampan | sort; nft list ruleset 2>/dev/null; ip -4 -o addr; ls /sys/class/net"),
            before,
            "{line} changed something"
        );
        assert!(world.ok("curl -s --max-time 10 http://127.0.0.1:18081/group").starts_with("root:"), "{line}");
        assert_eq!(world.ok("docker exec web echo inside"), "inside", "{line}");
    }
    drop(world.ok("docker rm -f web"));
}
