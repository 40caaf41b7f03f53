//! Nodes have names: with systemd-resolved, and without.

use fastvpn_tests::cases;
use fastvpn_tests::lab::{inner_v4, inner_v6};

use crate::support::{NETWORK, NUMBERS, SOON, Trio, alone};

cases![
    names_work_in_every_program_of_the_system,
    refusal_of_polkit_is_told_and_the_network_goes_on,
];

fn names_work_in_every_program_of_the_system() {
    let trio = Trio::up();
    let (peer, v4, v6) = (&trio.peers[0], inner_v4(NUMBERS[2]), inner_v6(NUMBERS[2]));
    let known = "resolvectl query --legend=no peer2.home.fastvpn";

    let answer = peer.await_sh(known, SOON).unwrap();
    assert!(answer.contains(&v4.to_string()) && answer.contains(&v6.to_string()), "{answer}");
    let back = peer.sh(&format!("resolvectl query --legend=no {v4}")).unwrap();
    assert!(back.contains("peer2.home.fastvpn"), "{back}");
    peer.sh("ping -c 1 -W 5 peer2.home.fastvpn && ping -c 1 -W 5 hub.home.fastvpn").unwrap();
    peer.sh("getent hosts peer1.home.fastvpn").unwrap();
    assert_ne!(peer.answer("resolvectl query oslo.home.fastvpn").unwrap().code, 0);
    assert_eq!(peer.await_state(NETWORK, "up", SOON).unwrap()["dns"]["state"], "announced");

    // nothing but these domains is asked for here
    let link = peer.sh("resolvectl status fvpn-home").unwrap();
    assert!(link.contains("-DefaultRoute") && link.contains("~home.fastvpn"), "{link}");
    assert!(link.contains("-LLMNR"), "{link}");

    // who restarts is told again; who stops takes everything along
    peer.sh("systemctl restart systemd-resolved").unwrap();
    peer.await_sh(known, SOON).unwrap();
    peer.sh("systemctl stop systemd-resolved").unwrap();
    peer.await_sh("fastvpnctl status home | grep -q 'to use them: dig @'", SOON).unwrap();
    assert_ne!(peer.answer("systemctl is-active systemd-resolved").unwrap().code, 0);
    peer.sh("systemctl start systemd-resolved").unwrap();
    peer.await_sh(known, SOON).unwrap();
    peer.sh("fastvpnctl disconnect home").unwrap();
    assert!(!peer.sh("resolvectl domain").unwrap().contains("fastvpn"));
}

fn refusal_of_polkit_is_told_and_the_network_goes_on() {
    let (_lab, system) = alone();
    system
        .sh("rm /usr/share/polkit-1/rules.d/org.fastvpn.rules && systemctl restart polkit")
        .unwrap();

    system.sh("systemctl restart fastvpnd").unwrap();

    let refused = "fastvpnctl status home | grep 'systemd-resolved refused: SetLinkDefaultRoute'";
    system.await_sh(refused, SOON).unwrap();
    system.await_state(NETWORK, "up", SOON).unwrap();
    let doctor = system.answer("fastvpnctl doctor home").unwrap().stdout;
    assert!(doctor.contains("org.fastvpn.rules"), "{doctor}");
}
