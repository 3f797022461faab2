//! Who carries commands out: the control plane over HTTP, or whoever reads a topic.
//!
//! | answer over HTTP | is |
//! |---|---|
//! | 2xx | success |
//! | 400, 410, 422 | failure for good: it has looked at the command and says no |
//! | 409 | it may be at work on the attempt before; the twelfth in a row is failure for good |
//! | everything else, or none | nothing: it is asked again, for as long as it takes |
//!
//! A wrong address or secret is met with 401, 403 or 404, and by a person who mends it; no command is lost by that.

use std::{sync::Arc, time::Duration};

use aion_kafka::Outgoing;
use tokio::time::Instant;

use super::{
    To,
    command::{Command, Outcome},
    gateway::now,
    records::Records,
};
use crate::webhooks::{
    client::{Answer, Client, Network},
    policy::{Endpoint, Tls},
    schedule::Retry,
    secret::Secret,
    wire,
};

/// The pauses between attempts.
pub(super) const RETRY: Retry = Retry {
    initial_interval: Duration::from_millis(500),
    max_interval: Duration::from_secs(30),
    max_attempts: u32::MAX,
};
/// Commands that are under way at once.
pub(super) const MOST_IN_FLIGHT: usize = 64;
/// How long a topic's acknowledgement is waited for.
const WAIT: Duration = Duration::from_secs(30);

/// Where commands go.
#[derive(Debug)]
pub enum Target {
    /// The control plane.
    Http {
        /// The connections to it.
        client: Box<Client>,
        /// What requests are signed with.
        secrets: Vec<Secret>,
        /// How long one exchange may take.
        timeout: Duration,
    },
    /// A topic.
    Topic(String),
}

/// Why a command has to be dispatched again.
#[derive(Debug)]
pub struct Again {
    /// What happened.
    pub why: String,
    /// How long the control plane asks to be left alone.
    pub after: Option<Duration>,
    /// Whether it said that something stands in the way.
    pub is_conflict: bool,
}

/// Nobody has answered.
impl From<String> for Again {
    fn from(why: String) -> Again {
        Again { why, after: None, is_conflict: false }
    }
}

/// The control plane may answer 409 because it is still at work on an attempt whose answer didn't reach us: an
/// outcome of that would be wrong. So many in a row, over a minute or more, are about the command itself.
const CONFLICTS: u32 = 12;

impl Target {
    /// Connects to nobody yet.
    pub fn open(to: &To, network: &Network) -> Result<Target, String> {
        let To::Http { url, secrets, timeout, allow_private, ca } = to else {
            let To::Topic(topic) = to else { return Err("nobody to dispatch to".to_owned()) };
            return Ok(Target::Topic(topic.clone()));
        };
        let endpoint = Endpoint {
            id: "control-plane".into(),
            line: 0,
            url: url.clone(),
            secrets: secrets.clone(),
            patterns: Vec::new(),
            retry: RETRY,
            max_age: Duration::MAX,
            timeout: *timeout,
            rate: None,
            max_in_flight: MOST_IN_FLIGHT,
            ordered: true,
            headers: Vec::new(),
            tls: Tls { ca: ca.clone(), identity: None },
            allow_private: allow_private.clone(),
        };
        let client = Box::new(Client::open(&endpoint, network)?);
        Ok(Target::Http { client, secrets: secrets.clone(), timeout: *timeout })
    }

    /// How long one exchange may take.
    pub fn longest(&self) -> Duration {
        match self {
            Target::Http { timeout, .. } => *timeout,
            Target::Topic(_) => WAIT,
        }
    }

    /// Has a command carried out, once, after so many conflicts in a row.
    pub async fn dispatch(
        &self,
        command: &Command,
        conflicts: u32,
        records: &Records,
    ) -> Result<Outcome, Again> {
        let (id, body) = (command.id.to_string(), command.body());
        match self {
            Target::Http { client, secrets, .. } => {
                let headers = wire::headers(&id, &body, secrets, now().0 / 1_000_000);
                judge(client.send(headers, body.into()).await, conflicts)
            }
            Target::Topic(topic) => {
                let outgoing = Outgoing {
                    topic,
                    key: Some(command.actor.as_bytes()),
                    value: Some(&body),
                    headers: &[("Idempotency-Key", Some(id.as_bytes()))],
                    ..Outgoing::default()
                };
                let placed = records.send(&outgoing, Instant::now() + WAIT).await?;
                let detail = format!("{topic}[{}] at {}", placed.partition, placed.offset);
                Ok(Outcome { succeeded: true, detail, at: now() })
            }
        }
    }
}

fn judge(answer: Answer, conflicts: u32) -> Result<Outcome, Again> {
    let ended = |succeeded, detail| Ok(Outcome { succeeded, detail, at: now() });
    match answer {
        Answer::Taken(status) => ended(true, format!("HTTP {status}")),
        Answer::Gone => ended(false, "HTTP 410".to_owned()),
        Answer::Refused { status, retry_after, excerpt } => {
            let detail = format!("HTTP {status}: {excerpt}");
            match status {
                409 if conflicts + 1 < CONFLICTS => {
                    Err(Again { why: detail, after: retry_after, is_conflict: true })
                }
                400 | 409 | 422 => ended(false, detail),
                _ => Err(Again { why: detail, after: retry_after, is_conflict: false }),
            }
        }
        Answer::Failed(why) => Err(why.into()),
    }
}

/// The same for all tasks.
pub(super) type Shared = Arc<Target>;

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    #[test]
    fn only_an_answer_to_the_command_ends_it() {
        let refused =
            |status| Answer::Refused { status, retry_after: None, excerpt: String::new() };
        for (answer, wanted) in [
            (Answer::Taken(200), Some(true)),
            (Answer::Taken(204), Some(true)),
            (Answer::Gone, Some(false)),
            (refused(400), Some(false)),
            (refused(422), Some(false)),
            (refused(301), None),
            (refused(401), None),
            (refused(403), None),
            (refused(404), None),
            (refused(408), None),
            (refused(429), None),
            (refused(500), None),
            (refused(503), None),
            (Answer::Failed("no answer in time".to_owned()), None),
        ] {
            let ended = judge(answer.clone(), 0).ok().map(|outcome| outcome.succeeded);
            assert_eq!(ended, wanted, "{answer:?}");
        }
        // It may be at work on the attempt before, which got no answer in time.
        assert!(judge(refused(409), CONFLICTS - 2).unwrap_err().is_conflict);
        assert!(!judge(refused(409), CONFLICTS - 1).unwrap().succeeded, "the twelfth");
    }
}
