//! What only a hub's file has: subnets, timeout, members.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::Range;
use std::time::Duration;

use fastvpn_proto::crypto::PublicKey;
use fastvpn_proto::ip::Prefix;
use fastvpn_proto::limits::SESSION_SILENCE;
use fastvpn_proto::node::Choice;
use toml::Spanned;

use super::check::{Known, OwnAddress, noted};
use super::file::{MemberTable, NetworkFile, Text};
use super::problem::{Notes, Wrong, quoted};
use super::{HubConfig, Member, engine, value};

/// Checks what only a hub's file has
pub(super) fn check(
    file: &NetworkFile,
    known: &Known<'_>,
    notes: &mut Notes<'_>,
) -> Option<HubConfig> {
    let addresses = known.addresses;
    let endpoint = match &file.endpoint {
        Some(text) => noted(text, "endpoint", value::endpoint, notes).map(Some),
        None => Some(None),
    };
    let timeout = timeout(file, notes);
    let subnets = subnets(file, notes);
    if let (Some(addresses), Some(subnets)) = (addresses, &subnets) {
        own_addresses(addresses, subnets, notes);
    }
    let mut ledger = Ledger {
        own: known.public_key,
        carrier: known.carrier,
        overlay: subnets.as_deref(),
        names: BTreeMap::new(),
        keys: BTreeMap::new(),
        addresses: addresses
            .unwrap_or_default()
            .iter()
            .map(|own| (own.prefix.addr(), "the hub itself".to_owned()))
            .collect(),
        subnets: Vec::new(),
    };
    let members: Vec<_> =
        file.member.iter().filter_map(|member| ledger.member(member, notes)).collect();
    Some(HubConfig { endpoint: endpoint?, subnets: subnets?, members, timeout: timeout? })
}

fn timeout(file: &NetworkFile, notes: &mut Notes<'_>) -> Option<Duration> {
    let Some(text) = &file.timeout else {
        return Some(TIMEOUT_DEFAULT);
    };
    let timeout = noted(text, "timeout", value::duration, notes)?;
    if timeout < TIMEOUT_MIN || timeout > SESSION_SILENCE {
        let wrong = Wrong::new(
            format!("{} is not from 12s to 15m", quoted(text.get_ref())),
            "a peer tries for some 9 s before it gives the hub up, and sessions end after 15 min \
             of silence; leave it out for 15s",
        );
        notes.at(&text.span(), "timeout", wrong);
        return None;
    }
    Some(timeout)
}

fn subnets(file: &NetworkFile, notes: &mut Notes<'_>) -> Option<Vec<Prefix>> {
    let remedy = "write the addresses of the overlay, for example subnet = [\"172.16.97.0/24\"]";
    let Some(list) = &file.subnet else {
        notes.missing("subnet", remedy);
        return None;
    };
    if list.get_ref().is_empty() {
        notes.at(&list.span(), "subnet", Wrong::new("is empty", remedy));
        return None;
    }
    let mut good: Vec<Prefix> = Vec::new();
    let mut complete = true;
    for text in list.get_ref() {
        let Some(subnet) = noted(text, "subnet", value::subnet, notes) else {
            complete = false;
            continue;
        };
        let room = if subnet.addr().is_ipv4() { 30 } else { 126 };
        if subnet.len() > room {
            let what = format!("{subnet} has no room for a hub and a peer");
            let wrong = Wrong::new(what, format!("write a length of at most {room}"));
            notes.at(&text.span(), "subnet", wrong);
        }
        if let Some(other) = good.iter().find(|other| other.overlaps(&subnet)) {
            let what = format!("{subnet} overlaps {other}");
            notes.at(&text.span(), "subnet", Wrong::new(what, "remove one, or make it smaller"));
        }
        good.push(subnet);
    }
    complete.then_some(good)
}

fn own_addresses(addresses: &[OwnAddress], subnets: &[Prefix], notes: &mut Notes<'_>) {
    for own in addresses {
        let wrong = match subnets.iter().find(|subnet| subnet.contains(own.prefix.addr())) {
            None => Wrong::new(
                format!("{} is in no subnet of the network", own.prefix),
                format!("choose one in {}", listed(subnets)),
            ),
            Some(subnet) if subnet.len() != own.prefix.len() => Wrong::new(
                format!("{} has another length than the subnet {subnet}", own.prefix),
                format!("write \"{}/{}\"", own.prefix.addr(), subnet.len()),
            ),
            Some(_) => continue,
        };
        notes.at(&own.span, "address", wrong);
    }
}

/// What members have claimed so far; each claim with who made it
struct Ledger<'a> {
    own: Option<PublicKey>,
    /// The carrier of members that have none
    carrier: Choice,
    /// The network's subnets, if they are all known
    overlay: Option<&'a [Prefix]>,
    names: BTreeMap<String, usize>,
    keys: BTreeMap<PublicKey, usize>,
    addresses: BTreeMap<IpAddr, String>,
    subnets: Vec<(Prefix, usize)>,
}

