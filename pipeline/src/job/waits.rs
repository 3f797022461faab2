//! Rows that wait for what others have to store first, and hold up what is behind them.
//!
//! **Invariant:** none waits for ever. One for which nothing has come for long is told, and its record is read again as a
//! rejected one. The time begins anew with each other word of the sink about the row, and with the process. While the sink fails
//! otherwise it can't look: of such a time a moment counts, and what had counted before it still does.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use aion_schemas::log::Marks;
use aion_sinks::sink::Refused;

/// As much counts at most of the time since the sink spoke of its rows last.
const COUNTS_AT_MOST: Duration = Duration::from_secs(5);

/// The rows of one sink that wait, and for how long nothing has come for them.
#[derive(Debug, Default)]
pub(super) struct Waits {
    rows: BTreeMap<Refused, Duration>,
    /// When the sink spoke of them last.
    told: Option<Instant>,
}

impl Waits {
    /// Notes which rows wait at `now`; answers those that have waited in vain for `at_most`. Any others wait no more.
    pub(super) fn note(
        &mut self,
        rows: Vec<Refused>,
        now: Instant,
        at_most: Duration,
    ) -> Vec<Refused> {
        let told = self.told.replace(now).unwrap_or(now);
        let since = now.saturating_duration_since(told).min(COUNTS_AT_MOST);
        let known = std::mem::take(&mut self.rows);
        let mut in_vain = Vec::new();
        for row in rows {
            let waited = known.get(&row).map_or(Duration::ZERO, |waited| *waited + since);
            if waited < at_most {
                self.rows.insert(row, waited);
            } else {
                in_vain.push(row);
            }
        }
        in_vain
    }

    /// Rows that lie below a mark wait no more.
    pub(super) fn stored(&mut self, marks: &Marks) {
        let is_stored =
            |row: &Refused| marks.get(&row.partition).is_some_and(|mark| row.offset < mark.offset);
        self.rows.retain(|row, _| !is_stored(row));
    }
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use aion_schemas::log::{Mark, Offset, Partition, Stream};
    use uuid::Uuid;

    use super::*;

    const AT_MOST: Duration = Duration::from_mins(10);
    const SECOND: Duration = Duration::from_secs(1);
    const NONE: [(u32, Refused); 0] = [];

    fn row(offset: i64, cause: &str) -> Refused {
        let stream = Stream { topic: "t".into(), id: Uuid::nil() };
        let partition = Partition { stream, number: 0 };
        Refused { partition, offset: Offset(offset), cause: cause.to_owned() }
    }

    /// Notes rows once a second; answers which of them had waited in vain, and in which second after the start.
    fn each_second(
        waits: &mut Waits,
        rows: &[Refused],
        (start, seconds): (Instant, Range<u32>),
    ) -> Vec<(u32, Refused)> {
        let mut in_vain = Vec::new();
        for second in seconds {
            let now = start + SECOND * second;
            in_vain.extend(
                waits.note(rows.to_vec(), now, AT_MOST).into_iter().map(|row| (second, row)),
            );
        }
        in_vain
    }

    #[test]
    fn a_row_that_nothing_comes_for_is_told_in_time() {
        let (mut waits, start) = (Waits::default(), Instant::now());
        let (five, six) = (row(5, "it is at 3"), row(6, "it is at 3"));
        assert_eq!(each_second(&mut waits, std::slice::from_ref(&five), (start, 0..2)), NONE);
        let both = [five.clone(), six.clone()];
        let told = each_second(&mut waits, &both, (start, 2..601));
        assert_eq!(told, [(600, five)], "each by its own time");
        let told = each_second(&mut waits, std::slice::from_ref(&six), (start, 601..603));
        assert_eq!(told, [(602, six)]);
    }

    #[test]
    fn a_row_that_something_comes_for_waits_on() {
        let (mut waits, start) = (Waits::default(), Instant::now());
        for minutes in 0..60 {
            let rows = [row(5, &format!("it is at {}", minutes / 9))];
            let seconds = minutes * 60..(minutes + 1) * 60;
            assert_eq!(each_second(&mut waits, &rows, (start, seconds)), NONE, "{minutes} minutes");
        }
    }

    #[test]
    fn of_a_time_in_which_nobody_could_look_a_moment_counts_and_none_is_forgotten() {
        let (mut waits, start) = (Waits::default(), Instant::now());
        let rows = [row(5, "it is at 3")];
        assert_eq!(each_second(&mut waits, &rows, (start, 0..301)), NONE);
        let back = start + Duration::from_hours(1);
        let told = each_second(&mut waits, &rows, (back, 0..600));
        assert_eq!(told.first(), Some(&(295, rows[0].clone())), "300 s before it and 5 s of it");
    }

    #[test]
    fn what_is_stored_has_not_waited() {
        let (mut waits, start) = (Waits::default(), Instant::now());
        let rows = [row(5, "it is at 3"), row(6, "it is at 3")];
        assert_eq!(each_second(&mut waits, &rows, (start, 0..600)), NONE);
        let mark = Mark { offset: Offset(6), epoch: -1 };
        waits.stored(&Marks::from([(rows[0].partition.clone(), mark)]));
        let told = each_second(&mut waits, &rows, (start, 600..601));
        assert_eq!(told, [(600, rows[1].clone())]);
    }
}
