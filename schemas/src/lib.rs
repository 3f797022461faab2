//! The contract of AION's event streams, stated once: topics, schemas, and everything derived from them.
//!
//! `catalog.toml` names the topics, `events/*.schema.json` say what an event looks like; both are what
//! people edit. Arrow columns, Avro mirrors, topic specs, validators and the decoder are derived here.
//!
//! **Invariant:** no network I/O, and nothing in this crate knows where events come from or go to.

pub mod catalog;
pub mod log;
mod name;
pub mod schema;
mod suggest;
pub mod validate;
