//! The stream from our kernel to the other node.
//!
//! The near end takes data from the kernel, acknowledges it at once in the name of the remote end,
//! and keeps it until the other node reports that *its* kernel has acknowledged it. A FIN alone is
//! not acknowledged before the other kernel has acknowledged it: until then the kernel may have to
//! say it again, to whoever carries the connection then.
//!
//! # Contract
//!
//! - Room is promised to the kernel as window, out of the node's [`Pool`]. A window is never taken back; the
//!   memory behind it is, where the kernel is silent for long ([`Near::rest`]), and taken again when it speaks.
//!   What there is no memory for by then is as if it was lost, and said again.
//! - Bytes of a large super-packet that come in order stay in the buffer that they were read into, all others are
//!   copied. What the kernel says again changes neither.
//! - All the lane sends lies between [`Near::delivered`] and the credit of the other node.

use super::assembly::Assembly;
use super::pool::Pool;
use super::rest;
use super::seq::{offset_of, seq_of};
use crate::limits::LANE_CREDIT_MAX;
use crate::wire::frame::Malformed;

/// The stream from our kernel to the other node
#[derive(Debug)]
pub(super) struct Near {
    /// Initial sequence number of our kernel
    pub(super) isn: u32,
    /// From what the other kernel acknowledged to what we acknowledged
    pub(super) kept: Assembly,
    /// Offset before which the other kernel has acknowledged all for certain: the base, unless we have
    /// restarted since
    pub(super) certain: u64,
    /// Offset up to which the lane has sent
    pub(super) sent: u64,
    /// Offset of the FIN, where it has come
    pub(super) fin: Option<u64>,
    /// Whether the lane has sent the FIN
    pub(super) fin_sent: bool,
    /// Whether the other kernel has acknowledged the FIN
    pub(super) fin_acked: bool,
    /// Offset before which the other node accepts
    pub(super) credit: u64,
    /// Offset before which the kernel may send; what lies between this and the base is promised
    shown: u64,
    /// Offset before which windows have let it send, as rounding may show a little more
    told: u64,
    /// How much may be promised
    limit: u64,
    /// Whether that is what kept the last promise small
    limited: bool,
    /// Shift of the windows that we show: the remote end's
    pub(super) scale: u8,
    /// Whether nothing more is promised, as the kernel is silent
    resting: bool,
    /// Offset after the last urgent byte
    pub(super) urgent: Option<u64>,
    /// Whether nothing more is taken from the kernel, nor promised to it
    pub(super) frozen: bool,
}

impl Near {
    /// Begins a stream with a SYN; `limit` bytes, which were taken for it, are promised to the kernel
    pub(super) fn new(isn: u32, limit: usize) -> Self {
        let limit = limit as u64;
        Self {
            isn,
            kept: Assembly::new(1),
            certain: 1,
            sent: 1,
            fin: None,
            fin_sent: false,
            fin_acked: false,
            credit: 1,
            shown: 1 + limit,
            told: 1 + limit,
            limit,
            limited: true,
            scale: 0,
            resting: false,
            urgent: None,
            frozen: false,
        }
    }

    /// Begins at an offset, with nothing before it
    pub(super) fn begin_at(&mut self, base: u64) {
        self.kept = Assembly::new(base);
        self.sent = base;
        self.shown = base + self.limit;
        self.told = self.shown;
    }

    /// Takes data of a segment; tells whether all of it was in order and new
    ///
    /// All of a large segment that is stays where it is, if its buffer may be kept.
    ///
    /// What it was told and is not promised, for rounding or as it was silent, is promised now, as far as there
    /// is memory.
    pub(super) fn on_data(&mut self, offset: u64, data: &[u8], pool: &mut Pool) -> bool {
        self.wake(pool);
        let end = (offset + data.len() as u64).min(self.shown.max(self.told.min(self.most())));
        let fits = self.fin.is_none_or(|fin| end <= fin) && self.kept.gaps() < GAPS_MAX;
        if offset >= end || !fits {
            return false;
        }
        self.reserve(end, pool);
        let room = usize::try_from(self.shown.saturating_sub(offset)).unwrap_or(usize::MAX);
        let whole = offset == self.kept.edge() && data.len() <= room && self.kept.gaps() == 0;
        match whole.then(|| pool.shelf.keep(data)).flatten() {
            Some(bytes) => self.kept.adopt(bytes),
            None => self.kept.insert(offset, &data[..data.len().min(room)]),
        }
        whole
    }

