//! The whole control machine against hand-made news.

use std::collections::BTreeMap;
use std::path::PathBuf;

use fastvpn_proto::control::{Base, List, Reply};
use fastvpn_proto::crypto::{InvitationSecret, NetworkKey, PrivateKey};
use fastvpn_proto::node::{
    BootId, Choice, Command as NodeCommand, DownReason, Engine, Event, NodeStats, TcpMode, Ticket,
    Traffic, Way,
};
use fastvpn_proto::time::{Duration, Instant};

use crate::config::{
    Bounds, Config, EngineConfig, HubAddress, HubConfig, HubLoss, NetworkConfig, PeerRoleConfig,
    Period, Quota, RoleConfig, TicketFile,
};
use crate::daemon::action::{Action, News, Started};
use crate::daemon::fixture::{entry, key, ms, overlay, secs, seen};
use crate::daemon::quota::{Day, Used};
use crate::daemon::state::{Answer, Command, Effect, Input, RequestId, State};
use crate::handle::{
    Apply, Caller, HandleError, Invite, MembersReply, MembersRequest, NetworkName, NetworkState,
    Outcome, PeerLink,
};
use crate::plane::{DeviceNumber, Listening, PlaneEvent};
use crate::registry::{Contents, Members};
use crate::system::Extent;

const HUB: u16 = 200;

#[test]
fn peer_comes_up_in_order_plane_hub_interface_carry() {
    let mut world = World::new(peer());

    let start = world.effects();
    assert!(matches!(start[..], [Action::Start(_)]), "{start:?}");
    world.started();
    assert!(matches!(world.effects()[..], [Action::Node(NodeCommand::SetPeer(_))]));
    world.welcome();
    let actions = world.effects();
    assert!(
        matches!(actions.last(), Some(Action::Interface { fresh: Some(_), .. })),
        "{actions:?}"
    );
    assert_eq!(world.state(), NetworkState::Connecting);
    world.news(News::Applied(Ok(())));

    assert_eq!(world.effects(), [Action::Carry(true)]);
    assert_eq!(world.state(), NetworkState::Up);
}

#[test]
fn connect_is_answered_when_the_network_is_up_and_at_once_when_it_was() {
    let mut world = World::new(NetworkConfig { autoconnect: false, ..peer() });
    assert!(world.effects().is_empty());
    assert_eq!(world.state(), NetworkState::Down);

    world.command(1, connect());
    assert!(world.replies().is_empty());
    world.bring_up();
    world.command(2, connect());

    let expected = [
        (RequestId(1), Answer::Connect(Ok(Outcome::Changed(())))),
        (RequestId(2), Answer::Connect(Ok(Outcome::Already(())))),
    ];
    assert_eq!(world.replies(), expected);
}

#[test]
fn network_for_a_caller_gets_a_device_and_goes_down_with_him() {
    let mut world = World::new(NetworkConfig { autoconnect: false, ..peer() });

    world.command(1, connect_for(":1.7"));
    world.started();
    world.welcome();
    let actions = world.effects();
    let Some(Action::Interface { plan, fresh: Some(_) }) = actions.last() else {
        panic!("{actions:?}")
    };
    assert_eq!(plan.extent, Extent::Device);
    world.news(News::Applied(Ok(())));
    assert_eq!(world.state(), NetworkState::Up);
    assert_eq!(world.view().gateway, Some(seen(HUB).ip()));
    world.effects();

    world.apply(Input::Released(Caller(":1.8".to_owned())));
    assert_eq!(world.state(), NetworkState::Up);
    world.apply(Input::Released(Caller(":1.7".to_owned())));

    assert!(matches!(world.effects()[..], [Action::Stop { interface: Some(_), .. }]));
    assert_eq!(world.state(), NetworkState::Down);
    assert_eq!(world.view().apply, Apply::Daemon);
}

#[test]
fn daemon_that_stops_tells_a_caller_so_by_not_giving_him_up() {
    let mut world = World::new(NetworkConfig { autoconnect: false, ..peer() });
    world.command(1, connect_for(":1.7"));
    world.bring_up();

    world.apply(Input::Stop);

    assert_eq!(world.state(), NetworkState::Down);
    assert_eq!(world.view().apply, Apply::Caller(Caller(":1.7".to_owned())));
}

#[test]
fn network_that_is_up_one_way_is_not_brought_up_the_other() {
    let mut world = World::new(peer());
    let in_use = |replies: &[(RequestId, Answer)]| {
        matches!(replies, [(_, Answer::Connect(Err(HandleError::InUse(_))))])
    };

    world.command(1, connect_for(":1.7"));
    assert!(in_use(&world.replies()), "while it connects by itself");
    world.bring_up();
    world.command(2, connect_for(":1.7"));
    assert!(in_use(&world.replies()));
    world.command(3, Command::Disconnect(name()));
    world.command(4, connect_for(":1.7"));
    world.news(News::Stopped);
    world.bring_up();
    world.replies();
    world.command(5, connect());
    assert!(in_use(&world.replies()));
    world.command(6, connect_for(":1.8"));
    assert!(in_use(&world.replies()));
    world.command(7, connect_for(":1.7"));

    assert_eq!(world.replies(), [(RequestId(7), Answer::Connect(Ok(Outcome::Already(()))))]);
}

