//! The hub role against hand-made events of its node.

use std::net::SocketAddr;

use fastvpn_proto::control::{Base, List, Message, Register, Reply, Standing};
use fastvpn_proto::crypto::PublicKey;
use fastvpn_proto::node::{
    BootId, Choice, Command, DownReason, Event, NodeStats, PeerState, PeerStats, Ticket, Traffic,
    Way,
};
use fastvpn_proto::time::{Duration, Instant};

use crate::config::{HubConfig, Member};
use crate::daemon::action::Step;
use crate::daemon::fixture::{key, ms, overlay, secs, seen};
use crate::daemon::hub::Hub;
use crate::registry::Members;

const LIST_ID: u64 = 7;

#[test]
fn stranger_that_is_no_member_is_refused_without_a_word() {
    let mut world = World::new(2);

    let said = world.knock(9, &Register::default());

    assert_eq!(said, [Command::Refuse { ticket: Ticket(9) }]);
}

#[test]
fn init_of_a_member_changes_nothing_until_its_session_is_up() {
    let mut world = World::new(2);
    world.join(1);

    let reply = world.welcome(2);

    let Reply::Welcome { addresses, hub, list } = reply else { panic!("refused") };
    assert_eq!(addresses, ["10.1.0.2/16".parse().unwrap()]);
    assert_eq!(hub, [overlay(250)]);
    assert_eq!(list.upserts.iter().map(|entry| entry.key).collect::<Vec<_>>(), [key(1)]);
    assert!(world.poll().is_empty(), "a replayed init must not reach the list");
}

#[test]
fn newcomer_is_pushed_to_all_as_one_increment() {
    let mut world = World::new(3);
    world.join(1);
    world.join(2);
    let _ = world.welcome(3);

    world.up(3, &Register::default());
    let pushed = world.lists();

    let to: Vec<_> = pushed.iter().map(|(to, _)| *to).collect();
    assert_eq!(to, [key(1), key(2), key(3)]);
    for (_, list) in &pushed {
        assert_eq!((list.id, list.base, list.revision), (LIST_ID, Base::Revision(2), 3));
        assert_eq!(list.upserts.iter().map(|entry| entry.key).collect::<Vec<_>>(), [key(3)]);
    }
}

#[test]
fn newcomer_whose_welcome_was_cut_gets_the_rest_before_any_increment() {
    let mut world = World::new(120);
    (1..120).for_each(|n| world.join(n));
    let Reply::Welcome { list: first, .. } = world.welcome(120) else { panic!("refused") };
    assert_eq!(first.base, Base::Nothing);

    world.up(120, &Register::default());
    let parts: Vec<_> = world.lists().into_iter().filter(|(to, _)| *to == key(120)).collect();

    let known: usize = parts.iter().map(|(_, list)| list.upserts.len()).sum();
    assert_eq!(first.upserts.len() + known, 120, "all others, and itself in the increment");
    let bases: Vec<_> = parts.iter().map(|(_, list)| list.base).collect();
    let (increment, rest) = bases.split_last().unwrap();
    let (last, before) = rest.split_last().unwrap();
    assert!(matches!(increment, Base::Revision(_)) && *last == Base::Last, "{bases:?}");
    assert!(before.iter().all(|base| *base == Base::Continued), "{bases:?}");
}

#[test]
fn observed_address_comes_first_in_the_entry() {
    let mut world = World::new(1);
    let own: SocketAddr = "10.9.9.9:8796".parse().unwrap();

    world.up(1, &Register { endpoints: vec![own, seen(1)], ..Register::default() });

    let lists = world.lists();
    let entry = &lists.last().unwrap().1.upserts[0];
    assert_eq!(entry.endpoints, [seen(1), own]);
}

#[test]
fn changed_address_is_pushed_to_everybody() {
    let mut world = World::new(2);
    world.join(1);
    world.join(2);
    let moved: SocketAddr = "203.0.113.5:999".parse().unwrap();

    world.event(Event::PathMoved { peer: key(1), way: Way::Direct(moved) });
    let pushed = world.lists();

    assert_eq!(pushed.len(), 2);
    assert_eq!(pushed[1].1.upserts[0].endpoints, [moved]);
}

#[test]
fn addresses_that_a_member_tells_of_itself_are_pushed_only_if_they_changed() {
    let mut world = World::new(1);
    world.join(1);
    let own = vec!["10.9.9.9:1".parse().unwrap()];

    world.message(1, &Message::Endpoints(own.clone()));
    assert_eq!(world.lists().len(), 1);
    world.message(1, &Message::Endpoints(own));

    assert!(world.lists().is_empty());
}

