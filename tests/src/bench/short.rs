//! Short transfers over an idle link: objects, answers and pings.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};

use super::arena::{Arena, SERVICE};
use super::bulk::Figures;
use super::contest::Contestant;
use super::measures::Measure;
use super::routes::Route;
use super::stats::{in_units, percentile};
use crate::lab::exchange::{self, ExchangePlan};
use crate::lab::load;
use crate::lab::star::{NETWORK, PATIENCE};

/// 100 KB over new connections, where the hosts have talked before
///
/// # Errors
/// If the tunnel does not come up.
pub fn objects(route: Route, contestant: Contestant, count: usize, seed: u64) -> Result<Figures> {
    let arena = Arena::new(route, contestant, seed)?;
    let plan = object(&arena, count);
    let times = exchange::fetches(&arena.ground.near, &arena.ground.far, &plan)?;
    let times = in_units(&times, route.rtt(), plan.patience);
    Ok(figures(&times, [(Measure::ObjectMedian, 50.0), (Measure::Object95, 95.0)]))
}

/// 100 KB over the first connection after the near daemon was started
///
/// # Errors
/// If the tunnel does not come up.
pub fn cold(route: Route, contestant: Contestant, count: usize, seed: u64) -> Result<Figures> {
    let mut arena = Arena::new(route, contestant, seed)?;
    let plan = ExchangePlan { pause: Duration::ZERO, ..object(&arena, 1) };
    let mut times = Vec::new();
    for _ in 0..count {
        let star = arena.ground.star().context("only fastvpn is measured cold")?;
        star.peers[0].stop()?;
        star.peers[0].start()?;
        star.peers[0].await_state(NETWORK, "up", PATIENCE)?;
        times.extend(exchange::fetches(&arena.ground.near, &arena.ground.far, &plan)?);
    }
    let times = in_units(&times, route.rtt(), plan.patience);
    Ok(figures(&times, [(Measure::ColdMedian, 50.0)]))
}

/// 200 bytes for 200 bytes, on connections that stay open
///
/// # Errors
/// If the tunnel does not come up.
pub fn requests(route: Route, contestant: Contestant, count: usize, seed: u64) -> Result<Figures> {
    let arena = Arena::new(route, contestant, seed)?;
    let plan = ExchangePlan {
        request: 200,
        answer: 200,
        count: count / CONNECTIONS,
        pause: Duration::from_millis(160),
        ..object(&arena, count)
    };
    let (near, far) = (Arc::clone(&arena.ground.near), &arena.ground.far);
    let times = exchange::answers(&near, far, &plan, CONNECTIONS)?;
    let times = in_units(&times, route.rtt(), plan.patience);
    Ok(figures(&times, [(Measure::Request95, 95.0), (Measure::Request99, 99.0)]))
}

/// Ten pings a second
///
/// # Errors
/// If the tunnel does not come up.
pub fn pings(route: Route, contestant: Contestant, count: u32, seed: u64) -> Result<Figures> {
    let arena = Arena::new(route, contestant, seed)?;
    let interval = Duration::from_millis(100);
    let report = load::ping(&arena.ground.near, arena.ping(), count, interval)?;
    let lost = report.sent - report.received.min(report.sent);
    let mut figures = vec![(Measure::IdleLost, 100.0 * f64::from(lost) / f64::from(report.sent))];
    if let (Some(rtt), Some(least)) = (percentile(&report.rtts, 99.0), report.rtt_min()) {
        figures.push((Measure::Idle99, rtt - least));
    }
    Ok(figures)
}

fn object(arena: &Arena, count: usize) -> ExchangePlan {
    ExchangePlan {
        target: arena.service(),
        port: SERVICE,
        congestion: arena.contestant.congestion(),
        request: 100,
        answer: 100_000,
        count,
        pause: Duration::from_millis(300),
        patience: Duration::from_secs(20),
        limit: LIMIT,
    }
}

fn figures<const N: usize>(times: &[f64], wanted: [(Measure, f64); N]) -> Figures {
    wanted
        .into_iter()
        .filter_map(|(measure, percent)| Some((measure, percentile(times, percent)?)))
        .collect()
}

/// Connections on which requests are made at the same time
pub const CONNECTIONS: usize = 4;
/// No exchange begins after this
pub const LIMIT: Duration = Duration::from_secs(60);
