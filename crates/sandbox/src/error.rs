//! Why a process did not start, in Docker's words, decided by step and errno alone.

use sampan_base::{ErrorKind, Failure as _};
use sampan_runtime::plan::PlanError;
use sampan_runtime::seccomp::ProfileError;
use sampan_runtime::shims::ShimError;
use sampan_shim::protocol::Stage;

/// A start or exec that failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct StartError {
    text: String,
    exit_code: i32,
    kind: ErrorKind,
}

impl sampan_base::Failure for StartError {
    fn kind(&self) -> ErrorKind {
        self.kind
    }
}

const ENOENT: i32 = 2;
const EACCES: i32 = 13;
const ENOTDIR: i32 = 20;
const EISDIR: i32 = 21;
const ENOEXEC: i32 = 8;

impl StartError {
    /// What the container's exit code becomes.
    #[must_use]
    pub fn exit_code(&self) -> i32 {
        self.exit_code
    }

    /// A failure with a text and a kind of its own; exit code 128.
    #[must_use]
    pub fn other(text: impl Into<String>, kind: ErrorKind) -> Self {
        Self { text: text.into(), exit_code: 128, kind }
    }

    /// The failure of a container's start.
    pub(crate) fn start(error: ShimError, program: &str) -> Self {
        if let ShimError::Failed { stage: Stage::Cwd {}, detail, .. } = &error
            && let Some(path) = detail.strip_prefix("mkdir:")
        {
            return Self { text: format!("Cannot mkdir: {path} is not a directory"), exit_code: 128, kind: ErrorKind::Invalid };
        }
        let (inner, exit_code, kind) = describe(error, program, "error during container init: ");
        let text = format!(
            "failed to create task for container: failed to create shim task: OCI runtime create failed: runc create failed: unable to start container process: {inner}"
        );
        Self { text, exit_code, kind }
    }

    /// A wish that the runtime refuses before anything is made.
    pub(crate) fn plan(error: &PlanError) -> Self {
        const RUNTIME: &str =
            "failed to create task for container: failed to create shim task: OCI runtime create failed: runc create failed: ";
        let by_runtime = matches!(error, PlanError::Sysctl(..) | PlanError::Seccomp(ProfileError::Unknown { .. }));
        Self::other(if by_runtime { format!("{RUNTIME}{error}") } else { error.to_string() }, error.kind())
    }

    /// The failure of an exec.
    pub(crate) fn exec(error: ShimError, program: &str) -> Self {
        let (inner, exit_code, kind) = describe(error, program, "");
        Self {
            text: format!("OCI runtime exec failed: exec failed: unable to start container process: {inner}"),
            exit_code: if exit_code == 128 { 126 } else { exit_code },
            kind,
        }
    }
}

