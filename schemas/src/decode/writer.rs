//! Writers: what is known of the schema that some payloads were written with.

use std::sync::Arc;

use super::{
    avro::{Incompatible, Plan},
    reject::{Reason, Reject},
};
use crate::schema::Schema;

/// How the payloads of one writer's schema are read into the columns of a contract, or why they can't
/// be. Made once for each schema id, cheap to clone; any number of decoders of that contract may have it.
#[derive(Clone, Debug)]
pub struct Writer(Result<Arc<Plan>, Arc<Reject>>);

impl Writer {
    /// A writer with that Avro schema, a JSON text; `references` are the texts of the schemas that it
    /// refers to by name. One that can't be read as the contract's is a writer too: its payloads are
    /// rejected as [`Reason::IncompatibleSchema`].
    pub fn new(contract: &Schema, schema: &str, references: &[String]) -> Writer {
        let plan = Plan::resolve(schema, references, &contract.fields);
        Writer(plan.map(Arc::new).map_err(|flaw: Incompatible| {
            Arc::new(Reject {
                reason: Reason::IncompatibleSchema,
                field: flaw.field().cloned(),
                detail: flaw.to_string(),
            })
        }))
    }

    /// A writer whose payloads are all rejected, whatever is in them; `detail` is cut to
    /// [`MAX_DETAIL_BYTES`](super::MAX_DETAIL_BYTES).
    pub fn refused(reason: Reason, mut detail: String) -> Writer {
        detail.truncate(detail.floor_char_boundary(super::MAX_DETAIL_BYTES));
        Writer(Err(Arc::new(Reject { reason, field: None, detail })))
    }

    /// Why its payloads are rejected; `None` if they are read.
    pub fn flaw(&self) -> Option<&Reject> {
        self.0.as_ref().err().map(|reject| &**reject)
    }

    pub(super) fn readable(plan: Arc<Plan>) -> Writer {
        Writer(Ok(plan))
    }

    pub(super) fn plan(&self) -> Result<&Plan, Reject> {
        match &self.0 {
            Ok(plan) => Ok(plan),
            Err(reject) => Err((**reject).clone()),
        }
    }
}
