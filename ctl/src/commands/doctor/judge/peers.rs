//! How well the peers of a network are reached.

use fastvpn_dbus::tree::{Network, Peer, Tree};

use super::{Finding, Level};
use crate::commands::peers::title;

/// Judges the ways to all peers of a network
pub(super) fn peers(network: &Network, tree: &Tree) -> Vec<Finding> {
    let known = &network.facts;
    let mut peers: Vec<_> =
        tree.peers.values().filter(|peer| tree.network_of(peer) == known.name).collect();
    peers.sort_by_cached_key(|peer| title(peer));
    let with = |wanted: &dyn Fn(&Peer) -> bool| -> Vec<&Peer> {
        peers.iter().copied().filter(|peer| wanted(peer)).collect()
    };
    let mut findings = vec![Finding::ok("peers", census(&peers))];
    let mut tell = |peers: Vec<&Peer>, level, check, message: &str, remedy: &str| {
        if !peers.is_empty() {
            let message = format!("{message}: {}", names(&peers));
            findings.push(Finding::new(level, check, message, remedy));
        }
    };
    let in_session = |peer: &Peer| peer.facts.state == "connected";
    tell(
        with(&|peer| peer.facts.state == "unresponsive"),
        Level::Warning,
        "unresponsive",
        "had a session, and silent now",
        "they may be off, or their link be down; it goes on by itself when they are back",
    );
    tell(
        with(&|peer| in_session(peer) && peer.facts.path_kind == "relayed"),
        Level::Warning,
        "relayed",
        "reached through the hub only, which is a detour",
        "let UDP in at one of the two: set listen to a fixed port there, and open or forward it",
    );
    tell(
        with(&|peer| in_session(peer) && peer.facts.path_kind == "tcp"),
        Level::Warning,
        "tcp",
        "reached over TCP, which is slow where the link loses packets",
        "unless carrier = \"tcp\" is wanted, UDP is blocked on the way: let it pass",
    );
    tell(
        with(&|peer| in_session(peer) && (1..SMALL).contains(&peer.facts.path_mtu)),
        Level::Note,
        "path-mtu",
        "reached by messages of the smallest size only",
        "a path that is a minute old and still so drops larger messages; all works, not as fast",
    );
    tell(
        with(&|peer| {
            in_session(peer) && peer.facts.path_kind == "direct" && !peer.facts.path_offload
        }),
        Level::Note,
        "offload",
        "reached by messages that leave one by one, as UDP segmentation offload mangles or loses them",
        "Linux 7.0 to 7.1.4 and some virtual network cards do so: another kernel or driver costs the \
         processor less; all works",
    );
    findings
}

fn census(peers: &[&Peer]) -> String {
    let of = |state: &str| peers.iter().filter(|peer| peer.facts.state == state).count();
    let (all, connected, offline) = (peers.len(), of("connected"), of("offline"));
    let offline = if offline > 0 { format!(", {offline} offline") } else { String::new() };
    match all {
        0 => "no peers are known".to_owned(),
        1 => format!("1 peer is known, {connected} in a session{offline}"),
        _ => format!("{all} peers are known, {connected} in a session{offline}"),
    }
}

/// Names of peers, not too many
fn names(peers: &[&Peer]) -> String {
    let shown: Vec<_> = peers.iter().take(NAMES).map(|peer| title(peer)).collect();
    let more = peers.len().saturating_sub(NAMES);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{more}", shown.join(", "))
}

/// Message size from which on the search for a larger one has had some success, in bytes
const SMALL: u32 = 1252;
/// Names that are told
const NAMES: usize = 5;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::doctor::judge::testing::{bad, said};
    use crate::render::samples::{network, tokyo, tree};

    #[test]
    fn direct_paths_are_ok() {
        let findings = peers(&network(), &tree());

        assert_eq!(bad(&findings), []);
        assert_eq!(findings[0].message, "1 peer is known, 1 in a session");
    }

    #[test]
    fn detours_and_silence_are_told_with_names() {
        let mut tree = tree();
        for (name, state, kind) in [
            ("a", "unresponsive", "direct"),
            ("b", "connected", "relayed"),
            ("c", "connected", "tcp"),
            ("d", "idle", ""),
        ] {
            let mut peer = tokyo();
            peer.facts.name = name.to_owned();
            peer.facts.state = state.to_owned();
            peer.facts.path_kind = kind.to_owned();
            tree.peers.insert(format!("/{name}"), peer);
        }

        let findings = peers(&network(), &tree);

        let expected = ["unresponsive", "relayed", "tcp"].map(|check| (Level::Warning, check));
        assert_eq!(bad(&findings), expected);
        assert!(said(&findings).contains("a detour: b\n"), "{findings:?}");
    }

    #[test]
    fn many_names_are_shortened() {
        let peers = vec![tokyo(); 7];

        let names = names(&peers.iter().collect::<Vec<_>>());

        assert_eq!(names, "tokyo, tokyo, tokyo, tokyo, tokyo and 2 more");
    }

    #[test]
    fn offload_that_harms_is_noted() {
        let mut tree = tree();
        for peer in tree.peers.values_mut() {
            peer.facts.path_offload = false;
        }

        assert_eq!(bad(&peers(&network(), &tree)), [(Level::Note, "offload")]);
    }

    #[test]
    fn path_that_carries_the_least_only_is_noted() {
        let mut tree = tree();
        for peer in tree.peers.values_mut() {
            peer.facts.path_mtu = 1232;
        }

        assert_eq!(bad(&peers(&network(), &tree)), [(Level::Note, "path-mtu")]);
    }
}
