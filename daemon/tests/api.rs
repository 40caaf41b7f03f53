//! The API on a private bus, before a daemon that is a script.

// Helpers of tests are tests as well.
#![allow(clippy::unwrap_used)]

#[allow(dead_code, reason = "each suite uses its part of it")]
mod support;

use std::collections::{BTreeSet, HashMap};
use std::process::Command;
use std::time::Duration;

use fastvpn_dbus::tree::{Change, Tree};
use fastvpn_dbus::types::{NetworkFacts, NetworkFigures, PeerFacts, PeerFigures};
use fastvpn_dbus::{
    BUS_NAME, Error, MANAGER, ManagerProxy, NETWORK, NetworkProxy, PEER, PeerProxy, ROOT,
    network_path, peer_path,
};
use fastvpn_proto::node::{Carrier, Way};
use fastvpnd::api::{ApiError, Availability, Bus};
use fastvpnd::handle::{NetworkState, Snapshot};
use futures_util::StreamExt;
use support::bus::PrivateBus;
use support::fake::{Fake, invitation, key, name, network, office, path, tokyo};
use support::{as_nobody, run, within};
use zbus::fdo::IntrospectableProxy;
use zbus::{Connection, MatchRule, MessageStream, Variant};

/// A bus, the API on it, and a client
struct World {
    bus: PrivateBus,
    fake: Fake,
    client: Connection,
}

impl World {
    async fn new(snapshot: Snapshot) -> Self {
        let bus = PrivateBus::start();
        let mut fake = Fake::start(&bus.address(), snapshot);
        fake.wait_until(Availability::Serving).await;
        let client = client(&bus).await;
        Self { bus, fake, client }
    }

    async fn manager(&self) -> ManagerProxy<'static> {
        ManagerProxy::new(&self.client).await.unwrap()
    }

    async fn tree(&self) -> Tree {
        Tree::load(&self.client).await.unwrap()
    }

    async fn signals(&self) -> MessageStream {
        let rule = MatchRule::builder()
            .msg_type(zbus::message::Type::Signal)
            .sender(BUS_NAME)
            .path_namespace(ROOT)
            .build()
            .unwrap();
        MessageStream::for_match_rule(rule, &self.client, None).await.unwrap()
    }
}

async fn client(bus: &PrivateBus) -> Connection {
    Bus::Address(bus.address()).builder().build().await.unwrap()
}

#[test]
fn live_interfaces_equal_the_contract() {
    run(async {
        let world = World::new(office()).await;
        for (path, interface) in [
            (ROOT.to_owned(), MANAGER),
            (network_path("office").to_string(), NETWORK),
            (peer_path("office", key(1).as_bytes()).to_string(), PEER),
        ] {
            let object = IntrospectableProxy::builder(&world.client).destination(BUS_NAME);
            let object = object.path(path).build().await.unwrap();
            let live = object.introspect().await.unwrap();
            let file = format!("{}/../dbus/interfaces/{interface}.xml", env!("CARGO_MANIFEST_DIR"));
            let contract = std::fs::read_to_string(file).unwrap();

            assert_eq!(members(&live, interface), members(&contract, interface));
        }
    });
}

#[test]
fn types_of_the_clients_name_all_properties_of_the_contract() {
    let names = |interface: &str| -> BTreeSet<String> {
        let file = format!("{}/../dbus/interfaces/{interface}.xml", env!("CARGO_MANIFEST_DIR"));
        let members = members(&std::fs::read_to_string(file).unwrap(), interface);
        let quoted = |member: &String| member.split('"').nth(1).map(str::to_owned);
        let is_property =
            |member: &&String| member.starts_with("property ") && !member.contains('/');
        members.iter().filter(is_property).filter_map(quoted).collect()
    };
    let all = |facts: &[&str], figures: &[&str]| -> BTreeSet<String> {
        facts.iter().chain(figures).map(|name| (*name).to_owned()).collect()
    };

    assert_eq!(names(NETWORK), all(NetworkFacts::PROPERTIES, NetworkFigures::PROPERTIES));
    assert_eq!(names(PEER), all(PeerFacts::PROPERTIES, PeerFigures::PROPERTIES));
}

