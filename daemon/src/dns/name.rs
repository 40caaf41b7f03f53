//! Names that DNS can carry, made of what people and configurations say.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use fastvpn_proto::ip::Prefix;
use thiserror::Error;

/// Under which domain the nodes of a network have their names: `home.fastvpn`
///
/// In lower case, without a final dot, and short enough for a label before it.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Suffix(String);

/// Why a text is no suffix
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum SuffixError {
    /// The domain belongs to another protocol
    #[error("is a domain that is looked up in other ways than by DNS, or means something else")]
    Foreign,
    /// A part of it is none that a host's name may have
    #[error(
        "is not made of parts of 1 to 63 characters of a-z, 0-9 and '-', with dots between them"
    )]
    Label,
    /// No name would fit before it
    #[error("is longer than {SUFFIX_MAX} characters")]
    Long,
}

impl FromStr for Suffix {
    type Err = SuffixError;

    fn from_str(text: &str) -> Result<Self, SuffixError> {
        let text = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        if text.len() > SUFFIX_MAX {
            return Err(SuffixError::Long);
        }
        if !text.split('.').all(is_label) {
            return Err(SuffixError::Label);
        }
        let top = text.rsplit('.').next().unwrap_or_default();
        if FOREIGN.contains(&top) {
            return Err(SuffixError::Foreign);
        }
        Ok(Self(text))
    }
}

impl Suffix {
    /// Returns the suffix that a network has where none is configured: its name and `fastvpn`
    pub fn of_network(name: &str) -> Self {
        let label = label(name).unwrap_or_else(|| "network".to_owned());
        Self(format!("{label}.fastvpn"))
    }

    /// Returns it as text
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Suffix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Makes one label of a name: in lower case, what no host's name may have replaced by `-`
///
/// Nothing comes back where nothing is left, as of a name in letters that ASCII does not have.
pub(super) fn label(name: &str) -> Option<String> {
    let plain = |c: char| match c.to_ascii_lowercase() {
        c if c.is_ascii_lowercase() || c.is_ascii_digit() => c,
        _ => '-',
    };
    let text: String = name.chars().map(plain).collect();
    let text = text.trim_matches('-');
    let text = text.get(..LABEL_MAX).unwrap_or(text).trim_end_matches('-');
    (!text.is_empty()).then(|| text.to_owned())
}

/// Returns the domains in which the addresses of these subnets have their names
///
/// Such a domain ends at a byte (IPv4) or at half of one (IPv6), so a subnet that does not has
/// several. Nothing comes back for a subnet that would add too many.
pub fn reverse_domains(subnets: &[Prefix]) -> Vec<String> {
    let mut domains = Vec::new();
    for subnet in subnets {
        let subnet = subnet.network();
        let step = if subnet.addr().is_ipv4() { 8 } else { 4 };
        let len = subnet.len().next_multiple_of(step).max(step);
        let count = 1_usize << (len - subnet.len());
        if domains.len() + count <= REVERSE_MAX {
            let parts = usize::from(len / step);
            domains.extend((0..count).map(|nth| reverse(nth_part(subnet.addr(), len, nth), parts)));
        }
    }
    domains.sort();
    domains.dedup();
    domains
}

/// Returns the name of an address in its reverse domain
pub(super) fn reverse_name(addr: IpAddr) -> String {
    reverse(addr, if addr.is_ipv4() { 4 } else { 32 })
}

/// Writes the first `parts` bytes, or halves of bytes, of an address the other way round
fn reverse(addr: IpAddr, parts: usize) -> String {
    let (mut labels, zone): (Vec<String>, _) = match addr {
        IpAddr::V4(addr) => {
            (addr.octets().iter().map(u8::to_string).take(parts).collect(), "in-addr.arpa")
        }
        IpAddr::V6(addr) => {
            let halves = addr.octets().into_iter().flat_map(|byte| [byte >> 4, byte & 15]);
            (halves.map(|half| format!("{half:x}")).take(parts).collect(), "ip6.arpa")
        }
    };
    labels.reverse();
    labels.push(zone.to_owned());
    labels.join(".")
}

/// Adds `nth` to the first `len` bits of an address
fn nth_part(addr: IpAddr, len: u8, nth: usize) -> IpAddr {
    match addr {
        IpAddr::V4(addr) => {
            let shift = 32 - u32::from(len);
            IpAddr::from((addr.to_bits() | ((nth as u32) << shift)).to_be_bytes())
        }
        IpAddr::V6(addr) => {
            let shift = 128 - u32::from(len);
            IpAddr::from((addr.to_bits() | ((nth as u128) << shift)).to_be_bytes())
        }
    }
}

fn is_label(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=LABEL_MAX).contains(&text.len())
        && text.bytes().all(plain)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// Longest label
const LABEL_MAX: usize = 63;
/// Longest suffix: with a label and a dot before it, it is as long as a name may be
const SUFFIX_MAX: usize = 253 - LABEL_MAX - 1;
/// Most domains for the addresses of a network
const REVERSE_MAX: usize = 128;
/// Last labels of domains that are not ours to answer for: multicast DNS, addresses, this machine
const FOREIGN: [&str; 3] = ["arpa", "local", "localhost"];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn suffix_is_a_domain_in_lower_case_without_a_final_dot() {
        for (text, suffix) in
            [("home.fastvpn", "home.fastvpn"), ("VPN.Example.NET.", "vpn.example.net"), ("x", "x")]
        {
            assert_eq!(text.parse::<Suffix>().unwrap().as_str(), suffix);
        }
        for (text, error) in [
            ("", SuffixError::Label),
            (".", SuffixError::Label),
            ("a..b", SuffixError::Label),
            ("-a.b", SuffixError::Label),
            ("a_b", SuffixError::Label),
            ("zürich", SuffixError::Label),
            (&"a".repeat(64), SuffixError::Label),
            (&"ab.".repeat(64), SuffixError::Long),
            ("printer.local", SuffixError::Foreign),
            ("10.in-addr.arpa", SuffixError::Foreign),
        ] {
            assert_eq!(text.parse::<Suffix>(), Err(error), "{text:?}");
        }
    }

