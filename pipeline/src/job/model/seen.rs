//! What schedules met.

/// What schedules met: a suite that never meets a thing says nothing about it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen {
    pub(super) rows: u64,
    pub(super) letters: u64,
    pub(super) gaps: u64,
    pub(super) diverged: u64,
    pub(super) kills: u64,
    pub(super) stops: u64,
    pub(super) sleepers: u64,
    pub(super) recreated: u64,
    pub(super) faults: u64,
    pub(super) stale: u64,
    pub(super) elections: u64,
    pub(super) deleted: u64,
    /// Cuts below a mark behind a hole that the log has grown past again.
    pub(super) regrown: u64,
}

impl Seen {
    pub(super) fn add(&mut self, one: &Seen) {
        self.rows += one.rows;
        self.letters += one.letters;
        self.gaps += one.gaps;
        self.diverged += one.diverged;
        self.kills += one.kills;
        self.stops += one.stops;
        self.sleepers += one.sleepers;
        self.recreated += one.recreated;
        self.faults += one.faults;
        self.stale += one.stale;
        self.elections += one.elections;
        self.deleted += one.deleted;
        self.regrown += one.regrown;
    }

    pub(super) fn everything(&self) -> bool {
        let counts = [
            self.rows,
            self.letters,
            self.gaps,
            self.diverged,
            self.kills,
            self.stops,
            self.sleepers,
            self.recreated,
            self.faults,
            self.stale,
            self.elections,
            self.deleted,
            self.regrown,
        ];
        counts.iter().all(|count| *count > 100)
    }
}
