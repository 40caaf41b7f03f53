//! What networks may not have in common on one machine.

use std::net::{IpAddr, SocketAddr};

use fastvpn_proto::node::Choice;

use super::check::Checked;
use super::problem::Problem;

/// Compares each network with those before it
pub(super) fn check(networks: &[Checked]) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (index, later) in networks.iter().enumerate() {
        for earlier in &networks[..index] {
            interface(earlier, later, &mut problems);
            listen(earlier, later, &mut problems);
            addresses(earlier, later, &mut problems);
            suffix(earlier, later, &mut problems);
        }
    }
    problems
}

fn interface(earlier: &Checked, later: &Checked, problems: &mut Vec<Problem>) {
    if earlier.network.interface == later.network.interface {
        let what = format!(
            "{} is the interface of network {} as well",
            later.network.interface, earlier.network.name
        );
        let remedy = "write another name for one of them";
        problems.push(problem(later, later.interface_line, "interface", what, remedy));
    }
}

fn listen(earlier: &Checked, later: &Checked, problems: &mut Vec<Problem>) {
    let (one, other) = (earlier.network.listen, later.network.listen);
    if one.port() == other.port() && other.port() != 0 && meet(one, other) {
        let what = format!("{other} and {one}, of network {}, collide", earlier.network.name);
        let remedy = "write another port for one of them";
        problems.push(problem(later, later.listen_line, "listen", what, remedy));
    }
    let above = takes_kcp(earlier) == Some(other.port());
    if (above || takes_kcp(later) == Some(one.port())) && meet(one, other) {
        let what = format!(
            "{other} and {one}, of network {}, are neighbours, and the lower one takes KCP on the port above",
            earlier.network.name
        );
        let remedy =
            "leave a port between them, or write carrier = \"udp\" or \"tcp\" for the lower one";
        problems.push(problem(later, later.listen_line, "listen", what, remedy));
    }
}

/// Returns the port on which a network takes KCP
fn takes_kcp(network: &Checked) -> Option<u16> {
    let port = network.network.listen.port();
    match network.network.carrier {
        Choice::Auto | Choice::Kcp => port.checked_add(1).filter(|_| port != 0),
        Choice::Udp | Choice::Tcp => None,
    }
}

/// Tells whether two sockets of one port would get each other's messages
fn meet(one: SocketAddr, other: SocketAddr) -> bool {
    let all = |wide: IpAddr, narrow: IpAddr| match wide {
        // one socket for both families
        IpAddr::V6(wide) => wide.is_unspecified(),
        IpAddr::V4(wide) => wide.is_unspecified() && narrow.is_ipv4(),
    };
    let (one, other) = (one.ip(), other.ip());
    one == other || all(one, other) || all(other, one)
}

fn addresses(earlier: &Checked, later: &Checked, problems: &mut Vec<Problem>) {
    for (own, line) in later.network.addresses.iter().zip(&later.address_lines) {
        if let Some(other) = earlier.network.addresses.iter().find(|other| other.overlaps(own)) {
            let what = format!("{own} overlaps {other} of network {}", earlier.network.name);
            let remedy = "no packet could tell the two networks apart; choose other addresses";
            problems.push(problem(later, *line, "address", what, remedy));
        }
    }
}

fn suffix(earlier: &Checked, later: &Checked, problems: &mut Vec<Problem>) {
    let Some(suffix) = later.network.dns.as_ref() else { return };
    if earlier.network.dns.as_ref() == Some(suffix) {
        let what = format!("{suffix} is the suffix of network {} as well", earlier.network.name);
        let remedy = "a name would mean two nodes; write another one, or dns = false";
        problems.push(problem(later, later.suffix_line, "dns_suffix", what, remedy));
    }
}

fn problem(network: &Checked, line: usize, key: &str, what: String, remedy: &str) -> Problem {
    Problem {
        line: Some(line),
        key: Some(key.to_owned()),
        ..Problem::of_file(&network.network.file, what, remedy)
    }
}
