//! The model test: the job's own loop over a scripted log and sinks in memory, in thousands of seeded
//! schedules of crashes, frozen processes that wake, partitions that move, faults of sinks and journal,
//! answers that are late, stale or missing, retention, elections, truncation, and topics made anew.
//! Deterministic; a failing seed is printed. The seeds are a sample: schedules of 900 steps are too many to try all. All
//! places are tried where there are few: where one process ends that reads three records of any kinds (`few`).
//!
//! After each schedule everything comes to rest under one fresh process, and then must hold, for every
//! store: each event of the log once, in no store twice, none under another topic's id; each poison record
//! in the dead letters; each missing offset in a recorded gap, each recorded gap true; and no sink may ever
//! have been made to forget rows that only this process had.
//!
//! Each protection has a negative control: the same schedules with it taken out must fail, in a way that
//! shows what it protects from.
//!
//! | protection taken out | what then happens to some schedule |
//! |---|---|
//! | a stream is a topic id | events of the topic made anew are skipped, or stored twice |
//! | a look-up that started after the last poll | events stored under the id of the topic that is gone |
//! | the topic's id is another one when several look-ups agree | a gap is told of a topic that is there |
//! | what can't be read again is durable before its partition starts over | rows are thrown away that nobody has |
//! | a mark above the log's end stops the partition | it starts over for ever, or what stands there is never read |
//! | every sink's mark is checked, not only the least | a sink keeps rows that the log no longer has |
//! | gaps acknowledged first | a loss that nobody is told of |
//! | dead letters acknowledged first | a rejected record that is nowhere |
//! | a sink without a mark starts at the log's start | the rows before it are missing |
//! | a first start records no gap | a gap is told that is none |
//! | a batch is cut at each sink's mark | a sink is handed what it has |
//! | runs are told apart | what was read before a restart leaves a hole |
//! | batches without rows go to sinks | a sink's mark stays behind, which looks like a hole |
//! | a moved partition is assigned anew | a process that slept takes itself for broken |
//! | Kafka is told the least mark | the group's offset passes what a sink has |
//! | a report to Kafka that failed is made again | the group's offset stays behind for ever |
//! | Kafka's offset is never believed | a sink that has less than the others is handed a hole |
//! | marks don't name the job | a job that is called otherwise stores all of it again |
//! | a sink's flush is fenced by the stored mark | rows of a process that slept are stored twice |
//! | a record is judged by itself, not by its neighbours in a batch | one record is a row and a dead letter |
//! | dead letters are counted by their keys | there are more of them than rejected records |
//! | a sink forgets what waits for a partition that is assigned or revoked | it is handed what it still holds |
//! | a mark right behind an offset without a record keeps the epoch of the last record | what a log has that was cut below it is never stored |
//! | and is told from a mark right behind that record | a gap is told of a log that wasn't cut |

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod few;
mod journal;
mod processes;
mod schedule;
mod seen;
mod sinks;
mod source;
mod verdict;
mod world;

use std::collections::BTreeMap;

use self::{
    few::End,
    schedule::{Options, run},
    seen::Seen,
    verdict::{Kind, Violation},
    world::What,
};
use super::rules::Rule;

const SCHEDULES: u64 = 4000;
const CONTROL_SCHEDULES: u64 = 2000;

#[test]
fn nothing_is_lost_and_nothing_is_doubled_in_any_schedule() {
    let mut seen = Seen::default();
    for seed in 0..SCHEDULES {
        match run(seed, Options::default()) {
            Ok(one) => seen.add(&one),
            Err(violation) => panic!("seed {seed}: {violation}"),
        }
    }
    println!("{SCHEDULES} schedules: {seen:?}");
    let missing = seen.missing();
    assert!(missing.is_empty(), "the schedules hardly meet {missing:?}: {seen:?}");
}

/// Three records of each kind, in each order.
fn few_records() -> impl Iterator<Item = [What; 3]> {
    let kinds = [What::Row, What::Poison, What::Tombstone, What::Hole];
    (0..64).map(move |n| [n / 16, n / 4 % 4, n % 4].map(|kind| kinds[kind]))
}

/// Ends a process at each of its turns, until it has come to rest before. Answers how many there were.
fn end_at_each_turn(
    records: &[What],
    sinks: usize,
    end: End,
    options: Options,
) -> Result<u32, Violation> {
    let mut turns = 0;
    while !few::run(records, sinks, end, &[turns], options)? {
        turns += 1;
        assert!(turns < 1000, "{records:?}, {sinks} sinks, {end:?}: it comes to no rest");
    }
    Ok(turns)
}

#[test]
fn in_few_records_a_process_may_end_anywhere() {
    let mut count = 0;
    for records in few_records() {
        for (sinks, end) in [(1, End::Killed), (1, End::Asleep), (2, End::Killed), (2, End::Asleep)]
        {
            match end_at_each_turn(&records, sinks, end, Options::default()) {
                Ok(turns) => count += turns,
                Err(violation) => panic!("{records:?}, {sinks} sinks, {end:?}: {violation}"),
            }
        }
    }
    println!("{count} ends of a process");
    // With two sinks each does something in several turns, and the slower of them takes a second.
    assert!(count > 64 * 4 * 15, "{count} turns are hardly a life");
}