#[test]
fn snapshot_is_what_clients_see() {
    run(async {
        let world = World::new(office()).await;

        let tree = world.tree().await;
        let network = &tree.networks[network_path("office").as_str()];
        let peer = &tree.peers[peer_path("office", key(1).as_bytes()).as_str()];

        assert_eq!(network.facts.state, "up");
        assert_eq!(network.facts.addresses, ["172.16.97.101/24"]);
        assert_eq!(network.facts.hub_endpoint, "hub.example.net:8796");
        assert_eq!(network.figures.statistics["dropped"], 1);
        assert_eq!(network.figures.statistics["wire-rx-overflowed"], 4);
        assert_eq!(network.figures.refusals["replayed"], 4);
        assert_eq!(peer.facts.public_key, key(1).to_string());
        assert_eq!(peer.facts.endpoint, "203.0.113.5:8796");
        assert_eq!((peer.facts.path_kind.as_str(), peer.facts.tcp.as_str()), ("direct", "split"));
        assert_eq!(peer.figures.rtt_us, 31_200);
        assert_eq!(peer.figures.last_seen, 1_700_000_009);
        assert_eq!((peer.figures.rate, peer.figures.queue_delay_us), (100_000_000, 700));
        assert_eq!(peer.figures.path_statistics["repeat-bytes"], 200);
        assert_eq!((network.facts.quota, network.figures.quota_used), (1_000_000, 820_000));
        assert_eq!(network.facts.quota_period, "month");
        assert_eq!(network.figures.statistics["wire-tx-bytes"], 1000);
        assert_eq!(tree.network_of(peer), "office");
    });
}

#[test]
fn proxies_read_all_properties() {
    run(async {
        let world = World::new(office()).await;
        let network = network_path("office");
        let network = NetworkProxy::new(&world.client, network).await.unwrap();
        let peer = PeerProxy::new(&world.client, peer_path("office", key(1).as_bytes()));
        let peer = peer.await.unwrap();

        assert_eq!(network.mtu().await.unwrap(), 1380);
        assert_eq!(network.receive_buffer().await.unwrap(), 4_194_304);
        assert_eq!(network.send_buffer().await.unwrap(), 212_992);
        assert_eq!(network.statistics().await.unwrap()["tx-bytes"], 300);
        assert_eq!(network.listen().await.unwrap(), "[::]:8796");
        assert_eq!(peer.subnets().await.unwrap(), ["192.168.7.0/24"]);
        assert_eq!(peer.tcp().await.unwrap(), "split");
        assert_eq!(peer.loss().await.unwrap(), 0.25);
        assert_eq!(peer.own_loss().await.unwrap(), 0.05);
        assert_eq!(peer.path_statistics().await.unwrap()["lost"], 2);
        assert_eq!(network.quota_until().await.unwrap(), 1_701_388_800);
        assert_eq!(peer.network().await.unwrap(), network_path("office"));
        assert_eq!(world.manager().await.version().await.unwrap(), env!("CARGO_PKG_VERSION"));
    });
}

#[test]
fn effect_of_a_change_can_be_seen_as_soon_as_it_is_answered() {
    run(async {
        let world = World::new(office()).await;
        let manager = world.manager().await;
        let path = network_path("office");

        manager.disconnect("office").await.unwrap();
        let down = world.tree().await.networks[path.as_str()].facts.state.clone();
        let answer = manager.connect("office", &HashMap::new()).await.unwrap();
        let up = world.tree().await.networks[path.as_str()].facts.state.clone();

        assert_eq!(answer, path);
        assert_eq!((down.as_str(), up.as_str()), ("down", "up"));
    });
}

#[test]
fn network_for_a_caller_shows_its_plan_and_goes_down_when_he_is_gone() {
    run(async {
        let world = World::new(office()).await;
        let caller = client(&world.bus).await;
        let manager = ManagerProxy::new(&caller).await.unwrap();
        let apply = HashMap::from([("apply", Variant::from("caller"))]);

        manager.connect("office", &apply).await.unwrap();
        manager.connect("office", &apply).await.unwrap();
        let network = NetworkProxy::new(&world.client, network_path("office")).await.unwrap();
        let (plan, applies) = (network.plan().await.unwrap(), network.apply().await.unwrap());

        assert_eq!(applies, "caller");
        assert_eq!((&*plan.dns, plan.domains.len()), (&["172.16.97.101".to_owned()][..], 2));
        assert_eq!(plan.interface, "fvpn-office");
        assert_eq!((plan.mtu, plan.gateway.as_str()), (1380, "203.0.113.9"));
        assert_eq!(
            (plan.addresses, plan.routes),
            (vec!["172.16.97.101/24".to_owned()], vec!["192.168.7.0/24".to_owned()])
        );

        let mut states = network.receive_state_changed().await;
        drop((manager, caller));
        let down = async {
            loop {
                if states.next().await.unwrap().get().await.unwrap() == "down" {
                    break;
                }
            }
        };
        within(5, "the end of the network", down).await;
    });
}

