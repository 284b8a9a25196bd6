//! Builds through the unmodified docker command line (the classic protocol).

use sampan_testkit::World;

/// A world with `box:latest` and a context.
fn world() -> World {
    let world = World::with_docker();
    drop(world.ok("docker load -q -i box.tar; mkdir -p ctx/sub; echo one > ctx/one; echo two > ctx/sub/two; ln -s one ctx/link"));
    world
}

#[test]
fn probe() {
    let world = world();
    let run = |text: &str| { let out = world.sh(text); println!("== {text}\n[{}]\n{}\n--\n{}", out.code, out.stdout, out.stderr); };
    run("cat > ctx/Dockerfile <<'END'\nFROM box AS base\nARG X=1\nRUN echo $X > /x; sleep 1\nFROM box\nENV A=b\nCOPY --chmod=640 . /ctx/\nCOPY --from=base /x /y\nWORKDIR /w/x\nRUN echo hello >file; echo err >&2\nEND\nsampan build --explain --network none -t x:1 --build-arg Y=1 ctx");
    run("sampan build --explain --network none -t x:1 ctx");
    run("echo changed > ctx/one; sampan build --explain --network none -t x:1 --iidfile iid --build-arg X=2 ctx; cat iid");
    run("sampan build -q ctx --network none; echo 'FROM box\nRUN exit 7' | sampan build --network none - ; echo $?; echo 'FROM box\nRUN echo hi > /a' | sampan build --network none -t y -f - ctx; sampan run --rm y cat /a");
    run("cd ctx; tar c . | sampan build --network none - -t z; sampan run --rm z ls -la /ctx");
    run("time sampan build ctx -t def; printf 'FROM box\nRUN ip a; cat /etc/resolv.conf; cat /proc/self/status | grep -i -E \"cap|seccomp\"' | sampan build --progress plain -");
    run("sampan system df; sampan builder prune -f; sampan images -a; sampan builder prune -af; sampan images -a; ls /var/lib/sampan/layers | wc -l; sampan images -aq | wc -l; ls /var/lib/sampan/ingest /run/sampan/containers");
    run("DOCKER_BUILDKIT=0 docker build -t q ctx; printf 'FROM box\nRUN true\nRUN true\nRUN true\nRUN true\nRUN true\nRUN true\nRUN true\nRUN true\nRUN true\nRUN true\nRUN true\nRUN true\nRUN true\nRUN true\nRUN true\nRUN true\nRUN true\nRUN true\nRUN true\nRUN true' | sampan build --network none --no-cache --progress plain - 2>&1 | tail -2");
    run("printf 'FROM box\nRUN true\nRUN true\nRUN true\nRUN true\nRUN true\nRUN true\nRUN true\nRUN true\nRUN true\nRUN true\nRUN true\nRUN true\nRUN true\nRUN true\nRUN true\nRUN true\nRUN true\nRUN true\nRUN true\nRUN true' | sampan build --no-cache --progress plain - 2>&1 | tail -2");
    println!("{}", world.daemon_log());
}
