//! What is left to the Delta kernel: replaying a log from its last checkpoint, and writing checkpoints.
//!
//! Everything here blocks, and is called away from the tasks of the runtime.

mod by_kind;

use std::{collections::BTreeMap, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, AsArray, types::Int64Type},
    record_batch::RecordBatch,
};
use bytes::Bytes;
use delta_kernel::{
    KernelError, Snapshot, SnapshotRef,
    checkpoint::LastCheckpointHintStats,
    engine::arrow_data::ArrowEngineData,
    scan::StatsOptions,
    schema::{DataType, StructField, StructType},
};
use delta_kernel_default_engine::{
    DefaultEngine, DefaultEngineBuilder, executor::tokio::TokioBackgroundExecutor,
};
use object_store::ObjectStore;
use url::Url;

use self::by_kind::ByKind;
use super::actions::{Add, Metadata, Protocol};
use crate::sink::SinkError;

/// The kernel's way to storage.
pub(crate) type Engine = DefaultEngine<TokioBackgroundExecutor>;

/// A table as of one version.
pub(crate) struct Opened {
    pub(crate) version: i64,
    /// The version of the checkpoint that the log was read from; -1 without one.
    pub(crate) checkpoint: i64,
    pub(crate) protocol: Protocol,
    pub(crate) metadata: Metadata,
    /// All application transactions: id and version.
    pub(crate) txns: BTreeMap<String, i64>,
    snapshot: SnapshotRef,
}

/// Makes an engine over an object store; it has a thread of its own, so a lake has one.
pub(crate) fn engine(objects: Arc<dyn ObjectStore>) -> Engine {
    DefaultEngineBuilder::new(objects).build()
}

/// Reads the log from its last checkpoint.
pub(crate) fn open(engine: &Engine, root: &Url) -> Result<Opened, SinkError> {
    let read = || -> Result<Opened, KernelError> {
        let snapshot = Snapshot::builder_for(root.as_str()).build(engine)?;
        let configuration = snapshot.table_configuration();
        Ok(Opened {
            version: snapshot.version() as i64,
            checkpoint: snapshot.log_segment().checkpoint_version.map_or(-1, |v| v as i64),
            protocol: convert(configuration.protocol())?,
            metadata: convert(configuration.metadata())?,
            txns: transactions(engine, &snapshot)?,
            snapshot,
        })
    };
    read().map_err(|e| failed(format!("open the table at {root}"), &e))
}

/// The files that are part of the table in that version.
pub(crate) fn files(engine: &Engine, opened: &Opened) -> Result<Vec<Add>, SinkError> {
    let read = || -> Result<Vec<Add>, KernelError> {
        let snapshot = Arc::clone(&opened.snapshot);
        let scan = snapshot.scan_builder().with_stats(StatsOptions::json_only()).build()?;
        let mut files = Vec::new();
        for metadata in scan.scan_metadata(engine)? {
            let (data, selected) = metadata?.scan_files.into_parts();
            let rows = ArrowEngineData::try_from_engine_data(data)?;
            live_files(rows.record_batch(), &selected, &mut files)?;
        }
        Ok(files)
    };
    read().map_err(|e| failed(format!("list the files of {}", opened.snapshot.table_root()), &e))
}