#[test]
fn hub_is_never_up_for_a_caller() {
    let mut world = World::new(NetworkConfig { autoconnect: false, ..hub() });

    world.command(1, connect_for(":1.7"));

    let answer = Answer::Connect(Err(HandleError::NotPeer(name())));
    assert_eq!(world.replies(), [(RequestId(1), answer)]);
    assert_eq!(world.state(), NetworkState::Down);
}

#[test]
fn connect_that_takes_too_long_says_why_and_the_network_goes_on_trying() {
    let mut world = World::new(peer());
    world.started();
    world.command(1, connect());

    world.run(secs(25));

    let replies = world.replies();
    let [(_, Answer::Connect(Err(HandleError::Timeout(why))))] = &replies[..] else {
        panic!("{replies:?}")
    };
    assert!(why.contains("does not answer"), "{why}");
    assert_eq!(world.state(), NetworkState::Connecting);
}

#[test]
fn refused_registration_fails_the_request_and_is_tried_again_after_a_while() {
    let mut world = World::new(peer());
    world.started();
    world.command(1, connect());
    world.effects();

    world.hub_up(&Reply::Refused { reason: "address is held by tokyo".into() });

    let replies = world.replies();
    assert!(
        matches!(&replies[..], [(_, Answer::Connect(Err(HandleError::Refused(_))))]),
        "{replies:?}"
    );
    assert_eq!(world.effects(), [Action::Stop { interface: None, handover: false }]);
    assert_eq!(world.state(), NetworkState::Failed);
    world.news(News::Stopped);
    world.run(ms(4_999));
    assert!(world.effects().is_empty());
    world.run(ms(5_001));
    assert!(matches!(world.effects()[..], [Action::Start(_)]));
}

#[test]
fn ticket_is_deleted_when_the_hub_has_welcomed_us_before_anything_else_can_fail() {
    let ticket =
        TicketFile { file: "ticket".into(), secret: InvitationSecret::from_bytes([1; 16]) };
    let mut config = peer();
    let RoleConfig::Peer(role) = &mut config.role else { panic!("a hub") };
    role.ticket = Some(ticket);
    let mut world = World::new(config);
    world.started();
    world.effects();

    world.hub_up(&Reply::Pending);
    let waiting = (world.effects(), world.state());
    world.welcome();
    let welcomed = world.effects();

    assert_eq!(waiting, (Vec::new(), NetworkState::Pending));
    let place = |wanted: fn(&Action) -> bool| welcomed.iter().position(wanted);
    let forget = place(|action| *action == Action::Forget("ticket".into()));
    let interface = place(|action| matches!(action, Action::Interface { .. }));
    assert!(forget.is_some() && forget < interface, "{welcomed:?}");
    world.hub_up(&Reply::Refused { reason: "x".into() });
    assert!(!world.effects().contains(&Action::Forget("ticket".into())));
}

#[test]
fn busy_port_is_retried_with_a_growing_pause() {
    let mut world = World::new(peer());
    let mut pauses = Vec::new();

    for _ in 0..6 {
        let failed_at = world.now;
        world.effects();
        world.news(News::Started(Err(HandleError::Conflict("port 8796 is in use".into()))));
        assert_eq!(world.state(), NetworkState::Failed);
        assert!(world.view().detail.contains("in use"));
        world.run_until_action();
        pauses.push(world.now.since(failed_at).as_secs());
    }

    assert_eq!(pauses, [5, 10, 20, 40, 60, 60]);
}

#[test]
fn connect_during_the_pause_tries_at_once() {
    let mut world = World::new(peer());
    world.effects();
    world.news(News::Started(Err(HandleError::Conflict("port 8796 is in use".into()))));
    world.effects();

    world.command(1, connect());

    assert!(matches!(world.effects()[..], [Action::Start(_)]));
    assert!(world.replies().is_empty());
    world.news(News::Started(Err(HandleError::Conflict("port 8796 is in use".into()))));
    assert_eq!(world.replies().len(), 1);
}

#[test]
fn interface_conflict_undoes_what_was_begun() {
    let mut world = World::new(peer());
    world.started();
    world.welcome();
    world.effects();

    world.news(News::Applied(Err(HandleError::Conflict("fvpn-office is not ours".into()))));

    let interface = Some(("fvpn-office".to_owned(), "fastvpn:office".to_owned()));
    assert_eq!(world.effects(), [Action::Stop { interface, handover: false }]);
    assert_eq!(world.state(), NetworkState::Failed);
}

#[test]
fn disconnect_is_answered_when_all_is_undone_and_lasts() {
    let mut world = World::up(peer());

    world.command(1, Command::Disconnect(name()));
    assert!(world.replies().is_empty());
    world.news(News::Stopped);
    world.command(2, Command::Disconnect(name()));

    let expected = [
        (RequestId(1), Answer::Disconnect(Ok(Outcome::Changed(())))),
        (RequestId(2), Answer::Disconnect(Ok(Outcome::Already(())))),
    ];
    assert_eq!(world.replies(), expected);
    world.effects();
    world.run(secs(300));
    assert!(world.effects().is_empty());
    assert_eq!(world.state(), NetworkState::Down);
}

