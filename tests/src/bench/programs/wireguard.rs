//! WireGuard in user space, with its default MTU of 1420.

use std::process::Command;

use anyhow::Result;

use super::{Processes, Tunnel, adopt};
use crate::bench::arena::Ground;
use crate::lab::star::number;
use crate::lab::{Host, inner_v4, outer_v4};

/// A program that does WireGuard
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Implementation {
    /// boringtun
    Boringtun,
    /// wireguard-go
    Go,
}

pub(super) fn set_up(ground: &Ground, implementation: Implementation) -> Result<Tunnel> {
    let mut processes = Processes::default();
    let ends = [(&ground.near, number(0), "near"), (&ground.far, number(1), "far")];
    let mut keys = Vec::new();
    for (host, own, _) in ends {
        let device = device(host, own);
        let command = implementation.command(host, &device);
        // its socket is in a directory of the machine, and stays when it is killed
        processes.leaves(format!("/var/run/wireguard/{device}.sock"));
        processes.start(ground.lab(), host, command)?;
        adopt(host, &device, own, &processes)?;
        let private = host.must("wg", &["genkey"], "")?;
        let public = host.must("wg", &["pubkey"], &private)?;
        keys.push((private, public.trim().to_owned()));
    }
    for (end, (host, own, _)) in ends.into_iter().enumerate() {
        let device = device(host, own);
        let other = number(1 - end);
        let endpoint = format!("{}:{PORT}", outer_v4(other));
        let allowed = format!("{}/32", inner_v4(other));
        let (private, public) = (&keys[end].0, &keys[1 - end].1);
        let settings = ["set", &device, "listen-port", PORT, "private-key", "/dev/stdin"];
        let peer = ["peer", public, "endpoint", &endpoint, "allowed-ips", &allowed];
        host.must("wg", &[&settings[..], &peer[..]].concat(), private)?;
    }
    Ok(Tunnel::inner(processes))
}

impl Implementation {
    fn command(self, host: &Host, device: &str) -> Command {
        let mut command;
        match self {
            Self::Boringtun => {
                command = host.command("boringtun-cli");
                command.args(["-f", "--disable-drop-privileges", device]);
            }
            Self::Go => {
                command = host.command("wireguard-go");
                command.args(["-f", device]).env("LOG_LEVEL", "error");
                command.env("WG_I_PREFER_BUGGY_USERSPACE_TO_POLISHED_KMOD", "1");
            }
        }
        command
    }
}

/// A name that no other benchmark's interface has: the sockets of all are in one directory
fn device(host: &Host, own: u8) -> String {
    // the thread of a host is its own
    let thread = host.path().split('/').rev().nth(2).unwrap_or("0").to_owned();
    format!("wg{thread}x{own}")
}

const PORT: &str = "51820";
