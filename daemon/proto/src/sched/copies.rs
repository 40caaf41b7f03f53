//! What left and may leave once more, in case it is lost.
//!
//! Two stores, for two reasons to send a thing again. The *ladder* holds what thin flows sent: each
//! of its copies is due at a certain time, a little later than the one before, and leaves beside
//! other load. The *spares* hold what other flows sent lately: they leave when nothing else does,
//! what left least often first, because the first copy of a thing is worth more than the second of
//! another; and of these the youngest, because the older ones are nearer to being acknowledged or
//! called lost, which settles them anyway.
//!
//! # Contract
//!
//! - Both are bounded, in number and in bytes; what does not fit is simply not copied.
//! - What was acknowledged is dropped when told ([`Copies::on_acked`]), or when its lane refuses to
//!   write it again.
//! - A packet that is not copied any more is given back ([`Copies::poll_gone`]), for whatever reason.
//! - What is due but not allowed is dropped, never kept: so after a drain nothing is overdue.

use std::collections::{BTreeMap, VecDeque};

use super::meter::Window;
use super::policy::Policy;
use crate::buffers::Stowed;
use crate::tcp::Piece;
use crate::time::{Duration, Instant};

/// All that may leave once more
#[derive(Debug, Default)]
pub(super) struct Copies {
    ladder: BTreeMap<Step, Copy>,
    ladder_bytes: usize,
    spares: VecDeque<Spare>,
    spare_bytes: usize,
    /// When a spare is due that is not yet; may be too early, never too late
    spare_due: Option<Instant>,
    thin_taken: Window,
    repeat_taken: Window,
    spare_taken: Window,
    steps: u64,
    /// Packets that nobody copies any more
    gone: Vec<Stowed>,
}

/// When a copy is due, and which it is
type Step = (Instant, u64);

/// Something that may leave once more
#[derive(Debug)]
pub(super) struct Copy {
    /// What it is
    pub(super) what: What,
    /// Bytes of its frame
    pub(super) bytes: usize,
    /// Times that it has left
    sent: u8,
    /// Time between its last two transmissions
    gap: Duration,
    /// When it first left
    first: Instant,
    /// Whether a piece that was lost, and not the flow that it is of, is why it is copied
    repeat: bool,
}

/// What left
#[derive(Debug)]
pub(super) enum What {
    /// An inner packet
    Packet {
        /// The number that its copies share
        id: u32,
        /// The packet
        packet: Stowed,
    },
    /// A piece of a lane
    Piece(Piece),
}

/// Names a copy that is to leave
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Place {
    /// On the ladder
    Ladder(Step),
    /// Among the spares
    Spare(usize),
}

#[derive(Debug)]
struct Spare {
    copy: Copy,
    due: Instant,
    /// Whether it counts only while its lane has no more to send
    tail: bool,
}

impl Copy {
    /// Takes note of what leaves for the first time
    pub(super) fn new(what: What, bytes: usize, now: Instant) -> Self {
        Self { what, bytes, sent: 1, gap: Duration::ZERO, first: now, repeat: false }
    }

    /// Tells whether it is likely enough that all that left were lost, as fewer than `most` did, and the copy not too
    /// late
    fn is_useful(&self, most: u8, policy: &Policy, now: Instant) -> bool {
        self.sent < most && now.since(self.first) <= policy.late
    }

    /// Returns how often it is sent where it is a spare
    fn most_spare(&self, policy: &Policy) -> u8 {
        match self.what {
            What::Packet { .. } => policy.transmissions,
            What::Piece(_) => policy.pieces,
        }
    }

    /// Returns the bytes that it takes on the wire, at most
    fn cost(&self) -> usize {
        self.bytes + MESSAGE_OVERHEAD
    }

    fn held(&self) -> usize {
        match &self.what {
            What::Packet { packet, .. } => packet.len(),
            What::Piece(_) => 0,
        }
    }

    fn into_packet(self) -> Option<Stowed> {
        match self.what {
            What::Packet { packet, .. } => Some(packet),
            What::Piece(_) => None,
        }
    }
}

impl Copies {
    /// Takes what a thin flow sent
    pub(super) fn push_thin(&mut self, mut copy: Copy, policy: &Policy, now: Instant) {
        if self.ladder.len() >= LADDER_MAX || self.ladder_bytes + copy.held() > HELD_MAX {
            return self.discard(copy);
        }
        copy.gap += policy.gap;
        self.steps += 1;
        self.ladder_bytes += copy.held();
        self.ladder.insert((now + copy.gap, self.steps), copy);
    }

