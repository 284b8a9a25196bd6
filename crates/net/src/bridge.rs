//! Links, addresses and routes: the messages, and the few sequences that containers need.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd as _, BorrowedFd};

use ipnet::Ipv4Net;
use sampan_sys::netlink::{Family, Socket, interface_index};

use crate::message::{ACK, CREATE, DUMP, EXCLUSIVE, Message, attributes};

const NEW_LINK: u16 = 16;
const DELETE_LINK: u16 = 17;
const GET_LINK: u16 = 18;
const NEW_ADDRESS: u16 = 20;
const NEW_ROUTE: u16 = 24;
const GET_ADDRESS: u16 = 22;
const AF_INET: u8 = 2;
const IFF_UP: u32 = 1;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_INFO_SLAVE_KIND: u16 = 4;
const IFLA_INFO_SLAVE_DATA: u16 = 5;
const IFLA_BRPORT_MODE: u16 = 4;
const IFLA_NET_NS_FD: u16 = 28;
const VETH_INFO_PEER: u16 = 1;

fn link(kind: u16, flags: u16, index: u32, up: bool) -> Message {
    Message::new(kind, flags).fixed(&link_header(index, up))
}

fn link_header(index: u32, up: bool) -> [u8; 16] {
    let mut header = [0; 16];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    let state = if up { IFF_UP } else { 0 };
    header[8..12].copy_from_slice(&state.to_ne_bytes());
    header[12..16].copy_from_slice(&state.to_ne_bytes());
    header
}

fn address(index: u32, address: Ipv4Addr, prefix: u8) -> Message {
    let mut header = vec![AF_INET, prefix, 0, 0];
    header.extend_from_slice(&index.to_ne_bytes());
    let broadcast = u32::from(address) | u32::MAX.checked_shr(u32::from(prefix)).unwrap_or(0);
    Message::new(NEW_ADDRESS, ACK | CREATE)
        .fixed(&header)
        .bytes(2, &address.octets())
        .bytes(1, &address.octets())
        .bytes(4, &Ipv4Addr::from(broadcast).octets())
}

fn default_route(gateway: Ipv4Addr, index: u32) -> Message {
    // family, destination length, source length, tos, table main, protocol boot, scope universe, type unicast, flags
    let header = [AF_INET, 0, 0, 0, 254, 3, 0, 1, 0, 0, 0, 0];
    Message::new(NEW_ROUTE, ACK | CREATE).fixed(&header).bytes(5, &gateway.octets()).number(4, index)
}

fn run(messages: Vec<Message>) -> io::Result<()> {
    let mut bytes: Vec<Vec<u8>> = messages.into_iter().map(Message::done).collect();
    Socket::open(Family::Route)?.transact(&mut bytes).map_err(|refused| refused.error)
}

/// Makes the bridge if it is missing, gives it its address and brings it up.
pub(crate) fn ensure_bridge(name: &str, subnet: Ipv4Net, gateway: Ipv4Addr, mtu: u32) -> io::Result<()> {
    if interface_index(name).is_err() {
        let info = Message::default().text(IFLA_INFO_KIND, "bridge");
        let make =
            link(NEW_LINK, ACK | CREATE | EXCLUSIVE, 0, false).text(IFLA_IFNAME, name).number(IFLA_MTU, mtu).nested(IFLA_LINKINFO, info);
        match run(vec![make]) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            other => other?,
        }
    }
    let index = interface_index(name)?;
    let up = link(NEW_LINK, ACK, index, true);
    match run(vec![up, address(index, gateway, subnet.prefix_len())]) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

