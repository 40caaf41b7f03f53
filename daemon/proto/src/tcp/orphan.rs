//! Connections that both nodes forgot before they met again: were bytes acknowledged and lost?
//!
//! Whoever split such a connection may have acknowledged bytes that never reached the other kernel,
//! and nobody remembers. The connection goes on as plain packets, and where bytes are missing both
//! kernels would wait for ever: one has no copy left, the other wants nothing else. What the two say
//! shows it, to the node of the one that has no copy: PROTOCOL.md, section "Restart".
//!
//! # Contract
//!
//! - What passes is only looked at; a connection is judged only after all evidence has come several
//!   times, and while it does what every connection does (loss, reordering, old duplicates, a window
//!   of zero, silence) it never comes to that.
//! - At most [`ORPHANS_MAX`] connections are looked at, and only for [`WATCH`] after a beginning.

use std::collections::{BTreeMap, VecDeque};

use super::segment::{ACK, Ends, FIN, RST, SYN, Segment};
use crate::time::{Duration, Instant};

/// Connections that travel as plain packets, and that we have not seen begin
#[derive(Debug, Default)]
pub(super) struct Orphans {
    /// Until when they are looked at; begins with the first packet
    until: Option<Instant>,
    known: BTreeMap<Ends, Orphan>,
    /// Packets for the other kernel
    pub(super) plain: VecDeque<Vec<u8>>,
}

/// What two kernels said of the stream of ours
#[derive(Clone, Copy, Debug, Default)]
struct Orphan {
    /// What the other kernel wants next
    wanted: Option<u32>,
    /// How often our kernel spoke of later bytes only, since it last went back to those
    spoken: u32,
    /// How often the other kernel still wanted the same since then
    refused: u32,
    since: Option<Instant>,
    /// The first of the bytes that our kernel sends, and sends again
    repeated: Option<Repeated>,
}

#[derive(Clone, Copy, Debug)]
struct Repeated {
    seq: u32,
    times: u32,
    since: Instant,
}

impl Orphans {
    /// Looks anew: whoever knew of connections may have forgotten them
    pub(super) fn restart(&mut self) {
        self.until = None;
        self.known.clear();
    }

    /// Looks at a segment of our kernel; returns what to tell it if its connection is beyond hope
    pub(super) fn on_sent(&mut self, segment: &Segment<'_>, now: Instant) -> Option<Vec<u8>> {
        if !self.watches(now) {
            return None;
        }
        let ends = segment.ends;
        if segment.has(SYN | RST) {
            self.known.remove(&ends);
            return None;
        }
        if !segment.has(ACK) || !self.known.contains_key(&ends) && self.known.len() >= ORPHANS_MAX {
            return None;
        }
        let wanted = self.known.entry(ends).or_default().on_sent(segment, now)?;
        self.known.remove(&ends);
        // Each with what its kernel expects next, or it would not believe it (RFC 5961).
        let reset = Segment { flags: RST | ACK, window: 0, options: &[], data: &[], ..*segment };
        let theirs = Segment { seq: wanted, urgent: 0, ..reset };
        self.plain.push_back(theirs.encode());
        let (seq, ack) = (segment.ack, segment.seq);
        Some(Segment { ends: ends.turned(), seq, ack, urgent: 0, ..reset }.encode())
    }

    /// Tells whether segments of the other kernel are of interest
    pub(super) fn listens(&self) -> bool {
        !self.known.is_empty()
    }

    /// Looks at a segment of the other kernel
    pub(super) fn on_heard(&mut self, segment: &Segment<'_>) {
        let ends = segment.ends.turned();
        if segment.has(SYN | RST) {
            self.known.remove(&ends);
        } else if segment.has(ACK)
            && let Some(orphan) = self.known.get_mut(&ends)
        {
            orphan.on_heard(segment.ack);
        }
    }

    fn watches(&mut self, now: Instant) -> bool {
        let until = *self.until.get_or_insert(now + WATCH);
        if now >= until {
            self.known.clear();
        }
        now < until
    }
}

impl Orphan {
    /// Returns what the other kernel wants, if ours can certainly not give it
    fn on_sent(&mut self, segment: &Segment<'_>, now: Instant) -> Option<u32> {
        let wanted = self.wanted?;
        if !is_after(segment.seq, wanted) {
            // It still has those bytes, or has said nothing beyond them.
            *self = Self { wanted: Some(wanted), ..Self::default() };
            return None;
        }
        let since = *self.since.get_or_insert(now);
        self.spoken += 1;
        let repeats = !segment.data.is_empty() || segment.has(FIN);
        let repeated = repeats && self.on_repeated(segment.seq, now);
        let silent = self.spoken >= EVIDENCE && now.since(since) >= PATIENCE;
        (self.refused >= EVIDENCE && (repeated || silent)).then_some(wanted)
    }

    /// Tells whether the first bytes that our kernel has were sent again, so that none is before them
    fn on_repeated(&mut self, seq: u32, now: Instant) -> bool {
        match &mut self.repeated {
            Some(first) if seq == first.seq => {
                first.times += 1;
                first.times > EVIDENCE && now.since(first.since) >= REPEATS
            }
            Some(first) if is_after(seq, first.seq) => false,
            Some(_) | None => {
                self.repeated = Some(Repeated { seq, times: 1, since: now });
                false
            }
        }
    }

    fn on_heard(&mut self, ack: u32) {
        match self.wanted {
            Some(wanted) if wanted == ack => {
                self.refused += u32::from(self.spoken > 0);
            }
            // One that was overtaken.
            Some(wanted) if is_after(wanted, ack) => {}
            Some(_) | None => *self = Self { wanted: Some(ack), ..Self::default() },
        }
    }
}

