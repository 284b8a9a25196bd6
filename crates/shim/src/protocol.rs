//! What daemon and shim say to each other: one message a packet, descriptors beside it.
//!
//! The daemon numbers its requests; the shim answers each with the same number. Events carry number 0. A second daemon may
//! connect after a restart: the newest connection gets the events.

use crate::flat::{flat_enum, flat_struct};

flat_struct! {
    /// Which streams of a process a client wants, and whether it writes.
    Streams {
        /// Standard input.
        stdin: bool,
        /// Standard output (and everything of a terminal).
        stdout: bool,
        /// Standard error.
        stderr: bool,
    }
}

flat_enum! {
    /// From the daemon.
    Request {
        /// Make the container. Descriptors: plan, root mount, joins, attached clients.
        1 => Start {
            /// Of the attached clients, in the order of their descriptors.
            clients: Vec<Streams>,
        },
        /// One more process. Descriptors: plan (a `ProcessPlan`), attached clients.
        2 => Exec {
            /// Its name, not empty.
            exec: String,
            /// Of the attached clients.
            clients: Vec<Streams>,
        },
        /// One more client. Descriptor: its socket.
        3 => Attach {
            /// Empty: process 1.
            exec: String,
            /// What it wants.
            streams: Streams,
        },
        /// A new terminal size.
        4 => Resize {
            /// Empty: process 1.
            exec: String,
            /// Characters.
            width: u16,
            /// Lines.
            height: u16,
        },
        /// A signal.
        5 => Signal {
            /// Empty: process 1.
            exec: String,
            /// 1 to 64.
            number: i32,
        },
        /// What lives here.
        6 => Query {},
        /// The daemon has written the end down: the shim may go.
        7 => Forget {},
    }
}

flat_enum! {
    /// From the shim.
    Reply {
        /// A process started.
        1 => Started {
            /// Process id as the host sees it.
            pid: u32,
        },
        /// A process did not start.
        2 => Failed {
            /// Where it failed.
            stage: Stage,
            /// The kernel's number; 0: none.
            errno: i32,
            /// What it was about: a path, a name.
            detail: String,
        },
        /// Done.
        3 => Done {},
        /// The answer to a query.
        4 => State {
            /// Process 1; 0: it has ended.
            pid: u32,
            /// Names and process ids of further processes that live.
            execs: Vec<(String, u32)>,
        },
        /// A process ended. An event.
        5 => Exited {
            /// Empty: process 1.
            exec: String,
            /// Exit code, 128 + n after signal n.
            code: i32,
            /// Whether the kernel killed something in the container for memory.
            oom: bool,
            /// Nanoseconds since the epoch.
            at: i64,
        },
    }
}

flat_enum! {
    /// Where a start failed: with the errno it decides exit code and text, without any matching of strings.
    Stage {
        /// Making or joining cgroups; limits that the kernel refuses.
        1 => Cgroup {},
        /// Making namespaces.
        2 => Namespace {},
        /// Mounting; the detail names the target.
        3 => Mount {},
        /// Device nodes.
        4 => Device {},
        /// Kernel parameters, host name.
        5 => Sysctl {},
        /// Masked and read-only paths.
        6 => Mask {},
        /// The working directory.
        7 => Cwd {},
        /// Terminal and pipes.
        8 => Stdio {},
        /// Users, groups, capabilities.
        9 => Identity {},
        /// Resource limits; the detail is the limit's number.
        10 => Limit {},
        /// The seccomp filter.
        11 => Seccomp {},
        /// AppArmor.
        12 => Apparmor {},
        /// The program: `ENOENT` not found, `EACCES` not executable.
        13 => Exec {},
        /// The plan itself.
        14 => Plan {},
        /// The log file.
        15 => Log {},
        /// The container has ended.
        16 => Gone {},
        /// The place of a kernel file system is not an ordinary directory.
        17 => KernelPlace {},
        /// A mount over what the kernel shows in /proc.
        18 => InsideProc {},
    }
}

flat_struct! {
    /// A numbered request.
    Numbered {
        /// The request's number.
        number: u64,
        /// Its bytes.
        body: Vec<u8>,
    }
}
