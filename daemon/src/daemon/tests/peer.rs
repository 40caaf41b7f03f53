//! The peer role against hand-made events of its node.

use fastvpn_proto::control::{Base, Entry, List, Message, Register, Reply, Standing};
use fastvpn_proto::crypto::{InvitationSecret, PublicKey};
use fastvpn_proto::node::{
    BootId, Choice, Command, Contact, DownReason, Event, TcpMode, Ticket, Way,
};
use fastvpn_proto::time::{Duration, Instant};

use crate::config::{HubAddress, HubLoss, PeerName, PeerRoleConfig, PeerSetting, TicketFile};
use crate::daemon::action::Step;
use crate::daemon::fixture::{entry, key, ms, overlay, seen};
use crate::daemon::peer::Peer;
use crate::handle::HandleError;

const OWN: u16 = 100;
const HUB: u16 = 200;
const OTHER_HUB: u16 = 201;
const RTT: Duration = Duration::from_millis(50);

#[test]
fn hub_with_a_name_is_resolved_first_and_then_made_known_with_our_registration() {
    let mut world = World::new(&["hub.example.net:8796"], HubLoss::Stop);

    let asked = world.start();
    world.peer.on_resolved("hub.example.net:8796", Ok(vec![seen(HUB)]), &mut world.out);
    let told = world.take();

    assert_eq!(asked, [Step::Resolve("hub.example.net:8796".into())]);
    let [Step::Node(Command::SetPeer(hub))] = &told[..] else { panic!("{told:?}") };
    assert_eq!((hub.key, hub.contact), (key(HUB), Contact::Always));
    assert_eq!(hub.endpoints, [seen(HUB)]);
    assert_eq!(Register::decode(&hub.hello).unwrap().name, "box");
}

#[test]
fn welcome_gives_addresses_list_and_the_hubs_own_prefixes() {
    let mut world = World::new(&["192.0.2.1:8796"], HubLoss::Stop);
    world.start();

    let told = world.welcome(&[1, 2]);

    assert!(world.peer.is_registered() && world.peer.carries());
    let plan = Step::Plan { addresses: vec!["10.1.0.100/16".parse().unwrap()], routes: vec![] };
    assert!(told.contains(&plan), "{told:?}");
    let known = set_peers(&told);
    assert_eq!(known, [key(HUB), key(1), key(2)]);
    let Step::Node(Command::SetPeer(hub)) = &told[0] else { panic!("{told:?}") };
    assert_eq!(hub.prefixes, [fastvpn_proto::ip::Prefix::host(overlay(250))]);
}

#[test]
fn peer_of_the_list_is_reached_on_demand_directly_or_through_the_hub() {
    let mut world = World::new(&["192.0.2.1:8796"], HubLoss::Stop);
    world.start();

    let told = world.welcome(&[1]);

    let Some(Step::Node(Command::SetPeer(peer))) = told.get(1) else { panic!("{told:?}") };
    assert_eq!((peer.contact, peer.relay), (Contact::OnDemand, Some(key(HUB))));
    assert_eq!(peer.endpoints, entry(1).endpoints);
    assert_eq!(peer.boot, Some(entry(1).boot));
}

#[test]
fn hub_is_looked_for_in_all_its_places_at_once() {
    let mut world = World::new(&["192.0.2.1:8796"], HubLoss::Stop);
    let mut config = world.peer.config().clone();
    config.hubs[0].others = vec!["hub.example.net:8796".into(), "192.0.2.2:1".into()];
    world.peer.on_config(config.clone(), world.now, &mut world.out);
    let asked = world.take();

    let found = vec![seen(1), "192.0.2.2:1".parse().unwrap()];
    world.peer.on_resolved("hub.example.net:8796", Ok(found), &mut world.out);
    let told = world.take();

    assert!(asked.contains(&Step::Resolve("hub.example.net:8796".into())), "{asked:?}");
    let [Step::Node(Command::SetPeer(hub))] = &told[..] else { panic!("{told:?}") };
    assert_eq!(
        hub.endpoints,
        ["192.0.2.1:8796".parse().unwrap(), seen(1), "192.0.2.2:1".parse().unwrap()]
    );
    config.hubs[0].others.clear();
    world.peer.on_config(config, world.now, &mut world.out);
    let Some(Step::Node(Command::SetPeer(hub))) = world.take().pop() else { panic!("not told") };
    assert_eq!(hub.endpoints, ["192.0.2.1:8796".parse().unwrap()]);
}

