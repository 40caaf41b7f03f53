//! The asking end of a handshake.
//!
//! An [`Initiator`] sends inits to one node until it is answered. Each init is a new attempt with
//! an ephemeral key of its own; the last few are remembered, so that on a long way an answer that
//! comes after the next try still counts.
//!
//! # Contract
//!
//! - Ask [`Initiator::deadline`] after each call; when it has passed, [`Initiator::poll`] gives an
//!   init. It never gives up by itself: whoever does not want it any more drops it.
//! - The index given to [`Initiator::poll`] belongs to that attempt until
//!   [`Initiator::take_retired`] returns it or the initiator is dropped.
//! - After [`Initiator::handle_response`] has succeeded, drop the initiator.

use core::fmt;
use std::collections::VecDeque;

use super::{Established, Local, cipher_of, seals_of_initiator};
use crate::crypto::cookie::{Cookie, MacKey};
use crate::crypto::noise::Noise;
use crate::crypto::{CryptoRng, PublicKey, draw};
use crate::limits::{COOKIE_LIFE, INIT_ATTEMPTS_KEPT, INIT_RETRY_MAX, INIT_RETRY_MIN, INITIAL_RTT};
use crate::node::Refusal;
use crate::time::{Duration, Instant};
use crate::wire::message::{
    CookieReply, FEATURE_AES, INIT_HEADER_LEN, Init, InitPayload, MAC_LEN, Response,
    ResponsePayload,
};

/// Tries to make a handshake with one node
pub struct Initiator {
    remote: PublicKey,
    mac_key: MacKey,
    hello: Vec<u8>,
    incarnation: u32,
    /// Those that may still be answered, the oldest first
    attempts: VecDeque<Attempt>,
    /// Index of the attempt that was forgotten last
    retired: Option<u32>,
    /// Attempts made, forgotten ones included
    made: u32,
    cookie: Option<(Cookie, Instant)>,
    /// Time to wait after the next attempt
    patience: Duration,
    due: Instant,
    /// Responses that did not open, since when
    spoiled: (u32, Instant),
}

struct Attempt {
    index: u32,
    sequence: u64,
    first_mac: [u8; MAC_LEN],
    /// Whether the init carried a cookie
    proven: bool,
    noise: Noise,
}

impl Initiator {
    /// Starts to try; the first init is due at once
    ///
    /// `hello` is what we say of ourselves; what exceeds [`crate::node::HELLO_MAX`] is cut off. `rtt`
    /// is the round-trip time to the node, where it was measured before.
    pub fn new(
        local: &Local,
        remote: PublicKey,
        hello: Vec<u8>,
        rtt: Option<Duration>,
        now: Instant,
    ) -> Self {
        let patience = rtt.map_or(INITIAL_RTT * 3, |rtt| rtt * 2);
        Self {
            remote,
            mac_key: MacKey::new(&remote, &local.network_key),
            hello,
            incarnation: 0,
            attempts: VecDeque::new(),
            retired: None,
            made: 0,
            cookie: None,
            patience: patience.clamp(INIT_RETRY_MIN, INIT_RETRY_MAX),
            due: now,
            spoiled: (0, now),
        }
    }

    /// Says which session of ours with the other node the keys are for; the first one if not called
    #[must_use]
    pub fn with_incarnation(self, incarnation: u32) -> Self {
        Self { incarnation, ..self }
    }

    /// Gives an init, if one is due
    ///
    /// `index` is the index of this attempt, and not used if there is none; `sequence` counts all
    /// inits of the node.
    pub fn poll(
        &mut self,
        local: &Local,
        sequence: &mut u64,
        rng: &mut impl CryptoRng,
        index: u32,
        now: Instant,
    ) -> Option<Vec<u8>> {
        if now < self.due {
            return None;
        }
        self.schedule(rng, now);
        if self.cookie.as_ref().is_some_and(|(_, until)| now >= *until) {
            self.cookie = None;
        }
        *sequence += 1;
        let (bytes, attempt) = self.attempt(local, *sequence, rng, index)?;
        self.made = self.made.saturating_add(1);
        if self.attempts.len() >= INIT_ATTEMPTS_KEPT {
            self.retired = self.attempts.pop_front().map(|oldest| oldest.index);
        }
        self.attempts.push_back(attempt);
        Some(bytes)
    }

