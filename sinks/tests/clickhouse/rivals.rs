//! Each row of "a rival / keeps out by / then", with the protection and without.

use std::{sync::Arc, time::Duration};

use aion_schemas::log::Offset;
use aion_sinks::{
    clickhouse::{Settings, testing::Protection},
    conformance::{Log, marks, settle, take},
    sink::{Sink, SinkError},
};

use futures::{FutureExt, future::BoxFuture};
use tokio::sync::Notify;

use crate::shared::{Place, once, range, settings, settle_slowly, sleeps, spec};

/// Where a writer falls asleep: says that it does, and sleeps until it is woken.
pub(crate) fn nap() -> (impl FnOnce() -> BoxFuture<'static, ()> + Send, Arc<Notify>, Arc<Notify>) {
    let (asleep, wake) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (said, heard) = (Arc::clone(&asleep), Arc::clone(&wake));
    let nap = || {
        async move {
            said.notify_one();
            heard.notified().await;
        }
        .boxed()
    };
    (nap, asleep, wake)
}

/// A sleeper inserts from where its successor has inserted already.
async fn sleeper_and_owner(off: &[Protection]) -> (Place, Log) {
    let (place, log) = (Place::new().await, Log::new());
    let p0 = log.partition(0);
    let mut first = place.owner(&p0).await;
    take(&mut first, log.batch(0, 0, 5)).await;
    settle(&mut first).await;
    let mut sleeper = place.owner(&p0).await;
    for protection in off {
        sleeper.rig().turn_off(*protection);
    }
    take(&mut sleeper, log.batch(0, 5, 15)).await;
    let mut owner = place.owner(&p0).await;
    take(&mut owner, log.batch(0, 5, 9)).await;
    settle(&mut owner).await;
    let woken = once(&mut sleeper).await;
    if off.is_empty() {
        let woken = woken.unwrap();
        assert_eq!((woken.marks, woken.moved), (marks([]), vec![p0.clone()]));
        assert_eq!(place.offsets(&p0).await, range(0, 9));
    }
    (place, log)
}

#[tokio::test]
async fn of_two_that_insert_from_one_offset_one_lands() {
    sleeper_and_owner(&[]).await;
}

/// Negative control: without the token both land.
#[tokio::test]
async fn without_the_token_both_land() {
    let (place, log) = sleeper_and_owner(&[Protection::Token]).await;
    let p0 = log.partition(0);
    let doubled: Vec<i64> = (0..5).chain((5..9).flat_map(|n| [n, n])).chain(9..15).collect();
    assert_eq!(place.offsets(&p0).await, doubled);
    let seen = place.open().assign(std::slice::from_ref(&p0)).await.unwrap_err();
    assert!(seen.to_string().contains("offsets 5..9 are there more than once"), "{seen}");
}

/// Whatever brought it there, such as a dump that was loaded again.
#[tokio::test]
async fn the_same_batch_twice_is_seen_until_one_of_them_is_erased() {
    let (place, log) = (Place::new().await, Log::new());
    let p0 = log.partition(0);
    let mut writer = place.owner(&p0).await;
    for first in [0, 10, 20] {
        take(&mut writer, log.batch(0, first, first + 10)).await;
        settle(&mut writer).await;
    }
    place.store_again(10).await;
    let seen = place.open().assign(std::slice::from_ref(&p0)).await.unwrap_err();
    assert!(matches!(seen, SinkError::Fatal { .. }), "{seen:?}");
    assert!(seen.to_string().contains("offsets 10..20 are there more than once"), "{seen}");
    assert!(seen.to_string().contains("aion clickhouse repair"), "{seen}");
    let table = place.table();
    let one = format!("DELETE FROM {table} WHERE _batch_first = 10 AND _lease > now() + 60");
    place.engine.run(&one).await;
    assert_eq!(place.found(&p0).await, marks([(&p0, 30)]));
    assert_eq!(place.house.doubles(spec()).await.unwrap(), []);
}

