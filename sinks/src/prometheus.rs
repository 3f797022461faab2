//! Prometheus: what events add up to, kept so that no series ever falls.
//!
//! | module | what it is |
//! |---|---|
//! | [`source`] | which series a topic makes: the runtime metrics as they say themselves, and a list for the others |
//! | `names`, `buckets` | names, labels and buckets as Prometheus wants them |
//! | `tally`, `state` | adding up, and what it adds up to |
//! | `checkpoint` | one object a partition: series and mark together |
//! | `sink`, `flush` | [`PrometheusSink`]: buffers, one flush on its way |
//! | [`board`] | what may be shown: only what is checkpointed |
//! | `page` | the text that Prometheus reads |
//!
//! A flush adds the waiting rows of a partition to its series and puts them, with the mark, as one object under the
//! number after the one that was read, if that name is free. Only then are they shown, with the label `partition`, and
//! only by the process that owns the partition. So a counter is, at each moment, exactly the sum of the events below
//! the mark beside it, whatever died before.
//!
//! **Invariant:** nothing is shown that a crash could take back.
//! **Invariant:** what an event adds depends on the record and on those before it in its partition, never on the clock;
//! only whether a gauge is too old to be shown does.
//!
//! Deliberately absent: timestamps on samples (Prometheus gives its own), and sums over partitions (it adds up what
//! several processes show).

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use aion_schemas::log::{Mark, Offset, Partition};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use self::checkpoint::Checkpoints;
use crate::{lake::Lake, sink::SinkError, store::Put};

pub mod board;
mod buckets;
mod checkpoint;
mod flush;
mod names;
mod page;
mod sink;
pub mod source;
mod state;
mod tally;

pub use sink::PrometheusSink;

/// What the value of a metric means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Each value is an increment.
    Counter,
    /// Each value is a level.
    Gauge,
    /// Each value is one observation.
    Histogram,
}

/// The limits of one topic's series.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Rows are added up when they hold this many bytes.
    pub flush_bytes: usize,
    /// Rows are added up when the first has waited this long.
    pub flush_age: Duration,
    /// Above this many bytes held, waiting or on their way, batches are handed back.
    pub hold_bytes: usize,
    /// How long `assign` waits for a flush that is under way.
    pub patience: Duration,
    /// Series of one metric that a partition keeps apart; further ones are folded into one.
    pub max_series_per_metric: usize,
    /// Series of all metrics that a partition keeps apart.
    pub max_series: usize,
    /// Metrics that a partition knows; what belongs to further ones is counted, and else lost.
    pub max_metrics: usize,
    /// A gauge that was not reported for so long isn't shown.
    pub stale_after: Duration,
    /// The upper bounds of a histogram's buckets, by the metric's name as its producers write it.
    pub buckets: BTreeMap<String, Vec<f64>>,
    /// Counters and histograms that are there from the start, at 0: the first increment of a series that Prometheus
    /// has never seen is lost to `rate`.
    pub preset: Vec<Preset>,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            flush_bytes: 16 << 20,
            flush_age: Duration::from_secs(5),
            hold_bytes: 48 << 20,
            patience: Duration::from_mins(1),
            max_series_per_metric: 2_000,
            max_series: 20_000,
            max_metrics: 1_000,
            stale_after: Duration::from_mins(5),
            buckets: BTreeMap::new(),
            preset: Vec::new(),
        }
    }
}

/// A series of the runtime metrics that is known before its first event.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preset {
    /// The component that measures.
    pub component: String,
    /// The metric's name as it writes it.
    pub metric: String,
    /// What it is.
    pub kind: Kind,
    /// Its unit, where events name one.
    pub unit: Option<String>,
    /// Its labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

/// The place beside the lake's tables where series are kept.
#[derive(Debug)]
pub struct Series {
    lake: Lake,
    id: Uuid,
}

/// Where it is, below the lake's root.
const FOLDER: &str = "_aion/metrics";