#[test]
fn connect_while_the_network_goes_down_brings_it_up_afterwards() {
    let mut world = World::up(peer());
    world.command(1, Command::Disconnect(name()));
    world.effects();

    world.command(2, connect());
    assert!(world.effects().is_empty(), "the old life ends first");
    world.news(News::Stopped);

    assert!(matches!(world.effects()[..], [Action::Start(_)]));
}

#[test]
fn news_of_an_earlier_life_is_not_believed() {
    let mut world = World::up(peer());
    let old = world.life;
    world.command(1, Command::Disconnect(name()));
    world.news(News::Stopped);
    world.command(2, connect());
    world.effects();

    world.apply(Input::Network(name(), old, News::Started(Ok(started()))));

    assert!(world.effects().is_empty());
    assert_eq!(world.state(), NetworkState::Connecting);
}

#[test]
fn lost_hub_stops_the_carrying_and_its_return_starts_it_again() {
    let mut world = World::up(peer());

    world.run(secs(30));
    assert_eq!(world.state(), NetworkState::HubLost);
    assert!(world.effects().contains(&Action::Carry(false)));
    assert!(!world.view().hub.unwrap().alive);
    world.welcome();

    assert_eq!(world.state(), NetworkState::Up);
    let actions = world.effects();
    assert!(actions.contains(&Action::Carry(true)), "{actions:?}");
    let interface = |action: &Action| matches!(action, Action::Interface { .. });
    assert!(!actions.iter().any(interface), "the TUN stays: {actions:?}");
}

#[test]
fn hub_loss_can_be_changed_while_the_hub_is_lost() {
    let mut world = World::up(peer());
    world.run(secs(30));
    world.effects();
    let mut config = peer();
    let RoleConfig::Peer(role) = &mut config.role else { unreachable!() };
    role.hub_loss = HubLoss::Keep;

    world.reload(1, vec![config]);

    let actions = world.effects();
    assert!(actions.contains(&Action::Carry(true)), "{actions:?}");
    assert!(world.view().detail.contains("going on"), "{}", world.view().detail);
}

#[test]
fn interface_that_is_gone_is_made_again_and_carries_again() {
    let mut world = World::up(peer());

    world.apply(Input::Interface("fvpn-office".into(), News::Gone));
    world.run(secs(1));
    let actions = world.effects();
    world.news(News::Applied(Ok(())));

    let fresh = |action: &&Action| matches!(action, Action::Interface { fresh: Some(_), .. });
    assert_eq!(actions.iter().filter(fresh).count(), 1, "{actions:?}");
    assert_eq!(world.effects(), [Action::Carry(true)]);
}

#[test]
fn data_thread_that_finds_late_that_a_device_is_gone_has_its_successor_left_alone() {
    let mut world = World::up(peer());
    let mut lose = |number, until| {
        let error = std::io::Error::other("gone");
        let lost = PlaneEvent::TunLost { device: DeviceNumber(number), error };
        world.news(News::Plane(vec![lost]));
        world.run(secs(until));
        world.news(News::Applied(Ok(())));
        let fresh = |action| match action {
            Action::Interface { fresh, .. } => fresh,
            _ => None,
        };
        world.effects().into_iter().filter_map(fresh).collect::<Vec<_>>()
    };

    let made = [(1, 1), (1, 2), (2, 3)].map(|(device, until)| lose(device, until));

    assert_eq!(made, [vec![DeviceNumber(2)], Vec::new(), vec![DeviceNumber(3)]]);
}

#[test]
fn data_thread_that_ends_is_started_again() {
    let mut world = World::up(peer());

    world.news(News::Plane(vec![PlaneEvent::Ended(Some(std::io::Error::other("broken")))]));
    assert_eq!(world.state(), NetworkState::Failed);
    world.news(News::Stopped);
    world.effects();
    world.run(secs(6));

    assert!(matches!(world.effects()[..], [Action::Start(_)]));
}

#[test]
fn reload_with_problems_changes_nothing_and_names_them() {
    let mut world = World::up(peer());
    world.command(1, Command::Reload);

    world.apply(Input::Config(Some(RequestId(1)), Err("office.toml:3: unknown key".into())));

    let replies = world.replies();
    let [(_, Answer::Reload(Err(HandleError::Config(problems))))] = &replies[..] else {
        panic!("{replies:?}")
    };
    assert!(problems.contains("office.toml:3"));
    assert_eq!(world.state(), NetworkState::Up);
    assert!(world.effects().is_empty());
}

#[test]
fn reload_takes_down_what_is_gone_and_starts_what_is_new() {
    let mut world = World::up(peer());
    let home = NetworkConfig { name: "home".parse().unwrap(), ..peer() };

    world.reload(1, vec![home]);

    let replies = world.replies();
    let [(_, Answer::Reload(Ok(reloaded)))] = &replies[..] else { panic!("{replies:?}") };
    assert_eq!(reloaded.removed, [name()]);
    assert_eq!(reloaded.added, ["home".parse().unwrap()]);
    world.command(2, connect());
    assert!(matches!(
        &world.replies()[..],
        [(_, Answer::Connect(Err(HandleError::UnknownNetwork(_))))]
    ));
    world.news(News::Stopped);
    assert_eq!(world.machine.snapshot().networks.len(), 1);
}

