//! What the components measure about themselves, each series reported in turn.

use aion_schemas::log::Timestamp;
use uuid::Uuid;

use super::{
    event::{Event, Topic, Value},
    random::Random,
    world::World,
};

/// What a series measures, and so how its values come about.
#[derive(Clone, Copy, Debug)]
enum Shape {
    /// How often something happened since the last report: about `mean` times.
    Counter { mean: f64 },
    /// A level that wanders between two bounds.
    Gauge { low: f64, high: f64 },
    /// One measured value, long-tailed.
    Histogram { median: f64, sigma: f64 },
}

#[derive(Debug)]
struct Series {
    component: &'static str,
    metric: &'static str,
    unit: &'static str,
    labels: Labels,
    shape: Shape,
}

use Shape::{Counter, Gauge, Histogram};
use Value::{Boolean, Integer, Word};

static SERIES: [Series; 26] = [
    counter("router", "decisions_total", &[("route", Word("cloud"))], 34.0),
    counter("router", "decisions_total", &[("route", Word("local"))], 21.0),
    counter("router", "decisions_total", &[("route", Word("hybrid"))], 15.0),
    histogram("router", "decision_seconds", &[("cached", Boolean(false))], 0.0021, 0.5),
    counter("router", "policy_overrides_total", &[], 0.8),
    counter(
        "gateway",
        "requests_total",
        &[("method", Word("POST")), ("status", Integer(202))],
        60.0,
    ),
    counter(
        "gateway",
        "requests_total",
        &[("method", Word("POST")), ("status", Integer(401))],
        0.7,
    ),
    counter(
        "gateway",
        "requests_total",
        &[("method", Word("GET")), ("status", Integer(200))],
        110.0,
    ),
    histogram("gateway", "request_seconds", &[("method", Word("POST"))], 0.018, 0.8),
    gauge("gateway", "open_connections", &[("tls", Boolean(true))], "", (40.0, 400.0)),
    gauge("scheduler", "queue_depth", &[("queue", Word("interactive"))], "tasks", (0.0, 180.0)),
    gauge("scheduler", "queue_depth", &[("queue", Word("batch"))], "tasks", (20.0, 2_500.0)),
    counter("scheduler", "retries_total", &[("cause", Word("engine_unavailable"))], 1.2),
    histogram("scheduler", "wait_seconds", &[("queue", Word("interactive"))], 0.045, 1.0),
    gauge("engine-edge", "gpu_utilization", &[("gpu", Integer(0))], "ratio", (0.05, 0.99)),
    gauge("engine-edge", "gpu_utilization", &[("gpu", Integer(1))], "ratio", (0.05, 0.99)),
    counter("engine-edge", "tokens_total", &[("direction", Word("output"))], 5_200.0),
    gauge(
        "engine-on-prem",
        "memory_bytes",
        &[("pool", Word("weights"))],
        "bytes",
        (2.1e10, 7.4e10),
    ),
    histogram("engine-on-prem", "inference_seconds", &[("warm", Boolean(true))], 0.24, 0.6),
    counter("engine-on-prem", "tokens_total", &[("direction", Word("input"))], 14_000.0),
    gauge("memory", "cache_hit_ratio", &[], "ratio", (0.55, 0.97)),
    histogram("memory", "lookup_seconds", &[("store", Word("vector"))], 0.0064, 0.7),
    gauge("memory", "entries", &[("store", Word("vector"))], "", (1.0e5, 9.0e5)),
    counter("kernel", "proposals_total", &[("state", Word("approved"))], 0.3),
    gauge("kernel", "modules_loaded", &[], "", (12.0, 31.0)),
    histogram("kernel", "gc_pause_seconds", &[], 0.0009, 1.1),
];

type Labels = &'static [(&'static str, Value)];

const fn counter(
    component: &'static str,
    metric: &'static str,
    labels: Labels,
    mean: f64,
) -> Series {
    Series { component, metric, unit: "", labels, shape: Counter { mean } }
}

const fn gauge(
    component: &'static str,
    metric: &'static str,
    labels: Labels,
    unit: &'static str,
    (low, high): (f64, f64),
) -> Series {
    Series { component, metric, unit, labels, shape: Gauge { low, high } }
}

/// A duration in seconds, as all histograms here are.
const fn histogram(
    component: &'static str,
    metric: &'static str,
    labels: Labels,
    median: f64,
    sigma: f64,
) -> Series {
    Series { component, metric, unit: "seconds", labels, shape: Histogram { median, sigma } }
}

/// The stream of measurements.
#[derive(Debug)]
pub(super) struct Metrics {
    random: Random,
    at: f64,
    gap_micros: f64,
    turn: usize,
    /// Where each gauge is between its bounds, from 0 to 1.
    levels: [f64; SERIES.len()],
}

impl Metrics {
    pub(super) fn new(mut random: Random, start: i64, rate: f64) -> Metrics {
        let levels = std::array::from_fn(|_| random.between(0.2, 0.5));
        Metrics { random, at: start as f64, gap_micros: 1e6 / rate, turn: 0, levels }
    }

    /// When the next is due.
    pub(super) const fn due(&self) -> i64 {
        self.at as i64
    }

    /// The event that is due.
    pub(super) fn take(&mut self, event_id: Uuid, world: &World) -> Event {
        let time = self.due();
        let series = &SERIES[self.turn];
        let (kind, value) = self.measure(series.shape, world.load(time));
        self.turn = (self.turn + 1) % SERIES.len();
        self.at += self.gap_micros * self.random.between(0.5, 1.5);
        let mut fields = vec![
            ("event_id", Value::Id(event_id)),
            ("component", Word(series.component)),
            ("metric", Word(series.metric)),
            ("value", value),
        ];
        if !series.labels.is_empty() {
            fields.push(("labels", Value::Object(series.labels.to_vec())));
        }
        fields.push(("timestamp", Value::Time(Timestamp(time))));
        fields.push(("kind", Word(kind)));
        if !series.unit.is_empty() {
            fields.push(("unit", Word(series.unit)));
        }
        Event { topic: Topic::Metrics, time: Timestamp(time), fields }
    }

    fn measure(&mut self, shape: Shape, load: f64) -> (&'static str, Value) {
        match shape {
            Counter { mean } => {
                let mean = mean * load;
                let count = mean + libm::sqrt(mean) * self.random.between(-1.7, 1.7);
                ("counter", Integer(libm::round(count.max(0.0)) as i64))
            }
            Gauge { low, high } => {
                let level = &mut self.levels[self.turn];
                let pull = 0.1 * ((0.35 * load).min(0.95) - *level);
                *level = (*level + pull + self.random.between(-0.06, 0.06)).clamp(0.0, 1.0);
                (
                    "gauge",
                    millionths(low + (high - low) * *level, if high > 10.0 { 1.0 } else { 1e4 }),
                )
            }
            Histogram { median, sigma } => {
                ("histogram", millionths(self.random.lognormal(median, sigma), 1e6))
            }
        }
    }
}

/// A number rounded to a multiple of `1 / steps`; whole numbers as such.
fn millionths(number: f64, steps: f64) -> Value {
    let rounded = libm::round(number * steps) as i64;
    if steps <= 1.0 { Integer(rounded) } else { Value::Millionths(rounded * (1e6 / steps) as i64) }
}