/// The files that are no longer part of the table, as far as the log still tells, and when each was removed.
pub(crate) fn tombstones(
    engine: &Engine,
    opened: &Opened,
) -> Result<Vec<(String, Option<i64>)>, SinkError> {
    let read = || -> Result<_, KernelError> {
        let remove = StructType::try_new([
            StructField::nullable("path", DataType::STRING),
            StructField::nullable("deletionTimestamp", DataType::LONG),
        ])?;
        let schema = Arc::new(StructType::try_new([StructField::nullable("remove", remove)])?);
        let mut gone = Vec::new();
        for batch in opened.snapshot.log_segment().read_actions(engine, schema)? {
            let rows = ArrowEngineData::try_from_engine_data(batch?.actions)?;
            let removes = column(rows.record_batch(), "remove")?;
            let removes = removes.as_struct_opt().ok_or_else(|| unexpected("remove"))?;
            let field = |name| removes.column_by_name(name).ok_or_else(|| unexpected("remove"));
            let paths = field("path")?.as_string_opt::<i32>();
            let times = field("deletionTimestamp")?.as_primitive_opt::<Int64Type>();
            let (Some(paths), Some(times)) = (paths, times) else {
                return Err(unexpected("remove"));
            };
            let pairs = paths.iter().zip(times);
            gone.extend(pairs.filter_map(|(path, time)| Some((path?.to_owned(), time))));
        }
        Ok(gone)
    };
    read().map_err(|e| {
        failed(format!("list the removed files of {}", opened.snapshot.table_root()), &e)
    })
}

/// A checkpoint that was computed and not yet stored.
pub(crate) struct Checkpoint {
    pub(crate) version: i64,
    pub(crate) bytes: Bytes,
    writer: delta_kernel::checkpoint::CheckpointWriter,
    hint: LastCheckpointHintStats,
}

/// Computes a checkpoint of the newest version.
pub(crate) fn checkpoint(engine: &Engine, root: &Url) -> Result<Checkpoint, SinkError> {
    let compute = || -> Result<Checkpoint, KernelError> {
        let snapshot = Snapshot::builder_for(root.as_str()).build(engine)?;
        let version = snapshot.version() as i64;
        let writer = snapshot.create_checkpoint_writer(engine)?;
        let data = writer.checkpoint_data(engine)?;
        let progress = data.state();
        let mut file: Option<ByKind> = None;
        for rows in data {
            let rows = rows?.apply_selection_vector()?;
            let rows = ArrowEngineData::try_from_engine_data(rows)?;
            let rows = rows.record_batch();
            let file = match &mut file {
                Some(file) => file,
                none => none.insert(ByKind::new(rows.schema())?),
            };
            file.write(rows)?;
        }
        let parquet = file.ok_or(KernelError::MissingMetadata)?.finish()?;
        let state = Arc::into_inner(progress)
            .ok_or_else(|| KernelError::generic("the checkpoint's state is still in use"))?;
        let size = parquet.len() as u64;
        let hint = LastCheckpointHintStats::from_reconciliation_state(state, size, 0)?;
        Ok(Checkpoint { version, bytes: parquet.into(), writer, hint })
    };
    compute().map_err(|e| failed(format!("compute a checkpoint of {root}"), &e))
}

/// Points readers to a checkpoint that is stored now.
pub(crate) fn announce(engine: &Engine, checkpoint: Checkpoint) -> Result<(), SinkError> {
    let Checkpoint { version, writer, hint, .. } = checkpoint;
    let announced = writer.finalize(engine, &hint);
    announced.map_err(|e| failed(format!("announce the checkpoint of version {version}"), &e))
}

fn convert<T: serde::de::DeserializeOwned>(from: &impl serde::Serialize) -> Result<T, KernelError> {
    let value = serde_json::to_value(from).map_err(KernelError::MalformedJson)?;
    serde_json::from_value(value).map_err(KernelError::MalformedJson)
}

