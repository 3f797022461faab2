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

/// The reason of a gap at the beginning of a partition, where the store has no row and knows of none: it began to read
/// later, or keeps rows for a time only.
pub const NOT_STORED: &str = "not_stored";

/// What an export is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// What it is whoever writes its files.
    #[serde(flatten)]
    pub about: About,
    /// Which attempt wrote it, from 1.
    pub attempt: u32,
    /// How many rows there are.
    pub rows: u64,
    /// How many bytes the files have.
    pub bytes: u64,
    /// Over all rows, in no order: 128 bits in hexadecimal digits.
    pub digest: String,
    /// The files, in the order of their rows.
    pub files: Vec<FileEntry>,
    /// The store that was read: `lake` or `clickhouse`.
    pub source: String,
    /// The program that wrote it.
    pub created_by: String,
}

/// What an export is before a row of it was read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct About {
    /// The form of this file.
    pub manifest_version: u32,
    /// The export's id.
    pub export_id: String,
    /// The request with everything said, so that it can be made again.
    pub request: Asked,
    /// What the id is a hash of.
    pub canonical: serde_json::Value,
    /// The columns, in order.
    pub columns: Vec<Column>,
    /// What changes when a column does.
    pub fingerprint: String,
    /// The schema of each topic that was read.
    #[serde(default)]
    pub schemas: Vec<SchemaEntry>,
    /// A version of each of the lake's tables that has all rows; none where another store was read.
    #[serde(default)]
    pub lake_versions: BTreeMap<Arc<str>, i64>,
    /// For each table that was read, up to which offsets.
    pub offsets: BTreeMap<Arc<str>, Vector>,
    /// Stretches of the logs below those offsets whose rows aren't there, as far as known.
    pub gaps: Vec<Gap>,
    /// Events of the interval that came too late, as far as they had come when it was written.
    pub late_rows: u64,
}

/// What another engine needs to make an export: the rows as SQL over a version of the lake's tables.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The form of this.
    pub plan_version: u32,
    /// Whose SQL it is.
    pub engine: String,
    /// The rows in their order, without the split of a dataset for training.
    pub sql: String,
    /// The name of the column that says when a row happened.
    pub event_time: String,
    /// The tables that the SQL names.
    pub tables: BTreeMap<Arc<str>, PlannedTable>,
    /// What goes into the manifest.
    pub about: About,
}

/// A table of the lake as of a version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedTable {
    /// Its folder.
    pub uri: String,
    /// The version.
    pub version: i64,
}

/// The schema by which a topic's events are read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SchemaEntry {
    /// The topic's table.
    pub table: Arc<str>,
    /// The registry's subject.
    pub subject: String,
    /// SHA-256 of its Avro form.
    pub fingerprint: String,
    /// The registry's id; null where the registry couldn't say.
    pub id: Option<u32>,
    /// Its version under the subject.
    pub version: Option<u32>,
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

/// Offsets whose rows aren't there.
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
    /// Why: that of a gap in the log, or [`NOT_STORED`].
    pub reason: String,
}
