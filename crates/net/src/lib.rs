//! Container networking: the default bridge, veth pairs, nf_tables, addresses, published ports.
//!
//! Plain netlink, no external programs, no waiting for the kernel's teardown. The firewall is one static table per instance; a
//! published port is a map element, so its cost does not grow with their number.
#![forbid(unsafe_code)]

mod bridge;
mod engine;
mod ipam;
mod message;
mod nft;
mod ports;

pub use engine::{Endpoint, EndpointSpec, Net, NetConfig, NetError};
pub use ipam::Ipam;
pub use ports::{Binding, PortError, PortRequest, Protocol};
