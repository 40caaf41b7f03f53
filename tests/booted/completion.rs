//! Completion of command lines, by the shells and the installed files.

use std::time::Instant;

use fastvpn_tests::cases;
use fastvpn_tests::lab::booted::System;

use crate::support::{SOON, Trio, alone};

cases![
    bash_offers_networks_peers_and_words,
    fish_offers_networks_peers_and_words,
    shells_are_answered_at_once_while_the_daemon_is_away,
    zsh_offers_networks_at_the_first_key,
];

fn bash_offers_networks_peers_and_words() {
    let trio = Trio::up();
    let [hub, peer, _] = trio.systems();
    peer.await_sh("fastvpnctl peers --json | grep '\"peer2\"'", SOON).unwrap();

    assert_eq!(bash(hub, "fastvpnctl invite --network "), ["home"]);
    // there is nobody to approve
    assert!(bash(hub, "fastvpnctl member approve ").iter().all(|word| word.starts_with("--")));
    assert_eq!(bash(peer, "fastvpnctl status "), ["home"]);
    assert_eq!(bash(peer, "fastvpnctl disconnect h"), ["home"]);
    // it is up, and options come last
    assert_eq!(bash(peer, "fastvpnctl connect "), OPTIONS);
    assert!(bash(peer, "fastvpnctl ping p").contains(&"peer2".to_owned()));
    assert_eq!(bash(peer, "fastvpnctl disc"), ["disconnect"]);
    assert_eq!(bash(peer, "fastvpnctl top --as"), ["--ascii"]);
}

fn fish_offers_networks_peers_and_words() {
    let trio = Trio::up();
    let [_, peer, _] = trio.systems();
    peer.await_sh("fastvpnctl peers --json | grep '\"peer2\"'", SOON).unwrap();
    let fish = |line: &str| peer.sh(&format!("fish --command 'complete -C \"{line}\"'")).unwrap();

    assert_eq!(fish("fastvpnctl status "), "home\tpeer, up\n");
    let peers = fish("fastvpnctl ping ");
    assert!(peers.contains("peer2\thome, 10.97.0.12"), "{peers}");
    assert!(fish("fastvpnctl disc").starts_with("disconnect\t"));
}

fn zsh_offers_networks_at_the_first_key() {
    let (_lab, system) = alone();
    system.write("/root/complete.zsh", 0o644, ZSH).unwrap();

    let screen = system.sh("timeout 30 zsh -f /root/complete.zsh").unwrap();

    assert!(screen.contains("fastvpnctl status home"), "{screen}");
}

fn shells_are_answered_at_once_while_the_daemon_is_away() {
    let (_lab, system) = alone();
    system.sh("systemctl stop fastvpnd").unwrap();

    let start = Instant::now();
    let offered = bash(&system, "fastvpnctl status ");

    assert!(start.elapsed().as_secs() < 5, "{:?}", start.elapsed());
    assert_eq!(offered, OPTIONS);
    // and it was not started for that
    assert_eq!(system.answer("systemctl is-active fastvpnd").unwrap().stdout, "inactive\n");
}

/// What bash offers at the end of a line
fn bash(system: &System, line: &str) -> Vec<String> {
    let words: Vec<_> = line.split(' ').collect();
    let (last, before) = (words[words.len() - 1], words[words.len() - 2]);
    let script = format!(
        "bash -c '. /usr/share/bash-completion/completions/fastvpnctl
            COMP_WORDS=({} \"{last}\") COMP_CWORD={} COMP_TYPE=9
            _clap_complete_fastvpnctl fastvpnctl \"{last}\" {before} &&
            printf \"%s\\n\" \"${{COMPREPLY[@]}}\"'",
        words[..words.len() - 1].join(" "),
        words.len() - 1,
    );
    let offered = system.answer(&script).unwrap();
    assert_eq!((offered.code, offered.stderr.as_str()), (0, ""), "{line}");
    offered.stdout.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

/// What all commands have
const OPTIONS: [&str; 3] = ["--bus", "--json", "--help"];
/// Types a line with a tab in a zsh that has completed nothing before
const ZSH: &str = r#"
zmodload zsh/zpty
zpty shell zsh -f -i
zpty -w shell 'PS1= ZLE_RPROMPT_INDENT=0; autoload -Uz compinit; compinit -u -D'
zpty -w shell 'print re""ady'
zpty -r -m shell said '*ready*'
zpty -w -n shell $'fastvpnctl status \t'
zpty -r -m shell said '*home*'
print -r -- "${said//$'\r'/}"
"#;