    /// Takes a piece that was lost and leaves again, `most` times in all; its copies follow as if it
    /// was thin
    pub(super) fn push_repeat(&mut self, mut copy: Copy, most: u8, policy: &Policy, now: Instant) {
        copy.sent += policy.transmissions - most.min(policy.transmissions);
        copy.repeat = true;
        if copy.sent < policy.transmissions {
            self.push_thin(copy, policy, now);
        }
    }

    /// Takes a piece of which one transmission was lost and another is still under way: it leaves
    /// now, as one that was lost does
    pub(super) fn renew(&mut self, piece: Piece, bytes: usize, policy: &Policy, now: Instant) {
        let is_it = |copy: &Copy| matches!(copy.what, What::Piece(known) if known == piece);
        if self.ladder.len() < LADDER_MAX && !self.ladder.values().any(is_it) {
            let sent = policy.transmissions - policy.repeats;
            self.steps += 1;
            let copy = Copy { sent, repeat: true, ..Copy::new(What::Piece(piece), bytes, now) };
            self.ladder.insert((now, self.steps), copy);
        }
    }

    /// Takes what another flow sent; as the tail of a burst it has to prove that it is
    pub(super) fn push_spare(&mut self, copy: Copy, policy: &Policy, now: Instant) {
        self.add_spare(Spare { copy, due: now + policy.gap, tail: false });
    }

    /// Takes a piece that was the last, or nearly, when its lane had no more to send
    pub(super) fn push_tail(&mut self, copy: Copy, policy: &Policy, now: Instant) {
        let due = now + policy.tail;
        self.add_spare(Spare { copy, due, tail: true });
    }

    /// Returns the copy of a thin flow, or of a piece that was lost, that is due, if one is allowed
    ///
    /// What exceeds their share, each its own, may still use idle capacity.
    pub(super) fn next_thin(&mut self, policy: &Policy, now: Instant) -> Option<Place> {
        while let Some((step, copy)) = self.ladder.first_key_value() {
            if step.0 > now {
                return None;
            }
            let place = Place::Ladder(*step);
            let useful = copy.is_useful(policy.transmissions, policy, now);
            let taken = if copy.repeat { &mut self.repeat_taken } else { &mut self.thin_taken };
            if useful && taken.fits(copy.cost(), policy.thin_copies, now) {
                return Some(place);
            }
            match self.remove(place) {
                Some(copy) if useful => self.add_spare(Spare { copy, due: now, tail: false }),
                Some(copy) => self.discard(copy),
                None => {}
            }
        }
        None
    }

    /// Returns the copy that idle capacity is best used for: of what left least often the youngest;
    /// `awake` tells of lanes that have more to send
    pub(super) fn next_spare(
        &mut self,
        policy: &Policy,
        awake: impl Fn(u32) -> bool,
        now: Instant,
    ) -> Option<Place> {
        if self.spare_due.is_none_or(|due| due > now) {
            return None;
        }
        let mut due: Option<Instant> = None;
        let mut best: Option<(usize, u8)> = None;
        let mut at = self.spares.len();
        while at > 0 {
            at -= 1;
            let spare = &self.spares[at];
            if spare.due > now {
                due = Some(due.map_or(spare.due, |due| due.min(spare.due)));
                continue;
            }
            let goes_on = spare.tail
                && match &spare.copy.what {
                    What::Piece(piece) => awake(piece.conv),
                    What::Packet { .. } => false,
                };
            let sent = spare.copy.sent;
            if goes_on
                || !spare.copy.is_useful(spare.copy.most_spare(policy), policy, now)
                || !self.spare_taken.fits(spare.copy.cost(), policy.spare_copies_for(sent), now)
            {
                self.forget(Place::Spare(at));
                // Those behind it have moved up.
                best = best.map(|(best, sent)| (best - 1, sent));
                continue;
            }
            if best.is_none_or(|(_, least)| sent < least) {
                best = Some((at, sent));
            }
            if sent == 1 {
                break;
            }
        }
        if best.is_none() {
            self.spare_due = due;
        }
        best.map(|(at, _)| Place::Spare(at))
    }

