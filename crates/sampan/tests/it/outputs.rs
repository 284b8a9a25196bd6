//! Where a build's result goes, and what a Dockerfile is asked: `-o`, `--push`, `--metadata-file`, `--call`, `--build-context`.
//! Expected texts are those that buildx 0.29 prints for the same command lines.

use sampan_testkit::World;
use sampan_testkit::registry::Registry;

/// A context with two stages, in two layers that take away something.
const FILE: &str = "\
# VERSION is the version
ARG VERSION=1
# base is what all begin with
FROM scratch AS base
ARG VERSION
ADD a /d/a
ADD a /d/b

# builder makes it
FROM base AS builder
# WHO is greeted
ARG WHO=world
ARG NONE
COPY a /${WHO}
FROM box AS last
COPY --from=base /d /out
RUN rm /out/b && ln /out/a /out/again && mkfifo /out/pipe && chown 7:8 /out/a
";

fn world() -> World {
    let world = World::with_docker();
    drop(world.ok("docker load -q -i box.tar; mkdir -p ctx named; echo one > ctx/a; echo other > named/a; echo x > named/ignored; echo ignored > named/.dockerignore"));
    std::fs::write(world.folder().join("work/ctx/Dockerfile"), FILE).expect("the world's own folder");
    world
}

#[test]
fn files_of_an_image_go_into_folders_and_archives() {
    let world = world();
    drop(world.ok("mkdir -p out && echo stays > out/mine && sampan build -q -t files --target base -o out ctx"));
    assert_eq!(world.ok("cd out && find . -type f | sort && cat d/a mine"), "./d/a\n./d/b\n./mine\none\nstays");
    // Only files were wanted: nothing is named.
    assert_eq!(world.ok("sampan images -q files | wc -l"), "0");
    // Owners stay in archives, links are links, what was removed is gone.
    let list =
        "sampan build -q -o - ctx | tar tv --numeric-owner | grep out/ | awk '{print $1, $2, $6, $7, $8, $9}' | sed 's/ *$//' | sort -k3";
    assert_eq!(
        world.ok(list),
        "drwxr-xr-x 0/0 out/\n-rw-r--r-- 7/8 out/a\nhrw-r--r-- 7/8 out/again link to out/a\nprw-r--r-- 0/0 out/pipe"
    );
    drop(world.ok("sampan build -q -o type=tar,dest=deep/o.tar ctx && tar tf deep/o.tar | grep -x out/a"));
    drop(
        world.ok(
            "sampan build -q -o all ctx && test -p all/out/pipe && test all/out/a -ef all/out/again && stat -c %u all/out/a | grep -x 0",
        ),
    );
    let told = |line: &str| {
        let out = world.sh(line);
        assert_eq!(out.code, 1, "{line}: {out:?}");
        out.stderr
    };
    assert_eq!(told("sampan build -o type=local ctx").lines().next(), Some("dest is required for local exporter"));
    assert_eq!(
        told("sampan build -o out --iidfile i ctx").lines().next(),
        Some("local and tar exporters are incompatible with image ID file")
    );
    assert_eq!(told("sampan build -o type=nosuch ctx").lines().next(), Some("exporter \"nosuch\" could not be found"));
}

#[test]
fn images_go_into_archives_and_registries() {
    let world = world();
    let _registry = Registry::start(&world, 5000);
    drop(world.ok("sampan build -q -t app:1 -o type=docker,dest=d.tar --target base ctx && sampan rmi -f app:1"));
    assert_eq!(world.ok("sampan load -q -i d.tar"), "Loaded image: app:1");
    assert_eq!(
        world.ok("sampan build -q -t app:1 -o type=oci,dest=- --target base ctx | tar t | cut -d/ -f1 | sort -u"),
        "blobs\nindex.json\noci-layout"
    );
    let name = "127.0.0.1:5000/team/app";
    let pushed = world.sh(&format!("sampan build --push -t {name}:1 -t {name} --metadata-file m.json --iidfile i --target base ctx"));
    assert!(pushed.code == 0 && pushed.stdout.is_empty() && pushed.stderr.contains("1: digest: sha256:"), "{pushed:?}");
    let digest = world.ok(&format!("sampan image inspect -f '{{{{index .RepoDigests 0}}}}' {name}:1 | cut -d@ -f2"));
    let facts: serde_json::Value = serde_json::from_str(&world.ok("cat m.json")).expect("JSON");
    assert_eq!(facts["containerimage.digest"], digest);
    assert_eq!(facts["containerimage.config.digest"], world.ok("cat i"));
    assert_eq!(facts["image.name"], format!("{name}:1,{name}"));
    assert_eq!(world.ok(&format!("sampan rmi -f {name}:1 {name} >/dev/null; sampan pull -q {name}:1")), format!("{name}:1"));
    assert_eq!(world.sh("sampan build --push ctx").stderr.lines().next(), Some("tag is needed when pushing to registry"));
    // The engine's own names where nothing else is asked.
    drop(world.ok("sampan buildx build -q --load -t kept --target base ctx && sampan build -q --builder default -o type=image,name=other:2 --target base ctx"));
    assert_eq!(world.ok("sampan images --format '{{.Repository}}:{{.Tag}}' | grep -E '^(kept|other)' | sort"), "kept:latest\nother:2");
    assert!(world.sh("sampan build --builder nosuch ctx").stderr.contains("no builder \"nosuch\" found"));
}

