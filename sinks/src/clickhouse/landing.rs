//! A batch on its way into a table, until it is known what became of it.
//!
//! **Invariant:** what may have landed is looked for before it is sent again.
//! **Invariant:** a lease begins with a look that finds nothing where the batch goes, and with no other; one that began
//! within a break isn't used behind it.
//! **Invariant:** a second token (`#1`) is used only after the first was acknowledged twice with nothing in the
//! table, and after any INSERT under the first has been refused or ended: its lease and the time that a query may
//! take have passed, and the server refuses a query id that still runs.

use std::{
    sync::atomic::Ordering::Relaxed,
    time::{Duration, Instant},
};

use aion_schemas::log::{Mark, Offset, Partition, show};
use arrow::record_batch::RecordBatch;

use super::{
    check,
    client::Insert,
    failure::{Class, Failure},
    insert,
    ledger::{Entry, NoteKind, Stored},
    retries,
    survey::Note,
    table::{Table, off, overlap},
};
use crate::{batch::Batch, fault, sink::SinkError};

/// Where a partition's chain is, as far as this writer knows.
#[derive(Clone, Debug, Default)]
pub(super) struct Chain {
    /// Where the next batch begins; `None` before the first.
    pub(super) end: Option<Offset>,
    /// The day of the next batch.
    pub(super) day: Option<i32>,
    /// Whether it is agreed where the first batch begins.
    pub(super) is_open: bool,
    /// Until when rows may be inserted, by the server's clock, and when this was learnt.
    pub(super) lease: Option<(u32, Instant)>,
    /// When it was noted last how far the partition is.
    pub(super) noted: Option<Instant>,
}

/// A batch on its way.
#[derive(Debug)]
pub(super) struct Landing {
    pub(super) partition: Partition,
    /// What was taken to be written.
    whole: Vec<Batch>,
    /// What of it goes: without the rows that would store a record twice.
    pub(super) batches: Vec<Batch>,
    pub(super) chain: Chain,
    /// Whether an INSERT of it was sent whose outcome isn't known.
    is_unsure: bool,
    /// How often the present token was acknowledged with nothing in the table.
    vanished: u32,
    /// The number behind `#` in the token; 0 is none.
    suffix: u32,
    /// The greatest lease that was sent under the present token.
    last_lease: u32,
    /// How many INSERTs of it nobody answered, one after the other.
    unanswered: u32,
    /// Whether the server said last that it has too many parts.
    pub(super) is_crowded: bool,
    /// How long the server took for the last INSERT of this try; `None` before one was sent, and where it was too much: that
    /// says nothing of how the server keeps up, and larger batches would be too much again.
    pub(super) took: Option<Duration>,
    goes: Goes,
    /// Whether rows were left out that would store a record twice.
    is_looked: bool,
}

/// Where a batch goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Goes {
    /// Behind the last one.
    Behind,
    /// Into a break that is over there, and was found then, by the server's clock.
    IntoBreak { until: Offset, found_at: u32 },
}

/// What became of a batch.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Stored(Mark),
    /// Another writer has stored other batches there.
    Moved,
    /// The server won't take it as it is, and nothing of it is stored.
    Unfit {
        why: Unfit,
        cause: String,
    },
}

/// Why a batch isn't taken as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unfit {
    /// A row of it is refused for what it holds.
    Row,
    /// It takes more memory than the server has, more time than it may take, or more bytes than come through.
    Size,
}

/// What an INSERT came to.
enum Sent {
    Acknowledged,
    StaleLease,
    Unfit(Unfit, String),
}

enum Seen {
    Ours,
    Others,
    Nothing,
}

/// The greatest number behind `#`.
const MAX_SUFFIX: u32 = 2;
/// Of a batch that was sent so often, where looks are answered and it isn't, a smaller one may come through.
const MAX_UNANSWERED: u32 = 2;
/// How often a stale lease is renewed in one try.
const MAX_LEASES: u32 = 3;

