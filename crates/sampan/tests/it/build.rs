//! Builds: our own command line's flags and progress, hostile contexts, ends in the middle.

use sampan_testkit::World;

/// A world with `box:latest` and a context.
fn world() -> World {
    let world = World::with_docker();
    drop(world.ok("docker load -q -i box.tar; mkdir -p ctx/sub; echo one > ctx/one; echo two > ctx/sub/two; ln -s one ctx/link"));
    world
}

#[test]
fn a_build_is_cached_and_says_why_it_is_not() {
    let world = world();
    let file =
        "FROM box AS base\nARG X=1\nRUN echo $X > /x\nFROM box\nENV A=b\nCOPY . /ctx/\nCOPY --from=base /x /y\nRUN cat /y /ctx/one > /z";
    let build = |flags: &str| {
        let out = world.sh(&format!("printf '{}' > ctx/Dockerfile; sampan build --network none {flags} ctx", file.replace('\n', "\\n")));
        assert_eq!(out.code, 0, "{out:?}");
        out.stderr
    };
    let first = build("-t x:1");
    assert!(first.contains("0 of 6 steps were cached; built ") && first.ends_with("named x:1\n"), "{first}");
    let second = build("-t x:1 --explain");
    assert!(second.contains("6 of 6 steps were cached"), "{second}");
    assert_eq!(second.matches(" CACHED\n").count(), 6, "{second}");
    drop(world.ok("echo changed > ctx/one"));
    let third = build("-t x:2 --explain");
    assert!(third.contains("COPY . /ctx/: ran: files of . changed") && third.contains("3 of 6 steps were cached"), "{third}");
    assert_eq!(world.ok("sampan run --rm x:2 cat /z"), "1\nchanged");
    // What the other stage makes stays the same: the steps behind it are not done again.
    let fourth = build("-t x:3 --explain --build-arg X=2");
    assert!(fourth.contains("RUN echo 2 > /x: ran: variable X changed"), "{fourth}");
    assert_eq!(world.ok("sampan run --rm x:3 cat /z"), "2\nchanged");
    assert!(build("--no-cache").contains("0 of 6 steps were cached"));
    // The same content under another time is the same.
    drop(world.ok("touch -d 2001-01-01 ctx/one ctx/sub"));
    assert!(build("--build-arg X=2").contains("6 of 6 steps were cached"));
    assert_eq!(world.ok("ls /var/lib/sampan/ingest /run/sampan/containers | grep -vc : || true"), "1");
    // Steps of builds are neither shown nor pruned as images; the builder lets them go.
    let shown: usize = world.ok("sampan images -q | wc -l").parse().unwrap();
    let all: usize = world.ok("sampan images -aq | wc -l").parse().unwrap();
    assert!(shown < all, "{shown} {all}");
    drop(world.ok("sampan image prune -f; sampan builder prune -af; sampan rmi -f x:1 x:2 x:3; sampan image prune -f"));
    let left = world
        .ok("sampan images -a; sampan image inspect -f '{{.Id}} {{.Parent}} {{.RepoTags}}' $(sampan images -aq); sampan image prune -f");
    assert_eq!(world.ok("sampan images -aq | wc -l"), "1", "{left}");
    assert_eq!(world.ok("ls /var/lib/sampan/layers | wc -l"), "1");
}

#[test]
fn a_wrong_dockerfile_is_shown_at_its_place() {
    let world = world();
    let told = |file: &str| {
        let out = world.sh(&format!("printf '{file}' > ctx/Dockerfile; sampan build ctx"));
        assert_eq!(out.code, 1, "{out:?}");
        out.stderr
    };
    // One that cannot be read, and one that cannot be planned.
    let unread = told("FROM box\\nFOO bar\\n");
    assert!(unread.contains("Dockerfile:2\n") && unread.contains("   2 | >>> FOO bar\n"), "{unread}");
    assert!(unread.contains("unknown instruction: FOO"), "{unread}");
    let unplanned = told("FROM box\\nENV A=1\\nENV B=${A!x}\\n");
    assert!(unplanned.contains("   3 | >>> ENV B=${A!x}\n"), "{unplanned}");
    // Docker's classic client shows none.
    let theirs = world.sh("DOCKER_BUILDKIT=0 docker build ctx");
    assert!(theirs.code == 1 && !theirs.stderr.contains(">>>"), "{theirs:?}");
}

