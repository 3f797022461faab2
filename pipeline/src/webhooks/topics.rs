//! The engine's own topics and its group.

/// Cursors, compacted.
pub const CURSORS: &str = aion_schemas::catalog::WEBHOOK_CURSORS;
/// What operators ask for, and births.
pub const CONTROL: &str = aion_schemas::catalog::WEBHOOK_CONTROL;
/// Every attempt.
pub const ATTEMPTS: &str = "aion.webhooks.attempts";
/// What could not be delivered.
pub const DEAD_LETTERS: &str = "aion.webhooks.dead-letters";
/// The consumer group, whose members share the partitions.
pub const GROUP: &str = "aion-webhooks";
