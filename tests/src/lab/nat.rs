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
