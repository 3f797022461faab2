//! A condition in SQL over batches that aren't in any lake, such as events that were just read.

use arrow::{
    array::{Array, AsArray},
    datatypes::{DataType, SchemaRef},
    record_batch::RecordBatch,
};
use datafusion::{
    common::DFSchema, error::DataFusionError, execution::context::SessionContext,
    physical_plan::PhysicalExpr,
};
use std::sync::Arc;

use crate::error::{Bounds, Error, explain};

/// A compiled condition.
#[derive(Debug)]
pub struct Filter {
    condition: Arc<dyn PhysicalExpr>,
}

impl Filter {
    /// Compiles `text`, such as `route = 'cloud' and size > 1000`, over these columns.
    pub fn new(text: &str, columns: &SchemaRef) -> Result<Filter, Error> {
        let explain = |cause: DataFusionError| explain(&cause, &Bounds::default());
        let schema = DFSchema::try_from(columns.as_ref().clone()).map_err(explain)?;
        let context = SessionContext::new();
        let parsed = context.parse_sql_expr(text, &schema).map_err(explain)?;
        let condition = context.create_physical_expr(parsed, &schema).map_err(explain)?;
        let kind = condition.data_type(columns).map_err(explain)?;
        if !matches!(kind, DataType::Boolean | DataType::Null) {
            return Err(Error::Query(format!(
                "`{text}` is of type {kind}: a condition is true or false, such as route = 'cloud'"
            )));
        }
        Ok(Filter { condition })
    }

    /// For each row whether it fulfils the condition; unknown is no.
    pub fn keeps(&self, batch: &RecordBatch) -> Result<Vec<bool>, Error> {
        let rows = batch.num_rows();
        let found = self.condition.evaluate(batch).and_then(|value| value.into_array(rows));
        let found = found.map_err(|cause| explain(&cause, &Bounds::default()))?;
        if found.data_type() == &DataType::Null {
            return Ok(vec![false; rows]);
        }
        let found = found.as_boolean();
        Ok((0..rows).map(|row| found.is_valid(row) && found.value(row)).collect())
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use arrow::{
        array::{Int64Array, StringArray},
        datatypes::{Field, Schema},
    };

    use super::*;

    fn batch() -> RecordBatch {
        let fields = vec![
            Field::new("route", DataType::Utf8, true),
            Field::new("size", DataType::Int64, true),
        ];
        let routes = StringArray::from(vec![Some("cloud"), Some("local"), None]);
        let sizes = Int64Array::from(vec![Some(5), None, Some(7)]);
        let schema = Arc::new(Schema::new(fields));
        RecordBatch::try_new(schema, vec![Arc::new(routes), Arc::new(sizes)]).unwrap()
    }

    #[test]
    fn conditions_keep_what_is_true_and_nothing_unknown() {
        let batch = batch();
        for (text, wanted) in [
            ("route = 'cloud'", [true, false, false]),
            ("route <> 'cloud'", [false, true, false]),
            ("size between 6 and 8 or route like 'l%'", [false, true, true]),
            ("route is null", [false, false, true]),
            ("upper(route) = 'LOCAL'", [false, true, false]),
            ("null", [false, false, false]),
            ("1 = 1", [true, true, true]),
        ] {
            let filter = Filter::new(text, &batch.schema()).unwrap();
            assert_eq!(filter.keeps(&batch).unwrap(), wanted, "{text}");
        }
    }

    #[test]
    fn what_is_no_condition_is_refused_with_advice() {
        let columns = batch().schema();
        for (text, wanted) in [
            ("rout = 'cloud'", "did you mean `route`?"),
            ("size", "Int64"),
            ("route =", "an expression"),
            ("", "xpected"),
        ] {
            let error = Filter::new(text, &columns).unwrap_err().to_string();
            assert!(error.contains(wanted), "{text}: {error}");
        }
    }
}
