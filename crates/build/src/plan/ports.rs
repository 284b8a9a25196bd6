//! EXPOSE: `[ip:][host:]port[-port][/protocol]` to the container's ports.

use super::planner::Fault;
use crate::dockerfile::{Lines, Warning, rules};

/// The ports of one word, `80/tcp`; findings of checks are added.
pub(crate) fn parse(text: &str, lines: Lines, findings: &mut Vec<Warning>) -> Result<Vec<String>, Fault> {
    let (address, host, container) = split(text);
    let in_port = |reason: &str, classic: String| Fault {
        message: format!("invalid port: {}: {reason}", sampan_gotext::quote(text)),
        classic: Some(classic),
    };
    let fault = |message: String| Fault { classic: Some(message.replacen("invalid", "Invalid", 1)), message };
    let (ports, protocol) = container.split_once('/').unwrap_or((container, ""));
    if ports.is_empty() {
        return Err(in_port("no port specified", format!("No port specified: {text}<empty>")));
    }
    let lower = if protocol.is_empty() { "tcp".to_owned() } else { protocol.to_lowercase() };
    if !matches!(lower.as_str(), "tcp" | "udp" | "sctp") {
        return Err(in_port(&format!("invalid proto: {protocol}"), format!("Invalid proto: {protocol}")));
    }
    if !protocol.is_empty() && protocol != lower {
        let text = format!("Defined protocol '{text}' in EXPOSE instruction should be lowercase");
        findings.push(rules::EXPOSE_PROTO_CASING.warn(lines, text));
    }
    if !address.is_empty() || !host.is_empty() {
        let text = format!("EXPOSE instruction should not define an IP address or host-port mapping, found '{text}'");
        findings.push(rules::EXPOSE_INVALID_FORMAT.warn(lines, text));
    }
    let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(&address);
    if !address.is_empty() && bare.parse::<std::net::IpAddr>().is_err() {
        return Err(fault(format!("invalid IP address: {address}")));
    }
    let (first, last) = range(ports).ok_or_else(|| fault(format!("invalid containerPort: {ports}")))?;
    if !host.is_empty() {
        let (host_first, host_last) = range(host).ok_or_else(|| fault(format!("invalid hostPort: {host}")))?;
        if last - first != host_last - host_first && last != first {
            return Err(fault(format!("invalid ranges specified for container and host Ports: {ports} and {host}")));
        }
    }
    Ok((first..=last).map(|port| format!("{port}/{lower}")).collect())
}

fn split(text: &str) -> (String, &str, &str) {
    let parts: Vec<&str> = text.split(':').collect();
    match parts.as_slice() {
        [container] => (String::new(), "", container),
        [host, container] => (String::new(), host, container),
        [address @ .., host, container] => (address.join(":"), host, container),
        [] => (String::new(), "", ""),
    }
}

fn range(text: &str) -> Option<(u16, u16)> {
    let number = |text: &str| text.parse::<u16>().ok();
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (number(first)?, number(last)?);
    (first <= last).then_some((first, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ports(text: &str) -> Result<Vec<String>, String> {
        parse(text, Lines { first: 1, last: 1 }, &mut Vec::new()).map_err(|fault| fault.message)
    }

    #[test]
    fn words_become_ports() {
        assert_eq!(ports("80").unwrap(), ["80/tcp"]);
        assert_eq!(ports("53/UDP").unwrap(), ["53/udp"]);
        assert_eq!(ports("8000-8002").unwrap(), ["8000/tcp", "8001/tcp", "8002/tcp"]);
        assert_eq!(ports("127.0.0.1:1:80").unwrap(), ["80/tcp"]);
        assert_eq!(ports("[::1]:1:80").unwrap(), ["80/tcp"]);
    }

    #[test]
    fn faults_have_buildkits_words() {
        for (text, wanted) in [
            ("", "invalid port: \"\": no port specified"),
            ("80/xyz", "invalid port: \"80/xyz\": invalid proto: xyz"),
            ("abc", "invalid containerPort: abc"),
            ("70000", "invalid containerPort: 70000"),
            ("9-8", "invalid containerPort: 9-8"),
            ("x:80", "invalid hostPort: x"),
            ("1.2.3:1:80", "invalid IP address: 1.2.3"),
            ("1-3:80-81", "invalid ranges specified for container and host Ports: 80-81 and 1-3"),
        ] {
            assert_eq!(ports(text), Err(wanted.to_owned()), "{text}");
        }
    }
}
