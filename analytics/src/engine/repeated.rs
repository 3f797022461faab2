//! Searches in text of few different values are made once for each value of a batch, not for each row.
//!
//! Parquet keeps such a column as a dictionary, and what is read of it are views of 16 bytes: rows of a page that have one value have
//! one view. Two views of an array that are equal bit by bit are the same place in the same buffer, or the same short text.
//!
//! **Invariant:** files and pages are left out by such a condition as before: whoever looks for its bounds asks for its snapshot, and
//! gets the condition itself.
//! **Invariant:** `explain analyze` shows which searches are made so: as `once(..)`.
//! Deliberately absent: `=`, `<>` and `in`, which look at a view and rarely at its text.

use std::{
    fmt,
    hash::{Hash, Hasher},
    sync::Arc,
};

use arrow::{
    array::{Array, AsArray, StringViewArray, UInt32Array},
    compute::{take, take_record_batch},
    datatypes::{DataType, FieldRef, Schema},
    record_batch::RecordBatch,
};
use datafusion::{
    common::{
        Result,
        tree_node::{Transformed, TreeNode, TreeNodeRecursion},
    },
    logical_expr::{ColumnarValue, Operator},
    physical_expr::{
        PhysicalExpr,
        expressions::{BinaryExpr, Column, LikeExpr},
        utils::collect_columns,
    },
    physical_expr_common::physical_expr::{is_volatile, snapshot_generation},
    physical_plan::ExecutionPlan,
};

use super::conditions::with_conditions;

/// So many rows have one value at least, or it isn't worth it.
const REPEATS: usize = 8;
/// No group yet.
const NONE: u32 = u32::MAX;

/// The plan with such searches replaced in what Parquet's reader filters by.
pub(super) fn searched_once(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    with_conditions(plan, replaced)
}

fn replaced(condition: &Arc<dyn PhysicalExpr>, schema: &Schema) -> Result<Arc<dyn PhysicalExpr>> {
    let replaced = Arc::clone(condition).transform_down(|part| {
        if !is_search(&part, schema)? {
            return Ok(Transformed::no(part));
        }
        Ok(Transformed::new(SearchedOnce::placed(part), true, TreeNodeRecursion::Jump))
    });
    replaced.map(|condition| condition.data)
}

/// Whether a part searches one text column, and gives the same for the same text while the query runs.
fn is_search(part: &Arc<dyn PhysicalExpr>, schema: &Schema) -> Result<bool> {
    let Some(column) = only_column(part) else { return Ok(false) };
    let is_text = schema
        .field_with_name(column.name())
        .is_ok_and(|field| *field.data_type() == DataType::Utf8View);
    if !is_text || is_volatile(part) || snapshot_generation(part) != 0 {
        return Ok(false);
    }
    part.exists(|one| {
        let is_match = one.downcast_ref::<BinaryExpr>().is_some_and(is_match);
        Ok(is_match || one.is::<LikeExpr>())
    })
}

fn is_match(comparison: &BinaryExpr) -> bool {
    use Operator::{RegexIMatch, RegexMatch, RegexNotIMatch, RegexNotMatch};
    matches!(comparison.op(), RegexMatch | RegexIMatch | RegexNotMatch | RegexNotIMatch)
}

fn only_column(part: &Arc<dyn PhysicalExpr>) -> Option<Column> {
    let mut columns = collect_columns(part).into_iter();
    let first = columns.next()?;
    columns.next().is_none().then_some(first)
}

/// A condition on one column.
#[derive(Debug)]
struct SearchedOnce {
    condition: Arc<dyn PhysicalExpr>,
    column: usize,
}

impl SearchedOnce {
    /// In place of a condition; that itself where it isn't on one column, as that of a file without it.
    fn placed(condition: Arc<dyn PhysicalExpr>) -> Arc<dyn PhysicalExpr> {
        match only_column(&condition) {
            Some(column) => Arc::new(SearchedOnce { condition, column: column.index() }),
            None => condition,
        }
    }
}