#[test]
fn secret_of_an_invitation_is_shown_until_the_hub_has_written_us_down() {
    let mut world = World::new(&["192.0.2.1:8796"], HubLoss::Stop);
    let mut config = world.peer.config().clone();
    let secret = InvitationSecret::from_bytes([1; 16]);
    config.ticket = Some(TicketFile { file: "ticket".into(), secret: secret.clone() });
    world.peer.on_config(config, world.now, &mut world.out);
    world.take();
    let shown = |steps: &[Step]| {
        steps.iter().find_map(|step| match step {
            Step::Node(Command::SetPeer(hub)) if hub.key == key(HUB) => {
                Some(Register::decode(&hub.hello).unwrap().secret)
            }
            _ => None,
        })
    };

    let before = world.start();
    let pending = world.hub_up(&Reply::Pending);
    let after = world.welcome(&[]);

    let listed = world.list(part(Base::Whole, &[]));
    let again = world.list(part(Base::Whole, &[1]));

    assert_eq!(shown(&before), Some(Some(secret.clone())));
    assert_eq!(shown(&pending), None, "nothing has changed");
    assert_eq!(shown(&after), Some(Some(secret)), "the hub may end before it has written");
    assert!(after.contains(&Step::Welcomed), "{after:?}");
    assert_eq!(shown(&listed), Some(None));
    assert_eq!(shown(&again), None);
}

#[test]
fn refusal_of_the_hub_is_passed_on_in_its_words() {
    let mut world = World::new(&["192.0.2.1:8796"], HubLoss::Stop);
    world.start();
    let reply = Reply::Refused { reason: "address 10.1.0.9 is held by tokyo".into() };

    let told = world.hub_up(&reply);

    let [Step::Fail(HandleError::Refused(reason))] = &told[..] else { panic!("{told:?}") };
    assert!(reason.contains("held by tokyo"));
}

#[test]
fn hub_that_cannot_be_understood_is_an_error_and_no_panic() {
    let mut world = World::new(&["192.0.2.1:8796"], HubLoss::Stop);
    world.start();

    world.event(up(HUB, vec![255; 7]));
    let told = world.take();

    assert!(matches!(told[..], [Step::Fail(HandleError::System(_))]), "{told:?}");
}

#[test]
fn missed_change_of_the_list_is_answered_by_a_request_for_a_snapshot() {
    let mut world = World::up(&[1]);

    let told = world.list(increment(5, 6, &[2], &[]));

    assert_eq!(sent(&told), [Message::SnapshotRequest]);
    let told = world.list(List { revision: 6, ..part(Base::Whole, &[1, 2]) });
    assert_eq!(set_peers(&told), [key(2)]);
}

#[test]
fn peer_that_left_the_list_keeps_its_session_until_it_is_silent() {
    let mut world = World::up(&[1, 2]);
    world.event(up(1, Vec::new()));
    world.take();

    let told = world.list(increment(1, 2, &[], &[1, 2]));
    assert_eq!(away(&told), [key(2)], "the one without a session is away at once");
    assert_eq!(world.peer.peers().count(), 1);

    world.event(Event::Silent { peer: key(1) });
    assert_eq!(removed(&world.take()), [key(1)]);
    assert_eq!(world.peer.peers().count(), 0);
}

