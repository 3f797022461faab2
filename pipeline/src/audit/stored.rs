//! The store's side: marks, and which offsets have rows, by the SQL engine that people ask too. Dead letters and
//! gaps are the lake's, whichever store is audited.
//!
//! A window's rows are asked for by topic id, partition and offsets; the engine opens only the
//! files, and decodes only the pages, whose statistics overlap it.
//!
//! **Invariant:** marks are read before rows where rows must not be missed, and once more after
//! them where rows must not be too many: a writer may go on meanwhile.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use aion_analytics::{Asker, Engine, Settings, exports::time::rfc3339};
use aion_schemas::{
    catalog::{DEAD_LETTERS, GAPS, Topic},
    log::Timestamp,
};
use anyhow::{Context, bail};
use arrow::{
    array::{Array, AsArray, Int32Array, Int64Array},
    compute,
    datatypes::{DataType, Int32Type, Int64Type},
    record_batch::RecordBatch,
};
use futures::TryStreamExt;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    account::{Run, Window},
    digest,
    house::{self, House},
    scope::Scope,
    since::now,
};
use crate::exit::{Exit, Failure};

/// No query of an audit is given up before: a lake may be large.
const DEADLINE: Duration = Duration::from_hours(24);

/// A partition of one incarnation of a topic.
pub(super) type Place = (Uuid, i32);

/// The stores, open for questions.
pub(super) struct Stores {
    engine: Engine,
    /// Whose rows are audited, where it isn't the lake.
    house: Option<House>,
    topics: Vec<Arc<Topic>>,
    runtime: Runtime,
    cancel: CancellationToken,
}

/// What a table has of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rows {
    pub(super) count: u64,
    pub(super) first: i64,
    pub(super) last: i64,
}

/// A dead letter or a gap, as the lake has it.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) job: String,
    pub(super) place: Place,
    pub(super) run: Run,
    pub(super) reason: String,
    /// When it was written down, in microseconds since 1970; 0 of dead letters.
    pub(super) at: i64,
}

impl Stores {
    /// Opens the stores of an audit.
    pub(super) fn open(scope: &Scope, cancel: &CancellationToken) -> anyhow::Result<Stores> {
        let mut settings = Settings::new(scope.lake.clone(), Arc::clone(&scope.catalog));
        settings.lake_options = scope.lake_options.clone();
        settings.memory_bytes = scope.memory_bytes;
        settings.deadline = DEADLINE;
        settings.asker = Asker::Audit;
        settings.threads = settings.threads.min(4);
        let engine =
            Engine::open(settings).map_err(|cause| Failure::new(Exit::Data, cause.to_string()))?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("start the runtime of the audit")?;
        let topics = scope.places.iter().map(|place| Arc::clone(&place.topic)).collect();
        let house = scope.house.clone();
        Ok(Stores { engine, house, topics, runtime, cancel: cancel.clone() })
    }

    /// Every table's marks, by topic.
    pub(super) fn marks(&self) -> anyhow::Result<BTreeMap<Arc<str>, BTreeMap<Place, i64>>> {
        let mut marks = BTreeMap::<Arc<str>, BTreeMap<Place, i64>>::new();
        if let Some(house) = &self.house {
            for topic in self.topics.iter().filter(|topic| !topic.is_retries()) {
                let name = &topic.name;
                self.each_row(&house.marks(topic), |rows| {
                    house::read_marks(name, rows, &mut marks)
                })?;
            }
            return Ok(marks);
        }
        let query = r#"select topic, topic_id, "partition", mark from lag where mark is not null"#;
        self.each(query, |rows| {
            let (topics, places, offsets) =
                (texts(rows, 0)?, places(rows, 1, 2)?, integers(rows, 3)?);
            for ((topic, place), mark) in topics.into_iter().zip(places).zip(offsets.values()) {
                marks.entry(topic.into()).or_default().insert(place, *mark);
            }
            Ok(())
        })?;
        Ok(marks)
    }

    /// From when on a topic's table has every row; `None` where it has all. Of the lake nothing is taken that the log has.
    pub(super) fn kept_since(&self, topic: &Topic) -> anyhow::Result<Option<Timestamp>> {
        let Some(house) = &self.house else { return Ok(None) };
        self.runtime.block_on(house.kept_since(topic, now()))
    }

