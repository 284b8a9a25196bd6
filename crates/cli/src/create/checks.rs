//! Checks of flag values while flags are read, in Docker's words. Each gives the value as it is kept.

use std::net::IpAddr;

type Checked = Result<String, String>;

pub(crate) fn attach(value: &str) -> Checked {
    let lower = value.to_lowercase();
    if ["stdin", "stdout", "stderr"].contains(&lower.as_str()) {
        Ok(lower)
    } else {
        Err("valid streams are STDIN, STDOUT and STDERR".into())
    }
}

pub(crate) fn extra_host(value: &str) -> Checked {
    let (name, address) = match (value.split_once('='), value.split_once(':')) {
        (Some((name, address)), _) if !name.contains(':') => (name, address),
        (_, Some((name, address))) => (name, address),
        _ => return Err(format!("bad format for add-host: {}", sampan_gotext::quote(value))),
    };
    if name.is_empty() || address.is_empty() {
        return Err(format!("bad format for add-host: {}", sampan_gotext::quote(value)));
    }
    let plain = address.strip_prefix('[').and_then(|address| address.strip_suffix(']')).unwrap_or(address);
    if plain != "host-gateway" && plain.parse::<IpAddr>().is_err() {
        return Err(format!("invalid IP address in add-host: {}", sampan_gotext::quote(address)));
    }
    Ok(format!("{name}:{plain}"))
}

pub(crate) fn variable(value: &str) -> Checked {
    if value.is_empty() || value.starts_with('=') { Err(format!("invalid environment variable: {value}")) } else { Ok(value.to_owned()) }
}

pub(crate) fn label(value: &str) -> Checked {
    if value.starts_with('=') || value.trim().is_empty() {
        Err(format!("invalid label '{value}': empty name"))
    } else {
        Ok(value.to_owned())
    }
}

pub(crate) fn address(value: &str) -> Checked {
    value.trim().parse::<IpAddr>().map(|address| address.to_string()).map_err(|_| format!("IP address is not correctly formatted: {value}"))
}

pub(crate) fn dns_search(value: &str) -> Checked {
    let trimmed = value.trim_matches([' ', '\t']);
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.chars().all(|character| character.is_ascii_alphanumeric() || matches!(character, '-' | '_'))
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if trimmed == "." || (trimmed.len() < 255 && trimmed.trim_end_matches('.').split('.').all(label)) {
        return Ok(trimmed.to_owned());
    }
    Err(format!("{value} is not a valid domain"))
}

/// A number with at most nine places becomes billionths.
pub(crate) fn cpus(value: &str) -> Checked {
    let wrong = || format!("failed to parse {value} as a rational number");
    let (sign, digits) = value.strip_prefix('-').map_or(("", value), |digits| ("-", digits));
    let (whole, places) = digits.split_once('.').unwrap_or((digits, ""));
    let valid = |text: &str| text.chars().all(|digit| digit.is_ascii_digit());
    if (whole.is_empty() && places.is_empty()) || !valid(whole) || !valid(places) || whole.len() > 9 {
        return Err(wrong());
    }
    let places = places.trim_end_matches('0');
    if places.len() > 9 {
        return Err("value is too precise".into());
    }
    let nanos: i64 = format!("{whole}{places:0<9}").parse().map_err(|_| wrong())?;
    Ok(format!("{sign}{nanos}"))
}

pub(crate) fn device_rule(value: &str) -> Checked {
    let fields: Vec<&str> = value.split(' ').collect();
    let number = |text: &str| text == "*" || (!text.is_empty() && text.chars().all(|digit| digit.is_ascii_digit()));
    let valid = match fields[..] {
        [kind, numbers, access] => {
            let (major, minor) = numbers.split_once(':').unwrap_or(("", ""));
            let letters = (1..=3).contains(&access.len()) && access.chars().all(|letter| "rwm".contains(letter));
            ["a", "b", "c"].contains(&kind) && number(major) && number(minor) && letters
        }
        _ => false,
    };
    if valid { Ok(value.to_owned()) } else { Err(format!("invalid device cgroup format '{value}'")) }
}

pub(crate) fn weight_device(value: &str) -> Checked {
    let (path, weight) = value.split_once(':').filter(|(path, _)| !path.is_empty()).ok_or_else(|| format!("bad format: {value}"))?;
    if !path.starts_with("/dev/") {
        return Err(format!("bad format for device path: {value}"));
    }
    match weight.parse::<u16>() {
        Ok(number) if number == 0 || (10..=1000).contains(&number) => Ok(value.to_owned()),
        _ => Err(format!("invalid weight for device: {value}")),
    }
}

