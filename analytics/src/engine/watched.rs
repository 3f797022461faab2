//! Lets go of a thread that a join would keep.
//!
//! A join by an inequality compares each row with each, in one go as long as it finds nothing: it looks up neither when
//! its time is over nor when its client is gone, and whoever waits for its thread waits with them. So its condition looks up.

use std::{
    fmt,
    hash::{Hash, Hasher},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use arrow::{
    datatypes::{DataType, FieldRef, Schema},
    record_batch::RecordBatch,
};
use datafusion::{
    common::{Result, tree_node::Transformed},
    logical_expr::ColumnarValue,
    physical_expr::PhysicalExpr,
    physical_plan::{
        ExecutionPlan,
        joins::{HashJoinExec, NestedLoopJoinExec, NestedLoopJoinExecBuilder, utils::JoinFilter},
    },
};
use tokio::{sync::mpsc, task::block_in_place};

use super::{allowed::Allowed, answer::Message};
use crate::error::Error;

/// A condition looks up each time that it has compared so many batches: about a millisecond.
const LOOKS_UP_EVERY: u32 = 32;

/// Until when a query may run, and for whom.
#[derive(Clone, Debug)]
pub(super) struct Until {
    pub(super) allowed: Allowed,
    pub(super) client: mpsc::Sender<Message>,
}

impl Until {
    /// Fails once nobody waits for the query any more, its time is over, or the engine stops.
    pub(super) fn check(&self) -> Result<()> {
        if self.client.is_closed() {
            return Err(Error::Internal("nobody waits for it any more".into()).into());
        }
        self.allowed.check().map_err(Into::into)
    }

    /// A join whose condition looks up.
    pub(super) fn watched(
        &self,
        node: Arc<dyn ExecutionPlan>,
    ) -> Result<Transformed<Arc<dyn ExecutionPlan>>> {
        let watched = |filter: &JoinFilter| {
            let condition = Arc::clone(filter.expression());
            let watched = Watched { condition, until: self.clone(), compared: AtomicU32::new(0) };
            let places = filter.column_indices().to_vec();
            Some(JoinFilter::new(Arc::new(watched), places, Arc::clone(filter.schema())))
        };
        if let Some(join) = node.downcast_ref::<NestedLoopJoinExec>() {
            let Some(filter) = join.filter() else { return Ok(Transformed::no(node)) };
            let join =
                NestedLoopJoinExecBuilder::from(join).with_filter(watched(filter)).build()?;
            return Ok(Transformed::yes(Arc::new(join)));
        }
        if let Some(join) = node.downcast_ref::<HashJoinExec>() {
            let Some(filter) = join.filter() else { return Ok(Transformed::no(node)) };
            let join = join.builder().with_filter(watched(filter)).build()?;
            return Ok(Transformed::yes(Arc::new(join)));
        }
        Ok(Transformed::no(node))
    }
}

/// A condition that looks up.
#[derive(Debug)]
struct Watched {
    condition: Arc<dyn PhysicalExpr>,
    until: Until,
    compared: AtomicU32,
}

impl PartialEq for Watched {
    fn eq(&self, other: &Watched) -> bool {
        self.condition.eq(&other.condition)
    }
}

impl Eq for Watched {}

impl Hash for Watched {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.condition.hash(state);
    }
}

impl fmt::Display for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.condition.fmt(f)
    }
}

impl PhysicalExpr for Watched {
    fn evaluate(&self, rows: &RecordBatch) -> Result<ColumnarValue> {
        if !self.compared.fetch_add(1, Ordering::Relaxed).is_multiple_of(LOOKS_UP_EVERY) {
            return self.condition.evaluate(rows);
        }
        self.until.check()?;
        // Whoever waits for this thread gets another one.
        block_in_place(|| self.condition.evaluate(rows))
    }

    fn return_field(&self, schema: &Schema) -> Result<FieldRef> {
        self.condition.return_field(schema)
    }

    fn data_type(&self, schema: &Schema) -> Result<DataType> {
        self.condition.data_type(schema)
    }

    fn nullable(&self, schema: &Schema) -> Result<bool> {
        self.condition.nullable(schema)
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        vec![&self.condition]
    }

    fn with_new_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn PhysicalExpr>>,
    ) -> Result<Arc<dyn PhysicalExpr>> {
        let condition = children.pop().unwrap_or_else(|| Arc::clone(&self.condition));
        let compared = AtomicU32::new(0);
        Ok(Arc::new(Watched { condition, until: self.until.clone(), compared }))
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.condition.fmt_sql(f)
    }
}
