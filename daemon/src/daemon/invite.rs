//! An invitation in the making: what a hub says of itself to a newcomer.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, SystemTime};

use fastvpn_proto::crypto::InvitationSecret;
use fastvpn_proto::time::Instant;

use crate::config::{HubConfig, NetworkConfig, is_endpoint, is_member_name, is_subnet};
use crate::handle::{HandleError, Invite, Invited};
use crate::invitation;
use crate::registry::{Digest, Invitation, Use};

/// Shortest and longest time for which an invitation may be used
const TTL_MIN: Duration = Duration::from_secs(60);
const TTL_MAX: Duration = Duration::from_secs(30 * 24 * 3600);

/// An invitation that is not written down yet
#[derive(Debug)]
pub(super) struct Made {
    digest: Digest,
    invitation: Invitation,
    ttl: Duration,
    text: String,
    endpoints: Vec<String>,
}

/// Makes an invitation with a fresh secret
///
/// `candidates` are the addresses of this machine, for a hub that does not say where it is.
///
/// # Errors
/// If a value is none, or nobody knows where the hub is.
pub(super) fn make(
    network: &NetworkConfig,
    hub: &HubConfig,
    candidates: &[SocketAddr],
    invite: &Invite,
    secret: &InvitationSecret,
) -> Result<Made, HandleError> {
    check_name(&invite.name)?;
    if invite.ttl < TTL_MIN || invite.ttl > TTL_MAX {
        let form = "an invitation may be used for 1 minute to 30 days";
        return Err(HandleError::Invalid(form.to_owned()));
    }
    if let Some(subnet) = invite.subnets.iter().find(|subnet| !is_subnet(subnet)) {
        let text = format!("{subnet} is no subnet that may be behind a member");
        return Err(HandleError::Invalid(text));
    }
    let endpoints = endpoints(network, hub, candidates, invite)?;
    let text = invitation::Invitation {
        network: network.name.clone(),
        member: invite.name.clone(),
        hub_key: network.private_key.public_key(),
        endpoints: endpoints.clone(),
        network_key: network.network_key.clone(),
        secret: secret.clone(),
    }
    .to_string();
    let invitation = Invitation {
        name: invite.name.clone(),
        expires: 0,
        approval: invite.approval,
        addresses: invite.addresses.clone(),
        subnets: invite.subnets.clone(),
        used: Use::Open,
    };
    Ok(Made { digest: Digest::of(secret), invitation, ttl: invite.ttl, text, endpoints })
}

/// Fails where a text is no name that a member can have
pub(super) fn check_name(name: &str) -> Result<(), HandleError> {
    if is_member_name(name) {
        return Ok(());
    }
    let form = "a member's name is 1 to 63 characters of a-z, 0-9 and '-', with no '-' at an end";
    Err(HandleError::Invalid(form.to_owned()))
}

impl Made {
    /// Says until when it may be used, if it is made now; `zero` is the wall clock at the zero of all
    /// instants
    pub(super) fn at(self, zero: SystemTime, now: Instant) -> (Digest, Invitation, Invited) {
        let expires = zero + Duration::from_nanos(now.as_nanos()) + self.ttl;
        let seconds = expires.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let expires = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let invited = Invited { text: self.text, expires, endpoints: self.endpoints };
        (self.digest, Invitation { expires: seconds, ..self.invitation }, invited)
    }
}

/// Says where the hub is: as asked for, as configured, or where the whole world finds this machine
fn endpoints(
    network: &NetworkConfig,
    hub: &HubConfig,
    candidates: &[SocketAddr],
    invite: &Invite,
) -> Result<Vec<String>, HandleError> {
    if invite.endpoints.len() > invitation::ENDPOINTS_MAX {
        let most = invitation::ENDPOINTS_MAX;
        return Err(HandleError::Invalid(format!("an invitation has {most} endpoints at most")));
    }
    if let Some(bad) = invite.endpoints.iter().find(|endpoint| !is_endpoint(endpoint)) {
        let text = format!("{bad:?} is no HOST:PORT such as hub.example.net:8796");
        return Err(HandleError::Invalid(text));
    }
    if !invite.endpoints.is_empty() {
        return Ok(invite.endpoints.clone());
    }
    if let Some(endpoint) = &hub.endpoint {
        return Ok(vec![endpoint.clone()]);
    }
    let global = candidates.iter().filter(|candidate| is_global(candidate.ip()));
    let global: Vec<_> = global.map(SocketAddr::to_string).collect();
    if global.is_empty() {
        let file = network.file.display();
        return Err(HandleError::Invalid(format!(
            "nobody can know where this hub is: it has no public address of its own; write endpoint \
             = \"HOST:PORT\" into {file}, then `fastvpnctl reload`, or give it with the invitation"
        )));
    }
    Ok(global)
}

/// Tells whether an address means the same machine everywhere
fn is_global(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            let [first, second, ..] = address.octets();
            // carriers' NATs (RFC 6598) and benchmarks (RFC 2544) as well
            let shared = first == 100 && (64..128).contains(&second);
            let benchmark = first == 198 && (18..20).contains(&second);
            !(address.is_private() || address.is_link_local() || shared || benchmark)
                && !(address.is_loopback() || address.is_documentation() || first == 0)
        }
        IpAddr::V6(address) => {
            // global unicast, 2000::/3, less documentation
            let [first, second, ..] = address.segments();
            first & 0xe000 == 0x2000 && !(first == 0x2001 && second == 0xdb8)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_that_mean_the_same_everywhere_are_told_unasked() {
        let global = |text: &str| is_global(text.parse().unwrap());

        for address in ["8.8.8.8", "100.128.0.1", "198.20.0.1", "2606:4700::1"] {
            assert!(global(address), "{address}");
        }
        for address in [
            "10.0.0.1",
            "172.16.0.1",
            "192.168.1.1",
            "100.64.0.1",
            "198.18.0.1",
            "192.0.2.1",
            "127.0.0.1",
            "169.254.0.1",
            "fd00::1",
            "fe80::1",
            "2001:db8::1",
            "::1",
        ] {
            assert!(!global(address), "{address}");
        }
    }
}
