//! Whether an init deserves work.
//!
//! A [`Gate`] stands before the handshake: it refuses whoever does not know our public key and the
//! network key, asks for a proof of address under load, and bounds what strangers may cost.
//! PROTOCOL.md, section "Cookies".
//!
//! # Contract
//!
//! - [`Gate::check`] sees each init before [`crate::handshake::receive`] does, and costs two hashes
//!   at most where it refuses.
//! - [`Gate::member_ok`] sees the key of each init that opened, before it is answered.
//! - Every table here is bounded; nobody can lock others out by filling one.
//!
//! # Not here
//!
//! Who is a member is not known here.

use core::net::{IpAddr, SocketAddr};
use std::collections::BTreeMap;

use super::refusal::Refusal;
use crate::crypto::cookie::Secrets;
use crate::crypto::{CryptoRng, PublicKey};
use crate::handshake::Local;
use crate::limits::{
    GATE_ENTRIES_MAX, LOAD_INITS, MEMBER_INITS, MEMBER_INITS_BURST, SOURCE_INITS,
    SOURCE_INITS_BURST, STRANGER_INITS,
};
use crate::time::{Duration, Instant};
use crate::wire::message::Init;

/// Decides which inits are worth a Diffie-Hellman
#[derive(Debug)]
pub struct Gate {
    load: Load,
    secrets: Secrets,
    /// What all inits together may cost
    all: Bucket,
    sources: Buckets<Origin>,
    members: Buckets<PublicKey>,
}

/// Where an init came from
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Source {
    /// Straight from this address
    Addr(SocketAddr),
    /// Relayed for this member, whom the relay vouches for
    Member(PublicKey),
}

/// What to do with an init
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// Open it
    Accept,
    /// Send this message back the way it came, and forget it
    Cookie(Vec<u8>),
    /// Forget it
    Refuse(Refusal),
}

impl Gate {
    /// Makes a gate that has seen nothing
    pub fn new(now: Instant) -> Self {
        Self {
            load: Load { since: now, count: 0, until: now },
            secrets: Secrets::default(),
            all: Bucket::full(now),
            sources: Buckets::new(SOURCES, now),
            members: Buckets::new(MEMBERS, now),
        }
    }

    /// Decides about an init
    pub fn check(
        &mut self,
        local: &Local,
        from: Source,
        bytes: &[u8],
        rng: &mut impl CryptoRng,
        now: Instant,
    ) -> Verdict {
        let init = match authentic(local, bytes) {
            Ok(init) => init,
            Err(refusal) => return Verdict::Refuse(refusal),
        };
        if self.load.count(now) {
            let verdict = self.proof(local, from, &init, rng, now);
            if verdict != Verdict::Accept {
                return verdict;
            }
        }
        if self.all.take(STRANGERS, now) {
            Verdict::Accept
        } else {
            Verdict::Refuse(Refusal::Limited)
        }
    }

    /// Asks for a proof of address whatever the load is; for a member that exceeds its limit
    ///
    /// Whoever only repeats old inits of that member has no cookie, and so cannot lock it out.
    pub fn prove(
        &mut self,
        local: &Local,
        from: Source,
        bytes: &[u8],
        rng: &mut impl CryptoRng,
        now: Instant,
    ) -> Verdict {
        match authentic(local, bytes) {
            Ok(init) => self.proof(local, from, &init, rng, now),
            Err(refusal) => Verdict::Refuse(refusal),
        }
    }

    /// Counts an init that was made with `key`, and returns whether that many are allowed
    pub fn member_ok(&mut self, key: &PublicKey, now: Instant) -> bool {
        self.members.take(*key, now)
    }

    fn proof(
        &mut self,
        local: &Local,
        from: Source,
        init: &Init<'_>,
        rng: &mut impl CryptoRng,
        now: Instant,
    ) -> Verdict {
        let source = from.encode();
        if self.secrets.verify(&source, init.macs.before_second, init.macs.second, now) {
            return if self.sources.take(from.origin(), now) {
                Verdict::Accept
            } else {
                Verdict::Refuse(Refusal::Limited)
            };
        }
        let cookie = self.secrets.cookie(&source, rng, now);
        Verdict::Cookie(cookie.seal(&local.public(), local.network_key(), init, rng))
    }
}

