//! Builds by Docker's classic client: where COPY and ADD put what, and what the client is told.

use sampan_testkit::World;

/// A world with `box:latest`, whose context is in `ctx`.
fn world(files: &str) -> World {
    let world = World::with_docker();
    drop(world.ok(&format!("docker load -q -i box.tar; mkdir ctx; cd ctx; {files}")));
    world
}

/// Builds `file` as `t`; what was said is given back.
fn build(world: &World, file: &str, flags: &str) -> (i32, String) {
    let out =
        world.sh(&format!("printf '{}' > ctx/Dockerfile; DOCKER_BUILDKIT=0 docker build -t t {flags} ctx 2>&1", file.replace('\n', "\\n")));
    (out.code, out.stdout)
}

fn built(world: &World, file: &str) -> String {
    let (code, told) = build(world, file, "--network none");
    assert_eq!(code, 0, "{told}");
    told
}

#[test]
fn copies_follow_links_of_both_sides() {
    let world = world("echo a > a; mkdir d; echo f > d/f; ln -s ../a d/up; ln -s a link; ln -s gone dangling");
    let file = "FROM box\nRUN mkdir -p /real/in && ln -s real /l && ln -s /real/in /abs && ln -s /made /dead && ln -s /real/file /f\n\
        COPY a /l/\nCOPY d/* /abs\nCOPY a /dead/x/\nCOPY a /f\nCOPY li* /new/\n";
    let told = built(&world, file);
    assert!(told.contains("Successfully tagged t:latest"), "{told}");
    let look = "for i in /l /abs /dead /f; do readlink $i; done; find /real /made /new -type f | sort; cat /new/link /real/in/up";
    let found = world.ok(&format!("docker run --rm t sh -c '{look}'"));
    assert_eq!(found, "real\n/real/in\n/made\n/real/file\n/made/x/a\n/new/link\n/real/a\n/real/file\n/real/in/f\n/real/in/up\na\na");
    let (code, told) = build(&world, "FROM box\nCOPY d*g /x/\n", "");
    let missing = "COPY failed: file not found in build context or excluded by .dockerignore: stat dangling: file does not exist";
    assert!(code == 1 && told.contains(missing), "{told}");
    let (code, told) = build(&world, "FROM box AS one\nFROM box\nCOPY --from=one /none /x\n", "");
    assert!(code == 1 && told.contains("COPY failed: stat none: file does not exist"), "{told}");
}

#[test]
fn directories_have_the_modes_and_times_that_dockers_have() {
    let world = world("mkdir -p d/s; echo 1 > d/f; ln d/f d/g; chmod 750 d/s; chmod 700 d; touch -d 2005-05-05 d/f d/s d");
    let file = "FROM box\nRUN mkdir -p /old/s && chmod 711 /old /old/s\nCOPY d /a\nCOPY d /old/\nCOPY --chmod=711 d/f /p/q/f\n";
    drop(built(&world, file));
    // What is made for a copied directory is open to all; what is below it is as in the context, also where it was there before.
    let found = world.ok("docker run --rm t stat -c '%a %n' /a /a/s /old /old/s /p /p/q /p/q/f");
    assert_eq!(found, "755 /a\n750 /a/s\n711 /old\n750 /old/s\n711 /p\n711 /p/q\n711 /p/q/f");
    let years = world.ok("docker run --rm t sh -c 'for i in /a /a/s /a/f /old /old/s; do stat -c %y $i; done' | cut -c1-4 | uniq -c");
    assert_eq!(years.trim(), "5 2005");
    assert_eq!(world.ok("docker run --rm t stat -c %h /a/f /a/g"), "2\n2", "two names of one file");
    // The context's own directory is as old as the build.
    drop(built(&world, "FROM box\nCOPY . /all\n"));
    assert_ne!(world.ok("docker run --rm t stat -c %y /all | cut -c1-4"), "1970");
}

#[test]
fn an_archive_replaces_what_is_in_its_way_and_takes_an_owner() {
    let world = world("mkdir -p a/t b/t/x; echo new > a/t/x; ln -s x a/t/y; tar cf a.tar --owner=5 --group=6 -C a t; mkdir b/t/y");
    drop(built(&world, "FROM box\nCOPY b /r/\nADD a.tar /r/\nADD --chown=8:9 a.tar /o/\n"));
    let found = world.ok("docker run --rm t sh -c 'cat /r/t/x; readlink /r/t/y; stat -c \"%u:%g %n\" /r/t /r/t/x /o /o/t /o/t/x /o/t/y'");
    assert_eq!(found, "new\nx\n5:6 /r/t\n5:6 /r/t/x\n8:9 /o\n8:9 /o/t\n8:9 /o/t/x\n8:9 /o/t/y");
}

