//! From instructions to a graph of operations: the counterpart of BuildKit's `dockerfile2llb`. Pure; images are seen through [`Bases`].

mod graph;
mod request;

pub use graph::{
    BaseImage, Copy, Exec, File, FileAction, Git, Graph, Http, Mode, Mount, MountKind, Network, Op, OpId, Output, Security, Sharing, Stage,
    Step, Unpack,
};
pub use request::{Base, BaseError, Bases, Entitlements, NamedContext, NoCache, PlanError, Request};

use crate::dockerfile::Dockerfile;

/// Plans a build.
///
/// # Errors
/// [`PlanError`] with the position of the fault where it has one.
pub fn plan(dockerfile: &Dockerfile, request: &Request, bases: &dyn Bases) -> Result<Graph, PlanError> {
    let _unused = (dockerfile, request, bases);
    Err(PlanError { kind: sampan_base::ErrorKind::Unsupported, message: "plan".into(), classic: None, lines: None })
}
