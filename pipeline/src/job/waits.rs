//! Rows that wait for what others have to store first, and hold up what is behind them.
//!
//! **Invariant:** none waits for ever. One for which nothing has come for long is told, and its record is read again as a
//! rejected one. The time begins anew with each other word of the sink about the row, with each failure of the sink, which
//! could not look then, and with the process.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use aion_sinks::sink::Refused;

/// The rows of one sink that wait, and since when nothing has come for them.
#[derive(Debug, Default)]
pub(super) struct Waits(BTreeMap<Refused, Instant>);

impl Waits {
    /// Notes which rows wait at `now`; answers those that have waited in vain for `at_most`. Any others wait no more.
    pub(super) fn note(
        &mut self,
        rows: Vec<Refused>,
        now: Instant,
        at_most: Duration,
    ) -> Vec<Refused> {
        let known = std::mem::take(&mut self.0);
        let mut in_vain = Vec::new();
        for row in rows {
            let since = known.get(&row).copied().unwrap_or(now);
            if now.saturating_duration_since(since) < at_most {
                self.0.insert(row, since);
            } else {
                in_vain.push(row);
            }
        }
        in_vain
    }
}

#[cfg(test)]
mod tests {
    use aion_schemas::log::{Offset, Partition, Stream};
    use uuid::Uuid;

    use super::*;

    const AT_MOST: Duration = Duration::from_mins(10);
    const NEARLY: Duration = Duration::from_secs(599);
    const SECOND: Duration = Duration::from_secs(1);

    fn row(offset: i64, cause: &str) -> Refused {
        let stream = Stream { topic: "t".into(), id: Uuid::nil() };
        let partition = Partition { stream, number: 0 };
        Refused { partition, offset: Offset(offset), cause: cause.to_owned() }
    }

    #[test]
    fn a_row_that_nothing_comes_for_is_told_in_time() {
        let (mut waits, start) = (Waits::default(), Instant::now());
        let (five, six) = (row(5, "it is at 3"), row(6, "it is at 3"));
        let both = || vec![five.clone(), six.clone()];
        let mut note =
            |rows: Vec<Refused>, after: Duration| waits.note(rows, start + after, AT_MOST);
        assert_eq!(note(vec![five.clone()], Duration::ZERO), Vec::new());
        assert_eq!(note(both(), SECOND), Vec::new());
        assert_eq!(note(both(), NEARLY), Vec::new());
        assert_eq!(note(both(), AT_MOST), vec![five.clone()], "each by its own time");
        assert_eq!(note(vec![six.clone()], AT_MOST + SECOND), vec![six.clone()]);
    }

    #[test]
    fn a_row_that_something_comes_for_waits_on() {
        let (mut waits, start) = (Waits::default(), Instant::now());
        for minutes in 0..60 {
            let now = start + Duration::from_mins(minutes);
            let rows = vec![row(5, &format!("it is at {}", minutes / 9))];
            assert_eq!(waits.note(rows, now, AT_MOST), Vec::new(), "after {minutes} minutes");
        }
    }

    #[test]
    fn time_in_which_nobody_could_look_does_not_count() {
        let (mut waits, start) = (Waits::default(), Instant::now());
        let rows = || vec![row(5, "it is at 3")];
        assert_eq!(waits.note(rows(), start, AT_MOST), Vec::new());
        assert_eq!(waits.note(Vec::new(), start + SECOND, AT_MOST), Vec::new(), "it is away");
        let back = start + Duration::from_hours(1);
        assert_eq!(waits.note(rows(), back, AT_MOST), Vec::new());
        assert_eq!(waits.note(rows(), back + AT_MOST, AT_MOST), rows());
    }
}
