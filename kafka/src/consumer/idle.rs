//! A member that has nothing: is it somebody else's, or was everybody forgotten?
//!
//! A group's leader shares out what one broker tells it of the topics. A broker that has just come back, or that a
//! topic made anew has not reached, may not know them: then the members are given nothing, and no error says so.
//! librdkafka doesn't find out either, however often it looks at the topics afterwards: they are what they were when
//! it joined. So a member that has had nothing for some time asks the brokers who has its topics' partitions.
//! Where there are more members than partitions, somebody has, and it waits; where nobody has, it joins anew.
//!
//! Of a group with several topics it is found only if all of them are nobody's: one of which a member has something says
//! that the group was shared out, and the others come with the next change of members or of partitions.
//!
//! Deliberately absent: static members. Who comes back under the same `group.instance.id` is given what it had.

use std::{
    sync::{
        Arc,
        mpsc::{Receiver, TryRecvError, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use super::{Consumer, Membership};
use crate::{Error, TopicPartition, native::groups};

/// What the members of a group have, as [`groups::taken`] has it.
type Taken = Result<Option<Vec<TopicPartition>>, Error>;

/// How long a member has nothing before it asks, and the pause before it asks again.
const ASK_AFTER: Duration = Duration::from_secs(10);
/// How long the brokers' answers may take.
const ANSWER_WAIT: Duration = Duration::from_secs(5);
/// How long leaving may take: there is nothing to give back.
const LEAVE_WAIT: Duration = Duration::from_secs(5);

/// What a member that has nothing is waiting for.
#[derive(Default)]
pub(super) struct Idle {
    /// When to ask; `None` while the member has something.
    ask_at: Option<Instant>,
    /// The question that is out.
    asked: Option<Receiver<Taken>>,
}

impl Consumer {
    /// Has a member that nobody gives anything join anew, where nobody else has anything either. Never waits, but
    /// for leaving.
    pub(super) fn mend_idleness(&mut self, now: Instant) -> Result<(), Error> {
        if !self.held.is_empty() || !self.owned.is_idle() || self.membership.is_static() {
            self.idle = Idle::default();
            return Ok(());
        }
        let ask_at = *self.idle.ask_at.get_or_insert(now + ASK_AFTER);
        let Some(asked) = &self.idle.asked else {
            if now >= ask_at {
                self.idle.asked = Some(self.ask_who_has());
            }
            return Ok(());
        };
        let answer = asked.try_recv();
        if matches!(answer, Err(TryRecvError::Empty)) {
            return Ok(());
        }
        self.idle = Idle { ask_at: Some(now + ASK_AFTER), asked: None };
        match answer {
            Ok(Ok(Some(taken))) if !self.membership.wants_any(&taken) => return self.join_anew(),
            Ok(Err(error)) => tracing::debug!(%error, "will be asked again"),
            Ok(Ok(_)) | Err(_) => {}
        }
        Ok(())
    }

    /// Asks on a thread of its own, which ends with the answer. Where there can't be one, nothing is answered.
    fn ask_who_has(&self) -> Receiver<Taken> {
        let (answer, asked) = sync_channel(1);
        let (client, group) = (Arc::clone(&self.client), self.group().to_owned());
        let ask = move || {
            // Nobody waits where the member has something by now.
            answer.send(groups::taken(&client, &group, ANSWER_WAIT)).ok();
        };
        if let Err(error) = thread::Builder::new().name("who has what".to_owned()).spawn(ask) {
            tracing::debug!(%error, "will be asked again");
        }
        asked
    }

    /// Becomes another member, by a client that knows nothing of before.
    fn join_anew(&mut self) -> Result<(), Error> {
        let Membership { connection, group, topics, limits } = self.membership.clone();
        tracing::warn!(group, "nobody was given any partition: joining the group anew");
        self.leave(LEAVE_WAIT);
        let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
        let fresh = Consumer::open(&connection, &group, &topics, limits).map_err(|error| {
            // It has left: without another client it would be given nothing for ever.
            let detail = error.to_string();
            Error::Fatal { doing: format!("join group {group} anew"), detail }
        })?;
        let untold = std::mem::take(&mut self.events);
        drop(std::mem::replace(self, fresh));
        self.events = untold;
        Ok(())
    }
}

impl Membership {
    fn is_static(&self) -> bool {
        self.connection.properties.contains_key("group.instance.id")
    }

    fn wants_any(&self, partitions: &[TopicPartition]) -> bool {
        partitions.iter().any(|one| self.topics.iter().any(|topic| **topic == *one.topic))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Connection, Limits};

    #[test]
    fn only_its_own_topics_count() {
        let membership = Membership {
            connection: Connection::to("localhost:9092"),
            group: "g".to_owned(),
            topics: vec!["a".to_owned(), "b".to_owned()],
            limits: Limits::default(),
        };
        let taken = |topic| [TopicPartition::new("c", 0), TopicPartition::new(topic, 1)];
        assert!(membership.wants_any(&taken("b")));
        assert!(!membership.wants_any(&taken("d")));
        assert!(!membership.wants_any(&[]));
    }
}
