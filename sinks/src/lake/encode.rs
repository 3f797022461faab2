//! Rows to Parquet: which rows go into the next log entry, one file for each event date, an encoding for each column.
//!
//! | column | encoding |
//! |---|---|
//! | integers, times | `DELTA_BINARY_PACKED` |
//! | numbers | plain: Spark's own reader knows no `BYTE_STREAM_SPLIT` |
//! | text of few values | dictionary |
//! | text of many values (ids, free objects) | plain |
//!
//! All of it in zstd level 1. Statistics cost a third of the encoding, so they are kept where one filters: event
//! time and the position columns. Of `_origin` they say how many rows have none.
//!
//! **Invariant:** a partition's mark passes exactly the rows that are in the files beside it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use aion_schemas::{
    log::{Mark, Marks, Offset, Partition},
    schema::ORIGIN_COLUMN,
};
use arrow::{
    array::{Array, ArrayRef, AsArray, UInt32Array, types},
    compute,
    datatypes::{DataType, SchemaRef},
    record_batch::RecordBatch,
    temporal_conversions::{date32_to_datetime, timestamp_us_to_datetime},
};
use bytes::Bytes;
use parquet::{
    arrow::{ArrowWriter, arrow_writer::ArrowWriterOptions},
    basic::{Compression, Encoding, ZstdLevel},
    file::properties::{EnabledStatistics, WriterProperties, WriterPropertiesBuilder},
    schema::types::ColumnPath,
};
use uuid::Uuid;

use super::{
    actions::{Add, Covered, Stats, wall_clock_ms},
    contract::{DATE_COLUMN, TableSpec},
    origins::Origins,
};
use crate::{budget::Reservation, buffer::Chunks, sink::SinkError};

const DAY_US: i64 = 86_400_000_000;

/// Rows of a row group: several of them let a reader use several cores on one file.
const ROW_GROUP_ROWS: usize = 128 * 1024;

/// Text columns are looked at this far to tell few values from many.
const SAMPLE_ROWS: usize = 1024;

/// The rows of one log entry.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// The marks that hold once the files are in the log.
    pub(crate) marks: Marks,
    /// What is covered of each of their partitions.
    pub(crate) covered: BTreeMap<String, Covered>,
    /// Rows by event date, in days since 1970.
    dates: BTreeMap<i32, Vec<RecordBatch>>,
    /// Of the budget that the rows are held against.
    memory: Reservation,
}

/// A file that was encoded and not yet stored.
#[derive(Debug)]
pub(crate) struct File {
    pub(crate) bytes: Bytes,
    pub(crate) add: Add,
    pub(crate) memory: Reservation,
}

/// The waiting batches; their columns are shared, not copied.
pub(crate) struct Waiting(Vec<Share>, Reservation);

/// What waits of one partition.
struct Share {
    partition: Partition,
    after: Option<Mark>,
    first: Offset,
    /// Rows, each with the mark that holds after them.
    batches: Vec<(Mark, RecordBatch)>,
}

impl Waiting {
    /// The batches of all chunks.
    pub(crate) fn of(chunks: &Chunks) -> Waiting {
        let rows = chunks.iter().map(|(partition, chunk)| {
            let batches = chunk.batches.iter().map(|batch| (batch.mark(), batch.rows.clone()));
            let first = chunk.batches.first().map_or(Offset::ZERO, |batch| batch.range.start);
            let (partition, batches) = (partition.clone(), batches.collect());
            Share { partition, after: chunk.after, first, batches }
        });
        let mut batches = chunks.values().flat_map(|chunk| &chunk.batches);
        let memory = batches.next().map(|batch| batch.memory.more(0)).unwrap_or_default();
        Waiting(rows.collect(), memory)
    }