impl PartialEq for SearchedOnce {
    fn eq(&self, other: &SearchedOnce) -> bool {
        self.condition.eq(&other.condition)
    }
}

impl Eq for SearchedOnce {}

impl Hash for SearchedOnce {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.condition.hash(state);
    }
}

impl fmt::Display for SearchedOnce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "once({})", self.condition)
    }
}

impl PhysicalExpr for SearchedOnce {
    fn evaluate(&self, rows: &RecordBatch) -> Result<ColumnarValue> {
        let texts = rows.columns().get(self.column).and_then(AsArray::as_string_view_opt);
        let Some((firsts, groups)) = texts.and_then(groups) else {
            return self.condition.evaluate(rows);
        };
        let firsts = take_record_batch(rows, &firsts)?;
        let found = self.condition.evaluate(&firsts)?.into_array(firsts.num_rows())?;
        Ok(ColumnarValue::Array(take(&found, &groups, None)?))
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
        Ok(SearchedOnce::placed(condition))
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.condition.fmt_sql(f)
    }

    fn snapshot(&self) -> Result<Option<Arc<dyn PhysicalExpr>>> {
        Ok(Some(Arc::clone(&self.condition)))
    }
}

/// The first row of each value and, for each row, the place of its value among them; `None` where few rows have the same.
fn groups(texts: &StringViewArray) -> Option<(UInt32Array, UInt32Array)> {
    let most = texts.len() / REPEATS;
    let (mut firsts, mut groups) = (Vec::<u32>::new(), Vec::with_capacity(texts.len()));
    // A table of groups by a view's hash; one that is taken by another view has the next free slot. Half of them stay free.
    let mut slots = vec![NONE; (2 * most).next_power_of_two()];
    let mask = slots.len() - 1;
    let mut of_nulls = NONE;
    for (row, view) in texts.views().iter().enumerate() {
        let slot = if texts.is_null(row) {
            &mut of_nulls
        } else {
            // A view's halves are a length and a beginning, a buffer and a place in it; the factor spreads their low bits.
            let mixed = (*view as u64 ^ (*view >> 64) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let mut at = (mixed >> 40) as usize & mask;
            let is_other = |group: u32| texts.views()[firsts[group as usize] as usize] != *view;
            while slots[at] != NONE && is_other(slots[at]) {
                at = (at + 1) & mask;
            }
            &mut slots[at]
        };
        if *slot == NONE {
            if firsts.len() >= most {
                return None;
            }
            *slot = firsts.len() as u32;
            firsts.push(row as u32);
        }
        groups.push(*slot);
    }
    (most > 0).then(|| (UInt32Array::from(firsts), UInt32Array::from(groups)))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use arrow::{
        array::{ArrayRef, Int64Array},
        datatypes::Field,
    };
    use datafusion::{
        common::DFSchema,
        datasource::{
            physical_plan::{FileScanConfigBuilder, FileSource, ParquetSource},
            source::DataSourceExec,
        },
        execution::{context::SessionContext, object_store::ObjectStoreUrl},
        physical_expr::planner::logical2physical,
        physical_plan::displayable,
        prelude::{col, lit},
        scalar::ScalarValue,
    };

    use super::*;

    fn schema() -> Arc<Schema> {
        let field = |name: &str, kind| Field::new(name, kind, true);
        Arc::new(Schema::new(vec![
            field("size", DataType::Int64),
            field("reason", DataType::Utf8View),
        ]))
    }

    fn condition(text: &str) -> Arc<dyn PhysicalExpr> {
        let schema = DFSchema::try_from(schema()).unwrap();
        let context = SessionContext::new();
        let parsed = context.parse_sql_expr(text, &schema).unwrap();
        context.create_physical_expr(parsed, &schema).unwrap()
    }

    /// So many rows, each value in turn, as a page with a dictionary gives them.
    fn repeated(values: &StringViewArray, rows: u32) -> ArrayRef {
        let places = (0..rows).map(|row| row % values.len() as u32);
        take(values, &UInt32Array::from_iter_values(places), None).unwrap()
    }

    #[test]
    fn answers_are_those_of_each_row() {
        let values = StringViewArray::from(vec![
            Some("budget"),
            None,
            Some(""),
            Some("the budget of the tenant is used up"),
            Some("the budget of the tenant is USED UP"),
        ]);
        let others = StringViewArray::from_iter_values((0..999).map(|n| format!("a budget: {n}")));
        let few = [0, 1, 39, 40, 8192].map(|rows| repeated(&values, rows));
        let parts = few.iter().map(|texts| texts.slice(texts.len() / 3, texts.len() / 2));
        for texts in parts.chain(few.clone()).chain([repeated(&others, 999)]) {
            let sizes = Int64Array::from_iter_values(0..texts.len() as i64);
            let rows = RecordBatch::try_new(schema(), vec![Arc::new(sizes), texts]).unwrap();
            for text in [
                "reason like '%budget%'",
                "reason not like '%budget%'",
                "reason ilike '%used up'",
                "reason ~ 'b.dget$'",
                "reason like '%budget%' and reason <> 'budget'",
                "reason like '%budget%' or reason is null",
                "reason like '%budget%' or size > 50",
            ] {
                let plain = condition(text);
                let replaced = replaced(&plain, &schema()).unwrap();
                assert!(format!("{replaced:?}").contains("SearchedOnce"), "{text}");
                let [answer, expected] = [replaced, plain]
                    .map(|one| one.evaluate(&rows).unwrap().into_array(rows.num_rows()).unwrap());
                assert_eq!(&answer, &expected, "{text}");
            }
        }
    }

    /// Else the test before compares a condition with itself.
    #[test]
    fn few_values_are_few_groups() {
        let groups_of = |count: u32| {
            let values = (0..count).map(|n| format!("a text of number {n}"));
            groups(repeated(&StringViewArray::from_iter_values(values), 8000).as_string_view())
        };
        let (firsts, groups) = groups_of(3).unwrap();
        assert_eq!(firsts.values()[..], [0, 1, 2]);
        assert_eq!((groups.len(), &groups.values()[..4]), (8000, &[0, 1, 2, 0][..]));
        assert_eq!(groups_of(1000).unwrap().0.len(), 1000);
        assert!(groups_of(1001).is_none());
    }

    #[test]
    fn what_is_no_search_of_one_text_stays() {
        let random = "concat(reason, uuid()) like '%5%'";
        let of_two = "concat(reason, cast(size as varchar)) like '%5%'";
        for text in ["reason = 'budget'", "reason is null", "size > 5", random, of_two] {
            let plain = condition(text);
            assert!(Arc::ptr_eq(&replaced(&plain, &schema()).unwrap(), &plain), "{text}");
        }
    }

    #[test]
    fn files_are_left_out_as_before() {
        let pattern = lit(ScalarValue::Utf8View(Some("budget%".to_owned())));
        let condition = col("reason").like(pattern).and(col("size").gt(lit(5_i64)));
        let condition = logical2physical(&condition, &schema());
        let source = Arc::new(ParquetSource::new(schema()).with_predicate(condition));
        let place = ObjectStoreUrl::local_filesystem();
        let config = FileScanConfigBuilder::new(place, source).build();
        let plain: Arc<dyn ExecutionPlan> = DataSourceExec::from_data_source(config);
        let replaced = searched_once(Arc::clone(&plain)).unwrap();
        let scan = replaced.downcast_ref::<DataSourceExec>().unwrap();
        let (_, source) = scan.downcast_to_file_source::<ParquetSource>().unwrap();
        assert!(format!("{:?}", source.filter()).contains("SearchedOnce"));
        // The bounds by which they are left out are shown beside what they come from.
        let [plain, replaced] =
            [plain, replaced].map(|plan| displayable(plan.as_ref()).indent(false).to_string());
        assert!(plain.contains("reason_max@") && plain.contains("size_max@"), "{plain}");
        let search = "reason@1 LIKE budget%";
        assert_eq!(replaced, plain.replacen(search, &format!("once({search})"), 1));
    }
}
