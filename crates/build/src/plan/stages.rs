//! Stages: what they begin with, what they read, which of them are needed, and the images behind them.

use std::collections::BTreeSet;
use std::sync::Arc;

use sampan_base::ErrorKind;
use sampan_gotext::shellwords::Lexer;
use sampan_oci::{ImageConfig, Platform, Reference};

use super::graph::{Op, OpId};
use super::lint;
use super::planner::{Command, Planner, StageState, empty_image, fault};
use super::request::{BaseError, NamedContext, NoCache, PlanError};
use crate::dockerfile::{Instruction, Kind, Lines, StageSource, mount_from, parse_one, rules, with_suggestion};

/// What a trigger costs at least; a stage's triggers run again in every stage that begins with it.
const TRIGGER_COST: usize = 4096;
/// The most stages and images of one plan.
const MAX_STAGES: usize = 20_000;
/// Images that people mean when they mistype.
const COMMON: [&str; 7] = ["alpine", "busybox", "centos", "debian", "golang", "ubuntu", "fedora"];

impl Planner<'_> {
    /// The variables before the first FROM.
    pub(super) fn plan_globals(&mut self) -> Result<(), PlanError> {
        let (build, target) = (self.build.clone(), self.target.clone());
        let last = self.file.stages.last().map(|stage| stage.from.name.clone()).unwrap_or_default();
        let stage = self.request.target.clone().filter(|name| !name.is_empty()).unwrap_or(last);
        let stage = if stage.is_empty() { "default".to_owned() } else { stage };
        let platform = [
            ("BUILDPLATFORM", build.to_string()),
            ("BUILDOS", build.os),
            ("BUILDOSVERSION", String::new()),
            ("BUILDARCH", build.architecture),
            ("BUILDVARIANT", build.variant),
            ("TARGETPLATFORM", target.to_string()),
            ("TARGETOS", target.os),
            ("TARGETOSVERSION", String::new()),
            ("TARGETARCH", target.architecture),
            ("TARGETVARIANT", target.variant),
            ("TARGETSTAGE", stage),
        ];
        for (key, default) in platform {
            let value = self.request.build_args.get(key).unwrap_or(&default).clone();
            Arc::make_mut(&mut self.globals).set(key, &value);
        }
        let defaults = Arc::clone(&self.globals);
        if let Ok(globals) = self.global_values(false) {
            lint::default_bases(self, &globals);
        }
        self.globals = defaults;
        self.globals = Arc::new(self.global_values(true)?);
        Ok(())
    }

    fn global_values(&mut self, given: bool) -> Result<super::scope::Variables, PlanError> {
        let mut globals = (*self.globals).clone();
        for instruction in &self.file.global_args {
            let Kind::Arg(arguments) = &instruction.kind else { continue };
            for argument in arguments {
                self.declared.insert(argument.key.clone());
                let at = |message: String| fault(message, Some(instruction.head.lines));
                let value = match (self.request.build_args.get(&argument.key).filter(|_| given), &argument.value) {
                    (Some(value), _) => Some(value.clone()),
                    (None, Some(text)) => {
                        let done =
                            self.lexer.expand(text, &|name| globals.get(name).map(str::to_owned)).map_err(|error| at(error.to_string()))?;
                        self.spend(done.cost).map_err(at)?;
                        Some(done.text)
                    }
                    (None, None) => None,
                };
                if let Some(value) = value {
                    globals.set(&argument.key, &value);
                }
            }
        }
        Ok(globals)
    }

    /// Sets up all stages of the file.
    pub(super) fn plan_stages(&mut self) -> Result<(), PlanError> {
        for (index, source) in self.file.stages.iter().enumerate() {
            let stage = self.stage(index, source)?;
            self.add(stage);
        }
        Ok(())
    }

    /// Adds a stage; a later one hides an earlier one of the same name.
    fn add(&mut self, mut stage: StageState) -> usize {
        if stage.context.is_none() {
            stage.base = self.by_name.get(&stage.base_name).copied();
        }
        if stage.index.is_some() {
            let own = usize::from(stage.base.is_none() && stage.base_name != "scratch");
            let counted =
                |command: &&Command| matches!(command.instruction.kind, Kind::Add(_) | Kind::Copy(_) | Kind::Run(_) | Kind::Workdir(_));
            stage.total = own + stage.commands.iter().filter(counted).count();
        }
        let number = self.stages.len();
        if !stage.name.is_empty() {
            self.by_name.insert(stage.name.clone(), number);
        }
        self.stages.push(stage);
        number
    }

    fn stage(&mut self, index: usize, source: &StageSource) -> Result<StageState, PlanError> {
        let lines = source.head.lines;
        let at = |message: String| fault(message, Some(lines));
        let globals = Arc::clone(&self.globals);
        let lookup = |name: &str| globals.get(name).map(str::to_owned);
        let name = self.lexer.expand(&source.from.base, &lookup).map_err(|error| at(error.to_string()))?;
        self.spend(name.cost).map_err(at)?;
        lint::undeclared(self, &name.unmatched, lines);
        if name.text.is_empty() {
            return Err(at(format!("base name ({}) should not be blank", source.from.base)));
        }
        let platform = self.stage_platform(source, &lookup)?;
        let own = &source.from.name;
        let context = if own.is_empty() { None } else { self.named_context(own) };
        let no_cache = match &self.request.no_cache {
            NoCache::No => false,
            NoCache::All => true,
            NoCache::Stages(names) => !own.is_empty() && names.iter().any(|name| name.eq_ignore_ascii_case(own)),
        };
        let command = |instruction: &Instruction| Command { instruction: instruction.clone(), sources: Vec::new(), trigger: false };
        Ok(StageState {
            index: Some(index),
            head: Some(source.head.clone()),
            lines: Some(lines),
            display_name: if own.is_empty() { format!("stage-{index}") } else { own.clone() },
            name: own.clone(),
            base_name: name.text,
            platform,
            context_name: own.clone(),
            commands: if context.is_some() { Vec::new() } else { source.instructions.iter().map(command).collect() },
            context,
            no_cache,
            ..StageState::default()
        })
    }

    fn stage_platform(&mut self, source: &StageSource, lookup: &dyn Fn(&str) -> Option<String>) -> Result<Option<Platform>, PlanError> {
        let (text, lines) = (&source.from.platform, source.head.lines);
        if text.is_empty() {
            return Ok(None);
        }
        let at = |message: String| fault(message, Some(lines));
        let expanded = self.lexer.expand(text, lookup);
        let expanded = expanded.map_err(|error| at(format!("failed to process arguments for platform : {error}")))?;
        lint::undeclared(self, &expanded.unmatched, lines);
        lint::stage_platform(self, source, &expanded);
        let suggested = |message: String| {
            let keys = self.globals.keys();
            let near = expanded.unmatched.iter().find_map(|name| crate::dockerfile::suggest(name, &keys, true));
            near.map_or_else(|| message.clone(), |near| format!("{message} (did you mean {near}?)"))
        };
        if expanded.text.is_empty() {
            return Err(at(suggested(format!("empty platform value from expression {text}"))));
        }
        parse_platform(&expanded.text, &self.build)
            .map(Some)
            .map_err(|reason| at(format!("failed to parse platform {text}: {}", suggested(reason))))
    }

    /// An additional context of a name.
    fn named_context(&self, name: &str) -> Option<NamedContext> {
        if name.eq_ignore_ascii_case("scratch") || name.eq_ignore_ascii_case("context") {
            return None;
        }
        let familiar = Reference::parse_normalized(name).map(|reference| reference.familiar()).unwrap_or_default();
        let familiar = familiar.strip_suffix(":latest").unwrap_or(&familiar);
        let contexts = &self.request.contexts;
        contexts.get(&name.to_lowercase()).or_else(|| contexts.get(familiar)).cloned()
    }

    /// Which stage to build.
    pub(super) fn target_stage(&self) -> Result<usize, PlanError> {
        let Some(wanted) = self.request.target.as_ref().filter(|name| !name.is_empty()) else { return Ok(self.stages.len() - 1) };
        if let Some(stage) = self.by_name.get(&wanted.to_lowercase()) {
            return Ok(*stage);
        }
        if let Some(index) = wanted.parse::<usize>().ok().filter(|index| *index < self.stages.len() && self.request.classic) {
            return Ok(index);
        }
        let names: Vec<&str> = self.stages.iter().map(|stage| stage.display_name.as_str()).collect();
        let text = format!("target stage {} could not be found", sampan_gotext::quote(wanted));
        Err(PlanError {
            classic: Some(format!("target stage {} could not be found", sampan_gotext::quote(wanted))),
            kind: ErrorKind::Invalid,
            ..fault(with_suggestion(text, wanted, &names, true), None)
        })
    }

    /// Connects instructions with the stages that they read.
    pub(super) fn connect(&mut self) -> Result<(), PlanError> {
        for stage in 0..self.stages.len() {
            let mut commands = std::mem::take(&mut self.stages[stage].commands);
            for command in &mut commands {
                self.connect_command(stage, command)?;
            }
            self.stages[stage].commands = commands;
        }
        self.refuse_circles()?;
        if let [only] = self.stages.as_mut_slice() {
            only.display_name.clear();
        }
        Ok(())
    }

    fn connect_command(&mut self, stage: usize, command: &mut Command) -> Result<(), PlanError> {
        let lines = command.instruction.head.lines;
        let names: Vec<String> = match &command.instruction.kind {
            Kind::Copy(copy) if !copy.from.is_empty() => {
                let expanded = Lexer::new(self.file.escape).expand(&copy.from, &|_| None);
                let expanded = expanded.map_err(|error| fault(error.to_string(), Some(lines)))?;
                if expanded.text != copy.from {
                    let text = "variable expansion is not supported for --from, define a new stage with FROM using ARG from global scope as a workaround";
                    let classic = Some(format!("invalid from flag value {}: invalid reference format", copy.from));
                    return Err(PlanError { classic, ..fault(text, None) });
                }
                vec![copy.from.clone()]
            }
            Kind::Run(run) => run.mounts.iter().map(|mount| mount_from(mount)).collect(),
            _ => return Ok(()),
        };
        let is_copy = matches!(command.instruction.kind, Kind::Copy(_));
        for name in names {
            let index = if is_copy { name.parse::<i64>().ok() } else { None };
            let source = match index {
                Some(index) => {
                    let found = usize::try_from(index).ok().filter(|index| *index < self.stages.len());
                    found.ok_or_else(|| PlanError {
                        classic: Some(format!("invalid from flag value {index}: index out of bounds")),
                        ..fault(format!("invalid stage index {index}"), None)
                    })?
                }
                None => {
                    let name = if name.is_empty() { "scratch".to_owned() } else { name };
                    match self.by_name.get(&name.to_lowercase()) {
                        Some(known) => *known,
                        None => self.implicit_stage(name, Some(lines).filter(|_| is_copy))?,
                    }
                }
            };
            if is_copy && source == stage {
                return Err(PlanError {
                    classic: index.map(|index| format!("invalid from flag value {index}: refers to current build stage")),
                    ..fault(format!("circular dependency detected on stage: {}", self.stages[stage].display_name), Some(lines))
                });
            }
            command.sources.push(source);
            // The last instruction that reads a stage is the one that errors name.
            self.stages[stage].dependencies.insert(source, lines);
        }
        Ok(())
    }

    /// The stage that stands for an image that an instruction names.
    fn implicit_stage(&mut self, name: String, lines: Option<Lines>) -> Result<usize, PlanError> {
        if let Some(known) = self.implicit.get(&name) {
            return Ok(*known);
        }
        if self.stages.len() >= MAX_STAGES {
            return Err(fault(format!("more than {MAX_STAGES} stages and images"), lines));
        }
        let number = self.add(StageState { base_name: name.clone(), lines, ..StageState::default() });
        self.implicit.insert(name, number);
        Ok(number)
    }

    fn refuse_circles(&self) -> Result<(), PlanError> {
        let edges = |stage: &StageState| stage.dependencies.iter().map(|(source, lines)| (*source, *lines)).collect::<Vec<_>>();
        let edges: Vec<Vec<(usize, Lines)>> = self.stages.iter().map(edges).collect();
        // 0: not seen, 1: on the way, 2: done.
        let mut marks = vec![0u8; self.stages.len()];
        for begin in 0..self.stages.len() {
            if marks[begin] != 0 {
                continue;
            }
            marks[begin] = 1;
            let mut way = vec![(begin, 0)];
            while let Some((stage, next)) = way.last_mut() {
                let Some((dependency, lines)) = edges[*stage].get(*next).copied() else {
                    marks[*stage] = 2;
                    way.pop();
                    continue;
                };
                *next += 1;
                match marks[dependency] {
                    0 => {
                        marks[dependency] = 1;
                        way.push((dependency, 0));
                    }
                    1 => {
                        let text = format!("circular dependency detected on stage: {}", self.stages[begin].display_name);
                        let taken = |(stage, next): &(usize, usize)| edges[*stage].get(next.wrapping_sub(1)).map(|(_, lines)| *lines);
                        return Err(fault(text, way.iter().filter_map(taken).min().or(Some(lines))));
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// What the target needs, itself included.
    pub(super) fn reachable(&self, target: usize) -> BTreeSet<usize> {
        let mut found = BTreeSet::new();
        let mut open = vec![target];
        if self.request.classic {
            open.extend((0..target).filter(|stage| self.stages[*stage].index.is_some()));
        }
        while let Some(stage) = open.pop() {
            if found.insert(stage) {
                open.extend(self.stages[stage].base);
                open.extend(self.stages[stage].dependencies.keys());
            }
        }
        found
    }

    /// Resolves the images of all stages that are needed, and takes the triggers of what they begin with.
    pub(super) fn resolve(&mut self, target: usize) -> Result<BTreeSet<usize>, PlanError> {
        loop {
            let reachable = self.reachable(target);
            for stage in 0..self.stages.len() {
                let state = &self.stages[stage];
                if state.base.is_none() && !state.resolved && !state.dispatched {
                    self.resolve_stage(stage, reachable.contains(&stage))?;
                }
            }
            let mut more = false;
            for stage in reachable.iter().copied() {
                more |= self.take_triggers(stage)?;
            }
            if !more {
                return Ok(reachable);
            }
        }
    }

    fn resolve_stage(&mut self, stage: usize, reachable: bool) -> Result<(), PlanError> {
        let lines = self.stages[stage].lines;
        let implicit = self.stages[stage].index.is_none();
        let name = self.stages[stage].base_name.clone();
        self.stages[stage].resolved = reachable;
        if self.stages[stage].context.is_none() && name == "scratch" {
            let platform = self.target.clone();
            let state = &mut self.stages[stage];
            state.config = Arc::new(empty_image(&platform));
            state.platform = Some(platform);
            state.dispatched = implicit;
            return Ok(());
        }
        let reference = Reference::parse_normalized(&name).map_err(|error| {
            let text = format!("failed to parse stage name {}: {error}", sampan_gotext::quote(&name));
            PlanError { classic: Some(self.in_from_flag(stage, error.to_string())), ..fault(text, lines) }
        })?;
        if !reachable {
            return Ok(());
        }
        let platform = self.stages[stage].platform.clone().unwrap_or_else(|| self.target.clone());
        if let Some(context) = self.stages[stage].context.clone() {
            let name = self.stages[stage].context_name.clone();
            self.use_context(stage, &name, &context, &platform)?;
            self.stages[stage].dispatched = true;
            return Ok(());
        }
        if let Some(context) = self.named_context(&name) {
            self.use_context(stage, &name.to_lowercase(), &context, &platform)?;
        } else {
            self.use_image(stage, &name, &reference.with_default_tag(), &platform)?;
        }
        self.stages[stage].dispatched = implicit;
        Ok(())
    }

    fn use_context(&mut self, stage: usize, name: &str, context: &NamedContext, platform: &Platform) -> Result<(), PlanError> {
        match context {
            NamedContext::Image(reference) => self.use_image(stage, name, &reference.clone().with_default_tag(), platform),
            NamedContext::Directory => {
                let op = self.context(name);
                let state = &mut self.stages[stage];
                state.root = Some(op);
                state.config = Arc::new(empty_image(platform));
                state.platform = Some(platform.clone());
                Ok(())
            }
        }
    }

    fn use_image(&mut self, stage: usize, name: &str, reference: &Reference, platform: &Platform) -> Result<(), PlanError> {
        let lines = self.stages[stage].lines;
        let base = self.bases.resolve(reference, platform).map_err(|error| self.base_fault(stage, name, error))?;
        let mut platform = platform.clone();
        let implicit = self.request.platform.is_none() && self.stages[stage].platform.is_none();
        let found = base.config.platform();
        let differs = found.os != platform.os || found.architecture != platform.architecture;
        if differs && implicit && found.os == self.build.os && found.architecture == self.build.architecture {
            platform = self.build.clone();
        } else if differs && let Some(lines) = lines {
            let text = format!("Base image {name} was pulled with platform \"{found}\", expected \"{platform}\" for current build");
            self.findings.push(rules::INVALID_BASE_IMAGE_PLATFORM.warn(lines, text));
        }
        let empty = base.config.rootfs.diff_ids.is_empty() && base.config.history.iter().all(|entry| entry.empty_layer);
        let op = (!empty).then(|| self.image_op(Op::Image { image: base.image.clone(), platform: platform.clone() }));
        if !empty && self.stages[stage].index.is_some() {
            let mut shown = reference.to_string();
            if let Some(digest) = base.image.digest.as_ref().filter(|_| reference.digest().is_none()) {
                shown.push_str(&format!("@{digest}"));
            }
            let (from_name, number) = self.numbered(stage, &format!("FROM {shown}"), false);
            (self.stages[stage].from_name, self.stages[stage].from_number) = (from_name, number);
        }
        let state = &mut self.stages[stage];
        (state.root, state.image_op) = (op, op);
        state.config = Arc::new(inherited(base.config));
        state.base_image = Some(base.image);
        state.platform = Some(platform);
        Ok(())
    }

    /// The operation of an image; one for all that need it.
    fn image_op(&mut self, op: Op) -> OpId {
        let known = self.stages.iter().filter_map(|stage| stage.image_op).find(|known| self.ops[known.0] == op);
        known.unwrap_or_else(|| self.op(op))
    }

    /// What the classic builder says of an image that COPY names.
    fn in_from_flag(&self, stage: usize, message: String) -> String {
        let stage = &self.stages[stage];
        if stage.index.is_some() { message } else { format!("invalid from flag value {}: {message}", stage.base_name) }
    }

    fn base_fault(&self, stage: usize, name: &str, error: BaseError) -> PlanError {
        let named = self.stages.iter().filter(|stage| !stage.display_name.is_empty());
        let mut names: Vec<String> = named.map(|stage| stage.display_name.clone()).collect();
        names.extend(COMMON.iter().flat_map(|name| [(*name).to_owned(), format!("{name}:latest")]));
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let message = with_suggestion(format!("{name}: {}", error.message), name, &names, true);
        PlanError { kind: error.kind, message, classic: Some(self.in_from_flag(stage, error.message)), lines: self.stages[stage].lines }
    }

    /// Puts the triggers of what a stage begins with before its instructions; whether new stages have to be resolved.
    fn take_triggers(&mut self, stage: usize) -> Result<bool, PlanError> {
        if std::mem::replace(&mut self.stages[stage].triggers_taken, true) {
            return Ok(false);
        }
        let mut triggers: Vec<String> = match self.stages[stage].base {
            None => self.config(stage).config.on_build.take().unwrap_or_default(),
            Some(base) => {
                let trigger = |command: &Command| match &command.instruction.kind {
                    Kind::Onbuild(text) => Some(text.clone()),
                    _ => None,
                };
                self.stages[base].commands.iter().filter_map(trigger).collect()
            }
        };
        if self.stages[stage].index.is_none() || self.stages[stage].dispatched {
            triggers.clear();
        }
        let lines = self.stages[stage].lines;
        let at = lines.unwrap_or(Lines { first: 0, last: 0 });
        let mut commands = Vec::with_capacity(triggers.len());
        let mut more = false;
        for text in triggers {
            self.spend(text.len() + TRIGGER_COST).map_err(|message| fault(message, lines))?;
            let instruction = parse_one(&text, at).map_err(|message| fault(message, lines))?;
            if matches!(instruction.kind, Kind::From(_)) {
                return Err(fault("*instructions.Stage is not a command type", lines));
            }
            let mut command = Command { instruction, sources: Vec::new(), trigger: true };
            self.connect_command(stage, &mut command)?;
            more |= !command.sources.is_empty();
            commands.push(command);
        }
        let state = &mut self.stages[stage];
        state.total += commands.len();
        commands.append(&mut state.commands);
        state.commands = commands;
        Ok(more)
    }

    /// The root of a stage that an instruction reads; an error where it comes later.
    pub(super) fn source_root(&self, stage: usize) -> Option<Option<OpId>> {
        self.stages[stage].dispatched.then(|| self.stages[stage].root)
    }
}

/// What an image built on another inherits of its configuration.
fn inherited(config: ImageConfig) -> ImageConfig {
    let mut out = ImageConfig { created: None, comment: String::new(), ..config };
    out.other.retain(|key, _| matches!(key.as_str(), "os.version" | "os.features"));
    out.config.other.clear();
    out.config.stop_timeout = None;
    out
}

/// Reads a platform in the forms that FROM takes: one word is an operating system or an architecture.
fn parse_platform(text: &str, build: &Platform) -> Result<Platform, String> {
    const SYSTEMS: [&str; 6] = ["linux", "windows", "darwin", "freebsd", "wasi", "solaris"];
    const ARCHITECTURES: [&str; 14] =
        ["amd64", "arm64", "arm", "386", "ppc64le", "s390x", "riscv64", "mips64le", "loong64", "mips64", "ppc64", "wasm", "mips", "mipsle"];
    let fault = |reason: &str| Err(format!("{}: {reason}: invalid argument", sampan_gotext::quote(text)));
    let parts: Vec<&str> = text.split('/').collect();
    if text.contains('*') {
        return fault("wildcards not yet supported");
    }
    if parts[0].is_empty() || !parts[0].bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-')) {
        let part = sampan_gotext::quote(parts[0]);
        let rule = r#""^([A-Za-z0-9_-]+)(?:\\(([A-Za-z0-9_.%-]*)((?:\\+[A-Za-z0-9_.%-]+)*)\\))?$""#;
        let whole = sampan_gotext::quote(text);
        return Err(format!(
            "{part} is an invalid OS component of {whole}: OSAndVersion specifier component must match {rule}: invalid argument"
        ));
    }
    let lower = text.to_ascii_lowercase();
    let full = match parts.len() {
        1 if SYSTEMS.contains(&lower.as_str()) => format!("{text}/{}", build.architecture),
        1 => format!("linux/{text}"),
        2 | 3 => text.to_owned(),
        _ => return fault("cannot parse platform specifier"),
    };
    match Platform::parse(&full) {
        Some(parsed) if parts.len() > 1 || ARCHITECTURES.contains(&parsed.architecture.as_str()) => Ok(parsed),
        _ => fault("unknown operating system or architecture"),
    }
}
