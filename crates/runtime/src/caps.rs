//! Capabilities by name, and how `--cap-add`, `--cap-drop` and `--privileged` choose them.

/// Names without `CAP_`, by number (capabilities(7), Linux 5.9).
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// The fourteen that every container has by default.
const DEFAULT: u64 = 0xa804_25fb;
/// Every known one.
pub const ALL: u64 = (1 << 41) - 1;

/// A capability's bit by its name, with or without `CAP_`, in any case.
fn bit(name: &str) -> Option<u64> {
    let upper = name.to_ascii_uppercase();
    let plain = upper.strip_prefix("CAP_").unwrap_or(&upper);
    NAMES.iter().position(|known| *known == plain).map(|number| 1 << number)
}

/// The capabilities of a container: a bit mask. The error is the name that does not exist, in its full form.
///
/// # Errors
/// The offending name as Docker shows it.
pub fn choose(add: &[String], drop: &[String], privileged: bool, available: u64) -> Result<u64, (bool, String)> {
    let is_all = |name: &String| name.eq_ignore_ascii_case("ALL") || name.eq_ignore_ascii_case("CAP_ALL");
    let mask = |names: &[String], adding: bool| {
        let one = |name: &String| bit(name).ok_or_else(|| (adding, full_name(name)));
        names.iter().filter(|name| !is_all(name)).map(one).try_fold(0, |mask, bit| Ok(mask | bit?))
    };
    let (added, dropped) = (mask(add, true)?, mask(drop, false)?);
    if privileged {
        return Ok(ALL & available);
    }
    Ok(if add.iter().any(is_all) {
        ALL & available & !dropped
    } else if drop.iter().any(is_all) {
        added
    } else {
        (DEFAULT & !dropped) | added
    })
}

fn full_name(name: &str) -> String {
    let upper = name.to_ascii_uppercase();
    if upper.starts_with("CAP_") { upper } else { format!("CAP_{upper}") }
}

/// Full names of a mask.
#[must_use]
pub fn names(mask: u64) -> Vec<String> {
    NAMES.iter().enumerate().filter(|(number, _)| mask & (1 << number) != 0).map(|(_, name)| format!("CAP_{name}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn choices_follow_the_original() {
        let choose = |add: &[&str], drop: &[&str]| super::choose(&own(add), &own(drop), false, ALL);
        assert_eq!(choose(&[], &[]), Ok(DEFAULT));
        assert_eq!(names(DEFAULT).len(), 14);
        assert_eq!(choose(&["cap_chown"], &["ALL"]), Ok(1));
        assert_eq!(choose(&["all"], &["chown"]), Ok(ALL & !1));
        assert_eq!(choose(&["ALL"], &["ALL"]), Ok(ALL));
        assert_eq!(choose(&["nosuch"], &[]), Err((true, "CAP_NOSUCH".into())));
    }
}
