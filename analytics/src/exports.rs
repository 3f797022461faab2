//! Training exports: rows of a time interval as Parquet files, with a manifest that proves them.
//!
//! An export is a pure function of its request: asked for again, on another machine or after a compaction, it has the
//! same rows in the same order, so the same digest, and from the same build the same bytes.
//!
//! | module | what it is |
//! |---|---|
//! | [`request`] | what can be asked for, checked; the id that it has |
//! | [`dataset`] | which columns a dataset has, from which tables, by which SQL |
//! | [`closing`] | up to which offsets a boundary in time reaches: fixed once |
//! | [`files`] | rows to Parquet files |
//! | [`manifest`] | what was written, so that it can be proven |
//! | [`verify`] | the proof |
//!
//! **Invariant:** which rows belong to an export is told by their event time and by offsets that were fixed before; never
//! by when it ran.
//! **Invariant:** nothing of the clock, the machine or the order in which a store has its rows is in a file.

pub mod closing;
pub mod dataset;
pub mod files;
pub mod manifest;
pub mod request;
pub mod time;
pub mod verify;

#[cfg(test)]
mod tests;
