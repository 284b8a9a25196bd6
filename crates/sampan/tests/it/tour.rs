//! The tour, line by line, through the unmodified docker command line and through ours.

use sampan_testkit::World;

/// Each part of the tour through both command lines.
macro_rules! parts {
    ($($name:ident),* $(,)?) => {
        mod through_docker {
            $(#[test] fn $name() { super::$name(&super::World::with_docker()); })*
        }
        mod through_ours {
            $(#[test] fn $name() { super::$name(&super::World::with_our_docker()); })*
        }
    };
}

parts!(
    run_gives_output_exit_code_and_input,
    a_service_has_limits_a_port_and_a_life,
    storage_users_and_rights,
    images_are_made_saved_and_removed,
    real_images_load_and_run
);

fn run_gives_output_exit_code_and_input(world: &World) {
    assert_eq!(world.ok("docker load -i box.tar"), "Loaded image: box:latest");
    assert_eq!(world.ok("docker run --rm box echo hello"), "hello");
    let output = world.sh("docker run --rm box sh -c 'echo out; echo err >&2; exit 3'");
    assert_eq!((output.stdout.as_str(), output.stderr.as_str(), output.code), ("out\n", "err\n", 3));
    assert_eq!(world.ok("echo piped | docker run --rm -i box tr a-z A-Z"), "PIPED");
    assert_eq!(world.ok("head -c 3000000 /dev/zero | docker run --rm -i box wc -c"), "3000000");
    assert_eq!(world.ok("docker run --rm box head -c 3000000 /dev/zero | wc -c"), "3000000");
    assert_eq!(world.ok("docker run --rm -t box tty").trim(), "/dev/pts/0");
    assert_eq!(world.sh("docker run --rm box nosuch").code, 127);
    assert_eq!(world.sh("docker run --rm box /etc").code, 126);
    assert_eq!(world.ok("docker ps -aq"), "", "--rm leaves nothing");
}

fn a_service_has_limits_a_port_and_a_life(world: &World) {
    drop(world.ok("docker load -q -i box.tar"));
    let id = world
        .ok("docker run -d --name web -p 127.0.0.1:0:8080 --memory 64m --cpus 0.5 --restart on-failure:2 box httpd -f -v -p 8080 -h /etc");
    assert_eq!(id.len(), 64);
    let fetched = world.ok("curl -s --retry 20 --retry-delay 0 --retry-connrefused http://$(docker port web 8080)/group");
    assert!(fetched.starts_with("root:x:0:"), "{fetched}");
    drop(world.ok("timeout 20 sh -c 'until docker logs web 2>&1 | grep -q response:200; do :; done'"));
    assert_eq!(
        world.ok(
            "docker exec web cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || docker exec web cat /sys/fs/cgroup/memory.max"
        ),
        "67108864"
    );
    assert!(world.ok("docker top web").contains("httpd -f -v"));
    assert!(world.ok("docker stats --no-stream --format '{{.Name}} {{.MemUsage}}' web").contains("/ 64MiB"));
    drop(world.ok("echo data > file; docker cp file web:/tmp/file"));
    assert_eq!(world.ok("docker cp web:/tmp/file - | tar -xO"), "data");
    assert_eq!(world.ok("docker diff web"), "C /tmp\nA /tmp/file");
    drop(world.ok("docker rename web site && docker update --memory 128m --memory-swap 256m site && docker pause site"));
    assert!(world.ok("docker ps --format '{{.Names}} {{.Status}}'").contains("site Up") && world.ok("docker ps").contains("(Paused)"));
    drop(world.ok("docker unpause site && docker stop -t 1 site && docker start site && docker restart -t 1 site && docker kill site"));
    assert_eq!(world.ok("docker wait site"), "137");
    drop(world.ok("docker rm site"));
}

fn storage_users_and_rights(world: &World) {
    drop(world.ok("docker load -q -i box.tar"));
    assert_eq!(
        world.ok("docker run --rm -v data:/data box sh -c 'echo kept > /data/f'; docker run --rm -v data:/data:ro box cat /data/f"),
        "kept"
    );
    assert_ne!(world.sh("docker run --rm -v data:/data:ro box touch /data/g").code, 0);
    drop(world.ok("docker run --rm -v $PWD:/here box sh -c 'echo bound > /here/bound'"));
    assert_eq!(world.ok("cat bound"), "bound");
    let line = "docker run --rm --read-only --tmpfs /tmp --user user --cap-drop ALL --security-opt no-new-privileges --network none --init box \
                sh -c 'id -un; touch /tmp/x && echo written; touch /x 2>/dev/null || echo refused; ip -o link | wc -l; grep CapBnd /proc/self/status'";
    assert_eq!(world.ok(line), "user\nwritten\nrefused\n1\nCapBnd:\t0000000000000000");
    assert_eq!(
        world.ok("docker run --rm box grep -E 'CapEff|Seccomp:|NoNewPrivs' /proc/self/status"),
        "CapEff:\t00000000a80425fb\nNoNewPrivs:\t0\nSeccomp:\t2"
    );
    drop(world.ok("docker run -d --name one box sleep 1000"));
    // An exec is confined as process 1 is (libcontainer 0.7 gave it no filter).
    assert_eq!(
        world.ok("docker exec one grep -E 'CapEff|Seccomp:|NoNewPrivs' /proc/self/status"),
        "CapEff:\t00000000a80425fb\nNoNewPrivs:\t0\nSeccomp:\t2"
    );
    assert_eq!(world.ok("docker run --rm --user user box sh -c 'echo again > /dev/stdout'"), "again", "pipes belong to the user");
    let disk = world.sh("docker run --rm box sh -c 'mknod /tmp/disk b 254 0 && cat /tmp/disk'");
    assert!(disk.code != 0 && disk.stderr.contains("Operation not permitted"), "{disk:?}");
    let limits = world.sh("docker run --rm box sh -c 'echo 1 > /sys/fs/cgroup/pids/pids.max || echo 1 > /sys/fs/cgroup/pids.max'");
    assert!(limits.code != 0, "a container cannot change its limits: {limits:?}");
    drop(world.ok("docker rm -f one && docker volume rm data"));
}

fn images_are_made_saved_and_removed(world: &World) {
    drop(world.ok("docker load -q -i box.tar && docker run --name one box sh -c 'echo data > /file; rm /etc/group'"));
    assert_eq!(world.ok("docker diff one"), "C /etc\nD /etc/group\nA /file");
    drop(world.ok(r#"docker commit -m 'with data' -a 'A Sailor' -c 'CMD ["cat","/file"]' -c 'ENV X="two words"' one box:data"#));
    assert_eq!(world.ok("docker run --rm box:data"), "data");
    assert_eq!(world.ok("docker run --rm box:data sh -c 'echo $X; ls /etc'"), "two words\nhostname\nhosts\nmtab\npasswd\nresolv.conf");
    assert_eq!(world.ok("docker image inspect -f '{{.Comment}} {{.Author}} {{len .RootFS.Layers}}' box:data"), "with data A Sailor 2");
    let id = world.ok("docker images -q --no-trunc box:data");
    drop(world.ok("docker save -o saved.tar box:data && docker rmi box:data && docker load -i saved.tar"));
    assert_eq!(world.ok("docker images -q --no-trunc box:data"), id, "the same image comes back");
    drop(world.ok("docker import -c 'CMD [\"echo\",\"imported\"]' rootfs.tar imp:1"));
    assert_eq!(world.ok("docker run --rm imp:1"), "imported");
    assert_eq!(
        world.ok("docker create --name two imp:1 >/dev/null; docker export two | tar -t | grep -c '^bin/'"),
        world.ok("tar -tf rootfs.tar | grep -c '^bin/'")
    );
    assert!(
        world.sh("docker rmi imp:1").stderr.contains("conflict: unable to remove repository reference \"imp:1\" (must force) - container")
    );
    drop(world.ok("docker rm one two && docker rmi imp:1 box:data box"));
    assert_eq!(world.ok("docker images -aq"), "");
}

fn real_images_load_and_run(world: &World) {
    let Some(data) = sampan_testkit::setup::testdata() else {
        // Without the test data there is nothing to load; the made-up image is tested everywhere else.
        return;
    };
    for version in ["3.10", "3.11"] {
        let path = data.join(format!("images/alpine-{version}.tar.gz")).canonicalize().expect("test data");
        assert_eq!(world.ok(&format!("docker load -q -i {}", path.display())), format!("Loaded image: alpine:{version}"));
        assert!(world.ok(&format!("docker run --rm alpine:{version} cat /etc/alpine-release")).starts_with(version));
        assert!(world.ok(&format!("docker run --rm alpine:{version} apk info")).contains("busybox"));
    }
}
