//! The commands' part of `/metrics`.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use prometheus::{Gauge, IntCounter, IntCounterVec, Opts, core::Collector, proto::MetricFamily};

use super::log::State;
use crate::webhooks::engine::now;

/// What is counted since the process began.
#[derive(Debug, Default)]
pub struct Counters {
    answers: Mutex<BTreeMap<u16, u64>>,
    unauthenticated: Mutex<BTreeMap<&'static str, u64>>,
    /// Commands that the control plane carried out.
    pub succeeded: AtomicU64,
    /// Commands that it has refused for good.
    pub failed: AtomicU64,
    /// Attempts that have to be made again.
    pub retried: AtomicU64,
}

impl Counters {
    /// An answer was given.
    pub fn answered(&self, status: u16) {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        *answers.entry(status).or_default() += 1;
    }

    /// A request wasn't authenticated, because of that.
    pub fn unauthenticated(&self, cause: &'static str) {
        let mut counts = self.unauthenticated.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry(cause).or_default() += 1;
    }

    /// Requests that weren't authenticated, by cause.
    pub fn noise(&self) -> BTreeMap<&'static str, u64> {
        self.unauthenticated.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Counts one.
pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// The families.
pub(crate) fn families(
    counters: &Counters,
    state: &State,
) -> prometheus::Result<Vec<MetricFamily>> {
    let opts = Opts::new("aion_inbound_requests_total", "Requests with commands, by status.");
    let answers = IntCounterVec::new(opts, &["status"])?;
    for (status, count) in &*counters.answers.lock().unwrap_or_else(PoisonError::into_inner) {
        answers.with_label_values(&[&*status.to_string()]).inc_by(*count);
    }
    let help = "Requests with commands that weren't authenticated, by what was wrong.";
    let opts = Opts::new("aion_inbound_unauthenticated_total", help);
    let noise = IntCounterVec::new(opts, &["cause"])?;
    for (cause, count) in counters.noise() {
        noise.with_label_values(&[cause]).inc_by(count);
    }
    let opts = Opts::new("aion_commands_ended_total", "Commands by how they ended, here.");
    let ended = IntCounterVec::new(opts, &["outcome"])?;
    for (outcome, count) in [("succeeded", &counters.succeeded), ("failed", &counters.failed)] {
        ended.with_label_values(&[outcome]).inc_by(count.load(Ordering::Relaxed));
    }
    let help = "Attempts to have a command carried out that have to be made again.";
    let retried = IntCounter::new("aion_command_retries_total", help)?;
    retried.inc_by(counters.retried.load(Ordering::Relaxed));
    let all = [answers.collect(), noise.collect(), ended.collect(), retried.collect()].concat();
    Ok([all, of_log(state)?].concat())
}

fn of_log(state: &State) -> prometheus::Result<Vec<MetricFamily>> {
    let help = "Commands that were accepted and have no outcome yet, of all processes.";
    let open = Gauge::new("aion_commands_open", help)?;
    open.set(state.open_size().count as f64);
    let help = "Seconds since the oldest of them was accepted, 0 when there are none.";
    let oldest = Gauge::new("aion_commands_oldest_open_seconds", help)?;
    let age = |at: aion_schemas::log::Timestamp| (now() - at.0 / 1_000).max(0) as f64 / 1e3;
    oldest.set(state.oldest_open().map_or(0.0, age));
    let help = "Records of the log of commands that aren't what the gateway writes.";
    let ignored = IntCounter::new("aion_commands_ignored_total", help)?;
    ignored.inc_by(state.ignored());
    Ok([open.collect(), oldest.collect(), ignored.collect()].concat())
}
