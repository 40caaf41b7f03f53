//! Programs that carry TCP connections only: stock KCP and kcptun.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::{Processes, Tunnel};
use crate::bench::arena::{Ground, SERVICE};
use crate::lab::star::number;
use crate::lab::{daemon, load, outer_v4, until};

/// Stock KCP by tokio_kcp in its fastest mode, without encryption
pub(super) fn kcp(ground: &Ground, window: u16) -> Result<Tunnel> {
    let program = daemon::program("kcpfwd")?;
    let (window, target) = (window.to_string(), format!("127.0.0.1:{SERVICE}"));
    let mut server = ground.far.command(&program);
    server.args(["--window", &window, "server", "--listen", "0.0.0.0:4000", "--target", &target]);
    let mut client = ground.near.command(&program);
    let far = format!("{}:4000", outer_v4(number(1)));
    client.args(["--window", &window, "client", "--listen", &target, "--server", &far]);
    start(ground, server, client)
}

/// kcptun with the cipher and the error correction that it uses by default
///
/// Mode, window and buffers are set for the link, as its documentation asks the user to.
pub(super) fn kcptun(ground: &Ground, window: u16) -> Result<Tunnel> {
    let (window, target) = (window.to_string(), format!("127.0.0.1:{SERVICE}"));
    let shared = [
        ["--mode", "fast3"],
        ["--sndwnd", &window],
        ["--rcvwnd", &window],
        ["--smuxver", "2"],
        ["--smuxbuf", "33554432"],
        ["--streambuf", "33554432"],
        ["--sockbuf", "4194304"],
    ];
    let mut server = ground.far.command("kcptun-server");
    server.args(["--listen", ":4000", "--target", &target, "--nocomp"]).args(shared.concat());
    let mut client = ground.near.command("kcptun-client");
    let far = format!("{}:4000", outer_v4(number(1)));
    client.args(["--localaddr", &target, "--remoteaddr", &far, "--nocomp"]).args(shared.concat());
    start(ground, server, client)
}

fn start(
    ground: &Ground,
    server: std::process::Command,
    client: std::process::Command,
) -> Result<Tunnel> {
    let mut processes = Processes::default();
    processes.start(ground.lab(), &ground.far, server)?;
    processes.start(ground.lab(), &ground.near, client)?;
    let listening = until(Duration::from_secs(5), || load::listens(&ground.near, SERVICE));
    ensure!(listening, "it does not listen\n{}", processes.last_words());
    Ok(Tunnel::forwarded(processes))
}