#[test]
fn peer_that_said_goodbye_may_come_back_to_its_connections() {
    for told_first in [false, true] {
        let mut world = World::up(&[1]);
        world.event(up(1, Vec::new()));
        let goodbye = Event::SessionDown { peer: key(1), reason: DownReason::Closed };
        let mut said = Vec::new();
        if told_first {
            said.extend(world.list(increment(1, 2, &[], &[1])));
        }
        world.event(goodbye);
        said.extend(world.take());
        if !told_first {
            said.extend(world.list(increment(1, 2, &[], &[1])));
        }

        assert_eq!(away(&said), [key(1)], "told by the hub first: {told_first}");
        assert!(removed(&said).is_empty());
        assert_eq!(world.peer.peers().count(), 0);
    }
}

#[test]
fn peer_that_is_no_member_any_more_loses_its_session() {
    let mut world = World::up(&[1, 2]);
    world.event(up(1, Vec::new()));
    world.event(up(2, Vec::new()));

    let told = world.list(increment(1, 2, &[], &[1, 2]));
    let away = world.message(&Message::Answer { key: key(1), standing: Standing::Away });
    let gone = world.message(&Message::Answer { key: key(2), standing: Standing::Stranger });

    assert_eq!(sent(&told), [Message::WhoIs(key(1)), Message::WhoIs(key(2))]);
    assert!(removed(&away).is_empty());
    assert_eq!(removed(&gone), [key(2)]);
}

#[test]
fn peer_that_comes_back_to_the_list_lingers_no_longer() {
    let mut world = World::up(&[1]);
    world.event(up(1, Vec::new()));
    world.list(increment(1, 2, &[], &[1]));

    let told = world.list(increment(2, 3, &[1], &[]));
    world.event(Event::Silent { peer: key(1) });

    assert_eq!(set_peers(&told), [key(1)]);
    assert!(removed(&world.take()).is_empty());
}

#[test]
fn subnets_behind_peers_are_routed() {
    let mut world = World::up(&[1]);
    let mut behind = entry(2);
    behind.subnets = vec!["192.168.5.0/24".parse().unwrap()];

    let told = world.list(List { upserts: vec![behind], ..increment(1, 2, &[], &[]) });

    let Some(Step::Plan { routes, .. }) = told.last() else { panic!("{told:?}") };
    assert_eq!(*routes, ["192.168.5.0/24".parse().unwrap()]);
}

#[test]
fn unknown_key_is_held_while_the_hub_is_asked() {
    let mut world = World::up(&[1]);

    let asked = world.knock(2);
    let told = world.message(&Message::Answer { key: key(2), standing: Standing::Live(entry(2)) });
    let refused = [
        world.knock(3),
        world.message(&Message::Answer { key: key(3), standing: Standing::Stranger }),
    ];

    assert_eq!(sent(&asked), [Message::WhoIs(key(2))]);
    let Some(Step::Node(Command::Admit { ticket, peer, .. })) = told.first() else {
        panic!("{told:?}")
    };
    assert_eq!((*ticket, peer.key), (Ticket(2), key(2)));
    assert_eq!(refused[1], [Step::Node(Command::Refuse { ticket: Ticket(3) })]);
}

#[test]
fn unknown_key_that_the_list_brings_meanwhile_is_admitted() {
    let mut world = World::up(&[1]);
    world.knock(2);

    let told = world.list(increment(1, 2, &[2], &[]));

    let admitted = |step: &Step| matches!(step, Step::Node(Command::Admit { .. }));
    assert!(told.iter().any(admitted), "{told:?}");
}

#[test]
fn heartbeats_leave_each_second_and_after_the_last_retry_the_hub_is_lost() {
    let mut world = World::up(&[1]);

    let calm = world.run(5_000, Answers::Yes);
    assert_eq!(calm, [1000, 2000, 3000, 4000, 5000]);
    let tries = world.run(20_000, Answers::No);
    let firsts: Vec<_> = tries.iter().filter(|at| *at % 1000 == 0).take(4).copied().collect();

    assert_eq!(firsts, [6000, 8000, 10_000, 14_000], "failed at 7 s; after 1, 3 and 7 s again");
    assert!(world.peer.has_lost_hub() && !world.peer.carries());
    assert!(world.peer.detail().contains("does not answer"));
}

