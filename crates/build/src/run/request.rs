//! What a build is asked for, and what it gives.

use std::io::Read;
use std::os::fd::OwnedFd;

use sampan_oci::{ImageId, Platform, Reference};
use sampan_sandbox::Limits;
use sampan_sys::user::Reader;

use crate::plan::{self, BaseError};

/// What commands of a build may use.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resources {
    /// Of memory and processors.
    pub limits: Limits,
    /// Bytes of /dev/shm; 0: 64 MiB.
    pub shm_size: i64,
    /// `RLIMIT_*` number, soft, hard.
    pub ulimits: Vec<(u32, u64, u64)>,
    /// Further lines of /etc/hosts: name, address.
    pub extra_hosts: Vec<(String, String)>,
    /// Host name; empty: BuildKit's.
    pub hostname: String,
}

/// Fetches an image that is not here: reference, platform, whether an image that is here is to be looked at again.
pub type Pull<'a> = &'a dyn Fn(&Reference, &Platform) -> Result<(), BaseError>;

/// Where the files of a build come from.
pub enum ContextInput<'a> {
    /// A tar stream, compressed or not.
    Tar(Box<dyn Read + Send + 'a>),
    /// An open folder of this machine, and with whose rights it is read.
    Folder(OwnedFd, Reader),
    /// The address of an archive or of a Dockerfile.
    Remote(String),
}

impl std::fmt::Debug for ContextInput<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Tar(_) => "Tar",
            Self::Folder(..) => "Folder",
            Self::Remote(_) => "Remote",
        })
    }
}

/// A build.
pub struct BuildRequest<'a> {
    /// What the Dockerfile is planned with.
    pub plan: plan::Request,
    /// The Dockerfile's path in the context.
    pub dockerfile: String,
    /// The context.
    pub context: ContextInput<'a>,
    /// Names of the image.
    pub names: Vec<Reference>,
    /// What commands may use.
    pub resources: Resources,
    /// Whether base images are fetched although they are here.
    pub pull_always: bool,
    /// Images whose steps were offered. Their histories do not say what files were copied, so they prove nothing: a warning says
    /// that they are not used.
    pub cache_from: Vec<String>,
    /// How images are fetched.
    pub pull: Pull<'a>,
}

impl std::fmt::Debug for BuildRequest<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("BuildRequest").field("dockerfile", &self.dockerfile).finish_non_exhaustive()
    }
}

/// What a build made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Built {
    /// The image.
    pub image: ImageId,
}