    /// Chooses the rows of the next entry: of each partition as many, in order, as fit into `max_dates`
    /// dates. What doesn't is left to the entry after it, and so is its mark.
    pub(crate) fn plan(
        self,
        spec: &TableSpec,
        max_dates: usize,
        origins: &Origins,
    ) -> Result<Plan, SinkError> {
        let mut plan = Plan { memory: self.1, ..Plan::default() };
        let mut seen = BTreeSet::new();
        for Share { partition, after, first, batches } in self.0 {
            let (mut mark, mut count) = (after, 0);
            for (end, rows) in batches {
                let rows = origins.keep(&partition, &rows, &mut seen)?;
                let dates = dates(&rows, spec)?;
                let fits = plan.admit(&dates, max_dates);
                if fits > 0 {
                    plan.add(&rows.slice(0, fits), &dates[..fits])?;
                    count += fits as u64;
                }
                if fits < dates.len() {
                    mark = cut(&rows, fits).or(mark);
                    break;
                }
                mark = Some(end);
            }
            if let Some(mark) = mark
                && Some(mark.offset) != after.map(|after| after.offset)
            {
                let covered = Covered { first: first.get(), rows: count };
                plan.covered.insert(partition.key(), covered);
                plan.marks.insert(partition, mark);
            }
        }
        Ok(plan)
    }
}

impl Plan {
    /// How many of the rows, from the first, are of dates that are open or may still be opened.
    fn admit(&mut self, dates: &[i32], max_dates: usize) -> usize {
        let mut last = None;
        for (row, date) in dates.iter().enumerate() {
            if last == Some(*date) {
                continue;
            }
            if !self.dates.contains_key(date) {
                if self.dates.len() >= max_dates.max(1) {
                    return row;
                }
                self.dates.insert(*date, Vec::new());
            }
            last = Some(*date);
        }
        dates.len()
    }

    fn add(&mut self, rows: &RecordBatch, dates: &[i32]) -> Result<(), SinkError> {
        let mut by_date = BTreeMap::<i32, Vec<u32>>::new();
        if dates.iter().any(|date| *date != dates[0]) {
            for (row, date) in dates.iter().enumerate() {
                by_date.entry(*date).or_default().push(row as u32);
            }
        } else if let Some(date) = dates.first() {
            self.dates.entry(*date).or_default().push(rows.clone());
        }
        for (date, indices) in by_date {
            let rows = compute::take_record_batch(rows, &UInt32Array::from(indices));
            let rows = rows.map_err(|e| failed("divide rows by date", &e.to_string()))?;
            self.dates.entry(date).or_default().push(rows);
        }
        Ok(())
    }

    /// Encodes the files, one for each date.
    pub(crate) fn encode(&self, spec: &TableSpec) -> Result<Vec<File>, SinkError> {
        let dates = self.dates.iter().filter(|(_, rows)| !rows.is_empty());
        dates.map(|(date, rows)| encode_file((spec, *date), (rows, &self.memory))).collect()
    }
}

/// The mark after the row before `row`, which is left out, with that row's epoch: what lies between the
/// two, such as a record that could not become a row, may be of a later leader.
fn cut(rows: &RecordBatch, row: usize) -> Option<Mark> {
    let before = row.checked_sub(1)?;
    let offsets = rows.column_by_name("_offset")?.as_primitive_opt::<types::Int64Type>()?;
    let epochs = rows.column_by_name("_leader_epoch")?.as_primitive_opt::<types::Int32Type>()?;
    Some(Mark { offset: Offset(offsets.value(before)).next(), epoch: epochs.value(before) })
}

/// The UTC date of each row's event time; of its append time where it has none.
fn dates(rows: &RecordBatch, spec: &TableSpec) -> Result<Vec<i32>, SinkError> {
    let times = |name: &str| {
        let column = rows.column_by_name(name);
        let times = column.and_then(|c| c.as_primitive_opt::<types::TimestampMicrosecondType>());
        times.ok_or_else(|| failed("date rows", &format!("{name} is no time column")))
    };
    let (event, append) = (times(&spec.event_time)?, times("_append_time")?);
    let date = |us: i64| us.div_euclid(DAY_US) as i32;
    if event.null_count() == 0 {
        return Ok(event.values().iter().map(|us| date(*us)).collect());
    }
    let both = event.iter().zip(append.values());
    Ok(both.map(|(event, append)| date(event.unwrap_or(*append))).collect())
}

