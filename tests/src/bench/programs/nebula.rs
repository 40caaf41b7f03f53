//! Nebula between two hosts, the far one a lighthouse, with its default cipher and MTU.

use std::fs;

use anyhow::{Result, ensure};

use super::{PATIENCE, Processes, Tunnel};
use crate::bench::arena::Ground;
use crate::lab::star::number;
use crate::lab::{inner_v4, load, outer_v4};

pub(super) fn set_up(ground: &Ground) -> Result<Tunnel> {
    let mut processes = Processes::default();
    let file = |name: &str, kind: &str| {
        ground.lab().directory().join(format!("nebula-{name}.{kind}")).display().to_string()
    };
    let (authority, secret) = (file("ca", "crt"), file("ca", "key"));
    let make = ["ca", "-name", "bench", "-out-crt", &authority, "-out-key", &secret];
    ground.near.must("nebula-cert", &make, "")?;
    for (host, name, own) in [(&ground.far, "far", number(1)), (&ground.near, "near", number(0))] {
        let (certificate, key) = (file(name, "crt"), file(name, "key"));
        let address = format!("{}/24", inner_v4(own));
        let who = ["sign", "-name", name, "-ip", &address, "-ca-crt", &authority];
        let files = ["-ca-key", &secret, "-out-crt", &certificate, "-out-key", &key];
        host.must("nebula-cert", &[&who[..], &files[..]].concat(), "")?;
        let config = file(name, "yml");
        fs::write(&config, text(name, &authority, &certificate, &key))?;
        let mut command = host.command("nebula");
        command.args(["-config", &config]);
        processes.start(ground.lab(), host, command)?;
    }
    let far = inner_v4(number(1)).into();
    let answers = load::ping_until(&ground.near, far, PATIENCE)?;
    ensure!(answers, "the far host does not answer\n{}", processes.last_words());
    Ok(Tunnel::inner(processes))
}

fn text(name: &str, authority: &str, certificate: &str, key: &str) -> String {
    let far = inner_v4(number(1));
    let hosts = match name {
        "near" => format!("  hosts: [\"{far}\"]\n"),
        _ => String::new(),
    };
    format!(
        "pki: {{ca: {authority}, cert: {certificate}, key: {key}}}\n\
         static_host_map: {{\"{far}\": [\"{}:{PORT}\"]}}\n\
         lighthouse:\n  am_lighthouse: {}\n{hosts}\
         listen: {{host: 0.0.0.0, port: {PORT}}}\n\
         tun: {{dev: nebula0}}\n\
         firewall:\n  outbound: [{{port: any, proto: any, host: any}}]\n  \
         inbound: [{{port: any, proto: any, host: any}}]\n",
        outer_v4(number(1)),
        name == "far",
    )
}

const PORT: u16 = 4242;
