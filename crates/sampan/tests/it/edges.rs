//! The edges of containers' life as clients meet them: who may read and write what, what a request may not ask for, what inspect
//! shows again, what `cp` finds. Through the unmodified docker CLI and the bare API.

use sampan_testkit::World;

use crate::storm::eventually;

fn world() -> World {
    let world = World::with_our_docker();
    drop(world.ok("docker load -q -i box.tar"));
    world
}

/// Standard error of a command that must fail.
fn refused(world: &World, line: &str) -> String {
    let result = world.sh(line);
    assert_ne!(result.code, 0, "{line}: {result:?}");
    result.stderr
}

#[test]
fn a_read_only_root_has_read_only_names() {
    let world = world();
    for file in ["hosts", "hostname", "resolv.conf"] {
        let text = refused(&world, &format!("docker run --rm --read-only box sh -c 'echo x >> /etc/{file}'"));
        assert!(text.contains("Read-only file system"), "{file}: {text}");
        drop(world.ok(&format!("docker run --rm box sh -c 'echo x >> /etc/{file}'")));
    }
}

#[test]
fn a_working_directory_is_there_before_the_start() {
    let world = world();
    drop(world.ok("docker create --name new -w /made/here box pwd && docker create --name old -w /etc box pwd && echo x > file"));
    assert_eq!(world.ok("docker diff new"), "A /made\nA /made/here");
    assert_eq!(world.ok("docker diff old"), "");
    drop(world.ok("docker cp file new:/made/here/"));
    assert_eq!(world.ok("docker start -a new"), "/made/here");
    assert_eq!(world.ok("docker cp new:/made/here/file - | tar -xO"), "x");
    // Links are followed inside the root; what is no directory makes no container.
    drop(
        world.ok(
            "docker create --name linked box sh -c 'ln -s / /up; ln -s /etc/passwd /file' && docker start linked && docker wait linked",
        ),
    );
    drop(world.ok("docker commit linked linked && docker create --name through -w /up/../up/below linked pwd"));
    assert_eq!(world.ok("docker diff through"), "A /below");
    for place in ["/file", "/etc/passwd", "/etc/passwd/below"] {
        let text = refused(&world, &format!("docker create --name wrong -w {place} linked"));
        assert!(text.contains(&format!("Cannot mkdir: {place} is not a directory")), "{place}: {text}");
    }
    assert_eq!(world.ok("docker ps -aqf name=wrong"), "");
    drop(world.ok("docker rm -f new old linked through && docker rmi linked"));
}

#[test]
fn memory_is_shared_only_by_who_offers_it() {
    let world = world();
    drop(world.ok("docker run -d --name own box sleep 1000"));
    drop(world.ok("docker run -d --name open --ipc shareable box sleep 1000"));
    assert!(refused(&world, "docker run --rm --ipc container:own box true").contains("non-shareable IPC"));
    // Queues and /dev/shm, in both directions, and through a guest's guest.
    drop(world.ok("docker exec open sh -c 'echo hers > /dev/shm/hers'"));
    drop(world.ok("docker run -d --name guest0 --ipc container:open --cap-drop ALL box sleep 1000"));
    assert_eq!(world.ok("docker exec guest0 sh -c 'echo his > /dev/shm/his; cat /dev/shm/hers'"), "hers");
    assert_eq!(world.ok("docker exec open cat /dev/shm/his"), "his");
    assert!(world.ok("docker exec guest0 grep ' /dev/shm ' /proc/mounts").contains("nosuid,nodev,noexec"));
    // What stands there in the other's place leads nowhere else.
    let own = "docker run -d --name moved --ipc shareable --cap-add SYS_ADMIN --security-opt apparmor=unconfined --security-opt seccomp=unconfined";
    drop(world.ok(&format!("{own} box sh -c 'umount /dev/shm && rmdir /dev/shm && ln -s / /dev/shm && echo done && exec sleep 1000'")));
    eventually(&world, "a link", || if world.ok("docker logs moved") == "done" { Ok(()) } else { Err(world.ok("docker logs moved 2>&1")) });
    assert!(refused(&world, "docker run --rm --ipc container:moved box true").contains("Too many levels of symbolic links"));
    drop(world.ok("docker rm -f guest0 moved"));
    assert!(refused(&world, "docker create --pid container:nosuch box").contains("No such container: nosuch"));
    drop(world.ok("docker create --name idle box && docker create --name guest --pid container:idle box"));
    assert!(refused(&world, "docker start guest").contains("failed to join PID namespace"));
    drop(world.ok("docker rm -f own open idle guest"));
}

