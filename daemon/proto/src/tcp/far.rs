//! The stream from the other node to our kernel.
//!
//! The far end puts the bytes of the lane in order, writes them to the kernel in segments as the
//! remote end would, and keeps them until the kernel has acknowledged them. Towards the kernel it is
//! a TCP sender with all its duties: window, congestion (the kernel may be that of a machine behind
//! us), fast retransmit (RFC 6582), retransmission timer (RFC 6298), persistence and giving up.
//!
//! # Contract
//!
//! What the other node may send is promised out of the node's [`Pool`]; more is promised only as the kernel
//! takes what came. Credit is never taken back. The memory behind it is, where the lane is silent for long
//! ([`Far::rest`]), and taken again when it is not; what there is no memory for by then counts as lost.

use super::Fault;
use super::assembly::Assembly;
use super::chunks::CHUNK;
use super::pool::Pool;
use super::rest;
use super::seq::{offset_of, seq_of};
use crate::ip::SHARES_MAX;
use crate::limits::LANE_GIVE_UP;
use crate::time::{Duration, Instant};

/// The stream from the other node to our kernel
#[derive(Debug)]
pub(super) struct Far {
    /// Initial sequence number of the remote kernel
    pub(super) isn: u32,
    /// From what the kernel acknowledged to what has come
    pub(super) kept: Assembly,
    /// Offset before which the kernel acknowledged all, FIN included
    pub(super) una: u64,
    /// Offset before which the other node keeps nothing: it has restarted since it sent that
    pub(super) sole: u64,
    /// Offset of the next byte to write
    pub(super) next: u64,
    /// Offset before which all was written at least once
    written: u64,
    /// Offset of the FIN, where the other node told it
    pub(super) fin: Option<u64>,
    /// Offset after the last urgent byte
    pub(super) urgent: Option<u64>,
    /// Offset before which the kernel accepts
    open: u64,
    /// Shift of the kernel's windows
    pub(super) scale: u8,
    /// Largest segment that the kernel takes
    pub(super) mss: usize,
    /// Offset before which we accept from the other node
    pub(super) credit: u64,
    /// Offset before which there is memory, from the base on: the credit, unless the lane rests
    pub(super) reserved: u64,
    pub(super) limit: u64,
    /// Acknowledgement and credit as told last
    told: (u64, u64),
    /// The other node would send more with more credit
    wanted: bool,
    /// What the kernel had taken, and what lay beyond a gap, when more was promised last
    grown_at: u64,
    flow: Congestion,
    timer: Timer,
}

/// Congestion on the way to the kernel (RFC 5681, RFC 6582)
#[derive(Debug)]
struct Congestion {
    window: u64,
    threshold: u64,
    duplicates: u32,
    /// Offset that ends a recovery
    recover: Option<u64>,
}

/// Round trip to the kernel, and when to write again (RFC 6298)
#[derive(Debug)]
struct Timer {
    smoothed: Option<Duration>,
    variance: Duration,
    backoff: u32,
    at: Option<Instant>,
    /// An offset that is being timed, and since when
    timed: Option<(u64, Instant)>,
    /// When the kernel last made progress, while something waits for it
    since: Option<Instant>,
}

/// What the kernel is to be sent
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Outgoing {
    /// Offset of the first byte
    pub(super) offset: u64,
    pub(super) len: usize,
    pub(super) fin: bool,
    /// Whether it is the last for now
    pub(super) push: bool,
}

/// What a timer asks for
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Due {
    Nothing,
    /// Segments may be written again
    Write,
    /// The kernel is to be asked for its window
    Ask,
    /// The kernel is given up
    GiveUp,
}

