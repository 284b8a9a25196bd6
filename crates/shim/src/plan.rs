//! The plan of one container process: everything resolved, nothing left to decide.
//!
//! Paths in `mounts` sources, `cgroup`, `log`, `record` and `socket` are the host's; all others are the container's and are only
//! ever resolved inside its root.

use crate::flat::{flat_enum, flat_struct};

flat_struct! {
    /// A whole container.
    Plan {
        /// Its id, for messages.
        id: String,
        /// Its process 1.
        process: ProcessPlan,
        /// New namespaces, as clone3 flags.
        namespaces: u64,
        /// Whether a cgroup namespace is made, once the process is in its cgroup.
        cgroup_namespace: bool,
        /// How many namespace descriptors come with the plan, to be joined in their order.
        joins: u32,
        /// How many mounts come as descriptors behind the joins, for [`MountSource::Given`].
        given: u32,
        /// Whether the first join is a pid namespace, to be entered by the parent.
        join_pid: bool,
        /// Host name; empty: unchanged.
        hostname: String,
        /// NIS domain name; empty: unchanged.
        domainname: String,
        /// Below /proc/sys: path to value.
        sysctls: Vec<(String, String)>,
        /// An existing directory of the host at which the root is attached for a moment.
        root_place: String,
        /// Propagation of the host's mounts into the container: true for slave, false for private.
        root_slave: bool,
        /// In this order.
        mounts: Vec<MountStep>,
        /// Device nodes in /dev.
        devices: Vec<DeviceNode>,
        /// Symbolic links in /dev: name to target.
        links: Vec<(String, String)>,
        /// Hidden.
        masked: Vec<String>,
        /// Made read-only.
        readonly: Vec<String>,
        /// Whether the root itself is read-only.
        root_readonly: bool,
        /// Made before the start if missing.
        create_cwd: bool,
        /// Where its processes are counted and limited.
        cgroup: CgroupPlan,
        /// Its log; `None`: output goes to attached clients only.
        log: Option<LogPlan>,
        /// File of the exit record.
        record: String,
        /// Socket that a restarted daemon connects to.
        socket: String,
    }
}

flat_struct! {
    /// One process of a container, its first or a further one.
    ProcessPlan {
        /// Program and arguments.
        arguments: Vec<String>,
        /// Environment, `KEY=value`.
        environment: Vec<String>,
        /// Working directory.
        cwd: String,
        /// User id.
        uid: u32,
        /// Group id.
        gid: u32,
        /// Additional groups.
        groups: Vec<u32>,
        /// File mode mask.
        umask: u32,
        /// Capability sets as bit masks: bounding.
        bounding: u64,
        /// Permitted.
        permitted: u64,
        /// Effective.
        effective: u64,
        /// Inheritable.
        inheritable: u64,
        /// Ambient.
        ambient: u64,
        /// Whether set-user-id programs stay powerless.
        no_new_privileges: bool,
        /// Limits: number, soft, hard.
        limits: Vec<(u32, (u64, u64))>,
        /// −1000 to 1000; `None`: inherited.
        oom_score_adj: Option<i32>,
        /// AppArmor profile for the exec; empty: none.
        apparmor: String,
        /// Ready seccomp filter; `None`: none.
        seccomp: Option<Vec<u8>>,
        /// With a pseudo-terminal.
        terminal: bool,
        /// Its first size.
        width: u16,
        /// Its first size.
        height: u16,
        /// Whether standard input is a pipe; otherwise it is empty.
        stdin: bool,
        /// Whether it closes when the first client that wrote to it leaves.
        stdin_once: bool,
    }
}

flat_struct! {
    /// One mount.
    MountStep {
        /// What.
        source: MountSource,
        /// Where in the container; missing directories and files are made.
        target: String,
        /// Attributes to set (`MOUNT_ATTR_*`).
        attributes: u64,
        /// Whether the attributes go for everything below.
        recursive: bool,
        /// Whether a kernel that cannot make all of it read-only fails the start.
        force_recursive: bool,
        /// 0: as it is; 1: private; 2: shared; 3: slave; + 8: recursive.
        propagation: u8,
        /// tmpfs: start with what the image has at the target's place.
        copy_up: bool,
    }
}

flat_enum! {
    /// What a mount shows.
    MountSource {
        /// A new file system: type and options (an empty value: a flag).
        1 => New {
            /// `proc`, `tmpfs`, …
            kind: String,
            /// Options.
            options: Vec<(String, String)>,
        },
        /// A place of the host.
        2 => Bind {
            /// Path on the host.
            path: String,
            /// With the mounts below.
            recursive: bool,
        },
        /// A place inside a directory of the host that the container may have filled: resolved inside it.
        3 => BindBeneath {
            /// The directory.
            directory: String,
            /// The place in it.
            path: String,
        },
        /// A detached mount that came with the plan.
        4 => Given {
            /// Which, from 0.
            number: u32,
        },
    }
}

impl Default for MountSource {
    fn default() -> Self {
        Self::New { kind: String::new(), options: Vec::new() }
    }
}

flat_struct! {
    /// A device node.
    DeviceNode {
        /// Path in the container.
        path: String,
        /// `S_IFCHR` or `S_IFBLK` and permission bits.
        mode: u32,
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
    }
}

flat_struct! {
    /// Cgroup directories on the host: one on v2, one a controller on v1.
    CgroupPlan {
        /// v2: the process is born in it.
        unified: bool,
        /// Made with all parents, then written to.
        directories: Vec<CgroupDirectory>,
        /// v2: device filter (eBPF instructions); empty: none.
        device_program: Vec<u8>,
    }
}

flat_struct! {
    /// One cgroup directory.
    CgroupDirectory {
        /// Its path.
        path: String,
        /// Files and values, in this order. A value is written with one write(2).
        writes: Vec<(String, String)>,
        /// Whether a failing write is ignored (a controller that the kernel lacks).
        optional: bool,
    }
}

flat_struct! {
    /// A json-file log.
    LogPlan {
        /// The file.
        path: String,
        /// Bytes at which it is rotated; 0: never.
        max_size: u64,
        /// How many files there may be, at least 1.
        max_files: u32,
        /// A ready JSON object with labels and environment (`{"a":"b"}`); empty: none.
        attributes: String,
    }
}

impl Plan {
    /// The namespaces that a further process has to enter: all kinds, as process 1 may have joined others' too.
    #[must_use]
    pub fn namespaces_of_members(&self) -> u64 {
        use sampan_sys::process::NewNamespaces as New;
        let all = New::MOUNT.union(New::UTS).union(New::IPC).union(New::NET).union(New::CGROUP);
        all.bits()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::flat::{decode, encode};

    proptest! {
        #[test]
        fn a_plan_survives(id: String, mounts in prop::collection::vec((".*", any::<u64>()), 0..5), seccomp: Option<Vec<u8>>) {
            let step = |(target, attributes)| MountStep { target, attributes, source: MountSource::Bind { path: "/x".into(), recursive: true }, ..MountStep::default() };
            let process = ProcessPlan { seccomp, limits: vec![(7, (1, 2))], ..ProcessPlan::default() };
            let plan = Plan { id, process, mounts: mounts.into_iter().map(step).collect(), ..Plan::default() };
            prop_assert_eq!(decode::<Plan>(&encode(&plan)), Ok(plan));
        }

        #[test]
        fn arbitrary_bytes_are_no_plan_and_no_panic(bytes: Vec<u8>) {
            let _either = decode::<Plan>(&bytes);
        }
    }
}
