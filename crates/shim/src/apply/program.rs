//! The last steps of every process, first or further: streams, limits, identity, directory, exec.
//!
//! One code path for both: an exec is confined exactly as process 1 is.

use std::convert::Infallible;
use std::ffi::CString;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};

use rustix::fs::{Mode, OFlags};
use sampan_sys::process::{self, Forked, NewNamespaces};
use sampan_sys::{ns, sock};

use super::container::Stdio;
use super::{Fault, cgroup, devices, identity};
use crate::flat;
use crate::plan::{CgroupPlan, ProcessPlan};
use crate::protocol::{Reply, Stage};

/// A further process that runs.
#[derive(Debug)]
pub struct ExecOutcome {
    /// Process id as the host sees it.
    pub pid: u32,
    /// Refers to it for ever.
    pub pidfd: OwnedFd,
    /// Our side of the terminal.
    pub terminal: Option<OwnedFd>,
}

/// Starts a further process in the container of `init`.
///
/// # Errors
/// The step that failed.
pub fn exec(init: &OwnedFd, namespaces: u64, cgroup_plan: &CgroupPlan, plan: &ProcessPlan, stdio: Stdio) -> Result<ExecOutcome, Fault> {
    let all = NewNamespaces::from_bits_truncate(namespaces);
    // For children only: our next child is born in the container's pid namespace.
    ns::enter_process(init.as_fd(), NewNamespaces::PID).map_err(Fault::new(Stage::Namespace {}, "pid"))?;
    let (ours, theirs) = sock::pair().map_err(Fault::new(Stage::Stdio {}, "socketpair"))?;
    let birth_place = cgroup::birth_place(cgroup_plan)?;
    let forked = process::fork(NewNamespaces::empty(), birth_place.as_ref().map(OwnedFd::as_fd))
        .map_err(Fault::new(Stage::Namespace {}, "clone3"))?;
    match forked {
        Forked::Child => {
            drop(ours);
            let fault = exec_child(init, all, plan, stdio, &theirs);
            report(&theirs, &fault)
        }
        Forked::Parent { pid, pidfd } => {
            drop(theirs);
            drop(stdio);
            let served = cgroup::join(cgroup_plan, pid).and_then(|()| {
                sock::send(ours.as_fd(), b"go", &[]).map_err(Fault::new(Stage::Namespace {}, "handshake"))?;
                await_exec(&ours)
            });
            match served {
                Ok(terminal) => Ok(ExecOutcome { pid, pidfd, terminal }),
                Err(fault) => {
                    drop(process::send_signal(pidfd.as_fd(), 9));
                    drop(process::wait(pidfd.as_fd()));
                    Err(fault)
                }
            }
        }
    }
}

fn exec_child(init: &OwnedFd, namespaces: NewNamespaces, plan: &ProcessPlan, stdio: Stdio, parent: &OwnedFd) -> Fault {
    let prepared = || -> Result<(), Fault> {
        let _best_effort = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
        let (message, _) = sock::receive(parent.as_fd(), true).map_err(Fault::new(Stage::Namespace {}, "handshake"))?;
        if message != b"go" {
            return Err(Fault { stage: Stage::Namespace {}, errno: 0, detail: "parent went away".into() });
        }
        if let Some(adjustment) = plan.oom_score_adj {
            set_oom_score(adjustment)?;
        }
        ns::enter_process(init.as_fd(), namespaces).map_err(Fault::new(Stage::Namespace {}, "join"))?;
        match stdio {
            Stdio::Pipes(pipes) => take_pipes(&pipes, plan.uid),
            Stdio::Terminal => {
                let (master, slave) = devices::open_terminal_inside().map_err(Fault::new(Stage::Stdio {}, "terminal"))?;
                take_terminal(&slave, plan)?;
                sock::send(parent.as_fd(), &flat::encode(&Reply::Done {}), &[master.as_fd()])
                    .map_err(Fault::new(Stage::Stdio {}, "terminal"))
            }
        }
    };
    match prepared() {
        Ok(()) => become_process(plan).map_or_else(|fault| fault, |never| match never {}),
        Err(fault) => fault,
    }
}

