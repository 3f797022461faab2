//! The store that an export's rows are read from: the lake, or ClickHouse. Both have the same rows.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use aion_analytics::{
    Engine,
    exports::{
        closing::Place,
        dataset::{Dialect, Within},
        manifest::Gap,
        request::Request,
    },
};
use aion_schemas::{
    catalog::Topic,
    log::{Offset, Timestamp},
    schema::time_type,
};
use aion_sinks::clickhouse::ClickHouse;
use anyhow::Context;
use arrow::{
    array::{Array, ArrayRef, AsArray, types},
    compute::cast,
    datatypes::DataType,
    record_batch::RecordBatch,
};
use futures::{StreamExt, TryStreamExt, stream::BoxStream};
use uuid::Uuid;

use super::journal::Vectors;

const DAY_US: i64 = 86_400_000_000;
/// How long ClickHouse may take for an answer.
const WITHIN: Duration = Duration::from_hours(6);

/// A store.
#[derive(Clone, Debug)]
pub enum Source {
    /// The lake.
    Lake(Arc<Engine>),
    /// ClickHouse's tables.
    ClickHouse(ClickHouse),
}

/// Where a store's rows of a partition begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// The first offset that it has, or has accounted for.
    pub first: Offset,
    /// When a record there, or a later one, was appended first.
    pub appended: Timestamp,
}

/// Rows as they come.
pub type Rows = BoxStream<'static, anyhow::Result<RecordBatch>>;

