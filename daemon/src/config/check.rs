//! From the shape of a file to a [`NetworkConfig`] that cannot be wrong.
//!
//! Every problem is noted, none ends the check. What only a hub's file has is in [`super::hub`],
//! what only a peer's has in [`super::peer`], what several files mean together in
//! [`super::across`].

use std::net::{Ipv6Addr, SocketAddr};
use std::ops::Range;
use std::path::Path;

use fastvpn_proto::crypto::{NetworkKey, PrivateKey, PublicKey};
use fastvpn_proto::ip::Prefix;
use fastvpn_proto::limits::TUN_MTU_DEFAULT;
use fastvpn_proto::node::{Choice, SHARDS_MAX};

use super::file::{NetworkFile, Text};
use super::problem::{Notes, Wrong, quoted};
use super::secret::{KeyRing, SecretError};
use super::{NetworkConfig, Preference, RoleConfig, engine, hub, peer, value};
use crate::dns::Suffix;
use crate::handle::{NetworkName, Role};

/// A network that was checked by itself, with the lines of what may conflict with other networks
pub(super) struct Checked {
    pub(super) network: NetworkConfig,
    pub(super) interface_line: usize,
    pub(super) listen_line: usize,
    /// Of each of the network's addresses
    pub(super) address_lines: Vec<usize>,
    pub(super) suffix_line: usize,
}

/// An overlay address of this node, and where it is written
pub(super) struct OwnAddress {
    pub(super) prefix: Prefix,
    pub(super) span: Range<usize>,
}

/// What is known of the node before the keys of its role are checked
pub(super) struct Known<'a> {
    /// Its public key, if its private one is known
    pub(super) public_key: Option<PublicKey>,
    /// Its overlay addresses, if they are all known
    pub(super) addresses: Option<&'a [OwnAddress]>,
    /// The carrier where nothing else is said
    pub(super) carrier: Choice,
    /// How secrets are read
    pub(super) keys: &'a KeyRing,
}

/// Checks one network's file; nothing comes back if anything was noted
pub(super) fn check(
    name: NetworkName,
    file: NetworkFile,
    keys: &KeyRing,
    notes: &mut Notes<'_>,
) -> Option<Checked> {
    let role = role(&file, notes);
    let private_key = private_key(&file, keys, notes);
    let public_key = private_key.as_ref().map(PrivateKey::public_key);
    let network_key = network_key(&file, keys, notes);
    let listen = listen(&file, role, notes);
    let interface = match &file.interface {
        Some(text) => noted(text, "interface", value::interface, notes),
        None => Some(value::interface_default(name.as_str())),
    };
    let mtu = mtu(&file, notes);
    let threads = threads(&file, notes);
    let addresses = addresses(&file, notes);
    let dns = dns(&name, &file, notes);
    let lines = Lines::of(&file, addresses.as_deref().unwrap_or_default(), notes);
    let cipher = match &file.cipher {
        Some(text) => noted(text, "cipher", value::cipher, notes),
        None => Some(Preference::default()),
    };
    let carrier = engine::carrier(file.carrier.as_ref(), "carrier", Choice::default(), notes);
    let engine = engine::check(&file, notes);
    let known = Known {
        public_key,
        addresses: addresses.as_deref(),
        carrier: carrier.unwrap_or_default(),
        keys,
    };
    let role = role.and_then(|role| role_config(role, &file, &known, notes));
    if notes.count() > 0 {
        return None;
    }
    Some(Checked {
        network: NetworkConfig {
            name,
            file: notes.file().to_owned(),
            autoconnect: file.autoconnect.is_none_or(|autoconnect| *autoconnect.get_ref()),
            private_key: private_key?,
            network_key: network_key?,
            listen: listen?,
            interface: interface?,
            mtu: mtu?,
            threads: threads?,
            addresses: addresses?.into_iter().map(|own| own.prefix).collect(),
            dns: dns?,
            cipher: cipher?,
            carrier: carrier?,
            engine: engine?,
            role: role?,
        },
        interface_line: lines.interface,
        listen_line: lines.listen,
        address_lines: lines.addresses,
        suffix_line: lines.suffix,
    })
}

