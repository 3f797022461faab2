#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::{fs, io::Write as _, path::Path};

use aion_schemas::compatibility::Level;

use super::{
    schema::{Reference, Schema},
    store::{Store, Wanted},
};
use crate::Error;

fn schema(text: &str) -> Schema {
    Schema { schema: text.to_owned(), references: Vec::new() }
}

fn open(folder: &Path) -> Store {
    Store::open(folder).unwrap()
}

const INT: &str = r#""int""#;
const LONG: &str = r#""long""#;

#[test]
fn what_was_answered_is_there_after_a_start() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = open(folder.path());
    assert_eq!(store.register("a", schema(INT), false).unwrap(), 1);
    assert_eq!(store.register("a", schema(LONG), false).unwrap(), 2);
    assert_eq!(store.register("b", schema(INT), false).unwrap(), 1);
    store.set_level(Some("b".to_owned()), Some(Level::Full)).unwrap();
    store.set_level(None, Some(Level::None)).unwrap();
    store.delete("a", Some(Wanted::Number(1)), false).unwrap();
    drop(store);
    let store = open(folder.path());
    assert_eq!(store.subjects(false), ["a", "b"]);
    assert_eq!(store.versions("a", false).unwrap(), [2]);
    assert_eq!(store.versions("a", true).unwrap(), [1, 2]);
    assert_eq!(store.level(Some("b")), Some(Level::Full));
    assert_eq!(store.level(None), Some(Level::None));
}

#[test]
fn an_id_is_never_given_twice() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = open(folder.path());
    store.register("a", schema(INT), false).unwrap();
    store.delete("a", None, false).unwrap();
    // Softly deleted, it still reads what was written with it.
    assert!(store.schema(1).is_ok());
    store.delete("a", None, true).unwrap();
    assert!(store.schema(1).is_err());
    drop(store);
    let mut store = open(folder.path());
    assert_eq!(store.register("a", schema(INT), false).unwrap(), 2);
}

#[test]
fn a_torn_tail_is_cut_and_damage_elsewhere_stops_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("registry.log");
    let mut store = open(folder.path());
    store.register("a", schema(INT), false).unwrap();
    drop(store);
    let whole = fs::read(&log).unwrap();
    for torn in [&b"0"[..], b"12345678 {\"Registered\"", b"00000000 {}\n"] {
        fs::write(&log, &whole).unwrap();
        fs::OpenOptions::new().append(true).open(&log).unwrap().write_all(torn).unwrap();
        let mut store = open(folder.path());
        assert_eq!(fs::read(&log).unwrap(), whole);
        assert_eq!(store.register("b", schema(LONG), false).unwrap(), 2);
    }
    // The first change is damaged, and the one behind it whole.
    let mut damaged = whole.clone();
    let at = damaged.iter().position(|byte| *byte == b'\n').unwrap() + 12;
    damaged[at] ^= 1;
    damaged.extend(&whole[whole.iter().position(|byte| *byte == b'\n').unwrap() + 1..]);
    fs::write(&log, &damaged).unwrap();
    let error = Store::open(folder.path()).map(drop).unwrap_err();
    assert!(matches!(error, Error::Corrupt { .. }), "{error}");
    assert_eq!(fs::read(&log).unwrap(), damaged, "it is left as it was");
}

#[test]
fn a_log_that_is_in_use_or_newer_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    assert!(matches!(Store::open(folder.path()).map(drop), Err(Error::Locked { .. })));
    drop(store);
    let newer = crate::lines::encode(&serde_json::json!({ "format": 2 }));
    fs::write(folder.path().join("registry.log"), newer).unwrap();
    let error = Store::open(folder.path()).map(drop).unwrap_err();
    assert!(matches!(error, Error::Newer { found: 2, .. }), "{error}");
}

#[test]
fn the_latest_version_goes_first() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = open(folder.path());
    store.register("a", schema(INT), false).unwrap();
    store.register("a", schema(LONG), false).unwrap();
    assert_eq!(store.delete("a", Some(Wanted::Latest), false).unwrap(), [2]);
    assert_eq!(store.delete("a", Some(Wanted::Latest), false).unwrap(), [1]);
    assert!(store.delete("a", Some(Wanted::Latest), false).is_err());
    assert_eq!(store.delete("a", Some(Wanted::Latest), true).unwrap(), [2]);
}

#[test]
fn what_is_referred_to_stays() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = open(folder.path());
    let colour = r#"{"type":"enum","name":"colour","symbols":["red"]}"#;
    store.register("colour", schema(colour), false).unwrap();
    let reference =
        Reference { name: "colour".to_owned(), subject: "colour".to_owned(), version: 1 };
    let car = r#"{"type":"record","name":"car","fields":[{"name":"c","type":"colour"}]}"#;
    let car = Schema { schema: car.to_owned(), references: vec![reference] };
    assert_eq!(store.register("car", car, false).unwrap(), 2);
    assert_eq!(store.referred_by("colour", Wanted::Latest).unwrap(), [2]);
    let refused = store.delete("colour", None, false).unwrap_err();
    assert!(format!("{refused:?}").contains("42206"), "{refused:?}");
    store.delete("car", None, false).unwrap();
    store.delete("colour", None, false).unwrap();
}
