//! The firewall: one table of static rules, and maps whose elements are the published ports.
//!
//! Encoded by hand for nf_tables' netlink interface (linux/netfilter/nf_tables.h). Registers: `8 + n` is the n-th 32-bit one.

use std::io;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use sampan_sys::netlink::{Family, Notification, Refused, Socket};

use crate::message::{ACK, CREATE, DUMP, Message, REQUEST, attributes};
use crate::ports::Protocol;

const NEW_TABLE: u16 = 0;
const DELETE_TABLE: u16 = 2;
const NEW_CHAIN: u16 = 3;
const GET_CHAIN: u16 = 4;
const DELETE_CHAIN: u16 = 5;
const NEW_RULE: u16 = 6;
const DELETE_RULE: u16 = 8;
const NEW_SET: u16 = 9;
const DELETE_SET: u16 = 11;
const NEW_ELEMENT: u16 = 12;
const DELETE_ELEMENT: u16 = 14;
const APPEND: u16 = 0x800;

/// NFPROTO_IPV4.
const IPV4: u8 = 2;
const OWNER: u32 = 2;
const PERSIST: u32 = 4;

const PREROUTING: u32 = 0;
const FORWARD: u32 = 2;
const OUTPUT: u32 = 3;
const POSTROUTING: u32 = 4;

/// Address, port: where a published port leads.
pub(crate) type Target = (Ipv4Addr, u16);

/// An instance's table. The socket owns it: other programs cannot flush it while we live, and it stays when we die.
#[derive(Debug)]
pub(crate) struct Table {
    name: String,
    socket: Socket,
}

fn message(kind: u16, flags: u16, family: u8) -> Message {
    Message::new(10 << 8 | kind, flags).fixed(&[family, 0, 0, 0])
}

fn batch(kind: u16) -> Vec<u8> {
    // NFNL_MSG_BATCH_BEGIN or _END for the subsystem nf_tables.
    Message::new(kind, REQUEST).fixed(&[0, 0, 0, 10]).done()
}

fn expression(name: &str, data: Message) -> Message {
    Message::default().nested(1, Message::default().text(1, name).nested(2, data))
}

/// Expressions of one rule, in order.
fn rule(list: Vec<Message>) -> Message {
    list.into_iter().fold(Message::default(), |all, one| all.fixed(&one.done()))
}

fn meta(key: u32, register: u32) -> Message {
    expression("meta", Message::default().big(2, key).big(1, register))
}

fn payload(base: u32, offset: u32, length: u32, register: u32) -> Message {
    expression("payload", Message::default().big(1, register).big(2, base).big(3, offset).big(4, length))
}

fn compare(register: u32, equal: bool, value: &[u8]) -> Message {
    let value = Message::default().bytes(1, value);
    expression("cmp", Message::default().big(1, register).big(2, u32::from(!equal)).nested(3, value))
}

fn mask(register: u32, mask: &[u8]) -> Message {
    let zeros = vec![0; mask.len()];
    let length = u32::try_from(mask.len()).unwrap_or(0);
    let data = Message::default().big(1, register).big(2, register).big(3, length);
    expression("bitwise", data.nested(4, Message::default().bytes(1, mask)).nested(5, Message::default().bytes(1, &zeros)))
}

fn in_subnet(source: bool, subnet: Ipv4Net) -> Vec<Message> {
    let offset = if source { 12 } else { 16 };
    vec![payload(1, offset, 4, 8), mask(8, &subnet.netmask().octets()), compare(8, true, &subnet.network().octets())]
}

fn interface(key: u32, name: &str, equal: bool) -> Vec<Message> {
    let mut bytes = [0; 16];
    let length = name.len().min(15);
    bytes[..length].copy_from_slice(&name.as_bytes()[..length]);
    vec![meta(key, 1), compare(1, equal, &bytes)]
}

const IIFNAME: u32 = 6;
const OIFNAME: u32 = 7;

fn verdict(code: u32) -> Message {
    let verdict = Message::default().big(1, code);
    expression("immediate", Message::default().big(1, 0).nested(2, Message::default().nested(2, verdict)))
}

const DROP: u32 = 0;

fn masquerade() -> Message {
    expression("masq", Message::default())
}

/// The connection's destination was translated (IPS_DST_NAT).
fn translated(wanted: bool) -> Vec<Message> {
    let bit = 0x20_u32.to_ne_bytes();
    let load = expression("ct", Message::default().big(2, 2).big(1, 8));
    vec![load, mask(8, &bit), if wanted { compare(8, true, &bit) } else { compare(8, true, &[0; 4]) }]
}

/// The connection is new: neither established (2) nor related (4) in `ct state`.
fn unknown_connection() -> Vec<Message> {
    let bits = 6_u32.to_ne_bytes();
    vec![expression("ct", Message::default().big(2, 0).big(1, 8)), mask(8, &bits), compare(8, true, &[0; 4])]
}

