//! Published ports: `[ip:][host:]container[/protocol]`, single ports and ranges.

use std::collections::BTreeMap;

use sampan_wire::{Json, object};

/// Where one port of a container is published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Published {
    /// `80/tcp`.
    pub(crate) port: String,
    pub(crate) host_ip: String,
    /// A port, a range, or empty.
    pub(crate) host_port: String,
}

/// Reads one `-p`, also the long form `target=80,published=8080`.
///
/// # Errors
/// Docker's texts.
pub(crate) fn parse(spec: &str) -> Result<Vec<Published>, String> {
    let spec = if spec.contains('=') { short_form(spec)? } else { spec.to_owned() };
    let (rest, protocol) = spec.rsplit_once('/').map_or((spec.as_str(), "tcp"), |(rest, protocol)| (rest, protocol));
    let (host_ip, host, container) = split(rest);
    let host_ip = address(host_ip)?;
    if container.is_empty() {
        return Err(format!("No port specified: {spec}<empty>"));
    }
    let (first, last) = range(container).map_err(|()| format!("Invalid containerPort: {container}"))?;
    let hosts = if host.is_empty() { None } else { Some(range(host).map_err(|()| format!("Invalid hostPort: {host}"))?) };
    if let Some((low, high)) = hosts
        && high - low != last - first
        && first != last
    {
        return Err(format!("Invalid ranges specified for container and host Ports: {container} and {host}"));
    }
    let protocol = protocol.to_lowercase();
    if !["tcp", "udp", "sctp"].contains(&protocol.as_str()) {
        return Err(format!("Invalid proto: {protocol}"));
    }
    Ok((first..=last)
        .map(|port| {
            let host_port = match hosts {
                Some((low, high)) if first == last && low != high => format!("{low}-{high}"),
                Some((low, _)) => (low + (port - first)).to_string(),
                None => String::new(),
            };
            Published { port: format!("{port}/{protocol}"), host_ip: host_ip.clone(), host_port }
        })
        .collect())
}

/// Address, host port, container port.
fn split(text: &str) -> (&str, &str, &str) {
    let Some((rest, container)) = text.rsplit_once(':') else { return ("", "", text) };
    match rest.rsplit_once(':') {
        Some((address, host)) => (address, host, container),
        None => ("", rest, container),
    }
}

fn address(text: &str) -> Result<String, String> {
    let plain = match text.strip_prefix('[') {
        Some(rest) => {
            rest.strip_suffix(']').ok_or_else(|| format!("Invalid ip address {text}: address {text}:: missing ']' in address"))?
        }
        None if text.contains(':') => return Err(format!("Invalid ip address {text}: address {text}:: too many colons in address")),
        None => text,
    };
    if !plain.is_empty() && plain.parse::<std::net::IpAddr>().is_err() {
        return Err(format!("Invalid ip address: {plain}"));
    }
    Ok(plain.to_owned())
}

/// A port or a range of ports.
pub(crate) fn range(text: &str) -> Result<(u16, u16), ()> {
    let port = |text: &str| text.parse::<u16>().map_err(drop);
    match text.split_once('-') {
        None => port(text).map(|port| (port, port)),
        Some((low, high)) => {
            let (low, high) = (port(low)?, port(high)?);
            if low > high { Err(()) } else { Ok((low, high)) }
        }
    }
}

/// `target=80,published=8080,protocol=udp` in the short form.
fn short_form(spec: &str) -> Result<String, String> {
    let (mut target, mut published, mut protocol) = ("", "", "tcp");
    for field in spec.split(',') {
        match field.split_once('=') {
            Some(("target", value)) => target = value,
            Some(("published", value)) => published = value,
            Some(("protocol", value)) => protocol = value,
            Some(("mode", _)) => {}
            Some((key, _)) => return Err(format!("invalid field key {key}")),
            None => return Err(format!("invalid publish opts format (should be name=value but got '{field}')")),
        }
    }
    Ok(format!("{published}:{target}/{protocol}"))
}

/// `--expose`: ports that are only declared.
///
/// # Errors
/// Docker's texts.
pub(crate) fn exposed(spec: &str) -> Result<Vec<String>, String> {
    if spec.contains(':') {
        return Err(format!("invalid port format for --expose: {spec}"));
    }
    let (ports, protocol) = spec.split_once('/').unwrap_or((spec, "tcp"));
    let wrong = |error: String| format!("invalid range format for --expose: {ports}, error: {error}");
    let number = |text: &str| {
        text.parse::<u16>().map_err(|_| wrong(format!("strconv.ParseUint: parsing {}: invalid syntax", sampan_gotext::quote(text))))
    };
    let (low, high) = ports.split_once('-').unwrap_or((ports, ports));
    let (low, high) = (number(low)?, number(high)?);
    if low > high {
        return Err(wrong("Invalid range specified for the Port: ".to_owned() + ports));
    }
    Ok((low..=high).map(|port| format!("{port}/{protocol}")).collect())
}

/// The engine's map of bindings.
pub(crate) fn bindings(published: &[Published]) -> Json {
    let mut map = BTreeMap::<&str, Vec<Json>>::new();
    for one in published {
        map.entry(&one.port).or_default().push(object! { "HostIp": one.host_ip.as_str(), "HostPort": one.host_port.as_str() });
    }
    Json::map(map.into_iter().map(|(port, list)| (port, Json::Array(list))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shown(spec: &str) -> Result<String, String> {
        parse(spec)
            .map(|list| list.iter().map(|one| format!("{}|{}|{}", one.host_ip, one.host_port, one.port)).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn all_forms_are_read() {
        for (spec, expected) in [
            ("80", "||80/tcp"),
            ("8080:80", "|8080|80/tcp"),
            ("127.0.0.1:8080:80/udp", "127.0.0.1|8080|80/udp"),
            ("127.0.0.1::80", "127.0.0.1||80/tcp"),
            ("127.0.0.1:0:80", "127.0.0.1|0|80/tcp"),
            ("[::1]:8080:80", "::1|8080|80/tcp"),
            ("8000-8001:80-81", "|8000|80/tcp |8001|81/tcp"),
            ("8000-8010:80", "|8000-8010|80/tcp"),
            ("target=80,published=8080,protocol=udp", "|8080|80/udp"),
        ] {
            assert_eq!(shown(spec).as_deref(), Ok(expected), "{spec}");
        }
    }

    #[test]
    fn mistakes_are_told_in_dockers_words() {
        for (spec, expected) in [
            ("x", "Invalid containerPort: x"),
            ("70000:1", "Invalid hostPort: 70000"),
            ("1:2:3:4", "Invalid ip address 1:2: address 1:2:: too many colons in address"),
            ("300.0.0.1:1:2", "Invalid ip address: 300.0.0.1"),
            ("1-2:1-3", "Invalid ranges specified for container and host Ports: 1-3 and 1-2"),
            ("80/foo", "Invalid proto: foo"),
        ] {
            assert_eq!(shown(spec).unwrap_err(), expected, "{spec}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_specs_do_no_harm(spec in "[0-9a-z:/\\[\\]=,.-]{0,24}") {
            drop((parse(&spec), exposed(&spec)));
        }
    }
}