    /// What a topic's table has of each partition, of any incarnation; of rows appended since. The rows of
    /// retries are those of their own topic.
    pub(super) fn census(
        &self,
        topic: &Topic,
        since: Option<Timestamp>,
    ) -> anyhow::Result<BTreeMap<Place, Rows>> {
        let not = if topic.is_retries() { "not " } else { "" };
        let recent = since.map_or_else(String::new, |since| {
            let time = match &self.house {
                Some(_) => House::time(since),
                None => format!("'{}'", rfc3339(since)),
            };
            format!(" and \"_append_time\" >= {time}")
        });
        let query = format!(
            "select \"_topic_id\", \"_partition\", count(*), min(\"_offset\"), max(\"_offset\") \
             from {} where \"_origin\" is {not}null{recent} group by 1, 2",
            self.table(topic)
        );
        let mut census = BTreeMap::new();
        self.each_row(&query, |rows| {
            let places = places(rows, 0, 1)?;
            let (counts, firsts, lasts) =
                (integers(rows, 2)?, integers(rows, 3)?, integers(rows, 4)?);
            for (row, place) in places.into_iter().enumerate() {
                let (first, last) = (firsts.value(row), lasts.value(row));
                census.insert(place, Rows { count: counts.value(row) as u64, first, last });
            }
            Ok(())
        })?;
        Ok(census)
    }

    /// Notes the rows that a window has.
    pub(super) fn fill(
        &self,
        topic: &Topic,
        place: Place,
        window: &mut Window,
    ) -> anyhow::Result<()> {
        let query = format!("select \"_offset\" {}", self.from(topic, place, &window.run()));
        self.each_row(&query, |rows| {
            integers(rows, 0)?.values().iter().for_each(|offset| window.row(*offset));
            Ok(())
        })
    }

    /// Notes the rows of retries that a window has; answers what each says that it repeats.
    pub(super) fn fill_retries(
        &self,
        topic: &Topic,
        place: Place,
        window: &mut Window,
    ) -> anyhow::Result<Vec<(i64, String)>> {
        let query =
            format!("select \"_offset\", \"_origin\" {}", self.from(topic, place, &window.run()));
        let mut found = Vec::new();
        self.each_row(&query, |rows| {
            for (offset, origin) in integers(rows, 0)?.values().iter().zip(texts(rows, 1)?) {
                window.row(*offset);
                found.push((*offset, origin));
            }
            Ok(())
        })?;
        Ok(found)
    }

    /// Tells of each record that a table has a retry of, and of how many.
    pub(super) fn origins(
        &self,
        topic: &Topic,
        mut take: impl FnMut(&str, i64),
    ) -> anyhow::Result<()> {
        let query = format!(
            "select \"_origin\", count(*) from {} where \"_origin\" is not null group by 1",
            self.table(topic)
        );
        self.each_row(&query, |rows| {
            let (origins, counts) = (texts(rows, 0)?, integers(rows, 1)?);
            origins.iter().zip(counts.values()).for_each(|(origin, count)| take(origin, *count));
            Ok(())
        })
    }

    /// How many rows of a partition there are in a run, and the first of them.
    pub(super) fn rows(
        &self,
        topic: &Topic,
        place: Place,
        run: &Run,
    ) -> anyhow::Result<(u64, Option<i64>)> {
        let query = format!("select count(*), min(\"_offset\") {}", self.from(topic, place, run));
        let mut found = (0, None);
        self.each_row(&query, |rows| {
            let (counts, firsts) = (integers(rows, 0)?, integers(rows, 1)?);
            for row in 0..rows.num_rows() {
                found = (counts.value(row) as u64, firsts.is_valid(row).then(|| firsts.value(row)));
            }
            Ok(())
        })?;
        Ok(found)
    }

    /// What the rows of a partition say, in a run.
    pub(super) fn digests(
        &self,
        topic: &Topic,
        place: Place,
        run: &Run,
    ) -> anyhow::Result<Vec<digest::Row>> {
        let columns = digest::columns(&topic.schema);
        let query = format!("select {columns} {}", self.from(topic, place, run));
        let mut found = Vec::new();
        self.each_row(&query, |rows| {
            found.extend(digest::rows(&topic.schema, rows)?);
            Ok(())
        })?;
        Ok(found)
    }

