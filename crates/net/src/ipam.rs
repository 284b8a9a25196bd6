//! Addresses of a subnet: who has which. Pure.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

/// Pools that the default bridge is taken from, as in the original.
const POOLS: [&str; 5] = ["172.17.0.0/16", "172.18.0.0/16", "172.19.0.0/16", "172.20.0.0/16", "192.168.208.0/20"];

/// The addresses of one subnet.
#[derive(Debug, Clone)]
pub struct Ipam {
    subnet: Ipv4Net,
    used: BTreeSet<u32>,
    next: u32,
}

impl Ipam {
    /// A subnet whose first address is its gateway.
    #[must_use]
    pub fn new(subnet: Ipv4Net) -> Self {
        let first = u32::from(subnet.network()) + 1;
        Self { subnet, used: BTreeSet::from([first]), next: first + 1 }
    }

    /// The gateway.
    #[must_use]
    pub fn gateway(&self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.subnet.network()) + 1)
    }

    /// The subnet.
    #[must_use]
    pub fn subnet(&self) -> Ipv4Net {
        self.subnet
    }

    /// Gives the lowest address that is free, going round: one just given back is not given out at once.
    pub fn allocate(&mut self) -> Option<Ipv4Addr> {
        let (low, high) = (u32::from(self.subnet.network()) + 2, u32::from(self.subnet.broadcast()) - 1);
        let range = (self.next.max(low)..=high).chain(low..self.next.clamp(low, high));
        let address = range.into_iter().find(|address| !self.used.contains(address))?;
        self.used.insert(address);
        self.next = if address == high { low } else { address + 1 };
        Some(Ipv4Addr::from(address))
    }

    /// Takes a certain address; `false` when it is taken, or not an address for containers.
    pub fn reserve(&mut self, address: Ipv4Addr) -> bool {
        let inside = self.subnet.contains(&address) && address != self.subnet.network() && address != self.subnet.broadcast();
        inside && self.used.insert(u32::from(address))
    }

    /// Gives an address back.
    pub fn release(&mut self, address: Ipv4Addr) {
        if address != self.gateway() {
            self.used.remove(&u32::from(address));
        }
    }
}

/// The first pool that overlaps none of the given networks.
#[must_use]
pub(crate) fn choose_pool(taken: &[Ipv4Net]) -> Option<Ipv4Net> {
    let pools = POOLS.iter().filter_map(|pool| pool.parse::<Ipv4Net>().ok());
    pools.into_iter().find(|pool| taken.iter().all(|other| !pool.contains(&other.network()) && !other.contains(&pool.network())))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn addresses_go_round() {
        let mut ipam = Ipam::new("10.0.0.0/29".parse().unwrap());
        let text = |address: Option<Ipv4Addr>| address.map(|address| address.to_string()).unwrap_or_default();
        assert_eq!(ipam.gateway().to_string(), "10.0.0.1");
        assert_eq!(text(ipam.allocate()), "10.0.0.2");
        ipam.release(Ipv4Addr::new(10, 0, 0, 2));
        assert_eq!(text(ipam.allocate()), "10.0.0.3");
        for _ in 0..4 {
            assert!(ipam.allocate().is_some());
        }
        assert_eq!(ipam.allocate(), None, "five containers, a gateway, two ends");
        assert!(!ipam.reserve(Ipv4Addr::new(10, 0, 0, 7)) && !ipam.reserve(Ipv4Addr::new(10, 0, 1, 2)));
    }

    #[test]
    fn pools_avoid_what_is_there() {
        let taken: Vec<Ipv4Net> = ["172.17.5.0/24", "172.16.0.0/15"].iter().map(|net| net.parse().unwrap()).collect();
        assert_eq!(choose_pool(&taken).unwrap().to_string(), "172.18.0.0/16");
        assert_eq!(choose_pool(&["0.0.0.0/0".parse().unwrap()]), None);
    }

    proptest! {
        #[test]
        fn no_address_is_given_twice(steps in prop::collection::vec(any::<bool>(), 0..200)) {
            let mut ipam = Ipam::new("10.0.0.0/26".parse().unwrap());
            let mut held = Vec::new();
            for give in steps {
                if give || held.is_empty() {
                    if let Some(address) = ipam.allocate() {
                        prop_assert!(!held.contains(&address) && address != ipam.gateway() && ipam.subnet().contains(&address));
                        held.push(address);
                    }
                } else {
                    ipam.release(held.remove(0));
                }
            }
        }
    }
}
