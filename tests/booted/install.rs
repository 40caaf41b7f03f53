//! The packages, installed with apt on a system that runs: what comes, what stays, what goes.

use std::collections::BTreeSet;

use fastvpn_tests::cases;
use fastvpn_tests::lab::Lab;
use fastvpn_tests::lab::booted::System;
use fastvpn_tests::lab::booted::tree::{PACKAGES, Tree};
use fastvpn_tests::lab::inner_v4;

use crate::support::{NETWORK, NUMBERS, SOON, Trio, hub_config, write_config};

cases![
    bus_starts_the_service_for_whoever_calls,
    installed_service_runs_at_once_and_at_boot,
    purge_leaves_nothing_and_removal_keeps_state,
    upgrade_restarts_what_runs_and_nothing_else,
];

fn installed_service_runs_at_once_and_at_boot() {
    let (_lab, system) = plain();

    install(&system);

    assert_eq!(system.sh("systemctl is-active fastvpnd").unwrap(), "active\n");
    assert_eq!(system.sh("systemctl is-enabled fastvpnd").unwrap(), "enabled\n");
    // the policy of the bus is in force for everybody
    let status = system.answer_as("nobody", "fastvpnctl status").unwrap();
    assert_eq!(status.code, 0, "{status}");
    assert_eq!(system.sh("stat -c '%A %U %G' /etc/fastvpn").unwrap(), "drwxr-x--- root fastvpn\n");
    let state = system.sh("stat -c '%A %U %G' /var/lib/fastvpn/keys").unwrap();
    assert_eq!(state, "drwx------ fastvpn fastvpn\n");
    let process = system.sh("ps -o user= -p $(systemctl show -P MainPID fastvpnd)").unwrap();
    assert_eq!(process, "fastvpn\n");
    for file in [
        "/usr/share/man/man1/fastvpnctl.1.gz",
        "/usr/share/man/man7/fastvpn.7.gz",
        "/usr/share/dbus-1/interfaces/org.fastvpn.Manager1.xml",
        "/usr/share/bash-completion/completions/fastvpnctl",
        "/usr/share/zsh/vendor-completions/_fastvpnctl",
        "/usr/share/fish/vendor_completions.d/fastvpnctl.fish",
    ] {
        assert!(system.has(file), "{file}");
    }
    assert_eq!(failed_units(&system), "");
}

fn bus_starts_the_service_for_whoever_calls() {
    let (_lab, system) = plain();
    install(&system);
    system.sh("systemctl stop fastvpnd").unwrap();

    let version = "busctl get-property org.fastvpn /org/fastvpn org.fastvpn.Manager1 Version";
    let answer = system.answer_as("nobody", version).unwrap();

    assert_eq!(answer.code, 0, "{answer}");
    assert_eq!(system.sh("systemctl is-active fastvpnd").unwrap(), "active\n");
}

fn upgrade_restarts_what_runs_and_nothing_else() {
    let trio = Trio::up();
    let [hub, upgraded, stopped] = trio.systems();
    stopped.sh("systemctl stop fastvpnd && systemctl disable fastvpnd").unwrap();
    let pid = |system: &System| system.sh("systemctl show -P MainPID fastvpnd").unwrap();
    let before = pid(upgraded);

    for system in [upgraded, stopped] {
        system.sh(&format!("{APT} --reinstall install {PACKAGES}/*.deb 2>&1")).unwrap();
    }

    assert_ne!(pid(upgraded), before);
    upgraded.await_state(NETWORK, "up", SOON).unwrap();
    upgraded.await_ping(&inner_v4(NUMBERS[0]).to_string(), SOON).unwrap();
    assert_eq!(pid(stopped), "0\n");
    assert_eq!(stopped.answer("systemctl is-enabled fastvpnd").unwrap().stdout, "disabled\n");
    assert_eq!(failed_units(hub), "");
}

fn purge_leaves_nothing_and_removal_keeps_state() {
    let (_lab, system) = plain();
    let before = files(&system);
    install(&system);
    system.sh("fastvpnctl keygen /var/lib/fastvpn/keys/home").unwrap();
    write_config(&system, &hub_config(&[]));
    system.sh("systemctl reload fastvpnd").unwrap();
    system.await_state(NETWORK, "up", SOON).unwrap();
    let ours = "$(dpkg-query -W -f '${Package}\\n' fastvpn network-manager-fastvpn 2>/dev/null)";

    system.sh(&format!("{APT} remove {ours} 2>&1")).unwrap();

    assert!(system.has("/etc/fastvpn/home.toml") && system.has("/var/lib/fastvpn/keys/home"));
    assert!(!system.has("/usr/bin/fastvpnd"));
    assert_eq!(system.sh("ip -brief link show | grep -c fvpn; true").unwrap(), "0\n");

    system.sh(&format!("{APT} purge {ours} 2>&1")).unwrap();

    let left: Vec<_> = files(&system).difference(&before).cloned().collect();
    assert_eq!(left, [""; 0]);
    for (what, script) in [
        ("units", "systemctl list-units --all --plain --no-legend '*fastvpn*'"),
        ("unit files", "systemctl list-unit-files --no-legend '*fastvpn*'"),
        ("names on the bus", "busctl list --activatable --no-legend | grep fastvpn; true"),
        ("failed units", "systemctl list-units --failed --plain --no-legend"),
    ] {
        assert_eq!(system.sh(script).unwrap_or_default(), "", "{what}");
    }
}

/// A system without fastvpn
fn plain() -> (Lab, System) {
    let lab = Lab::new().unwrap();
    let system = System::boot(&lab, Tree::Plain, "alone", 1).unwrap();
    (lab, system)
}

fn install(system: &System) {
    system.sh(&format!("{APT} install {PACKAGES}/*.deb 2>&1")).unwrap();
}

/// All files but those of packages' and the system's own book-keeping
fn files(system: &System) -> BTreeSet<String> {
    let list = system.sh("find / -xdev").unwrap();
    let kept = |file: &&str| !KEPT.iter().any(|kept| file.starts_with(kept));
    list.lines().filter(kept).map(str::to_owned).collect()
}

fn failed_units(system: &System) -> String {
    system.sh("systemctl list-units --failed --no-legend --plain").unwrap()
}

/// apt as scripts call it
const APT: &str = "DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends";
/// Where systemd, dpkg, apt and the list of users, which keeps ours, remember things
const KEPT: [&str; 10] = [
    "/etc/.pwd.lock",
    "/etc/group-",
    "/etc/gshadow-",
    "/etc/passwd-",
    "/etc/shadow-",
    "/var/cache/",
    "/var/lib/NetworkManager/",
    "/var/lib/dpkg/",
    "/var/lib/apt/",
    "/var/log/",
];
