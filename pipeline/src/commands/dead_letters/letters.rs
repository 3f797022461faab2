//! The dead letters that were asked for, one case for each record, and what has become of it.
//!
//! A record that was rejected, sent again and rejected again has several letters; its case is the newest. What
//! has become of it is never written down anywhere: it is looked up where it happens.
//!
//! | state | because |
//! |---|---|
//! | stored | the table has the record as a row, or a row that is its retry, in each store to which the job writes |
//! | retried | a retry of it is in the topic of retries, above the table's mark in one of them |
//! | open | neither |

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use aion_schemas::{
    decode::Retry,
    log::{Offset, Origin, Timestamp},
};
use anyhow::anyhow;
use arrow::record_batch::RecordBatch;
use futures::TryStreamExt;
use uuid::Uuid;

use super::{
    Filter,
    columns::{integers, texts, times},
    fate::settle,
};
use crate::{
    args::jobs::Place,
    exit::{Exit, Failure},
    job::{journal, times::rfc3339},
};

/// More letters than this aren't looked at together.
const MAX_LETTERS: usize = 1_000_000;

/// What has become of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum State {
    Open,
    Retried,
    Stored,
}

impl State {
    pub(super) const fn word(self) -> &'static str {
        match self {
            State::Open => "open",
            State::Retried => "retried",
            State::Stored => "stored",
        }
    }
}

/// A record that was rejected, by its newest letter.
#[derive(Clone, Debug)]
pub(super) struct Case {
    pub(super) letter: Letter,
    /// How often it was rejected.
    pub(super) letters: usize,
    pub(super) state: State,
}

/// A dead letter, without the record itself.
#[derive(Clone, Debug)]
pub(super) struct Letter {
    pub(super) job: Arc<str>,
    pub(super) topic: Arc<str>,
    /// Where the rejected record stands: of a retry, in the topic of retries.
    pub(super) at: Origin,
    pub(super) reason: Arc<str>,
    pub(super) field: Option<Arc<str>>,
    pub(super) detail: String,
    pub(super) schema_id: Option<i64>,
    pub(super) append_time: Timestamp,
    pub(super) rejected_at: Timestamp,
    /// The record that was rejected first: of most letters, the record itself.
    pub(super) first: Retry,
}

impl Letter {
    /// The key under which it stands in the topic of dead letters.
    pub(super) fn key(&self) -> String {
        let Origin { topic_id, partition, offset } = self.at;
        format!("{}:{topic_id}:{partition}:{offset}", self.job)
    }

    /// Whether it has the record as a whole.
    pub(super) fn is_whole(&self) -> bool {
        !journal::is_shortened(&self.detail)
    }

    pub(super) fn record(&self) -> Record {
        (Arc::clone(&self.job), self.first.origin)
    }
}

/// A record as a job knows it.
pub(super) type Record = (Arc<str>, Origin);

/// Reads `job:topic id:partition:offset`; a job's name may have colons of its own.
pub(super) fn parse_key(key: &str) -> Option<(&str, Origin)> {
    let mut parts = key.rsplitn(4, ':');
    let (offset, partition, id) = (parts.next()?, parts.next()?, parts.next()?);
    Some((parts.next()?, format!("{id}/{partition}/{offset}").parse().ok()?))
}

impl Filter {
    /// Refuses a condition that isn't one, before anything else is done.
    pub(super) async fn check(&self, place: &Place) -> Result<(), Failure> {
        let Some(condition) = &self.condition else { return Ok(()) };
        let sql = format!("select 1 from dead_letters_raw where ({condition}) limit 0");
        let planned = place.engine.query(&sql).await;
        planned
            .map(drop)
            .map_err(|cause| Failure::new(Exit::Usage, format!("--where {condition}: {cause}")))
    }

    /// The condition on the rows of table `dead_letters`.
    pub(super) fn sql(&self) -> String {
        let mut all = vec!["true".to_owned()];
        all.extend(self.condition.as_ref().map(|condition| format!("({condition})")));
        all.extend(self.job.as_ref().map(|job| format!("job = {}", quoted(job))));
        all.extend(self.since.map(|since| format!("rejected_at >= '{}'", rfc3339(since.time()))));
        all.join(" and ")
    }
}

/// Text as SQL has it.
pub(super) fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

const COLUMNS: &str = "job, topic, topic_id, reason, field, detail, origin, \"partition\", \
                       \"offset\", schema_id, append_time, rejected_at, origin_append_time";

/// The cases whose newest letter fits a condition, latest first, each with its state; whether retries that wait
/// could be looked at.
pub(super) async fn find(place: &Place, condition: &str) -> anyhow::Result<(Vec<Case>, bool)> {
    let mut cases = newest(place, condition).await?;
    let sees_waiting = settle(place, &mut cases).await?;
    let latest = |case: &Case| std::cmp::Reverse((case.letter.rejected_at, case.letter.at));
    cases.sort_by_key(latest);
    Ok((cases, sees_waiting))
}

/// The letter that fits a condition, be there newer ones of its record or not.
pub(super) async fn one(place: &Place, condition: &str) -> anyhow::Result<Option<Letter>> {
    let (mut words, mut found) = (Words::default(), None);
    let sql = format!("select {COLUMNS} from dead_letters_raw where {condition} limit 1");
    each(place, &sql, |rows| {
        found = letters(rows, &mut words)?.pop().or(found.take());
        Ok(())
    })
    .await?;
    Ok(found)
}