#[test]
fn mounts_flags_and_limits_do_what_they_say() {
    let world = world();
    drop(world.ok("cd ctx && mkdir -p a/b && echo 1 > a/b/f && echo 2 > a/g && for c in bz2 xz; do python3 -c \"import tarfile; tarfile.open('t.$c', 'w:$c').add('a')\"; done"));
    let file = "FROM box\\n\
        RUN --mount=type=bind,target=/ctx cp /ctx/a/g /bound && ! touch /ctx/x\\n\
        RUN --mount=type=cache,target=/c echo kept > /c/n\\n\
        RUN --mount=type=cache,target=/c cp /c/n /cached\\n\
        RUN --mount=type=tmpfs,target=/t echo gone > /t/n\\n\
        COPY --parents ./a/./b/f /p/\\nCOPY --exclude=g a /x/\\nCOPY --chmod=u=rwX,go= a /y/\\nADD t.bz2 /bz/\\nADD t.xz /xz/\\n";
    drop(world.ok(&format!("printf '{file}' > ctx/Dockerfile; sampan build -t x ctx")));
    let look = "cat /bound /cached; find /p /x /y /bz /xz /c /t -type f 2>/dev/null | sort; stat -c %a /y/g /y/b";
    let found = world.ok(&format!("sampan run --rm x sh -c '{look}'"));
    assert_eq!(found, "2\nkept\n/bz/a/b/f\n/bz/a/g\n/p/b/f\n/x/b/f\n/xz/a/b/f\n/xz/a/g\n/y/b/f\n/y/g\n600\n700");
    let limit = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || cat /sys/fs/cgroup/memory.max";
    let limited = world.sh(&format!("printf 'FROM box\\nRUN ulimit -n; {limit}\\n' | sampan build --memory 64m --ulimit nofile=77:77 -"));
    assert!(limited.code == 0 && limited.stderr.contains(" 77\n") && limited.stderr.contains(" 67108864\n"), "{limited:?}");
}

#[test]
fn a_failing_command_is_shown_with_its_end_and_its_place() {
    let world = world();
    drop(world.ok(
        "printf 'FROM box\nRUN i=0; while [ $i -lt 12 ]; do i=$((i+1)); echo line $i; done; \\\\\n  exit 7\nENV A=b\n' > ctx/Dockerfile",
    ));
    let plain = world.sh("sampan build --network none ctx");
    assert_eq!((plain.code, plain.stdout.as_str()), (7, ""), "{plain:?}");
    // Times differ.
    let told = world.ok("sampan build --network none ctx 2>&1 | sed -E 's/(^| )[0-9]+\\.[0-9]{3} /\\1T /' || true");
    let command = "i=0; while [ $i -lt 12 ]; do i=$((i+1)); echo line $i; done;   exit 7";
    let reason = format!("process \"/bin/sh -c {command}\" did not complete successfully: exit code: 7");
    let last: String = (3..=12).map(|line| format!("T line {line}\n")).collect();
    let expected = format!(
        "#2 T line 12\n#2 ERROR: {reason}\n------\n > [2/2] RUN {command}:\n{last}------\nDockerfile:2\n--------------------\n   1 |     FROM box\n   2 | >>> RUN i=0; while [ $i -lt 12 ]; do i=$((i+1)); echo line $i; done; \\\n   3 | >>>   exit 7\n   4 |     ENV A=b\n--------------------\nERROR: failed to build: failed to solve: {reason}"
    );
    assert!(told.ends_with(&expected), "{told}\n\n{expected}");
    let terminal = world.sh("script -qec 'sampan build --network none ctx' /dev/null | tr -d '\\r'");
    assert!(
        terminal.stdout.contains(&format!(" > [2/2] RUN {command}:\n")) && terminal.stdout.contains("   3 | >>>   exit 7\n"),
        "{terminal:?}"
    );
    // A copy that fails has a place too, and nothing that it printed.
    let copy = world.sh("printf 'FROM box\nCOPY nosuch /\n' > ctx/Dockerfile; sampan build ctx");
    assert!(copy.stderr.contains("------\n > [2/2] COPY nosuch /:\n------\nDockerfile:2\n") && copy.code == 1, "{copy:?}");
    // Docker's classic client is told what the classic builder tells.
    let theirs = world.sh("printf 'FROM box\nRUN exit 3\n' > ctx/Dockerfile; DOCKER_BUILDKIT=0 docker build --network none ctx");
    assert!(theirs.code == 3 && theirs.stderr.ends_with("The command '/bin/sh -c exit 3' returned a non-zero code: 3\n"), "{theirs:?}");
}