/// Also of copies that nothing tells apart, and that a merge has put into one part; once some of their rows are erased.
#[tokio::test]
async fn copies_of_a_batch_are_deleted_and_each_offset_stays_once() {
    let (place, log) = (Place::new().await, Log::new());
    let p0 = log.partition(0);
    let mut writer = place.owner(&p0).await;
    for first in [0, 10, 20] {
        take(&mut writer, log.batch(0, first, first + 10)).await;
        settle(&mut writer).await;
    }
    let hold = place.hold().await;
    for is_merged in [true, false] {
        for _ in 0..2 {
            place.store_again(10).await;
        }
        if is_merged {
            place.engine.run(&format!("OPTIMIZE TABLE {} FINAL", place.table())).await;
        }
        let doubles = place.house.doubles(spec()).await.unwrap();
        let told: Vec<_> = doubles.iter().map(|one| (one.range.clone(), one.is_copy)).collect();
        assert_eq!(told, [(Offset(10)..Offset(20), true)]);
        assert!(place.house.breaks(spec()).await.is_err(), "not before copies are gone");
        place.house.delete_copies(spec(), &doubles[0], &hold).await.unwrap();
        assert_eq!(place.house.doubles(spec()).await.unwrap(), []);
        assert_eq!(place.offsets(&p0).await, range(0, 30));
        assert_eq!(place.house.breaks(spec()).await.unwrap(), []);
    }
    assert_eq!(place.found(&p0).await, marks([(&p0, 30)]));
}

/// Of two mutations at a time each may name the row that the other leaves.
#[tokio::test]
async fn copies_are_not_deleted_while_another_mutation_is_under_way() {
    let (place, log) = (Place::new().await, Log::new());
    let p0 = log.partition(0);
    let mut writer = place.owner(&p0).await;
    take(&mut writer, log.batch(0, 0, 10)).await;
    settle(&mut writer).await;
    let table = place.table();
    place.engine.run(&format!("SYSTEM STOP MERGES {table}")).await;
    place.store_again(0).await;
    let hold = place.hold().await;
    let other = format!("ALTER TABLE {table} DELETE WHERE _offset < 0 SETTINGS mutations_sync");
    place.engine.run(&format!("{other} = 0")).await;
    let doubles = place.house.doubles(spec()).await.unwrap();
    assert_eq!(doubles.len(), 1);
    let refused = place.house.delete_copies(spec(), &doubles[0], &hold).await.unwrap_err();
    assert!(refused.to_string().contains("FROM system.mutations"), "{refused}");
    place.engine.run(&format!("SYSTEM START MERGES {table}")).await;
    // One that is waited for is over when those before it are.
    place.engine.run(&format!("{other} = 2")).await;
    place.house.delete_copies(spec(), &doubles[0], &hold).await.unwrap();
    assert_eq!(place.offsets(&p0).await, range(0, 10));
}

/// Which of them is right nobody but a person can say; what was deleted is filled as any break is.
#[tokio::test]
async fn of_batches_that_overlap_one_is_deleted_by_hand_and_filled_again() {
    let (place, log) = sleeper_and_owner(&[Protection::Token]).await;
    let p0 = log.partition(0);
    let doubles = place.house.doubles(spec()).await.unwrap();
    let told: Vec<_> = doubles.iter().map(|one| (one.range.clone(), one.is_copy)).collect();
    assert_eq!(told, [(Offset(5)..Offset(15), false)]);
    let hold = place.hold().await;
    let untouched = place.house.delete_copies(spec(), &doubles[0], &hold).await;
    assert!(untouched.is_ok() && place.house.doubles(spec()).await.unwrap() == doubles);
    place.engine.run(&doubles[0].delete).await;
    assert_eq!(place.house.doubles(spec()).await.unwrap(), []);
    assert_eq!(place.offsets(&p0).await, range(0, 9));
    let mut owner = place.owner(&p0).await;
    take(&mut owner, log.batch(0, 9, 15)).await;
    settle(&mut owner).await;
    assert_eq!(place.offsets(&p0).await, range(0, 15));
}

/// Negative control: who believes the acknowledgement takes rows for stored that aren't.
#[tokio::test]
async fn without_the_look_rows_are_lost() {
    let (place, log) = (Place::new().await, Log::new());
    let p0 = log.partition(0);
    let mut sleeper = place.owner(&p0).await;
    sleeper.rig().turn_off(Protection::Verify);
    take(&mut sleeper, log.batch(0, 0, 10)).await;
    let mut owner = place.owner(&p0).await;
    take(&mut owner, log.batch(0, 0, 4)).await;
    settle(&mut owner).await;
    assert_eq!(settle(&mut sleeper).await.marks, marks([(&p0, 10)]), "it claims");
    assert_eq!(place.offsets(&p0).await, range(0, 4), "what isn't there");
}

