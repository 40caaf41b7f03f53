//! What programs get: stable names, numbers as numbers, `null` for what is not known.
//!
//! `fastvpnctl --help` documents it. Fields are only ever added.

use std::collections::BTreeMap;

use fastvpn_dbus::PingAnswer;
use fastvpn_dbus::tree::{Network, Peer, Tree};
use fastvpn_dbus::types::MemberAnswer;
use serde::Serialize;

use crate::commands::doctor::{Finding, Level};

/// Answer of `status`
#[derive(Debug, Serialize)]
pub(crate) struct StatusDocument<'a> {
    networks: Vec<NetworkDocument<'a>>,
}

/// Answer of `peers`
#[derive(Debug, Serialize)]
pub(crate) struct PeersDocument<'a> {
    peers: Vec<PeerDocument<'a>>,
}

/// One network
#[derive(Debug, Serialize)]
pub(crate) struct NetworkDocument<'a> {
    name: &'a str,
    role: &'a str,
    state: &'a str,
    detail: &'a str,
    interface: Option<&'a str>,
    apply: &'a str,
    addresses: &'a [String],
    subnets: &'a [String],
    mtu: u32,
    public_key: &'a str,
    listen: Option<&'a str>,
    buffers: Option<BuffersDocument>,
    hub: Option<HubDocument<'a>>,
    dns: Option<DnsDocument<'a>>,
    quota: Option<QuotaDocument<'a>>,
    counters: BTreeMap<String, u64>,
    refusals: &'a BTreeMap<String, u64>,
}

#[derive(Debug, Serialize)]
struct BuffersDocument {
    receive: u64,
    send: u64,
}

#[derive(Debug, Serialize)]
struct QuotaDocument<'a> {
    bytes: u64,
    used: u64,
    period: &'a str,
    until: u64,
}

#[derive(Debug, Serialize)]
struct DnsDocument<'a> {
    suffix: &'a str,
    server: Option<&'a str>,
    state: &'a str,
    detail: &'a str,
}

#[derive(Debug, Serialize)]
struct HubDocument<'a> {
    public_key: &'a str,
    endpoint: &'a str,
    alive: bool,
}

/// One peer
#[derive(Debug, Serialize)]
pub(crate) struct PeerDocument<'a> {
    network: &'a str,
    name: &'a str,
    public_key: &'a str,
    addresses: &'a [String],
    subnets: &'a [String],
    state: &'a str,
    hub: bool,
    path: Option<PathDocument<'a>>,
    tcp: Option<&'a str>,
    traffic: BTreeMap<String, u64>,
    last_handshake: Option<u64>,
    last_seen: Option<u64>,
}

#[derive(Debug, Serialize)]
struct PathDocument<'a> {
    kind: &'a str,
    endpoint: &'a str,
    rtt_ms: Option<f64>,
    rtt_min_ms: Option<f64>,
    loss: f64,
    mtu: Option<u32>,
    rate: Option<u64>,
    queue_delay_ms: f64,
    own_loss: f64,
    offload: bool,
    overhead: Option<f64>,
    counters: BTreeMap<String, u64>,
}

/// Answer of `connect` and `disconnect`
#[derive(Debug, Serialize)]
pub(crate) struct ChangedDocument<'a> {
    pub(crate) network: &'a str,
    pub(crate) state: &'a str,
}

/// Answer of `doctor`
#[derive(Debug, Serialize)]
pub(crate) struct DoctorDocument<'a> {
    checks: Vec<CheckDocument<'a>>,
    problems: usize,
    warnings: usize,
}

#[derive(Debug, Serialize)]
struct CheckDocument<'a> {
    level: &'a str,
    check: &'a str,
    network: Option<&'a str>,
    message: &'a str,
    remedy: Option<&'a str>,
}

/// Answer of `hub init` and `join`
#[derive(Debug, Serialize)]
pub(crate) struct MadeDocument<'a> {
    network: &'a str,
    state: &'a str,
    detail: &'a str,
    interface: Option<&'a str>,
    addresses: &'a [String],
    public_key: &'a str,
}