#[test]
fn images_that_are_offered_serve_as_a_cache() {
    let world = world();
    let file = "FROM box\\nENV A=1\\nRUN echo $A > /a; cat /proc/sys/kernel/random/uuid >> /a\\nCOPY one /one\\nRUN cat /one > /b; cat /proc/sys/kernel/random/uuid >> /b\\nRUN --mount=type=tmpfs,target=/t cat /proc/sys/kernel/random/uuid > /c\\nCMD [\"x\"]\\n";
    drop(world.ok(&format!("printf '{file}' > ctx/Dockerfile; sampan build -q -t o:1 ctx; sampan save -o o.tar o:1")));
    let seen = |tag: &str| world.ok(&format!("sampan run --rm {tag} sh -c 'cat /a /b'"));
    let id = |tag: &str| world.ok(&format!("sampan image inspect -f '{{{{.Id}}}}' {tag}"));
    let (first, first_id) = (seen("o:1"), id("o:1"));
    // The engine forgets all but the image.
    let forget = "sampan rmi -f $(sampan images -q o) >/dev/null 2>&1; sampan builder prune -af >/dev/null; sampan image prune -f > /dev/null; sampan load -q -i o.tar";
    drop(world.ok(&format!("{forget}; touch -d 2011-11-11 ctx/one")));
    drop(world.ok("sampan build -q -t o:own ctx"));
    assert_ne!(seen("o:own"), first, "nothing is left to be used");
    drop(world.ok(forget));
    let told = world.ok("DOCKER_BUILDKIT=0 docker build --cache-from nosuch --cache-from '!!' --cache-from o:1 -t o:2 ctx");
    // All but the command whose mounts the history does not tell, and what follows.
    assert_eq!(told.matches(" ---> Using cache\n").count(), 4, "{told}");
    assert_eq!(seen("o:2"), first);
    // Without that command it is the same image, to the byte.
    drop(world.ok("sed -i /tmpfs/d ctx/Dockerfile; sampan build -q -t o:3 ctx; sampan save -o o.tar o:3"));
    let third = id("o:3");
    assert_ne!(third, first_id);
    drop(world.ok(forget));
    let told = world.ok("sampan build --explain --cache-from o:3 -t o:4 ctx 2>&1");
    assert!(told.contains("cached: o:3 has it") && told.contains("5 of 5 steps were cached"), "{told}");
    assert_eq!(id("o:4"), third);
    // Another file ends it, whatever the history says.
    drop(world.ok(forget));
    let told = world.ok("echo other > ctx/one; DOCKER_BUILDKIT=0 docker build --cache-from o:3 -t o:5 ctx");
    assert_eq!(told.matches(" ---> Using cache\n").count(), 2, "{told}");
    assert!(seen("o:5").contains("\nother\n"));
    assert_eq!(world.ok("sampan images -q --filter dangling=true | wc -l"), "0");
}

