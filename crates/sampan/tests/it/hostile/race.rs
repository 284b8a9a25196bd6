//! Containers that change their files while the daemon works in them: directories become links and back, pipes become links.

use sampan_testkit::World;
use sampan_testkit::images::Tar;
use serde_json::json;

use super::{Canary, fails, load, put};

/// A shell line that swaps `place` between a directory with a file and a link to `target`, for ever.
fn swapping(place: &str, target: &str) -> String {
    format!(
        "while :; do mkdir {place}; echo inside > {place}/file; rm -rf {place}; ln -s {target} {place}; rm -f {place}; done 2>/dev/null"
    )
}

#[test]
fn copies_never_leave_a_container_that_swaps_its_folders() {
    let world = World::with_docker();
    let canary = Canary::new(&world);
    load(&world, "race:1", Tar::new().directory("swap/", 0o755), &json!({}));
    for (name, target) in [("abs", canary.path("folder")), ("up", canary.upwards("folder")), ("magic", "/proc/1/root".into())] {
        drop(world.ok(&format!("docker run -d --name {name} race:1 sh -c '{}'", swapping("/swap/x", &target))));
    }
    put(&world, "file", b"written by a copy\n");
    let mut pipes = Tar::new();
    for number in 0..40 {
        pipes = pipes.special(&format!("pipe{number}"), b'6', (0, 0));
    }
    put(&world, "pipes.tar", &pipes.finish());
    for _ in 0..8 {
        for name in ["abs", "up", "magic"] {
            let out =
                world.sh(&format!("timeout 20 docker cp {name}:/swap/x/file - | tar -xO; timeout 20 docker cp {name}:/swap/x - | tar -xO"));
            assert!(!out.stdout.contains("evil"), "the host was read: {out:?}");
            let line = format!(
                "timeout 20 docker cp file {name}:/swap/x/copied; timeout 20 docker cp - {name}:/swap/x < pipes.tar; timeout 20 docker cp -L file {name}:/swap/x"
            );
            drop(world.sh(&line));
            canary.check(&line);
        }
    }
    assert_eq!(world.ok("docker ps -q | wc -l"), "3", "{}", world.daemon_log());
    drop(world.ok("docker rm -f abs up magic"));
}

#[test]
fn a_mount_s_place_cannot_be_swapped() {
    // CVE-2021-30465: another container exchanges a folder of a shared volume with a link while mounts are made below it.
    let world = World::with_docker();
    let canary = Canary::new(&world);
    drop(world.ok("docker load -q -i box.tar && docker volume create shared && docker volume create data"));
    let before = world.ok("cat /proc/self/mounts");
    drop(world.ok(&format!("docker run -d --name swapper -v shared:/vol box sh -c '{}'", swapping("/vol/x", &canary.path("folder")))));
    drop(world.ok(&format!("docker run -d --name upper -v shared:/vol box sh -c '{}'", swapping("/vol/y", &canary.upwards("")))));
    for _ in 0..6 {
        let line = "timeout 30 docker run --rm -v shared:/vol -v data:/vol/x/sub -v data:/vol/y/sub --tmpfs /vol/x/tmp -w /vol/x/cwd box sh -c 'cat /vol/x/file /vol/y/file; ls /vol/y/'";
        let output = world.sh(line);
        assert!(!output.stdout.contains("evil") && !output.stdout.contains("ptmx"), "the host is visible: {output:?}");
        canary.check("a swapped mount");
        for subpath in ["x", "y"] {
            let output = world.sh(&format!(
                "timeout 30 docker run --rm --mount type=volume,src=shared,dst=/m,volume-subpath={subpath} box cat /m/file /m/folder/file"
            ));
            assert!(!output.stdout.contains("evil"), "the host is visible: {output:?}");
        }
    }
    drop(world.ok("docker rm -f swapper upper && docker volume rm shared data"));
    assert_eq!(world.ok("cat /proc/self/mounts"), before, "no mount is left");
}

#[test]
fn volume_subpaths_and_links_of_volumes_stay_inside() {
    let world = World::with_docker();
    let canary = Canary::new(&world);
    drop(world.ok("docker load -q -i box.tar && docker volume create vol"));
    let make = format!(
        "ln -s {} /v/abs; ln -s {} /v/up; mkdir /v/dir; ln -s /proc/1/root /v/magic; echo own > /v/dir/file",
        canary.path("folder"),
        canary.upwards("folder")
    );
    drop(world.ok(&format!("docker run --rm -v vol:/v box sh -c '{make}'")));
    let with = |subpath: &str| format!("docker run --rm --mount type=volume,src=vol,dst=/m,volume-subpath={subpath} box cat /m/file");
    assert_eq!(world.ok(&with("dir")), "own");
    for subpath in ["abs", "up", "magic", "abs/..", "missing"] {
        let output = world.sh(&format!("timeout 30 {}", with(subpath)));
        assert!(output.code != 0 && !output.stdout.contains("evil"), "{subpath}: {output:?}");
    }
    for subpath in ["../x", "/etc", "dir/../../x"] {
        fails(&world, &with(subpath), &["subpath must be a relative path within the volume"]);
    }
    fails(
        &world,
        "docker run --rm --mount type=bind,src=/no/such/source,dst=/m box true",
        &["bind source path does not exist: /no/such/source"],
    );
    canary.check("subpaths");
    drop(world.ok("docker volume rm vol"));
}

#[test]
fn deep_and_broad_trees_do_not_stop_the_daemon() {
    let world = World::with_docker();
    drop(world.ok("docker load -q -i box.tar"));
    let name = "n".repeat(200);
    let deep = format!(
        "cd /tmp; mkdir {name}; i=0; while [ $i -lt 30 ]; do mkdir b; mv {name} b/{name}; mv b {name}; i=$((i+1)); done; cd /home; seq 3000 | xargs mkdir"
    );
    drop(world.ok(&format!("docker run --name one box sh -c '{deep}'")));
    fails(&world, "docker diff one", &["too deep"]);
    fails(&world, "docker commit one deep:1", &["a path of more than 4096 bytes"]);
    fails(&world, "docker cp one:/tmp - >/dev/null", &[]);
    drop(world.ok("docker start one && docker wait one"));
    assert_eq!(world.ok("docker rm one"), "one");
    drop(world.ok("timeout 60 sh -c 'while [ -n \"$(ls -A /var/lib/sampan/trash)\" ]; do :; done'"));
    assert_eq!(world.ok("docker images -q deep"), "");
    super::nothing_left(&world);
}
