//! What the kernel holds a container to, on cgroup v1 and v2, with AppArmor and without: limits, devices, profiles, counters.
//!
//! `scripts/vm` runs these on the kernel and cgroups that this machine does not have.

use std::path::Path;

use sampan_testkit::World;

fn unified() -> bool {
    Path::new("/sys/fs/cgroup/cgroup.controllers").is_file()
}

fn apparmor() -> bool {
    Path::new("/sys/kernel/security/apparmor/profiles").exists()
}

fn world() -> World {
    let world = World::with_docker();
    drop(world.ok("docker load -q -i box.tar"));
    world
}

#[test]
fn info_tells_what_the_kernel_is() {
    let world = world();
    let version = if unified() { "2" } else { "1" };
    assert_eq!(world.ok("docker info -f '{{.CgroupVersion}} {{.CgroupDriver}} {{.Warnings}}'"), format!("{version} cgroupfs []"));
    let mut options = vec!["name=seccomp,profile=builtin"];
    if apparmor() {
        options.insert(0, "name=apparmor");
    }
    if unified() {
        options.push("name=cgroupns");
    }
    assert_eq!(world.ok("docker info -f '{{range .SecurityOptions}}{{.}}\n{{end}}'").trim().lines().collect::<Vec<_>>(), options);
}

#[test]
fn limits_are_the_cgroups_files() {
    let world = world();
    let files: &[&str] = if unified() {
        &["memory.max", "memory.swap.max", "memory.low", "cpu.max", "cpuset.cpus", "pids.max", "cpu.weight"]
    } else {
        &[
            "memory/memory.limit_in_bytes",
            "memory/memory.memsw.limit_in_bytes",
            "memory/memory.soft_limit_in_bytes",
            "cpu/cpu.cfs_quota_us",
            "cpuset/cpuset.cpus",
            "pids/pids.max",
            "cpu/cpu.shares",
        ]
    };
    let flags = "--memory 64m --memory-swap 96m --memory-reservation 40m --cpus 0.5 --cpu-shares 512 --cpuset-cpus 0 --pids-limit 20";
    let shown = world.ok(&format!("docker run --rm -w /sys/fs/cgroup {flags} box cat {}", files.join(" ")));
    let lines: Vec<&str> = shown.lines().collect();
    if unified() {
        assert_eq!(lines[..6], ["67108864", "33554432", "41943040", "50000 100000", "0", "20"]);
        assert!(
            (30..100).contains(&lines[6].parse::<u32>().expect("a weight")),
            "half of the shares is less than the default of 100: {shown}"
        );
    } else {
        assert_eq!(lines, ["67108864", "100663296", "41943040", "50000", "0", "20", "512"]);
    }
    let forks = world.sh("docker run --rm --pids-limit 3 box sh -c 'sleep 9 & sleep 9 & sleep 9 & sleep 9 & echo all'");
    assert!(forks.stderr.contains("fork"), "{forks:?}");
    let hungry = world.sh("docker run --name hungry --memory 8m --memory-swap 8m box dd if=/dev/zero of=/dev/null bs=64M count=1");
    assert_eq!((hungry.code, world.ok("docker inspect -f '{{.State.OOMKilled}}' hungry").as_str()), (137, "true"));
    drop(world.ok("docker rm hungry"));
}

#[test]
fn a_container_sees_and_changes_no_cgroup_but_its_own() {
    let world = world();
    let path = world.ok("docker run --rm box cat /proc/self/cgroup");
    if unified() {
        assert_eq!(path, "0::/", "a namespace of its own");
        assert!(world.ok("docker run --rm --cgroupns host box cat /proc/self/cgroup").starts_with("0::/sampan-test"));
        assert_eq!(world.ok("docker run --rm box mount | grep -c 'cgroup2.*(ro,'"), "1");
        // A place that could be written is one's own alone.
        let refused = world.sh("docker run --rm --privileged --cgroupns private box sh -c 'mkdir /sys/fs/cgroup/../../../escaped'");
        assert!(refused.code == 0 && !Path::new("/sys/fs/escaped").exists(), "{refused:?}");
    } else {
        assert!(path.contains(":memory:/"), "{path}");
    }
    for file in ["memory.max", "pids.max", "cgroup.procs", "memory/memory.limit_in_bytes", "pids/pids.max", "devices/devices.allow"] {
        let refused = world.sh(&format!("docker run --rm box sh -c 'echo 1 > /sys/fs/cgroup/{file}'"));
        assert!(
            refused.code != 0 && (refused.stderr.contains("Read-only") || refused.stderr.contains("nonexistent")),
            "{file}: {refused:?}"
        );
    }
}

/// Numbers of this machine's disks, real ones first; then those of a block device that this machine lets us open.
fn disks(world: &World) -> (Vec<String>, String) {
    let mut found: Vec<(bool, String)> = std::fs::read_dir("/sys/class/block")
        .expect("sysfs")
        .flatten()
        .filter_map(|entry| {
            let numbers = std::fs::read_to_string(entry.path().join("dev")).ok()?;
            Some((!entry.path().join("device").exists(), numbers.trim().replace(':', " ")))
        })
        .collect();
    found.sort();
    let opens = |numbers: &String| world.sh(&format!("mknod node b {numbers} && : < node; code=$?; rm node; exit $code")).code == 0;
    let numbers: Vec<String> = found.into_iter().map(|(_, numbers)| numbers).collect();
    let open = numbers.iter().find(|numbers| opens(numbers)).expect("a block device that root may open").clone();
    (numbers, open)
}