#[test]
fn options_of_builds_do_what_dockers_do() {
    let world = world();
    let run = |flags: &str, command: &str| {
        let out = world.sh(&format!(
            "printf 'FROM box\\nRUN {command}\\n' > ctx/Dockerfile; DOCKER_BUILDKIT=0 docker build --no-cache {flags} ctx 2>&1"
        ));
        out.stdout
    };
    for (flags, command, expected) in [
        ("--shm-size 8m", "df /dev/shm | tail -1", " 8192 "),
        ("--ulimit nofile=77:88", "ulimit -Sn; ulimit -Hn", "\n77\n88\n"),
        ("--add-host a:1.2.3.4 --add-host b=1.2.3.5", "cat /etc/hosts", "\n1.2.3.4\ta\n1.2.3.5\tb\n"),
        ("--isolation Default", "echo ran", "\nran\n"),
        ("--compress", "echo ran", "\nran\n"),
        (
            "--memory 64m --memory-swap -1",
            "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null || true",
            "\n67108864\n",
        ),
        ("--cpu-shares 2 --cpuset-cpus 0 --cpuset-mems 0", "grep Cpus_allowed_list /proc/self/status", "list:\t0\n"),
        (
            "--cpu-quota 50000 --cpu-period 100000",
            "cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us /sys/fs/cgroup/cpu.max 2>/dev/null || true",
            "\n50000",
        ),
        ("--memory 1m", "true", "\nMinimum memory limit allowed is 6MB\n"),
        ("--memory 64m --memory-swap 32m", "true", "\nMinimum memoryswap limit should be larger than memory limit, see usage\n"),
        ("--memory-swap 64m", "true", "\nYou should always set the Memory limit when using Memoryswap limit, see usage\n"),
        ("--cpu-quota 500", "true", "\nCPU cfs quota can not be less than 1ms (i.e. 1000)\n"),
        (
            "--cpu-quota 5000 --cpu-period 10",
            "true",
            "\nCPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)\n",
        ),
        ("--security-opt seccomp=unconfined", "true", "Error response from daemon: security options are not supported on linux\n"),
        ("--isolation hyperv", "true", "Error response from daemon: unsupported isolation: \"hyperv\"\n"),
        ("--squash", "true", "\"--squash\" is only supported on a Docker daemon with experimental features enabled\n"),
        ("--cgroup-parent /x", "true", "not supported: cgroupparent"),
    ] {
        let told = run(flags, command);
        assert!(told.contains(expected), "{flags}: {told}");
    }
    // Limits are of no matter where nothing runs.
    drop(world.ok("printf 'FROM box\\nENV A=1\\n' > ctx/Dockerfile; sampan build -q --memory 1m ctx"));
}

#[test]
fn hostile_contexts_are_refused() {
    let world = world();
    let build = |make: &str| {
        world.sh(&format!("python3 - <<'END' | sampan build --network none -t hostile - \nimport tarfile, sys, io\nt = tarfile.open(fileobj=sys.stdout.buffer, mode='w|')\ndef add(name, kind=tarfile.REGTYPE, link='', data=b''):\n    i = tarfile.TarInfo(name); i.type = kind; i.linkname = link; i.size = len(data); i.mode = 0o644\n    t.addfile(i, io.BytesIO(data))\n{make}\nt.close()\nEND"))
    };
    let refused = |make: &str, words: &str| {
        let out = build(make);
        assert!(out.code == 1 && out.stderr.contains(words), "{make}: {out:?}");
    };
    let file = "add('Dockerfile', data=b'FROM box\\nCOPY x /x\\n')";
    // As in the original a path upwards stays in the context.
    for name in ["../x", "a/../../../x", "/x"] {
        assert_eq!(build(&format!("{file}\nadd('{name}', data=b'{name}')")).code, 0, "{name}");
        assert_eq!(world.ok("docker run --rm hostile cat /x"), name);
    }
    refused(&format!("{file}\nadd('x', tarfile.LNKTYPE, '/etc/passwd')"), "outside the build context");
    refused(&format!("{file}\nadd('x', tarfile.CHRTYPE)"), "file not found in build context");
    refused(&format!("{file}\nadd('x', tarfile.SYMTYPE, '../../../../../../etc/shadow')"), "file not found in build context");
    refused(&format!("{file}\nadd('x', tarfile.SYMTYPE, 'x')"), "file not found in build context");
    refused("add('Dockerfile', tarfile.SYMTYPE, '/etc/passwd')", "Cannot locate specified Dockerfile");
    // Cut in the middle.
    let cut = world.sh("tar c -C ctx . | head -c 3000 | sampan build -");
    assert!(cut.code == 1 && cut.stderr.contains("truncated"), "{cut:?}");
    // Links of an image lead nowhere but into itself.
    let links = "printf 'FROM box\\nRUN ln -s /proc/1/root/etc /e; ln -s ../../../../../tmp /t\\nCOPY one /t/copied\\nRUN cat /tmp/copied\\n' > ctx/Dockerfile; sampan build -t l ctx; ls /tmp/copied";
    assert!(world.sh(links).stderr.contains("one"));
    assert!(world.sh("ls /tmp/copied").code != 0);
}