#[test]
fn answered_ping_tells_time_and_path_and_a_lost_one_is_no_error() {
    run(async {
        let world = World::new(office()).await;
        let manager = world.manager().await;

        let answered = manager.ping("office", "tokyo", 1000).await.unwrap();
        let lost = manager.ping("office", "lost", 1000).await.unwrap();

        assert_eq!((answered.answered, answered.rtt_us), (true, 31_200));
        assert_eq!(answered.endpoint, "203.0.113.5:8796");
        assert_eq!((lost.answered, lost.rtt_us, lost.path_kind.as_str()), (false, 0, ""));
    });
}

#[test]
fn each_error_has_its_name() {
    run(async {
        let mut snapshot = office();
        snapshot.networks.insert(name("bad"), network(Default::default()));
        let world = World::new(snapshot).await;
        let manager = world.manager().await;
        let none = HashMap::new();
        let colour = HashMap::from([("colour", Variant::from(1_u32))]);
        let connect = async |name: &str| manager.connect(name, &none).await.unwrap_err();

        assert!(matches!(connect("conflict").await, Error::Conflict(_)));
        assert!(matches!(connect("hub").await, Error::NotPeer(_)));
        assert!(matches!(connect("in-use").await, Error::InUse(_)));
        assert!(matches!(connect("stopping").await, Error::Stopping(_)));
        assert!(matches!(connect("system").await, Error::System(_)));
        assert!(matches!(connect("timeout").await, Error::Timeout(_)));
        assert!(matches!(connect("nowhere").await, Error::UnknownNetwork(_)));
        assert!(matches!(connect("No Name!").await, Error::InvalidArgument(_)));
        let unknown = manager.connect("office", &colour).await.unwrap_err();
        assert_eq!(unknown, Error::InvalidArgument("unknown option \"colour\"".to_owned()));
        for wrong in [Variant::from("nobody"), Variant::from(1_u32)] {
            let apply = HashMap::from([("apply", wrong)]);
            let wrong = manager.connect("office", &apply).await.unwrap_err();
            assert!(matches!(wrong, Error::InvalidArgument(_)), "{wrong}");
        }
        assert!(matches!(manager.reload().await.unwrap_err(), Error::Config(text)
            if text.contains("bad.toml:1")));

        let ping = async |network: &str, peer: &str, timeout_ms| {
            manager.ping(network, peer, timeout_ms).await.unwrap_err()
        };
        assert!(matches!(ping("office", "nobody", 1000).await, Error::NoPeer(_)));
        assert!(matches!(ping("bad", "tokyo", 1000).await, Error::NotUp(_)));
        assert!(matches!(ping("office", "tokyo", 0).await, Error::InvalidArgument(_)));
        assert!(matches!(ping("office", "tokyo", 60_001).await, Error::InvalidArgument(_)));
        assert!(matches!(ping("office", &"x".repeat(256), 1).await, Error::InvalidArgument(_)));
    });
}

#[test]
fn networks_are_made_joined_and_left() {
    run(async {
        let world = World::new(office()).await;
        let manager = world.manager().await;
        let subnet = HashMap::from([("subnet", Variant::from(vec!["10.0.0.0/24"]))]);
        let called = HashMap::from([("name", Variant::from("work"))]);
        let text = invitation("home").to_string();

        let hub = manager.create_hub("roof", &subnet).await.unwrap();
        let joined = manager.join(&text, &HashMap::new()).await.unwrap();
        let named = manager.join(&text, &called).await.unwrap();
        let tree = world.tree().await;
        manager.leave("roof").await.unwrap();

        assert_eq!(hub, network_path("roof"));
        assert_eq!((joined, named), (network_path("home"), network_path("work")));
        assert_eq!(tree.networks[hub.as_str()].facts.role, "hub");
        assert!(!world.tree().await.networks.contains_key(hub.as_str()));
    });
}

