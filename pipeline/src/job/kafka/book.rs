//! Which schemas are known, which are asked for, and when one that isn't found is taken for none.
//!
//! **Invariant:** an id is given up only after the registry itself has said for the whole grace time that it
//! has no such schema: a registry that is down, or comes back late, costs time and no record.
//! **Invariant:** ids come from payloads, so anybody can make them: what is kept of those that lead to no
//! schema is bounded, and so is the time that they hold a partition up.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use aion_schemas::decode::{Reason, SchemaId, Writer};

use crate::job::rules::{Rule, Rules};

/// The time between two questions for an id that isn't there.
const ASK_AGAIN: Duration = Duration::from_secs(2);
/// The longest pause between two questions that got no answer.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// Why an id's records are rejected may pass: after this time it is asked for anew.
const REJECTED_FOR: Duration = Duration::from_mins(5);
/// So many such ids are kept.
const MAX_REJECTED: usize = 1024;
/// Without an id given up for so long, the next is waited for as long as the first was.
const PATIENT_AGAIN: Duration = Duration::from_mins(10);

/// What a question brought.
#[derive(Debug)]
pub(super) enum Answer {
    /// How its records are read, or why they are rejected for ever.
    Lasting(Writer),
    /// Why its records are rejected, for now.
    Passing(Writer),
    /// There is no such schema: the registry's words.
    Missing(String),
    /// No answer, and why.
    Unknown(String),
}

/// What is known of schemas.
#[derive(Debug)]
pub(super) struct Book {
    grace: Duration,
    rules: Rules,
    known: BTreeMap<SchemaId, Writer>,
    wanted: BTreeMap<SchemaId, Wanted>,
    /// Ids whose records are rejected for now, the longest first.
    rejected: VecDeque<(Instant, SchemaId)>,
    /// How many ids were given up without one that was found among them, and when the last was.
    given_up: Option<(u32, Instant)>,
    /// What decoders have to be told.
    news: Vec<News>,
}

/// Something that every decoder of the topic has to be told.
#[derive(Clone, Debug)]
pub(super) enum News {
    /// How records with an id are read.
    Learn(SchemaId, Writer),
    /// That an id isn't known any more.
    Forget(SchemaId),
}

#[derive(Debug)]
struct Wanted {
    due: Instant,
    is_asked: bool,
    /// Since when the registry says, whenever it says anything, that there is none.
    missing_since: Option<Instant>,
    failures: u32,
    why: String,
}

impl Book {
    /// Nothing is known. An id that isn't there is waited for as long as `grace`.
    pub(super) fn new(grace: Duration) -> Book {
        Book {
            grace,
            rules: Rules::default(),
            known: BTreeMap::new(),
            wanted: BTreeMap::new(),
            rejected: VecDeque::new(),
            given_up: None,
            news: Vec::new(),
        }
    }

    /// Everything that is known.
    pub(super) fn known(&self) -> impl Iterator<Item = (SchemaId, &Writer)> {
        self.known.iter().map(|(id, writer)| (*id, writer))
    }

    /// Whether it is known how records with an id are read, or why not.
    pub(super) fn knows(&self, id: SchemaId) -> bool {
        self.known.contains_key(&id)
    }

    /// Wants an id. Wanted twice is wanted once.
    pub(super) fn want(&mut self, id: SchemaId, now: Instant) {
        if self.knows(id) {
            return;
        }
        self.wanted.entry(id).or_insert_with(|| Wanted {
            due: now,
            is_asked: false,
            missing_since: None,
            failures: 0,
            why: String::new(),
        });
    }

    /// Why an id isn't known yet; `None` before the first answer.
    pub(super) fn why(&self, id: SchemaId) -> Option<&str> {
        self.wanted.get(&id).map(|wanted| wanted.why.as_str()).filter(|why| !why.is_empty())
    }

    /// The id to ask for now.
    pub(super) fn next(&mut self, now: Instant) -> Option<SchemaId> {
        self.forget_old(now);
        let due = |(_, wanted): &(&SchemaId, &mut Wanted)| !wanted.is_asked && wanted.due <= now;
        let (id, wanted) = self.wanted.iter_mut().find(due)?;
        wanted.is_asked = true;
        Some(*id)
    }