impl Far {
    /// Begins a stream; `limit` bytes, which were taken for it, are promised to the other node
    pub(super) fn new(isn: u32, limit: usize) -> Self {
        let limit = limit as u64;
        Self {
            isn,
            kept: Assembly::new(1),
            una: 1,
            sole: 1,
            next: 1,
            written: 1,
            fin: None,
            urgent: None,
            open: 1,
            scale: 0,
            mss: MSS_LEAST,
            credit: 1 + limit,
            reserved: 1 + limit,
            limit,
            told: (1, 1 + limit),
            wanted: false,
            grown_at: 1,
            flow: Congestion { window: 0, threshold: u64::MAX, duplicates: 0, recover: None },
            timer: Timer {
                smoothed: None,
                variance: Duration::ZERO,
                backoff: 0,
                at: None,
                timed: None,
                since: None,
            },
        }
    }

    /// Learns what the kernel takes: its segments, and the window of its SYN or SYN-ACK
    pub(super) fn on_opened(&mut self, mss: usize, scale: u8, window: u16) {
        self.mss = mss.clamp(MSS_LEAST, SUPER_MAX as usize);
        self.scale = scale;
        self.open = 1 + u64::from(window);
        self.flow.window = INITIAL_SEGMENTS * self.mss as u64;
    }

    /// Begins anew behind what the kernel has acknowledged, which accepts `window` bytes
    pub(super) fn restart(&mut self, window: u64) {
        self.next = self.una;
        self.written = self.una;
        self.open = self.una + window;
    }

    /// Takes bytes of the lane
    ///
    /// # Errors
    /// If they go beyond what was promised, or contradict the end of the stream; or if there is no memory for
    /// them any more, as the lane was silent.
    pub(super) fn on_data(
        &mut self,
        (seq, data): (u32, &[u8]),
        (fin, starved): (bool, bool),
        pool: &mut Pool,
    ) -> Result<(), Fault> {
        let Some(offset) = offset_of(self.isn, seq, self.kept.edge()) else {
            return Err(Fault::Malformed);
        };
        let end = offset + data.len() as u64;
        let beyond = self.fin.is_some_and(|fin| end > fin);
        let short = fin && (self.kept.edge() > end || self.kept.runs().any(|(_, run)| run > end));
        if end > self.credit || beyond || short || self.fin.is_some_and(|at| fin && at != end) {
            return Err(Fault::Malformed);
        }
        if end > self.reserved {
            self.wake(end, pool);
        }
        // Of what is too much a part is taken, or a large piece might never be.
        let room = usize::try_from(self.reserved.saturating_sub(offset)).unwrap_or(usize::MAX);
        self.kept.insert(offset, &data[..data.len().min(room)]);
        if self.kept.gaps() > GAPS_LEAST + (self.limit / GAP_EACH) as usize {
            return Err(Fault::Malformed);
        }
        if end > self.reserved {
            return Err(Fault::NoRoom);
        }
        if fin {
            self.fin = Some(end);
        }
        self.wanted |= starved;
        Ok(())
    }

    /// Takes an urgent pointer of the other node
    pub(super) fn on_urgent(&mut self, seq: u32) {
        let urgent = offset_of(self.isn, seq, self.kept.edge());
        self.urgent = self.urgent.max(urgent.filter(|urgent| *urgent <= self.credit));
    }

    /// Takes an acknowledgement of the kernel; `pure` where the segment says nothing else
    ///
    /// Tells whether it acknowledges something that was written, or has already been.
    pub(super) fn on_ack(
        &mut self,
        ack: u32,
        window: u16,
        pure: bool,
        pool: &mut Pool,
        now: Instant,
    ) -> bool {
        // What was not written by us was written before our time, or travelled as it is.
        let known = self.written.max(self.kept.edge());
        let Some(ack) = offset_of(self.isn, ack, self.una).filter(|ack| *ack <= known) else {
            return false;
        };
        self.written = self.written.max(ack);
        if ack < self.una {
            return true;
        }
        let open = ack + (u64::from(window) << self.scale);
        let same = open == self.open;
        // The window of a later acknowledgement counts, even where it is smaller.
        self.open = open;
        if ack > self.una {
            self.on_progress(ack, pool, now);
        } else if pure && same && self.una < self.next {
            self.on_duplicate();
        }
        if self.una == self.next {
            // Whoever shows a window, zero or not, is there.
            self.timer.since = None;
        }
        true
    }

