//! A hub and two peers as services of three systems.

use fastvpn_tests::cases;
use fastvpn_tests::lab::inner_v6;

use crate::support::{NUMBERS, SOON, Trio};

cases![hub_and_peers_come_up_at_boot_and_packets_pass,];

fn hub_and_peers_come_up_at_boot_and_packets_pass() {
    let trio = Trio::up();

    trio.peers[0].await_ping(&inner_v6(NUMBERS[2]).to_string(), SOON).unwrap();
    for system in trio.systems() {
        let enabled = system.sh("systemctl is-enabled fastvpnd").unwrap();
        assert_eq!(enabled.trim(), "enabled");
        let failed = system.sh("systemctl list-units --failed --no-legend --plain").unwrap();
        assert_eq!(failed, "", "{}", system.name());
        let status =
            system.sh("systemctl show --property=StatusText,ActiveState fastvpnd").unwrap();
        assert!(status.contains("ActiveState=active"), "{status}");
        assert!(status.contains("1 network up"), "{status}");
    }
}
