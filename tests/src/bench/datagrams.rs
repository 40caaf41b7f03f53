//! The highest rate of datagrams at which nearly all arrive, over a cable.
//!
//! A sender without limit would fill any queue and tell nothing of the program, so the rate is
//! looked for: it is halved between what is known to arrive and what is known to be too much. What
//! the same sender delivers past the tunnel, with no limit, in the same run, is the whole.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Result, ensure};

use super::arena::{Arena, SECOND};
use super::bulk::Figures;
use super::contest::Contestant;
use super::experiment::Effort;
use super::measures::Measure;
use super::routes::Route;
use crate::lab::outer_v4;
use crate::lab::star::number;
use crate::lab::stream::{Stream, StreamKind, StreamPlan};

/// The rate of datagrams that a contestant carries, and the share of what the bare cable delivers
///
/// # Errors
/// If a stream cannot be made, or at no rate nearly all arrive.
pub fn datagrams(contestant: Contestant, effort: Effort, seed: u64) -> Result<Figures> {
    let arena = Arena::new(Route::Cable, contestant, seed)?;
    let mut trials = Trials { arena: &arena, made: 0 };
    let whole = trials.make(outer_v4(number(1)).into(), None)?.delivered;
    ensure!(whole > 0.0, "the bare cable delivers nothing");
    let steps = match effort {
        Effort::Quick => 4,
        Effort::Full => 7,
    };
    let most = search(whole, steps, |rate| trials.make(arena.ping(), Some(rate as u32)))?;
    Ok(vec![(Measure::Datagrams, most), (Measure::DatagramsShare, 100.0 * most / whole)])
}

/// What came of one rate
#[derive(Clone, Copy, Debug)]
struct Trial {
    /// Payload that arrived, in Mbit/s
    delivered: f64,
    /// Share of the datagrams that did not
    lost: f64,
}

/// Looks for the highest rate below `whole`, in Mbit/s, at which fewer than [`LOST`] are lost
///
/// `attempt` sends at a rate; returns what was delivered at the best one.
fn search(whole: f64, steps: usize, mut attempt: impl FnMut(f64) -> Result<Trial>) -> Result<f64> {
    let (mut least, mut most, mut best) = (0.0, whole, 0.0);
    for _ in 0..steps {
        let rate = f64::midpoint(least, most);
        let mut trial = attempt(rate)?;
        // a moment's hiccup of the machine is not the program's limit
        if (LOST..HICCUP).contains(&trial.lost) {
            trial = attempt(rate)?;
        }
        if trial.lost < LOST {
            least = rate;
            best = trial.delivered.max(best);
        } else {
            most = rate;
        }
    }
    ensure!(best > 0.0, "at no rate fewer than {} % are lost", LOST * 100.0);
    Ok(best)
}

/// Sends datagrams at rates, one after the other
struct Trials<'a> {
    arena: &'a Arena,
    made: u16,
}

impl Trials<'_> {
    /// Sends at a rate in Mbit/s for a while, or without limit
    fn make(&mut self, target: IpAddr, mbits: Option<u32>) -> Result<Trial> {
        // what is late of the last trial must not be taken for the next one's
        let port = SECOND + 1 + self.made;
        self.made += 1;
        let kind = StreamKind::Udp { mbits, bytes: DATAGRAM };
        let plan = StreamPlan { target: SocketAddr::new(target, port), port, kind };
        let ground = &self.arena.ground;
        let mut stream = Stream::start(&ground.near, &ground.far, &plan)?;
        stream.reaches(SETTLED + SPAN, PATIENCE)?;
        let begin = SETTLED.as_secs_f64() - 0.01;
        let (missing, all) = stream
            .seen()
            .iter()
            .filter(|seen| seen.from >= begin)
            .fold((0, 0), |sum, seen| (sum.0 + seen.missing, sum.1 + seen.datagrams));
        let lost = if all == 0 { 1.0 } else { f64::from(missing) / f64::from(all) };
        Ok(Trial { delivered: stream.mbits(SETTLED, SETTLED + SPAN), lost })
    }
}

/// Payload of a datagram in bytes
const DATAGRAM: u32 = 1200;
/// Share of datagrams that may be lost
const LOST: f64 = 0.001;
/// Share above which a second look would not help
const HICCUP: f64 = 0.01;
/// When a stream has found its pace
const SETTLED: Duration = Duration::from_secs(1);
/// How long it is watched from then on
const SPAN: Duration = Duration::from_secs(2);
/// How much longer than its own time a stream may take
const PATIENCE: Duration = Duration::from_secs(20);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn search_comes_near_to_what_a_program_carries() {
        let carried = 321.0;
        let attempt = |rate: f64| {
            let delivered = rate.min(carried);
            Ok(Trial { delivered, lost: 1.0 - delivered / rate })
        };

        let found = search(1000.0, 7, attempt).unwrap();

        assert!((carried - 8.0..=carried).contains(&found), "{found}");
        assert!(search(1000.0, 7, |_| Ok(Trial { delivered: 9.0, lost: 0.5 })).is_err());
    }

    #[test]
    fn one_hiccup_is_forgiven() {
        let mut hiccups = [0.002].into_iter();

        let found = search(1000.0, 7, |rate| {
            Ok(Trial { delivered: rate, lost: hiccups.next().unwrap_or(0.0) })
        });

        assert!(found.unwrap() > 990.0);
    }
}
