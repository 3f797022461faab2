//! The embedded broker as its clients see it: librdkafka, and the protocol spoken by hand.
#![expect(clippy::unwrap_used, unreachable_pub, reason = "a test may panic; nobody uses it")]

mod admin;
mod consume;
mod groups;
mod power;
mod rig;
mod storage;
mod wire;
