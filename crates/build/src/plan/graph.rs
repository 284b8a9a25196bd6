//! The graph that a Dockerfile becomes: operations shaped like BuildKit's LLB, and the steps that people see. Plain data.
//!
//! Inputs of an operation always have lower numbers than itself, and a step's root never depends on a later step in
//! [`Graph::steps`], so both lists can be worked off front to back; independent ones may run at the same time.
//! Nothing here says how an operation is carried out or what key its result has.

use std::collections::BTreeMap;
use std::sync::Arc;

use sampan_oci::{Digest, History, ImageConfig, ImageId, Platform, Reference};

use crate::dockerfile::{Lines, Warning};

/// The number of an operation in [`Graph::ops`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OpId(pub usize);

/// What a Dockerfile asks for, ready to be carried out.
#[derive(Debug, Clone, PartialEq)]
pub struct Graph {
    /// The operations; inputs come before what uses them.
    pub ops: Vec<Op>,
    /// The steps of all stages that the result needs, stage by stage in an order in which they can run.
    pub steps: Vec<Step>,
    /// The stages that the result needs, in the order of their steps.
    pub stages: Vec<Stage>,
    /// The result: that of the last of `stages`.
    pub result: Output,
    /// The ARGs before the first FROM as the classic builder shows them: `ARG VERSION=1`.
    pub prologue: Vec<String>,
    /// Findings of the checks, in the order of the file.
    pub warnings: Vec<Warning>,
    /// Build arguments that were given and that no stage declares: docker warns of them.
    pub unused_build_args: Vec<String>,
    /// `# check=error=true`: a build with warnings must fail.
    pub warnings_are_errors: bool,
}

/// A stage that takes part.
#[derive(Debug, Clone, PartialEq)]
pub struct Stage {
    /// Its number in the Dockerfile, from 0.
    pub index: usize,
    /// Its name, lower case; empty without one.
    pub name: String,
    /// How progress lines call it: its name, `stage-N`, or empty where the file has one stage.
    pub display_name: String,
    /// What `FROM` named, after expansion.
    pub base_name: String,
    /// What it is built for.
    pub platform: Platform,
    /// Which of [`Graph::steps`] are its own.
    pub steps: std::ops::Range<usize>,
    /// What it results in.
    pub output: Output,
}

/// A root file system with the configuration that goes with it.
#[derive(Debug, Clone, PartialEq)]
pub struct Output {
    /// The operation that makes the root; `None` is an empty one.
    pub root: Option<OpId>,
    /// The configuration. Its history is the base image's and one entry per step; its layers are the base image's only:
    /// who carries out the graph appends one per step whose history entry is not `empty_layer`.
    /// `created` of new history entries and of the image is left open.
    pub config: Arc<ImageConfig>,
    /// The image that the first of the chain of stages began with; `None` for `scratch`.
    pub base: Option<BaseImage>,
}

/// An image that was resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseImage {
    /// Under which name.
    pub reference: Reference,
    /// The digest of its manifest where one is known.
    pub digest: Option<Digest>,
    /// Which image it is.
    pub id: ImageId,
}

/// One operation.
#[derive(Debug, Clone, PartialEq)]
pub enum Op {
    /// The root file system of an image.
    Image {
        /// Which.
        image: BaseImage,
        /// For what.
        platform: Platform,
    },
    /// An empty directory.
    Scratch,
    /// A directory that the client hands in.
    Context {
        /// Empty for the build context, else the name of an additional one.
        name: String,
    },
    /// A downloaded file.
    Http(Http),
    /// A cloned repository.
    Git(Git),
    /// A command.
    Exec(Box<Exec>),
    /// Changes of files.
    File(File),
}