/// A writer is frozen with stamped rows in its hands, and wakes when the table has forgotten their token.
async fn frozen_writer(off: Option<Protection>) -> (Place, Log, Vec<i64>) {
    let (place, log) = (Place::new().await, Log::new());
    let p0 = log.partition(0);
    let mut first = place.owner(&p0).await;
    take(&mut first, log.batch(0, 0, 5)).await;
    settle(&mut first).await;
    let mut frozen = place.owner(&p0).await;
    if let Some(protection) = off {
        frozen.rig().turn_off(protection);
    }
    take(&mut frozen, log.batch(0, 5, 15)).await;
    let mut owner = place.owner(&p0).await;
    let (nap, asleep, wake) = nap();
    frozen.rig().before_insert(Box::new(nap));
    let owner_goes_on = async {
        asleep.notified().await;
        take(&mut owner, log.batch(0, 5, 9)).await;
        settle(&mut owner).await;
        // The window passes: the table remembers one token, and it isn't that of offset 5 any more.
        let shrink = "MODIFY SETTING non_replicated_deduplication_window = 1";
        place.engine.run(&format!("ALTER TABLE {} {shrink}", place.table())).await;
        take(&mut owner, log.batch(0, 9, 12)).await;
        settle(&mut owner).await;
        take(&mut owner, log.batch(0, 12, 13)).await;
        settle(&mut owner).await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        wake.notify_one();
    };
    let (woken, ()) = tokio::join!(once(&mut frozen), owner_goes_on);
    if off.is_none() {
        let woken = woken.unwrap();
        assert_eq!((woken.marks, woken.moved), (marks([]), vec![p0.clone()]));
    }
    let offsets = place.offsets(&p0).await;
    (place, log, offsets)
}

#[tokio::test]
async fn the_lease_keeps_a_sleeper_out_whose_token_is_forgotten() {
    let (_place, _, offsets) = frozen_writer(None).await;
    assert_eq!(offsets, range(0, 13));
}

/// Negative control: without the lease the sleeper doubles what others have stored meanwhile.
#[tokio::test]
async fn without_the_lease_a_sleeper_doubles() {
    let (_place, _, offsets) = frozen_writer(Some(Protection::Lease)).await;
    assert!(offsets.len() > 13, "{offsets:?}");
}

/// A writer is frozen between its batch's acknowledgement and the look for it. It wakes when its lease is over, others
/// have gone on behind that batch, and the table has forgotten their tokens; then it goes on from where it was.
async fn frozen_before_its_look(off: Option<Protection>) -> (bool, Vec<i64>) {
    let (place, log) = (Place::new().await, Log::new());
    let p0 = log.partition(0);
    let mut frozen = place.owner(&p0).await;
    if let Some(protection) = off {
        frozen.rig().turn_off(protection);
    }
    take(&mut frozen, log.batch(0, 0, 5)).await;
    let (nap, asleep, wake) = nap();
    frozen.rig().after_insert(Box::new(nap));
    let owner_goes_on = async {
        asleep.notified().await;
        let mut owner = place.owner(&p0).await;
        take(&mut owner, log.batch(0, 5, 9)).await;
        settle(&mut owner).await;
        let shrink = "MODIFY SETTING non_replicated_deduplication_window = 1";
        place.engine.run(&format!("ALTER TABLE {} {shrink}", place.table())).await;
        for (from, to) in [(9, 12), (12, 13)] {
            take(&mut owner, log.batch(0, from, to)).await;
            settle(&mut owner).await;
        }
        tokio::time::sleep(settings().lease + Duration::from_secs(1)).await;
        wake.notify_one();
    };
    let (first, ()) = tokio::join!(once(&mut frozen), owner_goes_on);
    assert_eq!(first.unwrap().marks, marks([(&p0, 5)]), "its own batch was stored");
    take(&mut frozen, log.batch(0, 5, 15)).await;
    let went_on = once(&mut frozen).await;
    let gave_way = went_on.is_ok_and(|flushed| flushed.moved == vec![p0.clone()]);
    (gave_way, place.offsets(&p0).await)
}

#[tokio::test]
async fn that_its_batch_is_there_gives_a_sleeper_no_new_lease() {
    assert_eq!(frozen_before_its_look(None).await, (true, range(0, 13)));
}

/// Negative control: with a lease from that look it inserts where others have been, unasked.
#[tokio::test]
async fn with_a_lease_from_any_look_a_sleeper_doubles() {
    let (_, offsets) = frozen_before_its_look(Some(Protection::LeaseOfNothing)).await;
    assert!(offsets.len() > 13, "{offsets:?}");
}