impl Series {
    /// Opens the place, and makes it where there is none.
    pub async fn open(lake: &Lake) -> Result<Series, SinkError> {
        let store = lake.beside(FOLDER)?;
        store.make_folder("").await?;
        // Where it has a name, a start needs no room for another: the disk may be full.
        if store.exists(NAME).await? {
            store.sync(NAME).await?;
        } else {
            let text = serde_json::json!({ "v": 1, "id": Uuid::new_v4() }).to_string();
            store.put_entry(NAME, Bytes::from(text)).await?;
        }
        let text = store.get(NAME).await?.unwrap_or_default();
        let named: Option<Named> = serde_json::from_slice(&text).ok();
        let id = named.map(|named| named.id).ok_or_else(|| SinkError::Fatal {
            doing: format!("read {}{NAME}", store.root()),
            cause: "it doesn't say which store this is".to_owned(),
            hint: "it was not written by this program: move it away".to_owned(),
        })?;
        Ok(Series { lake: lake.clone(), id })
    }

    /// Opens the sink of a topic, which shows its series on `board`.
    pub fn sink(
        &self,
        topic: &str,
        source: source::Source,
        settings: Settings,
        board: &board::Board,
    ) -> Result<PrometheusSink, SinkError> {
        let store = self.lake.beside(&format!("{FOLDER}/{topic}"))?;
        let work = flush::Work {
            checkpoints: Checkpoints::new(store),
            source,
            settings,
            board: board.clone(),
        };
        Ok(PrometheusSink::new(Arc::new(work), self.id))
    }

    /// The mark of a partition; none before its first checkpoint.
    pub async fn mark(&self, partition: &Partition) -> Result<Option<Mark>, SinkError> {
        let found = self.checkpoints(partition)?.load(partition).await?;
        Ok(found.map(|found| found.checkpoint.mark()))
    }

    /// Takes the mark of a partition back to `to`, of a log that was cut there; whether it was above. What was counted
    /// stays counted, so no series falls; what the log has now is counted as well.
    pub async fn rewind(&self, partition: &Partition, to: Offset) -> Result<bool, SinkError> {
        let checkpoints = self.checkpoints(partition)?;
        let Some(found) = checkpoints.load(partition).await? else { return Ok(false) };
        if found.checkpoint.mark().offset <= to {
            return Ok(false);
        }
        let state = &found.checkpoint.state;
        let bytes = checkpoint::encode(partition, (Mark::at(to), Uuid::new_v4()), state)?;
        // The next number: who goes on from the one that was cut off is refused.
        match checkpoints.put(partition, found.number + 1, bytes).await? {
            Put::Created => Ok(true),
            Put::Exists => Err(SinkError::Retry {
                doing: format!("take back the mark of the series of {partition}"),
                cause: "its job has gone on meanwhile".to_owned(),
            }),
        }
    }

    fn checkpoints(&self, partition: &Partition) -> Result<Checkpoints, SinkError> {
        let topic = &partition.stream.topic;
        Ok(Checkpoints::new(self.lake.beside(&format!("{FOLDER}/{topic}"))?))
    }
}

/// A metric that is shown whatever components report.
#[derive(Clone, Debug)]
pub struct Described {
    /// Its name.
    pub name: &'static str,
    /// `counter`, `gauge`, `histogram`.
    pub kind: &'static str,
    /// Its labels, sorted.
    pub labels: Vec<&'static str>,
    /// What it is.
    pub help: &'static str,
}

/// All of them, by name.
pub fn described() -> Vec<Described> {
    let listed = source::DECISIONS.iter().chain(source::TASKS);
    let mut all: Vec<Described> = listed
        .map(|one| Described {
            name: one.name,
            kind: page::word(one.kind),
            labels: one.labels.iter().copied().chain(["partition"]).collect(),
            help: one.help,
        })
        .chain(page::described())
        .collect();
    for one in &mut all {
        one.labels.sort_unstable();
    }
    all.sort_by_key(|one| one.name);
    all
}

/// What says which store this is: processes that write here share the work.
const NAME: &str = "store.json";

#[derive(Deserialize)]
struct Named {
    id: Uuid,
}
