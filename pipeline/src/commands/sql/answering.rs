//! Who answers: an engine of this process over stored rows, or a running process that has more.

use aion_analytics::{Answer, Engine, tables::TableInfo};
use arrow::{datatypes::SchemaRef, record_batch::RecordBatch};
use futures::TryStreamExt;

use super::remote::{self, Remote};

/// Who answers.
#[derive(Debug)]
pub(super) enum Answering {
    /// An engine here: stored rows.
    Here(Box<Engine>),
    /// A running process: stored rows, and those that its jobs have beyond them.
    There(Box<Remote>),
}

/// An answer.
pub(super) enum Rows {
    /// From an engine here.
    Here(Box<Answer>),
    /// From a running process.
    There(Box<remote::Rows>),
}

impl Answering {
    /// The tables that can be asked.
    pub(super) fn tables(&self) -> &[TableInfo] {
        match self {
            Answering::Here(engine) => engine.tables(),
            Answering::There(remote) => remote.tables(),
        }
    }

    /// Which rows answers are made of, in a sentence.
    pub(super) fn rows_are(&self) -> String {
        match self {
            Answering::Here(_) => "stored rows only: no running process was asked".to_owned(),
            Answering::There(remote) => {
                format!("live and stored rows, from the process at {}", remote.url())
            }
        }
    }

    /// Asks one statement.
    pub(super) async fn query(&self, sql: &str) -> anyhow::Result<Rows> {
        Ok(match self {
            Answering::Here(engine) => Rows::Here(Box::new(engine.query(sql).await?)),
            Answering::There(remote) => Rows::There(Box::new(remote.query(sql).await?)),
        })
    }
}

impl Rows {
    /// The columns.
    pub(super) fn schema(&self) -> anyhow::Result<SchemaRef> {
        match self {
            Rows::Here(answer) => Ok(SchemaRef::clone(answer.schema())),
            Rows::There(rows) => rows.schema(),
        }
    }

    /// The next rows; `None` at the end of a whole answer.
    pub(super) async fn next(&mut self) -> anyhow::Result<Option<RecordBatch>> {
        match self {
            Rows::Here(answer) => Ok(answer.try_next().await?),
            Rows::There(rows) => rows.next().await,
        }
    }
}
