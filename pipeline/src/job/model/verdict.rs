//! The judgement: what the stores and the journal hold, against everything that ever stood in the logs.

use std::{collections::BTreeMap, fmt};

use aion_schemas::log::{Partition, Stream};
use aion_sinks::memory::Store;
use arrow::array::{AsArray, types::Int64Type};

use super::{
    schedule::Options,
    world::{Log, SINKS, Slot, TOPIC, ToldGap, What, World},
};
use crate::job::rules::Rule;

/// What went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// An event is in no row and in no gap.
    Lost,
    /// An event is in two rows.
    Doubled,
    /// An event is stored, or written as a letter, under another stream or offset than its own.
    Mislabelled,
    /// A rejected record is not in the dead letters.
    LetterLost,
    /// A record is a row and a dead letter.
    RowAndLetter,
    /// There are more dead letters than records that could be rejected.
    Miscounted,
    /// A gap was told that is none.
    FalseGap,
    /// Rows are stored that the log no longer has, and nobody is told.
    Unsaid,
    /// Rows were thrown away that nobody has and nobody can read again.
    ThrownAway,
    /// Kafka was told more than a store has.
    CommitAhead,
    /// The job ended by itself.
    Failed,
    /// The job does not come to an end.
    Stuck,
}

/// The first thing that went wrong in a schedule.
#[derive(Clone, Debug)]
pub(super) struct Violation {
    pub(super) kind: Kind,
    what: String,
}

impl Violation {
    pub(super) fn new(kind: Kind, what: impl Into<String>) -> Violation {
        Violation { kind, what: what.into() }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.kind, self.what)
    }
}

/// One partition of one incarnation, as one store is to have it.
struct Case<'a> {
    world: &'a World,
    partition: Partition,
    log: &'a Log,
    sink: usize,
    is_present: bool,
    mark: Option<i64>,
    stored: &'a BTreeMap<i64, Vec<(Partition, i64)>>,
}

/// Judges a world at rest.
pub(super) fn judge(
    world: &World,
    (stores, unmarked): (&[Store], Option<&Store>),
    options: Options,
) -> Result<(), Violation> {
    if let Some(ahead) = world.commits_ahead.first() {
        return Err(Violation::new(Kind::CommitAhead, ahead.clone()));
    }
    if let Some(what) = world.thrown_away.first() {
        return Err(Violation::new(Kind::ThrownAway, what.clone()));
    }
    for (sink, store) in stores.iter().enumerate() {
        let mut placed = rows_of(store);
        for (uid, places) in unmarked.filter(|_| sink == 0).map(rows_of).unwrap_or_default() {
            placed.entry(uid).or_default().extend(places);
        }
        let marks = store.marks();
        for (at, incarnation) in world.incarnations.iter().enumerate() {
            for (number, log) in incarnation.logs.iter().enumerate() {
                let stream = Stream { topic: TOPIC.into(), id: incarnation.id };
                let partition = Partition { stream, number: number as i32 };
                let mark = marks.get(&partition).map(|mark| mark.offset.get());
                let is_present = at + 1 == world.incarnations.len();
                let case = Case { world, partition, log, sink, is_present, mark, stored: &placed };
                case.judge(options)?;
            }
        }
    }
    letters_are_counted(world, options)?;
    gaps_are_true(world)
}

/// As many dead letters as rejected records at most: one that is written again is the same one.
fn letters_are_counted(world: &World, options: Options) -> Result<(), Violation> {
    let logs = world.incarnations.iter().flat_map(|one| &one.logs);
    let slots = logs.flat_map(|log| log.slots.iter().chain(log.cut.iter().map(|(_, slot)| slot)));
    let poison = slots.filter(|slot| slot.what == What::Poison).count();
    let letters = if options.counts_keys { world.letters.len() } else { world.letters_written };
    if options.judges_alone && letters > poison {
        let what = format!("{letters} dead letters of {poison} rejected records");
        return Err(Violation::new(Kind::Miscounted, what));
    }
    Ok(())
}

/// Where each event is stored, by its uid.
fn rows_of(store: &Store) -> BTreeMap<i64, Vec<(Partition, i64)>> {
    let mut stored: BTreeMap<i64, Vec<(Partition, i64)>> = BTreeMap::new();
    let partitions: Vec<Partition> = store.marks().into_keys().collect();
    let labelled = partitions.iter().flat_map(|partition| {
        store.rows_of(partition).into_iter().map(move |rows| (partition, rows))
    });
    for (partition, rows) in labelled {
        let uids = rows.column(0).as_primitive::<Int64Type>().values().to_vec();
        let offsets = rows.column(1).as_primitive::<Int64Type>().values().to_vec();
        for (uid, offset) in uids.into_iter().zip(offsets) {
            stored.entry(uid).or_default().push((partition.clone(), offset));
        }
    }
    stored
}

