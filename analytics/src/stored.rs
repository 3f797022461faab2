//! A table of the lake for DataFusion: the files of one snapshot, given to its Parquet reader.
//!
//! Files are left out before anything is opened: by a filter on the date alone, which is then
//! settled for good, and by what the table's log says about each file's columns. What remains
//! carries its row count, so that `count(*)` reads no file.
//!
//! **Invariant:** the snapshot is taken once, at the first look, and serves the whole query.
//! Absent: rows that were decoded and not committed yet. Who adds them here clones them before the
//! snapshot is taken, then drops those below its marks; the other order loses rows while a commit
//! lands.

mod prune;

use std::sync::Arc;

use aion_schemas::log::{Offset, Partition, Stream};
use aion_sinks::lake::read::{LiveFile, Snapshot};
use arrow::datatypes::SchemaRef;
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
    physical_plan::{ExecutionPlan, empty::EmptyExec},
    scalar::ScalarValue,
};
use tokio::sync::OnceCell;

use crate::{
    lake::{Lake, store_url},
    tables::{DATE_COLUMN, Definition},
};

/// A table of the lake, for one query.
#[derive(Debug)]
pub(crate) struct Stored {
    definition: Arc<Definition>,
    lake: Arc<Lake>,
    snapshot: OnceCell<Option<Arc<Snapshot>>>,
}

impl Stored {
    /// The table, not looked at yet.
    pub(crate) fn new(definition: Arc<Definition>, lake: Arc<Lake>) -> Stored {
        Stored { definition, lake, snapshot: OnceCell::new() }
    }

    /// What the table is called and made of.
    pub(crate) fn definition(&self) -> &Arc<Definition> {
        &self.definition
    }

    /// The marks of the snapshot: the next offset that the table wants of each partition.
    pub(crate) async fn marks(&self) -> Result<Vec<(Partition, Offset)>> {
        let Some(snapshot) = self.snapshot().await? else { return Ok(Vec::new()) };
        let topic = &self.definition.topic;
        let marks = snapshot.marks.iter().map(|((id, number), mark)| {
            let stream = Stream { topic: Arc::clone(topic), id: *id };
            (Partition { stream, number: *number }, mark.offset)
        });
        Ok(marks.collect())
    }

    async fn snapshot(&self) -> Result<Option<&Arc<Snapshot>>> {
        let take = || self.lake.snapshot(&self.definition.table);
        Ok(self.snapshot.get_or_try_init(take).await?.as_ref())
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
        let schema = project_schema(&self.schema(), projection)?;
        let Some(snapshot) = self.snapshot().await? else {
            return Ok(Arc::new(EmptyExec::new(schema)));
        };
        let files = prune::kept(state, &self.definition.schema, filters, &snapshot.files)?;
        tracing::debug!(
            table = %self.definition.table,
            version = snapshot.version,
            files = snapshot.files.len(),
            kept = files.len(),
            "scan"
        );
        if files.is_empty() {
            return Ok(Arc::new(EmptyExec::new(schema)));
        }
        self.scan_files(state, &files, projection, limit)
    }
}
