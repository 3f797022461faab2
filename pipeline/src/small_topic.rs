//! Reads a topic of ours to its present end, where little is expected: decisions, retries that wait.

use std::time::{Duration, Instant};

use aion_kafka::{
    Admin, Connection, Error, Isolation, Limits, Reader, Record, Spot, TopicPartition, Unread,
};
use aion_schemas::log::Offset;
use uuid::Uuid;

/// How long one partition may bring nothing.
const SILENCE: Duration = Duration::from_secs(20);
/// How long to wait for records at a time.
const STEP: Duration = Duration::from_millis(200);
const FETCH: usize = 1024;
const NAME: &str = "aion-look";

/// Calls `take` with every record, partition by partition, from the offset that `from` says of the topic's id and
/// the partition, or from the log's start. Nothing is there where there is no such topic.
pub(crate) fn each(
    connection: &Connection,
    admin: &Admin,
    topic: &str,
    from: impl Fn(Uuid, i32) -> Option<Offset>,
    mut take: impl FnMut(&Record<'_>),
) -> Result<(), Error> {
    let found = admin.topic_ids(&[topic])?;
    let Some((id, count)) = found.first().and_then(|one| Some((one.id?, one.partitions))) else {
        return Ok(());
    };
    let at = |spot| -> Vec<_> {
        let partitions = (0..count as i32).map(|number| TopicPartition::new(topic, number));
        partitions.map(|partition| (partition, spot)).collect()
    };
    let first = at(Spot::First);
    let ends = admin.offsets(&at(Spot::Next), Isolation::Committed)?;
    let starts = admin.offsets(&first, Isolation::Committed)?;
    let reader = Reader::open(connection, NAME, Limits::default())?;
    for (((partition, _), start), end) in first.iter().zip(starts).zip(ends) {
        let wanted = from(id, partition.partition).unwrap_or(start);
        read(&reader, partition, wanted.max(start)..end, &mut take)?;
    }
    Ok(())
}

fn read(
    reader: &Reader,
    partition: &TopicPartition,
    run: std::ops::Range<Offset>,
    take: &mut impl FnMut(&Record<'_>),
) -> Result<(), Error> {
    let (mut at, mut heard) = (run.start, Instant::now());
    if at >= run.end {
        return Ok(());
    }
    let mut reading = reader.start(partition, at)?;
    while at < run.end {
        let fetched = reading.fetch(FETCH, STEP, |record| {
            if record.offset < run.end {
                take(&record);
            }
        });
        match fetched {
            Ok(fetched) if fetched.next > at => (at, heard) = (fetched.next, Instant::now()),
            Ok(_) => {}
            // Retention or compaction took the beginning meanwhile: the next look has it right.
            Err(Unread::OutOfRange(_)) => return Ok(()),
            Err(Unread::Failed(error)) => return Err(error),
        }
        if heard.elapsed() > SILENCE {
            let doing = format!("read {partition} at {at}, of {}", run.end);
            let detail = format!("nothing came for {} s", SILENCE.as_secs());
            return Err(reader.complaint().unwrap_or(Error::Retriable { doing, detail }));
        }
    }
    Ok(())
}
