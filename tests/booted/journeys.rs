//! The journeys of the README, followed word by word.
//!
//! Each machine of a journey is a system on which nothing of fastvpn is installed, or, where it is one
//! behind an office, a bare host. On each system a user who may use `sudo` types what the README says
//! on a terminal, in a home directory with the packages, and what is seen is compared.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use fastvpn_tests::cases;
use fastvpn_tests::journeys::{Journey, Step, invitation, journeys};
use fastvpn_tests::lab::booted::System;
use fastvpn_tests::lab::booted::tree::{PACKAGES, Tree};
use fastvpn_tests::lab::{Host, Lab, outer_v4, outer_v6, until};

use crate::support::SOON;

cases![
    desktop_with_network_manager,
    hub_in_the_cloud_with_offices_behind_it,
    two_servers_and_a_laptop,
];

/// The machines of a journey, by the names in its prompts
struct Machines {
    #[allow(dead_code, reason = "kept for its wire")]
    lab: Lab,
    systems: BTreeMap<String, System>,
    hosts: BTreeMap<String, Arc<Host>>,
}

/// Where a person is who types
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Place {
    /// Elsewhere, as by ssh
    Remote,
    /// Before the machine
    Seat,
}

/// What a command came to
struct Outcome {
    done: bool,
    text: String,
}

fn two_servers_and_a_laptop() {
    let mut machines = Machines::boot(&["tokyo", "paris", "laptop"]);

    machines.follow("Two servers and a laptop", Place::Remote);

    // revoked at the end: nobody talks to it any more
    let paris = "ping -c 1 -W 1 172.16.97.2";
    let reached = || machines.system("laptop").answer(paris).unwrap().code == 0;
    assert!(until(SOON, || !reached()), "laptop still reaches paris");
    // and what was made is there after a restart
    machines.system("paris").sh("systemctl restart fastvpnd").unwrap();
    machines.system("paris").await_ping("172.16.97.1", SOON).unwrap();
}

fn hub_in_the_cloud_with_offices_behind_it() {
    let mut machines = Machines::boot(&["cloud", "rome", "oslo"]);
    machines.office("rome", "192.168.10");
    machines.office("oslo", "192.168.20");

    machines.follow("A hub in the cloud, with offices behind it", Place::Remote);

    let from_oslo = machines.type_at("oslo-pc", "ping -c 1 -W 5 192.168.10.10", Place::Remote);
    assert!(from_oslo.done, "{}", from_oslo.text);
}

fn desktop_with_network_manager() {
    let mut machines = Machines::boot(&["server", "desktop"]);
    machines.desk("desktop", "server");

    machines.follow("A desktop, with NetworkManager", Place::Seat);

    let desktop = machines.system("desktop");
    let active = desktop.sh("nmcli --terse --fields NAME,TYPE connection show --active").unwrap();
    assert!(active.lines().any(|line| line == "work:vpn"), "{active}");
    desktop.sh("fastvpnctl leave work").unwrap();
    let left = desktop.sh("nmcli --terse --fields NAME connection show").unwrap();
    assert!(!left.lines().any(|line| line == "work"), "{left}");
}

impl Machines {
    /// Boots systems that know each other's public names, with a user on each
    fn boot(names: &[&str]) -> Self {
        let lab = Lab::new().unwrap();
        let mut hosts_file = "127.0.0.1 localhost\n".to_owned();
        for (name, number) in names.iter().zip(FIRST..) {
            let (v4, v6) = (outer_v4(number), outer_v6(number));
            hosts_file += &format!("{v4} {name}.example.net {name}\n{v6} {name}.example.net\n");
        }
        let started: Vec<_> = std::thread::scope(|scope| {
            let lab = &lab;
            let start = |(name, number)| {
                scope.spawn(move || System::boot(lab, Tree::Plain, name, number).unwrap())
            };
            let started: Vec<_> = names.iter().copied().zip(FIRST..).map(start).collect();
            started.into_iter().map(|system| system.join().unwrap()).collect()
        });
        for system in &started {
            system.write("/etc/hosts", 0o644, &hosts_file).unwrap();
            system.write("/etc/sudoers.d/user", 0o440, SUDOERS).unwrap();
            system
                .sh(&format!(
                    "useradd --create-home --shell /bin/bash {USER} && cp {PACKAGES}/*.deb /home/{USER}"
                ))
                .unwrap();
        }
        let systems = started.into_iter().map(|system| (system.name().to_owned(), system));
        Self { lab, systems: systems.collect(), hosts: BTreeMap::new() }
    }

    /// Puts a network behind a system: the system is number 1 in it, a machine `NAME-pc` number 10
    fn office(&mut self, router: &str, network: &str) {
        let name = format!("{router}-pc");
        let pc = Host::new(&name).unwrap();
        // a system may set no more than its own network
        let writable = "mount --bind /proc/sys/net /proc/sys/net && \
                        mount -o remount,bind,rw /proc/sys/net";
        self.system(router).sh(writable).unwrap();
        // it takes addresses away from interfaces that appear, if it sees them late; and it is no part
        // of a router
        self.system(router).sh("systemctl stop NetworkManager").unwrap();
        let behind = &self.system(router).host;
        behind.veth("office0", &pc, "eth0").unwrap();
        let [gateway, own] = [1, 10].map(|number| format!("{network}.{number}").parse().unwrap());
        behind.add_address("office0", gateway, 24).unwrap();
        pc.add_address("eth0", own, 24).unwrap();
        pc.must("ip", &["route", "add", "default", "via", &gateway.to_string()], "").unwrap();
        self.hosts.insert(name, Arc::new(pc));
    }

