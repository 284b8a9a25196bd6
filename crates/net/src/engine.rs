//! The network engine: one default bridge with its endpoints and published ports.
//!
//! All state is derived: after a restart [`Net::adopt`] tells what lives, and one reload makes the kernel agree.

use std::collections::HashMap;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ipnet::Ipv4Net;
use sampan_base::ErrorKind;
use sampan_sys::netlink::{Family, Notification, Socket};
use sampan_sys::ns;

use crate::bridge;
use crate::ipam::{Ipam, choose_pool};
use crate::nft::{Table, Target};
use crate::ports::{Allocator, Binding, PortError, PortRequest, Protocol};

/// What makes an instance of the engine different from others on the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetConfig {
    /// A short hexadecimal name: part of table and link names.
    pub instance: String,
    /// Name of the default bridge.
    pub bridge: String,
    /// Its address with prefix; `None`: the first free pool.
    pub subnet: Option<Ipv4Net>,
    /// Packet size of its links.
    pub mtu: u32,
}

/// What a container wants.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EndpointSpec {
    /// The container.
    pub container: String,
    /// Its endpoint's id, for messages.
    pub endpoint: String,
    /// Its name, for messages.
    pub name: String,
    /// Wanted address.
    pub ip: Option<Ipv4Addr>,
    /// Wanted hardware address.
    pub mac: Option<[u8; 6]>,
    /// Ports to publish.
    pub ports: Vec<PortRequest>,
}

/// What a container got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Its address.
    pub ip: Ipv4Addr,
    /// Bits of the prefix.
    pub prefix: u8,
    /// Its gateway.
    pub gateway: Ipv4Addr,
    /// Hardware address.
    pub mac: [u8; 6],
    /// The host's end of its link.
    pub host_link: String,
    /// Published ports.
    pub ports: Vec<Binding>,
}

/// A network operation that failed.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// The kernel refused a step.
    #[error("{step}")]
    Kernel {
        /// What was attempted.
        step: String,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// A port cannot be had.
    #[error("driver failed programming external connectivity on endpoint {name} ({container}): {source}")]
    Port {
        /// Container name.
        name: String,
        /// Endpoint.
        container: String,
        /// Why; part of the text already.
        source: PortError,
    },
    /// No address is left.
    #[error("no available IPv4 addresses on this network's address pools: bridge")]
    NoAddress,
    /// A wanted address is taken.
    #[error("Address already in use")]
    AddressTaken,
    /// Every pool overlaps a network of the host.
    #[error("all predefined address pools have been fully subnetted")]
    NoPool,
}

impl sampan_base::Failure for NetError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::AddressTaken => ErrorKind::Denied,
            _ => ErrorKind::Internal,
        }
    }
}

/// The engine of one instance.
#[derive(Debug)]
pub struct Net {
    config: NetConfig,
    subnet: Ipv4Net,
    gateway: Ipv4Addr,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    table: Table,
    ipam: Ipam,
    allocator: Allocator,
    endpoints: HashMap<String, Live>,
    /// Everything was removed on purpose.
    closed: bool,
}

#[derive(Debug)]
struct Live {
    endpoint: Endpoint,
    /// Hold the published ports.
    sockets: Vec<OwnedFd>,
}

fn kernel(step: impl Into<String>) -> impl FnOnce(io::Error) -> NetError {
    let step = step.into();
    move |source| NetError::Kernel { step, source }
}

