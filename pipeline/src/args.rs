//! Arguments that several commands share: a broker, a lake, jobs, a topic to work on.

pub mod jobs;
pub mod kafka;
pub mod lake;
pub mod target;