#[test]
fn archives_that_hold_more_than_the_disk_end_early_and_lose_nothing() {
    let mut world = world();
    drop(world.ok("printf 'FROM box\nCOPY one /x\n' > ctx/Dockerfile; sampan build -q -t before ctx"));
    // The engine's disk: 64 MiB. The archives: 1 GB, of one file and of many.
    drop(world.ok("mkdir small"));
    world.kill_daemon();
    drop(world.ok("cp -a /var/lib/sampan/. small/ && mount -t tmpfs -o size=64m small /var/lib/sampan && cp -a small/. /var/lib/sampan/"));
    world.start_daemon();
    let free = "df -k --output=avail /var/lib/sampan | tail -1 | xargs";
    let before: i64 = world.ok(free).parse().unwrap();
    drop(world.ok(
        "python3 - <<'END'\nimport tarfile, io\nclass Zeros:\n    def __init__(self, n): self.n = n\n    def read(self, k=-1):\n        k = self.n if k < 0 else min(k, self.n); self.n -= k; return bytes(k)\n\
         def make(name, files, size):\n    with tarfile.open(name, 'w:gz', compresslevel=1) as t:\n        def add(n, data, s):\n            i = tarfile.TarInfo(n); i.size = s; t.addfile(i, data)\n        f = b'FROM box\\nCOPY f0 /x\\n'; add('Dockerfile', io.BytesIO(f), len(f))\n        for k in range(files):\n            head = str(k).encode().ljust(16); add('f%d' % k, io.BytesIO(head + bytes(size - 16)) if files > 1 else Zeros(size), size)\n\
         make('one.tgz', 1, 1 << 30)\nmake('many.tgz', 1000, 1 << 20)\nEND",
    ));
    for bomb in ["one.tgz", "many.tgz"] {
        let out = world.sh(&format!("sampan build - < {bomb}"));
        assert!(out.code == 1 && out.stderr.contains("the build context unpacks to more than "), "{bomb}: {out:?}");
        let out =
            world.sh(&format!("cp {bomb} ctx/bomb; printf 'FROM box\nADD bomb /b/\n' > ctx/Dockerfile; sampan build ctx; rm ctx/bomb"));
        assert!(out.stderr.contains("ADD failed: the archive unpacks to more than "), "{bomb}: {out:?}");
    }
    drop(world.ok(&format!("timeout 20 sh -c 'until test $({free}) -gt {}; do :; done'", before - 2048)));
    assert_eq!(world.ok("sampan run --rm before cat /x"), "one");
    drop(world.ok("printf 'FROM box\nCOPY one /y\n' > ctx/Dockerfile; sampan build -q -t after ctx"));
    assert_eq!(world.ok("sampan run --rm after cat /y"), "one");
}