    /// Gives a system a seat for a person, and NetworkManager a way to another system
    fn desk(&self, name: &str, other: &str) {
        let (desk, other) = (self.system(name), self.system(other));
        // a seat without virtual terminals has room for a session of its own
        desk.sh("mount --bind /run/systemd/inaccessible/dir /sys/devices/virtual/tty/tty0;
                systemctl restart systemd-logind")
            .unwrap();
        // a VPN of NetworkManager's needs another connection of its below
        other.sh("systemctl stop NetworkManager").unwrap();
        other.host.veth("lan0", &desk.host, "lan0").unwrap();
        other.host.add_address("lan0", "203.0.113.1".parse().unwrap(), 24).unwrap();
        let hosts = format!("203.0.113.1 {0}.example.net\n203.0.113.2 {name}\n", other.name());
        desk.write("/etc/hosts", 0o644, &hosts).unwrap();
        desk.sh(
            "nmcli connection add type ethernet ifname lan0 con-name lan ipv6.method disabled \
                ipv4.method manual ipv4.addresses 203.0.113.2/24 ipv4.gateway 203.0.113.1 && \
                nmcli connection up lan",
        )
        .unwrap();
    }

    /// Does what a journey says, in order
    fn follow(&mut self, title: &str, place: Place) {
        let journey = journey(title);
        let mut invited = None;
        for step in &journey.steps {
            let command = step.command(invited.as_deref()).unwrap();
            let text = self.take(step, &command, place);
            println!("{}$ {command}\n{text}", step.host);
            invited = invitation(&text).map(str::to_owned).or(invited);
        }
    }

    /// Types a command, and compares what is seen
    fn take(&self, step: &Step, command: &str, place: Place) -> String {
        // who looks too early looks again
        let looks = LOOKS.iter().any(|look| command.starts_with(look));
        let patience = if looks { SOON } else { Duration::ZERO };
        let mut outcome = None;
        let fits = until(patience, || {
            let now = self.type_at(&step.host, command, place);
            let fits = now.done && step.fits(&now.text);
            outcome = Some(now);
            fits
        });
        let Outcome { done, text } = outcome.unwrap();
        let shown = step.shown.join("\n");
        assert!(
            fits,
            "README.md:{}: {}$ {command}\n{text}\n--- done: {done}; shown in the README is\n{shown}",
            step.line, step.host
        );
        text
    }

    /// Types a command on a machine
    fn type_at(&self, machine: &str, command: &str, place: Place) -> Outcome {
        if let Some(system) = self.systems.get(machine) {
            let typed = format!("stty cols 120 rows 50; cd; {command}");
            // no exec: `script` must have no child but its own, and the session has one
            let script = format!(
                "script --quiet --return --flush --command {} /dev/null; exit $?",
                quoted(&typed)
            );
            let user = format!("--uid={USER}");
            let mut options = vec!["--property=PAMName=login", &user, "--setenv=TERM=dumb"];
            if place == Place::Seat {
                options.push("--setenv=XDG_SEAT=seat0");
            }
            let answer = system.unit(&options, &script).unwrap();
            Outcome { done: answer.code == 0, text: seen(&(answer.stdout + &answer.stderr)) }
        } else if let Some(host) = self.hosts.get(machine) {
            let mut shell = host.command("sh");
            shell.args(["-c", command]);
            let output = host.output(shell).unwrap();
            let text = [output.stdout, output.stderr].concat();
            let text = String::from_utf8_lossy(&text).into_owned();
            Outcome { done: output.status.success(), text }
        } else {
            panic!("the test has no machine {machine}");
        }
    }

    fn system(&self, name: &str) -> &System {
        &self.systems[name]
    }
}

fn journey(title: &str) -> Journey {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let journeys = journeys(&fs::read_to_string(readme).unwrap()).unwrap();
    let titles: Vec<_> = journeys.iter().map(|journey| journey.title.clone()).collect();
    let found = journeys.into_iter().find(|journey| journey.title == title);
    found.unwrap_or_else(|| panic!("no {title:?} in the README: {titles:?}"))
}

/// What is left on a terminal's lines: neither colours nor what was written over
fn seen(text: &str) -> String {
    let mut lines = String::new();
    for line in text.lines() {
        let last = line.rsplit("\u{1b}[K").next().unwrap_or(line);
        let mut rest = last.trim_end_matches('\r');
        while let Some((before, after)) = rest.split_once("\u{1b}[") {
            lines += before;
            rest = after.trim_start_matches(|c: char| !c.is_ascii_alphabetic());
            rest = rest.get(1..).unwrap_or_default();
        }
        lines += rest;
        lines.push('\n');
    }
    // so a terminal echoes the end of what is typed, which is at once
    lines.replace("^@", "")
}

/// One word of a shell
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

const USER: &str = "ann";
const SUDOERS: &str = "ann ALL=(ALL) NOPASSWD: ALL\n";
/// Number of the first system, underlay
const FIRST: u8 = 1;
/// Commands that only look
const LOOKS: [&str; 5] = [
    "ping ",
    "fastvpnctl doctor",
    "fastvpnctl member list",
    "fastvpnctl peers",
    "fastvpnctl status",
];