    /// Takes a response to any of the attempts that are remembered
    ///
    /// One that does not open costs as much as one that does, so their number is limited.
    pub fn handle_response(
        &mut self,
        local: &Local,
        bytes: &[u8],
        now: Instant,
    ) -> Result<Established, Refusal> {
        let response = Response::parse(bytes)?;
        if !local.verify_mac(response.macs.before_first, response.macs.first) {
            return Err(Refusal::NoMac);
        }
        if *response.macs.second != [0; MAC_LEN] {
            return Err(Refusal::Malformed);
        }
        let at = self.position(response.receiver)?;
        if now.since(self.spoiled.1) >= SPOILED_PERIOD {
            self.spoiled = (0, now);
        } else if self.spoiled.0 >= SPOILED_MAX {
            return Err(Refusal::Limited);
        }
        let Ok(payload) = self.attempts[at].noise.read(response.noise) else {
            self.spoiled.0 += 1;
            return Err(Refusal::Handshake);
        };
        let attempt = self.attempts.remove(at).ok_or(Refusal::UnknownSession)?;
        let payload = ResponsePayload::parse(&payload)?;
        if payload.features & FEATURE_AES & !local.features() != 0 {
            return Err(Refusal::Malformed);
        }
        let cipher = cipher_of(payload.features);
        let (seal, open) = seals_of_initiator(attempt.noise.split(), cipher);
        Ok(Established {
            cipher,
            seal,
            open,
            local_index: attempt.index,
            remote_index: response.sender,
            remote: self.remote,
            boot: payload.boot,
            incarnation: payload.incarnation,
            greeting: payload.reply.to_vec(),
            initiator: true,
            sequence: attempt.sequence,
        })
    }

    /// Takes a cookie; the inits that follow prove our address with it
    ///
    /// The next one is due at once, unless the one that was answered with the cookie had one too.
    pub fn handle_cookie(
        &mut self,
        local: &Local,
        bytes: &[u8],
        now: Instant,
    ) -> Result<(), Refusal> {
        let reply = CookieReply::parse(bytes)?;
        let at = self.position(reply.receiver)?;
        let attempt = &mut self.attempts[at];
        let cookie = Cookie::open(&self.remote, &local.network_key, &attempt.first_mac, &reply)
            .ok_or(Refusal::BadSeal)?;
        self.cookie = Some((cookie, now + COOKIE_LIFE));
        // at once only if that can help, and only once for each init: else the two nodes might
        // send cookies and inits to and fro as fast as the way allows
        if !attempt.proven {
            attempt.proven = true;
            self.due = now;
        }
        Ok(())
    }

    /// Makes the next init due at once: the way to the other node has changed
    pub fn hurry(&mut self, now: Instant) {
        self.due = self.due.min(now);
    }

    /// Changes what we say of ourselves, from the next init on
    pub fn set_hello(&mut self, hello: Vec<u8>) {
        self.hello = hello;
    }

    /// Returns, once, the index of an attempt that was forgotten for a newer one
    pub fn take_retired(&mut self) -> Option<u32> {
        self.retired.take()
    }

    /// Returns when [`Self::poll`] will next give an init
    pub fn deadline(&self) -> Instant {
        self.due
    }

    /// Returns how many inits were made
    pub fn attempts(&self) -> u32 {
        self.made
    }

    /// Returns whom the handshake is with
    pub fn remote(&self) -> PublicKey {
        self.remote
    }

    /// Returns whether `index` belongs to an attempt that may still be answered
    pub fn owns(&self, index: u32) -> bool {
        self.indices().any(|own| own == index)
    }