/// Answer of `invite`
#[derive(Debug, Serialize)]
pub(crate) struct InviteDocument<'a> {
    pub(crate) network: &'a str,
    pub(crate) member: &'a str,
    pub(crate) invitation: &'a str,
    pub(crate) expires: u64,
    pub(crate) endpoints: &'a [String],
}

/// Answer of `invitation list`
#[derive(Debug, Serialize)]
pub(crate) struct InvitationsDocument<'a> {
    pub(crate) invitations: Vec<InvitationDocument<'a>>,
}

/// One invitation
#[derive(Debug, Serialize)]
pub(crate) struct InvitationDocument<'a> {
    pub(crate) network: &'a str,
    pub(crate) name: &'a str,
    pub(crate) expires: u64,
    pub(crate) approval: bool,
}

/// Answer of what changes a member or withdraws an invitation
#[derive(Debug, Serialize)]
pub(crate) struct MemberDocument<'a> {
    pub(crate) network: &'a str,
    pub(crate) member: &'a str,
    pub(crate) standing: &'a str,
}

/// Answer of `member rename`
#[derive(Debug, Serialize)]
pub(crate) struct RenamedDocument<'a> {
    pub(crate) network: &'a str,
    pub(crate) member: &'a str,
    pub(crate) name: &'a str,
}

/// Answer of `member list`
#[derive(Debug, Serialize)]
pub(crate) struct MembersDocument<'a> {
    pub(crate) members: Vec<MemberRow<'a>>,
}

/// One member
#[derive(Debug, Serialize)]
pub(crate) struct MemberRow<'a> {
    pub(crate) network: &'a str,
    #[serde(flatten)]
    pub(crate) member: &'a MemberAnswer,
}

/// Answer of `keygen`
#[derive(Debug, Serialize)]
pub(crate) struct KeyDocument<'a> {
    pub(crate) file: &'a str,
    pub(crate) public_key: &'a str,
}

/// One ping
#[derive(Debug, Serialize)]
pub(crate) struct PingDocument<'a> {
    network: &'a str,
    peer: &'a str,
    seq: u64,
    answered: bool,
    rtt_ms: Option<f64>,
    path: Option<RoadDocument<'a>>,
}

#[derive(Debug, Serialize)]
struct RoadDocument<'a> {
    kind: &'a str,
    endpoint: &'a str,
}

/// Last line of `ping`
#[derive(Debug, Serialize)]
pub(crate) struct SummaryDocument {
    pub(crate) summary: Summary,
}

/// All pings together
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Summary {
    pub(crate) sent: u64,
    pub(crate) answered: u64,
    pub(crate) loss: f64,
    pub(crate) rtt_min_ms: Option<f64>,
    pub(crate) rtt_avg_ms: Option<f64>,
    pub(crate) rtt_max_ms: Option<f64>,
}

/// One event of `monitor`
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub(crate) enum EventDocument<'a> {
    /// The daemon came or went
    Daemon { time: f64, running: bool },
    /// Something about a network
    Network { time: f64, change: &'a str, network: NetworkDocument<'a> },
    /// Something about a peer
    Peer { time: f64, change: &'a str, peer: PeerDocument<'a> },
}

/// Why it failed
#[derive(Debug, Serialize)]
pub(crate) struct ErrorDocument<'a> {
    pub(crate) error: ErrorBody<'a>,
}

#[derive(Debug, Serialize)]
pub(crate) struct ErrorBody<'a> {
    pub(crate) code: &'a str,
    pub(crate) message: &'a str,
}

impl<'a> StatusDocument<'a> {
    pub(crate) fn new(networks: impl IntoIterator<Item = &'a Network>) -> Self {
        Self { networks: networks.into_iter().map(NetworkDocument::new).collect() }
    }
}

impl<'a> MadeDocument<'a> {
    pub(crate) fn new(network: &'a Network) -> Self {
        let facts = &network.facts;
        Self {
            network: &facts.name,
            state: &facts.state,
            detail: &facts.detail,
            interface: present(&facts.interface),
            addresses: &facts.addresses,
            public_key: &facts.public_key,
        }
    }
}

