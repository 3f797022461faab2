//! A seeded mutation loop over the corpus in `fuzz/corpus`, held against the oracles: the fuzzer that runs in every
//! test, without its tools. `fuzz` has the one that follows the decoder's branches.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use aion_schemas::decode::{Outcome, SchemaId};

use crate::{
    checks::{Frames, NESTED, NEWER, OLDER, check_avro, check_json},
    common::{CONTRACT, every_kind, push},
    differential::damage,
};

/// A small generator of the xorshift family: the loop must be the same on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }
}

fn corpus(encoding: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(encoding);
    let members = members(&folder);
    assert!(!members.is_empty(), "no corpus of {encoding}");
    members
}

/// The files of a folder in the order of their names. What libFuzzer leaves there has a name without an ending, and is
/// on this machine alone: the loop would be another than elsewhere.
fn members(folder: &Path) -> Vec<Vec<u8>> {
    let files = fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    let mut named: Vec<_> = files.filter(|file| file.extension().is_some()).collect();
    named.sort();
    named.iter().map(|file| fs::read(file).unwrap()).collect()
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().unwrap())
}

/// Damages members of the corpus, splices two together now and then, and checks each result.
fn mutate(encoding: &str, check: impl Fn(&[u8])) {
    let corpus = corpus(encoding);
    for payload in &corpus {
        check(payload);
    }
    let mut random = Random(setting("AION_FUZZ_SEED", 0x00a1_0e5e_ed01) | 1);
    let end = Instant::now() + Duration::from_secs(setting("AION_FUZZ_SECONDS", 2));
    let mut rounds = 0u64;
    while Instant::now() < end {
        for _ in 0..100 {
            let mut payload = corpus[random.below(corpus.len())].clone();
            if random.below(8) == 0 {
                let other = &corpus[random.below(corpus.len())];
                payload.truncate(random.below(payload.len() + 1));
                payload.extend_from_slice(&other[random.below(other.len() + 1)..]);
            }
            for _ in 0..=random.below(4) {
                damage(
                    &mut payload,
                    random.next() as u8,
                    random.next() as usize,
                    random.next() as u8,
                );
            }
            check(&payload);
            rounds += 1;
        }
    }
    println!("{encoding}: {rounds} damaged payloads");
}

#[test]
fn what_a_fuzzer_found_is_no_member() {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in
        [("b.json", "2"), ("da39a3ee5e6b4b0d3255bfef95601890afd80709", "3"), ("a.bin", "1")]
    {
        fs::write(folder.path().join(name), text).unwrap();
    }
    assert_eq!(members(folder.path()), [b"1", b"2"]);
}

#[test]
fn mutated_json() {
    mutate("json", |payload| check_json(&every_kind(), payload));
}

#[test]
fn mutated_avro() {
    mutate("avro", |body| check_avro(&every_kind(), body));
}

#[test]
fn mutated_frames() {
    let frames = Frames::new();
    mutate("framed", |payload| frames.check(payload));
}

#[test]
fn the_corpus_of_frames_has_a_row_by_each_writer() {
    let frames = Frames::new();
    let mut ids = std::collections::BTreeSet::new();
    for payload in corpus("framed") {
        match push(&mut frames.decoder(), &payload) {
            Outcome::Row => ids.extend(SchemaId::of(&payload)),
            outcome => println!("{payload:02x?}: {outcome:?}"),
        }
    }
    assert_eq!(Vec::from_iter(ids), [CONTRACT, OLDER, NEWER, NESTED]);
}