    /// Takes a FIN at an offset, if all before it has come
    pub(super) fn on_fin(&mut self, offset: u64) {
        if offset == self.kept.edge() && self.kept.gaps() == 0 {
            self.fin = Some(offset);
        }
    }

    /// Takes an urgent pointer
    pub(super) fn on_urgent(&mut self, offset: u64) {
        self.urgent = self.urgent.max(Some(offset));
    }

    /// Takes word of the other node: its kernel's acknowledgement, and its credit
    ///
    /// # Errors
    /// If it acknowledges what was never sent, or promises more than anybody may.
    pub(super) fn on_state(
        &mut self,
        ack: u32,
        credit: u32,
        pool: &mut Pool,
    ) -> Result<Progress, Malformed> {
        let base = self.kept.base();
        // One that was overtaken by a later one may lie before all that is kept.
        let ack = offset_of(self.isn, ack, base).unwrap_or(0);
        let credit = offset_of(self.isn, credit, self.credit).unwrap_or(0);
        if ack > self.sent + u64::from(self.fin_sent) || credit > base + LANE_CREDIT_MAX {
            return Err(Malformed);
        }
        self.credit = self.credit.max(credit);
        let delivered = ack.min(self.kept.edge());
        self.certain = self.certain.max(delivered);
        self.kept.advance(delivered, &mut pool.shelf);
        let freed = self.kept.base() - base;
        if freed > 0 {
            // The kernel may wait for a larger window, and say nothing until then.
            self.wake(pool);
        }
        let fin = self.fin_sent && self.fin.is_some_and(|fin| ack > fin);
        let fin_acked = fin && !core::mem::replace(&mut self.fin_acked, fin);
        self.promise(freed, pool);
        Ok(Progress { fin_acked })
    }

    /// Promises the kernel what is free again, as `freed` bytes are, and more where the lane waits for the kernel
    fn promise(&mut self, freed: u64, pool: &mut Pool) {
        let base = self.kept.base();
        let short = base + self.limit < self.credit && self.unsent() < STARVED;
        let used = self.limited && self.kept.edge() + self.limit / 4 > self.shown;
        if short && used && !self.frozen && !self.resting {
            self.limit += pool.growth(self.limit as usize, self.limit as usize) as u64;
        }
        self.free(freed, pool);
        self.follow(pool);
    }

    /// Promises the kernel what it may send now that more of it was read
    ///
    /// It may be ahead of us by [`QUEUE`] only: what it sends faster than we read would wait in the TUN, and
    /// all others' packets behind it.
    pub(super) fn follow(&mut self, pool: &mut Pool) {
        if self.frozen || self.resting {
            return;
        }
        let (most, useful) = self.aims();
        self.limited = most <= useful;
        self.reserve(most.min(useful), pool);
    }

    /// Returns the offsets before which the kernel may be let send, and before which that is of use
    fn aims(&self) -> (u64, u64) {
        (self.kept.base() + self.limit, self.credit.min(self.kept.edge() + QUEUE))
    }

    /// Gives back the memory of bytes that are done with, but for what is promised in their place at once
    fn free(&mut self, bytes: u64, pool: &mut Pool) {
        let (most, useful) = self.aims();
        let wanted = if self.frozen { 0 } else { most.min(useful).saturating_sub(self.shown) };
        let stays = wanted.min(bytes);
        self.shown += stays;
        pool.give(bytes - stays);
    }

    /// Tells whether more is promised than a kernel keeps that is silent
    pub(super) fn has_spare(&self) -> bool {
        rest::has_spare(&self.kept, self.shown)
    }

