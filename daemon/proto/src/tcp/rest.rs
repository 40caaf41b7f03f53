//! When a connection that is silent gives back the memory that it was promised.
//!
//! Most connections are silent most of the time, and what all of them were promised when they had much to
//! carry would leave nothing to those that have now.

use super::assembly::Assembly;
use super::pool::Pool;
use crate::limits::{LANE_REST, LANE_REST_AFTER};
use crate::time::Instant;

/// Watches whether the two streams of a connection move
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rest {
    /// Where the streams stood when they moved last
    stood: [(u64, u64); 2],
    /// When that was
    since: Instant,
    /// When that is looked at next
    at: Option<Instant>,
}

impl Rest {
    /// Records where the streams stand, the first byte that is kept of each, and the one after the last; and
    /// whether any of them has something to give back
    pub(super) fn on_streams(&mut self, streams: [(u64, u64); 2], spare: bool, now: Instant) {
        if streams != self.stood || spare && self.at.is_none() {
            self.stood = streams;
            self.since = now;
            // It is not moved with each message: that would cost more than to look once too often.
            self.at = self.at.or(Some(now + LANE_REST_AFTER));
        }
    }

    /// Returns when [`Rest::take_due`] is to be asked
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.at
    }

    /// Tells, once, whether the streams have stood still for long
    pub(super) fn take_due(&mut self, now: Instant) -> bool {
        if self.at.is_none_or(|at| now < at) {
            return false;
        }
        let until = self.since + LANE_REST_AFTER;
        self.at = (now < until).then_some(until);
        self.at.is_none()
    }
}

/// Tells whether more of a stream is promised, all before an offset, than one keeps that is silent
pub(super) fn has_spare(kept: &Assembly, promised: u64) -> bool {
    promised > kept.end() + LANE_REST
}