    /// Returns the indices of the attempts that may still be answered
    pub fn indices(&self) -> impl Iterator<Item = u32> + '_ {
        self.attempts.iter().map(|attempt| attempt.index)
    }

    fn position(&self, index: u32) -> Result<usize, Refusal> {
        self.attempts
            .iter()
            .position(|attempt| attempt.index == index)
            .ok_or(Refusal::UnknownSession)
    }

    /// Sets when the init after this one is due: a little before patience ends, never the same
    fn schedule(&mut self, rng: &mut impl CryptoRng, now: Instant) {
        let jitter = self.patience / 8 * (rng.next_u32() >> 16) / (1 << 16);
        self.due = now + (self.patience - jitter).max(INIT_RETRY_MIN);
        self.patience = (self.patience * 3 / 2).min(INIT_RETRY_MAX);
    }

    fn attempt(
        &self,
        local: &Local,
        sequence: u64,
        rng: &mut impl CryptoRng,
        index: u32,
    ) -> Option<(Vec<u8>, Attempt)> {
        let payload = InitPayload {
            features: local.features(),
            boot: local.boot,
            sequence,
            hello: &self.hello,
            incarnation: self.incarnation,
        };
        let mut noise =
            Noise::initiator(&local.private, &local.network_key, &self.remote, draw(rng)).ok()?;
        let mut bytes = Init::start(index);
        let second_at = bytes.len() - MAC_LEN;
        let first_at = second_at - MAC_LEN;
        noise.write(&payload.encode(), &mut bytes[INIT_HEADER_LEN..first_at]).ok()?;
        let first_mac = self.mac_key.tag(&bytes[..first_at]);
        bytes[first_at..second_at].copy_from_slice(&first_mac);
        if let Some((cookie, _)) = &self.cookie {
            let second_mac = cookie.tag(&bytes[..second_at]);
            bytes[second_at..].copy_from_slice(&second_mac);
        }
        let proven = self.cookie.is_some();
        Some((bytes, Attempt { index, sequence, first_mac, proven, noise }))
    }
}

impl fmt::Debug for Initiator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Initiator")
            .field("remote", &self.remote)
            .field("made", &self.made)
            .field("due", &self.due)
            .finish_non_exhaustive()
    }
}

