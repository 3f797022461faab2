//! What a table must look like for this writer: columns, partitioning, protocol; and what to do when it doesn't.
//!
//! | the table has | this writer |
//! |---|---|
//! | a protocol beyond reader 1, writer 2, or a feature beyond `appendOnly` and `invariants` | refuses it |
//! | a column that the contract doesn't have | refuses it: a newer contract has written here |
//! | a column of another type, or one that may not be null where ours may | refuses it |
//! | no column that the contract has | adds it, nullable |
//! | other partition columns, transactions that expire | refuses it |

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use arrow::datatypes::{DataType, SchemaRef, TimeUnit};
use delta_kernel::table_properties::TableProperties;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::actions::{Format, Metadata, Protocol, wall_clock_ms};
use crate::sink::SinkError;

/// The partition column: UTC date of the event time.
pub const DATE_COLUMN: &str = "_date";

/// Features that need nothing of a writer that only appends and checks its own rows.
const HARMLESS_FEATURES: [&str; 2] = ["appendOnly", "invariants"];

/// How long a removed file is kept where the table doesn't say: Delta's default.
const DEFAULT_RETENTION: Duration = Duration::from_hours(7 * 24);
/// How long entries of the log are kept where the table doesn't say: Delta's default.
const DEFAULT_LOG_RETENTION: Duration = Duration::from_hours(30 * 24);
/// What our own tables say. A stream makes thousands of entries a day, and the log is read by listing it.
const LOG_RETENTION: (&str, &str) = ("delta.logRetentionDuration", "interval 7 days");
const LEAST_RETENTION: Duration = Duration::from_hours(1);

/// What the rows of a table are.
#[derive(Clone, Debug)]
pub struct TableSpec {
    /// The table's name: its folder in the lake.
    pub name: String,
    /// The columns; they end in `aion_schemas::schema::POSITION_COLUMNS`.
    pub schema: SchemaRef,
    /// The column by whose UTC date the table is partitioned; a row without it is dated by `_append_time`.
    pub event_time: String,
}

/// A schema as Delta states it.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct DeltaSchema {
    #[serde(rename = "type")]
    kind: String,
    pub(crate) fields: Vec<DeltaField>,
}

/// A column as Delta states it.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct DeltaField {
    pub(crate) name: String,
    #[serde(rename = "type")]
    pub(crate) kind: serde_json::Value,
    pub(crate) nullable: bool,
    #[serde(default)]
    metadata: serde_json::Map<String, serde_json::Value>,
}

impl DeltaSchema {
    /// Reads the schema of a table.
    pub(crate) fn parse(metadata: &Metadata) -> Result<DeltaSchema, SinkError> {
        serde_json::from_str(&metadata.schema_string)
            .map_err(|e| refused("read the table's schema", &e.to_string(), "restore the table"))
    }
}

/// The spec of a table, checked.
#[derive(Clone, Debug)]
pub(crate) struct Contract {
    /// As given.
    pub(crate) spec: TableSpec,
    fields: Vec<DeltaField>,
}

impl Contract {
    /// Checks that a table can be made of the spec.
    pub(crate) fn new(spec: TableSpec) -> Result<Contract, SinkError> {
        let doing = format!("define table {}", spec.name);
        let hint = "correct the topic's entry in the catalog";
        let mut fields = Vec::new();
        for field in spec.schema.fields() {
            let Some(kind) = delta_type(field.data_type()) else {
                let cause = format!("column {} has type {}", field.name(), field.data_type());
                return Err(refused(&doing, &cause, hint));
            };
            fields.push(delta_field(field.name(), kind, field.is_nullable()));
        }
        for needed in [&*spec.event_time, "_append_time", "_offset", "_leader_epoch"] {
            if spec.schema.field_with_name(needed).is_err() {
                return Err(refused(&doing, &format!("there is no column {needed}"), hint));
            }
        }
        if spec.schema.field_with_name(DATE_COLUMN).is_ok() {
            return Err(refused(&doing, &format!("{DATE_COLUMN} is the lake's own column"), hint));
        }
        fields.push(delta_field(DATE_COLUMN, "date", false));
        Ok(Contract { spec, fields })
    }

