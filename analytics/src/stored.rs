//! A table of the lake for DataFusion: the files of one snapshot, given to its Parquet reader.
//!
//! Files are left out before anything is opened: by a filter on the date alone, which is then
//! settled for good, and by what the table's log says about each file's columns. What remains
//! carries its row count, so that `count(*)` reads no file.
//!
//! Rows of this process that are decoded and not committed yet stand beside those files: see `tail`.
//!
//! **Invariant:** tail and version are taken once, in that order, at the first look, and serve the whole query.

mod live;
pub(crate) mod prune;
#[cfg(test)]
pub(crate) mod tests;

use std::sync::Arc;

use aion_schemas::log::{Offset, Partition, Stream};
use aion_sinks::lake::{
    history::Commit,
    read::{LiveFile, Snapshot},
};
use arrow::{datatypes::SchemaRef, record_batch::RecordBatch};
use async_trait::async_trait;
use datafusion::{
    catalog::{Session, TableProvider},
    common::{Statistics, project_schema, stats::Precision},
    datasource::{
        listing::PartitionedFile,
        physical_plan::{
            FileGroup, FileScanConfigBuilder, ParquetSource,
            parquet::CachedParquetFileReaderFactory,
        },
        source::DataSourceExec,
        table_schema::TableSchema,
    },
    error::{DataFusionError, Result},
    logical_expr::{Expr, TableProviderFilterPushDown, TableType},
    physical_plan::{ExecutionPlan, empty::EmptyExec, union::UnionExec},
    scalar::ScalarValue,
};
use futures::{
    StreamExt, TryStreamExt,
    stream::{self, BoxStream},
};
use tokio::sync::OnceCell;

use crate::{
    holdings::Holdings,
    lake::{Lake, store_url},
    tables::{DATE_COLUMN, Definition},
    tail::{self, Tail},
};

/// Where a query's rows come from, and what it holds of them.
#[derive(Clone, Debug)]
pub(crate) struct Sources {
    /// What is committed.
    pub(crate) lake: Arc<Lake>,
    /// What this process has beyond that.
    pub(crate) tail: Tail,
    /// The memory of what was cloned from the tail, until the query ends.
    pub(crate) holdings: Arc<Holdings>,
}

/// A table, for one query.
#[derive(Debug)]
pub(crate) struct Stored {
    definition: Arc<Definition>,
    sources: Sources,
    look: OnceCell<Look>,
}

/// A table at one moment.
#[derive(Debug)]
struct Look {
    snapshot: Option<Arc<Snapshot>>,
    /// Rows above the snapshot's marks that it hasn't by a retry, as they came from the decoder.
    live: Vec<RecordBatch>,
}

impl Stored {
    /// The table, not looked at yet.
    pub(crate) fn new(definition: Arc<Definition>, sources: Sources) -> Stored {
        Stored { definition, sources, look: OnceCell::new() }
    }

    /// What the table is called and made of.
    pub(crate) fn definition(&self) -> &Arc<Definition> {
        &self.definition
    }

    /// The marks of the snapshot: the next offset that the table wants of each partition.
    pub(crate) async fn marks(&self) -> Result<Vec<(Partition, Offset)>> {
        let Some(snapshot) = &self.look().await?.snapshot else { return Ok(Vec::new()) };
        let topic = &self.definition.topic;
        let marks = snapshot.marks.iter().map(|((id, number), mark)| {
            let stream = Stream { topic: Arc::clone(topic), id: *id };
            (Partition { stream, number: *number }, mark.offset)
        });
        Ok(marks.collect())
    }

