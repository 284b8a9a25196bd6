//! What a Dockerfile offers to those who build it: its stages, and what can be given to one of them. Pure; nothing is resolved.

use std::collections::BTreeMap;

use super::request::Request;
use crate::dockerfile::{Dockerfile, Instruction, Kind, Lines, StageSource, mount_from, parse_mount};

/// A stage that can be built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// `AS`; empty without.
    pub name: String,
    /// What FROM names, as written.
    pub base: String,
    /// Its comment: `# NAME description` above FROM.
    pub description: String,
    /// Whether it is what is built where nobody names one.
    pub default: bool,
    /// Where its FROM stands.
    pub lines: Lines,
}

/// Something that a build takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Input {
    /// The argument's name, the secret's or the agent's id.
    pub name: String,
    /// Its comment.
    pub description: String,
    /// What an argument is without being given, or what it was given.
    pub value: Option<String>,
    /// Whether a secret or an agent has to be there.
    pub required: bool,
    /// Where it was declared.
    pub lines: Lines,
}

/// What can be given to a stage and to those that it reads.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Outline {
    /// The stage; empty for one without a name.
    pub name: String,
    /// Its comment.
    pub description: String,
    /// Build arguments.
    pub args: Vec<Input>,
    /// Secrets.
    pub secrets: Vec<Input>,
    /// SSH agents.
    pub ssh: Vec<Input>,
}

/// The stages of a Dockerfile whose text is `text`.
#[must_use]
pub fn targets(file: &Dockerfile, text: &[u8]) -> Vec<Target> {
    let lines = split(text);
    let last = file.stages.len().saturating_sub(1);
    let target = |(number, stage): (usize, &StageSource)| Target {
        name: stage.from.name.clone(),
        base: stage.from.base.clone(),
        description: comment(&lines, stage.head.lines, &stage.from.name),
        default: number == last,
        lines: stage.head.lines,
    };
    file.stages.iter().enumerate().map(target).collect()
}

/// What the wanted stage takes; `None` where there is no such stage.
#[must_use]
pub fn outline(file: &Dockerfile, text: &[u8], request: &Request) -> Option<Outline> {
    let lines = split(text);
    let target = match request.target.as_deref().unwrap_or_default() {
        "" => file.stages.len().checked_sub(1)?,
        name => named(file, name, file.stages.len())?,
    };
    let stage = &file.stages[target];
    let name = stage.from.name.clone();
    let mut out = Outline { description: comment(&lines, stage.head.lines, &name), name, ..Outline::default() };
    let reached = reachable(file, target);
    let globals = inputs(&file.global_args, &lines, request);
    for global in &globals {
        let used = |stage: &usize| names_variable(&file.stages[*stage].from, &global.name);
        if reached.iter().any(used) {
            add(&mut out.args, global.clone());
        }
    }
    for stage in &reached {
        let instructions = &file.stages[*stage].instructions;
        for mut input in inputs(instructions, &lines, request) {
            // An argument without a value has that of the one before the first FROM.
            if let Some(global) = globals.iter().find(|global| global.name == input.name && input.value.is_none()) {
                input = global.clone();
            }
            add(&mut out.args, input);
        }
        mounts(instructions, &mut out);
    }
    Some(out)
}

fn split(text: &[u8]) -> Vec<String> {
    String::from_utf8_lossy(text).lines().map(str::to_owned).collect()
}

/// The description in the comment right above: `# NAME text`.
fn comment(lines: &[String], at: Lines, name: &str) -> String {
    let above = at.first.checked_sub(2).and_then(|index| lines.get(index));
    let text = above.and_then(|line| line.trim().strip_prefix('#')).map(str::trim).unwrap_or_default();
    match text.split_once(' ') {
        Some((word, rest)) if !name.is_empty() && word.eq_ignore_ascii_case(name) => rest.trim().to_owned(),
        _ => String::new(),
    }
}

fn inputs(instructions: &[Instruction], lines: &[String], request: &Request) -> Vec<Input> {
    let mut all = Vec::new();
    for instruction in instructions {
        let Kind::Arg(arguments) = &instruction.kind else { continue };
        all.extend(arguments.iter().map(|argument| Input {
            description: comment(lines, instruction.head.lines, &argument.key),
            value: request.build_args.get(&argument.key).or(argument.value.as_ref()).cloned(),
            name: argument.key.clone(),
            required: false,
            lines: instruction.head.lines,
        }));
    }
    all
}

fn add(all: &mut Vec<Input>, input: Input) {
    if !all.iter().any(|known| known.name == input.name) {
        all.push(input);
    }
}