/// Encodes a file, and holds what it takes against the budget of its rows: these stay until the file is in the log.
fn encode_file(
    (spec, date): (&TableSpec, i32),
    (rows, memory): (&[RecordBatch], &Reservation),
) -> Result<File, SinkError> {
    let mut encoder = Encoder::new(spec, date, &rows[0])?;
    let mut held = Reservation::none();
    for rows in rows {
        encoder.write(rows)?;
        held = memory.more(encoder.bytes());
    }
    let file = encoder.finish()?;
    drop(held);
    Ok(File { memory: memory.more(file.bytes.len()), ..file })
}

/// A file in the making, whose rows are of one event date.
pub(crate) struct Encoder<'a> {
    spec: &'a TableSpec,
    date: i32,
    writer: ArrowWriter<Vec<u8>>,
    rows: u64,
    columns: [Summary; FILTERED],
}

impl Encoder<'_> {
    /// A file of rows like `sample`, which may be the first of them.
    pub(crate) fn new<'a>(
        spec: &'a TableSpec,
        date: i32,
        sample: &RecordBatch,
    ) -> Result<Encoder<'a>, SinkError> {
        let options = ArrowWriterOptions::new()
            .with_properties(properties(spec, sample))
            .with_skip_arrow_metadata(true);
        let schema = Arc::clone(&spec.schema);
        let writer = ArrowWriter::try_new_with_options(Vec::new(), schema, options)
            .map_err(|e| failed(&doing(spec), &e.to_string()))?;
        Ok(Encoder { spec, date, writer, rows: 0, columns: <[Summary; FILTERED]>::default() })
    }

    /// Appends rows.
    pub(crate) fn write(&mut self, rows: &RecordBatch) -> Result<(), SinkError> {
        self.writer.write(rows).map_err(|e| failed(&doing(self.spec), &e.to_string()))?;
        self.rows += rows.num_rows() as u64;
        for (name, summary) in filtered_columns(self.spec).iter().zip(&mut self.columns) {
            rows.column_by_name(name).into_iter().for_each(|column| summary.add(column));
        }
        Ok(())
    }

    /// What it takes in memory.
    fn bytes(&self) -> usize {
        self.writer.memory_size() + self.writer.bytes_written()
    }

    /// Ends the file.
    pub(crate) fn finish(self) -> Result<File, SinkError> {
        let doing = doing(self.spec);
        let stats = serde_json::to_string(&self.stats()).ok();
        let bytes = self.writer.into_inner().map_err(|e| failed(&doing, &e.to_string()))?;
        let day = date32_to_datetime(self.date)
            .ok_or_else(|| failed(&doing, &format!("day {} is out of range", self.date)))?
            .format("%Y-%m-%d")
            .to_string();
        let add = Add {
            path: format!("{DATE_COLUMN}={day}/part-{}.zstd.parquet", Uuid::new_v4()),
            partition_values: HashMap::from([(DATE_COLUMN.to_owned(), Some(day))]),
            size: bytes.len() as i64,
            modification_time: wall_clock_ms(),
            data_change: true,
            stats,
            deletion_vector: None,
        };
        Ok(File { bytes: bytes.into(), add, memory: Reservation::none() })
    }

    fn stats(&self) -> Stats {
        let mut stats = Stats { num_records: Some(self.rows), ..Stats::default() };
        for (name, summary) in filtered_columns(self.spec).iter().zip(&self.columns) {
            let Some(nulls) = summary.nulls else { continue };
            let name = (*name).to_owned();
            stats.null_count.insert(name.clone(), nulls.into());
            let Some((low, high)) = summary.range else { continue };
            let is_time = is_time(&self.spec.schema, &name);
            if let (Some(low), Some(high)) = (stat(low, is_time), stat(high, is_time)) {
                stats.min_values.insert(name.clone(), low);
                stats.max_values.insert(name, high);
            }
        }
        stats
    }
}

