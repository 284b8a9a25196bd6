//! Sizes and spans for people, as Docker prints and reads them.

use crate::fmt::significant;

const DECIMAL: [&str; 9] = ["B", "kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB"];
const BINARY: [&str; 9] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB"];

fn scaled(mut size: f64, base: f64, units: &[&str], digits: usize) -> String {
    let mut unit = 0;
    while size >= base && unit + 1 < units.len() {
        size /= base;
        unit += 1;
    }
    format!("{}{}", significant(size, digits), units[unit])
}

/// Powers of 1000 with so many digits: `7.8MB`.
#[must_use]
pub fn size_with_digits(bytes: f64, digits: usize) -> String {
    scaled(bytes, 1000.0, &DECIMAL, digits)
}

/// Powers of 1000 with four digits: `7.812MB`.
#[must_use]
pub fn size(bytes: f64) -> String {
    size_with_digits(bytes, 4)
}

/// Powers of 1024 with four digits: `1.5MiB`.
#[must_use]
pub fn binary_size(bytes: f64) -> String {
    scaled(bytes, 1024.0, &BINARY, 4)
}

/// Reads `64m`, `1.5g`, `512`, `1GiB` with powers of 1024.
///
/// # Errors
/// `invalid size: 'x'`, `invalid suffix: 'x'`.
pub fn parse_binary_size(text: &str) -> Result<i64, String> {
    let Some(end) = text.rfind(|character: char| character.is_ascii_digit() || character == '.' || character == ' ') else {
        return Err(format!("invalid size: '{text}'"));
    };
    // What follows the last digit or dot is the unit; a space between the two is allowed.
    let (number, suffix) = text.split_at(end + 1);
    let number = number.strip_suffix(' ').unwrap_or(number);
    let size: f64 = number.parse().map_err(|_| format!("invalid size: '{text}'"))?;
    if !number.starts_with(|character: char| character.is_ascii_digit() || character == '.') || size < 0.0 {
        return Err(format!("invalid size: '{text}'"));
    }
    let suffix = suffix.to_ascii_lowercase();
    let Some(first) = suffix.chars().next() else { return Ok(whole(size)) };
    let power = match first {
        'b' if suffix == "b" => 0,
        'k' => 1,
        'm' => 2,
        'g' => 3,
        't' => 4,
        'p' => 5,
        _ => return Err(format!("invalid suffix: '{suffix}'")),
    };
    if !matches!(&suffix[first.len_utf8()..], "" | "b" | "ib") {
        return Err(format!("invalid suffix: '{suffix}'"));
    }
    Ok(whole(size * 1024_f64.powi(power)))
}

#[expect(clippy::cast_possible_truncation, reason = "a size beyond 8 EiB becomes the largest one")]
fn whole(size: f64) -> i64 {
    size as i64
}

/// `3 hours`, `About a minute`, `Less than a second`.
#[must_use]
pub fn span(seconds: i64) -> String {
    let (minutes, hours) = (seconds / 60, (seconds + 1800) / 3600);
    match seconds {
        ..1 => "Less than a second".into(),
        1 => "1 second".into(),
        2..60 => format!("{seconds} seconds"),
        _ if minutes == 1 => "About a minute".into(),
        _ if minutes < 60 => format!("{minutes} minutes"),
        _ if hours == 1 => "About an hour".into(),
        _ if hours < 48 => format!("{hours} hours"),
        _ if hours < 24 * 7 * 2 => format!("{} days", hours / 24),
        _ if hours < 24 * 30 * 2 => format!("{} weeks", hours / 24 / 7),
        _ if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        _ => format!("{} years", hours / 24 / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_dockers_digits() {
        assert_eq!(size_with_digits(7_812_345.0, 3), "7.81MB");
        assert_eq!(size_with_digits(683_000.0, 3), "683kB");
        assert_eq!(size_with_digits(0.0, 3), "0B");
        assert_eq!(size(1_234_567.0), "1.235MB");
        assert_eq!(binary_size(1_572_864.0), "1.5MiB");
        assert_eq!(binary_size(25_202_000_000.0), "23.47GiB");
    }

    #[test]
    fn sizes_are_read_as_docker_reads_them() {
        assert_eq!(parse_binary_size("64m"), Ok(64 << 20));
        assert_eq!(parse_binary_size("1.5GiB"), Ok(3 << 29));
        assert_eq!(parse_binary_size("32 kb"), Ok(32 << 10));
        assert_eq!(parse_binary_size("512"), Ok(512));
        assert_eq!(parse_binary_size("10b"), Ok(10));
        assert_eq!(parse_binary_size("x"), Err("invalid size: 'x'".into()));
        assert_eq!(parse_binary_size("10x"), Err("invalid suffix: 'x'".into()));
        assert_eq!(parse_binary_size("-1"), Err("invalid size: '-1'".into()));
        assert_eq!(parse_binary_size(""), Err("invalid size: ''".into()));
        assert!(parse_binary_size("1m2").is_err() && parse_binary_size("ä").is_err());
    }

    #[test]
    fn spans_are_rounded_as_docker_rounds_them() {
        for (seconds, text) in [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (120, "2 minutes"),
            (3599, "59 minutes"),
            (3600, "About an hour"),
            (7200, "2 hours"),
            (47 * 3600, "47 hours"),
            (72 * 3600, "3 days"),
            (15 * 86400, "2 weeks"),
            (65 * 86400, "2 months"),
            (800 * 86400, "2 years"),
        ] {
            assert_eq!(span(seconds), text, "{seconds}");
        }
    }
}
