//! Processes: clone3, exec, spawn with descriptors, pidfd, waiting, identities, limits.
//!
//! Forking is offered to single-threaded processes alone: [`fork`] refuses in any other. Starting a program from a threaded
//! process goes through [`spawn`], which is posix_spawn(3) and runs no code of ours between fork and exec.
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the kernel's interfaces mix widths and signs: the values are flags, descriptors and process ids"
)]

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};

use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions};

bitflags_like! {
    /// Namespaces to make with [`fork`].
    NewNamespaces {
        /// Mounts.
        MOUNT = libc::CLONE_NEWNS as u64,
        /// Host and domain name.
        UTS = libc::CLONE_NEWUTS as u64,
        /// System V IPC and POSIX message queues.
        IPC = libc::CLONE_NEWIPC as u64,
        /// Process ids.
        PID = libc::CLONE_NEWPID as u64,
        /// Network.
        NET = libc::CLONE_NEWNET as u64,
        /// Control groups.
        CGROUP = libc::CLONE_NEWCGROUP as u64,
        /// Users.
        USER = libc::CLONE_NEWUSER as u64,
    }
}

/// Which side of [`fork`] this is.
#[derive(Debug)]
pub enum Forked {
    /// The new process.
    Child,
    /// The old one, with the child's id and pidfd.
    Parent {
        /// Process id in our namespace.
        pid: u32,
        /// Refers to the child for ever.
        pidfd: OwnedFd,
    },
}

#[repr(C)]
#[derive(Default)]
struct CloneArguments {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// Makes a child of a single-threaded process, in new namespaces, and on cgroup v2 right inside a cgroup (clone3(2)).
///
/// # Errors
/// [`io::ErrorKind::Unsupported`] when this process has more than one thread; else what the kernel says.
pub fn fork(namespaces: NewNamespaces, cgroup: Option<BorrowedFd<'_>>) -> io::Result<Forked> {
    if std::fs::read_dir("/proc/self/task")?.count() != 1 {
        return Err(io::Error::new(io::ErrorKind::Unsupported, "a threaded process must not fork"));
    }
    let mut pidfd: RawFd = -1;
    let mut arguments = CloneArguments {
        flags: namespaces.bits() | libc::CLONE_PIDFD as u64,
        pidfd: (&raw mut pidfd) as u64,
        exit_signal: libc::SIGCHLD as u64,
        ..CloneArguments::default()
    };
    if let Some(cgroup) = cgroup {
        arguments.flags |= 0x2_0000_0000; // CLONE_INTO_CGROUP, Linux 5.7
        arguments.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: `arguments` is a valid clone_args of the given size; without CLONE_VM the child runs on a copy of this memory,
    // and as the process has one thread no lock can be held by a thread that the child lacks.
    let result = unsafe { libc::syscall(libc::SYS_clone3, &raw mut arguments, size_of::<CloneArguments>()) };
    match result {
        0 => Ok(Forked::Child),
        // SAFETY: on success the kernel stored a fresh descriptor that nobody else owns.
        pid if pid > 0 => Ok(Forked::Parent { pid: pid as u32, pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) } }),
        _ => {
            let error = io::Error::last_os_error();
            // Seccomp filters of containers hide clone3, whose flags they cannot see.
            let plain = namespaces.bits() == 0 && cgroup.is_none();
            if error.raw_os_error() == Some(libc::ENOSYS) && plain { plain_fork() } else { Err(error) }
        }
    }
}