impl Landing {
    /// Batches of a partition that follow on its chain.
    pub(super) fn new(
        partition: Partition,
        batches: Vec<Batch>,
        chain: Chain,
        goes: Goes,
    ) -> Landing {
        Landing {
            goes,
            is_looked: false,
            partition,
            whole: batches.clone(),
            batches,
            chain,
            is_unsure: false,
            vanished: 0,
            suffix: 0,
            last_lease: 0,
            unanswered: 0,
            is_crowded: false,
            took: None,
        }
    }

    /// The bytes held against the budget.
    pub(super) fn bytes(&self) -> usize {
        self.batches.iter().map(Batch::bytes).sum()
    }

    /// How many rows it has.
    pub(super) fn rows(&self) -> usize {
        self.batches.iter().map(|batch| batch.rows.num_rows()).sum()
    }

    /// The mark once it is stored.
    pub(super) fn mark(&self) -> Mark {
        self.batches.last().map_or(Mark::at(Offset::ZERO), Batch::mark)
    }

    /// What was read: not necessarily where the batch begins.
    fn read_from(&self) -> Offset {
        self.batches.first().map_or(Offset::ZERO, |batch| batch.range.start)
    }

    /// Where the batch begins.
    fn first(&self, table: &Table) -> Offset {
        let end = self.chain.end.filter(|_| !off!(table, ChainEnd));
        end.unwrap_or_else(|| self.read_from())
    }

    /// Where the batch ends: where what was read does, as a rule.
    ///
    /// A writer that starts anew takes the last row's leader epoch for that of the last record below. Where a record
    /// without a row comes behind the last row, and is of a later epoch or may be, the batch ends at the row, and a note
    /// says the rest: else the log would seem to have been cut there. What fills the rest of a break ends where it meets others.
    fn end(&self) -> Offset {
        let mark = self.mark();
        let meets = matches!(self.goes, Goes::IntoBreak { until, .. } if mark.offset >= until);
        let last = self.batches.iter().rev().find_map(Batch::last_row);
        let Some((row, epoch)) = last.filter(|_| !meets) else { return mark.offset };
        let is_told_by_rows = mark.record_epoch().unwrap_or(-1) == epoch;
        if is_told_by_rows { mark.offset } else { row.next() }
    }

    /// What is being done, for people.
    pub(super) fn doing(&self, table: &Table) -> String {
        let range = self.first(table)..self.mark().offset;
        format!("insert into {}, offsets {} of {}", table.spec.name, show(&range), self.partition)
    }

    /// Goes on until it is known what became of the batch, or until something fails.
    pub(super) async fn run(&mut self, table: &Table) -> Result<Outcome, SinkError> {
        self.took = None;
        #[cfg(feature = "testing")]
        table.rig.pass().await;
        let is_to_open = self.rows() > 0 && !self.chain.is_open && !off!(table, Opening);
        if is_to_open && !self.open(table).await? {
            return Ok(Outcome::Moved);
        }
        // After that note: by it, who fills a break knows that the table has retries.
        if !self.is_looked {
            self.leave_out(table).await?;
            self.is_looked = true;
        }
        if self.rows() == 0 {
            return self.note_only(table).await;
        }
        for _ in 0..MAX_LEASES {
            // Before the look: where many wait, its lease would be over by the time that it is sent.
            let turn = table.turn().await;
            if self.is_unsure || self.is_lease_old(table) {
                match self.look(table).await? {
                    Seen::Ours => return self.stored(table).await,
                    Seen::Others => return Ok(Outcome::Moved),
                    Seen::Nothing => {
                        if let Some(cause) = self.too_much() {
                            return Ok(Outcome::Unfit { why: Unfit::Size, cause });
                        }
                        // What is hidden from the account by now may be there: it goes under no other token.
                        if self.vanished >= 2 {
                            check::again(table).await?;
                        }
                        self.wait_for_suffix(table)?;
                        self.leave_out_again(table).await?;
                        if self.rows() == 0 {
                            return self.note_only(table).await;
                        }
                    }
                }
            }
            let sent = self.send(table).await;
            drop(turn);
            let unfit = match sent? {
                Sent::StaleLease => continue,
                Sent::Acknowledged => None,
                Sent::Unfit(why, cause) => Some((why, cause)),
            };
            let is_believed = off!(table, Verify);
            match self.look(table).await? {
                _ if is_believed && unfit.is_none() => return self.stored(table).await,
                Seen::Ours if !is_believed => return self.stored(table).await,
                Seen::Others if !is_believed => return Ok(Outcome::Moved),
                Seen::Ours | Seen::Others | Seen::Nothing => {}
            }
            if let Some((why, cause)) = unfit {
                // A table whose columns were changed meanwhile refuses every row: that is for a person.
                if why == Unfit::Row {
                    check::again(table).await?;
                }
                return Ok(Outcome::Unfit { why, cause });
            }
            if self.is_expired(table) {
                self.chain.noted = None;
                return self.stored(table).await;
            }
            self.vanished += 1;
        }
        let cause = "acknowledged, and not in the table".to_owned();
        Err(SinkError::Retry { doing: self.doing(table), cause })
    }

