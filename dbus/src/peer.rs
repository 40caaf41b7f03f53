//! Proxy of `org.fastvpn.Peer1`.

use std::collections::BTreeMap;

use zbus::{OwnedObjectPath, proxy};

/// One peer of a network; see [`crate::types::PeerFacts`] and [`crate::types::PeerFigures`]
#[proxy(interface = "org.fastvpn.Peer1", default_service = "org.fastvpn")]
pub trait Peer {
    /// Its overlay addresses
    #[zbus(property)]
    fn addresses(&self) -> zbus::Result<Vec<String>>;

    /// Address of the path in use; of a relayed one the relay's public key in base64
    #[zbus(property)]
    fn endpoint(&self) -> zbus::Result<String>;

    /// Whether it is the hub
    #[zbus(property)]
    fn hub(&self) -> zbus::Result<bool>;

    /// When the last handshake was completed, in Unix seconds; 0: never
    #[zbus(property)]
    fn last_handshake(&self) -> zbus::Result<u64>;

    /// When anything authentic was last heard, in Unix seconds; 0: never
    #[zbus(property)]
    fn last_seen(&self) -> zbus::Result<u64>;

    /// Share of our messages that were lost of late, from 0 to 1
    #[zbus(property)]
    fn loss(&self) -> zbus::Result<f64>;

    /// Name
    #[zbus(property)]
    fn name(&self) -> zbus::Result<String>;

    /// The network it belongs to
    #[zbus(property(emits_changed_signal = "const"))]
    fn network(&self) -> zbus::Result<OwnedObjectPath>;

    /// Share of our messages that the path loses by itself, congestion left out, from 0 to 1
    #[zbus(property)]
    fn own_loss(&self) -> zbus::Result<f64>;

    /// `direct`, `tcp`, `kcp`, `relayed`, or empty where no path is in use
    #[zbus(property)]
    fn path_kind(&self) -> zbus::Result<String>;

    /// Largest message that is known to pass, in bytes of UDP payload; 0: no path
    #[zbus(property)]
    fn path_mtu(&self) -> zbus::Result<u32>;

    /// Whether the kernel may cut trains of messages (UDP segmentation offload)
    #[zbus(property)]
    fn path_offload(&self) -> zbus::Result<bool>;

    /// Counters of the path in use by name
    #[zbus(property)]
    fn path_statistics(&self) -> zbus::Result<BTreeMap<String, u64>>;

    /// Public key in base64
    #[zbus(property(emits_changed_signal = "const"))]
    fn public_key(&self) -> zbus::Result<String>;

    /// Queue that stands at the bottleneck, in microseconds
    #[zbus(property)]
    fn queue_delay_us(&self) -> zbus::Result<u64>;

    /// Bits a second that the path is believed to deliver; 0: not known
    #[zbus(property)]
    fn rate(&self) -> zbus::Result<u64>;

    /// Smallest round-trip time of late, in microseconds; 0: not known
    #[zbus(property)]
    fn rtt_min_us(&self) -> zbus::Result<u64>;

    /// Smoothed round-trip time in microseconds; 0: not known
    #[zbus(property)]
    fn rtt_us(&self) -> zbus::Result<u64>;

    /// `offline`, `idle`, `connecting`, `connected` or `unresponsive`
    #[zbus(property)]
    fn state(&self) -> zbus::Result<String>;

    /// Counters by name
    #[zbus(property)]
    fn statistics(&self) -> zbus::Result<BTreeMap<String, u64>>;

    /// Subnets behind it
    #[zbus(property)]
    fn subnets(&self) -> zbus::Result<Vec<String>>;

    /// How a TCP connection would be carried that our side opened now: `plain`, `split`, or empty
    #[zbus(property)]
    fn tcp(&self) -> zbus::Result<String>;
}
