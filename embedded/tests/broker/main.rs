//! The embedded broker as its clients see it: librdkafka, and the protocol spoken by hand.
#![allow(
    clippy::unwrap_used,
    unreachable_pub,
    missing_docs,
    reason = "a test may panic, and has no other users"
)]

mod admin;
mod consume;
mod groups;
mod power;
mod rig;
mod storage;
mod wire;