/// A writer is frozen with what fills a break in its hands. It wakes when its lease is over, others have gone on behind the
/// chain's end, and the table has forgotten their tokens. It looks into the break, and fills it; then it comes to where the
/// chain ended for it.
async fn frozen_in_a_break(off: Option<Protection>) -> (bool, Vec<i64>) {
    let (place, log) = (Place::new().await, Log::new());
    let p0 = log.partition(0);
    let mut owner = place.owner(&p0).await;
    for (from, to) in [(0, 10), (10, 20), (20, 40)] {
        take(&mut owner, log.batch(0, from, to)).await;
        settle(&mut owner).await;
    }
    let table = place.table();
    place.engine.run(&format!("DELETE FROM {table} WHERE _batch_first = 10")).await;
    // The control's must not run out on a busy machine before it is used behind the break.
    let lease = if off.is_some() { Duration::from_secs(20) } else { settings().lease };
    let mut frozen = place.house.sink(spec(), Settings { lease, ..settings() });
    frozen.assign(std::slice::from_ref(&p0)).await.unwrap();
    if let Some(protection) = off {
        frozen.rig().turn_off(protection);
    }
    take(&mut frozen, log.batch(0, 10, 50)).await;
    let (nap, asleep, wake) = nap();
    frozen.rig().before_insert(Box::new(nap));
    let owner_goes_on = async {
        asleep.notified().await;
        take(&mut owner, log.batch(0, 40, 44)).await;
        settle(&mut owner).await;
        let shrink = "MODIFY SETTING non_replicated_deduplication_window = 1";
        place.engine.run(&format!("ALTER TABLE {table} {shrink}")).await;
        for (from, to) in [(44, 47), (47, 48)] {
            take(&mut owner, log.batch(0, from, to)).await;
            settle(&mut owner).await;
        }
        tokio::time::sleep(lease + Duration::from_secs(1)).await;
        wake.notify_one();
    };
    let (woken, ()) = tokio::join!(sleeps(&mut frozen), owner_goes_on);
    let gave_way = woken.is_ok_and(|flushed| flushed.moved == vec![p0.clone()]);
    (gave_way, place.offsets(&p0).await)
}

#[tokio::test]
async fn a_lease_that_began_within_a_break_ends_with_it() {
    assert_eq!(frozen_in_a_break(None).await, (true, range(0, 48)));
}

/// Negative control: with it the writer goes on where others have been, unasked.
#[tokio::test]
async fn with_a_lease_from_a_break_a_sleeper_doubles_what_is_behind_it() {
    let (_, offsets) = frozen_in_a_break(Some(Protection::LeaseOfBreak)).await;
    let doubled = offsets.windows(2).filter(|two| two[0] == two[1]).count();
    assert_eq!(doubled, 8, "{offsets:?}");
}

/// A token stands without its rows. While an INSERT under it is on its way, another writer finds it acknowledged and
/// nothing in the table; then the table has forgotten the token, and the first INSERT arrives.
async fn a_late_first_insert(off: Option<Protection>) -> Vec<i64> {
    let (place, log) = (Place::new().await, Log::new());
    let p0 = log.partition(0);
    let mut first = place.owner(&p0).await;
    for from in [0, 10] {
        take(&mut first, log.batch(0, from, from + 10)).await;
        settle(&mut first).await;
    }
    let sql = format!("DELETE FROM {} WHERE _batch_first = 10", place.table());
    place.engine.run(&sql).await;
    // The control is about what is on its way for long: it must not run out on a busy machine.
    let lease = if off.is_some() { Duration::from_mins(1) } else { settings().lease };
    let mut late = place.house.sink(spec(), Settings { lease, ..settings() });
    late.assign(std::slice::from_ref(&p0)).await.unwrap();
    let mut second = place.owner(&p0).await;
    if let Some(protection) = off {
        second.rig().turn_off(protection);
    }
    take(&mut late, log.batch(0, 10, 20)).await;
    take(&mut second, log.batch(0, 10, 20)).await;
    let (nap, asleep, wake) = nap();
    late.rig().before_insert(Box::new(nap));
    let second_goes_on = async {
        asleep.notified().await;
        let flushed = once(&mut second).await;
        assert_eq!(flushed.is_ok(), off.is_some(), "{flushed:?}");
        let shrink = "MODIFY SETTING non_replicated_deduplication_window = 1";
        place.engine.run(&format!("ALTER TABLE {} {shrink}", place.table())).await;
        if off.is_some() {
            take(&mut second, log.batch(0, 20, 21)).await;
            settle(&mut second).await;
        }
        wake.notify_one();
    };
    drop(tokio::join!(once(&mut late), second_goes_on));
    if off.is_none() {
        // What it has forgotten stays so. Who looks at the table before another token wants a window as it should be.
        let grow = "MODIFY SETTING non_replicated_deduplication_window = 100000";
        place.engine.run(&format!("ALTER TABLE {} {grow}", place.table())).await;
        settle_slowly(&mut second).await;
    }
    place.offsets(&p0).await
}

