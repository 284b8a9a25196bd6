//! Signals by name and number, as users type them.

use crate::error::EngineError;

/// Names without `SIG`, in the kernel's order from 1 (x86-64 and aarch64 agree).
const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM", "TERM", "STKFLT", "CHLD",
    "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

/// Parses `KILL`, `sigkill`, `9`, `SIGRTMIN+3`.
///
/// # Errors
/// [`EngineError::Invalid`] with Docker's text.
pub(crate) fn parse(text: &str) -> Result<i32, EngineError> {
    let invalid = || EngineError::Invalid(format!("invalid signal: {text}"));
    if let Ok(number) = text.parse::<i32>() {
        return if (1..=64).contains(&number) { Ok(number) } else { Err(invalid()) };
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let alias = match name {
        "CLD" => "CHLD",
        "POLL" => "IO",
        "IOT" => "ABRT",
        other => other,
    };
    if let Some(index) = NAMES.iter().position(|known| *known == alias) {
        return i32::try_from(index + 1).map_err(|_| invalid());
    }
    let offset = |rest: &str, sign: char| if rest.is_empty() { Some(0) } else { rest.strip_prefix(sign)?.parse::<i32>().ok() };
    let realtime = match (name.strip_prefix("RTMIN"), name.strip_prefix("RTMAX")) {
        (Some(rest), _) => offset(rest, '+').map(|offset| 34 + offset),
        (_, Some(rest)) => offset(rest, '-').map(|offset| 64 - offset),
        _ => None,
    };
    realtime.filter(|number| (34..=64).contains(number)).ok_or_else(invalid)
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn names_and_numbers() {
        for (text, number) in [("KILL", 9), ("sigterm", 15), ("9", 9), ("SIGRTMIN+3", 37), ("RTMAX", 64), ("SIGRTMAX-1", 63), ("cld", 17)] {
            assert_eq!(parse(text).unwrap(), number, "{text}");
        }
        for text in ["", "0", "65", "SIGNOSUCH", "RTMIN-1", "-9", "0x9"] {
            assert_eq!(parse(text).unwrap_err().to_string(), format!("invalid signal: {text}"));
        }
    }
}
