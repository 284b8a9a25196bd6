//! Networks and a container's place in them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What a user asked of an endpoint.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EndpointRequest {
    /// Wanted IPv4 address; empty: any.
    pub ipv4: String,
    /// Wanted IPv6 address; empty: any.
    pub ipv6: String,
    /// Wanted hardware address; empty: any.
    pub mac: String,
    /// Further names in the network.
    pub aliases: Vec<String>,
    /// Legacy links.
    pub links: Vec<String>,
    /// Driver options.
    pub driver_options: BTreeMap<String, String>,
    /// Which endpoint gives the default gateway.
    pub gateway_priority: i64,
}

/// An endpoint of a running container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EndpointView {
    /// Network id.
    pub network_id: String,
    /// Endpoint id; empty when not connected.
    pub endpoint_id: String,
    /// IPv4 gateway.
    pub gateway: String,
    /// IPv4 address.
    pub ip: String,
    /// Bits of the IPv4 prefix.
    pub prefix_len: u8,
    /// Hardware address.
    pub mac: String,
}

/// A network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NetworkView {
    /// 64 hex digits.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Nanoseconds since the epoch.
    pub created: i64,
    /// `bridge`, `host`, `null`.
    pub driver: String,
    /// IPv4 subnets with their gateways: `("172.17.0.0/16", "172.17.0.1")`.
    pub subnets: Vec<(String, String)>,
    /// No way out.
    pub internal: bool,
    /// Driver options.
    pub options: BTreeMap<String, String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Running containers in it.
    pub containers: Vec<NetworkContainer>,
}

/// A container in a network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NetworkContainer {
    /// Container id.
    pub id: String,
    /// Container name.
    pub name: String,
    /// Endpoint id.
    pub endpoint_id: String,
    /// Hardware address.
    pub mac: String,
    /// Address with prefix (`172.17.0.2/16`).
    pub ipv4: String,
}
