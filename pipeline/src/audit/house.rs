//! ClickHouse's side: what its tables have, by the same questions that are put to the lake, and how far they are.
//!
//! **Invariant:** the auditor's own questions: nothing here is of the sink that it judges but the way to the server.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use aion_analytics::exports::time::rfc3339;
use aion_schemas::{catalog::Topic, clickhouse::MARKS, log::Timestamp};
use aion_sinks::clickhouse::ClickHouse;
use arrow::record_batch::RecordBatch;

use super::stored::{Place, integers, places};

/// How long an answer may take.
const WITHIN: Duration = Duration::from_mins(30);

/// The database.
#[derive(Clone, Debug)]
pub(super) struct House(ClickHouse);

impl House {
    /// The tables of a database.
    pub(super) fn new(house: ClickHouse) -> House {
        House(house)
    }

    /// Asks it.
    pub(super) async fn ask(&self, sql: &str) -> anyhow::Result<Vec<RecordBatch>> {
        Ok(self.0.query(sql, WITHIN).await?)
    }

    /// A topic's table, which has every row.
    pub(super) fn table(&self, topic: &Topic) -> String {
        format!("{}.{}", self.0.database(), topic.table)
    }

    /// A time, in its SQL.
    pub(super) fn time(time: Timestamp) -> String {
        format!("parseDateTime64BestEffort('{}', 6, 'UTC')", rfc3339(time))
    }

    /// The marks of a topic's table: where its batches end, or what was noted of offsets without rows behind them.
    pub(super) fn marks(&self, topic: &Topic) -> String {
        let database = self.0.database();
        format!(
            "select id, number, max(mark) from (
                select toString(_topic_id) as id, _partition as number, max(_batch_last) + 1 as mark
                from {} group by id, number
                union all
                select topic_id as id, partition as number, toInt64(max(next)) as mark
                from {database}.{MARKS} where table_name = '{}' and kind in ('reached', 'opened')
                group by id, number)
            group by id, number",
            self.table(topic),
            topic.table
        )
    }
}

/// Reads an answer to [`House::marks`].
pub(super) fn read_marks(
    topic: &Arc<str>,
    rows: &RecordBatch,
    marks: &mut BTreeMap<Arc<str>, BTreeMap<Place, i64>>,
) -> anyhow::Result<()> {
    let (places, offsets) = (places(rows, 0, 1)?, integers(rows, 2)?);
    for (place, mark) in places.into_iter().zip(offsets.values()) {
        marks.entry(Arc::clone(topic)).or_default().insert(place, *mark);
    }
    Ok(())
}
