//! What `org.fastvpn.Network1` may be asked about the members of a hub.

use std::collections::HashMap;
use std::time::Duration;

use fastvpn_dbus::Error;
use fastvpn_dbus::types::MemberAnswer;
use fastvpn_proto::ip::Prefix;
use zbus::OwnedVariant;

use super::network::{texts, unix_seconds};
use crate::handle::{InvitationView, Invite, MemberView};

/// Reads the options of an invitation
///
/// # Errors
/// If one is not known, or of another type, or no address, subnet or time.
pub(super) fn invite(
    name: &str,
    mut options: HashMap<String, OwnedVariant>,
) -> Result<Invite, Error> {
    let ttl = taken::<u64>(&mut options, "ttl")?.unwrap_or(TTL_DEFAULT);
    let addresses = taken::<Vec<String>>(&mut options, "address")?.unwrap_or_default();
    let subnets = taken::<Vec<String>>(&mut options, "subnets")?.unwrap_or_default();
    let invite = Invite {
        name: name.to_owned(),
        ttl: Duration::from_secs(ttl),
        approval: taken(&mut options, "approval")?.unwrap_or(false),
        addresses: each(&addresses, "an overlay address such as 172.16.97.101")?,
        subnets: each::<Prefix>(&subnets, "a subnet such as 192.168.7.0/24")?,
        endpoints: taken(&mut options, "endpoint")?.unwrap_or_default(),
    };
    match options.keys().min() {
        None => Ok(invite),
        Some(unknown) => Err(Error::InvalidArgument(format!("unknown option {unknown:?}"))),
    }
}

/// Puts a member into the bus's words
pub(super) fn member(view: &MemberView) -> MemberAnswer {
    MemberAnswer {
        name: view.name.clone(),
        public_key: view.public_key.to_string(),
        addresses: texts(&view.addresses),
        subnets: texts(&view.subnets),
        standing: view.standing.to_owned(),
        source: view.source.to_owned(),
        online: view.online,
        since: view.since,
    }
}

/// Puts an invitation into the bus's words
pub(super) fn invitation(view: InvitationView) -> (String, u64, bool) {
    (view.name, unix_seconds(view.expires), view.approval)
}

/// Takes an option out, if it is there
fn taken<T: TryFrom<OwnedVariant>>(
    options: &mut HashMap<String, OwnedVariant>,
    name: &str,
) -> Result<Option<T>, Error> {
    let Some(value) = options.remove(name) else { return Ok(None) };
    let wrong = |_| Error::InvalidArgument(format!("option {name:?} is of another type"));
    T::try_from(value).map(Some).map_err(wrong)
}

fn each<T: std::str::FromStr>(texts: &[String], wanted: &str) -> Result<Vec<T>, Error> {
    let wrong = |text: &String| Error::InvalidArgument(format!("{text:?} is not {wanted}"));
    texts.iter().map(|text| text.parse().map_err(|_| wrong(text))).collect()
}

/// Seconds for which an invitation may be used, where nothing is said
const TTL_DEFAULT: u64 = 3600;
