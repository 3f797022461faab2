//! How fast a writer sends: by what the table remembers, and by how the server keeps up.
//!
//! A table remembers the tokens of its last parts, however many they are a second. A token has to outlast whatever may
//! still be on its way under it, which is a lease and the time of an INSERT, with some to spare: the window is four times
//! the parts that come meanwhile. The contract's window holds that for parts that go by their age
//! ([`least_window`]); those that go for their size, in halves, or as retries come faster.
//! So a writer sends a quarter of the window at most in that time, of which it takes the share of its own partitions.
//! How many there are is what was found at the start, or what look-ups of the topic have told since. Each batch waits for a
//! look-up, so no process goes on with the share of before once a topic has grown: of one that grew from one partition to a
//! hundred, a hundred processes that each knew only of their own would send more than the whole window.
//! What it doesn't send waits, goes in fewer and larger batches, and where there is no room is handed back to the job.
//!
//! **Invariant:** nothing here is about an INSERT's outcome: what is sent again counts again.

use std::time::{Duration, Instant};

use super::{Settings, check::least_window};

/// Of the window no more than this part may come while an INSERT may be on its way: the rest is for rivals.
const OF_WINDOW: u64 = 4;
/// This part of what may be sent may be sent at once.
const AT_ONCE: u64 = 8;
/// A server that doesn't keep up is given this many times fewer at most.
const MAX_SLOWER: u32 = 8;

/// How fast one writer of a table sends.
#[derive(Debug)]
pub(super) struct Pace {
    table: String,
    /// How many Kafka partitions fill the table, as far as this writer has seen.
    partitions: u64,
    /// How long an INSERT may be on its way.
    on_its_way: Duration,
    flush_age: Duration,
    /// How many tokens the table remembers.
    window: u64,
    /// When all that was sent would have been, had it come evenly.
    even: Option<Instant>,
    is_held: bool,
    /// How many times longer than configured rows wait, and for how many times as many.
    slower: u32,
}

impl Pace {
    /// Of a table whose window isn't known yet.
    pub(super) fn new(table: &str, partitions: usize, settings: &Settings) -> Pace {
        Pace {
            table: table.to_owned(),
            partitions: partitions.max(1) as u64,
            on_its_way: settings.lease + settings.max_execution,
            flush_age: settings.flush_age,
            window: least_window(partitions, settings),
            even: None,
            is_held: false,
            slower: 1,
        }
    }

    /// The table remembers so many tokens. Where they are fewer than it must, rows may be there twice, as at least once
    /// allows, and waiting would not help.
    pub(super) fn remembers(&mut self, window: u64) {
        self.window = self.window.max(window);
    }

    /// So many partitions fill the table: their topic may have grown since the start, and then every writer's share is
    /// less.
    pub(super) fn filled_by(&mut self, partitions: usize) {
        self.partitions = self.partitions.max(partitions as u64);
    }

    /// Whether another INSERT may be sent by a writer of so many partitions; if so it counts as sent.
    pub(super) fn send(&mut self, now: Instant, owned: usize) -> bool {
        let (at_once, every) = self.share(owned as u64);
        let even = self.even.map_or(now, |even| even.max(now));
        let ahead = even.duration_since(now);
        let may = ahead + every <= every.saturating_mul(at_once);
        if may {
            self.even = Some(even + every);
        }
        self.tell_held(if may { ahead.is_zero().then_some(false) } else { Some(true) }, every);
        may
    }

    /// How many INSERTs may be sent at once, and how long after each other they may come for long.
    fn share(&self, owned: u64) -> (u32, Duration) {
        let all = self.partitions.max(owned);
        let most = (self.window / OF_WINDOW).saturating_mul(owned) / all;
        let at_once = (most / AT_ONCE).clamp(1, u64::from(u32::MAX)) as u32;
        let evenly = most.saturating_sub(u64::from(at_once)).clamp(1, u64::from(u32::MAX)) as u32;
        (at_once, self.on_its_way / evenly)
    }