impl Case<'_> {
    fn judge(&self, options: Options) -> Result<(), Violation> {
        for (offset, slot) in self.log.slots.iter().enumerate() {
            match slot.what {
                What::Row => self.row(offset, slot, options)?,
                What::Poison => self.letter(offset, slot)?,
                What::Tombstone | What::Hole => {}
            }
        }
        for (offset, slot) in &self.log.cut {
            let count = self.stored.get(&slot.uid).map_or(0, Vec::len);
            self.at_most_once(*offset, slot)?;
            let is_comparable = self.is_comparable(*offset);
            if count == 1 && is_comparable && !self.has_diverged() {
                let what = self.name(*offset, slot);
                return Err(Violation::new(Kind::Unsaid, format!("{what} was cut and is stored")));
            }
        }
        Ok(())
    }

    fn row(&self, offset: usize, slot: &Slot, options: Options) -> Result<(), Violation> {
        self.at_most_once(offset, slot)?;
        let places = self.stored.get(&slot.uid);
        let is_letter = self.world.letters.get(&self.key(offset)) == Some(&slot.uid);
        let Some((partition, at)) = places.and_then(|places| places.first()) else {
            let is_accounted_for = is_letter && !options.judges_alone;
            if self.is_owed(offset) && !is_accounted_for {
                return Err(Violation::new(Kind::Lost, self.name(offset, slot)));
            }
            return Ok(());
        };
        let nameless = options.without == Some(Rule::StreamIsTopicId);
        let own = *partition == self.partition && *at == offset as i64;
        if !own && !nameless {
            let what = self.name(offset, slot);
            let what = format!("{what} is stored as {}/{at}", partition.key());
            return Err(Violation::new(Kind::Mislabelled, what));
        }
        if is_letter {
            return Err(Violation::new(Kind::RowAndLetter, self.name(offset, slot)));
        }
        Ok(())
    }

    /// Under which a record here has its letter.
    fn key(&self, offset: usize) -> String {
        let Partition { stream, number } = &self.partition;
        format!("model:{}:{number}:{offset}", stream.id)
    }

    fn letter(&self, offset: usize, slot: &Slot) -> Result<(), Violation> {
        let key = self.key(offset);
        match self.world.letters.get(&key) {
            None if self.is_owed(offset) => {
                Err(Violation::new(Kind::LetterLost, self.name(offset, slot)))
            }
            Some(uid) if *uid != slot.uid && !self.was_cut(*uid) => {
                let what = format!("the letter {key} holds event {uid}");
                Err(Violation::new(Kind::Mislabelled, what))
            }
            _ => Ok(()),
        }
    }

    fn at_most_once(&self, offset: usize, slot: &Slot) -> Result<(), Violation> {
        match self.stored.get(&slot.uid) {
            Some(places) if places.len() > 1 => {
                let what = format!("{}: {places:?}", self.name(offset, slot));
                Err(Violation::new(Kind::Doubled, what))
            }
            _ => Ok(()),
        }
    }

    /// Whether the store must account for the offset: everything of the present incarnation, and of one
    /// that is gone what the mark claims; but not what was gone before the store's first start, what a
    /// gap tells of, and nothing of a partition that has stopped.
    fn is_owed(&self, offset: usize) -> bool {
        let claimed = self.mark.is_some_and(|mark| (offset as i64) < mark);
        let told = |gap: &&ToldGap| {
            let covers = (gap.first..gap.next).contains(&(offset as i64));
            covers && gap.sinks.iter().any(|sink| sink == SINKS[self.sink])
        };
        // What was cut and then expired, or went with the topic, nobody could compare any more.
        let is_comparable = self.last_cut(offset).is_none() || self.is_comparable(offset);
        (self.is_present || claimed)
            && is_comparable
            && offset >= self.log.excused[self.sink]
            && !self.has_diverged()
            && !self.gaps().any(|gap| told(&gap))
    }

    /// Whether the log still shows that it is another one there: by its end, or by the epoch of a record
    /// that is read for certain.
    fn is_comparable(&self, offset: usize) -> bool {
        let log = self.log;
        let shows = |slot: &Slot| slot.what != What::Hole;
        let seen_from = log.start.max(self.last_cut(offset).unwrap_or(0));
        self.is_present
            && offset >= log.start
            && (offset >= log.end() || log.slots.iter().take(offset + 1).skip(seen_from).any(shows))
    }

    /// The furthest place at an offset or below where the log was cut.
    fn last_cut(&self, offset: usize) -> Option<usize> {
        self.log.cuts.iter().copied().filter(|cut| *cut <= offset).max()
    }

    fn gaps(&self) -> impl Iterator<Item = &ToldGap> {
        self.world.gaps.iter().filter(|gap| gap.partition == self.partition)
    }

    fn has_diverged(&self) -> bool {
        self.gaps().any(|gap| gap.diverged)
    }

    fn was_cut(&self, uid: i64) -> bool {
        self.log.cut.iter().any(|(_, slot)| slot.uid == uid)
    }

    fn name(&self, offset: usize, slot: &Slot) -> String {
        let sink = SINKS[self.sink];
        format!("{sink}: event {} at {}/{offset}", slot.uid, self.partition.key())
    }
}

/// Each gap is of offsets that retention took and that its sinks had a claim on, of a log that was cut, or
/// of one that went with its topic.
fn gaps_are_true(world: &World) -> Result<(), Violation> {
    for gap in &world.gaps {
        let id = gap.partition.stream.id;
        let incarnation = world.incarnations.iter().find(|incarnation| incarnation.id == id);
        let log = incarnation.and_then(|one| one.logs.get(gap.partition.number as usize));
        let is_true = log.is_some_and(|log| {
            let was_cut = gap.diverged && !log.cut.is_empty();
            let expired = gap.next <= log.start as i64 && gap.had_marks && gap.first < gap.next;
            if gap.deleted {
                let ended = log.end().max(log.cut.iter().map(|(at, _)| at + 1).max().unwrap_or(0));
                return id != world.topic_id() && gap.first < gap.next && gap.next <= ended as i64;
            }
            was_cut || (!gap.diverged && expired)
        });
        if !is_true {
            return Err(Violation::new(Kind::FalseGap, format!("{gap:?}")));
        }
    }
    Ok(())
}
