//! Which ways may lead to the other node: when each is tried, and which of them is used.
//!
//! A way becomes a path when it is tried. Which of the paths is best, `path/select` says.

use core::net::IpAddr;

use super::{Output, Session};
use crate::limits::PATHS_MAX;
use crate::node::{Choice, Way};
use crate::path::select::Kind;
use crate::path::{Path, select};
use crate::time::{Duration, Instant};

/// Where else the other node may be reached
#[derive(Debug, Default)]
pub(super) struct Candidates {
    ways: Vec<Way>,
    /// Which carrier is wanted
    choice: Choice,
    /// When they are tried next
    pub(super) next: Option<Instant>,
    /// How often they were tried since something changed
    round: u32,
}

impl Session {
    /// Learns where else the other node may be reached, and tries it soon
    ///
    /// `choice` tells which carrier is wanted.
    pub fn try_ways(&mut self, ways: Vec<Way>, choice: Choice, now: Instant) {
        let news = ways.iter().any(|way| !self.candidates.ways.contains(way));
        self.candidates.ways = ways;
        self.candidates.choice = choice;
        if news && !self.is_settled() {
            self.candidates.round = 0;
            self.candidates.next = Some(now);
        }
        self.choose_path(now);
    }

    /// Takes the news that a stream is gone, and with it all that was in flight on it
    pub fn on_broken(&mut self, way: Way, now: Instant) {
        let Some(path) = self.paths.iter().find(|path| path.way == way) else { return };
        let (number, proven) = (path.number, path.is_proven());
        let active = self.active == Some(number);
        self.drop_path(number);
        if proven && active {
            // It is made again at once; one that never led anywhere waits for the next round.
            self.candidates.round = STREAM_ROUND - 1;
            self.candidates.next = Some(now);
        }
        self.choose_path(now);
    }

    /// Proves each path again: addresses or routes of this machine changed
    pub fn on_paths_changed(&mut self, now: Instant) {
        for path in &mut self.paths {
            path.owe_ping();
            path.hurry(now);
        }
        self.candidates.round = 0;
        self.candidates.next = Some(now);
    }

    /// Takes a way that a handshake went: it leads to the other node
    pub fn adopt_way(&mut self, way: Way, local: Option<IpAddr>, now: Instant) {
        if self.paths.iter().all(|path| path.way != way) {
            self.open_path(way, local, 0, 0, now);
        }
        if let Some(path) = self.paths.iter_mut().find(|path| path.way == way) {
            path.prove();
            path.on_heard(0, now);
            path.owe_ping();
        }
        self.choose_path(now);
    }

    /// Takes a way that may lead to the other node, as `heard` bytes say that came from there
    pub fn doubt_way(
        &mut self,
        way: Way,
        local: Option<IpAddr>,
        challenge: u64,
        heard: usize,
        now: Instant,
    ) {
        if self.paths.iter().all(|path| path.way != way) {
            self.open_path(way, local, challenge, heard, now);
        }
    }

    /// Opens paths to the addresses that may be better, in rounds that become rarer
    pub(super) fn time_candidates(&mut self, challenge: &mut impl FnMut() -> u64, now: Instant) {
        let failing = self.is_unresponsive(now);
        if failing && self.candidates.next.is_none_or(|at| at > now + FAILING_RETRY) {
            self.candidates.next = Some(now);
            self.candidates.round = 0;
        }
        if self.candidates.next.is_none_or(|at| now < at) {
            return;
        }
        let eager = self.candidates.round == 0;
        self.candidates.round += 1;
        self.candidates.next = if failing {
            Some(now + FAILING_RETRY)
        } else if self.is_settled() {
            None
        } else {
            Some(now + CANDIDATE_RETRY * self.candidates.round.min(60))
        };
        if self.is_settled() && !failing && !eager {
            return;
        }
        let choice = self.candidates.choice;
        let used = self.way().map(|way| select::kind(way, choice));
        let ways = self.candidates.ways.clone();
        for way in ways {
            let kind = select::kind(way, choice);
            let wanted = match kind {
                Kind::Chosen | Kind::Udp => true,
                Kind::Stream => {
                    let worse = used.is_none_or(|used| kind < used);
                    self.candidates.round >= STREAM_ROUND && (failing || worse)
                }
                Kind::Relayed => failing,
            };
            if !wanted {
                continue;
            }
            match self.paths.iter_mut().find(|path| path.way == way) {
                Some(path) if path.is_proven() => {
                    if failing {
                        path.owe_ping();
                    }
                }
                Some(path) if eager => path.hurry(now),
                Some(_) => {}
                None => self.open_path(way, None, challenge(), 0, now),
            }
        }
        self.time_paths(now);
    }