#[test]
fn network_that_comes_back_while_it_goes_down_starts_with_its_new_configuration() {
    let mut world = World::up(peer());
    world.reload(1, vec![]);
    world.reload(2, vec![NetworkConfig { mtu: 1300, ..peer() }]);
    world.effects();

    world.news(News::Stopped);

    assert!(matches!(world.effects()[..], [Action::Start(_)]));
    assert_eq!(world.view().mtu, 1300);
}

#[test]
fn change_that_cannot_be_made_live_starts_the_network_anew() {
    let mut world = World::up(peer());
    let listen = "[::]:9999".parse().unwrap();

    world.reload(1, vec![NetworkConfig { listen, ..peer() }]);
    assert!(matches!(world.effects()[..], [Action::Stop { interface: Some(_), .. }]));
    world.news(News::Stopped);

    let actions = world.effects();
    let [Action::Start(start)] = &actions[..] else { panic!("{actions:?}") };
    assert_eq!(start.listen, listen);
}

#[test]
fn changed_mtu_is_applied_without_a_new_device() {
    let mut world = World::up(peer());

    world.reload(1, vec![NetworkConfig { mtu: 1300, ..peer() }]);

    let actions = world.effects();
    let [Action::Interface { plan, fresh: None }] = &actions[..] else { panic!("{actions:?}") };
    assert_eq!(plan.mtu, 1300);
}

#[test]
fn engine_starts_as_configured_and_is_set_anew_while_it_runs() {
    let engine = EngineConfig { tcp: TcpMode::Plain, ..EngineConfig::default() };
    let mut world = World::new(NetworkConfig { engine, ..peer() });
    let start = world.effects();
    let [Action::Start(start)] = &start[..] else { panic!("{start:?}") };
    assert_eq!(start.engine.tcp, TcpMode::Plain);

    let mut world = World::up(NetworkConfig { engine, ..peer() });
    world.reload(1, vec![peer()]);

    assert_eq!(
        world.effects(),
        [Action::Node(NodeCommand::Configure(EngineConfig::default().engine()))]
    );
    world.reload(2, vec![NetworkConfig { mtu: 1300, ..peer() }]);
    assert!(matches!(world.effects()[..], [Action::Interface { .. }]), "told once");
}

#[test]
fn quota_is_recalled_counted_written_down_and_obeyed() {
    const MB: u64 = 1_000_000;
    let mut config = peer();
    config.engine.bounds.quota = Some(Quota { bytes: MB, period: Period::Day });
    let mut world = World::new(config);
    let recalls = world.effects().into_iter().filter(|action| *action == Action::Recall);
    assert_eq!(recalls.count(), 1);
    world.bring_up();
    world.effects();

    world.news(News::Recalled(Some(Used { since: Day(0), bytes: 850_000 })));
    world.sent(50_000);
    let lean = EngineConfig { copies: 0, ..EngineConfig::default() }.engine();
    assert_eq!(world.effects(), [Action::Node(NodeCommand::Configure(lean))]);
    assert_eq!(world.view().quota.unwrap().used, 900_000);

    world.sent(150_000);
    let slow = Engine { rate: Some(8_000), ..lean };
    assert_eq!(world.effects(), [Action::Node(NodeCommand::Configure(slow))]);
    assert!(world.view().detail.contains("is used up"), "{}", world.view().detail);

    world.now = secs(20);
    world.sent(150_001);
    let used = Used { since: Day(0), bytes: MB + 1 };
    assert_eq!(world.effects(), [Action::Keep(used)]);
    world.sent(150_002);
    world.command(1, Command::Disconnect(name()));
    let last = world.effects();
    let kept = Action::Keep(Used { bytes: MB + 2, ..used });
    assert!(matches!(&last[..], [first, Action::Stop { .. }] if *first == kept), "{last:?}");
}

#[test]
fn bounds_of_the_node_are_shared_and_its_quota_counts_all_networks() {
    let mut world = World::up(peer());
    let quota = Some(Quota { bytes: 1_000_000, period: Period::Day });
    let node = Bounds { rate: Some(100_000), packet_rate: Some(500), quota };
    let config = Config { node, ..configs(vec![peer()]) };

    world.apply(Input::Config(Some(RequestId(1)), Ok(config)));
    assert!(world.effects.contains(&Effect::Recall));
    let bound = Engine { rate: Some(100_000), packet_rate: Some(500), ..Engine::default() };
    assert_eq!(world.effects(), [Action::Node(NodeCommand::Configure(bound))], "at once");
    world.now += Duration::from_secs(1);
    world.sent(10_000);
    world.now += Duration::from_secs(1);
    world.sent(10_000);
    assert_eq!(world.effects(), []);
    assert_eq!(world.view().quota.unwrap().used, 10_000);

    world.apply(Input::Recalled(Some(Used { since: Day(0), bytes: 990_000 })));
    let slow = Engine { rate: Some(8_000), copies: 0, ..bound };
    assert_eq!(world.effects(), [Action::Node(NodeCommand::Configure(slow))]);
    assert!(world.view().detail.contains("is used up"), "{}", world.view().detail);
}

