//! What the objects show: words, facts and figures.
//!
//! A fact is signalled as soon as it changes, a figure at most once a second. Both are plain structs
//! that know the names of their properties: the daemon asks for the difference of two, a client
//! feeds them what the bus says.
//!
//! # Contract
//!
//! - A property that is not known is skipped, so that a client outlives a newer daemon.
//! - The words of [`Role`], [`NetworkState`], [`DnsState`], [`PeerState`] and [`PathKind`] may grow in number;
//!   that is why clients get text.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};
use zbus::{DeserializeDict, OwnedObjectPath, OwnedVariant, SerializeDict, Type, Variant};

/// A member as its hub lists it
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize, Type)]
pub struct MemberAnswer {
    /// Its name
    pub name: String,
    /// Public key in base64
    pub public_key: String,
    /// Overlay addresses; none if it was given none yet
    pub addresses: Vec<String>,
    /// Subnets behind it
    pub subnets: Vec<String>,
    /// `approved`, `pending` or `revoked`
    pub standing: String,
    /// Where it is kept: `configuration` or `store`
    pub source: String,
    /// Whether it is alive
    pub online: bool,
    /// Since when it is known, in Unix seconds; 0: not known
    pub since: u64,
}

/// Properties by name, as the bus carries them
pub type Properties = HashMap<String, OwnedVariant>;

/// Properties that changed, by name
pub type Changes = BTreeMap<&'static str, Variant<'static>>;

macro_rules! words {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Eq, PartialEq)]
        pub enum $name {
            $($(#[$doc])* $variant,)*
        }

        impl $name {
            /// Returns the word that the bus carries
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)*
                }
            }
        }
    };
}

macro_rules! properties {
    ($(#[$meta:meta])* $name:ident {
        $($(#[$doc:meta])* $field:ident: $kind:ty = $property:literal,)*
    }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, Default, PartialEq)]
        pub struct $name {
            $($(#[$doc])* pub $field: $kind,)*
        }

        impl $name {
            /// Names of the properties
            pub const PROPERTIES: &'static [&'static str] = &[$($property),*];

            /// Returns each property that is different in `new`, with its new value
            pub fn difference(&self, new: &Self) -> Changes {
                let mut changes = Changes::new();
                $(if self.$field != new.$field {
                    changes.insert($property, Variant::from(new.$field.clone()));
                })*
                changes
            }

            /// Takes over what `properties` says; tells whether that changed anything
            ///
            /// # Errors
            /// If a property is of the wrong type.
            pub fn update(&mut self, properties: &Properties) -> zbus::Result<bool> {
                let before = self.clone();
                $(if let Some(value) = properties.get($property) {
                    self.$field = <$kind>::try_from(value.try_clone()?)?;
                })*
                Ok(before != *self)
            }
        }
    };
}

words! {
    /// What a node is in a network
    Role {
        /// Knows and verifies members
        Hub = "hub",
        /// Carries packets to other peers
        Peer = "peer",
    }
}

words! {
    /// Where a network is in its life
    NetworkState {
        /// Taken down, or not started
        Down = "down",
        /// Registering with the hub, or setting up
        Connecting = "connecting",
        /// The hub waits for its administrator to approve this node
        Pending = "pending",
        /// Carrying packets
        Up = "up",
        /// The hub does not answer
        HubLost = "hub-lost",
        /// It cannot come up
        Failed = "failed",
    }
}

words! {
    /// Where this node is with a peer
    PeerState {
        /// A member that is not alive (hub only)
        Offline = "offline",
        /// Alive, but there was no reason for a session
        Idle = "idle",
        /// A session is being made
        Connecting = "connecting",
        /// There is a session
        Connected = "connected",
        /// There is a session, but the peer does not answer at the moment
        Unresponsive = "unresponsive",
    }
}

words! {
    /// How messages travel to a peer
    PathKind {
        /// Straight, to a UDP address
        Direct = "direct",
        /// Straight, over stock KCP
        Kcp = "kcp",
        /// Through another node
        Relayed = "relayed",
        /// Straight, over a TCP connection
        Tcp = "tcp",
    }
}

words! {
    /// Who knows where names of a network's nodes are answered
    DnsState {
        /// systemd-resolved
        Announced = "announced",
        /// Whoever asked for the network is to see to it
        Caller = "caller",
        /// They are not answered: there is no port to be had
        Failed = "failed",
        /// There are no names, or not yet
        Off = "off",
        /// systemd-resolved is being told
        Pending = "pending",
        /// Nobody: systemd-resolved does not take it
        Refused = "refused",
        /// Nobody: there is no systemd-resolved
        Unannounced = "unannounced",
    }
}

words! {
    /// Who gives an interface its addresses, routes and DNS, and brings it up
    Apply {
        /// Whoever has called `Connect`
        Caller = "caller",
        /// The daemon
        Daemon = "self",
    }
}

/// What the interface of a network is to be like, for whoever applies it
///
/// On the bus it is a dictionary. All is empty, or 0, while there is no interface.
#[derive(
    Clone,
    Debug,
    Default,
    Eq,
    PartialEq,
    DeserializeDict,
    OwnedVariant,
    SerializeDict,
    Type,
    Variant,
)]
#[zbus(signature = "dict")]
pub struct Plan {
    /// Overlay addresses of this node, each with its prefix length
    pub addresses: Vec<String>,
    /// Where names of the network's nodes are answered, on port 53; empty where they are not
    pub dns: Vec<String>,
    /// Domains to be asked for there, and nowhere else: of the names, then of the addresses
    pub domains: Vec<String>,
    /// Underlay address of the hub, as messages reach it
    pub gateway: String,
    /// Name of the TUN interface
    pub interface: String,
    /// Its MTU in bytes
    pub mtu: u32,
    /// What to route into it besides the subnets of the addresses
    pub routes: Vec<String>,
}