#[test]
fn a_copy_keeps_out_of_what_is_read_only_and_finds_the_volumes_of_who_does_not_run() {
    let world = world();
    drop(world.ok("docker create --name fixed -v data:/data:ro box && echo x > new"));
    assert!(refused(&world, "docker cp new fixed:/data/").contains("mounted volume is marked read-only"));
    drop(world.ok("docker create --name closed --read-only -v data:/data box"));
    assert!(refused(&world, "docker cp new closed:/tmp/").contains("container rootfs is marked read-only"));
    // What is copied into the volume of a container that never ran is in the volume.
    drop(world.ok("docker cp new closed:/data/"));
    assert_eq!(world.ok("docker run --rm -v data:/data box cat /data/new"), "x");
    drop(world.ok("docker cp closed:/data out && docker cp closed:/data/new alone && sampan cp closed:/data/. contents"));
    assert_eq!(world.ok("cat out/new alone contents/new"), "x\nx\nx");
    // The names of one that has ended are those it had.
    drop(world.ok("docker run --name ended --hostname shown box true && docker cp ended:/etc/hostname hostname"));
    assert_eq!(world.ok("cat hostname"), "shown");
    for client in ["docker", "sampan"] {
        drop(world.ok(&format!("{client} cp ended:/ whole-{client} && {client} cp ended:/etc/. etc-{client}")));
        assert_eq!(world.ok(&format!("cat whole-{client}/etc/passwd | cmp - etc-{client}/passwd && echo same")), "same", "{client}");
    }
    drop(world.ok("docker rm -f fixed closed ended"));
}

#[test]
fn a_link_in_a_volume_leads_no_subpath_out_of_it() {
    let world = world();
    drop(world.ok("docker run --rm -v data:/data box sh -c 'mkdir /data/in; echo x > /data/in/f; ln -s / /data/out; ln -s in /data/way'"));
    let mount = |path: &str| format!("docker run --rm --mount type=volume,src=data,dst=/m,volume-subpath={path} box ls /m");
    assert_eq!(world.ok(&mount("way")), "f");
    drop(refused(&world, &mount("out")));
    drop(refused(&world, &mount("../data")));
}

#[test]
fn a_privileged_container_has_the_hosts_devices_and_no_other_has() {
    let world = world();
    drop(world.ok("mkdir -p /dev/sampan-edges && mknod /dev/sampan-edges/node c 1 3"));
    let privileged = world.sh("docker run --rm --privileged box sh -c 'echo x > /dev/sampan-edges/node && ls /dev/sampan-edges'");
    let plain = world.sh("docker run --rm box ls /dev/sampan-edges");
    drop(world.ok("rm -r /dev/sampan-edges"));
    assert_eq!((privileged.code, privileged.stdout.as_str()), (0, "node\n"), "{privileged:?}");
    assert_ne!(plain.code, 0, "{plain:?}");
}

#[test]
fn what_a_request_may_not_ask_for_is_named() {
    let world = world();
    drop(world.ok("docker run -d --name other box sleep 1000"));
    for (flags, text) in [
        ("--net container:other --dns 1.1.1.1", "conflicting options: dns and the network mode"),
        ("--net container:other -p 80:80", "conflicting options: port publishing and the container type network mode"),
        ("--net container:other --add-host a:1.1.1.1", "conflicting options: custom host-to-IP mapping and the network mode"),
        ("--name me --net container:me", "cannot join own network"),
        ("--uts host -h name", "conflicting options: hostname and the UTS mode"),
        ("--volumes-from other:bar", "invalid mode: bar"),
        ("--cpuset-cpus 4000", "Requested CPUs are not available - requested 4000"),
        ("--cpus 0.5 --cpu-period 100000", "Nano CPUs and CPU Period cannot both be set"),
        ("-u -1", "uids and gids must be in range 0-2147483647"),
        ("--device /etc", "\"/etc\": not a device node"),
        ("--security-opt writable-cgroups=1", "invalid --security-opt 2: \"writable-cgroups=1\""),
        ("--annotation =x", "annotation"),
    ] {
        let got = refused(&world, &format!("docker run --rm {flags} box true"));
        assert!(got.contains(text), "{flags}: {got}");
    }
    drop(world.ok("docker rm -f other"));
}

