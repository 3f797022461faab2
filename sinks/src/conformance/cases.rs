//! The cases: each is a promise of the [`Sink`](crate::sink::Sink) contract, and the function's name says which.

use std::time::{Duration, Instant};

use super::{Log, ROW_BYTES, Subject, expect_rows, marks, same, settle, take};
use crate::{
    batch::Batch,
    sink::{Accepted, Flush, Sink, SinkError},
};

const ROOMY: usize = 1 << 20;

/// Rows become readable together with the mark that the flush reports and the next owner finds.
pub async fn rows_land_with_their_mark<S: Subject>(subject: &S) {
    let log = Log::new();
    let (p0, p1) = (log.partition(0), log.partition(1));
    let mut sink = subject.open(ROOMY).await;
    let found = sink.assign(&[p0.clone(), p1.clone()]).await.expect("marks");
    same(&found, &marks([]), "marks of a new store");
    take(&mut sink, log.batch(0, 0, 10)).await;
    take(&mut sink, log.batch(0, 10, 15)).await;
    take(&mut sink, log.batch(1, 0, 4)).await;
    let flushed = settle(&mut sink).await;
    same(&flushed.marks, &marks([(&p0, 15), (&p1, 4)]), "marks of the flush");
    same(&flushed.moved, &vec![], "moved partitions");
    expect_rows(subject, [(p0.clone(), (0..15).collect()), (p1.clone(), (0..4).collect())]).await;
    take(&mut sink, log.batch(1, 4, 9)).await;
    same(&settle(&mut sink).await.marks, &marks([(&p1, 9)]), "marks of the second flush");
    drop(sink);
    let mut next = subject.open(ROOMY).await;
    let found = next.assign(&[p0.clone(), p1.clone()]).await.expect("marks");
    same(&found, &marks([(&p0, 15), (&p1, 9)]), "marks found after a restart");
    expect_rows(subject, [(p0, (0..15).collect()), (p1, (0..9).collect())]).await;
}

/// A range without rows moves the mark, and the rows after it follow.
pub async fn marks_advance_without_rows<S: Subject>(subject: &S) {
    let log = Log::new();
    let p0 = log.partition(0);
    let mut sink = subject.open(ROOMY).await;
    sink.assign(std::slice::from_ref(&p0)).await.expect("marks");
    take(&mut sink, log.hollow(0, 0, 40)).await;
    same(&settle(&mut sink).await.marks, &marks([(&p0, 40)]), "mark over no rows");
    drop(sink);
    let mut sink = subject.open(ROOMY).await;
    let found = sink.assign(std::slice::from_ref(&p0)).await.expect("marks");
    same(&found, &marks([(&p0, 40)]), "mark found after a restart");
    take(&mut sink, log.batch(0, 40, 42)).await;
    take(&mut sink, log.hollow(0, 42, 50)).await;
    same(&settle(&mut sink).await.marks, &marks([(&p0, 50)]), "mark after the rows");
    expect_rows(subject, [(p0, vec![40, 41])]).await;
}

/// What was written and not flushed is not readable, and no mark passes it.
pub async fn nothing_is_durable_before_its_flush<S: Subject>(subject: &S) {
    let log = Log::new();
    let p0 = log.partition(0);
    let mut sink = subject.open(ROOMY).await;
    sink.assign(std::slice::from_ref(&p0)).await.expect("marks");
    take(&mut sink, log.batch(0, 0, 10)).await;
    expect_rows(subject, []).await;
    drop(sink);
    let mut next = subject.open(ROOMY).await;
    let found = next.assign(std::slice::from_ref(&p0)).await.expect("marks");
    same(&found, &marks([]), "marks after a crash before the flush");
    expect_rows(subject, []).await;
}

/// After a crash the next owner starts at the mark, and reading on from it leaves each row once.
pub async fn a_crash_loses_only_what_was_not_durable<S: Subject>(subject: &S) {
    let log = Log::new();
    let (p0, p1) = (log.partition(0), log.partition(1));
    let both = [p0.clone(), p1.clone()];
    let mut wanted = [0, 0];
    for round in 0..6 {
        let mut sink = subject.open(ROOMY).await;
        let found = sink.assign(&both).await.expect("marks");
        for (at, partition) in both.iter().enumerate() {
            wanted[at] = found.get(partition).map_or(0, |mark| mark.offset.get());
            let first = wanted[at];
            take(&mut sink, log.batch(at as i32, first, first + 7)).await;
        }
        match round % 3 {
            0 => drop(settle(&mut sink).await),
            1 => drop(sink.flush(Instant::now(), Flush::Due).await.expect("a due flush")),
            _ => {}
        }
    }
    let mut last = subject.open(ROOMY).await;
    // A flush that is under way isn't stopped by dropping its sink, as a kill would: it lands before this
    // owner's, or never.
    let ends = loop {
        let found = last.assign(&both).await.expect("marks");
        let ends = both.each_ref().map(|partition| found[partition].offset.get());
        for (at, end) in ends.into_iter().enumerate() {
            assert!(end >= 14 && end % 7 == 0, "{end} should be whole flushes");
            take(&mut last, log.batch(at as i32, end, end + 7)).await;
        }
        if settle(&mut last).await.moved.is_empty() {
            break ends.map(|end| end + 7);
        }
    };
    let rows = both.into_iter().zip(ends).map(|(partition, end)| (partition, (0..end).collect()));
    expect_rows(subject, rows).await;
}

