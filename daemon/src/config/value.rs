//! The values of single keys: text to domain types.
//!
//! Each function judges one value by itself; what values mean together is in `check`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use fastvpn_proto::crypto::PublicKey;
use fastvpn_proto::ip::{Prefix, PrefixError};

use super::Preference;
use super::problem::{Wrong, quoted};
use crate::dns::Suffix;

/// UDP port of a hub where none is given
pub(super) const PORT_DEFAULT: u16 = 8796;
/// Bytes in the name of an interface (the kernel's IFNAMSIZ, less the zero at its end)
const INTERFACE_MAX: usize = 15;

/// Reads the cipher that a node would have
pub(super) fn cipher(text: &str) -> Result<Preference, Wrong> {
    match text {
        "aes-256-gcm" => Ok(Preference::Aes),
        "auto" => Ok(Preference::Auto),
        "chacha20-poly1305" => Ok(Preference::ChaCha),
        other => Err(Wrong::new(
            format!("{} is no cipher", quoted(other)),
            "write \"auto\" (what the processors do best), \"aes-256-gcm\" or \"chacha20-poly1305\"",
        )),
    }
}

/// Reads `HOST:PORT`, `HOST`, `[V6]:PORT` or `[V6]`; the port is in the result always
pub(super) fn endpoint(text: &str) -> Result<String, Wrong> {
    let form = "write HOST:PORT, for example \"hub.example.net:8796\" or \"[2001:db8::1]:8796\"";
    let wrong = |what: String| Wrong::new(what, form);
    if text.parse::<Ipv6Addr>().is_ok() {
        let what = format!("{} is an IPv6 address without brackets", quoted(text));
        return Err(Wrong::new(what, format!("write \"[{text}]:{PORT_DEFAULT}\"")));
    }
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let (addr, rest) = rest
            .split_once(']')
            .ok_or_else(|| wrong(format!("{} has no closing bracket", quoted(text))))?;
        let addr: Ipv6Addr =
            addr.parse().map_err(|_| wrong(format!("{} is no IPv6 address", quoted(addr))))?;
        endpoint_address(IpAddr::V6(addr))?;
        let port = match rest {
            "" => None,
            _ => Some(rest.strip_prefix(':').ok_or_else(|| {
                wrong(format!("{} has something other than :PORT behind ]", quoted(text)))
            })?),
        };
        (format!("[{addr}]"), port)
    } else {
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        };
        if let Ok(addr) = host.parse::<Ipv4Addr>() {
            endpoint_address(IpAddr::V4(addr))?;
        } else if !is_host_name(host) {
            return Err(wrong(format!(
                "{} is neither a host name nor an IP address",
                quoted(host)
            )));
        }
        (host.to_owned(), port)
    };
    let port = match port {
        None => PORT_DEFAULT,
        Some(port) => match port.parse() {
            Ok(port) if port > 0 => port,
            _ => return Err(wrong(format!("port {} is no number from 1 to 65535", quoted(port)))),
        },
    };
    Ok(format!("{host}:{port}"))
}

fn endpoint_address(addr: IpAddr) -> Result<(), Wrong> {
    if addr.is_unspecified() || addr.is_multicast() || addr == IpAddr::V4(Ipv4Addr::BROADCAST) {
        let what = format!("{addr} is no address of one machine");
        return Err(Wrong::new(what, "write the address at which the hub is reached"));
    }
    Ok(())
}

fn is_host_name(host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    // a name that ends in a number is an address with a slip of the pen
    let last_is_number =
        host.rsplit('.').next().is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit()));
    host.len() <= 253 && !last_is_number && host.split('.').all(label)
}

/// Reads the address that a node listens on
pub(super) fn listen(text: &str) -> Result<SocketAddr, Wrong> {
    let form = "write ADDRESS:PORT, for example \"[::]:8796\" for all addresses";
    let addr: SocketAddr = text
        .parse()
        .map_err(|_| Wrong::new(format!("{} is no address with a port", quoted(text)), form))?;
    if addr.ip().is_multicast() || addr.ip() == IpAddr::V4(Ipv4Addr::BROADCAST) {
        return Err(Wrong::new(format!("{} is no address of this machine", addr.ip()), form));
    }
    Ok(addr)
}

/// Reads the name of an interface
pub(super) fn interface(text: &str) -> Result<String, Wrong> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let reserved = ["lo", "all", "default", ".", ".."].contains(&text);
    let number = text.bytes().all(|byte| byte.is_ascii_digit());
    let fits = (1..=INTERFACE_MAX).contains(&text.len());
    if fits && text.bytes().all(plain) && !text.starts_with('-') && !reserved && !number {
        return Ok(text.to_owned());
    }
    Err(Wrong::new(
        format!("{} cannot be the name of an interface", quoted(text)),
        format!(
            "write 1 to {INTERFACE_MAX} characters of A-Z, a-z, 0-9, '-', '_' and '.', \
             not a number only, not lo, all or default"
        ),
    ))
}

