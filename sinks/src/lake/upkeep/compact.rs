//! Compaction: the small files of one date become large ones with the same rows.

use std::{collections::BTreeMap, sync::Arc};

use arrow::{
    array::{BooleanArray, RecordBatch, new_null_array},
    compute::{self, CastOptions},
    datatypes::Schema,
};
use object_store::path::Path as ObjectPath;
use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use tokio::runtime::Handle;

use super::{Swap, Swapped, Upkeep, date};
use crate::{
    lake::{
        actions::{Add, Stats},
        contract::{DATE_COLUMN, TableSpec},
        encode::{Encoder, File},
        log::Table,
    },
    sink::SinkError,
};

const STRICT: CastOptions<'_> =
    CastOptions { safe: false, format_options: arrow::util::display::FormatOptions::new() };

/// What is worth compacting.
#[derive(Clone, Debug)]
pub struct Compaction {
    /// How large a file should be, in bytes. One of three quarters of it is left as it is.
    pub target_bytes: u64,
    /// Fewer small files of one date than this are left as they are.
    pub min_files: usize,
}

impl Default for Compaction {
    fn default() -> Compaction {
        Compaction { target_bytes: 64 << 20, min_files: 4 }
    }
}

/// What a compaction came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Compacted {
    /// Files that were replaced.
    pub removed: usize,
    /// Files that replaced them.
    pub added: usize,
    /// Groups of files that others had changed meanwhile: nothing was done about them.
    pub given_up: usize,
}

impl Upkeep {
    /// Compacts what is worth it, one log entry for each new file; `progress` is told of every step: groups
    /// done, and groups in all. A group that can't be read is left as it is and the others are done all the
    /// same; then its error is the answer.
    pub async fn compact(
        &mut self,
        worth: &Compaction,
        mut progress: impl FnMut(usize, usize),
    ) -> Result<Compacted, SinkError> {
        self.log.refresh().await?;
        let (version, _, files) = self.files().await?;
        let (groups, mut done) = (plan(&files, worth), Compacted::default());
        let (count, mut unreadable) = (groups.len(), None);
        for (number, group) in groups.into_iter().enumerate() {
            progress(number, count);
            let written = self.log.table.clock.now();
            let file = match merge(&self.log.table, &group, None).await {
                Ok(Some(file)) => file,
                Ok(None) => continue, // there were no rows
                Err(error @ SinkError::Retry { .. }) => return Err(error),
                Err(error) => {
                    unreadable.get_or_insert(error);
                    continue;
                }
            };
            let add = Add { data_change: false, ..file.add };
            self.log.table.store.put_files(vec![(add.path.clone(), file.bytes)]).await?;
            let removed = group.len();
            let swap = Swap::new("OPTIMIZE", version, group, vec![add], written);
            match swap.put(&mut self.log).await? {
                Swapped::Done => {
                    done.removed += removed;
                    done.added += 1;
                }
                // The new file is litter now, and a later vacuum's.
                Swapped::GivenUp => done.given_up += 1,
            }
        }
        progress(count, count);
        unreadable.map_or(Ok(done), Err)
    }
}

/// Groups of files that become one each: of one date, oldest first, up to the size wanted.
pub(super) fn plan(files: &[Add], worth: &Compaction) -> Vec<Vec<Add>> {
    let mut dates = BTreeMap::<&str, Vec<&Add>>::new();
    for file in files {
        let is_small =
            (file.size.max(0) as u64) < worth.target_bytes / 4 * 3 && rows(file) != Some(0);
        if let (true, Some(Some(date))) = (is_small, file.partition_values.get(DATE_COLUMN)) {
            dates.entry(date).or_default().push(file);
        }
    }
    let mut groups = Vec::new();
    for (_, mut files) in dates {
        files.sort_by_key(|file| file.modification_time);
        let (mut group, mut bytes) = (Vec::new(), 0);
        for file in files {
            let size = file.size.max(0) as u64;
            if bytes + size > worth.target_bytes {
                groups.push(std::mem::take(&mut group));
                bytes = 0;
            }
            bytes += size;
            group.push(file.clone());
        }
        groups.push(group);
    }
    groups.retain(|group| group.len() >= worth.min_files.max(2));
    groups
}

/// The rows of a file, where its writer said so.
pub(super) fn rows(file: &Add) -> Option<u64> {
    serde_json::from_str::<Stats>(file.stats.as_deref()?).ok()?.num_records
}