    /// The protocol of a new table: every reader of the last years understands it.
    pub(crate) fn protocol() -> Protocol {
        Protocol {
            min_reader_version: 1,
            min_writer_version: 2,
            reader_features: None,
            writer_features: None,
        }
    }

    /// The metadata of a new table.
    pub(crate) fn metadata(&self) -> Metadata {
        Metadata {
            id: Uuid::new_v4().to_string(),
            name: Some(self.spec.name.clone()),
            description: None,
            format: Format { provider: "parquet".to_owned(), options: BTreeMap::new() },
            schema_string: schema_string(self.fields.clone()),
            partition_columns: vec![DATE_COLUMN.to_owned()],
            created_time: Some(wall_clock_ms()),
            configuration: BTreeMap::from([(
                LOG_RETENTION.0.to_owned(),
                LOG_RETENTION.1.to_owned(),
            )]),
        }
    }

    /// Refuses a table whose protocol asks for more than is done here.
    pub(crate) fn check_protocol(&self, protocol: &Protocol) -> Result<(), SinkError> {
        let versions = (protocol.min_reader_version, protocol.min_writer_version);
        let features = protocol.reader_features.iter().chain(&protocol.writer_features).flatten();
        let unknown: Vec<&str> =
            features.map(|f| &**f).filter(|f| !HARMLESS_FEATURES.contains(f)).collect();
        let known = matches!(versions, (1, 1 | 2)) || matches!(versions, (1..=3, 7));
        if known && unknown.is_empty() {
            return Ok(());
        }
        let cause = if unknown.is_empty() {
            format!("it wants reader {} and writer {} of Delta", versions.0, versions.1)
        } else {
            format!("it uses {}, which this writer doesn't know", unknown.join(", "))
        };
        let hint = "write into a table of its own, or drop the feature";
        Err(refused(&self.doing(), &cause, hint))
    }

    /// Compares a table's columns with the contract; `Some` is the metadata with the missing ones added.
    pub(crate) fn check_metadata(
        &self,
        metadata: &Metadata,
    ) -> Result<Option<Metadata>, SinkError> {
        self.check_settings(metadata)?;
        let mut schema = DeltaSchema::parse(metadata)?;
        for theirs in &schema.fields {
            self.check_column(theirs)?;
        }
        let known = |name: &str| schema.fields.iter().any(|field| field.name == name);
        let missing: Vec<DeltaField> = self
            .fields
            .iter()
            .filter(|field| !known(&field.name))
            .map(|field| DeltaField { nullable: true, ..field.clone() })
            .collect();
        if missing.is_empty() {
            return Ok(None);
        }
        schema.fields.extend(missing);
        let schema_string = schema_string(schema.fields);
        Ok(Some(Metadata { schema_string, ..metadata.clone() }))
    }

    fn check_column(&self, theirs: &DeltaField) -> Result<(), SinkError> {
        let Some(ours) = self.fields.iter().find(|field| field.name == theirs.name) else {
            let cause = format!("column {} is not in this program's contract", theirs.name);
            let hint = "run a version at least as new as the one that wrote the table";
            return Err(refused(&self.doing(), &cause, hint));
        };
        let guarded = theirs.metadata.keys().find(|key| key.starts_with("delta."));
        let cause = if ours.kind != theirs.kind {
            format!("column {} is {} there and {} here", ours.name, theirs.kind, ours.kind)
        } else if ours.nullable && !theirs.nullable {
            format!("column {} may not be null there", ours.name)
        } else if let Some(guard) = guarded {
            format!("column {} has {guard}", ours.name)
        } else {
            return Ok(());
        };
        Err(refused(&self.doing(), &cause, "write into a table of its own, or change the column"))
    }