    /// Returns a copy that was named
    pub(super) fn get(&self, place: Place) -> Option<&Copy> {
        match place {
            Place::Ladder(step) => self.ladder.get(&step),
            Place::Spare(at) => self.spares.get(at).map(|spare| &spare.copy),
        }
    }

    /// Records that a copy that was named has left; the next one follows later
    pub(super) fn on_sent(&mut self, place: Place, policy: &Policy, now: Instant) {
        let cost = self.get(place).map_or(0, Copy::cost);
        match place {
            Place::Ladder(_) => {
                let Some(mut copy) = self.remove(place) else { return };
                let taken = if copy.repeat { &mut self.repeat_taken } else { &mut self.thin_taken };
                taken.count(cost, now);
                copy.sent += 1;
                if copy.sent < policy.transmissions {
                    self.push_thin(copy, policy, now);
                } else {
                    self.discard(copy);
                }
            }
            Place::Spare(at) => {
                self.spare_taken.count(cost, now);
                let Some(spare) = self.spares.get_mut(at) else { return };
                spare.copy.sent += 1;
                spare.copy.gap += policy.gap;
                spare.due = now + spare.copy.gap;
                if spare.copy.sent >= spare.copy.most_spare(policy) {
                    self.forget(place);
                }
            }
        }
    }

    /// Forgets a copy that was named
    pub(super) fn forget(&mut self, place: Place) {
        if let Some(copy) = self.remove(place) {
            self.discard(copy);
        }
    }

    /// Takes what is not to leave again
    pub(super) fn discard(&mut self, copy: Copy) {
        self.gone.extend(copy.into_packet());
    }

    /// Returns a packet that nobody copies any more, for its buffer
    pub(super) fn poll_gone(&mut self) -> Option<Stowed> {
        self.gone.pop()
    }

    fn remove(&mut self, place: Place) -> Option<Copy> {
        match place {
            Place::Ladder(step) => {
                let copy = self.ladder.remove(&step)?;
                self.ladder_bytes -= copy.held();
                Some(copy)
            }
            Place::Spare(at) => {
                let copy = self.spares.remove(at)?.copy;
                self.spare_bytes -= copy.held();
                if self.spares.is_empty() {
                    self.spare_due = None;
                }
                Some(copy)
            }
        }
    }

    /// Records that a packet with this number has arrived
    pub(super) fn on_acked(&mut self, acked: u32) {
        let is_it = |copy: &Copy| matches!(copy.what, What::Packet { id, .. } if id == acked);
        let step = self.ladder.iter().find(|(_, copy)| is_it(copy)).map(|(step, _)| *step);
        if let Some(step) = step {
            self.forget(Place::Ladder(step));
        } else if let Some(at) = self.spares.iter().position(|spare| is_it(&spare.copy)) {
            self.forget(Place::Spare(at));
        }
    }

    /// Tells whether a copy is due, though perhaps not allowed
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.deadline().is_some_and(|due| due <= now)
    }

    /// Returns when the next copy is due
    pub(super) fn deadline(&self) -> Option<Instant> {
        let thin = self.ladder.first_key_value().map(|((due, _), _)| *due);
        [thin, self.spare_due].into_iter().flatten().min()
    }

    /// Returns the bytes of packets that are held, and something for each entry
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.ladder_bytes + self.spare_bytes + 100 * (self.ladder.len() + self.spares.len())
    }

    fn add_spare(&mut self, spare: Spare) {
        while self.spares.len() >= SPARES_MAX || self.spare_bytes + spare.copy.held() > HELD_MAX {
            match self.remove(Place::Spare(0)) {
                Some(oldest) => self.discard(oldest),
                None => return self.discard(spare.copy),
            }
        }
        self.spare_bytes += spare.copy.held();
        self.spare_due = Some(self.spare_due.map_or(spare.due, |due| due.min(spare.due)));
        self.spares.push_back(spare);
    }
}

/// Copies on the ladder at one time
const LADDER_MAX: usize = 1024;
/// Spares at one time: rather more than the first 256 KB of a lane
const SPARES_MAX: usize = 512;
/// Bytes of packets that either store holds
const HELD_MAX: usize = 512 * 1024;
/// What a copy that leaves alone costs beside its frame: header and tag, and those of UDP and IP
const MESSAGE_OVERHEAD: usize = 60;
