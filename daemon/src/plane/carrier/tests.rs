//! Tests of the plane's end of connections.

use fastvpn_proto::crypto::PublicKey;
use tokio::sync::mpsc::error::TryRecvError;

use super::*;
use crate::plane::tests::config;

#[test]
fn first_message_that_another_thread_looks_at_opens_a_connection_once_that_says_so() {
    let now = Instant::ZERO;
    let mut carriers = Carriers::new(None, addr(0)).unwrap();
    let mut node = Node::shards(&config(), 2, now).remove(0);
    let mut data = [0; 40];
    (data[0], data[7]) = (4, 1);
    let mut knock = |port| {
        let pass = carriers.ground.door.admit(addr(port).ip()).unwrap();
        let (opened, connection) =
            carriers.ground.open(Carrier::Kcp, addr(port), None, pass, Some(data.to_vec()));
        carriers.ground.exchange.tell(opened);
        carriers.receive(&mut node, now);
        assert!(node.poll_handover().is_some());
        connection
    };
    let (mut friend, mut stranger) = (knock(1), knock(2));
    for orders in [&mut friend.orders, &mut stranger.orders] {
        assert_eq!(*orders.verdict.borrow(), Credential::Nothing);
        assert_eq!(orders.queue.try_recv().err(), Some(TryRecvError::Empty), "not sent away");
    }

    carriers.on_proved(Carrier::Kcp, addr(1));
    carriers.ground.close(stranger.id);
    carriers.receive(&mut node, now);

    assert_eq!(*friend.orders.verdict.borrow(), Credential::Identity);
    let transmit = Transmit {
        carrier: Carrier::Kcp,
        peer: PublicKey::from_bytes([0; 32]),
        remote: addr(1),
        local: None,
        ecn: Ecn::Incapable,
        segment: None,
        offload: true,
    };
    carriers.send(&transmit, &data, &mut node, now);
    assert!(friend.orders.queue.try_recv().is_ok());
    assert_eq!(stranger.orders.queue.try_recv().err(), Some(TryRecvError::Disconnected));
    assert!(carriers.dialled.may_dial(Carrier::Kcp, addr(2), now), "its address may be forged");
}

fn addr(port: u16) -> SocketAddr {
    ([192, 0, 2, 1], port).into()
}
