//! Names that are good everywhere: Avro, SQL, column stores, Kafka.

/// The rule of [`is_plain`], as advice.
pub(crate) const NAME_RULE: &str =
    "use a-z, 0-9 and _, starting with a letter, at most 63 characters";

/// Whether a field, table or schema may have this name.
///
/// Lower case only, since some engines fold case and others don't; 63 is what SQL clients
/// keep; a leading `_` is for the columns that are added to every row.
pub(crate) fn is_plain(name: &str) -> bool {
    name.len() <= 63
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

/// Whether Avro takes it as the name of a field.
pub(crate) fn is_avro(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// Whether Kafka takes it as a topic's name.
pub(crate) fn is_topic(name: &str) -> bool {
    (1..=249).contains(&name.len())
        && name != "."
        && name != ".."
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}
