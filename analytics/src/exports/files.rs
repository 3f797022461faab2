//! Rows to Parquet files.
//!
//! Files and groups of rows are cut by counts of rows and by what those rows are when encoded, and each group is written at
//! once: how rows arrive, in how large batches, leaves no trace.
//!
//! **Invariant:** a file is whole before it is put, and named only in the manifest that follows.
//! **Invariant:** bounded: a group of rows and one encoded file of [`FILE_BYTES`] and a group more are held, nothing else.

use std::sync::Arc;

use aion_schemas::log::Timestamp;
use aion_sinks::{fault, store::Store};
use arrow::{
    array::{Array, ArrayRef, AsArray, StringBuilder, types::TimestampMicrosecondType},
    compute::{cast, concat_batches},
    datatypes::SchemaRef,
    record_batch::RecordBatch,
};
use datafusion::parquet::{
    arrow::ArrowWriter,
    basic::{Compression, ZstdLevel},
    file::properties::WriterProperties,
};
use ring::digest::{Context, SHA256, digest};

use super::{
    dataset::{Dataset, training::SPLIT},
    manifest::FileEntry,
    request::{Layout, Request, Split, hex},
    time::rfc3339,
};
use crate::digest::{Digest, Layout as RowLayout};

const DAY_US: i64 = 86_400_000_000;
/// The folder of the files: readers that take all of a folder find nothing else in it.
pub const DATA: &str = "data";
/// A file ends with the group that makes it so large, however many rows it was to have.
pub const FILE_BYTES: usize = 256 << 20;

/// What writing comes to.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// A file can't be put.
    #[error("{0}")]
    Store(#[from] aion_sinks::sink::SinkError),
    /// Rows aren't what the dataset says: a fault of the program, or a store of another contract.
    #[error("encode rows: {0}")]
    Encode(String),
}

/// Writes the rows of one attempt into a folder of its own.
#[derive(Debug)]
pub struct Writer {
    store: Store,
    folder: String,
    layout: Layout,
    file_bytes: usize,
    split: Option<Split>,
    schema: SchemaRef,
    event_time: usize,
    digest: Digest,
    rows_digested: RowLayout,
    /// Rows of one day that aren't a whole group yet.
    waiting: Vec<RecordBatch>,
    rows_waiting: usize,
    /// The day of what waits and of the open file.
    day: Option<i64>,
    open: Option<Open>,
    written: Vec<FileEntry>,
}

/// The file that is being encoded.
struct Open {
    encoder: ArrowWriter<Vec<u8>>,
    rows: usize,
    /// The first and the last event time.
    times: (i64, i64),
}

impl std::fmt::Debug for Open {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Open").field("rows", &self.rows).finish_non_exhaustive()
    }
}

impl Writer {
    /// Writes the rows of a request into a folder that nobody has used, in files of so many bytes and a group at most.
    pub async fn start(
        store: Store,
        folder: &str,
        request: &Request,
        file_bytes: usize,
    ) -> Result<Writer, WriteError> {
        store.make_folder(&format!("{folder}/{DATA}")).await?;
        let dataset = &request.dataset;
        let schema = dataset.schema();
        let event_time = schema.index_of(dataset.event_time()).map_err(encode)?;
        Ok(Writer {
            store,
            folder: folder.to_owned(),
            layout: request.layout.clone(),
            file_bytes,
            split: request.split.clone(),
            event_time,
            digest: Digest::default(),
            rows_digested: row_layout(dataset),
            schema,
            waiting: Vec::new(),
            rows_waiting: 0,
            day: None,
            open: None,
            written: Vec::new(),
        })
    }

    /// Takes rows in, in their order.
    pub async fn write(&mut self, rows: &RecordBatch) -> Result<(), WriteError> {
        let rows = conform(&self.schema, self.split.as_ref(), rows)?;
        self.digest.add(&self.rows_digested, &rows).map_err(encode)?;
        let mut rest = rows;
        while rest.num_rows() > 0 {
            let (now, later) = self.until_midnight(&rest);
            self.take(now).await?;
            rest = later;
        }
        Ok(())
    }

