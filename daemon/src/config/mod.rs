//! The validated configuration.
//!
//! One file `NAME.toml` for each network, and one, `fastvpnd.conf`, for what they have in common. Reading reports all problems at once, each with its file,
//! line and key; a [`Config`] in hand cannot be wrong.
//!
//! A file goes from text to shape (`shape`, `file`), from shape to domain types (`check` with `hub`,
//! `peer`, `engine`, `value` and `measure`), and is then compared with the others (`across`). What a change of the
//! configuration costs is in [`change`].

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use fastvpn_proto::crypto::{InvitationSecret, NetworkKey, PrivateKey, PublicKey};
use fastvpn_proto::ip::Prefix;
use fastvpn_proto::node::{Choice, TcpMode};

use self::check::Checked;
pub use self::engine::{Bounds, EngineConfig, Period, Quota};
use self::problem::Notes;
pub use self::problem::{Problem, Problems};
pub(crate) use self::value::is_network_or_broadcast;
use crate::dns::Suffix;
use crate::handle::NetworkName;

mod across;
pub mod change;
mod check;
mod engine;
mod file;
mod hub;
mod measure;
mod peer;
mod problem;
mod secret;
mod shape;
mod source;
mod value;
pub mod write;

/// Reads all networks of the two directories, `CONFIG_DIR/*.toml` and `STATE_DIR/networks/*.toml`, and
/// the bounds of the node, `CONFIG_DIR/fastvpnd.conf`
///
/// A directory that is missing is as good as an empty one.
///
/// # Errors
/// If there is any problem; then all problems of all files come back.
pub fn load(config_dir: &Path, state_dir: &Path) -> Result<Config, Problems> {
    let credentials = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
    load_with(config_dir, state_dir, credentials)
}

/// Reads all networks and says what it found, for people: `fastvpnd --check`
///
/// Good networks go to `out`, one line `NAME: ok` for each; problems and warnings to `err`. Returns
/// whether all is well.
///
/// # Errors
/// If `out` or `err` cannot be written to.
pub fn report(
    config_dir: &Path,
    state_dir: &Path,
    out: &mut impl io::Write,
    err: &mut impl io::Write,
) -> io::Result<bool> {
    match load(config_dir, state_dir) {
        Ok(config) => {
            if config.networks.is_empty() {
                writeln!(err, "no network is configured in {}", config_dir.display())?;
            }
            for name in config.networks.keys() {
                writeln!(out, "{name}: ok")?;
            }
            Ok(true)
        }
        Err(problems) => {
            writeln!(err, "{problems}")?;
            Ok(false)
        }
    }
}

/// Tells whether a text can be the name of a member
pub(crate) fn is_member_name(text: &str) -> bool {
    value::member_name(text).is_ok()
}

/// Tells whether a text says where a node is: `HOST:PORT`
pub(crate) fn is_endpoint(text: &str) -> bool {
    value::endpoint(text).is_ok()
}

/// Tells whether a prefix can be a subnet
pub(crate) fn is_subnet(prefix: &Prefix) -> bool {
    value::subnet(&prefix.to_string()).is_ok()
}

fn load_with(
    config_dir: &Path,
    state_dir: &Path,
    credentials: Option<PathBuf>,
) -> Result<Config, Problems> {
    let keys = secret::KeyRing::new(state_dir, credentials);
    let mut problems = Vec::new();
    let mut networks: Vec<Checked> = Vec::new();
    for source in source::all(config_dir, state_dir, &mut problems) {
        let mut notes = Notes::new(&source.path, &source.text);
        let checked = shape::read(&source.text, &mut notes)
            .and_then(|file| check::check(source.name.clone(), file, &keys, &mut notes));
        networks.extend(checked);
        problems.extend(notes.into_problems());
    }
    let node = source::node(config_dir, &mut problems).and_then(|(path, text)| {
        let mut notes = Notes::new(&path, &text);
        let bounds = shape::read_node(&text, &mut notes).and_then(|file| {
            engine::bounds(&file.rate, file.packet_rate.as_ref(), &file.quota, &mut notes)
        });
        problems.extend(notes.into_problems());
        bounds
    });
    problems.extend(across::check(&networks));
    if !problems.is_empty() {
        return Err(Problems::new(problems));
    }
    let networks = networks
        .into_iter()
        .map(|checked| (checked.network.name.clone(), checked.network))
        .collect();
    Ok(Config { node: node.unwrap_or_default(), networks })
}

/// All networks, and what they have in common
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// What the node as a whole may send, over all networks
    pub node: Bounds,
    /// By name
    pub networks: BTreeMap<NetworkName, NetworkConfig>,
}