#[test]
fn what_cannot_be_made_or_joined_has_a_named_error() {
    run(async {
        let world = World::new(office()).await;
        let manager = world.manager().await;
        let hub = async |name: &str, options: &HashMap<&str, Variant<'_>>| {
            manager.create_hub(name, options).await.unwrap_err()
        };
        let join = async |text: &str, options: &HashMap<&str, Variant<'_>>| {
            manager.join(text, options).await.unwrap_err()
        };
        let with = |name, value| HashMap::from([(name, value)]);
        let none = HashMap::new();
        let to = |network: &str| invitation(network).to_string();

        assert!(matches!(hub("conflict", &none).await, Error::Conflict(_)));
        assert!(matches!(hub("invalid", &none).await, Error::InvalidArgument(_)));
        assert!(matches!(hub("No Name!", &none).await, Error::InvalidArgument(_)));
        assert!(matches!(hub("bad", &none).await, Error::Config(_)));
        let wrong = with("subnet", Variant::from("10.0.0.0/24"));
        assert!(matches!(hub("roof", &wrong).await, Error::InvalidArgument(_)));
        let unknown = with("colour", Variant::from("red"));
        assert!(matches!(hub("roof", &unknown).await, Error::InvalidArgument(_)));

        assert!(matches!(join(&to("refused"), &none).await, Error::Refused(text)
            if text == "the hub refused: the invitation has expired"));
        assert!(matches!(join(&to("conflict"), &none).await, Error::Conflict(_)));
        assert!(matches!(join(&to("home")[..50], &none).await, Error::InvalidArgument(text)
            if text.contains("cut off")));
        for wrong in [with("name", Variant::from("No Name!")), with("apply", "me".into()), unknown]
        {
            assert!(matches!(join(&to("home"), &wrong).await, Error::InvalidArgument(_)));
        }
    });
}

#[test]
fn hub_invites_lists_and_changes_its_members() {
    run(async {
        let mut snapshot = office();
        snapshot.networks.insert(name("roof"), network(Default::default()));
        let world = World::new(snapshot).await;
        let hub = NetworkProxy::new(&world.client, network_path("roof")).await.unwrap();
        let options = HashMap::from([
            ("ttl", Variant::from(60_u64)),
            ("approval", Variant::from(true)),
            ("address", Variant::from(vec!["10.0.0.9"])),
            ("subnets", Variant::from(vec!["192.168.7.0/24"])),
            ("endpoint", Variant::from(vec!["192.0.2.1:8796"])),
        ]);

        let plain = hub.invite("osaka", &HashMap::new()).await.unwrap();
        let made = hub.invite("osaka", &options).await.unwrap();
        let open = hub.invitations().await.unwrap();
        let members = hub.members().await.unwrap();
        hub.approve_member("tokyo").await.unwrap();
        hub.rename_member("tokyo", "kyoto").await.unwrap();
        hub.revoke_member("tokyo").await.unwrap();
        hub.cancel_invitation("osaka").await.unwrap();

        assert_eq!((plain.invitation.as_str(), plain.expires), ("FASTVPN:OSAKA", 1_700_003_600));
        assert_eq!(plain.endpoints, ["hub.example.net:8796"]);
        assert_eq!(made.endpoints, ["192.0.2.1:8796"]);
        assert_eq!((open[0].name.as_str(), open[0].approval), ("osaka", true));
        assert_eq!((members[0].name.as_str(), members[0].standing.as_str()), ("tokyo", "approved"));
        assert_eq!((members[0].source.as_str(), members[0].online), ("store", true));
    });
}

#[test]
fn what_cannot_be_done_with_members_has_a_named_error() {
    run(async {
        let mut snapshot = office();
        snapshot.networks.insert(name("roof"), network(Default::default()));
        let world = World::new(snapshot).await;
        let hub = NetworkProxy::new(&world.client, network_path("roof")).await.unwrap();
        let peer = NetworkProxy::new(&world.client, network_path("office")).await.unwrap();

        assert!(matches!(peer.members().await, Err(Error::NotHub(_))));
        assert!(matches!(peer.invitations().await, Err(Error::NotHub(_))));
        assert!(matches!(hub.revoke_member("kyoto").await, Err(Error::Configured(text))
            if text.contains("line 7")));
        assert!(matches!(hub.approve_member("nobody").await, Err(Error::NoMember(_))));
        assert!(matches!(hub.cancel_invitation("nara").await, Err(Error::NoInvitation(_))));
        for (option, value) in [
            ("colour", Variant::from("red")),
            ("ttl", Variant::from("1h")),
            ("address", Variant::from(vec!["10.0.0.0/24"])),
            ("subnets", Variant::from(vec!["192.168.7.0/33"])),
        ] {
            let refused = hub.invite("osaka", &HashMap::from([(option, value)])).await;
            assert!(matches!(refused, Err(Error::InvalidArgument(_))), "{option}: {refused:?}");
        }
    });
}

