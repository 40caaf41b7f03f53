//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use clap_complete::engine::ArgValueCompleter;
use fastvpn_dbus::Bus;

use crate::commands::top::Sort;
use crate::complete;

/// Shows and controls the networks of fastvpnd
///
/// Without a command the status of all networks is shown.
#[derive(Debug, Parser)]
#[command(name = "fastvpnctl", version, after_help = EXIT_CODES, after_long_help = JSON)]
pub(crate) struct Arguments {
    /// Message bus of the daemon: system, session, or a D-Bus address
    #[arg(long, global = true, value_name = "BUS", default_value = "system")]
    pub(crate) bus: Bus,
    /// Print JSON for programs; see "fastvpnctl --help"
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

/// What to do
#[derive(Clone, Debug, Eq, PartialEq, Subcommand)]
pub(crate) enum Command {
    /// Show the networks, or one of them in full
    Status {
        /// Name of a network
        #[arg(add = ArgValueCompleter::new(complete::networks))]
        network: Option<String>,
    },
    /// Show the peers of all networks, or of one
    Peers {
        /// Name of a network
        #[arg(add = ArgValueCompleter::new(complete::networks))]
        network: Option<String>,
    },
    /// Bring a network up and wait until it is; starts the daemon if the bus can
    Connect {
        /// Name of a network
        #[arg(add = ArgValueCompleter::new(complete::networks_down))]
        network: String,
    },
    /// Take a network down until "connect" or the next start of the daemon
    Disconnect {
        /// Name of a network
        #[arg(add = ArgValueCompleter::new(complete::networks_up))]
        network: String,
    },
    /// Look for what is wrong, and say how to mend it
    ///
    /// Looks at the daemon, the system around it, and all networks or one. Fails if there is a
    /// problem; notes and warnings are none.
    Doctor {
        /// Name of a network
        #[arg(add = ArgValueCompleter::new(complete::networks))]
        network: Option<String>,
    },
    /// Make a hub: the node that knows and verifies the members of a network
    Hub {
        /// What to do
        #[command(subcommand)]
        command: HubCommand,
    },
    /// Join a network by an invitation, and wait until it is up
    ///
    /// Makes the keys, writes the configuration into /var/lib/fastvpn, registers with the hub, and
    /// connects. Nothing is left behind if the hub does not answer or refuses.
    Join(JoinArguments),
    /// Take down and delete a network that was made here or joined, with its keys
    Leave {
        /// Name of a network
        #[arg(add = ArgValueCompleter::new(complete::networks))]
        network: String,
    },
    /// Invite a machine to a network whose hub this is
    ///
    /// Prints an invitation that one machine can use once, and a QR code of it. Into a pipe only the
    /// invitation is printed, as "fastvpnctl join -" reads it.
    Invite(InviteArguments),
    /// List or withdraw invitations that are still open
    #[command(subcommand)]
    Invitation(InvitationCommand),
    /// List, approve, revoke or rename the members of a network whose hub this is
    #[command(subcommand)]
    Member(MemberCommand),
    /// Show changes as they happen, until interrupted
    Monitor,
    /// Make networks VPN connections of NetworkManager
    Networkmanager {
        /// What to do
        #[command(subcommand)]
        command: NetworkManagerCommand,
    },
    /// Let the daemon read its configuration again
    Reload,
    /// Make a private key, or show the public key of one; needs no daemon
    ///
    /// Writes a new private key to FILE, for its owner alone and never over an existing file, and
    /// prints the public key. As root, a file in /var/lib/fastvpn is given to the user fastvpn.
    Keygen {
        /// Only print the public key of the private key in FILE
        #[arg(long)]
        public: bool,
        /// File of the private key
        file: PathBuf,
    },
    /// Ask a peer for an answer again and again, through its session
    ///
    /// Measures the way to the peer itself, whatever its firewall says. Done if any was answered.
    Ping(PingArguments),
    /// Show peers with rates, round-trip times and losses, live
    ///
    /// Keys: q quits, up and down select a peer, left and right choose the column to sort by.
    Top(TopArguments),
}

/// What to do about NetworkManager
#[derive(Clone, Debug, Eq, PartialEq, Subcommand)]
pub(crate) enum NetworkManagerCommand {
    /// Make a network a VPN connection, and activate it
    ///
    /// It then is a switch in the desktop's menu. A network that fastvpnd has brought up by itself
    /// is taken down first.
    Add {
        /// Name of a network
        #[arg(add = ArgValueCompleter::new(complete::networks))]
        network: String,
    },
    /// Delete the VPN connection of a network; the network stays
    Remove {
        /// Name of a network
        #[arg(add = ArgValueCompleter::new(complete::networks))]
        network: String,
    },
}

/// What to do about hubs
#[derive(Clone, Debug, Eq, PartialEq, Subcommand)]
pub(crate) enum HubCommand {
    /// Make a hub on this machine, with keys of its own, and bring it up
    Init(HubArguments),
}

/// What a new hub is like
#[derive(Args, Clone, Debug, Eq, PartialEq)]
pub(crate) struct HubArguments {
    /// Name of the network: 1 to 15 characters of a-z, 0-9 and '-'
    pub(crate) name: String,
    /// Addresses of the overlay, such as 172.16.97.0/24; once for each subnet
    #[arg(long, required = true, value_name = "CIDR")]
    pub(crate) subnet: Vec<String>,
    /// The hub's own address, with its length; the lowest of each subnet if left out
    #[arg(long, value_name = "ADDRESS/LENGTH")]
    pub(crate) address: Vec<String>,
    /// How others reach the hub
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) endpoint: Option<String>,
    /// UDP address to listen on; port 8796 of all addresses if left out
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) listen: Option<String>,
}

