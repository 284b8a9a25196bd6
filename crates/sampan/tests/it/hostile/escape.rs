//! Ways out of a container at its start: links and special files in the image, working directories, devices, users.

use sampan_testkit::World;
use sampan_testkit::images::Tar;
use serde_json::json;

use super::{Canary, fails, load};

#[test]
fn links_in_the_image_lead_nowhere() {
    let world = World::with_docker();
    let canary = Canary::new(&world);
    for (number, path) in
        ["dev", "dev/pts", "dev/shm", "dev/mqueue", "dev/console", "etc", "etc/hosts", "etc/hostname", "etc/resolv.conf", "etc/mtab", "tmp"]
            .iter()
            .enumerate()
    {
        for (kind, target) in
            [canary.path("folder"), canary.upwards("folder"), canary.path("file"), canary.path("missing")].iter().enumerate()
        {
            let image = format!("links{number}:{kind}");
            load(&world, &image, Tar::new().link(path, target), &json!({}));
            for line in [
                format!("docker run --rm {image} true"),
                format!("docker run --rm -t {image} sh -c 'echo x > /dev/console; echo x > /tmp/file; echo x > /etc/hosts'"),
                format!("docker run --rm --tmpfs /tmp -v vol:/tmp/v {image} sh -c 'echo x > /tmp/file'"),
            ] {
                let output = world.sh(&format!("timeout 60 {line}"));
                assert!(output.code != 124, "{line} hangs");
                if output.code != 0 {
                    assert!(
                        output.stderr.contains("docker: Error response from daemon:") || output.stderr.starts_with("sh:"),
                        "{line}: {output:?}"
                    );
                }
                canary.check(&format!("/{path} -> {target}: {line}"));
            }
        }
    }
    assert_eq!(world.ok("docker ps -aq"), "", "nothing is left");
}

#[test]
fn special_files_of_the_image_are_not_opened() {
    let world = World::with_docker();
    for (name, path, kind) in
        [("p", "etc/passwd", b'6'), ("d", "etc/passwd", b'3'), ("g", "etc/group", b'6'), ("h", "etc/hosts", b'6'), ("e", "etc", b'6')]
    {
        load(&world, &format!("special:{name}"), Tar::new().special(path, kind, (1, 5)), &json!({}));
    }
    for name in ["p", "d", "e"] {
        fails(
            &world,
            &format!("docker run --rm --user user special:{name} true"),
            &["unable to find user user: no matching entries in passwd file"],
        );
    }
    fails(&world, "docker run --rm --user user:users special:g true", &["unable to find group users"]);
    assert_eq!(world.ok("timeout 60 docker run --rm special:h sh -c 'grep -c localhost /etc/hosts'"), "2");
    assert_eq!(world.ok("timeout -k 5 60 docker run --rm special:p echo runs"), "runs");
}

#[test]
fn proc_and_sys_must_be_directories() {
    let world = World::with_docker();
    for (name, path, target) in
        [("a", "proc", "/tmp"), ("b", "proc", "tmp"), ("c", "sys", "/tmp"), ("d", "proc", "/nowhere"), ("e", "sys", "../../tmp")]
    {
        load(&world, &format!("kernel:{name}"), Tar::new().link(path, target), &json!({}));
        // Behind a link the masks would cover nothing (/proc/kcore, /sys/firmware).
        fails(&world, &format!("docker run --rm kernel:{name} ls -l /{path}/"), &[path, "must be mounted on ordinary directory"]);
    }
    load(&world, "kernel:f", Tar::new().file("proc", 0o644, b"a file"), &json!({}));
    fails(&world, "docker run --rm kernel:f true", &["proc", "must be mounted on ordinary directory"]);
    assert_eq!(world.ok("docker ps -aq"), "");
}

#[test]
fn a_device_does_not_go_through_a_link() {
    let world = World::with_docker();
    let canary = Canary::new(&world);
    let layer = Tar::new()
        .link("evil", &canary.path("file"))
        .link("up", &canary.upwards("file"))
        .link("opt", &canary.path("folder"))
        .file("full", 0o600, b"x");
    load(&world, "device:1", layer, &json!({}));
    for target in ["/evil", "/up", "/full"] {
        fails(&world, &format!("docker run --rm --device /dev/null:{target} device:1 ls -l {target}"), &["file exists"]);
        canary.check(target);
    }
    assert_eq!(world.ok("docker run --rm --device /dev/null:/opt/null device:1 stat -c %t,%T /opt/null"), "1,3");
    canary.check("/opt/null");
    drop(world.ok("mkdir -p share && ln -s /etc share/link && docker run --rm -v $PWD/share:/dev/share --device /dev/null:/dev/share/link/x device:1 true || true"));
    assert!(!std::path::Path::new("/etc/x").exists());
}

