//! The hub role against hand-made events of its node.

use std::net::SocketAddr;

use fastvpn_proto::control::{Base, List, Message, Register, Reply, Standing};
use fastvpn_proto::crypto::{InvitationSecret, NetworkKey, PrivateKey, PublicKey};
use fastvpn_proto::node::{
    BootId, Choice, Command, DownReason, Event, NodeStats, PeerState, PeerStats, TcpMode, Ticket,
    Traffic, Way,
};
use fastvpn_proto::time::{Duration, Instant};

use crate::config::{EngineConfig, HubConfig, Member, NetworkConfig, RoleConfig};
use crate::daemon::action::Step;
use crate::daemon::fixture::{key, ms, overlay, secs, seen};
use crate::daemon::hub::Hub;
use crate::daemon::ledger::Wish;
use crate::daemon::state::{Answer, RequestId};
use crate::handle::{HandleError, MembersReply};
use crate::registry::{Change, Contents, Digest, Invitation, Members, RegistryError, Use};

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

    world.reload(config);
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

    world.reload(config);

    assert!(world.poll().contains(&Command::RemovePeer(key(1))));
}

#[test]
fn changed_carrier_or_tcp_of_a_member_is_told_and_changes_nothing_else() {
    let mut world = World::new(2);
    world.join(1);
    world.join(2);
    let mut config = config(2, Addresses::Configured);
    config.members[0].carrier = Choice::Tcp;
    config.members[1].tcp = Some(TcpMode::Plain);

    world.reload(config);

    let said = world.poll();
    let [Command::SetPeer(one), Command::SetPeer(two)] = &said[..] else { panic!("{said:?}") };
    assert_eq!((one.key, one.carrier, one.tcp), (key(1), Choice::Tcp, None));
    assert_eq!((two.key, two.carrier, two.tcp), (key(2), Choice::Auto, Some(TcpMode::Plain)));
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

    world.reload(longer);
    world.event(Event::Silent { peer: key(1) });
    world.heard(1, secs(70));
    assert!(world.poll().is_empty(), "30 s of silence are less than 60");
    world.reload(shorter);
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

#[test]
fn newcomer_is_welcome_by_its_invitation_and_a_member_when_it_is_there_and_written_down() {
    let mut world = World::new(1);
    world.join(1);
    world.invite(7, false);

    let Reply::Welcome { addresses, list, .. } = world.reply(9, &invited(7)) else { panic!() };
    assert_eq!(addresses, ["10.1.0.2/16".parse().unwrap()]);
    assert_eq!(list.upserts.len(), 1);
    assert_eq!(world.hub.member_views().len(), 1, "an init may be a replay");
    world.disk = Disk::Slow;
    world.up(9, &invited(7));
    assert!(world.poll().is_empty(), "not before it is written down");
    let said = world.catch_up();

    let upserts = sent(&said).into_iter().filter_map(|(to, message)| match message {
        Message::List(list) if to == key(1) => Some(list.upserts[0].clone()),
        _ => None,
    });
    let upserts: Vec<_> = upserts.collect();
    assert_eq!((upserts[0].key, upserts[0].name.as_str()), (key(9), "guest-7"));
    assert_eq!(upserts[0].addresses, ["10.1.0.2".parse::<std::net::IpAddr>().unwrap()]);
    let Reply::Welcome { .. } = world.reply(9, &invited(7)) else { panic!("its own, again") };
    let Reply::Refused { reason } = world.reply(8, &invited(7)) else { panic!("used twice") };
    assert!(reason.contains("used already"), "{reason}");
}

#[test]
fn two_newcomers_are_promised_two_addresses_and_one_invitation_lets_one_in() {
    let mut world = World::new(1);
    world.invite(7, false);
    world.invite(8, false);
    let address = |reply| match reply {
        Reply::Welcome { addresses, .. } => addresses[0],
        other => panic!("{other:?}"),
    };

    let one = address(world.reply(20, &invited(7)));
    let two = address(world.reply(21, &invited(8)));
    let same = address(world.reply(22, &invited(7)));
    world.up(20, &invited(7));
    world.up(22, &invited(7));
    world.up(21, &invited(8));
    let said = world.poll();

    assert!(one != two && one != same && two != same);
    assert_eq!(world.names(), ["guest-7", "guest-8"]);
    assert!(said.contains(&Command::RemovePeer(key(22))), "{said:?}");
}

#[test]
fn stranger_with_a_secret_that_was_never_made_gets_no_answer() {
    let mut world = World::new(1);
    world.invite(7, false);

    assert_eq!(world.knock(9, &invited(6)), [Command::Refuse { ticket: Ticket(9) }]);
}

#[test]
fn guests_of_used_invitations_are_few_and_soon_forgotten() {
    let mut world = World::new(1);
    world.invite(7, false);
    let _ = world.welcome(1);
    world.up(20, &invited(7));
    let _ = world.poll();
    let _ = world.reply(20, &invited(7));
    world.up(20, &invited(7));
    let _ = world.poll();

    let admitted = (100..200)
        .filter(|n| matches!(world.knock(*n, &invited(7)).pop(), Some(Command::Admit { .. })));
    let admitted = admitted.count();
    world.now += Duration::from_secs(20);
    assert!(world.hub.deadline() <= world.now);
    let forgotten = world.poll();

    assert_eq!(admitted, 16);
    let removed = forgotten.iter().filter(|said| matches!(said, Command::RemovePeer(_))).count();
    assert_eq!(removed, 16, "{forgotten:?}");
}

#[test]
fn newcomer_that_needs_approval_waits_in_its_session_and_comes_anew_when_it_has_it() {
    let mut world = World::new(1);
    world.invite(7, true);

    assert_eq!(world.reply(9, &invited(7)), Reply::Pending);
    world.up(9, &invited(7));
    assert!(world.poll().is_empty(), "it may stay, and is no member");
    assert_eq!(world.hub.member_views()[0].standing, "pending");
    world.now += Duration::from_secs(600);
    assert!(world.poll().is_empty(), "however long it takes");
    assert_eq!(world.reply(9, &Register::default()), Reply::Pending, "known by its key now");
    assert_eq!(world.request(Wish::Approve("guest-7".into())), Ok(MembersReply::Done));

    assert_eq!(world.poll(), [Command::RemovePeer(key(9))], "so that it comes anew");
    let Reply::Welcome { .. } = world.reply(9, &invited(7)) else { panic!("refused") };
    world.up(9, &invited(7));
    let _ = world.poll();
    assert_eq!(world.names(), ["guest-7"]);
}

#[test]
fn revoked_member_is_gone_for_all_and_cannot_come_back() {
    let mut world = World::new(1);
    world.join(1);
    world.invite(7, false);
    world.invite(8, false);
    let _ = world.reply(9, &invited(7));
    world.up(9, &invited(7));
    world.now += Duration::from_millis(100);
    let _ = world.poll();
    world.now += Duration::from_millis(100);

    assert_eq!(world.request(Wish::Revoke(key(9).to_string())), Ok(MembersReply::Done));
    let said = world.poll();

    assert!(said.contains(&Command::RemovePeer(key(9))), "{said:?}");
    assert_eq!(removals(&said), [(key(1), key(9))]);
    world.message(1, &Message::WhoIs(key(9)));
    let answer = Message::Answer { key: key(9), standing: Standing::Stranger };
    assert_eq!(world.messages(), [(key(1), answer)], "whoever has a session with it ends it");
    for secret in [7, 8] {
        let Reply::Refused { reason } = world.reply(9, &invited(secret)) else { panic!() };
        assert!(reason.contains("revoked"), "{reason}");
        world.up(9, &invited(secret));
        assert_eq!(world.poll(), [Command::RemovePeer(key(9))]);
    }
    assert_eq!(world.knock(9, &Register::default()), [Command::Refuse { ticket: Ticket(9) }]);
}

#[test]
fn member_that_is_revoked_while_its_init_waits_is_a_stranger() {
    let mut world = World::new(1);
    world.invite(7, true);
    let _ = world.reply(9, &invited(7));
    world.up(9, &invited(7));
    let _ = world.poll();
    assert_eq!(world.request(Wish::Approve("guest-7".into())), Ok(MembersReply::Done));
    let _ = world.poll();
    world.disk = Disk::Slow;
    world.hub.on_request(RequestId(2), Wish::Revoke("guest-7".into()), None, &mut world.out);
    let _ = world.poll();
    assert!(world.knock(9, &Register::default()).is_empty(), "its address is not written yet");

    let said = world.catch_up();

    assert!(said.contains(&Command::Refuse { ticket: Ticket(9) }), "{said:?}");
}

#[test]
fn who_waits_and_is_configured_meanwhile_comes_anew() {
    let mut world = World::new(1);
    world.invite(7, true);
    let _ = world.reply(9, &invited(7));
    world.up(9, &invited(7));
    let _ = world.poll();

    world.reload(config(9, Addresses::Configured));

    assert_eq!(world.poll(), [Command::RemovePeer(key(9))]);
    let Reply::Welcome { .. } = world.reply(9, &invited(7)) else { panic!("refused") };
}

#[test]
fn new_name_of_a_member_is_pushed_and_one_of_the_configuration_is_told_where_to_change() {
    let mut world = World::new(1);
    world.join(1);
    world.invite(7, false);
    let _ = world.reply(9, &invited(7));
    world.up(9, &invited(7));
    world.now += Duration::from_millis(100);
    let _ = world.poll();
    world.now += Duration::from_millis(100);

    let done = world.request(Wish::Rename("guest-7".into(), "tokyo".into()));
    let lists = world.lists();
    let fixed = world.request(Wish::Rename("member-1".into(), "kyoto".into()));
    let unknown = world.request(Wish::Revoke("guest-7".into()));

    assert_eq!(done, Ok(MembersReply::Done));
    assert_eq!(lists[0].1.upserts[0].name, "tokyo");
    let Err(HandleError::Configured(text)) = fixed else { panic!("{fixed:?}") };
    assert!(text.contains("/etc/fastvpn/office.toml"), "{text}");
    assert!(matches!(unknown, Err(HandleError::NoMember(_))), "{unknown:?}");
}

#[test]
fn what_cannot_be_written_down_does_not_happen() {
    let mut world = World::free(1);
    world.invite(7, false);
    let _ = world.reply(9, &invited(7));
    world.disk = Disk::Full;

    world.up(9, &invited(7));
    assert_eq!(world.poll(), [Command::RemovePeer(key(9))]);
    let Reply::Refused { reason } = world.reply(1, &Register::default()) else { panic!() };
    assert!(reason.starts_with("cannot write"), "{reason}");
    let revoked = world.request(Wish::Withdraw("guest-7".into()));
    assert!(matches!(revoked, Err(HandleError::System(_))), "{revoked:?}");

    world.disk = Disk::Fast;
    let Reply::Welcome { .. } = world.reply(9, &invited(7)) else { panic!("it is still open") };
    let Reply::Welcome { .. } = world.welcome(1) else { panic!("refused") };
}

#[test]
fn session_that_ends_while_its_member_is_written_down_leaves_nobody_in_the_list() {
    let mut world = World::new(1);
    world.invite(7, false);
    let _ = world.reply(9, &invited(7));
    world.disk = Disk::Slow;
    world.up(9, &invited(7));
    let _ = world.poll();

    world.event(Event::SessionDown { peer: key(9), reason: DownReason::Closed });
    let _ = world.poll();
    let said = world.catch_up();

    assert!(sent(&said).is_empty() && world.names().is_empty(), "{said:?}");
    let Reply::Welcome { .. } = world.reply(9, &invited(7)) else { panic!("a member by now") };
}

#[test]
fn who_waits_for_an_answer_is_known_when_the_network_goes_down() {
    let mut world = World::new(1);
    world.disk = Disk::Slow;
    for number in 1..=3 {
        let wish = Wish::Withdraw(format!("guest-{number}"));
        world.hub.on_request(RequestId(number), wish, None, &mut world.out);
    }
    world.hub.on_request(RequestId(4), Wish::Approve("member-1".into()), None, &mut world.out);
    world.disk = Disk::Fast;

    assert_eq!(world.hub.abandon(), [1, 2, 3, 4].map(RequestId));
    assert!(world.poll().is_empty() && world.answers.is_empty());
}

/// A hub, its time, and what it said since it was last asked
struct World {
    hub: Hub,
    now: Instant,
    out: Vec<Step>,
    plans: Vec<String>,
    disk: Disk,
    answers: Vec<(RequestId, Answer)>,
}

/// What becomes of what is to be written down
#[derive(Clone, Copy, Eq, PartialEq)]
enum Disk {
    /// It is there at once
    Fast,
    Full,
    /// It takes until it is fast
    Slow,
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
        let network = network(config.clone());
        let file = std::path::Path::new("/var/lib/fastvpn/members/office.redb");
        let members = Members::new(&network, &config, Contents::default(), file);
        let (name, own) = (network.name, network.addresses);
        let hub = Hub::new(name, own, config, members, LIST_ID);
        let (out, plans, answers) = (Vec::new(), Vec::new(), Vec::new());
        Self { hub, now: ms(0), out, plans, disk: Disk::Fast, answers }
    }

    fn reload(&mut self, config: HubConfig) {
        self.hub.on_config(&network(config.clone()), config, self.now, &mut self.out);
    }

    /// Asks for something; returns the answer
    fn request(&mut self, wish: Wish) -> Result<MembersReply, HandleError> {
        self.hub.on_request(RequestId(1), wish, None, &mut self.out);
        self.hub.poll(self.now, &mut self.out);
        let mut commands = self.drain();
        let answer = self.answers.pop();
        self.out = commands.drain(..).map(Step::Node).collect();
        match answer {
            Some((RequestId(1), Answer::Members(answer))) => answer,
            other => panic!("no answer: {other:?}"),
        }
    }

    /// Makes an invitation with this secret
    fn invite(&mut self, secret: u8, approval: bool) {
        let invitation = Invitation {
            name: format!("guest-{secret}"),
            expires: 3600,
            approval,
            addresses: Vec::new(),
            subnets: Vec::new(),
            used: Use::Open,
        };
        let wish = Wish::Invite(Digest::of(&hidden(secret)), invitation);
        assert_eq!(self.request(wish), Ok(MembersReply::Done));
    }

    fn names(&self) -> Vec<String> {
        let live = self.hub.members().filter(|(_, entry)| entry.is_some());
        live.map(|(member, _)| member.name.clone()).collect()
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
            tcp: None,
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
        self.drain()
    }

    fn drain(&mut self) -> Vec<Command> {
        let mut commands = Vec::new();
        let mut steps = core::mem::take(&mut self.out);
        let mut at = 0;
        while let Some(step) = steps.get(at).cloned() {
            at += 1;
            match step {
                Step::Answer(id, answer) => self.answers.push((id, answer)),
                Step::Node(command) => commands.push(command),
                Step::Plan { addresses, routes } => {
                    self.plans.push(format!("{addresses:?} {routes:?}"));
                }
                Step::Write(changes) => self.write(changes, &mut steps),
                Step::Fail(_) | Step::Resolve(_) | Step::Welcomed => {
                    panic!("not a hub's: {step:?}")
                }
            }
        }
        commands
    }

    fn write(&mut self, changes: Vec<Change>, steps: &mut Vec<Step>) {
        assert!(!changes.is_empty());
        match self.disk {
            Disk::Fast => self.written(Ok(()), steps),
            Disk::Full => {
                let source = std::io::Error::from(std::io::ErrorKind::StorageFull);
                self.written(Err(RegistryError::Write { file: "x".into(), source }), steps);
            }
            Disk::Slow => {}
        }
    }

    fn written(&mut self, result: Result<(), RegistryError>, steps: &mut Vec<Step>) {
        self.hub.on_written(result, self.now, steps);
        self.hub.poll(self.now, steps);
    }

    /// The slow disk is done
    fn catch_up(&mut self) -> Vec<Command> {
        self.disk = Disk::Fast;
        let mut steps = Vec::new();
        self.written(Ok(()), &mut steps);
        self.out = steps;
        self.drain()
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

fn hidden(byte: u8) -> InvitationSecret {
    InvitationSecret::from_bytes([byte; 16])
}

/// What who has an invitation says
fn invited(secret: u8) -> Register {
    Register { secret: Some(hidden(secret)), ..Register::default() }
}

fn network(hub: HubConfig) -> NetworkConfig {
    NetworkConfig {
        name: "office".parse().unwrap(),
        file: "/etc/fastvpn/office.toml".into(),
        autoconnect: true,
        private_key: PrivateKey::from_bytes([5; 32]),
        network_key: NetworkKey::default(),
        listen: "[::]:8796".parse().unwrap(),
        interface: "fvpn-office".into(),
        mtu: 1400,
        threads: None,
        addresses: vec!["10.1.0.250/16".parse().unwrap()],
        cipher: crate::config::Preference::Auto,
        carrier: Choice::Auto,
        dns: None,
        engine: EngineConfig::default(),
        role: RoleConfig::Hub(hub),
    }
}

fn config(members: u16, addresses: Addresses) -> HubConfig {
    let member = |n| Member {
        name: format!("member-{n}"),
        public_key: key(n),
        addresses: if addresses == Addresses::Configured { vec![overlay(n)] } else { Vec::new() },
        subnets: Vec::new(),
        carrier: Choice::Auto,
        tcp: None,
        line: 0,
    };
    HubConfig {
        endpoint: None,
        subnets: vec!["10.1.0.0/16".parse().unwrap()],
        members: (1..=members).map(member).collect(),
        timeout: Duration::from_secs(15),
    }
}
