//! From given to read: what a partition goes through before its first record, and how it is given back.
//!
//! given -> every sink says what it has -> the source says what the log has -> gaps are queued, or the
//! partition stops -> reading starts at the least mark. The log is looked at *after* the sinks: a writer
//! that was thought dead may have moved a mark in between, and that is no damage.

use std::time::{Duration, Instant};

use aion_schemas::log::{Mark, Partition, Stream, Timestamp};
use aion_sinks::fault;
use uuid::Uuid;

use super::{
    JobError,
    appeal::{Question, Settled},
    bounds::{agreed_end, begin_empty_stores, diverged, gap_item, missed},
    event_loop::Job,
    gaps::{Gap, GapKind, RECORDED},
    journal::Journal,
    reader::{Item, OnceDrained, Phase, Reader},
    rules::Rule,
    source::{Command, Located, Source},
};

/// After this long without an answer about a log's bounds the question is put again.
const LOCATE_AGAIN: Duration = Duration::from_secs(10);
/// And after this long when the topic's id was in doubt.
const SETTLES: Duration = Duration::from_millis(500);

impl<S: Source, J: Journal> Job<S, J> {
    /// Partitions were given to this process.
    pub(super) async fn given(
        &mut self,
        stream: Stream,
        partitions: &[i32],
        now: Instant,
    ) -> Result<(), JobError> {
        self.counters.rebalances += 1;
        let mut stream = stream;
        if !self.plan.rules.hold(Rule::StreamIsTopicId) {
            stream.id = Uuid::nil();
        }
        // Another id than the one in use is for look-ups to settle.
        let stream = self.stream.get_or_insert(stream).clone();
        let (topic, topic_id) = (&stream.topic, &stream.id);
        tracing::info!(job = %self.plan.job, %topic, %topic_id, ?partitions, "given partitions");
        for number in partitions {
            let partition = Partition { stream: stream.clone(), number: *number };
            self.readers.insert(*number, Reader::new(partition, self.places.len()));
        }
        self.assign_due(now).await
    }

    /// Asks every sink for the marks of the partitions that need them.
    pub(super) async fn assign_due(&mut self, now: Instant) -> Result<(), JobError> {
        let due = |reader: &&Reader| reader.phase == Phase::Assigning && !reader.backoff.waits(now);
        let partitions: Vec<Partition> =
            self.readers.values().filter(due).map(|reader| reader.partition.clone()).collect();
        if partitions.is_empty() {
            return Ok(());
        }
        for at in 0..self.places.len() {
            let place = &mut self.places[at];
            match place.sink.assign(&partitions).await {
                Ok(marks) => {
                    for partition in &partitions {
                        if let Some(reader) = self.readers.get_mut(&partition.number) {
                            let ahead = place.sink.stored_ahead(partition);
                            let last_ahead = place.sink.last_ahead(partition);
                            let mark = marks.get(partition).copied();
                            reader.sinks[at].assigned(mark, ahead, last_ahead);
                            reader.lost.retain(|(sink, _)| *sink != place.name);
                        }
                    }
                    for (partition, range) in place.sink.take_lost() {
                        if let Some(reader) = self.readers.get_mut(&partition.number) {
                            reader.lost.push((place.name, range));
                        }
                    }
                }
                Err(error) if error.passes() => {
                    for partition in &partitions {
                        if let Some(reader) = self.readers.get_mut(&partition.number) {
                            reader.backoff.failed(now);
                        }
                    }
                    let name = place.name;
                    self.note_trouble(format!("{name}: {error}"));
                    return Ok(());
                }
                Err(error) => return Err(self.sink_failed(self.places[at].name, error)),
            }
        }
        for partition in &partitions {
            self.locate(partition.number, now).await;
        }
        Ok(())
    }

    async fn locate(&mut self, number: i32, now: Instant) {
        self.last_run += 1;
        let run = self.last_run;
        let Some(reader) = self.readers.get_mut(&number) else { return };
        reader.backoff.succeeded();
        reader.lost_offsets = reader.lost.iter().map(|(_, range)| range.end - range.start).sum();
        reader.run = run;
        reader.phase = Phase::Locating { again_at: now + LOCATE_AGAIN };
        self.source.command(Command::Locate { partition: number, run }).await;
    }

    /// Asks again where no answer came, or none that could be used. It is the same question, for the same
    /// run, so one that is still being asked is not asked twice.
    pub(super) async fn locate_again(&mut self, now: Instant) {
        for reader in self.readers.values_mut() {
            let Phase::Locating { again_at } = &mut reader.phase else { continue };
            if *again_at <= now {
                *again_at = now + LOCATE_AGAIN;
                let (partition, run) = (reader.partition.number, reader.run);
                self.source.command(Command::Locate { partition, run }).await;
            }
        }
    }

