//! Which addresses may be called, and when again.
//!
//! A call that led to nobody who could prove who he is was a failure; each failure doubles the time
//! to the next call, and a proof begins anew. Addresses from which connections were accepted are not
//! called: a client's port leads nowhere.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

use fastvpn_proto::node::Carrier;
use fastvpn_proto::time::{Duration, Instant};

/// Remembers calls and what became of them
#[derive(Debug, Default)]
pub(super) struct Dialled {
    failed: BTreeMap<(Carrier, SocketAddr), Failed>,
    /// Addresses that called us, the latest last
    callers: VecDeque<(Carrier, SocketAddr)>,
    /// Calls that have neither failed nor led to anybody yet
    open: usize,
}

#[derive(Clone, Copy, Debug)]
struct Failed {
    times: u32,
    until: Instant,
}

impl Dialled {
    /// Tells whether an address may be called now; who asks calls then
    pub(super) fn may_dial(&mut self, carrier: Carrier, remote: SocketAddr, now: Instant) -> bool {
        let way = (carrier, remote);
        let early = self.failed.get(&way).is_some_and(|failed| now < failed.until);
        if early || self.open >= OPEN_MAX || self.callers.contains(&way) {
            return false;
        }
        self.open += 1;
        true
    }

    /// Records that the other node was reached
    pub(super) fn on_proven(&mut self, carrier: Carrier, remote: SocketAddr) {
        self.open = self.open.saturating_sub(1);
        self.failed.remove(&(carrier, remote));
    }

    /// Records that a connection ended, whether we had made it, and whether the other node was there
    pub(super) fn on_ended(&mut self, way: (Carrier, SocketAddr), end: End, now: Instant) {
        match end {
            End::Accepted => {
                if !self.callers.contains(&way) {
                    self.callers.push_back(way);
                }
                if self.callers.len() > CALLERS_MAX {
                    self.callers.pop_front();
                }
            }
            End::Called => {}
            End::Renewed => self.open = self.open.saturating_sub(1),
            End::InVain => {
                self.open = self.open.saturating_sub(1);
                let failed = self.failed.entry(way).or_insert(Failed { times: 0, until: now });
                failed.until = now + (FIRST * 2u32.pow(failed.times.min(8))).min(LONGEST);
                failed.times += 1;
                if self.failed.len() > FAILED_MAX {
                    // What is oldest is over by now.
                    let first = self.failed.iter().min_by_key(|(_, failed)| failed.until);
                    if let Some(way) = first.map(|(way, _)| *way) {
                        self.failed.remove(&way);
                    }
                }
            }
        }
    }
}

/// What kind of connection has ended
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum End {
    /// One that somebody made with us
    Accepted,
    /// One that we made, with the other node at its end
    Called,
    /// One that we made, or tried to make, with nobody who could prove who he is
    InVain,
    /// One that we made and make again at once, to begin with something else
    Renewed,
}

/// Time from the first failure to the next call
const FIRST: Duration = Duration::from_millis(500);
/// Longest time between two calls
const LONGEST: Duration = Duration::from_secs(8);
/// Calls that are open at one time
const OPEN_MAX: usize = 256;
/// Addresses that are remembered as failed
const FAILED_MAX: usize = 1024;
/// Addresses that are remembered as callers
const CALLERS_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_in_vain_become_rarer_and_one_that_succeeds_begins_anew() {
        let mut dialled = Dialled::default();
        let mut calls = Vec::new();

        for tenth in 0..300 {
            if dialled.may_dial(Carrier::Tcp, addr(1), at(tenth)) {
                calls.push(tenth);
                dialled.on_ended((Carrier::Tcp, addr(1)), End::InVain, at(tenth));
            }
        }
        assert_eq!(calls, [0, 5, 15, 35, 75, 155, 235]);

        assert!(dialled.may_dial(Carrier::Tcp, addr(1), at(400)));
        dialled.on_proven(Carrier::Tcp, addr(1));
        dialled.on_ended((Carrier::Tcp, addr(1)), End::Called, at(401));
        assert!(dialled.may_dial(Carrier::Tcp, addr(1), at(401)));
        assert_eq!(dialled.open, 1);
    }

    #[test]
    fn caller_is_never_called_back() {
        let mut dialled = Dialled::default();

        dialled.on_ended((Carrier::Tcp, addr(1)), End::Accepted, at(0));

        assert!(!dialled.may_dial(Carrier::Tcp, addr(1), at(100)));
        assert!(dialled.may_dial(Carrier::Kcp, addr(1), at(100)));
        assert!(dialled.may_dial(Carrier::Tcp, addr(2), at(100)));
    }

    #[test]
    fn memory_is_bounded() {
        let mut dialled = Dialled::default();

        for port in 0..5000 {
            assert!(dialled.may_dial(Carrier::Tcp, addr(port), at(port.into())));
            dialled.on_ended((Carrier::Tcp, addr(port)), End::InVain, at(port.into()));
            dialled.on_ended((Carrier::Kcp, addr(port)), End::Accepted, at(port.into()));
        }

        assert_eq!(dialled.failed.len(), FAILED_MAX);
        assert_eq!(dialled.callers.len(), CALLERS_MAX);
    }

    fn addr(port: u16) -> SocketAddr {
        ([192, 0, 2, 1], port).into()
    }

    fn at(tenths: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(tenths * 100)
    }
}