/// Text, exit code, kind.
fn describe(error: ShimError, program: &str, place: &str) -> (String, i32, ErrorKind) {
    let ShimError::Failed { stage, errno, detail } = error else {
        return (error.to_string(), 128, ErrorKind::Internal);
    };
    let reason = message(errno);
    match stage {
        Stage::Exec {} if errno == ENOENT && !program.contains('/') => {
            (format!("{place}exec: \"{program}\": executable file not found in $PATH"), 127, ErrorKind::Invalid)
        }
        Stage::Exec {} if errno == ENOENT => {
            (format!("{place}exec: \"{program}\": stat {program}: no such file or directory"), 127, ErrorKind::Invalid)
        }
        Stage::Exec {} if errno == ENOTDIR => {
            (format!("{place}exec: \"{program}\": stat {program}: not a directory"), 127, ErrorKind::Invalid)
        }
        Stage::Exec {} if matches!(errno, EACCES | EISDIR) => {
            let reason = if errno == EISDIR { "is a directory: permission denied" } else { "permission denied" };
            (format!("{place}exec: \"{program}\": {reason}"), 126, ErrorKind::Invalid)
        }
        Stage::Exec {} if errno == ENOEXEC => (format!("exec {program}: exec format error"), 126, ErrorKind::Invalid),
        Stage::Exec {} => (format!("{place}exec: \"{program}\": {reason}"), 126, ErrorKind::Invalid),
        Stage::Cwd {} => {
            let code = if matches!(errno, ENOENT | ENOTDIR) { 127 } else { 126 };
            (format!("{place}chdir to cwd (\"{detail}\") set in config.json failed: {reason}"), code, ErrorKind::Invalid)
        }
        Stage::Mount {} => {
            let code = if matches!(errno, ENOENT | ENOTDIR) { 127 } else { 128 };
            (format!("{place}error mounting to rootfs at \"{detail}\": {reason}"), code, ErrorKind::Invalid)
        }
        Stage::Limit {} => (
            format!("{place}error setting rlimits for ready process: error setting rlimit type {detail}: {reason}"),
            128,
            ErrorKind::Internal,
        ),
        Stage::Sysctl {} => {
            let key = detail.replace('/', ".");
            let step = if errno == ENOENT { format!("open sysctl {key} file") } else { format!("failed to write sysctl {key}") };
            (format!("{place}{step}: {reason}"), if errno == ENOENT { 127 } else { 128 }, ErrorKind::Invalid)
        }
        Stage::Cgroup {} => {
            (format!("error setting cgroup config for procHooks process: failed to write {detail}: {reason}"), 128, ErrorKind::Internal)
        }
        Stage::Seccomp {} => (format!("{place}error loading seccomp filter: {reason}"), 128, ErrorKind::Internal),
        Stage::Apparmor {} => (format!("{place}unable to apply apparmor profile: {detail}: {reason}"), 128, ErrorKind::Internal),
        Stage::KernelPlace {} => {
            let target = if detail == "proc" { "/proc" } else { "/sys" };
            let text = format!(
                "{place}error mounting \"{detail}\" to rootfs at \"{target}\": filesystem \"{detail}\" must be mounted on ordinary directory"
            );
            (text, 128, ErrorKind::Invalid)
        }
        Stage::InsideProc {} => {
            let text =
                format!("{place}error mounting to rootfs at \"{detail}\": \"{detail}\" cannot be mounted because it is inside /proc");
            (text, 128, ErrorKind::Invalid)
        }
        Stage::Log {} => (format!("{place}error opening the container's {detail}: {reason}"), 128, ErrorKind::Internal),
        Stage::Device {} => (format!("{place}error creating device node {detail}: {reason}"), 128, ErrorKind::Invalid),
        Stage::Mask {} => (format!("{place}can't mask path {detail:?}: {reason}"), 128, ErrorKind::Invalid),
        Stage::Gone {} => ("container has ended".to_owned(), 128, ErrorKind::Conflict),
        _ => (format!("{place}{stage:?} {detail}: {reason}"), 128, ErrorKind::Internal),
    }
}

/// The kernel's words for an errno, without Rust's addition.
fn message(errno: i32) -> String {
    let text = std::io::Error::from_raw_os_error(errno).to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut characters = text.chars();
    characters.next().map_or_else(String::new, |first| first.to_lowercase().chain(characters).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(stage: Stage, errno: i32) -> ShimError {
        ShimError::Failed { stage, errno, detail: "x".into() }
    }

    #[test]
    fn step_and_errno_decide() {
        let start = |stage, errno, program: &str| StartError::start(failed(stage, errno), program);
        let missing = start(Stage::Exec {}, ENOENT, "nosuch");
        assert!(missing.to_string().ends_with("exec: \"nosuch\": executable file not found in $PATH") && missing.exit_code() == 127);
        assert_eq!(start(Stage::Exec {}, ENOENT, "/no/such").exit_code(), 127);
        let denied = start(Stage::Exec {}, EACCES, "/etc");
        assert!(denied.to_string().ends_with("exec: \"/etc\": permission denied") && denied.exit_code() == 126);
        assert_eq!(start(Stage::Cgroup {}, 28, "x").exit_code(), 128);
        assert_eq!(StartError::exec(failed(Stage::Exec {}, ENOENT), "nosuch").exit_code(), 127);
    }
}