impl Op {
    /// The operations that this one reads, its root first; each has a lower number than this one.
    #[must_use]
    pub fn inputs(&self) -> Vec<OpId> {
        match self {
            Self::Image { .. } | Self::Scratch | Self::Context { .. } | Self::Http(_) | Self::Git(_) => Vec::new(),
            Self::Exec(exec) => exec.root.into_iter().chain(exec.mounts.iter().filter_map(|mount| mount.from)).collect(),
            Self::File(file) => {
                let from = |action: &FileAction| match action {
                    FileAction::Copy(copy) => copy.from,
                    FileAction::Mkdir { .. } | FileAction::Write { .. } => None,
                };
                file.root.into_iter().chain(file.actions.iter().filter_map(from)).collect()
            }
        }
    }
}

/// A download.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Http {
    /// From where.
    pub url: String,
    /// What the content must be.
    pub checksum: Option<Digest>,
    /// The name of the file that results, where the destination does not give it one.
    pub file_name: String,
}

/// A clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Git {
    /// The remote, without fragment and query.
    pub remote: String,
    /// Branch, tag or commit; empty for the default branch.
    pub reference: String,
    /// Which directory of it; empty for all.
    pub subdir: String,
    /// A commit's beginning that must be found.
    pub checksum: Option<String>,
    /// Whether `.git` stays.
    pub keep_git_dir: bool,
}

/// A command that runs in a root file system.
#[derive(Debug, Clone, PartialEq)]
pub struct Exec {
    /// In which; `None` is an empty one.
    pub root: Option<OpId>,
    /// The words, the shell included.
    pub args: Vec<String>,
    /// `KEY=value`: the image's ENV, then the ARGs in scope, as BuildKit orders them.
    pub env: Vec<String>,
    /// The proxy variables of the request; seen by the command, not part of any key or history.
    pub proxy_env: BTreeMap<String, String>,
    /// Where.
    pub cwd: String,
    /// `user[:group]` by name or number; empty for root.
    pub user: String,
    /// With which network.
    pub network: Network,
    /// How confined.
    pub security: Security,
    /// Devices by their CDI names.
    pub devices: Vec<String>,
    /// What else it sees.
    pub mounts: Vec<Mount>,
    /// Whether the instruction was in shell form.
    pub shell_form: bool,
    /// The command as the classic builder prints it in errors: `/bin/sh -c make`.
    pub display: String,
}

/// The network of a command.
#[derive(Debug, Clone, PartialEq, Eq, Default, Hash)]
pub enum Network {
    /// The default bridge.
    #[default]
    Default,
    /// Loopback only.
    None,
    /// The host's.
    Host,
    /// That of a container, by its id.
    Join(String),
}

/// The confinement of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub enum Security {
    /// As a container.
    #[default]
    Sandbox,
    /// All capabilities.
    Insecure,
}

/// A mount of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// What sort.
    pub kind: MountKind,
    /// Where, absolute; empty for a secret that is only a variable or has the default place.
    pub target: String,
    /// The input of bind mounts and what a cache begins with; `None`: empty.
    pub from: Option<OpId>,
    /// Which path of `from`.
    pub source: String,
    /// Whether it cannot be written.
    pub readonly: bool,
}

/// The sorts of mounts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MountKind {
    /// A directory or file of another stage, context or image; what is written to it is dropped.
    Bind,
    /// A directory that outlives the build.
    Cache {
        /// Which.
        id: String,
        /// With whom.
        sharing: Sharing,
        /// Mode of a new one.
        mode: u32,
        /// Owner of a new one.
        uid: u32,
        /// Group of a new one.
        gid: u32,
    },
    /// Memory.
    Tmpfs {
        /// Limit in bytes; 0 without.
        size: u64,
    },
    /// A secret of the client as a file, a variable, or both.
    Secret {
        /// Which.
        id: String,
        /// The variable.
        env: Option<String>,
        /// Whether it must be there.
        required: bool,
        /// Mode.
        mode: u32,
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
    },
    /// The client's ssh agent.
    Ssh {
        /// Which.
        id: String,
        /// Whether it must be there.
        required: bool,
        /// Mode.
        mode: u32,
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
    },
    /// A file whose content stands in the Dockerfile (a heredoc that begins with `#!`); executable.
    Script {
        /// Its content.
        content: String,
    },
}

