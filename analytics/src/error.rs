//! What can go wrong with a query, said for the person who typed it.

use std::{fmt::Write, iter::successors, time::Duration};

use aion_schemas::suggest::nearest;
use arrow::{datatypes::DataType, error::ArrowError};
use datafusion::{
    common::{Column, SchemaError},
    error::DataFusionError,
};

/// Why a query, or opening the lake, failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The lake isn't where it was said to be, or can't be used.
    #[error("open lake {lake}: {cause}")]
    Open {
        /// Its URL.
        lake: String,
        /// What is the matter.
        cause: String,
    },
    /// The statement would change something.
    #[error("{what}: this is read-only; ask with select, show, describe or explain")]
    ReadOnly {
        /// What kind of statement it was.
        what: String,
    },
    /// There is no table of that name.
    #[error("no table `{name}`{}{}", did_you_mean(near.as_ref()), there_are("tables", tables))]
    UnknownTable {
        /// The name as asked for.
        name: String,
        /// The nearest name that exists, where one is near.
        near: Option<String>,
        /// All names that exist.
        tables: Vec<String>,
    },
    /// There is no column of that name.
    #[error("no column `{name}`{}{}", did_you_mean(near.as_ref()), there_are("columns", columns))]
    UnknownColumn {
        /// The name as asked for.
        name: String,
        /// The nearest name that exists, where one is near.
        near: Option<String>,
        /// All names that exist at that place.
        columns: Vec<String>,
    },
    /// The statement isn't SQL.
    #[error("{0}")]
    Syntax(String),
    /// The statement means nothing.
    #[error("{0}")]
    Query(String),
    /// The statement met values that it can't work with.
    #[error("{0}")]
    Data(String),
    /// The statement means something that isn't there.
    #[error("{0}")]
    Unsupported(String),
    /// The query wanted more memory than it may have.
    #[error(
        "the query needs more than the {} MiB of memory it may have ({cause}); {}",
        limit_bytes >> 20, asker.advice("memory_mib", "--memory")
    )]
    Memory {
        /// The bound.
        limit_bytes: usize,
        /// Which part of the plan ran out.
        cause: String,
        /// Who can allow more.
        asker: Asker,
    },
    /// The query wanted more temporary files than it may have.
    #[error(
        "the query needs more than the {} MiB of temporary files it may have; {}",
        limit_bytes >> 20, asker.advice("spill_mib", "--spill")
    )]
    Spill {
        /// The bound.
        limit_bytes: u64,
        /// Who can allow more.
        asker: Asker,
    },
    /// The query's temporary files can't be written.
    #[error(
        "the query needs temporary files, and {} doesn't take them: {cause}; make room there, or name another folder by TMPDIR",
        std::env::temp_dir().display()
    )]
    TemporaryFiles {
        /// Why not.
        cause: String,
    },
    /// The query took longer than it may.
    #[error("the query was stopped after {limit:?}; {}", asker.advice("timeout_s", "--timeout"))]
    Deadline {
        /// The bound.
        limit: Duration,
        /// Who can allow more.
        asker: Asker,
    },
    /// Stored data couldn't be read.
    #[error("read {what}: {cause}")]
    Read {
        /// What was being read.
        what: String,
        /// Why it failed.
        cause: String,
    },
    /// The process that was asked is stopping.
    #[error("the process is stopping; ask again once it runs")]
    Stopping,
    /// A defect of the engine.
    #[error("the query ended without an answer: {0}")]
    Internal(String),
}

/// Whose queries they are, and so where more is allowed them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Asker {
    /// People and tools that ask by SQL.
    #[default]
    Sql,
    /// Training exports.
    Exports,
    /// Audits.
    Audit,
}

impl Asker {
    /// What text columns are to them. Views copy no text in filters and groups, but a window holds all text that ever came
    /// to it, uncounted: not for exports, which read all columns of all rows.
    pub(crate) const fn text(self) -> DataType {
        match self {
            Asker::Exports => DataType::Utf8,
            Asker::Sql | Asker::Audit => DataType::Utf8View,
        }
    }

    /// What to do when a bound is met: `key` sets it in the configuration, and `option` where `aion sql` reads the lake itself.
    fn advice(self, key: &str, option: &str) -> String {
        match self {
            Asker::Sql => format!(
                "ask for less at once, such as fewer columns or a shorter time, or allow more: {key} of [sql], or \
                 {option} where aion sql reads the lake itself"
            ),
            Asker::Audit => "audit less at once: by --since, or by --topic".to_owned(),
            // Theirs is a day.
            Asker::Exports if key == "timeout_s" => "ask for a shorter interval".to_owned(),
            Asker::Exports => {
                format!("ask for a shorter interval, or allow more: {key} of [exports]")
            }
        }
    }
}

