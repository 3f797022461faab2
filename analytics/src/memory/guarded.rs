//! Parts of a plan that would take more memory than anyone counts, and what is put in their place.
//!
//! | part | what could happen | instead |
//! |---|---|---|
//! | a projection that makes long values | a batch of 8192 rows becomes gigabytes | a few rows at a time, as their length allows |
//! | a sort of text | each batch that it gets or gives counts as all of the text | batches of their own text |
//! | an operator that keeps what it gets, uncounted | all of a table in memory | what it is given is counted until it ends |

use std::{fmt, sync::Arc};

use arrow::datatypes::{DataType, SchemaRef};
use datafusion::{
    common::{
        DataFusionError, Result,
        tree_node::{Transformed, TreeNode, TreeNodeRecursion},
    },
    execution::{SendableRecordBatchStream, TaskContext},
    logical_expr::{Operator, WindowFrameBound},
    physical_expr::{
        PhysicalExpr, ScalarFunctionExpr, expressions::BinaryExpr, window::WindowExpr,
    },
    physical_plan::{
        ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties,
        ReplaceChildrenOptions,
        aggregates::AggregateExec,
        projection::ProjectionExec,
        sorts::sort::SortExec,
        stream::RecordBatchStreamAdapter,
        windows::{BoundedWindowAggExec, WindowAggExec},
    },
};

use super::{
    Limits, compact,
    growth::asks,
    held::{self, What},
    pieces,
};

/// The plan with such parts replaced.
pub(crate) fn guarded(
    plan: Arc<dyn ExecutionPlan>,
    limits: Limits,
) -> Result<Arc<dyn ExecutionPlan>> {
    let guarded = plan.transform_up(|node| {
        if let Some(projection) = node.downcast_ref::<ProjectionExec>() {
            let input = Arc::clone(projection.input());
            if projection.expr().iter().any(|one| makes_more(&one.expr)) {
                return Ok(Transformed::yes(Guarded::placed(node, input, How::Pieces(limits))));
            }
        } else if let Some(sort) = node.downcast_ref::<SortExec>()
            && compact::applies(&node.schema())
        {
            let input = Arc::clone(sort.input());
            // One that keeps a few rows of all isn't worth it.
            let keeps_all = sort.fetch().is_none();
            let node = if keeps_all { above(node, compacted(input))? } else { node };
            return Ok(Transformed::yes(compacted(node)));
        } else if let Some(what) = kept(&node) {
            let input = Arc::clone(node.children()[0]);
            let counted = Guarded::placed(Arc::clone(&input), input, How::Held(what));
            return above(node, counted).map(Transformed::yes);
        }
        Ok(Transformed::no(node))
    });
    guarded.map(|plan| plan.data)
}

fn compacted(node: Arc<dyn ExecutionPlan>) -> Arc<dyn ExecutionPlan> {
    Guarded::placed(Arc::clone(&node), node, How::Compacted)
}

const RECOMPUTED: ReplaceChildrenOptions =
    ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute);

/// An operator above another input.
fn above(
    node: Arc<dyn ExecutionPlan>,
    input: Arc<dyn ExecutionPlan>,
) -> Result<Arc<dyn ExecutionPlan>> {
    node.replace_children(vec![input], RECOMPUTED)
}

/// Whether values may be longer than those that they are made of.
fn makes_more(expression: &Arc<dyn PhysicalExpr>) -> bool {
    let here = if let Some(call) = expression.downcast_ref::<ScalarFunctionExpr>() {
        asks(call.fun())
    } else {
        let binary = expression.downcast_ref::<BinaryExpr>();
        binary.is_some_and(|binary| *binary.op() == Operator::StringConcat)
    };
    here || expression.children().into_iter().any(makes_more)
}