#[test]
fn network_that_begins_has_its_share_from_the_start() {
    let config = bounded(100_000, vec![peer()]);
    let (_, effects) = State::new("box".into(), config, ms(0));

    assert_eq!(starts(&effects), [(name(), Some(100_000))]);
}

#[test]
fn network_that_comes_as_another_goes_has_its_share_from_the_start() {
    let mut world = World::up(peer());
    world.apply(Input::Config(None, Ok(bounded(100_000, vec![peer()]))));
    world.effects.clear();
    world.now += ms(300).since(ms(0));

    let other = NetworkConfig { name: "other".parse().unwrap(), ..peer() };
    world.apply(Input::Config(None, Ok(bounded(100_000, vec![other.clone()]))));

    assert_eq!(starts(&world.effects), [(other.name, Some(100_000))]);
}

#[test]
fn shares_given_early_go_by_what_was_last_measured() {
    let mut world = World::up(peer());
    world.apply(Input::Config(None, Ok(bounded(100_000, vec![peer()]))));
    for second in 1..4 {
        world.now = secs(second);
        world.sent(20_000 * second);
    }
    world.now += ms(100).since(ms(0));
    world.effects();

    let other = NetworkConfig { name: "other".parse().unwrap(), ..peer() };
    world.apply(Input::Config(None, Ok(bounded(100_000, vec![peer(), other.clone()]))));

    // Half as much again as the one sends in a second, a tenth for the other, half of what is left.
    let share = 30_000 + (100_000 - 30_000 - 5_000) / 2;
    let bound = Engine { rate: Some(share), ..Engine::default() };
    assert_eq!(starts(&world.effects), [(other.name, Some(100_000 - share))]);
    assert_eq!(world.effects(), [Action::Node(NodeCommand::Configure(bound))]);
}

#[test]
fn ping_finds_a_peer_by_name_key_and_address() {
    let mut world = World::up(peer());

    for (n, peer) in ["peer-1", &key(1).to_string(), &overlay(1).to_string()].iter().enumerate() {
        world.ping(n as u64, peer);
        let actions = world.effects();
        let [Action::Node(NodeCommand::Ping { peer, id, .. })] = &actions[..] else {
            panic!("{actions:?}")
        };
        assert_eq!(*peer, key(1));
        world.event(Event::Pong { peer: *peer, id: *id, rtt: Duration::from_millis(3) });
    }
    world.ping(9, "nobody");

    let replies = world.replies();
    assert_eq!(replies.len(), 4);
    assert!(matches!(&replies[0].1, Answer::Ping(Ok(reply)) if reply.rtt.is_some()));
    assert!(matches!(&replies[3].1, Answer::Ping(Err(HandleError::NoPeer(..)))));
}

#[test]
fn ping_under_way_is_answered_when_the_network_goes_down() {
    let mut world = World::up(peer());
    world.ping(1, "peer-1");

    world.command(2, Command::Disconnect(name()));

    assert!(matches!(world.replies()[..], [(_, Answer::Ping(Err(HandleError::NotUp(_))))]));
}

#[test]
fn stop_takes_everything_down_and_then_says_so() {
    let mut world = World::up(peer());

    let effects = world.machine.apply(Input::Stop, world.now);
    assert!(!effects.contains(&Effect::Stopped));
    world.command(1, connect());
    let effects = world.machine.apply(Input::Network(name(), world.life, News::Stopped), world.now);

    assert_eq!(effects, [Effect::Stopped]);
    assert_eq!(world.replies(), [(RequestId(1), Answer::Connect(Err(HandleError::Stopping)))]);
}

#[test]
fn nodes_that_are_back_are_let_in_while_the_plane_ends_if_a_next_daemon_goes_on() {
    let knock = || Event::Stranger {
        ticket: Ticket(4),
        key: key(1),
        hello: vec![],
        way: Way::Direct(seen(1)),
    };
    let admits = |actions: &[Action]| {
        matches!(actions, [Action::Node(NodeCommand::Admit { ticket: Ticket(4), .. })])
    };
    let mut world = World::up(peer());
    world.apply(Input::Stop);
    world.effects();

    world.event(knock());
    let last = world.effects();
    assert!(admits(&last), "{last:?}");
    world.news(News::Stopped);
    world.event(knock());
    assert!(world.effects().is_empty());

    let mut world = World::up(peer());
    world.command(1, Command::Disconnect(name()));
    world.effects();
    world.event(knock());
    assert!(world.effects().is_empty(), "nobody goes on");
}

