//! NAT boxes and firewalls: a host between another one and the wire.
//!
//! The box has `wan0` on the wire and a cable `lan0` to the host behind it, whose own address,
//! `192.168.77.2`, nobody outside can route to. Its rules are the kernel's (nftables), because
//! nothing imitates a Linux router better than one.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::Result;

use super::netns::Host;
use super::wire::{Port, Wire};

/// A host that translates addresses for the one behind it
#[derive(Debug)]
pub struct Nat {
    /// The box itself
    pub host: Host,
    /// Where the box is plugged in
    pub port: Port,
}

/// How a box treats what comes from outside (RFC 4787 in the words of RFC 3489)
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum NatKind {
    /// Whoever sends to the mapped port gets in
    FullCone,
    /// Who was sent something gets in, from any port
    AddressRestricted,
    /// Only whom something was sent to, from that very port, gets in
    PortRestricted,
    /// As before, and each destination sees another port
    Symmetric,
}

/// Address of the host behind a box
pub const INSIDE: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 2);
/// The box's address on the inside
const GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 1);

impl Nat {
    /// Puts a box with a public address between the wire and `inside`, which has no `wan0`
    ///
    /// # Errors
    /// If the kernel refuses something, or there is no `nft`.
    pub fn new(wire: &Wire, public: Ipv4Addr, inside: &Host, kind: NatKind) -> Result<Self> {
        let host = Host::new("nat")?;
        let port = wire.attach(&host, &[public.into()])?;
        host.sysctl("ipv4/ip_forward", "1")?;
        host.veth("lan0", inside, "eth0")?;
        host.add_address("lan0", GATEWAY.into(), 24)?;
        inside.add_address("eth0", INSIDE.into(), 24)?;
        let any = (IpAddr::from(Ipv4Addr::UNSPECIFIED), 0);
        inside.add_route(any, "eth0", Some(GATEWAY.into()))?;
        host.must("nft", &["-f", "-"], &rules(kind))?;
        Ok(Self { host, port })
    }

    /// Drops all UDP that the host behind the box exchanges with `address`
    ///
    /// # Errors
    /// If there is no `nft`.
    pub fn block_udp(&self, address: Ipv4Addr) -> Result<()> {
        let rules = format!(
            "table ip wall {{ chain forward {{ type filter hook forward priority 0;
               ip daddr {address} meta l4proto udp drop
               ip saddr {address} meta l4proto udp drop
             }} }}"
        );
        self.host.must("nft", &["-f", "-"], &rules)?;
        Ok(())
    }

    /// Forgets mappings that were silent for so many seconds
    ///
    /// # Errors
    /// If the kernel has no such setting.
    pub fn forget_after(&self, secs: u32) -> Result<()> {
        self.host.sysctl("netfilter/nf_conntrack_udp_timeout", &secs.to_string())?;
        self.host.sysctl("netfilter/nf_conntrack_udp_timeout_stream", &secs.to_string())
    }
}

/// Rules of a box; what comes uninvited is dropped before it can occupy a mapping
fn rules(kind: NatKind) -> String {
    let (seen, inwards, outwards) = match kind {
        NatKind::FullCone => {
            ("", format!("iifname wan0 meta l4proto udp dnat to {INSIDE}"), "masquerade")
        }
        NatKind::AddressRestricted => (
            "iifname lan0 add @seen { ip daddr }",
            format!("iifname wan0 ip saddr @seen meta l4proto udp dnat to {INSIDE}"),
            "masquerade",
        ),
        NatKind::PortRestricted => ("", String::new(), "masquerade"),
        NatKind::Symmetric => ("", String::new(), "masquerade fully-random"),
    };
    format!(
        "table ip nat {{
           set seen {{ type ipv4_addr; flags dynamic, timeout; timeout 60s; }}
           chain before {{ type nat hook prerouting priority -100; {inwards}
           }}
           chain after {{ type nat hook postrouting priority 100; oifname wan0 {outwards}
           }}
           chain forward {{ type filter hook forward priority 10; {seen}
           }}
           chain input {{ type filter hook input priority 0; iifname wan0 meta l4proto udp drop
           }}
         }}"
    )
}

#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, UdpSocket};
    use std::time::Duration;

    use super::*;
    use crate::lab::privileged;

    /// What gets in from a stranger, from a known address, and whether destinations see one port
    fn observe(kind: NatKind) -> (bool, bool, bool) {
        let wire = Wire::new(1).unwrap();
        let (inside, server, other) =
            (Host::new("in").unwrap(), Host::new("a").unwrap(), Host::new("b").unwrap());
        let _nat = Nat::new(&wire, [198, 51, 100, 9].into(), &inside, kind).unwrap();
        wire.attach(&server, &["198.51.100.1".parse().unwrap()]).unwrap();
        wire.attach(&other, &["198.51.100.2".parse().unwrap()]).unwrap();
        let client = socket(&inside, "0.0.0.0:5000");
        let known = socket(&server, "198.51.100.1:7000");
        let same_address = socket(&server, "198.51.100.1:7001");
        let stranger = socket(&other, "198.51.100.2:7000");

        client.send_to(b"out", "198.51.100.1:7000").unwrap();
        let mapped = receive(&known).expect("the way out is open");
        stranger.send_to(b"stranger", mapped).unwrap();
        let strangers = receive(&client).is_some();
        same_address.send_to(b"same", mapped).unwrap();
        let same = receive(&client).is_some();
        client.send_to(b"out", "198.51.100.2:7000").unwrap();
        let one_port = receive(&stranger) == Some(mapped);
        (strangers, same, one_port)
    }

    #[test]
    fn boxes_differ_as_their_names_say() {
        if privileged().is_err() || !crate::lab::has("nft") {
            return;
        }
        assert_eq!(observe(NatKind::FullCone), (true, true, true));
        assert_eq!(observe(NatKind::AddressRestricted), (false, true, true));
        assert_eq!(observe(NatKind::PortRestricted), (false, false, true));
        assert_eq!(observe(NatKind::Symmetric), (false, false, false));
    }

    fn socket(host: &Host, address: &'static str) -> UdpSocket {
        let socket = host.run(move |_| UdpSocket::bind(address)).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        socket
    }

    fn receive(socket: &UdpSocket) -> Option<SocketAddr> {
        socket.recv_from(&mut [0; 64]).ok().map(|(_, from)| from)
    }
}