    /// Leaves out what would store a record twice, as the table is now.
    async fn leave_out(&mut self, table: &Table) -> Result<(), SinkError> {
        let mut batches = self.whole.clone();
        retries::leave_out(table, &self.partition, &mut batches, self.goes).await?;
        self.batches = batches;
        Ok(())
    }

    /// The same under a new lease: others have stored rows since the last one began. Where that can't be looked at, nothing is
    /// sent under it: the next try looks again.
    async fn leave_out_again(&mut self, table: &Table) -> Result<(), SinkError> {
        if off!(table, OriginsAgain) {
            return Ok(());
        }
        let looked = self.leave_out(table).await;
        if looked.is_err() && !off!(table, LeaseOfOrigins) {
            self.chain.lease = None;
        }
        looked
    }

    /// Sends the batch. Whatever the answer, only a look tells what it did.
    async fn send(&mut self, table: &Table) -> Result<Sent, SinkError> {
        let rows = self.stamp(table).await?;
        #[cfg(feature = "testing")]
        table.rig.about_to_insert().await;
        fault::point("clickhouse.before_insert");
        let base = format!("{}/{}", self.partition.key(), self.first(table));
        let mut token = match self.suffix {
            0 => base.clone(),
            n => format!("{base}#{n}"),
        };
        if off!(table, Token) {
            token = uuid::Uuid::new_v4().to_string();
        }
        // Without the suffix: while a query of this token runs in any form, the server refuses another.
        let database = &table.ledger.client.server().database;
        let query_id = format!("aion/{database}.{}/{base}", table.spec.name);
        let within = table.settings.max_execution;
        let blocks = if off!(table, OneBlock) { 2 } else { 1 };
        let what = Insert {
            table: &table.spec.name,
            token: &token,
            query_id: &query_id,
            within,
            answer_within: table.settings.answer_within,
            blocks,
        };
        let began = Instant::now();
        let sent = table.ledger.client.insert(what, &rows).await;
        self.heed(&sent, began.elapsed());
        fault::point("clickhouse.after_insert");
        #[cfg(feature = "testing")]
        table.rig.inserted().await;
        self.is_unsure = true;
        self.is_crowded = matches!(&sent, Err(Failure::Refused { code: 252, .. }));
        match sent {
            Ok(()) => Ok(Sent::Acknowledged),
            Err(failure) => match failure.class() {
                Class::Lease => Ok(Sent::StaleLease),
                Class::Row => Ok(Sent::Unfit(Unfit::Row, failure.without_values())),
                Class::Size => Ok(Sent::Unfit(Unfit::Size, failure.text())),
                _ => Err(failure.error(&self.doing(table))),
            },
        }
    }