/// Responses that do not open, in [`SPOILED_PERIOD`], after which no more are tried
const SPOILED_MAX: u32 = 100;
const SPOILED_PERIOD: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::Index;

    use super::*;
    use crate::handshake::receive;
    use crate::handshake::testing::{Pair, at};
    use crate::limits::INIT_LEN;
    use crate::node::HELLO_MAX;
    use crate::node::admission::{Gate, Source, Verdict};

    #[test]
    fn tries_come_more_and_more_slowly_but_never_end() {
        let mut pair = Pair::new();
        let mut now = at(0);

        let mut waits = Vec::new();
        for _ in 0..40 {
            pair.init(now);
            let next = pair.initiator.deadline();
            waits.push(next.since(now));
            now = next;
        }

        assert_eq!(pair.initiator.attempts(), 40);
        assert!(waits.iter().all(|wait| (INIT_RETRY_MIN..=INIT_RETRY_MAX).contains(wait)));
        assert!((874..=999).contains(&waits[0].as_millis()), "{:?}", waits[0]);
        assert!(waits[20..].iter().all(|wait| *wait >= INIT_RETRY_MAX * 7 / 8));
        assert_ne!(waits[20], waits[21], "jitter keeps many nodes apart");
    }

    #[test]
    fn first_wait_follows_the_known_round_trip() {
        for (rtt, least, most) in [(10, 500, 500), (600, 1_050, 1_200), (9_000, 4_375, 5_000)] {
            let mut pair = Pair::new();
            let rtt = Some(Duration::from_millis(rtt));
            pair.initiator = Initiator::new(&pair.near, pair.far.public(), vec![], rtt, at(0));

            pair.init(at(0));

            let wait = pair.initiator.deadline().since(at(0)).as_millis();
            assert!((least..=most).contains(&wait), "{wait} ms for {rtt:?}");
        }
    }

    #[test]
    fn nothing_is_sent_before_its_time() {
        let mut pair = Pair::new();
        pair.init(at(0));
        let early = pair.initiator.deadline() - Duration::from_nanos(1);
        let mut sequence = 1;

        let init = pair.initiator.poll(&pair.near, &mut sequence, &mut pair.rng, 9, early);

        assert_eq!(init, None);
        assert_eq!(sequence, 1);
        assert!(!pair.initiator.owns(9));
    }

    #[test]
    fn slow_answer_to_an_older_attempt_counts() {
        let mut pair = Pair::new();
        let first = pair.init(at(0));
        pair.init(at(2_000));
        pair.init(at(5_000));
        let (response, far) = pair.answer(&first, 200);

        let near = pair.initiator.handle_response(&pair.near, &response, at(6_000)).unwrap();

        assert_eq!((near.sequence, near.local_index), (1, far.remote_index));
        assert_eq!(pair.initiator.indices().collect::<Vec<_>>(), [102, 103]);
    }

    #[test]
    fn answer_to_a_forgotten_attempt_is_refused() {
        let mut pair = Pair::new();
        let first = pair.init(at(0));
        for millis in [10_000, 20_000] {
            pair.init(at(millis));
            assert_eq!(pair.initiator.take_retired(), None);
        }
        pair.init(at(30_000));
        let (response, _) = pair.answer(&first, 200);

        let answer = pair.initiator.handle_response(&pair.near, &response, at(30_001));

        assert_eq!(answer.unwrap_err(), Refusal::UnknownSession);
        assert_eq!(pair.initiator.take_retired(), Some(101));
        assert_eq!(pair.initiator.take_retired(), None);
    }

    #[test]
    fn response_counts_once() {
        let mut pair = Pair::new();
        let init = pair.init(at(0));
        let (response, _) = pair.answer(&init, 200);
        assert!(pair.initiator.handle_response(&pair.near, &response, at(1)).is_ok());

        let again = pair.initiator.handle_response(&pair.near, &response, at(2));

        assert_eq!(again.unwrap_err(), Refusal::UnknownSession);
    }

    #[test]
    fn flipped_bit_anywhere_in_a_response_is_refused_and_spoils_nothing() {
        let mut pair = Pair::new();
        let init = pair.init(at(0));
        let (response, _) = pair.answer(&init, 200);

        for bit in 0..response.len() * 8 {
            let mut bad = response.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(pair.initiator.handle_response(&pair.near, &bad, at(1)).is_err(), "bit {bit}");
        }

        assert!(pair.initiator.handle_response(&pair.near, &response, at(1)).is_ok());
    }

    #[test]
    fn forged_response_with_a_valid_mac_is_refused_and_limited_and_spoils_nothing() {
        let mut pair = Pair::new();
        let init = pair.init(at(0));
        let (response, _) = pair.answer(&init, 200);
        let mut forged = response.clone();
        forged[20] ^= 1;
        let mac_at = forged.len() - 2 * MAC_LEN;
        let tag = MacKey::new(&pair.near.public, &pair.near.network_key).tag(&forged[..mac_at]);
        forged[mac_at..mac_at + MAC_LEN].copy_from_slice(&tag);

        let refusals: Vec<_> = (0..=SPOILED_MAX)
            .map(|_| pair.initiator.handle_response(&pair.near, &forged, at(1)).unwrap_err())
            .collect();

        assert_eq!(refusals[0], Refusal::Handshake);
        assert_eq!(refusals.last(), Some(&Refusal::Limited));
        assert!(pair.initiator.handle_response(&pair.near, &response, at(1_001)).is_ok());
    }

    #[test]
    fn cookie_makes_the_next_init_due_at_once_and_carries_it_through() {
        let mut pair = Pair::new();
        let mut gate = Gate::new(at(0));
        let init = pair.init(at(0));
        let source = Source::Addr("192.0.2.1:5000".parse().unwrap());
        let Verdict::Cookie(cookie) = gate.prove(&pair.far, source, &init, &mut pair.rng, at(0))
        else {
            panic!("no cookie was asked for");
        };

        pair.initiator.handle_cookie(&pair.near, &cookie, at(50)).unwrap();

        assert_eq!(pair.initiator.deadline(), at(50));
        let second = pair.init(at(50));
        let verdict = gate.prove(&pair.far, source, &second, &mut pair.rng, at(100));
        assert_eq!(verdict, Verdict::Accept);
        assert!(receive(&pair.far, &second, &mut pair.rng).is_ok());
    }

    #[test]
    fn cookies_do_not_drive_inits_to_and_fro() {
        let mut pair = Pair::new();
        let mut gate = Gate::new(at(0));
        let mut ask = |init: &[u8], port| {
            let source = Source::Addr(([192, 0, 2, 1], port).into());
            match gate.prove(&pair.far, source, init, &mut crate::handshake::testing::rng(9), at(0))
            {
                Verdict::Cookie(cookie) => cookie,
                other => panic!("{other:?}"),
            }
        };
        let first = pair.initiator.poll(&pair.near, &mut 0, &mut pair.rng, 1, at(0)).unwrap();
        let cookie = ask(&first, 1);
        pair.initiator.handle_cookie(&pair.near, &cookie, at(10)).unwrap();
        let second = pair.initiator.poll(&pair.near, &mut 1, &mut pair.rng, 2, at(10)).unwrap();
        let regular = pair.initiator.deadline();

        let other = ask(&second, 2);
        pair.initiator.handle_cookie(&pair.near, &other, at(20)).unwrap();
        pair.initiator.handle_cookie(&pair.near, &cookie, at(20)).unwrap();

        assert_eq!(pair.initiator.deadline(), regular);
    }

    #[test]
    fn forged_cookie_is_refused() {
        let mut pair = Pair::new();
        let mut gate = Gate::new(at(0));
        let init = pair.init(at(0));
        let source = Source::Member(pair.near.public());
        let Verdict::Cookie(cookie) = gate.prove(&pair.far, source, &init, &mut pair.rng, at(0))
        else {
            panic!("no cookie was asked for");
        };

        for bit in 0..cookie.len() * 8 {
            let mut bad = cookie.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(pair.initiator.handle_cookie(&pair.near, &bad, at(1)).is_err(), "bit {bit}");
        }
        assert!(pair.initiator.deadline() > at(1));
    }

    #[test]
    fn cookie_is_used_no_longer_than_it_lives() {
        let mut pair = Pair::new();
        let mut gate = Gate::new(at(0));
        let init = pair.init(at(0));
        let source = Source::Member(pair.near.public());
        let Verdict::Cookie(cookie) = gate.prove(&pair.far, source, &init, &mut pair.rng, at(0))
        else {
            panic!("no cookie was asked for");
        };
        pair.initiator.handle_cookie(&pair.near, &cookie, at(0)).unwrap();

        let young = pair.init(at(119_999));
        let old = pair.init(at(130_000));

        assert_ne!(young[INIT_LEN - MAC_LEN..], [0; MAC_LEN]);
        assert_eq!(old[INIT_LEN - MAC_LEN..], [0; MAC_LEN]);
    }

    #[test]
    fn impossible_key_is_no_reason_to_panic() {
        let near = Pair::new().near;
        let nobody = PublicKey::from_bytes([0; 32]);
        let mut initiator = Initiator::new(&near, nobody, vec![], None, at(0));
        let mut rng = crate::handshake::testing::rng(0);

        assert_eq!(initiator.poll(&near, &mut 0, &mut rng, 1, at(0)), None);
        assert!(initiator.deadline() > at(0));
        assert!(!initiator.owns(1));
    }

    #[test]
    fn longest_hello_arrives_whole_and_a_longer_one_is_cut() {
        for (len, arrives) in [(HELLO_MAX, HELLO_MAX), (HELLO_MAX + 1, HELLO_MAX)] {
            let mut pair = Pair::new();
            pair.initiator.set_hello(vec![7; len]);

            let init = pair.init(at(0));

            let received = receive(&pair.far, &init, &mut pair.rng).unwrap();
            assert_eq!(received.hello, vec![7; arrives]);
        }
    }

    proptest! {
        #[test]
        fn random_and_truncated_bytes_never_panic_and_are_refused(
            kind in 0..5u8,
            mut bytes in vec(any::<u8>(), 0..1100),
            keep: Index,
        ) {
            let mut pair = Pair::new();
            let init = pair.init(at(0));
            let (response, _) = pair.answer(&init, 200);
            if let Some(head) = bytes.first_chunk_mut() {
                *head = [kind, 0, 0, 0];
            }
            let truncated = &response[..keep.index(response.len())];

            for bytes in [&bytes, truncated] {
                let initiator = &mut pair.initiator;
                prop_assert!(initiator.handle_response(&pair.near, bytes, at(1)).is_err());
                prop_assert!(initiator.handle_cookie(&pair.near, bytes, at(1)).is_err());
            }
        }
    }
}
