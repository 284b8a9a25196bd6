//! The network engine on the real kernel, in network namespaces of its own.

#![allow(clippy::disallowed_methods, reason = "tests start programs")]

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Duration;

use sampan_net::{EndpointSpec, Net, NetConfig, PortRequest, Protocol};
use sampan_sys::ns;

/// Runs a test in a network namespace (a host of its own) with loopback up.
fn on_a_host(work: impl FnOnce() + Send) {
    let netns = Net::isolated().expect("root and network namespaces");
    ns::with_netns(netns.as_fd(), work).expect("our own namespace");
}

fn engine() -> Net {
    Net::open(NetConfig { instance: "abcd".into(), bridge: "docker0".into(), subnet: None, mtu: 1500 }).expect("a network engine")
}

fn request(protocol: Protocol, host_ip: Ipv4Addr, host: u16, container: u16) -> PortRequest {
    PortRequest { protocol, container_port: container, host_ip, host_ports: (host, host) }
}

/// A server inside a container's namespace that answers each connection with the peer's address.
fn serve(netns: &OwnedFd, port: u16) -> std::thread::JoinHandle<()> {
    let listener =
        ns::with_netns(netns.as_fd(), || TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).expect("a free port")).expect("namespace");
    std::thread::spawn(move || {
        while let Ok((mut stream, peer)) = listener.accept() {
            if stream.write_all(peer.ip().to_string().as_bytes()).is_err() || peer.port() == 1 {
                break;
            }
        }
    })
}

/// What is answered. A link that came up this moment may lose the first packet: the second one is sent after a second.
fn ask(address: impl Into<SocketAddr>) -> Option<String> {
    ask_within(address, Duration::from_secs(10))
}

/// The same where no answer is expected.
fn ask_briefly(address: impl Into<SocketAddr>) -> Option<String> {
    ask_within(address, Duration::from_millis(700))
}

fn ask_within(address: impl Into<SocketAddr>, patience: Duration) -> Option<String> {
    let mut stream = TcpStream::connect_timeout(&address.into(), patience).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    Some(text)
}

#[test]
fn published_ports_answer_from_everywhere_they_should() {
    on_a_host(|| {
        let net = engine();
        let any = Ipv4Addr::UNSPECIFIED;
        let ports = vec![request(Protocol::Tcp, any, 8080, 80), request(Protocol::Tcp, Ipv4Addr::LOCALHOST, 8081, 80)];
        let (web, endpoint) =
            net.connect(&EndpointSpec { container: "aaaa1111".into(), name: "web".into(), ports, ..EndpointSpec::default() }).unwrap();
        let (other, second) = net.connect(&EndpointSpec { container: "bbbb2222".into(), ..EndpointSpec::default() }).unwrap();
        let _server = serve(&web, 80);
        assert_eq!((endpoint.ip.to_string().as_str(), second.ip.to_string().as_str()), ("172.17.0.2", "172.17.0.3"));

        assert!(ask((endpoint.ip, 80)).is_some(), "host to container");
        assert!(ask((Ipv4Addr::LOCALHOST, 8080)).is_some(), "127.0.0.1 to a port of all addresses");
        assert!(ask((Ipv4Addr::LOCALHOST, 8081)).is_some(), "127.0.0.1 to a port of its own");
        assert!(ask((endpoint.gateway, 8080)).is_some(), "the host's own address");
        assert_eq!(ask_briefly((endpoint.gateway, 8081)), None, "a port of 127.0.0.1 is not on other addresses");

        let from = |netns: &OwnedFd, address: SocketAddr| ns::with_netns(netns.as_fd(), || ask(address)).unwrap();
        assert_eq!(from(&other, (endpoint.ip, 80).into()).as_deref(), Some("172.17.0.3"), "container to container");
        assert!(from(&other, (endpoint.gateway, 8080).into()).is_some(), "through the published port");
        assert!(from(&web, (endpoint.gateway, 8080).into()).is_some(), "hairpin to itself");

        net.disconnect("aaaa1111");
        assert_eq!(ask_briefly((Ipv4Addr::LOCALHOST, 8080)), None);
        assert!(TcpListener::bind((any, 8080)).is_ok(), "the port is free again");
        net.remove_all().unwrap();
    });
}

#[test]
fn outside_reaches_published_ports_only() {
    on_a_host(|| {
        let net = engine();
        let ports = vec![request(Protocol::Tcp, Ipv4Addr::UNSPECIFIED, 8080, 80)];
        let (web, endpoint) = net.connect(&EndpointSpec { container: "aaaa1111".into(), ports, ..EndpointSpec::default() }).unwrap();
        let _server = serve(&web, 80);
        // A second engine in the same namespace stands for a neighbour network: its container is outside of the first bridge.
        let config = NetConfig { instance: "ffff".into(), bridge: "lan0".into(), subnet: Some("10.99.0.0/24".parse().unwrap()), mtu: 1500 };
        let lan = Net::open(config).unwrap();
        let (outside, neighbour) = lan.connect(&EndpointSpec { container: "cccc3333".into(), ..EndpointSpec::default() }).unwrap();
        let from = |address: SocketAddr| ns::with_netns(outside.as_fd(), || ask(address)).unwrap();
        let briefly = |address: SocketAddr| ns::with_netns(outside.as_fd(), || ask_briefly(address)).unwrap();
        // Its own engine masquerades what leaves its bridge, so the address seen is that of the bridge it comes through.
        assert!(from((neighbour.gateway, 8080).into()).is_some(), "the published port");
        assert_eq!(briefly((endpoint.ip, 80).into()), None, "the container itself cannot be reached from outside");
        drop((net, lan));
    });
}