    /// Says it once when it begins, and once when it is over.
    fn tell_held(&mut self, is_held: Option<bool>, every: Duration) {
        let Some(is_held) = is_held.filter(|held| *held != self.is_held) else { return };
        self.is_held = is_held;
        let (table, window) = (&self.table, self.window);
        if is_held {
            tracing::warn!(
                table,
                ?every,
                deduplication_window = window,
                "rows go in fewer batches than they fill: the table would forget the newest tokens too soon; a larger \
                 window or a larger clickhouse.flush_mib lets them go"
            );
        } else {
            tracing::info!(table, "batches go as they fill again");
        }
    }

    /// An INSERT ended after so long, or was refused since there are too many parts.
    pub(super) fn ended(&mut self, took: Duration, is_crowded: bool) {
        let before = self.slower;
        // A server that has many parts delays INSERTs before it refuses them.
        let is_behind = is_crowded || took > self.rows_wait();
        self.slower = if is_behind { (before * 2).min(MAX_SLOWER) } else { (before / 2).max(1) };
        let table = &self.table;
        if before == 1 && self.slower > 1 {
            tracing::warn!(
                table,
                took_ms = took.as_millis() as u64,
                too_many_parts = is_crowded,
                "the server doesn't keep up with the INSERTs: rows wait up to {MAX_SLOWER} times longer, and for as many more"
            );
        } else if before > 1 && self.slower == 1 {
            tracing::info!(table, "the server keeps up again");
        }
    }

    /// With how many bytes rows don't wait longer: with more where the server doesn't keep up, as far as there is room for them,
    /// and as one INSERT has it.
    pub(super) fn goes_at_bytes(&self, settings: &Settings) -> usize {
        let Settings { flush_bytes, hold_bytes, max_bytes, .. } = *settings;
        let most = hold_bytes.min(max_bytes).max(flush_bytes);
        flush_bytes.saturating_mul(self.slower as usize).min(most)
    }