#[test]
fn flood_of_pings_is_refused_by_name() {
    run(async {
        let world = World::new(office()).await;
        let manager = world.manager().await;

        let mut refused = None;
        for _ in 0..200 {
            refused = refused.or(manager.ping("office", "tokyo", 1000).await.err());
        }

        assert!(matches!(refused, Some(Error::Busy(_))), "{refused:?}");
    });
}

#[test]
fn other_users_may_read_and_ping_but_not_change() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: needs root, to call as another user");
        return;
    }
    run(async {
        let world = World::new(office()).await;
        let address = world.bus.address();
        let call = async |arguments: &[&str]| {
            let mut busctl = Command::new("busctl");
            busctl.arg(format!("--address={address}")).args(arguments);
            as_nobody(busctl).await
        };

        let read = call(&["get-property", BUS_NAME, ROOT, MANAGER, "Version"]).await;
        let ping = call(&["call", BUS_NAME, ROOT, MANAGER, "Ping", "ssu", "office", "tokyo", "9"]);
        let ping = ping.await;
        let connect =
            call(&["call", BUS_NAME, ROOT, MANAGER, "Connect", "sa{sv}", "office", "0"]).await;
        let disconnect =
            call(&["call", BUS_NAME, ROOT, MANAGER, "Disconnect", "s", "office"]).await;
        let reload = call(&["call", BUS_NAME, ROOT, MANAGER, "Reload"]).await;

        assert_eq!(read, Ok(format!("s \"{}\"\n", env!("CARGO_PKG_VERSION"))));
        assert!(ping.as_ref().is_ok_and(|out| out.contains("true 31200")), "{ping:?}");
        let hub =
            call(&["call", BUS_NAME, ROOT, MANAGER, "CreateHub", "sa{sv}", "roof", "0"]).await;
        let text = invitation("home").to_string();
        let join = call(&["call", BUS_NAME, ROOT, MANAGER, "Join", "sa{sv}", &text, "0"]).await;
        let leave = call(&["call", BUS_NAME, ROOT, MANAGER, "Leave", "s", "office"]).await;
        for refused in [connect, disconnect, reload, hub, join, leave] {
            let text = refused.unwrap_err();
            assert!(text.contains("user 65534 may not") && text.contains("only root"), "{text}");
        }
        let path = network_path("office").to_string();
        let of_network = async |call_of: &[&str]| {
            call(&[&["call", BUS_NAME, path.as_str(), NETWORK], call_of].concat()).await
        };
        for change in [
            &["ApproveMember", "s", "tokyo"][..],
            &["CancelInvitation", "s", "tokyo"],
            &["Invitations"],
            &["Invite", "sa{sv}", "osaka", "0"],
            &["RenameMember", "ss", "tokyo", "kyoto"],
            &["RevokeMember", "s", "tokyo"],
        ] {
            let text = of_network(change).await.unwrap_err();
            assert!(text.contains("may not manage the members of a network"), "{text}");
        }
        let text = of_network(&["Members"]).await.unwrap_err();
        assert!(text.contains("is no hub of network office"), "{text}");
        let state = world.tree().await.networks[network_path("office").as_str()].facts.clone();
        assert_eq!(state.state, "up");
    });
}

#[test]
fn what_changes_is_signalled_and_nothing_else_is() {
    run(async {
        let world = World::new(office()).await;
        let mut tree = world.tree().await;
        let mut signals = world.signals().await;

        world.fake.change(|snapshot| {
            let view = snapshot.networks.get_mut(&name("office")).unwrap();
            view.state = NetworkState::HubLost;
            view.detail = "no answer".to_owned();
        });
        let signal = within(5, "the signal", signals.next()).await.unwrap().unwrap();
        let (_, changed, _): (String, HashMap<String, zbus::OwnedVariant>, Vec<String>) =
            signal.body().deserialize().unwrap();
        let names: BTreeSet<_> = changed.keys().map(String::as_str).collect();
        tree.on_signal(&signal).unwrap();

        assert_eq!(names, BTreeSet::from(["Detail", "State"]));
        assert_eq!(tree, world.tree().await);
    });
}