impl Source {
    /// Its name in requests.
    pub fn name(&self) -> &'static str {
        match self {
            Source::Lake(_) => "lake",
            Source::ClickHouse(_) => "clickhouse",
        }
    }

    fn dialect(&self) -> Dialect {
        match self {
            Source::Lake(_) => Dialect::DataFusion,
            Source::ClickHouse(_) => Dialect::ClickHouse,
        }
    }

    fn prefix(&self) -> String {
        match self {
            Source::Lake(_) => String::new(),
            Source::ClickHouse(house) => format!("{}.", house.database()),
        }
    }

    async fn ask(&self, sql: &str) -> anyhow::Result<Rows> {
        tracing::debug!(sql, "export");
        Ok(match self {
            Source::Lake(engine) => {
                let answer = engine.query(sql).await.context("read the lake")?;
                answer.map(|rows| rows.context("read the lake")).boxed()
            }
            Source::ClickHouse(house) => {
                let rows = house.stream(sql, WITHIN).await?;
                rows.map_err(anyhow::Error::from).boxed()
            }
        })
    }

    async fn all(&self, sql: &str) -> anyhow::Result<Vec<RecordBatch>> {
        self.ask(sql).await?.try_collect().await
    }

    /// How far it has each partition of a topic's table, retries included.
    pub async fn marks(&self, topic: &Topic) -> anyhow::Result<BTreeMap<Place, Offset>> {
        let sql = match self {
            Source::Lake(_) => format!(
                "select topic_id, \"partition\", mark from lag where topic = '{}' and mark is not null",
                topic.name
            ),
            Source::ClickHouse(house) => house.marks(&topic.table),
        };
        offsets(&self.all(&sql).await?)
    }

    /// The first offset of each partition that was appended then or later.
    pub async fn first_after(
        &self,
        topic: &Topic,
        boundary: Timestamp,
    ) -> anyhow::Result<BTreeMap<Place, Offset>> {
        let sql = format!(
            "select _topic_id, _partition, min(_offset) from {}{} where _append_time >= {} \
             group by _topic_id, _partition",
            self.prefix(),
            topic.table,
            self.dialect().time(boundary)
        );
        offsets(&self.all(&sql).await?)
    }

    /// The version of a table of the lake; other stores have none.
    pub async fn version(&self, topic: &Topic) -> anyhow::Result<Option<i64>> {
        let Source::Lake(engine) = self else { return Ok(None) };
        Ok(engine.snapshot(&topic.table).await?.map(|snapshot| snapshot.version))
    }

    /// Retention has taken the rows that happened before; `None` where it took none. ClickHouse takes rows out by their
    /// append, and says nothing of it: there, see [`Source::heads`].
    pub async fn kept_from(&self, topic: &Topic) -> anyhow::Result<Option<Timestamp>> {
        let Source::Lake(engine) = self else { return Ok(None) };
        let day = engine.snapshot(&topic.table).await?.and_then(|snapshot| snapshot.expired_before);
        Ok(day.map(|day| Timestamp(i64::from(day) * DAY_US)))
    }

    /// Whether the lake has the row of offset 0 of each of these partitions; looked up by the statistics of files. Not
    /// asked of other stores.
    pub async fn has_all_firsts(
        &self,
        topic: &Topic,
        mut places: impl Iterator<Item = &Place>,
    ) -> anyhow::Result<bool> {
        if matches!(self, Source::ClickHouse(_)) {
            return Ok(false);
        }
        let sql =
            format!("select _topic_id, _partition, _offset from {} where _offset = 0", topic.table);
        let found = offsets(&self.all(&sql).await?)?;
        Ok(places.all(|place| found.contains_key(place)))
    }

    /// Where the rows of each partition begin. Of ClickHouse, without those that its TTL may take at any time.
    pub async fn heads(&self, topic: &Topic) -> anyhow::Result<BTreeMap<Place, Head>> {
        let table = format!("{}{}", self.prefix(), topic.table);
        let sql = match self {
            Source::Lake(_) => format!(
                "select _topic_id, _partition, min(_offset), min(_append_time) from {table} \
                 group by _topic_id, _partition"
            ),
            Source::ClickHouse(house) => {
                let days = house.kept_days(&topic.table).await?;
                let kept = days.map_or("true".to_owned(), |days| {
                    format!("_append_time >= now() - toIntervalDay({days})")
                });
                format!(
                    "select toString(_topic_id), _partition, min(_batch_first), min(_append_time) \
                     from {table} where {kept} group by _topic_id, _partition"
                )
            }
        };
        let mut heads = BTreeMap::new();
        for rows in self.all(&sql).await? {
            let times = cast(rows.column(3), &time_type()).context("read times of appends")?;
            let times = times.as_primitive::<types::TimestampMicrosecondType>().values().to_vec();
            let firsts = integers(rows.column(2))?;
            let firsts = firsts.as_primitive::<types::Int64Type>().values().to_vec();
            for ((place, first), appended) in places(&rows)?.into_iter().zip(firsts).zip(times) {
                let head = Head { first: Offset(first), appended: Timestamp(appended) };
                heads.insert(place, head);
            }
        }
        Ok(heads)
    }

    /// How many offsets of a partition before this one are dead letters. ClickHouse's ledger accounts for them itself.
    pub async fn rejected(&self, (id, number): Place, before: Offset) -> anyhow::Result<i64> {
        if matches!(self, Source::ClickHouse(_)) {
            return Ok(0);
        }
        let sql = format!(
            "select count(distinct \"offset\") from dead_letters where topic_id = '{id}' \
             and \"partition\" = {number} and \"offset\" < {before}"
        );
        let answer = self.all(&sql).await?;
        let count = answer.first().filter(|rows| rows.num_rows() == 1);
        let count = count.map(|rows| integers(rows.column(0))).transpose()?;
        Ok(count.map_or(0, |count| count.as_primitive::<types::Int64Type>().value(0)))
    }

    /// How many rows a request has, and how many came too late for it.
    pub async fn counts(&self, request: &Request, vectors: &Vectors) -> anyhow::Result<(u64, u64)> {
        let prefix = self.prefix();
        let within = Within { dialect: self.dialect(), prefix: &prefix, vectors };
        let rows = self.all(&request.dataset.counts(request, &within)).await?;
        let count = |at: usize| -> anyhow::Result<u64> {
            let Some(rows) = rows.first().filter(|rows| rows.num_rows() == 1) else { return Ok(0) };
            let column = integers(rows.column(at))?;
            let column = column.as_primitive::<types::Int64Type>();
            Ok(if column.is_null(0) { 0 } else { column.value(0).max(0) as u64 })
        };
        Ok((count(0)?, count(1)?))
    }

    /// The rows of a request, in their order.
    pub async fn rows(&self, request: &Request, vectors: &Vectors) -> anyhow::Result<Rows> {
        let prefix = self.prefix();
        let within = Within { dialect: self.dialect(), prefix: &prefix, vectors };
        self.ask(&request.dataset.rows(request, &within)).await
    }

    /// What is known to be lost below the vectors. ClickHouse is asked as well: the job that fills it has its own.
    pub async fn gaps(&self, request: &Request, vectors: &Vectors) -> anyhow::Result<Vec<Gap>> {
        let prefix = self.prefix();
        let mut gaps = Vec::new();
        for topic in request.dataset.topics() {
            let sql = format!(
                "select distinct topic_id, \"partition\", first, next, reason from {prefix}gaps where topic = '{}' \
                 order by topic_id, \"partition\", first, reason",
                topic.name
            );
            let Some(vector) = vectors.get(&topic.table) else { continue };
            for rows in self.all(&sql).await? {
                let (places, firsts, ends) =
                    (places(&rows)?, integers(rows.column(2))?, integers(rows.column(3))?);
                let reasons = cast(rows.column(4), &DataType::Utf8).context("read reasons")?;
                for (row, (id, partition)) in places.into_iter().enumerate() {
                    let at =
                        |column: &ArrayRef| column.as_primitive::<types::Int64Type>().value(row);
                    let first = at(&firsts);
                    if vector.0.get(&(id, partition)).is_some_and(|end| first < end.0) {
                        gaps.push(Gap {
                            table: Arc::clone(&topic.table),
                            topic_id: id.to_string(),
                            partition,
                            first,
                            end: at(&ends),
                            reason: reasons.as_string::<i32>().value(row).to_owned(),
                        });
                    }
                }
            }
        }
        Ok(gaps)
    }
}

fn integers(column: &ArrayRef) -> anyhow::Result<ArrayRef> {
    cast(column, &DataType::Int64).context("read whole numbers of a store's answer")
}

/// The first two columns: topic id and partition.
fn places(rows: &RecordBatch) -> anyhow::Result<Vec<Place>> {
    let ids = cast(rows.column(0), &DataType::Utf8).context("read topic ids")?;
    let (ids, numbers) = (ids.as_string::<i32>(), integers(rows.column(1))?);
    let numbers = numbers.as_primitive::<types::Int64Type>();
    let place = |row: usize| {
        let id = Uuid::parse_str(ids.value(row));
        Ok((id.context("a topic id isn't a uuid")?, numbers.value(row) as i32))
    };
    (0..rows.num_rows()).map(place).collect()
}

/// Rows of topic id, partition, offset.
fn offsets(answer: &[RecordBatch]) -> anyhow::Result<BTreeMap<Place, Offset>> {
    let mut found = BTreeMap::new();
    for rows in answer {
        let offsets = integers(rows.column(2))?;
        let offsets = offsets.as_primitive::<types::Int64Type>().values().iter();
        found.extend(places(rows)?.into_iter().zip(offsets.map(|offset| Offset(*offset))));
    }
    Ok(found)
}