#[test]
fn hub_loss_keep_goes_on_carrying() {
    let mut world = World::new(&["192.0.2.1:8796"], HubLoss::Keep);
    world.start();
    world.welcome(&[1]);

    world.run(20_000, Answers::No);

    assert!(world.peer.has_lost_hub() && world.peer.carries());
}

#[test]
fn one_answer_brings_the_hub_back() {
    let mut world = World::up(&[1]);
    world.run(20_000, Answers::No);

    world.run(22_000, Answers::Yes);

    assert!(!world.peer.has_lost_hub() && world.peer.carries());
    assert_eq!(world.peer.detail(), "");
}

#[test]
fn restarted_hub_registers_us_anew_and_its_list_replaces_the_old_one() {
    let mut world = World::up(&[1, 2]);
    world.run(20_000, Answers::No);
    world.event(Event::SessionDown { peer: key(HUB), reason: DownReason::Restarted });

    let list = List { id: 8, revision: 0, ..part(Base::Whole, &[2]) };
    let told = world.hub_up(&welcome("10.1.0.101/16", list));

    assert!(!world.peer.has_lost_hub());
    assert!(told.contains(&Step::Node(Command::PeerAway(key(1)))), "{told:?}");
    let plan = Step::Plan { addresses: vec!["10.1.0.101/16".parse().unwrap()], routes: vec![] };
    assert_eq!(told.last(), Some(&plan));
}

#[test]
fn hubs_take_turns_until_one_answers() {
    let mut world = World::new(&["192.0.2.1:8796", "192.0.2.2:8796"], HubLoss::Stop);
    world.start();

    world.run(10_000, Answers::No);
    let told = world.take_all();

    assert_eq!(removed(&told), [key(HUB)]);
    assert_eq!(set_peers(&told), [key(OTHER_HUB)]);
    world.run(20_000, Answers::No);
    assert_eq!(set_peers(&world.take_all()), [key(HUB)]);
}

#[test]
fn all_peers_are_relayed_by_the_hub_that_took_over() {
    let mut world = World::new(&["192.0.2.1:8796", "192.0.2.2:8796"], HubLoss::Stop);
    world.start();
    world.welcome(&[1]);
    world.run(21_000, Answers::No);
    world.take_all();

    world.event(up(OTHER_HUB, welcome("10.1.0.100/16", part(Base::Whole, &[1])).encode()));
    let told = world.take();

    let relay = told.iter().find_map(|step| match step {
        Step::Node(Command::SetPeer(peer)) if peer.key == key(1) => peer.relay,
        _ => None,
    });
    assert_eq!(relay, Some(key(OTHER_HUB)));
}

#[test]
fn name_is_resolved_anew_in_each_round() {
    let mut world = World::new(&["hub.example.net:8796"], HubLoss::Stop);
    world.start();

    world.run(10_000, Answers::No);

    assert_eq!(world.take_all(), [Step::Resolve("hub.example.net:8796".into())]);
}

#[test]
fn our_changed_addresses_are_told_to_the_hub() {
    let mut world = World::up(&[]);
    let own = vec!["203.0.113.9:8796".parse().unwrap()];

    world.peer.on_candidates(own.clone(), &mut world.out);
    let told = world.take();
    world.peer.on_candidates(own.clone(), &mut world.out);

    assert_eq!(sent(&told), [Message::Endpoints(own)]);
    assert!(world.take().is_empty(), "told once");
}

#[test]
fn addresses_that_change_before_we_are_registered_are_told_afterwards() {
    let mut world = World::new(&["192.0.2.1:8796"], HubLoss::Stop);
    world.start();
    let own = vec!["203.0.113.9:8796".parse().unwrap()];
    world.peer.on_candidates(own.clone(), &mut world.out);
    world.take();

    let told = world.welcome(&[]);

    assert_eq!(sent(&told), [Message::Endpoints(own)]);
}

