//! What a condition fails with that Parquet's reader filters by.
//!
//! The reader passes such a failure on as a text among errors of its own: a division by zero, or a text that would be too long,
//! would look like a file that can't be read. So it is put down here, for whoever says what was the matter.
//!
//! **Invariant:** files and pages are left out by such a condition as before: whoever looks for its bounds asks for its snapshot, and
//! gets the condition itself.

use std::{
    fmt,
    hash::{Hash, Hasher},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use arrow::{
    datatypes::{FieldRef, Schema},
    record_batch::RecordBatch,
};
use datafusion::{
    common::{
        Result,
        tree_node::{Transformed, TreeNode, TreeNodeRecursion},
    },
    datasource::{
        physical_plan::{FileScanConfigBuilder, FileSource, ParquetSource},
        source::DataSourceExec,
    },
    error::DataFusionError,
    execution::{SendableRecordBatchStream, TaskContext},
    logical_expr::ColumnarValue,
    physical_expr::{PhysicalExpr, conjunction, split_conjunction},
    physical_expr_common::physical_expr::snapshot_generation,
    physical_plan::{
        DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties, metrics::MetricsSet,
    },
};

/// What the reader's text has of it.
const PUT_DOWN: &str = "a condition failed, and why was put down";

/// The plan with the conditions replaced that Parquet's reader filters by. They are given with the columns of the files.
pub(super) fn with_conditions(
    plan: Arc<dyn ExecutionPlan>,
    replaced: impl Fn(&Arc<dyn PhysicalExpr>, &Schema) -> Result<Arc<dyn PhysicalExpr>>,
) -> Result<Arc<dyn ExecutionPlan>> {
    let plan = plan.transform_up(|node| {
        if let Some(scan) = node.downcast_ref::<DataSourceExec>()
            && let Some((config, parquet)) = scan.downcast_to_file_source::<ParquetSource>()
            && let Some(condition) = parquet.filter()
        {
            let replaced = replaced(&condition, config.file_schema())?;
            if !Arc::ptr_eq(&replaced, &condition) {
                let source = Arc::new(parquet.with_predicate(replaced));
                let config = FileScanConfigBuilder::from(config.clone()).with_source(source);
                let scan = DataSourceExec::from_data_source(config.build());
                return Ok(Transformed::yes(Arc::new(Scan { scan, planned: node }) as _));
            }
        }
        Ok(Transformed::no(node))
    });
    plan.map(|plan| plan.data)
}

/// A scan with other conditions than the plan was made for: of a plan that is carried out, and no longer improved.
///
/// **Invariant:** what is known of its rows is what was known then: that a column has one value only, say, on which operators above
/// it rely.
#[derive(Debug)]
struct Scan {
    scan: Arc<dyn ExecutionPlan>,
    planned: Arc<dyn ExecutionPlan>,
}

impl DisplayAs for Scan {
    fn fmt_as(&self, kind: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.scan.fmt_as(kind, f)
    }
}

impl ExecutionPlan for Scan {
    fn name(&self) -> &str {
        self.scan.name()
    }

    fn downcast_delegate(&self) -> Option<&dyn ExecutionPlan> {
        Some(self.scan.as_ref())
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.planned.properties()
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn apply_expressions(
        &self,
        visit: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        self.scan.apply_expressions(visit)
    }

    fn with_new_children(
        self: Arc<Self>,
        _: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        self.scan.execute(partition, context)
    }

    fn metrics(&self) -> Option<MetricsSet> {
        self.scan.metrics()
    }
}

/// What the conditions of one query failed with: the first of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Failures(Arc<Mutex<Option<DataFusionError>>>);

impl Failures {
    /// The plan with conditions that put down here what they fail with.
    pub(super) fn told_by(&self, plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
        with_conditions(plan, |condition, _| Ok(self.of_each(condition)))
    }

    /// Each part by itself: the reader looks at those first that read least.
    fn of_each(&self, condition: &Arc<dyn PhysicalExpr>) -> Arc<dyn PhysicalExpr> {
        conjunction(split_conjunction(condition).into_iter().map(|part| {
            // Those that grow while the query runs are the engine's own, and compare what is there.
            let grows = snapshot_generation(part) != 0;
            let part = Arc::clone(part);
            if grows { part } else { self.of_one(part) }
        }))
    }

    fn of_one(&self, condition: Arc<dyn PhysicalExpr>) -> Arc<dyn PhysicalExpr> {
        Arc::new(Recorded { condition, failures: self.clone() })
    }

    fn first(&self) -> MutexGuard<'_, Option<DataFusionError>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts down why a condition failed. What is returned says so.
    fn put_down(&self, cause: DataFusionError) -> DataFusionError {
        self.first().get_or_insert(cause);
        DataFusionError::Execution(PUT_DOWN.to_owned())
    }

    /// What was put down, where `cause` says so; else that itself.
    pub(super) fn behind(&self, cause: DataFusionError) -> DataFusionError {
        if cause.to_string().contains(PUT_DOWN) {
            self.first().take().unwrap_or(cause)
        } else {
            cause
        }
    }
}

/// A condition that puts down what it fails with.
#[derive(Debug)]
struct Recorded {
    condition: Arc<dyn PhysicalExpr>,
    failures: Failures,
}

impl PartialEq for Recorded {
    fn eq(&self, other: &Recorded) -> bool {
        self.condition.eq(&other.condition)
    }
}

impl Eq for Recorded {}

impl Hash for Recorded {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.condition.hash(state);
    }
}

impl fmt::Display for Recorded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.condition.fmt(f)
    }
}

