//! One instruction after the other: expansion, operation, configuration, history, step.

use std::sync::Arc;

use sampan_oci::History;
use serde_json::json;

use super::graph::{File, FileAction, Op, OpId, Step};
use super::lint;
use super::planner::{Command, DEFAULT_PATH, Fault, Planner, fault};
use super::ports;
use super::request::PlanError;
use super::scope::{join, set_line};
use super::signal::is_signal;
use crate::dockerfile::{Argument, CommandLine, Head, Kind, Lines, Pair, rules};

/// What an instruction did.
#[derive(Debug, Default)]
pub(super) struct Done {
    pub(super) op: Option<OpId>,
    pub(super) name: String,
    pub(super) number: Option<(usize, usize)>,
    pub(super) history: Option<History>,
}

impl Planner<'_> {
    /// Plans all instructions of a stage.
    pub(super) fn dispatch_stage(&mut self, stage: usize) -> Result<(), PlanError> {
        self.begin(stage).map_err(|message| fault(message, self.stages[stage].lines))?;
        let first = self.steps.len();
        self.stage_step(stage)?;
        for command in std::mem::take(&mut self.stages[stage].commands) {
            let lines = command.instruction.head.lines;
            let at = |message: String| fault(message, Some(lines));
            let done = self.dispatch(stage, &command).map_err(|fault| fault.at(lines))?;
            self.step(stage, &command.instruction.head, done, command.trigger).map_err(at)?;
            // The next stage wants to know the triggers.
            self.stages[stage].commands.push(command);
        }
        self.stages[stage].steps = first..self.steps.len();
        Ok(())
    }

    /// Takes over what the stage begins with.
    fn begin(&mut self, stage: usize) -> Result<(), String> {
        if let Some(base) = self.stages[stage].base {
            let base = &self.stages[base];
            let (root, platform, config) = (base.root, base.platform.clone(), Arc::clone(&base.config));
            let (variables, workdir_set, base_image) = (base.variables.clone(), base.workdir_set, base.base_image.clone());
            let build_args = base.build_args.clone();
            let state = &mut self.stages[stage];
            (state.root, state.platform, state.config) = (root, platform, config);
            (state.variables, state.workdir_set, state.base_image) = (variables, workdir_set, base_image);
            state.build_args.extend(build_args);
            self.config(stage).config.on_build = None;
        }
        let state = &self.stages[stage];
        let build_args: usize = state.build_args.iter().map(|(key, value)| key.len() + value.as_ref().map_or(0, String::len) + 64).sum();
        let weight = state.variables.weight() + build_args + self.weight(stage);
        self.spend(weight)?;
        self.stages[stage].dispatched = true;
        let env = self.config(stage).config.env.get_or_insert_default();
        if !env.iter().any(|line| line.starts_with("PATH=")) {
            env.push(format!("PATH={DEFAULT_PATH}"));
        }
        let lines = env.clone();
        let state = &mut self.stages[stage];
        for line in lines {
            let (key, value) = line.split_once('=').unwrap_or((&line, ""));
            state.variables.set(key, value);
        }
        let config = self.config(stage);
        if !config.config.working_dir.is_empty() && !config.config.working_dir.starts_with('/') {
            config.config.working_dir = join("/", &config.config.working_dir);
        }
        Ok(())
    }

    fn stage_step(&mut self, stage: usize) -> Result<(), PlanError> {
        let state = &self.stages[stage];
        let (Some(head), Some(index)) = (state.head.clone(), state.index) else { return Ok(()) };
        let step = Step {
            stage: index,
            number: state.from_number,
            lines: head.lines,
            name: state.from_name.clone(),
            text: head.code.clone(),
            op: if state.base.is_none() { state.image_op } else { None },
            root: state.root,
            config_after: Arc::clone(&state.config),
            history: None,
            no_cache: state.no_cache,
            from: true,
            trigger: false,
        };
        let weight = self.weight(stage);
        self.spend(weight).map_err(|message| fault(message, Some(head.lines)))?;
        self.steps.push(step);
        Ok(())
    }

    fn step(&mut self, stage: usize, head: &Head, done: Done, trigger: bool) -> Result<(), String> {
        let weight = self.weight(stage);
        self.spend(weight)?;
        let state = &self.stages[stage];
        self.steps.push(Step {
            stage: state.index.unwrap_or_default(),
            number: done.number,
            lines: head.lines,
            name: done.name,
            text: head.code.clone(),
            op: done.op,
            root: state.root,
            config_after: Arc::clone(&state.config),
            history: done.history,
            no_cache: state.no_cache,
            from: false,
            trigger,
        });
        Ok(())
    }

    fn dispatch(&mut self, stage: usize, command: &Command) -> Result<Done, Fault> {
        let head = &command.instruction.head;
        let lines = head.lines;
        let history = match &command.instruction.kind {
            Kind::From(_) => return Err("*instructions.Stage is not a command type".to_owned().into()),
            Kind::Run(run) => return Ok(self.run(stage, command, run)?),
            Kind::Copy(transfer) => return self.transfer(stage, command, transfer, false),
            Kind::Add(transfer) => return self.transfer(stage, command, transfer, true),
            Kind::Workdir(path) => return Ok(self.workdir(stage, command, path)?),
            Kind::Onbuild(trigger) => {
                self.config(stage).config.on_build.get_or_insert_default().push(trigger.clone());
                return Ok(Done::default());
            }
            Kind::Arg(arguments) => self.arg(stage, lines, arguments)?,
            Kind::Env(pairs) => self.env(stage, head, pairs)?,
            Kind::Label(pairs) => self.label(stage, head, pairs)?,
            Kind::Cmd(line) => self.cmd(stage, head, line),
            Kind::Entrypoint(line) => self.entrypoint(stage, head, line),
            Kind::Expose(words) => self.expose(stage, lines, words)?,
            Kind::User(user) => {
                let user = self.word(stage, lines, user)?;
                self.config(stage).config.user.clone_from(&user);
                self.commit(stage, format!("USER {user}"), false)
            }
            Kind::Volume(paths) => self.volume(stage, lines, paths)?,
            Kind::StopSignal(signal) => {
                let signal = self.word(stage, lines, signal)?;
                if !is_signal(&signal) {
                    return Err(format!("invalid signal: {signal}").into());
                }
                self.config(stage).config.stop_signal.clone_from(&signal);
                self.commit(stage, format!("STOPSIGNAL {signal}"), false)
            }
            Kind::Shell(words) => {
                self.config(stage).config.shell = Some(words.clone());
                self.commit(stage, format!("SHELL [{}]", words.join(" ")), false)
            }
            Kind::Healthcheck(check) => {
                let before = self.stages[stage].healthcheck.replace(lines);
                lint::once(self, head, before);
                self.config(stage).config.healthcheck = Some(check.clone());
                self.commit(stage, format!("HEALTHCHECK {}", printed_check(check)), false)
            }
            Kind::Maintainer(name) => {
                self.config(stage).author.clone_from(name);
                self.commit(stage, format!("MAINTAINER {name}"), false)
            }
        };
        Ok(Done { history: Some(history), ..Done::default() })
    }

    fn env(&mut self, stage: usize, head: &Head, pairs: &[Pair]) -> Result<History, String> {
        let pairs = self.pairs(stage, head.lines, pairs)?;
        let mut message = "ENV".to_owned();
        for (key, value, legacy) in pairs {
            if legacy {
                lint::legacy(self, head);
            }
            lint::secret(self, "ENV", &key, head.lines);
            message.push_str(&format!(" {key}={value}"));
            self.stages[stage].variables.set(&key, &value);
            set_line(self.config(stage).config.env.get_or_insert_default(), &key, &value);
        }
        Ok(self.commit(stage, message, false))
    }

    /// All values of an instruction are those at its beginning.
    fn pairs(&mut self, stage: usize, lines: Lines, pairs: &[Pair]) -> Result<Vec<(String, String, bool)>, String> {
        let pair = |pair: &Pair| Ok((self.word(stage, lines, &pair.key)?, self.word(stage, lines, &pair.value)?, pair.legacy));
        pairs.iter().map(pair).collect()
    }

    fn label(&mut self, stage: usize, head: &Head, pairs: &[Pair]) -> Result<History, String> {
        let pairs = self.pairs(stage, head.lines, pairs)?;
        let mut message = "LABEL".to_owned();
        for (key, value, legacy) in pairs {
            if legacy {
                lint::legacy(self, head);
            }
            message.push_str(&format!(" {key}={value}"));
            self.config(stage).config.labels.insert(key, value);
        }
        Ok(self.commit(stage, message, false))
    }

    fn arg(&mut self, stage: usize, lines: Lines, arguments: &[Argument]) -> Result<History, String> {
        let mut parts = Vec::with_capacity(arguments.len());
        for argument in arguments {
            let key = &argument.key;
            lint::secret(self, "ARG", key, lines);
            self.declared.insert(key.clone());
            let value = match (self.request.build_args.get(key), &argument.value) {
                (Some(given), _) => Some(given.clone()),
                (None, Some(default)) => Some(self.word(stage, lines, default)?),
                (None, None) => self.globals.get(key).map(str::to_owned),
            };
            if let Some(value) = value.as_ref().filter(|_| !key.starts_with("BUILDKIT_SBOM_SCAN_")) {
                self.stages[stage].variables.set(key, value);
            }
            parts.push(value.as_ref().map_or_else(|| key.clone(), |value| format!("{key}={value}")));
            self.stages[stage].build_args.push((key.clone(), value));
        }
        Ok(self.commit(stage, format!("ARG {}", parts.join(" ")), false))
    }

    /// A command with the shell before it, where it was written without.
    pub(super) fn with_shell(&self, stage: usize, line: &CommandLine) -> Vec<String> {
        if !line.shell_form {
            return line.words.clone();
        }
        let shell = self.stages[stage].config.config.shell.as_ref().filter(|shell| !shell.is_empty());
        let mut words = shell.cloned().unwrap_or_else(|| vec!["/bin/sh".to_owned(), "-c".to_owned()]);
        words.push(line.words.join(" "));
        words
    }

    fn recommend_json(&mut self, stage: usize, head: &Head, line: &CommandLine) {
        let shell = self.stages[stage].config.config.shell.as_ref();
        if line.shell_form && shell.is_none_or(Vec::is_empty) {
            lint::shell_form(self, head);
        }
    }

    fn cmd(&mut self, stage: usize, head: &Head, line: &CommandLine) -> History {
        let before = self.stages[stage].cmd.replace(head.lines);
        lint::once(self, head, before);
        self.recommend_json(stage, head, line);
        let words = self.with_shell(stage, line);
        let message = format!("CMD {}", printed_list(&words));
        let config = &mut self.config(stage).config;
        (config.cmd, config.args_escaped) = (Some(words).filter(|words| !words.is_empty()), true);
        self.commit(stage, message, false)
    }

    fn entrypoint(&mut self, stage: usize, head: &Head, line: &CommandLine) -> History {
        let before = self.stages[stage].entrypoint.replace(head.lines);
        lint::once(self, head, before);
        self.recommend_json(stage, head, line);
        let words = self.with_shell(stage, line);
        let message = format!("ENTRYPOINT {}", printed_list(&words));
        let own_cmd = self.stages[stage].cmd.is_some();
        let config = &mut self.config(stage).config;
        config.entrypoint = (!words.is_empty()).then_some(words);
        // Arguments made for another entry point mean nothing to this one.
        if !own_cmd {
            config.cmd = None;
        }
        self.commit(stage, message, false)
    }

    fn expose(&mut self, stage: usize, lines: Lines, words: &[String]) -> Result<History, Fault> {
        let mut expanded = Vec::new();
        for word in words {
            expanded.extend(self.expand_with(stage, word, self.lexer)?.words);
        }
        let mut found = Vec::new();
        for word in expanded {
            let ports = ports::parse(&word, lines, &mut self.findings)?;
            self.spend(ports.len() * 64)?;
            found.extend(ports);
        }
        let config = &mut self.config(stage).config;
        config.exposed_ports.extend(found.iter().map(|port| (port.clone(), json!({}))));
        Ok(self.commit(stage, format!("EXPOSE [{}]", found.join(" ")), false))
    }

    fn volume(&mut self, stage: usize, lines: Lines, paths: &[String]) -> Result<History, String> {
        let paths = self.words(stage, lines, paths)?;
        if paths.iter().any(String::is_empty) {
            return Err("VOLUME specified can not be an empty string".to_owned());
        }
        self.config(stage).config.volumes.extend(paths.iter().map(|path| (path.clone(), json!({}))));
        Ok(self.commit(stage, format!("VOLUME [{}]", paths.join(" ")), false))
    }

    fn workdir(&mut self, stage: usize, command: &Command, path: &str) -> Result<Done, String> {
        let head = &command.instruction.head;
        let path = self.word(stage, head.lines, path)?;
        if !std::mem::replace(&mut self.stages[stage].workdir_set, true) && !path.starts_with('/') {
            let text = format!("Relative workdir {} can have unexpected results if the base image changes", sampan_gotext::quote(&path));
            self.findings.push(rules::WORKDIR_RELATIVE_PATH.warn(head.lines, text));
        }
        // The configuration keeps an absolute path as it was written.
        let clean = join(&self.stages[stage].config.config.working_dir, &path);
        let path = if path.starts_with('/') { path } else { clean.clone() };
        self.config(stage).config.working_dir.clone_from(&path);
        let mut done = Done::default();
        if path != "/" {
            let shown = self.shown(stage, &head.code, self.lexer);
            (done.name, done.number) = self.numbered(stage, &shown, command.trigger);
            let owner = Some(self.stages[stage].config.config.user.clone()).filter(|user| !user.is_empty());
            let actions = vec![FileAction::Mkdir { path: clean, mode: 0o755, owner }];
            let op = self.op(Op::File(File { root: self.stages[stage].root, actions, link: false }));
            self.stages[stage].root = Some(op);
            done.op = Some(op);
        }
        done.history = Some(self.commit(stage, format!("WORKDIR {path}"), done.op.is_some()));
        Ok(done)
    }
}

/// A list as Go's `%q` prints it.
fn printed_list(words: &[String]) -> String {
    format!("[{}]", words.iter().map(|word| sampan_gotext::quote(word)).collect::<Vec<_>>().join(" "))
}

/// A health check as Go's `%q` prints the structure: numbers become characters.
fn printed_check(check: &sampan_oci::Healthcheck) -> String {
    let times = [check.interval, check.timeout, check.start_period, check.start_interval];
    let times: Vec<String> = times.iter().map(|time| sampan_gotext::quote(&sampan_gotext::duration::print(*time))).collect();
    let retries = u32::try_from(check.retries).ok().and_then(char::from_u32).unwrap_or(char::REPLACEMENT_CHARACTER);
    let retries = match retries {
        '\'' => "\\'".to_owned(),
        '"' => "\"".to_owned(),
        other => sampan_gotext::quote(&other.to_string()).trim_matches('"').to_owned(),
    };
    format!("&{{{} {} '{retries}'}}", printed_list(&check.test), times.join(" "))
}