    /// How long rows wait, where their size doesn't have them go.
    pub(super) fn rows_wait(&self) -> Duration {
        self.flush_age * self.slower
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    fn pace(partitions: usize, settings: &Settings) -> Pace {
        let mut pace = Pace::new("t", partitions, settings);
        pace.remembers(least_window(partitions, settings));
        pace
    }

    /// What a writer sends that always has something to send, by the instants at which it does.
    fn sent(pace: &mut Pace, owned: usize, seconds: u64) -> Vec<Duration> {
        let start = Instant::now();
        let ticks = (0..seconds * 50).map(|tick| Duration::from_millis(20 * tick));
        ticks.flat_map(|at| [at; 40]).filter(|at| pace.send(start + *at, owned)).collect()
    }

    #[test]
    fn no_time_that_an_insert_may_be_on_its_way_has_more_than_a_quarter_of_the_window() {
        let settings = Settings::default();
        let on_its_way = settings.lease + settings.max_execution;
        for (partitions, owned) in [(1, 1), (4, 2), (64, 64), (500, 3), (2, 6)] {
            let mut pace = pace(partitions, &settings);
            let share = pace.window / OF_WINDOW * owned as u64 / partitions.max(owned) as u64;
            let sent = sent(&mut pace, owned, 400);
            let within = sent
                .iter()
                .enumerate()
                .map(|(before, from)| sent.partition_point(|at| *at < *from + on_its_way) - before);
            let most = within.max().unwrap() as u64;
            assert!(most <= share, "{most} of {share}, {owned} of {partitions}");
            // And it isn't idle.
            assert!(most >= share * 3 / 4, "{most} of {share}, {owned} of {partitions}");
        }
    }

    #[test]
    fn a_topic_that_has_grown_makes_a_share_smaller() {
        let settings = Settings::default();
        let mut pace = pace(4, &settings);
        let (before, _) = pace.share(4);
        pace.filled_by(3);
        assert_eq!(pace.share(4).0, before);
        pace.filled_by(8);
        assert_eq!(pace.share(4).0, before / 2);
        assert_eq!(pace.share(8).0, before);
    }

    /// What a writer sends while an INSERT may be on its way that owns one partition of a topic, and knows of so many; it
    /// had one when the writer was started.
    fn sent_by_one(known: usize) -> u64 {
        let settings = Settings::default();
        let mut pace = pace(1, &settings);
        pace.filled_by(known);
        sent(&mut pace, 1, (settings.lease + settings.max_execution).as_secs()).len() as u64
    }

    #[test]
    fn a_topic_that_has_grown_is_shared_by_all_its_writers() {
        let window = pace(1, &Settings::default()).window;
        let all = 100 * sent_by_one(100);
        assert!(all <= window / OF_WINDOW, "{all} of {window}");
    }

    /// Negative control: where each knows only of the partitions up to its own.
    #[test]
    fn without_the_count_of_look_ups_a_topic_that_has_grown_uses_the_window_up() {
        let window = pace(1, &Settings::default()).window;
        let all: u64 = (1..=100).map(sent_by_one).sum();
        assert!(all > window, "{all} of {window}");
    }

    #[test]
    fn what_goes_by_its_age_is_never_held() {
        let settings = Settings::default();
        for partitions in [1, 4, 80] {
            let mut pace = pace(partitions, &settings);
            let start = Instant::now();
            for round in 0..200 {
                let at = start + settings.flush_age * round;
                let all = (0..partitions).filter(|_| pace.send(at, partitions)).count();
                assert_eq!(all, partitions, "of round {round}");
            }
            assert!(!pace.is_held);
        }
    }

    #[test]
    fn a_larger_window_lets_more_go() {
        let settings = Settings::default();
        let mut wide = pace(1, &settings);
        wide.remembers(10 * wide.window);
        let count = sent(&mut wide, 1, 20).len();
        assert!(count > 5 * sent(&mut pace(1, &settings), 1, 20).len() / 2, "{count}");
    }

    #[test]
    fn a_server_that_does_not_keep_up_is_given_fewer_and_then_as_many_again() {
        let settings = Settings::default();
        let age = settings.flush_age;
        let mut pace = pace(1, &settings);
        let waits = |pace: &mut Pace, took, is_crowded| {
            pace.ended(took, is_crowded);
            pace.rows_wait() / age.as_secs() as u32
        };
        let second = Duration::from_secs(1);
        let refused = [true; 5].map(|crowded| waits(&mut pace, second, crowded));
        assert_eq!(refused, [2, 4, 8, 8, 8].map(|n: u32| n * second));
        let taken = [false; 4].map(|crowded| waits(&mut pace, second, crowded));
        assert_eq!(taken, [4, 2, 1, 1].map(|n: u32| n * second));
        // Delayed: it takes longer than rows wait for it.
        assert_eq!(waits(&mut pace, age + second, false), 2 * second);
        assert_eq!(waits(&mut pace, age + second, false), second, "as long as rows wait now");
    }

    #[test]
    fn a_server_that_does_not_keep_up_is_given_larger_batches_as_far_as_there_is_room() {
        let settings = |hold_bytes, max_bytes| Settings {
            flush_bytes: 10,
            hold_bytes,
            max_bytes,
            ..Settings::default()
        };
        let mut pace = pace(1, &Settings::default());
        assert_eq!(pace.goes_at_bytes(&settings(1000, 1000)), 10);
        for wanted in [20, 40, 80, 80] {
            pace.ended(Duration::from_secs(1), true);
            assert_eq!(pace.goes_at_bytes(&settings(1000, 1000)), wanted);
        }
        assert_eq!(pace.goes_at_bytes(&settings(40, 1000)), 40, "the room for all partitions");
        assert_eq!(pace.goes_at_bytes(&settings(1000, 50)), 50, "what one INSERT has");
        assert_eq!(pace.goes_at_bytes(&settings(5, 5)), 10, "never less than is configured");
    }
}