/// The destination is an address of this host (RTN_LOCAL).
fn to_this_host() -> Vec<Message> {
    let load = expression("fib", Message::default().big(1, 8).big(2, 3).big(3, 2));
    vec![load, compare(8, true, &2_u32.to_ne_bytes())]
}

/// Looks a destination up in a map and translates it. Registers 12 and 13 take address and port.
fn translate(set: &str, with_address: bool) -> Vec<Message> {
    let mut list = to_this_host();
    let first = if with_address { 9 } else { 8 };
    if with_address {
        list.push(payload(1, 16, 4, 8));
    }
    list.push(meta(16, first));
    list.push(payload(2, 2, 2, first + 1));
    list.push(expression("lookup", Message::default().text(1, set).big(2, 8).big(3, 12)));
    list.push(expression("nat", Message::default().big(1, 1).big(2, u32::from(IPV4)).big(3, 12).big(5, 13)));
    list
}

fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value.strip_suffix(&[0]).unwrap_or(value)).into_owned()
}

/// Table and name of a chain at the forward hook of IPv4 whose policy is to drop.
fn dropping_chain(body: &[u8]) -> Option<(String, String)> {
    let family = match body.first()? {
        1 => "inet",
        2 => "ip",
        _ => return None,
    };
    let list = attributes(body.get(4..)?);
    let find = |wanted: u16| list.iter().find(|(kind, _)| *kind == wanted).map(|(_, value)| *value);
    let number = |value: &[u8]| value.first_chunk::<4>().map(|bytes| u32::from_be_bytes(*bytes));
    let hook = attributes(find(4)?).into_iter().find(|(kind, _)| *kind == 1).and_then(|(_, value)| number(value))?;
    let drops = hook == FORWARD && number(find(5)?)? == DROP;
    drops.then_some((format!("{family} {}", text(find(1)?)), text(find(3)?)))
}

impl Table {
    pub(crate) fn open(name: &str) -> io::Result<Self> {
        Ok(Self { name: name.to_owned(), socket: Socket::open(Family::Netfilter)? })
    }

    /// Sends one transaction: all of it is done, or nothing.
    fn commit(&mut self, messages: Vec<Message>) -> Result<(), Refused> {
        let mut all = vec![batch(16)];
        all.extend(messages.into_iter().map(Message::done));
        all.push(batch(17));
        self.socket.transact(&mut all)
    }

    fn table(&self, kind: u16, flags: u32) -> Message {
        let message = message(kind, ACK | CREATE, IPV4).text(1, &self.name);
        if flags == 0 { message } else { message.big(2, flags) }
    }

    /// Loads the table anew with the rules of a bridge and the elements given.
    ///
    /// # Errors
    /// What the kernel says; the old table stays then.
    pub(crate) fn load(&mut self, bridge: &str, subnet: Ipv4Net, elements: &[(Protocol, Option<Ipv4Addr>, u16, Target)]) -> io::Result<()> {
        let mut last = None;
        // Owned and persistent (Linux 6.9), then plain.
        for flags in [OWNER | PERSIST, 0] {
            let mut messages =
                vec![self.table(NEW_TABLE, flags), message(DELETE_TABLE, ACK, IPV4).text(1, &self.name), self.table(NEW_TABLE, flags)];
            messages.extend(self.rules(bridge, subnet));
            messages.extend(
                elements.iter().map(|(protocol, host, port, target)| self.element(NEW_ELEMENT, *protocol, *host, *port, Some(*target))),
            );
            match self.commit(messages) {
                Ok(()) => return Ok(()),
                Err(refused) => last = Some(refused.error),
            }
        }
        Err(last.unwrap_or_else(|| io::ErrorKind::Other.into()))
    }

