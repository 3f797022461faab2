//! Who may repair the tables of a database: one at a time, agreed on by rows of the table `marks`.
//!
//! A row says who, since when, until when; it is renewed while the work goes on, and taken back at its end. Whoever was
//! killed keeps others out until its row is over. Its claim carries a token, so that of claims made at once the server
//! takes one.
//!
//! What two repairs may do to each other, at whichever point the second comes in:
//!
//! | | without a hold | then |
//! |---|---|---|
//! | both begin at once | both delete | one claim lands; who finds another's row, beside its own or alone, gives way |
//! | both send a `DELETE` of copies | each may name the row that the other leaves, if parts are merged meanwhile: no copy is left | one holds. Of one query id one runs at a time, too |
//! | one freezes before its `DELETE`, and wakes when the other sends its own | the same | the `DELETE` says until when its sender holds. The server puts its own time in as the statement arrives, not when a part's turn comes: one that comes too late deletes nothing |
//! | one is killed behind its `DELETE` | its mutation goes on | the other comes in once the row is over, and sends no `DELETE` while there are mutations |
//! | one is killed between two statements | nothing is half done: each `DELETE`, each note is a whole | the other does the rest |
//! | one has found copies that the other has deleted | nothing: the statement asks the table again, and names no row | the same |
//! | one looks for breaks while the other deletes copies | nothing: one row of each offset is there all the time | the same |
//! | both ask for the same break | a note is there twice, and says the same; it is a job that fills, under the offset's token | the same |
//!
//! **Invariant:** each row is written before its writer looks, and who sees another's row that isn't over has no hold.
//! So of two the later look sees both rows, whatever became of their tokens.
//! **Invariant:** the only clock is the server's.
//!
//! A row stays behind for each repair, of some hundred bytes.

use std::{
    convert::Infallible,
    sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use aion_schemas::clickhouse::MARKS;
use uuid::Uuid;

use super::{ClickHouse, client::Client, failure::Failure, ledger, plan::quoted};
use crate::sink::SinkError;

/// The kind of a row that says who repairs.
const KIND: &str = "repairing";
/// How long another's row may take to show whose token is known.
const SHOWS_WITHIN: Duration = Duration::from_secs(1);

/// A quorum waits for the INSERT of another process, and nothing is stored.
const BESIDE_ANOTHER: u32 = 286;
/// How long to wait then.
const PAUSES: [Duration; 3] =
    [Duration::from_millis(200), Duration::from_millis(500), Duration::from_secs(1)];

/// Who repairs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// What it calls itself.
    pub who: String,
    /// When it began, in seconds since 1970 by the server's clock.
    pub since: u32,
    /// When it is over, unless it goes on.
    pub until: u32,
}

/// What became of a claim.
#[derive(Debug)]
pub enum Claim {
    /// Nobody else may repair now.
    Taken(Hold),
    /// Another one does.
    Held(Holder),
}

/// The right to repair the tables of a database. Dropped without [`release`](Hold::release) it keeps others out until it is
/// over.
#[derive(Debug)]
pub struct Hold {
    place: Place,
    /// What its row is called.
    id: String,
    since: u32,
    held_for: Duration,
    /// Until when, as it was seen in the table; 0 where it was found to be over.
    until: AtomicU32,
    /// The version of its row.
    version: AtomicU64,
}

/// Where rows of holders are.
#[derive(Clone, Debug)]
struct Place {
    client: Client,
    marks: String,
}

/// A row that isn't over: its id, since when, until when.
type Row = (String, u32, u32);

/// The rows that aren't over, and the greatest version of all.
struct Look {
    greatest: u64,
    live: Vec<Row>,
}

impl ClickHouse {
    /// Claims the right to repair tables of the database, for that long unless it is [kept](Hold::keep). `who` is for those
    /// that come meanwhile.
    pub async fn hold_repairs(&self, who: &str, held_for: Duration) -> Result<Claim, SinkError> {
        let database = self.database();
        let place =
            Place { client: self.client.of_table(MARKS), marks: format!("{database}.{MARKS}") };
        let doing = format!("claim the repair of database {database}");
        let claimed = claim(&place, who, held_for).await;
        let claimed = claimed.map_err(|failure| failure.error(&doing))?;
        let cause = format!("its row in {MARKS} does not show");
        claimed.ok_or(SinkError::Retry { doing, cause })
    }
}

