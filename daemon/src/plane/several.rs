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
    let (near_tun, far_tun) = (serve(&near, 1), serve(&far, 1));
    far.send(PlaneCommand::Node(known(&near, near_at.addr, "10.9.0.1", Contact::OnDemand)));
    near.send(PlaneCommand::Node(known(&far, far_at.addr, "10.9.0.2", Contact::Always)));
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
        let mut keys = keys();
        let [(near, mut near_events, near_at), (far, mut far_events, far_at)] = [(); 2].map(|()| {
            let private_key = PrivateKey::from_bytes([keys.next().unwrap(); 32]);
            let config = NodeConfig { private_key, ..config() };
            let listen = "127.0.0.1:0".parse().unwrap();
            Plane::start("home", &config, listen, Some(&streams), 2).unwrap()
        });
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
