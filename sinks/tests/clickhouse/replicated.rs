//! A replicated table at several addresses, of which each is a relay before the one engine: who is asked what, and when.

use std::sync::{Arc, atomic::Ordering::SeqCst};

use aion_sinks::{
    clickhouse::{ClickHouse, Server, guarantee::Guarantee, testing::Protection},
    conformance::{Log, marks, settle, take},
    sink::{Sink, SinkError},
};
use serde_json::json;

use crate::{
    relay::Relay,
    shared::{Place, once, range, server, settings, settle_slowly, spec},
};

/// The place's database by these addresses alone.
fn by(place: &Place, relays: &[&Arc<Relay>]) -> ClickHouse {
    let urls = relays.iter().map(|relay| relay.address.parse().unwrap()).collect();
    let guarantee = Guarantee::AtLeastOnce;
    ClickHouse::new(Server { urls, guarantee, ..server(&place.engine, &place.database) }).unwrap()
}

async fn pair(place: &Place) -> (Arc<Relay>, Arc<Relay>) {
    (Relay::start(&place.engine, "r1").await, Relay::start(&place.engine, "r2").await)
}

#[tokio::test]
async fn an_insert_whose_answer_is_lost_is_looked_for_at_the_next_address() {
    let (place, log) = (Place::new().await, Log::new());
    let p0 = log.partition(0);
    let (one, two) = pair(&place).await;
    let mut sink = by(&place, &[&one, &two]).sink(spec(), settings());
    sink.assign(std::slice::from_ref(&p0)).await.unwrap();
    let sent = || [one.inserts("orders").len(), two.inserts("orders").len()];
    for (first, kind, expected) in
        [(0, "drop_after", [1, 0]), (10, "drop_before", [2, 1]), (20, "none", [3, 1])]
    {
        take(&mut sink, log.batch(0, first, first + 10)).await;
        if kind != "none" {
            let insert = format!("INSERT INTO {}", place.table());
            place.engine.fault(&insert, json!({ "kind": kind })).await;
            let failed = once(&mut sink).await.unwrap_err();
            assert!(matches!(failed, SinkError::Retry { .. }), "{kind}: {failed:?}");
        }
        assert_eq!(settle(&mut sink).await.marks, marks([(&p0, first + 10)]), "{kind}");
        assert_eq!(sent(), expected, "found at the other address, or sent there: {kind}");
    }
    assert_eq!(place.offsets(&p0).await, range(0, 30));
    assert_eq!(place.batches().await, [(0, 9), (10, 19), (20, 29)], "each once");
}

/// A replicated table takes no mutation that asks itself which rows go.
#[tokio::test]
async fn copies_in_a_replicated_table_are_left_to_a_person() {
    let (place, log) = (Place::new().await, Log::new());
    let p0 = log.partition(0);
    let mut writer = place.owner(&p0).await;
    take(&mut writer, log.batch(0, 0, 10)).await;
    settle(&mut writer).await;
    place.store_again(0).await;
    let (one, two) = pair(&place).await;
    let house = by(&place, &[&one, &two]);
    let doubles = house.doubles(spec()).await.unwrap();
    assert_eq!(doubles.len(), 1);
    let hold = place.hold().await;
    let refused = house.delete_copies(spec(), &doubles[0], &hold).await.unwrap_err().to_string();
    assert!(refused.contains("replicated") && refused.contains(&doubles[0].delete), "{refused}");
    assert_eq!(place.house.doubles(spec()).await.unwrap(), doubles, "nothing is deleted");
}

/// Who was silent at the start is looked at before it is asked: it may have come up as another server.
#[tokio::test]
async fn an_address_that_was_silent_is_asked_once_it_has_the_same_table() {
    let (place, log) = (Place::new().await, Log::new());
    let p0 = log.partition(0);
    let (one, two) = pair(&place).await;
    two.is_down.store(true, SeqCst);
    let mut sink = by(&place, &[&one, &two]).sink(spec(), settings());
    sink.assign(std::slice::from_ref(&p0)).await.unwrap();
    two.is_plain.store(true, SeqCst);
    two.is_down.store(false, SeqCst);
    one.is_down.store(true, SeqCst);
    take(&mut sink, log.batch(0, 0, 10)).await;
    for _ in 0..3 {
        let failed = once(&mut sink).await.unwrap_err();
        assert!(matches!(failed, SinkError::Retry { .. }), "{failed:?}");
    }
    let sent = || [two.inserts("orders"), two.inserts("marks")].concat();
    assert!(sent().is_empty(), "{:?}", sent());
    two.is_plain.store(false, SeqCst);
    assert_eq!(settle_slowly(&mut sink).await.marks, marks([(&p0, 10)]));
    assert_eq!(two.inserts("orders").len(), 1);
    assert_eq!(place.offsets(&p0).await, range(0, 10));
}

