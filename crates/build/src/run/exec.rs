//! Commands: their keys, what they see, and their run in a sandbox.

use std::collections::BTreeSet;
use std::path::Path;

use sampan_sandbox::{Network as SandboxNetwork, StepBind, StepRequest};

use super::build::Run;
use super::chain::Link;
use super::error::BuildError;
use super::event::Event;
use super::key::{Parts, hash};
use crate::files::{Applied, Target, apply, digest, quota, select};
use crate::plan::{Copy, Exec, FileAction, Mode, Mount, MountKind, Network, OpId, Security, Sharing, Unpack};

type Get<'a> = &'a dyn Fn(usize) -> Option<Link>;

impl Run<'_> {
    /// What a command's result depends on.
    pub(crate) fn exec_parts(&self, exec: &Exec, link: &Link, get: Get<'_>) -> Result<Parts, BuildError> {
        let mut parts = self
            .parts(link)
            .with("command", exec.args.join(" "))
            .with("arguments", hash(&format!("{:?}", exec.args)))
            .with("working directory", exec.cwd.clone())
            .with("user", exec.user.clone())
            .with("network", format!("{:?}", exec.network))
            .with("security", format!("{:?}", exec.security));
        for line in &exec.env {
            let (name, value) = line.split_once('=').unwrap_or((line, ""));
            // Values may be secrets that somebody gave as an argument: a long one is not kept.
            parts = parts.with(&format!("variable {name}"), hash(value));
        }
        for (number, mount) in exec.mounts.iter().enumerate() {
            let (mut kind, mut files) = (format!("{:?}", mount.kind), String::new());
            match &mount.kind {
                MountKind::Bind => files = self.bound_digest(mount, get)?,
                // What a cache holds is no part of a key.
                MountKind::Cache { id, .. } => kind = format!("cache {id}"),
                MountKind::Secret { id, .. } => kind = format!("secret {id}"),
                _ => {}
            }
            parts = parts.with(&format!("mount {} at {}", number + 1, mount.target), format!("{kind} {files} {}", mount.readonly));
        }
        Ok(parts)
    }

    fn bound_digest(&self, mount: &Mount, get: Get<'_>) -> Result<String, BuildError> {
        let opened = self.source(mount.from, get)?;
        if let Some(tree) = opened.tree {
            return Ok(format!("{tree} {}", mount.source));
        }
        let copy = bound(mount);
        let selected = select(&*opened.source, &copy, &self.cancel)?;
        Ok(hex::encode(digest(&*opened.source, &copy, &selected, &self.cancel)?))
    }

    /// Runs a command in a folder with `upper` and `work`.
    pub(crate) fn run_exec(&self, step: usize, exec: &Exec, link: &Link, folder: &Path, get: Get<'_>) -> Result<(), BuildError> {
        let mut lowers = self.builder.lowers(&link.layers)?;
        lowers.push(self.builder.places());
        let resources = &self.resources;
        let id = super::builder::random_id()?;
        let mut request = StepRequest {
            id: id.clone(),
            lowers,
            folder: folder.to_owned(),
            arguments: exec.args.clone(),
            environment: exec.env.iter().cloned().chain(exec.proxy_env.iter().map(|(key, value)| format!("{key}={value}"))).collect(),
            cwd: exec.cwd.clone(),
            user: exec.user.clone(),
            network: match &exec.network {
                Network::Default => None,
                Network::None => Some(SandboxNetwork::None),
                Network::Host => Some(SandboxNetwork::Host),
                Network::Join(container) => Some(SandboxNetwork::Join(container.clone())),
            },
            hostname: if resources.hostname.is_empty() { "buildkitsandbox".into() } else { resources.hostname.clone() },
            extra_hosts: resources.extra_hosts.clone(),
            limits: resources.limits.clone(),
            shm_size: resources.shm_size,
            ulimits: resources.ulimits.clone(),
            insecure: exec.security == Security::Insecure,
            binds: Vec::new(),
            tmpfs: Vec::new(),
        };
        if !resources.fault.is_empty() {
            return Err(BuildError::invalid(resources.fault.clone()));
        }
        if !exec.devices.is_empty() {
            return Err(BuildError::unsupported("RUN --device"));
        }
        // In the order of their names, so that two commands never wait for each other.
        let mut locks = BTreeSet::new();
        for mount in &exec.mounts {
            if let MountKind::Cache { id, sharing: Sharing::Locked | Sharing::Private, .. } = &mount.kind {
                locks.insert(format!("cache {id}"));
            }
        }
        let _held = locks.iter().map(|lock| self.builder.flights.take_off(lock, &self.cancel)).collect::<Result<Vec<_>, _>>()?;
        for (number, mount) in exec.mounts.iter().enumerate() {
            let own = folder.join(format!("mount-{number}"));
            self.mount(mount, &own, &mut request, get)?;
        }
        (self.watch)(Event::Running(step, id.clone()));
        let mut print = |output, bytes: &[u8]| (self.watch)(Event::Printed(step, output, bytes));
        let end = self.builder.sandboxes.run_step(request, &mut print, &self.cancel).map_err(|error| BuildError::room("", &error))?;
        if end.code != 0 {
            let (command, process) = (exec.display.clone(), exec.args.join(" "));
            return Err(BuildError::Command { command, process, code: end.code });
        }
        (self.watch)(Event::Removed(step, id));
        Ok(())
    }

    /// Makes one mount ready.
    fn mount(&self, mount: &Mount, own: &Path, request: &mut StepRequest, get: Get<'_>) -> Result<(), BuildError> {
        let mut bind = |source: &Path, readonly| {
            request.binds.push(StepBind { source: source.to_owned(), target: mount.target.clone(), readonly });
        };
        match &mount.kind {
            MountKind::Tmpfs { size } => request.tmpfs.push((mount.target.clone(), *size)),
            MountKind::Script { content } => {
                use std::os::unix::fs::PermissionsExt as _;
                let write = || {
                    std::fs::write(own, content)?;
                    std::fs::set_permissions(own, std::fs::Permissions::from_mode(0o755))
                };
                write().map_err(BuildError::io("write a script"))?;
                bind(own, true);
            }
            MountKind::Cache { id, mode, uid, gid, .. } => {
                let place = self.builder.cache_folder(id, (*mode, *uid, *gid))?;
                if mount.from.is_some() && std::fs::read_dir(&place).is_ok_and(|mut entries| entries.next().is_none()) {
                    self.fill(mount, mount.from, &place, get)?;
                }
                bind(&place, mount.readonly);
            }
            MountKind::Bind => {
                std::fs::create_dir(own).map_err(BuildError::io("make a place for a mount"))?;
                let name = self.fill(mount, mount.from, own, get)?;
                // What is written to a copy is dropped with it.
                bind(&name.map_or_else(|| own.to_owned(), |name| own.join(name)), mount.readonly);
            }
            MountKind::Secret { id, required, .. } if *required => {
                return Err(BuildError::unsupported(&format!("the secret {id} (secrets need BuildKit's protocol)")));
            }
            MountKind::Ssh { required, .. } if *required => {
                return Err(BuildError::unsupported("RUN --mount=type=ssh (it needs BuildKit's protocol)"));
            }
            MountKind::Secret { .. } | MountKind::Ssh { .. } => {}
        }
        Ok(())
    }

    /// Copies what a mount shows into a folder; a file's name is given back.
    fn fill(&self, mount: &Mount, from: Option<OpId>, place: &Path, get: Get<'_>) -> Result<Option<String>, BuildError> {
        let opened = self.source(from, get)?;
        let copy = bound(mount);
        let selected = select(&*opened.source, &copy, &self.cancel)?;
        let file = selected.first().filter(|one| one.node.kind != crate::files::NodeKind::Directory);
        let name = file.map(|one| String::from_utf8_lossy(&one.name).into_owned());
        let root = sampan_sys::dir::open(place).map_err(BuildError::io("open a place for a mount"))?;
        let action = FileAction::Copy(Box::new(copy));
        let applied = Applied { action: &action, source: Some(&*opened.source), selected, download: false };
        apply(&Target::plain(root), &[applied], self.now(), quota(&self.builder.folder), &self.cancel)?;
        Ok(name)
    }
}

/// A mount's files as a copy.
fn bound(mount: &Mount) -> Copy {
    Copy {
        from: mount.from,
        source: if mount.source.is_empty() { "/".into() } else { mount.source.clone() },
        source_as_written: mount.source.clone(),
        dest: "/".into(),
        dest_is_dir: true,
        owner: None,
        mode: Mode::Keep,
        excludes: Vec::new(),
        parents: None,
        unpack: Unpack::Never,
        add: false,
    }
}