/// A sink that holds what it may hands the batch back whole, and takes it after a flush.
pub async fn full_buffers_hand_batches_back<S: Subject>(subject: &S) {
    let log = Log::new();
    let p0 = log.partition(0);
    let mut sink = subject.open(20 * ROW_BYTES).await;
    sink.assign(std::slice::from_ref(&p0)).await.expect("marks");
    let (mut next, mut handed_back) = (0, 0);
    while handed_back < 3 {
        assert!(next < 1000, "the sink should have been full long ago");
        let batch = match sink.write(log.batch(0, next, next + 5)).await.expect("a write") {
            Accepted::Taken => {
                next += 5;
                continue;
            }
            Accepted::Busy(batch) => batch,
        };
        handed_back += 1;
        same(&batch.rows.num_rows(), &5, "rows handed back");
        settle(&mut sink).await;
        take(&mut sink, batch).await;
        next += 5;
    }
    same(&settle(&mut sink).await.marks, &marks([(&p0, next)]), "mark");
    expect_rows(subject, [(p0, (0..next).collect())]).await;
}

/// What waits for a revoked partition is dropped; the other partitions keep theirs.
pub async fn revoke_drops_buffers<S: Subject>(subject: &S) {
    let log = Log::new();
    let (p0, p1) = (log.partition(0), log.partition(1));
    let mut sink = subject.open(ROOMY).await;
    sink.assign(&[p0.clone(), p1.clone()]).await.expect("marks");
    take(&mut sink, log.batch(0, 0, 10)).await;
    take(&mut sink, log.batch(1, 0, 10)).await;
    sink.revoke(std::slice::from_ref(&p0));
    same(&settle(&mut sink).await.marks, &marks([(&p1, 10)]), "marks");
    expect_rows(subject, [(p1, (0..10).collect())]).await;
}

/// Assigning a partition again forgets what waited for it, so that reading it again doubles nothing.
pub async fn assign_forgets_buffers<S: Subject>(subject: &S) {
    let log = Log::new();
    let p0 = log.partition(0);
    let mut sink = subject.open(ROOMY).await;
    sink.assign(std::slice::from_ref(&p0)).await.expect("marks");
    take(&mut sink, log.batch(0, 0, 10)).await;
    let found = sink.assign(std::slice::from_ref(&p0)).await.expect("marks");
    same(&found, &marks([]), "marks");
    take(&mut sink, log.batch(0, 0, 12)).await;
    same(&settle(&mut sink).await.marks, &marks([(&p0, 12)]), "marks");
    expect_rows(subject, [(p0, (0..12).collect())]).await;
}

/// A partition that another owner moved in between is taken up where that owner left it.
pub async fn a_partition_lost_and_won_back<S: Subject>(subject: &S) {
    let log = Log::new();
    let p0 = log.partition(0);
    let (mut one, mut two) = (subject.open(ROOMY).await, subject.open(ROOMY).await);
    one.assign(std::slice::from_ref(&p0)).await.expect("marks");
    take(&mut one, log.batch(0, 0, 5)).await;
    settle(&mut one).await;
    take(&mut one, log.batch(0, 5, 8)).await;
    one.revoke(std::slice::from_ref(&p0));
    let found = two.assign(std::slice::from_ref(&p0)).await.expect("marks");
    same(&found, &marks([(&p0, 5)]), "marks of the second owner");
    take(&mut two, log.batch(0, 5, 20)).await;
    settle(&mut two).await;
    two.revoke(std::slice::from_ref(&p0));
    let found = one.assign(std::slice::from_ref(&p0)).await.expect("marks");
    same(&found, &marks([(&p0, 20)]), "marks on its return");
    take(&mut one, log.batch(0, 20, 30)).await;
    same(&settle(&mut one).await.marks, &marks([(&p0, 30)]), "marks");
    expect_rows(subject, [(p0, (0..30).collect())]).await;
}