#[test]
fn silent_member_leaves_the_list_and_must_come_anew() {
    let mut world = World::new(2);
    world.join(1);
    world.join(2);

    world.event(Event::Silent { peer: key(1) });
    let said = world.poll();

    assert!(said.contains(&Command::RemovePeer(key(1))));
    assert_eq!(removals(&said), [(key(2), key(1))]);
}

#[test]
fn member_to_which_a_push_cannot_be_delivered_is_removed_and_that_is_pushed() {
    let mut world = World::new(2);
    world.join(1);
    world.join(2);

    world.event(Event::Undelivered { peer: key(2) });
    let said = world.poll();

    assert!(said.contains(&Command::RemovePeer(key(2))));
    assert_eq!(removals(&said), [(key(1), key(2))]);
}

#[test]
fn goodbye_is_pushed_at_once() {
    let mut world = World::new(2);
    world.join(1);
    world.join(2);

    world.event(Event::SessionDown { peer: key(1), reason: DownReason::Closed });

    assert_eq!(removals(&world.poll()), [(key(2), key(1))]);
}

#[test]
fn restarted_member_has_a_new_boot_id_in_the_list() {
    let mut world = World::new(2);
    world.join(1);
    world.join(2);

    world.event(Event::SessionDown { peer: key(1), reason: DownReason::Restarted });
    world.up_with(1, &Register::default(), BootId([9; 8]));
    let pushed = world.lists();

    let (_, to_other) =
        pushed.iter().find(|(to, list)| *to == key(2) && !list.upserts.is_empty()).unwrap();
    assert_eq!(to_other.upserts[0].boot, BootId([9; 8]));
    assert!(to_other.removed.is_empty());
}

#[test]
fn snapshot_is_sent_on_request_but_not_faster_than_once_a_second() {
    let mut world = World::new(30);
    (1..=30).for_each(|n| world.join(n));
    world.now += Duration::from_secs(2);

    world.message(1, &Message::SnapshotRequest);
    let parts = world.lists();
    world.message(1, &Message::SnapshotRequest);

    assert!(world.lists().is_empty());
    assert_eq!(parts.iter().map(|(_, list)| list.upserts.len()).sum::<usize>(), 30);
    assert!(parts.iter().all(|(to, list)| *to == key(1) && list.revision == 30));
}

#[test]
fn who_is_is_answered_from_the_list_of_the_living() {
    let mut world = World::new(3);
    world.join(1);
    world.join(2);

    world.message(1, &Message::WhoIs(key(2)));
    world.message(1, &Message::WhoIs(key(3)));
    world.message(1, &Message::WhoIs(key(9)));
    let answers: Vec<_> = world
        .messages()
        .into_iter()
        .filter_map(|(_, message)| match message {
            Message::Answer { key, standing } => Some((key, standing)),
            _ => None,
        })
        .collect();

    let [(second, Standing::Live(entry)), third, stranger] = &answers[..] else {
        panic!("{answers:?}")
    };
    assert_eq!((*second, entry.key), (key(2), key(2)));
    assert_eq!(*third, (key(3), Standing::Away));
    assert_eq!(*stranger, (key(9), Standing::Stranger));
}

#[test]
fn claim_that_contradicts_the_configuration_is_refused_with_both_addresses() {
    let mut world = World::new(1);

    let reply = world.reply(1, &claim("10.1.0.9"));

    let Reply::Refused { reason } = reply else { panic!("welcomed") };
    assert!(reason.contains("10.1.0.1") && reason.contains("10.1.0.9"), "{reason}");
}

#[test]
fn two_peers_that_claim_one_address_are_told_who_holds_it() {
    let mut world = World::free(2);
    world.up(1, &claim("10.1.0.77"));
    let _ = world.poll();

    let reply = world.reply(2, &claim("10.1.0.77"));
    world.up(2, &claim("10.1.0.77"));
    let said = world.poll();

    let Reply::Refused { reason } = reply else { panic!("welcomed") };
    assert!(reason.contains("10.1.0.77") && reason.contains("member-1"), "{reason}");
    assert_eq!(said, [Command::RemovePeer(key(2))], "the refused one is not in the list");
}

#[test]
fn claim_must_be_in_a_subnet_and_nobodys() {
    let mut world = World::free(2);

    for (claimed, word) in [("172.16.0.1", "no node's"), ("10.1.0.250", "hub")] {
        let Reply::Refused { reason } = world.reply(1, &claim(claimed)) else { panic!("welcomed") };
        assert!(reason.contains(word), "{reason}");
    }
}

#[test]
fn member_without_an_address_is_given_one() {
    let mut world = World::free(1);

    let Reply::Welcome { addresses, .. } = world.welcome(1) else { panic!("refused") };

    assert_eq!(addresses.len(), 1);
}