#[test]
fn a_working_directory_stays_inside() {
    let world = World::with_docker();
    let canary = Canary::new(&world);
    load(&world, "cwd:1", Tar::new().link("link", &canary.path("folder")).link("loop", "loop").link("dangling", "/made/here"), &json!({}));
    for path in ["/link/sub", "/link/../../../..", "/dangling/x"] {
        drop(world.ok(&format!("docker run --rm -w {path} cwd:1 touch written")));
        canary.check(path);
    }
    fails(&world, "docker run --rm -w /loop/x cwd:1 true", &["/loop/x"]);
    drop(world.ok("docker run -d --name one cwd:1 sleep 1000"));
    let found = canary.path("file");
    for number in 0..20 {
        // CVE-2024-21626: a descriptor of the runtime as working directory.
        for path in [format!("/proc/self/fd/{number}"), format!("/proc/self/fd/{number}/../../../..")] {
            for line in [format!("docker run --rm -w {path} cwd:1"), format!("docker exec -w {path} one")] {
                let output = world.sh(&format!("{line} sh -c 'cat .{found} ../../../../..{found}; pwd'"));
                assert!(!output.stdout.contains("evil"), "{line} sees the host: {output:?}");
                // As in Docker, `..` of a run's directory goes by words: that is the container's root.
                assert!(output.code != 0 || output.stdout == "/\n", "{line}: {output:?}");
            }
        }
    }
    load(&world, "cwd:2", Tar::new(), &json!({ "WorkingDir": "/proc/self/fd/7" }));
    fails(&world, "docker run --rm cwd:2 true", &["/proc/self/fd/7"]);
    drop(world.ok("docker rm -f one"));
}

#[test]
fn only_the_standard_streams_are_open() {
    let world = World::with_docker();
    drop(world.ok("docker load -q -i box.tar && docker run -d --name one box sleep 1000"));
    for line in ["docker run --rm box", "docker run --rm -t box", "docker exec one", "docker exec -t one", "docker run --rm --init box"] {
        // 3 is the listing's own.
        assert_eq!(world.ok(&format!("{line} ls /proc/self/fd")).split_whitespace().collect::<Vec<_>>(), ["0", "1", "2", "3"], "{line}");
    }
    drop(world.ok("docker rm -f one"));
}

#[test]
fn the_runtime_s_program_cannot_be_overwritten() {
    let world = World::with_docker();
    let layer = Tar::new().file("bin/again", 0o755, b"#!/proc/self/exe\n");
    load(&world, "exe:1", layer, &json!({}));
    let before = world.ok("sha256sum $(readlink -f $(command -v sampan)) /var/lib/sampan/bin/*");
    // CVE-2019-5736: a shebang that is the runtime itself, and a process that waits for it to come by.
    let watch = "docker run -d --name one --cap-add SYS_PTRACE exe:1 sh -c 'while :; do for p in /proc/[0-9]*; do if (echo evil > $p/exe) 2>/dev/null; then echo overwritten; fi; done; done'";
    drop(world.ok(watch));
    for _ in 0..30 {
        let output = world.sh("timeout 30 docker exec one /bin/again");
        assert!(output.code != 0 && output.code != 124, "{output:?}");
        assert_eq!(world.ok("docker exec one echo fine"), "fine");
    }
    fails(&world, "docker run --rm exe:1 /bin/again", &[]);
    fails(&world, "docker run --rm --init exe:1 /bin/again", &[]);
    assert_eq!(world.ok("docker logs one"), "", "nothing was overwritten");
    drop(world.ok("docker rm -f one"));
    assert_eq!(world.ok("sha256sum $(readlink -f $(command -v sampan)) /var/lib/sampan/bin/*"), before);
    assert_eq!(world.ok("docker run --rm --init exe:1 echo works"), "works");
}

#[test]
fn users_are_looked_up_inside() {
    let world = World::with_docker();
    let canary = Canary::new(&world);
    load(&world, "user:1", Tar::new().link("etc/passwd", &canary.path("passwd")), &json!({}));
    load(&world, "user:2", Tar::new().link("etc", &canary.folder.display().to_string()), &json!({}));
    for image in ["user:1", "user:2"] {
        fails(&world, &format!("docker run --rm --user evil {image} id"), &["unable to find user evil"]);
    }
    load(&world, "user:3", Tar::new().file("etc/passwd", 0o644, b"minus:x:4294967295:4294967295:::\n"), &json!({}));
    fails(&world, "docker run --rm --user minus user:3 id", &["uids and gids must be in range 0-2147483647"]);
    load(&world, "user:4", Tar::new().link("etc/passwd", "/proc/kmsg").link("etc/group", "/proc/self/environ"), &json!({}));
    drop(world.ok("docker run -d --name one user:4 sleep 1000"));
    // Reading the kernel's log would wait for ever, and take it from the host.
    fails(&world, "docker exec --user evil one id", &["unable to find user evil"]);
    load(&world, "user:5", Tar::new().file("etc/passwd", 0o644, &b"x:x:5:5\n".repeat(2_000_000)), &json!({}));
    fails(&world, "docker run --rm --user nosuch user:5 id", &["unable to find user nosuch"]);
    drop(world.ok("docker rm -f one"));
}

