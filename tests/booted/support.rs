//! What several cases need.

use std::time::Duration;

use fastvpn_tests::lab::booted::System;
use fastvpn_tests::lab::booted::tree::Tree;
use fastvpn_tests::lab::{Lab, inner_v4, inner_v6, outer_v4};

/// A hub and two peers as three systems, configured by hand as the manual says
pub(crate) struct Trio {
    /// Underlay and overlay number 1
    pub(crate) hub: System,
    /// Underlay and overlay numbers 11 and 12
    pub(crate) peers: [System; 2],
    /// Where they are; its wire decides what the links between them are like
    pub(crate) lab: Lab,
}

/// Name of the network
pub(crate) const NETWORK: &str = "home";
/// Time for something that has to start, and to wait for a few round trips
pub(crate) const SOON: Duration = Duration::from_secs(30);
/// Numbers of the three systems
pub(crate) const NUMBERS: [u8; 3] = [1, 11, 12];

impl Trio {
    /// Boots three systems that have nothing to do yet
    pub(crate) fn boot(tree: Tree) -> Self {
        let lab = Lab::new().unwrap();
        let boot = |name, number| System::boot(&lab, tree, name, number).unwrap();
        let [hub, peer1, peer2] = std::thread::scope(|scope| {
            let names = ["hub", "peer1", "peer2"];
            let started =
                [0, 1, 2].map(|each| scope.spawn(move || boot(names[each], NUMBERS[each])));
            started.map(|system| system.join().unwrap())
        });
        Self { hub, peers: [peer1, peer2], lab }
    }

    /// Boots three systems with fastvpn installed, and brings the network up
    pub(crate) fn up() -> Self {
        let trio = Self::boot(Tree::Installed);
        trio.configure();
        for system in trio.systems() {
            system.sh("systemctl restart fastvpnd").unwrap();
        }
        trio.await_up();
        trio
    }

    /// The hub, then the peers
    pub(crate) fn systems(&self) -> [&System; 3] {
        [&self.hub, &self.peers[0], &self.peers[1]]
    }

    /// Makes keys and configurations
    pub(crate) fn configure(&self) {
        let keys = self.systems().map(|system| {
            let key = "/var/lib/fastvpn/keys/home";
            system.sh(&format!("fastvpnctl keygen {key}")).unwrap().trim().to_owned()
        });
        write_config(&self.hub, &hub_config(&keys[1..]));
        for peer in &self.peers {
            let hub = format!("endpoint = \"{}:8796\"\npublic_key = \"{}\"", outer_v4(1), keys[0]);
            write_config(peer, &format!("role = \"peer\"\n{OWN_KEY}\n[[hub]]\n{hub}\n"));
        }
    }

    /// Waits until the network is up everywhere and packets pass
    pub(crate) fn await_up(&self) {
        for system in self.systems() {
            system.await_state(NETWORK, "up", SOON).unwrap();
        }
        self.peers[0].await_ping(&inner_v4(NUMBERS[2]).to_string(), SOON).unwrap();
    }
}

/// A system with fastvpn installed that is a hub without members, its network up
pub(crate) fn alone() -> (Lab, System) {
    let lab = Lab::new().unwrap();
    let system = System::boot(&lab, Tree::Installed, "alone", 1).unwrap();
    system.sh("fastvpnctl keygen /var/lib/fastvpn/keys/home").unwrap();
    write_config(&system, &hub_config(&[]));
    system.sh("systemctl reload fastvpnd").unwrap();
    system.await_state(NETWORK, "up", SOON).unwrap();
    (lab, system)
}

/// Configuration of a hub whose members have these keys
pub(crate) fn hub_config(members: &[String]) -> String {
    let (v4, v6) = (inner_v4(0), inner_v6(0));
    let mut text = format!("role = \"hub\"\nsubnet = [\"{v4}/24\", \"{v6}/64\"]\n{OWN_KEY}");
    let (v4, v6) = (inner_v4(1), inner_v6(1));
    text += &format!("address = [\"{v4}/24\", \"{v6}/64\"]\n");
    for (index, key) in members.iter().enumerate() {
        let (v4, v6) = (inner_v4(NUMBERS[index + 1]), inner_v6(NUMBERS[index + 1]));
        let name = format!("peer{}", index + 1);
        text += &format!(
            "\n[[member]]\nname = \"{name}\"\npublic_key = \"{key}\"\naddress = [\"{v4}\", \"{v6}\"]\n"
        );
    }
    text
}

/// Writes the configuration of the network, for the daemon to read
pub(crate) fn write_config(system: &System, text: &str) {
    let path = format!("/etc/fastvpn/{NETWORK}.toml");
    system.write(&path, 0o640, text).unwrap();
    system.sh(&format!("chown root:fastvpn {path}")).unwrap();
}

const OWN_KEY: &str = "private_key_file = \"/var/lib/fastvpn/keys/home\"\n";
