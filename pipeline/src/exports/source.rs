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
