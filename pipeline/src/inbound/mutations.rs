//! A good request, changed at random: whatever comes is answered, and nothing unsigned is taken for signed.
//!
//! `AION_SEED` brings rounds back that failed: the first one is that seed's. `tests/inbound/test_mutations.py` does the
//! same over HTTP.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use aion_schemas::log::Timestamp;
use axum::http::{HeaderMap, HeaderValue};
use rand::{Rng, SeedableRng, rngs::StdRng};
use serde_json::json;

use super::{
    command::{Command, Entry, read},
    request::Asked,
    signature,
};
use crate::{
    access::jwt::Token,
    webhooks::{secret::Secret, wire},
};

const ROUNDS: u64 = 20_000;
const PIECES: [&str; 12] =
    ["{", "}", "\"", ":", "\\u0000", "\\ud800", "1e999", "-0", "null", "\u{feff}", "é", "sha256="];

/// The seeds of the rounds: each run has others.
fn seeds() -> impl Iterator<Item = u64> {
    let given = std::env::var("AION_SEED").ok();
    let first =
        given.map_or_else(|| rand::rng().random::<u32>().into(), |text| text.parse().unwrap());
    first..first + ROUNDS
}

/// One to four changes: a byte flipped, taken out, doubled, or a piece put in.
fn mutate(text: &[u8], random: &mut StdRng) -> Vec<u8> {
    let mut text = text.to_vec();
    for _ in 0..random.random_range(1..5) {
        let at = random.random_range(0..=text.len());
        match random.random_range(0..5) {
            0 if at < text.len() => text[at] ^= 1 << random.random_range(0..8),
            1 if at < text.len() => drop(text.remove(at)),
            2 if at < text.len() => text.insert(at, text[at]),
            3 => text.truncate(at),
            _ => {
                let piece = PIECES[random.random_range(0..PIECES.len())];
                text.splice(at..at, piece.bytes());
            }
        }
    }
    text
}

#[test]
fn whatever_comes_is_answered_and_only_what_is_signed_is_right() {
    let secrets = [Secret::new("what-commands-are-signed-with").unwrap()];
    let body = br#"{"action":"install_module","parameters":{"module":"m","version":"1"},"tenant_id":"acme","timestamp":1800000000,"idempotency_key":"k"}"#;
    let good = wire::headers("k", body, &secrets, 1_800_000_000);
    assert!(signature::verify(&good, body, &secrets).is_ok());
    let names = ["x-aion-signature", "webhook-id", "webhook-timestamp", "webhook-signature"];
    let mut taken = 0;
    for seed in seeds() {
        let mut random = StdRng::seed_from_u64(seed);
        let changed = mutate(body, &mut random);
        let is_other = changed != body;
        let verified = signature::verify(&good, &changed, &secrets);
        assert!(!is_other || verified.is_err(), "AION_SEED={seed}");
        // Signed anew, it is read without harm.
        let mut headers = wire::headers("k", &changed, &secrets, 1_800_000_000);
        let signed = signature::verify(&headers, &changed, &secrets).unwrap();
        taken += u64::from(Asked::read(&headers, &changed, &signed).is_ok());
        let name = names[random.random_range(0..names.len())];
        let value = mutate(good[name].as_bytes(), &mut random);
        if let Ok(value) = HeaderValue::from_bytes(&value) {
            let is_same = value == headers[name];
            headers.insert(name, value);
            let verified = signature::verify(&headers, &changed, &secrets);
            // Case of hexadecimal digits and other versions' signatures beside a good one change nothing.
            assert!(
                is_same || verified.is_err() || verified == Ok(signed),
                "AION_SEED={seed} {headers:?}"
            );
        }
    }
    assert!(taken > 0 && taken < ROUNDS, "{taken}");
}

#[test]
fn records_and_tokens_are_read_without_harm() {
    let parameters = json!({"module": "m", "version": "1"});
    let what = ("install_module".to_owned(), parameters.as_object().unwrap());
    let at = Timestamp(1_800_000_000_000_000);
    let command = Command::new(("a".into(), Some("acme".into())), what, "k".into(), at);
    let record = command.record().unwrap();
    let token = b"eyJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJpIn0.AAAA";
    let mut read_well = 0;
    for seed in seeds() {
        let mut random = StdRng::seed_from_u64(seed);
        // What it says of itself has to fit: nothing else is commanded by it than what was.
        match read(Some(b"a"), Some(&mutate(&record, &mut random))) {
            Ok(Entry::Accepted(read)) => {
                let is_same = (read.id, read.content) == (command.id, command.content);
                assert!(is_same, "AION_SEED={seed} {read:?}");
                read_well += 1;
            }
            Ok(Entry::Ended(..)) => panic!("AION_SEED={seed}: an outcome"),
            Err(_) => {}
        }
        let token = String::from_utf8_lossy(&mutate(token, &mut random)).into_owned();
        let _read = Token::parse(&token).map(|token| token.issuer().map(str::to_owned));
    }
    assert!(read_well > 0 && read_well < ROUNDS, "{read_well}");
    assert!(signature::verify(&HeaderMap::new(), b"", &[]).is_err());
}
