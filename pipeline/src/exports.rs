//! Training exports: who asked for what, what is being made, and what is there.
//!
//! | module | what it is |
//! |---|---|
//! | [`service`] | takes requests in, answers how they stand |
//! | [`journal`] | each export's states, as numbered objects that are put if absent |
//! | [`runner`] | makes exports, one process each, and takes over those of processes that died |
//! | [`closing`] | asks the store and Kafka whether a boundary is closed, and fixes it |
//! | [`source`] | the store that rows are read from |
//! | [`survey`] | what is known of the rows before: schemas, versions, and what isn't there any more |
//! | [`planning`] | what another engine needs to make an export |
//! | [`policy`] | which privacy tiers may leave the platform |
//! | [`housekeeping`] | removes what is too old, and the remains of attempts that failed |
//! | `told` | all of them for table `exports` of SQL |
//!
//! Everything lies under one URL, a folder or an object store, that any number of processes share:
//!
//! ```text
//! _closed/<topic id>/<table>-<boundary>.json   a vector, written once
//! _jobs/<id>/request.json                      what was asked for
//! _jobs/<id>/000001.json ...                   its states: queued, running, succeeded ...
//! _jobs/<id>/progress.json                     written again while it runs
//! <dataset>/<id>/attempt-1/                    data/part-00000.parquet ..., manifest.json, _SUCCESS
//! ```
//!
//! **Invariant:** a state follows on the one that was read, or isn't put: of two processes one goes on.
//! **Invariant:** each attempt writes into a folder of its own; the state `succeeded` names the one that counts, and
//! `_SUCCESS` is put after it.

pub mod closing;
pub mod housekeeping;
pub mod journal;
pub mod planning;
pub mod policy;
pub mod runner;
pub mod service;
pub mod source;
pub mod survey;
pub(crate) mod told;
