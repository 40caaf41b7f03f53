//! Whether a network is up, and what is in its way.

use fastvpn_dbus::tree::{Network, Tree};

use super::names::names;
use super::peers::peers;
use super::{Finding, Level};
use crate::commands::doctor::facts::{Firewall, MachineFacts, SurroundingFacts};
use crate::commands::doctor::prefix::Prefix;
use crate::render::{bytes, decimal_bytes};

/// What a network is judged by
#[derive(Clone, Copy, Debug)]
pub(in crate::commands::doctor) struct Surroundings<'a> {
    pub(in crate::commands::doctor) tree: &'a Tree,
    pub(in crate::commands::doctor) machine: &'a MachineFacts,
    pub(in crate::commands::doctor) facts: &'a SurroundingFacts,
}

/// Judges one network
pub(in crate::commands::doctor) fn network(
    network: &Network,
    around: Surroundings<'_>,
) -> Vec<Finding> {
    let mut findings = vec![state(network)];
    findings.extend(hub_name(network, around.facts));
    if network.facts.state != "down" {
        findings.extend(peers(network, around.tree));
        findings.extend(interface(network, around.facts));
        findings.extend(names(network));
        findings.extend(forwarding(network, around.machine));
        findings.extend(pending(network, around.facts));
        findings.extend(overlaps(network, around));
        findings.extend(buffers(network));
        findings.extend(overflow(network, around.machine));
        findings.extend(quota(network));
        findings.extend(firewall(network, around.machine));
    }
    let name = &network.facts.name;
    findings.into_iter().map(|finding| finding.of(name)).collect()
}

/// There is nothing to judge
pub(in crate::commands::doctor) fn no_networks() -> Finding {
    Finding::new(
        Level::Note,
        "networks",
        "no networks are configured",
        "with an invitation run: fastvpnctl join INVITATION; to make a network of your own: \
         fastvpnctl hub init NAME --subnet ADDRESS/LENGTH",
    )
}

fn state(network: &Network) -> Finding {
    let known = &network.facts;
    let detail = |otherwise: &str| {
        if known.detail.is_empty() { otherwise.to_owned() } else { known.detail.clone() }
    };
    let is = |level, message: String, remedy: String| Finding::new(level, "state", message, remedy);
    match known.state.as_str() {
        "up" if known.hub_key.is_empty() => Finding::ok("state", "it is up, as a hub"),
        "up" => {
            Finding::ok("state", format!("it is up, and the hub {} answers", known.hub_endpoint))
        }
        "down" => is(
            Level::Note,
            "it is down".to_owned(),
            format!("if it should be up, run: fastvpnctl connect {}", known.name),
        ),
        "connecting" => is(
            Level::Warning,
            format!("it is still connecting: {}", detail("the hub was not heard yet")),
            reach(&known.hub_endpoint),
        ),
        "hub-lost" => is(
            Level::Problem,
            detail("the hub does not answer any more"),
            reach(&known.hub_endpoint),
        ),
        "failed" => is(
            Level::Problem,
            format!("it cannot come up: {}", detail("for no known reason")),
            format!("see: journalctl -u fastvpnd FASTVPN_NETWORK={} -p warning", known.name),
        ),
        other => Finding::ok("state", format!("it is {other}")),
    }
}

/// What may keep a hub from answering
fn reach(endpoint: &str) -> String {
    if endpoint.is_empty() {
        return "see: journalctl -u fastvpnd -p warning".to_owned();
    }
    let port = endpoint.rsplit(':').next().unwrap_or(endpoint);
    format!(
        "see whether fastvpnd runs there, whether UDP and TCP port {port} are let in, and whether \
         the hub knows this node's key"
    )
}

fn hub_name(network: &Network, facts: &SurroundingFacts) -> Option<Finding> {
    let (name, found) = facts.hub_name.as_ref()?;
    let error = match found {
        Ok(addresses) => {
            let addresses = addresses.join(", ");
            return Some(Finding::ok("hub-name", format!("{name} has the addresses {addresses}")));
        }
        Err(error) => error,
    };
    // What was found earlier is kept in use.
    let level = if network.facts.hub_alive { Level::Warning } else { Level::Problem };
    Some(Finding::new(
        level,
        "hub-name",
        format!("the hub's name {name} has no address: {error}"),
        "see /etc/resolv.conf, or write the address itself into endpoint",
    ))
}