    fn rules(&self, bridge: &str, subnet: Ipv4Net) -> Vec<Message> {
        let set = |name: &str, id: u32, key: u32| {
            // A map: integers to integers; the type numbers are for people's tools only.
            let set = message(NEW_SET, ACK | CREATE, IPV4).text(1, &self.name).text(2, name).big(3, 8);
            set.big(4, 0).big(5, key).big(6, 0).big(7, 8).big(10, id)
        };
        let chain = |name: &str, kind: &str, hook: u32, priority: i32| {
            let hook = Message::default().big(1, hook).big(2, priority.cast_unsigned());
            message(NEW_CHAIN, ACK | CREATE, IPV4).text(1, &self.name).text(3, name).nested(4, hook).text(7, kind)
        };
        let add = |chain: &str, list: Vec<Message>| {
            message(NEW_RULE, ACK | CREATE | APPEND, IPV4).text(1, &self.name).text(2, chain).nested(4, rule(list))
        };
        let all = |parts: Vec<Vec<Message>>| parts.into_iter().flatten().collect::<Vec<_>>();
        let loopback = Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8);
        let out = interface(OIFNAME, bridge, true);
        vec![
            set("ports", 1, 8),
            set("ports_ip", 2, 12),
            chain("guard", "filter", PREROUTING, -300),
            chain("dnat_in", "nat", PREROUTING, -100),
            chain("dnat_out", "nat", OUTPUT, -100),
            chain("between", "filter", FORWARD, -1),
            chain("snat", "nat", POSTROUTING, 100),
            // Loopback ports must not be reached from a container, nor containers directly from outside.
            add("guard", all(vec![interface(IIFNAME, bridge, true), in_subnet(false, loopback), vec![verdict(DROP)]])),
            add("guard", all(vec![interface(IIFNAME, bridge, false), in_subnet(false, subnet), vec![verdict(DROP)]])),
            add("dnat_in", translate("ports_ip", true)),
            add("dnat_in", translate("ports", false)),
            add("dnat_out", translate("ports_ip", true)),
            add("dnat_out", translate("ports", false)),
            // New connections enter the bridge through a published port or from the bridge itself only.
            add("between", all(vec![out, interface(IIFNAME, bridge, false), unknown_connection(), translated(false), vec![verdict(DROP)]])),
            add("snat", all(vec![interface(OIFNAME, bridge, true), in_subnet(true, loopback), vec![masquerade()]])),
            add("snat", all(vec![in_subnet(true, subnet), interface(OIFNAME, bridge, false), vec![masquerade()]])),
            add("snat", all(vec![in_subnet(true, subnet), in_subnet(false, subnet), translated(true), vec![masquerade()]])),
        ]
    }

    fn element(&self, kind: u16, protocol: Protocol, host: Option<Ipv4Addr>, port: u16, target: Option<Target>) -> Message {
        let mut key = Vec::new();
        if let Some(host) = host {
            key.extend_from_slice(&host.octets());
        }
        key.extend_from_slice(&[protocol.number(), 0, 0, 0]);
        key.extend_from_slice(&port.to_be_bytes());
        key.extend_from_slice(&[0, 0]);
        let mut element = Message::default().nested(1, Message::default().bytes(1, &key));
        if let Some((address, port)) = target {
            let mut data = address.octets().to_vec();
            data.extend_from_slice(&port.to_be_bytes());
            data.extend_from_slice(&[0, 0]);
            element = element.nested(2, Message::default().bytes(1, &data));
        }
        let set = if host.is_some() { "ports_ip" } else { "ports" };
        let list = Message::default().nested(1, element);
        message(kind, ACK | CREATE, IPV4).text(1, &self.name).text(2, set).nested(3, list)
    }

    /// Publishes ports in one transaction.
    ///
    /// # Errors
    /// What the kernel says; nothing is published then.
    pub(crate) fn add(&mut self, elements: &[(Protocol, Option<Ipv4Addr>, u16, Target)]) -> io::Result<()> {
        if elements.is_empty() {
            return Ok(());
        }
        let messages = elements
            .iter()
            .map(|(protocol, host, port, target)| self.element(NEW_ELEMENT, *protocol, *host, *port, Some(*target)))
            .collect();
        self.commit(messages).map_err(|refused| refused.error)
    }

    /// Takes ports back; those that are gone are fine.
    pub(crate) fn remove(&mut self, elements: &[(Protocol, Option<Ipv4Addr>, u16, Target)]) {
        for (protocol, host, port, _) in elements {
            let message = self.element(DELETE_ELEMENT, *protocol, *host, *port, None);
            if let Err(refused) = self.commit(vec![message]) {
                tracing::debug!(error = %refused.error, "a published port was gone already");
            }
        }
    }

    /// Whether a notification tells that somebody else took something out of our table.
    pub(crate) fn is_damaged_by(&self, news: &Notification) -> bool {
        const DELETIONS: [u16; 5] = [DELETE_TABLE, DELETE_CHAIN, DELETE_RULE, DELETE_SET, DELETE_ELEMENT];
        if news.kind >> 8 != 10 || !DELETIONS.contains(&(news.kind & 0xff)) || self.socket.port().is_ok_and(|own| own == news.port) {
            return false;
        }
        // In each of them the first attribute is the table's name.
        let list = attributes(news.body.get(4..).unwrap_or_default());
        list.into_iter().any(|(kind, value)| kind == 1 && text(value) == self.name)
    }

    /// Table and name of the chains of others that drop what is forwarded unless they accept it.
    ///
    /// # Errors
    /// What the kernel says.
    pub(crate) fn dropping_chains(&mut self) -> io::Result<Vec<(String, String)>> {
        let all = self.socket.dump(Message::new(10 << 8 | GET_CHAIN, DUMP).fixed(&[0, 0, 0, 0]).done())?;
        Ok(all.iter().filter_map(|(_, body)| dropping_chain(body)).filter(|(table, _)| *table != format!("ip {}", self.name)).collect())
    }

    /// Removes the table.
    pub(crate) fn delete(&mut self) -> io::Result<()> {
        let delete = message(DELETE_TABLE, ACK, IPV4).text(1, &self.name);
        match self.commit(vec![delete]) {
            Err(refused) if refused.error.kind() != io::ErrorKind::NotFound => Err(refused.error),
            _ => Ok(()),
        }
    }
}