fn plain_fork() -> io::Result<Forked> {
    // SAFETY: the caller has made sure that this process has one thread.
    match unsafe { libc::fork() } {
        0 => Ok(Forked::Child),
        pid if pid > 0 => Ok(Forked::Parent { pid: pid.cast_unsigned(), pidfd: pidfd_open(pid.cast_unsigned())? }),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Replaces this process by a program (execve(2)); returns only on failure.
#[must_use]
pub fn exec(program: &CStr, arguments: &[CString], environment: &[CString]) -> io::Error {
    let pointers = |list: &[CString]| list.iter().map(|text| text.as_ptr()).chain([std::ptr::null()]).collect::<Vec<_>>();
    let (arguments, environment) = (pointers(arguments), pointers(environment));
    // SAFETY: both arrays end in a null pointer and point to strings that outlive the call.
    unsafe { libc::execve(program.as_ptr(), arguments.as_ptr(), environment.as_ptr()) };
    io::Error::last_os_error()
}

/// Ends this process at once, running nothing: for the child of a [`fork`].
pub fn exit_now(code: i32) -> ! {
    // SAFETY: _exit(2) has no preconditions.
    unsafe { libc::_exit(code) }
}

/// Starts a program from a descriptor, with an empty environment and exactly the given descriptors.
///
/// `descriptors` become 0, 1, 2, … of the child in their order; all others close at exec, as every descriptor of ours is
/// close-on-exec. Gives the child's pid and pidfd.
///
/// # Errors
/// What posix_spawn(3) or pidfd_open(2) say.
pub fn spawn(program: BorrowedFd<'_>, arguments: &[CString], descriptors: &[BorrowedFd<'_>]) -> io::Result<(u32, OwnedFd)> {
    // Copies above the target range, so that no target overwrites a source or the program.
    let count = i32::try_from(descriptors.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let program = rustix::io::fcntl_dupfd_cloexec(program, count.max(3))?;
    let path = CString::new(format!("/proc/self/fd/{}", program.as_raw_fd()))?;
    let copies = descriptors.iter().map(|fd| Ok(rustix::io::fcntl_dupfd_cloexec(fd, count.max(3))?)).collect::<io::Result<Vec<_>>>()?;
    let mut actions = SpawnActions::new()?;
    for (target, copy) in (0..).zip(&copies) {
        actions.dup2(copy.as_raw_fd(), target)?;
    }
    let attributes = SpawnAttributes::clean()?;
    let mut pointers: Vec<*mut libc::c_char> = arguments.iter().map(|text| text.as_ptr().cast_mut()).collect();
    pointers.push(std::ptr::null_mut());
    let environment: [*mut libc::c_char; 1] = [std::ptr::null_mut()];
    let mut pid = 0;
    // SAFETY: every pointer is valid for the call, both arrays end in null, and posix_spawn does not write through the strings.
    let code = unsafe {
        libc::posix_spawn(
            &raw mut pid,
            path.as_ptr(),
            &raw const actions.0,
            &raw const attributes.0,
            pointers.as_ptr(),
            environment.as_ptr(),
        )
    };
    if code != 0 {
        return Err(io::Error::from_raw_os_error(code));
    }
    let pid = Pid::from_raw(pid).ok_or_else(|| io::Error::other("posix_spawn gave no process id"))?;
    // Nobody else waits for this child, so its id cannot have been used again yet.
    let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty())?;
    Ok((pid.as_raw_nonzero().get() as u32, pidfd))
}

struct SpawnActions(libc::posix_spawn_file_actions_t);

impl SpawnActions {
    fn new() -> io::Result<Self> {
        let mut actions = std::mem::MaybeUninit::uninit();
        // SAFETY: the call initialises what it is given.
        check(unsafe { libc::posix_spawn_file_actions_init(actions.as_mut_ptr()) })?;
        // SAFETY: it was initialised just now.
        Ok(Self(unsafe { actions.assume_init() }))
    }

    fn dup2(&mut self, from: RawFd, to: RawFd) -> io::Result<()> {
        // SAFETY: self is an initialised action list.
        check(unsafe { libc::posix_spawn_file_actions_adddup2(&raw mut self.0, from, to) })
    }
}

impl Drop for SpawnActions {
    fn drop(&mut self) {
        // SAFETY: self is an initialised action list, destroyed once.
        unsafe { libc::posix_spawn_file_actions_destroy(&raw mut self.0) };
    }
}

struct SpawnAttributes(libc::posix_spawnattr_t);

impl SpawnAttributes {
    /// A session of its own, no blocked signals, every signal at its default.
    fn clean() -> io::Result<Self> {
        let mut attributes = std::mem::MaybeUninit::uninit();
        // SAFETY: the call initialises what it is given.
        check(unsafe { libc::posix_spawnattr_init(attributes.as_mut_ptr()) })?;
        // SAFETY: it was initialised just now.
        let mut attributes = Self(unsafe { attributes.assume_init() });
        let mut empty = std::mem::MaybeUninit::uninit();
        let mut all = std::mem::MaybeUninit::uninit();
        // SAFETY: the call initialises what it is given.
        unsafe { libc::sigemptyset(empty.as_mut_ptr()) };
        // SAFETY: the call initialises what it is given.
        unsafe { libc::sigfillset(all.as_mut_ptr()) };
        // SAFETY: both sets and the attributes are initialised.
        check(unsafe { libc::posix_spawnattr_setsigmask(&raw mut attributes.0, empty.as_ptr()) })?;
        // SAFETY: as above.
        check(unsafe { libc::posix_spawnattr_setsigdefault(&raw mut attributes.0, all.as_ptr()) })?;
        let flags = libc::POSIX_SPAWN_SETSIGMASK | libc::POSIX_SPAWN_SETSIGDEF | i32::from(libc::POSIX_SPAWN_SETSID);
        // SAFETY: the attributes are initialised.
        check(unsafe { libc::posix_spawnattr_setflags(&raw mut attributes.0, flags as libc::c_short) })?;
        Ok(attributes)
    }
}

impl Drop for SpawnAttributes {
    fn drop(&mut self) {
        // SAFETY: self is an initialised attribute object, destroyed once.
        unsafe { libc::posix_spawnattr_destroy(&raw mut self.0) };
    }
}

fn check(code: i32) -> io::Result<()> {
    if code == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(code)) }
}