    fn on_progress(&mut self, ack: u64, pool: &mut Pool, now: Instant) {
        let newly = ack - self.una;
        self.una = ack;
        let base = self.kept.base();
        self.kept.advance(ack, &mut pool.shelf);
        self.free(self.kept.base() - base, pool);
        self.next = self.next.max(ack);
        self.timer.on_progress(ack, now);
        self.flow.on_progress(ack, newly, self.mss as u64, self.next);
        if self.flow.recover.is_some() {
            // The first that is missing after a partial acknowledgement is missing as well.
            self.next = self.next.min(ack);
        }
        self.timer.at = None;
        self.promise(pool);
    }

    fn on_duplicate(&mut self) {
        self.flow.duplicates += 1;
        if self.flow.duplicates == DUPLICATES && self.flow.recover.is_none() {
            let flight = self.next - self.una;
            self.flow.threshold = (flight / 2).max(2 * self.mss as u64);
            self.flow.window = self.flow.threshold;
            self.flow.recover = Some(self.written);
            self.timer.timed = None;
            self.next = self.una;
        }
    }

    /// Gives back the memory of bytes that are done with, but for what is promised in their place
    ///
    /// Others, who lack some, would take it first: then nothing might ever tell the other node of new credit.
    pub(super) fn free(&mut self, bytes: u64, pool: &mut Pool) {
        let most = self.credit.max(self.kept.base() + self.limit);
        let stays = most.saturating_sub(self.reserved).min(bytes);
        self.reserved += stays;
        self.credit = self.credit.max(self.reserved);
        pool.give(bytes - stays);
    }

    /// Promises the other node what is free again, and more where it waits for that and the kernel
    /// takes what comes
    pub(super) fn promise(&mut self, pool: &mut Pool) {
        if self.reserved < self.credit {
            return;
        }
        let base = self.kept.base();
        let behind = self.kept.edge() - base;
        // What lies beyond a gap waits for the lane and not for the kernel: it must not keep the
        // promise small.
        let reached = self.kept.end() - behind;
        let taken = reached.saturating_sub(self.grown_at);
        if self.wanted && taken >= self.limit / 4 && behind < self.limit / 2 {
            let wanted = usize::try_from(self.limit).unwrap_or(usize::MAX);
            self.limit += pool.growth(wanted, wanted.saturating_mul(3)) as u64;
            self.grown_at = reached;
            self.wanted = false;
        }
        self.credit += pool.take_free((base + self.limit).saturating_sub(self.credit));
        self.reserved = self.credit;
    }

    /// Reserves again what the other node may send, as it does: all before `end` if there is memory
    fn wake(&mut self, end: u64, pool: &mut Pool) {
        self.reserved += pool.take_free(end - self.reserved);
        self.reserved += pool.take_spare(self.credit - self.reserved);
    }

    /// Tells whether more is promised than a lane keeps that is silent
    pub(super) fn has_spare(&self) -> bool {
        rest::has_spare(&self.kept, self.reserved)
    }

    /// Gives back what is promised to a lane that is silent, but for what a keystroke needs
    pub(super) fn rest(&mut self, pool: &mut Pool) {
        rest::give_spare(&mut self.kept, &mut self.reserved, pool);
    }

    /// Gives all promises back
    pub(super) fn release(&mut self, pool: &mut Pool) {
        pool.give(self.reserved.saturating_sub(self.kept.base()));
        self.kept.clear(&mut pool.shelf);
        self.credit = self.kept.base();
        self.reserved = self.credit;
        self.limit = 0;
        self.timer.at = None;
    }

