//! Questions to the cluster that may take long, on a thread of their own, one after the other.

use std::{
    ops::Range,
    sync::mpsc::{self, Receiver, SyncSender},
    time::Duration,
};

use aion_kafka::{Admin, Connection, Error, TopicPartition};
use aion_schemas::log::Offset;
use uuid::Uuid;

/// A question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Question {
    /// What is the topic's id? Everything up to this poll was polled before the question was put.
    Identity {
        /// The number of that poll.
        after_poll: u64,
    },
    /// Which offsets has the partition, and what is the topic's id after that?
    Bounds {
        /// The partition's number.
        partition: i32,
        /// The run that asks.
        run: u64,
    },
}

/// An answer.
#[derive(Debug)]
pub(super) enum Answer {
    /// To [`Question::Identity`]; no id when there is no such topic.
    Identity {
        /// As asked.
        after_poll: u64,
        /// The id.
        topic_id: Option<Uuid>,
    },
    /// To [`Question::Bounds`].
    Bounds {
        /// As asked.
        partition: i32,
        /// As asked.
        run: u64,
        /// The topic's id, looked up last.
        topic_id: Option<Uuid>,
        /// The first offset and the next one.
        bounds: Range<Offset>,
    },
    /// The question could not be answered now.
    Failed(Question, Error),
}

/// Questions that wait at most; more are put later.
const QUESTIONS: usize = 1024;
/// How long one question may take.
const WAIT: Duration = Duration::from_secs(5);

/// The asking end. The thread ends when this is dropped.
pub(super) struct Lookups {
    questions: SyncSender<Question>,
    answers: Receiver<Answer>,
}

impl Lookups {
    /// Starts the thread.
    pub(super) fn start(connection: &Connection, topic: &str) -> Result<Lookups, String> {
        let admin = Admin::open(connection, WAIT).map_err(|error| error.to_string())?;
        let (questions, questions_out) = mpsc::sync_channel(QUESTIONS);
        // As many answers as questions: the thread never waits for the reader.
        let (answers_in, answers) = mpsc::sync_channel(QUESTIONS + 1);
        let of_topic = topic.to_owned();
        std::thread::Builder::new()
            .name(format!("look up {topic}"))
            .spawn(move || {
                while let Ok(question) = questions_out.recv() {
                    if answers_in.send(answer(&admin, &of_topic, question)).is_err() {
                        return;
                    }
                }
            })
            .map_err(|error| format!("start the look-ups of {topic}: {error}"))?;
        Ok(Lookups { questions, answers })
    }

    /// Puts a question; `false` when too many wait.
    pub(super) fn ask(&self, question: Question) -> bool {
        self.questions.try_send(question).is_ok()
    }

    /// The next answer, if there is one.
    pub(super) fn answer(&self) -> Option<Answer> {
        self.answers.try_recv().ok()
    }
}

fn answer(admin: &Admin, topic: &str, question: Question) -> Answer {
    match &question {
        Question::Identity { after_poll } => match identity(admin, topic) {
            Ok(topic_id) => Answer::Identity { after_poll: *after_poll, topic_id },
            Err(error) => Answer::Failed(question, error),
        },
        Question::Bounds { partition, run } => {
            let found = admin
                .watermarks(&TopicPartition::new(topic, *partition))
                .and_then(|bounds| Ok((bounds, identity(admin, topic)?)));
            match found {
                Ok(((first, next), topic_id)) => {
                    let (partition, run) = (*partition, *run);
                    Answer::Bounds { partition, run, topic_id, bounds: first..next }
                }
                Err(error) => Answer::Failed(question, error),
            }
        }
    }
}

fn identity(admin: &Admin, topic: &str) -> Result<Option<Uuid>, Error> {
    Ok(admin.topic_ids(&[topic])?.first().and_then(|found| found.id))
}
