//! Arguments that several commands share: a broker, a lake, a topic to work on.

pub mod kafka;
pub mod lake;
pub mod target;