#[test]
fn and_so_may_the_one_after_it() {
    let records = [What::Row, What::Poison, What::Hole, What::Row];
    let turns = end_at_each_turn(&records, 1, End::Killed, Options::default()).unwrap();
    for first in 0..turns {
        for second in 0..turns {
            let ends = [first, second];
            let run = few::run(&records, 1, End::Killed, &ends, Options::default());
            assert!(run.is_ok(), "killed after {first} turns and after {second}: {run:?}");
        }
    }
}

/// Negative control: some end shows what a protection is for.
#[test]
fn in_few_records_protections_are_needed() {
    let letters = Options { without: Some(Rule::DeadLetterBeforeMark), ..Options::default() };
    let fence = Options { fenced: false, ..Options::default() };
    for (options, end, expected) in
        [(letters, End::Killed, Kind::LetterLost), (fence, End::Asleep, Kind::Doubled)]
    {
        let fails = |records: [What; 3]| end_at_each_turn(&records, 1, end, options).err();
        let found = few_records().filter_map(fails).any(|violation| violation.kind == expected);
        assert!(found, "{expected:?} was not met");
    }
}

#[test]
fn each_protection_is_needed() {
    let lost = &[Kind::Lost, Kind::Doubled, Kind::Mislabelled][..];
    let controls: [(Rule, &[Kind]); 16] = [
        (Rule::StreamIsTopicId, lost),
        (Rule::LookupAfterPoll, lost),
        (Rule::SettledBeforeSwitch, &[Kind::FalseGap, Kind::Mislabelled]),
        (Rule::DrainedBeforeStartingOver, &[Kind::ThrownAway]),
        (Rule::MarkWithinLog, &[Kind::Lost, Kind::Unsaid, Kind::Stuck]),
        (Rule::EveryMarkChecked, &[Kind::Lost, Kind::Unsaid]),
        (Rule::GapBeforeMark, &[Kind::Lost]),
        (Rule::DeadLetterBeforeMark, &[Kind::LetterLost]),
        (Rule::NoMarkStartsAtLogStart, &[Kind::Lost]),
        (Rule::FirstStartHasNoGap, &[Kind::FalseGap]),
        (Rule::SliceAtEachMark, &[Kind::Failed, Kind::Doubled]),
        (Rule::RunsAreTold, &[Kind::Failed, Kind::Lost, Kind::Doubled]),
        (Rule::MarksWithoutRows, &[Kind::Failed]),
        (Rule::MovedIsAssignedAnew, &[Kind::Failed]),
        (Rule::CommitLeastMark, &[Kind::CommitAhead]),
        (Rule::FailedCommitIsRepeated, &[Kind::Stuck]),
    ];
    for (rule, expected) in controls {
        let options = Options { without: Some(rule), ..Options::default() };
        must_fail(&format!("{rule:?}"), options, expected);
    }
}

#[test]
fn the_fence_of_the_store_is_needed() {
    must_fail("fence", Options { fenced: false, ..Options::default() }, &[Kind::Doubled]);
}

#[test]
fn not_believing_the_groups_offset_is_needed() {
    let options = Options { believes_group: true, ..Options::default() };
    must_fail("the store as the truth", options, &[Kind::Lost, Kind::Failed]);
}

#[test]
fn marks_that_name_no_job_are_needed() {
    let options = Options { marks_name_job: true, ..Options::default() };
    must_fail("marks that name no job", options, &[Kind::Doubled]);
}

#[test]
fn forgetting_what_waits_is_needed() {
    let options = Options { forgets: false, ..Options::default() };
    must_fail("forgetting", options, &[Kind::Failed, Kind::Lost, Kind::Doubled]);
}

#[test]
fn judging_a_record_by_itself_is_needed() {
    let options = Options { judges_alone: false, ..Options::default() };
    must_fail("judging a record by itself", options, &[Kind::RowAndLetter]);
}

#[test]
fn counting_letters_by_their_keys_is_needed() {
    let options = Options { counts_keys: false, ..Options::default() };
    must_fail("counting by keys", options, &[Kind::Miscounted]);
}

#[test]
fn keeping_the_epoch_behind_a_hole_is_needed() {
    let options = Options { keeps_epochs: false, ..Options::default() };
    must_fail("the epoch behind a hole", options, &[Kind::Lost, Kind::Unsaid]);
}

#[test]
fn telling_a_mark_behind_a_hole_is_needed() {
    let options = Options { tells_holes: false, ..Options::default() };
    must_fail("telling a mark behind a hole", options, &[Kind::FalseGap]);
}

/// Runs schedules until one fails as expected; all of them passing is the failure.
fn must_fail(what: &str, options: Options, expected: &[Kind]) {
    let mut otherwise: BTreeMap<Kind, u64> = BTreeMap::new();
    for seed in 0..CONTROL_SCHEDULES {
        let Err(violation) = run(seed, options) else { continue };
        if expected.contains(&violation.kind) {
            println!("without {what}, seed {seed}: {violation}");
            return;
        }
        *otherwise.entry(violation.kind).or_default() += 1;
    }
    panic!("without {what} nothing failed as expected ({expected:?}), but {otherwise:?}");
}