/// Which network to join
#[derive(Args, Clone, Debug, Eq, PartialEq)]
pub(crate) struct JoinArguments {
    /// The invitation, as the hub printed it; - reads it from standard input
    pub(crate) invitation: String,
    /// Name of the network on this machine; as the hub calls it if left out
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Leave the network to NetworkManager, as a VPN connection in the desktop's menu
    #[arg(long)]
    pub(crate) networkmanager: bool,
}

/// Whom to invite, and how
#[derive(Args, Clone, Debug, Eq, PartialEq)]
pub(crate) struct InviteArguments {
    /// Name of the new member: a-z, 0-9 and '-'
    pub(crate) name: String,
    /// Network, where this machine is the hub of several
    #[arg(long, value_name = "NETWORK", add = ArgValueCompleter::new(complete::hubs))]
    pub(crate) network: Option<String>,
    /// How long the invitation may be used, 1m to 30d
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = ttl)]
    pub(crate) ttl: Duration,
    /// Let the machine in only after "fastvpnctl member approve"
    #[arg(long)]
    pub(crate) approval: bool,
    /// Overlay address of the new member; may be given again; otherwise a free one of each subnet
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) address: Vec<String>,
    /// Subnet behind the new member; may be given again
    #[arg(long, value_name = "CIDR")]
    pub(crate) subnet: Vec<String>,
    /// Where the hub is, if not as its configuration says; may be given again
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) endpoint: Vec<String>,
    /// Draw no QR code
    #[arg(long)]
    pub(crate) no_qr: bool,
}

/// What to do with invitations
#[derive(Clone, Debug, Eq, PartialEq, Subcommand)]
pub(crate) enum InvitationCommand {
    /// Make the invitation of NAME useless
    Cancel {
        /// Name in the invitation
        name: String,
        /// Network, where this machine is the hub of several
        #[arg(long, value_name = "NETWORK", add = ArgValueCompleter::new(complete::hubs))]
        network: Option<String>,
    },
    /// List the invitations that are still open
    List {
        /// Network; otherwise all whose hub this machine is
        #[arg(add = ArgValueCompleter::new(complete::hubs))]
        network: Option<String>,
    },
}