impl PhysicalExpr for Recorded {
    fn evaluate(&self, rows: &RecordBatch) -> Result<ColumnarValue> {
        self.condition.evaluate(rows).map_err(|cause| self.failures.put_down(cause))
    }

    fn return_field(&self, schema: &Schema) -> Result<FieldRef> {
        self.condition.return_field(schema)
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        vec![&self.condition]
    }

    fn with_new_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn PhysicalExpr>>,
    ) -> Result<Arc<dyn PhysicalExpr>> {
        let condition = children.pop().unwrap_or_else(|| Arc::clone(&self.condition));
        Ok(self.failures.of_one(condition))
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.condition.fmt_sql(f)
    }

    fn snapshot(&self) -> Result<Option<Arc<dyn PhysicalExpr>>> {
        Ok(Some(Arc::clone(&self.condition)))
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use arrow::{
        array::{AsArray, Int64Array},
        datatypes::{DataType, Field},
        error::ArrowError,
    };
    use datafusion::{
        common::DFSchema,
        execution::{context::SessionContext, object_store::ObjectStoreUrl},
        physical_plan::displayable,
    };

    use super::*;

    fn schema() -> Arc<Schema> {
        Arc::new(Schema::new(vec![Field::new("size", DataType::Int64, true)]))
    }

    fn condition(text: &str) -> Arc<dyn PhysicalExpr> {
        let schema = DFSchema::try_from(schema()).unwrap();
        let context = SessionContext::new();
        let parsed = context.parse_sql_expr(text, &schema).unwrap();
        context.create_physical_expr(parsed, &schema).unwrap()
    }

    #[test]
    fn each_part_is_told_by_itself_and_why_the_first_failed_is_found_behind_a_text() {
        let sizes = Int64Array::from(vec![5, 7]);
        let rows = RecordBatch::try_new(schema(), vec![Arc::new(sizes)]).unwrap();
        let failures = Failures::default();
        let plain = condition("size > 5 and 10 / (size - 7) > 1 and size < 9");
        let told = failures.of_each(&plain);
        let parts = split_conjunction(&told);
        assert_eq!(parts.len(), 3);
        assert!(parts.iter().all(|part| part.downcast_ref::<Recorded>().is_some()));
        let passed = parts[0].evaluate(&rows).unwrap().into_array(2).unwrap();
        assert_eq!(passed.as_boolean().values().iter().collect::<Vec<_>>(), [false, true]);
        let cause = parts[1].evaluate(&rows).unwrap_err();
        // As the reader does it.
        let text = DataFusionError::Execution(format!("evaluate: {cause:?}"));
        match failures.behind(text) {
            DataFusionError::ArrowError(found, _) => {
                assert!(matches!(*found, ArrowError::DivideByZero), "{found}");
            }
            other => panic!("{other:?}"),
        }
        // What says nothing of it is left as it is.
        let other = failures.behind(DataFusionError::Execution("gone".to_owned()));
        assert!(other.to_string().contains("gone"), "{other}");
    }

    #[test]
    fn what_is_known_of_rows_stays_known() {
        let source = ParquetSource::new(schema()).with_predicate(condition("size = 5"));
        let place = ObjectStoreUrl::local_filesystem();
        let config = FileScanConfigBuilder::new(place, Arc::new(source)).build();
        let plain: Arc<dyn ExecutionPlan> = DataSourceExec::from_data_source(config);
        let told = Failures::default().told_by(Arc::clone(&plain)).unwrap();
        let has_one_value = |plan: &Arc<dyn ExecutionPlan>| {
            let size = condition("size = 5").children()[0].clone();
            plan.properties().equivalence_properties().is_expr_constant(&size).is_some()
        };
        assert!(has_one_value(&plain) && has_one_value(&told));
    }

    #[test]
    fn files_are_left_out_as_before() {
        let source = ParquetSource::new(schema()).with_predicate(condition("size > 5"));
        let place = ObjectStoreUrl::local_filesystem();
        let config = FileScanConfigBuilder::new(place, Arc::new(source)).build();
        let plain: Arc<dyn ExecutionPlan> = DataSourceExec::from_data_source(config);
        let told = Failures::default().told_by(Arc::clone(&plain)).unwrap();
        let scan = told.downcast_ref::<DataSourceExec>().unwrap();
        let (_, source) = scan.downcast_to_file_source::<ParquetSource>().unwrap();
        assert!(format!("{:?}", source.filter()).contains("Recorded"));
        let [plain, told] =
            [plain, told].map(|plan| displayable(plan.as_ref()).indent(false).to_string());
        // The bounds by which they are left out are shown beside what they come from.
        assert!(plain.contains("size_max@"), "{plain}");
        assert_eq!(told, plain);
    }
}