properties! {
    /// What is so in a network
    NetworkFacts {
        /// Overlay addresses of this node, each with its prefix length
        addresses: Vec<String> = "Addresses",
        /// A word of [`Apply`]
        apply: String = "Apply",
        /// Why it is in this state; empty where all is well
        detail: String = "Detail",
        /// What is wrong with names of nodes; empty where all is well
        dns_detail: String = "DnsDetail",
        /// Address and port where names of nodes are answered; empty while they are not
        dns_server: String = "DnsServer",
        /// A word of [`DnsState`]
        dns_state: String = "DnsState",
        /// The domain of the nodes' names, without a final dot; empty where they have none
        dns_suffix: String = "DnsSuffix",
        /// Whether the hub answers; false on a hub
        hub_alive: bool = "HubAlive",
        /// Where the hub is, as configured; empty on a hub
        hub_endpoint: String = "HubEndpoint",
        /// Public key of the hub in base64; empty on a hub
        hub_key: String = "HubKey",
        /// Name of the TUN interface; empty while there is none
        interface: String = "Interface",
        /// UDP address that the node listens on; empty while it does not
        listen: String = "Listen",
        /// MTU of the interface in bytes
        mtu: u32 = "Mtu",
        /// Name
        name: String = "Name",
        /// What the interface is to be like
        plan: Plan = "Plan",
        /// Public key of this node in base64
        public_key: String = "PublicKey",
        /// Bytes that may be sent in a period; 0: no bound
        quota: u64 = "Quota",
        /// `day`, `week` or `month`; empty without a bound
        quota_period: String = "QuotaPeriod",
        /// When the next period begins, in Unix seconds; 0 without a bound
        quota_until: u64 = "QuotaUntil",
        /// Bytes of messages that may wait in the system until they are read; 0 while it does not listen
        receive_buffer: u64 = "ReceiveBuffer",
        /// A word of [`Role`]
        role: String = "Role",
        /// Bytes of messages that may wait in the system until they leave; 0 while it does not listen
        send_buffer: u64 = "SendBuffer",
        /// A word of [`NetworkState`]
        state: String = "State",
        /// Subnets behind this node, as the hub says
        subnets: Vec<String> = "Subnets",
    }
}

properties! {
    /// What is counted in a network
    NetworkFigures {
        /// Bytes that were sent in the present period; 0 without a bound
        quota_used: u64 = "QuotaUsed",
        /// Messages and packets refused, by reason
        refusals: BTreeMap<String, u64> = "Refusals",
        /// Counters: those of [`PeerFigures`], `dropped`, and `wire-tx-messages`, `wire-tx-bytes`,
        /// `wire-rx-messages`, `wire-rx-bytes` and `wire-rx-overflowed` of messages
        statistics: BTreeMap<String, u64> = "Statistics",
    }
}