/// What the queries of an engine may use.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Bounds {
    pub(crate) memory_bytes: usize,
    pub(crate) spill_bytes: u64,
    pub(crate) deadline: Duration,
    pub(crate) asker: Asker,
}

impl Bounds {
    /// They took too long.
    pub(crate) fn too_late(&self) -> Error {
        Error::Deadline { limit: self.deadline, asker: self.asker }
    }
}

fn did_you_mean(near: Option<&String>) -> String {
    near.map_or_else(String::new, |name| format!("; did you mean `{name}`?"))
}

/// A second line with the names that exist, where any do.
fn there_are(what: &str, names: &[String]) -> String {
    if names.is_empty() { String::new() } else { format!("\n{what}: {}", names.join(", ")) }
}

/// Errors of ours travel through DataFusion's and come out again in `explain`.
impl From<Error> for DataFusionError {
    fn from(error: Error) -> DataFusionError {
        DataFusionError::External(Box::new(error))
    }
}

/// Turns DataFusion's error into one for people.
pub(crate) fn explain(error: &DataFusionError, bounds: &Bounds) -> Error {
    if let Some(own) = own(error) {
        return own;
    }
    match error.find_root() {
        DataFusionError::SchemaError(cause, _) => explain_schema(cause),
        DataFusionError::ResourcesExhausted(cause) => Error::Memory {
            limit_bytes: bounds.memory_bytes,
            cause: first_line(cause),
            asker: bounds.asker,
        },
        // Those of the lake come from its object store, or from Parquet: these are of sorts and groups that go to files.
        root @ DataFusionError::IoError(_) => explain_temporary(&root.message(), bounds),
        DataFusionError::ArrowError(cause, _) if matches!(**cause, ArrowError::IoError(..)) => {
            explain_temporary(&cause.to_string(), bounds)
        }
        root @ (DataFusionError::ObjectStore(_) | DataFusionError::ParquetError(_)) => {
            unreadable(&root.message())
        }
        // What a page of a file says, once its rows are made.
        DataFusionError::ArrowError(cause, _) if matches!(**cause, ArrowError::ParquetError(_)) => {
            unreadable(&cause.to_string())
        }
        DataFusionError::SQL(cause, _) => Error::Syntax(cause.to_string()),
        DataFusionError::ArrowError(cause, _) => Error::Data(cause.to_string()),
        root @ DataFusionError::NotImplemented(_) => {
            Error::Unsupported(root.message().into_owned())
        }
        root @ (DataFusionError::Internal(_) | DataFusionError::ExecutionJoin(_)) => {
            Error::Internal(first_line(&root.message()))
        }
        root => Error::Query(root.message().into_owned()),
    }
}

fn unreadable(cause: &str) -> Error {
    Error::Read { what: "the lake's files".into(), cause: cause.to_owned() }
}

/// As the engine says that temporary files together are longer than they may be.
const OVER_TEMPORARY: &str = "exceeded the allowable limit";

fn explain_temporary(cause: &str, bounds: &Bounds) -> Error {
    if cause.contains(OVER_TEMPORARY) {
        Error::Spill { limit_bytes: bounds.spill_bytes, asker: bounds.asker }
    } else {
        Error::TemporaryFiles { cause: first_line(cause) }
    }
}

/// An [`Error`] of ours that DataFusion wrapped, in contexts or shared between partitions.
fn own(error: &DataFusionError) -> Option<Error> {
    let first: &(dyn std::error::Error + 'static) = error;
    successors(Some(first), |one| one.source()).find_map(|one| one.downcast_ref::<Error>().cloned())
}

fn explain_schema(error: &SchemaError) -> Error {
    match error {
        SchemaError::FieldNotFound { field, valid_fields } => {
            let columns = shown(valid_fields);
            let name = field.name().to_owned();
            let near = nearest(&name, valid_fields.iter().map(Column::name));
            // An upper-case name that was written without quotes arrives in lower case, so a name
            // that differs in case only was quoted by the user; quoting is what the answer shows.
            Error::UnknownColumn { name, near: near.map(str::to_owned), columns }
        }
        other => Error::Query(other.to_string()),
    }
}

/// The names as they can be typed: with the table's only where two share a name.
fn shown(columns: &[Column]) -> Vec<String> {
    let twice = |name: &str| columns.iter().filter(|other| other.name() == name).count() > 1;
    columns
        .iter()
        .map(|column| match &column.relation {
            Some(table) if twice(column.name()) => {
                let mut text = table.table().to_owned();
                // Writing to a String can't fail.
                write!(text, ".{}", column.name()).ok();
                text
            }
            _ => column.name().to_owned(),
        })
        .collect()
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().trim_end_matches('.').to_owned()
}