/// Reads a text with `read`, and notes what is wrong with it
pub(super) fn noted<T>(
    text: &Text,
    key: &str,
    read: impl FnOnce(&str) -> Result<T, Wrong>,
    notes: &mut Notes<'_>,
) -> Option<T> {
    read(text.get_ref()).map_err(|wrong| notes.at(&text.span(), key, wrong)).ok()
}

struct Lines {
    interface: usize,
    listen: usize,
    addresses: Vec<usize>,
    suffix: usize,
}

impl Lines {
    /// A key that is left out is in the first line
    fn of(file: &NetworkFile, addresses: &[OwnAddress], notes: &Notes<'_>) -> Self {
        let line = |text: &Option<Text>| text.as_ref().map_or(1, |text| notes.line(&text.span()));
        Self {
            interface: line(&file.interface),
            listen: line(&file.listen),
            addresses: addresses.iter().map(|own| notes.line(&own.span)).collect(),
            suffix: line(&file.dns_suffix),
        }
    }
}

fn role(file: &NetworkFile, notes: &mut Notes<'_>) -> Option<Role> {
    let remedy = "write role = \"hub\" or role = \"peer\"";
    let Some(text) = &file.role else {
        notes.missing("role", remedy);
        return None;
    };
    match text.get_ref().as_str() {
        "hub" => Some(Role::Hub),
        "peer" => Some(Role::Peer),
        other => {
            let what = format!("{} is no role", quoted(other));
            notes.at(&text.span(), "role", Wrong::new(what, remedy));
            None
        }
    }
}

fn private_key(file: &NetworkFile, keys: &KeyRing, notes: &mut Notes<'_>) -> Option<PrivateKey> {
    match (&file.private_key_file, &file.private_key_credential) {
        (Some(path), None) => secret(
            path,
            "private_key_file",
            keys.private_key(directory(notes), path.get_ref()),
            notes,
        ),
        (None, Some(id)) => {
            secret(id, "private_key_credential", keys.private_key_credential(id.get_ref()), notes)
        }
        (Some(_), Some(id)) => {
            let wrong = Wrong::new("is given beside private_key_file", "remove one of the two");
            notes.at(&id.span(), "private_key_credential", wrong);
            None
        }
        (None, None) => {
            let remedy = "make a key with `fastvpnctl keygen FILE` and write the path of FILE";
            notes.missing("private_key_file", remedy);
            None
        }
    }
}

fn network_key(file: &NetworkFile, keys: &KeyRing, notes: &mut Notes<'_>) -> Option<NetworkKey> {
    match (&file.network_key_file, &file.network_key_credential) {
        (None, None) => Some(NetworkKey::default()),
        (Some(path), None) => secret(
            path,
            "network_key_file",
            keys.network_key(directory(notes), path.get_ref()),
            notes,
        ),
        (None, Some(id)) => {
            secret(id, "network_key_credential", keys.network_key_credential(id.get_ref()), notes)
        }
        (Some(_), Some(id)) => {
            let wrong = Wrong::new("is given beside network_key_file", "remove one of the two");
            notes.at(&id.span(), "network_key_credential", wrong);
            None
        }
    }
}

fn secret<T>(
    text: &Text,
    key: &str,
    secret: Result<T, SecretError>,
    notes: &mut Notes<'_>,
) -> Option<T> {
    secret
        .map_err(|error| {
            notes.at(&text.span(), key, Wrong::new(error.to_string(), error.remedy()));
        })
        .ok()
}

/// Returns where relative paths in the file begin
fn directory<'a>(notes: &Notes<'a>) -> &'a Path {
    notes.file().parent().unwrap_or(Path::new("/"))
}

