//! What a table says of itself: its batches, and the notes beside it.
//!
//! A batch's rows all carry its range, so a table is its own ledger. Notes (table `marks`) say what rows can't:
//!
//! | note | written | says |
//! |---|---|---|
//! | `opened` | once, before a table's first batch of a partition | where that batch begins, and its day: of two writers who began at different offsets the first decides for both. If the table's first batch is another one by now, it has lost some |
//! | `reached` | where offsets without rows follow behind a batch; else once a minute | how far the table was, also when its rows have expired or were erased |
//! | `repair/<offset>` | when somebody asks for it | that the break from there on is to be filled, however old it is; for a day |
//! | `repairing` | while somebody repairs | who that is, and until when; of no table ([`hold`](super::hold)) |

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
};

use aion_schemas::{
    clickhouse::MARKS,
    log::{Offset, Origin, Partition},
};
use uuid::Uuid;

use super::{
    client::Client,
    failure::Failure,
    guarantee::Guarantee,
    plan::quoted,
    survey::{Link, Note, Notes, Previous},
};

/// What the rows of a batch say of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) first: Offset,
    /// The offset after the last.
    pub(super) end: Offset,
    pub(super) rows: u32,
    /// Days since 1970, UTC.
    pub(super) day: i32,
    /// Server time in seconds until which it may be taken.
    pub(super) lease: u32,
}

/// A batch that a table has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stored {
    pub(super) first: Offset,
    pub(super) end: Offset,
    /// How many rows it was written with.
    pub(super) rows: u32,
    /// Whether it has more than that.
    pub(super) is_doubled: bool,
}

/// What a table has, and the server's time before it was looked at.
#[derive(Debug)]
pub(super) struct Look<T> {
    pub(super) now: u32,
    pub(super) found: T,
}

/// What kind of note.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoteKind {
    Opened,
    Reached,
    /// Somebody wants the break filled that begins there.
    Repair(Offset),
}

/// How the kind of a note begins that asks for a repair.
const REPAIR: &str = "repair/";
/// For so long such a note holds: what is erased later stays erased.
const REPAIRED_WITHIN_S: u32 = 24 * 60 * 60;

impl NoteKind {
    fn word(self) -> String {
        match self {
            NoteKind::Opened => "opened".to_owned(),
            NoteKind::Reached => "reached".to_owned(),
            NoteKind::Repair(first) => format!("{REPAIR}{first}"),
        }
    }
}

/// The questions put to one table.
#[derive(Clone, Debug)]
pub(super) struct Ledger {
    pub(super) client: Client,
    /// `database.table`.
    table: String,
    name: String,
    marks: String,
}

impl Ledger {
    pub(super) fn new(client: Client, name: &str) -> Ledger {
        let database = &client.server().database;
        Ledger {
            table: format!("{database}.{name}"),
            marks: format!("{database}.{MARKS}"),
            name: name.to_owned(),
            client,
        }
    }

    /// The batches that have offsets of a range. Never by day: another writer may have used another one.
    pub(super) async fn overlapping(
        &self,
        partition: &Partition,
        range: (Offset, Offset),
    ) -> Result<Look<Vec<Stored>>, Failure> {
        let sql = self.overlapping_sql(partition, range);
        let (now, batches): (u32, Vec<StoredRow>) = one(self.client.ask(&sql).await?)?;
        let stored = |(first, end, rows, doubled): StoredRow| Stored {
            first: Offset(first),
            end: Offset(end),
            rows,
            is_doubled: doubled != 0,
        };
        Ok(Look { now, found: batches.into_iter().map(stored).collect() })
    }

