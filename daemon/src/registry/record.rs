//! What is kept of members, invitations and addresses: values, nothing else.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use fastvpn_proto::crypto::{InvitationSecret, PublicKey};
use fastvpn_proto::ip::Prefix;

/// Everything that a registry keeps
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Contents {
    /// Members, those included that wait for approval or were revoked
    pub members: BTreeMap<PublicKey, Record>,
    /// Invitations by what is kept of their secrets, used ones included
    pub invitations: BTreeMap<Digest, Invitation>,
    /// Addresses that were given to members without any, members of the past included
    pub given: BTreeMap<PublicKey, Vec<IpAddr>>,
}

/// A change of what is kept
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Change {
    /// A member has been given these addresses
    Given(PublicKey, Vec<IpAddr>),
    /// An invitation is new, or has changed
    Invitation(Digest, Invitation),
    /// A member is new, or has changed
    Member(PublicKey, Record),
    /// An invitation is forgotten
    NoInvitation(Digest),
    /// A member is forgotten
    NoMember(PublicKey),
}

/// A member, as it is kept
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Record {
    /// Name, for people
    pub name: String,
    /// Whether it may join
    pub standing: Standing,
    /// Since when it is known, in Unix seconds; 0: always
    pub since: u64,
    /// Addresses of its own; none: it is given one of each subnet
    pub addresses: Vec<IpAddr>,
    /// Subnets behind it
    pub subnets: Vec<Prefix>,
}

/// Whether a node may join
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Standing {
    /// It is a member
    Approved,
    /// It came by an invitation, and somebody has to approve it
    Pending,
    /// It was a member, and is none any more
    Revoked,
}

/// An invitation, as it is kept
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Invitation {
    /// Name of the member to be
    pub name: String,
    /// When it is of no use any more, in Unix seconds
    pub expires: u64,
    /// Whether somebody has to approve who comes by it
    pub approval: bool,
    /// Addresses that are kept for it; none: one of each subnet is given
    pub addresses: Vec<IpAddr>,
    /// Subnets behind the member to be
    pub subnets: Vec<Prefix>,
    /// What became of it
    pub used: Use,
}

/// What became of an invitation
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Use {
    /// Nobody has used it yet
    Open,
    /// The node of this key came by it
    By(PublicKey),
    /// It was withdrawn
    Withdrawn,
}

/// What is kept of an invitation's secret
#[derive(Clone, Copy, Eq, Ord, PartialEq, PartialOrd)]
pub struct Digest([u8; 32]);

impl Contents {
    /// Makes a change
    pub fn apply(&mut self, change: Change) {
        match change {
            Change::Given(key, addresses) => drop(self.given.insert(key, addresses)),
            Change::Invitation(digest, invitation) => {
                self.invitations.insert(digest, invitation);
            }
            Change::Member(key, record) => drop(self.members.insert(key, record)),
            Change::NoInvitation(digest) => drop(self.invitations.remove(&digest)),
            Change::NoMember(key) => drop(self.members.remove(&key)),
        }
    }
}

impl Invitation {
    /// Tells whether somebody may still come by it; `now` is in Unix seconds
    pub fn is_open(&self, now: u64) -> bool {
        self.used == Use::Open && now < self.expires
    }
}

impl Standing {
    /// Returns its word, as it is kept and shown
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Approved => "approved",
            Self::Pending => "pending",
            Self::Revoked => "revoked",
        }
    }
}

impl Digest {
    /// Computes what is kept of a secret
    pub fn of(secret: &InvitationSecret) -> Self {
        Self(secret.digest())
    }

    /// Makes a digest of its bytes
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Returns the bytes
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for Digest {
    /// Shows the first bytes, enough to tell them apart
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..4].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