fn interface(network: &Network, facts: &SurroundingFacts) -> Vec<Finding> {
    let known = &network.facts;
    let mut findings = Vec::new();
    let has_ipv6 = known.addresses.iter().any(|address| address.contains(':'));
    if has_ipv6 && known.mtu < IPV6_MTU {
        findings.push(Finding::new(
            Level::Problem,
            "mtu",
            format!("its MTU is {}, and IPv6 needs {IPV6_MTU}", known.mtu),
            "raise mtu in its file",
        ));
    }
    if facts.network_manager && known.apply != "caller" {
        findings.push(Finding::new(
            Level::Warning,
            "network-manager",
            format!("NetworkManager takes {} for its own, and may change it", known.interface),
            format!(
                "tell it not to: a file in /etc/NetworkManager/conf.d with the lines \
                 [device-{0}], match-device=interface-name:{0} and managed=0, then: \
                 systemctl reload NetworkManager",
                known.interface
            ),
        ));
    }
    findings
}

/// Machines that were invited and wait for somebody
fn pending(network: &Network, facts: &SurroundingFacts) -> Option<Finding> {
    let first = facts.pending.first()?;
    Some(Finding::new(
        Level::Note,
        "approval",
        format!("not let in before somebody approves: {}", facts.pending.join(", ")),
        format!("run: fastvpnctl member approve {first} --network {}", network.facts.name),
    ))
}

/// Whether the machine passes on what is for the subnets behind it
fn forwarding(network: &Network, machine: &MachineFacts) -> Vec<Finding> {
    let of = |ipv4: bool, forwards: Option<bool>, name: &str, switch: &str| {
        let behind = network.facts.subnets.iter();
        let behind: Vec<_> =
            behind.filter(|subnet| subnet.contains(':') != ipv4).cloned().collect();
        let subnets = behind.join(", ");
        match forwards {
            _ if behind.is_empty() => None,
            None => None,
            Some(true) => Some(Finding::ok("forwarding", format!("{name} goes on to {subnets}"))),
            Some(false) => Some(Finding::new(
                Level::Problem,
                "forwarding",
                format!("{subnets} is behind this machine, which does not forward {name}"),
                format!(
                    "after a look at the firewall run: sysctl -w {switch}=1, and for the next \
                     start: cp /usr/share/fastvpn/fastvpn-forwarding.conf \
                     /etc/sysctl.d/60-fastvpn-forwarding.conf"
                ),
            )),
        }
    };
    let (ipv4, ipv6) = machine.forwards;
    let findings = [
        of(true, ipv4, "IPv4", "net.ipv4.ip_forward"),
        of(false, ipv6, "IPv6", "net.ipv6.conf.all.forwarding"),
    ];
    findings.into_iter().flatten().collect()
}

/// Routes of other interfaces that take away what belongs to the network
fn overlaps(network: &Network, around: Surroundings<'_>) -> Vec<Finding> {
    let known = &network.facts;
    let own = known.addresses.iter().map(|address| (address, "the network's own"));
    let members = around.tree.peers.values();
    let members = members.filter(|peer| around.tree.network_of(peer) == known.name);
    let behind = members.flat_map(|peer| {
        peer.facts.subnets.iter().map(|subnet| (subnet, peer.facts.name.as_str()))
    });
    let mut findings = Vec::new();
    for (text, whose) in own.chain(behind) {
        let Some(prefix) = Prefix::parse(text) else { continue };
        let taken = around.machine.routes.iter().find(|route| {
            route.interface != known.interface && route.to.is_ordinary() && prefix.covers(&route.to)
        });
        let Some(taken) = taken else { continue };
        let whose = if whose == "the network's own" {
            format!("its subnet {prefix}")
        } else {
            format!("the subnet {prefix} behind {whose}")
        };
        let part = if taken.to == prefix { "that" } else { "a part of that" };
        findings.push(Finding::new(
            Level::Warning,
            "routes",
            format!("{whose}: {part} goes to {} by a route to {}", taken.interface, taken.to),
            "give one of the two other addresses; what is on that interface hides the network's",
        ));
    }
    findings
}

