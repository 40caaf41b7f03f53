//! Speed over a cable: datagrams, turns, what a gigabyte costs, and all of it on a single core.
//!
//! One TCP stream there is measured as on any link, by [`super::bulk::stream`]. What
//! is a share of the cable's own is measured beside it, between the same two hosts, in the same run.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use super::arena::{Arena, SERVICE};
use super::bulk::{self, Figures, Span};
use super::contest::Contestant;
use super::measures::Measure;
use super::routes::Route;
use crate::lab::outer_v4;
use crate::lab::star::number;
use crate::lab::stream::{Stream, StreamKind, StreamPlan};
use crate::lab::turns::turns;

/// Questions and answers of one byte: how many a second, and the share of the cable's own
///
/// # Errors
/// If a connection cannot be made.
pub fn round_trips(contestant: Contestant, time: Duration, seed: u64) -> Result<Figures> {
    let arena = Arena::new(Route::Cable, contestant, seed)?;
    let (near, far) = (&arena.ground.near, &arena.ground.far);
    let there = turns(near, far, arena.service(), time)?;
    let mut figures = vec![(Measure::Turns, there)];
    if arena.service() != bare() {
        let bare = turns(near, far, bare(), time).context("beside the tunnel")?;
        figures.push((Measure::TurnsShare, 100.0 * there / bare));
    }
    Ok(figures)
}

/// Processor time of both ends for a gigabyte at 500 Mbit/s, or at what the program reaches
///
/// # Errors
/// If the stream cannot be made.
pub fn cost(contestant: Contestant, span: Span, seed: u64) -> Result<Figures> {
    let arena = Arena::new(Route::Cable, contestant, seed)?;
    let kind = StreamKind::Paced { congestion: contestant.congestion(), mbits: PACE };
    let plan = StreamPlan { target: arena.service(), port: SERVICE, kind };
    let mut stream = Stream::start(&arena.ground.near, &arena.ground.far, &plan)?;
    stream.reaches(span.from, PATIENCE)?;
    let (from, before) = (stream.reported(), arena.processor());
    stream.reaches(span.to, PATIENCE)?;
    let (to, after) = (stream.reported(), arena.processor());
    let bytes = stream.bytes(from, to);
    ensure!(bytes > 0.0, "nothing arrived");
    let used = after.saturating_sub(before).as_secs_f64();
    Ok(vec![(Measure::Cost, used * 1e9 / bytes)])
}

/// One TCP stream where both programs, both ends of the stream and the kernel share one core
///
/// # Errors
/// If the stream cannot be made, or this process may not choose its core.
pub fn one_core(contestant: Contestant, span: Span, seed: u64) -> Result<Figures> {
    stay_on_one_core()?;
    let figures = bulk::stream(Route::Cable, contestant, span, seed)?;
    let as_here = |(measure, value)| match measure {
        Measure::Bulk => Some((Measure::OneCore, value)),
        Measure::BusyLost => Some((Measure::OneCoreLost, value)),
        Measure::BusyMedian => Some((Measure::OneCoreMedian, value)),
        Measure::Busy99 => Some((Measure::OneCore99, value)),
        _ => None,
    };
    Ok(figures.into_iter().filter_map(as_here).collect())
}

/// Keeps this thread, and all threads and programs that come of it, on the first core it may use
fn stay_on_one_core() -> Result<()> {
    let may = sched_getaffinity(None).context("which cores?")?;
    let first = (0..CpuSet::MAX_CPU).find(|core| may.is_set(*core)).context("no core")?;
    let mut one = CpuSet::new();
    one.set(first);
    sched_setaffinity(None, &one).context("one core alone")
}

/// The service without a tunnel
fn bare() -> SocketAddr {
    (outer_v4(number(1)), SERVICE).into()
}

/// Payload in Mbit/s at which the cost is taken
const PACE: u32 = 500;
/// How much longer than its own time a stream may take
const PATIENCE: Duration = Duration::from_secs(20);
