//! The files of networks that the daemon sets up itself, as texts.
//!
//! What is written can be read: each value went through the reader of its key. What values mean
//! together, and beside other networks, is found when the file is loaded.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use fastvpn_proto::ip::Prefix;

use super::problem::Wrong;
use super::value;
use crate::handle::{Bringer, HubSpec, NetworkName};
use crate::invitation::Invitation;

/// Where a network's own files are, from its configuration's directory
const KEYS: &str = "../keys";

/// Writes the file of a hub
///
/// # Errors
/// If a value is none; the sentence says which and how to mend it.
pub fn hub(spec: &HubSpec) -> Result<String, String> {
    let subnets = all("subnet", &spec.subnets, value::subnet)?;
    if subnets.is_empty() {
        return Err("subnet: is missing; give the addresses of the overlay, for example \
                    172.16.97.0/24"
            .to_owned());
    }
    let addresses = match spec.addresses.as_slice() {
        [] => subnets.iter().map(lowest).collect(),
        given => all("address", given, value::interface_address)?,
    };
    let endpoint = one("endpoint", spec.endpoint.as_deref(), value::endpoint)?;
    let listen = one("listen", spec.listen.as_deref(), value::listen)?;
    let name = &spec.name;
    let mut text = format!(
        "# Hub of the network {name}, made by `fastvpnctl hub init`.\n\
         # Change it as you like, then run `fastvpnctl reload`; the keys are in fastvpn.toml(5).\n\
         # `fastvpnctl leave {name}` deletes the network with its keys.\n\n\
         role = \"hub\"\n"
    );
    if !spec.autoconnect {
        text.push_str("autoconnect = false\n");
    }
    push_private_key(&mut text, name);
    push_network_key(&mut text, name);
    let mut line = |key: &str, value: &str| {
        // writing to a text cannot go wrong
        let _ = writeln!(text, "{key} = {value}");
    };
    line("subnet", &listed(&subnets));
    line("address", &listed(&addresses));
    if let Some(listen) = listen {
        line("listen", &format!("\"{listen}\""));
    }
    match endpoint {
        Some(endpoint) => line("endpoint", &format!("\"{endpoint}\"")),
        None => text.push_str(
            "# As others reach it, for invitations; without it they name this machine's addresses.\n\
             # endpoint = \"hub.example.net:8796\"\n",
        ),
    }
    Ok(text)
}

/// Writes the file of a peer that was invited
///
/// # Errors
/// If an endpoint of the invitation is none.
pub fn peer(
    name: &NetworkName,
    invitation: &Invitation,
    bringer: Bringer,
) -> Result<String, String> {
    let endpoints = all("endpoint", &invitation.endpoints, value::endpoint)?;
    let mut text = format!(
        "# The network {name}, joined by invitation as \"{}\".\n\
         # Change it as you like, then run `fastvpnctl reload`; the keys are in fastvpn.toml(5).\n\
         # `fastvpnctl leave {name}` deletes the network with its keys.\n\n\
         role = \"peer\"\n",
        invitation.member
    );
    match bringer {
        Bringer::Caller => text.push_str("# NetworkManager brings it up\nautoconnect = false\n"),
        Bringer::Daemon => {}
    }
    push_private_key(&mut text, name);
    if invitation.network_key.as_bytes() != &[0; 32] {
        push_network_key(&mut text, name);
    }
    let _ = write!(
        text,
        "# The invitation's secret; the file is deleted once the hub has welcomed this machine.\n\
         ticket_file = \"{KEYS}/{name}.ticket\"\n\n\
         [[hub]]\n\
         endpoint = {}\n\
         public_key = \"{}\"\n",
        match endpoints.as_slice() {
            [one] => format!("\"{one}\""),
            several => listed(several),
        },
        invitation.hub_key,
    );
    Ok(text)
}

fn push_private_key(text: &mut String, name: &NetworkName) {
    let _ = writeln!(text, "private_key_file = \"{KEYS}/{name}\"");
}

fn push_network_key(text: &mut String, name: &NetworkName) {
    let _ = writeln!(text, "network_key_file = \"{KEYS}/{name}.psk\"");
}

fn all<T>(
    key: &str,
    texts: &[String],
    read: impl Fn(&str) -> Result<T, Wrong>,
) -> Result<Vec<T>, String> {
    texts.iter().map(|text| read(text).map_err(|wrong| said(key, &wrong))).collect()
}

fn one<T>(
    key: &str,
    text: Option<&str>,
    read: impl Fn(&str) -> Result<T, Wrong>,
) -> Result<Option<T>, String> {
    text.map(|text| read(text).map_err(|wrong| said(key, &wrong))).transpose()
}

fn said(key: &str, wrong: &Wrong) -> String {
    format!("{key}: {}; {}", wrong.what, wrong.remedy)
}

/// Writes values that hold neither quotes nor backslashes as a list of texts
fn listed<T: ToString>(values: &[T]) -> String {
    let quoted: Vec<_> = values.iter().map(|value| format!("\"{}\"", value.to_string())).collect();
    format!("[{}]", quoted.join(", "))
}

/// Returns the lowest address that a node of the subnet can have
fn lowest(subnet: &Prefix) -> Prefix {
    let addr = match subnet.network().addr() {
        IpAddr::V4(first) => IpAddr::V4(Ipv4Addr::from_bits(first.to_bits().saturating_add(1))),
        IpAddr::V6(first) => IpAddr::V6(Ipv6Addr::from_bits(first.to_bits().saturating_add(1))),
    };
    // the length was that of the same family
    Prefix::new(addr, subnet.len()).unwrap_or(*subnet)
}
