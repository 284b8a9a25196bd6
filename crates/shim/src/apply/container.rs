//! Making a container: cgroup, namespaces, mounts, process 1.
//!
//! The parent clones the child into its namespaces and then serves it through one socket pair: it puts the child into its v1
//! cgroups, receives the terminal, and hears of a failed step. The socket closes at exec: silence is success.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use sampan_sys::process::{self, Forked, NewNamespaces};
use sampan_sys::{ns, sock};

use super::{Fault, cgroup, devices, masks, mounts, place, program};
use crate::flat;
use crate::plan::Plan;
use crate::protocol::{Reply, Stage};

/// Standard streams of a process, its side.
#[derive(Debug)]
pub enum Stdio {
    /// Three descriptors.
    Pipes([OwnedFd; 3]),
    /// A terminal that is opened inside the container.
    Terminal,
}

/// The descriptors that come with a plan.
#[derive(Debug)]
pub struct Descriptors {
    /// Detached mount of the root.
    pub root: OwnedFd,
    /// Namespaces to join, in the plan's order.
    pub joins: Vec<OwnedFd>,
    /// Detached mounts that the plan's steps name by number.
    pub given: Vec<OwnedFd>,
    /// Standard streams.
    pub stdio: Stdio,
}

/// A container whose process 1 runs.
#[derive(Debug)]
pub struct Container {
    /// Process id as the host sees it.
    pub pid: u32,
    /// Refers to process 1 for ever.
    pub pidfd: OwnedFd,
    /// Our side of the terminal.
    pub terminal: Option<OwnedFd>,
}

/// Makes the container of a plan.
///
/// # Errors
/// The step that failed; its processes are gone then, its cgroups are the caller's to remove.
pub fn start(plan: &Plan, descriptors: Descriptors) -> Result<Container, Fault> {
    cgroup::make(&plan.cgroup)?;
    let birth_place = cgroup::birth_place(&plan.cgroup)?;
    if plan.join_pid
        && let Some(pid) = descriptors.joins.first()
    {
        ns::enter(pid.as_fd()).map_err(Fault::new(Stage::Namespace {}, "pid"))?;
    }
    let (ours, theirs) = sock::pair().map_err(Fault::new(Stage::Stdio {}, "socketpair"))?;
    let namespaces = NewNamespaces::from_bits_truncate(plan.namespaces);
    let forked = process::fork(namespaces, birth_place.as_ref().map(OwnedFd::as_fd)).map_err(Fault::new(Stage::Namespace {}, "clone3"))?;
    match forked {
        Forked::Child => {
            drop(ours);
            let fault = child(plan, descriptors, &theirs);
            program::report(&theirs, &fault)
        }
        Forked::Parent { pid, pidfd } => {
            drop(theirs);
            drop(descriptors);
            match serve_child(plan, pid, &ours) {
                Ok(terminal) => Ok(Container { pid, pidfd, terminal }),
                Err(fault) => {
                    drop(process::send_signal(pidfd.as_fd(), 9));
                    drop(process::wait(pidfd.as_fd()));
                    Err(fault)
                }
            }
        }
    }
}

/// Puts the child into its cgroups, lets it go on, and waits for its terminal, its failure or its exec.
fn serve_child(plan: &Plan, pid: u32, socket: &OwnedFd) -> Result<Option<OwnedFd>, Fault> {
    cgroup::join(&plan.cgroup, pid)?;
    sock::send(socket.as_fd(), b"go", &[]).map_err(Fault::new(Stage::Namespace {}, "handshake"))?;
    program::await_exec(socket)
}

/// The child's work up to exec; comes back only with a failure.
fn child(plan: &Plan, descriptors: Descriptors, parent: &OwnedFd) -> Fault {
    match prepare(plan, descriptors, parent) {
        Ok(()) => {
            let home = |fault: Fault| fault;
            program::become_process(&plan.process).map_or_else(home, |never| match never {})
        }
        Err(fault) => fault,
    }
}

