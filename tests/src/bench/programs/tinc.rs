//! tinc 1.0 in router mode, over UDP with its default cipher.

use std::fs;

use anyhow::{Context, Result};

use super::{Processes, Tunnel, adopt};
use crate::bench::arena::Ground;
use crate::lab::star::number;
use crate::lab::{inner_v4, outer_v4};

pub(super) fn set_up(ground: &Ground) -> Result<Tunnel> {
    let mut processes = Processes::default();
    let ends = [(&ground.near, number(0), "near"), (&ground.far, number(1), "far")];
    let directory = |name: &str| ground.lab().directory().join(format!("tinc-{name}"));
    for (host, own, name) in ends {
        let own_directory = directory(name);
        let text = own_directory.display().to_string();
        fs::create_dir_all(own_directory.join("hosts"))?;
        let mut config = format!(
            "Name = {name}\nInterface = {DEVICE}\nDevice = /dev/net/tun\nAddressFamily = ipv4\n"
        );
        if name == "near" {
            config.push_str("ConnectTo = far\n");
        }
        fs::write(own_directory.join("tinc.conf"), config)?;
        let (outer, inner) = (outer_v4(own), inner_v4(own));
        fs::write(
            own_directory.join("hosts").join(name),
            format!("Address = {outer}\nSubnet = {inner}/32\n"),
        )?;
        // asks for file names and takes silence for the usual ones
        host.must("tincd", &["-c", &text, "-K2048"], "")?;
    }
    for (name, other) in [("near", "far"), ("far", "near")] {
        let public = directory(other).join("hosts").join(other);
        fs::copy(public, directory(name).join("hosts").join(other)).context("no public key")?;
    }
    for (host, own, name) in ends {
        let directory = directory(name);
        let mut command = host.command("tincd");
        command.arg("-c").arg(&directory).arg("-D").arg("-d1");
        command.arg(format!("--pidfile={}", directory.join("pid").display()));
        processes.start(ground.lab(), host, command)?;
        adopt(host, DEVICE, own, &processes)?;
    }
    Ok(Tunnel::inner(processes))
}

const DEVICE: &str = "tinc0";