/// Who may use a cache at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sharing {
    /// All.
    #[default]
    Shared,
    /// Each writer gets its own.
    Private,
    /// One after the other.
    Locked,
}

/// Changes of files in a root file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// In which; `None` is an empty one.
    pub root: Option<OpId>,
    /// In this order.
    pub actions: Vec<FileAction>,
    /// `--link`: the result does not depend on the root's content.
    pub link: bool,
}

/// One change of files. Paths are absolute and clean; they are resolved inside the root only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileAction {
    /// Copies.
    Copy(Box<Copy>),
    /// Makes a directory with its parents (WORKDIR).
    Mkdir {
        /// Which.
        path: String,
        /// With which mode.
        mode: u32,
        /// For whom; `None` is root.
        owner: Option<String>,
    },
    /// Writes a file (a heredoc of COPY or ADD).
    Write {
        /// Its destination; a directory where it ends in `/`, then `name` is appended.
        path: String,
        /// The heredoc's name.
        name: String,
        /// Mode.
        mode: Mode,
        /// For whom; `None` is root.
        owner: Option<String>,
        /// The content.
        content: Vec<u8>,
    },
}

/// A copy from one source operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copy {
    /// From where; `None` is an empty directory.
    pub from: Option<OpId>,
    /// Which paths of it, absolute, with wildcards of Go's `filepath.Match`.
    pub source: String,
    /// The path as written, after expansion; for messages.
    pub source_as_written: String,
    /// Where to, absolute.
    pub dest: String,
    /// Whether the destination is a directory whatever it is now (it ends in `/`).
    pub dest_is_dir: bool,
    /// `user[:group]`; `None` is root for contexts and downloads alike.
    pub owner: Option<String>,
    /// What becomes of modes.
    pub mode: Mode,
    /// Patterns of the source's paths that stay behind.
    pub excludes: Vec<String>,
    /// `--parents`: what of `source` is copied, with its directories; a pattern, relative. `None` without the flag.
    pub parents: Option<String>,
    /// Whether archives are unpacked: ADD's rule, or what `--unpack` says.
    pub unpack: Unpack,
    /// Whether the instruction is ADD.
    pub add: bool,
}

/// When a copied archive is unpacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Unpack {
    /// Never (COPY, `--unpack=false`, downloads).
    #[default]
    Never,
    /// Where the file is one (ADD of local files, `--unpack`).
    IfArchive,
}

/// The mode of copied files.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Mode {
    /// The source's; 0644 for heredocs, 0600 for downloads.
    #[default]
    Keep,
    /// `--chmod=755`.
    Octal(u32),
    /// `--chmod=u=rwX,go=rX`, verified.
    Symbolic(String),
}

/// One instruction as people see it.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// The number of the stage in the Dockerfile.
    pub stage: usize,
    /// BuildKit's counter `[2/6]`: counts FROM and what makes layers; `None` where it counts none.
    pub number: Option<(usize, usize)>,
    /// Where the instruction stands.
    pub lines: Lines,
    /// How BuildKit's progress calls it: `[build 2/6] RUN make`. Empty for steps that only change the configuration.
    pub name: String,
    /// How the classic builder calls it: `RUN make`, for `Step 3/7 : RUN make`.
    pub text: String,
    /// What makes the new root; `None`: only the configuration changes, or the instruction is FROM of another stage.
    pub op: Option<OpId>,
    /// The root after the step; `None` is an empty one.
    pub root: Option<OpId>,
    /// The configuration after it, history included.
    pub config_after: Arc<ImageConfig>,
    /// Its entry in the history; `None` for FROM. `created` is left open.
    pub history: Option<History>,
    /// Whether results of earlier builds must not be used.
    pub no_cache: bool,
    /// Whether this is the stage's FROM.
    pub from: bool,
    /// Whether it comes from a trigger of the base image.
    pub trigger: bool,
}