impl<'a> PeersDocument<'a> {
    pub(crate) fn new(tree: &'a Tree, peers: impl IntoIterator<Item = &'a Peer>) -> Self {
        let document = |peer| PeerDocument::new(tree.network_of(peer), peer);
        Self { peers: peers.into_iter().map(document).collect() }
    }
}

impl<'a> DoctorDocument<'a> {
    pub(crate) fn new(findings: &'a [Finding]) -> Self {
        let count = |level| findings.iter().filter(|finding| finding.level == level).count();
        let document = |finding: &'a Finding| CheckDocument {
            level: finding.level.as_str(),
            check: finding.check,
            network: finding.network.as_deref(),
            message: &finding.message,
            remedy: finding.remedy.as_deref(),
        };
        Self {
            checks: findings.iter().map(document).collect(),
            problems: count(Level::Problem),
            warnings: count(Level::Warning),
        }
    }
}

impl<'a> NetworkDocument<'a> {
    pub(crate) fn new(network: &'a Network) -> Self {
        let (facts, figures) = (&network.facts, &network.figures);
        let hub = HubDocument {
            public_key: &facts.hub_key,
            endpoint: &facts.hub_endpoint,
            alive: facts.hub_alive,
        };
        Self {
            name: &facts.name,
            role: &facts.role,
            state: &facts.state,
            detail: &facts.detail,
            interface: present(&facts.interface),
            apply: &facts.apply,
            addresses: &facts.addresses,
            subnets: &facts.subnets,
            mtu: facts.mtu,
            public_key: &facts.public_key,
            listen: present(&facts.listen),
            buffers: (facts.receive_buffer > 0).then_some(BuffersDocument {
                receive: facts.receive_buffer,
                send: facts.send_buffer,
            }),
            hub: (!facts.hub_key.is_empty()).then_some(hub),
            dns: (!facts.dns_suffix.is_empty()).then_some(DnsDocument {
                suffix: &facts.dns_suffix,
                server: present(&facts.dns_server),
                state: &facts.dns_state,
                detail: &facts.dns_detail,
            }),
            quota: (facts.quota > 0).then_some(QuotaDocument {
                bytes: facts.quota,
                used: figures.quota_used,
                period: &facts.quota_period,
                until: facts.quota_until,
            }),
            counters: counters(&figures.statistics),
            refusals: &figures.refusals,
        }
    }
}

impl<'a> PeerDocument<'a> {
    pub(crate) fn new(network: &'a str, peer: &'a Peer) -> Self {
        let (facts, figures) = (&peer.facts, &peer.figures);
        let path = PathDocument {
            kind: &facts.path_kind,
            endpoint: &facts.endpoint,
            rtt_ms: known(figures.rtt_us).map(millis),
            rtt_min_ms: known(figures.rtt_min_us).map(millis),
            loss: figures.loss,
            mtu: Some(facts.path_mtu).filter(|mtu| *mtu > 0),
            rate: known(figures.rate),
            queue_delay_ms: millis(figures.queue_delay_us),
            own_loss: figures.own_loss,
            offload: facts.path_offload,
            overhead: overhead(&figures.path_statistics),
            counters: counters(&figures.path_statistics),
        };
        Self {
            network,
            name: &facts.name,
            public_key: &facts.public_key,
            addresses: &facts.addresses,
            subnets: &facts.subnets,
            state: &facts.state,
            hub: facts.hub,
            path: (!facts.path_kind.is_empty()).then_some(path),
            tcp: Some(facts.tcp.as_str()).filter(|tcp| !tcp.is_empty()),
            traffic: counters(&figures.statistics),
            last_handshake: known(figures.last_handshake),
            last_seen: known(figures.last_seen),
        }
    }
}

impl<'a> PingDocument<'a> {
    pub(crate) fn new(network: &'a str, seq: u64, answer: &'a PingAnswer) -> Self {
        let road = RoadDocument { kind: &answer.path_kind, endpoint: &answer.endpoint };
        Self {
            network,
            peer: &answer.peer,
            seq,
            answered: answer.answered,
            rtt_ms: answer.answered.then(|| millis(answer.rtt_us)),
            path: (!answer.path_kind.is_empty()).then_some(road),
        }
    }
}