impl Ledger<'_> {
    fn member(&mut self, table: &Spanned<MemberTable>, notes: &mut Notes<'_>) -> Option<Member> {
        let member = table.get_ref();
        let name = self.name(&table.span(), member.name.as_ref(), notes);
        let public_key = self.public_key(&table.span(), member.public_key.as_ref(), notes);
        let addresses: Vec<_> =
            member.address.iter().filter_map(|text| self.address(text, notes)).collect();
        let subnets: Vec<_> =
            member.subnet.iter().filter_map(|text| self.subnet(text, notes)).collect();
        let carrier =
            engine::carrier(member.carrier.as_ref(), "member.carrier", self.carrier, notes)?;
        let tcp = engine::tcp(&member.tcp, "member.tcp", notes)?;
        let line = notes.line(&table.span());
        let (name, public_key) = (name?, public_key?);
        Some(Member { name, public_key, addresses, subnets, carrier, tcp, line })
    }

    fn name(
        &mut self,
        table: &Range<usize>,
        text: Option<&Text>,
        notes: &mut Notes<'_>,
    ) -> Option<String> {
        let Some(text) = text else {
            let wrong = Wrong::new("is missing", "add name = \"…\" to this [[member]]");
            notes.at(table, "member.name", wrong);
            return None;
        };
        let name = noted(text, "member.name", value::member_name, notes)?;
        let line = notes.line(&text.span());
        if let Some(other) = self.names.insert(name.clone(), line) {
            let what = format!("{name} is the name of the member in line {other} as well");
            notes.at(&text.span(), "member.name", Wrong::new(what, "give each its own name"));
        }
        Some(name)
    }

    fn public_key(
        &mut self,
        table: &Range<usize>,
        text: Option<&Text>,
        notes: &mut Notes<'_>,
    ) -> Option<PublicKey> {
        let print = "as `fastvpnctl keygen --public FILE` prints it on that node";
        let Some(text) = text else {
            let remedy = format!("add public_key = \"…\" to this [[member]], {print}");
            notes.at(table, "member.public_key", Wrong::new("is missing", remedy));
            return None;
        };
        let key = noted(text, "member.public_key", value::public_key, notes)?;
        if self.own == Some(key) {
            let wrong = Wrong::new("is the hub's own key", format!("write the member's, {print}"));
            notes.at(&text.span(), "member.public_key", wrong);
        }
        if let Some(other) = self.keys.insert(key, notes.line(&text.span())) {
            let what = format!("is the key of the member in line {other} as well");
            let wrong = Wrong::new(what, format!("make a key on each node and write it, {print}"));
            notes.at(&text.span(), "member.public_key", wrong);
        }
        Some(key)
    }

    fn address(&mut self, text: &Text, notes: &mut Notes<'_>) -> Option<IpAddr> {
        let addr = noted(text, "member.address", value::address, notes)?;
        let line = notes.line(&text.span());
        if let Some(overlay) = self.overlay {
            let choose = || format!("choose another one in {}", listed(overlay));
            match overlay.iter().find(|subnet| subnet.contains(addr)) {
                None => {
                    let what = format!("{addr} is in no subnet of the network");
                    notes.at(&text.span(), "member.address", Wrong::new(what, choose()));
                }
                Some(subnet) if value::is_network_or_broadcast(subnet, addr) => {
                    let what = format!("{addr} is the network or broadcast address of {subnet}");
                    notes.at(&text.span(), "member.address", Wrong::new(what, choose()));
                }
                Some(_) => {}
            }
        }
        let owner = format!("the member in line {line}");
        if let Some(other) = self.addresses.insert(addr, owner) {
            let what = format!("{addr} is the address of {other} as well");
            let wrong = Wrong::new(what, "give each node its own, or leave it out for a free one");
            notes.at(&text.span(), "member.address", wrong);
        }
        Some(addr)
    }

    fn subnet(&mut self, text: &Text, notes: &mut Notes<'_>) -> Option<Prefix> {
        let subnet = noted(text, "member.subnet", value::subnet, notes)?;
        let line = notes.line(&text.span());
        let overlay = self.overlay.unwrap_or_default().iter();
        let remedy = "a subnet behind a member must be in no other one";
        if let Some(other) = overlay.copied().find(|other| other.overlaps(&subnet)) {
            let what = format!("{subnet} overlaps {other}, the network's own");
            notes.at(&text.span(), "member.subnet", Wrong::new(what, remedy));
        }
        if let Some((other, at)) = self.subnets.iter().find(|(other, _)| other.overlaps(&subnet)) {
            let what = format!("{subnet} overlaps {other} in line {at}");
            notes.at(&text.span(), "member.subnet", Wrong::new(what, remedy));
        }
        self.subnets.push((subnet, line));
        Some(subnet)
    }
}

fn listed(subnets: &[Prefix]) -> String {
    subnets.iter().map(Prefix::to_string).collect::<Vec<_>>().join(" or ")
}

/// Silence after which a peer leaves the list, where none is given
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(15);
/// A peer gives its hub up after some 9 s (a failed heartbeat, and retries 1, 3 and 7 s later);
/// its hub waits longer
const TIMEOUT_MIN: Duration = Duration::from_secs(12);
