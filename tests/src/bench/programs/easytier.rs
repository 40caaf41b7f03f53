//! EasyTier over UDP: as it is, and with TCP carried by its KCP or its QUIC proxy.
//!
//! Either the program `easytier-core`, or the same as a Python module (`pip install easytier-pyo3`).

use std::fs;
use std::process::{Command, Stdio};
use std::sync::LazyLock;
use std::time::Duration;

use anyhow::{Result, ensure};

use super::{PATIENCE, Processes, Tunnel};
use crate::bench::arena::Ground;
use crate::lab::star::number;
use crate::lab::{has, inner_v4, load, outer_v4};

/// How EasyTier carries TCP
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Proxy {
    /// As packets
    None,
    /// In KCP streams
    Kcp,
    /// In QUIC streams
    Quic,
}

pub(super) fn missing() -> Option<String> {
    (!has("easytier-core") && !*MODULE)
        .then(|| "not installed: easytier-core, or Python's easytier-pyo3".to_owned())
}

pub(super) fn set_up(ground: &Ground, proxy: Proxy) -> Result<Tunnel> {
    let mut processes = Processes::default();
    let ends = [(&ground.far, "far", number(1)), (&ground.near, "near", number(0))];
    for (host, name, own) in ends {
        let file = ground.lab().directory().join(format!("easytier-{name}.toml"));
        fs::write(&file, config(name, own, proxy))?;
        let mut command = if has("easytier-core") {
            let mut command = host.command("easytier-core");
            command.arg("-c");
            command
        } else {
            let mut command = host.command("python3");
            command.args(["-c", SCRIPT]);
            command
        };
        command.arg(&file);
        processes.start(ground.lab(), host, command)?;
    }
    let far = inner_v4(number(1)).into();
    let answers = load::ping_until(&ground.near, far, PATIENCE)?;
    ensure!(answers, "the far host does not answer\n{}", processes.last_words());
    // until both know that the other one has the proxy, TCP goes as packets
    std::thread::sleep(Duration::from_secs(3));
    Ok(Tunnel::inner(processes))
}

fn config(name: &str, own: u8, proxy: Proxy) -> String {
    let peer = match name {
        "near" => format!("[[peer]]\nuri = \"udp://{}:11010\"\n", outer_v4(number(1))),
        _ => String::new(),
    };
    let (kcp, quic) = (proxy == Proxy::Kcp, proxy == Proxy::Quic);
    format!(
        "instance_name = \"{name}\"\nhostname = \"{name}\"\nipv4 = \"{}/24\"\ndhcp = false\n\
         listeners = [\"udp://0.0.0.0:11010\"]\nstun_servers = []\nstun_servers_v6 = []\n\
         [network_identity]\nnetwork_name = \"bench\"\nnetwork_secret = \"bench\"\n{peer}\
         [flags]\ndefault_protocol = \"udp\"\ndev_name = \"et0\"\nenable_ipv6 = false\n\
         enable_kcp_proxy = {kcp}\nenable_quic_proxy = {quic}\n\
         disable_tcp_hole_punching = true\ndisable_upnp = true\n",
        inner_v4(own),
    )
}

/// Whether Python has the module
static MODULE: LazyLock<bool> = LazyLock::new(|| {
    let mut command = Command::new("python3");
    command.args(["-c", "import easytier_pyo3"]).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
});

const SCRIPT: &str = "
import sys, time, easytier_pyo3
node = easytier_pyo3.Node(open(sys.argv[1]).read())
node.start()
while True:
    for event in node.events():
        print(event, flush=True)
    time.sleep(0.5)
";
