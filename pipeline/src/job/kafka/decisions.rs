//! What a person has decided about a partition: the last word in `aion.operator-decisions`.

use aion_kafka::{Admin, Connection, Error};
use aion_schemas::catalog::DECISIONS;

use crate::{job::appeal::Decision, small_topic};

/// The newest decision under a key; none where nobody has decided, where what is there isn't understood, or there
/// is no such topic. The topic is compacted and small: it is read as a whole.
pub(super) fn newest(
    connection: &Connection,
    admin: &Admin,
    key: &str,
) -> Result<Option<Decision>, Error> {
    let mut newest = None;
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
    Ok(newest)
}
