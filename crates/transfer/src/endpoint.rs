//! Where a registry may be reached: the addresses to try for a name, in order. Pure.

use std::net::IpAddr;

use reqwest::Url;

use crate::address::{Network, split_host};
use crate::{Config, TransferError};

/// Where Docker Hub's registry really is.
const HUB: &str = "registry-1.docker.io";

/// One address of a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// Without `/v2/`, without a slash at the end.
    pub(crate) base: Url,
    /// `HOST[:PORT]`: the name of its folder in `certs.d`.
    pub(crate) host: String,
    /// Whether certificates are not checked and plain HTTP is allowed.
    pub(crate) insecure: bool,
    /// Whether it is a mirror of Docker Hub; gets no credentials.
    pub(crate) mirror: bool,
}

impl Endpoint {
    /// An address below the base; `path` begins with `/v2/` or `/v1/`.
    pub(crate) fn url(&self, path: &str) -> Result<Url, TransferError> {
        let base = self.base.as_str().trim_end_matches('/');
        Url::parse(&format!("{base}{path}")).map_err(|error| TransferError::Invalid(format!("parse {base}{path}: {error}")))
    }
}

/// Which registries need no valid certificate, as the configuration says.
#[derive(Debug, Default)]
pub(crate) struct Insecure {
    hosts: Vec<String>,
    networks: Vec<Network>,
}

impl Insecure {
    /// Reads the entries of `insecure-registries`.
    pub(crate) fn parse(entries: &[String]) -> Result<Self, TransferError> {
        let mut list = Self::default();
        for entry in entries {
            // Docker strips a scheme with a warning.
            let entry = entry.strip_prefix("https://").or_else(|| entry.strip_prefix("http://")).unwrap_or(entry);
            match Network::parse(entry) {
                Some(network) => list.networks.push(network),
                None if is_host(entry) => list.hosts.push(entry.to_ascii_lowercase()),
                None => {
                    return Err(TransferError::Configuration(format!("insecure registry {entry} is not valid: invalid host \"{entry}\"")));
                }
            }
        }
        Ok(list)
    }

    /// Whether a name is listed itself.
    pub(crate) fn names(&self, host: &str) -> bool {
        let name = split_host(host).0;
        self.hosts.contains(&host.to_ascii_lowercase()) || name.eq_ignore_ascii_case("localhost")
    }

    /// Whether addresses matter beyond loopback.
    pub(crate) fn has_networks(&self) -> bool {
        !self.networks.is_empty()
    }

    /// Whether one of the addresses of a name lies in a listed network, or is this machine itself.
    pub(crate) fn covers(&self, addresses: impl IntoIterator<Item = IpAddr>) -> bool {
        let covered =
            |address: IpAddr| address.to_canonical().is_loopback() || self.networks.iter().any(|network| network.contains(address));
        addresses.into_iter().any(covered)
    }
}

/// Whether a text may be the `HOST[:PORT]` of a registry. It becomes a part of URLs and of paths.
pub(crate) fn is_host(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '[' | ']');
    !text.is_empty() && text.len() <= 300 && text.chars().all(allowed) && !text.starts_with(['.', ':', '-']) && !text.contains("..")
}

/// Reads the mirrors of the configuration.
pub(crate) fn mirrors(config: &Config, insecure: &Insecure) -> Result<Vec<Endpoint>, TransferError> {
    let bad = |mirror: &str, problem: &str| TransferError::Configuration(format!("invalid mirror: {problem}: {mirror:?}"));
    config
        .mirrors
        .iter()
        .map(|mirror| {
            let base = Url::parse(mirror).map_err(|error| bad(mirror, &error.to_string()))?;
            let port = base.port().map(|port| format!(":{port}")).unwrap_or_default();
            let host = base.host_str().map(|name| format!("{name}{port}")).ok_or_else(|| bad(mirror, "no host"))?;
            if !matches!(base.scheme(), "http" | "https") || !base.username().is_empty() || base.query().is_some() {
                return Err(bad(mirror, "it must be http(s)://HOST[:PORT][/PATH]"));
            }
            let address = split_host(&host).0.parse::<IpAddr>().ok();
            // A mirror that is written with http:// is asked without TLS, and may name a token service without TLS.
            let insecure = base.scheme() == "http" || insecure.names(&host) || insecure.covers(address);
            Ok(Endpoint { base, host, insecure, mirror: true })
        })
        .collect()
}