/// Gives that back, and memory with it: what is left is what a keystroke needs; tells whether there was any
pub(super) fn give_spare(kept: &mut Assembly, promised: &mut u64, pool: &mut Pool) -> bool {
    let spare = has_spare(kept, *promised);
    if spare {
        let least = kept.end() + LANE_REST;
        pool.give(*promised - least);
        *promised = least;
    }
    kept.trim(&mut pool.shelf);
    spare
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use super::super::segment::ACK;
    use super::super::testing::{CLIENT, ISN, Pair, SERVER, Say};
    use super::*;
    use crate::limits::{LANE_CREDIT_FIRST, MEMORY_DEFAULT};

    const LONG: Duration = Duration::from_secs(8);

    /// Opens so many connections, of which each says a little; the last one stays at hand
    fn chatter(memory: usize, count: u16) -> Pair {
        let mut pair = Pair::with_memory(memory);
        for number in 0..count {
            pair.ends.local.set_port(1000 + number);
            pair.connect();
            pair.says(CLIENT, 0, 0, &[7; 100]);
            pair.pump();
            pair.says(SERVER, 0, 100, &[]);
            pair.pump();
        }
        pair.written.iter_mut().for_each(std::collections::VecDeque::clear);
        pair
    }

    #[test]
    fn silent_connections_leave_their_memory_to_others() {
        let mut pair = chatter(MEMORY_DEFAULT, 200);
        assert!(pair.pools.iter().all(|pool| pool.promised() > MEMORY_DEFAULT / 4 * 3));

        pair.pass(LONG);

        let most = 200 * 2 * LANE_REST as usize;
        assert!(pair.pools.iter().all(|pool| pool.promised() <= most));
        assert_eq!(pair.pools[CLIENT].take_first(), Some(LANE_CREDIT_FIRST));
        assert!(pair.nodes.iter().all(|node| node.deadline().is_none()), "nothing is left to do");
    }

    #[test]
    fn connection_that_rested_goes_on_at_once_with_what_it_had() {
        let mut pair = chatter(MEMORY_DEFAULT, 1);
        let before = [pair.pools[CLIENT].promised(), pair.pools[SERVER].promised()];
        pair.pass(LONG);
        assert!(pair.pools[SERVER].promised() < before[SERVER] / 50);

        for piece in 0..300 {
            pair.says(CLIENT, 100 + piece * 1000, 0, &[piece as u8; 1000]);
        }
        assert_eq!(pair.last(CLIENT).unwrap().ack, ISN[0].wrapping_add(1 + 300_100));
        pair.pump();

        assert!(pair.bytes(SERVER).starts_with(&[0; 1000]));
        assert!(pair.pools[CLIENT].promised() >= before[CLIENT] / 2);
        assert!(pair.pools[SERVER].promised() >= before[SERVER] / 2);
    }

    #[test]
    fn memory_of_silent_connections_is_no_more_than_what_they_are_promised() {
        let mut pair = chatter(MEMORY_DEFAULT, 1);
        let mut said = 100;
        for _ in 0..40 {
            for piece in 0..60 {
                pair.says(CLIENT, said + piece * 1000, 0, &[7; 1000]);
            }
            said += 60_000;
            pair.pump();
            pair.says(SERVER, 0, said, &[]);
            pair.pump();
        }
        let room = |pair: &Pair| {
            let lanes = pair.nodes.iter().flat_map(|node| node.lanes.values());
            lanes.map(|lane| lane.near.kept.room() + lane.far.kept.room()).sum::<usize>()
        };
        assert!(room(&pair) > 4 * LANE_REST as usize, "{}", room(&pair));

        pair.pass(LONG);

        assert_eq!(room(&pair), 0);
    }

    #[test]
    fn what_a_connection_gets_without_a_word_is_given_back_too() {
        let mut pair = chatter(MEMORY_DEFAULT, 1);
        let free = (MEMORY_DEFAULT - pair.pools[SERVER].promised()) as u64;
        pair.pools[SERVER].take(free);
        let conv = *pair.nodes[SERVER].lanes.keys().next().unwrap();
        let lane = pair.nodes[SERVER].lanes.get_mut(&conv).unwrap();
        // It was promised less than it might be, as there was no memory.
        lane.far.limit += 1 << 20;
        pair.pass(LONG);
        pair.pools[SERVER].give(free);
        let lane = pair.nodes[SERVER].lanes.get_mut(&conv).unwrap();
        lane.far.credit = lane.far.reserved;
        let before = pair.pools[SERVER].promised();

        // Its kernel shows that it is there.
        pair.says(SERVER, u32::MAX, 100, &[]);
        assert!(pair.pools[SERVER].promised() > before + (1 << 20));
        pair.pass(LONG);

        assert!(pair.pools[SERVER].promised() <= before + 100, "{before}");
        assert!(pair.nodes.iter().all(|node| node.deadline().is_none()));
    }

    #[test]
    fn window_does_not_shrink_while_a_connection_rests() {
        let mut pair = chatter(MEMORY_DEFAULT, 1);
        let ask = |pair: &mut Pair| {
            // A segment of old is answered at once, and wakes nobody: it brings nothing.
            let say =
                Say { seq: ISN[0], ack: ISN[1].wrapping_add(1), flags: ACK, ..Say::default() };
            pair.say(CLIENT, say);
            pair.nodes[CLIENT].flush(&mut pair.pools[CLIENT], pair.now);
            pair.last(CLIENT).unwrap().window
        };
        let before = ask(&mut pair);
        pair.pass(LONG);

        assert!(before > 1000 && ask(&mut pair) >= before);
    }

    #[test]
    fn what_there_is_no_memory_for_is_said_again_and_nothing_is_lost() {
        const MEMORY: usize = 2 << 20;
        let mut pair = chatter(MEMORY, 1);
        pair.pass(LONG);
        // Others take all there is at the far node.
        let free = (MEMORY - pair.pools[SERVER].promised()) as u64;
        pair.pools[SERVER].take(free);

        let data: Vec<u8> = (0..20_u8).flat_map(|piece| [piece; 1000]).collect();
        for (piece, data) in data.chunks(1000).enumerate() {
            pair.says(CLIENT, 100 + piece as u32 * 1000, 0, data);
        }
        pair.pump();
        assert!(pair.refused > 0 && pair.pools[SERVER].promised() <= MEMORY);
        pair.pools[SERVER].give(free);
        let mut came = Vec::new();
        for _ in 0..10 {
            pair.pump();
            came.extend(pair.bytes(SERVER));
            pair.says(SERVER, 0, 100 + came.len() as u32, &[]);
        }

        assert!(came == data, "{} bytes", came.len());
    }

    #[test]
    fn kernel_that_speaks_where_memory_is_gone_says_it_again() {
        const MEMORY: usize = 2 << 20;
        let mut pair = chatter(MEMORY, 1);
        pair.pass(LONG);
        let free = (MEMORY - pair.pools[CLIENT].promised()) as u64;
        pair.pools[CLIENT].take(free);

        for piece in 0..20 {
            pair.says(CLIENT, 100 + piece * 1000, 0, &[7; 1000]);
        }
        let acked = pair.last(CLIENT).unwrap().ack.wrapping_sub(ISN[0].wrapping_add(1));
        assert!((1000..10_000).contains(&acked), "{acked}");
        let more = pair.pools[CLIENT].promised().saturating_sub(MEMORY);
        assert!(more <= 1 << 7, "{more}, {acked} bytes");
        pair.pools[CLIENT].give(free);

        for piece in 0..20 {
            pair.says(CLIENT, 100 + piece * 1000, 0, &[7; 1000]);
        }
        let acked = pair.last(CLIENT).unwrap().ack.wrapping_sub(ISN[0].wrapping_add(1));
        assert_eq!(acked, 20_100);
    }

    #[test]
    fn rest_begins_once_when_nothing_has_moved_for_long() {
        let mut rest = Rest::default();
        let start = Instant::ZERO + Duration::from_secs(1);
        for byte in 1..=100 {
            rest.on_streams([(1, byte), (1, 1)], true, start + Duration::from_millis(byte));
        }
        let last = start + Duration::from_millis(100);

        assert_eq!(rest.deadline(), Some(start + Duration::from_millis(1) + LANE_REST_AFTER));
        assert!(!rest.take_due(rest.deadline().unwrap()));
        assert_eq!(rest.deadline(), Some(last + LANE_REST_AFTER));
        rest.on_streams([(1, 100), (1, 1)], true, last + Duration::from_secs(1));
        assert!(!rest.take_due(last + LANE_REST_AFTER - Duration::from_nanos(1)));
        assert!(rest.take_due(last + LANE_REST_AFTER));
        assert!(rest.deadline().is_none() && !rest.take_due(last + LANE_REST_AFTER * 9));
        rest.on_streams([(1, 100), (1, 1)], false, last + LANE_REST_AFTER * 9);
        assert_eq!(rest.deadline(), None);
        rest.on_streams([(2, 100), (1, 1)], false, last + LANE_REST_AFTER * 10);
        assert_eq!(rest.deadline(), Some(last + LANE_REST_AFTER * 11));
    }
}