    /// Ends the last file.
    pub async fn finish(mut self) -> Result<(Vec<FileEntry>, Digest), WriteError> {
        self.write_group(self.rows_waiting)?;
        self.end_file().await?;
        Ok((self.written, self.digest))
    }

    /// Divides rows where a new day begins, if days are kept apart.
    fn until_midnight(&mut self, rows: &RecordBatch) -> (RecordBatch, RecordBatch) {
        let count = rows.num_rows();
        if !self.layout.by_date {
            return (rows.clone(), rows.slice(count, 0));
        }
        let times = times(rows, self.event_time);
        let day = times.first().map_or(0, |time| time.div_euclid(DAY_US));
        let same = times.partition_point(|time| time.div_euclid(DAY_US) == day);
        (rows.slice(0, same), rows.slice(same, count - same))
    }

    /// Takes rows of one day in.
    async fn take(&mut self, rows: RecordBatch) -> Result<(), WriteError> {
        let group = self.layout.rows_per_group as usize;
        let day = times(&rows, self.event_time).first().map_or(0, |time| time.div_euclid(DAY_US));
        if self.layout.by_date && self.day.is_some_and(|open| open != day) {
            self.write_group(self.rows_waiting)?;
            self.end_file().await?;
        }
        self.day = Some(day);
        self.rows_waiting += rows.num_rows();
        self.waiting.push(rows);
        loop {
            let in_file = self.open.as_ref().map_or(0, |open| open.rows);
            let room = self.layout.rows_per_file as usize - in_file;
            let next = group.min(room);
            if self.rows_waiting < next {
                return Ok(());
            }
            self.write_group(next)?;
            let bytes = self.open.as_ref().map_or(0, |open| open.encoder.bytes_written());
            if next == room || bytes >= self.file_bytes {
                self.end_file().await?;
            }
        }
    }

    /// Encodes the next rows as one group.
    fn write_group(&mut self, rows: usize) -> Result<(), WriteError> {
        if rows == 0 {
            return Ok(());
        }
        let all = concat_batches(&self.schema, &self.waiting).map_err(encode)?;
        let (group, rest) = (all.slice(0, rows), all.slice(rows, all.num_rows() - rows));
        self.rows_waiting = rest.num_rows();
        self.waiting = if rest.num_rows() > 0 { vec![rest] } else { Vec::new() };
        let times = times(&group, self.event_time);
        let (first, last) = (times.first().copied(), times.last().copied());
        let open = match &mut self.open {
            Some(open) => open,
            none => {
                let encoder = ArrowWriter::try_new(
                    Vec::new(),
                    Arc::clone(&self.schema),
                    Some(properties(&self.layout)?),
                );
                let encoder = encoder.map_err(encode)?;
                none.insert(Open { encoder, rows: 0, times: (first.unwrap_or(0), 0) })
            }
        };
        open.encoder.write(&group).map_err(encode)?;
        open.encoder.flush().map_err(encode)?;
        open.rows += rows;
        open.times.1 = last.unwrap_or(open.times.1);
        Ok(())
    }

    /// Puts the open file.
    async fn end_file(&mut self) -> Result<(), WriteError> {
        let Some(open) = self.open.take() else { return Ok(()) };
        let bytes = open.encoder.into_inner().map_err(encode)?;
        let name = format!("{DATA}/part-{:05}.parquet", self.written.len());
        let path = if self.layout.by_date {
            let day = rfc3339(Timestamp(open.times.0));
            let folder = format!("{DATA}/date={}", &day[..10]);
            self.store.make_folder(&format!("{}/{folder}", self.folder)).await?;
            name.replace(DATA, &folder)
        } else {
            name
        };
        self.written.push(FileEntry {
            path: path.clone(),
            rows: open.rows as u64,
            bytes: bytes.len() as u64,
            sha256: hex(digest(&SHA256, &bytes).as_ref()),
            min_time: rfc3339(Timestamp(open.times.0)),
            max_time: rfc3339(Timestamp(open.times.1)),
        });
        let file = (format!("{}/{path}", self.folder), bytes.into());
        fault::point("export.before_file");
        self.store.put_files(vec![file]).await?;
        fault::point("export.after_file");
        Ok(())
    }
}