#[test]
fn guests_of_a_network_have_its_owners_names() {
    let world = world();
    drop(world.ok("docker run -d --name owner -h a.example.org box sleep 1000"));
    assert_eq!(world.ok("docker run --rm --net container:owner box cat /etc/hostname"), "a.example.org");
    assert!(world.ok("docker run --rm --net container:owner box cat /etc/hosts").contains("a.example.org a"));
    assert_eq!(world.ok("docker run --rm --net host box cat /etc/hostname"), world.ok("uname -n"));
    assert_eq!(world.ok("docker run --rm -e HOME= box sh -c 'echo $HOME'"), "/root");
    drop(world.ok("docker rm -f owner"));
}

#[test]
fn inspect_shows_the_mounts_and_annotations_that_were_asked_for() {
    let world = world();
    drop(world.ok(
        "docker create --name shown --annotation a=b -w /srv//x/ --tmpfs /scratch --mount type=volume,dst=/v,volume-nocopy --mount type=tmpfs,dst=/t,tmpfs-size=1m box",
    ));
    assert_eq!(world.ok("docker inspect -f '{{json .HostConfig.Annotations}} {{.Config.WorkingDir}}' shown"), "{\"a\":\"b\"} /srv/x");
    assert_eq!(
        world.ok("docker inspect -f '{{json .HostConfig.Mounts}}' shown"),
        "[{\"Type\":\"volume\",\"Target\":\"/v\",\"VolumeOptions\":{\"NoCopy\":true}},{\"Type\":\"tmpfs\",\"Target\":\"/t\",\"TmpfsOptions\":{\"SizeBytes\":1048576}}]"
    );
    assert_eq!(world.ok("docker inspect -f '{{range .Mounts}}{{.Destination}} {{end}}' shown").trim(), "/t /v");
    drop(world.ok("docker rm -v shown"));
}

#[test]
fn the_local_log_driver_keeps_what_was_said() {
    let world = world();
    drop(world.ok("docker run --name said --log-driver local --log-opt max-size=1m --log-opt compress=false box echo hello"));
    assert_eq!(world.ok("docker logs said"), "hello");
    assert_eq!(world.ok("docker inspect -f '{{.HostConfig.LogConfig.Type}}' said"), "local");
    drop(world.ok("docker rm said"));
    let refused = world.sh("docker run --log-driver local --log-opt compress=true box true");
    assert!(refused.code == 125 && refused.stderr.contains("not supported: --log-opt compress"), "{refused:?}");
}

#[test]
fn events_tell_of_mounts_and_refuse_times_that_run_backwards() {
    let world = world();
    drop(world.ok("docker run --rm -v kept:/kept box true"));
    let told = "docker events --since 1 --until $(date +%s).999 --filter type=volume --format '{{.Action}}'";
    assert_eq!(
        world.ok(&format!("timeout 20 sh -c \"until {told} | grep -q unmount; do :; done\"; {told} | sort | xargs")),
        "create mount unmount"
    );
    assert!(refused(&world, "docker events --since 20 --until 10").contains("cannot be after `until` time"));
}

#[test]
fn an_exec_without_a_terminal_is_told_of_none() {
    let world = world();
    drop(world.ok("docker run -dt --name screen box sleep 1000"));
    assert_eq!(world.ok("docker exec screen sh -c 'echo \"[$TERM]\"'"), "[]");
    drop(world.ok("docker rm -f screen"));
}

#[test]
fn a_copy_goes_where_links_lead_in_the_root_and_in_a_volume() {
    for world in [World::with_docker(), world()] {
        drop(world.ok("docker load -q -i box.tar; echo host > h; mkdir folder; echo inner > folder/f"));
        for place in ["/kept", "/own"] {
            let made = format!(
                "mkdir -p {place}/there; cd {place}; echo old > file; ln -s {place}/file full; ln -s file short; ln -s {place}/there folder; \
                 ln -s {place}/new dangling; ln -s {place}/made void"
            );
            drop(world.ok(&format!("docker run --name from -v kept:/kept box sh -c '{made}'")));
            drop(world.ok(&format!(
                "docker cp h from:{place}/full && docker cp h from:{place}/dangling && docker cp h from:{place}/folder && \
                 docker cp folder from:{place}/folder && docker cp folder from:{place}/void"
            )));
            drop(world.ok(&format!("docker cp from:{place} seen")));
            let seen = "cd seen; cat file short new there/h there/folder/f made/f | xargs; find . -type l | sort | xargs";
            assert_eq!(world.ok(seen), "host host host host inner inner\n./dangling ./folder ./full ./short ./void", "{place}");
            drop(world.ok("docker rm -f from; rm -r seen"));
        }
    }
}

