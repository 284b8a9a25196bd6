//! Published ports: which host port a container gets, and the sockets that hold it.

use std::collections::BTreeSet;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, SocketFlags, SocketType};

/// A protocol that can be published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    /// The IP protocol number.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }

    /// `tcp` or `udp`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// A wish for a published port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortRequest {
    /// Protocol.
    pub protocol: Protocol,
    /// Port of the container.
    pub container_port: u16,
    /// Address of the host; unspecified: all.
    pub host_ip: Ipv4Addr,
    /// First and last host port that will do; 0, 0: any free one.
    pub host_ports: (u16, u16),
}

/// A published port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    /// Protocol.
    pub protocol: Protocol,
    /// Port of the container.
    pub container_port: u16,
    /// Address of the host; unspecified: all.
    pub host_ip: Ipv4Addr,
    /// Port of the host.
    pub host_port: u16,
}

/// A port that cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// Another container has it.
    #[error("Bind for {0}:{1} failed: port is already allocated")]
    Allocated(Ipv4Addr, u16),
    /// Another program has it.
    #[error("failed to bind host port for {address}:{port}:{target}:{container_port}/{protocol}: address already in use")]
    InUse {
        /// Host address.
        address: Ipv4Addr,
        /// Host port.
        port: u16,
        /// Container address.
        target: Ipv4Addr,
        /// Container port.
        container_port: u16,
        /// Protocol.
        protocol: &'static str,
    },
    /// The address is not this host's.
    #[error("failed to bind host port for {address}:{port}:{target}:{container_port}/{protocol}: {error}")]
    Unusable {
        /// Host address.
        address: Ipv4Addr,
        /// Host port.
        port: u16,
        /// Container address.
        target: Ipv4Addr,
        /// Container port.
        container_port: u16,
        /// Protocol.
        protocol: &'static str,
        /// Why.
        error: String,
    },
    /// No port of the range is free.
    #[error("all ports are allocated")]
    Exhausted,
}

/// Which ports our containers have.
#[derive(Debug, Default)]
pub(crate) struct Allocator {
    taken: BTreeSet<(Protocol, Ipv4Addr, u16)>,
    next: u16,
}

impl Allocator {
    fn is_taken(&self, protocol: Protocol, address: Ipv4Addr, port: u16) -> bool {
        let any = Ipv4Addr::UNSPECIFIED;
        if address == any {
            return self.taken.iter().any(|(other, _, taken)| *other == protocol && *taken == port);
        }
        self.taken.contains(&(protocol, any, port)) || self.taken.contains(&(protocol, address, port))
    }

    /// Chooses a port and holds it by a bound socket.
    pub(crate) fn allocate(&mut self, request: &PortRequest, target: Ipv4Addr) -> Result<(Binding, OwnedFd), PortError> {
        let (first, last) = request.host_ports;
        let (protocol, address) = (request.protocol, request.host_ip);
        let fixed = first != 0 && first == last;
        if fixed && self.is_taken(protocol, address, first) {
            return Err(PortError::Allocated(address, first));
        }
        for port in self.candidates(first, last) {
            if self.is_taken(protocol, address, port) {
                continue;
            }
            match hold(protocol, address, port) {
                Ok(socket) => {
                    self.taken.insert((protocol, address, port));
                    self.next = port.wrapping_add(1);
                    return Ok((Binding { protocol, container_port: request.container_port, host_ip: address, host_port: port }, socket));
                }
                Err(error) if error.kind() == io::ErrorKind::AddrInUse && !fixed => {}
                Err(error) => return Err(refused(request, port, target, &error)),
            }
        }
        Err(PortError::Exhausted)
    }

    fn candidates(&self, first: u16, last: u16) -> Vec<u16> {
        if first != 0 {
            return (first..=last).collect();
        }
        let (low, high) = ephemeral();
        let start = if (low..=high).contains(&self.next) { self.next } else { low };
        (start..=high).chain(low..start).collect()
    }

    pub(crate) fn release(&mut self, binding: &Binding) {
        self.taken.remove(&(binding.protocol, binding.host_ip, binding.host_port));
    }
}

fn refused(request: &PortRequest, port: u16, target: Ipv4Addr, error: &io::Error) -> PortError {
    let (address, container_port, protocol) = (request.host_ip, request.container_port, request.protocol.name());
    if error.kind() == io::ErrorKind::AddrInUse {
        return PortError::InUse { address, port, target, container_port, protocol };
    }
    let error = match error.raw_os_error() {
        Some(99) => "cannot assign requested address".to_owned(),
        Some(13) => "permission denied".to_owned(),
        _ => error.to_string(),
    };
    PortError::Unusable { address, port, target, container_port, protocol, error }
}

fn hold(protocol: Protocol, address: Ipv4Addr, port: u16) -> io::Result<OwnedFd> {
    let kind = match protocol {
        Protocol::Tcp => SocketType::STREAM,
        Protocol::Udp => SocketType::DGRAM,
    };
    let socket = rustix::net::socket_with(AddressFamily::INET, kind, SocketFlags::CLOEXEC, None)?;
    rustix::net::bind(&socket, &SocketAddrV4::new(address, port))?;
    Ok(socket)
}

/// The kernel's range for ports that nobody chose.
fn ephemeral() -> (u16, u16) {
    let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let mut numbers = text.split_whitespace().filter_map(|word| word.parse().ok());
    match (numbers.next(), numbers.next()) {
        (Some(low), Some(high)) if low > 0 && low < high => (low, high),
        _ => (32_768, 60_999),
    }
}