/// The newest transaction of every application, in one replay; the kernel's public call replays for each.
fn transactions(
    engine: &Engine,
    snapshot: &Snapshot,
) -> Result<BTreeMap<String, i64>, KernelError> {
    let txn = StructType::try_new([
        StructField::nullable("appId", DataType::STRING),
        StructField::nullable("version", DataType::LONG),
    ])?;
    let schema = Arc::new(StructType::try_new([StructField::nullable("txn", txn)])?);
    let mut newest = BTreeMap::new();
    for batch in snapshot.log_segment().read_actions(engine, schema)? {
        let rows = ArrowEngineData::try_from_engine_data(batch?.actions)?;
        let txns = column(rows.record_batch(), "txn")?;
        let txns = txns.as_struct_opt().ok_or_else(|| unexpected("txn"))?;
        let (Some(ids), Some(versions)) =
            (txns.column_by_name("appId"), txns.column_by_name("version"))
        else {
            return Err(unexpected("txn"));
        };
        let ids = ids.as_string_opt::<i32>().ok_or_else(|| unexpected("txn.appId"))?;
        let versions =
            versions.as_primitive_opt::<Int64Type>().ok_or_else(|| unexpected("txn.version"))?;
        for (id, version) in ids.iter().zip(versions) {
            // The newest entry comes first.
            if let (Some(id), Some(version)) = (id, version) {
                newest.entry(id.to_owned()).or_insert(version);
            }
        }
    }
    Ok(newest)
}

fn live_files(
    rows: &RecordBatch,
    selected: &[bool],
    files: &mut Vec<Add>,
) -> Result<(), KernelError> {
    let (path, stats) = (column(rows, "path")?, column(rows, "stats")?);
    let path = path.as_string_opt::<i32>().ok_or_else(|| unexpected("path"))?;
    let stats = stats.as_string_opt::<i32>().ok_or_else(|| unexpected("stats"))?;
    let integers = |name: &'static str| {
        let found = column(rows, name)?;
        found.as_primitive_opt::<Int64Type>().cloned().ok_or_else(|| unexpected(name))
    };
    let (sizes, times) = (integers("size")?, integers("modificationTime")?);
    let deletions = column(rows, "deletionVector")?;
    let constants = column(rows, "fileConstantValues")?;
    let partitions = constants.as_struct_opt().and_then(|c| c.column_by_name("partitionValues"));
    let partitions = partitions.and_then(|p| p.as_map_opt());
    let partitions = partitions.ok_or_else(|| unexpected("partitionValues"))?;
    for row in 0..rows.num_rows() {
        if !selected.get(row).copied().unwrap_or(true) || path.is_null(row) {
            continue;
        }
        if deletions.is_valid(row) {
            return Err(KernelError::Unsupported("deletion vectors".to_owned()));
        }
        let values = partitions.value(row);
        let (keys, values) = (values.column(0), values.column(1));
        let (keys, values) = (keys.as_string_opt::<i32>(), values.as_string_opt::<i32>());
        let (Some(keys), Some(values)) = (keys, values) else {
            return Err(unexpected("partitionValues"));
        };
        let pairs = keys.iter().zip(values.iter());
        let pairs = pairs.filter_map(|(k, v)| Some((k?.to_owned(), v.map(str::to_owned))));
        files.push(Add {
            path: path.value(row).to_owned(),
            partition_values: pairs.collect(),
            size: sizes.value(row),
            modification_time: times.value(row),
            data_change: true,
            stats: stats.is_valid(row).then(|| stats.value(row).to_owned()),
            deletion_vector: None,
        });
    }
    Ok(())
}

fn column<'a>(rows: &'a RecordBatch, name: &'static str) -> Result<&'a ArrayRef, KernelError> {
    rows.column_by_name(name).ok_or_else(|| unexpected(name))
}

fn unexpected(name: &str) -> KernelError {
    KernelError::UnexpectedColumnType(name.to_owned())
}

/// Sorts the kernel's failures by who can act: storage passes, a table that it can't read doesn't.
fn failed(doing: String, error: &KernelError) -> SinkError {
    let cause = error.to_string();
    let innermost = match error {
        KernelError::Backtraced { source, .. } => source,
        other => other,
    };
    match innermost {
        KernelError::ObjectStore(_)
        | KernelError::IOError(_)
        | KernelError::Reqwest(_)
        | KernelError::FileNotFound(_)
        | KernelError::JoinFailure(_) => SinkError::Retry { doing, cause },
        _ => {
            let hint = "write into a table of its own, or restore this one".to_owned();
            SinkError::Fatal { doing, cause, hint }
        }
    }
}