/// Waits for a child's terminal, failure or exec (the end of the connection).
pub(crate) fn await_exec(socket: &OwnedFd) -> Result<Option<OwnedFd>, Fault> {
    let mut terminal = None;
    loop {
        let (message, mut fds) = sock::receive(socket.as_fd(), true).map_err(Fault::new(Stage::Exec {}, "handshake"))?;
        if message.is_empty() {
            return Ok(terminal);
        }
        match flat::decode::<Reply>(&message) {
            Ok(Reply::Done {}) => terminal = fds.pop(),
            Ok(Reply::Failed { stage, errno, detail }) => return Err(Fault { stage, errno, detail }),
            _ => return Err(Fault { stage: Stage::Exec {}, errno: 0, detail: "malformed handshake".into() }),
        }
    }
}

/// Tells the parent why this child cannot go on, and ends it.
pub(crate) fn report(parent: &OwnedFd, fault: &Fault) -> ! {
    let Fault { stage, errno, detail } = fault.clone();
    let message = flat::encode(&Reply::Failed { stage, errno, detail });
    drop(sock::send(parent.as_fd(), &message, &[]));
    process::exit_now(255)
}

/// Becomes the program of a plan; comes back only with a failure.
pub(crate) fn become_process(plan: &ProcessPlan) -> Result<Infallible, Fault> {
    for (number, (soft, hard)) in &plan.limits {
        process::set_limit(*number, *soft, *hard).map_err(Fault::new(Stage::Limit {}, number.to_string()))?;
    }
    rustix::process::umask(Mode::from_raw_mode(plan.umask));
    if !plan.apparmor.is_empty() {
        set_apparmor(&plan.apparmor).map_err(Fault::new(Stage::Apparmor {}, &plan.apparmor))?;
    }
    let arguments = strings(&plan.arguments)?;
    let environment = strings(&plan.environment)?;
    let cwd = if plan.cwd.is_empty() { "/" } else { plan.cwd.as_str() };
    // Once as we are, once as the user: either may be the one who can.
    let early = rustix::process::chdir(cwd);
    identity::apply(plan)?;
    if early.is_err() {
        rustix::process::chdir(cwd).map_err(|error| Fault::new(Stage::Cwd {}, cwd)(error.into()))?;
    }
    verify_cwd()?;
    process::close_on_exec_from(3).map_err(Fault::new(Stage::Exec {}, "close_range"))?;
    process::reset_signals();
    let path = plan.environment.iter().find_map(|line| line.strip_prefix("PATH="));
    let error = exec_in_path(&arguments, &environment, path);
    Err(Fault::new(Stage::Exec {}, plan.arguments.first().cloned().unwrap_or_default())(error))
}

/// A working directory outside the root would be a way out (CVE-2024-21626).
fn verify_cwd() -> Result<(), Fault> {
    let cwd = rustix::process::getcwd(Vec::new()).map_err(|error| Fault::new(Stage::Cwd {}, "getcwd")(error.into()))?;
    if cwd.as_bytes().starts_with(b"/") {
        Ok(())
    } else {
        Err(Fault { stage: Stage::Cwd {}, errno: 2, detail: "outside of the container's root".into() })
    }
}

/// Runs a program found as a shell finds it: a name with a slash as it is, else the directories of PATH in turn.
#[must_use]
pub fn exec_in_path(arguments: &[CString], environment: &[CString], path: Option<&str>) -> io::Error {
    const DEFAULT: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let Some(name) = arguments.first() else { return io::Error::from_raw_os_error(2) };
    if name.as_bytes().contains(&b'/') {
        let error = process::exec(name, arguments, environment);
        let is_directory = rustix::fs::stat(name).is_ok_and(|facts| rustix::fs::FileType::from_raw_mode(facts.st_mode).is_dir());
        return if is_directory { io::Error::from_raw_os_error(21) } else { error };
    }
    let not_found = || io::Error::from_raw_os_error(2);
    if name.is_empty() {
        return not_found();
    }
    let mut result = not_found();
    for folder in path.unwrap_or(DEFAULT).split(':') {
        let folder = if folder.is_empty() { "." } else { folder };
        let Ok(candidate) = CString::new([folder.as_bytes(), b"/", name.as_bytes()].concat()) else { continue };
        let is_file = rustix::fs::stat(&candidate).is_ok_and(|facts| !rustix::fs::FileType::from_raw_mode(facts.st_mode).is_dir());
        if !is_file {
            continue;
        }
        let error = process::exec(&candidate, arguments, environment);
        if !matches!(error.raw_os_error(), Some(2 | 20)) {
            result = error;
            if result.raw_os_error() != Some(13) {
                break;
            }
        }
    }
    result
}