/// How a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It exited with this code.
    Exited(i32),
    /// This signal ended it.
    Signaled(i32),
}

impl Ended {
    /// The shell's single number: the code, or 128 + signal.
    #[must_use]
    pub fn code(self) -> i32 {
        match self {
            Self::Exited(code) => code,
            Self::Signaled(signal) => 128 + signal,
        }
    }
}

/// Reaps a child by its pidfd if it has ended.
///
/// # Errors
/// `ECHILD` when it is not our child.
pub fn try_wait(pidfd: BorrowedFd<'_>) -> io::Result<Option<Ended>> {
    wait_with(WaitId::PidFd(pidfd), WaitIdOptions::EXITED | WaitIdOptions::NOHANG)
}

/// Waits for a child's end and reaps it.
///
/// # Errors
/// `ECHILD` when it is not our child.
pub fn wait(pidfd: BorrowedFd<'_>) -> io::Result<Ended> {
    loop {
        match wait_with(WaitId::PidFd(pidfd), WaitIdOptions::EXITED) {
            Ok(Some(ended)) => return Ok(ended),
            Ok(None) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Reaps any child that has ended, and says which.
///
/// # Errors
/// `ECHILD` when there is no child at all.
pub fn try_wait_any() -> io::Result<Option<(u32, Ended)>> {
    let mut status = 0;
    // SAFETY: `status` is a valid place for the result.
    match unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) } {
        0 => Ok(None),
        pid if pid > 0 && libc::WIFSIGNALED(status) => Ok(Some((pid as u32, Ended::Signaled(libc::WTERMSIG(status))))),
        pid if pid > 0 => Ok(Some((pid as u32, Ended::Exited(libc::WEXITSTATUS(status))))),
        _ => Err(io::Error::last_os_error()),
    }
}

fn wait_with(id: WaitId<'_>, options: WaitIdOptions) -> io::Result<Option<Ended>> {
    let Some(status) = rustix::process::waitid(id, options)? else { return Ok(None) };
    if let Some(signal) = status.terminating_signal() {
        return Ok(Some(Ended::Signaled(signal)));
    }
    Ok(status.exit_status().map(Ended::Exited))
}

/// Opens a process that is not (yet) known to have ended.
///
/// # Errors
/// `ESRCH` when there is none.
pub fn pidfd_open(pid: u32) -> io::Result<OwnedFd> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or_else(|| io::Error::from_raw_os_error(libc::ESRCH))?;
    Ok(rustix::process::pidfd_open(pid, PidfdFlags::empty())?)
}

/// Sends a signal (1 to 64) to a process.
///
/// # Errors
/// `ESRCH` when it has ended, `EINVAL` for no such signal.
pub fn send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    // SAFETY: the descriptor is open; a null siginfo asks for the default one.
    let result = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, std::ptr::null::<libc::siginfo_t>(), 0) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// When a process started, in clock ticks since boot: with its pid it names one process for ever (field 22 of /proc/PID/stat).