/// A process that slept while another took over drops its rows and says so; nothing is doubled.
pub async fn a_sleeper_wakes_and_doubles_nothing<S: Subject>(subject: &S) {
    let log = Log::new();
    let p0 = log.partition(0);
    let (mut sleeper, mut owner) = (subject.open(ROOMY).await, subject.open(ROOMY).await);
    sleeper.assign(std::slice::from_ref(&p0)).await.expect("marks");
    take(&mut sleeper, log.batch(0, 0, 10)).await;
    owner.assign(std::slice::from_ref(&p0)).await.expect("marks");
    take(&mut owner, log.batch(0, 0, 4)).await;
    settle(&mut owner).await;
    let woken = settle(&mut sleeper).await;
    same(&woken.marks, &marks([]), "marks of the sleeper");
    same(&woken.moved, &vec![p0.clone()], "what the sleeper finds moved");
    expect_rows(subject, [(p0.clone(), (0..4).collect())]).await;
    take(&mut owner, log.batch(0, 4, 12)).await;
    same(&settle(&mut owner).await.marks, &marks([(&p0, 12)]), "marks of the owner");
    let found = sleeper.assign(std::slice::from_ref(&p0)).await.expect("marks");
    same(&found, &marks([(&p0, 12)]), "marks that the sleeper then finds");
    expect_rows(subject, [(p0, (0..12).collect())]).await;
}

/// Of a flush over two partitions only the moved one is dropped; the other lands and goes on.
pub async fn only_the_moved_partition_is_dropped<S: Subject>(subject: &S) {
    let log = Log::new();
    let (p0, p1) = (log.partition(0), log.partition(1));
    let (mut one, mut two) = (subject.open(ROOMY).await, subject.open(ROOMY).await);
    one.assign(&[p0.clone(), p1.clone()]).await.expect("marks");
    take(&mut one, log.batch(0, 0, 10)).await;
    take(&mut one, log.batch(1, 0, 10)).await;
    two.assign(std::slice::from_ref(&p1)).await.expect("marks");
    take(&mut two, log.batch(1, 0, 6)).await;
    settle(&mut two).await;
    let flushed = settle(&mut one).await;
    same(&flushed.marks, &marks([(&p0, 10)]), "marks");
    same(&flushed.moved, &vec![p1.clone()], "moved partitions");
    take(&mut one, log.batch(0, 10, 11)).await;
    same(&settle(&mut one).await.marks, &marks([(&p0, 11)]), "marks of the next flush");
    expect_rows(subject, [(p0, (0..11).collect()), (p1, (0..6).collect())]).await;
}

/// Two processes on different partitions of one store don't disturb each other.
pub async fn rivals_on_other_partitions_both_land<S: Subject>(subject: &S) {
    let log = Log::new();
    let (p0, p1) = (log.partition(0), log.partition(1));
    let (mut one, mut two) = (subject.open(ROOMY).await, subject.open(ROOMY).await);
    one.assign(std::slice::from_ref(&p0)).await.expect("marks");
    two.assign(std::slice::from_ref(&p1)).await.expect("marks");
    for round in 0..5 {
        let first = round * 10;
        take(&mut one, log.batch(0, first, first + 10)).await;
        take(&mut two, log.batch(1, first, first + 10)).await;
        let (a, b) = futures::join!(settle(&mut one), settle(&mut two));
        same(&a.marks, &marks([(&p0, first + 10)]), "marks of the one");
        same(&b.marks, &marks([(&p1, first + 10)]), "marks of the other");
    }
    expect_rows(subject, [(p0, (0..50).collect()), (p1, (0..50).collect())]).await;
}

/// A flush that the store doesn't answer ends at its deadline without claiming anything, and lands later.
pub async fn a_deadline_is_kept<S: Subject>(subject: &S) {
    let log = Log::new();
    let p0 = log.partition(0);
    let mut sink = subject.open(ROOMY).await;
    sink.assign(std::slice::from_ref(&p0)).await.expect("marks");
    take(&mut sink, log.batch(0, 0, 10)).await;
    subject.stall(true);
    let start = Instant::now();
    let deadline = start + Duration::from_millis(50);
    let flushed = sink.flush(start, Flush::Now { deadline }).await.expect("an unfinished flush");
    same(&flushed.marks, &marks([]), "marks at the deadline");
    assert!(start.elapsed() < Duration::from_secs(10), "took {:?}", start.elapsed());
    take(&mut sink, log.batch(0, 10, 15)).await;
    subject.stall(false);
    same(&settle(&mut sink).await.marks, &marks([(&p0, 15)]), "marks");
    expect_rows(subject, [(p0, (0..15).collect())]).await;
}

