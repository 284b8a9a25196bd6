//! Builds that fetch: `ADD` of an address, contexts at an address; and the mounts of `RUN`.

use sampan_testkit::World;

/// A server of files with tags and times, which writes down what it is asked.
const SERVER: &str = r#"
import http.server, hashlib, os, socketserver
class Server(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        path = self.path.split('?')[0].lstrip('/')
        name = path if '.git/' in path else os.path.basename(path)
        def say(status, headers, body=b''):
            open('asked', 'a').write('%s %d\n' % (self.path, status))
            self.send_response(status)
            for key, value in headers: self.send_header(key, value)
            self.send_header('Content-Length', str(len(body)))
            self.end_headers()
            self.wfile.write(body)
        if name == 'evil': return say(302, [('Location', 'http://169.254.169.254/latest')])
        if name == 'moved': return say(302, [('Location', '/files/plain')])
        if not os.path.exists('served/' + name): return say(404, [], b'none')
        body = open('served/' + name, 'rb').read()
        tag = '"%s"' % hashlib.md5(body).hexdigest()
        if self.headers.get('If-None-Match') == tag: return say(304, [('ETag', tag)])
        say(200, [('ETag', tag), ('Last-Modified', 'Sat, 03 Feb 2001 00:00:00 GMT')], body)
    def log_message(self, *words): pass
# Without a look for the machine's own name.
server = socketserver.ThreadingTCPServer(('127.0.0.1', 80), Server)
open('listens', 'w').close()
server.serve_forever()
"#;

fn world() -> World {
    let world = World::with_docker();
    std::fs::write(world.folder().join("work/server.py"), SERVER).expect("the world has a folder");
    drop(
        world.ok(
            "docker load -q -i box.tar; mkdir -p served ctx; echo plain > served/plain; echo '#!/bin/sh' > ctx/run; echo one > ctx/one",
        ),
    );
    drop(world.ok(
        "tar czf served/packed.tgz -C ctx one; printf 'FROM box\\nCOPY one /one\\n' > ctx/Dockerfile; tar cf served/context.tar -C ctx .",
    ));
    drop(world.ok("(python3 server.py > server.log 2>&1 &); timeout 20 sh -c 'until test -e listens; do :; done'"));
    world
}

fn build(world: &World, file: &str, flags: &str) -> String {
    std::fs::write(world.folder().join("work/ctx/Dockerfile"), file).expect("the world has a folder");
    let out = world.sh(&format!("sampan build --network none {flags} ctx"));
    assert_eq!(out.code, 0, "{file}: {out:?}\n{}", world.daemon_log());
    out.stderr
}

fn refused(world: &World, file: &str, words: &str) {
    std::fs::write(world.folder().join("work/ctx/Dockerfile"), file).expect("the world has a folder");
    let out = world.sh("sampan build --network none ctx");
    assert!(out.code == 1 && out.stderr.contains(words), "{file}: {out:?}");
}

#[test]
fn what_add_names_by_an_address_is_fetched_once_and_asked_for_again() {
    let world = world();
    let file = "FROM box\nADD http://127.0.0.1/files/plain?x=y /named\nADD http://127.0.0.1/files/packed.tgz http://127.0.0.1/moved /dir/\nADD --chmod=755 --chown=7:8 http://127.0.0.1/files/plain /own\n";
    drop(build(&world, file, "-t x:1"));
    let shown = world.ok("sampan run --rm x:1 sh -c 'stat -c \"%n %a %u:%g %Y\" /named /dir/* /own; cat /named /dir/moved'");
    let time = 981_158_400;
    let wanted =
        format!("/named 600 0:0 {time}\n/dir/moved 600 0:0 {time}\n/dir/packed.tgz 600 0:0 {time}\n/own 755 7:8 {time}\nplain\nplain");
    assert_eq!(shown, wanted);
    drop(world.ok("rm asked"));
    assert!(build(&world, file, "").contains("3 of 3 steps were cached"));
    assert_eq!(world.ok("grep -c ' 304$' asked; grep -c ' 200$' asked || true").lines().next(), Some("4"));
    drop(world.ok("echo other > served/plain"));
    assert!(build(&world, file, "-t x:2 --explain").contains("files of http://127.0.0.1/files/plain?x=y changed"));
    assert_eq!(world.ok("sampan run --rm x:2 cat /named /dir/moved"), "other\nother");
    // The real command line.
    drop(world.ok("DOCKER_BUILDKIT=0 docker build -q --network none ctx"));
    // Without its content, what is known of an address is of no use.
    drop(world.ok("sampan builder prune -af; sampan rmi -f x:1 x:2"));
    drop(build(&world, file, ""));
}

#[test]
fn a_checksum_is_a_key_and_is_checked() {
    let world = world();
    let sum = world.ok("sha256sum served/plain | cut -d' ' -f1");
    let file = format!("FROM box\nADD --checksum=sha256:{sum} http://127.0.0.1/plain /x\n");
    drop(build(&world, &file, "-t sum"));
    drop(world.ok("rm served/plain asked"));
    // Nobody is asked for what is known.
    assert!(build(&world, &file, "").contains("1 of 1 steps were cached"));
    drop(build(&world, &file, "--no-cache"));
    assert!(world.sh("test -e asked").code != 0);
    drop(world.ok("echo other > served/plain"));
    let other = world.ok("sha256sum served/plain | cut -d' ' -f1");
    let zero = "0".repeat(64);
    refused(
        &world,
        &format!("FROM box\nADD --checksum=sha256:{zero} http://127.0.0.1/plain /x\n"),
        &format!("digest mismatch sha256:{other}: sha256:{zero}"),
    );
    refused(&world, "FROM box\nADD http://127.0.0.1/none /x\n", "failed to load cache key: invalid response status 404");
    refused(&world, "FROM box\nADD http://127.0.0.1/evil /x\n", "link-local or a metadata service's");
    refused(&world, "FROM box\nADD http://127.0.0.1:1/x /x\n", "connection refused");
    refused(&world, "FROM box\nADD git@example.test:a.git /x\n", "not supported");
    assert_eq!(world.ok("ls /var/lib/sampan/build/mirror/new /var/lib/sampan/ingest | grep -vc : || true"), "1");
}

#[test]
fn a_context_may_be_at_an_address() {
    let world = world();
    drop(world.ok("sampan build -t c http://127.0.0.1/context.tar"));
    assert_eq!(world.ok("sampan run --rm c cat /one"), "one");
    drop(world.ok("gzip -k served/context.tar; DOCKER_BUILDKIT=0 docker build -q http://127.0.0.1/context.tar.gz"));
    drop(world.ok("printf 'FROM box\\nENV A=b\\n' > served/Dockerfile; sampan build -t d http://127.0.0.1/Dockerfile"));
    assert_eq!(world.ok("sampan run --rm d sh -c 'echo $A'"), "b");
    let post = |remote: &str| {
        world.ok(&format!(
            "curl -s --unix-socket /run/sampan/sampan.sock -X POST 'http://x/v1.45/build?remote={remote}' -w '%{{http_code}}'"
        ))
    };
    assert!(post("http://127.0.0.1/context.tar").contains("Successfully built"));
    assert!(
        post("http://127.0.0.1/none.tar").ends_with("400") && post("http://127.0.0.1/none.tar").contains("invalid response status 404")
    );
    assert!(post("git@example.test:a.git").contains("not supported") && post("x").contains("could not be recognized as URL"));
}

#[test]
fn repositories_are_fetched() {
    let world = world();
    drop(world.ok(
        "export HOME=$PWD; git config --global user.email a@b; git config --global user.name n; git init -q -b main repo && cd repo \
         && mkdir sub && echo first > sub/f && ln -s /etc sub/out && ln -s /etc out && printf 'FROM box\nCOPY sub/f /f\n' > Dockerfile \
         && git add . && git commit -qm one && git tag v1 && echo second > sub/f && git commit -qam two \
         && git clone -q --bare . ../served/x.git && git -C ../served/x.git update-server-info",
    ));
    let url = "http://127.0.0.1/x.git";
    drop(build(&world, &format!("FROM box\nADD {url} /head/\nADD {url}#v1:sub /first/\nADD --keep-git-dir=true {url} /kept/\n"), "-t g"));
    let look = "cat /head/sub/f /first/f; ls -A /head /first; test -d /kept/.git && stat -c %u:%g:%a /head/sub/f";
    assert_eq!(
        world.ok(&format!("sampan run --rm g sh -c '{look}'")),
        "second\nfirst\n/first:\nf\nout\n\n/head:\nDockerfile\nout\nsub\n0:0:644"
    );
    // The commit decides whether a result is used again.
    assert!(build(&world, &format!("FROM box\nADD {url} /head/\n"), "").contains("1 of 1 steps were cached"));
    drop(world.ok("export HOME=$PWD; cd repo; echo third > sub/f; git commit -qam three; git push -q ../served/x.git main; git -C ../served/x.git update-server-info"));
    assert!(build(&world, &format!("FROM box\nADD {url} /head/\n"), "-t h").contains("0 of 1 steps were cached"));
    assert_eq!(world.ok("sampan run --rm h cat /head/sub/f"), "third");
    let commit = world.ok("git -C repo rev-parse HEAD");
    drop(build(&world, &format!("FROM box\nADD --checksum={commit} {url} /head/\n"), ""));
    refused(&world, &format!("FROM box\nADD --checksum={} {url} /x/\n", "0".repeat(40)), "expected checksum to match");
    refused(&world, &format!("FROM box\nADD {url}#nosuch /x/\n"), "nosuch");
    // No folder outside of it, neither by dots nor by links, and no option of git.
    for folder in ["../../../../etc", "out"] {
        refused(&world, &format!("FROM box\nADD {url}#main:{folder} /x/\n"), "subdir not found");
    }
    refused(&world, &format!("FROM box\nADD {url}#--upload-pack=x /x/\n"), "invalid refspec");
    let post = |remote: &str| {
        world.ok(&format!("curl -s --unix-socket /run/sampan/sampan.sock -X POST 'http://x/v1.45/build?t=r&remote={remote}'"))
    };
    assert!(post(&format!("{url}%23v1")).contains("Successfully tagged r:latest"));
    assert_eq!(world.ok("sampan run --rm r cat /f"), "first");
    assert_eq!(world.ok("ls /var/lib/sampan/build/checkouts | wc -l"), "0");
}

#[test]
fn commands_see_mounts() {
    let world = world();
    let file = "FROM box AS other\nRUN mkdir /made; echo of-stage > /made/f\nFROM box\n\
        RUN --mount=type=bind,target=/src cat /src/one > /a; ! touch /src/x\n\
        RUN --mount=type=bind,source=one,target=/file,rw cat /file >> /a; echo dropped > /file\n\
        RUN --mount=type=bind,from=other,source=/made,target=/m cat /m/f >> /a\n\
        RUN --mount=type=tmpfs,target=/t,size=1m echo t > /t/x; cat /t/x >> /a; ! head -c 2000000 /dev/zero > /t/y\n\
        RUN --mount=type=cache,target=/c,id=k,mode=0700,uid=5 --mount=type=cache,target=/d,id=k,sharing=locked --mount=type=cache,target=/e,id=k,sharing=private stat -c '%a %u' /c >> /a; echo kept >> /c/x; test -s /d/x; test -s /e/x\n\
        RUN --mount=type=secret,id=none test ! -e /run/secrets/none\n";
    drop(build(&world, file, "-t m"));
    let shown = world.ok("sampan run --rm m sh -c 'cat /a; ls -A /c /d /e /t /m /src 2>/dev/null | grep -v :'; true");
    assert_eq!(shown.trim_end(), "one\none\nof-stage\nt\n700 5");
    assert_eq!(world.ok("cat ctx/one"), "one");
    // A cache outlives the build and is no part of keys.
    assert!(build(&world, file, "").contains("7 of 7 steps were cached"));
    let again = "FROM box\nRUN --mount=type=cache,target=/c,id=k cat /c/x > /x; echo more >> /c/x\n";
    drop(build(&world, again, "-t again"));
    assert_eq!(world.ok("sampan run --rm again cat /x"), "kept");
    // Two commands never write a locked cache at the same time, in whatever order they name two.
    let both = "FROM box AS a\nRUN --mount=type=cache,target=/p,sharing=locked --mount=type=cache,target=/q,sharing=locked mkdir /p/lock && sync && rmdir /p/lock\n\
        FROM box AS b\nRUN --mount=type=cache,target=/q,sharing=locked --mount=type=cache,target=/p,sharing=locked mkdir /p/lock && sync && rmdir /p/lock\n\
        FROM box\nCOPY --from=a /etc /a\nCOPY --from=b /etc /b\n";
    drop(build(&world, both, "--no-cache"));
    drop(world.ok("sampan builder prune -af"));
    assert_eq!(world.ok("ls -A /var/lib/sampan/build/caches"), "");
    refused(&world, "FROM box\nRUN --mount=type=secret,id=s,required true\n", "not supported");
    refused(&world, "FROM box\nRUN --mount=type=ssh,required true\n", "not supported");
}
