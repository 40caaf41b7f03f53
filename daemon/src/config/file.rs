//! The serde mirror of one `NAME.toml`: no logic, only shape.
//!
//! Every value keeps its place in the text. Keys that are not here are refused; [`super::shape`]
//! says so for all of them at once, before serde would stop at the first.

use serde::Deserialize;
use toml::Spanned;

/// A text with its place in the file
pub(super) type Text = Spanned<String>;

/// One network's file
///
/// Not `Debug`: somebody may have put a secret into a wrong place.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct NetworkFile {
    pub(super) role: Option<Text>,
    pub(super) autoconnect: Option<Spanned<bool>>,
    pub(super) private_key_file: Option<Text>,
    pub(super) private_key_credential: Option<Text>,
    pub(super) network_key_file: Option<Text>,
    pub(super) network_key_credential: Option<Text>,
    pub(super) listen: Option<Text>,
    pub(super) interface: Option<Text>,
    pub(super) mtu: Option<Spanned<i64>>,
    pub(super) threads: Option<Spanned<i64>>,
    pub(super) address: Option<Spanned<Vec<Text>>>,
    pub(super) dns: Option<Spanned<bool>>,
    pub(super) dns_suffix: Option<Text>,
    pub(super) cipher: Option<Text>,
    pub(super) carrier: Option<Text>,
    pub(super) tcp: Option<Text>,
    pub(super) memory: Option<Text>,
    pub(super) rate: Option<Text>,
    pub(super) packet_rate: Option<Spanned<i64>>,
    pub(super) quota: Option<Text>,
    pub(super) redundancy: Option<Text>,
    pub(super) endpoint: Option<Text>,
    pub(super) subnet: Option<Spanned<Vec<Text>>>,
    pub(super) timeout: Option<Text>,
    pub(super) member: Vec<Spanned<MemberTable>>,
    pub(super) hub_loss: Option<Text>,
    pub(super) ticket_file: Option<Text>,
    pub(super) hub: Vec<Spanned<HubTable>>,
    pub(super) peer: Vec<Spanned<PeerTable>>,
}

/// The node's file
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct NodeFile {
    pub(super) rate: Option<Text>,
    pub(super) packet_rate: Option<Spanned<i64>>,
    pub(super) quota: Option<Text>,
}

/// One `[[member]]`
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct MemberTable {
    pub(super) name: Option<Text>,
    pub(super) public_key: Option<Text>,
    pub(super) address: Vec<Text>,
    pub(super) subnet: Vec<Text>,
    pub(super) carrier: Option<Text>,
    pub(super) tcp: Option<Text>,
}

/// One `[[hub]]`
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct HubTable {
    pub(super) endpoint: Option<Spanned<Vec<Text>>>,
    pub(super) public_key: Option<Text>,
    pub(super) carrier: Option<Text>,
    pub(super) tcp: Option<Text>,
}

/// One `[[peer]]`
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct PeerTable {
    pub(super) name: Option<Text>,
    pub(super) public_key: Option<Text>,
    pub(super) carrier: Option<Text>,
    pub(super) tcp: Option<Text>,
}
