//! Two repairs at a time: at once, and at whichever point the second comes in.

use std::time::Duration;

use aion_schemas::log::Offset;
use aion_sinks::{
    clickhouse::{Break, Claim, Double, Holder, guarantee::Guarantee},
    conformance::{Log, settle, take},
};
use futures::future::join_all;
use serde_json::json;

use crate::shared::{Place, range, spec};

/// Long enough for a busy machine to renew it in.
const HELD_FOR: Duration = Duration::from_secs(6);
const LONG: Duration = Duration::from_mins(1);

async fn claim(place: &Place, who: &str, held_for: Duration) -> Claim {
    place.house.hold_repairs(who, held_for).await.unwrap()
}

async fn held_by(place: &Place) -> Option<Holder> {
    match claim(place, "next", LONG).await {
        Claim::Held(by) => Some(by),
        Claim::Taken(hold) => {
            hold.release().await;
            None
        }
    }
}

/// A table of ten rows, each of them twice.
async fn copies(place: &Place, log: &Log) -> Double {
    let mut writer = place.owner(&log.partition(0)).await;
    take(&mut writer, log.batch(0, 0, 10)).await;
    settle(&mut writer).await;
    let table = place.table();
    let again = format!(
        "INSERT INTO {table} SELECT * REPLACE (toDateTime('2100-01-01 00:00:00') AS _lease) FROM {table} \
         SETTINGS insert_deduplicate = 0"
    );
    place.engine.run(&again).await;
    let mut doubles = place.house.doubles(spec()).await.unwrap();
    assert_eq!(doubles.len(), 1);
    doubles.remove(0)
}

#[tokio::test]
async fn of_repairs_that_begin_at_once_one_goes_on_and_the_others_know_whose_it_is() {
    let place = Place::new().await;
    for round in 0..3 {
        let names: Vec<String> = (0..6).map(|n| format!("number {n}, round {round}")).collect();
        let at = &place;
        let claims = names.iter().map(|who| async move { (who, claim(at, who, LONG).await) });
        let (mut taken, mut told) = (Vec::new(), Vec::new());
        for (who, claim) in join_all(claims).await {
            match claim {
                Claim::Taken(hold) => taken.push((who, hold)),
                Claim::Held(by) => told.push(by),
            }
        }
        assert_eq!((taken.len(), told.len()), (1, 5), "{told:?}");
        let (who, hold) = taken.remove(0);
        for by in told {
            assert_eq!(&by.who, who);
            assert!(by.since < by.until, "{by:?}");
        }
        hold.release().await;
    }
    assert_eq!(held_by(&place).await, None);
}

#[tokio::test]
async fn a_hold_is_kept_while_the_work_goes_on_and_over_when_it_ends() {
    let place = Place::new().await;
    let Claim::Taken(hold) = claim(&place, "first", HELD_FOR).await else {
        panic!("nobody has it")
    };
    let first = held_by(&place).await.unwrap();
    let work = async {
        tokio::time::sleep(HELD_FOR + HELD_FOR / 3).await;
        held_by(&place).await.unwrap()
    };
    let later = hold.keep(work).await;
    assert_eq!((&*later.who, later.since), ("first", first.since));
    assert!(later.until > first.until, "{first:?}, {later:?}");
    hold.release().await;
    assert_eq!(held_by(&place).await, None, "not when it would be over by itself");
}

/// As one that sleeps between its last look and its statement; another one may have begun meanwhile.
#[tokio::test]
async fn who_holds_no_more_deletes_no_copies() {
    let (place, log) = (Place::new().await, Log::new());
    let double = copies(&place, &log).await;
    let short = Duration::from_secs(3);
    let Claim::Taken(sleeper) = claim(&place, "sleeper", short).await else {
        panic!("nobody has it")
    };
    tokio::time::sleep(short).await;
    let Claim::Taken(next) = claim(&place, "next", LONG).await else { panic!("it is over") };
    let late = place.house.delete_copies(spec(), &double, &sleeper).await.unwrap_err();
    assert!(late.to_string().contains("another repair may have begun"), "{late}");
    let p0 = log.partition(0);
    assert_eq!(place.offsets(&p0).await.len(), 20, "nothing was deleted");
    // Nor does it come back by renewing what is over.
    let renewed = sleeper.keep(async {
        tokio::time::sleep(short).await;
        place.house.delete_copies(spec(), &double, &sleeper).await
    });
    assert!(renewed.await.is_err());
    assert_eq!(held_by(&place).await.unwrap().who, "next");
    place.house.delete_copies(spec(), &double, &next).await.unwrap();
    assert_eq!(place.offsets(&p0).await, range(0, 10));
}

/// A server that was killed may know a token and have no row.
#[tokio::test]
async fn a_claim_whose_token_stands_without_its_row_locks_nobody_out() {
    let place = Place::new().await;
    assert!(matches!(claim(&place, "lost", LONG).await, Claim::Taken(_)));
    let rows = format!("DELETE FROM {}.marks WHERE kind = 'repairing'", place.database);
    place.engine.run(&rows).await;
    let Claim::Taken(next) = claim(&place, "next", LONG).await else { panic!("there is no row") };
    assert_eq!(held_by(&place).await.unwrap().who, "next");
    next.release().await;
}

/// Offsets of a partition that has no rows.
fn missing(log: &Log) -> Break {
    let partition = log.partition(0);
    Break {
        topic_id: partition.stream.id,
        partition: partition.number,
        range: Offset(0)..Offset(10),
    }
}

/// What is done may have what a renewal waits for: the turn of an INSERT.
#[tokio::test]
async fn a_hold_is_renewed_beside_a_note_that_takes_long() {
    let (place, log) = (Place::new().await, Log::new());
    let house = place.house.asking(Guarantee::AtLeastOnce);
    let Claim::Taken(hold) = house.hold_repairs("one", HELD_FOR).await.unwrap() else {
        panic!("nobody else holds");
    };
    let slow = json!({ "kind": "sleep_before", "seconds": 4 });
    place.engine.fault("INSERT INTO .*'repair/", slow).await;
    let one = missing(&log);
    let asked = hold.keep(house.request_repair(spec(), &one));
    tokio::time::timeout(LONG, asked).await.unwrap().unwrap();
    assert!(held_by(&place).await.is_some(), "it was held all the while");
    hold.release().await;
}

/// Newer servers pass over `insert_deduplicate = 0`, and would drop what says the same.
#[tokio::test]
async fn what_is_noted_again_is_taken_again() {
    let (place, log) = (Place::new().await, Log::new());
    let marks = format!("{}.marks", place.house.database());
    place.engine.run(&format!("SYSTEM STOP MERGES {marks}")).await;
    for _ in 0..2 {
        place.house.request_repair(spec(), &missing(&log)).await.unwrap();
    }
    let noted = format!("SELECT count() FROM {marks} WHERE kind LIKE 'repair%'");
    assert_eq!(place.engine.run(&noted).await.trim(), "2");
    let known = "SELECT count() FROM system.settings WHERE name = 'deduplicate_insert'";
    assert_eq!(place.engine.run(known).await.trim(), "1", "what accounts are asked for");
}