#[test]
fn a_client_that_goes_cancels_its_build() {
    let world = world();
    drop(world.ok("printf 'FROM box\\nRUN echo begun; sleep 1000\\n' > ctx/Dockerfile"));
    drop(world.ok("(sampan build --network none ctx > out 2>&1 & echo $! > pid); timeout 20 sh -c 'until grep -q begun out; do :; done'; kill -9 $(cat pid)"));
    drop(world.ok("timeout 20 sh -c 'while pgrep -xf \"sleep 1000\" >/dev/null; do :; done'"));
    drop(world.ok("timeout 20 sh -c 'until test -z \"$(ls /run/sampan/containers)$(ls /var/lib/sampan/ingest)\"; do :; done'"));
    assert_eq!(world.ok("pgrep -c sampan-shim || true"), "0");
}

#[test]
fn a_killed_daemon_leaves_nothing_of_a_build_and_a_retry_succeeds() {
    let mut world = world();
    drop(world.ok("printf 'FROM box\\nRUN echo kept > /kept\\nRUN echo begun; test -e /go || sleep 1000; echo done\\n' > ctx/Dockerfile"));
    drop(world.ok("(sampan build --network none -t k ctx > out 2>&1 &); timeout 20 sh -c 'until grep -q begun out; do :; done'"));
    world.kill_daemon();
    world.start_daemon();
    assert_eq!(world.ok("pgrep -xfc 'sleep 1000' || true"), "0", "the command was ended");
    assert_eq!(world.ok("ls /run/sampan/containers /var/lib/sampan/ingest | grep -vc : || true"), "1");
    let retry = world.sh("sed -i 's/sleep 1000/true/' ctx/Dockerfile; sampan build --network none -t k ctx");
    assert!(retry.code == 0 && retry.stderr.contains("1 of 2 steps were cached"), "{retry:?}");
    assert_eq!(world.ok("sampan run --rm k cat /kept"), "kept");
    assert_eq!(world.ok("sampan save k | tar t | grep -c manifest.json"), "1");
}

#[test]
fn a_folder_is_handed_over_and_only_what_changed_is_read() {
    let world = world();
    drop(world.ok("mkdir -p ctx/node/keep ctx/node/drop; echo k > ctx/node/keep/k; echo d > ctx/node/drop/d; ln -s node/drop/d ctx/away; ln -s /etc/passwd ctx/out"));
    drop(world.ok("printf 'node\\n!node/keep\\nDockerfile\\n.dockerignore\\n' > ctx/.dockerignore; printf 'FROM box\\nCOPY . /c\\n' > ctx/Dockerfile; chmod 751 ctx/sub; touch -d 2001-02-03 ctx/one"));
    let list = "sampan run --rm IMG sh -c 'cd /c; find . -exec stat -c \"%n %a %u %s %Y\" {} + | grep -v \"^\\./node\" | sort; cat node/keep/k sub/two; ls node'";
    drop(world.ok("sampan build -q -t folder ctx; tar c --owner 0 --group 0 --exclude Dockerfile --exclude .dockerignore --exclude node/drop -C ctx . > part.tar; cp ctx/Dockerfile .; tar rf part.tar Dockerfile; echo Dockerfile > .dockerignore; tar rf part.tar .dockerignore; printf 'Dockerfile\\n.dockerignore\\n' > .dockerignore; tar rf part.tar .dockerignore; sampan build -q -t sent - < part.tar"));
    let (folder, sent) = (world.ok(&list.replace("IMG", "folder")), world.ok(&list.replace("IMG", "sent")));
    assert_eq!(folder, sent);
    assert!(folder.contains("./one 644 0 4 981158400") && folder.contains("./sub 751 0"), "{folder}");
    // Links that lead out, or to what is ignored, lead nowhere.
    for name in ["away", "out", "node/drop/d", ".dockerignore"] {
        let out = world.sh(&format!("printf 'FROM box\\nCOPY {name} /x\\n' > ctx/Dockerfile; sampan build ctx"));
        assert!(out.code == 1 && out.stderr.contains("file not found in build context"), "{name}: {out:?}");
    }
    // A file of the same size, name and time is another one.
    drop(world.ok("printf 'FROM box\\nCOPY one /x\\n' > ctx/Dockerfile; sampan build -q -t a ctx; echo eno > ctx/one; touch -d 2001-02-03 ctx/one; sampan build -q -t b ctx"));
    assert_eq!(world.ok("sampan run --rm b cat /x"), "eno");
    // A token is of no use without a folder.
    let denied = world.sh("curl -s --unix-socket /run/sampan/sampan.sock -X POST 'http://x/build?sampancontext=0123'");
    assert!(denied.stdout.contains("not handed over") || denied.code == 127, "{denied:?}");
}