#[test]
fn garbage_from_a_member_changes_nothing() {
    let mut world = World::new(1);
    world.join(1);

    world.event(Event::Control { peer: key(1), message: vec![255; 9] });
    let garbage = Event::Stranger {
        ticket: Ticket(1),
        key: key(1),
        hello: vec![255; 9],
        way: Way::Direct(seen(1)),
    };
    world.event(garbage);

    assert_eq!(world.poll(), [Command::Refuse { ticket: Ticket(1) }]);
}

#[test]
fn reload_ends_only_the_sessions_of_those_who_changed() {
    let mut world = World::new(3);
    (1..=3).for_each(|n| world.join(n));
    let mut config = config(3, Addresses::Configured);
    config.members.remove(0);
    config.members[1].subnets = vec!["192.168.7.0/24".parse().unwrap()];

    world.hub.on_config(config, &mut world.out);
    let said = world.poll();

    let removed: Vec<_> =
        said.iter().filter(|command| matches!(command, Command::RemovePeer(_))).collect();
    assert_eq!(removed, [&Command::RemovePeer(key(1))]);
    assert_eq!(removals(&said), [(key(2), key(1)), (key(3), key(1))]);
    assert!(world.plans.last().unwrap().contains("192.168.7.0/24"), "{:?}", world.plans);
}

#[test]
fn given_address_that_the_configuration_gives_to_another_is_taken_back() {
    let mut world = World::free(2);
    world.up(1, &claim("10.1.0.77"));
    let _ = world.poll();
    let mut config = config(2, Addresses::Given);
    config.members[1].addresses = vec!["10.1.0.77".parse().unwrap()];

    world.hub.on_config(config, &mut world.out);

    assert!(world.poll().contains(&Command::RemovePeer(key(1))));
}

#[test]
fn changed_carrier_or_tcp_of_a_member_is_told_and_changes_nothing_else() {
    let mut world = World::new(2);
    world.join(1);
    world.join(2);
    let mut config = config(2, Addresses::Configured);
    config.members[0].carrier = Choice::Tcp;
    config.members[1].split = Some(false);

    world.hub.on_config(config, &mut world.out);

    let said = world.poll();
    let [Command::SetPeer(one), Command::SetPeer(two)] = &said[..] else { panic!("{said:?}") };
    assert_eq!((one.key, one.carrier, one.split), (key(1), Choice::Tcp, None));
    assert_eq!((two.key, two.carrier, two.split), (key(2), Choice::Auto, Some(false)));
}

#[test]
fn timeout_that_became_longer_or_shorter_counts_at_once() {
    let mut world = World::new(2);
    world.join(1);
    world.join(2);
    world.now = secs(100);
    let mut longer = config(2, Addresses::Configured);
    longer.timeout = Duration::from_secs(60);
    let shorter = HubConfig { timeout: Duration::from_secs(12), ..longer.clone() };

    world.hub.on_config(longer, &mut world.out);
    world.event(Event::Silent { peer: key(1) });
    world.heard(1, secs(70));
    assert!(world.poll().is_empty(), "30 s of silence are less than 60");
    world.hub.on_config(shorter, &mut world.out);
    world.heard(1, secs(70));

    assert!(world.poll().contains(&Command::RemovePeer(key(1))));
}

#[test]
fn thousand_members_that_come_at_once_share_their_increments() {
    let mut world = World::new(1000);
    let mut sent = 0;

    for n in 1..=1000 {
        world.up(n, &Register::default());
        // One comes each 100 µs.
        world.now += Duration::from_micros(100);
        sent += world.lists().len();
    }
    world.now += Duration::from_millis(20);
    sent += world.lists().len();

    assert!(sent < 60_000, "{sent} pushes instead of half a million");
    let last = world.hub.members().filter(|(_, entry)| entry.is_some()).count();
    assert_eq!(last, 1000);
}

/// A hub, its time, and what it said since it was last asked
struct World {
    _state: tempfile::TempDir,
    hub: Hub,
    now: Instant,
    out: Vec<Step>,
    plans: Vec<String>,
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum Addresses {
    Configured,
    Given,
}

impl World {
    /// A hub with so many members, each with an address in the configuration
    fn new(members: u16) -> Self {
        Self::with(config(members, Addresses::Configured))
    }

    /// A hub with so many members, which have no address in the configuration
    fn free(members: u16) -> Self {
        Self::with(config(members, Addresses::Given))
    }

