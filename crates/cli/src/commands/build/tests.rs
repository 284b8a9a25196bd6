//! Contexts from directories to what an engine gets, with an engine that only takes notes.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::mpsc;

use sampan_archive::tar::{Kind, Reader};

use super::context;
use super::source::{Local, Place};
use crate::app::Environment;

/// A small tree with one of everything.
fn tree() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let put = |name: &str, text: &str, mode: u32| {
        let path = root.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    put("Dockerfile", "FROM scratch\n", 0o644);
    put(".dockerignore", "sub/deep\n*.log\nDockerfile\n.dockerignore\n!sub/deep/keep\n", 0o644);
    put("a.txt", "hi\n", 0o640);
    put("x.log", "no\n", 0o644);
    put("sub/f", "x\n", 0o4755);
    put("sub/deep/g", "y\n", 0o644);
    put("sub/deep/keep", "k\n", 0o644);
    std::fs::create_dir(root.join("empty")).unwrap();
    std::fs::set_permissions(root.join("empty"), std::fs::Permissions::from_mode(0o1777)).unwrap();
    std::fs::set_permissions(root.join("sub"), std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::hard_link(root.join("a.txt"), root.join("hard")).unwrap();
    symlink("nowhere", root.join("ln")).unwrap();
    let pipe = rustix::fs::mknodat(rustix::fs::CWD, root.join("pipe"), rustix::fs::FileType::Fifo, 0o600.into(), 0);
    pipe.unwrap();
    drop(UnixListener::bind(root.join("socket")).unwrap());
    folder
}

/// `kind mode path -> link (size)` of each entry.
fn entries(archive: &[u8]) -> Vec<String> {
    let mut reader = Reader::new(archive);
    let mut out = Vec::new();
    while let Some(header) = reader.next_entry().unwrap() {
        assert_eq!((header.uid, header.gid, header.mtime.1), (0, 0, 0));
        let kind = match header.kind {
            Kind::File => 'f',
            Kind::Directory => 'd',
            Kind::Symlink => 'l',
            Kind::Hardlink => 'h',
            Kind::Fifo => 'p',
            other => panic!("{other:?}"),
        };
        let link = if header.link.is_empty() { String::new() } else { format!(" -> {}", String::from_utf8_lossy(&header.link)) };
        out.push(format!("{kind} {:o} {}{link} ({})", header.mode, String::from_utf8_lossy(&header.path), header.size));
    }
    out
}

fn sent(context: &Path, dockerfile: &str, stdin: Option<&str>) -> (String, Vec<String>, Vec<u8>) {
    let local = Local::find(context, dockerfile, stdin.map(|text| text.as_bytes().to_vec())).unwrap();
    let (name, selection) = local.sent("RANDOM").unwrap();
    let mut archive = Vec::new();
    context::write(&selection, &mut archive).unwrap();
    (name, entries(&archive), archive)
}

#[test]
fn a_directory_is_sent_as_dockers_client_sends_it() {
    let folder = tree();
    let (name, entries, _) = sent(folder.path(), "", None);
    assert_eq!(name, "Dockerfile");
    let expected = [
        "f 644 .dockerignore (55)",
        "f 644 Dockerfile (13)",
        "f 640 a.txt (3)",
        "d 1777 empty (0)",
        "h 640 hard -> a.txt (0)",
        "l 777 ln -> nowhere (0)",
        "p 600 pipe (0)",
        "d 755 sub (0)",
        "f 644 sub/deep/keep (2)",
        "f 4755 sub/f (2)",
    ];
    assert_eq!(entries, expected);
}

#[test]
fn a_dockerfile_from_elsewhere_gets_a_name_that_is_hidden() {
    let folder = tree();
    let (name, entries, archive) = sent(folder.path(), "-", Some("FROM x\n"));
    assert_eq!(name, ".dockerfile.RANDOM");
    assert_eq!(entries[0], "f 644 .dockerignore (75)");
    assert_eq!(entries.last().unwrap(), "f 600 .dockerfile.RANDOM (7)");
    let text = String::from_utf8_lossy(&archive);
    assert!(text.contains("!sub/deep/keep\n\n.dockerfile.RANDOM\n"));
    // Without an ignore file one is made that hides itself too.
    std::fs::remove_file(folder.path().join(".dockerignore")).unwrap();
    let (_, entries, archive) = sent(folder.path(), "-", Some("FROM x\n"));
    assert_eq!(entries[entries.len() - 2..], ["f 600 .dockerignore (33)", "f 600 .dockerfile.RANDOM (7)"]);
    assert!(String::from_utf8_lossy(&archive).contains(".dockerignore\n.dockerfile.RANDOM\n"));
}

#[test]
fn a_dockerfiles_own_ignore_file_wins() {
    let folder = tree();
    std::fs::write(folder.path().join("Dockerfile.dockerignore"), "*\n!a.txt\n").unwrap();
    let (name, entries, _) = sent(folder.path(), "", None);
    assert_eq!(name, ".dockerfile.RANDOM");
    assert_eq!(entries, ["f 640 a.txt (3)", "f 600 .dockerignore (33)", "f 600 .dockerfile.RANDOM (13)"]);
    // One that hides neither leaves all as it is.
    std::fs::write(folder.path().join("Dockerfile.dockerignore"), "sub\nempty\n").unwrap();
    let (name, entries, _) = sent(folder.path(), "", None);
    assert_eq!(name, "Dockerfile");
    assert!(entries.contains(&"f 644 x.log (3)".to_owned()) && !entries.iter().any(|entry| entry.contains("sub/")));
}

#[test]
fn archives_get_a_dockerfile_put_in() {
    let archive = context::small(&[("a", b"1"), (".dockerignore", b"a")]).unwrap();
    let added = context::Added { name: ".dockerfile.R".into(), content: b"FROM x".to_vec() };
    let mut out = Vec::new();
    context::rewrite(archive.as_slice(), &added, &mut out).unwrap();
    assert_eq!(entries(&out), ["f 644 a (1)", "f 644 .dockerignore (16)", "f 600 .dockerfile.R (6)"]);
    assert!(context::rewrite(&b"no archive at all"[..], &added, &mut Vec::new()).is_err());
}

#[test]
fn mistakes_are_told_in_dockers_words() {
    let folder = tree();
    let root = folder.path().canonicalize().unwrap();
    std::fs::create_dir(root.join("bad")).unwrap();
    std::fs::write(root.join("bad/Dockerfile"), "FROM x\n").unwrap();
    symlink("loop", root.join("loop")).unwrap();
    let find = |context: &str, dockerfile: &str| {
        let file = if dockerfile.is_empty() { String::new() } else { root.join(dockerfile).display().to_string() };
        let local = Local::find(&root.join(context), &file, None).and_then(|local| local.sent("R"));
        local.map(|_| ()).map_err(|error| error.text.replace(&root.display().to_string(), "ROOT"))
    };
    let dockerfile = |what: &str| Err(format!("unable to prepare context: unable to evaluate symlinks in Dockerfile path: {what}"));
    assert_eq!(find("empty", ""), dockerfile("lstat ROOT/empty/Dockerfile: no such file or directory"));
    assert_eq!(find("empty", "no/where"), dockerfile("lstat ROOT/no: no such file or directory"));
    assert_eq!(find("empty", "a.txt/x"), dockerfile("not a directory"));
    assert_eq!(find("empty", "loop"), dockerfile("EvalSymlinks: too many links"));
    assert_eq!(find("a.txt", ""), Err("unable to prepare context: context must be a directory: ROOT/a.txt".into()));
    assert_eq!(find("empty", "sub"), Err("read ROOT/sub: is a directory".into()));
    for (text, wrong) in [("!\n", "illegal exclusion pattern: \"!\""), ("a[\n", "syntax error in pattern")] {
        std::fs::write(root.join("bad/.dockerignore"), text).unwrap();
        assert_eq!(find("bad", ""), Err(format!("checking context: {wrong}")));
    }
    std::fs::remove_file(root.join("bad/.dockerignore")).unwrap();
    std::fs::create_dir(root.join("bad/.dockerignore")).unwrap();
    assert_eq!(find("bad", ""), Err("error reading .dockerignore: read ROOT/bad/.dockerignore: is a directory".into()));

    let place = |context: &str, file: &str| Place::of(context, file).map_err(|error| error.text);
    assert_eq!(place("-", "-"), Err("invalid argument: can't use stdin for both build context and dockerfile".into()));
    assert_eq!(place("no such", ""), Err("unable to prepare context: path \"no such\" not found".into()));
    assert_eq!(place("", ""), Err("unable to prepare context: path \"\" not found".into()));
    assert_eq!(place(&root.display().to_string(), ""), Ok(Place::Directory));
    for (text, expected) in [
        ("git@host:x", Place::Git),
        ("github.com/a/b", Place::Git),
        ("https://h/x.git#v1:sub", Place::Git),
        ("https://h/x.tar.gz", Place::Http),
        ("-", Place::Stdin),
    ] {
        assert_eq!(place(text, ""), Ok(expected), "{text}");
    }
}

#[test]
fn a_tree_that_is_too_deep_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("Dockerfile"), "FROM x\n").unwrap();
    let mut path = folder.path().to_owned();
    for _ in 0..520 {
        path.push("d");
        std::fs::create_dir(&path).unwrap();
    }
    let (_, selection) = Local::find(folder.path(), "", None).unwrap().sent("R").unwrap();
    assert!(context::write(&selection, Vec::new()).unwrap_err().text.contains("directories in one another"));
}