/// A due flush starts, returns at once though the store doesn't answer, and is reported by a later call.
pub async fn due_flushes_never_wait<S: Subject>(subject: &S) {
    let log = Log::new();
    let p0 = log.partition(0);
    let mut sink = subject.open(ROOMY).await;
    sink.assign(std::slice::from_ref(&p0)).await.expect("marks");
    take(&mut sink, log.batch(0, 0, 10)).await;
    subject.stall(true);
    let start = Instant::now();
    for _ in 0..3 {
        let flushed = sink.flush(Instant::now(), Flush::Due).await.expect("a due flush");
        same(&flushed.marks, &marks([]), "marks while the store is stalled");
    }
    assert!(start.elapsed() < Duration::from_secs(5), "took {:?}", start.elapsed());
    subject.stall(false);
    let mut reported = marks([]);
    while reported.is_empty() {
        assert!(start.elapsed() < Duration::from_secs(30), "the flush should have landed");
        tokio::time::sleep(Duration::from_millis(1)).await;
        reported = sink.flush(Instant::now(), Flush::Due).await.expect("a due flush").marks;
    }
    same(&reported, &marks([(&p0, 10)]), "marks");
    expect_rows(subject, [(p0, (0..10).collect())]).await;
}

/// What became durable, was revoked or was dropped no longer counts against the byte budget.
pub async fn bytes_are_given_back<S: Subject>(subject: &S) {
    let log = Log::new();
    let (p0, p1) = (log.partition(0), log.partition(1));
    let mut sink = subject.open(ROOMY).await;
    sink.assign(&[p0, p1.clone()]).await.expect("marks");
    take(&mut sink, log.batch(0, 0, 10)).await;
    take(&mut sink, log.batch(1, 0, 5)).await;
    same(&log.held(), &(15 * ROW_BYTES), "bytes held by the buffers");
    sink.revoke(&[p1]);
    same(&log.held(), &(10 * ROW_BYTES), "bytes held after a revocation");
    settle(&mut sink).await;
    same(&log.held(), &0, "bytes held after the flush");
    take(&mut sink, log.batch(0, 10, 20)).await;
    drop(sink);
    same(&log.held(), &0, "bytes held by nobody");
}

/// A batch that leaves a hole, overlaps, or belongs to a partition that isn't assigned is a fault of the caller.
pub async fn a_batch_out_of_order_is_refused<S: Subject>(subject: &S) {
    let log = Log::new();
    let p0 = log.partition(0);
    let mut sink = subject.open(ROOMY).await;
    let refused = |result: Result<Accepted, SinkError>| {
        assert!(matches!(result, Err(SinkError::Fatal { .. })), "{result:?} should be fatal");
    };
    refused(sink.write(log.batch(0, 0, 1)).await);
    sink.assign(std::slice::from_ref(&p0)).await.expect("marks");
    take(&mut sink, log.batch(0, 3, 5)).await;
    let wrong: [Batch; 2] = [log.batch(0, 6, 8), log.batch(0, 4, 8)];
    for batch in wrong {
        refused(sink.write(batch).await);
    }
    take(&mut sink, log.batch(0, 5, 6)).await;
    same(&settle(&mut sink).await.marks, &marks([(&p0, 6)]), "marks");
    expect_rows(subject, [(p0, vec![3, 4, 5])]).await;
}

/// A topic deleted and made anew has marks of its own, though name and partition are the same.
pub async fn a_topic_made_anew_is_another<S: Subject>(subject: &S) {
    let (old, new) = (Log::new(), Log::new());
    let mut sink = subject.open(ROOMY).await;
    sink.assign(&[old.partition(0)]).await.expect("marks");
    take(&mut sink, old.batch(0, 0, 10)).await;
    settle(&mut sink).await;
    let found = sink.assign(&[new.partition(0)]).await.expect("marks");
    same(&found, &marks([]), "marks of the new topic");
    take(&mut sink, new.batch(0, 0, 3)).await;
    same(&settle(&mut sink).await.marks, &marks([(&new.partition(0), 3)]), "marks");
    let found = sink.assign(&[old.partition(0)]).await.expect("marks");
    same(&found, &marks([(&old.partition(0), 10)]), "marks of the old topic");
    let rows = [(old.partition(0), (0..10).collect()), (new.partition(0), (0..3).collect())];
    expect_rows(subject, rows).await;
}