/// Tells whether a sequence number is later than another one
fn is_after(seq: u32, other: u32) -> bool {
    seq.wrapping_sub(other).cast_signed() > 0
}

/// How long after a beginning connections are looked at: as long as connections are kept for a node
const WATCH: Duration = Duration::from_secs(15 * 60);
/// Connections that are looked at
const ORPHANS_MAX: usize = 4096;
/// How often each thing must have been seen
const EVIDENCE: u32 = 3;
/// Time over which a kernel has sent the same bytes again, and none before them
const REPEATS: Duration = Duration::from_secs(10);
/// Time after which a kernel that has unacknowledged bytes has sent them again: the longest
/// retransmission timeout of any, and half as much
const PATIENCE: Duration = Duration::from_secs(180);

#[cfg(test)]
mod tests {
    use crate::ip::Packet;

    use super::*;

    /// A kernel whose node looks, and the other one, after `node` has forgotten their connection
    struct Watched {
        orphans: Orphans,
        now: Instant,
    }

    impl Watched {
        fn new() -> Self {
            Self { orphans: Orphans::default(), now: Instant::ZERO + Duration::from_secs(1) }
        }

        fn ends() -> Ends {
            let [local, remote] = ["10.0.0.1:1000", "10.0.0.2:80"].map(|end| end.parse().unwrap());
            Ends { local, remote }
        }

        fn segment(ends: Ends, seq: u32, ack: u32, data: &[u8]) -> Segment<'_> {
            let (flags, class) = (ACK, 0);
            Segment { ends, seq, ack, flags, window: 99, urgent: 0, options: &[], data, class }
        }

        /// Our kernel says something; returns what its node tells it then
        fn says(&mut self, seq: u32, data: &[u8]) -> Option<Vec<u8>> {
            let segment = Self::segment(Self::ends(), seq, 7_000, data);
            self.orphans.on_sent(&segment, self.now)
        }

        fn hears(&mut self, ack: u32) {
            self.orphans.on_heard(&Self::segment(Self::ends().turned(), 7_000, ack, &[]));
        }

        /// Our kernel says something again and again, and the other one wants something else
        fn insists(
            &mut self,
            times: u32,
            pause: Duration,
            seq: u32,
            data: &[u8],
        ) -> Option<Vec<u8>> {
            for _ in 0..times {
                let told = self.says(seq, data);
                if told.is_some() {
                    return told;
                }
                self.hears(1_000);
                self.now += pause;
            }
            None
        }
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn kernels_are_reset_when_one_repeats_bytes_and_the_other_wants_earlier_ones() {
        let mut watched = Watched::new();

        assert_eq!(watched.insists(9, SECOND, 6_000, b"tail"), None);
        let told = watched.insists(5, SECOND, 6_000, b"tail").unwrap();

        let near = Packet::parse(&told).unwrap();
        let near = Segment::parse(&near, None).unwrap();
        assert_eq!((near.ends, near.seq), (Watched::ends().turned(), 7_000));
        let far = watched.orphans.plain.pop_front().unwrap();
        let far = Packet::parse(&far).unwrap();
        let far = Segment::parse(&far, None).unwrap();
        assert_eq!((far.ends, far.seq), (Watched::ends(), 1_000));
        assert!(near.has(RST) && far.has(RST) && far.data.is_empty());
    }

    #[test]
    fn kernels_are_reset_when_one_never_goes_back_to_what_the_other_wants() {
        let mut watched = Watched::new();
        assert_eq!(watched.insists(8, SECOND * 20, 6_000, &[]), None);

        assert!(watched.insists(5, SECOND * 20, 6_000, &[]).is_some());
    }

    #[test]
    fn kernel_that_still_has_the_bytes_is_left_alone() {
        let mut watched = Watched::new();
        watched.hears(1_000);
        for _ in 0..200 {
            // All is lost, time and again, but for what comes later.
            assert_eq!(watched.insists(30, SECOND, 1_000, b"first"), None);
            assert_eq!(watched.insists(3, SECOND * 2, 1_005, b"later"), None);
        }
    }

    #[test]
    fn kernel_that_waits_for_a_window_or_asks_for_a_sign_of_life_is_left_alone() {
        for seq in [999, 1_000] {
            let mut watched = Watched::new();
            assert_eq!(watched.insists(800, SECOND, seq, &[]), None);
            assert_eq!(watched.insists(90, SECOND, seq, &[0]), None);
        }
    }

    #[test]
    fn old_duplicates_prove_nothing() {
        let mut watched = Watched::new();
        for round in 0..700 {
            let seq = 6_000 + round;
            watched.hears(seq);
            assert_eq!(watched.insists(5, Duration::ZERO, seq, b"x"), None);
            watched.now += SECOND;
        }
    }

    #[test]
    fn connection_without_answers_is_left_alone() {
        let mut watched = Watched::new();
        watched.hears(1_000);
        for _ in 0..800 {
            assert_eq!(watched.says(6_000, b"tail"), None);
            watched.now += SECOND;
        }
    }

    #[test]
    fn nothing_is_looked_at_after_a_quarter_of_an_hour_nor_beyond_the_bound() {
        let mut watched = Watched::new();
        for port in 0..2 * ORPHANS_MAX {
            let mut ends = Watched::ends();
            ends.local.set_port(port as u16);
            watched.orphans.on_sent(&Watched::segment(ends, 1, 1, &[]), watched.now);
        }
        assert_eq!(watched.orphans.known.len(), ORPHANS_MAX);

        watched.now += WATCH;

        assert_eq!(watched.insists(90, SECOND * 10, 6_000, b"tail"), None);
        assert!(!watched.orphans.listens());
    }
}
