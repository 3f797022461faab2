//! What can be asked for, and the id of it.
//!
//! **Invariant:** the id covers everything that decides which bytes come out: dataset, times, tiers in effect, layout,
//! columns, the ids of the topics. What only says how to get there, such as which store to read, isn't in it.

use std::collections::BTreeSet;

use aion_schemas::{catalog::Catalog, log::Timestamp, suggest::nearest};
use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    dataset::{self, Dataset},
    time,
};

/// What somebody asks for, as it comes over HTTP and in files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    /// The table, or `router_training`.
    pub dataset: String,
    /// From when to when events happened.
    pub interval: Interval,
    /// So many seconds after the end (for training: after the horizon) an event may still arrive; 300 if nothing is
    /// said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lateness_s: Option<u32>,
    /// For training: so many seconds after a decision its outcome counts; 3600 if nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub horizon_s: Option<u32>,
    /// Only decisions of these privacy tiers, of those that the policy lets out; all of them if nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tiers: Option<BTreeSet<String>>,
    /// Of events with the same `event_id` only the first that arrived.
    #[serde(default)]
    pub deduplicate: bool,
    /// For training: how rows are divided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split: Option<Split>,
    /// How rows are laid out in files.
    #[serde(default)]
    pub layout: Layout,
}

/// Half-open: the start belongs to it, the end doesn't.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Interval {
    /// RFC 3339.
    pub start: String,
    /// RFC 3339.
    pub end: String,
}

/// How rows are divided: by a hash of tenant and task, so that all rows of a task are on one side.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Split {
    /// Another number divides otherwise.
    pub seed: u64,
    /// Of 100 tasks, so many to train with.
    pub train: u8,
    /// So many to choose models with; the rest is to test with.
    pub validation: u8,
}

impl Default for Split {
    fn default() -> Split {
        Split { seed: 0, train: 80, validation: 10 }
    }
}

/// How rows are laid out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Layout {
    /// At most so many rows in a file.
    pub rows_per_file: u32,
    /// So many rows in a group of rows.
    pub rows_per_group: u32,
    /// Whether each UTC day has a folder of its own, `date=2026-11-23`.
    pub by_date: bool,
}

impl Default for Layout {
    fn default() -> Layout {
        Layout { rows_per_file: 500_000, rows_per_group: 100_000, by_date: false }
    }
}

/// What in a request isn't right.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct Wrong {
    /// Where, such as `interval.end`.
    pub field: String,
    /// What, and what would be right.
    pub reason: String,
}

/// A checked request.
#[derive(Clone, Debug)]
pub struct Request {
    /// What is exported.
    pub dataset: Dataset,
    /// From then.
    pub start: Timestamp,
    /// Up to then, not included.
    pub end: Timestamp,
    /// See [`Asked::lateness_s`].
    pub lateness_s: u32,
    /// See [`Asked::horizon_s`]; 0 but for training.
    pub horizon_s: u32,
    /// The tiers in effect, where rows have one.
    pub tiers: Option<BTreeSet<String>>,
    /// See [`Asked::deduplicate`].
    pub deduplicate: bool,
    /// See [`Asked::split`]; for training only.
    pub split: Option<Split>,
    /// See [`Asked::layout`].
    pub layout: Layout,
}

/// What is refused whatever is asked for.
const MAX_SECONDS: u32 = 366 * 24 * 60 * 60;
const LATENESS_S: u32 = 300;
const HORIZON_S: u32 = 3600;

impl Request {
    /// Checks what is asked for; everything that is wrong with it is said at once.
    pub fn check(
        asked: &Asked,
        catalog: &Catalog,
        allowed_tiers: &BTreeSet<String>,
    ) -> Result<Request, Vec<Wrong>> {
        let mut wrong = Vec::new();
        let mut complain = |field: &str, reason: String| {
            wrong.push(Wrong { field: field.to_owned(), reason });
        };
        let dataset = Dataset::named(&asked.dataset, catalog);
        if dataset.is_none() {
            complain("dataset", unknown_dataset(&asked.dataset, catalog));
        }
        let mut read = |field: &str, text: &str| {
            let read = time::parse(text);
            read.map_err(|reason| complain(field, reason)).ok()
        };
        let start = read("interval.start", &asked.interval.start);
        let end = read("interval.end", &asked.interval.end);
        if let (Some(start), Some(end)) = (start, end)
            && start >= end
        {
            complain("interval.end", "it has to be after interval.start".to_owned());
        }
        let is_training = dataset.as_ref().is_none_or(Dataset::is_training);
        if !is_training && asked.horizon_s.is_some() {
            complain("horizon_s", format!("only {} has one", dataset::TRAINING));
        }
        if !is_training && asked.split.is_some() {
            complain("split", format!("only {} has one", dataset::TRAINING));
        }
        let (lateness_s, horizon_s) =
            (asked.lateness_s.unwrap_or(LATENESS_S), asked.horizon_s.unwrap_or(HORIZON_S));
        if lateness_s > MAX_SECONDS {
            complain("lateness_s", "a year is the most".to_owned());
        }
        if horizon_s == 0 || horizon_s > MAX_SECONDS {
            complain("horizon_s", "between a second and a year is wanted".to_owned());
        }
        let split = asked.split.clone().unwrap_or_default();
        if u16::from(split.train) + u16::from(split.validation) > 100 {
            complain("split", "train and validation are 100 together at most".to_owned());
        }
        if let Err(reason) = asked.layout.check() {
            complain("layout", reason);
        }
        let has_tier = dataset.as_ref().is_none_or(Dataset::has_tier);
        let tiers = tiers(asked.tiers.as_ref(), allowed_tiers, has_tier);
        if let Err(reason) = &tiers {
            complain("tiers", reason.clone());
        }
        let (Some(dataset), Some(start), Some(end), Ok(tiers)) = (dataset, start, end, tiers)
        else {
            return Err(wrong);
        };
        if !wrong.is_empty() {
            return Err(wrong);
        }
        Ok(Request {
            horizon_s: if is_training { horizon_s } else { 0 },
            split: is_training.then_some(split),
            layout: asked.layout.clone(),
            deduplicate: asked.deduplicate,
            dataset,
            start,
            end,
            lateness_s,
            tiers,
        })
    }

