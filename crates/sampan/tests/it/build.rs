//! Builds through the unmodified docker command line (the classic protocol).

use sampan_testkit::World;

/// A world with `box:latest` and a context.
fn world() -> World {
    let world = World::with_docker();
    drop(world.ok("docker load -q -i box.tar; mkdir -p ctx/sub; echo one > ctx/one; echo two > ctx/sub/two; ln -s one ctx/link"));
    world
}

fn build(world: &World, dockerfile: &str, flags: &str) -> sampan_testkit::Output {
    world.sh(&format!("cat > ctx/Dockerfile <<'END'\n{dockerfile}\nEND\nDOCKER_BUILDKIT=0 docker build {flags} ctx"))
}

#[test]
fn probe() {
    let world = world();
    let file = "FROM box\nENV A=b\nCOPY . /ctx/\nWORKDIR /w/x\nRUN echo hello >file; echo err >&2; ls -la /ctx /etc; env; cat /etc/hosts\nCMD [\"cat\", \"file\"]";
    for round in 0..2 {
        let out = build(&world, file, "--network none -t x:1");
        println!("{round}: {} {}\n{}", out.code, out.stdout, out.stderr);
    }
    println!("{:?}", world.sh("docker run --rm x:1; docker history x:1; docker images -a; docker images; docker inspect x:1"));
    println!("{:?}", world.sh("docker save x:1 | tar -t"));
    println!("{:?}", build(&world, "FROM box\nRUN echo a; exit 3", ""));
    println!("{}", world.daemon_log());
}
