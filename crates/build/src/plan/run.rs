//! RUN: the command, its heredocs, its mounts.

use sampan_gotext::ignore::clean;
use sampan_gotext::shellwords::Lexer;

use super::dispatch::Done;
use super::graph::{Exec, Mount, MountKind, Network, Op, Security, Sharing};
use super::planner::{Command, Planner};
use super::scope::join;
use crate::dockerfile::{CommandLine, Heredoc, MountOptions, Run, chomped, heredoc, parse_mount};

impl Planner<'_> {
    pub(super) fn run(&mut self, stage: usize, command: &Command, run: &Run) -> Result<Done, String> {
        let lines = command.instruction.head.lines;
        let mut options = Vec::with_capacity(run.mounts.len());
        for text in &run.mounts {
            options.push(parse_mount(text, &mut |value| self.word(stage, lines, value))?);
        }
        let mut shown = command.instruction.head.code.clone();
        let (line, script) = with_heredocs(run, &mut shown)?;
        let args = self.with_shell(stage, &line);
        let mut mounts: Vec<Mount> = script.into_iter().collect();
        for (number, option) in options.iter().enumerate() {
            mounts.push(self.mount(stage, option, command.sources.get(number).copied())?);
        }
        let (network, security) = self.confinement(run)?;
        let lexer = Lexer { raw_quotes: true, skip_unset: true, ..self.lexer };
        let shown = self.shown_masked(stage, &shown, lexer, &options);
        let (name, number) = self.numbered(stage, &shown, command.trigger);
        let proxies = self.request.build_args.iter().filter(|(key, _)| is_proxy(key));
        self.spend(self.stages[stage].variables.weight())?;
        let config = &self.stages[stage].config.config;
        let exec = Exec {
            root: self.stages[stage].root,
            args: args.clone(),
            env: self.stages[stage].variables.lines(),
            proxy_env: proxies.map(|(key, value)| (key.clone(), value.clone())).collect(),
            cwd: join("/", &config.working_dir),
            user: config.user.clone(),
            network,
            security,
            devices: Vec::new(),
            mounts,
            shell_form: run.command.shell_form,
            display: args.join(" "),
        };
        let op = self.op(Op::Exec(Box::new(exec)));
        self.stages[stage].root = Some(op);
        let message = format!("RUN {} # buildkit", self.recorded(stage, &args));
        self.spend(message.len())?;
        let history = Some(self.commit(stage, message, true));
        Ok(Done { op: Some(op), name, number, history })
    }

    /// The command with the ARGs in scope before it, as the history has it.
    fn recorded(&self, stage: usize, args: &[String]) -> String {
        let state = &self.stages[stage];
        let mut keys: Vec<&str> = Vec::new();
        let mut seen = std::collections::BTreeSet::new();
        let mut last = std::collections::BTreeMap::new();
        for (key, value) in &state.build_args {
            if seen.insert(key.as_str()) {
                keys.push(key);
            }
            last.insert(key.as_str(), value.as_deref().unwrap_or_default());
        }
        let mut words: Vec<String> = Vec::new();
        if !keys.is_empty() {
            words.push(format!("|{}", keys.len()));
        }
        words.extend(keys.iter().map(|key| format!("{key}={}", state.variables.get(key).unwrap_or_else(|| last[key]))));
        words.extend_from_slice(args);
        words.join(" ")
    }

    /// The text for progress; variables that come from secrets are stars.
    fn shown_masked(&mut self, stage: usize, code: &str, lexer: Lexer, options: &[MountOptions]) -> String {
        let secrets: Vec<&String> =
            options.iter().filter(|option| option.kind == "secret").filter_map(|option| option.env.as_ref()).collect();
        if secrets.is_empty() {
            return self.shown(stage, code, lexer);
        }
        let kept = self.stages[stage].variables.clone();
        if self.spend(kept.weight()).is_err() {
            return code.to_owned();
        }
        for name in secrets {
            self.stages[stage].variables.set(name, "****");
        }
        let shown = self.shown(stage, code, lexer);
        self.stages[stage].variables = kept;
        shown
    }

    fn confinement(&self, run: &Run) -> Result<(Network, Security), String> {
        let network = match run.network.as_str() {
            "none" => Network::None,
            "host" => Network::Host,
            _ => self.request.network.clone(),
        };
        if run.network == "host" && !self.request.entitlements.network_host {
            return Err("network.host is not allowed".to_owned());
        }
        let security = if run.security == "insecure" { Security::Insecure } else { Security::Sandbox };
        if security == Security::Insecure && !self.request.entitlements.security_insecure {
            return Err("security.insecure is not allowed".to_owned());
        }
        Ok((network, security))
    }

    fn mount(&mut self, stage: usize, option: &MountOptions, source: Option<usize>) -> Result<Mount, String> {
        let cwd = self.stages[stage].config.config.working_dir.clone();
        let owner = (option.uid.unwrap_or(0), option.gid.unwrap_or(0));
        let mut mount = Mount {
            kind: MountKind::Bind,
            target: join(&cwd, &option.target),
            from: None,
            source: join("/", &option.source),
            readonly: option.readonly,
        };
        match option.kind.as_str() {
            "secret" => return secret(option, mount, owner),
            "ssh" if !option.source.is_empty() => return Err("ssh does not support source".to_owned()),
            "ssh" => {
                let id = if option.id.is_empty() { "default".to_owned() } else { option.id.clone() };
                let mode = option.mode.unwrap_or(0o600);
                mount.kind = MountKind::Ssh { id, required: option.required, mode, uid: owner.0, gid: owner.1 };
                if option.target.is_empty() {
                    mount.target.clear();
                }
                return Ok(mount);
            }
            _ => {}
        }
        if !option.from.is_empty() {
            let root = source.and_then(|source| self.source_root(source));
            let Some(root) = root else {
                let quote = sampan_gotext::quote;
                let (from, target) = (quote(&option.from), quote(&option.target));
                return Err(format!("cannot mount from stage {from} to {target}, stage needs to be defined before current command"));
            };
            mount.from = root;
        }
        match option.kind.as_str() {
            "cache" => {
                let id = if option.id.is_empty() { clean(&option.target) } else { option.id.clone() };
                let space = self.request.build_args.get("BUILDKIT_CACHE_MOUNT_NS");
                let id = space.map_or_else(|| id.clone(), |space| format!("{space}/{id}"));
                let sharing = match option.sharing.as_str() {
                    "private" => Sharing::Private,
                    "locked" => Sharing::Locked,
                    _ => Sharing::Shared,
                };
                mount.kind = MountKind::Cache { id, sharing, mode: option.mode.unwrap_or(0o755), uid: owner.0, gid: owner.1 };
            }
            "tmpfs" => mount.kind = MountKind::Tmpfs { size: option.size },
            _ if option.from.is_empty() => mount.from = Some(self.context("")),
            _ => {}
        }
        if mount.target == "/" {
            return Err(format!("invalid mount target {}", sampan_gotext::quote(&mount.target)));
        }
        Ok(mount)
    }
}

