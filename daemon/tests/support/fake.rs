//! A daemon that is not there: a handle whose other end is a script.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use fastvpn_proto::crypto::{InvitationSecret, NetworkKey, PublicKey};
use fastvpn_proto::node::{Carriage, Way};
use fastvpnd::api::{self, ApiError, Availability, Bus};
use fastvpnd::handle::{
    Apply, BuffersView, Counted, DnsState, DnsView, Handle, HandleError, HubView, InvitationView,
    Invited, MemberView, MembersReply, MembersRequest, NetworkName, NetworkState, NetworkView,
    Outcome, PathView, PeerLink, PeerView, PingReply, QuotaView, Reloaded, Request, Role, Snapshot,
    SpentView,
};
use fastvpnd::invitation::Invitation;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

/// The other end of a handle, and the API on top of it
pub(crate) struct Fake {
    snapshots: watch::Sender<Arc<Snapshot>>,
    pub(crate) availability: watch::Receiver<Availability>,
    api: JoinHandle<Result<std::convert::Infallible, ApiError>>,
    requests: JoinHandle<()>,
}

impl Fake {
    /// Serves `snapshot` on the bus at `address`, in the background
    pub(crate) fn start(address: &str, snapshot: Snapshot) -> Self {
        let (snapshots, seen) = watch::channel(Arc::new(snapshot));
        let (requests, inbox) = mpsc::channel(16);
        let (available, availability) = watch::channel(Availability::Starting);
        let handle = Handle::new(requests, seen);
        let bus = Bus::Address(address.to_owned());
        let api = tokio::spawn(api::serve(Some(bus), handle, available));
        let requests = tokio::spawn(serve_requests(inbox, snapshots.clone()));
        Self { snapshots, availability, api, requests }
    }

    /// Waits until clients can reach it
    pub(crate) async fn wait_until(&mut self, wanted: Availability) {
        let seen = self.availability.wait_for(|availability| *availability == wanted);
        super::within(10, "the wished availability", seen).await.unwrap();
    }

    /// Changes what can be seen
    pub(crate) fn change(&self, change: impl FnOnce(&mut Snapshot)) {
        apply(&self.snapshots, change);
    }

    /// Returns why the API is not served at all
    pub(crate) async fn failure(&mut self) -> ApiError {
        match super::within(10, "the end of the API", &mut self.api).await.unwrap() {
            Err(error) => error,
            Ok(never) => match never {},
        }
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.api.abort();
        self.requests.abort();
    }
}

/// Answers as the names of the networks tell: `conflict` has conflicts, and so on
async fn serve_requests(
    mut inbox: mpsc::Receiver<Request>,
    snapshots: watch::Sender<Arc<Snapshot>>,
) {
    while let Some(request) = inbox.recv().await {
        match request {
            Request::Connect { network, apply, reply } => {
                let done = set_state(&snapshots, &network, NetworkState::Up);
                change_view(&snapshots, &network, |view| view.apply = apply);
                let _ = reply.send(done);
            }
            Request::CreateHub(spec, reply) => {
                let done = make(&snapshots, &spec.name, Role::Hub);
                let _ = reply.send(done.map(drop));
            }
            Request::Disconnect(name, reply) => {
                let done = set_state(&snapshots, &name, NetworkState::Down);
                let _ = reply.send(done);
            }
            Request::Join(spec, reply) => {
                let name = spec.name.unwrap_or(spec.invitation.network);
                let _ = reply.send(make(&snapshots, &name, Role::Peer));
            }
            Request::Leave(name, reply) => {
                apply(&snapshots, |snapshot| drop(snapshot.networks.remove(&name)));
                let _ = reply.send(Ok(()));
            }
            Request::Release(caller) => {
                let mut names = snapshots.borrow().networks.clone();
                names.retain(|_, view| view.apply == Apply::Caller(caller.clone()));
                for name in names.keys() {
                    change_view(&snapshots, name, |view| view.state = NetworkState::Down);
                }
            }
            Request::Members { network, request, reply } => {
                let _ = reply.send(members(&network, request));
            }
            Request::Ping { network, peer, reply, .. } => {
                let _ = reply.send(ping(&network, &peer));
            }
            Request::Reload(reply) => {
                let bad = snapshots.borrow().networks.contains_key(&name("bad"));
                let _ = reply.send(if bad {
                    Err(HandleError::Config("bad.toml:1: unknown key \"colour\"".to_owned()))
                } else {
                    Ok(Reloaded { changed: vec![name("office")], ..Default::default() })
                });
            }
        }
    }
}

