//! Networks as VPN connections of the real NetworkManager.
//!
//! One system is everything: a desk with NetworkManager, whose underlay it manages as well, and in
//! network namespaces of its own a hub and another peer, `tokyo`, with a subnet behind it.

use std::time::Duration;

use fastvpn_tests::cases;
use fastvpn_tests::lab::Lab;
use fastvpn_tests::lab::booted::System;
use fastvpn_tests::lab::booted::tree::{PACKAGES, Tree};

use crate::support::SOON;

cases![
    connection_brings_addresses_routes_and_names,
    connection_goes_down_with_networkmanager_and_with_the_network,
    connection_lives_through_a_restart_of_the_daemon,
    connection_that_fails_says_why,
    connection_of_the_tool_goes_when_the_network_is_left,
    network_that_fastvpnd_runs_is_left_alone,
    networkmanager_that_runs_hears_of_the_package,
    two_networks_are_connected_at_once,
];

fn connection_brings_addresses_routes_and_names() {
    let desk = Desk::new();

    desk.up("home");

    let shown = desk.sh("nmcli -t -f IP4,IP6,GENERAL.STATE connection show home");
    for line in [
        "GENERAL.STATE:activated",
        "IP4.ADDRESS[1]:10.9.0.7/24",
        "IP6.ADDRESS[1]:fd09::7/64",
        "IP4.DNS[1]:10.9.0.7",
    ] {
        assert!(shown.lines().any(|shown| shown.replace('\\', "") == line), "{line}: {shown}");
    }
    assert!(shown.contains("dst = 192.168.7.0/24"), "{shown}");
    let link = desk.sh("ip addr show dev fvpn-home && ip route && ip -6 route");
    for part in [
        "mtu 1400",
        "inet 10.9.0.7/24",
        "inet6 fd09::7/64",
        "192.168.7.0/24 dev fvpn-home",
        "fd07::/64 dev fvpn-home",
        "default via 192.0.2.1 dev v0",
    ] {
        assert!(link.contains(part), "{part}: {link}");
    }
    let device = desk.sh("nmcli -t -f DEVICE,STATE device");
    assert!(device.contains("fvpn-home:unmanaged"), "{device}");
    let names = desk.sh("resolvectl query --legend=no tokyo.home.fastvpn");
    assert!(names.contains("10.9.0.8") && names.contains("fvpn-home"), "{names}");
    assert_eq!(desk.status("home")["state"], "up");
    desk.system.await_ping("tokyo.home.fastvpn", SOON).unwrap();

    desk.sh("nmcli connection down home");

    desk.system.await_state("home", "down", SOON).unwrap();
    desk.gone("fvpn-home");
    desk.no_plugin();
}

fn two_networks_are_connected_at_once() {
    let desk = Desk::new();

    desk.up("home");
    desk.up("six");

    desk.system.await_ping("10.9.0.1", SOON).unwrap();
    desk.system.await_ping("fd0a::1", SOON).unwrap();
    let six = desk.sh("ip addr show dev fvpn-six");
    assert!(six.contains("inet6 fd0a::7/64") && !six.contains("inet "), "{six}");
    desk.sh("nmcli connection down six");
    desk.gone("fvpn-six");
    desk.system.await_ping("10.9.0.1", SOON).unwrap();
}

fn connection_lives_through_a_restart_of_the_daemon() {
    let desk = Desk::new();
    desk.up("home");

    desk.sh("systemctl restart fastvpnd");

    desk.system.await_state("home", "up", SOON).unwrap();
    desk.system.await_ping("10.9.0.8", SOON).unwrap();
    desk.system.await_sh("resolvectl query tokyo.home.fastvpn", SOON).unwrap();
    assert!(desk.active("home"));

    // The hub is found at another address of its: NetworkManager hears of that as well.
    desk.sh("sed -i s/192.0.2.1:/192.0.2.9:/ /etc/fastvpn/home.toml && fastvpnctl reload");
    desk.sh("ip -n hub addr del 192.0.2.1/24 dev v1");
    let plan =
        "busctl get-property org.fastvpn /org/fastvpn/network/home org.fastvpn.Network1 Plan";
    let moved = format!("{plan} | grep -q '\"gateway\" s \"192.0.2.9\"'");
    desk.system.await_sh(&moved, SOON).unwrap();
    desk.system.await_ping("10.9.0.8", SOON).unwrap();
    assert!(desk.active("home"));

    desk.sh("systemctl stop fastvpnd");
    desk.until_inactive("home");
    assert_eq!(desk.system.answer("systemctl is-active fastvpnd").unwrap().stdout, "inactive\n");
}

