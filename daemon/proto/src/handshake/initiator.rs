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
            attempts: VecDeque::new(),
            retired: None,
            made: 0,
            cookie: None,
            patience: patience.clamp(INIT_RETRY_MIN, INIT_RETRY_MAX),
            due: now,
        }
    }

    /// Gives an init, if one is due
    ///
    /// `index` is the index of this attempt; `sequence` counts all inits of the node.
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
    pub fn handle_response(
        &mut self,
        local: &Local,
        bytes: &[u8],
        _now: Instant,
    ) -> Result<Established, Refusal> {
        let response = Response::parse(bytes)?;
        if !local.verify_mac(response.macs.before_first, response.macs.first) {
            return Err(Refusal::NoMac);
        }
        if *response.macs.second != [0; MAC_LEN] {
            return Err(Refusal::Malformed);
        }
        let at = self.position(response.receiver)?;
        let payload =
            self.attempts[at].noise.read(response.noise).map_err(|_| Refusal::Handshake)?;
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