#[test]
fn a_folder_inside_a_volume_is_mounted_or_refused_in_dockers_words() {
    let world = world();
    drop(world.ok("docker run --rm -v data:/v box sh -c 'mkdir /v/etc; touch /v/file; ln -s / /v/out'"));
    let base = world.ok("docker volume inspect data -f '{{.Mountpoint}}'");
    let line = |target: &str, path: &str| {
        format!("docker run --rm --mount type=volume,src=data,dst={target},volume-subpath={path} box ls {target}")
    };
    let missing = |path: &str, name: &str| format!("cannot access path {base}/{path}: lstat {base}/{name}: no such file or directory");
    let escapes = |path: &str| format!("path concatenation escapes the base directory, base: {base}, subpath: {path}");
    for (target, path, code, text) in [
        ("/m", "nope", 127, missing("nope", "nope")),
        ("/m", "etc/nope/deeper", 127, missing("etc/nope/deeper", "etc/nope")),
        ("/m", "file/x", 125, format!("error while resolving symlinks in combined path \"{base}/file/x\": not a directory")),
        ("/m", "out/etc", 125, escapes("out/etc")),
        ("/etc", "nope", 127, missing("nope", "nope")),
        ("/etc", "out/etc", 125, format!("failed to populate volume: {}", escapes("out/etc"))),
    ] {
        let result = world.sh(&line(target, path));
        assert_eq!(result.code, code, "{target} {path}: {result:?}");
        assert!(result.stderr.contains(&format!("Error response from daemon: {text}\n")), "{target} {path}: {result:?}");
    }
    // An empty folder is filled like an empty volume.
    assert!(world.ok(&line("/etc", "etc")).lines().any(|name| name == "passwd"));
    assert!(world.ok("docker run --rm -v data:/v box ls /v/etc").lines().any(|name| name == "passwd"));
    drop(world.ok("docker create --name one --mount type=volume,src=data,dst=/m,volume-subpath=nope box true"));
    drop(refused(&world, "docker start one"));
    let state = world.ok("docker inspect one -f '{{.State.Status}} {{.State.ExitCode}} {{.State.Error}}'");
    assert_eq!(state, format!("created 128 {}", missing("nope", "nope")));
    drop(world.ok("docker rm one && docker volume rm data"));
}

#[test]
fn a_stop_right_after_a_start_reaches_a_program_that_is_only_beginning() {
    let world = world();
    let program = "sleep 0.1; trap 'exit 5' TERM; while true; do sleep 0.05; done";
    for (name, line) in [("one", "docker stop -t 30"), ("two", "docker kill -s TERM")] {
        drop(world.ok(&format!("docker run -d --name {name} box sh -c \"{program}\" && {line} {name}")));
        assert_eq!(world.ok(&format!("docker wait {name}")), "5");
    }
    drop(world.ok("docker rm one two"));
}

#[test]
fn a_limit_of_processes_can_be_taken_away() {
    let world = world();
    drop(world.ok("docker run -d --name one --pids-limit 50 box sleep 1000"));
    let inspect = || world.ok("docker inspect one -f '{{.HostConfig.PidsLimit}}'");
    let limit = || world.ok("docker exec one sh -c 'cat /sys/fs/cgroup/pids.max /sys/fs/cgroup/pids/pids.max 2>/dev/null; true'");
    for (flag, shown, kernel) in [("0", "50", "50"), ("-1", "0", "max"), ("7", "7", "7"), ("-2", "0", "max")] {
        drop(world.ok(&format!("docker update --pids-limit {flag} one")));
        assert_eq!((inspect().as_str(), limit().as_str()), (shown, kernel), "{flag}");
    }
    // Other limits leave it, and earlier versions of the API knew no change of it.
    drop(world.ok("docker update --pids-limit 9 one && docker update --memory 64m --memory-swap 64m one"));
    let old = "curl -sS --unix-socket /run/sampan/sampan.sock -H 'Content-Type: application/json' -d '{\"PidsLimit\":3}' \
               http://x/v1.39/containers/one/update";
    assert_eq!(world.ok(old), "{\"Warnings\":null}");
    assert_eq!((inspect().as_str(), limit().as_str()), ("9", "9"));
    drop(world.ok("docker create --name two --pids-limit -1 box true"));
    assert_eq!(world.ok("docker inspect two -f '{{.HostConfig.PidsLimit}}'"), "<nil>");
    drop(world.ok("docker rm -f one two"));
}
