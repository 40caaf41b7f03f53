//! The programs that are measured: whether one is here, and how its tunnel is set up.
//!
//! Each is configured as its own documentation recommends for such links, with its default cipher
//! and with encryption; windows that a user has to set by hand are set for the link.

mod easytier;
mod fastvpn;
mod forwarders;
mod nebula;
pub mod nodes;
mod openvpn;
mod processes;
mod tinc;
mod version;
mod vpncloud;
mod wireguard;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Result, ensure};

use super::arena::{Ground, SERVICE};
use super::contest::Contestant;
use super::routes::Route;
use crate::lab::star::number;
use crate::lab::{Host, has, inner_v4, load, outer_v4, until};

pub use self::processes::Processes;
pub use self::version::version;
use self::wireguard::Implementation;

/// How to reach the far host, and what runs for it
#[derive(Debug)]
pub struct Tunnel {
    /// Where a TCP client connects to
    pub service: SocketAddr,
    /// What it pings; the bare link where the program carries TCP only
    pub ping: IpAddr,
    /// Programs that run
    pub processes: Processes,
}

/// Window of a program that does not find it by itself
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Window {
    /// What the link holds
    Usual,
    /// So many packets
    Packets(u16),
}

impl Window {
    /// Returns the sizes among which the best is looked for: half, one and two times what the link
    /// holds, but at least some hundred packets
    pub fn choices(route: Route) -> [Self; 3] {
        let one = packets(route);
        [one / 2, one, one.saturating_mul(2)].map(Self::Packets)
    }

    fn packets(self, route: Route) -> u16 {
        match self {
            Self::Usual => packets(route),
            Self::Packets(packets) => packets,
        }
    }
}

/// How many packets of 1400 bytes a link holds
fn packets(route: Route) -> u16 {
    let bytes = route.rate().unwrap_or(1000.0) * 1e6 / 8.0 * route.rtt().as_secs_f64();
    ((bytes / 1400.0) as u16).max(512)
}

/// Says why a contestant cannot take part on this machine
pub fn missing(contestant: Contestant) -> Option<String> {
    let needs = |programs: &[&str]| {
        let absent: Vec<&str> = programs.iter().copied().filter(|program| !has(program)).collect();
        (!absent.is_empty()).then(|| format!("not installed: {}", absent.join(", ")))
    };
    match contestant {
        Contestant::Fastvpn
        | Contestant::FastvpnBbr
        | Contestant::FastvpnTcp
        | Contestant::FastvpnKcp
        | Contestant::FastvpnAes
        | Contestant::FastvpnChacha
        | Contestant::Raw
        | Contestant::RawBbr => None,
        Contestant::Kcp => crate::lab::daemon::program("kcpfwd").err().map(|e| e.to_string()),
        Contestant::Wireguard | Contestant::WireguardBbr => needs(&["wireguard-go", "wg"]),
        Contestant::Boringtun => needs(&["boringtun-cli", "wg"]),
        Contestant::Tinc => needs(&["tincd"]),
        Contestant::Openvpn => needs(&["openvpn", "openssl"]),
        Contestant::Vpncloud => needs(&["vpncloud"]),
        Contestant::Nebula => needs(&["nebula", "nebula-cert"]),
        Contestant::Kcptun => needs(&["kcptun-client", "kcptun-server"]),
        Contestant::Easytier | Contestant::EasytierKcp | Contestant::EasytierQuic => {
            easytier::missing()
        }
    }
}

/// Makes hosts and sets a tunnel up between them; the link is not impaired yet
///
/// # Errors
/// If the program fails or its tunnel carries nothing.
pub fn set_up(
    route: Route,
    contestant: Contestant,
    window: Window,
    seed: u64,
) -> Result<(Ground, Tunnel)> {
    if contestant.program() == "fastvpn" {
        return fastvpn::set_up(route, contestant, seed);
    }
    let ground = Ground::new(route, seed)?;
    let window = window.packets(route);
    let tunnel = match contestant {
        Contestant::Raw
        | Contestant::RawBbr
        | Contestant::Fastvpn
        | Contestant::FastvpnBbr
        | Contestant::FastvpnTcp
        | Contestant::FastvpnKcp
        | Contestant::FastvpnAes
        | Contestant::FastvpnChacha => Tunnel::straight(Processes::default()),
        Contestant::Kcp => forwarders::kcp(&ground, window)?,
        Contestant::Kcptun => forwarders::kcptun(&ground, window)?,
        Contestant::Wireguard | Contestant::WireguardBbr => {
            wireguard::set_up(&ground, Implementation::Go)?
        }
        Contestant::Boringtun => wireguard::set_up(&ground, Implementation::Boringtun)?,
        Contestant::Tinc => tinc::set_up(&ground)?,
        Contestant::Openvpn => openvpn::set_up(&ground)?,
        Contestant::Vpncloud => vpncloud::set_up(&ground)?,
        Contestant::Nebula => nebula::set_up(&ground)?,
        Contestant::Easytier => easytier::set_up(&ground, easytier::Proxy::None)?,
        Contestant::EasytierKcp => easytier::set_up(&ground, easytier::Proxy::Kcp)?,
        Contestant::EasytierQuic => easytier::set_up(&ground, easytier::Proxy::Quic)?,
    };
    let answers = load::ping_until(&ground.near, tunnel.ping, PATIENCE)?;
    ensure!(answers, "the far host does not answer\n{}", tunnel.processes.last_words());
    Ok((ground, tunnel))
}

impl Tunnel {
    /// No tunnel at all
    fn straight(processes: Processes) -> Self {
        let far = outer_v4(number(1));
        Self { service: (far, SERVICE).into(), ping: far.into(), processes }
    }

    /// An interface in each host, with the overlay addresses
    fn inner(processes: Processes) -> Self {
        let far = inner_v4(number(1));
        Self { service: (far, SERVICE).into(), ping: far.into(), processes }
    }

    /// A port at the near host that leads to the far one
    fn forwarded(processes: Processes) -> Self {
        Self { service: ([127, 0, 0, 1], SERVICE).into(), ..Self::straight(processes) }
    }
}

/// Waits for a program's interface, sets it up and gives it an overlay address
fn adopt(host: &Host, device: &str, own: u8, processes: &Processes) -> Result<()> {
    let made = until(PATIENCE, || {
        host.devices().is_ok_and(|devices| devices.iter().any(|name| name == device))
    });
    ensure!(made, "no interface {device}\n{}", processes.last_words());
    host.add_address(device, inner_v4(own).into(), 24)?;
    host.up(device)
}

/// Time in which a tunnel has to come up
const PATIENCE: Duration = Duration::from_secs(20);