    /// Opens a path to an address that is still to be proven, if there is a number for it
    pub(super) fn open_path(
        &mut self,
        way: Way,
        local: Option<IpAddr>,
        challenge: u64,
        heard: usize,
        now: Instant,
    ) {
        if self.paths.len() >= PATHS_MAX {
            // Whoever was heard least recently makes room, but never the path in use.
            let spare = self.paths.iter().filter(|path| self.active != Some(path.number));
            let Some(number) =
                spare.min_by_key(|path| (path.is_proven(), path.last_heard)).map(|p| p.number)
            else {
                return;
            };
            self.drop_path(number);
        }
        let free = (0..PATHS_MAX as u8).find(|n| self.paths.iter().all(|path| path.number != *n));
        let Some(number) = free else { return };
        let mut path = Path::unproven(number, way, local, challenge, heard, now);
        path.go_on_from(self.retired[usize::from(number)]);
        self.paths.push(path);
    }

    pub(super) fn drop_path(&mut self, number: u8) {
        let Some(at) = self.paths.iter().position(|path| path.number == number) else { return };
        let mut path = self.paths.swap_remove(at);
        let mut lost = core::mem::take(&mut self.scratch.lost);
        path.sent.forget_in_flight(&mut lost);
        for content in lost.drain(..) {
            Self::on_lost((&mut self.control, &mut self.tcp, &mut self.leave), &mut path, &content);
        }
        self.scratch.lost = lost;
        self.retired[usize::from(number)] = path.sent.next_count();
        if self.active == Some(number) {
            self.active = None;
        }
    }

    pub(super) fn choose_path(&mut self, now: Instant) {
        if self.paths.len() == 1 && self.active.is_some() {
            return;
        }
        let choice = self.candidates.choice;
        let best = select::best(&self.paths, self.active, choice, now);
        let best = best.map(|at| self.paths[at].number);
        if best.is_none() || best == self.active {
            return;
        }
        let before = self.way();
        self.active = best;
        if let Some(path) = self.active_path() {
            path.owe_ping();
        }
        self.rest_streams();
        if let Some(way) = self.way().filter(|way| before != Some(*way)) {
            self.output.push_back(Output::Moved(way));
        }
    }

    /// Lets streams fall silent that are a last resort while something better is in use
    fn rest_streams(&mut self) {
        let choice = self.candidates.choice;
        let Some(used) = self.way().map(|way| select::kind(way, choice)) else { return };
        for path in &mut self.paths {
            let kind = select::kind(path.way, choice);
            path.set_resting(kind == Kind::Stream && used < kind);
        }
    }

    /// Tells whether no way that is known may be better than the one in use
    fn is_settled(&self) -> bool {
        let kind = |way| select::kind(way, self.candidates.choice);
        let better = |used| self.candidates.ways.iter().any(|way| kind(*way) < kind(used));
        self.way().is_some_and(|used| !better(used))
    }
}

/// Round in which streams are tried that are a last resort
const STREAM_ROUND: u32 = 2;
/// Interval between rounds of trying other addresses, times the number of the round
const CANDIDATE_RETRY: Duration = Duration::from_millis(500);
/// The same while the path in use does not answer
const FAILING_RETRY: Duration = Duration::from_secs(1);
