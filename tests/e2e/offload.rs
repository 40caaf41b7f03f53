//! A kernel that loses what UDP segmentation offload cuts.

use fastvpn_tests::lab::load::Transfer;
use fastvpn_tests::lab::{Star, StarPlan};
use fastvpn_tests::link::{LinkConfig, Trains, mbit, ms};

use crate::runner::cases;
use crate::support::{LONG, await_path};

cases![
    kernel_that_loses_what_it_cuts_is_noticed_and_costs_hardly_any_speed,
    shallow_queue_does_not_end_offload,
];

fn link() -> LinkConfig {
    LinkConfig::new().delay(ms(10)).rate(mbit(20)).queue(ms(50))
}

/// Two peers with a direct path over such links, IPv4 as only that shows what was cut, and the Mbit/s of a transfer between them
fn transfer(link: LinkConfig) -> (Star, f64) {
    let star = Star::up(StarPlan { link, ..StarPlan::default() }).unwrap();
    star.peers[0].reaches(star.ip(1), LONG).unwrap();
    await_path(&star.peers[0], "peer2", "direct", LONG);
    let (from, to) = (&star.peers[0].host, &star.peers[1].host);
    let transfer = Transfer::start(from, to, star.at(1, 7500), 10 << 20).unwrap();
    let rate = transfer.finish(LONG).unwrap().mbits();
    println!("{rate:.1} Mbit/s");
    (star, rate)
}

/// Whether the first peer lets the kernel cut what goes to the second one
fn offload(star: &Star) -> bool {
    star.peers[0].peer("peer2").unwrap()["path"]["offload"] == true
}

fn kernel_that_loses_what_it_cuts_is_noticed_and_costs_hardly_any_speed() {
    let (sound, full) = transfer(link());
    assert!(offload(&sound), "offload is not used on a sound link");

    let (star, rate) = transfer(link().trains(Trains::Beheaded));

    let lost = star.lab.wire.counters(star.peer_ports[0], star.peer_ports[1]).lost.items;
    assert!(lost > 0, "no train was cut");
    assert!(
        star.peers[0].logs_soon("UDP segmentation offload is refused here, or mangles or loses")
    );
    star.peers[0]
        .await_peer("peer2", "without offload", LONG, |peer| peer["path"]["offload"] == false)
        .unwrap();
    assert!(rate >= 0.8 * full, "{rate:.1} Mbit/s instead of {full:.1}");
}

fn shallow_queue_does_not_end_offload() {
    let (star, _) = transfer(link().queue_bytes(4_500));

    assert!(offload(&star));
}
