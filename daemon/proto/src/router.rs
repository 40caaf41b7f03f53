//! Longest prefix to peer: forward to route, backward to filter.
//!
//! WireGuard calls it cryptokey routing: the table that says whom a packet goes to also says whom a
//! packet from that address may come from. A [`Router`] is immutable; it is replaced whole.
//!
//! It is asked for each packet, and more than once. So prefixes are laid out, when it is made, as
//! spans of addresses that do not overlap, each with the peer of its longest prefix: a question is one
//! binary search, however many lengths of prefixes there are.

use core::net::IpAddr;
use std::collections::BTreeMap;

use crate::crypto::PublicKey;
use crate::ip::Prefix;

/// Maps addresses to peers
#[derive(Clone, Debug, Default)]
pub struct Router {
    v4: Spans,
    v6: Spans,
}

/// Addresses of one family, cut where what they lead to changes
#[derive(Clone, Debug, Default)]
struct Spans {
    /// First address of each, ascending; before the first of all nothing is routed
    starts: Vec<u128>,
    peers: Vec<Option<PublicKey>>,
}

impl Router {
    /// Makes a router; of several peers with the same prefix the first one has it
    pub fn new(routes: impl IntoIterator<Item = (Prefix, PublicKey)>) -> Self {
        let (mut v4, mut v6) = (BTreeMap::new(), BTreeMap::new());
        for (prefix, key) in routes {
            let network = prefix.network();
            let (family, bits) = match network.addr() {
                IpAddr::V4(_) => (&mut v4, 32),
                IpAddr::V6(_) => (&mut v6, 128),
            };
            // Wide ones before those within them that begin at the same address.
            family.entry((number(network.addr()), network.len())).or_insert((bits, key));
        }
        Self { v4: Spans::new(v4), v6: Spans::new(v6) }
    }

    /// Returns the peer that a packet for `dst` goes to
    pub fn route(&self, dst: IpAddr) -> Option<PublicKey> {
        match dst {
            IpAddr::V4(_) => self.v4.find(number(dst)),
            IpAddr::V6(_) => self.v6.find(number(dst)),
        }
    }

    /// Tells whether a packet from `src` may come from `peer`
    pub fn owns(&self, peer: &PublicKey, src: IpAddr) -> bool {
        self.route(src).as_ref() == Some(peer)
    }
}

impl Spans {
    /// Cuts prefixes, each with the bits of its family, into spans
    fn new(prefixes: BTreeMap<(u128, u8), (u32, PublicKey)>) -> Self {
        let mut spans = Self::default();
        // Last address and peer of all prefixes that we are within, the narrowest at the end.
        let mut within: Vec<(u128, PublicKey)> = Vec::new();
        for ((first, len), (bits, key)) in prefixes {
            while within.last().is_some_and(|(last, _)| *last < first) {
                spans.leave(&mut within);
            }
            let host = u128::MAX.checked_shr(128 - (bits - u32::from(len))).unwrap_or(0);
            within.push((first | host, key));
            spans.begin(first, Some(key));
        }
        while !within.is_empty() {
            spans.leave(&mut within);
        }
        spans
    }

    /// Goes on after the narrowest prefix with the one around it
    fn leave(&mut self, within: &mut Vec<(u128, PublicKey)>) {
        // No address comes after the last one of all.
        let Some(next) = within.pop().and_then(|(last, _)| last.checked_add(1)) else { return };
        self.begin(next, within.last().map(|(_, key)| *key));
    }

    fn begin(&mut self, start: u128, peer: Option<PublicKey>) {
        if self.starts.last() == Some(&start) {
            self.starts.pop();
            self.peers.pop();
        }
        self.starts.push(start);
        self.peers.push(peer);
    }

    fn find(&self, address: u128) -> Option<PublicKey> {
        let after = self.starts.partition_point(|start| *start <= address);
        self.peers[after.checked_sub(1)?]
    }
}

fn number(addr: IpAddr) -> u128 {
    match addr {
        IpAddr::V4(addr) => addr.to_bits().into(),
        IpAddr::V6(addr) => addr.to_bits(),
    }
}

#[cfg(test)]
mod tests {
    use core::net::{Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

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

    #[test]
    fn the_last_address_of_all_has_a_route() {
        let router = Router::new(["0.0.0.0/0", "::/0"].map(|all| (all.parse().unwrap(), peer(1))));

        assert_eq!(router.route(addr("255.255.255.255")), Some(peer(1)));
        assert_eq!(router.route(IpAddr::V6(Ipv6Addr::from_bits(u128::MAX))), Some(peer(1)));
        assert_eq!(router.route(addr("0.0.0.0")), Some(peer(1)));
    }

    /// An address near to many others, so that prefixes lie within one another
    fn near() -> impl Strategy<Value = IpAddr> {
        (0..64u32, 0..2u32, any::<bool>()).prop_map(|(low, high, v4)| {
            if v4 {
                IpAddr::V4(Ipv4Addr::from_bits(high * 0xffff_ff00 + low * 4))
            } else {
                let high = u128::from(high) * (u128::MAX << 64);
                IpAddr::V6(Ipv6Addr::from_bits(high + u128::from(low)))
            }
        })
    }

    fn within() -> impl Strategy<Value = Prefix> {
        (near(), 0..=32u8).prop_map(|(addr, host)| {
            let bits = if addr.is_ipv4() { 32 } else { 128 };
            Prefix::new(addr, bits - host).unwrap()
        })
    }

    proptest! {
        #[test]
        fn spans_say_what_a_look_at_every_prefix_says(
            prefixes in proptest::collection::vec((within(), 1..6u8), 0..24),
            asked in proptest::collection::vec(near(), 1..24),
        ) {
            let router = Router::new(prefixes.iter().map(|(prefix, id)| (*prefix, peer(*id))));

            for asked in asked {
                let mut best: Option<(u8, u8)> = None;
                for (prefix, id) in &prefixes {
                    if prefix.contains(asked) && best.is_none_or(|(len, _)| prefix.len() > len) {
                        best = Some((prefix.len(), *id));
                    }
                }
                prop_assert_eq!(router.route(asked), best.map(|(_, id)| peer(id)), "{}", asked);
            }
        }
    }
}
