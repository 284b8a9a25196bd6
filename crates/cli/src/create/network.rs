//! Networks of a new container: `--network` and the flags about addresses and names in it.

use sampan_gotext::flags::Matches;
use sampan_wire::{Json, object};

use crate::error::{CliError, Outcome};

/// The mode of the first network, and the ends in all of them.
#[derive(Debug)]
pub(super) struct Networks {
    pub(super) mode: String,
    pub(super) endpoints: Json,
}

/// One network of the command line.
#[derive(Debug, Default)]
struct End {
    name: String,
    aliases: Vec<String>,
    ipv4: String,
    ipv6: String,
    mac: String,
    links: Vec<String>,
    local: Vec<String>,
    options: Vec<(String, Json)>,
    priority: i64,
}

/// Reads the flags.
///
/// # Errors
/// Docker's texts.
pub(super) fn networks(matches: &Matches) -> Outcome<Networks> {
    let mut ends = Vec::new();
    for spec in matches.list("network").iter().chain(matches.list("net")) {
        ends.push(end(spec)?);
    }
    if ends.is_empty() {
        ends.push(End { name: "default".into(), ..End::default() });
    }
    let mode = ends[0].name.clone();
    // The flags without a network's name are about the first one.
    let first = &mut ends[0];
    first.aliases.extend(matches.list("network-alias").iter().chain(matches.list("net-alias")).cloned());
    for (slot, flag, text) in [
        (&mut first.ipv4, "ip", "--ip and network-specific ipv4"),
        (&mut first.ipv6, "ip6", "--ip6 and network-specific ipv6"),
        (&mut first.mac, "mac-address", "--mac-address and network-specific mac"),
    ] {
        if matches.given(flag) {
            if !slot.is_empty() {
                return Err(CliError::new(format!("conflicting options: cannot specify both {text} address")));
            }
            matches.text(flag).clone_into(slot);
        }
    }
    first.local.extend(matches.list("link-local-ip").iter().cloned());
    let user_defined = !matches!(mode.as_str(), "default" | "bridge" | "host" | "none") && !mode.starts_with("container:");
    if user_defined {
        first.links.extend(matches.list("link").iter().cloned());
    }
    let several = ends.len() > 1;
    let mut endpoints: Vec<(String, Json)> = Vec::new();
    for end in ends {
        if endpoints.iter().any(|(name, _)| *name == end.name) {
            return Err(CliError::new(format!("network \"{}\" is specified multiple times", end.name)));
        }
        if several && (end.name == "host" || end.name == "none" || end.name.starts_with("container:")) {
            return Err(CliError::new("conflicting options: cannot attach both user-defined and non-user-defined network-modes"));
        }
        endpoints.push((end.name.clone(), end.json()));
    }
    Ok(Networks { mode, endpoints: Json::Object(endpoints) })
}

/// Checks the long form while flags are read.
pub(super) fn check(spec: &str) -> Result<String, String> {
    if spec.contains('=') {
        end(spec).map_err(|error| error.text)?;
    }
    Ok(spec.to_owned())
}

fn end(spec: &str) -> Outcome<End> {
    let mut end = End::default();
    if !spec.contains('=') {
        spec.clone_into(&mut end.name);
    } else {
        for field in spec.split(',') {
            let (key, value) =
                field.split_once('=').ok_or_else(|| CliError::new(format!("invalid field {field} must be a key=value pair")))?;
            match key.to_lowercase().as_str() {
                "name" => value.clone_into(&mut end.name),
                "alias" => end.aliases.push(value.to_owned()),
                "ip" => value.clone_into(&mut end.ipv4),
                "ip6" => value.clone_into(&mut end.ipv6),
                "mac-address" => value.clone_into(&mut end.mac),
                "link-local-ip" => end.local.push(value.to_owned()),
                "driver-opt" => {
                    let (key, value) = value
                        .split_once('=')
                        .ok_or_else(|| CliError::new(format!("invalid key value pair format in driver options: {value}")))?;
                    end.options.push((key.to_lowercase(), value.into()));
                }
                "gw-priority" => {
                    end.priority =
                        value.parse().map_err(|_| CliError::new(format!("invalid gw-priority ({value}): must be an integer")))?;
                }
                _ => return Err(CliError::new(format!("invalid field key {key}"))),
            }
        }
    }
    if end.name.is_empty() {
        return Err(CliError::new("no name set for network"));
    }
    Ok(end)
}

impl End {
    fn json(self) -> Json {
        let addresses = !self.ipv4.is_empty() || !self.ipv6.is_empty() || !self.local.is_empty();
        let addresses = if addresses {
            object! { "IPv4Address": self.ipv4, "IPv6Address": self.ipv6, "LinkLocalIPs": Json::list_or_null(self.local) }
        } else {
            Json::NULL
        };
        object! {
            "IPAMConfig": addresses,
            "Links": Json::list_or_null(self.links),
            "Aliases": Json::list_or_null(self.aliases),
            "MacAddress": self.mac,
            "DriverOpts": if self.options.is_empty() { Json::NULL } else { Json::Object(self.options) },
            "GwPriority": self.priority,
        }
    }
}