#[test]
fn a_dockerfile_is_asked_without_being_built() {
    let world = world();
    let asked = |flags: &str| {
        let out = world.sh(&format!("sampan build {flags} ctx"));
        (out.stdout, out.code)
    };
    let targets = "TARGET    DESCRIPTION\nbase      is what all begin with\nbuilder   makes it\nlast (default) \n";
    let (shown, code) = asked("--call targets");
    assert_eq!((shown.split_whitespace().collect::<Vec<_>>(), code), (targets.split_whitespace().collect(), 0));
    let outline = "TARGET:      builder\nDESCRIPTION: makes it\n\nBUILD ARG   VALUE   DESCRIPTION\nVERSION     1       is the version\nWHO         me      is greeted\nNONE                \n\n";
    assert_eq!(asked("--call outline --target builder --build-arg WHO=me"), (outline.into(), 0));
    assert_eq!(asked("--check"), ("Check complete, no warnings found.\n".into(), 0));
    drop(world.ok("sed -i 's/^COPY --from/copy --from/' ctx/Dockerfile"));
    let (shown, code) = asked("--check");
    let head = "Check complete, 1 warning has been found!\n\nWARNING: ConsistentInstructionCasing - https://docs.docker.com/go/dockerfile/rule/consistent-instruction-casing/\nCommand 'copy' should match the case of the command majority (uppercase)\nDockerfile:16\n--------------------\n";
    assert!(code == 1 && shown.starts_with(head) && shown.contains("  16 | >>> copy --from=base /d /out\n"), "{shown}");
    let (shown, code) = asked("--call check,format=json");
    let document: serde_json::Value = serde_json::from_str(&shown).expect("JSON");
    assert_eq!((document["warnings"][0]["ruleName"].as_str(), code), (Some("ConsistentInstructionCasing"), 1));
    let nosuch = world.sh("sampan build --call nosuch ctx");
    assert!(nosuch.code == 1 && nosuch.stderr.contains("unsupported request frontend.nosuch"), "{nosuch:?}");
    // Nothing was built.
    assert_eq!(world.ok("sampan images -aq | wc -l"), "1");
}

#[test]
fn contexts_with_names_stand_for_stages_and_images() {
    let world = world();
    let files = "cat out/d/a 2>/dev/null; cat out/a 2>/dev/null; ls -A out; rm -r out";
    // A stage of the Dockerfile is replaced by a folder, without what its ignore file names.
    let build = |flags: &str, rest: &str| world.ok(&format!("sampan build -q -o out {flags} {rest} && {files}"));
    let folder = build("--build-context base=named", "--target base ctx");
    assert_eq!(folder, "other\n.dockerignore\na");
    let file = "printf 'FROM nosuch AS x\\nFROM scratch\\nCOPY --from=elsewhere:9 /a /a\\n' > ctx/two; ";
    drop(world.ok(file));
    assert_eq!(build("-f ctx/two --build-context elsewhere:9=named", "ctx"), "other\na");
    // An image in place of an image.
    drop(world.ok("sampan build -q -t mine --build-context base=named --target base ctx"));
    assert_eq!(build("-f ctx/two --build-context elsewhere:9=docker-image://mine", "ctx"), "other\na");
    let told = |flags: &str| world.sh(&format!("sampan build {flags} ctx")).stderr.lines().next().unwrap_or_default().to_owned();
    assert_eq!(told("--build-context nosuch"), "invalid context value: nosuch, expected key=value");
    assert_eq!(told("--build-context base=nosuch"), "failed to get build context base: stat nosuch: no such file or directory");
    // One stage runs again, the others are cached.
    drop(world.ok("sampan build -q ctx"));
    let again = world.sh("sampan build --no-cache-filter last ctx").stderr;
    assert!(again.contains("3 of 5 steps were cached"), "{again}");
    assert!(told("--cache-to type=inline").starts_with("not supported: --cache-to ("));
}