properties! {
    /// What is so of a peer
    PeerFacts {
        /// Its overlay addresses
        addresses: Vec<String> = "Addresses",
        /// UDP address of the path in use; of a relayed one the relay's public key in base64
        endpoint: String = "Endpoint",
        /// Whether it is the hub
        hub: bool = "Hub",
        /// Name
        name: String = "Name",
        /// The network it belongs to
        network: OwnedObjectPath = "Network",
        /// A word of [`PathKind`], or empty where no path is in use
        path_kind: String = "PathKind",
        /// Largest message that is known to pass, in bytes of UDP payload; 0: no path
        path_mtu: u32 = "PathMtu",
        /// Whether the kernel may cut trains of messages on the path in use
        path_offload: bool = "PathOffload",
        /// Public key in base64
        public_key: String = "PublicKey",
        /// A word of [`PeerState`]
        state: String = "State",
        /// Subnets behind it
        subnets: Vec<String> = "Subnets",
        /// How a TCP connection would be carried that our side opened now: `plain`, `split`, or empty
        /// without a session
        tcp: String = "Tcp",
    }
}

properties! {
    /// What is counted and measured of a peer
    PeerFigures {
        /// When the last handshake was completed, in Unix seconds; 0: never
        last_handshake: u64 = "LastHandshake",
        /// When anything authentic was last heard, in Unix seconds; 0: never
        last_seen: u64 = "LastSeen",
        /// Share of our messages that were lost of late, from 0 to 1
        loss: f64 = "Loss",
        /// Share of our messages that the path loses by itself, congestion left out, from 0 to 1
        own_loss: f64 = "OwnLoss",
        /// Counters of the path in use: `messages`, `bytes` and `lost`, and of these by cause
        /// `fresh-`, `repeat-` and `copy-` with `frames` and `bytes`; empty where there is none
        path_statistics: BTreeMap<String, u64> = "PathStatistics",
        /// Queue that stands at the bottleneck, in microseconds
        queue_delay_us: u64 = "QueueDelayUs",
        /// Bits a second that the path is believed to deliver; 0: not known
        rate: u64 = "Rate",
        /// Smallest round-trip time of late, in microseconds; 0: not known
        rtt_min_us: u64 = "RttMinUs",
        /// Smoothed round-trip time in microseconds; 0: not known
        rtt_us: u64 = "RttUs",
        /// Counters: `tx-packets`, `tx-bytes`, `rx-packets` and `rx-bytes` of inner packets
        statistics: BTreeMap<String, u64> = "Statistics",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn difference_names_what_changed_and_nothing_else() {
        let old = NetworkFacts { mtu: 1380, state: "connecting".to_owned(), ..Default::default() };
        let new = NetworkFacts { state: "up".to_owned(), ..old.clone() };

        let changes = old.difference(&new);

        assert_eq!(changes, Changes::from([("State", Variant::from("up"))]));
        assert!(new.difference(&new).is_empty());
    }

    #[test]
    fn what_one_end_finds_different_the_other_end_takes_over() {
        let old = PeerFigures::default();
        let new = PeerFigures {
            last_seen: 7,
            loss: 0.25,
            statistics: BTreeMap::from([("tx-bytes".to_owned(), 1)]),
            ..Default::default()
        };
        let carried: Properties = old
            .difference(&new)
            .into_iter()
            .map(|(name, value)| (name.to_owned(), OwnedVariant::try_from(value).unwrap()))
            .collect();

        let mut copy = old;
        assert!(copy.update(&carried).unwrap());

        assert_eq!(copy, new);
        assert!(!copy.update(&carried).unwrap());
    }

    #[test]
    fn unknown_property_is_skipped_and_a_wrong_type_is_an_error() {
        let mut facts = PeerFacts::default();
        let unknown = Properties::from([("Colour".to_owned(), OwnedVariant::from(1_u32))]);
        let wrong = Properties::from([("Hub".to_owned(), OwnedVariant::from(1_u32))]);

        assert!(!facts.update(&unknown).unwrap());
        assert!(facts.update(&wrong).is_err());
    }
}