#[tokio::test]
async fn a_second_token_waits_for_what_is_on_its_way_under_the_first() {
    assert_eq!(a_late_first_insert(None).await, range(0, 20));
}

/// Negative control: the first INSERT commits behind the second.
#[tokio::test]
async fn without_the_wait_the_first_lands_behind_the_second() {
    let offsets = a_late_first_insert(Some(Protection::SecondToken)).await;
    assert_eq!(offsets.iter().filter(|offset| (10..20).contains(*offset)).count(), 20);
}

/// Two writers that began to read an empty table's log at different offsets.
async fn beginners(off: Option<Protection>) -> (Place, Log) {
    let (place, log) = (Place::new().await, Log::new());
    let p0 = log.partition(0);
    let (mut one, mut two) = (place.owner(&p0).await, place.owner(&p0).await);
    if let Some(protection) = off {
        one.rig().turn_off(protection);
        two.rig().turn_off(protection);
    }
    take(&mut one, log.batch(0, 0, 10)).await;
    take(&mut two, log.batch(0, 4, 16)).await;
    settle(&mut one).await;
    let second = once(&mut two).await;
    if off.is_none() {
        assert_eq!(second.unwrap().moved, vec![p0.clone()]);
        assert_eq!(place.offsets(&p0).await, range(0, 10));
        assert_eq!(place.found(&p0).await, marks([(&p0, 10)]));
    }
    (place, log)
}

#[tokio::test]
async fn where_a_table_begins_is_agreed_on() {
    beginners(None).await;
}

/// Negative control: without the agreement both batches land, and overlap.
#[tokio::test]
async fn without_the_agreement_beginners_overlap() {
    let (place, log) = beginners(Some(Protection::Opening)).await;
    let offsets = place.offsets(&log.partition(0)).await;
    assert_ne!(offsets, range(0, 16), "{offsets:?}");
}

/// One writer has read poison after the chain's end, the other hasn't: where they read from differs.
async fn readers_of_poison(off: Option<Protection>) -> (Place, Log) {
    let (place, log) = (Place::new().await, Log::new());
    let p0 = log.partition(0);
    let mut first = place.owner(&p0).await;
    take(&mut first, log.batch(0, 0, 5)).await;
    settle(&mut first).await;
    let mut slow = place.owner(&p0).await;
    take(&mut slow, log.hollow(0, 5, 8)).await;
    take(&mut slow, log.batch(0, 8, 15)).await;
    let mut quick = place.owner(&p0).await;
    if let Some(protection) = off {
        slow.rig().turn_off(protection);
        quick.rig().turn_off(protection);
    }
    take(&mut quick, log.hollow(0, 5, 8)).await;
    assert_eq!(settle(&mut quick).await.marks, marks([(&p0, 8)]));
    take(&mut quick, log.batch(0, 8, 12)).await;
    settle(&mut quick).await;
    let second = once(&mut slow).await;
    if off.is_none() {
        assert_eq!(second.unwrap().moved, vec![p0.clone()]);
        assert_eq!(place.batches().await, [(0, 4), (5, 11)]);
    }
    (place, log)
}

#[tokio::test]
async fn a_batch_begins_where_the_chain_ends_whatever_was_read() {
    readers_of_poison(None).await;
}

/// Negative control: begun where reading began, the tokens differ and both land.
#[tokio::test]
async fn begun_where_reading_began_batches_overlap() {
    let (place, log) = readers_of_poison(Some(Protection::ChainEnd)).await;
    let offsets = place.offsets(&log.partition(0)).await;
    let rows = (0..5).chain(8..15).count();
    assert!(offsets.len() > rows, "{offsets:?}");
}

/// Two owners send the same rows; the second in one block or in two.
async fn in_blocks(off: Option<Protection>) -> Vec<i64> {
    let (place, log) = (Place::new().await, Log::new());
    let p0 = log.partition(0);
    let (mut one, mut two) = (place.owner(&p0).await, place.owner(&p0).await);
    if let Some(protection) = off {
        two.rig().turn_off(protection);
        two.rig().turn_off(Protection::Verify);
    }
    take(&mut one, log.batch(0, 0, 10)).await;
    take(&mut two, log.batch(0, 0, 10)).await;
    settle(&mut one).await;
    settle(&mut two).await;
    place.offsets(&p0).await
}

