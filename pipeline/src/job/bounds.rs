//! What a log's bounds mean for what sinks have: what has diverged, what was missed, where an empty store begins.

use std::ops::Range;

use aion_schemas::log::Offset;
use aion_sinks::{batch::Batch, budget::Reservation};
use arrow::{datatypes::SchemaRef, record_batch::RecordBatch};

use super::{
    gaps::{Gap, GapKind},
    reader::{Item, Reader},
};

/// Up to where the log is what it was.
pub(super) fn agreed_end(reader: &Reader, high: Offset) -> Offset {
    reader.agreed.map_or(high, |agreed| agreed.min(high))
}

/// The offsets that sinks have stored and the log doesn't have any more, or has otherwise. What is stored behind a break
/// counts: new records at such an offset would be left out as stored.
pub(super) fn diverged(reader: &Reader, names: &[&'static str], high: Offset) -> Vec<Gap> {
    let agreed = agreed_end(reader, high);
    let above = reader.sinks.iter().zip(names).filter_map(|(sink, name)| {
        let end = sink.reaches()?;
        (end > agreed).then_some((*name, agreed..end))
    });
    Gap::gather(GapKind::Diverged, above)
}

/// The offsets that sinks still want and the log doesn't have any more. A sink that never had a mark
/// misses nothing: it starts with what there is. One that fills breaks lacks what was in them, and has what is
/// stored behind them.
pub(super) fn missed(
    reader: &Reader,
    names: &[&'static str],
    start: Offset,
    first_start_has_none: bool,
) -> Vec<Gap> {
    let below = reader.sinks.iter().zip(names).filter_map(|(sink, name)| {
        let wanted = match sink.wanted {
            Some(wanted) => wanted,
            None if first_start_has_none => return None,
            None => Offset::ZERO,
        };
        Some((*name, not_stored(wanted..start, &sink.ahead)))
    });
    let (mut lost, mut unread) = (Vec::new(), Vec::new());
    for (name, (breaks, behind)) in below {
        lost.extend(breaks.into_iter().map(|range| (name, range)));
        unread.extend(behind.map(|range| (name, range)));
    }
    let mut gaps = Gap::gather(GapKind::SinkLost, lost);
    gaps.extend(Gap::gather(GapKind::Retention, unread));
    gaps
}

/// What of a range is in breaks of what is stored, and what comes behind all that is.
fn not_stored(
    range: Range<Offset>,
    stored: &[Range<Offset>],
) -> (Vec<Range<Offset>>, Option<Range<Offset>>) {
    let (mut breaks, mut from) = (Vec::new(), range.start);
    for stored in stored {
        let until = stored.start.min(range.end);
        if from < until {
            breaks.push(from..until);
        }
        from = from.max(stored.end);
    }
    (breaks, (from < range.end).then_some(from..range.end))
}

pub(super) fn begin_empty_stores(reader: &mut Reader, start: Offset, at_log_start: bool) {
    let elsewhere = reader.sinks.iter().filter_map(|sink| sink.wanted).max();
    let start = elsewhere.filter(|_| !at_log_start).unwrap_or(start);
    for sink in reader.sinks.iter_mut().filter(|sink| sink.wanted.is_none()) {
        sink.begin_at(start);
    }
}

/// A batch without rows from the first offset that was missed to the log's start: it takes each sink's mark there, over
/// what is stored between.
pub(super) fn gap_item(
    reader: &Reader,
    gaps: &[Gap],
    start: Offset,
    columns: &SchemaRef,
) -> Option<Item> {
    let range = gaps.iter().map(|gap| gap.range.start).min()?..start;
    let batch = Batch {
        partition: reader.partition.clone(),
        range,
        epoch: -1,
        appended: None,
        rows: RecordBatch::new_empty(columns.clone()),
        memory: Reservation::none(),
    };
    Some(Item { batch: Some(batch), ..Item::of_entries(Vec::new()) })
}

#[cfg(test)]
mod tests {
    use aion_schemas::log::{Mark, Partition, Stream};
    use uuid::Uuid;

    use super::*;
    use crate::job::appeal::Settled;

    fn range(first: i64, end: i64) -> Range<Offset> {
        Offset(first)..Offset(end)
    }

    /// Of one sink, with its mark at 20.
    fn with_ahead(ahead: &[Range<Offset>]) -> Reader {
        let stream = Stream { topic: "t".into(), id: Uuid::nil() };
        let mut reader = Reader::new(Partition { stream, number: 0 }, 1);
        reader.sinks[0].assigned(Some(Mark::at(Offset(20))), ahead.to_vec(), None);
        reader
    }

    #[test]
    fn what_is_stored_behind_a_break_and_not_in_the_log_has_diverged() {
        let found = |ahead: &[Range<Offset>], high: i64| -> Vec<Range<Offset>> {
            let gaps = diverged(&with_ahead(ahead), &["clickhouse"], Offset(high));
            gaps.into_iter().map(|gap| gap.range).collect()
        };
        let behind = [range(30, 100)];
        assert_eq!(found(&behind, 60), vec![range(60, 100)]);
        assert_eq!(found(&behind, 15), vec![range(15, 100)]);
        assert_eq!(found(&behind, 100), Vec::new());
        assert_eq!(found(&[], 20), Vec::new());
        assert_eq!(found(&[], 15), vec![range(15, 20)]);
        // What was in a break at the end of all is stored nowhere.
        let tail = range(120, 120);
        assert_eq!(found(&[range(30, 50), tail.clone()], 60), Vec::new());
        assert_eq!(found(&[range(30, 50), tail], 40), vec![range(40, 50)]);
    }

    #[test]
    fn what_is_kept_of_a_cut_log_does_not_cover_what_is_stored_beyond() {
        for (end, is_kept) in [(100, true), (150, false)] {
            let mut reader = with_ahead(&[range(30, end)]);
            reader.settled = Some(Settled::Kept(range(60, 100)));
            assert_eq!(reader.trust_kept(), is_kept, "{end}");
        }
    }

    #[test]
    fn what_is_stored_behind_a_break_is_not_missed() {
        let none = (Vec::new(), None);
        assert_eq!(not_stored(range(20, 20), &[]), none);
        assert_eq!(not_stored(range(30, 20), &[]), none, "the log still has what is wanted");
        assert_eq!(not_stored(range(20, 50), &[]), (Vec::new(), Some(range(20, 50))));
        let ahead = [range(30, 60), range(70, 100)];
        for start in [30, 45, 60] {
            assert_eq!(not_stored(range(20, start), &ahead), (vec![range(20, 30)], None));
        }
        assert_eq!(not_stored(range(20, 25), &ahead), (vec![range(20, 25)], None));
        let breaks = vec![range(20, 30), range(60, 65)];
        assert_eq!(not_stored(range(20, 65), &ahead), (breaks, None));
        let breaks = vec![range(20, 30), range(60, 70)];
        assert_eq!(not_stored(range(20, 130), &ahead), (breaks, Some(range(100, 130))));
        // An empty range is where a break at the end of all is over.
        let ahead = [range(100, 100)];
        let breaks = vec![range(20, 100)];
        assert_eq!(not_stored(range(20, 130), &ahead), (breaks, Some(range(100, 130))));
    }
}
