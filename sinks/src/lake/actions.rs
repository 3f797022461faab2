//! The lines of a Delta log entry, as far as this project writes and reads them.
//!
//! One entry is one file of JSON lines, each an object with one action in it. Unknown actions and fields of
//! other writers are passed over here; whether a table may be written at all is decided from its protocol.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::sink::SinkError;

/// One line of an entry: exactly one of these is there in what we write.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Line {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) commit_info: Option<CommitInfo>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) protocol: Option<Protocol>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) meta_data: Option<Metadata>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) txn: Option<Txn>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) remove: Option<Remove>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) add: Option<Add>,
}

/// Who made the entry. `txn_id` is the uuid by which a writer knows its own entry again; nothing else here decides
/// anything, since other engines put what they like there. What can't be read counts as not said.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct CommitInfo {
    #[serde(deserialize_with = "said")]
    pub(crate) timestamp: i64,
    #[serde(deserialize_with = "said")]
    pub(crate) operation: String,
    #[serde(skip_deserializing)]
    pub(crate) operation_parameters: BTreeMap<String, String>,
    #[serde(skip_deserializing)]
    pub(crate) is_blind_append: bool,
    #[serde(skip_deserializing)]
    pub(crate) engine_info: String,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "said")]
    pub(crate) txn_id: Option<String>,
    /// What the entry covers of each partition, by the transaction that has its mark. For people only: it goes when
    /// the log is cleaned.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "said")]
    pub(crate) covered: BTreeMap<String, Covered>,
}

/// Offsets from `first` up to the mark, and the rows among them that the entry's files have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(crate) struct Covered {
    pub(crate) first: i64,
    pub(crate) rows: u64,
}

/// What stands there, if it is of that type.
fn said<'de, D, T>(from: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + serde::de::DeserializeOwned,
{
    Ok(serde_json::from_value(serde_json::Value::deserialize(from)?).unwrap_or_default())
}

/// What a reader and a writer must understand.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Protocol {
    pub(crate) min_reader_version: i32,
    pub(crate) min_writer_version: i32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) reader_features: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) writer_features: Option<Vec<String>>,
}

/// The table's schema and settings.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Metadata {
    pub(crate) id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) description: Option<String>,
    pub(crate) format: Format,
    pub(crate) schema_string: String,
    pub(crate) partition_columns: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) created_time: Option<i64>,
    #[serde(default)]
    pub(crate) configuration: BTreeMap<String, String>,
}

/// The format of the data files: always Parquet.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(crate) struct Format {
    pub(crate) provider: String,
    #[serde(default)]
    pub(crate) options: BTreeMap<String, String>,
}

/// How far an application is: here, the next offset wanted of one Kafka partition.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Txn {
    pub(crate) app_id: String,
    pub(crate) version: i64,
}

/// A data file that belongs to the table from here on.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Add {
    /// Relative to the table's folder, percent-encoded.
    pub(crate) path: String,
    pub(crate) partition_values: HashMap<String, Option<String>>,
    pub(crate) size: i64,
    pub(crate) modification_time: i64,
    pub(crate) data_change: bool,
    /// JSON text of [`Stats`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) stats: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) deletion_vector: Option<serde_json::Value>,
}

/// A data file that no longer belongs to the table.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Remove {
    pub(crate) path: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) deletion_timestamp: Option<i64>,
    pub(crate) data_change: bool,
}

/// Statistics of a data file.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Stats {
    pub(crate) num_records: Option<u64>,
    pub(crate) min_values: serde_json::Map<String, serde_json::Value>,
    pub(crate) max_values: serde_json::Map<String, serde_json::Value>,
    pub(crate) null_count: serde_json::Map<String, serde_json::Value>,
}

/// The path of a version's entry, relative to the table's folder.
pub(crate) fn entry_path(version: i64) -> String {
    format!("_delta_log/{version:020}.json")
}

/// The line that says who made an entry.
pub(crate) fn commit_info(id: Uuid, operation: &str, mode: &[(&str, &str)]) -> Line {
    let parameters = mode.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    let info = CommitInfo {
        timestamp: wall_clock_ms(),
        operation: operation.to_owned(),
        operation_parameters: parameters.collect(),
        is_blind_append: operation == "STREAMING UPDATE",
        engine_info: concat!("aion-event-streams/", env!("CARGO_PKG_VERSION")).to_owned(),
        txn_id: Some(id.to_string()),
        covered: BTreeMap::new(),
    };
    Line { commit_info: Some(info), ..Line::default() }
}

/// The uuid that its writer gave an entry.
pub(crate) fn writer_id(lines: &[Line]) -> Option<String> {
    lines.iter().find_map(|line| line.commit_info.as_ref()?.txn_id.clone())
}

/// Milliseconds since 1970, for people and other engines; nothing is decided by it.
pub(crate) fn wall_clock_ms() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |now| now.as_millis() as i64)
}

/// The bytes of an entry.
pub(crate) fn to_bytes(lines: &[Line]) -> Result<Bytes, SinkError> {
    let mut bytes = Vec::new();
    for line in lines {
        serde_json::to_writer(&mut bytes, line).map_err(|e| SinkError::Fatal {
            doing: "encode a log entry".to_owned(),
            cause: e.to_string(),
            hint: "this is a fault of the program, please report it".to_owned(),
        })?;
        bytes.push(b'\n');
    }
    Ok(Bytes::from(bytes))
}

/// The lines of an entry that was read from `path`.
pub(crate) fn parse(path: &str, bytes: &[u8]) -> Result<Vec<Line>, SinkError> {
    let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty());
    let lines: Result<Vec<Line>, _> = lines.map(serde_json::from_slice).collect();
    lines.map_err(|e| SinkError::Fatal {
        doing: format!("read log entry {path}"),
        cause: e.to_string(),
        hint: "the entry is damaged: restore it, or the table from a copy".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_of_other_engines_are_read_whatever_they_say_of_themselves() {
        let entry = br#"
            {"commitInfo":{"timestamp":"never","operationParameters":{"mode":["a",1]},"isBlindAppend":null,"x":{}}}
            {"commitInfo":{"txnId":17,"operation":[],"covered":{"a/0":{"first":"x"}}}}
            {"commitInfo":{"txnId":"7d44"}}
            {"domainMetadata":{"domain":"d","configuration":"","removed":false}}
            {"txn":{"appId":"a/0","version":9,"lastUpdated":1}}"#;
        let lines = parse("entry", entry).expect("lines");
        let ids = lines.iter().filter_map(|line| line.commit_info.as_ref());
        let ids: Vec<_> = ids.map(|info| info.txn_id.as_deref()).collect();
        assert_eq!(ids, [None, None, Some("7d44")]);
        assert_eq!(lines[4].txn, Some(Txn { app_id: "a/0".to_owned(), version: 9 }));
        assert!(parse("entry", b"{\"txn\":{\"appId\"").is_err(), "a torn line is no entry");
    }
}