    fn with(config: HubConfig) -> Self {
        let own = vec!["10.1.0.250/16".parse().unwrap()];
        let name = "office".parse().unwrap();
        let state = tempfile::tempdir().unwrap();
        let members = Members::open(state.path(), &name, &config, &own).unwrap();
        let hub = Hub::new(name, own, config, members, LIST_ID);
        Self { _state: state, hub, now: ms(0), out: Vec::new(), plans: Vec::new() }
    }

    fn event(&mut self, event: Event) {
        self.hub.on_event(event, self.now, &mut self.out);
    }

    /// Numbers that say when a member was heard last
    fn heard(&mut self, n: u16, at: Instant) {
        let peer = PeerStats {
            key: key(n),
            state: PeerState::Unresponsive,
            path: None,
            sent: Traffic::default(),
            received: Traffic::default(),
            last_handshake: None,
            last_heard: Some(at),
        };
        let stats = NodeStats { peers: vec![peer], ..NodeStats::default() };
        self.hub.on_stats(&stats, self.now, &mut self.out);
    }

    fn message(&mut self, n: u16, message: &Message) {
        self.event(Event::Control { peer: key(n), message: message.encode() });
    }

    fn knock(&mut self, n: u16, register: &Register) -> Vec<Command> {
        let way = Way::Direct(seen(n));
        let ticket = Ticket(n.into());
        self.event(Event::Stranger { ticket, key: key(n), hello: register.encode(), way });
        self.poll()
    }

    fn reply(&mut self, n: u16, register: &Register) -> Reply {
        match self.knock(n, register).pop() {
            Some(Command::Admit { reply, .. }) => Reply::decode(&reply).unwrap(),
            other => panic!("no admission: {other:?}"),
        }
    }

    fn welcome(&mut self, n: u16) -> Reply {
        self.reply(n, &Register::default())
    }

    fn up(&mut self, n: u16, register: &Register) {
        self.up_with(n, register, BootId([n as u8; 8]));
    }

    fn up_with(&mut self, n: u16, register: &Register, boot: BootId) {
        let greeting = register.encode();
        let way = Way::Direct(seen(n));
        self.event(Event::SessionUp { peer: key(n), boot, greeting, initiator: false, way });
    }

    /// Knocks, comes up, and forgets what that led to
    fn join(&mut self, n: u16) {
        let _ = self.welcome(n);
        self.up(n, &Register::default());
        self.now += Duration::from_millis(20);
        let _ = self.poll();
        self.now += Duration::from_millis(20);
    }

    /// Takes what the hub said to its node
    fn poll(&mut self) -> Vec<Command> {
        self.hub.poll(self.now, &mut self.out);
        let mut commands = Vec::new();
        for step in self.out.drain(..) {
            match step {
                Step::Node(command) => commands.push(command),
                Step::Plan { addresses, routes } => {
                    self.plans.push(format!("{addresses:?} {routes:?}"));
                }
                Step::Fail(_) | Step::Resolve(_) | Step::Welcomed => {
                    panic!("not a hub's: {step:?}")
                }
            }
        }
        commands
    }

    fn messages(&mut self) -> Vec<(PublicKey, Message)> {
        sent(&self.poll())
    }

    fn lists(&mut self) -> Vec<(PublicKey, List)> {
        let list = |(to, message)| match message {
            Message::List(list) => Some((to, list)),
            _ => None,
        };
        self.messages().into_iter().filter_map(list).collect()
    }
}

fn sent(commands: &[Command]) -> Vec<(PublicKey, Message)> {
    let message = |command: &Command| match command {
        Command::Send { peer, message } => Some((*peer, Message::decode(message).unwrap())),
        _ => None,
    };
    commands.iter().filter_map(message).collect()
}

/// Who was told of whom that he is gone
fn removals(commands: &[Command]) -> Vec<(PublicKey, PublicKey)> {
    let mut found = Vec::new();
    for (to, message) in sent(commands) {
        if let Message::List(List { removed, .. }) = message {
            found.extend(removed.into_iter().map(|gone| (to, gone)));
        }
    }
    found
}

fn claim(address: &str) -> Register {
    Register { addresses: vec![address.parse().unwrap()], ..Register::default() }
}

fn config(members: u16, addresses: Addresses) -> HubConfig {
    let member = |n| Member {
        name: format!("member-{n}"),
        public_key: key(n),
        addresses: if addresses == Addresses::Configured { vec![overlay(n)] } else { Vec::new() },
        subnets: Vec::new(),
        carrier: Choice::Auto,
        split: None,
    };
    HubConfig {
        endpoint: None,
        subnets: vec!["10.1.0.0/16".parse().unwrap()],
        members: (1..=members).map(member).collect(),
        timeout: Duration::from_secs(15),
    }
}
