//! Where the files of a catalog come from: compiled in, or a folder.

use std::{fs, io, path::Path};

/// The files that are compiled in, by their path below `schemas/`.
pub(super) const BUILTIN: &[(&str, &str)] = &[
    ("catalog.toml", include_str!("../../catalog.toml")),
    ("events/audit_activity.schema.json", include_str!("../../events/audit_activity.schema.json")),
    (
        "events/metrics_runtime.schema.json",
        include_str!("../../events/metrics_runtime.schema.json"),
    ),
    (
        "events/router_decision.schema.json",
        include_str!("../../events/router_decision.schema.json"),
    ),
    (
        "events/tasks_lifecycle.schema.json",
        include_str!("../../events/tasks_lifecycle.schema.json"),
    ),
    ("internal/command.schema.json", include_str!("../../internal/command.schema.json")),
    ("internal/dead_letter.schema.json", include_str!("../../internal/dead_letter.schema.json")),
    ("internal/gap.schema.json", include_str!("../../internal/gap.schema.json")),
    (
        "internal/operator_decision.schema.json",
        include_str!("../../internal/operator_decision.schema.json"),
    ),
    (
        "internal/webhook_attempt.schema.json",
        include_str!("../../internal/webhook_attempt.schema.json"),
    ),
    (
        "internal/webhook_dead_letter.schema.json",
        include_str!("../../internal/webhook_dead_letter.schema.json"),
    ),
    ("samples/audit_activity.jsonl", include_str!("../../samples/audit_activity.jsonl")),
    ("samples/metrics_runtime.jsonl", include_str!("../../samples/metrics_runtime.jsonl")),
    ("samples/router_decision.jsonl", include_str!("../../samples/router_decision.jsonl")),
    ("samples/tasks_lifecycle.jsonl", include_str!("../../samples/tasks_lifecycle.jsonl")),
];

/// A set of files laid out like `schemas/`.
pub(super) enum Source<'a> {
    /// The files that are compiled in.
    Builtin,
    /// A folder.
    Folder(&'a Path),
}

impl Source<'_> {
    /// The text of the file at that path below the top.
    pub(super) fn read(&self, path: &str) -> io::Result<String> {
        match self {
            Source::Builtin => BUILTIN
                .iter()
                .find(|(name, _)| *name == path)
                .map(|(_, text)| (*text).to_owned())
                .ok_or_else(|| io::ErrorKind::NotFound.into()),
            Source::Folder(dir) => fs::read_to_string(dir.join(path)),
        }
    }

    /// The file's name for a message.
    pub(super) fn show(&self, path: &str) -> String {
        match self {
            Source::Builtin => format!("schemas/{path}"),
            Source::Folder(dir) => dir.join(path).display().to_string(),
        }
    }
}
