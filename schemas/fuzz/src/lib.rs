//! What the fuzz targets hold against the oracles: the checks of the decoder's own tests, compiled a second time; and,
//! as an example of `aion-schemas`, a third time wherever that is built.

#![forbid(unsafe_code)]
#![expect(dead_code, reason = "the tests use more of these files")]
#![expect(clippy::unwrap_used, reason = "a test may panic")]

#[path = "../../tests/decode/checks.rs"]
mod checks;
#[path = "../../tests/decode/common.rs"]
mod common;
#[path = "../../tests/decode/oracle.rs"]
mod oracle;

thread_local! {
    static FRAMES: checks::Frames = checks::Frames::new();
}

/// A whole payload that is no frame.
pub fn json(payload: &[u8]) {
    if payload.first() != Some(&0) {
        checks::check_json(&common::every_kind(), payload);
    }
}

/// A body of the contract's own Avro schema.
pub fn avro(body: &[u8]) {
    checks::check_avro(&common::every_kind(), body);
}

/// A whole payload, by the contract's schema, by that of another version, or no frame at all.
pub fn framed(payload: &[u8]) {
    FRAMES.with(|frames| frames.check(payload));
}