async fn newest(place: &Place, condition: &str) -> anyhow::Result<Vec<Case>> {
    let mut words = Words::default();
    let mut seen = HashSet::new();
    let mut cases = HashMap::<Record, Case>::new();
    let sql = format!("select {COLUMNS} from dead_letters_raw where {condition}");
    each(place, &sql, |rows| {
        for letter in letters(rows, &mut words)? {
            // Letters may be written twice; what they say is the same.
            if !seen.insert((Arc::clone(&letter.job), letter.at)) {
                continue;
            }
            if seen.len() > MAX_LETTERS {
                let message = format!(
                    "more than {MAX_LETTERS} dead letters: look at fewer with --where, --job or --since"
                );
                return Err(Failure::new(Exit::Usage, message).into());
            }
            let case = Case { letters: 1, state: State::Open, letter };
            match cases.get_mut(&case.letter.record()) {
                Some(known) if is_later(&case.letter, &known.letter) => *known = case,
                Some(_) => {}
                None => drop(cases.insert(case.letter.record(), case)),
            }
        }
        Ok(())
    })
    .await?;
    let mut tries = HashMap::<Record, HashSet<Origin>>::new();
    let sql = format!("select {COLUMNS} from dead_letters_raw where origin is not null");
    each(place, &sql, |rows| {
        for letter in letters(rows, &mut words)? {
            let record = letter.record();
            let Some(case) = cases.get(&record) else { continue };
            if is_later(&letter, &case.letter) {
                // It was rejected again, by a letter that doesn't fit the condition.
                cases.remove(&record);
                continue;
            }
            tries.entry(record).or_default().insert(letter.at);
        }
        Ok(())
    })
    .await?;
    for (record, tries) in tries {
        if let Some(case) = cases.get_mut(&record) {
            case.letters = 1 + tries.len();
        }
    }
    Ok(cases.into_values().collect())
}

/// Whether a letter of the same record came later.
fn is_later(one: &Letter, other: &Letter) -> bool {
    one.at != other.at
        && (one.rejected_at, one.append_time) > (other.rejected_at, other.append_time)
}

/// Texts that many letters have in common.
#[derive(Default)]
struct Words(HashSet<Arc<str>>);

impl Words {
    fn of(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.0.get(text) {
            return Arc::clone(known);
        }
        let word: Arc<str> = text.into();
        self.0.insert(Arc::clone(&word));
        word
    }
}

fn letters(rows: &RecordBatch, words: &mut Words) -> anyhow::Result<Vec<Letter>> {
    let mut texts = (0..7).map(|column| texts(rows, column)).collect::<Result<Vec<_>, _>>()?;
    let numbers = (7..10).map(|column| integers(rows, column)).collect::<Result<Vec<_>, _>>()?;
    let times = (10..13).map(|column| times(rows, column)).collect::<Result<Vec<_>, _>>()?;
    let letter = |row: usize| {
        let mut text = |column: usize| texts[column][row].take();
        let (job, topic, id) = (text(0), text(1), text(2));
        let (reason, field, detail, origin) = (text(3), text(4), text(5), text(6));
        let number = |column: usize| numbers[column - 7][row];
        let time = |column: usize| times[column - 10][row].map(Timestamp);
        let at = Origin {
            topic_id: Uuid::parse_str(&id.unwrap_or_default()).unwrap_or_default(),
            partition: i32::try_from(number(7).unwrap_or(-1)).unwrap_or(-1),
            offset: Offset(number(8).unwrap_or(-1)),
        };
        let append_time = time(10).unwrap_or_default();
        let first = Retry { origin: at, append_time };
        let origin = origin.and_then(|text| text.parse().ok());
        let first = match (origin, time(12)) {
            (Some(origin), Some(append_time)) => Retry { origin, append_time },
            _ => first,
        };
        Letter {
            job: words.of(&job.unwrap_or_default()),
            topic: words.of(&topic.unwrap_or_default()),
            at,
            reason: words.of(&reason.unwrap_or_default()),
            field: field.map(|field| words.of(&field)),
            detail: detail.unwrap_or_default(),
            schema_id: number(9),
            append_time,
            rejected_at: time(11).unwrap_or_default(),
            first,
        }
    };
    Ok((0..rows.num_rows()).map(letter).collect())
}

/// Asks the lake, and takes the answer a batch at a time.
pub(super) async fn each(
    place: &Place,
    sql: &str,
    mut take: impl FnMut(&RecordBatch) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let refused = |cause: &aion_analytics::Error| anyhow!("look into the lake: {cause}");
    let mut answer = place.engine.query(sql).await.map_err(|cause| refused(&cause))?;
    while let Some(rows) = answer.try_next().await.map_err(|cause| refused(&cause))? {
        take(&rows)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_whatever_the_job_is_called() {
        let id = Uuid::from_u128(5);
        let at = Origin { topic_id: id, partition: 4, offset: Offset(120) };
        assert_eq!(parse_key(&format!("j:{id}:4:120")), Some(("j", at)));
        assert_eq!(parse_key(&format!("a:b:{id}:4:120")), Some(("a:b", at)));
        for bad in ["", "j", "j:4:120", "j:nonsense:4:120", &format!("j:{id}:-4:120")] {
            assert_eq!(parse_key(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_condition_is_one_whole_and_texts_are_quoted() {
        let filter = Filter {
            condition: Some("reason = 'a' or true".into()),
            job: Some("it's".into()),
            since: None,
        };
        assert_eq!(filter.sql(), "true and (reason = 'a' or true) and job = 'it''s'");
    }
}
