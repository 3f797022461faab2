//! One statement: from its text to what is carried out.

use std::sync::Arc;

use aion_schemas::suggest::nearest;
use datafusion::{
    common::{
        ParamValues,
        tree_node::{TreeNode, TreeNodeRecursion},
    },
    error::{DataFusionError, Result as PlanResult},
    execution::{
        SessionState, SessionStateBuilder, TaskContext,
        context::{SQLOptions, SessionContext},
    },
    logical_expr::{Expr, LogicalPlan},
    physical_plan::ExecutionPlan,
};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::{Description, conditions::Failures, depth, watched::Until};
use crate::{
    control::Outside,
    error::{Bounds, Error, explain},
    memory::{Limits, Makings},
    parameters::filled_in,
    stored::Sources,
    tables::{QueryTables, Tables},
};

/// One statement, before it is planned.
pub(super) struct Query {
    pub(super) state: SessionState,
    pub(super) sources: Sources,
    pub(super) tables: Arc<Tables>,
    pub(super) outside: Outside,
    pub(super) bounds: Bounds,
    pub(super) turns: Arc<Semaphore>,
    pub(super) stopping: CancellationToken,
    pub(super) failures: Failures,
    pub(super) sql: String,
    pub(super) parameters: Option<ParamValues>,
}

impl Query {
    /// What the statement needs and gives; nothing of it is carried out.
    pub(super) async fn describe(&self) -> Result<Description, Error> {
        let (_, plan) = self.logical().await?;
        let named = plan.get_parameter_types().map_err(|cause| self.explain(cause, None))?;
        let places = named.keys().filter_map(|name| name.strip_prefix('$')?.parse().ok());
        let count = places.max().unwrap_or(0);
        let parameter = |place: usize| named.get(&format!("${place}")).cloned().flatten();
        Ok(Description {
            parameters: (1..=count).map(parameter).collect(),
            columns: Arc::new(plan.schema().as_arrow().clone()),
        })
    }

    /// Plans the statement over tables of its own, down to what is carried out.
    pub(super) async fn physical(
        &self,
        until: &Until,
    ) -> Result<(Arc<dyn ExecutionPlan>, Arc<TaskContext>), Error> {
        let explain = |cause| self.explain(cause, None);
        let (context, plan) = self.logical().await?;
        let frame = context.execute_logical_plan(plan).await.map_err(explain)?;
        let (state, plan) = frame.into_parts();
        // Before, for what is worked out here of constants; and after, since some calls are then replaced by others.
        let makings = self.makings(&state, until);
        let plan = makings.within(plan).map_err(explain)?;
        let plan = state.optimize(&plan).and_then(|plan| makings.within(plan)).map_err(explain)?;
        let state = self.with_rows_at_once(state, &plan).map_err(explain)?;
        let planned = state.query_planner().create_physical_plan(&plan, &state).await;
        Ok((planned.map_err(explain)?, Arc::new(TaskContext::from(&state))))
    }

    fn makings(&self, state: &SessionState, until: &Until) -> Makings {
        let until = until.clone();
        let pool = Arc::clone(&state.runtime_env().memory_pool);
        Makings {
            at_once_bytes: Limits::of(self.bounds.memory_bytes).at_once_bytes as u64,
            counted: Some((Arc::clone(&self.sources.holdings), pool)),
            looks_up: Some(Arc::new(move || until.check())),
        }
    }

    /// Fewer rows at once where the statement has long constants: each may be written down for each row.
    fn with_rows_at_once(
        &self,
        state: SessionState,
        plan: &LogicalPlan,
    ) -> PlanResult<SessionState> {
        let mut longest = 0;
        plan.apply_with_subqueries(|node| {
            node.apply_expressions(|expression| {
                expression.apply(|one| {
                    if let Expr::Literal(value, _) = one {
                        longest = longest.max(value.size());
                    }
                    Ok(TreeNodeRecursion::Continue)
                })
            })
        })?;
        let config = state.config();
        let fit = Limits::of(self.bounds.memory_bytes).at_once_bytes / longest.max(1);
        if fit >= config.batch_size() {
            return Ok(state);
        }
        let config = config.clone().with_batch_size(fit.max(1));
        Ok(SessionStateBuilder::new_from_existing(state).with_config(config).build())
    }

    /// The statement's plan, which passed the check, and where it runs.
    async fn logical(&self) -> Result<(SessionContext, LogicalPlan), Error> {
        depth::check(&self.sql)?;
        let tables = self
            .tables
            .for_query(&self.state, &self.sources, &self.outside)
            .map(Arc::new)
            .map_err(|cause| self.explain(cause, None))?;
        let context = self.context(&tables).map_err(|cause| self.explain(cause, None))?;
        let plan = context
            .state()
            .create_logical_plan(&self.sql)
            .await
            .map_err(|cause| self.explain(cause, Some(&tables)))?;
        let plan = match &self.parameters {
            Some(values) => filled_in(plan, values),
            None => Ok(plan),
        };
        let plan = plan.map_err(|cause| self.explain(cause, None))?;
        // The plan is checked before anything of it is carried out.
        read_only().verify_plan(&plan).map_err(|cause| refused(&cause.message()))?;
        Ok((context, plan))
    }

    fn context(&self, tables: &Arc<QueryTables>) -> PlanResult<SessionContext> {
        Ok(SessionContext::new_with_state(tables.session(&self.state)?))
    }

    pub(super) fn explain(&self, cause: DataFusionError, tables: Option<&QueryTables>) -> Error {
        // The planner looks for a table before it takes `range(..)` for a function.
        let is_no_function = |name: &String| !self.state.table_functions().contains_key(name);
        if let Some(name) = tables.and_then(QueryTables::missing).filter(is_no_function) {
            let names = || self.tables.infos().iter().map(|table| table.name.as_str());
            return Error::UnknownTable {
                near: nearest(&name, names()).map(str::to_owned),
                tables: names().map(str::to_owned).collect(),
                name,
            };
        }
        explain(&self.failures.behind(cause), &self.bounds)
    }
}

fn read_only() -> SQLOptions {
    SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false)
}

/// From `DDL not supported: DropTable` to what was refused.
fn refused(message: &str) -> Error {
    let what = message.lines().next().unwrap_or_default().replace(" not supported: ", " ");
    Error::ReadOnly { what: format!("{what} is refused") }
}