/// What to do with members
#[derive(Clone, Debug, Eq, PartialEq, Subcommand)]
pub(crate) enum MemberCommand {
    /// Let a machine in that waits for it, or was revoked
    Approve {
        /// Its name or public key
        #[arg(add = ArgValueCompleter::new(complete::members_waiting))]
        who: String,
        /// Network, where this machine is the hub of several
        #[arg(long, value_name = "NETWORK", add = ArgValueCompleter::new(complete::hubs))]
        network: Option<String>,
    },
    /// List the members, those that wait for approval, and those that were revoked
    List {
        /// Network; otherwise all whose hub this machine is
        #[arg(add = ArgValueCompleter::new(complete::hubs))]
        network: Option<String>,
    },
    /// Give a member another name
    Rename {
        /// Its name or public key
        #[arg(add = ArgValueCompleter::new(complete::members))]
        who: String,
        /// What it is called from now on
        name: String,
        /// Network, where this machine is the hub of several
        #[arg(long, value_name = "NETWORK", add = ArgValueCompleter::new(complete::hubs))]
        network: Option<String>,
    },
    /// Cut a member off everywhere, at once
    Revoke {
        /// Its name or public key
        #[arg(add = ArgValueCompleter::new(complete::members_in))]
        who: String,
        /// Network, where this machine is the hub of several
        #[arg(long, value_name = "NETWORK", add = ArgValueCompleter::new(complete::hubs))]
        network: Option<String>,
    },
}

/// Which peer to ask, and how often
#[derive(Args, Clone, Debug, Eq, PartialEq)]
pub(crate) struct PingArguments {
    /// Name, public key or overlay address of a peer
    #[arg(add = ArgValueCompleter::new(complete::peers))]
    pub(crate) peer: String,
    /// Network of the peer, where several have such a peer
    #[arg(long, value_name = "NETWORK", add = ArgValueCompleter::new(complete::networks))]
    pub(crate) network: Option<String>,
    /// Stop after so many pings; otherwise when interrupted
    #[arg(short, long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: Option<u64>,
    /// Time between two pings in seconds, 0.02 to 3600
    #[arg(short, long, value_name = "SECONDS", default_value = "1", value_parser = interval)]
    pub(crate) interval: Duration,
    /// How long to wait for an answer in seconds, 0.001 to 60
    #[arg(long, value_name = "SECONDS", default_value = "2", value_parser = patience)]
    pub(crate) timeout: Duration,
}

/// What to show of all peers, and how
#[derive(Args, Clone, Debug, Eq, PartialEq)]
pub(crate) struct TopArguments {
    /// Name of a network
    #[arg(add = ArgValueCompleter::new(complete::networks))]
    pub(crate) network: Option<String>,
    /// Print one picture and exit; so does output that is no terminal
    #[arg(long)]
    pub(crate) once: bool,
    /// Draw graphs with signs that every terminal has
    #[arg(long)]
    pub(crate) ascii: bool,
    /// Column to sort by
    #[arg(long, value_name = "COLUMN", value_enum, default_value_t)]
    pub(crate) sort: Sort,
}

impl Arguments {
    /// What to do; showing the status where nothing is said
    pub(crate) fn wanted(&self) -> Command {
        self.command.clone().unwrap_or(Command::Status { network: None })
    }
}

fn interval(text: &str) -> Result<Duration, String> {
    seconds(text, 0.02, 3600.0)
}

fn patience(text: &str) -> Result<Duration, String> {
    seconds(text, 0.001, 60.0)
}

fn ttl(text: &str) -> Result<Duration, String> {
    let number = text.trim_end_matches(|unit: char| unit.is_ascii_alphabetic());
    let unit = match &text[number.len()..] {
        "s" => Some(1),
        "m" => Some(60),
        "h" => Some(3600),
        "d" => Some(24 * 3600),
        _ => None,
    };
    let seconds = number.parse::<u64>().ok().zip(unit).and_then(|(n, unit)| n.checked_mul(unit));
    match seconds {
        Some(seconds) if (60..=30 * 24 * 3600).contains(&seconds) => {
            Ok(Duration::from_secs(seconds))
        }
        Some(_) | None => Err("not a time from 1m to 30d, such as 90s, 30m, 1h or 7d".to_owned()),
    }
}

fn seconds(text: &str, least: f64, most: f64) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(value) if (least..=most).contains(&value) => Ok(Duration::from_secs_f64(value)),
        Ok(_) | Err(_) => Err(format!("not a number of seconds from {least} to {most}")),
    }
}

