//! Proxy of `org.fastvpn.Network1`.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};
use zbus::{Type, Variant, proxy};

use crate::error::Error;
use crate::types::MemberAnswer;

/// Answer of [`NetworkProxy::invite`]
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize, Type)]
pub struct InviteAnswer {
    /// The invitation, which cannot be shown again
    pub invitation: String,
    /// When it is of no use any more, in Unix seconds
    pub expires: u64,
    /// Where it says that the hub is
    pub endpoints: Vec<String>,
}

/// An invitation that may still be used
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize, Type)]
pub struct InvitationAnswer {
    /// Name of the member to be
    pub name: String,
    /// When it is of no use any more, in Unix seconds
    pub expires: u64,
    /// Whether somebody has to approve who comes by it
    pub approval: bool,
}

use crate::types::Plan;

/// One network; see [`crate::types::NetworkFacts`] and [`crate::types::NetworkFigures`]
#[proxy(interface = "org.fastvpn.Network1", default_service = "org.fastvpn")]
pub trait Network {
    /// Lets a node join that waits for approval, or was revoked; named by key or name
    #[zbus(allow_interactive_auth)]
    fn approve_member(&self, who: &str) -> Result<(), Error>;

    /// Makes the invitations of a name useless
    #[zbus(allow_interactive_auth)]
    fn cancel_invitation(&self, member: &str) -> Result<(), Error>;

    /// Lists the invitations by which somebody may still come
    #[zbus(allow_interactive_auth)]
    fn invitations(&self) -> Result<Vec<InvitationAnswer>, Error>;

    /// Makes an invitation; only a hub can
    #[zbus(allow_interactive_auth)]
    fn invite(
        &self,
        member: &str,
        options: &HashMap<&str, Variant<'_>>,
    ) -> Result<InviteAnswer, Error>;

    /// Lists the members; only a hub can
    fn members(&self) -> Result<Vec<MemberAnswer>, Error>;

    /// Gives a member another name; named by key or name
    #[zbus(allow_interactive_auth)]
    fn rename_member(&self, who: &str, name: &str) -> Result<(), Error>;

    /// Cuts a member off; named by key or name
    #[zbus(allow_interactive_auth)]
    fn revoke_member(&self, who: &str) -> Result<(), Error>;

    /// Overlay addresses of this node, each with its prefix length
    #[zbus(property)]
    fn addresses(&self) -> zbus::Result<Vec<String>>;

    /// Who gives the interface its addresses, routes and DNS: `self` (the daemon) or `caller`
    #[zbus(property)]
    fn apply(&self) -> zbus::Result<String>;

    /// Why it is in this state; empty where all is well
    #[zbus(property)]
    fn detail(&self) -> zbus::Result<String>;

    /// What is wrong with names of nodes; empty where all is well
    #[zbus(property)]
    fn dns_detail(&self) -> zbus::Result<String>;

    /// Address and port where names of nodes are answered; empty while they are not
    #[zbus(property)]
    fn dns_server(&self) -> zbus::Result<String>;

    /// `announced`, `caller`, `failed`, `off`, `pending`, `refused` or `unannounced`
    #[zbus(property)]
    fn dns_state(&self) -> zbus::Result<String>;

    /// The domain of the nodes' names, without a final dot; empty where they have none
    #[zbus(property)]
    fn dns_suffix(&self) -> zbus::Result<String>;

    /// Whether the hub answers
    #[zbus(property)]
    fn hub_alive(&self) -> zbus::Result<bool>;

    /// Where the hub is, as configured; empty on a hub
    #[zbus(property)]
    fn hub_endpoint(&self) -> zbus::Result<String>;

    /// Public key of the hub in base64; empty on a hub
    #[zbus(property)]
    fn hub_key(&self) -> zbus::Result<String>;

    /// Name of the TUN interface; empty while there is none
    #[zbus(property)]
    fn interface(&self) -> zbus::Result<String>;

    /// UDP address that the node listens on; empty while it does not
    #[zbus(property)]
    fn listen(&self) -> zbus::Result<String>;

    /// MTU of the interface in bytes
    #[zbus(property)]
    fn mtu(&self) -> zbus::Result<u32>;

    /// Name
    #[zbus(property(emits_changed_signal = "const"))]
    fn name(&self) -> zbus::Result<String>;

    /// What the interface is to be like
    #[zbus(property)]
    fn plan(&self) -> zbus::Result<Plan>;

    /// Public key of this node in base64
    #[zbus(property)]
    fn public_key(&self) -> zbus::Result<String>;

    /// Bytes that may be sent in a period; 0: no bound
    #[zbus(property)]
    fn quota(&self) -> zbus::Result<u64>;

    /// `day`, `week` or `month`; empty without a bound
    #[zbus(property)]
    fn quota_period(&self) -> zbus::Result<String>;

    /// When the next period begins, in Unix seconds; 0 without a bound
    #[zbus(property)]
    fn quota_until(&self) -> zbus::Result<u64>;

    /// Bytes that were sent in the present period; 0 without a bound
    #[zbus(property)]
    fn quota_used(&self) -> zbus::Result<u64>;

    /// Bytes of messages that may wait in the system until they are read; 0 while it does not listen
    #[zbus(property)]
    fn receive_buffer(&self) -> zbus::Result<u64>;

    /// Messages and packets refused, by reason
    #[zbus(property)]
    fn refusals(&self) -> zbus::Result<BTreeMap<String, u64>>;

    /// `hub` or `peer`
    #[zbus(property)]
    fn role(&self) -> zbus::Result<String>;

    /// Bytes of messages that may wait in the system until they leave; 0 while it does not listen
    #[zbus(property)]
    fn send_buffer(&self) -> zbus::Result<u64>;

    /// `down`, `connecting`, `pending`, `up`, `hub-lost` or `failed`
    #[zbus(property)]
    fn state(&self) -> zbus::Result<String>;

    /// Counters by name
    #[zbus(property)]
    fn statistics(&self) -> zbus::Result<BTreeMap<String, u64>>;

    /// Subnets behind this node, as the hub says
    #[zbus(property)]
    fn subnets(&self) -> zbus::Result<Vec<String>>;
}