/// Makes a veth pair whose far end is born in a network namespace as `eth0` with a hardware address.
pub(crate) fn make_veth(host: &str, bridge: &str, netns: BorrowedFd<'_>, mac: [u8; 6], mtu: u32) -> io::Result<()> {
    let bridge = interface_index(bridge)?;
    let namespace = u32::try_from(netns.as_raw_fd()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let mut peer = Message::default().fixed(&link_header(0, false));
    peer = peer.text(IFLA_IFNAME, "eth0").number(IFLA_MTU, mtu).bytes(IFLA_ADDRESS, &mac).number(IFLA_NET_NS_FD, namespace);
    let data = Message::default().nested(VETH_INFO_PEER, peer);
    let info = Message::default().text(IFLA_INFO_KIND, "veth").nested(IFLA_INFO_DATA, data);
    let make = link(NEW_LINK, ACK | CREATE | EXCLUSIVE, 0, true).text(IFLA_IFNAME, host).number(IFLA_MTU, mtu).number(IFLA_MASTER, bridge);
    // With bridge-nf-call-iptables a container's way to its own published port is bridged back out of the port it came in by.
    let hairpin = Message::default().bytes(IFLA_BRPORT_MODE, &[1]);
    let slave = Message::default().text(IFLA_INFO_SLAVE_KIND, "bridge").nested(IFLA_INFO_SLAVE_DATA, hairpin);
    let reflect = link(NEW_LINK, ACK, 0, true).text(IFLA_IFNAME, host).nested(IFLA_LINKINFO, slave);
    run(vec![make.nested(IFLA_LINKINFO, info), reflect])
}

/// Inside a network namespace: loopback and `eth0` up, address, default route.
pub(crate) fn configure_inside(ip: Ipv4Addr, prefix: u8, gateway: Ipv4Addr) -> io::Result<()> {
    let eth0 = interface_index("eth0")?;
    let loopback = link(NEW_LINK, ACK, 1, true);
    run(vec![loopback, address(eth0, ip, prefix), link(NEW_LINK, ACK, eth0, true), default_route(gateway, eth0)])
}

/// Inside a network namespace: loopback up, nothing else.
pub(crate) fn loopback_up() -> io::Result<()> {
    run(vec![link(NEW_LINK, ACK, 1, true)])
}

/// Removes a link; one that is gone is fine.
pub(crate) fn delete_link(name: &str) -> io::Result<()> {
    let Ok(index) = interface_index(name) else { return Ok(()) };
    match run(vec![link(DELETE_LINK, ACK, index, false)]) {
        Err(error) if error.raw_os_error() == Some(19) => Ok(()),
        other => other,
    }
}

/// Names of the links that begin so.
pub(crate) fn links_with_prefix(prefix: &str) -> io::Result<Vec<String>> {
    let message = Message::new(GET_LINK, DUMP).fixed(&link_header(0, false)).done();
    let answers = Socket::open(Family::Route)?.dump(message)?;
    let names = answers.iter().filter_map(|(_, body)| {
        let (_, value) = attributes(body.get(16..)?).into_iter().find(|(kind, _)| *kind == IFLA_IFNAME)?;
        Some(String::from_utf8_lossy(value).trim_end_matches('\0').to_owned())
    });
    Ok(names.filter(|name| name.starts_with(prefix)).collect())
}

/// The IPv4 networks of this namespace's addresses.
pub(crate) fn connected_networks() -> io::Result<Vec<(u32, Ipv4Net)>> {
    let message = Message::new(GET_ADDRESS, DUMP).fixed(&[AF_INET, 0, 0, 0, 0, 0, 0, 0]).done();
    let answers = Socket::open(Family::Route)?.dump(message)?;
    let networks = answers.iter().filter_map(|(_, body)| {
        let prefix = *body.get(1)?;
        let index = u32::from_ne_bytes(*body.get(4..8)?.first_chunk()?);
        let (_, value) = attributes(body.get(8..)?).into_iter().find(|(kind, _)| *kind == 1)?;
        let octets: [u8; 4] = value.try_into().ok()?;
        Some((index, Ipv4Net::new(octets.into(), prefix).ok()?))
    });
    Ok(networks.collect())
}