#[test]
fn several_sources_need_a_directory() {
    let world = world("echo a > a; echo b > b; mkdir d; echo f > d/f");
    let wanted = "When using COPY with more than one source file, the destination must be a directory and end with a /";
    for line in ["COPY a b /x", "COPY [ab] /x", "COPY a d /x"] {
        let (code, told) = build(&world, &format!("FROM box\n{line}\n"), "");
        assert!(code == 1 && told.contains(wanted), "{line}: {told}");
    }
    drop(built(&world, "FROM box\nWORKDIR /w\nCOPY a b .\nCOPY a b /tmp\nCOPY a b /n/\nCOPY d d /m\n"));
    assert_eq!(world.ok("docker run --rm t sh -c 'ls -d /w/* /tmp/a /tmp/b /n/* /m/*' | xargs"), "/m/f /n/a /n/b /tmp/a /tmp/b /w/a /w/b");
}

#[test]
fn a_stage_of_settings_keeps_its_history() {
    let world = world("true");
    drop(built(&world, "FROM box AS Base\nENV A=1\nLABEL l=2\nFROM base\nCMD [\"x\"]\n"));
    let history = world.ok("docker history --format '{{.CreatedBy}}' t | head -3");
    assert_eq!(history, "CMD [\"x\"]\nLABEL l=2\nENV A=1");
}

#[test]
fn the_client_is_told_of_stages_arguments_and_events() {
    let world = world("true");
    let start = world.ok("date +%s.%N");
    drop(built(&world, "FROM box\nENV A=1\nENV B=2\n"));
    let events = world.ok(&format!(
        "docker events --filter type=image --since {start} --until $(date +%s.%N) --format '{{{{.Action}}}} {{{{.Actor.Attributes.name}}}}'"
    ));
    let id = world.ok("docker inspect -f '{{.Id}}' t");
    assert_eq!(events, format!("tag t:latest\ncreate {id}"));
    // What each stage results in is told to programs.
    let file = "FROM box AS one\nENV A=1\nFROM one\nENV B=2\n";
    let ask = "tar c -C ctx . | curl -s --unix-socket ${DOCKER_HOST#unix://} -H Content-Type:application/x-tar --data-binary @- http://d/build | grep -o '\"aux\":{\"ID\":\"[^\"]*' | cut -d '\"' -f 6";
    let ids = world.ok(&format!("printf '{}' > ctx/Dockerfile; {ask}", file.replace('\n', "\\n")));
    let ids: Vec<&str> = ids.lines().collect();
    assert_eq!(ids.len(), 2, "{ids:?}");
    assert_eq!(world.ok(&format!("docker inspect -f '{{{{.Parent}}}}' {}", ids[1])), ids[0]);
    // An argument that nobody takes is named, with a value or without.
    let (code, told) = build(&world, "FROM box\nARG HAVE\nENV A=1\n", "--build-arg HAVE --build-arg NONE --build-arg SOME=1");
    assert!(code == 0 && told.contains("[Warning] One or more build-args [NONE SOME] were not consumed"), "{told}");
    let (code, told) = build(&world, "FROM box\nCOPY --from=0 /a /b\n", "");
    assert!(code == 1 && told.contains("invalid from flag value 0: refers to current build stage"), "{told}");
}

#[test]
fn a_build_uses_the_network_of_a_container() {
    let world = world("true");
    drop(world.ok("docker run -d --name up --hostname first box sh -c 'while :; do echo served | nc -l -p 1234; done'"));
    let file =
        "FROM box\nRUN for i in 1 2 3 4 5 6 7 8 9; do nc 127.0.0.1 1234 > /got; grep served /got && break; done\nRUN grep served /got\n";
    let (code, told) = build(&world, file, "--network container:up");
    assert_eq!(code, 0, "{told}");
    drop(world.ok("docker kill up"));
    let (code, told) = build(&world, file, "--network container:up");
    assert!(code == 1 && told.contains("cannot join network namespace of a non running container"), "{told}");
}
