//! Stops a partition of which too much is rejected, until a person accepts it, before a broken registry or a wrong schema turns a day
//! of good records into dead letters.

/// How many records are looked at together, at least: fewer say little.
const WINDOW_RECORDS: u64 = 1000;

/// Counts records and rejects of one partition.
#[derive(Debug, Default)]
pub(super) struct RejectShare {
    records: u64,
    rejected: u64,
}

impl RejectShare {
    /// Counts a batch; `Some(share)` when the window is full and more than `max` of it was rejected.
    /// A share of 1 can't be exceeded, which turns this off.
    pub(super) fn count(&mut self, records: u64, rejected: u64, max: f64) -> Option<f64> {
        self.records += records;
        self.rejected += rejected;
        if self.records < WINDOW_RECORDS {
            return None;
        }
        let share = self.rejected as f64 / self.records as f64;
        *self = RejectShare::default();
        (share > max).then_some(share)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_rejects_say_nothing_and_many_stop() {
        let mut share = RejectShare::default();
        assert_eq!(share.count(999, 999, 0.5), None);
        assert_eq!(share.count(1, 0, 0.5), Some(0.999));
        assert_eq!(share.count(1000, 500, 0.5), None);
        assert_eq!(share.count(1000, 501, 0.5), Some(0.501));
        assert_eq!(share.count(1000, 1000, 1.0), None);
    }
}