impl Net {
    /// Chooses the subnet, makes the bridge and loads the firewall.
    ///
    /// # Errors
    /// [`NetError`]; what was made stays and is found again.
    pub fn open(config: NetConfig) -> Result<Self, NetError> {
        let taken = bridge::connected_networks().map_err(kernel("list the host's addresses"))?;
        let own = sampan_sys::netlink::interface_index(&config.bridge).ok();
        let present = taken.iter().find(|(index, _)| Some(*index) == own).map(|(_, net)| *net);
        let others: Vec<Ipv4Net> = taken.iter().filter(|(index, _)| Some(*index) != own).map(|(_, net)| *net).collect();
        let subnet = config.subnet.or(present).or_else(|| choose_pool(&others)).ok_or(NetError::NoPool)?.trunc();
        let ipam = Ipam::new(subnet);
        let gateway = ipam.gateway();
        bridge::ensure_bridge(&config.bridge, subnet, gateway, config.mtu).map_err(kernel(format!("make bridge {}", config.bridge)))?;
        sysctl("ip_forward", "1").map_err(kernel("enable IP forwarding"))?;
        // Published ports of 127.0.0.1 leave through the bridge with a loopback source until they are masqueraded.
        sysctl(&format!("conf/{}/route_localnet", config.bridge), "1").map_err(kernel("enable route_localnet"))?;
        let mut table = Table::open(&format!("sampan-{}", config.instance)).map_err(kernel("open nf_tables"))?;
        table.load(&config.bridge, subnet, &[]).map_err(kernel("load the firewall table"))?;
        let inner = Inner { table, ipam, allocator: Allocator::default(), endpoints: HashMap::new(), closed: false };
        Ok(Self { config, subnet, gateway, inner: Mutex::new(inner) })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The default bridge: subnet, gateway, name, packet size.
    #[must_use]
    pub fn default_bridge(&self) -> (Ipv4Net, Ipv4Addr, &str, u32) {
        (self.subnet, self.gateway, &self.config.bridge, self.config.mtu)
    }

    /// A new network namespace with loopback up and nothing else.
    ///
    /// # Errors
    /// [`NetError::Kernel`].
    pub fn isolated() -> Result<OwnedFd, NetError> {
        let netns = ns::new_netns().map_err(kernel("make a network namespace"))?;
        ns::with_netns(netns.as_fd(), bridge::loopback_up).and_then(|result| result).map_err(kernel("bring loopback up"))?;
        Ok(netns)
    }

    /// Makes a network namespace and connects it to the default bridge.
    ///
    /// # Errors
    /// [`NetError`]; nothing is left then.
    pub fn connect(&self, spec: &EndpointSpec) -> Result<(OwnedFd, Endpoint), NetError> {
        let netns = ns::new_netns().map_err(kernel("make a network namespace"))?;
        let ip = {
            let mut inner = self.lock();
            match spec.ip {
                Some(wanted) => inner.ipam.reserve(wanted).then_some(wanted).ok_or(NetError::AddressTaken)?,
                None => inner.ipam.allocate().ok_or(NetError::NoAddress)?,
            }
        };
        let connected = self.connect_with(spec, netns.as_fd(), ip);
        if connected.is_err() {
            self.lock().ipam.release(ip);
        }
        Ok((netns, connected?))
    }

    fn connect_with(&self, spec: &EndpointSpec, netns: BorrowedFd<'_>, ip: Ipv4Addr) -> Result<Endpoint, NetError> {
        let mac = spec.mac.unwrap_or_else(|| mac_of(ip));
        let host_link = self.link_name(&spec.container);
        bridge::delete_link(&host_link).map_err(kernel(format!("remove an old link {host_link}")))?;
        bridge::make_veth(&host_link, &self.config.bridge, netns, mac, self.config.mtu)
            .map_err(kernel(format!("make link {host_link}")))?;
        let (prefix, gateway) = (self.subnet.prefix_len(), self.gateway);
        let inside = ns::with_netns(netns, || bridge::configure_inside(ip, prefix, gateway)).and_then(|result| result);
        inside.map_err(kernel("configure the container's interface"))?;
        let (ports, sockets) = self.publish(spec, ip)?;
        let endpoint = Endpoint { ip, prefix, gateway, mac, host_link, ports };
        self.lock().endpoints.insert(spec.container.clone(), Live { endpoint: endpoint.clone(), sockets });
        Ok(endpoint)
    }

    /// Links of this instance: `v`, two digits of the instance, eleven of the container.
    fn link_name(&self, container: &str) -> String {
        let cut = |text: &str, length: usize| text.chars().take(length).collect::<String>();
        format!("veth{}{}", cut(&self.config.instance, 4), cut(container, 7))
    }

    fn publish(&self, spec: &EndpointSpec, ip: Ipv4Addr) -> Result<(Vec<Binding>, Vec<OwnedFd>), NetError> {
        let mut inner = self.lock();
        let (mut bindings, mut sockets): (Vec<Binding>, Vec<OwnedFd>) = (Vec::new(), Vec::new());
        for request in &spec.ports {
            match inner.allocator.allocate(request, ip) {
                Ok((binding, socket)) => {
                    bindings.push(binding);
                    sockets.push(socket);
                }
                Err(source) => {
                    bindings.iter().for_each(|binding| inner.allocator.release(binding));
                    return Err(NetError::Port { name: spec.name.clone(), container: spec.endpoint.clone(), source });
                }
            }
        }
        if let Err(error) = inner.table.add(&elements(&bindings, ip)) {
            bindings.iter().for_each(|binding| inner.allocator.release(binding));
            return Err(kernel("publish ports")(error));
        }
        Ok((bindings, sockets))
    }

    /// Takes a container's ports and address back. Its link goes when the kernel takes its namespace down.
    pub fn disconnect(&self, container: &str) {
        let mut inner = self.lock();
        let Some(live) = inner.endpoints.remove(container) else { return };
        inner.table.remove(&elements(&live.endpoint.ports, live.endpoint.ip));
        live.endpoint.ports.iter().for_each(|binding| inner.allocator.release(binding));
        inner.ipam.release(live.endpoint.ip);
        drop(live.sockets);
    }

    /// After a restart: takes over the endpoints of containers that live on, and makes the firewall agree.
    ///
    /// # Errors
    /// [`NetError::Kernel`] when the firewall cannot be loaded.
    pub fn adopt(&self, living: Vec<(String, Endpoint)>) -> Result<(), NetError> {
        let mut inner = self.lock();
        let mut all = Vec::new();
        for (container, endpoint) in living {
            inner.ipam.reserve(endpoint.ip);
            all.extend(elements(&endpoint.ports, endpoint.ip));
            let mut sockets = Vec::new();
            for binding in &endpoint.ports {
                let request = PortRequest {
                    protocol: binding.protocol,
                    container_port: binding.container_port,
                    host_ip: binding.host_ip,
                    host_ports: (binding.host_port, binding.host_port),
                };
                match inner.allocator.allocate(&request, endpoint.ip) {
                    Ok((_, socket)) => sockets.push(socket),
                    Err(error) => tracing::warn!(%container, %error, "a published port is held by another program"),
                }
            }
            inner.endpoints.insert(container, Live { endpoint, sockets });
        }
        inner.table.load(&self.config.bridge, self.subnet, &all).map_err(kernel("load the firewall table"))
    }

    /// Watches the firewall: what another program takes out of our table is put back. Kernels since 6.9 let nobody do so.
    ///
    /// # Errors
    /// [`NetError::Kernel`] when the kernel does not tell.
    pub fn watch(self: &Arc<Self>) -> Result<(), NetError> {
        // NFNLGRP_NFTABLES.
        let news = Socket::subscribe(Family::Netfilter, 1 << 6).map_err(kernel("watch nf_tables"))?;
        let net = Arc::downgrade(self);
        let watch = move || {
            while let (Some(net), Ok(list)) = (net.upgrade(), news.notifications()) {
                net.heal(list.as_deref());
            }
        };
        std::thread::Builder::new().name("firewall".into()).spawn(watch).map(drop).map_err(kernel("start a thread"))
    }

    /// Loads the table again if a notification says that it was damaged, or if some were lost (`None`).
    fn heal(&self, news: Option<&[Notification]>) {
        let mut inner = self.lock();
        let damaged = news.is_none_or(|list| list.iter().any(|one| inner.table.is_damaged_by(one)));
        if !damaged || inner.closed {
            return;
        }
        let all: Vec<_> = inner.endpoints.values().flat_map(|live| elements(&live.endpoint.ports, live.endpoint.ip)).collect();
        match inner.table.load(&self.config.bridge, self.subnet, &all) {
            Ok(()) => tracing::warn!("another program changed our firewall table: it was loaded again"),
            Err(error) => tracing::error!(%error, "another program changed our firewall table, and it cannot be loaded again"),
        }
    }

    /// What the user should know: chains of other firewalls that stop containers' packets.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let chains = self.lock().table.dropping_chains().unwrap_or_default();
        let bridge = &self.config.bridge;
        let warning = |(table, chain): (String, String)| {
            format!(
                "WARNING: The firewall chain \"{table} {chain}\" drops forwarded packets: containers may not reach others, nor be reached \
                 through published ports, unless it accepts what comes from and goes to {bridge}"
            )
        };
        chains.into_iter().map(warning).collect()
    }