/// `None` where its row doesn't show.
async fn claim(place: &Place, who: &str, held_for: Duration) -> Result<Option<Claim>, Failure> {
    let found = place.look().await?;
    if let Some(other) = found.live.into_iter().next() {
        return Ok(Some(Claim::Held(holder(other))));
    }
    let id = format!("{} {who}", Uuid::new_v4());
    let until = from_now(held_for);
    // A server that died may know the token and have no row. Without one rows of two may land: then both give way.
    let token = format!("{KIND}/{}", found.greatest + 1);
    for (n, token) in (1..).zip([Some(&*token), None]) {
        let version = found.greatest + n;
        let row = values(&id, &until, version, "now()");
        place.write(token, &format!("VALUES ({row})")).await?;
        let (own, others): (Vec<Row>, Vec<Row>) =
            place.look().await?.live.into_iter().partition(|(of, ..)| *of == id);
        let hold = own.into_iter().next().map(|(id, since, until)| Hold {
            place: place.clone(),
            id,
            since,
            held_for,
            until: until.into(),
            version: version.into(),
        });
        match (hold, others.into_iter().next()) {
            (Some(hold), None) => return Ok(Some(Claim::Taken(hold))),
            (hold, Some(other)) => {
                if let Some(hold) = hold {
                    hold.release().await;
                }
                return Ok(Some(Claim::Held(holder(other))));
            }
            (None, None) => tokio::time::sleep(SHOWS_WITHIN).await,
        }
    }
    Ok(None)
}

fn from_now(held_for: Duration) -> String {
    format!("toUnixTimestamp(now()) + {}", held_for.as_secs())
}

/// The values of a row, in the order in which [`Place::write`] names the columns.
fn values(id: &str, until: &str, version: u64, since: &str) -> String {
    format!("'', {}, 0, '{KIND}', {until}, {version}, -1, toDate(0), {since}", quoted(id))
}

fn holder((id, since, until): Row) -> Holder {
    let who = id.split_once(' ').map_or(&*id, |(_, who)| who).to_owned();
    Holder { who, since, until }
}

impl Hold {
    /// Does something that may take longer than the hold would, and goes on holding meanwhile.
    pub async fn keep<T>(&self, work: impl Future<Output = T>) -> T {
        // Side by side: what is done may have what a renewal waits for, such as the turn of an INSERT.
        tokio::select! {
            done = work => done,
            never = self.renew_again_and_again() => match never {},
        }
    }

    async fn renew_again_and_again(&self) -> Infallible {
        loop {
            tokio::time::sleep(self.held_for / 3).await;
            if let Err(failure) = self.renew().await {
                tracing::warn!("the hold on repairs was not renewed: {}", failure.text());
            }
        }
    }

    /// Lets others repair. Where that fails the hold is over by itself.
    pub async fn release(self) {
        if let Err(failure) = self.take_back().await {
            tracing::warn!("the hold on repairs ends by itself: {}", failure.text());
        }
    }

    /// Until when statements may be taken that rest on this, in seconds since 1970 by the server's clock.
    pub(super) fn until(&self) -> u32 {
        self.until.load(Relaxed)
    }

    /// Goes on holding, unless it is over already: then another one may have begun.
    async fn renew(&self) -> Result<(), Failure> {
        if self.until() == 0 {
            return Ok(());
        }
        let until = from_now(self.held_for);
        let is_held = format!("toUnixTimestamp(now()) < {}", self.until());
        self.place.write(None, &format!("SELECT {} WHERE {is_held}", self.row(&until))).await?;
        match self.place.look().await?.live.as_slice() {
            [(id, _, until)] if *id == self.id => self.until.store(*until, Relaxed),
            _ => {
                self.until.store(0, Relaxed);
                self.take_back().await?;
                tracing::warn!("the hold on repairs was over before it was renewed");
            }
        }
        Ok(())
    }

    async fn take_back(&self) -> Result<(), Failure> {
        self.place.write(None, &format!("VALUES ({})", self.row("0"))).await
    }

    /// The next version of its row.
    fn row(&self, until: &str) -> String {
        let version = self.version.fetch_add(1, Relaxed) + 1;
        values(&self.id, until, version, &format!("toDateTime({})", self.since))
    }
}

impl Place {
    /// Writes a row. With a token only the first of several writers has it taken.
    async fn write(&self, token: Option<&str>, rows: &str) -> Result<(), Failure> {
        let columns =
            "table_name, topic_id, partition, kind, chain_end, next, epoch, day, noted_at";
        let settings = ledger::deduplicated_by(token);
        let sql = format!(
            "INSERT INTO {} ({columns}) SETTINGS async_insert = 0, {settings} {rows}",
            self.marks
        );
        for pause in PAUSES {
            match ledger::send_note(&self.client, &sql).await {
                Err(Failure::Refused { code: BESIDE_ANOTHER, .. }) => {
                    tokio::time::sleep(pause).await;
                }
                sent => return sent,
            }
        }
        ledger::send_note(&self.client, &sql).await
    }

    /// Looks who holds.
    async fn look(&self) -> Result<Look, Failure> {
        let sql = format!(
            "SELECT max(version), groupArrayIf((id, since, toUInt32(until)), until > toUnixTimestamp(now())) FROM (
                SELECT topic_id AS id, toUnixTimestamp(argMax(noted_at, next)) AS since,
                    argMax(chain_end, next) AS until, max(next) AS version
                FROM {} WHERE kind = '{KIND}' GROUP BY topic_id ORDER BY since, id)",
            self.marks
        );
        let (greatest, live): (u64, Vec<Row>) = ledger::one(self.client.ask(&sql).await?)?;
        Ok(Look { greatest, live })
    }
}