fn buffers(network: &Network) -> Option<Finding> {
    let (receive, send) = (network.facts.receive_buffer, network.facts.send_buffer);
    if receive == 0 {
        return None;
    }
    let message = format!(
        "the system keeps up to {} of messages until they are read, and {} until they leave",
        bytes(receive),
        bytes(send)
    );
    if receive.min(send) >= BUFFER_ENOUGH {
        return Some(Finding::ok("buffers", message));
    }
    Some(Finding::new(
        Level::Warning,
        "buffers",
        format!("{message}, which costs speed on long paths"),
        format!(
            "let fastvpnd have CAP_NET_ADMIN, or run: sysctl -w net.core.rmem_max={BUFFER} \
             net.core.wmem_max={BUFFER}; then restart it"
        ),
    ))
}

fn overflow(network: &Network, machine: &MachineFacts) -> Option<Finding> {
    let lost = network.figures.statistics.get("wire-rx-overflowed").copied().unwrap_or(0);
    let arrived = network.figures.statistics.get("wire-rx-messages").copied().unwrap_or(0);
    if lost == 0 {
        return None;
    }
    let remedy = match machine.rmem_max {
        Some(largest) if largest < BUFFER => format!(
            "find out what else uses the processor; if fastvpnd has no CAP_NET_ADMIN, also run: \
             sysctl -w net.core.rmem_max={BUFFER}"
        ),
        Some(_) | None => "find out what else uses the processor".to_owned(),
    };
    // Now and then one does no harm that could be felt.
    let level = if lost.saturating_mul(1000) > arrived { Level::Warning } else { Level::Note };
    Some(Finding::new(
        level,
        "overflow",
        format!("the system dropped {lost} of {} messages unread", arrived.saturating_add(lost)),
        remedy,
    ))
}

fn quota(network: &Network) -> Option<Finding> {
    let (all, used) = (network.facts.quota, network.figures.quota_used);
    if all == 0 {
        return None;
    }
    let share = used as f64 / all as f64;
    let message = format!(
        "{} of {} a {} are sent",
        decimal_bytes(used),
        decimal_bytes(all),
        network.facts.quota_period
    );
    let (level, remedy) = match share {
        share if share >= 1.0 => (Level::Problem, "it is slowed to 64 kbit/s; raise quota"),
        share if share >= 0.9 => (Level::Warning, "nothing is sent twice any more; raise quota"),
        share if share >= 0.8 => (Level::Warning, "send less, or raise quota in its file"),
        _ => return Some(Finding::ok("quota", message)),
    };
    Some(Finding::new(level, "quota", message, remedy))
}

/// What has to let others in: of a hub only, a peer opens its own way
fn firewall(network: &Network, machine: &MachineFacts) -> Vec<Finding> {
    let port = network.facts.listen.rsplit(':').next().unwrap_or_default();
    if network.facts.role != "hub" || port.is_empty() {
        return Vec::new();
    }
    let of = |firewall: &Firewall| {
        let (who, remedy) = match firewall {
            Firewall::Firewalld => (
                "firewalld",
                format!(
                    "unless done: firewall-cmd --permanent --add-port={port}/udp \
                     --add-port={port}/tcp && firewall-cmd --reload"
                ),
            ),
            Firewall::Nftables => (
                "the firewall nftables",
                format!("see whether `nft list ruleset` lets UDP and TCP port {port} in"),
            ),
            Firewall::Ufw(Some(rules)) if rules.contains(&format!("--dport {port} ")) => {
                return Finding::ok("firewall", format!("ufw has rules for port {port}"));
            }
            Firewall::Ufw(rules) => {
                let unless = if rules.is_some() { "" } else { "unless done: " };
                ("ufw", format!("{unless}ufw allow {port}"))
            }
        };
        let message = format!("{who} is on, and has to let UDP and TCP port {port} in");
        Finding::new(Level::Note, "firewall", message, remedy)
    };
    machine.firewalls.iter().map(of).collect()
}

