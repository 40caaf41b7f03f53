//! All flows of a session, each at a place of its own.
//!
//! # Contract
//!
//! - A flow keeps its seat while it has something to send or waits for a turn, and some seconds
//!   beyond: what it sent lately tells whether it is thin.
//! - Finding a flow costs a look into a small table, for lanes and nodes a search in a tree; nothing
//!   here goes through all flows but [`Flows::longest`], which is asked when a queue overflows.

use core::ops::{Index, IndexMut};
use std::collections::{BTreeMap, VecDeque};

use super::flow::{Flow, Key, Turn};
use crate::time::{Duration, Instant};

/// Where a flow lies
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Seat(u32);

/// All flows of a session
#[derive(Debug, Default)]
pub(super) struct Flows {
    flows: Vec<Flow>,
    free: Vec<Seat>,
    /// Seats of datagram flows by bucket, one too high; none at first, then all of them
    buckets: Vec<u32>,
    others: BTreeMap<Key, Seat>,
    /// All that are in use, in the order in which they are looked at for whether they still are
    watch: VecDeque<Seat>,
}

impl Flows {
    /// Returns the seat of a flow, which is made if it is new
    pub(super) fn find(&mut self, key: Key, now: Instant) -> Seat {
        if let Some(seat) = self.known(key) {
            return seat;
        }
        self.tidy(now);
        let key = bucketed(key);
        let seat = match self.free.pop() {
            Some(seat) => {
                self[seat] = Flow::new(key, now);
                seat
            }
            None => {
                self.flows.push(Flow::new(key, now));
                Seat(self.flows.len() as u32 - 1)
            }
        };
        self.watch.push_back(seat);
        match key {
            Key::Datagrams(bucket) => {
                self.buckets.resize(BUCKETS as usize, 0);
                self.buckets[bucket as usize] = seat.0 + 1;
            }
            Key::Lane(_) | Key::Relay(_) => {
                self.others.insert(key, seat);
            }
        }
        seat
    }

    /// Returns the seat of a flow that is known
    pub(super) fn known(&self, key: Key) -> Option<Seat> {
        match bucketed(key) {
            Key::Datagrams(bucket) => {
                let seat = self.buckets.get(bucket as usize)?;
                seat.checked_sub(1).map(Seat)
            }
            key @ (Key::Lane(_) | Key::Relay(_)) => self.others.get(&key).copied(),
        }
    }

    /// Returns the flow in which most waits, among those of a kind
    pub(super) fn longest(&self, kind: impl Fn(&Key) -> bool) -> Option<Seat> {
        let own = self.watch.iter().copied().filter(|seat| kind(&self[*seat].key));
        own.max_by_key(|seat| self[*seat].backlog())
    }

    /// Looks at a few flows, and forgets those that were silent for long
    fn tidy(&mut self, now: Instant) {
        for _ in 0..LOOKS {
            let Some(seat) = self.watch.pop_front() else { return };
            let flow = &self[seat];
            if flow.turn != Turn::Idle || flow.is_ready() || now.since(flow.last) < KEPT {
                self.watch.push_back(seat);
                continue;
            }
            match flow.key {
                Key::Datagrams(bucket) => self.buckets[bucket as usize] = 0,
                key @ (Key::Lane(_) | Key::Relay(_)) => {
                    self.others.remove(&key);
                }
            }
            self.free.push(seat);
        }
    }
}

impl Index<Seat> for Flows {
    type Output = Flow;

    fn index(&self, seat: Seat) -> &Flow {
        &self.flows[seat.0 as usize]
    }
}

impl IndexMut<Seat> for Flows {
    fn index_mut(&mut self, seat: Seat) -> &mut Flow {
        &mut self.flows[seat.0 as usize]
    }
}

fn bucketed(key: Key) -> Key {
    match key {
        Key::Datagrams(number) => Key::Datagrams(number % BUCKETS),
        Key::Lane(_) | Key::Relay(_) => key,
    }
}

/// Datagram flows that can be told apart, as in RFC 8290
const BUCKETS: u32 = 1024;
/// Flows that are looked at when one is made
const LOOKS: usize = 2;
/// Silence after which a flow is forgotten
const KEPT: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flows_that_ended_make_room_for_others() {
        let mut flows = Flows::default();

        for second in 0..1000u32 {
            for conv in 0..10 {
                flows.find(Key::Lane(second * 10 + conv), at(second));
            }
        }

        assert!(flows.flows.len() < 250, "{}", flows.flows.len());
        assert_eq!(flows.others.len() + flows.free.len(), flows.flows.len());
    }

    #[test]
    fn flow_keeps_its_slot() {
        let mut flows = Flows::default();
        let one = flows.find(Key::Datagrams(7), at(0));
        let lane = flows.find(Key::Lane(7), at(0));
        flows[lane].turn = Turn::Old;

        for conv in 100..200 {
            flows.find(Key::Lane(conv), at(9));
        }
        assert_eq!(flows.find(Key::Datagrams(7 + BUCKETS), at(9)), one);
        for conv in 200..300 {
            flows.find(Key::Lane(conv), at(11));
        }

        assert_eq!(flows.known(Key::Datagrams(7)), None);
        assert_eq!(flows.known(Key::Lane(7)), Some(lane));
    }

    fn at(secs: u32) -> Instant {
        Instant::ZERO + Duration::from_secs(secs.into())
    }
}