fn connection_goes_down_with_networkmanager_and_with_the_network() {
    let desk = Desk::new();
    desk.up("home");

    desk.sh("fastvpnctl disconnect home");
    desk.until_inactive("home");
    desk.up("home");
    desk.sh("systemctl restart NetworkManager");

    desk.system.await_state("home", "down", SOON).unwrap();
    desk.gone("fvpn-home");
    desk.no_plugin();
}

fn connection_that_fails_says_why() {
    let desk = Desk::new();
    let up = |name: &str| {
        let answer = desk.system.answer(&format!("nmcli connection up {name}")).unwrap();
        assert_ne!(answer.code, 0, "{name}: {answer}");
        desk.no_plugin();
        answer.stderr
    };
    for (name, data) in [("nowhere", "network=nowhere"), ("mistyped", "netwrk=home")] {
        desk.sh(&format!(
            "nmcli connection add type vpn vpn-type fastvpn con-name {name} vpn.data {data}"
        ));
    }
    let said = |text: &str| {
        let journal = desk.sh("journalctl --boot --unit NetworkManager --output cat");
        assert!(journal.contains(text), "{text}: {journal}");
    };

    let nowhere = up("nowhere");
    assert!(nowhere.contains("invalid"), "{nowhere}");
    said("no network nowhere is configured");
    let mistyped = up("mistyped");
    assert!(mistyped.contains("invalid"), "{mistyped}");
    said("vpn.data has \"netwrk\"");

    desk.sh("fastvpnctl connect home");
    up("home");
    said("network home is in use by fastvpnd itself");
    assert_eq!(desk.status("home")["state"], "up");
    desk.sh("fastvpnctl disconnect home");

    desk.up("home");
    let taken = desk.system.ctl(&["connect", "home"]).unwrap();
    assert!(taken.stderr.contains("NetworkManager"), "{taken}");
    desk.sh("nmcli connection down home");

    desk.sh("echo 'address = [\"10.9.0.99/24\"]' >/root/claim");
    desk.sh("cp -a /etc/fastvpn/home.toml /root/home.toml");
    desk.sh("cat /root/claim /root/home.toml >/etc/fastvpn/home.toml && fastvpnctl reload");
    let refused = up("home");
    // that is how nmcli puts it
    assert!(refused.contains("Invalid secrets"), "{refused}");
    said("failure: login-failed");
    said("the hub gives this peer 10.9.0.7");
    desk.sh("cat /root/home.toml >/etc/fastvpn/home.toml && fastvpnctl reload");

    desk.sh("systemctl stop hub");
    up("home");
    said("does not answer");
    desk.system.await_state("home", "down", SOON).unwrap();
}

fn connection_of_the_tool_goes_when_the_network_is_left() {
    let desk = Desk::new();
    desk.sh("nmcli connection delete home");
    let connections = || desk.sh("nmcli -t -f NAME,TYPE connection show");

    let made = desk.sh("fastvpnctl networkmanager add home");
    assert!(made.contains("home is up, as a VPN connection of NetworkManager"), "{made}");
    desk.system.await_ping("10.9.0.1", SOON).unwrap();
    desk.sh("fastvpnctl networkmanager add home");
    assert_eq!(connections().matches("home:vpn").count(), 1, "{}", connections());
    desk.sh("fastvpnctl networkmanager remove home");
    assert!(!connections().contains("home:vpn"), "{}", connections());
    desk.system.await_state("home", "down", SOON).unwrap();

    let invitation =
        desk.sh(&format!("{ON_HUB} invite laptop --network home --endpoint 192.0.2.1:8796"));
    let join =
        format!("echo '{}' | fastvpnctl join - --name work --networkmanager", invitation.trim());
    desk.sh(&join);
    assert!(connections().contains("work:vpn"), "{}", connections());
    assert!(desk.active("work"));
    desk.system.await_ping("10.9.0.1", SOON).unwrap();
    let config = desk.system.read("/var/lib/fastvpn/networks/work.toml").unwrap();
    assert!(config.contains("autoconnect = false"), "{config}");

    desk.sh("fastvpnctl leave work");
    assert!(!connections().contains("work:vpn"), "{}", connections());
    desk.gone("fvpn-work");
    let nothing = desk.system.ctl(&["networkmanager", "remove", "work"]).unwrap();
    assert_eq!(nothing.code, 1, "{nothing}");
}