/// A lease from one server is held against the clock of another.
#[tokio::test]
async fn the_clock_at_each_address_is_looked_at() {
    let place = Place::new().await;
    let (one, two) = pair(&place).await;
    let house = by(&place, &[&one, &two]);
    let clocks = || async {
        let clocks = house.fit(spec(), settings()).await.unwrap().clocks;
        clocks.into_iter().map(|clock| (clock.address, clock.ahead_s)).collect::<Vec<_>>()
    };
    let address = |relay: &Arc<Relay>| format!("{}/", relay.address);
    assert_eq!(clocks().await, [(address(&one), 0), (address(&two), 0)]);
    two.ahead_s.store(-60, SeqCst);
    let found = clocks().await;
    assert_eq!(found[0], (address(&one), 0));
    // Its answer may take some time, in which it falls behind by less.
    assert!(found[1].0 == address(&two) && (-60..=-50).contains(&found[1].1), "{found:?}");
    two.is_down.store(true, SeqCst);
    assert_eq!(clocks().await, [(address(&one), 0)], "who is silent is told of otherwise");
}

/// Four partitions are written at once, two of them by another writer, as that of retries is.
async fn crowd(off: Option<Protection>) -> Arc<Relay> {
    let (place, log) = (Place::new().await, Log::new());
    let relay = Relay::start(&place.engine, "r1").await;
    let house = by(&place, &[&relay]);
    let mut sinks = [house.sink(spec(), settings()), house.sink(spec(), settings())];
    for sink in &sinks {
        if let Some(protection) = off {
            sink.rig().turn_off(protection);
        }
    }
    let numbers = [[0, 1], [2, 3]];
    for (sink, numbers) in sinks.iter_mut().zip(numbers) {
        sink.assign(&numbers.map(|number| log.partition(number))).await.unwrap();
    }
    relay.pause_ms.store(100, SeqCst);
    // Notes come with the first batches only, so the second go all at once.
    for first in [0, 10] {
        for (sink, numbers) in sinks.iter_mut().zip(numbers) {
            for number in numbers {
                take(sink, log.batch(number, first, first + 10)).await;
            }
        }
        let [one, two] = &mut sinks;
        let (one, two) = tokio::join!(once(one), once(two));
        assert_eq!(one.unwrap().marks.len() + two.unwrap().marks.len(), 4);
    }
    assert_eq!(relay.inserts("orders").len(), 8);
    assert_eq!(relay.inserts("marks").len(), 8, "opened and reached");
    relay
}

/// A quorum that waits for one INSERT is refused another, of rows as of notes, which are those of all tables.
#[tokio::test]
async fn into_a_replicated_table_one_insert_is_sent_at_a_time() {
    let relay = crowd(None).await;
    assert_eq!(relay.most_at_once("orders"), 1);
    assert_eq!(relay.most_at_once("marks"), 1);
}

/// Negative control.
#[tokio::test]
async fn without_turns_inserts_meet() {
    assert!(crowd(Some(Protection::Turn)).await.most_at_once("orders") > 1);
}

/// Who waited long for its turn has a lease from before: it looks again when its turn has come.
#[tokio::test]
async fn who_waits_for_its_turn_sends_no_lease_that_is_over() {
    let (place, log) = (Place::new().await, Log::new());
    let relay = Relay::start(&place.engine, "r1").await;
    let mut sink = by(&place, &[&relay]).sink(spec(), settings());
    let partitions: Vec<_> = (0..9).map(|number| log.partition(number)).collect();
    sink.assign(&partitions).await.unwrap();
    // Nine of half a second are longer than a lease, which is four.
    for (first, pause_ms) in [(0, 0), (10, 500)] {
        for partition in &partitions {
            take(&mut sink, log.batch(partition.number, first, first + 10)).await;
        }
        relay.pause_ms.store(pause_ms, SeqCst);
        assert_eq!(settle(&mut sink).await.marks.len(), 9);
    }
    assert_eq!(relay.inserts("orders").len(), 18, "none was refused for its lease");
}

/// A note that doesn't show yet is sent again as it was: Keeper takes token and part in one step.
#[tokio::test]
async fn of_a_replicated_table_the_first_note_keeps_its_token() {
    let (place, log) = (Place::new().await, Log::new());
    let p0 = log.partition(0);
    let relay = Relay::start(&place.engine, "r1").await;
    let mut sink = by(&place, &[&relay]).sink(spec(), settings());
    sink.assign(std::slice::from_ref(&p0)).await.unwrap();
    relay.loses_notes.store(1, SeqCst);
    take(&mut sink, log.batch(0, 0, 10)).await;
    assert_eq!(settle(&mut sink).await.marks, marks([(&p0, 10)]));
    let notes = relay.inserts("marks");
    let opened: Vec<&String> = notes.iter().filter(|sql| sql.contains("'open/")).collect();
    assert_eq!(opened.len(), 2, "{notes:?}");
    assert_eq!(opened[0], opened[1]);
}
