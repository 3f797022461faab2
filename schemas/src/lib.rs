//! The contract of AION's event streams, stated once: topics, schemas, and everything derived from
//! them.
//!
//! `catalog.toml` names the topics, `events/*.schema.json` say what an event looks like; both are
//! what people edit. Arrow columns, Avro mirrors, topic settings, validators and the decoder are
//! derived here.
//!
//! Where to look:
//!
//! | module | what it answers |
//! |---|---|
//! | [`catalog`] | which topics are there, with which key, table and settings? Start here |
//! | [`compatibility`] | does a schema go together with earlier ones, and if not, why? |
//! | [`schema`] | which fields has an event, of which kind? Their Arrow columns and Avro mirror |
//! | [`validate`] | may a producer send this event, and if not, why? |
//! | [`encode`] | how does an event become a message that may be sent? |
//! | [`decode`] | how does a payload become a row, and why was it rejected? |
//! | [`commands`] | which commands may come from outside, with which parameters? |
//! | [`clickhouse`] | how does its ClickHouse table look, and which SQL makes it? |
//! | [`generate`] | which committed files follow from the contract, and are they current? |
//! | [`suggest`] | what did a person probably mean who wrote this name? |
//! | [`log`] | the words for places in a log: stream, partition, offset, mark |
//!
//! ```
//! use aion_schemas::{catalog::Catalog, validate::Validator};
//!
//! let catalog = Catalog::builtin();
//! let topic = catalog.topic("aion.audit.activity").ok_or("no such topic")?;
//! let event = br#"{"actor_id": "user-42", "acton": "login"}"#;
//! let violations = Validator::new(topic)?.check_bytes(event).unwrap_err();
//! let messages: Vec<String> = violations.iter().map(ToString::to_string).collect();
//! assert!(messages.contains(&"field `acton` is unknown; did you mean `action`?".to_owned()));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! **Invariant:** no network I/O, and nothing in this crate knows where events come from or go to.
//! **Invariant:** nothing is stated twice: what can be derived from the contract is.

pub mod catalog;
pub mod clickhouse;
pub mod commands;
pub mod compatibility;
pub mod decode;
pub mod encode;
pub mod generate;
pub mod log;
mod name;
pub mod schema;
pub mod suggest;
pub mod validate;
