//! What is audited, and where it is.

use std::{path::Path, sync::Arc};

use aion_kafka::Connection;
use aion_schemas::{
    catalog::{Catalog, Topic},
    suggest::nearest,
};
use aion_sinks::{
    clickhouse::{ClickHouse, guarantee::Guarantee},
    lake::StoreOptions,
};
use url::Url;

use super::{AuditArgs, Since, house::House, judge::WINDOW};
use crate::{
    args::lake,
    config::{Config, JobConfig, SinkKind, default_jobs, lake_url},
    data_folder::running_broker,
    exit::{Exit, Failure},
    place, storage,
};

/// Memory for the questions to the lake, where nothing else says.
const MEMORY_BYTES: usize = 256 << 20;

/// What one audit looks at.
#[derive(Clone, Debug)]
pub(super) struct Scope {
    pub(super) connection: Connection,
    pub(super) lake: Url,
    pub(super) lake_options: StoreOptions,
    /// The database whose tables are audited; none where it is the lake.
    pub(super) house: Option<House>,
    pub(super) catalog: Arc<Catalog>,
    pub(super) places: Vec<Place>,
    pub(super) since: Option<Since>,
    pub(super) memory_bytes: usize,
    /// Offsets that are compared at a time.
    pub(super) window: i64,
}

/// A topic, and the job that writes it into the store. A topic of retries is one of its own.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) topic: Arc<Topic>,
    pub(super) job: String,
    /// What the configuration asks of the table.
    pub(super) guarantee: Guarantee,
}

impl Scope {
    /// What a command line asks for, store by store.
    pub(super) fn of(args: &AuditArgs) -> anyhow::Result<Vec<Scope>> {
        let mut scopes = match &args.config {
            Some(path) => Scope::of_config(&Config::load(path)?)?,
            None => vec![Scope::of_folder(args)?],
        };
        if !args.topics.is_empty() {
            let all: Vec<Place> = scopes.iter().flat_map(|scope| scope.places.clone()).collect();
            chosen(&all, &args.topics)?;
        }
        for scope in &mut scopes {
            (scope.since, scope.window) = (args.since, args.window);
            if !args.topics.is_empty() {
                scope.places = chosen(&scope.places, &args.topics).unwrap_or_default();
            }
        }
        Ok(scopes)
    }

    /// Everything that the jobs of a configuration write, store by store: the lake first.
    pub(super) fn of_config(config: &Config) -> anyhow::Result<Vec<Scope>> {
        let lake = Scope {
            connection: config.kafka.clone(),
            lake: config.lake.url.clone(),
            lake_options: config.lake.options.clone(),
            house: None,
            catalog: Arc::new(config.catalog.clone()),
            places: places(&config.jobs, SinkKind::Lake),
            since: None,
            memory_bytes: MEMORY_BYTES,
            window: WINDOW,
        };
        let in_house = places(&config.jobs, SinkKind::ClickHouse);
        let house = match &config.clickhouse {
            Some(clickhouse) if !in_house.is_empty() => {
                let house = ClickHouse::new(clickhouse.server.clone())?;
                Some(Scope { house: Some(House::new(house)), places: in_house, ..lake.clone() })
            }
            _ => None,
        };
        let lake = (!lake.places.is_empty()).then_some(lake);
        Ok(lake.into_iter().chain(house).collect())
    }

