//! One flow of a session's load: what waits in it, and what it has sent of late.

use std::collections::VecDeque;

use super::codel::{Codel, Verdict};
use super::ecn;
use super::meter::{Level, Meter};
use super::policy::Policy;
use crate::buffers::Stowed;
use crate::crypto::PublicKey;
use crate::ip::Inner;
use crate::tcp::Piece;
use crate::time::{Duration, Instant};
use crate::wire::frame::RELAY_OVERHEAD;

/// What tells one flow from another
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Key {
    /// Inner packets, by a number that follows from their five-tuple
    Datagrams(u32),
    /// The lane of a split connection
    Lane(u32),
    /// Messages that are carried for, or to, another node
    Relay(PublicKey),
}

/// Whose turn a flow waits for
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Turn {
    /// None: it has nothing to send, and had nothing at its last turn
    Idle,
    /// That of thin flows
    Thin,
    /// That of flows that have just begun
    New,
    /// That of all others
    Old,
}

/// One flow
#[derive(Debug)]
pub(super) struct Flow {
    /// Which it is
    pub(super) key: Key,
    /// Whose turn it waits for
    pub(super) turn: Turn,
    /// Bytes that it may send before the next flow has its turn; what it sent too much is negative
    pub(super) deficit: i64,
    /// How much it sends, as far as thinness is concerned
    pub(super) level: Level,
    /// How fast it sends
    pub(super) meter: Meter,
    /// When it last had something to send
    pub(super) last: Instant,
    queue: VecDeque<Waiting>,
    bytes: usize,
    codel: Codel,
    /// Whether the packet at the head was judged already
    judged: bool,
    /// Whether a lane has something to send
    awake: bool,
    burst: Burst,
}

/// Something that waits
#[derive(Debug)]
struct Waiting {
    inner: Inner<Stowed>,
    since: Instant,
}

/// What a lane has sent since it was last silent for a while
#[derive(Debug, Default)]
struct Burst {
    bytes: usize,
    /// The last pieces of a long one
    tail: VecDeque<(Piece, usize, Instant)>,
}

impl Flow {
    /// Begins a flow
    pub(super) fn new(key: Key, now: Instant) -> Self {
        Self {
            key,
            turn: Turn::Idle,
            deficit: 0,
            level: Level::default(),
            meter: Meter::default(),
            last: now,
            queue: VecDeque::new(),
            bytes: 0,
            codel: Codel::default(),
            judged: false,
            awake: false,
            burst: Burst::default(),
        }
    }

    /// Queues a packet or message
    pub(super) fn push(&mut self, inner: Inner<Stowed>, now: Instant) {
        self.bytes += self.weight(&inner.bytes);
        self.last = now;
        self.queue.push_back(Waiting { inner, since: now });
    }

    /// Sets whether a lane has something to send
    pub(super) fn set_awake(&mut self, awake: bool, policy: &Policy, now: Instant) {
        if awake && now.since(self.last) > policy.late / 2 {
            self.burst = Burst::default();
        }
        self.awake = awake;
        self.last = now;
    }

    /// Records that a piece left; tells whether it is among the first of a burst
    pub(super) fn on_piece(&mut self, piece: Piece, bytes: usize, now: Instant) -> bool {
        self.last = now;
        self.burst.bytes = self.burst.bytes.saturating_add(bytes);
        let first = self.burst.bytes <= BURST_FIRST;
        if !first {
            if self.burst.tail.len() >= TAIL {
                self.burst.tail.pop_front();
            }
            self.burst.tail.push_back((piece, bytes, now));
        }
        first
    }

    /// Takes the last pieces of a long burst, with their bytes and when they left
    pub(super) fn take_tail(&mut self) -> impl Iterator<Item = (Piece, usize, Instant)> + '_ {
        self.burst.tail.drain(..)
    }

    /// Takes away packets at the head that waited too long, or marks them; what goes is appended to `gone`.
    /// Returns how many went, and their bytes
    pub(super) fn tidy(
        &mut self,
        policy: &Policy,
        gone: &mut Vec<Inner<Stowed>>,
        now: Instant,
    ) -> (usize, usize) {
        let before = (gone.len(), self.bytes);
        while let Some(head) = self.queue.front_mut().filter(|_| !self.judged) {
            let waited = now.since(head.since);
            let verdict = self.codel.judge(waited, self.bytes, &policy.patience, now);
            let marked = |bytes: &mut Stowed| match self.key {
                Key::Datagrams(_) => ecn::mark(bytes.to_mut()),
                // What is sealed cannot be marked.
                Key::Lane(_) | Key::Relay(_) => false,
            };
            let drop =
                waited > WAIT_MAX || verdict == Verdict::Drop && !marked(&mut head.inner.bytes);
            if !drop {
                self.judged = true;
                break;
            }
            gone.extend(self.pop());
        }
        (gone.len() - before.0, before.1 - self.bytes)
    }

    /// Takes the packet or message at the head
    pub(super) fn pop(&mut self) -> Option<Inner<Stowed>> {
        let head = self.queue.pop_front()?.inner;
        self.bytes -= self.weight(&head.bytes);
        self.judged = false;
        Some(head)
    }

    /// Returns the packet or message at the head
    pub(super) fn head(&self) -> Option<&Inner<Stowed>> {
        self.queue.front().map(|head| &head.inner)
    }

    /// Tells whether it has anything to send
    pub(super) fn is_ready(&self) -> bool {
        match self.key {
            Key::Lane(_) => self.awake,
            Key::Datagrams(_) | Key::Relay(_) => !self.queue.is_empty(),
        }
    }

    /// Returns the bytes that wait
    pub(super) fn backlog(&self) -> usize {
        self.bytes
    }

    /// Returns what a packet or message counts while it waits
    pub(super) fn weight(&self, bytes: &[u8]) -> usize {
        match self.key {
            // The name counts as well: messages of no length must not pile up.
            Key::Relay(_) => RELAY_OVERHEAD + bytes.len(),
            Key::Datagrams(_) | Key::Lane(_) => bytes.len(),
        }
    }
}

/// Bytes at the beginning of a lane's burst that are worth copies
const BURST_FIRST: usize = 256 * 1024;
/// Pieces at the end of a long one that are
const TAIL: usize = 32;
/// Age at which a packet is of no use to anybody
const WAIT_MAX: Duration = Duration::from_secs(1);