/// What an operator keeps of its input without counting it.
fn kept(node: &Arc<dyn ExecutionPlan>) -> Option<What> {
    if let Some(aggregate) = node.downcast_ref::<AggregateExec>() {
        let mut functions = aggregate.aggr_expr().iter();
        return functions.any(|one| one.fun().name() == "array_agg").then_some(What::TextOfViews);
    }
    if let Some(windows) = node.downcast_ref::<WindowAggExec>() {
        return Some(if grows(windows.window_expr()) { What::Squared } else { What::All });
    }
    let windows = node.downcast_ref::<BoundedWindowAggExec>()?.window_expr();
    let looks_ahead = |one: &Arc<dyn WindowExpr>| {
        matches!(one.get_window_frame().end_bound, WindowFrameBound::Following(_))
    };
    if grows(windows) {
        Some(What::Squared)
    } else {
        windows.iter().any(looks_ahead).then_some(What::All)
    }
}

/// Whether each row has values that are as long as all before it together: `array_agg`, `string_agg`.
fn grows(windows: &[Arc<dyn WindowExpr>]) -> bool {
    let long = |one: &Arc<dyn WindowExpr>| {
        let field = one.field().ok()?;
        Some(matches!(
            field.data_type(),
            DataType::List(_) | DataType::LargeList(_) | DataType::LargeUtf8
        ))
    };
    windows.iter().any(|one| long(one).unwrap_or(true))
}

#[derive(Clone, Copy, Debug)]
enum How {
    Pieces(Limits),
    Compacted,
    Held(What),
}

/// What stands in place of a projection, or between an operator and its input.
#[derive(Debug)]
struct Guarded {
    /// Whose rows it gives.
    shape: Arc<dyn ExecutionPlan>,
    input: Arc<dyn ExecutionPlan>,
    how: How,
}

impl Guarded {
    fn placed(
        shape: Arc<dyn ExecutionPlan>,
        input: Arc<dyn ExecutionPlan>,
        how: How,
    ) -> Arc<dyn ExecutionPlan> {
        Arc::new(Guarded { shape, input, how })
    }
}

impl DisplayAs for Guarded {
    fn fmt_as(&self, kind: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.how {
            How::Pieces(_) => {
                f.write_str("InPieces: ")?;
                self.shape.fmt_as(kind, f)
            }
            How::Compacted | How::Held(_) => f.write_str(self.name()),
        }
    }
}

impl ExecutionPlan for Guarded {
    fn name(&self) -> &'static str {
        match self.how {
            How::Pieces(_) => "InPieces",
            How::Compacted => "Compacted",
            How::Held(_) => "Counted",
        }
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.shape.properties()
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        visit: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        match self.how {
            How::Pieces(_) => self.shape.apply_expressions(visit),
            How::Compacted | How::Held(_) => Ok(TreeNodeRecursion::Continue),
        }
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, RECOMPUTED)
    }

    fn replace_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let (Some(input), None) = (children.pop(), children.pop()) else {
            return Err(DataFusionError::Internal("it has one input".to_owned()));
        };
        let shape = match self.how {
            How::Pieces(_) => above(Arc::clone(&self.shape), Arc::clone(&input))?,
            How::Compacted | How::Held(_) => Arc::clone(&input),
        };
        Ok(Guarded::placed(shape, input, self.how))
    }

    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        let schema: SchemaRef = self.shape.schema();
        let rows = self.input.execute(partition, Arc::clone(&context))?;
        Ok(match (self.how, self.shape.downcast_ref::<ProjectionExec>()) {
            (How::Pieces(limits), Some(projection)) => {
                let wanted = projection.expr().iter().map(|one| Arc::clone(&one.expr)).collect();
                let rows = pieces::projected(rows, wanted, Arc::clone(&schema), limits);
                Box::pin(RecordBatchStreamAdapter::new(schema, rows))
            }
            (How::Pieces(_), None) => self.shape.execute(partition, context)?,
            (How::Compacted, _) => {
                Box::pin(RecordBatchStreamAdapter::new(schema, compact::compacted(rows)))
            }
            (How::Held(what), _) => {
                let rows = held::counted(rows, what, context.memory_pool());
                Box::pin(RecordBatchStreamAdapter::new(schema, rows))
            }
        })
    }
}