impl<'a> ErrorDocument<'a> {
    pub(crate) fn new(code: &'a str, message: &'a str) -> Self {
        Self { error: ErrorBody { code, message } }
    }
}

/// Microseconds as milliseconds
pub(crate) fn millis(micros: u64) -> f64 {
    // Exact for a century.
    micros as f64 / 1000.0
}

/// Bytes that a path sent for each byte of load; nothing before there was any
pub(crate) fn overhead(path: &BTreeMap<String, u64>) -> Option<f64> {
    let count = |name| path.get(name).copied().unwrap_or(0);
    let fresh = count("fresh-bytes");
    (fresh > 0).then(|| count("bytes") as f64 / fresh as f64)
}

/// Zero stands for what is not known on the bus
pub(crate) fn known(value: u64) -> Option<u64> {
    Some(value).filter(|value| *value > 0)
}

fn present(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}

/// The bus says `tx-bytes`, JSON says `tx_bytes`
fn counters(statistics: &BTreeMap<String, u64>) -> BTreeMap<String, u64> {
    statistics.iter().map(|(name, count)| (name.replace('-', "_"), *count)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::samples::{key, tree};

    #[test]
    fn status_has_the_documented_form() {
        let tree = tree();

        let json = serde_json::to_value(StatusDocument::new(tree.networks.values())).unwrap();

        assert_eq!(
            json,
            serde_json::json!({"networks": [{
                "name": "office",
                "role": "peer",
                "state": "up",
                "detail": "",
                "interface": "fvpn-office",
                "apply": "self",
                "addresses": ["172.16.97.101/24"],
                "subnets": [],
                "mtu": 1380,
                "public_key": key(9),
                "listen": "[::]:8796",
                "buffers": {"receive": 4_194_304, "send": 4_194_304},
                "hub": {"public_key": key(8), "endpoint": "hub.example.net:8796", "alive": true},
                "dns": {
                    "suffix": "office.fastvpn", "server": "172.16.97.101:53",
                    "state": "announced", "detail": ""
                },
                "quota": {
                    "bytes": 1_000_000,
                    "used": 820_000,
                    "period": "month",
                    "until": 1_701_388_800,
                },
                "counters": {"dropped": 1, "rx_bytes": 2048, "tx_bytes": 300},
                "refusals": {"replayed": 4},
            }]})
        );
    }

    #[test]
    fn peers_have_the_documented_form() {
        let tree = tree();

        let json = serde_json::to_value(PeersDocument::new(&tree, tree.peers.values())).unwrap();

        assert_eq!(
            json["peers"][0],
            serde_json::json!({
                "network": "office",
                "name": "tokyo",
                "public_key": key(1),
                "addresses": ["172.16.97.102"],
                "subnets": ["192.168.7.0/24"],
                "state": "connected",
                "hub": false,
                "path": {
                    "kind": "direct",
                    "endpoint": "203.0.113.5:8796",
                    "rtt_ms": 31.2,
                    "rtt_min_ms": 30.0,
                    "loss": 0.25,
                    "mtu": 1400,
                    "rate": 100_000_000,
                    "queue_delay_ms": 0.7,
                    "own_loss": 0.05,
                    "offload": true,
                    "overhead": 1.3,
                    "counters": {"bytes": 1300, "copy_bytes": 50, "fresh_bytes": 1000},
                },
                "tcp": "split",
                "traffic": {"rx_bytes": 2048, "tx_bytes": 300},
                "last_handshake": 1_700_000_000_u64,
                "last_seen": 1_700_000_009_u64,
            })
        );
    }

    #[test]
    fn what_is_not_known_is_null() {
        let peer = Peer::default();

        let json = serde_json::to_value(PeerDocument::new("x", &peer)).unwrap();

        assert!(json["path"].is_null() && json["last_seen"].is_null());
    }

    #[test]
    fn events_say_what_they_are() {
        let event = EventDocument::Daemon { time: 1.5, running: false };

        let json = serde_json::to_string(&event).unwrap();

        assert_eq!(json, r#"{"event":"daemon","time":1.5,"running":false}"#);
    }
}