const EXIT_CODES: &str = "\
Exit codes: 0 done, 1 failed, 2 usage, 3 daemon not reachable, 4 not authorised.
NO_COLOR=1 turns colours off. \"fastvpnctl --help\" describes the JSON.";

const JSON: &str = "\
Exit codes: 0 done, 1 failed, 2 usage, 3 daemon not reachable, 4 not authorised.
NO_COLOR=1 turns colours off.

With --json each command prints one object on one line; monitor and ping print
one for each event. Names are stable, new ones may be added. Numbers are
numbers; what is not known is null.

status      {\"networks\": [{name, role, state, detail, interface, apply,
              addresses[], subnets[], mtu, public_key, listen,
              buffers: {receive, send} or null,
              hub: {public_key, endpoint, alive} or null,
              dns: {suffix, server, state, detail} or null,
              quota: {bytes, used, period, until} or null,
              counters: {tx_packets, tx_bytes, rx_packets, rx_bytes, dropped,
                wire_tx_messages, wire_tx_bytes, wire_rx_messages,
                wire_rx_bytes, wire_rx_overflowed},
              refusals: {REASON: number}}]}
peers       {\"peers\": [{network, name, public_key, addresses[], subnets[],
              state, hub,
              path: {kind, endpoint, rtt_ms, rtt_min_ms, loss, mtu, rate,
                queue_delay_ms, own_loss, offload, overhead,
                counters: {messages, bytes, lost, congested, fresh_frames,
                fresh_bytes, repeat_frames, repeat_bytes, copy_frames,
                copy_bytes}} or null,
              tcp: \"plain\", \"split\" or null,
              traffic: {tx_packets, tx_bytes, rx_packets, rx_bytes},
              last_handshake, last_seen}]}