    /// Notes an answer.
    pub(super) fn answered(&mut self, id: SchemaId, answer: Answer, now: Instant) {
        let patience = self.patience(now);
        let answer = match answer {
            Answer::Unknown(why) if !self.rules.hold(Rule::SilenceIsNoAnswer) => {
                Answer::Missing(why)
            }
            answer => answer,
        };
        let Some(wanted) = self.wanted.get_mut(&id) else { return };
        wanted.is_asked = false;
        match answer {
            Answer::Lasting(writer) => {
                self.given_up = None;
                self.learn(id, writer);
            }
            Answer::Passing(writer) => self.reject(id, writer, now),
            Answer::Missing(why) => {
                let since = *wanted.missing_since.get_or_insert(now);
                wanted.failures = 0;
                wanted.due = now + ASK_AGAIN;
                let missing_for = now.saturating_duration_since(since);
                if missing_for >= patience {
                    let count = self.given_up.map_or(0, |(count, _)| count);
                    self.given_up = Some((count + 1, now));
                    let why = format!("the registry doesn't have schema id {}: {why}", id.0);
                    self.reject(id, Writer::refused(Reason::UnknownSchema, why), now);
                } else {
                    let left = patience.saturating_sub(missing_for).as_secs();
                    wanted.why = format!("{why}; in {left} s its records become dead letters");
                }
            }
            Answer::Unknown(why) => {
                wanted.missing_since = None;
                wanted.failures = (wanted.failures + 1).min(16);
                wanted.due =
                    now + (ASK_AGAIN / 4 * (1 << wanted.failures.min(5))).min(LONGEST_PAUSE);
                wanted.why = why;
            }
        }
    }

    /// Takes what decoders have to be told.
    pub(super) fn take_news(&mut self) -> Vec<News> {
        std::mem::take(&mut self.news)
    }

    /// How long the next id that isn't there is waited for: half as long after each that was given up, so
    /// that garbage, which looks like frames with ids of all kinds, holds nothing up for ever.
    fn patience(&self, now: Instant) -> Duration {
        if !self.rules.hold(Rule::MissingIsWaitedFor) {
            return Duration::ZERO;
        }
        match self.given_up {
            Some((count, last)) if now.saturating_duration_since(last) < PATIENT_AGAIN => {
                let half = self.grace / 2u32.saturating_pow(count);
                // What is over before the next question needs none.
                if half < ASK_AGAIN { Duration::ZERO } else { half }
            }
            _ => self.grace,
        }
    }

    fn learn(&mut self, id: SchemaId, writer: Writer) {
        self.wanted.remove(&id);
        self.news.push(News::Learn(id, writer.clone()));
        self.known.insert(id, writer);
    }

    fn reject(&mut self, id: SchemaId, writer: Writer, now: Instant) {
        self.learn(id, writer);
        self.rejected.push_back((now, id));
    }