    #[test]
    fn network_without_a_suffix_has_its_name() {
        assert_eq!(Suffix::of_network("home").as_str(), "home.fastvpn");
        assert_eq!(Suffix::of_network("-a-").as_str(), "a.fastvpn");
        assert_eq!(Suffix::of_network("---").as_str(), "network.fastvpn");
    }

    #[test]
    fn label_keeps_what_a_hosts_name_may_have() {
        for (name, wanted) in [
            ("tokyo", Some("tokyo")),
            ("Ann's Laptop", Some("ann-s-laptop")),
            ("vps.example.net", Some("vps-example-net")),
            ("-a_b-", Some("a-b")),
            ("zürich", Some("z-rich")),
            ("東京", None),
            ("", None),
        ] {
            assert_eq!(label(name).as_deref(), wanted, "{name:?}");
        }
        assert_eq!(label(&format!("{}-b", "a".repeat(62))), Some("a".repeat(62)));
    }

    #[test]
    fn subnet_is_one_reverse_domain_or_as_many_as_it_takes() {
        let domains = |texts: &[&str]| {
            let subnets: Vec<Prefix> = texts.iter().map(|text| text.parse().unwrap()).collect();
            reverse_domains(&subnets)
        };

        assert_eq!(domains(&["172.16.97.0/24"]), ["97.16.172.in-addr.arpa"]);
        assert_eq!(domains(&["10.0.0.0/8"]), ["10.in-addr.arpa"]);
        assert_eq!(domains(&["10.1.2.3/15"]), ["0.10.in-addr.arpa", "1.10.in-addr.arpa"]);
        assert_eq!(domains(&["10.0.0.4/31"]), ["4.0.0.10.in-addr.arpa", "5.0.0.10.in-addr.arpa"]);
        assert_eq!(domains(&["10.0.0.128/25"]).len(), 128);
        assert_eq!(domains(&["10.0.0.128/25", "10.1.0.0/24"]).len(), 128, "one too many");
        assert_eq!(domains(&["fd00:97::/32"]), ["7.9.0.0.0.0.d.f.ip6.arpa"]);
        assert_eq!(domains(&["fd00::/31"]).len(), 2);
    }

    #[test]
    fn address_is_named_from_its_end() {
        assert_eq!(reverse_name("172.16.97.1".parse().unwrap()), "1.97.16.172.in-addr.arpa");
        let name = reverse_name("fd00::1".parse().unwrap());
        assert!(name.starts_with("1.0.0.0.") && name.ends_with("0.0.d.f.ip6.arpa"), "{name}");
    }

    proptest! {
        #[test]
        fn any_name_makes_a_label_or_none(name in "\\PC*") {
            if let Some(label) = label(&name) {
                prop_assert!(is_label(&label), "{}", label);
            }
        }

        #[test]
        fn every_address_of_a_subnet_is_in_one_of_its_domains(bits: u32, len in 9u8..=32) {
            let subnet = Prefix::new(IpAddr::from(bits.to_be_bytes()), len).unwrap();
            let name = reverse_name(subnet.addr());
            let within = |domain: &String| name == *domain || name.ends_with(&format!(".{domain}"));
            prop_assert_eq!(reverse_domains(&[subnet]).iter().filter(|one| within(one)).count(), 1);
        }
    }
}