    /// Returns the next segment to write, if the kernel and the way to it allow one
    pub(super) fn next_segment(&mut self, now: Instant) -> Option<Outgoing> {
        let allowed = self.open.min(self.una + self.flow.window);
        let ready = self.kept.edge().saturating_sub(self.next);
        let room = allowed.saturating_sub(self.next);
        let len = self.length(ready, ready.min(room));
        let fin = self.fin == Some(self.next + len);
        // Small segments only at the end of what there is (or the kernel would never open up).
        let cut = len < ready && len < self.mss as u64 && self.next > self.una;
        if cut || len == 0 && !(fin && self.next <= self.open) {
            self.arm(now);
            return None;
        }
        let push = len == ready;
        let next = Outgoing { offset: self.next, len: len as usize, fin, push };
        self.next += len + u64::from(fin);
        if self.next > self.written {
            self.written = self.next;
            self.timer.timed = self.timer.timed.or(Some((self.next, now)));
        }
        self.timer.since = self.timer.since.or(Some(now));
        if self.flow.recover.is_some_and(|recover| self.next < recover) {
            // One at a time, as acknowledgements come: what else is missing they will tell.
            self.next = self.written;
        }
        self.arm(now);
        Some(next)
    }

    /// Returns how much of `open` bytes, which are all that may leave of `ready`, goes into one packet
    ///
    /// A super-packet consists of whole segments, but for the end of what there is. While losses are
    /// repaired, and where an urgent pointer would have to be cut as well, segments are written singly.
    fn length(&self, ready: u64, open: u64) -> u64 {
        let mss = self.mss as u64;
        let single = self.flow.recover.is_some() || self.urgent.is_some_and(|at| at > self.next);
        if single || open <= mss {
            return open.min(mss);
        }
        let most = SUPER_MAX / mss * mss;
        if open == ready && open <= most { open } else { open.min(most) / mss * mss }
    }

    /// Does what time demands
    pub(super) fn handle_timeout(&mut self, now: Instant) -> Due {
        if self.timer.at.is_none_or(|at| now < at) {
            return Due::Nothing;
        }
        self.timer.at = None;
        self.timer.backoff += 1;
        if self.timer.since.is_some_and(|since| now.since(since) >= LANE_GIVE_UP) {
            return Due::GiveUp;
        }
        self.timer.since = self.timer.since.or(Some(now));
        if self.una < self.next {
            let flight = self.next - self.una;
            self.flow.threshold = (flight / 2).max(2 * self.mss as u64);
            self.flow.window = self.mss as u64;
            self.flow.duplicates = 0;
            self.flow.recover = None;
            self.timer.timed = None;
            self.next = self.una;
            return Due::Write;
        }
        self.arm(now);
        Due::Ask
    }

    /// Returns when [`Far::handle_timeout`] is due
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.timer.at
    }

    /// Returns what is to be told to the other node: acknowledgement and credit
    pub(super) fn state(&self) -> (u32, u32) {
        (seq_of(self.isn, self.una), seq_of(self.isn, self.credit))
    }

    /// Records that the state is told as it is
    pub(super) fn on_told(&mut self) {
        self.told = (self.una, self.credit);
    }

    /// Learns of a link to the kernel that takes smaller segments only
    pub(super) fn on_narrow(&mut self, mss: usize) {
        if mss < self.mss {
            self.mss = mss.max(MSS_LEAST);
            self.next = self.una;
        }
    }

    /// Tells how much the other node must be told the state
    pub(super) fn news(&self) -> News {
        let (ack, credit) = self.told;
        let fin = self.fin.is_some_and(|fin| self.una > fin && ack <= fin);
        // Where little is promised each part of it counts.
        let much = self.credit - credit >= (self.limit / 4).clamp(1, NEWS_MAX);
        match (fin || much, (ack, credit) == (self.una, self.credit)) {
            (true, _) => News::Urgent,
            (false, false) => News::Some,
            (false, true) => News::None,
        }
    }

    /// Returns the sequence number of the next byte to write
    pub(super) fn seq(&self) -> u32 {
        seq_of(self.isn, self.written)
    }

    /// Returns the sequence number before which the kernel acknowledged all
    pub(super) fn una_seq(&self) -> u32 {
        seq_of(self.isn, self.una)
    }

    /// Tells whether the kernel has acknowledged all, the FIN included
    pub(super) fn is_done(&self) -> bool {
        self.fin.is_some_and(|fin| self.una > fin)
    }

    /// Tells whether the kernel has acknowledged all that came, or takes no more for now and the other
    /// node has the rest
    pub(super) fn is_delivered(&self) -> bool {
        self.una >= self.kept.edge() || self.una >= self.open && self.una >= self.sole
    }

    /// Tells whether anything written waits for an acknowledgement
    pub(super) fn in_flight(&self) -> bool {
        self.una < self.written
    }

    fn waits(&self) -> bool {
        self.una < self.kept.edge()
            || self.fin.is_some_and(|fin| self.una <= fin && fin == self.kept.edge())
    }

    /// Sets the timer where anything waits for the kernel, and it is not set
    fn arm(&mut self, now: Instant) {
        if !self.waits() {
            self.timer.at = None;
        } else if self.timer.at.is_none() {
            self.timer.at = Some(now + self.timer.patience());
        }
    }
}