    /// The question of [`overlapping`](Ledger::overlapping).
    pub(super) fn overlapping_sql(&self, partition: &Partition, range: (Offset, Offset)) -> String {
        format!(
            "SELECT toUnixTimestamp(now()), groupArray((f, e, n, c > n)) FROM (
                SELECT _batch_first AS f, _batch_last + 1 AS e, max(_batch_rows) AS n, count() AS c FROM {}
                WHERE _topic_id = '{}' AND _partition = {} AND _batch_first < {} AND _batch_last >= {}
                GROUP BY _batch_first, _batch_last ORDER BY f, e)",
            self.table, partition.stream.id, partition.number, range.1, range.0
        )
    }

    /// The last batch of each partition, with where the first begins, and every batch that doesn't follow on the one before it, or has more rows
    /// than it was written with.
    pub(super) async fn links(
        &self,
        topic_id: Uuid,
        partitions: &[i32],
    ) -> Result<Look<BTreeMap<i32, Vec<Link>>>, Failure> {
        let sql = self.links_sql(topic_id, partitions);
        let (now, rows): (u32, Vec<LinkRow>) = one(self.client.ask(&sql).await?)?;
        let mut links = BTreeMap::<i32, Vec<Link>>::new();
        for (
            partition,
            first,
            end,
            epoch,
            newest_us,
            lease,
            head,
            is_last,
            dense,
            doubled,
            follows,
            before,
            newest,
            old,
            old_epoch,
            old_dense,
        ) in rows
        {
            let previous = (follows != 0).then_some(Previous {
                end: Offset(before),
                epoch: old_epoch,
                is_dense: old_dense != 0,
                newest_us: newest,
                lease: old,
            });
            let link = Link {
                first: Offset(first),
                end: Offset(end),
                epoch,
                is_dense: dense != 0,
                newest_us,
                lease,
                head: Offset(head),
                is_last: is_last != 0,
                is_doubled: doubled != 0,
                previous,
            };
            links.entry(partition).or_default().push(link);
        }
        Ok(Look { now, found: links })
    }

    /// The question of [`links`](Ledger::links).
    pub(super) fn links_sql(&self, topic_id: Uuid, partitions: &[i32]) -> String {
        format!(
            "SELECT toUnixTimestamp(now()),
                groupArray((p, f, e, epoch, newest, lease, head, i = total, n = e - f, c > n, i > 1, before, newest_before, lease_before,
                    epoch_before, dense_before))
            FROM (
                SELECT p, f, e, epoch, newest, lease, n, c,
                    row_number() OVER (PARTITION BY p ORDER BY f, e) AS i,
                    count() OVER (PARTITION BY p) AS total,
                    min(f) OVER (PARTITION BY p) AS head,
                    max(e) OVER earlier AS before,
                    max(epoch) OVER earlier AS epoch_before,
                    any(newest) OVER previous AS newest_before,
                    any(lease) OVER previous AS lease_before,
                    any(n = e - f) OVER previous AS dense_before
                FROM (
                    SELECT _partition AS p, _batch_first AS f, _batch_last + 1 AS e,
                        max(_leader_epoch) AS epoch,
                        toUnixTimestamp64Micro(max(_append_time)) AS newest,
                        toUnixTimestamp(max(_lease)) AS lease,
                        max(_batch_rows) AS n, count() AS c
                    FROM {} WHERE _topic_id = '{topic_id}' AND _partition IN ({})
                    GROUP BY _partition, _batch_first, _batch_last)
                WINDOW
                    earlier AS (PARTITION BY p ORDER BY f, e ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING),
                    previous AS (PARTITION BY p ORDER BY f, e ROWS BETWEEN 1 PRECEDING AND 1 PRECEDING)
                ORDER BY p, f, e)
            WHERE i = total OR c > n OR (i > 1 AND f != before)",
            self.table,
            list(partitions)
        )
    }

    /// The notes of partitions.
    pub(super) async fn notes(
        &self,
        topic_id: Uuid,
        partitions: &[i32],
    ) -> Result<BTreeMap<i32, Notes>, Failure> {
        let sql = format!(
            "SELECT partition, kind, argMax((chain_end, next, epoch, toInt32(toUInt16(day))), next) FROM {}
            WHERE table_name = '{}' AND topic_id = '{topic_id}' AND partition IN ({})
                AND (kind NOT LIKE '{REPAIR}%' OR noted_at > now() - toIntervalSecond({REPAIRED_WITHIN_S}))
            GROUP BY partition, kind",
            self.marks,
            self.name,
            list(partitions)
        );
        let rows: Vec<NoteRow> = self.client.ask(&sql).await?;
        let mut notes = BTreeMap::<i32, Notes>::new();
        for (partition, kind, (chain_end, next, epoch, day)) in rows {
            let day = (day != 0).then_some(day);
            let note = Note { chain_end: Offset(chain_end), next: Offset(next), epoch, day };
            let of = notes.entry(partition).or_default();
            if kind == NoteKind::Opened.word() {
                of.opened = Some(note);
            } else if kind.starts_with(REPAIR) {
                of.wanted.push(note.chain_end..note.next);
            } else {
                of.reached = Some(note);
            }
        }
        Ok(notes)
    }

    /// Those of the records that the table has, as rows or as origins of rows.
    pub(super) async fn stored(
        &self,
        origins: &BTreeSet<Origin>,
    ) -> Result<BTreeSet<Origin>, Failure> {
        let quoted = |text: String| format!("'{text}'");
        let listed = |parts: BTreeSet<String>| parts.into_iter().collect::<Vec<_>>().join(", ");
        let sql = format!(
            "SELECT concat(_topic_id, '/', toString(_partition), '/', toString(_offset)) FROM {table}
            WHERE _topic_id IN ({}) AND _partition IN ({}) AND _offset IN ({})
            UNION ALL
            SELECT assumeNotNull(_origin) FROM {table} WHERE _origin IN ({})",
            listed(origins.iter().map(|one| quoted(one.topic_id.to_string())).collect()),
            listed(origins.iter().map(|one| one.partition.to_string()).collect()),
            listed(origins.iter().map(|one| one.offset.to_string()).collect()),
            listed(origins.iter().map(|one| quoted(one.to_string())).collect()),
            table = self.table,
        );
        let rows: Vec<(String,)> = self.client.ask(&sql).await?;
        let found = rows.iter().filter_map(|(text,)| text.parse().ok());
        Ok(found.filter(|origin| origins.contains(origin)).collect())
    }

    /// The offsets of a range that the table has by retries.
    pub(super) async fn retried(
        &self,
        partition: &Partition,
        range: Range<Offset>,
    ) -> Result<Look<BTreeSet<Offset>>, Failure> {
        let sql = format!(
            "SELECT toUnixTimestamp(now()), groupUniqArray(assumeNotNull(_origin)) FROM {}
            WHERE startsWith(_origin, '{}/')",
            self.table,
            partition.key()
        );
        let (now, texts): (u32, Vec<String>) = one(self.client.ask(&sql).await?)?;
        let found = texts.iter().filter_map(|text| text.parse::<Origin>().ok());
        let found = found.map(|origin| origin.offset).filter(|offset| range.contains(offset));
        Ok(Look { now, found: found.collect() })
    }

    /// Whether it was agreed where batches of another topic begin: of the table's retries, or of a topic that was deleted.
    pub(super) async fn has_others(&self, topic_id: Uuid) -> Result<bool, Failure> {
        let sql = format!(
            "SELECT count() FROM {} WHERE table_name = '{}' AND kind = '{}' AND topic_id != '{topic_id}'",
            self.marks,
            self.name,
            NoteKind::Opened.word()
        );
        let (count,): (u64,) = one(self.client.ask(&sql).await?)?;
        Ok(count > 0)
    }

    /// The statement that deletes a batch.
    pub(super) fn without(&self, partition: &Partition, batch: &Range<Offset>) -> String {
        format!("DELETE FROM {} WHERE {}", self.table, is_of(partition, batch))
    }

    /// The id of a query that deletes copies: while one runs, the server refuses another.
    pub(super) fn deletes_as(&self) -> String {
        format!("aion/{}/copies", self.table)
    }

    /// How many mutations of the table are under way, or wait to be.
    pub(super) async fn mutations(&self) -> Result<u64, Failure> {
        let sql = format!(
            "SELECT count() FROM system.mutations WHERE database = {} AND table = {} AND NOT is_done",
            quoted(&self.client.server().database),
            quoted(&self.name)
        );
        let (count,): (u64,) = one(self.client.ask(&sql).await?)?;
        Ok(count)
    }

    /// The statement that deletes of a batch what there is of each offset beyond the first. It names the rows that go by
    /// where they are: where parts are merged meanwhile it names rows that aren't there, and deletes nothing. Of two such
    /// statements at a time each may name the row that the other leaves: only who [holds](super::hold) repairs may send one,
    /// and none while there are [`mutations`](Ledger::mutations).
    pub(super) fn without_copies(&self, partition: &Partition, batch: &Range<Offset>) -> String {
        let (table, is_of) = (&self.table, is_of(partition, batch));
        format!(
            "DELETE FROM {table} WHERE {is_of} AND (_part, _part_offset) IN (
                SELECT part, row FROM (
                    SELECT _part AS part, _part_offset AS row,
                        row_number() OVER (PARTITION BY _offset ORDER BY _lease, _part, _part_offset) AS number
                    FROM {table} WHERE {is_of})
                WHERE number > 1)"
        )
    }

    /// The partitions that have rows, or had some, by the ids of their topics.
    pub(super) async fn partitions(&self) -> Result<BTreeMap<Uuid, Vec<i32>>, Failure> {
        let sql = format!(
            "SELECT id, number FROM (
                SELECT toString(_topic_id) AS id, _partition AS number FROM {} GROUP BY id, number
                UNION ALL
                SELECT topic_id AS id, partition AS number FROM {} WHERE table_name = '{}')
            GROUP BY id, number ORDER BY id, number",
            self.table, self.marks, self.name
        );
        let rows: Vec<(String, i32)> = self.client.ask(&sql).await?;
        let mut partitions = BTreeMap::<Uuid, Vec<i32>>::new();
        for (id, number) in rows {
            if let Ok(id) = Uuid::parse_str(&id) {
                partitions.entry(id).or_default().push(number);
            }
        }
        Ok(partitions)
    }

    /// Writes a note. With a token only the first of several writers has it taken.
    pub(super) async fn note(
        &self,
        partition: &Partition,
        kind: NoteKind,
        note: Note,
        token: Option<&str>,
    ) -> Result<(), Failure> {
        let Note { chain_end, next, epoch, day } = note;
        let settings = deduplicated_by(token);
        let sql = format!(
            "INSERT INTO {} (table_name, topic_id, partition, kind, chain_end, next, epoch, day)
            SETTINGS async_insert = 0, {settings}
            VALUES ('{}', '{}', {}, '{}', {chain_end}, {next}, {epoch}, toDate({}))",
            self.marks,
            self.name,
            partition.stream.id,
            partition.number,
            kind.word(),
            day.unwrap_or(0)
        );
        send_note(&self.client, &sql).await
    }
}

