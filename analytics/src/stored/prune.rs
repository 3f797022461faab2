//! Which files of a snapshot a query has to look at.

use std::{collections::HashSet, sync::Arc};

use aion_sinks::lake::read::LiveFile;
use arrow::{
    array::{Array, ArrayRef, AsArray, BooleanArray, Date32Array, UInt64Array},
    datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit},
    record_batch::RecordBatch,
};
use datafusion::{
    catalog::Session,
    common::{Column, DFSchema, pruning::PruningStatistics},
    datasource::listing::helpers::expr_applicable_for_cols,
    error::Result,
    logical_expr::{Expr, utils::conjunction},
    physical_optimizer::pruning::PruningPredicateBuilder,
    scalar::ScalarValue,
};

use crate::tables::DATE_COLUMN;

/// Whether a filter speaks of the date alone: the file list then settles it, row by row of the
/// answer.
pub(super) fn is_by_date(filter: &Expr) -> bool {
    is_by(DATE_COLUMN, filter)
}

/// Whether a filter speaks of that column alone.
pub(crate) fn is_by(column: &str, filter: &Expr) -> bool {
    !filter.column_refs().is_empty() && expr_applicable_for_cols(&[column], filter)
}

/// The files that may hold rows which pass all filters; for filters by date, exactly those that do.
pub(super) fn kept<'a>(
    state: &dyn Session,
    schema: &SchemaRef,
    filters: &[Expr],
    files: &'a [Arc<LiveFile>],
) -> Result<Vec<&'a LiveFile>> {
    let (by_date, others): (Vec<_>, Vec<_>) = filters.iter().cloned().partition(is_by_date);
    let mut kept: Vec<&LiveFile> = files.iter().map(|file| &**file).collect();
    if let Some(filter) = conjunction(by_date) {
        let dates = kept.iter().map(|file| file.date).collect();
        let mask = by_dates(state, schema, filter, dates)?;
        keep(&mut kept, |file| mask.value(file) && mask.is_valid(file));
    }
    if let Some(filter) = conjunction(others) {
        let physical =
            state.create_physical_expr(filter, &DFSchema::try_from(Arc::clone(schema))?)?;
        let predicate =
            PruningPredicateBuilder::new().with_file_schema(Arc::clone(schema)).build(physical);
        if let Some(predicate) = predicate {
            let mask = predicate.prune(&Files { schema, files: &kept })?;
            keep(&mut kept, |file| mask[file]);
        }
    }
    Ok(kept)
}

fn keep(files: &mut Vec<&LiveFile>, wanted: impl Fn(usize) -> bool) {
    let mut index = 0..files.len();
    files.retain(|_| index.next().is_some_and(&wanted));
}

/// Evaluates a filter on the date alone.
pub(super) fn by_dates(
    state: &dyn Session,
    schema: &SchemaRef,
    filter: Expr,
    dates: Date32Array,
) -> Result<BooleanArray> {
    let date = schema.field_with_name(DATE_COLUMN)?.clone();
    by_values(state, date, Arc::new(dates), filter)
}

/// Evaluates a filter that speaks of one column alone.
pub(crate) fn by_values(
    state: &dyn Session,
    column: Field,
    values: ArrayRef,
    filter: Expr,
) -> Result<BooleanArray> {
    let schema = Arc::new(Schema::new(vec![column]));
    let physical = state.create_physical_expr(filter, &DFSchema::try_from(Arc::clone(&schema))?)?;
    let batch = RecordBatch::try_new(schema, vec![values])?;
    let answer = physical.evaluate(&batch)?.into_array(batch.num_rows())?;
    Ok(answer.as_boolean().clone())
}

/// What the snapshot knows of its files, for DataFusion's pruning.
struct Files<'a> {
    schema: &'a SchemaRef,
    files: &'a [&'a LiveFile],
}

impl Files<'_> {
    /// One end of a column's range for each file, null where it is not known; `None` where no file
    /// knows it.
    fn ends(&self, column: &Column, end: fn(Ends) -> ScalarValue) -> Option<ArrayRef> {
        let field = self.schema.field_with_name(column.name()).ok()?;
        let unknown = ScalarValue::try_from(field.data_type()).ok()?;
        let ranges: Vec<_> = self.files.iter().map(|file| range(file, field)).collect();
        ranges.iter().any(Option::is_some).then_some(())?;
        let ends = ranges.into_iter().map(|range| range.map_or_else(|| unknown.clone(), end));
        ScalarValue::iter_to_array(ends).ok()
    }
}

type Ends = (ScalarValue, ScalarValue);

/// Values that all values of a column in a file lie between, where they are known.
pub(super) fn range(file: &LiveFile, field: &Field) -> Option<Ends> {
    if field.name() == DATE_COLUMN {
        let date = ScalarValue::Date32(Some(file.date?));
        return Some((date.clone(), date));
    }
    let (least, greatest) = *file.ranges.get(field.name().as_str())?;
    let scalar = |value: i64| match field.data_type() {
        DataType::Int32 => Some(ScalarValue::Int32(Some(value.try_into().ok()?))),
        DataType::Int64 => Some(ScalarValue::Int64(Some(value))),
        DataType::Timestamp(TimeUnit::Microsecond, zone) => {
            Some(ScalarValue::TimestampMicrosecond(Some(value), zone.clone()))
        }
        _ => None,
    };
    Some((scalar(least)?, scalar(greatest)?))
}

impl PruningStatistics for Files<'_> {
    fn min_values(&self, column: &Column) -> Option<ArrayRef> {
        self.ends(column, |(least, _)| least)
    }

    fn max_values(&self, column: &Column) -> Option<ArrayRef> {
        self.ends(column, |(_, greatest)| greatest)
    }

    fn num_containers(&self) -> usize {
        self.files.len()
    }

    fn null_counts(&self, _: &Column) -> Option<ArrayRef> {
        None
    }

    fn row_counts(&self) -> Option<ArrayRef> {
        Some(Arc::new(self.files.iter().map(|file| file.rows).collect::<UInt64Array>()))
    }

    fn contained(&self, _: &Column, _: &HashSet<ScalarValue>) -> Option<BooleanArray> {
        None
    }
}
