//! Facts in files that everybody may read: `/proc`, `/sys`, devices, configurations of others.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::commands::doctor::facts::{Firewall, MachineFacts, Route, Tun};
use crate::commands::doctor::prefix::Prefix;

/// Finds out what needs no bus
pub(super) fn machine() -> MachineFacts {
    let number = |path: &str| read(path).and_then(|text| text.trim().parse::<u64>().ok());
    let switch = |path: &str| number(path).map(|value| value != 0);
    let mut routes: Vec<_> =
        read("/proc/net/route").iter().flat_map(|text| text.lines()).filter_map(route4).collect();
    let ipv6 = read("/proc/net/ipv6_route");
    routes.extend(ipv6.iter().flat_map(|text| text.lines()).filter_map(route6));
    MachineFacts {
        tun: Some(tun(Path::new("/dev/net/tun"))),
        firewalls: ufw().into_iter().collect(),
        rmem_max: number("/proc/sys/net/core/rmem_max"),
        forwards: (
            switch("/proc/sys/net/ipv4/ip_forward"),
            switch("/proc/sys/net/ipv6/conf/all/forwarding"),
        ),
        routes,
        clock_behind: clock_behind(),
        ..MachineFacts::default()
    }
}

/// Looks for our actions where polkit does; else says where they should be
pub(super) fn polkit_actions() -> Result<(), PathBuf> {
    let places = [
        "/etc/polkit-1/actions",
        "/run/polkit-1/actions",
        "/usr/local/share/polkit-1/actions",
        ACTIONS,
    ];
    let there = places.iter().any(|place| Path::new(place).join("org.fastvpn.policy").exists());
    if there { Ok(()) } else { Err(ACTIONS.into()) }
}

/// Tells whether systemd-networkd is set to remove routes or rules that it did not make
pub(super) fn networkd_removes() -> bool {
    let mut files = Vec::new();
    for place in ["/usr/lib/systemd", "/run/systemd", "/etc/systemd"] {
        let entries = fs::read_dir(Path::new(place).join("networkd.conf.d"));
        files.extend(entries.into_iter().flatten().flatten().map(|entry| entry.path()));
    }
    files.retain(|file| file.extension().is_some_and(|ending| ending == "conf"));
    files.sort_by_key(|file| file.file_name().map(ToOwned::to_owned));
    files.insert(0, "/etc/systemd/networkd.conf".into());
    let texts: Vec<_> = files.iter().filter_map(|file| fs::read_to_string(file).ok()).collect();
    removes(&texts)
}

/// What the configurations say together: the last one counts, and what nobody says is yes
fn removes(texts: &[String]) -> bool {
    let mut keeps = [false; 2];
    for line in texts.iter().flat_map(|text| text.lines()) {
        let Some((key, value)) = line.split_once('=') else { continue };
        let no = ["no", "false", "off", "0"].contains(&value.trim().to_ascii_lowercase().as_str());
        match key.trim() {
            "ManageForeignRoutes" => keeps[0] = no,
            "ManageForeignRoutingPolicyRules" => keeps[1] = no,
            _ => {}
        }
    }
    keeps != [true; 2]
}

fn tun(path: &Path) -> Tun {
    let Ok(found) = fs::metadata(path) else { return Tun::Missing };
    let mode = found.mode() & 0o7777;
    match found.file_type().is_char_device() {
        true if mode & 0o006 == 0o006 => Tun::Fine,
        true => Tun::Closed(mode),
        false => Tun::Foreign,
    }
}

fn ufw() -> Option<Firewall> {
    let enabled = read("/etc/ufw/ufw.conf")?;
    let enabled = enabled.lines().any(|line| line.trim().eq_ignore_ascii_case("ENABLED=yes"));
    enabled.then(|| Firewall::Ufw(read("/etc/ufw/user.rules")))
}

