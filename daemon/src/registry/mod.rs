//! Who may join a hub's network, by which invitation, and with which addresses.
//!
//! A [`Registry`] keeps that somewhere and decides nothing: [`Configured`] holds the members of the
//! configuration, [`Database`] what the hub itself makes. What may be done with it is in [`Members`],
//! which is pure: it answers with the [`Change`]s that a request needs, and believes them when they
//! were committed. Who is alive is not known here.
//!
//! # Contract
//!
//! - [`Registry::commit`] makes all of the changes or none, and when it has returned they outlive a
//!   crash of the program or of the machine. What a registry cannot hold is a named error.
//! - Of the secret of an invitation only a [`Digest`] is ever kept.

mod configured;
#[cfg(test)]
mod contract;
mod database;
mod given;
mod members;
mod record;
pub(crate) mod store;

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;

use fastvpn_proto::crypto::PublicKey;
use fastvpn_proto::ip::Prefix;
use thiserror::Error;

pub use self::configured::Configured;
pub use self::database::Database;
pub use self::members::{Addresses, Members, Moment, Newcomer, Row, Source};
pub use self::record::{Change, Contents, Digest, Invitation, Record, Standing, Use};

/// Where members, invitations and given addresses of one network are kept
pub trait Registry {
    /// Returns everything that is kept
    ///
    /// # Errors
    /// If it cannot be read, or is not as it was written.
    fn load(&mut self) -> Result<Contents, RegistryError>;

    /// Makes all of the changes, in this order, or none
    ///
    /// # Errors
    /// If this registry cannot hold one of them, or they cannot be written down.
    fn commit(&mut self, changes: &[Change]) -> Result<(), RegistryError>;
}

/// Why something cannot be kept, read, or done
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// A member is the administrator's, who alone may change it
    #[error(
        "member {name} is in the configuration: change its [[member]] in {}, line {line}, then \
         `fastvpnctl reload`", file.display()
    )]
    Configured {
        /// The member
        name: String,
        /// The file of the network
        file: PathBuf,
        /// Where the member begins in it
        line: usize,
    },
    /// The file is not as it was written
    #[error(
        "{} is damaged ({what}); it was left as it is: restore it from a backup, or move it away to \
         begin without members, invitations and given addresses", file.display()
    )]
    Damaged {
        /// The file
        file: PathBuf,
        /// What is wrong with it
        what: String,
    },
    /// All addresses of a subnet have an owner
    #[error(
        "subnet {subnet} is full: all its addresses are the hub's, members', of invitations, or \
         given before (kept in {}); enlarge it", file.display()
    )]
    Full {
        /// The subnet
        subnet: Prefix,
        /// Where it is kept what was given
        file: PathBuf,
    },
    /// There are as many as there may be
    #[error("there are {limit} {what} already, and there may be no more; {remedy}")]
    Limit {
        /// Of what
        what: &'static str,
        /// How many there may be
        limit: usize,
        /// How to make room
        remedy: &'static str,
    },
    /// A name belongs to another member, or to an invitation
    #[error("the name {name} belongs to {owner}")]
    NameTaken {
        /// The name
        name: String,
        /// Whose it is
        owner: String,
    },
    /// The file was written by a later version of the program
    #[error(
        "{} has format {found}, and this version knows {known} only: it was written by a newer \
         fastvpnd; install that again", file.display()
    )]
    Newer {
        /// The file
        file: PathBuf,
        /// Its format
        found: u64,
        /// The latest one that is known
        known: u64,
    },
    /// There is no open invitation for that name
    #[error("there is no invitation for {0}")]
    NoInvitation(String),
    /// A member claims an address, and has others
    #[error("the hub gives this member other addresses than {0}")]
    NotConfigured(IpAddr),
    /// The file is open in another process
    #[error("{} is in use by another process: is fastvpnd running already?", .0.display())]
    Occupied(PathBuf),
    /// An address is in no subnet, or one that no node can have
    #[error("address {0} is no node's in any subnet of this network")]
    Outside(IpAddr),
    /// A subnet behind a member is somebody else's, or the network's own
    #[error("subnet {subnet} overlaps {other}")]
    Overlap {
        /// The subnet
        subnet: Prefix,
        /// What it overlaps, and whose that is
        other: String,
    },
    /// A file cannot be read
    #[error("cannot read {}: {source}", file.display())]
    Read {
        /// The file
        file: PathBuf,
        /// Why
        source: io::Error,
    },
    /// An address is somebody else's
    #[error("address {addr} belongs to {owner}")]
    Taken {
        /// The address
        addr: IpAddr,
        /// Whose it is
        owner: String,
    },
    /// A member claims more addresses than one node can need
    #[error("a member may have {ADDRESSES_MAX} addresses at most")]
    TooMany,
    /// The key or name is no member's
    #[error("{0} is no member")]
    Unknown(String),
    /// A newcomer may not come in, and is told so
    #[error("{0}")]
    Refused(String),
    /// This registry cannot hold something of that kind
    #[error("the configuration holds members only, and no {0}")]
    Unsupported(&'static str),
    /// A file cannot be written
    #[error("cannot write {}: {source}", file.display())]
    Write {
        /// The file
        file: PathBuf,
        /// Why
        source: io::Error,
    },
}

impl RegistryError {
    /// The error of a key that is no member's
    fn unknown(key: &PublicKey) -> Self {
        Self::Unknown(format!("key {key}"))
    }
}

/// Addresses that one member may have
const ADDRESSES_MAX: usize = 8;
