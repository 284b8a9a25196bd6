//! What only our own command line has, and what needs a terminal: the engine that starts by itself, hints, completion, plugins.

use sampan_testkit::{World, WorldOptions};

/// A world without an engine: the first command starts it. `sampan` is told of no host.
fn quiet() -> World {
    let world = World::start(WorldOptions { no_daemon: true, ..WorldOptions::default() });
    world.write_archives();
    world.write_configuration();
    world
}

/// A command line of somebody who has set nothing.
fn plain(line: &str) -> String {
    format!("unset DOCKER_HOST; {line}")
}

#[test]
fn the_engine_comes_up_at_the_first_command_and_stops_when_told() {
    let world = quiet();
    let status = world.sh(&plain("sampan daemon status"));
    assert!(status.code != 0 && status.stderr.contains("no engine answers at /run/sampan/sampan.sock"), "{status:?}");
    // Six at a time: one engine is started, and all are served by it.
    let many = world.sh(&plain("for i in 1 2 3 4 5 6; do sampan ps -q & done; wait; sampan load -q -i box.tar"));
    assert_eq!((many.code, many.stdout.as_str()), (0, "Loaded image: box:latest\n"), "{many:?}");
    assert_eq!(many.stderr.matches("The engine was started").count(), 1, "{many:?}");
    assert!(many.stderr.contains("sampan daemon stop"), "it says how to stop it: {many:?}");
    assert_eq!(world.ok(&plain("sampan run --rm box echo hello")), "hello");
    let status = world.ok(&plain("sampan daemon status"));
    assert!(status.starts_with("running: pid ") && status.ends_with("data root /var/lib/sampan"), "{status}");
    // The engine has left the session and the cgroups of the command that started it.
    let apart = world.ok(
        "pid=$(cat /run/sampan/sampan.pid); test \"$(cut -d' ' -f6 /proc/$pid/stat)\" = $pid && grep -c sampan-test-.*-engine /proc/$pid/cgroup",
    );
    assert_ne!(apart, "0");
    drop(world.ok(&plain("sampan run -d --name lives box sleep 1000")));
    assert_eq!(world.ok(&plain("sampan daemon stop")), "stopped; containers live on (stop them too with: sampan daemon stop --all)");
    assert_eq!(world.ok(&plain("sampan ps --format '{{.Names}} {{.State}}' 2>/dev/null")), "lives running");
    // An engine that is killed is followed by another one at the next command, at whatever moment that comes.
    for _ in 0..5 {
        assert_eq!(world.ok(&plain("kill -9 $(cat /run/sampan/sampan.pid); sampan ps --format '{{.Names}}' 2>/dev/null")), "lives");
    }
    assert_eq!(world.ok(&plain("sampan daemon stop --all")), "stopped, with all containers");
    assert_eq!(world.ok("pgrep -c sampan-shim || true"), "0");
    // An engine is started for the default socket only.
    let other = world.sh("DOCKER_HOST=unix:///run/sampan/other.sock sampan ps");
    assert_eq!(other.code, 1, "{other:?}");
    assert!(
        other
            .stderr
            .starts_with("Cannot connect to the Docker daemon at unix:///run/sampan/other.sock. Is the docker daemon running?\nHint: "),
        "{other:?}"
    );
}

#[test]
fn an_engine_keeps_nothing_of_the_shell_that_started_it() {
    let world = quiet();
    // A lock that the shell holds, a pipe that it reads, its mask: all are the shell's own again when the command is over.
    let line = "umask 077; exec 9>lock; flock 9; sampan load -q -i box.tar 2>/dev/null; exec 9>&-; flock -n lock echo free; \
                exec 8> >(cat >piped; echo ended >ended); sampan ps -q; exec 8>&-; timeout 10 sh -c 'until grep -q ended ended; do :; done'; \
                sampan run --rm --user user box cat /etc/hostname | wc -l";
    assert_eq!(world.ok(&plain(line)), "Loaded image: box:latest\nfree\n1");
    let descriptors = world.ok("ls -l /proc/$(cat /run/sampan/sampan.pid)/fd | grep -cE 'work/(lock|piped)' || true");
    assert_eq!(descriptors, "0");
    // Words that are no UTF-8 are words too.
    let odd = world.sh(&plain("sampan run --rm box echo $'a\\xffb'"));
    assert_eq!((odd.code, odd.stdout.as_str()), (0, "a\u{fffd}b\n"), "{odd:?}");
    drop(world.ok(&plain("sampan daemon stop --all")));
}

#[test]
fn an_engine_that_cannot_start_is_told() {
    let world = quiet();
    let failed = world.sh(&plain("mkdir -p /etc/sampan; echo '{\"nosuch\":1}' > /etc/sampan/daemon.json; sampan ps"));
    assert_eq!(failed.code, 1, "{failed:?}");
    assert!(
        failed.stderr.contains("cannot start the engine: ") && failed.stderr.contains("nosuch") && failed.stderr.contains("Hint: "),
        "{failed:?}"
    );
}

