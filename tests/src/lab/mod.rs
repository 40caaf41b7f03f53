//! The laboratory: hosts, wires, buses and daemons on one machine.
//!
//! A [`Lab`] is a temporary directory and a [`Wire`]; a [`Star`] is the usual thing to have on it:
//! a hub and some peers, each a [`Node`] in a [`Host`] of its own. Everything goes when the value is
//! dropped, also when a test panics, and the logs of the daemons are printed only then.
//!
//! # Contract
//!
//! - Root is needed, and `/dev/net/tun`; [`privileged`] says what is missing.
//! - No setting of the machine is changed, only those of namespaces.

pub mod booted;
pub mod bus;
pub mod crowd;
pub mod daemon;
pub mod exchange;
mod icmp;
pub mod load;
pub mod manager;
pub mod many;
pub mod nat;
pub mod netns;
pub mod sequence;
pub mod star;
pub mod stream;
pub mod turns;
pub mod wait;
pub mod wire;

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use tempfile::TempDir;

pub use daemon::{Launch, Node, SOON};
pub use netns::Host;
pub use star::{Families, Star, StarPlan};
pub use wait::until;
pub use wire::{Pass, Port, Wire};

/// A directory and a wire
#[derive(Debug)]
pub struct Lab {
    /// The world between the hosts
    pub wire: Wire,
    directory: TempDir,
}

impl Lab {
    /// Makes an empty laboratory; all chance follows from `FASTVPN_SEED`, or 1
    ///
    /// # Errors
    /// If there is no temporary directory.
    pub fn new() -> Result<Self> {
        let seed = std::env::var("FASTVPN_SEED").ok().and_then(|text| text.parse().ok());
        Self::seeded(seed.unwrap_or(1))
    }

    /// Makes an empty laboratory; all chance follows from `seed`
    ///
    /// # Errors
    /// If there is no temporary directory.
    pub fn seeded(seed: u64) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("fastvpn-lab-").tempdir()?;
        // daemons of other users must get at their files
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755))?;
        Ok(Self { wire: Wire::new(seed)?, directory })
    }

    /// Makes a host on the wire
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn host(&self, name: &str, addresses: &[IpAddr]) -> Result<(Arc<Host>, Port)> {
        let host = Host::new(name)?;
        let port = self.wire.attach(&host, addresses)?;
        Ok((Arc::new(host), port))
    }

    /// Returns the directory
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }
}

/// Underlay IPv4 address of a host
pub const fn outer_v4(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(198, 51, 100, number)
}

/// Underlay IPv6 address of a host
pub const fn outer_v6(number: u8) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, number as u16)
}

/// Overlay IPv4 address of a node
pub const fn inner_v4(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 97, 0, number)
}

/// Overlay IPv6 address of a node
pub const fn inner_v6(number: u8) -> Ipv6Addr {
    Ipv6Addr::new(0xfd97, 0, 0, 0, 0, 0, 0, number as u16)
}

/// Says whether this machine and user can have a laboratory, and if not, what is missing
///
/// # Errors
/// A sentence on what is missing.
pub fn privileged() -> Result<(), String> {
    if !rustix::process::geteuid().is_root() {
        return Err("needs root (network namespaces)".to_owned());
    }
    if !Path::new("/dev/net/tun").exists() {
        return Err("needs /dev/net/tun".to_owned());
    }
    let host = Host::new("probe").map_err(|error| format!("needs namespaces: {error:#}"))?;
    let wire = Wire::new(0).map_err(|error| format!("needs threads: {error:#}"))?;
    wire.attach(&host, &[outer_v4(1).into()])
        .map_err(|error| format!("needs a working /dev/net/tun: {error:#}"))?;
    Ok(())
}

/// Tells whether a program is installed
pub fn has(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/sbin", "/sbin"].map(Into::into);
    std::env::split_paths(&path).chain(usual).any(|directory| directory.join(program).is_file())
}
