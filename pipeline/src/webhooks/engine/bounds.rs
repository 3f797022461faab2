//! Logs that begin behind a cursor, or end before it: what retention took is a gap, and so is what was cut off.

use std::time::Duration;

use aion_kafka::{Admin, Connection, TopicPartition};
use uuid::Uuid;

use super::{Done, Engine, lane::Key, ownership::AGAIN, store::Gap};

/// How long a question to the cluster may take.
const WAIT: Duration = Duration::from_secs(10);

impl Engine {
    /// Asks where a log begins and ends that doesn't have what was asked for.
    pub(super) fn ask_watermarks(&mut self, key: Key, at: i64, pause: Duration) {
        let Some(source) = self.sources.get(&key) else { return };
        let (connection, done) = (self.settings.connection.clone(), self.done.clone());
        let (partition, id) = (source.partition.clone(), source.stream.id);
        self.questions.spawn(async move {
            tokio::time::sleep(pause).await;
            let asked =
                tokio::task::spawn_blocking(move || watermarks(&connection, &partition, id));
            if let Ok(outcome) = asked.await {
                let outcome = outcome.map_err(|cause| cause.to_string());
                drop(done.send(Done::Watermarks { key, at, outcome }));
            }
        });
    }

    /// The log begins, or ends, elsewhere than a cursor stands.
    pub(super) fn heard_watermarks(
        &mut self,
        key: Key,
        at: i64,
        outcome: Result<Option<(i64, i64)>, String>,
    ) {
        let Some(source) = self.sources.get_mut(&key) else { return };
        source.is_old_asked = false;
        let (first, next) = match outcome {
            Ok(Some(found)) => found,
            // Its offsets are another topic's.
            Ok(None) => return self.look_around(),
            Err(cause) => {
                self.trouble(cause);
                return self.ask_watermarks(key, at, AGAIN);
            }
        };
        let uids = source.lanes.clone();
        let is_started_there = source.end == at;
        for uid in uids {
            self.lose_below(uid, first);
            let Some(working) = self.lanes.get_mut(&uid) else { continue };
            if working.lane.cursor().next > next && !working.has_open_gap {
                // What is written there from now on is something else, and is delivered.
                working.has_open_gap = true;
                self.write_gap(uid, Gap::Cut(next));
            }
        }
        if is_started_there && !(first..=next).contains(&at) {
            self.read_from(key, at.clamp(first, next));
        }
        self.pump_source(key);
    }
}

/// Where a log begins and ends; `None` where its topic has another id.
fn watermarks(
    connection: &Connection,
    partition: &TopicPartition,
    id: Uuid,
) -> Result<Option<(i64, i64)>, aion_kafka::Error> {
    let admin = Admin::open(connection, WAIT)?;
    let (first, next) = admin.watermarks(partition)?;
    // Afterwards: it may be made anew between the two.
    let found = admin.topic_ids(&[&partition.topic])?;
    let is_same = found.first().is_some_and(|one| one.id == Some(id));
    Ok(is_same.then(|| (first.get(), next.get())))
}
