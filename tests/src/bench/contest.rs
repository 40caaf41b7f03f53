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
    /// fastvpn with AES-256-GCM, all TCP split
    FastvpnAes,
    /// fastvpn with ChaCha20-Poly1305, all TCP split
    FastvpnChacha,
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
    /// VpnCloud
    Vpncloud,
    /// Nebula
    Nebula,
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
    pub const ALL: [Self; 20] = [
        Self::Fastvpn,
        Self::FastvpnBbr,
        Self::FastvpnTcp,
        Self::FastvpnKcp,
        Self::FastvpnAes,
        Self::FastvpnChacha,
        Self::Raw,
        Self::RawBbr,
        Self::Kcp,
        Self::Wireguard,
        Self::WireguardBbr,
        Self::Boringtun,
        Self::Tinc,
        Self::Openvpn,
        Self::Vpncloud,
        Self::Nebula,
        Self::Kcptun,
        Self::Easytier,
        Self::EasytierKcp,
        Self::EasytierQuic,
    ];

    /// Returns the program, as `--programs` names it
    pub const fn program(self) -> &'static str {
        match self {
            Self::Fastvpn
            | Self::FastvpnBbr
            | Self::FastvpnTcp
            | Self::FastvpnKcp
            | Self::FastvpnAes
            | Self::FastvpnChacha => "fastvpn",
            Self::Raw | Self::RawBbr => "raw",
            Self::Kcp => "kcp",
            Self::Wireguard | Self::WireguardBbr => "wireguard-go",
            Self::Boringtun => "boringtun",
            Self::Tinc => "tinc",
            Self::Openvpn => "openvpn",
            Self::Vpncloud => "vpncloud",
            Self::Nebula => "nebula",
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
            | Self::FastvpnAes
            | Self::FastvpnChacha
            | Self::Raw
            | Self::RawBbr
            | Self::Kcp
            | Self::Wireguard
            | Self::WireguardBbr
            | Self::Boringtun
            | Self::Tinc
            | Self::Openvpn
            | Self::Vpncloud
            | Self::Nebula
            | Self::Kcptun
            | Self::Easytier
            | Self::EasytierKcp
            | Self::EasytierQuic => None,
        }
    }

    /// Returns what the configuration of its nodes says of cipher and TCP, where it is fastvpn and
    /// not to choose
    pub const fn settings(self) -> &'static str {
        match self {
            Self::FastvpnAes => "cipher = \"aes-256-gcm\"\ntcp = \"split\"\n",
            Self::FastvpnChacha => "cipher = \"chacha20-poly1305\"\ntcp = \"split\"\n",
            Self::Fastvpn
            | Self::FastvpnBbr
            | Self::FastvpnTcp
            | Self::FastvpnKcp
            | Self::Raw
            | Self::RawBbr
            | Self::Kcp
            | Self::Wireguard
            | Self::WireguardBbr
            | Self::Boringtun
            | Self::Tinc
            | Self::Openvpn
            | Self::Vpncloud
            | Self::Nebula
            | Self::Kcptun
            | Self::Easytier
            | Self::EasytierKcp
            | Self::EasytierQuic => "",
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
            Self::FastvpnAes => "fastvpn, AES, split",
            Self::FastvpnChacha => "fastvpn, ChaCha, split",
            Self::Raw => "bare link, CUBIC",
            Self::RawBbr => "bare link, BBR",
            Self::Kcp => "stock KCP",
            Self::Wireguard => "WireGuard, CUBIC",
            Self::WireguardBbr => "WireGuard, BBR",
            Self::Boringtun => "boringtun",
            Self::Tinc => "tinc",
            Self::Openvpn => "OpenVPN",
            Self::Vpncloud => "VpnCloud",
            Self::Nebula => "Nebula",
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
            | Self::FastvpnAes
            | Self::FastvpnChacha
            | Self::Raw
            | Self::Kcp
            | Self::Wireguard
            | Self::Boringtun
            | Self::Tinc
            | Self::Openvpn
            | Self::Vpncloud
            | Self::Nebula
            | Self::Kcptun
            | Self::Easytier
            | Self::EasytierKcp
            | Self::EasytierQuic => Congestion::Cubic,
        }
    }
}