fn prepare(plan: &Plan, descriptors: Descriptors, parent: &OwnedFd) -> Result<(), Fault> {
    // Until exec nobody inside may trace this process and use its descriptors (CVE-2016-9962).
    let _best_effort = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
    let (message, _) = sock::receive(parent.as_fd(), true).map_err(Fault::new(Stage::Namespace {}, "handshake"))?;
    if message != b"go" {
        return Err(Fault { stage: Stage::Namespace {}, errno: 0, detail: "parent went away".into() });
    }
    if let Some(adjustment) = plan.process.oom_score_adj {
        program::set_oom_score(adjustment)?;
    }
    for join in descriptors.joins.iter().skip(usize::from(plan.join_pid)) {
        ns::enter(join.as_fd()).map_err(Fault::new(Stage::Namespace {}, "join"))?;
    }
    if plan.cgroup_namespace {
        ns::unshare(NewNamespaces::CGROUP).map_err(Fault::new(Stage::Namespace {}, "cgroup"))?;
    }
    let root = attach_root(plan, &descriptors.root)?;
    let special = mounts::apply(plan, &descriptors.given, root.as_fd())?;
    let terminal = devices::apply(plan, root.as_fd(), &special)?;
    if plan.create_cwd && !plan.process.cwd.is_empty() && plan.process.cwd != "/" {
        let made = place::make_working_directory(root.as_fd(), &plan.process.cwd);
        made.map_err(Fault::new(Stage::Cwd {}, format!("mkdir:{}", plan.process.cwd)))?;
    }
    set_names(plan, special.proc.as_ref())?;
    masks::apply(plan, root.as_fd())?;
    enter_root(plan, root.as_fd())?;
    match (descriptors.stdio, terminal) {
        (Stdio::Pipes(pipes), _) => program::take_pipes(&pipes, plan.process.uid)?,
        (Stdio::Terminal, Some((master, slave))) => {
            program::take_terminal(&slave, &plan.process)?;
            let message = flat::encode(&Reply::Done {});
            sock::send(parent.as_fd(), &message, &[master.as_fd()]).map_err(Fault::new(Stage::Stdio {}, "terminal"))?;
        }
        (Stdio::Terminal, None) => return Err(Fault { stage: Stage::Stdio {}, errno: 0, detail: "no devpts in the plan".into() }),
    }
    Ok(())
}

/// Attaches the detached root where only this namespace sees it, and opens it.
fn attach_root<'a>(plan: &Plan, root: &'a OwnedFd) -> Result<BorrowedRoot<'a>, Fault> {
    let spread =
        if plan.root_slave { sampan_sys::mount::make_slave_recursive(c"/") } else { sampan_sys::mount::make_private_recursive(c"/") };
    spread.map_err(Fault::new(Stage::Mount {}, "/"))?;
    let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC;
    let place = rustix::fs::open(&plan.root_place, flags, rustix::fs::Mode::empty());
    let place = place.map_err(|error| Fault::new(Stage::Mount {}, &plan.root_place)(error.into()))?;
    sampan_sys::mount::attach(root.as_fd(), place.as_fd()).map_err(Fault::new(Stage::Mount {}, &plan.root_place))?;
    Ok(BorrowedRoot(root))
}

struct BorrowedRoot<'a>(&'a OwnedFd);

impl BorrowedRoot<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Host name, domain name and kernel parameters of the new namespaces.
fn set_names(plan: &Plan, proc: Option<&OwnedFd>) -> Result<(), Fault> {
    if !plan.hostname.is_empty() {
        rustix::system::sethostname(plan.hostname.as_bytes()).map_err(|error| Fault::new(Stage::Sysctl {}, "hostname")(error.into()))?;
    }
    if !plan.domainname.is_empty() {
        rustix::system::setdomainname(plan.domainname.as_bytes())
            .map_err(|error| Fault::new(Stage::Sysctl {}, "domainname")(error.into()))?;
    }
    for (key, value) in &plan.sysctls {
        let path =
            std::ffi::CString::new(format!("sys/{key}")).map_err(|_| Fault { stage: Stage::Sysctl {}, errno: 22, detail: key.clone() })?;
        let Some(proc) = proc else { return Err(Fault { stage: Stage::Sysctl {}, errno: 2, detail: key.clone() }) };
        place::write_beneath(proc, &path, value.as_bytes()).map_err(Fault::new(Stage::Sysctl {}, key))?;
    }
    Ok(())
}

fn enter_root(plan: &Plan, root: BorrowedFd<'_>) -> Result<(), Fault> {
    if plan.root_readonly {
        let readonly = sampan_sys::mount::Attributes::RDONLY;
        sampan_sys::mount::set_attributes(root, readonly, sampan_sys::mount::Attributes::empty(), None, false)
            .map_err(Fault::new(Stage::Mount {}, "/"))?;
    }
    rustix::process::fchdir(root).map_err(|error| Fault::new(Stage::Mount {}, "/")(error.into()))?;
    sampan_sys::mount::pivot_to_current_directory().map_err(Fault::new(Stage::Mount {}, "pivot_root"))
}