#[tokio::test]
async fn one_record_batch_is_one_block_under_one_token() {
    assert_eq!(in_blocks(None).await, range(0, 10));
}

/// Negative control: blocks have tokens of their own, and none of them is that of the whole.
#[tokio::test]
async fn rows_in_two_blocks_double() {
    let doubled: Vec<i64> = (0..10).flat_map(|n| [n, n]).collect();
    assert_eq!(in_blocks(Some(Protection::OneBlock)).await, doubled);
}

/// Rows that are a day later than those before: one writer takes the day of the batch before, its rival may not.
async fn at_midnight(off: Option<Protection>) -> Vec<i64> {
    let (place, log) = (Place::new().await, Log::new().with_step(Duration::from_hours(24)));
    let p0 = log.partition(0);
    let mut first = place.owner(&p0).await;
    take(&mut first, log.batch(0, 0, 1)).await;
    settle(&mut first).await;
    let (mut one, mut two) = (place.owner(&p0).await, place.owner(&p0).await);
    if let Some(protection) = off {
        two.rig().turn_off(protection);
        // It would see the double afterwards; here the table shall tell.
        two.rig().turn_off(Protection::Verify);
    }
    // Their looks are behind them when the other one inserts.
    take(&mut one, log.batch(0, 1, 3)).await;
    take(&mut two, log.batch(0, 1, 3)).await;
    settle_slowly(&mut one).await;
    settle_slowly(&mut two).await;
    place.offsets(&p0).await
}

#[tokio::test]
async fn the_day_of_a_batch_is_that_of_the_batch_before() {
    assert_eq!(at_midnight(None).await, range(0, 3));
}

/// Negative control: under another day the server knows no such token.
#[tokio::test]
async fn by_its_own_day_a_batch_lands_twice() {
    assert_eq!(at_midnight(Some(Protection::Day)).await, [0, 1, 1, 2, 2]);
}

/// A writer whose batch landed beside the same one of its rival's finds that by its look.
#[tokio::test]
async fn a_writer_that_doubles_a_batch_stops() {
    let (place, log) = (Place::new().await, Log::new().with_step(Duration::from_hours(24)));
    let p0 = log.partition(0);
    let mut first = place.owner(&p0).await;
    take(&mut first, log.batch(0, 0, 1)).await;
    settle(&mut first).await;
    let mut one = place.owner(&p0).await;
    // Its lease must not run out on a busy machine: it would look, and give way.
    let lease = Duration::from_mins(1);
    let mut two = place.house.sink(spec(), Settings { lease, ..settings() });
    two.assign(std::slice::from_ref(&p0)).await.unwrap();
    two.rig().turn_off(Protection::Day);
    take(&mut one, log.batch(0, 1, 3)).await;
    take(&mut two, log.batch(0, 1, 3)).await;
    settle_slowly(&mut one).await;
    let seen = once(&mut two).await.unwrap_err();
    assert!(seen.to_string().contains("offsets 1..3 are there more than once"), "{seen}");
}

/// Three owners at once, batches of different sizes, again and again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_owners_of_one_partition_double_nothing() {
    let (place, log) = (Place::new().await, Log::new());
    let p0 = log.partition(0);
    let goal = 400;
    let owner = |size: i64| {
        let (place, log, p0) = (&place, &log, p0.clone());
        async move {
            let mut sink = place.open();
            let mut lost = 0;
            loop {
                let found = sink.assign(std::slice::from_ref(&p0)).await.unwrap();
                let mut next = found.get(&p0).map_or(0, |mark| mark.offset.get());
                while next < goal {
                    take(&mut sink, log.batch(0, next, next + size)).await;
                    next += size;
                    if !settle_slowly(&mut sink).await.moved.is_empty() {
                        lost += 1;
                        break;
                    }
                }
                if next >= goal {
                    return lost;
                }
            }
        }
    };
    let lost = tokio::join!(owner(7), owner(11), owner(13));
    let offsets = place.offsets(&p0).await;
    assert_eq!(offsets, range(0, offsets.len() as i64), "{lost:?}");
    assert!(offsets.len() as i64 >= goal);
    assert!(lost.0 + lost.1 + lost.2 > 0, "they never met");
}
