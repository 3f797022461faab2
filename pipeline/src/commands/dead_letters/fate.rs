//! What has become of records that were rejected, looked up where it happens.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use aion_kafka::{Admin, Purpose};
use aion_schemas::log::{Offset, Origin};
use uuid::Uuid;

use super::{
    columns::{integers, texts},
    letters::{Case, Record, State, each},
    place::Place,
};
use crate::{job::retries, small_topic};

/// So many offsets are asked for one by one; more, by their range.
const MAX_LISTED: usize = 1000;
/// How long the cluster may take to answer.
const WAIT: Duration = Duration::from_secs(10);

/// Looks up what has become of each case.
pub(super) async fn settle(place: &Place, cases: &mut [Case]) -> anyhow::Result<bool> {
    let mut tables = BTreeMap::<Arc<str>, HashSet<Origin>>::new();
    for case in &*cases {
        if let Some(topic) = place.topic(&case.letter.topic) {
            let wanted = tables.entry(Arc::clone(&topic.table)).or_default();
            wanted.insert(case.letter.first.origin);
        }
    }
    let mut stored = HashSet::new();
    for (table, wanted) in &tables {
        stored_of(place, table, wanted, &mut stored).await?;
    }
    let waiting = waiting(place, tables.keys()).await?;
    let sees_waiting = waiting.is_some();
    let waiting = waiting.unwrap_or_default();
    for case in cases {
        let record = case.letter.record();
        case.state = if stored.contains(&record.1) {
            State::Stored
        } else if waiting.contains(&record) {
            State::Retried
        } else {
            State::Open
        };
    }
    Ok(sees_waiting)
}

/// Which records a table has, by themselves or by their retries.
async fn stored_of(
    place: &Place,
    table: &str,
    wanted: &HashSet<Origin>,
    stored: &mut HashSet<Origin>,
) -> anyhow::Result<()> {
    let sql = format!("select \"_origin\" from \"{table}\" where \"_origin\" is not null");
    each(place, &sql, |rows| {
        let origins = texts(rows, 0)?.into_iter().flatten();
        stored.extend(origins.filter_map(|text| text.parse().ok()).filter(|o| wanted.contains(o)));
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
        each(place, &sql, |rows| {
            let found = integers(rows, 0)?.into_iter().flatten();
            let found = found.map(|at| Origin { topic_id, partition, offset: Offset(at) });
            stored.extend(found.filter(|origin| wanted.contains(origin)));
            Ok(())
        })
        .await?;
    }
    Ok(())
}

/// The records whose retries wait for their job; none where no broker can be asked.
async fn waiting<'a>(
    place: &Place,
    tables: impl Iterator<Item = &'a Arc<str>>,
) -> anyhow::Result<Option<HashSet<Record>>> {
    let Some(connection) = place.connection().cloned() else { return Ok(None) };
    let mut marks = HashMap::new();
    each(place, "select topic_id, \"partition\", mark from lag where mark is not null", |rows| {
        let (ids, numbers) = (texts(rows, 0)?, integers(rows, 1)?);
        for ((id, number), mark) in ids.into_iter().zip(numbers).zip(integers(rows, 2)?) {
            if let (Some(Ok(id)), Some(number), Some(mark)) =
                (id.map(|id| Uuid::parse_str(&id)), number, mark)
            {
                marks.insert((id, number as i32), Offset(mark));
            }
        }
        Ok(())
    })
    .await?;
    let topics = tables.filter_map(|table| place.catalog.table(table));
    let topics = topics.filter_map(|topic| place.catalog.retries_of(topic)).collect::<Vec<_>>();
    let look = move || {
        let admin = Admin::open(&connection, WAIT)?;
        admin.reach()?;
        let mut found = HashSet::new();
        for topic in topics {
            let mark = |id, number| marks.get(&(id, number)).copied();
            small_topic::each(&connection, &admin, &topic.name, mark, |record| {
                if let Some(retry) = retries::of_record(record) {
                    found.insert((Arc::from(&*retries::job_of(record)), retry.origin));
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
