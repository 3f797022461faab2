//! Topic configurations: which are known, what they may be, and which of them act here.
//!
//! Known ones that a single node without replicas, compaction or conversion has no use for are kept
//! and described, so that a tool written for a production cluster reads back what it set.

use std::collections::BTreeMap;

/// One configuration a topic may have.
pub(crate) struct Known {
    pub(crate) name: &'static str,
    default: &'static str,
    kind: Kind,
}

enum Kind {
    Bool,
    Int(i64),
    Long(i64),
    Ratio,
    OneOf(&'static [&'static str]),
    Some(&'static [&'static str]),
}

use Kind::{Bool, Int, Long, OneOf, Ratio, Some as AnyOf};

const fn known(name: &'static str, default: &'static str, kind: Kind) -> Known {
    Known { name, default, kind }
}

const SEGMENT_BYTES: &str = "segment.bytes";

/// All of them, by name. The number in `Int` and `Long` is the least value.
pub(crate) const KNOWN: &[Known] = &[
    known("cleanup.policy", "delete", AnyOf(&["compact", "delete"])),
    known(
        "compression.type",
        "producer",
        OneOf(&["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"]),
    ),
    known("delete.retention.ms", "86400000", Long(0)),
    known("file.delete.delay.ms", "60000", Long(0)),
    known("flush.messages", "9223372036854775807", Long(1)),
    known("flush.ms", "9223372036854775807", Long(0)),
    known("index.interval.bytes", "4096", Int(0)),
    known("max.compaction.lag.ms", "9223372036854775807", Long(1)),
    known("max.message.bytes", "1048588", Int(0)),
    known("message.timestamp.after.max.ms", "3600000", Long(0)),
    known("message.timestamp.before.max.ms", "9223372036854775807", Long(0)),
    known("message.timestamp.type", "CreateTime", OneOf(&["CreateTime", "LogAppendTime"])),
    known("min.cleanable.dirty.ratio", "0.5", Ratio),
    known("min.compaction.lag.ms", "0", Long(0)),
    known("min.insync.replicas", "1", Int(1)),
    known("preallocate", "false", Bool),
    known("retention.bytes", "-1", Long(-1)),
    known("retention.ms", "604800000", Long(-1)),
    known(SEGMENT_BYTES, "", Int(1_024)),
    known("segment.index.bytes", "10485760", Int(4)),
    known("segment.jitter.ms", "0", Long(0)),
    known("segment.ms", "604800000", Long(1)),
    known("unclean.leader.election.enable", "false", Bool),
];

impl Known {
    /// The value of a topic that doesn't set it.
    pub(crate) fn default(&self, segment_bytes: u64) -> String {
        match self.name {
            SEGMENT_BYTES => segment_bytes.to_string(),
            _ => self.default.to_owned(),
        }
    }

    /// The type's number in a description of configurations.
    pub(crate) fn wire_type(&self) -> i8 {
        match self.kind {
            Bool => 1,
            OneOf(_) => 2,
            Int(_) => 3,
            Long(_) => 5,
            Ratio => 6,
            AnyOf(_) => 7,
        }
    }

    /// Whether the value is a list, to which one can append.
    pub(crate) fn is_list(&self) -> bool {
        matches!(self.kind, AnyOf(_))
    }

    fn check(&self, value: &str) -> Result<(), String> {
        let integer = |least: i64, most: i64| {
            let number = value.parse().ok().filter(|number| (least..=most).contains(number));
            number.map(drop).ok_or(format!("an integer of at least {least}"))
        };
        let wanted = match self.kind {
            Bool if matches!(value, "true" | "false") => return Ok(()),
            Bool => "true or false".to_owned(),
            Int(least) => match integer(least, i64::from(i32::MAX)) {
                Ok(()) => return Ok(()),
                Err(wanted) => wanted,
            },
            Long(least) => match integer(least, i64::MAX) {
                Ok(()) => return Ok(()),
                Err(wanted) => wanted,
            },
            Ratio if value.parse().is_ok_and(|n: f64| (0.0..=1.0).contains(&n)) => return Ok(()),
            Ratio => "a number from 0 to 1".to_owned(),
            OneOf(choices) if choices.contains(&value) => return Ok(()),
            OneOf(choices) => format!("one of {}", choices.join(", ")),
            AnyOf(choices) if value.split(',').all(|v| choices.contains(&v.trim())) => {
                return Ok(());
            }
            AnyOf(choices) => format!("a list of {}", choices.join(", ")),
        };
        Err(format!("{} is {value:?}, but must be {wanted}", self.name))
    }
}

/// Finds a configuration by name.
pub(crate) fn find(name: &str) -> Result<&'static Known, String> {
    let found = KNOWN.iter().find(|known| known.name == name);
    found.ok_or_else(|| format!("unknown topic configuration {name:?}"))
}

/// What a topic's configurations mean for its logs.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    pub(crate) max_message_bytes: u64,
    pub(crate) append_time: bool,
    pub(crate) segment_bytes: u64,
    pub(crate) segment_ms: i64,
    /// Whether old segments are deleted at all: not with `cleanup.policy=compact`.
    pub(crate) deletes: bool,
    pub(crate) retention_ms: Option<i64>,
    pub(crate) retention_bytes: Option<u64>,
    before_max_ms: i64,
    after_max_ms: i64,
}

impl Rules {
    /// Checks what was set for a topic, and fills in the rest.
    pub(crate) fn new(set: &BTreeMap<String, String>, segment_bytes: u64) -> Result<Rules, String> {
        for (name, value) in set {
            find(name)?.check(value)?;
        }
        let text = |name: &str| -> Result<String, String> {
            let default = || Ok(find(name)?.default(segment_bytes));
            set.get(name).cloned().map_or_else(default, Ok)
        };
        let number = |name: &str| -> Result<i64, String> {
            text(name)?.parse().map_err(|_| format!("{name} is no number"))
        };
        Ok(Rules {
            max_message_bytes: number("max.message.bytes")? as u64,
            append_time: text("message.timestamp.type")? == "LogAppendTime",
            segment_bytes: number(SEGMENT_BYTES)? as u64,
            segment_ms: number("segment.ms")?,
            deletes: text("cleanup.policy")?.contains("delete"),
            retention_ms: Some(number("retention.ms")?).filter(|limit| *limit >= 0),
            retention_bytes: u64::try_from(number("retention.bytes")?).ok(),
            before_max_ms: number("message.timestamp.before.max.ms")?,
            after_max_ms: number("message.timestamp.after.max.ms")?,
        })
    }

    /// Whether a producer's timestamps are near enough to the broker's clock.
    pub(crate) fn takes(&self, least: i64, greatest: i64, now: i64) -> bool {
        least == -1
            || (now.saturating_sub(least) <= self.before_max_ms
                && greatest.saturating_sub(now) <= self.after_max_ms)
    }
}