    /// Notes whether an INSERT was answered, and after how long.
    fn heed(&mut self, sent: &Result<(), Failure>, took: Duration) {
        let class = sent.as_ref().err().map(Failure::class);
        let is_silence = sent.as_ref().is_err_and(Failure::is_silence);
        self.took = (!is_silence && class != Some(Class::Size)).then_some(took);
        match sent {
            Err(_) if is_silence => self.unanswered += 1,
            // It was not heard at all, or not for what it is.
            Err(Failure::Unreached(_)) => {}
            Err(_) if class == Some(Class::Running) => {}
            _ => self.unanswered = 0,
        }
    }

    /// Why the batch counts as too much, if it does. What was sent of it may land still: what goes instead begins at the
    /// same offset, so under the same token. Under another than the first that would not be so.
    fn too_much(&self) -> Option<String> {
        if self.unanswered < MAX_UNANSWERED || self.suffix > 0 {
            return None;
        }
        Some(format!(
            "sent {} times and not answered, where questions are: the line may be too slow for so many bytes, the server may \
             have too little memory or time, or a proxy before it may end such requests (nginx: client_max_body_size, \
             client_body_timeout, proxy_read_timeout)",
            self.unanswered
        ))
    }

    /// The rows with their ledger entry.
    async fn stamp(&mut self, table: &Table) -> Result<RecordBatch, SinkError> {
        let day = self.chain.day.filter(|_| !off!(table, Day));
        let own = || self.batches.iter().find_map(|batch| insert::appended(&batch.rows));
        let day = day.or_else(|| own().map(|(first, _)| insert::day_of(first))).unwrap_or(0);
        let mut lease = self.chain.lease.map_or(0, |(until, _)| until);
        if off!(table, Lease) {
            lease = u32::MAX;
        }
        self.last_lease = self.last_lease.max(lease);
        let entry = Entry {
            first: self.first(table),
            end: self.end(),
            rows: self.rows() as u32,
            day,
            lease,
        };
        let (schema, few) = (table.spec.schema.clone(), table.spec.few_values.clone());
        let batches: Vec<RecordBatch> =
            self.batches.iter().map(|batch| batch.rows.clone()).collect();
        let work = move || insert::with_ledger(&schema, &batches, &few, &entry);
        let stamped = tokio::task::spawn_blocking(work).await;
        let fatal = |cause: String| SinkError::Fatal {
            doing: self.doing(table),
            cause,
            hint: "this is a fault of the program, please report it".to_owned(),
        };
        match stamped {
            Ok(Ok(rows)) => Ok(rows),
            Ok(Err(cause)) => Err(fatal(cause.to_string())),
            Err(cause) => Err(fatal(cause.to_string())),
        }
    }

    /// Looks what the table has there. Where there is nothing, there is nothing behind it either, up to where a break ends,
    /// and a new lease begins. That the batch is there says nothing of what comes behind it: another writer may have gone on.
    async fn look(&mut self, table: &Table) -> Result<Seen, SinkError> {
        let (first, end) = (self.first(table), self.end());
        let asked = Instant::now();
        let look = table.ledger.overlapping(&self.partition, (first, end)).await;
        let mut look = look.map_err(|failure| failure.error(&self.doing(table)))?;
        if table.takes_doubles() {
            look.found.iter_mut().for_each(|one| one.is_doubled = false);
        }
        let doubled = look.found.iter().find(|one| one.is_doubled);
        if let Some(double) = doubled.filter(|_| !off!(table, Verify)) {
            return Err(self.overlap(table, double));
        }
        let ours = Stored { first, end, rows: self.rows() as u32, is_doubled: false };
        let is_ours = look.found.contains(&ours);
        if let Some(other) = look.found.iter().find(|other| **other != ours) {
            // As at least once allows, other batches may lie over it: it is there all the same.
            let is_enough = is_ours && table.takes_doubles();
            if is_ours && !is_enough && !off!(table, Verify) {
                return Err(self.overlap(table, other));
            }
            if !is_enough {
                return Ok(Seen::Others);
            }
            // Somebody writes here beside this writer: what follows isn't sent before another look.
            self.chain.lease = None;
            return Ok(Seen::Ours);
        }
        if is_ours && !off!(table, LeaseOfNothing) {
            return Ok(Seen::Ours);
        }
        let until = look.now.saturating_add(table.settings.lease.as_secs() as u32);
        self.chain.lease = Some((until, asked));
        Ok(if is_ours { Seen::Ours } else { Seen::Nothing })
    }

