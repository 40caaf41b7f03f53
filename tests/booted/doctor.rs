//! `fastvpnctl doctor` among real services.

use fastvpn_tests::cases;
use fastvpn_tests::lab::inner_v4;

use crate::support::{NETWORK, SOON, alone};

cases![what_is_well_is_ok_and_what_is_not_comes_with_a_remedy,];

fn what_is_well_is_ok_and_what_is_not_comes_with_a_remedy() {
    let (_lab, system) = alone();

    let well = system.ctl(&["doctor"]).unwrap();
    assert_eq!(well.code, 0, "{well}");
    for line in ["fastvpnd ", "/dev/net/tun is there", "polkit decides", "home: it is up, as a hub"]
    {
        let line = format!("ok       {line}");
        assert!(well.stdout.contains(&line), "{line}: {well}");
    }
    assert!(!well.stdout.contains("problem"), "{well}");
    system.sh("test -s /usr/share/fastvpn/schema/doctor.json").unwrap();

    // Somebody else has a part of the overlay's addresses: another VPN, on whose device
    // NetworkManager looks for no DHCP server, as it does on a cable.
    let taken = inner_v4(200);
    system
        .sh(&format!(
            "ip tuntap add dev taken0 mode tun &&
             ip address add {taken}/30 dev taken0 && ip link set taken0 up"
        ))
        .unwrap();
    // the daemon notices in its own time
    let noticed = format!("fastvpnctl doctor {NETWORK} | grep -q 'goes to taken0'");
    system.await_sh(&noticed, SOON).unwrap();
    let hidden = system.ctl(&["doctor", NETWORK]).unwrap();
    assert_eq!(hidden.code, 0, "a warning: {hidden}");
    assert!(hidden.stdout.contains("goes to taken0 by a route to"), "{hidden}");

    system.sh("systemctl stop fastvpnd").unwrap();
    let stopped = system.ctl(&["--json", "doctor"]).unwrap();
    assert_eq!(stopped.code, 1, "{stopped}");
    assert!(stopped.stdout.contains("systemctl enable --now fastvpnd"), "{stopped}");
    let active = system.answer("systemctl is-active fastvpnd").unwrap();
    assert_eq!(active.stdout, "inactive\n", "to look is no reason to start it");
}
