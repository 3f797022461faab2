//! An event in its own small typed form, before any encoding.
//!
//! **Invariant:** fields stand in the order of their schema, objects have sorted names, and what is
//! absent isn't there: no nulls.

use aion_schemas::log::Timestamp;
use uuid::Uuid;

/// The topics that a life fills.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Topic {
    /// What the router chose for each task.
    Decisions,
    /// What then became of the task.
    Tasks,
    /// Measurements of the components.
    Metrics,
    /// Administrative changes.
    Audit,
}

impl Topic {
    /// Every topic, in the catalog's order.
    pub const ALL: [Topic; 4] = [Topic::Decisions, Topic::Tasks, Topic::Metrics, Topic::Audit];

    /// The topic's full name.
    pub const fn name(self) -> &'static str {
        match self {
            Topic::Decisions => "aion.router.decisions",
            Topic::Tasks => "aion.tasks.lifecycle",
            Topic::Metrics => "aion.metrics.runtime",
            Topic::Audit => "aion.audit.activity",
        }
    }

    /// The table that the topic lands in; accepted as a short name of it.
    pub const fn table(self) -> &'static str {
        match self {
            Topic::Decisions => "decisions",
            Topic::Tasks => "tasks",
            Topic::Metrics => "metrics",
            Topic::Audit => "audit",
        }
    }

    /// The field whose value is the message's key.
    pub const fn key_field(self) -> &'static str {
        match self {
            Topic::Decisions | Topic::Tasks => "task_id",
            Topic::Metrics => "component",
            Topic::Audit => "actor_id",
        }
    }

    /// Its place in [`Topic::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }
}

/// One field's value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A text that is the same in many events.
    Word(&'static str),
    /// A word with a number of at least three digits after it: `tenant-007`.
    Numbered(&'static str, u32),
    /// An identifier, in hyphenated lower case.
    Id(Uuid),
    /// A whole number.
    Integer(i64),
    /// A number with up to six decimals, held in millionths so that its text is exact.
    Millionths(i64),
    /// True or false.
    Boolean(bool),
    /// A time: RFC 3339 with microseconds where it becomes text.
    Time(Timestamp),
    /// A flat object with sorted names.
    Object(Fields),
}

/// Values by name.
pub type Fields = Vec<(&'static str, Value)>;

/// One event: a message's content before it has an encoding.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Where it goes.
    pub topic: Topic,
    /// When it happened: the value of its field `timestamp`.
    pub time: Timestamp,
    /// Its fields.
    pub fields: Fields,
}

impl Event {
    /// The value of a field, if the event has it.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.fields.iter().find(|(field, _)| *field == name).map(|(_, value)| value)
    }

    /// Appends the message's key to `out`: the text of the topic's key field.
    pub fn write_key(&self, out: &mut Vec<u8>) {
        if let Some(key) = self.get(self.topic.key_field()) {
            super::json::push_bare(out, key);
        }
    }
}
