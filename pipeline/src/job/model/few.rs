//! Few records and no chance: a process ends at one of its turns, and each turn is tried.
//!
//! In each turn of a process all that it waits for comes one step further, and it runs until it waits again. A sink and the
//! journal let it wait before and after what they do, so that there are turns on both sides of each.

use super::{
    schedule::{Options, Schedule},
    source::Answers,
    verdict::{Kind, Violation},
    world::{PARTITIONS, What, lock},
};

/// What becomes of a process in the middle.
#[derive(Clone, Copy, Debug)]
pub(super) enum End {
    /// It is killed, and another has what it had.
    Killed,
    /// It sleeps, and wakes when another has finished.
    Asleep,
}

/// How long a turn takes.
const TURN_MS: u64 = 30;
/// So many turns must be enough for a process to come to rest.
const MAX_TURNS: u32 = 1000;
/// So many turns a sleeper has once it wakes.
const AWAKE: u32 = 60;

/// One process after the other reads the records, each for as many turns as `turns` says. Then all comes to rest and is
/// judged. Answers whether the last of them had come to rest before.
pub(super) fn run(
    records: &[What],
    sinks: usize,
    end: End,
    turns: &[u32],
    options: Options,
) -> Result<bool, Violation> {
    let mut schedule = Schedule::of(records, sinks, options);
    let (mut at, mut rested) = (0, false);
    for count in turns {
        for _ in 0..*count {
            turn(&mut schedule, at)?;
        }
        rested = schedule.is_at_rest(at);
        at = follow(&mut schedule, at, end);
    }
    let sleepers = schedule.group.alive().into_iter().filter(|one| *one != at);
    let sleepers: Vec<usize> = sleepers.collect();
    if !sleepers.is_empty() {
        finish(&mut schedule, at)?;
    }
    for sleeper in sleepers {
        for _ in 0..AWAKE {
            turn(&mut schedule, sleeper)?;
        }
    }
    schedule.come_to_rest()?;
    schedule.judge()?;
    Ok(rested)
}

fn turn(schedule: &mut Schedule, at: usize) -> Result<(), Violation> {
    schedule.group.clock.pass(TURN_MS);
    let process = &schedule.group.all[at];
    lock(&process.consumer).look(&schedule.group.world, Answers::Truly);
    lock(&process.consumer).locate(&schedule.group.world);
    for partition in 0..PARTITIONS {
        schedule.fetch_of(at, partition, 2);
    }
    schedule.poll(at)
}

/// Ends a process; the one that has its partitions then.
fn follow(schedule: &mut Schedule, at: usize, end: End) -> usize {
    let heir = schedule.group.start();
    match end {
        End::Killed => schedule.group.kill(at, heir),
        End::Asleep => {
            for partition in 0..PARTITIONS {
                schedule.group.take_away(partition, heir);
            }
        }
    }
    heir
}

fn finish(schedule: &mut Schedule, at: usize) -> Result<(), Violation> {
    for _ in 0..MAX_TURNS {
        if schedule.is_at_rest(at) {
            return Ok(());
        }
        turn(schedule, at)?;
    }
    Err(Violation::new(Kind::Stuck, format!("no rest in {MAX_TURNS} turns")))
}