/// The settings of an INSERT of which, with a token, only the first of several writers has it taken. Without one it is
/// taken whatever came before. Newer servers pass over `insert_deduplicate = 0` (by their `deduplicate_insert`, which older
/// ones don't know), and take it by a token that nobody else has; with the others no such token is kept.
pub(super) fn deduplicated_by(token: Option<&str>) -> String {
    let (is_on, token) = match token {
        Some(token) => (1, token.to_owned()),
        None => (0, Uuid::new_v4().to_string()),
    };
    format!("insert_deduplicate = {is_on}, insert_deduplication_token = '{token}'")
}

/// Sends an INSERT into the table `marks`.
pub(super) async fn send_note(client: &Client, sql: &str) -> Result<(), Failure> {
    // A quorum that waits for another INSERT is refused, and the notes of all tables go into one.
    let turn = match client.server().guarantee {
        Guarantee::AtLeastOnce => client.turn(MARKS).await,
        Guarantee::ExactlyOnce => None,
    };
    let sent = client.execute(sql).await;
    drop(turn);
    sent
}

type NoteRow = (i32, String, (i64, i64, i32, i32));
type LinkRow = (i32, i64, i64, i32, i64, u32, i64, u8, u8, u8, u8, i64, i64, u32, i32, u8);
type StoredRow = (i64, i64, u32, u8);

/// Whether a row is of the batch.
fn is_of(partition: &Partition, batch: &Range<Offset>) -> String {
    format!(
        "_topic_id = '{}' AND _partition = {} AND _batch_first = {first} AND _batch_last = {last}
            AND _offset BETWEEN {first} AND {last}",
        partition.stream.id,
        partition.number,
        first = batch.start,
        last = batch.end.get() - 1
    )
}

fn list(numbers: &[i32]) -> String {
    let numbers: Vec<String> = numbers.iter().map(i32::to_string).collect();
    numbers.join(", ")
}

/// The one row of an answer.
pub(super) fn one<T>(rows: Vec<T>) -> Result<T, Failure> {
    let mut rows = rows.into_iter();
    rows.next().ok_or_else(|| Failure::Unread("its answer has no row".to_owned()))
}
