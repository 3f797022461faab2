//! What a person has decided about a partition: the last word in `aion.operator-decisions`.

use aion_kafka::{Admin, Connection, Error};
use aion_schemas::{catalog::DECISIONS, log::Offset};
use serde::Deserialize;

use crate::small_topic;

/// The part of a decision that is heeded.
#[derive(Deserialize)]
struct Decision {
    decision: String,
    below: i64,
}

/// The offset below which what is rejected was accepted, by the newest decision under a key; none where
/// nobody has decided so, or there is no such topic. The topic is compacted and small: it is read as a whole.
pub(super) fn accepted_below(
    connection: &Connection,
    admin: &Admin,
    key: &str,
) -> Result<Option<Offset>, Error> {
    let mut newest: Option<Decision> = None;
    small_topic::each(
        connection,
        admin,
        DECISIONS,
        |_, _| None,
        |record| {
            if record.key == Some(key.as_bytes()) {
                newest = record.value.and_then(|value| serde_json::from_slice(value).ok());
            }
        },
    )?;
    let accepted = newest.filter(|decision| decision.decision == "accept");
    Ok(accepted.map(|decision| Offset(decision.below)))
}