/// Returns the interface's name of a network that gives none
///
/// `fvpn-` and the network's name; of a long name the first characters and a hash of the whole, so
/// that two long names that begin alike differ.
pub(super) fn interface_default(network: &str) -> String {
    let whole = format!("fvpn-{network}");
    if whole.len() <= INTERFACE_MAX {
        return whole;
    }
    // FNV-1a, folded to 16 bits: it must never change, nobody attacks it
    let hash = network
        .bytes()
        .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    let hash = (hash >> 16) ^ (hash & 0xffff);
    format!("fvpn-{}-{hash:04x}", &network[..INTERFACE_MAX - 10])
}

/// Reads a duration: numbers, each with its unit, as in `15s`, `1m30s` or `500ms`
pub(super) fn duration(text: &str) -> Result<Duration, Wrong> {
    let wrong = || {
        Wrong::new(
            format!("{} is no duration", quoted(text)),
            "write a number with a unit (ms, s, m or h), for example \"15s\" or \"1m30s\"",
        )
    };
    let mut rest = text.trim();
    let mut sum = Duration::ZERO;
    if rest.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let letters = rest[digits..].bytes().take_while(u8::is_ascii_lowercase).count();
        let number: u64 = rest[..digits].parse().map_err(|_| wrong())?;
        let millis: u64 = match &rest[digits..digits + letters] {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => return Err(wrong()),
        };
        let part = number.checked_mul(millis).map(Duration::from_millis).ok_or_else(wrong)?;
        sum = sum.checked_add(part).ok_or_else(wrong)?;
        rest = &rest[digits + letters..];
    }
    Ok(sum)
}

/// Reads a public key; the text is never repeated, since it may be the private one
pub(super) fn public_key(text: &str) -> Result<PublicKey, Wrong> {
    let key: PublicKey = text.parse().map_err(|_| {
        Wrong::new(
            "is no public key",
            "write the 44 characters that `fastvpnctl keygen --public FILE` prints on that node",
        )
    })?;
    if key.as_bytes() == &[0; 32] {
        return Err(Wrong::new(
            "is all zero, which no node's key is",
            "write what `fastvpnctl keygen --public FILE` prints on that node",
        ));
    }
    Ok(key)
}

/// Reads the name of a member
pub(super) fn member_name(text: &str) -> Result<String, Wrong> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let fits = (1..=63).contains(&text.len()) && text.bytes().all(plain);
    if fits && !text.starts_with('-') && !text.ends_with('-') {
        return Ok(text.to_owned());
    }
    Err(Wrong::new(
        format!("{} is no name of a member", quoted(text)),
        "write 1 to 63 characters of a-z, 0-9 and '-', with no '-' at an end",
    ))
}

/// Reads the domain of a network's names
pub(super) fn suffix(text: &str) -> Result<Suffix, Wrong> {
    text.parse().map_err(|error| {
        Wrong::new(format!("{} {error}", quoted(text)), "write one, for example \"home.fastvpn\"")
    })
}

/// Reads one address
pub(super) fn address(text: &str) -> Result<IpAddr, Wrong> {
    let addr: IpAddr = text.parse().map_err(|_| match text.split_once('/') {
        Some((addr, _)) if addr.parse::<IpAddr>().is_ok() => Wrong::new(
            format!("{} has a prefix length", quoted(text)),
            format!("write \"{addr}\"; the length is that of the hub's subnet"),
        ),
        _ => Wrong::new(
            format!("{} is no IP address", quoted(text)),
            "write one, for example \"172.16.97.101\" or \"fd00:97::101\"",
        ),
    })?;
    overlay(addr)?;
    Ok(addr)
}

/// Reads an address of an interface, with the length of its subnet
pub(super) fn interface_address(text: &str) -> Result<Prefix, Wrong> {
    let prefix = prefix(text, "172.16.97.101/24")?;
    overlay(prefix.addr())?;
    if is_network_or_broadcast(&prefix, prefix.addr()) {
        return Err(Wrong::new(
            format!("{prefix} is the network or broadcast address of its subnet"),
            "write the address of one node in the subnet",
        ));
    }
    Ok(prefix)
}

/// Reads a subnet; a set bit in its host part is refused
pub(super) fn subnet(text: &str) -> Result<Prefix, Wrong> {
    let prefix = prefix(text, "172.16.97.0/24")?;
    if prefix != prefix.network() {
        return Err(Wrong::new(
            format!("{prefix} is an address in a subnet, not a subnet"),
            format!("write \"{}\"", prefix.network()),
        ));
    }
    if prefix.len() == 0 {
        return Err(Wrong::new(
            format!("{prefix} is the whole internet"),
            "write a subnet of your own, for example \"172.16.97.0/24\"",
        ));
    }
    overlay(prefix.addr())?;
    Ok(prefix)
}