/// Runs nft in this thread's network namespace; says whether it could do it.
fn nft(words: &[&str]) -> bool {
    std::process::Command::new("nft").args(words).stderr(std::process::Stdio::null()).status().expect("Debian's nftables").success()
}

#[test]
fn what_others_take_out_of_the_firewall_is_put_back() {
    on_a_host(|| {
        let net = std::sync::Arc::new(engine());
        net.watch().unwrap();
        let ports = vec![request(Protocol::Tcp, Ipv4Addr::UNSPECIFIED, 8080, 80)];
        let (web, _) = net.connect(&EndpointSpec { container: "aaaa1111".into(), ports, ..EndpointSpec::default() }).unwrap();
        let _server = serve(&web, 80);
        // Kernels since 6.9 refuse the second and third, and flush what is not ours.
        let harms: [&[&str]; 4] = [
            &["flush", "ruleset"],
            &["delete", "table", "ip", "sampan-abcd"],
            &["flush", "table", "ip", "sampan-abcd"],
            &["flush", "ruleset"],
        ];
        for harm in harms {
            nft(harm);
            let end = std::time::Instant::now() + Duration::from_secs(30);
            while ask_briefly((Ipv4Addr::LOCALHOST, 8080)).is_none() {
                assert!(std::time::Instant::now() < end, "the port is closed after {harm:?}");
            }
        }
        net.remove_all().unwrap();
        assert!(!nft(&["list", "table", "ip", "sampan-abcd"]), "what we remove ourselves stays away");
    });
}

#[test]
fn firewalls_that_drop_what_is_forwarded_are_named() {
    on_a_host(|| {
        let net = engine();
        assert_eq!(net.warnings(), Vec::<String>::new());
        assert!(nft(&["add table ip filter; add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }"]));
        assert!(nft(&["add table ip mine; add chain ip mine passing { type filter hook forward priority 0; policy accept; }"]));
        let warnings = net.warnings();
        assert!(warnings.len() == 1 && warnings[0].starts_with("WARNING: The firewall chain \"ip filter FORWARD\" drops"), "{warnings:?}");
        net.remove_all().unwrap();
    });
}

#[test]
fn udp_is_published_too() {
    on_a_host(|| {
        let net = engine();
        let ports = vec![request(Protocol::Udp, Ipv4Addr::UNSPECIFIED, 5353, 53)];
        let (netns, _) = net.connect(&EndpointSpec { container: "aaaa1111".into(), ports, ..EndpointSpec::default() }).unwrap();
        let server = ns::with_netns(netns.as_fd(), || UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 53)).unwrap()).unwrap();
        let client = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        client.send_to(b"ping", (Ipv4Addr::LOCALHOST, 5353)).unwrap();
        server.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let mut buffer = [0; 16];
        let (length, peer) = server.recv_from(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"ping");
        ns::with_netns(netns.as_fd(), || server.send_to(b"pong", peer).unwrap()).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        assert_eq!(client.recv_from(&mut buffer).unwrap().1, SocketAddr::from((Ipv4Addr::LOCALHOST, 5353)));
    });
}

#[test]
fn taken_ports_are_refused_with_dockers_words() {
    on_a_host(|| {
        let net = engine();
        let spec = |container: &str, port: u16| EndpointSpec {
            container: container.into(),
            name: container.into(),
            ports: vec![request(Protocol::Tcp, Ipv4Addr::LOCALHOST, port, 80)],
            ..EndpointSpec::default()
        };
        let _first = net.connect(&spec("one", 9000)).unwrap();
        let text = net.connect(&spec("two", 9000)).unwrap_err().to_string();
        assert_eq!(
            text,
            "driver failed programming external connectivity on endpoint two (): Bind for 127.0.0.1:9000 failed: port is already allocated"
        );
        let _foreign = TcpListener::bind((Ipv4Addr::LOCALHOST, 9001)).unwrap();
        let text = net.connect(&spec("three", 9001)).unwrap_err().to_string();
        assert!(text.contains("failed to bind host port for 127.0.0.1:9001:") && text.ends_with("address already in use"), "{text}");
        let (_, endpoint) = net.connect(&spec("four", 0).with_any_port()).unwrap();
        assert!(endpoint.ports[0].host_port >= 32768);
    });
}

trait AnyPort {
    fn with_any_port(self) -> Self;
}

impl AnyPort for EndpointSpec {
    fn with_any_port(mut self) -> Self {
        self.ports[0].host_ports = (0, 0);
        self
    }
}

#[test]
fn a_new_engine_takes_over_what_lives() {
    on_a_host(|| {
        let net = engine();
        let ports = vec![request(Protocol::Tcp, Ipv4Addr::UNSPECIFIED, 8080, 80)];
        let (web, endpoint) = net.connect(&EndpointSpec { container: "aaaa1111".into(), ports, ..EndpointSpec::default() }).unwrap();
        let _server = serve(&web, 80);
        drop(net);
        let net = engine();
        assert_eq!(ask_briefly((Ipv4Addr::LOCALHOST, 8080)), None, "a fresh table has no ports");
        net.adopt(vec![("aaaa1111".into(), endpoint.clone())]).unwrap();
        assert!(ask((Ipv4Addr::LOCALHOST, 8080)).is_some());
        let (_, second) = net.connect(&EndpointSpec { container: "bbbb2222".into(), ..EndpointSpec::default() }).unwrap();
        assert_ne!(second.ip, endpoint.ip, "its address is not given out again");
    });
}