/// Makes a network that is up, or waits for approval where it is called `pending`
fn make(
    snapshots: &watch::Sender<Arc<Snapshot>>,
    name: &NetworkName,
    role: Role,
) -> Result<NetworkName, HandleError> {
    let state = match name.as_str() {
        "bad" => return Err(HandleError::Config("bad.toml:1: unknown key".to_owned())),
        "conflict" => return Err(HandleError::Conflict("there is one already".to_owned())),
        "invalid" => return Err(HandleError::Invalid("subnet: is missing".to_owned())),
        "refused" => return Err(HandleError::Refused("the invitation has expired".to_owned())),
        "pending" => NetworkState::Pending,
        _ => NetworkState::Up,
    };
    let view = NetworkView { role, state, ..network(BTreeMap::new()) };
    apply(snapshots, |snapshot| drop(snapshot.networks.insert(name.clone(), view)));
    Ok(name.clone())
}

fn set_state(
    snapshots: &watch::Sender<Arc<Snapshot>>,
    network: &NetworkName,
    state: NetworkState,
) -> Result<Outcome<()>, HandleError> {
    match network.as_str() {
        "hub" => return Err(HandleError::NotPeer(network.clone())),
        "in-use" => return Err(HandleError::InUse("it is up for another".to_owned())),
        "conflict" => return Err(HandleError::Conflict("10.0.0.1 is taken".to_owned())),
        "stopping" => return Err(HandleError::Stopping),
        "system" => return Err(HandleError::System("/dev/net/tun is missing".to_owned())),
        "timeout" => return Err(HandleError::Timeout("the hub does not answer".to_owned())),
        _ => {}
    }
    if !snapshots.borrow().networks.contains_key(network) {
        return Err(HandleError::UnknownNetwork(network.to_string()));
    }
    change_view(snapshots, network, |view| view.state = state);
    Ok(Outcome::Changed(()))
}

fn change_view(
    snapshots: &watch::Sender<Arc<Snapshot>>,
    network: &NetworkName,
    change: impl FnOnce(&mut NetworkView),
) {
    apply(snapshots, |snapshot| snapshot.networks.get_mut(network).map_or((), change));
}

/// Answers as a hub with the member `tokyo`, if the network is called so
fn members(network: &NetworkName, request: MembersRequest) -> Result<MembersReply, HandleError> {
    if network.as_str() == "office" {
        return Err(HandleError::NotHub(network.clone()));
    }
    let expires = UNIX_EPOCH + Duration::from_secs(1_700_003_600);
    match request {
        MembersRequest::Approve(who)
        | MembersRequest::Revoke(who)
        | MembersRequest::Rename { who, .. } => match who.as_str() {
            "tokyo" => Ok(MembersReply::Done),
            "kyoto" => Err(HandleError::Configured("kyoto is in hub.toml, line 7".to_owned())),
            other => Err(HandleError::NoMember(format!("{other} is no member"))),
        },
        MembersRequest::Invitations => {
            let name = "osaka".to_owned();
            let invitation = InvitationView { name, expires, approval: true };
            Ok(MembersReply::Invitations(vec![invitation]))
        }
        MembersRequest::Invite(invite) => Ok(MembersReply::Invited(Invited {
            text: format!("FASTVPN:{}", invite.name.to_uppercase()),
            expires,
            endpoints: if invite.endpoints.is_empty() {
                vec!["hub.example.net:8796".to_owned()]
            } else {
                invite.endpoints
            },
        })),
        MembersRequest::List => Ok(MembersReply::Members(vec![MemberView {
            name: "tokyo".to_owned(),
            public_key: key(1),
            addresses: vec!["172.16.97.102".parse().unwrap()],
            subnets: vec!["192.168.7.0/24".parse().unwrap()],
            standing: "approved",
            source: "store",
            online: true,
            since: 1_700_000_000,
        }])),
        MembersRequest::Withdraw(name) if name == "osaka" => Ok(MembersReply::Done),
        MembersRequest::Withdraw(name) => {
            Err(HandleError::NoInvitation(format!("there is no invitation for {name}")))
        }
    }
}

fn ping(network: &NetworkName, peer: &str) -> Result<PingReply, HandleError> {
    if network.as_str() != "office" {
        return Err(HandleError::NotUp(network.clone()));
    }
    let path = Some(path());
    match peer {
        "tokyo" => Ok(PingReply { rtt: Some(Duration::from_micros(31_200)), peer: key(1), path }),
        "lost" => Ok(PingReply { rtt: None, peer: key(1), path: None }),
        _ => Err(HandleError::NoPeer(peer.to_owned(), network.clone())),
    }
}

