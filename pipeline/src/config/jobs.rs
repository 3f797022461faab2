//! Which jobs run: one for each topic and sink, unless the file says otherwise.

use std::{collections::BTreeMap, sync::Arc};

use aion_schemas::{
    catalog::{Catalog, Topic},
    suggest::nearest,
};
use aion_sinks::{clickhouse::guarantee::Guarantee, prometheus::source::Source};
use serde::Deserialize;

/// One job: a topic, and the sinks that share its decode.
#[derive(Clone, Debug)]
pub struct JobConfig {
    /// The job's name; its consumer group is `aion-<name>`.
    pub name: String,
    /// The topic it reads.
    pub topic: Arc<Topic>,
    /// The topic to which its dead letters are sent again; none for an internal topic.
    pub retries: Option<Arc<Topic>>,
    /// The sinks it writes to, at least one.
    pub sinks: Vec<SinkKind>,
    /// The share of rejected records, of the last 1,000 at least, above which a partition pauses.
    pub max_reject_share: f64,
    /// What is asked of its table in ClickHouse, where it writes to one.
    pub guarantee: Guarantee,
}

/// The kinds of sink.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SinkKind {
    /// The Delta lake.
    Lake,
    /// The ClickHouse database.
    ClickHouse,
    /// The series that Prometheus reads.
    Prometheus,
}

impl JobConfig {
    /// The topics that it reads.
    pub fn topics(&self) -> impl Iterator<Item = &Arc<Topic>> {
        [&self.topic].into_iter().chain(&self.retries)
    }

    /// Whether it writes to ClickHouse.
    pub fn is_in_clickhouse(&self) -> bool {
        self.sinks.contains(&SinkKind::ClickHouse)
    }

    /// What is asked of one of its sinks.
    pub fn guarantee_in(&self, sink: SinkKind) -> Guarantee {
        match sink {
            SinkKind::ClickHouse => self.guarantee,
            SinkKind::Lake | SinkKind::Prometheus => Guarantee::ExactlyOnce,
        }
    }
}

impl SinkKind {
    /// Its word in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            SinkKind::Lake => "lake",
            SinkKind::ClickHouse => "clickhouse",
            SinkKind::Prometheus => "prometheus",
        }
    }

    /// The table of the configuration that says that there is such a place.
    fn table(self) -> &'static str {
        match self {
            SinkKind::Lake => "[lake] with its url",
            SinkKind::ClickHouse => "[clickhouse] with its url",
            SinkKind::Prometheus => "[metrics]",
        }
    }

    /// Whether a topic has anything for it.
    fn takes(self, topic: &Topic) -> bool {
        self != SinkKind::Prometheus || Source::of(&topic.schema.name).is_some()
    }
}

/// A `[[job]]` as written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct JobFile {
    name: Option<String>,
    topic: String,
    sinks: Vec<SinkKind>,
    #[serde(default = "default_max_reject_share")]
    max_reject_share: f64,
    guarantee: Option<Guarantee>,
}

const fn default_max_reject_share() -> f64 {
    0.5
}

/// Checks the jobs of a file; without any, every topic of the catalog lands in every place, each by a
/// job of its own: a place that is down delays no other. `asked` is asked of tables in ClickHouse of which a job asks nothing
/// else.
pub(super) fn check(
    files: Vec<JobFile>,
    catalog: &Catalog,
    places: &[SinkKind],
    asked: Guarantee,
) -> Result<Vec<JobConfig>, String> {
    if files.is_empty() {
        let jobs = places.iter().flat_map(|place| defaults(catalog, *place));
        return Ok(jobs.map(|job| JobConfig { guarantee: asked, ..job }).collect());
    }
    let mut jobs = Vec::with_capacity(files.len());
    let mut writers: BTreeMap<(Arc<str>, SinkKind), String> = BTreeMap::new();
    let mut series: BTreeMap<Arc<str>, Arc<str>> = BTreeMap::new();
    for file in files {
        let job = check_one(file, catalog, asked)?;
        if jobs.iter().any(|other: &JobConfig| other.name == job.name) {
            return Err(format!("two jobs are named {:?}", job.name));
        }
        // Series say of which partition they are, and not of which topic.
        if job.sinks.contains(&SinkKind::Prometheus) {
            let (schema, topic) = (job.topic.schema.name.clone(), Arc::clone(&job.topic.name));
            if let Some(other) = series.insert(schema, topic).filter(|one| *one != job.topic.name) {
                let topic = &job.topic.name;
                return Err(format!(
                    "prometheus: topics {other} and {topic} would make the same series: leave it out of the sinks of one"
                ));
            }
        }
        for sink in &job.sinks {
            if !places.contains(sink) {
                let (name, table) = (sink.name(), sink.table());
                return Err(format!("job {:?} writes to {name}: add a {table}", job.name));
            }
            if !sink.takes(&job.topic) {
                let topic = &job.topic.name;
                return Err(format!(
                    "job {:?} writes to prometheus: no series are made of {topic}",
                    job.name
                ));
            }
            // Two jobs that write one topic to one table would each skip what the other stored.
            let key = (Arc::clone(&job.topic.name), *sink);
            if let Some(other) = writers.insert(key, job.name.clone()) {
                return Err(format!(
                    "jobs {other:?} and {:?} both write {} to the {}: one job writes a table",
                    job.name,
                    job.topic.name,
                    sink.name()
                ));
            }
        }
        jobs.push(job);
    }
    Ok(jobs)
}

fn check_one(file: JobFile, catalog: &Catalog, asked: Guarantee) -> Result<JobConfig, String> {
    let topic = catalog.topic(&file.topic).ok_or_else(|| unknown_topic(&file.topic, catalog))?;
    let Some(first) = file.sinks.first() else {
        return Err(format!("the job of {} has no sinks", file.topic));
    };
    if !(0.0..=1.0).contains(&file.max_reject_share) {
        return Err(format!("the job of {}: max_reject_share is between 0 and 1", file.topic));
    }
    if file.guarantee.is_some() && !file.sinks.contains(&SinkKind::ClickHouse) {
        return Err(format!(
            "the job of {}: guarantee is asked of a table in ClickHouse, and it writes to none",
            file.topic
        ));
    }
    Ok(JobConfig {
        name: file.name.unwrap_or_else(|| format!("{}-{}", topic.table, first.name())),
        topic: Arc::new(topic.clone()),
        retries: catalog.retries_of(topic).map(Arc::new),
        sinks: file.sinks,
        max_reject_share: file.max_reject_share,
        guarantee: file.guarantee.unwrap_or(asked),
    })
}

/// One job for each topic of the catalog, into one place.
pub fn defaults(catalog: &Catalog, place: SinkKind) -> Vec<JobConfig> {
    let job = |topic: &Topic| JobConfig {
        name: format!("{}-{}", topic.table, place.name()),
        topic: Arc::new(topic.clone()),
        retries: catalog.retries_of(topic).map(Arc::new),
        sinks: vec![place],
        max_reject_share: default_max_reject_share(),
        guarantee: Guarantee::ExactlyOnce,
    };
    catalog.topics.iter().filter(|topic| place.takes(topic)).map(job).collect()
}

fn unknown_topic(name: &str, catalog: &Catalog) -> String {
    let known = || catalog.topics.iter().map(|topic| &*topic.name);
    if let Some(near) = nearest(name, known()) {
        return format!("no topic {name:?} in the catalog; did you mean {near:?}?");
    }
    let known: Vec<&str> = known().collect();
    format!("no topic {name:?} in the catalog; known are {}", known.join(", "))
}
