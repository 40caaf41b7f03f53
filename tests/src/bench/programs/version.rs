//! Which version of a program is measured.

use std::process::Command;

use crate::bench::contest::Contestant;
use crate::lab::has;

/// Returns the version of a contestant's program, as far as it tells
pub fn version(contestant: Contestant) -> String {
    match contestant {
        Contestant::Fastvpn
        | Contestant::FastvpnBbr
        | Contestant::FastvpnTcp
        | Contestant::FastvpnKcp
        | Contestant::FastvpnAes
        | Contestant::FastvpnChacha => env!("CARGO_PKG_VERSION").to_owned(),
        Contestant::Raw | Contestant::RawBbr => {
            let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease");
            format!("Linux {}", kernel.unwrap_or_default().trim())
        }
        Contestant::Kcp => "tokio_kcp 0.9".to_owned(),
        Contestant::Wireguard | Contestant::WireguardBbr => said("wireguard-go", &["--version"]),
        Contestant::Boringtun => said("boringtun-cli", &["--version"]),
        Contestant::Tinc => said("tincd", &["--version"]),
        Contestant::Openvpn => said("openvpn", &["--version"]),
        Contestant::Vpncloud => said("vpncloud", &["--version"]),
        Contestant::Nebula => said("nebula", &["-version"]),
        // Debian's does not know its own version
        Contestant::Kcptun => said("dpkg-query", &["-W", "-f", "${Version}", "kcptun"]),
        Contestant::Easytier | Contestant::EasytierKcp | Contestant::EasytierQuic => {
            if has("easytier-core") {
                said("easytier-core", &["--version"])
            } else {
                said("python3", &["-c", "import easytier_pyo3 as e; print(e.version())"])
            }
        }
    }
}

/// The first number with a point in a program's first line
fn said(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    number_in(text.unwrap_or_default().lines().next().unwrap_or_default()).to_owned()
}

fn number_in(line: &str) -> &str {
    line.split_whitespace()
        .find(|word| word.trim_start_matches('v').starts_with(|c: char| c.is_ascii_digit()))
        .unwrap_or("unknown")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_is_the_first_number() {
        assert_eq!(number_in("tinc version 1.0.36 (built Jan  1 1970, protocol 17)"), "1.0.36");
        assert_eq!(number_in("wireguard-go v0.0.20220316"), "v0.0.20220316");
        assert_eq!(number_in("SELFBUILD"), "unknown");
    }
}