/// How much there is to tell
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum News {
    None,
    Some,
    Urgent,
}

impl Congestion {
    fn on_progress(&mut self, ack: u64, newly: u64, mss: u64, next: u64) {
        self.duplicates = 0;
        match self.recover {
            Some(recover) if ack < recover => {}
            Some(_) => {
                self.recover = None;
                self.window = self.threshold.max(2 * mss);
            }
            None if self.window < self.threshold => self.window += newly,
            None => self.window += (mss * newly / self.window.max(1)).max(1),
        }
        // No more than twice what was ever of use.
        self.window = self.window.min(2 * (next - ack + newly) + INITIAL_SEGMENTS * mss);
    }
}

impl Timer {
    fn on_progress(&mut self, ack: u64, now: Instant) {
        self.backoff = 0;
        self.since = None;
        let Some((_, sent)) = self.timed.filter(|(offset, _)| ack >= *offset) else { return };
        self.timed = None;
        let sample = now.since(sent);
        match self.smoothed {
            None => {
                self.variance = sample / 2;
                self.smoothed = Some(sample);
            }
            Some(smoothed) => {
                self.variance = self.variance * 3 / 4 + smoothed.abs_diff(sample) / 4;
                self.smoothed = Some(smoothed * 7 / 8 + sample / 8);
            }
        }
    }

    fn patience(&self) -> Duration {
        let base = self.smoothed.map_or(RTO_FIRST, |smoothed| smoothed + self.variance * 4);
        (base.max(RTO_MIN) * 2_u32.pow(self.backoff.min(10))).min(RTO_MAX)
    }
}