/// Least MTU of an interface with IPv6 (RFC 8200, section 5)
const IPV6_MTU: u32 = 1280;
/// Socket buffer that the daemon asks for, in bytes
const BUFFER: u64 = 4 << 20;
/// Socket buffer from which on it is content
const BUFFER_ENOUGH: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::doctor::facts::Route;
    use crate::commands::doctor::judge::testing::{bad, said};
    use crate::render::samples;

    #[test]
    fn network_that_is_well_is_ok() {
        let findings = judge(|_, _, _| {});

        assert_eq!(bad(&findings), [(Level::Warning, "quota")], "82 % in the sample");
        assert!(findings.iter().all(|finding| finding.network.as_deref() == Some("office")));
        assert!(said(&findings).contains("the hub hub.example.net:8796 answers"));
    }

    #[test]
    fn state_says_how_bad_it_is_and_what_helps() {
        for (state, level, remedy) in [
            ("down", Level::Note, "fastvpnctl connect office"),
            ("connecting", Level::Warning, "UDP and TCP port 8796"),
            ("hub-lost", Level::Problem, "UDP and TCP port 8796"),
            ("failed", Level::Problem, "journalctl -u fastvpnd FASTVPN_NETWORK=office"),
        ] {
            let findings = judge(|network, _, _| {
                network.facts.state = state.to_owned();
                network.facts.detail = "because".to_owned();
                network.facts.quota = 0;
            });

            assert_eq!(bad(&findings), [(level, "state")], "{state}");
            assert!(said(&findings).contains(remedy), "{findings:?}");
            assert_eq!(said(&findings).contains("because"), state != "down", "{findings:?}");
        }
    }

    #[test]
    fn name_without_an_address_is_worse_while_the_hub_is_silent() {
        let with = |alive| {
            judge(|network, _, facts| {
                network.facts.quota = 0;
                network.facts.hub_alive = alive;
                facts.hub_name = Some(("hub.example.net".to_owned(), Err("no such".to_owned())));
            })
        };

        assert_eq!(bad(&with(true)), [(Level::Warning, "hub-name")]);
        assert_eq!(bad(&with(false)), [(Level::Problem, "hub-name")]);
    }

    #[test]
    fn buffers_that_the_system_keeps_small_are_a_warning() {
        let with = |receive, send| {
            judge(|network, _, _| {
                network.facts.quota = 0;
                network.facts.receive_buffer = receive;
                network.facts.send_buffer = send;
            })
        };

        assert_eq!(bad(&with(4 << 20, 4 << 20)), []);
        assert_eq!(bad(&with(0, 0)), [], "it does not listen, or is older than this");
        for small in [with(212_992, 4 << 20), with(4 << 20, 212_992)] {
            assert_eq!(bad(&small), [(Level::Warning, "buffers")]);
            assert!(said(&small).contains("208.0 KiB"), "{small:?}");
            assert!(said(&small).contains("net.core.rmem_max=4194304"), "{small:?}");
        }
    }

    #[test]
    fn route_of_another_interface_that_hides_the_network_is_found() {
        let with = |interface: &str, to: &str| {
            judge(|network, machine, _| {
                network.facts.quota = 0;
                let to = Prefix::parse(to).unwrap();
                machine.routes = vec![Route { interface: interface.to_owned(), to }];
            })
        };

        assert_eq!(bad(&with("eth0", "172.16.97.0/24")), [(Level::Warning, "routes")]);
        assert!(said(&with("eth0", "172.16.97.64/26")).contains("a part of that goes to eth0"));
        assert!(said(&with("br0", "192.168.7.0/24")).contains("192.168.7.0/24 behind tokyo"));
        for (interface, to) in
            [("eth0", "0.0.0.0/0"), ("eth0", "172.16.0.0/12"), ("fvpn-office", "172.16.97.0/24")]
        {
            assert_eq!(bad(&with(interface, to)), [], "{interface} {to}");
        }
    }

    #[test]
    fn dropped_messages_matter_where_they_are_many() {
        let with = |lost, arrived| {
            judge(|network, machine, _| {
                network.facts.quota = 0;
                machine.rmem_max = Some(212_992);
                let statistics = &mut network.figures.statistics;
                statistics.insert("wire-rx-overflowed".to_owned(), lost);
                statistics.insert("wire-rx-messages".to_owned(), arrived);
            })
        };

        assert_eq!(bad(&with(0, 10)), []);
        assert_eq!(bad(&with(1, 1_000_000)), [(Level::Note, "overflow")]);
        let many = with(50, 1000);
        assert_eq!(bad(&many), [(Level::Warning, "overflow")]);
        assert!(said(&many).contains("net.core.rmem_max=4194304"), "{many:?}");
    }

    #[test]
    fn quota_warns_before_it_is_used_up() {
        let with = |used| judge(|network, _, _| network.figures.quota_used = used);

        assert_eq!(bad(&with(799_999)), []);
        assert_eq!(bad(&with(800_000)), [(Level::Warning, "quota")]);
        assert_eq!(bad(&with(1_000_000)), [(Level::Problem, "quota")]);
    }

    #[test]
    fn subnet_behind_a_machine_needs_forwarding_of_its_kind() {
        let with = |ipv4, ipv6| {
            judge(|network, machine, _| {
                network.facts.quota = 0;
                network.facts.subnets = vec!["192.168.8.0/24".to_owned()];
                machine.forwards = (ipv4, ipv6);
            })
        };

        assert_eq!(bad(&with(Some(true), Some(false))), []);
        assert_eq!(bad(&with(None, None)), []);
        let off = with(Some(false), Some(true));
        assert_eq!(bad(&off), [(Level::Problem, "forwarding")]);
        assert!(said(&off).contains("sysctl -w net.ipv4.ip_forward=1"), "{off:?}");
    }

    #[test]
    fn machines_that_wait_for_approval_are_named() {
        let findings = judge(|network, _, facts| {
            network.facts.quota = 0;
            facts.pending = vec!["tokyo".to_owned(), "osaka".to_owned()];
        });

        assert_eq!(bad(&findings), [(Level::Note, "approval")]);
        assert!(said(&findings).contains("approves: tokyo, osaka\n"), "{findings:?}");
        assert!(said(&findings).contains("member approve tokyo --network office"));
    }

    #[test]
    fn firewall_concerns_a_hub_and_what_is_open_is_ok() {
        let with = |role: &str, firewall| {
            judge(|network, machine, _| {
                network.facts.quota = 0;
                network.facts.role = role.to_owned();
                machine.firewalls = vec![firewall];
            })
        };

        assert_eq!(bad(&with("peer", Firewall::Ufw(None))), []);
        assert_eq!(bad(&with("hub", Firewall::Ufw(None))), [(Level::Note, "firewall")]);
        let open = "-A ufw-user-input -p udp --dport 8796 -j ACCEPT".to_owned();
        assert_eq!(bad(&with("hub", Firewall::Ufw(Some(open)))), []);
        assert!(said(&with("hub", Firewall::Firewalld)).contains("--add-port=8796/udp"));
    }

    #[test]
    fn interface_needs_room_for_ipv6_and_to_be_left_alone() {
        let findings = judge(|network, _, facts| {
            network.facts.quota = 0;
            network.facts.mtu = 1200;
            network.facts.addresses.push("fd00::1/64".to_owned());
            facts.network_manager = true;
        });

        let expected = [(Level::Problem, "mtu"), (Level::Warning, "network-manager")];
        assert_eq!(bad(&findings), expected);
    }

    /// Judges the sample network after `change`
    fn judge(
        change: impl FnOnce(&mut Network, &mut MachineFacts, &mut SurroundingFacts),
    ) -> Vec<Finding> {
        let mut tree = samples::tree();
        let (mut machine, mut facts) = (MachineFacts::default(), SurroundingFacts::default());
        let mut office = samples::network();
        change(&mut office, &mut machine, &mut facts);
        let name = fastvpn_dbus::network_path("office").to_string();
        tree.networks.insert(name, office.clone());
        network(&office, Surroundings { tree: &tree, machine: &machine, facts: &facts })
    }
}