#[test]
fn carrier_and_tcp_are_those_of_the_hub_or_the_peer_and_may_change_while_sessions_last() {
    let mut world = World::up(&[1, 2]);
    let hub = HubAddress {
        endpoint: "192.0.2.1:8796".into(),
        others: Vec::new(),
        public_key: key(HUB),
        carrier: Choice::Tcp,
        tcp: None,
    };
    let one = PeerSetting { who: PeerName::Key(key(1)), carrier: Choice::Kcp, tcp: None };
    let two = PeerSetting {
        who: PeerName::Name("peer-2".into()),
        carrier: Choice::Udp,
        tcp: Some(TcpMode::Plain),
    };
    let mut config = PeerRoleConfig { hubs: vec![hub], ..PeerRoleConfig::default() };
    config.peers = vec![one, two];

    world.peer.on_config(config.clone(), world.now, &mut world.out);

    let told = |steps: Vec<Step>| -> Vec<_> {
        let told = steps.into_iter().map(|step| match step {
            Step::Node(Command::SetPeer(peer)) => (peer.key, peer.carrier, peer.tcp),
            step => panic!("{step:?}"),
        });
        told.collect()
    };
    let want = [
        (key(1), Choice::Kcp, None),
        (key(2), Choice::Udp, Some(TcpMode::Plain)),
        (key(HUB), Choice::Tcp, None),
    ];
    assert_eq!(told(world.take()), want);
    world.peer.on_config(config, world.now, &mut world.out);
    assert_eq!(told(world.take()), [], "nothing has changed");
}

#[test]
fn peer_that_somebody_has_to_approve_waits_and_comes_in_when_the_hub_ends_its_session() {
    let mut world = World::new(&["192.0.2.1:8796"], HubLoss::Stop);
    world.start();

    let said = world.hub_up(&Reply::Pending);
    let beats = world.run(60_000, Answers::Yes);

    assert!(said.is_empty() && beats.is_empty(), "{said:?}");
    assert!(world.peer.detail().contains("approve"), "{}", world.peer.detail());
    assert!(!world.peer.is_registered());

    world.event(Event::SessionDown { peer: key(HUB), reason: DownReason::Closed });
    world.welcome(&[]);

    assert!(world.peer.is_registered());
    assert_eq!(world.peer.detail(), "");
}

/// A peer, its time, and what it asked for since it was last asked
struct World {
    peer: Peer,
    now: Instant,
    out: Vec<Step>,
    seen: Vec<Step>,
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum Answers {
    Yes,
    No,
}

impl World {
    fn new(hubs: &[&str], hub_loss: HubLoss) -> Self {
        let hub = |(n, endpoint): (usize, &&str)| HubAddress {
            endpoint: (*endpoint).to_owned(),
            others: Vec::new(),
            public_key: key(HUB + n as u16),
            carrier: Choice::Auto,
            tcp: None,
        };
        let hubs = hubs.iter().enumerate().map(hub).collect();
        let register = Register { name: "box".into(), ..Register::default() };
        let config = PeerRoleConfig { hubs, hub_loss, ..PeerRoleConfig::default() };
        let peer = Peer::new("office".parse().unwrap(), key(OWN), config, register, ms(0));
        Self { peer, now: ms(0), out: Vec::new(), seen: Vec::new() }
    }

    /// A peer that is registered at its one hub and knows these peers
    fn up(peers: &[u16]) -> Self {
        let mut world = Self::new(&["192.0.2.1:8796"], HubLoss::Stop);
        world.start();
        world.welcome(peers);
        world
    }

    fn start(&mut self) -> Vec<Step> {
        self.peer.start(self.now, &mut self.out);
        self.take()
    }

