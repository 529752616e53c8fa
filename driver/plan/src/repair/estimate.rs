//! Estimate: when each volume will have its replicas again. The copies are played forward as a fluid: everyone goes at
//! its rate until somebody has finished, then the rates are given out again to those that are left, by the rules of
//! `share.rs`, and so on. A copy that runs goes as fast as it was measured to go; one that waits will go as fast as it
//! is given, times what those that run make of what they are given. Rates of nodes are taken to stay what they are.
//! A rate counts as measured when the copy has been given something for [`SETTLED`]: before that it is an average over
//! a time in which it stood still.
//!
//! After [`ROUNDS_MAX`] finishes what is left is taken to go one after the other at the rate of all together: far away,
//! an estimate by the queue alone will do.

use super::clock::Lasting;
use super::grace::View;
use super::order::Case;
use super::share::{Copying, Shares, shares};
use super::{Forecast, pace::Pace};
use ashlar_types::{Duration, VolumeId};
use std::collections::BTreeMap;

const ROUNDS_MAX: usize = 32;
/// Some reports of the writer, one a second.
const SETTLED: Duration = Duration::from_secs(4);
const MILLION: u64 = 1_000_000;

pub(super) fn forecasts<'a>(
    view: &View<'a>,
    cases: &[Case],
    copying: &[Copying<'a>],
    given: &Shares,
    pace: &Pace,
    running: &Lasting<VolumeId>,
) -> BTreeMap<VolumeId, Forecast> {
    let rates = copying.iter().filter_map(|copying| Some((copying.id, measured(view, copying, running)?)));
    let finishes = finishes(view, copying, given, pace, &rates.collect());
    let unprotected = cases.iter().filter(|case| case.is_unprotected()).enumerate();
    let forecast = |(position, case): (usize, &Case)| {
        let will_do = case.volume.fewest(|member| view.is_safe(member) || view.seen.is_alive(member.disk));
        let protected_in = finishes.get(&case.id).copied().filter(|_| will_do >= case.volume.replicas);
        (case.id, Forecast { position, remaining: case.volume.remaining(), protected_in })
    };
    unprotected.map(forecast).collect()
}

/// A copy as it is played forward.
struct Flow<'a> {
    copying: Copying<'a>,
    left: u64,
    rate: u64,
}

/// `measured`: the rates of copies that run.
fn finishes<'a>(
    view: &View<'a>,
    copying: &[Copying<'a>],
    given: &Shares,
    pace: &Pace,
    measured: &BTreeMap<VolumeId, u64>,
) -> BTreeMap<VolumeId, Duration> {
    let yield_millionths = yield_of(given, measured);
    let flow = |copying: &Copying<'a>| {
        let promised = given.given[&copying.id].rate.0;
        let rate = measured.get(&copying.id).copied().unwrap_or(scaled(promised, yield_millionths));
        Flow { copying: copying.clone(), left: copying.volume.remaining().0, rate }
    };
    let mut flows: Vec<Flow> = copying.iter().map(flow).collect();
    let (mut finishes, mut elapsed) = (BTreeMap::new(), Duration::ZERO);
    for _ in 0..ROUNDS_MAX {
        let Some(step) = flows.iter().filter_map(|flow| time_for(flow.left, flow.rate)).min() else { break };
        elapsed = elapsed.saturating_add(step);
        for flow in &mut flows {
            flow.left = flow.left.saturating_sub(moved(flow.rate, step));
        }
        flows.retain(|flow| {
            let is_done = flow.left == 0;
            is_done.then(|| finishes.insert(flow.copying.id, elapsed));
            !is_done
        });
        let left: Vec<Copying> = flows.iter().map(|flow| flow.copying.clone()).collect();
        let shares = shares(view, &left, pace);
        for flow in &mut flows {
            let promised = shares.given[&flow.copying.id].rate.0;
            let is_running = flow.rate > 0 && promised == given.given[&flow.copying.id].rate.0;
            flow.rate = if is_running { flow.rate } else { scaled(promised, yield_millionths) };
        }
    }
    let together = flows.iter().map(|flow| flow.rate).fold(0, u64::saturating_add);
    let mut ahead = 0u64;
    for flow in &flows {
        ahead = ahead.saturating_add(flow.left);
        if let Some(time) = time_for(ahead, together) {
            finishes.insert(flow.copying.id, elapsed.saturating_add(time));
        }
    }
    finishes
}

/// What running copies make of the rate that they are given, in millionths.
fn yield_of(given: &Shares, measured: &BTreeMap<VolumeId, u64>) -> u64 {
    let (mut promised, mut made) = (0u128, 0u128);
    for (id, &measured) in measured {
        let rate = given.given[id].rate.0;
        promised += u128::from(rate);
        made += u128::from(measured.min(rate));
    }
    let millionths = (made * u128::from(MILLION)).checked_div(promised);
    millionths.map_or(MILLION, |millionths| (millionths as u64).max(1))
}

/// All members together; `None`: nothing was measured, or nothing went.
fn measured(view: &View, copying: &Copying, running: &Lasting<VolumeId>) -> Option<u64> {
    running.lasted(&copying.id, view.now).filter(|&time| time >= SETTLED)?;
    let rates = copying.volume.held().filter_map(|(_, member)| member.copy?.rate);
    Some(rates.map(|rate| rate.0).fold(0, u64::saturating_add)).filter(|&rate| rate > 0)
}

fn scaled(rate: u64, millionths: u64) -> u64 {
    (u128::from(rate) * u128::from(millionths) / u128::from(MILLION)) as u64
}

fn time_for(bytes: u64, rate: u64) -> Option<Duration> {
    let micros = (u128::from(bytes) * u128::from(MILLION)).checked_div(u128::from(rate))?;
    Some(Duration::from_micros(u64::try_from(micros + 1).unwrap_or(u64::MAX)))
}

fn moved(rate: u64, time: Duration) -> u64 {
    u64::try_from((u128::from(rate) * time.as_micros()).div_ceil(u128::from(MILLION))).unwrap_or(u64::MAX)
}
