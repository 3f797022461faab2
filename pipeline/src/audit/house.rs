//! ClickHouse's side: what its tables have, by the same questions that are put to the lake, and how far they are.
//!
//! **Invariant:** the auditor's own questions: nothing here is of the sink that it judges but the way to the server, and
//! how long that says it keeps rows.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use aion_analytics::exports::time::rfc3339;
use aion_schemas::{catalog::Topic, clickhouse::MARKS, log::Timestamp};
use aion_sinks::clickhouse::ClickHouse;
use arrow::record_batch::RecordBatch;

use super::stored::{Place, integers, places};

/// How long an answer may take.
const WITHIN: Duration = Duration::from_mins(30);
/// Microseconds of a day.
const DAY_US: i64 = 24 * 60 * 60 * 1_000_000;

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

    /// From when on a topic's table has every row that was appended, whatever its TTL takes during an audit that begins
    /// now; `None` where it takes nothing.
    pub(super) async fn kept_since(
        &self,
        topic: &Topic,
        now: Timestamp,
    ) -> anyhow::Result<Option<Timestamp>> {
        let days = self.0.kept_days(&topic.table).await?;
        Ok(days.map(|days| kept_since(days, now)))
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

/// A little later than what was appended so many days before: rows go while an audit goes on.
fn kept_since(days: u32, now: Timestamp) -> Timestamp {
    let kept_us = i64::from(days).saturating_mul(DAY_US);
    let spared_us = (kept_us / 24).min(DAY_US);
    Timestamp(now.0.saturating_sub(kept_us).saturating_add(spared_us))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_ttl_may_take_meanwhile_is_spared() {
        let now = Timestamp(1000 * DAY_US);
        for (days, hours) in [(0, 0), (1, 23), (7, 7 * 23), (30, 29 * 24)] {
            assert_eq!(kept_since(days, now), Timestamp(now.0 - hours * DAY_US / 24), "{days}");
        }
        assert!(kept_since(u32::MAX, now) < now, "no overflow");
    }
}