#[test]
fn a_node_of_the_hosts_disk_can_be_made_but_not_opened() {
    let world = world();
    let (numbers, open) = disks(&world);
    for disk in [&numbers[0], &open] {
        // Opened for writing, nothing is written.
        for opening in [": < /tmp/disk", ": >> /tmp/disk"] {
            let refused = world.sh(&format!("docker run --rm box sh -c 'mknod /tmp/disk b {disk} && echo made; {opening}'"));
            assert_eq!(refused.stdout, "made\n", "{refused:?}");
            assert!(refused.code != 0 && refused.stderr.contains("Operation not permitted"), "{disk}: {refused:?}");
        }
        // What an exec makes, and what has all capabilities but no device, is held to the same list.
        drop(world.ok("docker run -d --name one --cap-add ALL box sleep 1000"));
        let refused = world.sh(&format!("docker exec --privileged one sh -c 'mknod /tmp/disk b {disk} && echo made; : < /tmp/disk'"));
        assert_eq!(refused.stdout, "made\n", "{refused:?}");
        assert!(refused.code != 0 && refused.stderr.contains("Operation not permitted"), "{refused:?}");
        drop(world.ok("docker rm -f one"));
    }
    // The list is what refuses: a rule opens it, for what it names.
    let rule = format!("docker run --rm --device-cgroup-rule 'b {} r' box sh -c 'mknod /tmp/disk b {open};", open.replace(' ', ":"));
    assert_eq!(world.ok(&format!("{rule} : < /tmp/disk && echo open'")), "open");
    assert!(world.sh(&format!("{rule} : >> /tmp/disk'")).stderr.contains("Operation not permitted"));
    assert_eq!(world.ok(&format!("docker run --rm --privileged box sh -c 'mknod /tmp/disk b {open}; : < /tmp/disk && echo open'")), "open");
}

#[test]
fn the_default_profile_confines_where_the_kernel_has_apparmor() {
    let world = world();
    let label = |flags: &str| world.sh(&format!("docker run --rm {flags} box cat /proc/self/attr/current")).stdout;
    if !apparmor() {
        assert_eq!(world.ok("docker run --name one box true; docker inspect -f '<{{.AppArmorProfile}}>' one"), "<>");
        drop(world.ok("docker rm one"));
        return;
    }
    for flags in ["", "--security-opt no-new-privileges", "--user user", "--cap-add ALL"] {
        assert_eq!(label(flags), "docker-default (enforce)\n", "{flags}");
    }
    for flags in ["--privileged", "--security-opt apparmor=unconfined"] {
        assert_eq!(label(flags), "unconfined\n", "{flags}");
    }
    assert!(world.sh("docker run --rm --security-opt apparmor=nosuch box true").stderr.contains("apparmor"));
    drop(world.ok("docker run -d --name one --cap-add SYS_ADMIN box sh -c 'trap \"exit 4\" TERM; while :; do sleep 0.1; done'"));
    assert_eq!(world.ok("docker exec one cat /proc/self/attr/current"), "docker-default (enforce)");
    assert_eq!(world.ok("docker inspect -f '{{.AppArmorProfile}}' one"), "docker-default");
    assert_ne!(world.sh("docker exec one mount -t tmpfs none /mnt").code, 0, "capable, but the profile mounts nothing");
    assert_eq!(world.ok("docker exec one sh -c 'sleep 1000 & kill $!; echo $?'"), "0", "processes of a container may signal");
    // The log has it when the trap is set: the loop has begun.
    drop(world.ok("docker stop one"));
    assert_eq!(world.ok("docker wait one"), "4", "signals from outside arrive");
    drop(world.ok("docker rm one"));
}

#[test]
fn counters_have_the_shape_of_their_version() {
    let world = world();
    drop(world.ok("docker run -d --name one --pids-limit 50 box sleep 1000"));
    drop(world.ok("docker run -d --name two box sleep 1000"));
    let stats = |name: &str| {
        world.ok(&format!("curl -s --unix-socket /run/sampan/sampan.sock 'http://d/containers/{name}/stats?stream=false&one-shot=true'"))
    };
    let one = stats("one");
    assert!(one.contains("\"pids_stats\":{\"current\":1,\"limit\":50}"), "{one}");
    assert!(one.contains("\"networks\":{\"eth0\":{\"rx_bytes\":"), "{one}");
    let two = stats("two");
    if unified() {
        assert!(two.contains("\"limit\":18446744073709551615}"), "{two}");
        assert!(two.contains("\"io_serviced_recursive\":null") && two.contains("\"inactive_file\":"), "{two}");
        assert!(!two.contains("max_usage"), "{two}");
    } else {
        assert!(two.contains("\"pids_stats\":{\"current\":1}"), "{two}");
        assert!(two.contains("\"io_serviced_recursive\":[]") && two.contains("\"max_usage\":"), "{two}");
    }
    assert!(world.ok("docker stats --no-stream --format '{{.PIDs}} {{.MemPerc}}' one").starts_with("1 0."), "the command line reads it");
    drop(world.ok("docker rm -f one two"));
}

#[test]
fn wishes_that_the_kernel_cannot_fulfil_are_discarded_with_a_warning() {
    let world = world();
    let output = world.sh("docker run --rm --memory 64m --memory-swappiness 10 --oom-kill-disable --blkio-weight 100 box echo runs");
    assert_eq!((output.stdout.as_str(), output.code), ("runs\n", 0), "{output:?}");
    assert_eq!(output.stderr.contains("memory swappiness"), unified(), "{output:?}");
    assert_eq!(output.stderr.contains("OomKillDisable discarded"), unified(), "{output:?}");
}
