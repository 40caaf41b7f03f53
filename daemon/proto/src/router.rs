//! Longest prefix to peer: forward to route, backward to filter.
//!
//! WireGuard calls it cryptokey routing: the table that says whom a packet goes to also says whom a
//! packet from that address may come from. A [`Router`] is immutable; it is replaced whole.

use core::net::IpAddr;
use std::collections::BTreeMap;

use crate::crypto::PublicKey;
use crate::ip::Prefix;

/// Maps addresses to peers
#[derive(Clone, Debug, Default)]
pub struct Router {
    /// Tables by prefix length, the longest first
    tables: Vec<Table>,
}

#[derive(Clone, Debug)]
struct Table {
    len: u8,
    v4: bool,
    routes: BTreeMap<IpAddr, PublicKey>,
}

impl Router {
    /// Makes a router; of several peers with the same prefix the first one has it
    pub fn new(routes: impl IntoIterator<Item = (Prefix, PublicKey)>) -> Self {
        let mut tables: BTreeMap<(u8, bool), BTreeMap<IpAddr, PublicKey>> = BTreeMap::new();
        for (prefix, key) in routes {
            let network = prefix.network();
            let table = tables.entry((network.len(), network.addr().is_ipv4())).or_default();
            table.entry(network.addr()).or_insert(key);
        }
        let longest_first = tables.into_iter().rev();
        let tables = longest_first.map(|((len, v4), routes)| Table { len, v4, routes }).collect();
        Self { tables }
    }

    /// Returns the peer that a packet for `dst` goes to
    pub fn route(&self, dst: IpAddr) -> Option<PublicKey> {
        let tables = self.tables.iter().filter(|table| table.v4 == dst.is_ipv4());
        tables.filter_map(|table| table.find(dst)).next()
    }

    /// Tells whether a packet from `src` may come from `peer`
    pub fn owns(&self, peer: &PublicKey, src: IpAddr) -> bool {
        self.route(src).as_ref() == Some(peer)
    }
}

impl Table {
    fn find(&self, addr: IpAddr) -> Option<PublicKey> {
        let network = Prefix::new(addr, self.len).ok()?.network();
        self.routes.get(&network.addr()).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn router() -> Router {
        let routes = [("10.0.0.0/8", 1), ("10.1.0.0/16", 2), ("10.1.2.3", 3), ("fd00::/64", 4)];
        Router::new(routes.map(|(prefix, key)| (prefix.parse().unwrap(), peer(key))))
    }

    fn peer(id: u8) -> PublicKey {
        PublicKey::from_bytes([id; 32])
    }

    fn addr(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_longest_prefix_decides() {
        let router = router();

        assert_eq!(router.route(addr("10.9.9.9")), Some(peer(1)));
        assert_eq!(router.route(addr("10.1.9.9")), Some(peer(2)));
        assert_eq!(router.route(addr("10.1.2.3")), Some(peer(3)));
        assert_eq!(router.route(addr("fd00::7")), Some(peer(4)));
        assert_eq!(router.route(addr("11.0.0.1")), None);
        assert_eq!(router.route(addr("fd01::7")), None);
    }

    #[test]
    fn a_source_belongs_to_the_longest_prefix_only() {
        let router = router();

        assert!(router.owns(&peer(2), addr("10.1.9.9")));
        assert!(!router.owns(&peer(1), addr("10.1.9.9")));
    }

    #[test]
    fn the_first_of_two_claims_has_the_prefix() {
        let prefix: Prefix = "10.0.0.1".parse().unwrap();

        let router = Router::new([(prefix, peer(1)), (prefix, peer(2))]);

        assert_eq!(router.route(addr("10.0.0.1")), Some(peer(1)));
    }
}