/// What an engine was told: the target of the build's request and its body.
type Told = (String, Vec<u8>);

/// An engine that answers one build. With `ours` it says so.
fn engine(folder: &Path, ours: bool, answer: &'static str) -> mpsc::Receiver<Told> {
    let listener = UnixListener::bind(folder.join("engine.sock")).unwrap();
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(stream) = stream else { return };
            if serve(&stream, ours, answer, &tell) {
                return;
            }
        }
    });
    told
}

fn serve(stream: &UnixStream, ours: bool, answer: &str, tell: &mpsc::Sender<Told>) -> bool {
    let mut reader = BufReader::new(stream);
    let mut writer = stream;
    loop {
        let mut head = String::new();
        while reader.read_line(&mut head).unwrap() > 2 {}
        let Some(target) = head.split(' ').nth(1).map(str::to_owned) else { return false };
        let lower = head.to_lowercase();
        let mut body = Vec::new();
        if lower.contains("transfer-encoding: chunked") {
            loop {
                let mut size = String::new();
                reader.read_line(&mut size).unwrap();
                let size = usize::from_str_radix(size.trim(), 16).unwrap();
                let mut piece = vec![0; size + 2];
                reader.read_exact(&mut piece).unwrap();
                body.extend_from_slice(&piece[..size]);
                if size == 0 {
                    break;
                }
            }
        } else if let Some((_, length)) = lower.split_once("content-length: ") {
            body = vec![0; length.lines().next().unwrap().trim().parse().unwrap()];
            reader.read_exact(&mut body).unwrap();
        }
        let server = if ours { "Docker/28.5.2+sampan (linux)" } else { "Docker/28.5.2 (linux)" };
        let ping = target.ends_with("/_ping");
        let text = if ping { "" } else { answer };
        let length = text.len();
        write!(writer, "HTTP/1.1 200 OK\r\nApi-Version: 1.51\r\nServer: {server}\r\nContent-Length: {length}\r\n\r\n{text}").unwrap();
        if !ping {
            tell.send((target, body)).unwrap();
            return true;
        }
    }
}

