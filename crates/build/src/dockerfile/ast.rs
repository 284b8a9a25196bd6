//! What a Dockerfile says, typed. Plain data; variables are not expanded yet.

/// A range of lines, both ends included, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lines {
    /// The first.
    pub first: usize,
    /// The last.
    pub last: usize,
}

/// A finding of a check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// The check: `StageNameCasing`, …
    pub rule: &'static str,
    /// What it is about in general.
    pub description: &'static str,
    /// Where it is explained.
    pub url: &'static str,
    /// What was found.
    pub message: String,
    /// Where.
    pub lines: Option<Lines>,
}

/// A Dockerfile that was read.
#[derive(Debug, Clone, PartialEq)]
pub struct Dockerfile {
    /// The escape character.
    pub escape: char,
    /// `# syntax=`, as written. sampan has one front end and runs no other.
    pub syntax: Option<String>,
    /// `# check=`, as written.
    pub check: Option<String>,
    /// The ARGs before the first FROM.
    pub global_args: Vec<Instruction>,
    /// The stages; at least one.
    pub stages: Vec<StageSource>,
    /// What the checks of single instructions found.
    pub findings: Vec<Warning>,
}

/// A stage as written.
#[derive(Debug, Clone, PartialEq)]
pub struct StageSource {
    /// Its FROM.
    pub from: From,
    /// FROM's position and text.
    pub head: Head,
    /// What follows.
    pub instructions: Vec<Instruction>,
}

/// What every instruction has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Where it stands.
    pub lines: Lines,
    /// The keyword as written.
    pub keyword: String,
    /// The instruction as one line, as written.
    pub code: String,
}

/// An instruction.
#[derive(Debug, Clone, PartialEq)]
pub struct Instruction {
    /// Position and text.
    pub head: Head,
    /// What it says.
    pub kind: Kind,
}

/// The instructions.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// FROM; never inside of a stage.
    From(From),
    /// ARG.
    Arg(Vec<Argument>),
    /// ENV.
    Env(Vec<Pair>),
    /// LABEL.
    Label(Vec<Pair>),
    /// RUN.
    Run(Run),
    /// COPY.
    Copy(Transfer),
    /// ADD.
    Add(Transfer),
    /// CMD.
    Cmd(CommandLine),
    /// ENTRYPOINT.
    Entrypoint(CommandLine),
    /// EXPOSE, sorted.
    Expose(Vec<String>),
    /// USER.
    User(String),
    /// WORKDIR.
    Workdir(String),
    /// VOLUME.
    Volume(Vec<String>),
    /// STOPSIGNAL.
    StopSignal(String),
    /// SHELL.
    Shell(Vec<String>),
    /// HEALTHCHECK.
    Healthcheck(sampan_oci::Healthcheck),
    /// ONBUILD: the trigger with its heredocs.
    Onbuild(String),
    /// MAINTAINER.
    Maintainer(String),
}

/// FROM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct From {
    /// The image or stage.
    pub base: String,
    /// `AS`, lower case; empty without.
    pub name: String,
    /// `--platform`.
    pub platform: String,
}

/// One definition of ARG.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Argument {
    /// Its name.
    pub key: String,
    /// Its default.
    pub value: Option<String>,
}

/// One pair of ENV or LABEL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// Before the `=`.
    pub key: String,
    /// Behind it.
    pub value: String,
    /// Whether it was written with a blank instead of `=`.
    pub legacy: bool,
}

/// A command of RUN, CMD, ENTRYPOINT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandLine {
    /// The words of the exec form, or the one line of the shell form.
    pub words: Vec<String>,
    /// Whether the shell form was used.
    pub shell_form: bool,
}

/// RUN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// The command.
    pub command: CommandLine,
    /// Its heredocs.
    pub heredocs: Vec<Heredoc>,
    /// `--mount`, as written: parts of them are expanded.
    pub mounts: Vec<String>,
    /// `--network`: `default`, `none`, `host`.
    pub network: String,
    /// `--security`: `sandbox`, `insecure`.
    pub security: String,
}

/// A heredoc.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heredoc {
    /// Its name.
    pub name: String,
    /// Whether variables in it are expanded (its name was not quoted).
    pub expand: bool,
    /// `<<-`.
    pub chomp: bool,
    /// The content, tabs included.
    pub content: String,
}

/// COPY or ADD.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Transfer {
    /// What.
    pub sources: Vec<String>,
    /// Files whose content stands in the Dockerfile: name, content, whether it is expanded.
    pub contents: Vec<(String, String, bool)>,
    /// Where to.
    pub dest: String,
    /// `--from`; empty without.
    pub from: String,
    /// `--chown`; empty without.
    pub chown: String,
    /// `--chmod`; empty without.
    pub chmod: String,
    /// `--link`.
    pub link: bool,
    /// `--parents`.
    pub parents: bool,
    /// `--exclude`.
    pub excludes: Vec<String>,
    /// `--checksum`; empty without.
    pub checksum: String,
    /// `--keep-git-dir` where given.
    pub keep_git_dir: Option<bool>,
    /// `--unpack` where given.
    pub unpack: Option<bool>,
}