    /// Removes everything of this instance from the kernel: for tests and for a daemon that stops all its containers.
    ///
    /// # Errors
    /// The first thing that could not be removed; the rest is removed all the same.
    pub fn remove_all(&self) -> Result<(), NetError> {
        let deleted = {
            let mut inner = self.lock();
            inner.closed = true;
            inner.table.delete()
        };
        let links = bridge::links_with_prefix(&self.link_name("")).unwrap_or_default();
        let unlinked: Vec<io::Result<()>> = links.iter().map(|link| bridge::delete_link(link)).collect();
        let bridge = bridge::delete_link(&self.config.bridge);
        deleted.map_err(kernel("delete the firewall table"))?;
        bridge.map_err(kernel(format!("delete bridge {}", self.config.bridge)))?;
        unlinked.into_iter().collect::<io::Result<()>>().map_err(kernel("delete links"))
    }
}

fn elements(bindings: &[Binding], ip: Ipv4Addr) -> Vec<(Protocol, Option<Ipv4Addr>, u16, Target)> {
    let host = |binding: &Binding| Some(binding.host_ip).filter(|address| !address.is_unspecified());
    bindings.iter().map(|binding| (binding.protocol, host(binding), binding.host_port, (ip, binding.container_port))).collect()
}

/// A locally administered address that is unique as long as the IP address is.
fn mac_of(ip: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = ip.octets();
    [0x02, 0x42, a, b, c, d]
}

fn sysctl(name: &str, value: &str) -> io::Result<()> {
    let path = format!("/proc/sys/net/ipv4/{name}");
    // Nothing to do, and perhaps nothing one may do.
    if std::fs::read_to_string(&path).is_ok_and(|present| present.trim() == value) {
        return Ok(());
    }
    std::fs::write(path, value)
}
