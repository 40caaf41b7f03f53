//! Who takes part.

use crate::lab::stream::Congestion;

/// A program in one configuration, with the congestion control of the TCP inside
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Contestant {
    /// fastvpn, its users' TCP uses CUBIC
    Fastvpn,
    /// fastvpn, its users' TCP uses BBR
    FastvpnBbr,
    /// fastvpn where UDP is blocked: over TCP
    FastvpnTcp,
    /// fastvpn over KCP
    FastvpnKcp,
    /// No program: CUBIC straight over the link
    Raw,
    /// No program: BBR straight over the link
    RawBbr,
    /// Stock KCP in its fastest mode, at the best of some windows
    Kcp,
    /// wireguard-go, CUBIC inside
    Wireguard,
    /// wireguard-go, BBR inside
    WireguardBbr,
    /// boringtun, WireGuard in Rust
    Boringtun,
    /// tinc
    Tinc,
    /// OpenVPN over UDP
    Openvpn,
    /// kcptun in its fastest mode
    Kcptun,
    /// EasyTier over UDP
    Easytier,
    /// EasyTier with its KCP proxy
    EasytierKcp,
    /// EasyTier with its QUIC proxy
    EasytierQuic,
}

impl Contestant {
    /// All of them, in the order of the tables
    pub const ALL: [Self; 16] = [
        Self::Fastvpn,
        Self::FastvpnBbr,
        Self::FastvpnTcp,
        Self::FastvpnKcp,
        Self::Raw,
        Self::RawBbr,
        Self::Kcp,
        Self::Wireguard,
        Self::WireguardBbr,
        Self::Boringtun,
        Self::Tinc,
        Self::Openvpn,
        Self::Kcptun,
        Self::Easytier,
        Self::EasytierKcp,
        Self::EasytierQuic,
    ];

    /// Returns the program, as `--programs` names it
    pub const fn program(self) -> &'static str {
        match self {
            Self::Fastvpn | Self::FastvpnBbr | Self::FastvpnTcp | Self::FastvpnKcp => "fastvpn",
            Self::Raw | Self::RawBbr => "raw",
            Self::Kcp => "kcp",
            Self::Wireguard | Self::WireguardBbr => "wireguard-go",
            Self::Boringtun => "boringtun",
            Self::Tinc => "tinc",
            Self::Openvpn => "openvpn",
            Self::Kcptun => "kcptun",
            Self::Easytier | Self::EasytierKcp | Self::EasytierQuic => "easytier",
        }
    }

    /// Returns what else `--programs` may name it by
    pub const fn group(self) -> Option<&'static str> {
        match self.carrier() {
            Some(_) => Some("carriers"),
            None => None,
        }
    }

    /// Returns the carrier that fastvpn is told to use, where it is not to choose
    pub const fn carrier(self) -> Option<&'static str> {
        match self {
            Self::FastvpnTcp => Some("tcp"),
            Self::FastvpnKcp => Some("kcp"),
            Self::Fastvpn
            | Self::FastvpnBbr
            | Self::Raw
            | Self::RawBbr
            | Self::Kcp
            | Self::Wireguard
            | Self::WireguardBbr
            | Self::Boringtun
            | Self::Tinc
            | Self::Openvpn
            | Self::Kcptun
            | Self::Easytier
            | Self::EasytierKcp
            | Self::EasytierQuic => None,
        }
    }

    /// Tells whether `--programs` with such a name means it
    pub fn is_named(self, name: &str) -> bool {
        self.program() == name || self.group() == Some(name)
    }

    /// Returns the name for the tables and for JSON
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fastvpn => "fastvpn",
            Self::FastvpnBbr => "fastvpn, BBR inside",
            Self::FastvpnTcp => "fastvpn over TCP",
            Self::FastvpnKcp => "fastvpn over KCP",
            Self::Raw => "bare link, CUBIC",
            Self::RawBbr => "bare link, BBR",
            Self::Kcp => "stock KCP",
            Self::Wireguard => "WireGuard, CUBIC",
            Self::WireguardBbr => "WireGuard, BBR",
            Self::Boringtun => "boringtun",
            Self::Tinc => "tinc",
            Self::Openvpn => "OpenVPN",
            Self::Kcptun => "kcptun",
            Self::Easytier => "EasyTier",
            Self::EasytierKcp => "EasyTier, KCP proxy",
            Self::EasytierQuic => "EasyTier, QUIC proxy",
        }
    }

    /// Returns the contestant of a name
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|contestant| contestant.name() == name)
    }

    /// Returns the congestion control of the TCP that it carries
    pub const fn congestion(self) -> Congestion {
        match self {
            Self::FastvpnBbr | Self::RawBbr | Self::WireguardBbr => Congestion::Bbr,
            Self::Fastvpn
            | Self::FastvpnTcp
            | Self::FastvpnKcp
            | Self::Raw
            | Self::Kcp
            | Self::Wireguard
            | Self::Boringtun
            | Self::Tinc
            | Self::Openvpn
            | Self::Kcptun
            | Self::Easytier
            | Self::EasytierKcp
            | Self::EasytierQuic => Congestion::Cubic,
        }
    }
}
