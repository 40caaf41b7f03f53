//! What peers did in the last minutes, sampled once a second.
//!
//! Counters arrive by signals, about once a second for each peer and not in step with our samples:
//! rates are measured from signal to signal, and a sample takes the rate that is known then.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use fastvpn_dbus::tree::{Peer, Tree};

use crate::json::{known, millis};

/// All peers that were seen
#[derive(Debug, Default)]
pub(super) struct History {
    /// Samples taken so far
    taken: u64,
    peers: BTreeMap<String, Track>,
}

/// One peer
#[derive(Debug, Default)]
struct Track {
    /// The newest last
    samples: VecDeque<Sample>,
    counters: Option<Counters>,
    down: f64,
    up: f64,
}

/// Counters, and when they were heard of
#[derive(Clone, Copy, Debug)]
struct Counters {
    at: Duration,
    received: u64,
    sent: u64,
}

/// One moment of a peer
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Sample {
    /// Bits a second that arrive from it
    pub(super) down: f64,
    /// Bits a second that go to it
    pub(super) up: f64,
    /// Milliseconds
    pub(super) rtt: Option<f64>,
    /// Share, where there is a path
    pub(super) loss: Option<f64>,
    /// Bytes that the path has sent so far
    wire: u64,
    /// Bytes of load for the first time among them
    fresh: u64,
}

impl History {
    /// Takes what is counted of a peer; `now` is the time since the start
    pub(super) fn on_peer(&mut self, path: &str, peer: &Peer, now: Duration) {
        let count = |name| peer.figures.statistics.get(name).copied().unwrap_or(0);
        let new = Counters { at: now, received: count("rx-bytes"), sent: count("tx-bytes") };
        let track = self.peers.entry(path.to_owned()).or_default();
        let Some(old) = track.counters else {
            track.counters = Some(new);
            return;
        };
        if (old.received, old.sent) == (new.received, new.sent) {
            return;
        }
        let seconds = (new.at.saturating_sub(old.at)).as_secs_f64();
        // Several signals at once say nothing about the time between them.
        if seconds < SHORTEST {
            return;
        }
        let seconds = seconds.min(LONGEST);
        let rate = |old: u64, new: u64| new.saturating_sub(old) as f64 * 8.0 / seconds;
        track.down = rate(old.received, new.received);
        track.up = rate(old.sent, new.sent);
        track.counters = Some(new);
    }

    /// Forgets a peer
    pub(super) fn on_removed(&mut self, path: &str) {
        self.peers.remove(path);
    }

    /// Takes one sample of all peers; to be called once a second
    pub(super) fn sample(&mut self, tree: &Tree, now: Duration) {
        self.taken += 1;
        for (path, peer) in &tree.peers {
            let figures = &peer.figures;
            let count = |name| figures.path_statistics.get(name).copied().unwrap_or(0);
            let track = self.peers.entry(path.clone()).or_default();
            if track.counters.is_none_or(|counters| now > counters.at + SILENCE) {
                (track.down, track.up) = (0.0, 0.0);
            }
            let has_path = !peer.facts.path_kind.is_empty();
            track.samples.push_back(Sample {
                down: track.down,
                up: track.up,
                rtt: known(figures.rtt_us).map(millis).filter(|_| has_path),
                loss: Some(figures.loss).filter(|_| has_path),
                wire: count("bytes"),
                fresh: count("fresh-bytes"),
            });
            if track.samples.len() > KEPT {
                track.samples.pop_front();
            }
        }
    }

    /// Returns what is so of a peer now
    pub(super) fn latest(&self, path: &str) -> Sample {
        let track = self.peers.get(path);
        track.and_then(|track| track.samples.back()).copied().unwrap_or_default()
    }

    /// Returns the largest value in each of so many spans of time, the latest last
    ///
    /// All spans together are `seconds` or a little more. A span begins at a multiple of its
    /// length, so that values do not change while they move to the left.
    pub(super) fn values(
        &self,
        path: &str,
        spans: usize,
        seconds: usize,
        value: impl Fn(&Sample) -> Option<f64>,
    ) -> Vec<Option<f64>> {
        let length = seconds.div_ceil(spans.max(1)).max(1) as u64;
        let mut values = vec![None; spans];
        let Some(track) = self.peers.get(path) else { return values };
        let last = self.taken.saturating_sub(1) / length;
        for (age, sample) in track.samples.iter().rev().enumerate() {
            let Some(at) = self.taken.checked_sub(1 + age as u64) else { break };
            let back = usize::try_from(last - at / length).unwrap_or(usize::MAX);
            if back >= spans {
                break;
            }
            let place = &mut values[spans - 1 - back];
            if let Some(new) = value(sample) {
                *place = Some(place.map_or(new, |old: f64| old.max(new)));
            }
        }
        values
    }

