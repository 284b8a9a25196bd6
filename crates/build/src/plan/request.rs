//! What a client asks for beside the Dockerfile, and the window through which the plan sees images. Plain data and one trait.

use std::collections::BTreeMap;

use sampan_base::ErrorKind;
use sampan_oci::{ImageConfig, Platform, Reference};

use super::graph::{BaseImage, Network};
use crate::dockerfile::Lines;

/// A build as it was asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Request {
    /// The stage to build, by name or number; `None` is the last.
    pub target: Option<String>,
    /// `--build-arg`.
    pub build_args: BTreeMap<String, String>,
    /// Those of them that were named without a value, which the client's environment did not have either: they set nothing.
    pub valueless_args: Vec<String>,
    /// `--label`.
    pub labels: BTreeMap<String, String>,
    /// What to build for; `None` is this machine's.
    pub platform: Option<Platform>,
    /// What the builder itself is; `None` is this machine's.
    pub build_platform: Option<Platform>,
    /// Which stages ignore results of earlier builds.
    pub no_cache: NoCache,
    /// The network of every RUN that does not choose its own.
    pub network: Network,
    /// Which instructions need a right that the client has to give.
    pub entitlements: Entitlements,
    /// Additional contexts: directories, images, … by lower-case name.
    pub contexts: BTreeMap<String, NamedContext>,
    /// Whether the checks are made. `BUILDKIT_DOCKERFILE_CHECK` and `# check=` say which.
    pub checks: bool,
    /// Patterns of `.dockerignore`, for the check `CopyIgnoredFile`.
    pub ignore_patterns: Vec<String>,
    /// Whether the classic builder's rules hold: all stages before the target are built, unused ones too.
    pub classic: bool,
}

/// Which stages ignore results of earlier builds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum NoCache {
    /// None.
    #[default]
    No,
    /// All.
    All,
    /// These names.
    Stages(Vec<String>),
}

/// Rights that a client gives to a build.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Entitlements {
    /// `network.host`.
    pub network_host: bool,
    /// `security.insecure`.
    pub security_insecure: bool,
}

/// An additional context.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NamedContext {
    /// A directory that the client hands in; [`super::Op::Context`] with its name.
    Directory,
    /// An image.
    Image(Reference),
}

/// An image as the plan needs it.
#[derive(Debug, Clone, PartialEq)]
pub struct Base {
    /// Which.
    pub image: BaseImage,
    /// Its configuration.
    pub config: ImageConfig,
}

/// Resolves images. The one place where a plan depends on the world.
pub trait Bases {
    /// The image that a reference means for a platform.
    ///
    /// # Errors
    /// A [`BaseError`] with Docker's words.
    fn resolve(&self, reference: &Reference, platform: &Platform) -> Result<Base, BaseError>;
}

/// An image that cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct BaseError {
    /// What sort of failure.
    pub kind: ErrorKind,
    /// In words for clients.
    pub message: String,
}

/// A Dockerfile that cannot be planned.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct PlanError {
    /// What sort of failure.
    pub kind: ErrorKind,
    /// BuildKit's words, without position.
    pub message: String,
    /// The classic builder's words where they differ; see [`Self::classic_message`].
    pub classic: Option<String>,
    /// Where the fault lies.
    pub lines: Option<Lines>,
}

impl PlanError {
    /// The classic builder's words, which differ from BuildKit's in places.
    #[must_use]
    pub fn classic_message(&self) -> &str {
        self.classic.as_deref().unwrap_or(&self.message)
    }
}

impl sampan_base::Failure for PlanError {
    fn kind(&self) -> ErrorKind {
        self.kind
    }
}
