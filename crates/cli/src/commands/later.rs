//! Commands of Docker that are not there yet: each says so, and why.

use crate::error::CliError;

const REGISTRIES: &str = "registries come with the next version";
const BUILDX: &str = "there is one builder, the engine's own; Docker's plugin buildx takes the place of this group where it is installed";
const SWARM: &str = "there is no swarm";

/// Names and reasons.
const LATER: &[(&str, &str)] = &[
    ("manifest", REGISTRIES),
    ("trust", "signatures come later"),
    ("scan", "the scanner comes later"),
    ("checkpoint", "checkpoints are not there"),
    ("container checkpoint", "checkpoints are not there"),
    ("plugin", "engine plugins are not there"),
    ("volume update", "cluster volumes need a swarm"),
    ("buildx bake", BUILDX),
    ("buildx create", BUILDX),
    ("buildx dial-stdio", BUILDX),
    ("buildx du", "see: system df -v"),
    ("buildx history", BUILDX),
    ("buildx imagetools", BUILDX),
    ("buildx inspect", BUILDX),
    ("buildx ls", BUILDX),
    ("buildx rm", BUILDX),
    ("buildx stop", BUILDX),
    ("buildx use", BUILDX),
    ("config", SWARM),
    ("node", SWARM),
    ("secret", SWARM),
    ("service", SWARM),
    ("stack", SWARM),
    ("swarm", SWARM),
];

/// Why a command is not there.
pub(crate) fn reason(words: &[String]) -> Option<CliError> {
    LATER.iter().find_map(|(path, reason)| {
        let path_words: Vec<&str> = path.split(' ').collect();
        let fits = words.len() >= path_words.len() && path_words.iter().zip(words).all(|(left, right)| left == right);
        fits.then(|| CliError::unsupported(path, reason))
    })
}