fn mounts(instructions: &[Instruction], out: &mut Outline) {
    for instruction in instructions {
        let Kind::Run(run) = &instruction.kind else { continue };
        let read = |text: &String| parse_mount(text, &mut |value| Ok(value.to_owned())).ok();
        for mount in run.mounts.iter().filter_map(read) {
            let base = |path: &str| path.rsplit('/').next().unwrap_or_default().to_owned();
            let (list, name) = match mount.kind.as_str() {
                "secret" if mount.id.is_empty() && mount.source.is_empty() => (&mut out.secrets, base(&mount.target)),
                "secret" if mount.id.is_empty() => (&mut out.secrets, mount.source.clone()),
                "secret" => (&mut out.secrets, mount.id.clone()),
                "ssh" if mount.id.is_empty() => (&mut out.ssh, "default".to_owned()),
                "ssh" => (&mut out.ssh, mount.id.clone()),
                _ => continue,
            };
            let lines = instruction.head.lines;
            add(list, Input { name, description: String::new(), value: None, required: mount.required, lines });
        }
    }
}

/// Whether a FROM uses a variable.
fn names_variable(from: &crate::dockerfile::From, name: &str) -> bool {
    let uses = |text: &str| {
        text.split('$').skip(1).any(|rest| {
            let rest = rest.strip_prefix('{').unwrap_or(rest);
            rest.strip_prefix(name).is_some_and(|behind| !behind.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_'))
        })
    };
    uses(&from.base) || uses(&from.platform)
}

/// The last stage of a name before `end`.
fn named(file: &Dockerfile, name: &str, end: usize) -> Option<usize> {
    let fits = |stage: &StageSource| !name.is_empty() && stage.from.name.eq_ignore_ascii_case(name);
    file.stages[..end].iter().rposition(fits)
}

/// A stage and those that it begins with or reads, in the order of the file.
fn reachable(file: &Dockerfile, target: usize) -> Vec<usize> {
    let mut found: BTreeMap<usize, ()> = BTreeMap::new();
    let mut open = vec![target];
    while let Some(number) = open.pop() {
        if found.insert(number, ()).is_some() {
            continue;
        }
        let stage = &file.stages[number];
        open.extend(named(file, &stage.from.base, number));
        for instruction in &stage.instructions {
            let names: Vec<String> = match &instruction.kind {
                Kind::Copy(copy) => vec![copy.from.clone()],
                Kind::Run(run) => run.mounts.iter().map(|mount| mount_from(mount)).collect(),
                _ => continue,
            };
            for name in names {
                let by_number = name.parse::<usize>().ok().filter(|other| *other < number);
                open.extend(by_number.or_else(|| named(file, &name, number)));
            }
        }
    }
    found.into_keys().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &[u8] = b"ARG TAG=1\n# VERSION is the version\nARG VERSION=1\n\n# base is what all begin with\nFROM box:$TAG AS base\nARG VERSION\n\
        # builder makes it\nFROM base AS builder\n# no description\nARG WHO=world\nRUN --mount=type=secret,id=tok,required --mount=type=ssh x\n\
        FROM scratch\nCOPY --from=base /a /b\n";

    #[test]
    fn stages_have_the_descriptions_of_their_comments() {
        let found = targets(&crate::dockerfile::parse(TEXT).unwrap(), TEXT);
        let shown: Vec<String> = found.iter().map(|one| format!("{} {} {} {}", one.name, one.base, one.description, one.default)).collect();
        assert_eq!(shown, ["base box:$TAG is what all begin with false", "builder base makes it false", " scratch  true"]);
    }

    #[test]
    fn a_stage_takes_what_those_take_that_it_reads() {
        let file = crate::dockerfile::parse(TEXT).unwrap();
        let of = |target: Option<&str>| {
            let mut request = Request { target: target.map(str::to_owned), ..Request::default() };
            request.build_args.insert("WHO".into(), "me".into());
            let found = outline(&file, TEXT, &request)?;
            let args = found.args.iter().map(|arg| format!("{}={}", arg.name, arg.value.clone().unwrap_or_default()));
            let rest = found.secrets.iter().chain(&found.ssh).map(|one| format!("{}:{}", one.name, one.required));
            Some(args.chain(rest).collect::<Vec<_>>().join(" "))
        };
        assert_eq!(of(None).as_deref(), Some("TAG=1 VERSION=1"));
        assert_eq!(of(Some("Builder")).as_deref(), Some("TAG=1 VERSION=1 WHO=me tok:true default:false"));
        assert_eq!(of(Some("nosuch")), None);
    }
}
