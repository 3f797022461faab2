//! What has become of records that were rejected, looked up where it happens.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use aion_kafka::{Admin, Purpose};
use aion_schemas::{
    clickhouse::MARKS,
    log::{Offset, Origin},
};
use arrow::record_batch::RecordBatch;
use uuid::Uuid;

use super::{
    columns::{integers, texts},
    letters::{Case, Record, State, each},
};
use crate::{args::jobs::Place, config::SinkKind, job::retries, small_topic};

/// Where a job's rows are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Store {
    Lake,
    House,
}

/// How long an answer of ClickHouse may take.
const WITHIN: Duration = Duration::from_mins(10);
/// So many offsets are asked for one by one; more, by their range.
const MAX_LISTED: usize = 1000;
/// How long the cluster may take to answer.
const WAIT: Duration = Duration::from_secs(10);

/// Looks up what has become of each case.
pub(super) async fn settle(place: &Place, cases: &mut [Case]) -> anyhow::Result<bool> {
    let mut tables = BTreeMap::<(Arc<str>, Store), HashSet<Origin>>::new();
    for case in &*cases {
        if let Some(topic) = place.topic(&case.letter.topic) {
            for store in stores_of(place, &case.letter.job) {
                let table = (Arc::clone(&topic.table), *store);
                tables.entry(table).or_default().insert(case.letter.first.origin);
            }
        }
    }
    let mut stored = HashSet::new();
    for ((table, store), wanted) in &tables {
        stored_of(place, (table, *store), wanted, &mut stored).await?;
    }
    let waiting = waiting(place, tables.keys()).await?;
    let sees_waiting = waiting.is_some();
    let waiting = waiting.unwrap_or_default();
    for case in cases {
        let record = case.letter.record();
        let mut its = stores_of(place, &case.letter.job).iter();
        case.state = if its.all(|store| stored.contains(&(*store, record.1))) {
            State::Stored
        } else if waiting.contains(&record) {
            State::Retried
        } else {
            State::Open
        };
    }
    Ok(sees_waiting)
}

/// The places to which a letter's job writes.
fn stores_of(place: &Place, job: &str) -> &'static [Store] {
    stores(place.sinks_of(job), place.house.is_some())
}

/// The places of these sinks; the lake where none is known.
fn stores(sinks: &[SinkKind], has_house: bool) -> &'static [Store] {
    let is_in_house = has_house && sinks.contains(&SinkKind::ClickHouse);
    match (sinks.contains(&SinkKind::Lake), is_in_house) {
        (true, true) => &[Store::Lake, Store::House],
        (false, true) => &[Store::House],
        (_, false) => &[Store::Lake],
    }
}

/// Asks a place.
async fn each_of(
    place: &Place,
    store: Store,
    sql: &str,
    take: impl FnMut(&RecordBatch) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    match (store, &place.house) {
        (Store::House, Some(house)) => {
            let answer = house.query(sql, WITHIN).await?;
            answer.iter().try_for_each(take)
        }
        _ => each(place, sql, take).await,
    }
}

/// Which records a table has, by themselves or by their retries.
async fn stored_of(
    place: &Place,
    (table, store): (&str, Store),
    wanted: &HashSet<Origin>,
    stored: &mut HashSet<(Store, Origin)>,
) -> anyhow::Result<()> {
    let sql = format!("select \"_origin\" from \"{table}\" where \"_origin\" is not null");
    each_of(place, store, &sql, |rows| {
        let origins = texts(rows, 0)?.into_iter().flatten();
        let found = origins.filter_map(|text| text.parse().ok()).filter(|o| wanted.contains(o));
        stored.extend(found.map(|origin| (store, origin)));
        Ok(())
    })
    .await?;
    let mut partitions = BTreeMap::<(Uuid, i32), Vec<i64>>::new();
    for origin in wanted {
        let offsets = partitions.entry((origin.topic_id, origin.partition)).or_default();
        offsets.push(origin.offset.get());
    }
    for ((topic_id, partition), offsets) in partitions {
        let (least, most) = (offsets.iter().min(), offsets.iter().max());
        let Some((least, most)) = least.zip(most) else { continue };
        let mut only = String::new();
        if offsets.len() <= MAX_LISTED {
            let listed: Vec<String> = offsets.iter().map(i64::to_string).collect();
            only = format!(" and \"_offset\" in ({})", listed.join(", "));
        }
        let sql = format!(
            "select \"_offset\" from \"{table}\" where \"_topic_id\" = '{topic_id}' and \
             \"_partition\" = {partition} and \"_offset\" between {least} and {most}{only}"
        );
        each_of(place, store, &sql, |rows| {
            let found = integers(rows, 0)?.into_iter().flatten();
            let found = found.map(|at| Origin { topic_id, partition, offset: Offset(at) });
            let found = found.filter(|origin| wanted.contains(origin));
            stored.extend(found.map(|origin| (store, origin)));
            Ok(())
        })
        .await?;
    }
    Ok(())
}