#[test]
fn peers_come_and_go_as_objects() {
    run(async {
        let world = World::new(office()).await;
        let mut tree = world.tree().await;
        let mut signals = world.signals().await;

        world.fake.change(|snapshot| {
            let view = snapshot.networks.get_mut(&name("office")).unwrap();
            view.peers.remove(&key(1));
            view.peers.insert(key(2), tokyo());
            snapshot.networks.insert(name("my-net"), network(Default::default()));
        });
        let mut changes = Vec::new();
        while changes.len() < 3 {
            let signal = within(5, "the signals", signals.next()).await.unwrap().unwrap();
            changes.extend(tree.on_signal(&signal).unwrap());
        }

        let new = peer_path("office", key(2).as_bytes()).to_string();
        assert!(matches!(&changes[0], Change::PeerRemoved(peer) if peer.facts.name == "tokyo"));
        assert!(changes.contains(&Change::PeerAdded(new)));
        assert!(changes.contains(&Change::NetworkAdded(network_path("my-net").to_string())));
        assert_eq!(tree, world.tree().await);
    });
}

#[test]
fn counters_are_signalled_at_most_once_a_second() {
    run(async {
        let world = World::new(office()).await;
        let mut tree = world.tree().await;
        let mut signals = world.signals().await;
        // The round that published all this counts as well.
        tokio::time::sleep(Duration::from_millis(1100)).await;

        let mut told = Vec::new();
        let counting = async {
            for _ in 0..24 {
                world.fake.change(|snapshot| {
                    let view = snapshot.networks.get_mut(&name("office")).unwrap();
                    view.sent.packets += 1;
                });
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        let listening = async {
            while let Some(Ok(signal)) = signals.next().await {
                tree.on_signal(&signal).unwrap();
                told.push(tree.networks[network_path("office").as_str()].clone());
            }
        };
        tokio::select! { () = counting => {}, () = listening => {} }

        assert!((2..=3).contains(&told.len()), "{} signals in 2.4 s", told.len());
    });
}

#[test]
fn path_over_a_stream_carrier_is_of_its_own_kind() {
    run(async {
        let world = World::new(office()).await;
        let carriers = [(Carrier::Tcp, "tcp"), (Carrier::Kcp, "kcp"), (Carrier::Udp, "direct")];
        for (carrier, kind) in carriers {
            let mut streamed = path();
            streamed.way = Way::Stream(carrier, "203.0.113.5:443".parse().unwrap());
            world.fake.change(|snapshot| {
                let view = snapshot.networks.get_mut(&name("office")).unwrap();
                view.peers.get_mut(&key(1)).unwrap().path = Some(streamed);
            });

            let path = peer_path("office", key(1).as_bytes());
            let shown = async {
                loop {
                    let facts = world.tree().await.peers[path.as_str()].facts.clone();
                    if facts.path_kind == kind {
                        return facts;
                    }
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            };
            let facts = within(3, "the path", shown).await;
            assert_eq!(facts.endpoint, "203.0.113.5:443");
        }
    });
}

#[test]
fn path_that_moves_is_told_at_once_and_its_figures_later() {
    run(async {
        let world = World::new(office()).await;
        let mut signals = world.signals().await;

        let mut moved = path();
        moved.way = Way::Relayed(key(8));
        moved.rtt = Some(Duration::from_millis(90));
        world.fake.change(|snapshot| {
            let view = snapshot.networks.get_mut(&name("office")).unwrap();
            view.peers.get_mut(&key(1)).unwrap().path = Some(moved);
        });
        let signal = within(1, "the signal", signals.next()).await.unwrap().unwrap();
        let (_, changed, _): (String, HashMap<String, zbus::OwnedVariant>, Vec<String>) =
            signal.body().deserialize().unwrap();

        let relay = String::try_from(changed["Endpoint"].try_clone().unwrap()).unwrap();
        assert_eq!(relay, key(8).to_string());
        assert!(!changed.contains_key("RttUs"));
        let later = within(3, "the figures", signals.next()).await.unwrap().unwrap();
        let (_, figures, _): (String, HashMap<String, zbus::OwnedVariant>, Vec<String>) =
            later.body().deserialize().unwrap();
        assert_eq!(u64::try_from(&figures["RttUs"]).unwrap(), 90_000);
    });
}

#[test]
fn bus_that_restarts_finds_the_daemon_again() {
    run(async {
        let mut world = World::new(office()).await;

        world.bus.stop();
        world.fake.wait_until(Availability::Unreachable).await;
        world.fake.change(|snapshot| {
            snapshot.networks.insert(name("new"), network(Default::default()));
        });
        world.bus.restart();
        world.fake.wait_until(Availability::Serving).await;

        let client = client(&world.bus).await;
        let tree = Tree::load(&client).await.unwrap();
        assert!(tree.networks.contains_key(network_path("new").as_str()));
        ManagerProxy::new(&client).await.unwrap().disconnect("new").await.unwrap();
    });
}

#[test]
fn daemon_without_a_bus_waits_for_one() {
    run(async {
        let mut bus = PrivateBus::prepare();
        let mut fake = Fake::start(&bus.address(), office());
        fake.wait_until(Availability::Unreachable).await;

        bus.restart();

        fake.wait_until(Availability::Serving).await;
    });
}

#[test]
fn second_daemon_is_told_that_there_is_one() {
    run(async {
        let world = World::new(office()).await;
        let address = world.bus.address();

        let mut second = Fake::start(&address, office());

        assert_eq!(second.failure().await, ApiError::NameTaken(Bus::Address(address)));
    });
}

#[test]
fn thousands_of_peers_are_published() {
    run(async {
        let peers = |count: u16| {
            (0..count)
                .map(|number| {
                    let mut bytes = [0; 32];
                    bytes[..2].copy_from_slice(&number.to_be_bytes());
                    (fastvpn_proto::crypto::PublicKey::from_bytes(bytes), tokyo())
                })
                .collect()
        };
        let mut snapshot = office();
        snapshot.networks.insert(name("big"), network(peers(3000)));

        let world = World::new(snapshot).await;
        assert_eq!(world.tree().await.peers.len(), 3001);
        world.fake.change(|snapshot| {
            snapshot.networks.insert(name("big"), network(peers(1)));
        });
        let manager = world.manager().await;
        manager.connect("big", &HashMap::new()).await.unwrap();

        assert_eq!(world.tree().await.peers.len(), 2);
    });
}

/// Each member of an interface with its arguments and annotations, one a line
fn members(xml: &str, interface: &str) -> BTreeSet<String> {
    let start = format!("<interface name=\"{interface}\">");
    let body = xml.split(&start).nth(1).expect("the interface is there");
    let body = body.split("</interface>").next().unwrap_or(body);
    let mut members: BTreeSet<String> = BTreeSet::new();
    let mut inside = String::new();
    for tag in tags(body) {
        match tag.as_str() {
            "/method" | "/property" | "/signal" => inside.clear(),
            _ => {
                let (tag, open) = match tag.strip_suffix('/') {
                    Some(tag) => (tag.trim().to_owned(), false),
                    None => (tag, true),
                };
                let position = members.iter().filter(|member| inside_of(member, &inside)).count();
                let line = if inside.is_empty() {
                    sorted(&tag)
                } else {
                    format!("{inside} / {position} {}", sorted(&tag))
                };
                if open {
                    inside = line.clone();
                }
                members.insert(line);
            }
        }
    }
    members
}

fn inside_of(member: &str, outer: &str) -> bool {
    !outer.is_empty() && member.len() > outer.len() && member.starts_with(outer)
}

fn tags(xml: &str) -> Vec<String> {
    let mut rest = xml;
    let mut tags = Vec::new();
    while let Some(start) = rest.find('<') {
        let end = if rest[start..].starts_with("<!--") { "-->" } else { ">" };
        let length = rest[start..].find(end).expect("each tag ends");
        if end == ">" {
            tags.push(rest[start + 1..start + length].to_owned());
        }
        rest = &rest[start + length + end.len()..];
    }
    tags
}

/// A tag with its name first and its attributes in order: `name` sorts before the others
fn sorted(tag: &str) -> String {
    let mut words: Vec<_> = tag.split_whitespace().collect();
    words[1..].sort_by_key(|word| (!word.starts_with("name="), *word));
    words.join(" ")
}