/// Tells whether `addr` is one that no node in `subnet` can have
///
/// In IPv4 the first and the last, in IPv6 the first (the anycast address of routers). Subnets of
/// one or two addresses have none such.
pub(crate) fn is_network_or_broadcast(subnet: &Prefix, addr: IpAddr) -> bool {
    let first = subnet.network().addr();
    match (first, addr) {
        (IpAddr::V4(first), IpAddr::V4(addr)) if subnet.len() < 31 => {
            let last = first.to_bits() | (u32::MAX >> subnet.len());
            addr == first || addr.to_bits() == last
        }
        (IpAddr::V6(first), IpAddr::V6(addr)) if subnet.len() < 127 => addr == first,
        _ => false,
    }
}

fn prefix(text: &str, example: &str) -> Result<Prefix, Wrong> {
    let remedy = || format!("write ADDRESS/LENGTH, for example \"{example}\"");
    if text.parse::<IpAddr>().is_ok() {
        return Err(Wrong::new(format!("{} has no prefix length", quoted(text)), remedy()));
    }
    text.parse().map_err(|error: PrefixError| {
        let what = match error {
            PrefixError::Address => format!("{} is no IP address with a length", quoted(text)),
            PrefixError::Length { .. } => format!("{}: {error}", quoted(text)),
        };
        Wrong::new(what, remedy())
    })
}

fn overlay(addr: IpAddr) -> Result<(), Wrong> {
    let kind = match addr {
        _ if addr.is_unspecified() => "unspecified",
        _ if addr.is_loopback() => "a loopback address",
        _ if addr.is_multicast() => "a multicast address",
        IpAddr::V4(addr) if addr.octets()[0] == 0 || addr.is_broadcast() => "reserved",
        IpAddr::V6(addr) if addr.is_unicast_link_local() => "link-local",
        IpAddr::V6(addr) if addr.to_ipv4_mapped().is_some() => "an IPv4 address in disguise",
        _ => return Ok(()),
    };
    Err(Wrong::new(
        format!("{addr} is {kind}, which no overlay can use"),
        "choose from a private range, for example 172.16.0.0/12 or fd00::/8",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aes_needs_instructions_unless_it_is_asked_for() {
        let aes = |text, has| cipher(text).unwrap().prefers_aes(has);

        assert_eq!([aes("auto", true), aes("auto", false)], [true, false]);
        assert_eq!([aes("aes-256-gcm", false), aes("chacha20-poly1305", true)], [true, false]);
        assert!(cipher("aes").is_err());
    }

    #[test]
    fn endpoint_gets_the_default_port_and_keeps_its_host() {
        for (text, want) in [
            ("hub.example.net", "hub.example.net:8796"),
            ("hub.example.net:1", "hub.example.net:1"),
            ("192.0.2.1", "192.0.2.1:8796"),
            ("[2001:db8::1]", "[2001:db8::1]:8796"),
            ("[2001:db8::1]:9", "[2001:db8::1]:9"),
            ("hub_1", "hub_1:8796"),
        ] {
            assert_eq!(endpoint(text).as_deref(), Ok(want));
        }
    }

    #[test]
    fn endpoint_that_is_none_is_refused() {
        for text in [
            "",
            ":1",
            "a:",
            "a:0",
            "a:65536",
            "a:b",
            "a b:1",
            "[::1",
            "[::1]8796",
            "[::1]:x",
            "[x]:1",
            "2001:db8::1",
            "300.1.1.1:5",
            "0.0.0.0:1",
            "[::]:1",
            "-a:1",
            "a..b:1",
            "a:1:2",
        ] {
            assert!(endpoint(text).is_err(), "{text}");
        }
    }

    #[test]
    fn long_network_names_get_different_interfaces_of_15_bytes() {
        assert_eq!(interface_default("home"), "fvpn-home");
        assert_eq!(interface_default("0123456789"), "fvpn-0123456789");
        let (one, two) =
            (interface_default("branch-office-1"), interface_default("branch-office-2"));
        assert_ne!(one, two);
        for name in [&one, &two] {
            assert_eq!(name.len(), 15);
            assert!(name.starts_with("fvpn-branc-"), "{name}");
            assert_eq!(interface(name).as_ref(), Ok(name));
        }
    }

    #[test]
    fn durations_add_up() {
        assert_eq!(duration("15s"), Ok(Duration::from_secs(15)));
        assert_eq!(duration("1m30s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        for text in ["", "15", "s", "1.5s", "15 s", "1d", "-1s", "99999999999999999999s", "1ä"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn first_and_last_address_of_a_subnet_are_nobodys() {
        let addr = |text: &str| text.parse::<IpAddr>().unwrap();
        let four: Prefix = "10.0.0.0/24".parse().unwrap();
        let six: Prefix = "fd00::/64".parse().unwrap();

        assert!(is_network_or_broadcast(&four, addr("10.0.0.0")));
        assert!(is_network_or_broadcast(&four, addr("10.0.0.255")));
        assert!(!is_network_or_broadcast(&four, addr("10.0.0.1")));
        assert!(is_network_or_broadcast(&six, addr("fd00::")));
        assert!(!is_network_or_broadcast(&six, addr("fd00::ffff:ffff:ffff:ffff")));
        assert!(!is_network_or_broadcast(&"10.0.0.0/31".parse().unwrap(), addr("10.0.0.0")));
    }
}