pub(crate) fn rate_bytes(value: &str) -> Checked {
    let form = "The correct format is <device-path>:<number>[<unit>]. Number must be a positive integer. Unit is optional and can be kb, mb, or gb";
    let (path, rate) = rated(value)?;
    let rate = sampan_gotext::units::parse_binary_size(rate).map_err(|_| format!("invalid rate for device: {value}. {form}"))?;
    Ok(format!("{path}:{rate}"))
}

pub(crate) fn rate_operations(value: &str) -> Checked {
    let (_, rate) = rated(value)?;
    match rate.parse::<u64>() {
        Ok(_) => Ok(value.to_owned()),
        Err(_) => Err(format!(
            "invalid rate for device: {value}. The correct format is <device-path>:<number>. Number must be a positive integer"
        )),
    }
}

fn rated(value: &str) -> Result<(&str, &str), String> {
    let (path, rate) = value.split_once(':').filter(|(path, _)| !path.is_empty()).ok_or_else(|| format!("bad format: {value}"))?;
    if path.starts_with("/dev/") { Ok((path, rate)) } else { Err(format!("bad format for device path: {value}")) }
}

pub(crate) fn link(value: &str) -> Checked {
    let fields: Vec<&str> = value.split(':').collect();
    match fields[..] {
        [""] => Err("empty string specified for links".into()),
        [_] | [_, _] => Ok(value.to_owned()),
        _ => Err(format!("bad format for links: {value}")),
    }
}

pub(crate) fn sysctl(value: &str) -> Checked {
    const EXACT: [&str; 8] = [
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.sem",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
        "kernel.shm_rmid_forced",
    ];
    let (name, _) = value.split_once('=').ok_or_else(|| format!("sysctl '{value}' is not allowed"))?;
    let allowed = EXACT.contains(&name) || name.starts_with("net.") || name.starts_with("fs.mqueue.");
    if allowed { Ok(value.to_owned()) } else { Err(format!("sysctl '{value}' is not allowed")) }
}

pub(crate) fn gpus(value: &str) -> Checked {
    for field in value.split(',') {
        let (key, number) = field.split_once('=').unwrap_or(("count", field));
        let count = if field.contains('=') { number } else { field };
        if key == "count" && count != "all" && count.parse::<i64>().is_err() {
            return Err(format!("invalid count ({count}): value must be either \"all\" or an integer: invalid syntax"));
        }
        if !["count", "driver", "capabilities", "device", "options"].contains(&key) {
            return Err(format!("unexpected key '{key}' in '{field}'"));
        }
    }
    Ok(value.to_owned())
}

/// Names of limits.
const LIMITS: [&str; 16] = [
    "as",
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

/// `name=soft[:hard]`.
pub(crate) fn ulimit(value: &str) -> Checked {
    parse_ulimit(value).map(|_| value.to_owned())
}

/// Name, soft and hard limit; -1 for none.
pub(crate) fn parse_ulimit(value: &str) -> Result<(&str, i64, i64), String> {
    let (name, limits) = value.split_once('=').ok_or_else(|| format!("invalid ulimit argument: {value}"))?;
    if !LIMITS.contains(&name) {
        return Err(format!("invalid ulimit type: {name}"));
    }
    let fields: Vec<&str> = limits.split(':').collect();
    if fields.len() > 2 || fields[0].is_empty() {
        return Err(format!("too many limit value arguments - {limits}, can only have up to two, `soft[:hard]`"));
    }
    let number = |text: &str| sampan_gotext::flags::integer(text).map(|number| number.parse::<i64>().unwrap_or(0));
    let soft = number(fields[0])?;
    let hard = fields.get(1).map_or(Ok(soft), |hard| number(hard))?;
    if hard != -1 && (soft == -1 || soft > hard) {
        return Err(format!("ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}"));
    }
    Ok((name, soft, hard))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_checked_in_dockers_words() {
        assert_eq!(cpus("0.5").as_deref(), Ok("500000000"));
        assert_eq!(cpus("1.2345678901").unwrap_err(), "value is too precise");
        assert_eq!(cpus("abc").unwrap_err(), "failed to parse abc as a rational number");
        assert_eq!(extra_host("a:::1").as_deref(), Ok("a:::1"));
        assert_eq!(extra_host("a=[::1]").as_deref(), Ok("a:::1"));
        assert_eq!(extra_host("x").unwrap_err(), "bad format for add-host: \"x\"");
        assert_eq!(parse_ulimit("nofile=1:2"), Ok(("nofile", 1, 2)));
        assert!(parse_ulimit("nofile=3:2").is_err() && parse_ulimit("x=1").is_err());
        assert_eq!(device_rule("c 1:* rwm").as_deref(), Ok("c 1:* rwm"));
        assert_eq!(rate_bytes("/dev/sda:1mb").as_deref(), Ok("/dev/sda:1048576"));
        assert!(sysctl("kernel.hostname=x").is_err() && sysctl("net.x=1").is_ok());
    }
}