    /// What each commit up to the snapshot's covered, oldest first.
    pub(crate) async fn commits(&self) -> Result<BoxStream<'static, Result<Commit>>> {
        let Some(snapshot) = &self.look().await?.snapshot else {
            return Ok(stream::empty().boxed());
        };
        let commits = self.sources.lake.commits(&self.definition.table, snapshot.version);
        Ok(commits.map_err(DataFusionError::from).boxed())
    }

    async fn look(&self) -> Result<&Look> {
        let look = async || {
            let table = &self.definition.table;
            // In this order: what lands in between is in the snapshot, and dropped from the tail.
            let tail = self.sources.tail.batches(table);
            #[cfg(test)]
            tests::between_the_looks(&self.sources.tail).await;
            let snapshot = self.sources.lake.snapshot(table).await?;
            let mark = |partition: &Partition| {
                let mark = snapshot.as_ref()?.mark(partition.stream.id, partition.number)?;
                Some(mark.offset)
            };
            let retried = |partition: &Partition| {
                snapshot.as_ref()?.retried(partition.stream.id, partition.number)
            };
            let live = tail::beyond(tail, mark, retried)?.into_iter().map(|batch| batch.rows);
            let live = live.collect();
            Ok::<_, DataFusionError>(Look { snapshot, live })
        };
        self.look.get_or_try_init(look).await
    }

    /// The files that may hold rows which pass the filters; `None` where there are none.
    fn scan_stored(
        &self,
        state: &dyn Session,
        snapshot: &Snapshot,
        (projection, filters): (Option<&Vec<usize>>, &[Expr]),
        limit: Option<usize>,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let files = prune::kept(state, &self.definition.schema, filters, &snapshot.files)?;
        tracing::debug!(
            table = %self.definition.table,
            version = snapshot.version,
            files = snapshot.files.len(),
            kept = files.len(),
            "scan"
        );
        if files.is_empty() {
            return Ok(None);
        }
        self.scan_files(state, &files, projection, limit).map(Some)
    }

    fn scan_files(
        &self,
        state: &dyn Session,
        files: &[&LiveFile],
        projection: Option<&Vec<usize>>,
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let files: Vec<_> = files.iter().map(|file| self.partitioned(file)).collect();
        let statistics = files.iter().filter_map(|file| file.statistics.as_deref());
        let statistics = Statistics::try_merge_iter(statistics, &self.definition.schema)?;
        let groups = FileGroup::new(files).split_files(state.config().target_partitions());
        let config = FileScanConfigBuilder::new(store_url()?, self.source(state)?)
            .with_file_groups(groups)
            .with_statistics(statistics)
            .with_projection_indices(projection.cloned())?
            .with_limit(limit)
            .build();
        Ok(DataSourceExec::from_data_source(config))
    }

    /// The Parquet reader. Footers are kept between queries: files of a lake never change.
    fn source(&self, state: &dyn Session) -> Result<Arc<ParquetSource>> {
        let runtime = state.runtime_env();
        let footers = runtime.cache_manager.get_file_metadata_cache();
        let readers =
            CachedParquetFileReaderFactory::new(runtime.object_store(store_url()?)?, footers);
        let date = self.definition.schema.field_with_name(DATE_COLUMN)?.clone();
        let schema = TableSchema::builder(Arc::clone(&self.definition.file_schema))
            .with_table_partition_cols(vec![Arc::new(date)])
            .build();
        let options = state.table_options().parquet.clone();
        Ok(Arc::new(
            ParquetSource::new(schema)
                .with_table_parquet_options(options)
                .with_parquet_file_reader_factory(Arc::new(readers)),
        ))
    }

    /// A file with what the log says about it: how many rows it has, and bounds of its columns that
    /// plans are chosen by. `min` and `max` are never answered from those: they may be rounded.
    fn partitioned(&self, file: &LiveFile) -> PartitionedFile {
        let schema = &self.definition.file_schema;
        let mut statistics = Statistics::new_unknown(schema);
        statistics.num_rows = file.rows.map_or(Precision::Absent, |n| Precision::Exact(n as usize));
        statistics.total_byte_size = Precision::Inexact(file.size as usize);
        for (field, column) in schema.fields().iter().zip(&mut statistics.column_statistics) {
            if let Some((least, greatest)) = prune::range(file, field) {
                column.min_value = Precision::Inexact(least);
                column.max_value = Precision::Inexact(greatest);
            }
        }
        let mut partitioned = PartitionedFile::new(String::new(), file.size);
        partitioned.object_meta.location = file.location.clone();
        partitioned
            .with_partition_values(vec![ScalarValue::Date32(file.date)])
            .with_statistics(Arc::new(statistics))
    }
}

#[async_trait]
impl TableProvider for Stored {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.definition.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> Result<Vec<TableProviderFilterPushDown>> {
        let settled = |filter: &&Expr| {
            if prune::is_by_date(filter) {
                TableProviderFilterPushDown::Exact
            } else {
                TableProviderFilterPushDown::Inexact
            }
        };
        Ok(filters.iter().map(settled).collect())
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
        let look = self.look().await?;
        let mut parts = Vec::with_capacity(2);
        if let Some(snapshot) = &look.snapshot {
            parts.extend(self.scan_stored(state, snapshot, (projection, filters), limit)?);
        }
        parts.extend(live::scan(
            state,
            (&self.definition, &self.sources.holdings),
            (&look.live, projection, filters),
        )?);
        match parts.len() {
            0 => Ok(Arc::new(EmptyExec::new(project_schema(&self.schema(), projection)?))),
            1 => Ok(parts.swap_remove(0)),
            _ => UnionExec::try_new(parts),
        }
    }
}
