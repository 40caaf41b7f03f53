//! What may be asked of a hub about its members, and what it answers.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use fastvpn_proto::crypto::PublicKey;
use fastvpn_proto::ip::Prefix;

use super::{Handle, HandleError, NetworkName, Request};

/// A request to a hub that concerns its members
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum MembersRequest {
    /// Let a node join that waits for it, or was revoked; named by key or name
    Approve(String),
    /// List the invitations by which somebody may still come
    Invitations,
    /// Make an invitation
    Invite(Invite),
    /// List the members
    List,
    /// Give a member another name
    Rename {
        /// Its key or name
        who: String,
        /// What it is called from now on
        name: String,
    },
    /// Cut a member off; named by key or name
    Revoke(String),
    /// Make the invitations of a name useless
    Withdraw(String),
}

/// An invitation to be made
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Invite {
    /// Name of the member to be
    pub name: String,
    /// How long it may be used
    pub ttl: Duration,
    /// Whether somebody has to approve who comes by it
    pub approval: bool,
    /// Addresses of the member to be; none: one of each subnet is given
    pub addresses: Vec<IpAddr>,
    /// Subnets behind it
    pub subnets: Vec<Prefix>,
    /// Where the hub is, as `HOST:PORT`; none: as its configuration says
    pub endpoints: Vec<String>,
}

/// What a hub answers
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum MembersReply {
    /// It is done, or was so already
    Done,
    /// To [`MembersRequest::Invitations`]
    Invitations(Vec<InvitationView>),
    /// To [`MembersRequest::Invite`]
    Invited(Invited),
    /// To [`MembersRequest::List`]
    Members(Vec<MemberView>),
}

/// An invitation that was made
#[derive(Clone, Eq, PartialEq)]
pub struct Invited {
    /// The invitation itself, which nobody can show again
    pub text: String,
    /// When it is of no use any more
    pub expires: SystemTime,
    /// Where it says that the hub is
    pub endpoints: Vec<String>,
}

/// An invitation that may still be used
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct InvitationView {
    /// Name of the member to be
    pub name: String,
    /// When it is of no use any more
    pub expires: SystemTime,
    /// Whether somebody has to approve who comes by it
    pub approval: bool,
}

/// A member as its hub knows it
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct MemberView {
    /// Its name
    pub name: String,
    /// Identity
    pub public_key: PublicKey,
    /// Overlay addresses; none if it has not come yet
    pub addresses: Vec<IpAddr>,
    /// Subnets behind it
    pub subnets: Vec<Prefix>,
    /// Whether it may join: `approved`, `pending` or `revoked`
    pub standing: &'static str,
    /// Where it is kept: `configuration` or `store`
    pub source: &'static str,
    /// Whether it is alive
    pub online: bool,
    /// Since when it is known, in Unix seconds; 0: not known
    pub since: u64,
}

impl std::fmt::Debug for Invited {
    /// Leaves out the invitation, which is a secret
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = f.debug_struct("Invited");
        shown.field("expires", &self.expires).field("endpoints", &self.endpoints);
        shown.finish_non_exhaustive()
    }
}

impl Handle {
    /// Makes an invitation to a hub's network
    ///
    /// # Errors
    /// If this node is no hub there, the network is not up, or something of it cannot be.
    pub async fn invite(
        &self,
        network: NetworkName,
        invite: Invite,
    ) -> Result<Invited, HandleError> {
        match self.members_request(network, MembersRequest::Invite(invite)).await? {
            MembersReply::Invited(invited) => Ok(invited),
            other => Err(unexpected(&other)),
        }
    }

    /// Lists the invitations by which somebody may still come
    ///
    /// # Errors
    /// If this node is no hub there, or the network is not up.
    pub async fn invitations(
        &self,
        network: NetworkName,
    ) -> Result<Vec<InvitationView>, HandleError> {
        match self.members_request(network, MembersRequest::Invitations).await? {
            MembersReply::Invitations(invitations) => Ok(invitations),
            other => Err(unexpected(&other)),
        }
    }

    /// Lists the members of a hub's network
    ///
    /// # Errors
    /// If this node is no hub there, or the network is not up.
    pub async fn members(&self, network: NetworkName) -> Result<Vec<MemberView>, HandleError> {
        match self.members_request(network, MembersRequest::List).await? {
            MembersReply::Members(members) => Ok(members),
            other => Err(unexpected(&other)),
        }
    }

    /// Approves, revokes or renames a member, or withdraws an invitation
    ///
    /// # Errors
    /// If this node is no hub there, the network is not up, or it cannot be done.
    pub async fn change_members(
        &self,
        network: NetworkName,
        request: MembersRequest,
    ) -> Result<(), HandleError> {
        self.members_request(network, request).await.map(drop)
    }

    async fn members_request(
        &self,
        network: NetworkName,
        request: MembersRequest,
    ) -> Result<MembersReply, HandleError> {
        self.ask(|reply| Request::Members { network, request, reply }).await
    }
}

fn unexpected(reply: &MembersReply) -> HandleError {
    HandleError::System(format!("the daemon answered something else: {reply:?}"))
}