/// The marks of every place's tables.
async fn marks<'a>(
    place: &Place,
    tables: impl Iterator<Item = &'a (Arc<str>, Store)>,
) -> anyhow::Result<HashMap<(Store, Uuid, i32), Offset>> {
    let lake = "select topic_id, \"partition\", mark from lag where mark is not null";
    let mut questions = vec![(Store::Lake, lake.to_owned())];
    for (table, _) in tables.filter(|(_, store)| *store == Store::House) {
        let sql = format!(
            "select _topic_id, _partition, max(_batch_last) + 1 from {table} where _origin is not null \
             group by 1, 2 union all select topic_id, partition, toInt64(max(next)) from {MARKS} \
             where table_name = '{table}' and kind = 'reached' group by 1, 2"
        );
        questions.push((Store::House, sql));
    }
    let mut marks = HashMap::new();
    for (store, sql) in questions {
        each_of(place, store, &sql, |rows| {
            each_mark(rows, |id, number, mark| {
                let known = marks.entry((store, id, number)).or_insert(mark);
                *known = (*known).max(mark);
            })
        })
        .await?;
    }
    Ok(marks)
}

/// Calls `take` with each row of an answer that has a topic's id, a partition and its mark.
fn each_mark(rows: &RecordBatch, mut take: impl FnMut(Uuid, i32, Offset)) -> anyhow::Result<()> {
    let (ids, numbers) = (texts(rows, 0)?, integers(rows, 1)?);
    for ((id, number), mark) in ids.into_iter().zip(numbers).zip(integers(rows, 2)?) {
        if let (Some(Ok(id)), Some(number), Some(mark)) =
            (id.map(|id| Uuid::parse_str(&id)), number, mark)
        {
            take(id, number as i32, Offset(mark));
        }
    }
    Ok(())
}

/// Of the open cases, the records that their table of ClickHouse has yet to pass: retries of theirs would wait there, and
/// all others of that table behind them.
pub(super) async fn ahead(place: &Place, cases: &[Case]) -> anyhow::Result<HashSet<Record>> {
    let mut tables = BTreeMap::<Arc<str>, Vec<Record>>::new();
    for case in cases.iter().filter(|case| case.state == State::Open) {
        if stores_of(place, &case.letter.job).contains(&Store::House)
            && let Some(topic) = place.topic(&case.letter.topic)
        {
            tables.entry(Arc::clone(&topic.table)).or_default().push(case.letter.record());
        }
    }
    let Some(house) = &place.house else { return Ok(HashSet::new()) };
    let mut ahead = HashSet::new();
    for (table, records) in tables {
        let mut marks = HashMap::<(Uuid, i32), Offset>::new();
        for rows in &house.query(&house.marks(&table), WITHIN).await? {
            each_mark(rows, |id, number, mark| {
                marks.insert((id, number), mark);
            })?;
        }
        let is_ahead = |(_, origin): &Record| {
            let mark = marks.get(&(origin.topic_id, origin.partition));
            mark.is_none_or(|mark| *mark <= origin.offset)
        };
        ahead.extend(records.into_iter().filter(is_ahead));
    }
    Ok(ahead)
}

/// The records whose retries wait for their job; none where no broker can be asked.
async fn waiting<'a>(
    place: &Place,
    tables: impl Iterator<Item = &'a (Arc<str>, Store)> + Clone,
) -> anyhow::Result<Option<HashSet<Record>>> {
    let Some(connection) = place.connection().cloned() else { return Ok(None) };
    let marks = marks(place, tables.clone()).await?;
    let stores: HashMap<String, &'static [Store]> =
        place.jobs.iter().map(|job| (job.name.clone(), stores_of(place, &job.name))).collect();
    let retries_of = |table: &str| place.catalog.retries_of(place.catalog.table(table)?);
    let topics: Vec<_> =
        tables.filter_map(|(table, store)| Some((retries_of(table)?, *store))).collect();
    let look = move || {
        let admin = Admin::open(&connection, WAIT)?;
        admin.reach()?;
        let mut found = HashSet::new();
        for (topic, store) in topics {
            let mark = |id, number| marks.get(&(store, id, number)).copied();
            small_topic::each(&connection, &admin, &topic.name, mark, |record| {
                let job = retries::job_of(record);
                let its = stores.get(&*job).copied().unwrap_or(&[Store::Lake]);
                let is_there = its.contains(&store);
                if let Some(retry) = retries::of_record(record).filter(|_| is_there) {
                    found.insert((Arc::from(&*job), retry.origin));
                }
            })?;
        }
        Ok(found)
    };
    let looked: Result<_, aion_kafka::Error> = tokio::task::spawn_blocking(look).await?;
    match (looked, place.connection()) {
        (Ok(found), _) => Ok(Some(found)),
        (Err(error), Some(connection)) => {
            eprintln!("aion: {}", connection.explain(&error, Purpose::Administer));
            Ok(None)
        }
        (Err(_), None) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::{Store, stores};
    use crate::config::SinkKind::{ClickHouse, Lake, Prometheus};

    #[test]
    fn a_record_is_looked_for_in_all_places_to_which_its_job_writes() {
        assert_eq!(stores(&[Lake], true), [Store::Lake]);
        assert_eq!(stores(&[ClickHouse], true), [Store::House]);
        assert_eq!(stores(&[ClickHouse, Lake, Prometheus], true), [Store::Lake, Store::House]);
        assert_eq!(stores(&[Lake, ClickHouse], false), [Store::Lake], "no database is known");
        assert_eq!(stores(&[], true), [Store::Lake], "no such job is known");
    }
}