    /// The log's bounds are known: compares them with the sinks' marks and starts reading.
    pub(super) async fn located(&mut self, located: Located, now: Instant) -> Result<(), JobError> {
        let rules = self.plan.rules;
        let Some(reader) = self.readers.get_mut(&located.partition) else { return Ok(()) };
        if reader.run != located.run || !matches!(reader.phase, Phase::Locating { .. }) {
            return Ok(());
        }
        let is_same = located.topic_id == Some(reader.partition.stream.id);
        if rules.hold(Rule::StreamIsTopicId) && (!is_same || self.gate.is_in_doubt()) {
            // Bounds of another incarnation say nothing. Asked again, until look-ups agree on the id.
            reader.phase = Phase::Locating { again_at: now + SETTLES };
            if !is_same {
                self.gate.doubt();
            }
            self.source.command(Command::Look).await;
            return Ok(());
        }
        reader.high = Some(located.bounds.end);
        reader.end = reader.high;
        let end = agreed_end(reader, located.bounds.end);
        for place in &mut self.places {
            place.sink.log_ends(&reader.partition, end);
        }
        let names: Vec<&'static str> = self.places.iter().map(|place| place.name).collect();
        let noted_at = self.clock.wall();
        let diverged = diverged(reader, &names, located.bounds.end);
        let is_kept = reader.trust_kept() && !diverged.is_empty();
        if !diverged.is_empty() && !is_kept && rules.hold(Rule::MarkWithinLog) {
            stop_diverged(reader, &diverged, &self.plan.job, (now, noted_at));
            return self.advance(located.partition, now).await;
        }
        tell_settled(reader, &names, &self.plan.job, noted_at);
        if reader.waits_for_the_log() {
            reader.phase = Phase::Locating { again_at: now + LOCATE_AGAIN };
            return self.advance(located.partition, now).await;
        }
        let gaps =
            missed(reader, &names, located.bounds.start, rules.hold(Rule::FirstStartHasNoGap));
        begin_empty_stores(reader, located.bounds.start, rules.hold(Rule::NoMarkStartsAtLogStart));
        tell_lost(reader, &self.plan.job, noted_at);
        if let Some(item) = gap_item(reader, &gaps, located.bounds.start, &self.plan.columns) {
            let entry = |gap: &Gap| gap.entry(&self.plan.job, &reader.partition, noted_at);
            let entries = gaps.iter().map(entry).collect();
            for gap in &gaps {
                gap.tell(&self.plan.job, &reader.partition, RECORDED);
            }
            reader.waiting.push_back(Item { entries, ..item });
        }
        let mut at = reader.start_mark();
        if at.offset < located.bounds.start || reader.is_kept(at.offset) {
            // The log's epochs say nothing about this place, or what they say is settled.
            at = Mark::at(at.offset.max(located.bounds.start));
        }
        if at.offset == located.bounds.start && at.record_epoch().is_none() {
            at = Mark::at_log_start(at.offset);
        }
        reader.agreed = None;
        reader.phase = Phase::Reading;
        let (partition, run) = (reader.partition.clone(), reader.run);
        self.departed.is_back(partition.number);
        self.source.command(Command::Start { partition, run, at }).await;
        self.advance(located.partition, now).await
    }

    /// Starts a partition over from the sinks' stores.
    pub(super) async fn restart(&mut self, number: i32, now: Instant) {
        if self.readers.get(&number).is_some_and(Reader::is_leaving) {
            // There is nothing to start over with: the topic is gone, and what the stores lack is missing for good.
            self.note_departures(&[number], now);
        }
        let Some(reader) = self.readers.get_mut(&number) else { return };
        if reader.is_leaving() {
            return reader.give_up();
        }
        let topic = &reader.partition.stream.topic;
        tracing::info!(
            job = %self.plan.job, %topic, partition = number, "starting over from the marks"
        );
        reader.restart();
        reader.backoff.failed(now); // whatever made it start over shall not spin
        self.source.command(Command::Halt(number)).await;
    }

    /// Starts partitions over whose log was found cut, once it is certain that it is the same topic's.
    pub(super) async fn restart_cut(&mut self, now: Instant) {
        let cut = self.readers.values_mut().filter(|reader| reader.is_cut());
        let certain = cut.filter_map(|reader| reader.looked().then_some(reader.partition.number));
        let numbers: Vec<i32> = certain.collect();
        for number in numbers {
            self.restart(number, now).await;
        }
    }

    /// Goes on with partitions of which everything is stored that can't be read again. While a sink fails,
    /// they wait: starting over would forget what it was handed.
    pub(super) async fn go_on_drained(&mut self, now: Instant) {
        let early = !self.plan.rules.hold(Rule::DrainedBeforeStartingOver);
        let drained = |reader: &Reader| {
            let is_done = reader.is_drained() || (early && reader.waiting.is_empty());
            reader.once_drained.filter(|_| is_done).map(|then| (reader.partition.number, then))
        };
        let drained: Vec<_> = self.readers.values().filter_map(drained).collect();
        for (number, then) in drained {
            match then {
                OnceDrained::StartOver => self.restart(number, now).await,
                OnceDrained::TakeUpAnew => self.take_up_anew(number),
            }
        }
    }