#[test]
fn a_runtime_directory_whose_sockets_would_have_no_address_is_refused() {
    let world = World::with_our_docker();
    let long = world.sh("sampan daemon --exec-root /run/a-directory-with-a-long-name --data-root /tmp/nowhere-$$");
    assert_eq!(long.code, 1, "{long:?}");
    assert!(long.stderr.contains("/run/a-directory-with-a-long-name is too long (33 bytes)"), "{long:?}");
    assert!(long.stderr.contains("--exec-root at most 21 bytes"), "{long:?}");
}

#[test]
fn a_terminal_is_one_at_both_ends() {
    let world = World::with_our_docker();
    drop(world.ok("docker load -q -i box.tar"));
    // `script` gives the command line a terminal.
    let typed =
        world.sh("(echo 'tty; stty size; exit 7'; sleep 0.2) | script -qec 'stty rows 33 cols 99; docker run -it --rm box sh' /dev/null");
    assert_eq!(typed.code, 7, "{typed:?}");
    assert!(typed.stdout.contains("/dev/pts/0") && typed.stdout.contains("33 99"), "{typed:?}");
    drop(world.ok("docker run -d --name web box sleep 1000"));
    let typed = world.sh("(echo 'tty; exit 3'; sleep 0.2) | script -qec 'docker exec -it web sh' /dev/null");
    assert!(typed.code == 3 && typed.stdout.contains("/dev/pts/"), "{typed:?}");
    // Ctrl-P Ctrl-Q leaves the container alone.
    drop(
        world.ok("(while printf '\\020\\021'; do sleep 0.1; done) | timeout 20 script -qec 'docker run -it --name stays box sh' /dev/null"),
    );
    assert_eq!(world.ok("docker inspect -f '{{.State.Running}}' stays"), "true");
    // A signal goes on to the process, and its exit code comes back.
    let signalled = world.sh(
        "docker run --rm --name trap box sh -c 'trap \"echo caught; exit 9\" TERM; echo ready; while :; do sleep 0.05; done' > out & pid=$!; \
         until grep -q ready out; do sleep 0.02; done; kill -TERM $pid; wait $pid; echo code $?; cat out",
    );
    assert_eq!(signalled.stdout, "code 9\nready\ncaught\n", "{signalled:?}");
    drop(world.ok("docker rm -f web stays"));
}

#[test]
fn input_and_output_flow_at_the_same_time() {
    let world = World::with_our_docker();
    drop(world.ok("docker load -q -i box.tar"));
    assert_eq!(world.ok("head -c 20000000 /dev/zero | docker run --rm -i box cat | wc -c"), "20000000");
    assert_eq!(world.ok("yes | docker run --rm -i box head -n 1"), "y");
    assert_eq!(world.ok("docker run --rm box yes | head -n 1"), "y");
}

#[test]
fn errors_hint_at_what_to_type_and_only_under_our_own_name() {
    let world = World::with_our_docker();
    let ours = world.sh("sampan logs nosuch");
    assert_eq!(ours.stderr, "Error response from daemon: No such container: nosuch\nHint: list all containers: sampan ps -a\n");
    let theirs = world.sh("docker logs nosuch");
    assert_eq!(theirs.stderr, "Error response from daemon: No such container: nosuch\n");
    assert_eq!(world.sh("DOCKER_CLI_HINTS=false sampan logs nosuch").stderr, theirs.stderr);
    let later = world.sh("sampan trust inspect box");
    assert!(later.code == 1 && later.stderr.starts_with("not supported: trust ("), "{later:?}");
    for line in [
        "DOCKER_CONTENT_TRUST=1 sampan run box",
        "sampan create --disable-content-trust=false box",
        "DOCKER_CONTENT_TRUST=1 sampan pull box",
    ] {
        let unchecked = world.sh(line);
        assert!(unchecked.code != 0 && unchecked.stderr.contains("(signatures come later)"), "{line}: {unchecked:?}");
    }
    let later = world.sh("sampan run --use-api-socket box");
    assert!(later.code == 125 && later.stderr.starts_with("not supported: --use-api-socket ("), "{later:?}");
}

