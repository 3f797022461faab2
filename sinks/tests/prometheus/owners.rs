//! Who shows what: across crashes, zombies and moves no series falls, and each is the sum of what is below its mark.

use std::{
    collections::BTreeMap,
    fs::File,
    io::Write,
    task::Poll,
    time::{Duration, Instant},
};

use aion_schemas::log::{Mark, Offset, Partition, Timestamp};
use aion_sinks::{
    conformance::{settle, take},
    lake::testing::Protection,
    sink::{Flush, Sink},
};
use flate2::{Compression, write::GzEncoder};

use crate::shared::{
    EPOCH_S, Event, Page, Place, Process, batch, partition, settings, text_of, topic,
};

const SERIES: &str = "aion_runtime_requests_total{component=\"gateway\",partition=\"0\"}";

/// What the event at an offset counts.
fn increment(offset: i64) -> f64 {
    (offset % 7) as f64
}

fn events(first: i64, end: i64) -> Vec<Event> {
    (first..end).map(|offset| Event::new("requests", "counter", increment(offset))).collect()
}

fn value(page: &Page) -> f64 {
    page.get(SERIES).unwrap_or(0.0)
}

/// The mark that stands on the page beside the series.
fn mark(page: &Page) -> i64 {
    let mut marks = page.of("aion_metrics_next_offset");
    marks.next().map_or(0, |(_, mark)| mark as i64)
}

/// What a Prometheus sees that scrapes every process: a target is a process, so each has its own series.
#[derive(Default)]
struct Scraper {
    seen: BTreeMap<usize, f64>,
}

impl Scraper {
    /// What is wrong with a page, if anything.
    fn scrape(&mut self, process: usize, page: &Page) -> Result<(), String> {
        let (value, mark) = (value(page), mark(page));
        let sum = (0..mark).map(increment).fold(0.0, |sum, one| sum + one);
        if value.to_bits() != sum.to_bits() {
            return Err(format!("{value} at mark {mark}, and the events below add up to {sum}"));
        }
        let before = self.seen.insert(process, value).unwrap_or(0.0);
        // Of a partition that was given away nothing is shown: that isn't a fall.
        if value < before && mark > 0 {
            return Err(format!("fell from {before} to {value}"));
        }
        Ok(())
    }
}

