//! VpnCloud in router mode, with the cipher that it finds fastest.

use std::net::Ipv4Addr;

use anyhow::Result;

use super::{Processes, Tunnel, adopt};
use crate::bench::arena::Ground;
use crate::lab::star::number;
use crate::lab::{inner_v4, outer_v4};

pub(super) fn set_up(ground: &Ground) -> Result<Tunnel> {
    let mut processes = Processes::default();
    let ends = [(&ground.far, number(1), number(0)), (&ground.near, number(0), number(1))];
    for (host, own, other) in ends {
        // it asks the kernel for its own address, as seen from somewhere in the world
        host.add_route((Ipv4Addr::UNSPECIFIED.into(), 0), "eth0", None)?;
        let mut command = host.command("vpncloud");
        command.args(["--type", "tun", "--mode", "router", "--device", DEVICE]);
        // the address that it would give the interface by itself is not the one it is told
        command.args(["--no-auto-claim", "--claim", &format!("{}/32", inner_v4(own))]);
        command.args(["--password", "bench"]);
        command.args(["--listen", PORT, "--peer", &format!("{}:{PORT}", outer_v4(other))]);
        command.arg("--no-port-forwarding");
        processes.start(ground.lab(), host, command)?;
        adopt(host, DEVICE, own, &processes)?;
    }
    Ok(Tunnel::inner(processes))
}

const DEVICE: &str = "vpncloud0";
const PORT: &str = "3210";
