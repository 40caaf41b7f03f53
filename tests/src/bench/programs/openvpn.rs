//! OpenVPN between two points over UDP, with TLS and the cipher that both ends agree on.

use std::fs;

use anyhow::Result;

use super::{PATIENCE, Processes, Tunnel};
use crate::bench::arena::Ground;
use crate::lab::star::number;
use crate::lab::{inner_v4, outer_v4, until};

pub(super) fn set_up(ground: &Ground) -> Result<Tunnel> {
    let mut processes = Processes::default();
    let file = |name: &str, kind: &str| {
        ground.lab().directory().join(format!("openvpn-{name}.{kind}")).display().to_string()
    };
    let mut prints = Vec::new();
    for name in ["near", "far"] {
        let (key, certificate) = (file(name, "key"), file(name, "crt"));
        let subject = format!("/CN={name}");
        let make = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"];
        let files = ["-nodes", "-keyout", &key, "-out", &certificate, "-subj", &subject];
        ground.near.must("openssl", &[&make[..], &files[..], &["-days", "30"]].concat(), "")?;
        let show = ["x509", "-in", &certificate, "-noout", "-fingerprint", "-sha256"];
        let print = ground.near.must("openssl", &show, "")?;
        prints.push(print.trim().rsplit('=').next().unwrap_or_default().to_owned());
    }
    let (near, far) = (number(0), number(1));
    let ends = [
        (&ground.near, "near", near, far, &prints[1]),
        (&ground.far, "far", far, near, &prints[0]),
    ];
    for (host, name, own, other, print) in ends {
        let mut command = host.command("openvpn");
        command.args(["--dev", DEVICE, "--dev-type", "tun", "--proto", "udp4", "--disable-dco"]);
        command.args(["--ifconfig", &inner_v4(own).to_string(), &inner_v4(other).to_string()]);
        command.args(["--cert", &file(name, "crt"), "--key", &file(name, "key")]);
        command.args(["--peer-fingerprint", print, "--ping", "10", "--verb", "3"]);
        if name == "near" {
            command.args(["--tls-client", "--remote", &outer_v4(other).to_string(), PORT]);
            command.arg("--nobind");
        } else {
            command.args(["--tls-server", "--dh", "none", "--port", PORT]);
        }
        processes.start(ground.lab(), host, command)?;
    }
    let log = ground.lab().directory().join("near-0.log");
    until(PATIENCE, || {
        fs::read_to_string(&log)
            .is_ok_and(|text| text.contains("Initialization Sequence Completed"))
    });
    Ok(Tunnel::inner(processes))
}

const DEVICE: &str = "ovpn0";
const PORT: &str = "1194";