/// The addresses of a registry in the order in which they are tried.
pub(crate) fn plan(domain: &str, mirrors: &[Endpoint], insecure: bool) -> Result<Vec<Endpoint>, TransferError> {
    let host = if domain == "docker.io" { HUB } else { domain };
    if !is_host(host) {
        return Err(TransferError::Invalid(format!("invalid registry host {host:?}")));
    }
    let at = |scheme: &str| -> Result<Endpoint, TransferError> {
        let text = format!("{scheme}://{host}");
        let base = Url::parse(&text).map_err(|error| TransferError::Invalid(format!("parse {text:?}: {error}")))?;
        Ok(Endpoint { base, host: host.to_owned(), insecure, mirror: false })
    };
    let mut endpoints = if domain == "docker.io" { mirrors.to_vec() } else { Vec::new() };
    endpoints.push(at("https")?);
    if insecure {
        endpoints.push(at("http")?);
    }
    Ok(endpoints)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(domain: &str, mirrors: &[&str], entries: &[&str]) -> String {
        let list = Insecure::parse(&entries.iter().map(|&entry| entry.to_owned()).collect::<Vec<_>>()).unwrap();
        let config = Config { mirrors: mirrors.iter().map(|&mirror| mirror.to_owned()).collect(), ..Config::default() };
        let mirrors = super::mirrors(&config, &list).unwrap();
        let insecure = list.names(domain) || list.covers(split_host(domain).0.parse::<IpAddr>().ok());
        let shown = |endpoint: Endpoint| format!("{}{}", endpoint.url("/v2/").unwrap(), if endpoint.insecure { "!" } else { "" });
        plan(domain, &mirrors, insecure).unwrap().into_iter().map(shown).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn addresses_are_planned() {
        for (domain, mirrors, entries, wanted) in [
            ("docker.io", &[][..], &[][..], "https://registry-1.docker.io/v2/"),
            (
                "docker.io",
                &["http://m:5000", "https://n/sub/"],
                &[],
                "http://m:5000/v2/! https://n/sub/v2/ https://registry-1.docker.io/v2/",
            ),
            ("h.example:5000", &["http://m"], &[], "https://h.example:5000/v2/"),
            ("localhost:5000", &[], &[], "https://localhost:5000/v2/! http://localhost:5000/v2/!"),
            ("127.1.2.3", &[], &[], "https://127.1.2.3/v2/! http://127.1.2.3/v2/!"),
            ("[::1]:5000", &[], &[], "https://[::1]:5000/v2/! http://[::1]:5000/v2/!"),
            ("h.example:5000", &[], &["H.example:5000"], "https://h.example:5000/v2/! http://h.example:5000/v2/!"),
            ("h.example:5001", &[], &["h.example:5000"], "https://h.example:5001/v2/"),
            ("10.1.1.1:5000", &[], &["10.0.0.0/8"], "https://10.1.1.1:5000/v2/! http://10.1.1.1:5000/v2/!"),
        ] {
            assert_eq!(shown(domain, mirrors, entries), wanted, "{domain}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for bad in ["", "a/b", "../x", "a b", "-x", ":5000", "a@b", "a\0"] {
            assert!(plan(bad, &[], false).is_err(), "{bad}");
            assert!(Insecure::parse(&[bad.to_owned()]).is_err(), "{bad}");
        }
        for bad in ["ftp://x", "x", "https://u:p@x", "https://x/?q", "http://"] {
            let config = Config { mirrors: vec![bad.to_owned()], ..Config::default() };
            assert!(mirrors(&config, &Insecure::default()).is_err(), "{bad}");
        }
    }
}
