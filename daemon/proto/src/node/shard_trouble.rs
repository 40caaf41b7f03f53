//! Tests of what goes wrong between shards, or is made to.

use super::shards::{Pair, addr};
use super::testing::{config, millis, secs};
use super::*;

#[test]
fn stream_carrier_goes_on_after_what_was_handed_over_got_lost_for_a_while() {
    for carrier in [Carrier::Tcp, Carrier::Kcp] {
        let mut pair = Pair::new(carrier);
        pair.send(0);
        pair.run(secs(1));
        assert_eq!(pair.packets, [0, 1]);

        pair.nodes[0].lose_handovers(true);
        for _ in 0..300 {
            pair.send(0);
            pair.run(millis(1));
        }
        pair.nodes[0].lose_handovers(false);
        pair.run(secs(3));
        let before = pair.packets[1];
        for _ in 0..300 {
            pair.send(0);
            pair.run(millis(1));
        }
        pair.run(secs(1));

        let came = pair.packets[1] - before;
        assert!(came >= 300, "{carrier}: {came}");
    }
}

#[test]
fn message_that_names_another_shard_proves_nothing_by_that() {
    let mut pair = Pair::new(Carrier::Tcp);
    let arrival =
        Arrival { carrier: Carrier::Tcp, remote: addr(1), local: None, ecn: Ecn::Incapable };
    for index in 0..16 {
        let mut data = [0; 40];
        (data[0], data[7]) = (4, index);
        let proved = pair.nodes[0].handle_message(arrival, &mut data, pair.now);
        assert_eq!(proved, Credential::Nothing);
        let mut shards = Node::shards(&config(0, 0, false), 3, pair.now);
        let proved = shards[0].handle_message(arrival, &mut data, pair.now);
        assert!(proved <= Credential::Nothing, "{proved:?}");
    }
}
