//! kill -9 of the daemon and of a shim: containers live on, exit codes are right, nothing is left.

use sampan_testkit::World;

#[test]
fn containers_outlive_a_killed_daemon() {
    let mut world = World::with_docker();
    drop(world.ok("docker load -q -i box.tar"));
    drop(world.ok("docker run -d --name web -p 127.0.0.1:18080:8080 box httpd -f -v -p 8080 -h /etc"));
    drop(world.ok("docker run -d --name counts box sh -c 'i=0; while [ $i -lt 1000 ]; do echo $i; i=$((i+1)); sleep 0.01; done; exit 7'"));
    drop(world.ok("docker run -d --name short box sh -c 'sleep 0.3; exit 5'"));
    drop(world.ok("docker create --name never box true"));
    world.kill_daemon();
    let answer = world.ok("curl -s --retry 20 --retry-delay 0 --retry-connrefused http://127.0.0.1:18080/group");
    assert!(answer.starts_with("root:"), "the port answers without a daemon");
    world.start_daemon();
    assert_eq!(world.ok("docker wait short"), "5", "the end without a daemon has its code");
    assert_eq!(world.ok("docker inspect -f '{{.State.Status}}' web counts never"), "running\nrunning\ncreated");
    assert!(world.ok("curl -s http://127.0.0.1:18080/group").starts_with("root:"));
    assert_eq!(world.ok("docker exec web echo inside"), "inside");
    assert_eq!(world.ok("docker wait counts"), "7");
    let lines = world.ok("docker logs counts");
    assert_eq!(lines.lines().count(), 1000, "no line is lost");
    assert!(world.sh("docker run -d -p 127.0.0.1:18080:80 box true").stderr.contains("port is already allocated"));
    drop(world.ok("docker rm -f $(docker ps -aq)"));
}

#[test]
fn a_killed_shim_takes_its_container_along() {
    let world = World::with_docker();
    drop(world.ok("docker load -q -i box.tar && docker run -d --name one box sleep 1000"));
    drop(world.ok("kill -9 $(pgrep -f 'sampan-shim '$(docker ps -q))"));
    assert_eq!(world.ok("docker wait one"), "137");
    assert_eq!(
        world.ok("docker inspect -f '{{.State.Status}} {{.State.ExitCode}} {{.State.Error}}' one"),
        "exited 137 the container's shim was killed"
    );
    drop(world.ok("docker start one && docker rm -f one"));
}

#[test]
fn what_a_killed_daemon_left_frozen_is_thawed_but_not_what_was_paused() {
    let mut world = World::with_docker();
    drop(world.ok("docker load -q -i box.tar && docker run -d --name one box sleep 1000 && docker run -d --name two box sleep 1000"));
    drop(world.ok("docker pause two"));
    let id = world.ok("docker ps -q --no-trunc -f name=one");
    world.kill_daemon();
    // As a commit does, of which the daemon was killed.
    let group = |root: &str| format!("{root}/{}/{id}", world.name());
    drop(world.ok(&format!(
        "echo FROZEN > {}/freezer.state 2>/dev/null || echo 1 > {}/cgroup.freeze",
        group("/sys/fs/cgroup/freezer"),
        group("/sys/fs/cgroup")
    )));
    world.start_daemon();
    assert_eq!(world.ok("timeout 20 docker exec one echo runs"), "runs");
    assert_eq!(world.ok("docker inspect -f '{{.State.Status}}' one two"), "running\npaused");
    drop(world.ok("docker unpause two && timeout 20 docker exec two true && docker rm -f one two"));
}

#[test]
fn a_second_daemon_is_refused_and_the_first_goes_on() {
    let world = World::with_docker();
    let second = world.sh("sampan daemon --exec-root /tmp/second-$$ --bridge none");
    assert!(second.code != 0 && second.stderr.contains("another daemon uses the data root"), "{second:?}");
    assert_eq!(world.ok("sampan daemon status").split(':').next(), Some("running"));
    assert!(world.ok("sampan daemon stop --all").starts_with("stopped"));
    assert!(world.sh("sampan daemon status").stderr.contains("no engine answers"));
}
