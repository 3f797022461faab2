//! Questions to the cluster that may take long, each kind on a thread of its own: what the topic's id is,
//! on which every batch waits, which offsets a partition has, which takes long when it has no leader, and what
//! people have decided, which is asked for only when a partition has stopped.
//!
//! **Invariant:** one question of each kind is out at most, so an answer is never older than its question's
//! own time.

use std::{
    ops::Range,
    sync::{
        Arc,
        mpsc::{self, Receiver, SyncSender},
    },
    time::Duration,
};

use aion_kafka::{Admin, Connection, Error, TopicPartition};
use aion_schemas::log::{Offset, Partition};
use uuid::Uuid;

use super::decisions::newest;
use crate::job::appeal::Decision;

/// An answer.
#[derive(Debug)]
pub(super) enum Answer {
    /// What the topic is.
    Identity {
        /// Everything up to this poll was polled before the question was put.
        after_poll: u64,
        /// What was found.
        found: Result<Identity, Error>,
    },
    /// Which offsets a partition has.
    Bounds {
        /// The partition's number.
        partition: i32,
        /// The run that asks.
        run: u64,
        /// What was found.
        found: Result<Bounds, Error>,
    },
    /// What a person has decided about a partition.
    Decision {
        /// The partition.
        partition: Partition,
        /// None where nobody has decided.
        found: Result<Option<Decision>, Error>,
    },
}

/// What a name stands for at this time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Identity {
    /// The id; `None` when there is no such topic.
    pub(super) topic_id: Option<Uuid>,
    /// How many partitions it has.
    pub(super) partitions: usize,
}

/// Which offsets a partition has.
#[derive(Debug)]
pub(super) struct Bounds {
    /// The topic's id, looked up last.
    pub(super) topic_id: Option<Uuid>,
    /// The first offset and the next one.
    pub(super) offsets: Range<Offset>,
}

/// How long one question may take.
const WAIT: Duration = Duration::from_secs(5);

/// The asking end. The threads end when this is dropped.
pub(super) struct Lookups {
    identity: SyncSender<u64>,
    bounds: SyncSender<(i32, u64)>,
    decisions: SyncSender<(Partition, String)>,
    answers: Receiver<Answer>,
}

impl Lookups {
    /// Starts the threads.
    pub(super) fn start(connection: &Connection, topic: &str) -> Result<Lookups, String> {
        let admin = Arc::new(Admin::open(connection, WAIT).map_err(|error| error.to_string())?);
        // One question of each kind is out: no thread ever waits for the reader.
        let (answers_in, answers) = mpsc::sync_channel(3);
        let (client, name) = (Arc::clone(&admin), topic.to_owned());
        let identity = answering(format!("id {topic}"), answers_in.clone(), move |after_poll| {
            Answer::Identity { after_poll, found: identity(&client, &name) }
        });
        let name = topic.to_owned();
        let client = Arc::clone(&admin);
        let bounds =
            answering(format!("ends {topic}"), answers_in.clone(), move |(partition, run)| {
                Answer::Bounds { partition, run, found: bounds(&client, &name, partition) }
            });
        let connection = connection.clone();
        let decisions = answering(format!("word {topic}"), answers_in, move |(partition, key)| {
            let key: String = key;
            Answer::Decision { partition, found: newest(&connection, &admin, &key) }
        });
        let failed = |error| format!("start the look-ups of {topic}: {error}");
        Ok(Lookups {
            identity: identity.map_err(failed)?,
            bounds: bounds.map_err(failed)?,
            decisions: decisions.map_err(failed)?,
            answers,
        })
    }

    /// Asks what the topic is; `false` when such a question is out.
    pub(super) fn ask_identity(&self, after_poll: u64) -> bool {
        self.identity.try_send(after_poll).is_ok()
    }

    /// Asks which offsets a partition has; `false` when such a question is out.
    pub(super) fn ask_bounds(&self, partition: i32, run: u64) -> bool {
        self.bounds.try_send((partition, run)).is_ok()
    }

    /// Asks what was decided about a partition; does nothing when such a question is out.
    pub(super) fn ask_decision(&self, partition: Partition, key: String) {
        self.decisions.try_send((partition, key)).ok();
    }

    /// The next answer, if there is one.
    pub(super) fn answer(&self) -> Option<Answer> {
        self.answers.try_recv().ok()
    }
}

/// Starts a thread that answers questions, until nobody asks or listens any more.
fn answering<Q: Send + 'static>(
    name: String,
    answers: SyncSender<Answer>,
    answer: impl Fn(Q) -> Answer + Send + 'static,
) -> std::io::Result<SyncSender<Q>> {
    let (questions_in, questions) = mpsc::sync_channel(1);
    std::thread::Builder::new().name(name).spawn(move || {
        while let Ok(question) = questions.recv() {
            if answers.send(answer(question)).is_err() {
                return;
            }
        }
    })?;
    Ok(questions_in)
}

fn identity(admin: &Admin, topic: &str) -> Result<Identity, Error> {
    let found = admin.topic_ids(&[topic])?;
    let one = found.first();
    Ok(Identity {
        topic_id: one.and_then(|found| found.id),
        partitions: one.map_or(0, |found| found.partitions),
    })
}

fn bounds(admin: &Admin, topic: &str, partition: i32) -> Result<Bounds, Error> {
    let (first, next) = admin.watermarks(&TopicPartition::new(topic, partition))?;
    Ok(Bounds { topic_id: identity(admin, topic)?.topic_id, offsets: first..next })
}
