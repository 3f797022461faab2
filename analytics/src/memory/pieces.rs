//! A projection that makes as many rows at a time as their length allows, and measures what it made.

use std::sync::Arc;

use arrow::{
    datatypes::SchemaRef,
    record_batch::{RecordBatch, RecordBatchOptions},
};
use datafusion::{
    common::{DataFusionError, Result},
    execution::SendableRecordBatchStream,
    physical_expr::PhysicalExpr,
};
use futures::{Stream, TryStreamExt, stream};

use super::{Limits, sizes::of_rows, work::is_too_much_work};

/// So many rows are made before anything is known of their length.
const FIRST_ROWS: usize = 64;
/// The next piece has so many times the rows of the last one at most.
const GROWS_BY: usize = 8;

struct Pieces {
    rows: SendableRecordBatchStream,
    /// What isn't made yet of the last batch.
    rest: Option<RecordBatch>,
    /// Rows of the next piece.
    next: usize,
}

/// The columns `wanted` of `rows`.
pub(super) fn projected(
    rows: SendableRecordBatchStream,
    wanted: Vec<Arc<dyn PhysicalExpr>>,
    schema: SchemaRef,
    limits: Limits,
) -> impl Stream<Item = Result<RecordBatch>> + Send {
    let wanted = Arc::new(wanted);
    let begun = Pieces { rows, rest: None, next: FIRST_ROWS };
    stream::try_unfold(begun, move |mut pieces| {
        let (wanted, schema) = (Arc::clone(&wanted), Arc::clone(&schema));
        async move {
            loop {
                if pieces.rest.as_ref().is_none_or(|rest| rest.num_rows() == 0) {
                    pieces.rest = pieces.rows.try_next().await?;
                }
                let Some(rest) = &pieces.rest else { return Ok(None) };
                let count = pieces.next.min(rest.num_rows());
                if count == 0 {
                    continue;
                }
                let made = match project(&rest.slice(0, count), &wanted, &schema) {
                    Err(cause) if count > 1 && is_too_much(&cause) => {
                        pieces.next = count / 2;
                        continue;
                    }
                    made => made?,
                };
                let bytes = of_rows(&made);
                if bytes > limits.row_bytes * count {
                    return Err(limits.too_long(bytes / count));
                }
                pieces.next = next(count, bytes, limits.piece_bytes);
                pieces.rest = Some(rest.slice(count, rest.num_rows() - count));
                return Ok(Some((made, pieces)));
            }
        }
    })
}

fn project(
    rows: &RecordBatch,
    wanted: &[Arc<dyn PhysicalExpr>],
    schema: &SchemaRef,
) -> Result<RecordBatch> {
    let column = |one: &Arc<dyn PhysicalExpr>| one.evaluate(rows)?.into_array(rows.num_rows());
    let columns = wanted.iter().map(column).collect::<Result<Vec<_>>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    Ok(RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)?)
}

fn is_too_much(cause: &DataFusionError) -> bool {
    matches!(cause.find_root(), DataFusionError::ResourcesExhausted(_)) || is_too_much_work(cause)
}

/// How many rows to make after `count` rows took so many bytes.
fn next(count: usize, bytes: usize, wanted_bytes: usize) -> usize {
    let fit = (wanted_bytes as u128 * count as u128 / bytes.max(1) as u128) as usize;
    fit.clamp(1, count.saturating_mul(GROWS_BY))
}

#[cfg(test)]
mod tests {
    use super::next;

    #[test]
    fn pieces_have_more_rows_while_they_are_short_and_fewer_once_they_are_long() {
        assert_eq!(next(64, 640, 1 << 20), 512);
        assert_eq!(next(512, 1 << 20, 1 << 20), 512);
        assert_eq!(next(512, 1 << 30, 1 << 20), 1);
        assert_eq!(next(1, 0, 1 << 20), 8);
    }
}
