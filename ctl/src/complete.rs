//! Completion of command lines: what the shells offer, with the networks and peers there are.
//!
//! A shell that completes runs this program with `COMPLETE` set, and prints what it answers; without
//! words, it answers with what makes the shell do so, which packages install.
//!
//! # Contract
//!
//! - An answer takes [`PATIENCE`] at most, and says nothing where the daemon cannot be asked. It never
//!   starts the daemon.
//! - No name is offered that a shell could take for more than a word, whoever chose it.

use std::ffi::OsStr;
use std::mem;
use std::time::Duration;

use clap::{Arg, Command, CommandFactory};
use clap_complete::CompleteEnv;
use clap_complete::engine::CompletionCandidate;
use fastvpn_dbus::tree::{Peer, Tree};
use fastvpn_dbus::types::{MemberAnswer, NetworkFacts, NetworkState, Role};
use fastvpn_dbus::{BUS_NAME, Bus, NetworkProxy, network_path};
use tokio::time::timeout;
use zbus::Connection;
use zbus::fdo::DBusProxy;
use zbus::names::BusName;

use crate::args::Arguments;
use crate::render::plain;

/// Answers a shell that completes a command line, and ends the program; returns if there is none
pub(crate) fn answer() {
    CompleteEnv::with_factory(command).bin(PROGRAM).completer(PROGRAM).complete();
}

/// The command line; its options are offered last, unless one was begun
fn command() -> Command {
    let index = std::env::var("_CLAP_COMPLETE_INDEX").ok();
    let mut command = Arguments::command();
    if !begins_option(&words(), index.as_deref()) {
        // for this one, options there are included that clap makes itself
        command.build();
        hide_options(&mut command);
    }
    command
}

/// Whether the word to complete, of those behind `--`, is an option; fish gives no index, it is the last
fn begins_option(words: &[String], index: Option<&str>) -> bool {
    let Some(start) = words.iter().position(|word| word == "--") else { return true };
    let line = &words[start + 1..];
    let word = match index.and_then(|index| index.parse::<usize>().ok()) {
        Some(index) => line.get(index),
        None => line.last(),
    };
    word.is_some_and(|word| word.starts_with('-'))
}

/// Hides what is only offered where nothing else is
fn hide_options(command: &mut Command) {
    let args = |arg: Arg| if arg.is_positional() { arg } else { arg.hide(true) };
    *command = mem::take(command).mut_args(args);
    command.get_subcommands_mut().for_each(hide_options);
}

/// Networks
pub(crate) fn networks(current: &OsStr) -> Vec<CompletionCandidate> {
    offer(current, |tree| networks_of(tree, |_| true))
}

/// Networks that can be brought up
pub(crate) fn networks_down(current: &OsStr) -> Vec<CompletionCandidate> {
    offer(current, |tree| networks_of(tree, |state| state != NetworkState::Up.as_str()))
}

/// Networks that can be taken down
pub(crate) fn networks_up(current: &OsStr) -> Vec<CompletionCandidate> {
    offer(current, |tree| networks_of(tree, |state| state != NetworkState::Down.as_str()))
}

/// Peers of the network that the command line names, or of all
pub(crate) fn peers(current: &OsStr) -> Vec<CompletionCandidate> {
    let network = option(&words(), "--network");
    offer(current, |tree| peers_of(tree, network.as_deref()))
}

/// Networks whose hub this machine is
pub(crate) fn hubs(current: &OsStr) -> Vec<CompletionCandidate> {
    offer(current, |tree| sorted(hubs_of(tree).map(named)))
}

/// Members that can be approved
pub(crate) fn members_waiting(current: &OsStr) -> Vec<CompletionCandidate> {
    offer_members(current, |member| member.standing != APPROVED)
}

/// Members that can be renamed
pub(crate) fn members(current: &OsStr) -> Vec<CompletionCandidate> {
    offer_members(current, |member| member.source == STORE)
}

/// Members that can be revoked
pub(crate) fn members_in(current: &OsStr) -> Vec<CompletionCandidate> {
    offer_members(current, |member| member.source == STORE && member.standing != REVOKED)
}

/// A word that may be offered, and what it stands for
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Offer {
    word: String,
    help: String,
}

