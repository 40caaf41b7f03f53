//! Tests of planes with several threads whose peers belong to another one than the first.

use std::thread;
use std::time::Duration;

use fastvpn_proto::crypto::PrivateKey;
use fastvpn_proto::node::{Contact, DownReason, PeerConfig, shard_of};
use tokio::sync::mpsc;

use super::tests::{config, known, packet, read, serve, start_as, wait_for};
use super::*;

type Started = (PlaneHandle, mpsc::Receiver<Vec<PlaneEvent>>, Listening);

/// Keys of nodes that belong to the second of two threads
fn keys() -> impl Iterator<Item = u8> {
    (1..).filter(|key| {
        let key = PrivateKey::from_bytes([*key; 32]);
        shard_of(&key.public_key(), 2) == 1
    })
}

/// Starts two planes of two threads, each of which has the other one in its second
fn pair() -> [Started; 2] {
    let mut keys = keys();
    [(); 2].map(|()| start_as(keys.next().unwrap(), 2))
}

fn await_up(events: &mut mpsc::Receiver<Vec<PlaneEvent>>) {
    let up =
        wait_for(events, |event| matches!(event, PlaneEvent::Node(NodeEvent::SessionUp { .. })));
    assert!(up.is_some());
}

#[test]
fn device_with_one_queue_serves_the_peers_of_all_threads() {
    let [(near, mut near_events, near_at), (far, mut far_events, far_at)] = pair();
    far.send(PlaneCommand::Node(known(&near, near_at.addr, "10.9.0.1", Contact::OnDemand)));
    let far_tun = serve(&far, 1);
    near.send(PlaneCommand::Node(known(&far, far_at.addr, "10.9.0.2", Contact::Always)));
    // No thread reads packets before it knows whose they are.
    let near_tun = serve(&near, 1);
    await_up(&mut near_events);
    await_up(&mut far_events);

    for number in 0..20 {
        while rustix::io::write(&near_tun[0], &packet(number)).is_err() {
            thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(read(&far_tun), Some(packet(number)));
    }
}

#[test]
fn last_message_over_tcp_is_the_goodbye_as_well() {
    let (control, _over) = control();
    for told_to in [true, false, true, false] {
        let streams = Streams { runtime: control.clone(), accept: Choice::Tcp };
        let [(near, mut near_events, near_at), (far, mut far_events, far_at)] = pair_over(&streams);
        far.send(over_tcp(known(&near, near_at.addr, "10.9.0.1", Contact::OnDemand)));
        near.send(over_tcp(known(&far, far_at.addr, "10.9.0.2", Contact::Always)));
        await_up(&mut near_events);
        await_up(&mut far_events);

        if told_to {
            near.send(PlaneCommand::Stop { drain: Duration::ZERO });
        } else {
            drop(near);
        }

        let mut told = 0;
        let down = wait_for(&mut far_events, |event| {
            told += usize::from(matches!(event, PlaneEvent::Stats { .. }));
            told > 5 || matches!(event, PlaneEvent::Node(NodeEvent::SessionDown { .. }))
        });
        assert!(
            matches!(
                down,
                Some(PlaneEvent::Node(NodeEvent::SessionDown { reason: DownReason::Closed, .. }))
            ),
            "{down:?}"
        );
    }
}

#[test]
fn goodbye_comes_to_who_is_behind_a_relay_that_another_thread_has() {
    // Of whoever ends, the second thread has the relay and the first one who is behind it.
    let relay = keys().next().unwrap();
    let is_first = |key: &u8| shard_of(&PrivateKey::from_bytes([*key; 32]).public_key(), 2) == 0;
    let mut others = (1..).filter(is_first);
    let key = PrivateKey::from_bytes([relay; 32]);
    let hub_config = NodeConfig { private_key: key, relay: true, ..config() };
    let listen = "127.0.0.1:0".parse().unwrap();
    let (hub, _hub_events, hub_at) = Plane::start("hub", &hub_config, listen, None, 1).unwrap();
    let [(near, mut near_events, _), (far, mut far_events, _)] =
        [(); 2].map(|()| start_as(others.next().unwrap(), 2));
    for (node, overlay) in [(&near, "10.9.0.1"), (&far, "10.9.0.2")] {
        hub.send(behind(node, overlay, Contact::Await, None));
        let known = known(&hub, hub_at.addr, "10.9.0.3", Contact::Always);
        node.send(PlaneCommand::Node(known));
    }
    await_up(&mut near_events);
    await_up(&mut far_events);

    far.send(behind(&near, "10.9.0.1", Contact::Await, Some(&hub)));
    near.send(behind(&far, "10.9.0.2", Contact::Always, Some(&hub)));
    await_up(&mut near_events);
    await_up(&mut far_events);
    far.send(PlaneCommand::Stop { drain: Duration::ZERO });

    let (mut told, parted) = (0, far.public_key());
    let down = wait_for(&mut near_events, |event| {
        told += usize::from(matches!(event, PlaneEvent::Stats { .. }));
        let closed = NodeEvent::SessionDown { peer: parted, reason: DownReason::Closed };
        told > 5 || matches!(event, PlaneEvent::Node(event) if *event == closed)
    });
    assert!(matches!(down, Some(PlaneEvent::Node(_))), "{down:?}");
}

/// Has a node know another one that it reaches by a relay, if at all
fn behind(
    peer: &PlaneHandle,
    overlay: &str,
    contact: Contact,
    relay: Option<&PlaneHandle>,
) -> PlaneCommand {
    let nowhere = "127.0.0.1:9".parse().unwrap();
    let NodeCommand::SetPeer(config) = known(peer, nowhere, overlay, contact) else {
        panic!("no peer")
    };
    let relay = relay.map(PlaneHandle::public_key);
    PlaneCommand::Node(NodeCommand::SetPeer(PeerConfig { endpoints: Vec::new(), relay, ..config }))
}

#[test]
fn connection_is_kept_for_who_has_proven_himself_to_another_thread() {
    let (control, _over) = control();
    let streams = Streams { runtime: control, accept: Choice::Tcp };
    let [(near, mut near_events, near_at), (far, mut far_events, far_at)] = pair_over(&streams);
    let (near_tun, far_tun) = (serve(&near, 2), serve(&far, 2));
    far.send(over_tcp(known(&near, near_at.addr, "10.9.0.1", Contact::OnDemand)));
    near.send(over_tcp(known(&far, far_at.addr, "10.9.0.2", Contact::Always)));
    await_up(&mut near_events);
    await_up(&mut far_events);

    // More than a guest may send.
    for number in (0..=255).chain(0..=255) {
        while rustix::io::write(&near_tun[0], &packet(number)).is_err() {
            thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(read(&far_tun), Some(packet(number)));
    }
}

/// Starts two planes of two threads that accept connections, each of which has the other one in its second
fn pair_over(streams: &Streams) -> [Started; 2] {
    let mut keys = keys();
    [(); 2].map(|()| {
        let private_key = PrivateKey::from_bytes([keys.next().unwrap(); 32]);
        let config = NodeConfig { private_key, ..config() };
        let listen = "127.0.0.1:0".parse().unwrap();
        Plane::start("home", &config, listen, Some(streams), 2).unwrap()
    })
}

fn over_tcp(command: NodeCommand) -> PlaneCommand {
    let NodeCommand::SetPeer(config) = command else { panic!("no peer") };
    PlaneCommand::Node(NodeCommand::SetPeer(PeerConfig { carrier: Choice::Tcp, ..config }))
}

/// Runs tasks in another thread until what is returned beside is dropped
fn control() -> (tokio::runtime::Handle, tokio::sync::oneshot::Sender<()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let handle = runtime.handle().clone();
    let (over, end) = tokio::sync::oneshot::channel();
    thread::spawn(move || runtime.block_on(end));
    (handle, over)
}

#[test]
fn all_threads_end_when_one_does() {
    let (plane, mut events, _) = start_as(1, 3);

    let stop = PlaneCommand::Stop { drain: Duration::ZERO };
    plane.threads.inbox(1).push(inbox::Order::Command(stop));

    let end = wait_for(&mut events, |event| matches!(event, PlaneEvent::Ended(_)));
    assert!(matches!(end, Some(PlaneEvent::Ended(None))), "{end:?}");
}

#[test]
fn stranger_gets_no_kcp_session_by_naming_another_thread() {
    let (control, _over) = control();
    let streams = Streams { runtime: control, accept: Choice::Kcp };
    let listen = "127.0.0.1:0".parse().unwrap();
    let (_plane, _events, at) = Plane::start("home", &config(), listen, Some(&streams), 2).unwrap();
    let stranger = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    stranger.set_read_timeout(Some(Duration::from_millis(100))).unwrap();

    // The first segment of a conversation, with a message that has an index of the second thread.
    let mut segment = vec![7, 0, 0, 0, 81, 0, 0, 1];
    segment.extend([0; 12]);
    segment.extend(42_u32.to_le_bytes());
    segment.extend([0, 40, 4, 0, 0, 0, 0, 0, 0, 1]);
    segment.extend([0; 32]);
    for _ in 0..20 {
        stranger.send_to(&segment, ("127.0.0.1", at.addr.port() + 1)).unwrap();
        assert!(stranger.recv(&mut [0; 100]).is_err(), "somebody talks to it");
    }
}