fn apply(snapshots: &watch::Sender<Arc<Snapshot>>, change: impl FnOnce(&mut Snapshot)) {
    snapshots.send_modify(|snapshot| change(Arc::make_mut(snapshot)));
}

/// An invitation to `network`
pub(crate) fn invitation(network: &str) -> Invitation {
    Invitation {
        network: name(network),
        member: "laptop".to_owned(),
        hub_key: key(8),
        endpoints: vec!["hub.example.net:8796".to_owned()],
        network_key: NetworkKey::default(),
        secret: InvitationSecret::from_bytes([1; 16]),
    }
}

/// A network `office` with the peer `tokyo`
pub(crate) fn office() -> Snapshot {
    let peers = BTreeMap::from([(key(1), tokyo())]);
    Snapshot { networks: BTreeMap::from([(name("office"), network(peers))]) }
}

pub(crate) fn network(peers: BTreeMap<PublicKey, PeerView>) -> NetworkView {
    NetworkView {
        role: Role::Peer,
        state: NetworkState::Up,
        detail: String::new(),
        public_key: key(9),
        apply: Apply::Daemon,
        interface: "fvpn-office".to_owned(),
        addresses: vec!["172.16.97.101/24".parse().unwrap()],
        routes: vec!["192.168.7.0/24".parse().unwrap()],
        subnets: vec!["192.168.8.0/24".parse().unwrap()],
        gateway: Some("203.0.113.9".parse().unwrap()),
        mtu: 1380,
        listen: Some("[::]:8796".parse().unwrap()),
        buffers: BuffersView { receive: 4_194_304, send: 212_992 },
        hub: Some(HubView {
            public_key: key(8),
            endpoint: "hub.example.net:8796".to_owned(),
            alive: true,
        }),
        sent: Counted { packets: 3, bytes: 300 },
        received: Counted { packets: 2, bytes: 200 },
        dropped: 1,
        overflowed: 4,
        wire_sent: Counted { packets: 9, bytes: 1000 },
        wire_received: Counted { packets: 8, bytes: 900 },
        dns: DnsView {
            suffix: "office.fastvpn".to_owned(),
            server: Some("172.16.97.101:53".parse().unwrap()),
            state: DnsState::Announced,
            detail: String::new(),
        },
        domains: vec!["office.fastvpn".to_owned(), "97.16.172.in-addr.arpa".to_owned()],
        quota: Some(quota()),
        refusals: BTreeMap::from([("replayed", 4)]),
        peers,
    }
}

pub(crate) fn tokyo() -> PeerView {
    PeerView {
        name: "tokyo".to_owned(),
        addresses: vec!["172.16.97.102".parse().unwrap()],
        subnets: vec!["192.168.7.0/24".parse().unwrap()],
        state: PeerLink::Connected,
        hub: false,
        path: Some(path()),
        tcp: Some(Carriage::Split),
        sent: Counted { packets: 3, bytes: 300 },
        received: Counted { packets: 2, bytes: 200 },
        last_handshake: Some(UNIX_EPOCH + Duration::from_secs(1_700_000_000)),
        last_seen: Some(UNIX_EPOCH + Duration::from_secs(1_700_000_009)),
    }
}

pub(crate) fn path() -> PathView {
    PathView {
        way: Way::Direct("203.0.113.5:8796".parse().unwrap()),
        rtt: Some(Duration::from_micros(31_200)),
        rtt_min: Some(Duration::from_micros(30_000)),
        loss: 0.25,
        mtu: 1400,
        rate: Some(12_500_000),
        queue_delay: Duration::from_micros(700),
        own_loss: 0.05,
        offload: true,
        sent: Counted { packets: 10, bytes: 1300 },
        lost: 2,
        congested: 3,
        spent: SpentView {
            fresh: Counted { packets: 5, bytes: 1000 },
            repeats: Counted { packets: 2, bytes: 200 },
            copies: Counted { packets: 1, bytes: 50 },
        },
    }
}

fn quota() -> QuotaView {
    QuotaView {
        bytes: 1_000_000,
        used: 820_000,
        period: "month",
        until: UNIX_EPOCH + Duration::from_secs(1_701_388_800),
    }
}

pub(crate) fn key(byte: u8) -> PublicKey {
    PublicKey::from_bytes([byte; 32])
}

pub(crate) fn name(text: &str) -> NetworkName {
    text.parse().unwrap()
}
