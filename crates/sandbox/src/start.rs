//! What a start needs and gives.

use std::path::PathBuf;

use sampan_net::{Endpoint, PortRequest};
use sampan_runtime::options::Options;
use sampan_runtime::shims::Attachment;

/// Where the network comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Network {
    /// The default bridge.
    Bridge {
        /// Wanted address.
        ip: Option<std::net::Ipv4Addr>,
        /// Wanted hardware address.
        mac: Option<[u8; 6]>,
        /// Ports to publish.
        ports: Vec<PortRequest>,
    },
    /// The host's.
    Host,
    /// Loopback only.
    None,
    /// That of another container, by its id.
    Join(String),
}

/// A container to start.
#[derive(Debug)]
pub struct StartRequest {
    /// Its id.
    pub id: String,
    /// Its name, for messages.
    pub name: String,
    /// Layers, top first.
    pub lowers: Vec<PathBuf>,
    /// Folder with `upper`, `work`; gets `hostname`, `hosts`, `resolv.conf`.
    pub folder: PathBuf,
    /// The process; ids, paths and joins of namespaces are filled in here.
    pub options: Options,
    /// Its network.
    pub network: Network,
    /// Ids of the containers whose pid, ipc, uts namespaces are joined where the options say `Join`.
    pub joins: [String; 3],
    /// `/etc/hosts` lines beyond the standard ones.
    pub extra_hosts: Vec<(String, String)>,
    /// Name servers, search domains, options; all empty: the host's.
    pub dns: [Vec<String>; 3],
    /// Do not touch /etc/hostname, hosts and resolv.conf: something else is mounted there.
    pub own_files: Vec<String>,
    /// The folder of the container whose network it joins: its hostname, hosts and resolv.conf are shared.
    pub files_of: Option<PathBuf>,
    /// Clients that wait for its output.
    pub attachments: Vec<Attachment>,
    /// Who it runs as, by name; looked up in its root.
    pub user: String,
    /// Additional groups, by name.
    pub groups: Vec<String>,
    /// Small init.
    pub init: bool,
    /// Nobody will ask for its exit record after the daemon's end: it is kept with the sockets.
    pub passing: bool,
}

/// A container that runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Running {
    /// Process id of its process 1, as the host sees it.
    pub pid: u32,
    /// Its place on the default bridge.
    pub endpoint: Option<Endpoint>,
}