    /// Returns bytes sent for each byte of load in the last minute; nothing if there was no load
    pub(super) fn overhead(&self, path: &str) -> Option<f64> {
        let samples = &self.peers.get(path)?.samples;
        let now = samples.back()?;
        let recent = samples.iter().rev().take(MINUTE);
        // Another path counts from nothing.
        let then =
            recent.take_while(|then| then.wire <= now.wire && then.fresh <= now.fresh).last()?;
        let fresh = now.fresh - then.fresh;
        (fresh > 0).then(|| (now.wire - then.wire) as f64 / fresh as f64)
    }
}

/// Samples that are kept of each peer
const KEPT: usize = 600;
/// Samples of a minute
const MINUTE: usize = 60;
/// Seconds between two counts below which no rate is made of them
const SHORTEST: f64 = 0.2;
/// Seconds above which a count after silence is taken for one of this time
const LONGEST: f64 = 1.5;
/// Silence of the counters after which nothing flows
const SILENCE: Duration = Duration::from_millis(2500);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::samples::tokyo;

    #[test]
    fn rates_come_from_counters_and_end_when_they_rest() {
        let mut history = History::default();
        let mut tree = Tree::default();
        tree.peers.insert("/p".to_owned(), counted(0, 0));
        history.on_peer("/p", &counted(0, 0), ms(0));
        history.on_peer("/p", &counted(1_000_000, 500_000), ms(1000));

        history.sample(&tree, ms(1100));
        let flowing = history.latest("/p");
        history.sample(&tree, ms(3600));

        assert_eq!((flowing.down, flowing.up), (8_000_000.0, 4_000_000.0));
        assert_eq!((history.latest("/p").down, history.latest("/p").up), (0.0, 0.0));
    }

    #[test]
    fn two_signals_at_once_make_no_absurd_rate() {
        let mut history = History::default();
        history.on_peer("/p", &counted(0, 0), ms(0));
        history.on_peer("/p", &counted(1000, 0), ms(1000));
        history.on_peer("/p", &counted(1500, 0), ms(1010));

        let mut tree = Tree::default();
        tree.peers.insert("/p".to_owned(), counted(1500, 0));
        history.sample(&tree, ms(1100));

        assert_eq!(history.latest("/p").down, 8000.0);
    }

    #[test]
    fn spans_hold_their_largest_value_and_do_not_change_while_they_move() {
        let mut history = History::default();
        let mut tree = Tree::default();
        let mut seen = Vec::new();
        for second in 1..=8 {
            let mut peer = tokyo();
            peer.figures.rtt_us = second * 1000;
            tree.peers.insert("/p".to_owned(), peer);
            history.sample(&tree, ms(second * 1000));
            seen.push(history.values("/p", 3, 6, |sample| sample.rtt));
        }

        assert_eq!(seen[0], [None, None, Some(1.0)]);
        assert_eq!(seen[6], [Some(4.0), Some(6.0), Some(7.0)]);
        assert_eq!(seen[7], [Some(4.0), Some(6.0), Some(8.0)]);
        assert_eq!(history.values("/q", 2, 6, |sample| sample.rtt), [None, None]);
    }

    #[test]
    fn overhead_is_that_of_the_last_minute_and_of_the_present_path() {
        let mut history = History::default();
        let mut tree = Tree::default();
        for (second, wire, fresh) in [(1, 5000, 1000), (2, 100, 100), (3, 1300, 1100)] {
            let mut peer = tokyo();
            peer.figures.path_statistics.insert("bytes".to_owned(), wire);
            peer.figures.path_statistics.insert("fresh-bytes".to_owned(), fresh);
            tree.peers.insert("/p".to_owned(), peer);
            history.sample(&tree, ms(second * 1000));
        }

        assert_eq!(history.overhead("/p"), Some(1.2));
    }

    fn counted(received: u64, sent: u64) -> Peer {
        let mut peer = tokyo();
        peer.figures.statistics.insert("rx-bytes".to_owned(), received);
        peer.figures.statistics.insert("tx-bytes".to_owned(), sent);
        peer
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }
}