#[test]
fn files_that_did_not_change_are_shared_between_results_of_a_step() {
    let world = world();
    drop(world.ok("mkdir ctx/big; for n in 1 2 3; do echo $n > ctx/big/$n; done; chmod 640 ctx/big/3; touch -d 2020-02-02 ctx/big/*; echo Dockerfile > ctx/.dockerignore"));
    let file = "FROM box\\nRUN mkdir -p /old/below && echo kept > /old/below/kept && echo lower > /old/1 && ln -s /old /way && chmod 711 /old && touch -d 2001-01-01 /old/below\\nCOPY big /way/\\nCOPY --chown=7:8 big /way/below/fresh/\\n";
    let build = |tag: &str| drop(world.ok(&format!("printf '{file}' > ctx/Dockerfile; sampan build -q --network none -t s:{tag} ctx")));
    let look = "cd /old; stat -c '%n %a %u:%g %s %Y' 1 2 3 below/fresh/1 below/fresh/3; stat -c '%n %a' . below; cat 1 below/kept below/fresh/2; test -L /way && ls below";
    let seen = |tag: &str| world.ok(&format!("sampan run --rm s:{tag} sh -c \"{look}\""));
    build("1");
    let first = seen("1");
    assert!(
        first.starts_with("1 644 0:0 2 1580601600\n2 644 0:0 2 1580601600\n3 640 0:0 2 1580601600\nbelow/fresh/1 644 7:8 2"),
        "{first}"
    );
    assert!(first.ends_with(". 711\nbelow 755\n1\nkept\n2\nfresh\nkept"), "{first}");
    // A changed content under the same name, size, mode and time; a changed mode; a file that is new.
    drop(world.ok("echo 9 > ctx/big/1; touch -d 2020-02-02 ctx/big/1; chmod 600 ctx/big/3; echo new > ctx/big/4"));
    build("2");
    let second = seen("2");
    assert!(second.contains("\n3 600 0:0") && second.ends_with("\n9\nkept\n2\nfresh\nkept"), "{second}");
    let links = "sampan run --rm s:2 stat -c %h /old/1 /old/2 /old/3 /old/4 /old/below/fresh/2 | xargs";
    assert_eq!(world.ok(links), "1 2 1 1 2");
    // Whatever goes of one, the other stays; and what is saved is whole.
    drop(world.ok("sampan rmi -f s:1; sampan builder prune -af; sampan image prune -f"));
    assert_eq!(seen("2"), second);
    drop(world.ok("sampan save -o s.tar s:2 && sampan rmi -f s:2 && sampan load -q -i s.tar"));
    assert_eq!(seen("2"), second);
}