    fn event(&mut self, event: Event) {
        self.peer.on_event(event, self.now, &mut self.out);
    }

    fn hub_up(&mut self, reply: &Reply) -> Vec<Step> {
        self.event(up(HUB, reply.encode()));
        self.take()
    }

    fn welcome(&mut self, peers: &[u16]) -> Vec<Step> {
        self.hub_up(&welcome("10.1.0.100/16", part(Base::Whole, peers)))
    }

    fn message(&mut self, message: &Message) -> Vec<Step> {
        self.event(Event::Control { peer: key(HUB), message: message.encode() });
        self.take()
    }

    fn list(&mut self, list: List) -> Vec<Step> {
        self.message(&Message::List(list))
    }

    fn knock(&mut self, n: u16) -> Vec<Step> {
        let way = Way::Direct(seen(n));
        let ticket = Ticket(n.into());
        self.event(Event::Stranger { ticket, key: key(n), hello: Vec::new(), way });
        self.take()
    }

    /// Runs until `until` milliseconds; returns when heartbeats left
    fn run(&mut self, until: u64, answers: Answers) -> Vec<u64> {
        let mut beats = Vec::new();
        while self.peer.deadline() <= ms(until) {
            self.now = self.now.max(self.peer.deadline());
            self.peer.poll(self.now, &mut self.out);
            for step in self.take() {
                if let Step::Node(Command::Ping { peer, id, .. }) = step {
                    beats.push(self.now.as_nanos() / 1_000_000);
                    if answers == Answers::Yes {
                        self.peer.on_event(
                            Event::Pong { peer, id, rtt: RTT },
                            self.now + RTT,
                            &mut self.out,
                        );
                    }
                } else {
                    self.seen.push(step);
                }
            }
        }
        self.now = ms(until);
        beats
    }

    fn take(&mut self) -> Vec<Step> {
        core::mem::take(&mut self.out)
    }

    /// Takes what was asked for during [`Self::run`]
    fn take_all(&mut self) -> Vec<Step> {
        core::mem::take(&mut self.seen)
    }
}

fn up(n: u16, greeting: Vec<u8>) -> Event {
    let way = Way::Direct(seen(n));
    Event::SessionUp { peer: key(n), boot: BootId::default(), greeting, initiator: true, way }
}

fn welcome(address: &str, list: List) -> Reply {
    Reply::Welcome { addresses: vec![address.parse().unwrap()], hub: vec![overlay(250)], list }
}

fn part(base: Base, numbers: &[u16]) -> List {
    let upserts: Vec<Entry> = numbers.iter().map(|n| entry(*n)).collect();
    List { id: 7, revision: 1, base, upserts, removed: Vec::new() }
}

fn increment(base: u64, revision: u64, upserts: &[u16], gone: &[u16]) -> List {
    let removed = gone.iter().map(|n| key(*n)).collect();
    List { revision, removed, ..part(Base::Revision(base), upserts) }
}

fn sent(steps: &[Step]) -> Vec<Message> {
    let message = |step: &Step| match step {
        Step::Node(Command::Send { message, .. }) => Some(Message::decode(message).unwrap()),
        _ => None,
    };
    steps.iter().filter_map(message).collect()
}

fn set_peers(steps: &[Step]) -> Vec<PublicKey> {
    let set = |step: &Step| match step {
        Step::Node(Command::SetPeer(peer)) => Some(peer.key),
        _ => None,
    };
    steps.iter().filter_map(set).collect()
}

fn away(steps: &[Step]) -> Vec<PublicKey> {
    let away = |step: &Step| match step {
        Step::Node(Command::PeerAway(key)) => Some(*key),
        _ => None,
    };
    steps.iter().filter_map(away).collect()
}

fn removed(steps: &[Step]) -> Vec<PublicKey> {
    let gone = |step: &Step| match step {
        Step::Node(Command::RemovePeer(key)) => Some(*key),
        _ => None,
    };
    steps.iter().filter_map(gone).collect()
}