    /// Gives back what is promised to a kernel that is silent, but for what a keystroke needs
    pub(super) fn rest(&mut self, pool: &mut Pool) {
        self.resting |= rest::give_spare(&mut self.kept, &mut self.shown, pool);
    }

    /// Promises again what the kernel was told, as it speaks
    fn wake(&mut self, pool: &mut Pool) {
        if core::mem::replace(&mut self.resting, false) {
            self.shown += pool.take_spare(self.told.saturating_sub(self.shown));
        }
    }

    /// Promises what lies before an offset, as far as there is memory
    fn reserve(&mut self, target: u64, pool: &mut Pool) {
        self.shown += pool.take_free(target.saturating_sub(self.shown));
    }

    /// Tells whether less is promised than the kernel was told, and that not for rounding alone
    fn is_short(&self) -> bool {
        self.told >= self.shown + self.unit()
    }

    /// Returns the offset before which anything may be taken: one who fills gaps cleverly must not get ever more
    /// by rounding
    fn most(&self) -> u64 {
        self.kept.base() + self.limit + self.unit()
    }

    /// Returns of how many bytes all windows are multiples
    fn unit(&self) -> u64 {
        1 << self.scale
    }

    /// Gives all promises back
    pub(super) fn release(&mut self, pool: &mut Pool) {
        pool.give(self.shown.saturating_sub(self.kept.base()));
        self.kept.clear(&mut pool.shelf);
        self.shown = self.kept.base();
        self.limit = 0;
        self.resting = false;
    }

    /// Returns the window to show in a segment now
    ///
    /// Rounded up, so that its right edge does not move left; down where that would tell more than the kernel
    /// was told before. It is not shut before all has come that the kernel was told it may send: where there was
    /// no memory for that it is as if it was lost, and a kernel that probes a window which was shut behind it may
    /// not say it again.
    pub(super) fn window(&self) -> u16 {
        let edge = self.kept.edge();
        let field = if self.is_short() {
            (self.told - edge) >> self.scale
        } else {
            // One that is told more than is ever taken would give the connection up.
            let least = self.told > edge && edge + self.unit() <= self.most();
            self.shown.saturating_sub(edge).div_ceil(self.unit()).max(least.into())
        };
        u16::try_from(field).unwrap_or(u16::MAX)
    }

    /// Records that a segment with the present window is written
    pub(super) fn on_told(&mut self) {
        let right = self.kept.edge() + (u64::from(self.window()) << self.scale);
        self.told = self.told.max(right);
    }

    /// Returns the offset before which a window shown now lets the kernel send
    pub(super) fn right_edge(&self) -> u64 {
        let most = u64::from(u16::MAX) << self.scale;
        let open = if self.is_short() { self.told } else { self.shown };
        open.min(self.kept.edge() + most)
    }

    /// Returns the sequence number that the kernel is to see acknowledged
    pub(super) fn ack(&self) -> u32 {
        seq_of(self.isn, self.acked())
    }

    /// Returns the offset that the kernel is to see acknowledged
    pub(super) fn acked(&self) -> u64 {
        self.kept.edge() + u64::from(self.fin_acked)
    }

    /// Returns the offset before which all was delivered
    pub(super) fn delivered(&self) -> u64 {
        self.kept.base()
    }

    /// Returns how many bytes the lane may send now
    pub(super) fn sendable(&self) -> u64 {
        self.kept.edge().min(self.credit).saturating_sub(self.sent)
    }

    /// Tells whether the FIN can be sent, once all before it was
    pub(super) fn owes_fin(&self) -> bool {
        !self.fin_sent && self.fin.is_some_and(|fin| fin == self.sent + self.sendable())
    }

    /// Tells whether the lane would have more to send if the other node gave more credit
    pub(super) fn is_starved(&self) -> bool {
        let window = self.credit.saturating_sub(self.kept.base());
        self.sendable() < STARVED && self.kept.edge() + (window / 8).max(SLACK) >= self.credit
    }

    fn unsent(&self) -> u64 {
        self.kept.edge().saturating_sub(self.sent)
    }
}