#[test]
fn a_folder_is_read_with_the_rights_of_who_hands_it_over() {
    let world = world();
    let modes = world.ok("stat -c '%a %u %g' /run/sampan/sampan.sock /run/sampan/sampan.sock.files | sort -u | wc -l");
    assert_eq!(modes, "1", "whoever may use the engine may hand over");
    drop(world.ok(
        "chgrp 4000 /run/sampan/sampan.sock /run/sampan/sampan.sock.files; chmod 755 .. .; mkdir ctx/shut; echo hidden > ctx/shut/x; \
         for n in own group secret; do echo $n > ctx/$n; done; printf 'FROM box\\nRUN echo secret instructions\\n' > ctx/Hidden; \
         chown -R 4000:4000 ctx; chmod 600 ctx/own ctx/secret ctx/Hidden; chmod 640 ctx/group; chown 0 ctx/secret ctx/group ctx/Hidden; chown 0 ctx/shut; chmod 700 ctx/shut",
    ));
    let build = |user: u32, file: &str, flags: &str| {
        drop(world.ok(&format!("printf 'FROM box\\n{file}\\n' > ctx/Dockerfile")));
        let mut command = world.command_as(user, "sh");
        command.args(["-c", &format!("cd '{}/work' && sampan build -t t --network none {flags} ctx 2>&1", world.folder().display())]);
        let out = command.output().expect("a shell");
        (out.status.success(), String::from_utf8_lossy(&out.stdout).into_owned())
    };
    let (done, told) = build(4000, "COPY own group /x/", "");
    assert!(done, "{told}");
    assert_eq!(world.ok("ls -d /var/lib/sampan/build/indexes | wc -l"), "1", "it was handed over: {told}");
    assert_eq!(world.ok("sampan run --rm t cat /x/own /x/group"), "own\ngroup");
    let refused = |file: &str, flags: &str| {
        let (done, told) = build(4000, file, flags);
        assert!(!done && told.contains("ermission denied") && !told.contains("instructions"), "{file}: {told}");
    };
    let all = |when: &str| {
        for file in ["COPY secret /", "ADD . /all/", "COPY shut/x /", "COPY shut /s/", "RUN --mount=type=bind,target=/c cat /c/secret"] {
            eprintln!("{when}: {file}");
            refused(file, "");
        }
        refused("", "-f ctx/Hidden");
    };
    all("nobody read them");
    for file in ["COPY secret /", "ADD . /all/", "COPY shut/x /"] {
        let (done, told) = build(0, file, "");
        assert!(done, "root reads all: {told}");
    }
    all("root read them, and their hashes and layers are known");
    // What was readable and is no more.
    drop(world.ok("chmod 600 ctx/group"));
    refused("COPY own group /x/", "");
    // What is ignored is not looked at.
    drop(world.ok("printf 'secret\\nshut\\nHidden\\ngroup\\n' > ctx/.dockerignore"));
    let (done, told) = build(4000, "COPY . /y/", "");
    assert!(done, "{told}");
}

#[test]
fn what_a_later_build_writes_over_shared_files_leaves_the_earlier_image_alone() {
    let world = world();
    drop(
        world.ok("mkdir -p ctx/a ctx/b t; echo Dockerfile > ctx/.dockerignore; echo one > ctx/a/f; echo two > ctx/b/f; echo plain > ctx/x"),
    );
    drop(world.ok("echo packed > t/x; ln t/x t/y; chmod 600 t/x; tar -cf ctx/t.tar -C t --owner=5 --group=5 y x; touch -d 2020-02-02 ctx/a/* ctx/b/* ctx/x"));
    drop(world.ok("printf 'FROM box\\nCOPY a/ b/ /d/\\nADD x t.tar /e/\\n' > ctx/Dockerfile"));
    let build = |tag: &str| drop(world.ok(&format!("sampan build -q --network none -t {tag} ctx")));
    let look = |tag: &str| world.ok(&format!("sampan run --rm {tag} sh -c 'cat /d/f /e/x /e/y; stat -c \"%n %a %u\" /d/f /e/x /e/y'"));
    build("first:1");
    let first = look("first:1");
    // Now the first source has what the second one had: it is shared, and written over in the same step.
    drop(world.ok("echo two > ctx/a/f; echo ten > ctx/b/f; touch -d 2020-02-02 ctx/a/f ctx/b/f; chmod 755 ctx/b/f; echo other >> t/x; tar -cf ctx/t.tar -C t --owner=6 --group=6 y x"));
    build("second:1");
    assert!(look("second:1").starts_with("ten\npacked\nother\n"), "{}", look("second:1"));
    assert_eq!(look("first:1"), first);
    // And a container that writes into a shared file changes its own only.
    drop(world.ok("sampan run --rm second:1 sh -c 'echo mine > /d/f; chmod 777 /e/x'"));
    assert_eq!(look("first:1"), first);
}