    /// The entries of a table of dead letters.
    pub(super) fn dead_letters(
        &self,
        topic: &Topic,
        take: impl FnMut(Entry),
    ) -> anyhow::Result<()> {
        let columns = r#"job, topic_id, "partition", "offset", "offset" + 1, reason, 0"#;
        self.entries(topic, columns, take)
    }

    /// The entries of a table of gaps.
    pub(super) fn gaps(&self, topic: &Topic, take: impl FnMut(Entry)) -> anyhow::Result<()> {
        self.entries(
            topic,
            r#"job, topic_id, "partition", "first", "next", reason, recorded_at"#,
            take,
        )
    }

    fn entries(
        &self,
        topic: &Topic,
        columns: &str,
        mut take: impl FnMut(Entry),
    ) -> anyhow::Result<()> {
        self.each(&format!("select {columns} from {}", table(topic)), |rows| {
            let (jobs, reasons) = (texts(rows, 0)?, texts(rows, 5)?);
            let places = places(rows, 1, 2)?;
            let (firsts, nexts) = (integers(rows, 3)?, integers(rows, 4)?);
            let times = integers(rows, 6)?;
            for (row, place) in places.into_iter().enumerate() {
                let run = firsts.value(row)..nexts.value(row);
                let (job, reason) = (jobs[row].clone(), reasons[row].clone());
                take(Entry { job, place, run, reason, at: times.value(row) });
            }
            Ok(())
        })
    }

    /// Asks the store that is audited.
    fn each_row(
        &self,
        query: &str,
        mut take: impl FnMut(&RecordBatch) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let Some(house) = &self.house else { return self.each(query, take) };
        let answer = self.runtime.block_on(async {
            tokio::select! {
                answered = house.ask(query) => answered,
                () = self.cancel.cancelled() => bail!("the audit was stopped"),
            }
        })?;
        answer.iter().try_for_each(&mut take)
    }

    /// The table of a topic, with every row that is stored.
    fn table(&self, topic: &Topic) -> String {
        self.house.as_ref().map_or_else(|| table(topic), |house| house.table(topic))
    }

    fn from(&self, topic: &Topic, (id, partition): Place, run: &Run) -> String {
        format!(
            "from {} where \"_partition\" = {partition} and \"_offset\" >= {} and \"_offset\" < {} \
             and \"_topic_id\" = '{id}'",
            self.table(topic),
            run.start,
            run.end
        )
    }

    /// Asks the lake.
    fn each(
        &self,
        query: &str,
        mut take: impl FnMut(&RecordBatch) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let ask = async {
            let mut answer = self.engine.query(query).await?;
            while let Some(rows) = answer.try_next().await? {
                take(&rows)?;
            }
            Ok(())
        };
        self.runtime.block_on(async {
            // Leaving stops the query: a process that ends doesn't wait for a long one.
            tokio::select! {
                answered = ask => answered,
                () = self.cancel.cancelled() => bail!("the audit was stopped"),
            }
        })
    }
}

/// The table of a topic with every row that is stored, repetitions included.
fn table(topic: &Topic) -> String {
    let raw = if [DEAD_LETTERS, GAPS].contains(&&*topic.name) { "_raw" } else { "" };
    format!("\"{}{raw}\"", topic.table)
}

pub(super) fn integers(rows: &RecordBatch, column: usize) -> anyhow::Result<Int64Array> {
    let wide = compute::cast(rows.column(column), &DataType::Int64)?;
    Ok(wide.as_primitive::<Int64Type>().clone())
}

fn texts(rows: &RecordBatch, column: usize) -> anyhow::Result<Vec<String>> {
    let texts = compute::cast(rows.column(column), &DataType::Utf8)?;
    let texts = texts.as_string::<i32>();
    Ok(texts.iter().map(|text| text.unwrap_or_default().to_owned()).collect())
}

/// Topic ids and partition numbers; an id that is none is the nil one, which no topic has.
pub(super) fn places(rows: &RecordBatch, ids: usize, numbers: usize) -> anyhow::Result<Vec<Place>> {
    let ids = texts(rows, ids)?;
    let numbers = compute::cast(rows.column(numbers), &DataType::Int32)?;
    let numbers: &Int32Array = numbers.as_primitive::<Int32Type>();
    let place = |(id, number): (String, Option<i32>)| {
        (Uuid::parse_str(&id).unwrap_or_default(), number.unwrap_or(-1))
    };
    Ok(ids.into_iter().zip(numbers).map(place).collect())
}
