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
//! - [`Gate::judge`] sees the key of each init that opened, before it is answered, with what [`Gate::examine`] made of
//!   it: where shards share the work, the gate of the shard that has the member judges, and the one that let the init
//!   in examines, as it knows its own cookies.
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

/// What an init proves of the address that it came from
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Proof {
    /// Its sender got a cookie there
    Given,
    /// Nothing; this message gives its sender a cookie
    Lacking(Vec<u8>),
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
            let proof = self.proof(local, from, &init, rng, now);
            let verdict = self.weigh(from, proof, now);
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

    /// Looks what an init proves of its address
    ///
    /// # Errors
    /// As [`Gate::check`] refuses.
    pub fn examine(
        &mut self,
        local: &Local,
        from: Source,
        bytes: &[u8],
        rng: &mut impl CryptoRng,
        now: Instant,
    ) -> Result<Proof, Refusal> {
        let init = authentic(local, bytes)?;
        Ok(self.proof(local, from, &init, rng, now))
    }

    /// Counts an init that was made with `key`, and decides about it: where they are more than allowed, it must prove
    /// its address
    ///
    /// Whoever only repeats old inits of that member has no cookie, and so cannot lock it out.
    pub fn judge(&mut self, key: &PublicKey, from: Source, proof: Proof, now: Instant) -> Verdict {
        if self.members.take(*key, now) { Verdict::Accept } else { self.weigh(from, proof, now) }
    }

    fn weigh(&mut self, from: Source, proof: Proof, now: Instant) -> Verdict {
        match proof {
            Proof::Given if self.sources.take(from.origin(), now) => Verdict::Accept,
            Proof::Given => Verdict::Refuse(Refusal::Limited),
            Proof::Lacking(cookie) => Verdict::Cookie(cookie),
        }
    }

    fn proof(
        &mut self,
        local: &Local,
        from: Source,
        init: &Init<'_>,
        rng: &mut impl CryptoRng,
        now: Instant,
    ) -> Proof {
        let source = from.encode();
        if self.secrets.verify(&source, init.macs.before_second, init.macs.second, now) {
            return Proof::Given;
        }
        let cookie = self.secrets.cookie(&source, rng, now);
        Proof::Lacking(cookie.seal(&local.public(), local.network_key(), init, rng))
    }

    /// Decides about an init as if its member had sent too many
    #[cfg(test)]
    pub(crate) fn prove(
        &mut self,
        local: &Local,
        from: Source,
        bytes: &[u8],
        rng: &mut impl CryptoRng,
        now: Instant,
    ) -> Verdict {
        match self.examine(local, from, bytes, rng, now) {
            Ok(proof) => self.weigh(from, proof, now),
            Err(refusal) => Verdict::Refuse(refusal),
        }
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

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::handshake::testing::{Pair, at, local, rng};
    use crate::limits::INIT_LEN;

    #[test]
    fn office_behind_one_address_comes_in_while_there_is_no_load() {
        let mut door = Door::new();

        let verdicts: Vec<_> = (0..LOAD_INITS).map(|_| door.knock(1, at(0))).collect();

        assert!(verdicts.iter().all(|verdict| *verdict == Verdict::Accept));
    }

    #[test]
    fn wrong_mac_is_refused_and_is_no_load() {
        let mut door = Door::new();
        let init = door.init.clone();
        door.init[500] ^= 1;
        for _ in 0..=2 * LOAD_INITS {
            assert_eq!(door.knock(1, at(0)), Verdict::Refuse(Refusal::NoMac));
        }

        door.init = init;

        assert_eq!(door.knock(1, at(0)), Verdict::Accept);
    }

    #[test]
    fn under_load_a_cookie_is_asked_for_and_lets_in_from_its_own_address_only() {
        let mut door = Door::new();
        door.flood(at(0));

        let Verdict::Cookie(cookie) = door.knock(1, at(1)) else { panic!("no cookie") };
        door.pair.initiator.handle_cookie(&door.pair.near, &cookie, at(1)).unwrap();
        door.init = door.pair.init(at(1));

        assert_eq!(door.knock(1, at(2)), Verdict::Accept);
        assert!(matches!(door.knock(2, at(2)), Verdict::Cookie(_)));
    }

    #[test]
    fn under_load_one_address_has_its_share() {
        let mut door = Door::new();
        door.flood(at(0));
        let Verdict::Cookie(cookie) = door.knock(1, at(1)) else { panic!("no cookie") };
        door.pair.initiator.handle_cookie(&door.pair.near, &cookie, at(1)).unwrap();
        door.init = door.pair.init(at(1));

        let accepted = (0..100).filter(|_| door.knock(1, at(2)) == Verdict::Accept).count();
        let refused = door.knock(1, at(2));

        assert_eq!(accepted, SOURCE_INITS_BURST as usize);
        assert_eq!(refused, Verdict::Refuse(Refusal::Limited));
        assert_eq!(door.knock(1, at(52)), Verdict::Accept);
    }

    #[test]
    fn load_passes() {
        let mut door = Door::new();
        door.flood(at(0));

        assert!(matches!(door.knock(1, at(999)), Verdict::Cookie(_)));
        assert_eq!(door.knock(1, at(2_000)), Verdict::Accept);
    }

    #[test]
    fn cookie_message_is_shorter_than_what_asked_for_it() {
        let mut door = Door::new();
        door.flood(at(0));

        let Verdict::Cookie(cookie) = door.knock(1, at(1)) else { panic!("no cookie") };

        assert!(cookie.len() * 10 < INIT_LEN);
    }

    #[test]
    fn relayed_inits_count_by_member() {
        let mut door = Door::new();
        let from = Source::Member(door.pair.near.public());
        let Verdict::Cookie(cookie) = door.prove(from, at(0)) else { panic!("no cookie") };
        door.pair.initiator.handle_cookie(&door.pair.near, &cookie, at(0)).unwrap();
        door.init = door.pair.init(at(0));

        assert_eq!(door.prove(from, at(0)), Verdict::Accept);
        let other = Source::Member(PublicKey::from_bytes([9; 32]));
        assert!(matches!(door.prove(other, at(0)), Verdict::Cookie(_)));
    }

    #[test]
    fn member_has_a_rate_of_its_own() {
        let mut gate = Gate::new(at(0));
        let [busy, calm] = [1, 2].map(|id| PublicKey::from_bytes([id; 32]));

        let mut judge = |key, now| {
            gate.judge(key, address(1), Proof::Lacking(vec![7]), at(now)) == Verdict::Accept
        };

        let allowed = (0..100).filter(|_| judge(&busy, 0)).count();

        assert_eq!(allowed, MEMBER_INITS_BURST as usize);
        assert!(judge(&calm, 0));
        assert!(!judge(&busy, 199));
        assert!(judge(&busy, 200));
        let proven = gate.judge(&busy, address(1), Proof::Given, at(200));
        assert_eq!(proven, Verdict::Accept, "repeated by somebody else");
    }

    #[test]
    fn what_all_may_cost_together_is_bounded_however_many_addresses_prove_themselves() {
        let mut door = Door::new();
        door.flood(at(0));

        let mut accepted = 0;
        for host in 0..50 {
            door.sign(host, at(1));
            accepted +=
                (0..SOURCE_INITS).filter(|_| door.knock(host, at(1)) == Verdict::Accept).count();
        }
        let refused = door.knock(49, at(1));

        // the flood was let in until it was one, and the bucket refills a little between
        let before = LOAD_INITS as usize;
        assert_eq!(accepted + before, STRANGER_INITS as usize + 1);
        assert_eq!(refused, Verdict::Refuse(Refusal::Limited));
    }

    #[test]
    fn full_table_locks_nobody_out_and_is_swept() {
        let mut gate = Gate::new(at(0));
        let key = |number: usize| {
            let mut bytes = [0; 32];
            bytes[..8].copy_from_slice(&(number as u64).to_be_bytes());
            PublicKey::from_bytes(bytes)
        };
        for number in 0..GATE_ENTRIES_MAX * 2 {
            assert!(gate.members.take(key(number), at(0)));
        }
        assert_eq!(gate.members.buckets.len(), GATE_ENTRIES_MAX);

        assert!(gate.members.take(key(0), at(5_000)));
        assert!(gate.members.take(key(GATE_ENTRIES_MAX * 3), at(5_000)));

        assert_eq!(gate.members.buckets.len(), 2);
    }

    #[test]
    fn ipv6_counts_by_network_of_64_bits_and_ipv4_by_address() {
        let origin = |text: &str| Source::Addr(text.parse().unwrap()).origin();

        assert_eq!(origin("[2001:db8::1]:1"), origin("[2001:db8::2:3]:4"));
        assert_ne!(origin("[2001:db8::1]:1"), origin("[2001:db8:0:1::1]:1"));
        assert_eq!(origin("192.0.2.1:1"), origin("192.0.2.1:2"));
        assert_ne!(origin("192.0.2.1:1"), origin("192.0.2.2:1"));
    }

    proptest! {
        #[test]
        fn random_bytes_are_always_refused(mut bytes in vec(any::<u8>(), 0..1100), init: bool) {
            if init {
                bytes.resize(INIT_LEN, 0);
                bytes[..4].copy_from_slice(&[1, 1, 0, 0]);
            }
            let far = local(2, crate::crypto::Cipher::Aes256Gcm);
            let mut gate = Gate::new(at(0));

            let verdict = gate.check(&far, address(1), &bytes, &mut rng(0), at(0));

            prop_assert!(matches!(verdict, Verdict::Refuse(_)));
            prop_assert!(crate::handshake::receive(&far, &bytes, &mut rng(0)).is_err());
        }

        #[test]
        fn truncated_and_extended_inits_are_refused(len in 0..1100usize) {
            prop_assume!(len != INIT_LEN);
            let mut door = Door::new();
            door.init.resize(len, 0);

            prop_assert!(matches!(door.knock(1, at(0)), Verdict::Refuse(_)));
        }
    }

    /// A gate, and an init of somebody who wants in
    struct Door {
        gate: Gate,
        pair: Pair,
        init: Vec<u8>,
    }

    impl Door {
        fn new() -> Self {
            let mut pair = Pair::new();
            let init = pair.init(at(0));
            Self { gate: Gate::new(at(0)), pair, init }
        }

        fn knock(&mut self, host: u8, now: Instant) -> Verdict {
            self.gate.check(&self.pair.far, address(host), &self.init, &mut self.pair.rng, now)
        }

        /// Signs the init with the cookie of `host`
        fn sign(&mut self, host: u8, now: Instant) {
            let source = address(host).encode();
            let cookie = self.gate.secrets.cookie(&source, &mut self.pair.rng, now);
            let (before, second) = self.init.split_at_mut(INIT_LEN - 16);
            second.copy_from_slice(&cookie.tag(before));
        }

        fn prove(&mut self, from: Source, now: Instant) -> Verdict {
            self.gate.prove(&self.pair.far, from, &self.init, &mut self.pair.rng, now)
        }

        fn flood(&mut self, now: Instant) {
            for _ in 0..=LOAD_INITS {
                self.knock(99, now);
            }
        }
    }

    fn address(host: u8) -> Source {
        Source::Addr(([192, 0, 2, host], 8796).into())
    }
}