fn run(folder: &Path, words: &[&str]) -> u8 {
    let host = format!("unix://{}", folder.join("engine.sock").display());
    let environment = Environment { program: "docker".into(), host: Some(host), home: folder.to_owned(), ..Environment::default() };
    let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
    crate::run(environment, &words)
}

const ANSWER: &str = "{\"aux\":{\"ID\":\"sha256:1\"}}\r\n{\"stream\":\"sha256:1\\n\"}\r\n";

#[test]
fn another_engine_gets_an_archive() {
    let (folder, context) = (tempfile::tempdir().unwrap(), tree());
    let told = engine(folder.path(), false, ANSWER);
    let iidfile = folder.path().join("iid");
    let words = ["build", "-q", "-t", "a:1", "--iidfile", iidfile.to_str().unwrap(), context.path().to_str().unwrap()];
    assert_eq!(run(folder.path(), &words), 0);
    let (target, body) = told.recv().unwrap();
    assert_eq!(target, "/v1.51/build?version=1&dockerfile=Dockerfile&t=a%3A1&q=1");
    assert_eq!(entries(&body).len(), 10);
    assert_eq!(std::fs::read_to_string(iidfile).unwrap(), "sha256:1\n");
}

#[test]
fn our_engine_gets_the_directory_or_an_archive_where_it_does_not_take_it() {
    let (folder, context) = (tempfile::tempdir().unwrap(), tree());
    let told = engine(folder.path(), true, ANSWER);
    let handed = sampan_sys::sock::listen(&folder.path().join("engine.sock.files")).unwrap();
    let taken = std::thread::spawn(move || {
        use std::os::fd::AsFd as _;
        rustix::event::poll(&mut [rustix::event::PollFd::new(&handed, rustix::event::PollFlags::IN)], None).unwrap();
        let client = sampan_sys::sock::accept(handed.as_fd()).unwrap().unwrap();
        drop(sampan_sys::sock::receive(client.as_fd(), true).unwrap());
        sampan_sys::sock::send(client.as_fd(), b"0123", &[]).unwrap();
        assert!(sampan_sys::sock::receive(client.as_fd(), true).unwrap().0.is_empty(), "the token is taken back at the end");
    });
    let context = context.path().to_str().unwrap().to_owned();
    assert_eq!(run(folder.path(), &["build", "-q", &context]), 0);
    taken.join().unwrap();
    assert_eq!(told.recv().unwrap(), ("/v1.51/build?version=1&dockerfile=Dockerfile&q=1&sampan=1&sampancontext=0123".into(), Vec::new()));
    // A Dockerfile from elsewhere comes with an archive, and so does all where the socket is gone.
    std::fs::write(folder.path().join("Other"), "FROM x\n").unwrap();
    let other = folder.path().join("Other").display().to_string();
    for words in [&["build", "-q", "-f", &other, &context][..], &["build", "-q", &context]] {
        std::fs::remove_file(folder.path().join("engine.sock")).unwrap();
        let told = engine(folder.path(), true, ANSWER);
        assert_eq!(run(folder.path(), words), 0);
        let (target, body) = told.recv().unwrap();
        assert!(!target.contains("sampancontext") && !entries(&body).is_empty(), "{target}");
        drop(std::fs::remove_file(folder.path().join("engine.sock.files")));
    }
}

#[test]
fn a_build_that_fails_has_its_exit_code() {
    let (folder, context) = (tempfile::tempdir().unwrap(), tree());
    let told = engine(folder.path(), false, "{\"errorDetail\":{\"code\":3,\"message\":\"m\"},\"error\":\"m\"}\r\n");
    assert_eq!(run(folder.path(), &["build", context.path().to_str().unwrap()]), 3);
    drop(told);
    assert_eq!(run(folder.path(), &["build", "--secret", "id=x", "."]), 1);
    assert_eq!(run(folder.path(), &["build", "--progress", "what", "."]), 1);
}