fn authentic<'a>(local: &Local, bytes: &'a [u8]) -> Result<Init<'a>, Refusal> {
    let init = Init::parse(bytes)?;
    if local.verify_mac(init.macs.before_first, init.macs.first) {
        Ok(init)
    } else {
        Err(Refusal::NoMac)
    }
}

impl Source {
    /// Returns what a cookie is bound to
    fn encode(self) -> [u8; 33] {
        let mut bytes = [0; 33];
        match self {
            Self::Addr(address) => {
                bytes[0] = 1;
                bytes[1..17].copy_from_slice(&wide(address.ip()));
                bytes[17..19].copy_from_slice(&address.port().to_be_bytes());
            }
            Self::Member(key) => {
                bytes[0] = 2;
                bytes[1..].copy_from_slice(key.as_bytes());
            }
        }
        bytes
    }

    /// Returns what inits are counted by
    fn origin(self) -> Origin {
        match self {
            Self::Addr(address) => {
                let wide = u128::from_be_bytes(wide(address.ip()));
                let v4 = address.ip().to_canonical().is_ipv4();
                Origin::Addr(if v4 { wide } else { wide >> 64 << 64 })
            }
            Self::Member(key) => Origin::Member(key),
        }
    }
}

fn wide(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

/// What inits are counted by: an IPv4 address, an IPv6 network of 64 bits, or a member
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Origin {
    Addr(u128),
    Member(PublicKey),
}

/// Inits of late
#[derive(Debug)]
struct Load {
    since: Instant,
    count: u32,
    /// Under load until then
    until: Instant,
}

impl Load {
    /// Counts an init, and returns whether there is too much of them
    fn count(&mut self, now: Instant) -> bool {
        if now.since(self.since) >= SECOND {
            self.since = now;
            self.count = 0;
        }
        self.count = self.count.saturating_add(1);
        if self.count > LOAD_INITS {
            self.until = now + SECOND;
        }
        now < self.until
    }
}

/// How many there may be: so many a second, and so many at once after a pause
#[derive(Clone, Copy, Debug)]
struct Allowance {
    rate: u32,
    burst: u32,
}

impl Allowance {
    /// Returns the time that one takes to become due again
    fn each(self) -> Duration {
        SECOND / self.rate
    }
}

/// A token bucket, kept as the time at which it would be full
#[derive(Clone, Copy, Debug)]
struct Bucket {
    full_at: Instant,
}

impl Bucket {
    fn full(now: Instant) -> Self {
        Self { full_at: now }
    }

    fn take(&mut self, allowance: Allowance, now: Instant) -> bool {
        let full_at = self.full_at.max(now) + allowance.each();
        let allowed = full_at.since(now) <= allowance.each() * allowance.burst;
        if allowed {
            self.full_at = full_at;
        }
        allowed
    }
}

/// A bounded number of buckets
#[derive(Debug)]
struct Buckets<K> {
    allowance: Allowance,
    buckets: BTreeMap<K, Bucket>,
    swept: Instant,
}

impl<K: Ord> Buckets<K> {
    fn new(allowance: Allowance, now: Instant) -> Self {
        Self { allowance, buckets: BTreeMap::new(), swept: now }
    }

    /// Takes one of `key`
    ///
    /// Whoever finds no place in the table is let through: what all may cost together is bounded.
    fn take(&mut self, key: K, now: Instant) -> bool {
        if let Some(bucket) = self.buckets.get_mut(&key) {
            return bucket.take(self.allowance, now);
        }
        if self.buckets.len() >= GATE_ENTRIES_MAX && now.since(self.swept) >= SECOND {
            self.swept = now;
            self.buckets.retain(|_, bucket| bucket.full_at > now);
        }
        if self.buckets.len() >= GATE_ENTRIES_MAX {
            return true;
        }
        let mut bucket = Bucket::full(now);
        let allowed = bucket.take(self.allowance, now);
        self.buckets.insert(key, bucket);
        allowed
    }
}

const SECOND: Duration = Duration::from_secs(1);
const STRANGERS: Allowance = Allowance { rate: STRANGER_INITS, burst: STRANGER_INITS };
const SOURCES: Allowance = Allowance { rate: SOURCE_INITS, burst: SOURCE_INITS_BURST };
const MEMBERS: Allowance = Allowance { rate: MEMBER_INITS, burst: MEMBER_INITS_BURST };