/// What of a row is in its digest: all columns of the dataset.
pub(crate) fn row_layout(dataset: &Dataset) -> RowLayout {
    RowLayout::new(dataset.columns().iter().map(|column| column.kind))
}

/// Rows as files have them: types of the contract, and the split.
pub(crate) fn conform(
    schema: &SchemaRef,
    split: Option<&Split>,
    rows: &RecordBatch,
) -> Result<RecordBatch, WriteError> {
    let computed = usize::from(split.is_some());
    if rows.num_columns() + computed != schema.fields().len() {
        return Err(WriteError::Encode(format!(
            "{} columns came, {} are wanted",
            rows.num_columns(),
            schema.fields().len() - computed
        )));
    }
    let columns = rows.columns().iter().zip(schema.fields());
    let columns = columns.map(|(column, field)| cast(column, field.data_type()).map_err(encode));
    let mut columns = columns.collect::<Result<Vec<ArrayRef>, _>>()?;
    if let Some(split) = split {
        columns.push(divide(schema, split, &columns)?);
    }
    RecordBatch::try_new(Arc::clone(schema), columns).map_err(encode)
}

fn divide(schema: &SchemaRef, split: &Split, columns: &[ArrayRef]) -> Result<ArrayRef, WriteError> {
    debug_assert_eq!(schema.fields().last().map(|field| field.name().as_str()), Some(SPLIT));
    let find = |name: &str| schema.index_of(name).map(|at| &columns[at]).map_err(encode);
    let (tenants, tasks) =
        (find("tenant_id")?.as_string::<i32>(), find("task_id")?.as_string::<i32>());
    let mut sides = StringBuilder::with_capacity(tasks.len(), tasks.len() * 5);
    for row in 0..tasks.len() {
        let tenant = if tenants.is_null(row) { "" } else { tenants.value(row) };
        sides.append_value(split.side(tenant, tasks.value(row)));
    }
    Ok(Arc::new(sides.finish()))
}

impl Split {
    /// On which side the rows of a task are: SHA-256 of `<seed>/<tenant>/<task>`, its first 8 bytes as a number (big
    /// endian), of which the hundredths count.
    pub fn side(&self, tenant: &str, task: &str) -> &'static str {
        let mut hash = Context::new(&SHA256);
        hash.update(self.seed.to_string().as_bytes());
        hash.update(b"/");
        hash.update(tenant.as_bytes());
        hash.update(b"/");
        hash.update(task.as_bytes());
        let hash = hash.finish();
        let first = hash.as_ref().first_chunk::<8>().map_or(0, |bytes| u64::from_be_bytes(*bytes));
        // The upper bits, scaled: no remainder, so no side is favoured.
        let hundredth = ((u128::from(first) * 100) >> 64) as u8;
        if hundredth < self.train {
            "train"
        } else if hundredth < self.train + self.validation {
            "validation"
        } else {
            "test"
        }
    }
}

fn times(rows: &RecordBatch, event_time: usize) -> &[i64] {
    rows.column(event_time).as_primitive::<TimestampMicrosecondType>().values()
}

fn properties(layout: &Layout) -> Result<WriterProperties, WriteError> {
    Ok(WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(3).map_err(encode)?))
        .set_max_row_group_row_count(Some(layout.rows_per_group as usize))
        .set_created_by("aion event streams".to_owned())
        .build())
}

fn encode(cause: impl std::fmt::Display) -> WriteError {
    WriteError::Encode(cause.to_string())
}