/// What word of the other node has changed
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Progress {
    /// The FIN is acknowledged now
    pub(super) fin_acked: bool,
}

/// Bytes that wait below which a lane is about to have nothing to send
const STARVED: u64 = 8 * 1024;
/// Bytes that a kernel may hold back although the window allows them
const SLACK: u64 = 3 * 1024;
/// Bytes that may wait in the TUN for us: a millisecond or two at the rates that a processor can carry
const QUEUE: u64 = 1 << 20;
/// Gaps in what the kernel sent beyond which nothing is kept out of order
const GAPS_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: usize = 512 * 1024;

    fn begin(pool: &mut Pool) -> Near {
        pool.take(FIRST as u64);
        let mut near = Near::new(0, FIRST);
        near.credit = 1 << 29;
        near
    }

    /// Has the kernel send all that it may, and the lane all that comes
    fn fill(near: &mut Near, pool: &mut Pool) {
        for _ in 0..1000 {
            let room = near.shown - near.kept.edge();
            if room == 0 {
                return;
            }
            let data = vec![0; room.min(32 * 1024) as usize];
            near.on_data(near.kept.edge(), &data, pool);
            near.sent = near.kept.edge();
            near.follow(pool);
        }
    }

    fn acknowledge(near: &mut Near, pool: &mut Pool) {
        let (ack, credit) = (near.sent as u32, near.credit as u32);
        near.on_state(ack, credit, pool).unwrap();
    }

    #[test]
    fn kernel_is_not_far_ahead_of_what_is_read() {
        let mut pool = Pool::new(256 << 20);
        let mut near = begin(&mut pool);

        for _ in 0..20 {
            fill(&mut near, &mut pool);
            acknowledge(&mut near, &mut pool);
            assert!(near.shown - near.kept.edge() <= 1 << 20);
        }
    }

    #[test]
    fn limit_does_not_grow_while_nothing_moves() {
        let mut pool = Pool::new(256 << 20);
        let mut near = begin(&mut pool);
        near.follow(&mut pool);
        assert!(near.limited);

        near.rest(&mut pool);
        for _ in 0..5 {
            acknowledge(&mut near, &mut pool);
        }

        assert_eq!(near.limit, FIRST as u64);
    }

    #[test]
    fn kernel_that_waits_for_a_larger_window_gets_it_though_it_was_silent() {
        let mut pool = Pool::new(256 << 20);
        let mut near = begin(&mut pool);
        let len = FIRST - 5000;
        near.on_data(1, &vec![7; len], &mut pool);
        near.sent = near.kept.edge();
        near.on_told();
        near.rest(&mut pool);
        assert!(near.resting);

        acknowledge(&mut near, &mut pool);

        assert!(!near.resting && near.shown >= near.kept.base() + FIRST as u64);
    }

    #[test]
    fn window_goes_on_where_more_is_promised_than_there_is() {
        let mut pool = Pool::new(64 << 20);
        let mut near = begin(&mut pool);
        pool.take(2 * pool.size as u64);

        for _ in 0..20 {
            fill(&mut near, &mut pool);
            acknowledge(&mut near, &mut pool);
        }

        assert_eq!(near.shown - near.kept.base(), FIRST as u64);
    }

    #[test]
    fn what_a_window_let_the_kernel_send_by_rounding_is_taken_where_there_is_memory() {
        let mut pool = Pool::new(256 << 20);
        let mut near = begin(&mut pool);
        near.scale = 7;
        let room = near.shown - 1;
        near.told = near.shown + 100;

        assert!(near.on_data(1, &vec![7; room as usize + 100], &mut pool));
        assert_eq!(near.kept.edge(), 1 + room + 100);
    }

    #[test]
    fn window_does_not_shut_before_what_rounding_let_the_kernel_send_is_taken() {
        for (scale, more) in [(5, 1), (7, 100), (14, (1 << 14) - 1)] {
            let mut pool = Pool::new(256 << 20);
            let mut near = begin(&mut pool);
            near.scale = scale;
            near.told = near.shown + more;
            let free = pool.size - pool.promised();
            pool.take(free as u64);
            let (shown, promised) = (near.shown, pool.promised());
            let data = vec![7; FIRST + more as usize];
            let right = |near: &Near| near.kept.edge() + (u64::from(near.window()) << near.scale);

            // It says the rest time and again.
            for _ in 0..5 {
                assert!(!near.on_data(1, &data, &mut pool));
                assert_eq!((near.kept.edge(), pool.promised()), (shown, promised));
                assert!(near.window() > 0 && right(&near) >= shown + more, "{scale}");
                near.on_told();
                assert!(near.told <= shown + (1 << scale), "{scale}");
            }
            pool.give(free as u64);

            assert!(near.on_data(shown, &data[FIRST..], &mut pool));
            assert_eq!(near.kept.edge(), shown + more);
        }
    }

    #[test]
    fn kernel_that_uses_all_rounding_is_promised_no_more_than_one_unit_of_it() {
        let mut pool = Pool::new(256 << 20);
        let mut near = begin(&mut pool);
        near.scale = 7;
        let most = near.kept.base() + near.limit + (1 << 7);

        // The other kernel takes nothing.
        for step in 0..20_000 {
            near.on_told();
            let room = near.told - near.kept.edge();
            let len = room.min(step % 200 + 1) as usize;
            near.on_data(near.kept.edge(), &vec![7; len], &mut pool);
            near.follow(&mut pool);
            assert!(near.shown <= most && near.told <= most);
        }

        assert_eq!(pool.promised() as u64, near.shown - near.kept.base());
    }

    #[test]
    fn kernel_from_which_nothing_more_is_taken_is_promised_nothing() {
        let mut pool = Pool::new(256 << 20);
        let mut near = begin(&mut pool);
        fill(&mut near, &mut pool);
        near.frozen = true;
        let shown = near.shown;

        acknowledge(&mut near, &mut pool);

        assert_eq!((near.shown, pool.promised() as u64), (shown, shown - near.kept.base()));
    }

    #[test]
    fn rounding_of_large_windows_takes_no_memory_that_there_is_not() {
        let mut pool = Pool::new(256 << 20);
        let mut near = begin(&mut pool);
        near.scale = 14;
        near.on_data(1, &[7; 100], &mut pool);
        near.rest(&mut pool);
        near.told = near.shown + (1 << 14) - 1;
        pool.take(pool.size as u64);
        let promised = pool.promised();

        assert!(!near.on_data(101, &[7; 30_000], &mut pool));

        assert_eq!((pool.promised(), near.kept.edge()), (promised, near.shown));
    }

    #[test]
    fn what_lies_beyond_the_window_is_promised_nothing() {
        let mut pool = Pool::new(256 << 20);
        let mut near = begin(&mut pool);
        let (promised, shown) = (pool.promised(), near.shown);

        for beyond in [0, 1, 1 << 20, 1 << 30] {
            assert!(!near.on_data(shown + beyond, &[7; 1000], &mut pool));
        }

        assert_eq!((pool.promised(), near.shown), (promised, shown));
    }

    #[test]
    fn what_is_under_way_may_grow_where_that_is_what_the_lane_waits_for() {
        let mut pool = Pool::new(256 << 20);
        let mut near = begin(&mut pool);
        let mut under_way = 0;

        for _ in 0..8 {
            fill(&mut near, &mut pool);
            under_way = near.sent - near.kept.base();
            acknowledge(&mut near, &mut pool);
        }

        assert!(under_way >= 16 * FIRST as u64, "{under_way}");
    }

    #[test]
    fn what_is_under_way_does_not_grow_where_the_other_kernel_is_near() {
        let mut pool = Pool::new(256 << 20);
        let mut near = begin(&mut pool);

        for _ in 0..1000 {
            let data = vec![0; 32 * 1024];
            near.on_data(near.kept.edge(), &data, &mut pool);
            near.sent = near.kept.edge();
            acknowledge(&mut near, &mut pool);
        }

        assert_eq!(near.limit, FIRST as u64);
    }
}