fn network_that_fastvpnd_runs_is_left_alone() {
    let desk = Desk::new();

    desk.sh("fastvpnctl connect home");

    let device = desk.sh("nmcli -t -f DEVICE,STATE device");
    assert!(device.contains("fvpn-home:unmanaged"), "{device}");
    let before = desk.sh("ip addr show dev fvpn-home");
    desk.sh("systemctl restart NetworkManager && nm-online --quiet --timeout 5; true");
    let device = desk.sh("nmcli -t -f DEVICE,STATE device");
    assert!(device.contains("fvpn-home:unmanaged"), "{device}");
    assert_eq!(desk.sh("ip addr show dev fvpn-home"), before);
    desk.system.await_ping("10.9.0.1", SOON).unwrap();
}

fn networkmanager_that_runs_hears_of_the_package() {
    let lab = Lab::new().unwrap();
    let system = System::boot(&lab, Tree::Plain, "desk", 1).unwrap();
    let add = |name: &str| {
        let (link, end) = (format!("ip link set {name} up"), format!("{name}.end"));
        let add =
            format!("ip link add {name} type veth peer {end} && ip link set {end} up && {link}");
        system.sh(&add).unwrap();
    };
    let taken = |name: &str| {
        let state = format!("nmcli -t -f DEVICE,STATE device | grep '^{name}:'");
        system.await_sh(&format!("{state} | grep -v unmanaged"), SOON).unwrap();
    };
    add("fvpn-early");
    taken("fvpn-early");
    let process = system.sh("systemctl show -P MainPID NetworkManager").unwrap();

    let install = format!("apt-get -q -y install {PACKAGES}/*.deb 2>&1");
    system.sh(&format!("DEBIAN_FRONTEND=noninteractive {install}")).unwrap();

    assert_eq!(system.sh("systemctl show -P MainPID NetworkManager").unwrap(), process);
    add("fvpn-late");
    add("other");
    taken("other");
    let late = system.sh("nmcli -t -f DEVICE,STATE device | grep '^fvpn-late:'").unwrap();
    assert!(late.contains("unmanaged"), "{late}");
    // the VPN's kind is known as well
    let vpn = "nmcli connection add type vpn vpn-type fastvpn con-name home vpn.data network=home";
    system.sh(vpn).unwrap();
}

/// The system with all that is in it
struct Desk {
    system: System,
    _lab: Lab,
}

impl Desk {
    /// Boots it: the networks `home` and, over IPv6 alone, `six` are down, and connections of
    /// NetworkManager
    fn new() -> Self {
        let lab = Lab::new().unwrap();
        let system = System::boot(&lab, Tree::Installed, "desk", 1).unwrap();
        system.write("/root/world", 0o755, WORLD).unwrap();
        let made = system.unit(&[], "/root/world").unwrap();
        assert_eq!(made.code, 0, "{made}");
        let tokyo =
            format!("{ON_HUB} peers home --json | grep -E '\"state\":\"(idle|connected)\"'");
        system.await_sh(&tokyo, SOON).unwrap();
        Self { system, _lab: lab }
    }

    fn sh(&self, script: &str) -> String {
        self.system.sh(script).unwrap()
    }

    fn up(&self, connection: &str) {
        self.sh(&format!("nmcli connection up {connection}"));
        assert!(self.active(connection));
    }

    fn active(&self, connection: &str) -> bool {
        let active = self.sh("nmcli -t -f NAME connection show --active");
        active.lines().any(|line| line == connection)
    }

    fn until_inactive(&self, connection: &str) {
        let inactive =
            format!("! nmcli -t -f NAME connection show --active | grep -qx {connection}");
        self.system.await_sh(&inactive, Duration::from_secs(40)).unwrap();
    }

    fn gone(&self, interface: &str) {
        self.system.await_sh(&format!("! ip link show dev {interface}"), SOON).unwrap();
    }

