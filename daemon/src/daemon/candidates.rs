//! Under which underlay addresses this node may be reached.

use std::net::{IpAddr, SocketAddr};

/// Addresses that a node tells its hub
const CANDIDATES_MAX: usize = 8;

/// Returns where a socket that listens on `listen` may be reached, given the machine's addresses
pub(super) fn candidates(local: &[IpAddr], listen: SocketAddr) -> Vec<SocketAddr> {
    let mut found: Vec<_> = local
        .iter()
        .filter(|address| is_reachable(**address) && is_heard(**address, listen.ip()))
        .map(|address| SocketAddr::new(*address, listen.port()))
        .collect();
    found.sort_unstable();
    found.dedup();
    found.truncate(CANDIDATES_MAX);
    found
}

fn is_reachable(address: IpAddr) -> bool {
    let special = address.is_loopback() || address.is_unspecified() || address.is_multicast();
    !special
        && match address {
            IpAddr::V4(address) => !address.is_link_local() && !address.is_broadcast(),
            IpAddr::V6(address) => !address.is_unicast_link_local(),
        }
}

fn is_heard(address: IpAddr, listen: IpAddr) -> bool {
    match listen {
        IpAddr::V6(listen) if listen.is_unspecified() => true,
        IpAddr::V4(listen) if listen.is_unspecified() => address.is_ipv4(),
        IpAddr::V4(_) | IpAddr::V6(_) => address == listen,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_that_others_can_use_are_told() {
        let local = ["127.0.0.1", "192.0.2.7", "169.254.1.1", "fe80::1", "2001:db8::7", "::1"];
        let local: Vec<IpAddr> = local.iter().map(|text| text.parse().unwrap()).collect();
        let told = |listen: &str| {
            let found = candidates(&local, listen.parse().unwrap());
            found.iter().map(SocketAddr::to_string).collect::<Vec<_>>()
        };

        assert_eq!(told("[::]:5"), ["192.0.2.7:5", "[2001:db8::7]:5"]);
        assert_eq!(told("0.0.0.0:5"), ["192.0.2.7:5"]);
        assert_eq!(told("192.0.2.7:5"), ["192.0.2.7:5"]);
    }
}