    /// The same with everything said.
    pub fn asked(&self) -> Asked {
        let interval = Interval { start: time::rfc3339(self.start), end: time::rfc3339(self.end) };
        let is_training = self.dataset.is_training();
        Asked {
            dataset: self.dataset.name().to_owned(),
            interval,
            lateness_s: Some(self.lateness_s),
            horizon_s: is_training.then_some(self.horizon_s),
            tiers: self.tiers.clone(),
            deduplicate: self.deduplicate,
            split: self.split.clone(),
            layout: self.layout.clone(),
        }
    }

    /// The end of the time in which events count: of outcomes, later than the interval's end.
    pub fn horizon_end(&self) -> Timestamp {
        Timestamp(self.end.0.saturating_add(i64::from(self.horizon_s) * 1_000_000))
    }

    /// The boundary that has to be closed before it can be exported.
    pub fn boundary(&self) -> Timestamp {
        let late = i64::from(self.lateness_s) * 1_000_000;
        Timestamp(self.horizon_end().0.saturating_add(late))
    }

    /// What decides which bytes come out, in one form.
    pub fn canonical(&self, topic_ids: &BTreeSet<Uuid>) -> serde_json::Value {
        serde_json::json!({
            "format": 1,
            "dataset": self.dataset.name(),
            "columns": self.dataset.fingerprint(),
            "start": time::rfc3339(self.start),
            "end": time::rfc3339(self.end),
            "lateness_s": self.lateness_s,
            "horizon_s": self.horizon_s,
            "tiers": self.tiers,
            "deduplicate": self.deduplicate,
            "split": self.split,
            "layout": self.layout,
            "topic_ids": topic_ids,
        })
    }

    /// The id: the same for the same request, for whoever asks, at any time.
    pub fn id(&self, topic_ids: &BTreeSet<Uuid>) -> String {
        // The keys of its objects are sorted.
        let text = self.canonical(topic_ids).to_string();
        let hash = digest(&SHA256, text.as_bytes());
        format!("exp_{}", &hex(hash.as_ref())[..20])
    }
}

impl Layout {
    fn check(&self) -> Result<(), String> {
        let Layout { rows_per_file, rows_per_group, .. } = *self;
        if !(1000..=1_000_000).contains(&rows_per_group) {
            return Err("rows_per_group: between 1000 and 1000000 is wanted".to_owned());
        }
        if rows_per_file < rows_per_group || rows_per_file > 20_000_000 {
            return Err("rows_per_file: between rows_per_group and 20000000 is wanted".to_owned());
        }
        Ok(())
    }
}

fn tiers(
    asked: Option<&BTreeSet<String>>,
    allowed: &BTreeSet<String>,
    has_tier: bool,
) -> Result<Option<BTreeSet<String>>, String> {
    match asked {
        None => Ok(has_tier.then(|| allowed.clone())),
        Some(_) if !has_tier => Err("the rows of this dataset have no tier".to_owned()),
        Some(asked) => {
            let out: Vec<_> = asked.difference(allowed).map(String::as_str).collect();
            if out.is_empty() {
                return Ok(Some(asked.clone()));
            }
            let allowed: Vec<_> = allowed.iter().map(String::as_str).collect();
            Err(format!(
                "the policy of exports doesn't let {} out; it allows {}",
                out.join(", "),
                allowed.join(", ")
            ))
        }
    }
}

fn unknown_dataset(name: &str, catalog: &Catalog) -> String {
    let names = dataset::names(catalog);
    match nearest(name, names.iter().map(String::as_str)) {
        Some(near) => format!("there is no dataset {name:?}; did you mean {near:?}?"),
        None => format!("there is no dataset {name:?}; there are {}", names.join(", ")),
    }
}

/// Bytes in lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // Writing to a String can't fail.
        write!(text, "{byte:02x}").ok();
        text
    })
}