    /// Waits until no process of the plugin is left
    fn no_plugin(&self) {
        // by its name, which the kernel cuts: command lines would have that of the shell among them
        self.system.await_sh("! pgrep nm-fastvpn", SOON).unwrap();
    }

    fn status(&self, network: &str) -> serde_json::Value {
        let answer = self.system.ctl(&["status", network, "--json"]).unwrap();
        answer.json().unwrap()["networks"][0].clone()
    }
}

/// The tool for the daemon of the hub, which has a bus of its own
const ON_HUB: &str = "fastvpnctl --bus unix:path=/run/hub.bus";

/// Makes the world around the desk
const WORLD: &str = r#"#!/bin/bash
set -eu
# the underlay, managed by NetworkManager and none of the laboratory's; its far end is the hub's
ip netns add hub
nmcli connection add type veth ifname v0 veth.peer v1 con-name wire \
    ipv4.method manual ipv4.addresses 192.0.2.2/24 ipv4.gateway 192.0.2.1 \
    ipv6.method manual ipv6.addresses 2001:db8:1::2/64 ipv6.gateway 2001:db8:1::1
nmcli connection up wire
ip link set v1 netns hub
for address in 192.0.2.9/24 192.0.2.1/24; do ip -n hub addr add $address dev v1; done
ip -n hub addr add 2001:db8:1::1/64 dev v1 nodad
ip -n hub link set lo up
ip -n hub link set v1 up
# behind the hub: tokyo
ip netns add far
ip link add f0 netns hub type veth peer name f1 netns far
ip -n hub addr add 198.51.100.1/24 dev f0
ip -n far addr add 198.51.100.2/24 dev f1
for side in 'hub f0' 'far f1' 'far lo'; do set -- $side; ip -n $1 link set $2 up; done
ip -n far route add default via 198.51.100.1

mkdir -p /srv/hub /srv/hub-state /srv/far /srv/far-state
key() { fastvpnctl keygen "$1" >"$1.pub"; }
public() { grep -oE '[A-Za-z0-9+/]{43}=' "$1.pub"; }
hub() { # name, port, subnet, address, address of desk, address of tokyo, subnet of tokyo, endpoint
    key /srv/hub/$1.key; key /var/lib/fastvpn/keys/$1; key /srv/far/$1.key
    cat >/srv/hub/$1.toml <<END
role = "hub"
listen = "[::]:$2"
subnet = [$3]
address = [$4]
private_key_file = "/srv/hub/$1.key"
[[member]]
name = "desk"
public_key = "$(public /var/lib/fastvpn/keys/$1)"
address = [$5]
[[member]]
name = "tokyo"
public_key = "$(public /srv/far/$1.key)"
address = [$6]
subnet = [$7]
END
    cat >/etc/fastvpn/$1.toml <<END
role = "peer"
autoconnect = false
private_key_file = "/var/lib/fastvpn/keys/$1"
[[hub]]
endpoint = "$8"
public_key = "$(public /srv/hub/$1.key)"
END
    chown root:fastvpn /etc/fastvpn/$1.toml
    chmod 640 /etc/fastvpn/$1.toml
    nmcli connection add type vpn vpn-type fastvpn con-name $1 vpn.data network=$1
}
hub home 8796 '"10.9.0.0/24", "fd09::/64"' '"10.9.0.1/24", "fd09::1/64"' '"10.9.0.7", "fd09::7"' \
    '"10.9.0.8", "fd09::8"' '"192.168.7.0/24", "fd07::/64"' 192.0.2.1:8796
hub six 8800 '"fd0a::/64"' '"fd0a::1/64"' '"fd0a::7"' '"fd0a::8"' '"fd08::/64"' '[2001:db8:1::1]:8800'
cat >/srv/far/home.toml <<END
role = "peer"
private_key_file = "/srv/far/home.key"
interface = "far-home"
dns = false
[[hub]]
endpoint = "198.51.100.1:8796"
public_key = "$(public /srv/hub/home.key)"
END
systemd-run --quiet --unit=hub-bus dbus-daemon --session --nofork --address=unix:path=/run/hub.bus
for side in 'hub unix:path=/run/hub.bus' 'far unix:path=/nowhere'; do
    set -- $side
    systemd-run --quiet --unit=$1 ip netns exec $1 fastvpnd --config-dir /srv/$1 --state-dir /srv/$1-state --bus $2
done
fastvpnctl reload
"#;