#[test]
fn completion_knows_commands_flags_and_things() {
    let world = World::with_our_docker();
    drop(world.ok(
        "docker load -q -i box.tar && docker run -d --name web box sleep 1000 && docker create --name idle box && docker volume create vol",
    ));
    let names = |line: &str| world.ok(&format!("sampan __complete {line} | cut -f1"));
    assert_eq!(names("ren"), "rename");
    assert_eq!(names("container ren"), "rename");
    assert_eq!(names("run --memory-s"), "--memory-swap\n--memory-swappiness");
    assert_eq!(names("stop ''"), "web");
    assert_eq!(names("start ''"), "idle");
    assert_eq!(names("rm ''"), "idle\nweb");
    assert_eq!(names("run -it --name x ''"), "box");
    assert_eq!(names("run box ''"), ":files");
    assert_eq!(names("run --restart un"), "unless-stopped");
    assert_eq!(names("volume rm ''"), "vol");
    assert_eq!(names("cp w"), "web:\n:files");
    // What the line or the configuration knows.
    drop(world.ok("mkdir -p ctx conf; printf 'FROM box AS first\\nFROM --platform=linux/amd64 box as second\\nFROM box\\n' > ctx/Dockerfile; echo '{\"auths\":{\"one.example\":{}},\"credHelpers\":{\"two.example\":\"x\"}}' > conf/config.json"));
    assert_eq!(names("build ctx --target ''"), "first\nsecond");
    assert_eq!(names("build --file=ctx/Dockerfile --target=s"), "--target=second");
    assert_eq!(names("--config conf logout ''"), "one.example\ntwo.example");
    assert_eq!(names("build --platform linux/arm/"), "linux/arm/v6\nlinux/arm/v7");
    assert_eq!(names("build --call t"), "targets");
    assert_eq!(names("rmi box:"), "box:latest");
    assert_eq!(names("buildx build --metadata-file ''"), ":files");
    assert_eq!(names("run --name ''"), "");
    assert_eq!(names("-H unix:///run/sampan/nosuch.sock rm ''"), "");
    // The script works in a real shell.
    let shell = "source <(sampan completion bash); COMP_WORDS=(sampan stop w); COMP_CWORD=2; COMP_LINE='sampan stop w'; COMP_POINT=13; _sampan_complete; echo \"${COMPREPLY[@]}\"";
    assert_eq!(world.ok(shell), "web");
    // Words that readline splits at colons and equal signs.
    let bash = |line: &str, words: &str| {
        let count = words.split(' ').count() - 1;
        world.ok(&format!("source <(sampan completion bash); COMP_WORDS=({words}); COMP_CWORD={count}; COMP_LINE='{line}'; COMP_POINT={}; _sampan_complete; echo \"${{COMPREPLY[@]}}\"", line.len()))
    };
    assert_eq!(bash("sampan rmi box:l", "sampan rmi box : l"), "latest");
    assert_eq!(bash("sampan run --restart=un", "sampan run --restart = un"), "unless-stopped");
    assert_eq!(bash("sampan cp idle", "sampan cp idle"), "idle:");
    for shell in ["zsh", "fish", "powershell"] {
        assert!(world.ok(&format!("sampan completion {shell}")).contains("sampan __complete"));
    }
    drop(world.ok("docker rm -f web idle"));
}

#[test]
fn plugins_contexts_and_saved_files() {
    let world = World::with_our_docker();
    drop(world.ok("docker load -q -i box.tar"));
    drop(world.ok("mkdir -p $HOME/.docker/cli-plugins; printf '#!/bin/sh\\necho plugin $DOCKER_HOST \"$@\"\\n' > $HOME/.docker/cli-plugins/docker-hello; chmod +x $HOME/.docker/cli-plugins/docker-hello"));
    assert_eq!(world.ok("docker hello a --b"), "plugin unix:///run/sampan/sampan.sock hello a --b");
    drop(world.ok("docker context create --docker host=unix:///run/sampan/sampan.sock here && docker context use here"));
    assert_eq!(world.ok("unset DOCKER_HOST; docker images -q | wc -l; docker context show"), "1\nhere");
    assert_eq!(
        world.ok("docker context rm -f here; test -f $HOME/.docker/config.json && stat -c %a $HOME/.docker/config.json"),
        "here\n600"
    );
    // A save that fails leaves no file, and the old one stays.
    drop(world.ok("echo old > image.tar"));
    assert_ne!(world.sh("docker save -o image.tar nosuch").code, 0);
    assert_eq!(world.ok("cat image.tar; ls image.tar*"), "old\nimage.tar");
    drop(world.ok("docker save box -o image.tar"));
    assert_eq!(world.ok("docker rmi box >/dev/null; docker load -q -i image.tar"), "Loaded image: box:latest");
    // Copies: a folder's contents, a name of its own, the owner of who copies.
    drop(world.ok("docker create --name copies box && mkdir -p tree/in && echo x > tree/in/f && ln -s in/f tree/link"));
    drop(world.ok("docker cp tree copies:/copied && docker cp copies:/copied back && docker cp copies:/copied/. flat && docker cp copies:/copied/in/f single"));
    assert_eq!(world.ok("cat back/in/f flat/in/f single; readlink back/link"), "x\nx\nx\nin/f");
    let refused = world.sh("docker cp tree copies:/etc/passwd");
    assert_eq!((refused.code, refused.stderr.as_str()), (1, "cannot copy directory\n"));
    drop(world.ok("docker rm copies"));
}