/// Bytes of new credit that are told at once, however much was promised: what the other node keeps for
/// us until then it goes through, and its caches with it
const NEWS_MAX: u64 = 2 * 1024 * 1024;
/// Bytes of the stream in one super-packet, with all headers less than a packet may have
const SUPER_MAX: u64 = 64_000;
// Wherever it begins in a piece of the window, its body has a share for each piece that it lies in.
const _: () = assert!(SUPER_MAX as usize <= (SHARES_MAX - 1) * CHUNK + 1);
/// Segment that everybody takes, without options
const MSS_LEAST: usize = 88;
/// Segments written before the first acknowledgement (RFC 6928)
const INITIAL_SEGMENTS: u64 = 10;
/// Acknowledgements without progress that prove a loss
const DUPLICATES: u32 = 3;
/// Gaps that the lane may have however little was promised
const GAPS_LEAST: usize = 256;
/// Bytes of promise that allow one more gap
const GAP_EACH: u64 = 256;
/// Patience before the first round trip
const RTO_FIRST: Duration = Duration::from_secs(1);
/// Shortest patience
const RTO_MIN: Duration = Duration::from_millis(200);
/// Longest patience
const RTO_MAX: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::LANE_REST;

    const NOW: Instant = Instant::ZERO;

    /// Begins a stream, of which a little has come and was taken, and which is silent since
    fn silent(pool: &mut Pool) -> Far {
        pool.take(512 * 1024);
        let mut far = Far::new(0, 512 * 1024);
        far.on_opened(1000, 7, 60_000);
        far.on_data((1, &[7; 100]), (false, false), pool).unwrap();
        take_all(&mut far, pool);
        far.rest(pool);
        far
    }

    /// Has the kernel acknowledge all that has come
    fn take_all(far: &mut Far, pool: &mut Pool) {
        far.next = far.kept.edge();
        far.on_ack(seq_of(far.isn, far.kept.edge()), 60_000, true, pool, NOW);
    }

    #[test]
    fn stream_goes_on_though_others_have_all_memory_and_pieces_are_large() {
        let mut pool = Pool::new(64 << 20);
        let mut far = silent(&mut pool);
        pool.take(2 * pool.size as u64);

        for piece in 0..100 {
            let at = far.kept.edge();
            let data = vec![piece; (far.credit - at).min(16_000) as usize];
            let said = (0..10).position(|_| {
                let taken = far.on_data((at as u32, &data), (false, false), &mut pool);
                take_all(&mut far, &mut pool);
                taken.is_ok()
            });
            assert!(!data.is_empty() && said.is_some(), "piece {piece}");
        }
    }

    #[test]
    fn one_that_ends_while_it_rests_gives_back_what_it_has_and_no_more() {
        let mut pool = Pool::new(64 << 20);
        pool.take(1 << 20);
        let mut far = silent(&mut pool);
        assert_eq!(pool.promised() as u64, (1 << 20) + LANE_REST);

        far.release(&mut pool);

        assert_eq!(pool.promised(), 1 << 20);
    }

    #[test]
    fn credit_goes_on_where_more_is_promised_than_there_is() {
        let mut pool = Pool::new(64 << 20);
        pool.take(512 * 1024);
        let mut far = Far::new(0, 512 * 1024);
        far.on_opened(1000, 7, 60_000);
        pool.take(2 * pool.size as u64);
        let mut at = 1_u32;

        for _ in 0..1000 {
            let len = (far.credit - far.kept.edge()).min(10_000) as usize;
            far.on_data((at, &vec![7; len]), (false, false), &mut pool).unwrap();
            at += len as u32;
            take_all(&mut far, &mut pool);
        }

        assert_eq!(far.credit - far.kept.base(), 512 * 1024);
    }

    #[test]
    fn end_of_a_stream_counts_only_once_all_before_it_has_found_memory() {
        let mut pool = Pool::new(64 << 20);
        let mut far = silent(&mut pool);
        pool.take(2 * pool.size as u64);

        let said = (101, &[7; 6000][..]);
        assert_eq!(far.on_data(said, (true, false), &mut pool), Err(Fault::NoRoom));
        assert!(far.fin.is_none() && far.kept.edge() == 101 + LANE_REST);
        take_all(&mut far, &mut pool);
        far.on_data(said, (true, false), &mut pool).unwrap();
        assert_eq!(far.fin, Some(6101));
    }

    #[test]
    fn kernel_that_takes_the_largest_segments_gets_packets_that_there_are() {
        let mut pool = Pool::default();
        let now = Instant::ZERO + Duration::from_secs(1);
        for mss in [60_000, 65_495, 65_535] {
            pool.take(200_000);
            let mut far = Far::new(0, 200_000);
            far.on_opened(mss, 7, 60_000);
            far.on_ack(1, 60_000, true, &mut pool, now);
            far.on_data((1, &[7; 150_000]), (false, false), &mut pool).unwrap();

            let mut written = 0;
            while let Some(next) = far.next_segment(now) {
                assert!(next.len + 60 <= 65_535, "{mss}: {}", next.len);
                written += next.len;
            }

            assert_eq!(written, 150_000, "{mss}");
        }
    }
}
