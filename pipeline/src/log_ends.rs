//! The ends of the logs, from a broker, for table `lag`.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use aion_analytics::{LogEnds, lag::Ends};
use aion_kafka::{Admin, Connection, Isolation, Purpose, Spot, TopicPartition};
use aion_schemas::log::{Partition, Stream};

/// How long a broker may take to answer.
const WAIT: Duration = Duration::from_secs(5);

/// Asks over a connection.
pub(crate) fn of(connection: Connection) -> LogEnds {
    LogEnds::new(move |topics| {
        ask(&connection, topics).map_err(|cause| connection.explain(&cause, Purpose::Administer))
    })
}

/// Asks the brokers at `host:port`. One that can't be asked is said on standard error, and the
/// query goes on without.
pub(crate) fn of_broker(brokers: &str) -> LogEnds {
    let connection = Connection::to(brokers);
    LogEnds::new(move |topics| {
        ask(&connection, topics)
            .map_err(|cause| cause.to_string())
            .inspect_err(|cause| eprintln!("aion: `lag` without the broker's side: {cause}"))
    })
}

fn ask(connection: &Connection, topics: &[Arc<str>]) -> Result<Ends, aion_kafka::Error> {
    let admin = Admin::open(connection, WAIT)?;
    admin.reach()?;
    let names: Vec<&str> = topics.iter().map(|topic| &**topic).collect();
    let mut partitions = Vec::new();
    for topic in admin.topic_ids(&names)? {
        let Some(id) = topic.id else { continue };
        let stream = Stream { topic: topic.topic.into(), id };
        let numbers = 0..topic.partitions as i32;
        partitions.extend(numbers.map(|number| Partition { stream: stream.clone(), number }));
    }
    let spots = |spot: Spot| -> Vec<_> {
        partitions
            .iter()
            .map(|partition| (TopicPartition::new(&partition.stream.topic, partition.number), spot))
            .collect()
    };
    let first = admin.offsets(&spots(Spot::First), Isolation::Committed)?;
    let next = admin.offsets(&spots(Spot::Next), Isolation::Committed)?;
    let ranges = first.into_iter().zip(next).map(|(first, next)| first..next);
    Ok(partitions.into_iter().zip(ranges).collect::<BTreeMap<_, _>>())
}