/// Two processes; the partition is given and taken, they crash, sleep and fail, in the order that a seed says.
async fn schedule(seed: u64, without: Option<Protection>) -> Result<(), String> {
    let (place, stream) = (Place::new(), topic());
    let p0 = partition(&stream, 0);
    let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = move |below: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % below
    };
    let mut scraper = Scraper::default();
    let mut processes: [Option<(Process, i64)>; 2] = [None, None];
    for _ in 0..40 {
        let which = next(2) as usize;
        match processes[which].take() {
            None => {
                let process = place.owner(&p0, settings()).await;
                if let Some(protection) = without {
                    process.sink.rig().take_out(protection);
                }
                let at = mark(&process.page());
                processes[which] = Some((process, at));
            }
            Some((mut process, mut at)) => {
                match next(8) {
                    0 => continue, // it crashes
                    1 => process.sink.rig().fail_puts(1),
                    2 => process.sink.rig().lose_answers(1),
                    3 | 4 => {
                        let count = 1 + next(20) as i64;
                        take(&mut process.sink, batch(&p0, at, &events(at, at + count))).await;
                        at += count;
                    }
                    _ => {
                        let why = Flush::Now { deadline: Instant::now() };
                        let flushed = process.sink.flush(Instant::now(), why).await;
                        let flushed = flushed.unwrap_or_default();
                        scraper.scrape(which, &process.page())?;
                        let settled = settle(&mut process.sink).await;
                        if !flushed.moved.is_empty() || !settled.moved.is_empty() {
                            process.sink.assign(std::slice::from_ref(&p0)).await.unwrap();
                            at = mark(&process.page());
                        }
                    }
                }
                scraper.scrape(which, &process.page())?;
                processes[which] = Some((process, at));
            }
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_series_falls_and_each_is_the_sum_below_its_mark() {
    for seed in 0..60 {
        schedule(seed, None).await.unwrap_or_else(|wrong| panic!("seed {seed}: {wrong}"));
    }
}

/// Negative control: shown as soon as it is added up, a series falls when the process dies before the checkpoint.
#[tokio::test]
async fn shown_before_it_is_checkpointed_a_series_falls() {
    for protection in [None, Some(Protection::Checkpointed)] {
        let (place, stream) = (Place::new(), topic());
        let p0 = partition(&stream, 0);
        let mut process = place.owner(&p0, settings()).await;
        if let Some(protection) = protection {
            process.sink.rig().take_out(protection);
        }
        take(&mut process.sink, batch(&p0, 0, &events(0, 10))).await;
        settle(&mut process.sink).await;
        take(&mut process.sink, batch(&p0, 10, &events(10, 20))).await;
        process.sink.rig().fail_puts(1);
        let why = Flush::Now { deadline: Instant::now() + Duration::from_secs(30) };
        assert!(process.sink.flush(Instant::now(), why).await.is_err());
        let before = value(&process.page());
        drop(process);
        let after = value(&place.owner(&p0, settings()).await.page());
        let fell = after < before;
        assert_eq!(fell, protection.is_some(), "{protection:?}: {before} then {after}");
    }
}

/// Negative control: numbered by their marks, the checkpoints of a zombie and of the owner are both let in, and both go
/// on to show the partition.
#[tokio::test]
async fn named_by_its_mark_a_zombies_checkpoint_is_let_in() {
    for protection in [None, Some(Protection::Number)] {
        let (place, stream) = (Place::new(), topic());
        let p0 = partition(&stream, 0);
        let mut zombie = place.owner(&p0, settings()).await;
        let mut owner = place.owner(&p0, settings()).await;
        if let Some(protection) = protection {
            zombie.sink.rig().take_out(protection);
            owner.sink.rig().take_out(protection);
        }
        take(&mut zombie.sink, batch(&p0, 0, &events(0, 15))).await;
        take(&mut owner.sink, batch(&p0, 0, &events(0, 16))).await;
        settle(&mut owner.sink).await;
        let woken = settle(&mut zombie.sink).await;
        let both = mark(&zombie.page()) > 0 && mark(&owner.page()) > 0;
        assert_eq!(both, protection.is_some(), "{protection:?}");
        assert_eq!(woken.moved.is_empty(), protection.is_some(), "{protection:?}");
    }
}

/// A zombie that slept until the number it wants was removed looks before it puts.
#[tokio::test]
async fn a_number_that_was_removed_is_not_free() {
    let (place, stream) = (Place::new(), topic());
    let p0 = partition(&stream, 0);
    let mut zombie = place.owner(&p0, settings()).await;
    let mut owner = place.owner(&p0, settings()).await;
    take(&mut zombie.sink, batch(&p0, 0, &events(0, 3))).await;
    for round in 0..4 {
        take(&mut owner.sink, batch(&p0, round * 5, &events(round * 5, round * 5 + 5))).await;
        settle(&mut owner.sink).await;
    }
    let all = place.checkpoints(&p0);
    all[..3].iter().for_each(|old| std::fs::remove_file(old).unwrap());
    zombie.sink.rig().sleep(std::time::Duration::from_mins(16));
    assert_eq!(settle(&mut zombie.sink).await.moved, std::slice::from_ref(&p0));
    assert_eq!(place.checkpoints(&p0), all[3..]);
}

/// What a release wrote that knows version 1 alone goes on, and the next checkpoint is one that it refuses.
#[tokio::test]
async fn series_of_a_release_before_go_on() {
    let (place, stream) = (Place::new(), topic());
    let p0 = partition(&stream, 0);
    let mut before = place.owner(&p0, settings()).await;
    take(&mut before.sink, batch(&p0, 0, &events(0, 10))).await;
    settle(&mut before.sink).await;
    drop(before);
    let first = place.checkpoints(&p0).remove(0);
    let text = text_of(&first).replacen("\"v\":2", "\"v\":1", 1);
    let mut file = GzEncoder::new(File::create(&first).unwrap(), Compression::fast());
    file.write_all(text.as_bytes()).unwrap();
    file.finish().unwrap();

    let mut process = place.owner(&p0, settings()).await;
    assert!(text_of(&first).starts_with("{\"v\":1,"));
    assert_eq!(mark(&process.page()), 10);
    take(&mut process.sink, batch(&p0, 10, &events(10, 20))).await;
    settle(&mut process.sink).await;
    let sum: f64 = (0..20).map(increment).sum();
    assert_eq!((mark(&process.page()), value(&process.page()).to_bits()), (20, sum.to_bits()));
    assert!(text_of(&place.checkpoints(&p0)[1]).starts_with("{\"v\":2,"));
}

/// A partition that is given away isn't shown any more, and its next owner shows it from its assignment on.
#[tokio::test]
async fn only_the_owner_shows_a_partition() {
    let (place, stream) = (Place::new(), topic());
    let p0 = partition(&stream, 0);
    let mut one = place.owner(&p0, settings()).await;
    take(&mut one.sink, batch(&p0, 0, &events(0, 10))).await;
    settle(&mut one.sink).await;
    let shown = one.page().get(SERIES);
    one.sink.revoke(std::slice::from_ref(&p0));
    assert_eq!(one.page().text, "");
    assert!(shown.is_some());
    assert_eq!(place.owner(&p0, settings()).await.page().get(SERIES), shown);
    let other: Partition = partition(&stream, 1);
    assert_eq!(place.owner(&other, settings()).await.page().get(SERIES), None);
}

/// Of a topic that is gone it is asked what was stored, while the one that has the name now is shown in its place.
#[tokio::test]
async fn asked_for_a_topic_that_is_gone_it_goes_on_showing_the_one_of_that_name() {
    let (place, old, new) = (Place::new(), topic(), topic());
    let [gone, p0] = [&old, &new].map(|stream| partition(stream, 0));
    let mut process = place.owner(&gone, settings()).await;
    take(&mut process.sink, batch(&gone, 0, &events(0, 10))).await;
    settle(&mut process.sink).await;
    process.sink.revoke(std::slice::from_ref(&gone));
    process.sink.assign(std::slice::from_ref(&p0)).await.unwrap();
    take(&mut process.sink, batch(&p0, 0, &events(0, 3))).await;
    settle(&mut process.sink).await;
    let unseen = partition(&topic(), 0);
    let marks = process.sink.marks_of(&[gone.clone(), unseen]).await.unwrap();
    let marks: Vec<_> = marks.iter().map(|(one, mark)| (one, mark.offset)).collect();
    assert_eq!(marks, [(&gone, Offset(10))]);
    assert_eq!(mark(&process.page()), 3);
    take(&mut process.sink, batch(&p0, 3, &events(3, 5))).await;
    settle(&mut process.sink).await;
    assert_eq!(mark(&process.page()), 5);
}

/// A partition that starts over is looked up again, and stays on the page meanwhile: its series have neither ended nor
/// fallen.
#[tokio::test]
async fn a_partition_is_shown_while_it_is_assigned_anew() {
    let (place, stream) = (Place::new(), topic());
    let p0 = partition(&stream, 0);
    let Process { mut sink, board } = place.owner(&p0, settings()).await;
    take(&mut sink, batch(&p0, 0, &events(0, 10))).await;
    settle(&mut sink).await;
    let (partitions, mut looks) = ([p0], 0);
    let mut assigning = sink.assign(&partitions);
    let assigned = loop {
        if let Poll::Ready(assigned) = futures::poll!(&mut assigning) {
            break assigned;
        }
        let page = board.page(Timestamp(EPOCH_S * 1_000_000), Duration::from_mins(5));
        assert!(page.contains(SERIES), "{page}");
        looks += 1;
        tokio::task::yield_now().await;
    };
    assert_eq!(assigned.unwrap().len(), 1);
    assert!(looks > 0, "nobody looked meanwhile");
}

/// A log that was cut at offset 6: what was counted stays counted, and what the log has there now is counted too.
#[tokio::test]
async fn taken_back_to_a_cut_no_series_falls_and_the_new_records_count() {
    let (place, stream) = (Place::new(), topic());
    let p0 = partition(&stream, 0);
    let series = place.series().await;
    assert_eq!(series.mark(&p0).await.unwrap(), None);
    assert!(!series.rewind(&p0, Offset(6)).await.unwrap(), "there is nothing to take back");

    let mut stopped = place.owner(&p0, settings()).await;
    take(&mut stopped.sink, batch(&p0, 0, &events(0, 10))).await;
    settle(&mut stopped.sink).await;
    let counted = value(&stopped.page());
    assert_eq!(series.mark(&p0).await.unwrap(), Some(Mark { offset: Offset(10), epoch: 1 }));
    assert!(series.rewind(&p0, Offset(6)).await.unwrap());
    assert!(!series.rewind(&p0, Offset(6)).await.unwrap(), "a second run changes nothing");
    assert_eq!(place.checkpoints(&p0).len(), 2);

    // The owner looks again, as it does once it was decided; another would see the same.
    let marks = stopped.sink.assign(std::slice::from_ref(&p0)).await.unwrap();
    assert_eq!(marks.get(&p0).copied(), Some(Mark::at(Offset(6))));
    assert_eq!((value(&stopped.page()), mark(&stopped.page())), (counted, 6));
    take(&mut stopped.sink, batch(&p0, 6, &events(6, 8))).await;
    settle(&mut stopped.sink).await;
    let now = value(&stopped.page());
    assert_eq!(now.to_bits(), (counted + increment(6) + increment(7)).to_bits());
}

/// Who didn't look is refused, as any zombie.
#[tokio::test]
async fn who_goes_on_from_what_was_taken_back_is_refused() {
    let (place, stream) = (Place::new(), topic());
    let p0 = partition(&stream, 0);
    let mut zombie = place.owner(&p0, settings()).await;
    take(&mut zombie.sink, batch(&p0, 0, &events(0, 10))).await;
    settle(&mut zombie.sink).await;
    assert!(place.series().await.rewind(&p0, Offset(6)).await.unwrap());
    take(&mut zombie.sink, batch(&p0, 10, &events(10, 20))).await;
    let woken = settle(&mut zombie.sink).await;
    assert_eq!(woken.moved.len(), 1);
    assert_eq!(place.series().await.mark(&p0).await.unwrap(), Some(Mark::at(Offset(6))));
}