#[test]
fn masks_and_kernel_files_hold() {
    let world = World::with_docker();
    // CVE-2025-31133 and its like: what covers the kernel's files is taken from the host, not from the image.
    let layer = Tar::new()
        .link("dev/null", "/proc/kcore")
        .link("dev/console", "/proc/sysrq-trigger")
        .link("dev/ptmx", "/proc/sys/kernel/core_pattern")
        .link("dev/pts", "/proc");
    load(&world, "mask:1", layer, &json!({}));
    let hidden = world
        .ok("for f in interrupts keys latency_stats sched_debug timer_list; do if [ -f /proc/$f ]; then echo /proc/$f; break; fi; done");
    let pattern = world.ok("cat /proc/sys/kernel/core_pattern");
    for option in ["", "-t", "--tmpfs /x", "-v vol:/dev/share"] {
        let checks = format!(
            "stat -c '%F %t,%T' {hidden} /dev/null; echo x > /proc/sys/kernel/core_pattern; echo h > /proc/sysrq-trigger; \
                      echo x > /sys/kernel/mm/ksm/run; head -c 1 {hidden} | wc -c; ls /sys/firmware /proc/acpi 2>/dev/null | grep -vc : ; mount -o remount,rw /proc/sys; umount {hidden}; true"
        );
        let output = world.sh(&format!("docker run --rm {option} mask:1 sh -c \"{checks}\""));
        let stdout = output.stdout.replace('\r', "");
        assert!(stdout.starts_with("character special file 1,3\ncharacter special file 1,3\n"), "{option}: {output:?}");
        assert_eq!(world.ok("cat /proc/sys/kernel/core_pattern"), pattern);
    }
    for target in ["/proc", "/proc/sys/kernel", "/proc/self/attr", "/sys/fs/cgroup/.."] {
        let output = world.sh(&format!("docker run --rm -v vol:{target} mask:1 true"));
        if target.starts_with("/proc") {
            assert!(output.code != 0 && output.stderr.contains("cannot be mounted because it is inside /proc"), "{target}: {output:?}");
        }
    }
    fails(&world, "docker run --rm mask:1 busybox unshare -r -m true", &["Operation not permitted"]);
    drop(world.ok("docker volume rm vol"));
}

#[test]
fn confinement_holds_where_other_runtimes_failed() {
    let world = World::with_docker();
    drop(world.ok("docker load -q -i box.tar"));
    drop(world.ok("docker run -d --name one -m 64m --oom-kill-disable --pids-limit 50 box sleep 1000"));
    let confined = "grep -E 'NoNewPrivs|Seccomp:' /proc/self/status";
    for line in [
        "docker run --rm --security-opt no-new-privileges=false box",
        "docker exec one",
        "docker exec -t one",
        "docker exec --privileged one",
    ] {
        assert_eq!(world.ok(&format!("{line} sh -c \"{confined}\"")).replace('\r', ""), "NoNewPrivs:\t0\nSeccomp:\t2", "{line}");
    }
    let strict = "docker run -d --name two --security-opt no-new-privileges box sleep 1000";
    drop(world.ok(strict));
    assert_eq!(world.ok(&format!("docker exec two sh -c \"{confined}\"")), "NoNewPrivs:\t1\nSeccomp:\t2");
    for file in [
        "memory/memory.limit_in_bytes",
        "memory/memory.oom_control",
        "pids/pids.max",
        "devices/devices.allow",
        "memory.max",
        "pids.max",
        "cgroup.procs",
    ] {
        for name in ["run --rm box", "exec one", "exec --privileged one"] {
            let line = format!("docker {name} sh -c '[ -e /sys/fs/cgroup/{file} ] || exit 3; echo 1 > /sys/fs/cgroup/{file}'");
            assert_ne!(world.sh(&line).code, 0, "a container cannot change its limits: {line}");
        }
    }
    let killing = world.ok("docker exec one sh -c 'cat /sys/fs/cgroup/memory/memory.oom_control 2>/dev/null || echo oom_kill_disable 1'");
    assert!(killing.contains("oom_kill_disable 1"), "the option is applied where the kernel has it: {killing}");
    assert_eq!(world.ok("docker run --rm --user user box sh -c 'echo out > /dev/stdout; echo err > /dev/stderr' 2>&1"), "out\nerr");
    drop(world.ok("docker rm -f one two"));
}