/// One network
#[derive(Clone, Debug)]
pub struct NetworkConfig {
    /// Its name: the file's
    pub name: NetworkName,
    /// The file it was read from
    pub file: PathBuf,
    /// Whether it comes up when the daemon starts
    pub autoconnect: bool,
    /// Identity of this node
    pub private_key: PrivateKey,
    /// Pre-shared key of the network; all zero where none is set
    pub network_key: NetworkKey,
    /// UDP address to listen on
    pub listen: SocketAddr,
    /// Name of the TUN interface
    pub interface: String,
    /// MTU of the TUN interface, in bytes
    pub mtu: u16,
    /// Data threads; nothing: as many as are of use on this machine
    pub threads: Option<usize>,
    /// Overlay addresses with their subnets; none: the hub gives one (peer), or no interface (hub)
    pub addresses: Vec<Prefix>,
    /// Under which domain nodes have names; nothing: they have none
    pub dns: Option<Suffix>,
    /// Which cipher this node would have for what it sends and receives
    pub cipher: Preference,
    /// Which carriers may be used, where nothing else is said
    pub carrier: Choice,
    /// How the network uses the links it runs over
    pub engine: EngineConfig,
    /// What only hubs or only peers have
    pub role: RoleConfig,
}

/// Which cipher a node would have for data
///
/// Two nodes use AES-256-GCM where both would have it, and ChaCha20-Poly1305 otherwise.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Preference {
    /// AES-256-GCM, whatever the processor can
    Aes,
    /// AES-256-GCM where the processor has instructions for it
    #[default]
    Auto,
    /// ChaCha20-Poly1305
    ChaCha,
}

impl Preference {
    /// Tells whether a node would have AES-256-GCM, given whether its processor has instructions
    pub fn prefers_aes(self, has_instructions: bool) -> bool {
        match self {
            Self::Aes => true,
            Self::Auto => has_instructions,
            Self::ChaCha => false,
        }
    }
}

/// What only hubs or only peers have
#[derive(Clone, Debug)]
pub enum RoleConfig {
    /// A hub
    Hub(HubConfig),
    /// A peer
    Peer(PeerRoleConfig),
}

/// What only hubs have
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HubConfig {
    /// How others reach it, for people and invitations
    pub endpoint: Option<String>,
    /// The overlay's subnets; addresses are given from them
    pub subnets: Vec<Prefix>,
    /// Who may join, ordered as in the file
    pub members: Vec<Member>,
    /// Silence after which a peer leaves the list
    pub timeout: std::time::Duration,
}

/// A node that the hub may admit
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Member {
    /// For people, and for DNS
    pub name: String,
    /// Identity
    pub public_key: PublicKey,
    /// Its overlay addresses; none: the hub gives it one for each subnet
    pub addresses: Vec<IpAddr>,
    /// Subnets behind it that others may reach through it
    pub subnets: Vec<Prefix>,
    /// Which carriers may be used to reach it
    pub carrier: Choice,
    /// How TCP connections with it are carried; nothing: as in the whole network
    pub tcp: Option<TcpMode>,
    /// Where it begins in the file; 0 if it is in none
    pub line: usize,
}

/// What only peers have
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct PeerRoleConfig {
    /// Hubs, in the order of preference; at least one
    pub hubs: Vec<HubAddress>,
    /// What to do when the hub does not answer
    pub hub_loss: HubLoss,
    /// Which carriers may be used to reach other peers
    pub carrier: Choice,
    /// Peers for which something else is set
    pub peers: Vec<PeerSetting>,
    /// What to show the hub until it knows this node
    pub ticket: Option<TicketFile>,
}

/// The secret of an invitation that was not used yet
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TicketFile {
    /// Where it is, to be deleted once it was used
    pub file: PathBuf,
    /// What proves that this node was invited
    pub secret: InvitationSecret,
}

/// What is set for one peer, known by its name or its key
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PeerSetting {
    /// Who is meant
    pub who: PeerName,
    /// Which carriers may be used to reach it
    pub carrier: Choice,
    /// How TCP connections with it are carried; nothing: as in the whole network
    pub tcp: Option<TcpMode>,
}

/// How a peer is named in the configuration
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum PeerName {
    /// By its identity
    Key(PublicKey),
    /// As the hub's administrator calls it
    Name(String),
}

/// Where a hub is and who it is
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HubAddress {
    /// `HOST:PORT`; the host may be a name
    pub endpoint: String,
    /// Further ones, tried together with the first
    pub others: Vec<String>,
    /// Identity
    pub public_key: PublicKey,
    /// Which carriers may be used to reach it
    pub carrier: Choice,
    /// How TCP connections with it are carried; nothing: as in the whole network
    pub tcp: Option<TcpMode>,
}

impl HubAddress {
    /// Goes through all places where the hub may be
    pub fn endpoints(&self) -> impl Iterator<Item = &String> {
        std::iter::once(&self.endpoint).chain(&self.others)
    }
}

impl fmt::Display for HubAddress {
    /// Shows where it may be
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.endpoint)?;
        self.others.iter().try_for_each(|other| write!(f, ", {other}"))
    }
}

/// What a peer does when the hub does not answer
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum HubLoss {
    /// Stop serving the TUN until the hub is back
    #[default]
    Stop,
    /// Go on with the peers that are known
    Keep,
}

#[cfg(test)]
mod tests;