#[test]
fn changed_addresses_make_paths_prove_themselves_and_reach_the_hub() {
    let mut world = World::up(peer());
    world.apply(Input::Local(vec!["192.0.2.50".parse().unwrap()]));
    world.effects();

    world.apply(Input::Local(vec!["192.0.2.51".parse().unwrap()]));
    let actions = world.effects();
    world.apply(Input::Local(vec!["192.0.2.51".parse().unwrap()]));

    assert!(actions.contains(&Action::Node(NodeCommand::PathsChanged)), "{actions:?}");
    let told = |action: &Action| matches!(action, Action::Node(NodeCommand::Send { .. }));
    assert!(actions.iter().any(told), "{actions:?}");
    let only_routes = world.effects();
    assert_eq!(only_routes, [Action::Node(NodeCommand::PathsChanged)]);
}

#[test]
fn hub_is_up_with_its_interface_and_shows_all_members() {
    let mut world = World::new(hub());
    assert_eq!(world.effects(), [Action::Open]);

    world.news(opened(&hub()));
    assert!(matches!(world.effects()[..], [Action::Start(_)]));
    world.news(News::Started(Ok(started())));
    let actions = world.effects();
    let [Action::Names(hosts), Action::Interface { plan, fresh: Some(_) }] = &actions[..] else {
        panic!("{actions:?}")
    };
    let names: Vec<_> = hosts.iter().map(|host| host.name.as_str()).collect();
    assert_eq!(names, ["tokyo", "hub"]);
    let dns = plan.dns.as_ref().unwrap();
    assert_eq!((dns.suffix.as_str(), dns.server), ("office.fastvpn", plan.addresses[0].addr()));
    world.news(News::Applied(Ok(())));

    assert_eq!(world.state(), NetworkState::Up);
    let view = world.view();
    assert_eq!(view.peers[&key(1)].state, PeerLink::Offline);
    assert_eq!(view.peers[&key(1)].name, "tokyo");
}

#[test]
fn hub_whose_members_cannot_be_read_fails_and_tries_again_after_it_has_closed_them() {
    let mut world = World::new(hub());
    world.effects();

    world.news(News::Opened(Err(HandleError::System("it is damaged".into()))));

    assert_eq!(world.state(), NetworkState::Failed);
    assert_eq!(world.view().detail, "it is damaged");
    assert!(matches!(world.effects()[..], [Action::Stop { interface: None, .. }]));
    world.news(News::Stopped);
    world.run_until_action();
    assert_eq!(world.effects(), [Action::Open]);
}

#[test]
fn members_are_a_matter_of_hubs_that_are_up() {
    let list = |network| Command::Members {
        network,
        request: MembersRequest::List,
        secret: InvitationSecret::from_bytes([1; 16]),
    };
    let answer = |world: &mut World| match world.replies().pop() {
        Some((_, Answer::Members(answer))) => answer,
        other => panic!("{other:?}"),
    };
    let mut peer = World::up(peer());
    peer.command(1, list(name()));
    assert_eq!(answer(&mut peer), Err(HandleError::NotHub(name())));
    peer.command(2, list("nowhere".parse().unwrap()));
    assert_eq!(answer(&mut peer), Err(HandleError::UnknownNetwork("nowhere".into())));

    let mut world = World::new(hub());
    world.command(1, list(name()));
    assert_eq!(answer(&mut world), Err(HandleError::NotUp(name())));
    world.news(opened(&hub()));
    world.news(News::Started(Ok(started())));
    world.command(2, list(name()));
    let Ok(MembersReply::Members(members)) = answer(&mut world) else { panic!("no list") };
    let tokyo = &members[0];
    assert_eq!((tokyo.name.as_str(), tokyo.standing), ("tokyo", "approved"));
    assert_eq!((tokyo.source, tokyo.online), ("configuration", false));
}

#[test]
fn member_gets_no_name_that_is_none() {
    let mut world = World::new(hub());
    world.news(opened(&hub()));
    world.news(News::Started(Ok(started())));
    for bad in ["", "To kyo", "a\nb", "-a", &"x".repeat(64)] {
        let request = MembersRequest::Rename { who: "tokyo".into(), name: bad.to_owned() };
        let secret = InvitationSecret::from_bytes([1; 16]);

        world.command(1, Command::Members { network: name(), request, secret });

        let replies = world.replies();
        let [(_, Answer::Members(Err(HandleError::Invalid(text))))] = &replies[..] else {
            panic!("{bad:?}: {replies:?}")
        };
        assert!(text.contains("a-z"), "{text}");
    }
}

