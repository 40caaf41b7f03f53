//! What only a peer's file has: its hubs, and what it does without them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;

use fastvpn_proto::node::Choice;
use toml::Spanned;

use super::check::{Known, noted};
use super::file::{HubTable, NetworkFile};
use super::problem::{Notes, Wrong, quoted};
use super::{
    HubAddress, HubLoss, PeerName, PeerRoleConfig, PeerSetting, TicketFile, engine, value,
};

/// Checks what only a peer's file has
pub(super) fn check(
    file: &NetworkFile,
    known: &Known<'_>,
    notes: &mut Notes<'_>,
) -> Option<PeerRoleConfig> {
    let hub_loss = hub_loss(file, notes);
    let ticket = ticket(file, known, notes);
    if file.hub.is_empty() {
        let remedy = "add [[hub]] with the endpoint and the public_key of the hub";
        notes.missing("hub", remedy);
    }
    let mut hubs = Vec::new();
    let mut keys = BTreeMap::new();
    let mut endpoints: BTreeSet<String> = BTreeSet::new();
    for table in &file.hub {
        let Some(hub) = hub(table, known.carrier, notes) else { continue };
        // both are there, or `hub` were not
        let key_place = table.get_ref().public_key.as_ref().map_or(0..0, Spanned::span);
        let endpoint_place = table.get_ref().endpoint.as_ref().map_or(0..0, Spanned::span);
        if known.public_key == Some(hub.public_key) {
            let wrong = Wrong::new(
                "is this node's own key",
                "write what `fastvpnctl keygen --public FILE` prints on the hub",
            );
            notes.at(&key_place, "hub.public_key", wrong);
        }
        if let Some(line) = keys.insert(hub.public_key, notes.line(&key_place)) {
            let wrong = Wrong::new(
                format!("is the key of the hub in line {line} as well"),
                "give each hub once; a host name may have several addresses",
            );
            notes.at(&key_place, "hub.public_key", wrong);
        } else if let Some(twice) = hub.endpoints().find(|one| !endpoints.insert((*one).clone())) {
            let wrong = Wrong::new(
                format!("{twice} is the endpoint of another hub as well, or given twice"),
                "remove one of the two",
            );
            notes.at(&endpoint_place, "hub.endpoint", wrong);
        }
        hubs.push(hub);
    }
    let peers = peers(file, known.carrier, notes);
    Some(PeerRoleConfig {
        hubs,
        hub_loss: hub_loss?,
        carrier: known.carrier,
        peers,
        ticket: ticket?,
    })
}

/// Reads the secret of an invitation; a file that is gone was used
fn ticket(
    file: &NetworkFile,
    known: &Known<'_>,
    notes: &mut Notes<'_>,
) -> Option<Option<TicketFile>> {
    let Some(text) = &file.ticket_file else { return Some(None) };
    let base = notes.file().parent().unwrap_or(Path::new("/"));
    match known.keys.ticket(base, text.get_ref()) {
        Ok(ticket) => Some(ticket),
        Err(error) => {
            let wrong = Wrong::new(error.to_string(), error.remedy());
            notes.at(&text.span(), "ticket_file", wrong);
            None
        }
    }
}

fn hub(table: &Spanned<HubTable>, carrier: Choice, notes: &mut Notes<'_>) -> Option<HubAddress> {
    let hub = table.get_ref();
    let mut endpoints = endpoints(table, notes);
    let public_key = match &hub.public_key {
        Some(text) => noted(text, "hub.public_key", value::public_key, notes),
        None => {
            let wrong = Wrong::new(
                "is missing",
                "add public_key = \"…\", as `fastvpnctl keygen --public FILE` prints it on the hub",
            );
            notes.at(&table.span(), "hub.public_key", wrong);
            None
        }
    };
    let carrier = engine::carrier(hub.carrier.as_ref(), "hub.carrier", carrier, notes);
    let tcp = engine::tcp(&hub.tcp, "hub.tcp", notes)?;
    let endpoint = endpoints.pop_front();
    Some(HubAddress {
        endpoint: endpoint?,
        others: endpoints.into(),
        public_key: public_key?,
        carrier: carrier?,
        tcp,
    })
}

/// Reads where a hub is; nothing if anything is wrong with it
fn endpoints(table: &Spanned<HubTable>, notes: &mut Notes<'_>) -> VecDeque<String> {
    let remedy = "add endpoint = \"HOST:PORT\" to this [[hub]]";
    let Some(list) = &table.get_ref().endpoint else {
        notes.at(&table.span(), "hub.endpoint", Wrong::new("is missing", remedy));
        return VecDeque::new();
    };
    if list.get_ref().is_empty() {
        notes.at(&list.span(), "hub.endpoint", Wrong::new("is empty", remedy));
    }
    let all = list.get_ref().iter();
    let read: Option<_> =
        all.map(|text| noted(text, "hub.endpoint", value::endpoint, notes)).collect();
    read.unwrap_or_default()
}

/// Checks what is set for single peers; `carrier` is that of all others
fn peers(file: &NetworkFile, carrier: Choice, notes: &mut Notes<'_>) -> Vec<PeerSetting> {
    let mut settings = Vec::new();
    let mut seen = BTreeMap::new();
    for table in &file.peer {
        let peer = table.get_ref();
        let named = match (&peer.name, &peer.public_key) {
            (Some(name), None) => noted(name, "peer.name", value::member_name, notes)
                .map(|text| (PeerName::Name(text), name.span(), "peer.name")),
            (None, Some(key)) => noted(key, "peer.public_key", value::public_key, notes)
                .map(|found| (PeerName::Key(found), key.span(), "peer.public_key")),
            (Some(_), Some(key)) => {
                let wrong = Wrong::new("is given beside name", "remove one of the two");
                notes.at(&key.span(), "peer.public_key", wrong);
                None
            }
            (None, None) => {
                let remedy = "add name = \"…\", or public_key = \"…\", to this [[peer]]";
                notes.at(&table.span(), "peer.name", Wrong::new("is missing", remedy));
                None
            }
        };
        if peer.carrier.is_none() && peer.tcp.is_none() {
            let remedy = "add what is to be different for this peer: carrier = \"tcp\"";
            notes.at(&table.span(), "peer.carrier", Wrong::new("is missing", remedy));
        }
        let carrier = engine::carrier(peer.carrier.as_ref(), "peer.carrier", carrier, notes);
        let tcp = engine::tcp(&peer.tcp, "peer.tcp", notes);
        let Some((who, span, key)) = named else { continue };
        if let Some(line) = seen.insert(who.clone(), notes.line(&span)) {
            let what = format!("is that of the [[peer]] in line {line} as well");
            notes.at(&span, key, Wrong::new(what, "write all of a peer into one [[peer]]"));
        }
        let (Some(carrier), Some(tcp)) = (carrier, tcp) else { continue };
        settings.push(PeerSetting { who, carrier, tcp });
    }
    settings
}

fn hub_loss(file: &NetworkFile, notes: &mut Notes<'_>) -> Option<HubLoss> {
    let Some(text) = &file.hub_loss else {
        return Some(HubLoss::default());
    };
    match text.get_ref().as_str() {
        "keep" => Some(HubLoss::Keep),
        "stop" => Some(HubLoss::Stop),
        other => {
            let wrong = Wrong::new(
                format!("{} is no way to take the loss of the hub", quoted(other)),
                "write \"stop\" (serve nothing until it is back) or \"keep\" (go on with the \
                 peers that are known)",
            );
            notes.at(&text.span(), "hub_loss", wrong);
            None
        }
    }
}