    fn overlap(&self, table: &Table, other: &Stored) -> SinkError {
        overlap(&self.partition.to_string(), &table.spec.name, other.first..other.end)
    }

    fn is_lease_old(&self, table: &Table) -> bool {
        let fresh = |(_, at): (u32, Instant)| at.elapsed() < table.settings.lease / 2;
        !self.chain.lease.is_some_and(fresh)
    }

    /// The server's time at the last look that found nothing.
    fn server_now(&self, table: &Table) -> u32 {
        let until = self.chain.lease.map_or(0, |(until, _)| until);
        until.saturating_sub(table.settings.lease.as_secs() as u32)
    }

    /// Whether the table's TTL takes the rows away as they come.
    fn is_expired(&self, table: &Table) -> bool {
        let days = table.kept_days.load(Relaxed);
        let newest = self.batches.iter().filter_map(|batch| insert::appended(&batch.rows));
        let Some(newest_us) = newest.map(|(_, newest)| newest).max().filter(|_| days > 0) else {
            return false;
        };
        newest_us / 1_000_000 + i64::from(days) * 24 * 60 * 60 <= i64::from(self.server_now(table))
    }

    /// After the token was acknowledged twice in vain: waits until nothing can be on its way under it, then takes
    /// the next one.
    fn wait_for_suffix(&mut self, table: &Table) -> Result<(), SinkError> {
        // Keeper takes token and part in one step: what doesn't show may still come, on a replica that is behind.
        if self.vanished < 2 || table.is_replicated.load(Relaxed) {
            return Ok(());
        }
        let now = self.server_now(table);
        let over = self.last_lease.saturating_add(table.settings.max_execution.as_secs() as u32);
        if now <= over && !off!(table, SecondToken) {
            let cause = format!(
                "the server has its token and not its rows; it is sent under another token in {} s",
                over - now + 1
            );
            return Err(SinkError::Retry { doing: self.doing(table), cause });
        }
        if self.suffix == MAX_SUFFIX {
            return Err(SinkError::Fatal {
                doing: self.doing(table),
                cause: "acknowledged under three tokens, and not in the table".to_owned(),
                hint: "look whether a TTL, a row policy or a materialized view takes the rows away"
                    .to_owned(),
            });
        }
        self.suffix += 1;
        (self.vanished, self.last_lease) = (0, 0);
        Ok(())
    }

    /// Agrees with other writers where the table's first batch begins, and on its day; false when they began
    /// elsewhere.
    async fn open(&mut self, table: &Table) -> Result<bool, SinkError> {
        let own = self.batches.iter().find_map(|batch| insert::appended(&batch.rows));
        let first = self.first(table);
        let day = own.map(|(first, _)| insert::day_of(first));
        let note = Note { chain_end: first, next: first, epoch: -1, day };
        let base = format!("open/{}/{}", table.spec.name, self.partition.key());
        let number = self.partition.number;
        let topic_id = self.partition.stream.id;
        let doing = || format!("open {} for {}", table.spec.name, self.partition);
        let is_replicated = table.is_replicated.load(Relaxed);
        for n in 0..=MAX_SUFFIX {
            let is_first = n == 0 || is_replicated;
            let token = if is_first { base.clone() } else { format!("{base}#{n}") };
            let kind = NoteKind::Opened;
            let sent = table.ledger.note(&self.partition, kind, note, Some(&token)).await;
            sent.map_err(|failure| failure.error(&doing()))?;
            let found = table.ledger.notes(topic_id, &[number]).await;
            let found = found.map_err(|failure| failure.error(&doing()))?;
            let Some(opened) = found.get(&number).and_then(|notes| notes.opened) else {
                // Another's may be about to show: its token is stored a moment before its row.
                tokio::time::sleep(Duration::from_secs(1)).await;
                continue;
            };
            (self.chain.end, self.chain.day) = (Some(opened.chain_end), opened.day);
            self.chain.is_open = true;
            return Ok(opened.chain_end == first && opened.day == day);
        }
        let cause = format!("its note in {} does not show", aion_schemas::clickhouse::MARKS);
        Err(SinkError::Retry { doing: doing(), cause })
    }

