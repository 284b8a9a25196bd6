//! How a registry runs. Data alone.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use crate::users::Role;

/// How connections are protected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transport {
    /// Not at all.
    Plain,
    /// With a certificate from files.
    Files {
        /// PEM, the server's certificate first.
        certificate: PathBuf,
        /// PEM.
        key: PathBuf,
    },
    /// With a certificate made here, for these names.
    Generated {
        /// Names and addresses.
        names: Vec<String>,
    },
}

/// Where requests are written down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccessLog {
    /// Nowhere.
    Off,
    /// On standard output.
    Stdout,
    /// Behind the end of a file.
    File(PathBuf),
}

/// Limits on what clients do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// The largest blob.
    pub blob: u64,
    /// Connections at a time.
    pub connections: usize,
    /// Connections of one address at a time.
    pub connections_per_address: usize,
    /// How long the head of a request, or the next one on a connection, may take.
    pub head: Duration,
    /// How long a body may stand still, either way.
    pub idle: Duration,
    /// How long running requests may take when the registry stops.
    pub stop: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            blob: 100 << 30,
            connections: 4096,
            connections_per_address: 1024,
            head: Duration::from_secs(60),
            idle: Duration::from_secs(60),
            stop: Duration::from_secs(30),
        }
    }
}

/// How a registry runs.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where everything lies.
    pub data_root: PathBuf,
    /// Where it listens.
    pub listen: SocketAddr,
    /// How connections are protected.
    pub transport: Transport,
    /// What strangers may.
    pub strangers: Option<Role>,
    /// Whether manifests are taken whose blobs are not here.
    pub allow_missing_blobs: bool,
    /// Where requests are written down.
    pub access_log: AccessLog,
    /// Limits.
    pub limits: Limits,
    /// How long a blob that nobody refers to is kept.
    pub lease: Duration,
    /// How often what nobody needs is removed.
    pub sweep: Duration,
}

impl Config {
    /// One with defaults.
    #[must_use]
    pub fn new(data_root: PathBuf, listen: SocketAddr, transport: Transport) -> Self {
        Self {
            data_root,
            listen,
            transport,
            strangers: None,
            allow_missing_blobs: false,
            access_log: AccessLog::Stdout,
            limits: Limits::default(),
            lease: crate::store::LEASE,
            sweep: Duration::from_secs(300),
        }
    }
}

/// Whether nobody else can see what is sent to an address.
#[must_use]
pub fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}