/// Which of a file's rows go into the new one.
pub(super) type Keeps = Arc<dyn Fn(&RecordBatch) -> BooleanArray + Send + Sync>;

/// Reads files one after the other into a new one, all rows or those that `keeps` says, and makes sure that no
/// other was lost on the way. Without rows there is no file.
pub(super) async fn merge(
    table: &Arc<Table>,
    group: &[Add],
    keeps: Option<Keeps>,
) -> Result<Option<File>, SinkError> {
    let date = date(&group[0]).ok_or_else(|| failed(table, "a file's date can't be read"))?;
    let file = |file: &Add| Ok((table.store.locate(&file.path)?, rows(file)));
    let files = group.iter().map(file).collect::<Result<_, SinkError>>()?;
    let merging = Merging { table: Arc::clone(table), date, files, keeps };
    let runtime = Handle::current();
    crate::lake::blocking(move || merging.run(&runtime)).await
}

struct Merging {
    table: Arc<Table>,
    date: i32,
    /// Where they are, and the rows that the log says they have.
    files: Vec<(ObjectPath, Option<u64>)>,
    keeps: Option<Keeps>,
}

impl Merging {
    /// Holds one file at a time, and the new one.
    fn run(self, runtime: &Handle) -> Result<Option<File>, SinkError> {
        let spec = &nullable(&self.table.contract.spec);
        let fault = |e: &dyn std::fmt::Display| failed(&self.table, &e.to_string());
        let mut merged = None;
        for (location, stated) in &self.files {
            let bytes = runtime.block_on(self.table.store.read(location))?;
            let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
            let reader = ParquetRecordBatchReaderBuilder::try_new_with_options(bytes, options)
                .and_then(|builder| builder.with_batch_size(8192).build());
            let mut count = 0;
            for rows in reader.map_err(|e| fault(&e))? {
                let rows = as_table(spec, &rows.map_err(|e| fault(&e))?).map_err(|e| fault(&e))?;
                count += rows.num_rows() as u64;
                let rows = match &self.keeps {
                    Some(keeps) => {
                        compute::filter_record_batch(&rows, &keeps(&rows)).map_err(|e| fault(&e))?
                    }
                    None => rows,
                };
                if rows.num_rows() == 0 {
                    continue;
                }
                let file = match &mut merged {
                    Some(file) => file,
                    none => none.insert(Encoder::new(spec, self.date, &rows)?),
                };
                file.write(&rows)?;
            }
            if let Some(stated) = stated.filter(|stated| *stated != count) {
                return Err(fault(&format!("{location} has {count} rows, the log says {stated}")));
            }
        }
        merged.map(Encoder::finish).transpose()
    }
}

/// The spec with every column optional: an old file may lack one that is required by now.
fn nullable(spec: &TableSpec) -> TableSpec {
    let fields =
        spec.schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true));
    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    TableSpec { schema, ..spec.clone() }
}

/// Rows with the table's columns: those that a file lacks are null.
fn as_table(spec: &TableSpec, rows: &RecordBatch) -> Result<RecordBatch, arrow::error::ArrowError> {
    let schema = rows.schema();
    let mut names = schema.fields().iter().map(|field| field.name());
    let is_known = |name: &str| name == DATE_COLUMN || spec.schema.field_with_name(name).is_ok();
    if let Some(name) = names.find(|name| !is_known(name)) {
        let what = format!("column {name} isn't in this program's contract");
        return Err(arrow::error::ArrowError::SchemaError(what));
    }
    let column = |field: &Arc<arrow::datatypes::Field>| match rows.column_by_name(field.name()) {
        // Strictly: what doesn't fit is an error, never a null.
        Some(column) => compute::cast_with_options(column, field.data_type(), &STRICT),
        None => Ok(new_null_array(field.data_type(), rows.num_rows())),
    };
    let columns = spec.schema.fields().iter().map(column).collect::<Result<_, _>>()?;
    RecordBatch::try_new(Arc::clone(&spec.schema), columns)
}

fn failed(table: &Table, cause: &str) -> SinkError {
    SinkError::Fatal {
        doing: format!("write files of table {} anew", table.contract.spec.name),
        cause: cause.to_owned(),
        hint: "its files were left as they are; run the version that wrote them, or look at them"
            .to_owned(),
    }
}