    fn check_settings(&self, metadata: &Metadata) -> Result<(), SinkError> {
        let expire = "delta.setTransactionRetentionDuration";
        let mapped = metadata.configuration.get("delta.columnMapping.mode");
        let cause = if metadata.format.provider != "parquet" {
            format!("its files are {}", metadata.format.provider)
        } else if metadata.partition_columns != [DATE_COLUMN] {
            format!("it is partitioned by {:?}", metadata.partition_columns)
        } else if metadata.configuration.contains_key(expire) {
            format!("{expire} is set: marks would expire and rows come twice")
        } else if retention(metadata) < LEAST_RETENTION {
            // Files would be too old to commit before they are written, again and again.
            "delta.deletedFileRetentionDuration is less than an hour".to_owned()
        } else if mapped.is_some_and(|mode| mode != "none") {
            "it maps column names".to_owned()
        } else {
            return Ok(());
        };
        Err(refused(&self.doing(), &cause, "unset it, or write into a table of its own"))
    }

    fn doing(&self) -> String {
        format!("write table {}", self.spec.name)
    }
}

/// What a table says of its own upkeep.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    /// How long files are kept that no version uses.
    pub(crate) retention: Duration,
    /// How long entries of the log are kept that a checkpoint stands for; never so short that a writer which
    /// slept misses them.
    pub(crate) log_retention: Duration,
    /// Whether entries of the log go at all.
    pub(crate) cleans_log: bool,
    /// Whether rows may only be added.
    pub(crate) append_only: bool,
}

impl Rules {
    pub(crate) fn of(metadata: &Metadata) -> Rules {
        let properties = TableProperties::from(metadata.configuration.iter());
        let log = properties.log_retention_duration.unwrap_or(DEFAULT_LOG_RETENTION);
        Rules {
            retention: retention(metadata),
            log_retention: log.max(24 * LEAST_RETENTION),
            cleans_log: properties.enable_expired_log_cleanup.unwrap_or(true),
            append_only: properties.append_only.unwrap_or(false),
        }
    }
}

fn retention(metadata: &Metadata) -> Duration {
    let properties = TableProperties::from(metadata.configuration.iter());
    properties.deleted_file_retention_duration.unwrap_or(DEFAULT_RETENTION)
}

/// The Arrow type of a Delta column, where it is one that we write.
pub(crate) fn arrow_type(kind: &serde_json::Value) -> Option<DataType> {
    Some(match kind.as_str()? {
        "string" => DataType::Utf8,
        "long" => DataType::Int64,
        "integer" => DataType::Int32,
        "double" => DataType::Float64,
        "boolean" => DataType::Boolean,
        "binary" => DataType::Binary,
        "date" => DataType::Date32,
        "timestamp" => DataType::Timestamp(TimeUnit::Microsecond, Some(Arc::from("UTC"))),
        _ => return None,
    })
}

fn delta_type(data_type: &DataType) -> Option<&'static str> {
    Some(match data_type {
        DataType::Utf8 => "string",
        DataType::Int64 => "long",
        DataType::Int32 => "integer",
        DataType::Float64 => "double",
        DataType::Boolean => "boolean",
        DataType::Binary => "binary",
        DataType::Timestamp(TimeUnit::Microsecond, Some(zone)) if &**zone == "UTC" => "timestamp",
        _ => return None,
    })
}

fn delta_field(name: &str, kind: &str, nullable: bool) -> DeltaField {
    DeltaField {
        name: name.to_owned(),
        kind: kind.into(),
        nullable,
        metadata: serde_json::Map::new(),
    }
}

fn schema_string(fields: Vec<DeltaField>) -> String {
    let schema = DeltaSchema { kind: "struct".to_owned(), fields };
    serde_json::to_string(&schema).unwrap_or_default()
}

fn refused(doing: &str, cause: &str, hint: &str) -> SinkError {
    SinkError::Fatal { doing: doing.to_owned(), cause: cause.to_owned(), hint: hint.to_owned() }
}