fn strings(list: &[String]) -> Result<Vec<CString>, Fault> {
    list.iter()
        .map(|text| CString::new(text.as_str()).map_err(|_| Fault { stage: Stage::Plan {}, errno: 22, detail: "a zero byte".into() }))
        .collect()
}

/// Sets the out-of-memory score; lowering it needs CAP_SYS_RESOURCE, without which it stays.
pub(crate) fn set_oom_score(adjustment: i32) -> Result<(), Fault> {
    let written = File::options().write(true).open("/proc/self/oom_score_adj").and_then(|mut file| write!(file, "{adjustment}"));
    match written {
        Err(error) if error.kind() != io::ErrorKind::PermissionDenied || adjustment >= 0 => {
            Err(Fault::new(Stage::Limit {}, format!("oom_score_adj {adjustment}"))(error))
        }
        _ => Ok(()),
    }
}

/// Through no link and no mount inside procfs: the profile must not be written elsewhere (CVE-2025-52881).
fn set_apparmor(profile: &str) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let proc = rustix::fs::open("/proc", flags, Mode::empty())?;
    if !super::place::is_on(proc.as_fd(), super::place::PROCFS)? {
        return Err(io::Error::from_raw_os_error(19));
    }
    let own = rustix::process::getpid().as_raw_nonzero();
    let mut result = Err(io::Error::from_raw_os_error(2));
    for path in ["attr/apparmor/exec", "attr/exec"] {
        let path = CString::new(format!("{own}/{path}"))?;
        result = super::place::write_beneath(&proc, &path, format!("exec {profile}").as_bytes());
        if !matches!(&result, Err(error) if error.kind() == io::ErrorKind::NotFound) {
            break;
        }
    }
    result
}

/// Makes three descriptors the standard streams; they are given to the user, so that `/dev/stdout` can be opened again.
pub(crate) fn take_pipes(pipes: &[OwnedFd; 3], uid: u32) -> Result<(), Fault> {
    let fault = |error: rustix::io::Errno| Fault::new(Stage::Stdio {}, "pipes")(error.into());
    let _best_effort = rustix::process::setsid();
    let user = rustix::fs::Uid::from_raw(uid);
    for pipe in pipes {
        let is_pipe = rustix::fs::fstat(pipe).is_ok_and(|facts| rustix::fs::FileType::from_raw_mode(facts.st_mode).is_fifo());
        if is_pipe {
            rustix::fs::fchown(pipe, Some(user), None).map_err(fault)?;
        }
    }
    rustix::stdio::dup2_stdin(&pipes[0]).map_err(fault)?;
    rustix::stdio::dup2_stdout(&pipes[1]).map_err(fault)?;
    rustix::stdio::dup2_stderr(&pipes[2]).map_err(fault)
}

/// Makes a terminal the standard streams and the controlling terminal of a new session.
pub(crate) fn take_terminal(slave: &OwnedFd, plan: &ProcessPlan) -> Result<(), Fault> {
    let fault = |error: rustix::io::Errno| Fault::new(Stage::Stdio {}, "terminal")(error.into());
    let _best_effort = rustix::process::setsid();
    rustix::process::ioctl_tiocsctty(slave).map_err(fault)?;
    if plan.width > 0 && plan.height > 0 {
        sampan_sys::pty::resize(slave.as_fd(), plan.width, plan.height).map_err(Fault::new(Stage::Stdio {}, "terminal size"))?;
    }
    rustix::fs::fchown(slave, Some(rustix::fs::Uid::from_raw(plan.uid)), None).map_err(fault)?;
    rustix::stdio::dup2_stdin(slave).map_err(fault)?;
    rustix::stdio::dup2_stdout(slave).map_err(fault)?;
    rustix::stdio::dup2_stderr(slave).map_err(fault)
}