    /// The store whose rows are audited, as gaps and reports name it.
    pub(super) fn sink(&self) -> &'static str {
        if self.house.is_some() { "clickhouse" } else { "lake" }
    }

    /// A lake and a broker without a configuration: by default those of a running `aion dev`.
    fn of_folder(args: &AuditArgs) -> anyhow::Result<Scope> {
        let catalog = lake::catalog(args.catalog.as_deref())?;
        let lake = match &args.lake {
            Some(lake) => lake_url(lake).map_err(|cause| usage(&cause))?,
            None => place::folder_url(&args.data.join("lake")).map_err(|_| no_lake(&args.data))?,
        };
        if lake.to_file_path().is_ok_and(|folder| !folder.is_dir()) {
            return Err(no_lake(Path::new(lake.path())).into());
        }
        let running = running_broker(&args.data).filter(|_| args.lake.is_none());
        let brokers = args.brokers.clone().or(running);
        let connection = args.kafka.connection(brokers.as_deref())?.ok_or_else(|| {
            let data = args.data.display();
            usage(&format!(
                "an audit needs the log, and no broker runs on {data}: start `aion dev --data \
                 {data}` in another terminal and ask again, or name a broker with --kafka, or a \
                 configuration with --config"
            ))
        })?;
        Ok(Scope {
            connection,
            lake,
            lake_options: storage::from_environment(),
            house: None,
            places: places(&default_jobs(&catalog, SinkKind::Lake), SinkKind::Lake),
            catalog: Arc::new(catalog),
            since: None,
            memory_bytes: MEMORY_BYTES,
            window: WINDOW,
        })
    }
}

fn places(jobs: &[JobConfig], sink: SinkKind) -> Vec<Place> {
    let there = jobs.iter().filter(|job| job.sinks.contains(&sink));
    let place = |job: &'_ JobConfig| {
        let (name, guarantee) = (job.name.clone(), job.guarantee_in(sink));
        let place = move |topic: &Arc<Topic>| Place {
            topic: Arc::clone(topic),
            job: name.clone(),
            guarantee,
        };
        job.topics().map(place).collect::<Vec<_>>()
    };
    there.flat_map(place).collect()
}

/// The named topics, by their name or their table's, and the topics of retries that fill the same tables.
fn chosen(places: &[Place], names: &[String]) -> Result<Vec<Place>, Failure> {
    let is = |place: &Place, name: &String| {
        [&*place.topic.name, &*place.topic.table].contains(&name.as_str())
    };
    for name in names {
        if places.iter().any(|place| is(place, name)) {
            continue;
        }
        let known = || places.iter().map(|place| &*place.topic.name);
        let hint = match nearest(name, known()) {
            Some(near) => format!("did you mean {near:?}?"),
            None => format!("known are {}", known().collect::<Vec<_>>().join(", ")),
        };
        return Err(usage(&format!("no job writes a topic {name:?}; {hint}")));
    }
    let tables = places.iter().filter(|place| names.iter().any(|name| is(place, name)));
    let tables: Vec<&str> = tables.map(|place| &*place.topic.table).collect();
    let is_chosen = |place: &&Place| tables.contains(&&*place.topic.table);
    Ok(places.iter().filter(is_chosen).cloned().collect())
}

fn no_lake(folder: &Path) -> Failure {
    let message = format!(
        "there is no lake at {}; `aion dev` makes one, or name another place with --data, --lake \
         or --config",
        folder.display()
    );
    Failure::new(Exit::Data, message)
}

fn usage(what: &str) -> Failure {
    Failure::new(Exit::Usage, what)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    #[test]
    fn topics_are_chosen_by_name_or_table_and_mistakes_are_named() {
        let all = places(&default_jobs(&Catalog::builtin(), SinkKind::Lake), SinkKind::Lake);
        let names = ["tasks".to_owned(), "aion.router.decisions".to_owned()];
        let two = chosen(&all, &names).unwrap();
        let chosen_topics: Vec<&str> = two.iter().map(|place| &*place.topic.name).collect();
        let (decisions, tasks) = ("aion.router.decisions", "aion.tasks.lifecycle");
        let retries = ["aion.retries.decisions", "aion.retries.tasks"];
        assert_eq!(chosen_topics, [decisions, retries[0], tasks, retries[1]]);
        assert_eq!(two[1].job, "decisions-lake");
        let error = chosen(&all, &["aion.router.decision".to_owned()]).unwrap_err().to_string();
        assert!(error.contains("did you mean \"aion.router.decisions\"?"), "{error}");
    }
}
