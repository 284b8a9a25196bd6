//! Wishes of one create request that contradict each other; Docker's texts. Pure, and asked before the image adds anything.

use crate::error::EngineError;
use crate::model::{Config, HostConfig};

/// Refuses what a network or UTS namespace that is not the container's own leaves no room for.
///
/// # Errors
/// [`EngineError::Invalid`].
pub(crate) fn check(config: &Config, host: &HostConfig, name: &str) -> Result<(), EngineError> {
    let uts_host = host.uts_mode == "host" && !config.hostname.is_empty();
    let joined = host.network_mode.strip_prefix("container:");
    let name = name.trim_start_matches('/');
    let wrong = match joined {
        Some(other) if other == name => Some("cannot join own network"),
        Some(_) => with_anothers_network(config, host),
        None => None,
    };
    match wrong.or(uts_host.then_some("conflicting options: hostname and the UTS mode")) {
        Some(text) => Err(EngineError::Invalid(text.into())),
        None => Ok(()),
    }
}

fn with_anothers_network(config: &Config, host: &HostConfig) -> Option<&'static str> {
    let checks = [
        (!config.hostname.is_empty(), "conflicting options: hostname and the network mode"),
        (!host.dns.is_empty(), "conflicting options: dns and the network mode"),
        (!host.extra_hosts.is_empty(), "conflicting options: custom host-to-IP mapping and the network mode"),
        (!config.mac_address.is_empty(), "conflicting options: mac-address and the network mode"),
        (
            !host.port_bindings.is_empty() || host.publish_all_ports,
            "conflicting options: port publishing and the container type network mode",
        ),
        (!config.exposed_ports.is_empty(), "conflicting options: port exposing and the container type network mode"),
    ];
    checks.into_iter().find(|(wrong, _)| *wrong).map(|(_, text)| text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(config: &Config, host: &HostConfig) -> String {
        check(config, host, "me").map_or_else(|error| error.to_string(), |()| String::new())
    }

    #[test]
    fn a_borrowed_network_has_its_owners_names_and_ports() {
        let host = || HostConfig { network_mode: "container:other".into(), ..HostConfig::default() };
        assert_eq!(text(&Config::default(), &host()), "");
        assert!(text(&Config { hostname: "x".into(), ..Config::default() }, &host()).ends_with("hostname and the network mode"));
        assert!(text(&Config { exposed_ports: ["80/tcp".into()].into(), ..Config::default() }, &host()).contains("port exposing"));
        assert!(text(&Config::default(), &HostConfig { dns: vec!["1.1.1.1".into()], ..host() }).contains("dns and"));
        assert!(text(&Config::default(), &HostConfig { publish_all_ports: true, ..host() }).contains("port publishing"));
        let own = HostConfig { network_mode: "container:me".into(), ..HostConfig::default() };
        assert_eq!(text(&Config::default(), &own), "cannot join own network");
    }

    #[test]
    fn the_hosts_name_is_not_changed() {
        let host = || HostConfig { uts_mode: "host".into(), ..HostConfig::default() };
        assert_eq!(text(&Config::default(), &host()), "");
        assert_eq!(text(&Config { hostname: "x".into(), ..Config::default() }, &host()), "conflicting options: hostname and the UTS mode");
    }
}