connect     {network, \"state\": \"up\"}
disconnect  {network, \"state\": \"down\"}
networkmanager add, remove
            {network, \"state\": \"up\"}, {network, \"state\": \"removed\"}
doctor      {\"checks\": [{level, check, network, message, remedy}],
              problems, warnings}, with level one of ok, note, warning, problem
hub init    {network, state, detail, interface, addresses[], public_key}
join        the same; its state is up, or pending where somebody on the hub has
              to approve this machine
leave       {network, \"state\": \"left\"}
reload      {added[], removed[], changed[], restarted[]}
invite      {network, member, invitation, expires, endpoints[]}
invitation list
            {\"invitations\": [{network, name, expires, approval}]}
invitation cancel, member approve, member revoke
            {network, member, standing}
member list {\"members\": [{network, name, public_key, addresses[],
              subnets[], standing, source, online, since}]}
member rename
            {network, member, name}
keygen      {file, public_key}
ping        {network, peer, seq, answered, rtt_ms,
              path: {kind, endpoint} or null}, and at the end
            {\"summary\": {sent, answered, loss,
              rtt_min_ms, rtt_avg_ms, rtt_max_ms}}
monitor     {\"event\": \"daemon\", time, running}
            {\"event\": \"network\", time, change, network: as in status}
            {\"event\": \"peer\", time, change, peer: as in peers}
              with change one of present, added, changed, removed
an error    {\"error\": {code, message}}, and the message on standard error;
              code is an error of the D-Bus API (NotUp, UnknownNetwork, ...),
              Ambiguous, Failed or Unreachable

The kind of a path is direct (over UDP), tcp, kcp or relayed; its endpoint is
an address, or the public key of the relay. Its rate is in bits a second, its
overhead in bytes sent for each byte of load. Times are in Unix seconds, loss
is a share, 0 to 1.";

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use clap::CommandFactory;

    #[test]
    fn definition_of_the_command_line_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn manual_names_each_command_and_option() {
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../man/fastvpnctl.1");
        let page = std::fs::read_to_string(page).unwrap();
        let program = Arguments::command();
        let commands: Vec<_> = program.get_subcommands().collect();
        assert!(commands.len() > 5);
        for command in &commands {
            let item = format!(".It Cm {}", command.get_name());
            let is_it = |line: &str| line.split(' ').take(3).eq(item.split(' '));
            assert!(page.lines().any(is_it), "{item}");
        }
        for one in commands.into_iter().chain([&program]) {
            for long in one.get_arguments().filter_map(|option| option.get_long()) {
                let said = page.lines().any(|line| {
                    let words: Vec<_> = line.split(' ').collect();
                    words.contains(&"Fl") && words.contains(&format!("-{long}").as_str())
                        || line.starts_with(&format!(".Fl -{long}"))
                });
                assert!(said, "{} --{long}", one.get_name());
            }
        }
    }

    #[test]
    fn answer_of_each_command_has_a_schema_and_each_schema_is_of_something() {
        let place = concat!(env!("CARGO_MANIFEST_DIR"), "/schema");
        let files = std::fs::read_dir(place).unwrap();
        let files: BTreeSet<_> =
            files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
        let program = Arguments::command();
        let answers = program.get_subcommands().flat_map(|command| match command.get_name() {
            "invitation" => vec!["invitations", "member"],
            "member" => vec!["members", "member", "renamed"],
            // for people only
            "top" => vec![],
            name => vec![name],
        });
        // these are not of one command
        let answers = answers.chain(["error", "network", "peer"]);

        let answers: BTreeSet<_> = answers.map(|name| format!("{name}.json")).collect();
        assert_eq!(files, answers);
    }

    #[test]
    fn nothing_said_means_status_on_the_system_bus() {
        let arguments = parse(&[]).unwrap();

        assert_eq!(arguments.wanted(), Command::Status { network: None });
        assert_eq!(arguments.bus, Bus::System);
        assert!(!arguments.json);
    }

    #[test]
    fn options_for_all_may_follow_the_command() {
        let arguments = parse(&["peers", "office", "--json", "--bus", "unix:path=/x"]).unwrap();

        assert_eq!(arguments.wanted(), Command::Peers { network: Some("office".to_owned()) });
        assert_eq!(arguments.bus, Bus::Address("unix:path=/x".to_owned()));
        assert!(arguments.json);
    }

    #[test]
    fn ping_takes_fractions_of_seconds() {
        let arguments = parse(&["ping", "tokyo", "-c", "3", "-i", "0.2", "--timeout", "0.5"]);

        let Command::Ping(ping) = arguments.unwrap().wanted() else { panic!("no ping") };
        assert_eq!(ping.count, Some(3));
        assert_eq!(ping.interval, Duration::from_millis(200));
        assert_eq!(ping.timeout, Duration::from_millis(500));
    }

    #[test]
    fn invitation_lasts_an_hour_unless_said_otherwise() {
        for (arguments, seconds) in [
            (&["invite", "tokyo"][..], 3600),
            (&["invite", "tokyo", "--ttl", "60s"], 60),
            (&["invite", "tokyo", "--ttl", "30m", "--approval"], 1800),
            (&["invite", "tokyo", "--ttl", "30d"], 30 * 24 * 3600),
        ] {
            let Command::Invite(invite) = parse(arguments).unwrap().wanted() else {
                panic!("no invitation")
            };
            assert_eq!(invite.ttl, Duration::from_secs(seconds), "{arguments:?}");
        }
    }

    #[test]
    fn nonsense_is_a_matter_of_usage() {
        for nonsense in [
            &["status", "a", "b"][..],
            &["connect"],
            &["dance"],
            &["--bus", "sytsem"],
            &["ping", "tokyo", "-c", "0"],
            &["ping", "tokyo", "-i", "-1"],
            &["ping", "tokyo", "-i", "NaN"],
            &["ping", "tokyo", "--timeout", "61"],
            &["keygen"],
            &["join"],
            &["hub"],
            &["hub", "init", "home"],
            &["hub", "init", "--subnet", "10.0.0.0/24"],
            &["leave"],
            &["invite"],
            &["invite", "tokyo", "--ttl", "59s"],
            &["invite", "tokyo", "--ttl", "31d"],
            &["invite", "tokyo", "--ttl", "3600"],
            &["member"],
            &["member", "rename", "tokyo"],
            &["top", "--sort", "colour"],
        ] {
            assert_eq!(parse(nonsense).unwrap_err().exit_code(), 2, "{nonsense:?}");
        }
    }

    fn parse(arguments: &[&str]) -> Result<Arguments, clap::Error> {
        Arguments::try_parse_from(["fastvpnctl"].iter().chain(arguments))
    }
}
