//! `manifest.json`: what an export is, so that anybody can prove it.
//!
//! It is written after the files and before `_SUCCESS`. `digest` is over rows, whatever engine wrote them and however they
//! are laid out; `sha256` is over a file's bytes.

use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Serialize};

use super::{closing::Vector, dataset::Column, request::Asked};

/// The name of the file.
pub const MANIFEST: &str = "manifest.json";
/// The empty file that is put last: what has it is whole.
pub const SUCCESS: &str = "_SUCCESS";

/// What an export is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// The form of this file.
    pub manifest_version: u32,
    /// The export's id.
    pub export_id: String,
    /// Which attempt wrote it, from 1.
    pub attempt: u32,
    /// The request with everything said, so that it can be made again.
    pub request: Asked,
    /// What the id is a hash of.
    pub canonical: serde_json::Value,
    /// The columns, in order.
    pub columns: Vec<Column>,
    /// What changes when a column does.
    pub fingerprint: String,
    /// How many rows there are.
    pub rows: u64,
    /// How many bytes the files have.
    pub bytes: u64,
    /// Over all rows, in no order: 128 bits in hexadecimal digits.
    pub digest: String,
    /// The files, in the order of their rows.
    pub files: Vec<FileEntry>,
    /// For each table that was read, up to which offsets.
    pub offsets: BTreeMap<Arc<str>, Vector>,
    /// Stretches of the logs below those offsets that were lost before they were stored, as far as known.
    pub gaps: Vec<Gap>,
    /// Events of the interval that came too late, as far as they had come when it was written.
    pub late_rows: u64,
    /// The store that was read: `lake` or `clickhouse`.
    pub source: String,
    /// The program that wrote it.
    pub created_by: String,
}

/// A file of an export.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Where it is, from the manifest's folder.
    pub path: String,
    /// How many rows it has.
    pub rows: u64,
    /// How many bytes.
    pub bytes: u64,
    /// Over its bytes.
    pub sha256: String,
    /// The event time of its first row.
    pub min_time: String,
    /// The event time of its last row.
    pub max_time: String,
}

/// Offsets that were lost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// The topic's table.
    pub table: Arc<str>,
    /// Its id.
    pub topic_id: String,
    /// The partition.
    pub partition: i32,
    /// The first offset.
    pub first: i64,
    /// The offset after the last.
    pub end: i64,
    /// Why.
    pub reason: String,
}