    fn forget_old(&mut self, now: Instant) {
        let is_old = |(since, _): &(Instant, SchemaId)| {
            now.saturating_duration_since(*since) >= REJECTED_FOR
        };
        while self.rejected.len() > MAX_REJECTED || self.rejected.front().is_some_and(is_old) {
            let Some((_, id)) = self.rejected.pop_front() else { return };
            self.known.remove(&id);
            self.news.push(News::Forget(id));
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use aion_schemas::catalog::Catalog;

    use super::*;

    const GRACE: Duration = Duration::from_mins(1);

    fn missing() -> Answer {
        Answer::Missing("schema not found".to_owned())
    }

    fn down() -> Answer {
        Answer::Unknown("connection refused".to_owned())
    }

    fn writer() -> Writer {
        let catalog = Catalog::builtin();
        let schema = &catalog.table("tasks").unwrap().schema;
        Writer::new(schema, &schema.avro_text("aion.events"), &[])
    }

    /// Asks for an id, one answer after another until there are news, and tells how long that took.
    fn until_known(
        book: &mut Book,
        id: u32,
        start: Instant,
        answer: impl Fn(Duration) -> Answer,
    ) -> Duration {
        let id = SchemaId(id);
        book.want(id, start);
        for step in 0..100_000u64 {
            let waited = Duration::from_millis(100 * step);
            if book.next(start + waited) == Some(id) {
                book.answered(id, answer(waited), start + waited);
            }
            if book.knows(id) {
                return waited;
            }
        }
        panic!("{id:?} is never known");
    }

    fn reason(book: &Book, id: u32) -> Option<Reason> {
        let (_, writer) = book.known().find(|(known, _)| *known == SchemaId(id)).unwrap();
        writer.flaw().map(|reject| reject.reason)
    }

    #[test]
    fn an_id_is_asked_for_once_however_often_it_is_wanted() {
        let (mut book, now) = (Book::new(GRACE), Instant::now());
        book.want(SchemaId(7), now);
        book.want(SchemaId(7), now);
        assert_eq!(book.next(now), Some(SchemaId(7)));
        assert_eq!(book.next(now + GRACE), None, "it is being asked for");
        book.answered(SchemaId(7), Answer::Lasting(writer()), now);
        assert!(matches!(&book.take_news()[..], [News::Learn(SchemaId(7), _)]));
        book.want(SchemaId(7), now);
        assert_eq!(book.next(now + GRACE * 100), None, "it is known for good");
        assert_eq!(reason(&book, 7), None);
    }

    /// A registry answers so until its schema is there: how long that took, and why it's taken for none.
    fn answers_so_until(
        without: Option<Rule>,
        there: Duration,
        before: fn() -> Answer,
    ) -> (Duration, Option<Reason>) {
        let mut book = Book { rules: Rules { without }, ..Book::new(GRACE) };
        let found = |waited| if waited < there { before() } else { Answer::Lasting(writer()) };
        let waited = until_known(&mut book, 7, Instant::now(), found);
        assert_eq!(book.why(SchemaId(7)), None);
        (waited, reason(&book, 7))
    }

    #[test]
    fn one_that_is_missing_is_given_up_after_the_grace_time_and_not_before() {
        let (mut book, now) = (Book::new(GRACE), Instant::now());
        let waited = until_known(&mut book, 7, now, |_| missing());
        assert!((GRACE..GRACE + ASK_AGAIN).contains(&waited), "{waited:?}");
        assert_eq!(reason(&book, 7), Some(Reason::UnknownSchema));
        // One that comes within the time is read.
        let late = GRACE.saturating_sub(ASK_AGAIN);
        assert_eq!(answers_so_until(None, late, missing).1, None);
    }

    #[test]
    fn without_the_grace_time_a_schema_that_comes_late_is_none() {
        let (waited, reason) = answers_so_until(Some(Rule::MissingIsWaitedFor), ASK_AGAIN, missing);
        assert_eq!((waited, reason), (Duration::ZERO, Some(Reason::UnknownSchema)));
    }

    const HOUR: Duration = Duration::from_hours(1);

    #[test]
    fn a_registry_that_is_down_is_waited_for_without_end() {
        let (waited, reason) = answers_so_until(None, HOUR, down);
        assert!(waited >= HOUR && waited <= HOUR + LONGEST_PAUSE, "{waited:?}");
        assert_eq!(reason, None);
    }

    #[test]
    fn if_silence_were_an_answer_a_registry_that_is_down_would_cost_records() {
        let (waited, reason) = answers_so_until(Some(Rule::SilenceIsNoAnswer), HOUR, down);
        assert!(waited < GRACE + ASK_AGAIN, "{waited:?}");
        assert_eq!(reason, Some(Reason::UnknownSchema));
    }

    #[test]
    fn time_without_an_answer_is_no_part_of_the_grace_time() {
        let (mut book, now) = (Book::new(GRACE), Instant::now());
        let (down_at, up_at) = (GRACE / 2, GRACE * 10);
        let found = |waited| if (down_at..up_at).contains(&waited) { down() } else { missing() };
        let waited = until_known(&mut book, 7, now, found);
        assert!(waited >= up_at + GRACE, "{waited:?}");
    }

    #[test]
    fn garbage_holds_up_for_twice_the_grace_time_in_all() {
        let (mut book, start) = (Book::new(GRACE), Instant::now());
        let mut now = start;
        for id in 1..50 {
            now += until_known(&mut book, id, now, |_| missing());
        }
        let waited = now - start;
        assert!(waited <= GRACE * 2 + ASK_AGAIN * 8, "{waited:?}");
        // A schema that is found, or time, makes it patient again.
        until_known(&mut book, 100, now, |_| Answer::Lasting(writer()));
        assert!(until_known(&mut book, 101, now, |_| missing()) >= GRACE);
        assert!(until_known(&mut book, 102, now + GRACE, |_| missing()) < GRACE);
        assert!(
            until_known(&mut book, 103, now + GRACE * 2 + PATIENT_AGAIN, |_| missing()) >= GRACE
        );
    }

    #[test]
    fn what_may_pass_is_asked_for_anew_and_bounded() {
        let (mut book, now) = (Book::new(Duration::ZERO), Instant::now());
        let foreign = || Writer::refused(Reason::ForeignSchema, "of another subject".to_owned());
        until_known(&mut book, 7, now, |_| Answer::Passing(foreign()));
        assert_eq!(reason(&book, 7), Some(Reason::ForeignSchema));
        book.take_news();
        assert_eq!(book.next(now + REJECTED_FOR), None);
        assert!(matches!(&book.take_news()[..], [News::Forget(SchemaId(7))]));
        assert!(!book.knows(SchemaId(7)));
        for id in 0..MAX_REJECTED as u32 + 9 {
            until_known(&mut book, id, now, |_| missing());
        }
        book.next(now);
        assert_eq!(book.known().count(), MAX_REJECTED);
    }
}
