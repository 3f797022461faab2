//! The status, told about once a second.

use super::{Engine, Serving, now};
use crate::webhooks::{
    cursor::Millis,
    status::{EndpointStatus, State},
};

/// So many records more than its window make an endpoint behind.
const BEHIND: u64 = 1_000;

impl Engine {
    /// Tells the status of all endpoints.
    pub(super) fn tell(&self) {
        let endpoints = self.endpoints.iter().map(|(id, one)| self.status_of(*id, one)).collect();
        let partitions = self.sources.len();
        self.statuses.change(|status| {
            (status.endpoints, status.partitions) = (endpoints, partitions);
        });
    }

    fn status_of(&self, id: u32, endpoint: &Serving) -> EndpointStatus {
        let lanes = || endpoint.lanes.iter().filter_map(|uid| self.lanes.get(uid));
        let tried = || {
            lanes()
                .flat_map(|one| one.lane.cursor().holes.values())
                .filter(|hole| hole.attempts > 0)
        };
        let oldest: Option<Millis> = tried().map(|hole| hole.first_at).min();
        EndpointStatus {
            id: endpoint.config.id.clone(),
            state: self.state_of(endpoint, id),
            lag: self.lag_of(id),
            holes: tried().count() as u64,
            oldest,
            in_flight: endpoint.in_flight as u64,
            error: endpoint.disabled.clone().or_else(|| endpoint.error.clone()),
            counters: endpoint.counters.clone(),
        }
    }

    /// How an endpoint is.
    pub(super) fn state_of(&self, endpoint: &Serving, id: u32) -> State {
        let is_born = {
            let own = self.own.lock();
            own.controls.patterns(&endpoint.config.id) == Some(&endpoint.patterns[..])
        };
        if endpoint.disabled.is_some() {
            State::Disabled
        } else if !is_born {
            State::Waiting
        } else if endpoint.breaker.open_since().is_some() || now() < endpoint.hold_until {
            State::Failing
        } else if self.lag_of(id) > BEHIND + endpoint.config.max_in_flight as u64 {
            State::Behind
        } else {
            State::Live
        }
    }

    /// Records that an endpoint hasn't got yet, as far as known.
    pub(super) fn lag_of(&self, id: u32) -> u64 {
        let Some(endpoint) = self.endpoints.get(&id) else { return 0 };
        endpoint.lanes.iter().map(|uid| self.lag_of_lane(*uid)).sum()
    }

    /// The same of one partition.
    pub(super) fn lag_of_lane(&self, uid: u64) -> u64 {
        let Some(working) = self.lanes.get(&uid) else { return 0 };
        let Some(source) = self.sources.get(&working.source) else { return 0 };
        let cursor = working.lane.cursor();
        let redo: i64 = cursor.redo.iter().map(|range| range.end - range.start).sum();
        let lag = (source.high - cursor.next).max(0) + redo + cursor.holes.len() as i64;
        lag.unsigned_abs()
    }
}
