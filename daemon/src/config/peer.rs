//! What only a peer's file has: its hubs, and what it does without them.

use std::collections::{BTreeMap, BTreeSet};

use fastvpn_proto::node::Choice;
use toml::Spanned;

use super::check::{Known, noted};
use super::file::{HubTable, NetworkFile};
use super::problem::{Notes, Wrong, quoted};
use super::{HubAddress, HubLoss, PeerName, PeerRoleConfig, PeerSetting, engine, value};

/// Checks what only a peer's file has
pub(super) fn check(
    file: &NetworkFile,
    known: &Known<'_>,
    notes: &mut Notes<'_>,
) -> Option<PeerRoleConfig> {
    let hub_loss = hub_loss(file, notes);
    if file.hub.is_empty() {
        let remedy = "add [[hub]] with the endpoint and the public_key of the hub";
        notes.missing("hub", remedy);
    }
    let mut hubs = Vec::new();
    let mut keys = BTreeMap::new();
    let mut endpoints = BTreeSet::new();
    for table in &file.hub {
        let Some(hub) = hub(table, known.carrier, notes) else { continue };
        // both are there, or `hub` were not
        let place = |text: &Option<Spanned<String>>| text.as_ref().map_or(0..0, Spanned::span);
        let key_place = place(&table.get_ref().public_key);
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
        } else if !endpoints.insert(hub.endpoint.clone()) {
            let wrong = Wrong::new(
                format!("{} is the endpoint of another hub as well", hub.endpoint),
                "remove one of the two",
            );
            notes.at(&place(&table.get_ref().endpoint), "hub.endpoint", wrong);
        }
        hubs.push(hub);
    }
    let peers = peers(file, known.carrier, notes);
    Some(PeerRoleConfig { hubs, hub_loss: hub_loss?, carrier: known.carrier, peers })
}

fn hub(table: &Spanned<HubTable>, carrier: Choice, notes: &mut Notes<'_>) -> Option<HubAddress> {
    let hub = table.get_ref();
    let endpoint = match &hub.endpoint {
        Some(text) => noted(text, "hub.endpoint", value::endpoint, notes),
        None => {
            let wrong = Wrong::new("is missing", "add endpoint = \"HOST:PORT\" to this [[hub]]");
            notes.at(&table.span(), "hub.endpoint", wrong);
            None
        }
    };
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
    let split = engine::split(&hub.tcp, "hub.tcp", notes)?;
    Some(HubAddress { endpoint: endpoint?, public_key: public_key?, carrier: carrier?, split })
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
        let split = engine::split(&peer.tcp, "peer.tcp", notes);
        let Some((who, span, key)) = named else { continue };
        if let Some(line) = seen.insert(who.clone(), notes.line(&span)) {
            let what = format!("is that of the [[peer]] in line {line} as well");
            notes.at(&span, key, Wrong::new(what, "write all of a peer into one [[peer]]"));
        }
        let (Some(carrier), Some(split)) = (carrier, split) else { continue };
        settings.push(PeerSetting { who, carrier, split });
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