/// What a RUN runs, heredocs resolved; a script of its own becomes a mount.
fn with_heredocs(run: &Run, shown: &mut String) -> Result<(CommandLine, Option<Mount>), String> {
    let Some(first) = run.heredocs.first() else { return Ok((run.command.clone(), None)) };
    let [line] = run.command.words.as_slice() else {
        return Err(format!("parsing produced an invalid run command: [{}]", run.command.words.join(" ")));
    };
    let shell_form = |words: Vec<String>| CommandLine { words, shell_form: true };
    if !matches!(heredoc(line), Ok(Some(_))) {
        // The shell reads them.
        let bodies: String = run.heredocs.iter().map(|Heredoc { name, content, .. }| format!("\n{content}{name}")).collect();
        return Ok((shell_form(vec![format!("{line}{bodies}")]), None));
    }
    let content = if first.chomp { chomped(&first.content) } else { first.content.clone() };
    shown.push_str(&format!(" ({})", summary(&first.content)));
    if !first.content.starts_with("#!") {
        return Ok((shell_form(vec![content]), None));
    }
    let target = format!("/dev/pipes/{}", first.name);
    let kind = MountKind::Script { content };
    let mount = Mount { kind, target: target.clone(), from: None, source: "/".to_owned(), readonly: true };
    Ok((shell_form(vec![target]), Some(mount)))
}

fn summary(content: &str) -> String {
    let content = content.trim();
    let mut lines = content.lines();
    let first = lines.next().unwrap_or_default();
    if lines.next().is_some() { format!("{first}...") } else { first.to_owned() }
}

fn secret(option: &MountOptions, mut mount: Mount, owner: (u32, u32)) -> Result<Mount, String> {
    let base = |path: &str| path.trim_end_matches('/').rsplit('/').next().unwrap_or_default().to_owned();
    let id = match (option.source.as_str(), option.id.as_str()) {
        ("", "") if option.target.is_empty() => return Err("one of source, target required".to_owned()),
        ("", "") => base(&option.target),
        ("", id) => id.to_owned(),
        (source, _) => source.to_owned(),
    };
    if option.target.is_empty() {
        mount.target = if option.env.is_some() { String::new() } else { format!("/run/secrets/{}", base(&id)) };
    }
    mount.source = "/".to_owned();
    let (mode, env) = (option.mode.unwrap_or(0o400), option.env.clone());
    mount.kind = MountKind::Secret { id, env, required: option.required, mode, uid: owner.0, gid: owner.1 };
    Ok(mount)
}

/// Whether a build argument is a proxy variable, which every command sees.
pub(super) fn is_proxy(key: &str) -> bool {
    ["http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy"].contains(&key.to_ascii_lowercase().as_str())
}