/// What begins with `current`, of what `choose` finds
fn offer(current: &OsStr, choose: impl Fn(&Tree) -> Vec<Offer>) -> Vec<CompletionCandidate> {
    candidates(current, async |connection| Ok(choose(&Tree::load(&connection).await?)))
}

/// Members that begin with `current`, of the network that the command line names or of all
fn offer_members(
    current: &OsStr,
    wanted: impl Fn(&MemberAnswer) -> bool,
) -> Vec<CompletionCandidate> {
    let network = option(&words(), "--network");
    candidates(current, async |connection| {
        let tree = Tree::load(&connection).await?;
        let mut found = Vec::new();
        for facts in hubs_of(&tree) {
            if network.as_ref().is_none_or(|name| *name == facts.name) {
                let path = network_path(&facts.name);
                let hub = NetworkProxy::builder(&connection).path(path).build().await?;
                // one hub that does not say hides no other
                found.extend(hub.members().await.unwrap_or_default());
            }
        }
        Ok(members_of(found.iter().filter(|member| wanted(member))))
    })
}

/// What begins with `current`, of what `ask` finds if the daemon runs and answers in time
fn candidates(
    current: &OsStr,
    ask: impl AsyncFnOnce(Connection) -> zbus::Result<Vec<Offer>>,
) -> Vec<CompletionCandidate> {
    let bus = option(&words(), "--bus").map_or(Ok(Bus::System), |text| text.parse());
    let (Some(current), Ok(bus)) = (current.to_str(), bus) else { return Vec::new() };
    let asked = async {
        let connection = bus.builder().build().await?;
        let name = BusName::from_static_str(BUS_NAME)?;
        if !DBusProxy::new(&connection).await?.name_has_owner(name).await? {
            return Ok(Vec::new());
        }
        ask(connection).await
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let Ok(runtime) = runtime else { return Vec::new() };
    let answer = runtime.block_on(async { timeout(PATIENCE, asked).await });
    let Ok(Ok(offers)) = answer else { return Vec::new() };
    let begins = |offer: &Offer| offer.word.starts_with(current);
    let candidate =
        |offer: Offer| CompletionCandidate::new(offer.word).help(Some(offer.help.into()));
    offers.into_iter().filter(begins).map(candidate).collect()
}

/// This program's command line, which ends in the one to complete
fn words() -> Vec<String> {
    std::env::args().collect()
}

/// The value of an option among the words of a command line
fn option(words: &[String], name: &str) -> Option<String> {
    let mut words = words.iter();
    while let Some(word) = words.next() {
        if word == name {
            return words.next().cloned();
        }
        if let Some(value) = word.strip_prefix(name).and_then(|rest| rest.strip_prefix('=')) {
            return Some(value.to_owned());
        }
    }
    None
}

fn networks_of(tree: &Tree, wanted: impl Fn(&str) -> bool) -> Vec<Offer> {
    let networks = tree.networks.values().map(|network| &network.facts);
    sorted(networks.filter(|facts| wanted(&facts.state)).map(named))
}

fn hubs_of(tree: &Tree) -> impl Iterator<Item = &NetworkFacts> {
    let networks = tree.networks.values().map(|network| &network.facts);
    networks.filter(|facts| facts.role == Role::Hub.as_str())
}

/// A network, and what people know of it
fn named(facts: &NetworkFacts) -> (String, String) {
    (facts.name.clone(), format!("{}, {}", facts.role, facts.state))
}

fn members_of<'a>(members: impl Iterator<Item = &'a MemberAnswer>) -> Vec<Offer> {
    sorted(members.map(|member| {
        let word = if is_word(&member.name) { &member.name } else { &member.public_key };
        (word.clone(), format!("{}, {}", member.standing, member.addresses.join(", ")))
    }))
}

fn peers_of(tree: &Tree, network: Option<&str>) -> Vec<Offer> {
    let wanted = |peer: &&Peer| network.is_none_or(|name| tree.network_of(peer) == name);
    let peers = tree.peers.values().filter(wanted);
    sorted(peers.map(|peer| {
        let facts = &peer.facts;
        // a name that cannot be offered leaves the key, which can
        let word = if is_word(&facts.name) { &facts.name } else { &facts.public_key };
        (word.clone(), format!("{}, {}", tree.network_of(peer), facts.addresses.join(", ")))
    }))
}