/// What readers are told of a column.
#[derive(Default)]
struct Summary {
    /// None where there is no such column.
    nulls: Option<usize>,
    range: Option<(i64, i64)>,
}

impl Summary {
    fn add(&mut self, column: &ArrayRef) {
        *self.nulls.get_or_insert_default() += column.null_count();
        let ranges = self.range.into_iter().chain(range(column));
        self.range = ranges.reduce(|(low, high), (l, h)| (low.min(l), high.max(h)));
    }
}

fn doing(spec: &TableSpec) -> String {
    format!("encode rows of {}", spec.name)
}

/// How many columns one filters on.
const FILTERED: usize = 5;

/// The columns that one filters on.
fn filtered_columns(spec: &TableSpec) -> [&str; FILTERED] {
    [&spec.event_time, "_append_time", "_offset", "_partition", ORIGIN_COLUMN]
}

fn properties(spec: &TableSpec, sample: &RecordBatch) -> WriterProperties {
    let mut properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_statistics_enabled(EnabledStatistics::None)
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .set_created_by(concat!("aion-event-streams version ", env!("CARGO_PKG_VERSION")).into());
    for (field, values) in spec.schema.fields().iter().zip(sample.columns()) {
        let column = ColumnPath::from(field.name().as_str());
        properties = encoding(properties, column, values);
    }
    for name in filtered_columns(spec) {
        let column = ColumnPath::from(name);
        properties = properties.set_column_statistics_enabled(column, EnabledStatistics::Page);
    }
    properties.build()
}

fn encoding(
    properties: WriterPropertiesBuilder,
    column: ColumnPath,
    values: &ArrayRef,
) -> WriterPropertiesBuilder {
    let encoding = match values.data_type() {
        DataType::Int32 | DataType::Int64 | DataType::Timestamp(_, _) => {
            Encoding::DELTA_BINARY_PACKED
        }
        DataType::Float64 => Encoding::PLAIN,
        DataType::Utf8 if has_many_values(values) => Encoding::PLAIN,
        _ => return properties,
    };
    properties
        .set_column_dictionary_enabled(column.clone(), false)
        .set_column_encoding(column, encoding)
}

/// Whether more than half of the first texts differ: then a dictionary is work for nothing.
fn has_many_values(values: &ArrayRef) -> bool {
    let Some(texts) = values.as_string_opt::<i32>() else { return false };
    let sample = texts.iter().take(SAMPLE_ROWS).flatten();
    let (mut seen, mut count) = (HashSet::new(), 0);
    for text in sample {
        seen.insert(text);
        count += 1;
    }
    seen.len() > count / 2 && count > 8
}

fn range(column: &ArrayRef) -> Option<(i64, i64)> {
    if let Some(times) = column.as_primitive_opt::<types::TimestampMicrosecondType>() {
        return Some((compute::min(times)?, compute::max(times)?));
    }
    if let Some(numbers) = column.as_primitive_opt::<types::Int64Type>() {
        return Some((compute::min(numbers)?, compute::max(numbers)?));
    }
    let numbers = column.as_primitive_opt::<types::Int32Type>()?;
    Some((compute::min(numbers)?.into(), compute::max(numbers)?.into()))
}

fn stat(value: i64, is_time: bool) -> Option<serde_json::Value> {
    if !is_time {
        return Some(value.into());
    }
    let time = timestamp_us_to_datetime(value)?;
    Some(time.format("%Y-%m-%dT%H:%M:%S%.6fZ").to_string().into())
}

fn is_time(schema: &SchemaRef, name: &str) -> bool {
    let field = schema.field_with_name(name);
    field.is_ok_and(|field| matches!(field.data_type(), DataType::Timestamp(_, _)))
}

fn failed(doing: &str, cause: &str) -> SinkError {
    SinkError::Fatal {
        doing: doing.to_owned(),
        cause: cause.to_owned(),
        hint: "this is a fault of the program, please report it".to_owned(),
    }
}