#[test]
fn invitation_says_where_the_hub_is_and_is_answered_when_it_is_written_down() {
    let mut world = World::new(hub());
    world.news(opened(&hub()));
    world.news(News::Started(Ok(started())));
    world.effects();
    let invite = |endpoints: &[&str]| Command::Members {
        network: name(),
        request: MembersRequest::Invite(Invite {
            name: "kyoto".into(),
            ttl: Duration::from_secs(60),
            approval: false,
            addresses: Vec::new(),
            subnets: Vec::new(),
            endpoints: endpoints.iter().map(|text| (*text).to_owned()).collect(),
        }),
        secret: InvitationSecret::from_bytes([1; 16]),
    };

    world.command(1, invite(&[]));
    let Some((_, Answer::Members(Err(HandleError::Invalid(text))))) = world.replies().pop() else {
        panic!("nobody can know where it is")
    };
    assert!(text.contains("endpoint") && text.contains("office.toml"), "{text}");
    world.apply(Input::Local(vec!["8.8.4.4".parse().unwrap(), "10.9.9.9".parse().unwrap()]));
    world.command(2, invite(&[]));
    world.command(3, invite(&["hub.example.net:8796"]));
    let [.., Action::Write(_)] = &world.effects()[..] else { panic!("nothing to write") };
    assert!(world.replies().is_empty());
    world.news(News::Written(Ok(())));

    let replies = world.replies();
    let [(RequestId(2), Answer::Members(Ok(MembersReply::Invited(made)))), taken] = &replies[..]
    else {
        panic!("{replies:?}")
    };
    assert_eq!(made.endpoints, ["8.8.4.4:8796"]);
    let read: crate::invitation::Invitation = made.text.parse().unwrap();
    assert_eq!((read.network, read.member.as_str()), (name(), "kyoto"));
    assert_eq!(read.hub_key, hub().private_key.public_key());
    assert!(matches!(taken, (_, Answer::Members(Err(HandleError::Conflict(_))))), "{taken:?}");
}

#[test]
fn hub_without_an_address_is_up_when_it_listens() {
    let mut world = World::new(NetworkConfig { addresses: Vec::new(), ..hub() });
    world.news(opened(&hub()));
    world.effects();

    world.news(News::Started(Ok(started())));

    assert!(world.effects().is_empty());
    assert_eq!(world.state(), NetworkState::Up);
}

#[test]
fn wall_clock_that_is_stepped_moves_the_times_shown_and_nothing_else() {
    let mut world = World::up(peer());
    let before = world.machine.deadline();

    let hour = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(3600);
    let effects = world.machine.apply(Input::Wall(hour), world.now);

    assert!(effects.is_empty());
    assert_eq!(world.machine.deadline(), before);
    assert_eq!(world.state(), NetworkState::Up);
}

#[test]
fn goodbye_of_the_hub_is_no_loss_yet() {
    let mut world = World::up(peer());

    world.event(Event::SessionDown { peer: key(HUB), reason: DownReason::Closed });

    assert_eq!(world.state(), NetworkState::Up);
}

/// The machine with one network, its time, and what it asked for
struct World {
    machine: State,
    now: Instant,
    life: u64,
    effects: Vec<Effect>,
}

impl World {
    fn new(config: NetworkConfig) -> Self {
        let (machine, effects) = State::new("box".into(), configs(vec![config]), ms(0));
        let mut world = Self { machine, now: ms(0), life: 0, effects: Vec::new() };
        world.keep(effects);
        world
    }

    /// A peer that is up and knows peer 1
    fn up(config: NetworkConfig) -> Self {
        let mut world = Self::new(config);
        world.bring_up();
        world.effects();
        world
    }

    fn bring_up(&mut self) {
        self.started();
        self.welcome();
        self.news(News::Applied(Ok(())));
    }

    fn started(&mut self) {
        self.news(News::Started(Ok(started())));
    }

    fn welcome(&mut self) {
        let list = List {
            id: 7,
            revision: 1,
            base: Base::Whole,
            upserts: vec![entry(1)],
            removed: vec![],
        };
        let addresses = vec!["10.1.0.100/16".parse().unwrap()];
        self.hub_up(&Reply::Welcome { addresses, hub: vec![], list });
    }

    fn hub_up(&mut self, reply: &Reply) {
        self.event(Event::SessionUp {
            peer: key(HUB),
            boot: BootId::default(),
            greeting: reply.encode(),
            initiator: true,
            way: Way::Direct(seen(HUB)),
        });
    }

    fn event(&mut self, event: Event) {
        self.news(News::Plane(vec![PlaneEvent::Node(event)]));
    }

    fn news(&mut self, news: News) {
        self.apply(Input::Network(name(), self.life, news));
    }

    /// Tells that the node has sent so many bytes since it began
    fn sent(&mut self, bytes: u64) {
        let sent = Traffic { packets: 0, bytes };
        let stats = NodeStats { sent, ..NodeStats::default() };
        self.news(News::Plane(vec![PlaneEvent::Stats { node: Box::new(stats), overflowed: 0 }]));
    }

    fn command(&mut self, id: u64, command: Command) {
        self.apply(Input::Command(RequestId(id), command));
    }

    fn ping(&mut self, id: u64, peer: &str) {
        let timeout = Duration::from_secs(1);
        self.command(id, Command::Ping { network: name(), peer: peer.into(), timeout });
    }

    fn reload(&mut self, id: u64, networks: Vec<NetworkConfig>) {
        self.apply(Input::Config(Some(RequestId(id)), Ok(configs(networks))));
    }

    fn apply(&mut self, input: Input) {
        let effects = self.machine.apply(input, self.now);
        self.keep(effects);
    }

    fn keep(&mut self, effects: Vec<Effect>) {
        for effect in &effects {
            if let Effect::Network(of, life, _) = effect
                && *of == name()
            {
                self.life = *life;
            }
        }
        self.effects.extend(effects);
    }