fn listen(file: &NetworkFile, role: Option<Role>, notes: &mut Notes<'_>) -> Option<SocketAddr> {
    let port = if role == Some(Role::Hub) { value::PORT_DEFAULT } else { 0 };
    let Some(text) = &file.listen else {
        return Some(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)));
    };
    let listen = noted(text, "listen", value::listen, notes)?;
    if role == Some(Role::Hub) && listen.port() == 0 {
        let wrong = Wrong::new(
            "a hub on port 0 would have another port at each start",
            format!("write \"{}\"", SocketAddr::new(listen.ip(), value::PORT_DEFAULT)),
        );
        notes.at(&text.span(), "listen", wrong);
        return None;
    }
    Some(listen)
}

fn mtu(file: &NetworkFile, notes: &mut Notes<'_>) -> Option<u16> {
    let Some(given) = &file.mtu else {
        return Some(TUN_MTU_DEFAULT);
    };
    match u16::try_from(*given.get_ref()) {
        Ok(mtu) if (MTU_MIN..=MTU_MAX).contains(&mtu) => Some(mtu),
        _ => {
            let what = format!("{} is not from {MTU_MIN} to {MTU_MAX}", given.get_ref());
            let remedy =
                format!("leave it out for {TUN_MTU_DEFAULT}, which fits nearly every path");
            notes.at(&given.span(), "mtu", Wrong::new(what, remedy));
            None
        }
    }
}

fn threads(file: &NetworkFile, notes: &mut Notes<'_>) -> Option<Option<usize>> {
    let Some(given) = &file.threads else { return Some(None) };
    match usize::try_from(*given.get_ref()) {
        Ok(count) if (1..=SHARDS_MAX).contains(&count) => Some(Some(count)),
        _ => {
            let what = format!("{} is not from 1 to {SHARDS_MAX}", given.get_ref());
            let remedy = "leave it out for as many as the machine has processors for";
            notes.at(&given.span(), "threads", Wrong::new(what, remedy));
            None
        }
    }
}

fn addresses(file: &NetworkFile, notes: &mut Notes<'_>) -> Option<Vec<OwnAddress>> {
    let Some(list) = &file.address else {
        return Some(Vec::new());
    };
    if list.get_ref().is_empty() {
        let wrong = Wrong::new("is empty", "leave the key out, or write an address");
        notes.at(&list.span(), "address", wrong);
        return None;
    }
    let mut good: Vec<OwnAddress> = Vec::new();
    let mut complete = true;
    for text in list.get_ref() {
        let Some(prefix) = noted(text, "address", value::interface_address, notes) else {
            complete = false;
            continue;
        };
        if good.iter().any(|other| other.prefix.addr() == prefix.addr()) {
            let wrong = Wrong::new(format!("{} is given twice", prefix.addr()), "remove one");
            notes.at(&text.span(), "address", wrong);
        }
        good.push(OwnAddress { prefix, span: text.span() });
    }
    complete.then_some(good)
}

/// Returns the domain of the nodes' names, if they are to have any
fn dns(name: &NetworkName, file: &NetworkFile, notes: &mut Notes<'_>) -> Option<Option<Suffix>> {
    let wanted = file.dns.as_ref().is_none_or(|wanted| *wanted.get_ref());
    match (&file.dns_suffix, wanted) {
        (None, true) => Some(Some(Suffix::of_network(name.as_str()))),
        (None, false) => Some(None),
        (Some(text), true) => noted(text, "dns_suffix", value::suffix, notes).map(Some),
        (Some(text), false) => {
            let wrong = Wrong::new("is given beside dns = false", "remove one of the two");
            notes.at(&text.span(), "dns_suffix", wrong);
            None
        }
    }
}

fn role_config(
    role: Role,
    file: &NetworkFile,
    known: &Known<'_>,
    notes: &mut Notes<'_>,
) -> Option<RoleConfig> {
    match role {
        Role::Hub => hub::check(file, known, notes).map(RoleConfig::Hub),
        Role::Peer => peer::check(file, known, notes).map(RoleConfig::Peer),
    }
}

/// Smallest MTU that IPv6 allows
const MTU_MIN: u16 = 1280;
/// Largest MTU of Ethernets in use
const MTU_MAX: u16 = 9000;