    /// The batch is in the table: what follows goes behind it. Until what the rows don't say is noted, nothing has
    /// changed, and it is looked for again.
    async fn stored(&mut self, table: &Table) -> Result<Outcome, SinkError> {
        let newest = self.batches.iter().rev().find_map(|batch| insert::appended(&batch.rows));
        let day = newest.map(|(_, newest)| insert::day_of(newest)).or(self.chain.day);
        let (end, mark) = (self.end(), self.mark());
        let is_told_by_rows = end == mark.offset;
        let recently = |at: Instant| at.elapsed() < table.settings.note_every;
        if !is_told_by_rows || !self.chain.noted.is_some_and(recently) {
            match self.note(table, (end, day), mark).await {
                Ok(()) => self.chain.noted = Some(Instant::now()),
                // The rows themselves say so; only once they have expired the note will be missed.
                Err(failure) if is_told_by_rows => {
                    tracing::debug!(table = table.spec.name, ?failure, "no note");
                }
                Err(failure) => return Err(failure.error(&self.doing(table))),
            }
        }
        self.chain.end = Some(end);
        self.chain.day = day;
        self.chain.is_open = true;
        Ok(Outcome::Stored(mark))
    }

    /// Offsets without rows move the mark; the chain's end stays where it is.
    async fn note_only(&mut self, table: &Table) -> Result<Outcome, SinkError> {
        let (end, mark) = (self.first(table), self.mark());
        let noted = self.note(table, (end, self.chain.day), mark).await;
        noted.map_err(|failure| failure.error(&self.doing(table)))?;
        self.chain.end = Some(end);
        self.chain.noted = Some(Instant::now());
        Ok(Outcome::Stored(mark))
    }

    async fn note(
        &self,
        table: &Table,
        (chain_end, day): (Offset, Option<i32>),
        mark: Mark,
    ) -> Result<(), Failure> {
        let note = Note { chain_end, next: mark.offset, epoch: mark.epoch, day };
        table.ledger.note(&self.partition, NoteKind::Reached, note, None).await
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use std::sync::Arc;

    use aion_schemas::log::Stream;
    use arrow::datatypes::Schema;
    use uuid::Uuid;

    use super::*;
    use crate::clickhouse::{ClickHouse, Server, Settings, TableSpec, guarantee::Guarantee};

    #[test]
    fn into_a_replicated_table_the_same_token_is_sent_again() {
        let server = Server {
            urls: vec!["http://127.0.0.1:9".parse().unwrap()],
            database: "d".to_owned(),
            user: None,
            password: None,
            ca: None,
            guarantee: Guarantee::AtLeastOnce,
        };
        let spec = TableSpec {
            name: "orders".to_owned(),
            schema: Arc::new(Schema::empty()),
            few_values: Vec::new(),
            partitions: 1,
        };
        let table = ClickHouse::new(server).unwrap().table(spec, Settings::default());
        for (is_replicated, suffix) in [(false, 1), (true, 0)] {
            table.is_replicated.store(is_replicated, Relaxed);
            let stream = Stream { topic: "orders".into(), id: Uuid::nil() };
            let partition = Partition { stream, number: 0 };
            let chain = Chain { lease: Some((1_000_000, Instant::now())), ..Chain::default() };
            let mut landing = Landing::new(partition, Vec::new(), chain, Goes::Behind);
            landing.vanished = 2;
            landing.wait_for_suffix(&table).unwrap();
            assert_eq!(landing.suffix, suffix, "acknowledged twice in vain");
        }
    }
}