    /// Partitions are about to leave: stores what it can in time, commits, lets go.
    pub(super) async fn hand_over(
        &mut self,
        partitions: &[i32],
        now: Instant,
    ) -> Result<(), JobError> {
        self.counters.rebalances += 1;
        let (job, topic) = (&self.plan.job, &self.plan.topic);
        tracing::info!(%job, %topic, ?partitions, "giving partitions up");
        self.flush_and_commit(now, now + self.plan.revoke_flush).await?;
        fault::point("job.handed_over");
        self.let_go(partitions.to_vec(), now).await;
        Ok(())
    }

    /// Partitions are gone: to another process, which starts from the marks, or with their topic.
    pub(super) async fn lost(
        &mut self,
        partitions: Vec<i32>,
        now: Instant,
    ) -> Result<(), JobError> {
        self.counters.rebalances += 1;
        let (job, topic) = (&self.plan.job, &self.plan.topic);
        tracing::warn!(%job, %topic, ?partitions, "lost partitions to another process, or with their topic");
        if self.gate.is_in_doubt() {
            // Nobody could read again what was read of a topic that is gone. Where another process has the partitions
            // after all, its marks keep these rows out.
            self.flush_now(now, now + self.plan.revoke_flush).await?;
        }
        self.let_go(partitions, now).await;
        Ok(())
    }

    async fn let_go(&mut self, partitions: Vec<i32>, now: Instant) {
        self.note_departures(&partitions, now);
        self.forget(&partitions);
        self.source.command(Command::Release(partitions)).await;
    }

    /// Drops all that is held of partitions, here and in the sinks.
    pub(super) fn forget(&mut self, numbers: &[i32]) {
        let gone: Vec<Partition> = numbers
            .iter()
            .filter_map(|number| self.readers.remove(number))
            .map(|reader| reader.partition)
            .collect();
        for place in &mut self.places {
            place.sink.revoke(&gone);
        }
    }
}

/// Stops a partition whose stored rows and log differ; what waits is the entries that say so.
pub(super) fn stop_diverged(
    reader: &mut Reader,
    gaps: &[Gap],
    job: &str,
    (now, noted_at): (Instant, Timestamp),
) {
    let what: Vec<String> = gaps.iter().map(|gap| gap.describe(&reader.partition)).collect();
    let (topic, number) = (&reader.partition.stream.topic, reader.partition.number);
    let what = format!(
        "{}; `aion diverged keep {job} {topic} {number}` lets what is stored stand, `aion diverged replace \
         {job} {topic} {number}` takes it back for what the log has now",
        what.join("; ")
    );
    let done = "the partition stops until somebody chooses what to keep";
    for gap in gaps {
        gap.tell(job, &reader.partition, done);
    }
    let entry = |gap: &Gap| gap.entry(job, &reader.partition, noted_at);
    let entries = gaps.iter().map(entry).collect();
    reader.stop(what);
    reader.asks = Some((Question::Divergence, now));
    reader.waiting.push_back(Item::of_entries(entries));
}

/// Queues the entries of what sinks had and have no more. Where it is left alone they say so at each assignment.
fn tell_lost(reader: &mut Reader, job: &str, noted_at: Timestamp) {
    let lost = Gap::gather(GapKind::SinkLost, std::mem::take(&mut reader.lost));
    if lost.is_empty() {
        return;
    }
    for gap in &lost {
        gap.tell(job, &reader.partition, RECORDED);
    }
    let entry = |gap: &Gap| gap.entry(job, &reader.partition, noted_at);
    let item = Item::of_entries(lost.iter().map(entry).collect());
    reader.waiting.push_back(Item { is_told_anew: true, ..item });
}

/// Queues the entry that says how a cut was settled, before anything that is read on the strength of it.
fn tell_settled(reader: &mut Reader, names: &[&'static str], job: &str, noted_at: Timestamp) {
    let (kind, range) = match &reader.settled {
        Some(Settled::Kept(range)) => (GapKind::Kept, range.clone()),
        Some(Settled::Replaced(range)) => (GapKind::Replaced, range.clone()),
        None => return,
    };
    if std::mem::replace(&mut reader.is_settled_told, true) {
        return;
    }
    let gap = Gap { kind, range, sinks: names.to_vec() };
    gap.tell(job, &reader.partition, RECORDED);
    let entries = vec![gap.entry(job, &reader.partition, noted_at)];
    reader.waiting.push_back(Item::of_entries(entries));
}
