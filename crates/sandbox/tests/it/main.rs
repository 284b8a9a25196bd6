//! Sandboxes on the real kernel: processes, limits, freezing, lost shims, a daemon that comes back.
//!
//! Each test has roots, sockets and a parent cgroup of its own and no network engine. Needs root and Debian's static busybox.
#![allow(clippy::unwrap_used, reason = "test code")]

use std::io::Read as _;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::Receiver;
use std::time::Duration;

use sampan_runtime::cgroups::Limits;
use sampan_runtime::options::Options;
use sampan_runtime::{Host, caps};
use sampan_sandbox::{Adopted, Network, Running, SandboxConfig, SandboxEvent, Sandboxes, StartError, StartRequest, Streams};
use sampan_sys::process;

/// A daemon's place: removed with its cgroups when the test is over.
struct Place {
    folder: tempfile::TempDir,
    parent: String,
}

static NEXT: AtomicU32 = AtomicU32::new(0);

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["data/bin", "run", "image/bin", "image/proc", "image/sys", "image/dev", "image/etc", "image/tmp"] {
            std::fs::create_dir_all(folder.path().join(name)).unwrap();
        }
        let image = folder.path().join("image");
        std::fs::copy("/usr/bin/busybox", image.join("bin/busybox")).expect("Debian's busybox-static");
        for name in ["sh", "cat", "sleep", "true", "id", "env", "dd"] {
            std::os::unix::fs::symlink("busybox", image.join("bin").join(name)).unwrap();
        }
        std::fs::write(image.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\nuser:x:1000:1001::/home/user:/bin/sh\n").unwrap();
        std::fs::write(image.join("etc/group"), "root:x:0:\nusers:x:1001:\nextra:x:77:user\n").unwrap();
        // Two levels: what may be limited is handed down along the whole path.
        let parent = format!("/sampan-test-{}-{}/engine", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        Self { folder, parent }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn daemon(&self) -> (Sandboxes, Receiver<SandboxEvent>) {
        let config = SandboxConfig { data_root: self.path("data"), exec_root: self.path("run"), cgroup_parent: self.parent.clone() };
        Sandboxes::open(config, None).expect("root, and cgroups that can be written")
    }

    fn request(&self, id: &str, words: &[&str]) -> StartRequest {
        let folder = self.path("data").join(id);
        for name in ["upper", "work"] {
            std::fs::create_dir_all(folder.join(name)).unwrap();
        }
        let arguments = words.iter().map(|word| (*word).to_owned()).collect();
        let capabilities = caps::choose(&[], &[], false, caps::ALL).unwrap();
        let options = Options { arguments, capabilities, hostname: id.to_owned(), cwd: "/".into(), ..Options::default() };
        StartRequest {
            files_of: None,
            id: id.to_owned(),
            name: id.to_owned(),
            lowers: vec![self.path("image")],
            folder,
            options,
            network: Network::None,
            joins: Default::default(),
            extra_hosts: Vec::new(),
            dns: Default::default(),
            own_files: Vec::new(),
            attachments: Vec::new(),
            user: String::new(),
            groups: Vec::new(),
            init: false,
            passing: false,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let host = Host::detect();
        sampan_runtime::cgroups::remove(&host, self.parent.trim_end_matches("/engine"));
    }
}

/// A client of all output, and what it hears until the end.
fn client() -> ((OwnedFd, Streams), UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    ((theirs.into(), Streams { stdin: false, stdout: true, stderr: true }), ours)
}

/// The text in Docker's frames: eight bytes of head, the last four its length.
fn text_of(mut socket: UnixStream) -> String {
    socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let mut bytes = Vec::new();
    socket.read_to_end(&mut bytes).unwrap();
    let mut text = Vec::new();
    let mut rest = &bytes[..];
    while let Some((head, body)) = rest.split_first_chunk::<8>() {
        let length = u32::from_be_bytes(head[4..].try_into().unwrap()) as usize;
        text.extend_from_slice(&body[..length]);
        rest = &body[length..];
    }
    String::from_utf8(text).unwrap()
}

fn next(events: &Receiver<SandboxEvent>) -> SandboxEvent {
    events.recv_timeout(Duration::from_secs(60)).expect("an event")
}

/// The code in which process 1 of a container ends.
fn end(events: &Receiver<SandboxEvent>) -> i32 {
    loop {
        match next(events) {
            SandboxEvent::Exited { exec, code, .. } if exec.is_empty() => return code,
            SandboxEvent::Exited { .. } => {}
            lost @ SandboxEvent::Lost { .. } => panic!("{lost:?}"),
        }
    }
}

/// Runs a container to its end: code and output.
fn run(place: &Place, id: &str, change: impl FnOnce(&mut StartRequest), words: &[&str]) -> (i32, String) {
    let (sandboxes, events) = place.daemon();
    let (attachment, socket) = client();
    let mut request = place.request(id, words);
    request.attachments.push(attachment);
    change(&mut request);
    sandboxes.start(request).expect("a start");
    let code = end(&events);
    let text = text_of(socket);
    sandboxes.cleanup(id);
    (code, text)
}

/// A container that sleeps until it is killed.
fn sleeper(place: &Place, sandboxes: &Sandboxes, id: &str) -> Running {
    sandboxes.start(place.request(id, &["sleep", "1000"])).expect("a start")
}

fn is_gone(path: &Path) -> bool {
    !path.exists()
}

#[test]
fn a_process_runs_confined_and_leaves_nothing_but_its_record() {
    let place = Place::new();
    let script = "id -u; cat /proc/self/status | while read key value; do case $key in Seccomp:|NoNewPrivs:|CapEff:) echo $key $value;; esac; done; exit 7";
    let (code, text) = run(&place, "plain", |_| {}, &["sh", "-c", script]);
    assert_eq!((code, text.as_str()), (7, "0\nCapEff: 00000000a80425fb\nNoNewPrivs: 0\nSeccomp: 2\n"));
    assert!(place.path("data/plain/exit").is_file());
    assert!(is_gone(&place.path("run/containers/plain")));
    let host = Host::detect();
    assert!(is_gone(&host.cgroup_directory("memory", &format!("{}/plain", place.parent))));
}

#[test]
fn a_user_of_the_image_has_its_groups_home_and_no_powers() {
    let place = Place::new();
    let by_name = |request: &mut StartRequest| {
        request.user = "user".into();
        request.options.environment = vec!["A=b".into()];
    };
    let (code, text) = run(&place, "user", by_name, &["sh", "-c", "id -u; id -g; echo $HOME $A; cat /etc/hostname"]);
    assert_eq!((code, text.as_str()), (0, "1000\n1001\n/home/user b\nuser\n"));
}

#[test]
fn starts_that_fail_say_what_docker_says_and_leave_nothing() {
    let place = Place::new();
    let (sandboxes, _events) = place.daemon();
    let fail = |id: &str, user: &str, words: &[&str]| -> StartError {
        let mut request = place.request(id, words);
        request.user = user.into();
        let error = sandboxes.start(request).unwrap_err();
        assert!(is_gone(&place.path("run/containers").join(id)), "{error}");
        error
    };
    let start = "failed to create task for container: failed to create shim task: OCI runtime create failed: runc create failed: unable to start container process: error during container init: ";
    let missing = fail("f1", "", &["nosuch"]);
    assert_eq!((missing.to_string(), missing.exit_code()), (format!("{start}exec: \"nosuch\": executable file not found in $PATH"), 127));
    let missing = fail("f2", "", &["/nosuch"]);
    assert_eq!(
        (missing.to_string(), missing.exit_code()),
        (format!("{start}exec: \"/nosuch\": stat /nosuch: no such file or directory"), 127)
    );
    let denied = fail("f3", "", &["/etc/passwd"]);
    assert_eq!((denied.to_string(), denied.exit_code()), (format!("{start}exec: \"/etc/passwd\": permission denied"), 126));
    assert_eq!(fail("f4", "nosuch", &["true"]).to_string(), "unable to find user nosuch: no matching entries in passwd file");
    assert_eq!(fail("f5", "0:nosuch", &["true"]).to_string(), "unable to find group nosuch: no matching entries in group file");
}

#[test]
fn an_image_without_a_passwd_file_that_is_a_file_has_no_users() {
    let place = Place::new();
    let passwd = place.path("image/etc/passwd");
    std::fs::remove_file(&passwd).unwrap();
    // A pipe would hold up who opens it.
    rustix::fs::mknodat(rustix::fs::CWD, &passwd, rustix::fs::FileType::Fifo, rustix::fs::Mode::from_raw_mode(0o644), 0).unwrap();
    let (sandboxes, _events) = place.daemon();
    let mut request = place.request("pipe", &["true"]);
    request.user = "user".into();
    assert_eq!(sandboxes.start(request).unwrap_err().to_string(), "unable to find user user: no matching entries in passwd file");
}

#[test]
fn a_further_process_is_confined_like_the_first() {
    let place = Place::new();
    let (sandboxes, events) = place.daemon();
    sleeper(&place, &sandboxes, "execs");
    let (attachment, socket) = client();
    let words = ["sh", "-c", "id -u; cat /proc/self/status | while read key value; do [ $key = Seccomp: ] && echo $value; done; exit 9"];
    let change = |options: &mut Options| options.arguments = words.map(str::to_owned).into();
    sandboxes.exec("execs", "e1", change, Some("1000"), vec![attachment]).expect("an exec");
    assert_eq!(text_of(socket), "1000\n2\n");
    assert!(matches!(next(&events), SandboxEvent::Exited { exec, code: 9, .. } if exec == "e1"));
    let error = sandboxes.exec("execs", "e2", |options| options.arguments = vec!["nosuch".into()], None, Vec::new()).unwrap_err();
    assert_eq!((error.to_string().contains("executable file not found in $PATH"), error.exit_code()), (true, 127));
    sandboxes.signal("execs", 9, Duration::ZERO).unwrap();
    assert_eq!(end(&events), 137);
    sandboxes.cleanup("execs");
}

#[test]
fn limits_hold_and_change() {
    let place = Place::new();
    let (sandboxes, events) = place.daemon();
    let mut request = place.request("limits", &["sleep", "1000"]);
    request.options.limits = Limits { memory: 32 << 20, memory_swap: 32 << 20, pids: Some(20), ..Limits::default() };
    sandboxes.start(request).expect("a start");
    let counters = sandboxes.counters("limits");
    assert_eq!((counters.memory_limit, counters.pids_limit, counters.pids), (32 << 20, 20, 1));
    assert!(counters.memory > 0 && counters.system_cpu > 0 && counters.online_cpus > 0);
    for memory in [64 << 20, 16 << 20] {
        sandboxes.update("limits", &Limits { memory, memory_swap: memory, pids: Some(30), ..Limits::default() }).expect("new limits");
        let counters = sandboxes.counters("limits");
        assert_eq!((counters.memory_limit, counters.pids_limit), (memory.cast_unsigned(), 30));
    }
    sandboxes.signal("limits", 9, Duration::ZERO).unwrap();
    assert_eq!(end(&events), 137);
    sandboxes.cleanup("limits");
}

#[test]
fn running_out_of_memory_is_told() {
    let place = Place::new();
    let (sandboxes, events) = place.daemon();
    let mut request = place.request("oom", &["dd", "if=/dev/zero", "of=/dev/null", "bs=64M", "count=1"]);
    request.options.limits = Limits { memory: 8 << 20, memory_swap: 8 << 20, ..Limits::default() };
    sandboxes.start(request).expect("a start");
    assert!(matches!(next(&events), SandboxEvent::Exited { code: 137, oom: true, .. }));
    sandboxes.cleanup("oom");
}

#[test]
fn a_frozen_container_runs_nothing_until_it_is_thawed() {
    let place = Place::new();
    let (sandboxes, events) = place.daemon();
    let (attachment, socket) = client();
    let mut request = place.request("frozen", &["sh", "-c", "trap 'echo heard; exit 3' TERM; echo ready; while true; do sleep 0.05; done"]);
    request.attachments.push(attachment);
    sandboxes.start(request).expect("a start");
    let mut line = [0; 14];
    (&socket).read_exact(&mut line).unwrap();
    sandboxes.pause("frozen").unwrap();
    // Not freezing any more: frozen.
    let host = Host::detect();
    let (controller, file, wanted) = if host.unified { ("", "cgroup.events", "frozen 1") } else { ("freezer", "freezer.state", "FROZEN") };
    let state = std::fs::read_to_string(host.cgroup_directory(controller, &sandboxes.cgroup("frozen")).join(file)).unwrap();
    assert!(state.lines().any(|line| line == wanted), "{state}");
    sandboxes.signal("frozen", 15, Duration::ZERO).unwrap();
    assert!(events.recv_timeout(Duration::from_millis(300)).is_err(), "it is frozen");
    sandboxes.resume("frozen").unwrap();
    assert_eq!(end(&events), 3);
    assert_eq!(text_of(socket), "heard\n");
    sandboxes.cleanup("frozen");
}

#[test]
fn a_daemon_that_comes_back_finds_what_lives_and_what_ended() {
    let place = Place::new();
    let (first, events) = place.daemon();
    let living = sleeper(&place, &first, "living");
    sleeper(&place, &first, "ended");
    first.signal("ended", 15, Duration::ZERO).ok();
    first.signal("ended", 9, Duration::ZERO).unwrap();
    assert_eq!(end(&events), 137);
    drop((first, events));

    let (second, events) = place.daemon();
    let adopt = |id: &str| second.adopt(id, &place.path("data").join(id), place.request(id, &["sleep", "1000"]).options, false);
    assert_eq!(adopt("living"), Adopted::Running { pid: living.pid });
    assert!(matches!(adopt("ended"), Adopted::Exited(record) if record.code == 137));
    assert_eq!(adopt("never"), Adopted::Lost);
    assert_eq!(second.processes("living"), [living.pid]);
    second.signal("living", 9, Duration::ZERO).unwrap();
    assert_eq!(end(&events), 137);
    second.cleanup("living");
    second.cleanup("ended");
}

/// The shim of a container: the parent of its process 1.
fn shim_of(pid: u32) -> OwnedFd {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:")?.trim().parse().ok()).unwrap();
    process::pidfd_open(parent).unwrap()
}

#[test]
fn a_container_does_not_outlive_its_shim_even_frozen() {
    let place = Place::new();
    let (sandboxes, events) = place.daemon();
    for frozen in [false, true] {
        let id = if frozen { "lost2" } else { "lost1" };
        let running = sleeper(&place, &sandboxes, id);
        let init = process::pidfd_open(running.pid).unwrap();
        if frozen {
            sandboxes.pause(id).unwrap();
        }
        process::send_signal(shim_of(running.pid).as_fd(), 9).unwrap();
        assert_eq!(next(&events), SandboxEvent::Lost { id: id.into() });
        sandboxes.kill_all(id);
        let mut ready = [rustix::event::PollFd::new(&init, rustix::event::PollFlags::IN)];
        let minute = rustix::event::Timespec { tv_sec: 60, tv_nsec: 0 };
        assert_eq!(rustix::event::poll(&mut ready, Some(&minute)), Ok(1), "process 1 ended");
        sandboxes.cleanup(id);
        assert_eq!(sandboxes.adopt(id, &place.path("data").join(id), Options::default(), false), Adopted::Lost);
    }
}

#[test]
fn wishes_that_would_change_the_host_are_refused_in_the_runtimes_words() {
    let place = Place::new();
    let (sandboxes, _events) = place.daemon();
    let fail = |id: &str, change: &dyn Fn(&mut Options)| {
        let mut request = place.request(id, &["true"]);
        change(&mut request.options);
        let text = sandboxes.start(request).unwrap_err().to_string();
        text.rsplit_once("runc create failed: ").map_or(text.clone(), |(_, rest)| rest.to_owned())
    };
    let kernel = fail("w1", &|options| options.sysctls = vec![("kernel.panic".into(), "1".into())]);
    assert_eq!(kernel, "sysctl \"kernel.panic\" is not in a separate kernel namespace");
    let limit = fail("w2", &|options| options.ulimits = vec![(7, u64::MAX - 1, u64::MAX - 1)]);
    let start = "unable to start container process: error during container init: ";
    assert_eq!(limit, format!("{start}error setting rlimits for ready process: error setting rlimit type 7: operation not permitted"));
    let profile = r#"{"defaultAction":"SCMP_ACT_FOO"}"#;
    let action = fail("w3", &|options| options.seccomp = sampan_runtime::options::Seccomp::Json(profile.into()));
    assert_eq!(action, "string SCMP_ACT_FOO is not a valid action for seccomp");
}