/// A line of /proc/net/route: hexadecimal, in the byte order of the machine
fn route4(line: &str) -> Option<Route> {
    let mut words = line.split_ascii_whitespace();
    let (interface, to) = (words.next()?, words.next()?);
    let mask = words.nth(5)?;
    let number = |text: &str| u32::from_str_radix(text, 16).ok();
    let to = Ipv4Addr::from(number(to)?.to_ne_bytes());
    let length = u8::try_from(number(mask)?.count_ones()).ok()?;
    Some(Route { interface: interface.to_owned(), to: Prefix::new(IpAddr::V4(to), length)? })
}

/// A line of /proc/net/ipv6_route, but of no address of this machine itself
fn route6(line: &str) -> Option<Route> {
    let words: Vec<_> = line.split_ascii_whitespace().collect();
    let &[to, length, .., flags, interface] = &words[..] else { return None };
    let flags = u32::from_str_radix(flags, 16).ok()?;
    if flags & (RTF_LOCAL | RTF_ANYCAST | RTF_REJECT) != 0 {
        return None;
    }
    let to = Ipv6Addr::from(u128::from_str_radix(to, 16).ok()?);
    let length = u8::from_str_radix(length, 16).ok()?;
    Some(Route { interface: interface.to_owned(), to: Prefix::new(IpAddr::V6(to), length)? })
}

/// Seconds by which the clock is behind the time at which this program was written to the disk
fn clock_behind() -> u64 {
    let made = std::env::current_exe().and_then(fs::metadata).and_then(|file| file.modified());
    let late = made.ok().and_then(|made| made.duration_since(SystemTime::now()).ok());
    late.map_or(0, |late| late.as_secs())
}

fn read(path: &str) -> Option<String> {
    fs::read_to_string(path).ok()
}

/// Where packages put actions of polkit
const ACTIONS: &str = "/usr/share/polkit-1/actions";
// As in linux/route.h and linux/ipv6_route.h
const RTF_REJECT: u32 = 0x0200;
const RTF_ANYCAST: u32 = 0x0010_0000;
const RTF_LOCAL: u32 = 0x8000_0000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_are_read_as_the_kernel_writes_them() {
        let line = "eth0\t006110AC\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0";
        let title = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask";

        if cfg!(target_endian = "little") {
            let route = route4(line).unwrap();
            assert_eq!(
                (route.interface.as_str(), route.to.to_string().as_str()),
                ("eth0", "172.16.97.0/24")
            );
        }
        assert_eq!(route4(title), None);
        assert_eq!(route4(""), None);
    }

    #[test]
    fn own_addresses_are_no_routes() {
        let line = |flags: &str| {
            format!(
                "fd000000000000000000000000000000 40 {zero} 00 {zero} 00000100 00000001 00000000 {flags} eth0",
                zero = "0".repeat(32)
            )
        };

        let route = route6(&line("00000001")).unwrap();
        assert_eq!(
            (route.interface.as_str(), route.to.to_string().as_str()),
            ("eth0", "fd00::/64")
        );
        for flags in ["80200001", "00100001", "00200200"] {
            assert_eq!(route6(&line(flags)), None, "{flags}");
        }
    }

    #[test]
    fn last_word_on_foreign_routes_counts_and_silence_is_consent() {
        let of = |texts: &[&str]| {
            removes(&texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>())
        };
        let both = "[Network]\nManageForeignRoutes=no\nManageForeignRoutingPolicyRules = no\n";

        assert!(of(&[]));
        assert!(of(&["[Network]\n#ManageForeignRoutes=no\nManageForeignRoutes=no\n"]));
        assert!(!of(&[both]));
        assert!(!of(&["ManageForeignRoutes=yes", both]));
        assert!(of(&[both, "ManageForeignRoutes=yes"]));
    }

    #[test]
    fn device_of_tunnels_is_a_device_that_others_may_open() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("tun");

        assert_eq!(tun(&file), Tun::Missing);
        fs::write(&file, "").unwrap();
        assert_eq!(tun(&file), Tun::Foreign);
        assert_eq!(tun(Path::new("/dev/null")), Tun::Fine);
    }
}