fn sorted(offers: impl Iterator<Item = (String, String)>) -> Vec<Offer> {
    let offers = offers.filter(|(word, _)| is_word(word));
    let mut offers: Vec<_> =
        offers.map(|(word, help)| Offer { word, help: plain(&help) }).collect();
    offers.sort();
    offers
}

/// Whether every shell takes the text for one word, and for nothing else
fn is_word(text: &str) -> bool {
    let harmless = |letter: char| letter.is_alphanumeric() || "._-+/=@".contains(letter);
    text.starts_with(|letter: char| letter.is_alphanumeric() || "/+".contains(letter))
        && text.chars().all(harmless)
}

const APPROVED: &str = "approved";
const REVOKED: &str = "revoked";
const STORE: &str = "store";
const PROGRAM: &str = "fastvpnctl";
/// How long a person who presses a key may have to wait
const PATIENCE: Duration = Duration::from_millis(700);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::samples;

    #[test]
    fn peers_are_offered_by_name_with_their_addresses() {
        let tree = samples::tree();

        let offers = peers_of(&tree, None);

        assert_eq!(offers.len(), 1);
        assert_eq!(offers[0].word, "tokyo");
        assert_eq!(offers[0].help, "office, 172.16.97.102");
        assert_eq!(peers_of(&tree, Some("office")), offers);
        assert_eq!(peers_of(&tree, Some("home")), []);
    }

    #[test]
    fn networks_are_offered_by_what_can_be_done_with_them() {
        let mut tree = samples::tree();
        let up = |tree: &Tree| networks_of(tree, |state| state != "down").len();
        let down = |tree: &Tree| networks_of(tree, |state| state != "up").len();
        assert_eq!((up(&tree), down(&tree)), (1, 0));

        for network in tree.networks.values_mut() {
            network.facts.state = "down".to_owned();
        }

        assert_eq!((up(&tree), down(&tree)), (0, 1));
    }

    #[test]
    fn members_are_offered_by_name_or_else_by_key() {
        let member = |name: &str| MemberAnswer {
            name: name.to_owned(),
            public_key: samples::key(1),
            standing: "pending".to_owned(),
            ..MemberAnswer::default()
        };

        let offers = members_of([member("tokyo"), member("")].iter());

        let words: Vec<_> = offers.iter().map(|offer| offer.word.as_str()).collect();
        assert_eq!(words, [&samples::key(1), "tokyo"]);
        assert_eq!(offers[1].help, "pending, ");
    }

    #[test]
    fn name_that_a_shell_would_run_is_never_offered() {
        let mut tree = samples::tree();
        for name in ["$(reboot)", "a;b", "a b", "`id`", "-rf", "a\nb", "~root", "a\u{1b}[2J", ""] {
            for peer in tree.peers.values_mut() {
                peer.facts.name = name.to_owned();
            }
            let offers = peers_of(&tree, None);
            let key = samples::key(1);
            assert_eq!(
                offers.iter().map(|offer| &offer.word).collect::<Vec<_>>(),
                [&key],
                "{name}"
            );
        }
    }

    #[test]
    fn options_are_offered_once_they_are_begun() {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();

        assert!(begins_option(&words("fastvpnctl -- fastvpnctl top --as"), Some("2")));
        assert!(begins_option(&words("fastvpnctl -- fastvpnctl top -"), None));
        assert!(!begins_option(&words("fastvpnctl -- fastvpnctl top --ascii h"), Some("3")));
        assert!(!begins_option(&words("fastvpnctl -- fastvpnctl top --ascii "), None));
        assert!(!begins_option(&words("fastvpnctl -- fastvpnctl top"), Some("2")));

        let mut command = Arguments::command();
        command.build();
        hide_options(&mut command);
        let status = command.find_subcommand("status").unwrap();
        let shown: Vec<_> = status.get_arguments().filter(|arg| !arg.is_hide_set()).collect();
        assert_eq!(shown.len(), 1, "{shown:?}");
    }

    #[test]
    fn options_are_found_as_people_write_them() {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();

        let spaced = words("fastvpnctl -- fastvpnctl --bus session ping");
        let joined = words("fastvpnctl -- fastvpnctl ping --network=home");

        assert_eq!(option(&spaced, "--bus").as_deref(), Some("session"));
        assert_eq!(option(&joined, "--network").as_deref(), Some("home"));
        assert_eq!(option(&joined, "--bus"), None);
    }
}