    /// Lets time pass
    fn run(&mut self, until: Instant) {
        while self.machine.deadline() <= until {
            self.now = self.now.max(self.machine.deadline());
            self.apply(Input::Tick);
            assert!(self.machine.deadline() > self.now, "stuck at {:?}", self.now);
        }
        self.now = until;
    }

    fn run_until_action(&mut self) {
        while !self.effects.iter().any(|effect| matches!(effect, Effect::Network(..))) {
            self.now = self.machine.deadline();
            self.apply(Input::Tick);
        }
    }

    /// Takes what was asked for the network, heartbeats left out
    fn effects(&mut self) -> Vec<Action> {
        let (network, rest) = core::mem::take(&mut self.effects)
            .into_iter()
            .partition(|effect| matches!(effect, Effect::Network(of, ..) if *of == name()));
        self.effects = rest;
        let beat = |action: &Action| matches!(action, Action::Node(NodeCommand::Ping { id, .. }) if *id >= 1 << 63);
        let action = |effect| match effect {
            Effect::Network(_, _, action) => Some(action),
            _ => None,
        };
        Vec::into_iter(network).filter_map(action).filter(|action| !beat(action)).collect()
    }

    fn replies(&mut self) -> Vec<(RequestId, Answer)> {
        let (replies, rest) = core::mem::take(&mut self.effects)
            .into_iter()
            .partition(|effect| matches!(effect, Effect::Reply(..)));
        self.effects = rest;
        let reply = |effect| match effect {
            Effect::Reply(id, answer) => Some((id, answer)),
            _ => None,
        };
        Vec::into_iter(replies).filter_map(reply).collect()
    }

    fn view(&self) -> crate::handle::NetworkView {
        self.machine.snapshot().networks[&name()].clone()
    }

    fn state(&self) -> NetworkState {
        self.view().state
    }
}

fn connect() -> Command {
    Command::Connect(name(), Apply::Daemon)
}

fn connect_for(caller: &str) -> Command {
    Command::Connect(name(), Apply::Caller(Caller(caller.to_owned())))
}

fn name() -> NetworkName {
    "office".parse().unwrap()
}

fn bounded(rate: u64, networks: Vec<NetworkConfig>) -> Config {
    let node = Bounds { rate: Some(rate), ..Bounds::default() };
    Config { node, ..configs(networks) }
}

/// The networks that begin, and how fast they may send
fn starts(effects: &[Effect]) -> Vec<(NetworkName, Option<u64>)> {
    let start = |effect: &Effect| match effect {
        Effect::Network(name, _, Action::Start(start)) => Some((name.clone(), start.engine.rate)),
        _ => None,
    };
    effects.iter().filter_map(start).collect()
}

fn configs(networks: Vec<NetworkConfig>) -> Config {
    let networks: BTreeMap<_, _> =
        networks.into_iter().map(|network| (network.name.clone(), network)).collect();
    Config { networks, ..Config::default() }
}

fn peer() -> NetworkConfig {
    let hub = HubAddress {
        endpoint: "192.0.2.1:8796".into(),
        others: Vec::new(),
        public_key: key(HUB),
        carrier: Choice::Auto,
        tcp: None,
    };
    network(RoleConfig::Peer(PeerRoleConfig { hubs: vec![hub], ..PeerRoleConfig::default() }))
}

fn hub() -> NetworkConfig {
    let member = crate::config::Member {
        name: "tokyo".into(),
        public_key: key(1),
        addresses: vec![overlay(1)],
        subnets: Vec::new(),
        carrier: Choice::Auto,
        tcp: None,
        line: 7,
    };
    let config = HubConfig {
        endpoint: None,
        subnets: vec!["10.1.0.0/16".parse().unwrap()],
        members: vec![member],
        timeout: Duration::from_secs(15),
    };
    let addresses = vec!["10.1.0.250/16".parse().unwrap()];
    NetworkConfig { addresses, ..network(RoleConfig::Hub(config)) }
}

fn network(role: RoleConfig) -> NetworkConfig {
    NetworkConfig {
        name: name(),
        file: PathBuf::from("/etc/fastvpn/office.toml"),
        autoconnect: true,
        private_key: PrivateKey::from_bytes([5; 32]),
        network_key: NetworkKey::default(),
        listen: "[::]:8796".parse().unwrap(),
        interface: "fvpn-office".into(),
        mtu: 1400,
        threads: None,
        addresses: Vec::new(),
        dns: Some(crate::dns::Suffix::of_network("office")),
        cipher: crate::config::Preference::Auto,
        carrier: Choice::Auto,
        engine: EngineConfig::default(),
        role,
    }
}

fn started() -> Started {
    let listening = Listening {
        addr: "[::]:8796".parse().unwrap(),
        fell_back: false,
        buffers: Default::default(),
    };
    Started { listening, nonce: 7 }
}

/// What a hub keeps, with nothing in it
fn opened(config: &NetworkConfig) -> News {
    let RoleConfig::Hub(hub) = &config.role else { panic!("a peer keeps nothing") };
    let file = std::path::Path::new("/var/lib/fastvpn/members/office.redb");
    News::Opened(Ok(Box::new(Members::new(config, hub, Contents::default(), file))))
}
