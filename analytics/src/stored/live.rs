//! Rows that are not in any file yet, in the shape of the table.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray, Date32Array, new_null_array},
    compute::{cast, filter_record_batch},
    datatypes::{Field, SchemaRef, TimestampMicrosecondType},
    record_batch::{RecordBatch, RecordBatchOptions},
};
use datafusion::{
    catalog::Session,
    common::project_schema,
    datasource::{memory::MemorySourceConfig, source::DataSourceExec},
    error::Result,
    logical_expr::{Expr, utils::conjunction},
    physical_plan::ExecutionPlan,
};

use super::prune;
use crate::{
    holdings::Holdings,
    tables::{DATE_COLUMN, Definition},
};

const DAY_US: i64 = 86_400_000_000;

/// Scans the rows of the tail: those of the wanted dates, the wanted columns. `None` where there are none.
pub(super) fn scan(
    state: &dyn Session,
    (definition, holdings): (&Definition, &Holdings),
    (live, projection, filters): (&[RecordBatch], Option<&Vec<usize>>, &[Expr]),
) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    let schema = project_schema(&definition.schema, projection)?;
    let by_date = conjunction(filters.iter().filter(|one| prune::is_by_date(one)).cloned());
    let mut batches = Vec::with_capacity(live.len());
    for rows in live {
        let dates = dates(rows, &definition.event_time);
        let kept = match &by_date {
            Some(filter) => {
                let mask =
                    prune::by_dates(state, &definition.schema, filter.clone(), dates.clone())?;
                filter_record_batch(&with_date(rows, dates)?, &mask)?
            }
            None => with_date(rows, dates)?,
        };
        if kept.num_rows() > 0 {
            batches.push(shaped(&kept, &schema)?);
        }
    }
    if batches.is_empty() {
        return Ok(None);
    }
    let bytes = batches.iter().map(RecordBatch::get_array_memory_size).sum();
    holdings.take(&state.runtime_env().memory_pool, "rows that are not committed yet", bytes)?;
    let source = MemorySourceConfig::try_new(&[batches], schema, None)?;
    Ok(Some(DataSourceExec::from_data_source(source)))
}

/// The day of each row's event time, as the lake's folders have it.
fn dates(rows: &RecordBatch, event_time: &str) -> Date32Array {
    let Some(times) = rows.column_by_name(event_time) else {
        return Date32Array::new_null(rows.num_rows());
    };
    let times = times.as_primitive::<TimestampMicrosecondType>();
    times.iter().map(|time| time.map(|time| time.div_euclid(DAY_US) as i32)).collect()
}

fn with_date(rows: &RecordBatch, dates: Date32Array) -> Result<RecordBatch> {
    let schema = rows.schema();
    let date = Arc::new(Field::new(DATE_COLUMN, dates.data_type().clone(), true));
    let fields: Vec<_> = schema.fields().iter().cloned().chain([date]).collect();
    let mut columns = rows.columns().to_vec();
    columns.push(Arc::new(dates));
    Ok(RecordBatch::try_new(Arc::new(arrow::datatypes::Schema::new(fields)), columns)?)
}

/// The columns of `schema`, by name; text becomes views of the same bytes.
fn shaped(rows: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let column = |field: &Arc<Field>| -> Result<ArrayRef> {
        match rows.column_by_name(field.name()) {
            Some(column) => Ok(cast(column, field.data_type())?),
            None => Ok(new_null_array(field.data_type(), rows.num_rows())),
        }
    };
    let columns = schema.fields().iter().map(column).collect::<Result<Vec<_>>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    Ok(RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)?)
}
