//! Tests of what goes wrong between shards, or is made to.

use super::shards::Pair;
use super::testing::{millis, secs};
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
