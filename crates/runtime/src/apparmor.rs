//! The AppArmor profile that a container has unless it asks for another, and its way into the kernel.
//!
//! Kernels take compiled profiles only, and `apparmor_parser` is the compiler: one of the named external programs. It runs when
//! the kernel does not have the profile, once a boot as a rule. Without it containers run as before AppArmor, and `info` warns.

use std::io::{self, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

/// The name that clients know; a profile of this name that is loaded already is used as it is.
pub const DEFAULT_PROFILE: &str = "docker-default";

/// Where the kernel lists its profiles.
const LOADED: &str = "/sys/kernel/security/apparmor/profiles";

/// Whether this kernel mediates by AppArmor and lets us load profiles.
pub(crate) fn is_on() -> bool {
    let enabled = std::fs::read_to_string("/sys/module/apparmor/parameters/enabled").unwrap_or_default();
    enabled.starts_with('Y') && Path::new(LOADED).exists()
}

/// Makes sure that the kernel knows the default profile.
///
/// # Errors
/// [`io::ErrorKind::NotFound`] when there is no `apparmor_parser`; else what it or the kernel says.
pub fn ensure_default() -> io::Result<()> {
    if is_loaded(&std::fs::read_to_string(LOADED)?, DEFAULT_PROFILE) {
        return Ok(());
    }
    let own = std::fs::read_to_string("/proc/self/attr/apparmor/current").or_else(|_| std::fs::read_to_string("/proc/self/attr/current"));
    compile_and_load(&profile(own.unwrap_or_default().split_whitespace().next().unwrap_or("unconfined")))
}

/// The profile that confines a process; `None`: none does, or it is gone.
#[must_use]
pub fn profile_of(pid: u32) -> Option<String> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/attr/apparmor/current"))
        .or_else(|_| std::fs::read_to_string(format!("/proc/{pid}/attr/current")))
        .ok()?;
    let name = text.trim_end_matches(['\n', '\0']).rsplit_once(" (").map_or(text.trim(), |(name, _)| name).to_owned();
    (name != "unconfined").then_some(name)
}

fn is_loaded(list: &str, name: &str) -> bool {
    list.lines().any(|line| line.rsplit_once(" (").is_some_and(|(loaded, _)| loaded == name))
}

#[expect(clippy::disallowed_methods, reason = "apparmor_parser is a named exception of ARCHITECTURE.md")]
fn compile_and_load(text: &str) -> io::Result<()> {
    // Neither the machine's cache nor its search path: only what we were started with decides.
    let program = ["/usr/sbin/apparmor_parser", "/sbin/apparmor_parser"].into_iter().find(|path| Path::new(path).is_file());
    let program = program.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "apparmor_parser is not installed"))?;
    let mut command = Command::new(program);
    command.args(["--replace", "--skip-cache"]).env_clear();
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    // A parser that fails early says why itself.
    let written = child.stdin.take().map_or(Ok(()), |mut stdin| stdin.write_all(text.as_bytes()));
    let output = child.wait_with_output()?;
    if output.status.success() {
        return written;
    }
    Err(io::Error::other(format!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim())))
}

/// What the profile allows is decided by namespaces, capabilities and seccomp; what it refuses is the way around them: mounts, and
/// writing where /proc and /sys reach the host. `owner` is what confines this process: it must be able to send signals.
fn profile(owner: &str) -> String {
    let owner = if owner.is_empty() || owner.contains(['"', '\n']) { "unconfined" } else { owner };
    let own_peer = if owner == "unconfined" { String::new() } else { format!("  signal (receive) peer=\"{owner}\",\n") };
    format!(
        r#"# The default profile of containers.
profile {DEFAULT_PROFILE} flags=(attach_disconnected, mediate_deleted) {{
  capability,
  file,
  network,
  umount,
  deny mount,

  # From outside, and among containers.
  signal (receive) peer=unconfined,
{own_peer}  signal (send, receive) peer={DEFAULT_PROFILE},
  ptrace (read, readby, trace, tracedby) peer={DEFAULT_PROFILE},

  # Of /proc: processes themselves, and of the parameters those of the container's ipc namespace.
  deny /proc/* wkl,
  deny /proc/{{acpi,asound,bus,driver,fs,irq,scsi,tty}}/** wkl,
  deny /proc/{{kcore,kmem,mem,sysrq-trigger}} rwklx,
  deny /proc/sys/[^k]** wkl,
  deny /proc/sys/kernel/[^s]** wkl,
  deny /proc/sys/kernel/s[^eh]** wkl,

  # Of /sys: cgroups, where they are mounted to be written.
  deny /sys/[^f]** wkl,
  deny /sys/f[^s]** wkl,
  deny /sys/fs/[^c]** wkl,
  deny /sys/firmware/** rwklx,
  deny /sys/kernel/security/** rwklx,
  deny /sys/devices/virtual/powercap/** rwklx,
}}
"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_list_is_searched_for_whole_names() {
        let list = "docker-default-2 (enforce)\n/usr/bin/man (complain)\n";
        assert!(!is_loaded(list, "docker-default"));
        assert!(is_loaded(list, "/usr/bin/man"));
        assert!(is_loaded(&format!("{list}docker-default (enforce)\n"), "docker-default"));
    }

    #[test]
    fn a_confined_daemon_may_signal_and_a_strange_label_changes_nothing() {
        assert!(profile("/usr/bin/sampan").contains("  signal (receive) peer=\"/usr/bin/sampan\",\n"));
        assert_eq!(profile("a\" }"), profile("unconfined"));
    }
}
