//! Go's `time.Duration`: reading and printing, in nanoseconds.

const UNITS: [(&str, f64); 8] = [("ns", 1.0), ("us", 1e3), ("µs", 1e3), ("μs", 1e3), ("ms", 1e6), ("s", 1e9), ("m", 60e9), ("h", 3600e9)];

/// Reads `1h30m`, `1.5s`, `-2ms`.
///
/// # Errors
/// `time: invalid duration "x"`, `time: missing unit in duration "x"`, `time: unknown unit "x" in duration "y"`.
pub fn parse(text: &str) -> Result<i64, String> {
    let invalid = || format!("time: invalid duration {}", crate::quote(text));
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1.0, rest),
        None => (1.0, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut nanoseconds = 0.0;
    while !rest.is_empty() {
        let end = rest.find(|character: char| !character.is_ascii_digit() && character != '.').unwrap_or(rest.len());
        let (number, after) = rest.split_at(end);
        let number: f64 = number.parse().map_err(|_| invalid())?;
        let end = after.find(|character: char| character.is_ascii_digit() || character == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        if unit.is_empty() {
            return Err(format!("time: missing unit in duration {}", crate::quote(text)));
        }
        let Some((_, factor)) = UNITS.iter().find(|(name, _)| *name == unit) else {
            return Err(format!("time: unknown unit {} in duration {}", crate::quote(unit), crate::quote(text)));
        };
        nanoseconds += number * factor;
        rest = after;
    }
    if nanoseconds > 9.2e18 {
        return Err(invalid());
    }
    #[expect(clippy::cast_possible_truncation, reason = "checked above")]
    Ok((sign * nanoseconds).round() as i64)
}

/// Prints nanoseconds: `1m30s`, `1.5s`, `100ms`, `0s`.
#[must_use]
pub fn print(nanoseconds: i64) -> String {
    let sign = if nanoseconds < 0 { "-" } else { "" };
    let size = nanoseconds.unsigned_abs();
    let fraction = |whole: u64, unit: u64| {
        let rest = format!("{:0width$}", whole % unit, width = unit.ilog10() as usize);
        let rest = rest.trim_end_matches('0');
        if rest.is_empty() { (whole / unit).to_string() } else { format!("{}.{rest}", whole / unit) }
    };
    let text = match size {
        0 => return "0s".into(),
        1..1_000 => format!("{size}ns"),
        1_000..1_000_000 => format!("{}µs", fraction(size, 1_000)),
        1_000_000..1_000_000_000 => format!("{}ms", fraction(size, 1_000_000)),
        _ => {
            let seconds = size / 1_000_000_000;
            let last = fraction(size % 60_000_000_000, 1_000_000_000);
            match (seconds / 3600, seconds / 60 % 60) {
                (0, 0) => format!("{last}s"),
                (0, minutes) => format!("{minutes}m{last}s"),
                (hours, minutes) => format!("{hours}h{minutes}m{last}s"),
            }
        }
    };
    format!("{sign}{text}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_reads_back() {
        for (text, nanoseconds) in [
            ("1m30s", 90_000_000_000),
            ("1.5s", 1_500_000_000),
            ("100ms", 100_000_000),
            ("2h0m0s", 7_200_000_000_000),
            ("0s", 0),
            ("-5s", -5_000_000_000),
        ] {
            assert_eq!(parse(text), Ok(nanoseconds));
            assert_eq!(print(nanoseconds), text);
        }
        assert_eq!(parse("x").unwrap_err(), "time: invalid duration \"x\"");
        assert_eq!(parse("10").unwrap_err(), "time: missing unit in duration \"10\"");
        assert_eq!(parse("10y").unwrap_err(), "time: unknown unit \"y\" in duration \"10y\"");
    }
}