///
/// # Errors
/// When there is no such process.
pub fn start_time(pid: u32) -> io::Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let rest = text.rsplit_once(')').map(|(_, rest)| rest);
    let field = rest.and_then(|rest| rest.split_whitespace().nth(19)).and_then(|word| word.parse().ok());
    field.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "malformed /proc/PID/stat"))
}

/// Sets every signal to its default action and unblocks all (for a child before exec).
pub fn reset_signals() {
    for signal in 1..=64 {
        if signal != libc::SIGKILL && signal != libc::SIGSTOP {
            // SAFETY: SIG_DFL installs no code of ours; failures (reserved numbers) change nothing.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
        }
    }
    let mut empty = std::mem::MaybeUninit::uninit();
    // SAFETY: the call initialises what it is given.
    unsafe { libc::sigemptyset(empty.as_mut_ptr()) };
    // SAFETY: the set is initialised.
    unsafe { libc::sigprocmask(libc::SIG_SETMASK, empty.as_ptr(), std::ptr::null_mut()) };
}

/// Blocks all signals of this thread and gives a descriptor that reads them (signalfd(2)).
///
/// # Errors
/// What the kernel says.
pub fn signal_fd() -> io::Result<OwnedFd> {
    let mut all = std::mem::MaybeUninit::uninit();
    // SAFETY: the call initialises what it is given.
    unsafe { libc::sigfillset(all.as_mut_ptr()) };
    // SAFETY: the set is initialised.
    unsafe { libc::sigprocmask(libc::SIG_SETMASK, all.as_ptr(), std::ptr::null_mut()) };
    // SAFETY: the set is initialised; -1 asks for a new descriptor.
    let fd = unsafe { libc::signalfd(-1, all.as_ptr(), libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
    // SAFETY: a non-negative result is a fresh descriptor that nobody else owns.
    if fd >= 0 { Ok(unsafe { OwnedFd::from_raw_fd(fd) }) } else { Err(io::Error::last_os_error()) }
}

/// The number of the next signal of a [`signal_fd`], if one is pending.
///
/// # Errors
/// What read(2) says but `EAGAIN`.
pub fn next_signal(fd: BorrowedFd<'_>) -> io::Result<Option<i32>> {
    let mut buffer = [0_u8; 128];
    match rustix::io::read(fd, &mut buffer) {
        Ok(128) => Ok(Some(i32::from_ne_bytes([buffer[0], buffer[1], buffer[2], buffer[3]]))),
        Ok(_) | Err(rustix::io::Errno::AGAIN) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Closes every descriptor from `first` on at the next exec (close_range(2)).
///
/// # Errors
/// What the kernel says.
pub fn close_on_exec_from(first: u32) -> io::Result<()> {
    // SAFETY: the flag CLOEXEC closes nothing now, so no owned descriptor is invalidated.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Closes every descriptor from `first` on: what whoever started this program left open. Only for its very start, before it has
/// opened anything itself.
///
/// # Errors
/// What the kernel says.
pub fn close_inherited_from(first: u32) -> io::Result<()> {
    // SAFETY: the caller has opened nothing yet, so no owned descriptor is invalidated.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Sets one resource limit by its number (`RLIMIT_*`).
///
/// # Errors
/// `EPERM` above the hard limit without CAP_SYS_RESOURCE.
pub fn set_limit(resource: u32, soft: u64, hard: u64) -> io::Result<()> {
    let limit = libc::rlimit { rlim_cur: soft, rlim_max: hard };
    // SAFETY: `limit` is a valid rlimit.
    if unsafe { libc::setrlimit(resource, &raw const limit) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The soft and hard limit of this process.
///
/// # Errors
/// `EINVAL` for no such limit.
pub fn limit(resource: u32) -> io::Result<(u64, u64)> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid place for the result.
    if unsafe { libc::getrlimit(resource, &raw mut limit) } == 0 {
        Ok((limit.rlim_cur, limit.rlim_max))
    } else {
        Err(io::Error::last_os_error())
    }
}
